"""Checks `replyhook.bot` against the signatures of the library standardwebhooks. Prints `ok` at the end."""

import base64
import io
import json
from datetime import datetime, timedelta, timezone

import replyhook
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
library = Webhook(SECRET)
events = []
replies = {"text": "hi", "object": {"body": "hi"}, "list": [{"body": "a"}, {"body": "b"}], "none": None, "wrong": 7j}
service = replyhook.bot(lambda message: replies[message["body"]], on_event=events.append, secret=SECRET)


def signed(body, shift_s=0, secret=SECRET):
    at = datetime.now(timezone.utc) + timedelta(seconds=shift_s)
    return {"Webhook-Id": "SM1", "Webhook-Timestamp": str(int(at.timestamp())), "Webhook-Signature": Webhook(secret).sign("SM1", at, body)}


def call(text, **options):
    body = json.dumps({"body": text})
    return service.handle(signed(body, **options), body.encode())


assert call("text") == (200, b'{"body": "hi"}'), call("text")
assert call("object") == (200, b'{"body": "hi"}')
assert call("list") == (200, b'{"messages": [{"body": "a"}, {"body": "b"}]}')
assert call("none") == (204, b"")
assert call("wrong")[0] == 500 and call("unknown")[0] == 500

event = json.dumps({"type": "message.status", "id": "evt_1", "data": {}})
assert service.handle(signed(event), event.encode()) == (204, b"")
assert [found["type"] for found in events] == ["message.status"]
assert replyhook.bot(secret=SECRET).handle(signed(event), event.encode()) == (204, b"")

# Requests that replyhook has not signed, or not now.
other = "whsec_" + base64.b64encode(b"o" * 32).decode()
for options in [{"secret": other}, {"shift_s": -400}, {"shift_s": 400}]:
    assert call("text", **options) == (401, b""), options
body = '{"body": "text"}'
for name, value in [("Webhook-Id", ""), ("Webhook-Id", "SM2"), ("Webhook-Timestamp", "x"), ("Webhook-Timestamp", "١٢"),
                    ("Webhook-Signature", ""), ("Webhook-Signature", "v1,é"), ("Webhook-Signature", "v1")]:
    assert service.handle({**signed(body), name: value}, body.encode())[0] == 401, (name, value)
assert service.handle({}, body.encode())[0] == 401
assert service.handle(signed(body), body.encode() + b" ")[0] == 401
several = signed(body)
several["Webhook-Signature"] = "v1,bm90IGl0 " + several["Webhook-Signature"]
assert service.handle(several, body.encode())[0] == 200


def wsgi(body, length):
    environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in signed(body).items()}
    environ.update({"CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(body.encode())})
    started = []
    content = service(environ, lambda status, headers: started.append((status, dict(headers))))
    return started[0][0][:3], started[0][1], b"".join(content)


length = str(len(body))
assert wsgi(body, length) == ("200", {"Content-Type": "application/json", "Content-Length": "14"}, b'{"body": "hi"}')
assert wsgi(body, "x")[0] == "413" and wsgi(body, str(1 << 30))[0] == "413" and wsgi(body, "")[0] == "401"
assert wsgi('{"body": "none"}', "16") == ("204", {}, b"")

for secret in ["", "password", "whsec_!"]:
    try:
        replyhook.bot(secret=secret)
    except ValueError:
        continue
    raise AssertionError(secret)
print("ok")
