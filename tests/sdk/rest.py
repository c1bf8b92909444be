"""Twilio's own Python library as a client of the emulator, with nothing changed but the base URL.

Needs PyPI `twilio` (`scripts/sdk` installs it) and a `replyhook dev`:

    python tests/sdk/rest.py --base http://127.0.0.1:8081 --account AC… --token …

Every function below is one action of a bot, or one error that it must understand. All of them run, and each failure is
printed. `rest.mjs` is the same program with Twilio's Node library.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
import time
import traceback
import urllib.request
from datetime import datetime, timedelta

try:
    from twilio.base.exceptions import TwilioRestException
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client
    from twilio.rest.api.v2010.account.incoming_phone_number import IncomingPhoneNumberInstance
    from twilio.rest.api.v2010.account.message import MessageInstance
    from twilio.rest.api.v2010.account.message.media import MediaInstance
    from twilio.rest.content.v1.content import ContentInstance, ContentList
    from twilio.rest.content.v1.content.approval_create import ApprovalCreateList
    from twilio.rest.content.v1.content.approval_fetch import ApprovalFetchInstance
    from twilio.rest.content.v1.content_and_approvals import ContentAndApprovalsInstance
    from twilio.rest.messaging.v2.channels_sender import ChannelsSenderInstance, ChannelsSenderList
    from twilio.rest.messaging.v3.typing_indicator import TypingIndicatorList
except ImportError as error:
    sys.exit(f"rest.py: {error}; use the python that `scripts/sdk DIR` prints")

ANA, SANDBOX = "whatsapp:+15550001111", "whatsapp:+14155238886"
BEN, NUMBER = "+15550004444", "+15005550006"
AGENT = "rcs:replyhook_agent"
ID_USER = "whatsapp:US.13491208655302741918"
SERVICE = "MG" + "0" * 31 + "1"
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
PATIENCE = 30  # seconds; limit for conditions that must become true


class Seen(TwilioHttpClient):
    """The library's HTTP client, which also keeps the last response."""

    last = None

    def request(self, *args, **kwargs):
        response = super().request(*args, **kwargs)
        Seen.last = response
        return response


def connect(token=None):
    """A client of the library with another base URL."""
    client = Client(args.account, token or args.token, http_client=Seen(timeout=PATIENCE))
    for domain in (client.api, client.messaging, client.content):
        domain.base_url = args.base
    return client


def control(method, path, body=None):
    """Calls the emulator's control interface, for the phone and the clock."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(args.base + "/_emulator" + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return json.load(response)


def says(user, body, sender=None, **more):
    """Sends a user's message, and returns the result."""
    to = sender or (SANDBOX if user.startswith("whatsapp:") else NUMBER)
    return control("POST", "/messages", {"from": user, "to": to, "body": body, **more})


def until(what, holds):
    """Waits for a condition that becomes true by itself."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def assert_rejected(status, code, call):
    """Asserts that a call raises the library's exception, with the fields that bots read."""
    try:
        call()
    except TwilioRestException as error:
        assert (error.status, error.code) == (status, code), f"{error.status} {error.code}: {error.msg}"
        assert error.msg, "without a message"
        return
    raise AssertionError(f"not rejected with {code}")


