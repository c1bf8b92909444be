# bot.py
import os

from flask import Flask, abort, request
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

app = Flask(__name__)
webhook = Webhook(os.environ["FORWARD_SECRET"])

SERVICES = ["Haircut", "Beard trim", "Both"]
DAYS = [
    {"title": "Tuesday", "description": "9 am to 1 pm"},
    {"title": "Wednesday", "description": "9 am to 6 pm"},
    {"title": "Thursday", "description": "2 pm to 8 pm"},
    {"title": "Friday", "description": "9 am to 6 pm"},
    {"title": "Saturday", "description": "9 am to noon"},
]


def ask(text, key, choices):
    return {"body": text, "choices": choices, "choices_key": key, "choices_button": "Days"}


def reply_to(message):
    text, choice = message["body"].strip().lower(), message["choice"]
    if text == "book":
        return ask("What shall we do?", "what", SERVICES)
    if text == "never mind":
        return {"body": "Maybe another time."}
    # A button of an old question is not an answer to the open one.
    if not choice or not choice["current"]:
        return {"body": "Please answer with one of the choices, or write book."}
    # The key names the question and has the answers so far, so the service stores nothing.
    match choice["key"].split("/") + [choice["id"]]:
        case ["what", what]:
            return ask("Which day?", f"day/{what}", DAYS)
        case ["day", what, day]:
            return ask(f"{what} on {day}: is that right?", f"sure/{what}/{day}", ["Confirm", "Not now"])
        case ["sure", what, day, "Confirm"]:
            return {"body": f"Booked: {what} on {day}."}
    return {"body": "Nothing is booked."}


@app.post("/message")
def message():
    try:
        webhook.verify(request.get_data(), {name.lower(): value for name, value in request.headers.items()})
    except WebhookVerificationError:
        abort(401)
    return reply_to(request.get_json())


app.run(port=int(os.environ["PORT"]))
