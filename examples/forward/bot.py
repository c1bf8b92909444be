"""A bot in Python for `handler.kind = "forward"`.

    pip install standardwebhooks
    FORWARD_SECRET=whsec_… python bot.py [PORT]

FORWARD_SECRET is the value of `handler.forward_secret`. The port is that of the environment variable PORT, or 3000, unless
given; 0 is any free port. `replyhook dev -- python bot.py` sets both variables.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["FORWARD_SECRET"])


def reply_to(message):
    """Returns the bot's reply: a text, or None for no reply."""
    # profile_name, location and its label are null if Twilio did not send them.
    name = message["profile_name"] or "you"
    if place := message["location"]:
        where = place["label"] or f"{place['latitude']}, {place['longitude']}"
        return f"Hello {name}, you are at {where}."
    return f"Hello {name}, you said: {message['body']}"


class Handler(BaseHTTPRequestHandler):
    # Keeps connections open between messages; the default, HTTP/1.0, closes them.
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            # Verify the bytes as received, before they are parsed: the signature covers exactly them.
            # The library looks up the headers by their names in lower case.
            webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            return self.reply(401, "text/plain", b"not signed with FORWARD_SECRET\n")
        # Other keys of the message are ignored: there may be more than this bot needs.
        text = reply_to(json.loads(body))
        if text is None:
            return self.reply(204)
        self.reply(200, "application/json", json.dumps({"body": text}).encode())

    def reply(self, status, content_type=None, body=b""):
        self.send_response(status)
        if content_type:
            self.send_header("content-type", content_type)
        # On a connection that stays open each response needs its length. A 204 must not have one.
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# Loopback only: replyhook runs on the same machine.
# One thread per connection, so that a slow reply to one user does not delay the others.
port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", "3000"))
server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
# Flushed, since a program that waits for this line usually reads it from a pipe.
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
