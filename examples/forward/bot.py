"""A bot in Python behind `handler.kind = "forward"`: pip install standardwebhooks

FORWARD_SECRET=whsec_… python bot.py [PORT]
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["FORWARD_SECRET"])


def answer(message):
    """What the bot says: a text, or None for nothing."""
    name = message["profile_name"] or "you"
    if place := message["location"]:
        where = place["label"] or f"{place['latitude']}, {place['longitude']}"
        return f"Hello {name}, you are at {where}."
    return f"Hello {name}, you said: {message['body']}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            # The very bytes that came: the signature is over them.
            webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            return self.reply(401, "text/plain", b"not signed with FORWARD_SECRET\n")
        text = answer(json.loads(body))
        if text is None:
            return self.reply(204)
        self.reply(200, "application/json", json.dumps({"body": text}).encode())

    def reply(self, status, content_type=None, body=b""):
        self.send_response(status)
        if content_type:
            self.send_header("content-type", content_type)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 3000), Handler)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
