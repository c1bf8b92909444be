"""Calls the HTTP API with `replyhook.Client`. Prints `ok` at the end."""

import replyhook

ANA, SENDER = "whatsapp:+15550001111", "whatsapp:+15550002222"
client = replyhook.Client()
assert client.consent(ANA) is None and client.handoff(ANA) is None
recorded = client.record_consent(ANA, {"sender": SENDER, "status": "opted_in", "source": "form ✓"})
assert recorded["status"] == "opted_in" and client.consent(ANA, sender=SENDER) == recorded
first = client.send({"to": ANA, "from": SENDER, "body": "One ✓"}, key="order 42 ✓")
assert client.send({"to": ANA, "from": SENDER, "body": "One ✓"}, key="order 42 ✓")["id"] == first["id"]
assert client.message(first["id"])["id"] == first["id"]


def problem(call):
    try:
        call()
    except replyhook.ApiError as error:
        return error.status, error.reason, error.id
    raise AssertionError("no error")


assert problem(lambda: client.send({"to": ANA, "from": SENDER, "body": "Two"}, key="order 42 ✓")) == (409, "key_in_use", first["id"])
assert problem(lambda: client.send({"to": "ana", "from": SENDER, "body": "x"})) == (422, "invalid_address", None)
assert problem(lambda: client.message(999)) == (404, "unknown_message", None)
assert problem(lambda: replyhook.Client(token="x" * 32).message(1)) == (401, "unauthorized", None)
begun = client.begin_handoff(ANA, {"url": None, "ttl": "12h"})
assert client.handoff(ANA, sender=SENDER)["until"] == begun["until"]
client.end_handoff(ANA)
assert client.handoff(ANA) is None
print("ok")
