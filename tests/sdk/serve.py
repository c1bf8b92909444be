"""A bot in Flask like those in Twilio's guides: `RequestValidator` verifies every request, and `MessagingResponse`
makes the TwiML of the response.

Needs PyPI `twilio` and `flask` (`scripts/sdk` installs them):

    python tests/sdk/serve.py

It prints its port on 127.0.0.1, and reads the account's token from stdin before it answers a request. So its caller
can be started in between. For each verified request it prints a line of JSON. `serve.mjs` is the same bot in Express.
"""

import json
import logging
import sys
import threading

try:
    from flask import Flask, Response, abort, request
    from twilio.request_validator import RequestValidator
    from twilio.twiml.messaging_response import MessagingResponse
    from werkzeug.serving import make_server
except ImportError as error:
    sys.exit(f"serve.py: {error}; use the python that `scripts/sdk DIR` prints")

app = Flask(__name__)
token = None
known = threading.Event()


@app.before_request
def verify():
    known.wait(30)
    signature = request.headers.get("X-Twilio-Signature", "")
    if not RequestValidator(token).validate(request.url, request.form, signature):
        abort(403)
    # One write, because threads share stdout.
    sys.stdout.write(json.dumps({"path": request.path, "form": request.form.to_dict()}) + "\n")
    sys.stdout.flush()


def twiml(response):
    return Response(str(response), content_type="text/xml")


@app.post("/sms")
def sms():
    if request.form["Body"] == "fail":
        abort(500)
    response = MessagingResponse()
    what = request.form.get("MediaContentType0") or request.form.get("Latitude") or request.form.get("ButtonPayload")
    response.message(f"{request.form['Body']} & <{what}> from {request.form['From']}")
    return twiml(response)


@app.post("/fallback")
def fallback():
    response = MessagingResponse()
    response.message(f"sorry, {request.form['ErrorCode']}")
    return twiml(response)


@app.post("/status")
def status():
    return "", 204


logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = make_server("127.0.0.1", 0, app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"listening on {server.server_port}", flush=True)
token = sys.stdin.readline().strip()
known.set()
# Exits with the process that started it.
sys.stdin.read()
