"""The HTTP service of a bot: a WSGI application that any server can run, and a server of its own."""

import base64
import hashlib
import hmac
import json
import os
import time
import traceback
from socketserver import ThreadingMixIn
from typing import Any, Callable, List, Mapping, Optional, Tuple, Union
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from .payloads import ForwardedMessage, ReplyhookEvent, ReplyMessage, ServiceResponse

MAX_AGE_S, MAX_BODY_BYTES = 300, 8 * 1024 * 1024  # of a signature, as Standard Webhooks recommends; of a request
BotReply = Union[None, str, ServiceResponse, List[ReplyMessage]]


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Verifies the signature of a request (Standard Webhooks). `secret` is the value of `handler.forward_secret`."""
    found = {name.lower(): value for name, value in headers.items()}
    name, sent_at = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
    if not name or not (sent_at.isascii() and sent_at.isdigit()) or abs(time.time() - int(sent_at)) > MAX_AGE_S:
        return False
    key = base64.b64decode(secret.strip()[len("whsec_") :])
    digest = hmac.new(key, f"{name}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    signatures = found.get("webhook-signature", "").encode().split()
    return any([hmac.compare_digest(signature, expected) for signature in signatures])


class Bot:
    """A WSGI application. `handle` is the same for other frameworks."""

    def __init__(self, on_message: Any, on_event: Any, secret: str) -> None:
        if not secret.strip().startswith("whsec_"):
            raise ValueError("the secret is not whsec_ and base64; set FORWARD_SECRET to the value of handler.forward_secret")
        base64.b64decode(secret.strip()[len("whsec_") :], validate=True)
        self.on_message, self.on_event, self.secret = on_message, on_event, secret

    def handle(self, headers: Mapping[str, str], body: bytes) -> Tuple[int, bytes]:
        """Returns status and JSON body of the response to a request with this body, exactly as it was received."""
        if not verify(self.secret, headers, body):
            return 401, b""
        try:
            payload = json.loads(body)
            if "type" in payload:  # An event; messages have no type.
                if self.on_event:
                    self.on_event(payload)
                return 204, b""
            reply = self.on_message(payload) if self.on_message else None
            reply = {"body": reply} if isinstance(reply, str) else {"messages": reply} if isinstance(reply, list) else reply
            return (204, b"") if reply is None else (200, json.dumps(reply).encode())
        except Exception:
            traceback.print_exc()
            return 500, b""  # replyhook then repeats the message after Twilio's fallback call, and an event later.

    def __call__(self, environ: Any, start_response: Any) -> List[bytes]:
        size, status, body = environ.get("CONTENT_LENGTH") or "0", 413, b""
        headers = {key[5:].replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}
        if size.isdigit() and int(size) <= MAX_BODY_BYTES:
            status, body = self.handle(headers, environ["wsgi.input"].read(int(size)))
        kind = [("Content-Type", "application/json")] if body else []
        length = [] if status == 204 else [("Content-Length", str(len(body)))]
        start_response(f"{status} {'OK' if status < 300 else 'Error'}", kind + length)
        return [body]


def bot(on_message: Optional[Callable[[ForwardedMessage], BotReply]] = None, *, secret: Optional[str] = None,
        on_event: Optional[Callable[[ReplyhookEvent], Any]] = None) -> Bot:
    """Creates the service. `secret` is by default FORWARD_SECRET of the environment."""
    return Bot(on_message, on_event, os.environ.get("FORWARD_SECRET", "") if secret is None else secret)


def serve(app: Any, port: Optional[int] = None, host: str = "127.0.0.1") -> None:
    """Serves a WSGI application until the process ends, on PORT of the environment or 3000 unless a port is given."""
    server = type("Server", (ThreadingMixIn, WSGIServer), {"daemon_threads": True, "request_queue_size": 128})
    quiet = type("Quiet", (WSGIRequestHandler,), {"log_message": lambda *_: None})
    make_server(host, int(os.environ.get("PORT", "3000")) if port is None else port, app, server, quiet).serve_forever()