class Read(dict):
    """A payload that records which fields are read."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def get(self, name, default=None):
        self.names.add(name)
        return default


def fields(model, *rest, **named):
    """The fields that a model of the library reads."""
    payload = Read()
    model(None, payload, *rest, **named)
    return payload.names


def has_the_fields(payload, expected):
    assert set(payload) == expected, f"missing {sorted(expected - set(payload))}, unknown {sorted(set(payload) - expected)}"


def is_a_message(payload):
    has_the_fields(payload, fields(MessageInstance, account_sid=args.account))


def a_text_is_created_and_goes_its_way(client):
    says(ANA, "hello")
    message = client.messages.create(from_=SANDBOX, to=ANA, body="Olá + 100% & 👍")
    is_a_message(json.loads(Seen.last.text))
    assert message.status == "queued" and message.direction == "outbound-api" and message.error_code is None
    assert (message.from_, message.to, message.body) == (SANDBOX, ANA, "Olá + 100% & 👍")
    assert (message.num_media, message.num_segments, message.api_version) == ("0", "1", "2010-04-01")
    assert message.account_sid == args.account and message.sid.startswith("SM") and message.date_sent is None
    until("read", lambda: client.messages(message.sid).fetch().status == "read")
    is_a_message(json.loads(Seen.last.text))
    fetched = message.fetch()
    assert fetched.date_sent >= fetched.date_created and fetched.uri == message.uri


def an_inbound_message_is_fetched(client):
    sid = says(BEN, "inbound")["message_sid"]
    message = client.messages(sid).fetch()
    is_a_message(json.loads(Seen.last.text))
    assert (message.direction, message.status, message.from_, message.to) == ("inbound", "received", BEN, NUMBER)


def a_long_sms_has_segments(client):
    assert client.messages.create(from_=NUMBER, to=BEN, body="x" * 161).num_segments == "2"
    assert client.messages.create(from_=NUMBER, to=BEN, body="é👍" * 40).num_segments == "2"


def media_go_out(client):
    sid = says(ANA, "", media=[{"data": base64.b64encode(PNG).decode(), "content_type": "image/png"}])["message_sid"]
    src = next(m for m in control("GET", f"/conversations/{ANA}") if m["sid"] == sid)["media"][0]["src"]
    message = client.messages.create(from_=SANDBOX, to=ANA, body="look", media_url=[args.base + src])
    assert message.num_media == "1" and message.sid.startswith("MM")
    until("delivered", lambda: message.fetch().status in ("delivered", "read"))
    files = message.media.list()
    assert [file.content_type for file in files] == ["image/png"]


def media_are_listed_fetched_and_deleted(client):
    picture = {"data": base64.b64encode(PNG).decode(), "content_type": "image/png", "filename": "a.png"}
    sid = says(ANA, "two", media=[picture, {**picture, "content_type": "image/jpeg"}])["message_sid"]
    message = client.messages(sid)
    assert message.fetch().num_media == "2"
    files = message.media.list()
    assert {file.content_type for file in files} == {"image/png", "image/jpeg"}
    file = message.media(files[0].sid).fetch()
    has_the_fields(json.loads(Seen.last.text), fields(MediaInstance, account_sid="", message_sid=""))
    assert (file.parent_sid, file.account_sid) == (sid, args.account) and file.date_created is not None
    # The same URL without .json requires the password, and redirects to a signed link to the bytes.
    url = args.base + file.uri.removesuffix(".json")
    stranger = client.http_client.request("GET", url, allow_redirects=False)
    assert stranger.status_code == 401, stranger.status_code
    redirect = client.http_client.request("GET", url, auth=client.auth, allow_redirects=False)
    assert redirect.status_code == 307, redirect.status_code
    with urllib.request.urlopen(redirect.headers["location"], timeout=PATIENCE) as response:
        assert response.read() == PNG and response.headers["content-type"] == file.content_type
    assert message.media(file.sid).delete() is True
    assert len(message.media.list()) == 1
    assert_rejected(404, 20404, lambda: message.media(file.sid).fetch())


def a_service_chooses_the_sender(client):
    says(BEN, "hello")
    message = client.messages.create(messaging_service_sid=SERVICE, to=BEN, body="from a service")
    is_a_message(json.loads(Seen.last.text))
    assert message.status == "accepted" and message.from_ is None and message.messaging_service_sid == SERVICE
    until("delivered", lambda: message.fetch().status == "delivered")
    assert message.fetch().from_ == NUMBER


def templates_are_made_approved_sent_and_deleted(client):
    content = client.content.v1.contents.create(
        ContentList.ContentCreateRequest(
            {
                "friendly_name": "delivery",
                "language": "en",
                "variables": {"1": "you"},
                "types": ContentList.Types(
                    {
                        "twilio/quick-reply": ContentList.TwilioQuickReply(
                            {
                                "body": "Is {{1}} at home?",
                                "actions": [ContentList.QuickReplyAction({"type": "QUICK_REPLY", "title": "Yes", "id": "yes"})],
                            }
                        )
                    }
                ),
            }
        )
    )
    has_the_fields(json.loads(Seen.last.text), fields(ContentInstance))
    assert content.sid.startswith("HX") and content.account_sid == args.account and content.variables == {"1": "you"}
    fetched = client.content.v1.contents(content.sid).fetch()
    assert fetched.friendly_name == "delivery" and fetched.language == "en" and fetched.date_created is not None
    asked = client.content.v1.contents(content.sid).approval_create.create(
        ApprovalCreateList.ContentApprovalRequest({"name": "delivery", "category": "UTILITY"})
    )
    assert (asked.name, asked.category) == ("delivery", "UTILITY") and asked.status in ("received", "pending", "approved")
    approval = client.content.v1.contents(content.sid).approval_fetch().fetch()
    has_the_fields(json.loads(Seen.last.text), fields(ApprovalFetchInstance, content.sid))
    assert approval.whatsapp["status"] == "approved" and approval.whatsapp["name"] == "delivery"
    assert content.sid in [one.sid for one in client.content.v1.contents.list()]
    assert content.sid in [one.sid for one in client.content.v1.content_and_approvals.list()]
    has_the_fields(json.loads(Seen.last.text)["contents"][0], fields(ContentAndApprovalsInstance))
    # A user whose window is closed may only get a template.
    control("POST", "/clock", {"advance_seconds": 25 * 3600})
    text = client.messages.create(from_=SANDBOX, to=ANA, body="too late")
    until("failed", lambda: text.fetch().status in ("failed", "undelivered"))
    assert text.fetch().error_code == 63016 and text.fetch().error_message
    message = client.messages.create(from_=SANDBOX, to=ANA, content_sid=content.sid, content_variables='{"1":"Ana"}')
    is_a_message(json.loads(Seen.last.text))
    until("delivered", lambda: message.fetch().status in ("delivered", "read"))
    got = [m for m in control("GET", f"/conversations/{ANA}") if m["sid"] == message.sid]
    assert got[0]["body"] == "Is Ana at home?" and got[0]["buttons"] == [{"text": "Yes", "payload": "yes"}], got
    assert_rejected(400, 21656, lambda: client.messages.create(from_=SANDBOX, to=ANA, content_sid=content.sid, content_variables="{"))
    assert client.content.v1.contents(content.sid).delete() is True


def picture_url():
    """URL of a picture that the emulator can fetch."""
    sid = says(ANA, "", media=[{"data": base64.b64encode(PNG).decode(), "content_type": "image/png"}])["message_sid"]
    src = next(m for m in control("GET", f"/conversations/{ANA}") if m["sid"] == sid)["media"][0]["src"]
    return args.base + src


def content_types(picture):
    """Fields of each content type, whether WhatsApp needs its approval, and the form in which the phone shows it."""
    reply = {"type": "QUICK_REPLY", "title": "Yes", "id": "yes"}
    link = {"type": "URL", "title": "Open", "url": "https://shop.example/1"}
    page = {"id": "p1", "title": "Guests", "layout": [{"type": "TEXT_INPUT", "label": "Name"}]}
    return {
        "twilio/text": ({"body": "Hi {{1}}, hello"}, False, "text"),
        "twilio/media": ({"body": "Look", "media": [picture]}, False, "media"),
        "twilio/location": ({"latitude": 52.5, "longitude": 13.4, "label": "Office"}, False, "location"),
        "twilio/quick-reply": ({"body": "Home?", "actions": [reply]}, False, "buttons"),
        "twilio/call-to-action": ({"body": "Look", "actions": [link]}, False, "buttons"),
        "twilio/list-picker": (
            {"body": "When?", "button": "Days", "items": [{"item": "Today", "id": "today", "description": "before 6 pm"}]}, False, "list",
        ),
        "twilio/card": ({"title": "Bike", "subtitle": "new", "media": [picture], "actions": [reply]}, False, "card"),
        "twilio/carousel": (
            {"body": "Two", "cards": [{"title": n, "body": "b", "media": picture, "actions": [link]} for n in "AB"]}, True, "carousel",
        ),
        "twilio/catalog": ({"body": "Shop", "id": "c1", "items": [{"id": "p1", "name": "Hat", "price": 9.5}]}, False, "card"),
        "twilio/flows": ({"body": "Book", "button_text": "Book", "type": "OTHER", "pages": [page]}, True, "buttons"),
        "whatsapp/flows": ({"body": "Rate", "button_text": "Rate", "flow_id": "1"}, True, "buttons"),
        "whatsapp/card": ({"body": "Bike", "header_text": "New", "footer": "f", "actions": [link]}, False, "card"),
        "whatsapp/authentication": (
            {"code_expiration_minutes": 5, "actions": [{"type": "COPY_CODE", "copy_code_text": "Copy"}]}, True, "buttons",
        ),
    }


def every_content_type_is_made_read_back_and_sent(client):
    says(ANA, "hello")
    contents = client.content.v1.contents
    for name, (given, needs_approval, shown) in content_types(picture_url()).items():
        types = ContentList.Types({name: given})
        request = {"friendly_name": "one_of_each", "language": "en", "variables": {"1": "you"}, "types": types}
        content = contents.create(ContentList.ContentCreateRequest(request))
        has_the_fields(json.loads(Seen.last.text), fields(ContentInstance))
        assert content.types == {name: given}, f"{content.types} instead of {given}"
        assert contents(content.sid).fetch().types == content.types, name
        assert contents(content.sid).approval_fetch().fetch().whatsapp["status"] == "unsubmitted"
        send = lambda: client.messages.create(from_=SANDBOX, to=ANA, content_sid=content.sid)
        ends = lambda sid: until("end", lambda: client.messages(sid).fetch().status in ("delivered", "read", "failed"))
        if needs_approval:
            early = send()
            ends(early.sid)
            assert client.messages(early.sid).fetch().error_code == 63005, name
            contents(content.sid).approval_create.create(
                ApprovalCreateList.ContentApprovalRequest({"name": "one_of_each", "category": "UTILITY"})
            )
        message = send()
        is_a_message(json.loads(Seen.last.text))
        ends(message.sid)
        assert client.messages(message.sid).fetch().error_code is None, f"{name}: {client.messages(message.sid).fetch().error_code}"
        got = next(m for m in control("GET", f"/conversations/{ANA}") if m["sid"] == message.sid)
        assert got["content"]["type"] == shown, f"{name}: {got['content']}"
        contents(content.sid).delete()


def placeholders(value):
    """Names of the variables in the texts of a value."""
    return set(re.findall(r"{{(.*?)}}", json.dumps(value)))


def replyhooks_own_templates_are_read(client):
    """Those that `replyhook templates prepare` has made, before this program."""
    contents = client.content.v1.contents
    own = [one for one in contents.list() if one.friendly_name.startswith("replyhook ")]
    kinds = {"buttons": 10, "list": 10, "described_list": 10, "chips": 11, "link": 1, "link_card": 1}
    names = {f"{kind}-{n}" if total > 1 else kind for kind, total in kinds.items() for n in range(1, total + 1)}
    assert {one.friendly_name for one in own} == {f"replyhook {name} v1" for name in names}
    rich = {
        "buttons": "twilio/quick-reply", "list": "twilio/list-picker", "described_list": "twilio/list-picker",
        "chips": "twilio/card", "link": "twilio/call-to-action", "link_card": "twilio/card",
    }
    for listed in own:
        one = contents(listed.sid).fetch()
        has_the_fields(json.loads(Seen.last.text), fields(ContentInstance))
        assert (one.types, one.variables) == (listed.types, listed.variables) and one.language == "en"
        kind, _, number = one.friendly_name.removeprefix("replyhook ").removesuffix(" v1").partition("-")
        assert set(one.types) == {rich[kind], "twilio/text"} and one.types["twilio/text"] == {"body": "{{text}}"}
        content, count = one.types[rich[kind]], int(number or 1)
        items = content["items"] if "list" in kind else content["actions"]
        assert content["body"] == "{{body}}" and len(items) == count
        assert placeholders(one.types) == set(one.variables), one.friendly_name
        for n, item in enumerate(items, 1):
            assert (item.get("title") or item["item"]) == f"{{{{t{n}}}}}"
            assert item.get("url") == "{{url}}" if "link" in kind else item["id"] == f"{{{{i{n}}}}}"
            assert item.get("description") == (f"{{{{d{n}}}}}" if kind == "described_list" else None)
            assert item.get("chip_list") == (True if kind == "chips" else None)
    says(ANA, "hello")
    buttons = next(one for one in own if one.friendly_name == "replyhook buttons-2 v1")
    values = {"body": "When?", "text": "1. A", "t1": "Today", "i1": "a", "t2": "Later", "i2": "b"}
    message = client.messages.create(from_=SANDBOX, to=ANA, content_sid=buttons.sid, content_variables=json.dumps(values))
    until("delivered", lambda: client.messages(message.sid).fetch().status in ("delivered", "read"))
    got = next(m for m in control("GET", f"/conversations/{ANA}") if m["sid"] == message.sid)["content"]
    assert (got["type"], got["body"]) == ("buttons", "When?")
    assert [(item["id"], item["title"]) for item in got["items"]] == [("a", "Today"), ("b", "Later")]


def a_declared_template_is_read_and_sent(client):
    """The one that `replyhook templates create --submit` has created, before this program."""
    contents = client.content.v1.contents
    (one,) = [one for one in contents.list() if one.friendly_name == "order_ready"]
    assert (one.language, one.variables) == ("pt_BR", {"1": "Ana", "2": "42"})
    assert set(one.types) == {"twilio/quick-reply", "twilio/text"}
    titles = [(item["title"], item["id"]) for item in one.types["twilio/quick-reply"]["actions"]]
    assert titles == [("Today", "today"), ("Another day", "other")]
    approval = contents(one.sid).approval_fetch().fetch().whatsapp
    assert [approval[name] for name in ("name", "category", "status")] == ["order_ready", "UTILITY", "approved"]
    values = json.dumps({"1": "Ben", "2": "7"})
    message = client.messages.create(from_=SANDBOX, to=ANA, content_sid=one.sid, content_variables=values)
    assert message.body.startswith("Hi Ben, your order 7 is ready.")


def a_template_is_changed_until_it_is_submitted(client):
    types = lambda body: ContentList.Types({"twilio/text": {"body": body}})
    contents = client.content.v1.contents
    content = contents.create(ContentList.ContentCreateRequest({"language": "en", "types": types("old text")}))
    changed = contents(content.sid).update(ContentList.ContentUpdateRequest({"types": types("new text")}))
    has_the_fields(json.loads(Seen.last.text), fields(ContentInstance))
    assert (changed.sid, changed.types["twilio/text"]) == (content.sid, {"body": "new text"})
    contents(content.sid).approval_create.create(
        ApprovalCreateList.ContentApprovalRequest({"name": "changed", "category": "UTILITY"})
    )
    again = ContentList.ContentUpdateRequest({"types": types("later")})
    assert_rejected(400, 20001, lambda: contents(content.sid).update(again))
    assert contents(content.sid).delete() is True
    assert_rejected(404, 20404, lambda: contents(content.sid).fetch())
    assert_rejected(400, 21655, lambda: client.messages.create(from_=SANDBOX, to=ANA, content_sid=content.sid))


def templates_are_listed_by_page(client):
    contents = client.content.v1.contents
    before = len(contents.list())
    request = lambda n: ContentList.ContentCreateRequest(
        {"friendly_name": str(n), "language": "en", "types": ContentList.Types({"twilio/text": {"body": "hi"}})}
    )
    made = [contents.create(request(n)).sid for n in range(5)]
    assert [one.sid for one in contents.list(page_size=2)][before:] == made
    page = contents.page(page_size=before + 3)
    assert [one.sid for one in page][before:] == made[:3]
    rest = page.next_page()
    assert [one.sid for one in rest] == made[3:] and rest.next_page() is None
    assert [one.sid for one in rest.previous_page()][before:] == made[:3]
    for sid in made:
        contents(sid).delete()


def a_tap_names_the_message(client):
    says(ANA, "hello")
    types = {"twilio/quick-reply": {"body": "Home?", "actions": [{"title": "Yes", "id": "yes"}]}}
    content = client.content.v1.contents.create(ContentList.ContentCreateRequest({"language": "en", "types": ContentList.Types(types)}))
    message = client.messages.create(from_=SANDBOX, to=ANA, content_sid=content.sid)
    until("read", lambda: client.messages(message.sid).fetch().status == "read")
    tapped = control("POST", "/messages", {"from": ANA, "choice": {"id": "yes"}})["message_sid"]
    assert client.messages(tapped).fetch().body == "Yes"
    webhook = next(e for e in control("GET", f"/exchanges?message_sid={tapped}") if e["kind"] == "webhook")
    params = dict(webhook["params"])
    assert params["ButtonPayload"] == "yes" and params["OriginalRepliedMessageSid"] == message.sid, params
    client.content.v1.contents(content.sid).delete()


def what_is_scheduled_goes_later_or_not_at_all(client):
    now = datetime.fromisoformat(control("GET", "/config")["now"].replace("Z", "+00:00"))
    at = now + timedelta(hours=1)
    schedule = lambda: client.messages.create(messaging_service_sid=SERVICE, to=BEN, body="later", schedule_type="fixed", send_at=at)
    first, second = schedule(), schedule()
    is_a_message(json.loads(Seen.last.text))
    assert first.status == "scheduled" and first.date_sent is None
    canceled = client.messages(first.sid).update(status="canceled")
    assert canceled.status == "canceled"
    control("POST", "/clock", {"advance_seconds": 3601})
    until("delivered", lambda: second.fetch().status == "delivered")
    assert second.fetch().date_sent >= at.replace(microsecond=0) and first.fetch().status == "canceled"
    soon = now + timedelta(hours=1, minutes=2)
    assert_rejected(400, 35114, lambda: client.messages.create(messaging_service_sid=SERVICE, to=BEN, body="x", schedule_type="fixed", send_at=soon))


def a_text_is_removed_and_a_message_deleted(client):
    sid = says(BEN, "secret")["message_sid"]
    message = client.messages(sid).update(body="")
    is_a_message(json.loads(Seen.last.text))
    assert message.body == "" and client.messages(sid).fetch().body == ""
    assert_rejected(400, 20001, lambda: client.messages(sid).update(body="other"))
    assert client.messages(sid).delete() is True
    assert_rejected(404, 20404, lambda: client.messages(sid).fetch())
    assert_rejected(404, 20404, lambda: client.messages(sid).delete())


def lists_are_filtered_and_paged(client):
    begin = datetime.fromisoformat(control("POST", "/clock", {"advance_seconds": 3600})["now"].replace("Z", "+00:00"))
    carl = "+15550007777"
    sent = [client.messages.create(from_=NUMBER, to=carl, body=f"number {n}").sid for n in range(5)]
    for sid in sent:
        until("delivered", lambda: client.messages(sid).fetch().status == "delivered")
    found = client.messages.list(to=carl, page_size=2)
    assert [message.sid for message in found] == sent[::-1], "not all, or not newest first"
    assert client.messages.list(to=carl, from_=NUMBER, limit=3, page_size=2)[2].sid == sent[2]
    assert client.messages.list(to=carl, from_=SANDBOX) == []
    assert client.messages.list(from_=carl) == []
    after = client.messages.list(to=carl, date_sent_after=begin - timedelta(seconds=1))
    assert len(after) == 5, len(after)
    before = client.messages.list(to=carl, date_sent_before=begin - timedelta(seconds=1))
    assert before == [], before
    day = client.messages.list(to=carl, date_sent=begin.date())
    assert len(day) == 5, len(day)
    page = client.messages.page(to=carl, page_size=4)
    payload = json.loads(Seen.last.text)
    expected = {"end", "first_page_uri", "messages", "next_page_uri", "page", "page_size", "previous_page_uri", "start", "uri"}
    has_the_fields(payload, expected)
    for message in payload["messages"]:
        is_a_message(message)
    assert [message.sid for message in page] == sent[:0:-1]
    last = page.next_page()
    assert [message.sid for message in last] == sent[:1] and last.next_page() is None
    assert [message.sid for message in last.previous_page()] == sent[:0:-1]


def rejections_are_the_librarys_exceptions(client):
    create = client.messages.create
    assert_rejected(400, 21211, lambda: create(from_=NUMBER, to="+1555", body="x"))
    assert_rejected(400, 21211, lambda: create(from_=NUMBER, to="+15005550001", body="x"))
    assert_rejected(400, 21603, lambda: create(to=BEN, body="x"))
    assert_rejected(400, 21606, lambda: create(from_="+15550009999", to=BEN, body="x"))
    assert_rejected(400, 21617, lambda: create(from_=NUMBER, to=BEN, body="x" * 1601))
    assert_rejected(400, 21619, lambda: create(from_=NUMBER, to=BEN))
    assert_rejected(400, 21620, lambda: create(from_=NUMBER, to=BEN, media_url=["no url"]))
    assert_rejected(400, 63007, lambda: create(from_="whatsapp:+15550009999", to=ANA, body="x"))
    assert_rejected(404, 20404, lambda: client.messages("SM" + "0" * 32).fetch())
    assert_rejected(401, 20003, lambda: connect("0" * 32).messages("SM" + "0" * 32).fetch())
    assert_rejected(401, 20003, lambda: connect("0" * 32).messages.create(from_=NUMBER, to=BEN, body="x"))
    assert_rejected(401, 20003, lambda: client.api.v2010.accounts("AC" + "0" * 32).fetch())


def stop_on_sms_is_kept_by_twilio(client):
    says(BEN, "Stop")
    assert_rejected(400, 21610, lambda: client.messages.create(from_=NUMBER, to=BEN, body="still there?"))
    says(BEN, "START")
    assert client.messages.create(from_=NUMBER, to=BEN, body="welcome back").status == "queued"


def a_user_without_a_number_is_answered(client):
    says(ID_USER, "hello")
    message = client.messages.create(from_=SANDBOX, to=ID_USER, body="hello")
    assert message.to == ID_USER
    until("delivered", lambda: message.fetch().status in ("delivered", "read"))


def an_error_on_order_arrives_once(client):
    control("PUT", "/faults", {"rest_error": {"status": 429, "code": 20429, "times": 1}})
    assert_rejected(429, 20429, lambda: client.messages.create(from_=NUMBER, to=BEN, body="x"))
    assert client.messages.create(from_=NUMBER, to=BEN, body="x").status == "queued"


def the_account_and_its_numbers_are_shown(client):
    account = client.api.v2010.accounts(args.account).fetch()
    assert (account.sid, account.status) == (args.account, "active")
    numbers = client.incoming_phone_numbers.list(phone_number=NUMBER)
    assert [number.phone_number for number in numbers] == [NUMBER]
    number = client.incoming_phone_numbers(numbers[0].sid).fetch()
    has_the_fields(json.loads(Seen.last.text), fields(IncomingPhoneNumberInstance, account_sid=""))
    assert number.sms_method == "POST" and number.capabilities["sms"] is True and number.sms_url
    number = number.update(sms_url="https://bot.example.test/sms", sms_fallback_url="https://bot.example.test/fallback")
    assert number.sms_url == "https://bot.example.test/sms"
    assert client.incoming_phone_numbers(number.sid).fetch().sms_fallback_url == "https://bot.example.test/fallback"
    assert client.incoming_phone_numbers.list(phone_number="+15550009999") == []


def whatsapp_senders_are_shown_and_set(client):
    senders = client.messaging.v2.channels_senders.list(channel="whatsapp")
    assert [sender.sender_id for sender in senders] == [SANDBOX], senders
    sender = client.messaging.v2.channels_senders(senders[0].sid).fetch()
    has_the_fields(json.loads(Seen.last.text), fields(ChannelsSenderInstance))
    assert sender.status == "ONLINE" and sender.webhook["callback_method"] == "POST" and sender.webhook["callback_url"]
    webhook = {"callback_url": "https://bot.example.test/webhook", "callback_method": "POST"}
    update = ChannelsSenderList.MessagingV2ChannelsSenderRequestsUpdate(
        {"webhook": ChannelsSenderList.MessagingV2ChannelsSenderWebhook(webhook)}
    )
    client.messaging.v2.channels_senders(sender.sid).update(update)
    assert client.messaging.v2.channels_senders(sender.sid).fetch().webhook["callback_url"] == webhook["callback_url"]
    assert_rejected(404, 20404, lambda: client.messaging.v2.channels_senders("XE" + "f" * 32).fetch())


def typing_is_shown(client):
    sid = says(ANA, "are you there?")["message_sid"]
    typing = client.messaging.v2.typing_indicator.create(channel="whatsapp", message_id=sid)
    assert typing.success is True
    assert_rejected(404, 20404, lambda: client.messaging.v2.typing_indicator.create(channel="whatsapp", message_id="SM" + "0" * 32))


def typing_is_shown_on_rcs(client):
    says("rcs:+34600000009", "are you there?", AGENT)
    indicators = client.messaging.v3.typing_indicator

    def show(**changes):
        request = {"channel": "RCS", "from": AGENT, "to": "rcs:+34600000009", "event": "START", **changes}
        return indicators.create(TypingIndicatorList.TypingIndicatorRequest(request))

    assert show().success is True
    for wrong in ({"event": "END"}, {"to": "rcs:+34600000099"}, {"to": "+34600000009"}, {"channel": "SMS"}):
        assert_rejected(400, 20001, lambda: show(**wrong))


CHECKS = [
    a_text_is_created_and_goes_its_way,
    an_inbound_message_is_fetched,
    a_long_sms_has_segments,
    media_go_out,
    media_are_listed_fetched_and_deleted,
    a_service_chooses_the_sender,
    templates_are_made_approved_sent_and_deleted,
    every_content_type_is_made_read_back_and_sent,
    replyhooks_own_templates_are_read,
    a_declared_template_is_read_and_sent,
    a_template_is_changed_until_it_is_submitted,
    templates_are_listed_by_page,
    a_tap_names_the_message,
    what_is_scheduled_goes_later_or_not_at_all,
    a_text_is_removed_and_a_message_deleted,
    lists_are_filtered_and_paged,
    rejections_are_the_librarys_exceptions,
    stop_on_sms_is_kept_by_twilio,
    a_user_without_a_number_is_answered,
    an_error_on_order_arrives_once,
    the_account_and_its_numbers_are_shown,
    whatsapp_senders_are_shown_and_set,
    typing_is_shown,
    typing_is_shown_on_rcs,
]


def main():
    failed = 0
    for check in CHECKS:
        try:
            check(connect())
        except Exception:
            failed += 1
            print(f"{check.__name__}:\n{traceback.format_exc()}", file=sys.stderr)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} things done as with Twilio")
    sys.exit(1 if failed else 0)


parser = argparse.ArgumentParser()
for name in ("base", "account", "token"):
    parser.add_argument("--" + name, required=True)
args = parser.parse_args()
main()
