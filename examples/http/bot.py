# bot.py
import json
import os
from urllib.parse import parse_qsl

from replyhook import ApiError, Client, bot, serve

SENDER = os.environ.get("SENDER", "whatsapp:+14155238886")
# An approved template with one variable: "Your appointment is on {{1}}. See you then!"
REMINDER = os.environ.get("REMINDER", "HX00000000000000000000000000000001")
SERVICES = ["Haircut", "Beard trim", "Both"]
DAYS = ["Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

client = Client()
appointments = {}  # day by user
inbox = {}  # messages for people, by SID: an event may come twice
calls = {}  # reason by user whom a message has not reached


def ask(text, key, choices):
    return {"body": text, "choices": choices, "choices_key": key, "choices_button": "Days"}


def reply_to(message):
    user, text, choice = message["from"], message["body"].strip().lower(), message["choice"]
    if text == "book":
        return ask("What shall we do?", "what", SERVICES)
    if text == "human":
        client.begin_handoff(user, {"url": None, "ttl": "12h"})
        return "A person answers you here."
    # A button of an old question is not an answer to the open one.
    if not choice or not choice["current"]:
        return "Write book for an appointment, or human for a person."
    match choice["key"].split("/") + [choice["id"]]:
        case ["what", what]:
            return ask("Which day?", f"day/{what}", DAYS)
        case ["day", what, day]:
            return ask(f"{what} on {day}: is that right?", f"sure/{what}/{day}", ["Confirm", "Not now"])
        case ["sure", what, day, "Confirm"]:
            appointments[user] = day
            return f"Booked: {what} on {day}."
    return "Nothing is booked."


def on_event(event):
    data = event["data"]
    if event["type"] == "message.received":  # while people answer
        inbox[data["message_sid"]] = {"from": data["from"], "body": data["body"]}
    elif event["type"] == "message.failed" and data["direction"] == "outbound":
        calls[data["to"]] = data["error_meaning"]


def form(fields):
    """The web form: its box is the opt-in."""
    user = f"whatsapp:{fields['phone']}"
    consent = {"sender": SENDER, "status": "opted_in", "source": "web form", "evidence": fields["page"]}
    client.record_consent(user, consent)
    appointments[user] = fields["day"]


def remind(fields):
    """Called by a timer, each evening. Called again, it sends nothing twice."""
    for user, day in list(appointments.items()):
        if day == fields["day"]:
            content = {"sid": REMINDER, "variables": {"1": day}}
            client.send({"to": user, "from": SENDER, "content": content}, key=f"{fields['date']} {user}")


def answer(fields):
    """The answer of a person."""
    client.send({"to": fields["to"], "from": SENDER, "body": fields["body"]})


def hand_back(fields):
    client.end_handoff(fields["to"])


routes = {"/form": form, "/remind": remind, "/desk/answer": answer, "/desk/done": hand_back}
service = bot(reply_to, on_event=on_event)


# Protect these pages with a login. Requests from replyhook are signed, and `bot` checks the signature.
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/message":
        return service(environ, start_response)
    status, result = "200 OK", {"inbox": list(inbox.values()), "calls": calls}
    if path in routes:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            routes[path](dict(parse_qsl(body.decode())))
        except ApiError as error:  # such as no_opt_in, window_closed or invalid_address
            status, result = "400 Bad Request", {"reason": error.reason, "remedy": error.remedy}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(result).encode()]


serve(app)
