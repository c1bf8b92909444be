# Generated from src/api/openapi.json: REPLYHOOK_UPDATE_DOCS=1 cargo test --test it payload_types
"""Types of the payloads of forward requests, events and the HTTP API."""

from typing import Any, Dict, List, Literal, TypedDict, Union

_ConsentRequired = TypedDict(
    "_ConsentRequired",
    {
        "address": str,
        "at": Union[str, None],
        "evidence": Union[str, None],
        "note": Union[str, None],
        "source": Union[str, None],
        # null: the user has taken an opt-out back, and has never opted in.
        "status": Literal["opted_in", "opted_out", None],
    },
)

_ConsentOptional = TypedDict(
    "_ConsentOptional",
    {
        "consents": List["Consent"],
        "sender": str,
        "service": str,
    }, total=False,
)


class Consent(_ConsentRequired, _ConsentOptional):
    pass


_ConsentChangedEventRequired = TypedDict(
    "_ConsentChangedEventRequired",
    {
        "at": str,
        "data": "ConsentEventData",
        "id": str,
        "type": Literal["consent.changed"],
    },
)


class ConsentChangedEvent(_ConsentChangedEventRequired):
    """An opt-in or opt-out, to handler.events_url"""


_ConsentEventDataRequired = TypedDict(
    "_ConsentEventDataRequired",
    {
        "address": str,
        "at": str,
        "change": Literal["opt_in", "opt_out", "resume"],
        # SID of the message.
        "evidence": Union[str, None],
        "note": Union[str, None],
        # null for a Messaging Service.
        "sender": Union[str, None],
        # null for a sender.
        "service": Union[str, None],
        "source": Literal["keyword", "opt_out_type", "refusal", "operator", "api", "webhook"],
        "status": Literal["opted_in", "opted_out"],
    },
)


class ConsentEventData(_ConsentEventDataRequired):
    pass


_DeletedMessageRequired = TypedDict(
    "_DeletedMessageRequired",
    {
        "account_sid": str,
        "body": None,
        "from": str,
        "message_sid": str,
        "received_at": str,
        "to": str,
    },
)


class DeletedMessage(_DeletedMessageRequired):
    """A message whose content retention has deleted before the event was delivered."""


_ForwardedMessageButtonRequired = TypedDict(
    "_ForwardedMessageButtonRequired",
    {
        "payload": Union[str, None],
        "text": Union[str, None],
        "type": Union[str, None],
    },
)


class ForwardedMessageButton(_ForwardedMessageButtonRequired):
    pass


_ForwardedMessageChoiceRequired = TypedDict(
    "_ForwardedMessageChoiceRequired",
    {
        "current": bool,
        "id": str,
        "key": Union[str, None],
        "title": str,
        "via": Literal["button", "list", "chip", "number", "text"],
    },
)


class ForwardedMessageChoice(_ForwardedMessageChoiceRequired):
    pass


_ForwardedMessageLocationRequired = TypedDict(
    "_ForwardedMessageLocationRequired",
    {
        "address": Union[str, None],
        "label": Union[str, None],
        "latitude": Union[float, None],
        "longitude": Union[float, None],
    },
)


class ForwardedMessageLocation(_ForwardedMessageLocationRequired):
    pass


_ForwardedMessageMediaRequired = TypedDict(
    "_ForwardedMessageMediaRequired",
    {
        "content_type": Union[str, None],
        # A URL that works without Twilio's credentials for an hour.
        "link": Union[str, None],
        "url": str,
    },
)


class ForwardedMessageMedia(_ForwardedMessageMediaRequired):
    pass


_ForwardedMessageRequired = TypedDict(
    "_ForwardedMessageRequired",
    {
        "account_sid": str,
        "attempt": int,
        "body": str,
        "button": Union["ForwardedMessageButton", None],
        "channel": str,
        "choice": Union["ForwardedMessageChoice", None],
        "external_user_id": Union[str, None],
        "flow": Union[Dict[str, Any], None],
        "from": str,
        "location": Union["ForwardedMessageLocation", None],
        "media": List["ForwardedMessageMedia"],
        "message_sid": str,
        "message_type": Union[str, None],
        "messaging_service_sid": Union[str, None],
        "opt_out": None,
        "params": List[List[str]],
        "parent_external_user_id": Union[str, None],
        "profile_name": Union[str, None],
        "received_at": str,
        "referral": Union[Dict[str, Any], None],
        "replied_to": Union[Dict[str, Any], None],
        "to": str,
    },
)

_ForwardedMessageOptional = TypedDict(
    "_ForwardedMessageOptional",
    {
        # SIDs of further messages that were merged into this one.
        "merged": List[str],
    }, total=False,
)


class ForwardedMessage(_ForwardedMessageRequired, _ForwardedMessageOptional):
    pass


_HandoffRequired = TypedDict(
    "_HandoffRequired",
    {
        "address": str,
        "sender": str,
        "ttl": str,
        "until": str,
        "url": Union[str, None],
    },
)

_HandoffOptional = TypedDict(
    "_HandoffOptional",
    {
        "handoffs": List["Handoff"],
    }, total=False,
)


class Handoff(_HandoffRequired, _HandoffOptional):
    pass


_HandoffEndedEventRequired = TypedDict(
    "_HandoffEndedEventRequired",
    {
        "at": str,
        "data": "HandoffEventData",
        "id": str,
        "type": Literal["handoff.ended"],
    },
)


class HandoffEndedEvent(_HandoffEndedEventRequired):
    """The end of a handoff, to handler.events_url"""


_HandoffEventDataRequired = TypedDict(
    "_HandoffEventDataRequired",
    {
        "address": str,
        "reason": Literal["reply", "request", "expired"],
        "sender": str,
        # Time from which the bot replies again.
        "until": str,
        # null: the bot is silent.
        "url": Union[str, None],
    },
)


class HandoffEventData(_HandoffEventDataRequired):
    pass


_HandoffStartOptional = TypedDict(
    "_HandoffStartOptional",
    {
        "ttl": Union[str, None],
        # null: the bot is silent.
        "url": Union[str, None],
    }, total=False,
)


class HandoffStart(_HandoffStartOptional):
    pass


_HandoffStartedEventRequired = TypedDict(
    "_HandoffStartedEventRequired",
    {
        "at": str,
        "data": "HandoffEventData",
        "id": str,
        "type": Literal["handoff.started"],
    },
)


class HandoffStartedEvent(_HandoffStartedEventRequired):
    """The start of a handoff, to handler.events_url"""


_KeyInUseRequired = TypedDict(
    "_KeyInUseRequired",
    {
        "id": int,
        "message": str,
        "reason": Literal["key_in_use"],
        "remedy": str,
    },
)


class KeyInUse(_KeyInUseRequired):
    pass


_LinkLinkRequired = TypedDict(
    "_LinkLinkRequired",
    {
        "title": str,
        "url": str,
    },
)


class LinkLink(_LinkLinkRequired):
    pass


_LinkRequired = TypedDict(
    "_LinkRequired",
    {
        "link": "LinkLink",
    },
)


class Link(_LinkRequired):
    pass


_LocationRequired = TypedDict(
    "_LocationRequired",
    {
        "latitude": float,
        "longitude": float,
    },
)

_LocationOptional = TypedDict(
    "_LocationOptional",
    {
        "label": Union[str, None],
    }, total=False,
)


class Location(_LocationRequired, _LocationOptional):
    pass


_MessageRequired = TypedDict(
    "_MessageRequired",
    {
        "error_code": Union[int, None],
        "id": int,
        # Twilio's SID, once the message is sent.
        "sid": Union[str, None],
        "state": "MessageState",
    },
)

_MessageOptional = TypedDict(
    "_MessageOptional",
    {
        "error_meaning": Union[str, None],
        # Twilio's latest delivery status.
        "status": Union[str, None],
    }, total=False,
)


class Message(_MessageRequired, _MessageOptional):
    pass


_MessageEventDataRequired = TypedDict(
    "_MessageEventDataRequired",
    {
        "direction": Literal["inbound", "outbound"],
        "error_code": Union[int, None],
        # Meaning of the code, or replyhook's reason.
        "error_meaning": Union[str, None],
        "from": str,
        # Number in the outbox; null for a message of a user, and for one that replyhook did not send.
        "id": Union[int, None],
        "sid": Union[str, None],
        # Twilio's status once Twilio has accepted the message; before: pending, unknown, held, failed or suppressed. A user's message is failed or dead.
        "state": str,
        "to": str,
    },
)


class MessageEventData(_MessageEventDataRequired):
    pass


_MessageFailedEventRequired = TypedDict(
    "_MessageFailedEventRequired",
    {
        "at": str,
        "data": "MessageEventData",
        "id": str,
        "type": Literal["message.failed"],
    },
)


class MessageFailedEvent(_MessageFailedEventRequired):
    """A message that was not sent or not delivered, to handler.events_url"""


_MessageReceivedEventRequired = TypedDict(
    "_MessageReceivedEventRequired",
    {
        "at": str,
        "data": Union["ForwardedMessage", "DeletedMessage"],
        "id": str,
        "type": Literal["message.received"],
    },
)


class MessageReceivedEvent(_MessageReceivedEventRequired):
    """A message from a user while the conversation is handed off, to handler.events_url"""


MessageState = Literal["pending", "sending", "unknown", "held", "sent", "failed", "suppressed", "deleted"]

_MessageStatusEventRequired = TypedDict(
    "_MessageStatusEventRequired",
    {
        "at": str,
        "data": "MessageEventData",
        "id": str,
        "type": Literal["message.status"],
    },
)


class MessageStatusEvent(_MessageStatusEventRequired):
    """A delivery status of a message, to handler.events_url"""


_NamedTemplateRequired = TypedDict(
    "_NamedTemplateRequired",
    {
        # Its language, such as es.
        "language": str,
        # Name of the template.
        "name": str,
    },
)

_NamedTemplateOptional = TypedDict(
    "_NamedTemplateOptional",
    {
        "variables": Union[Dict[str, Union[str, float]], None],
    }, total=False,
)


class NamedTemplate(_NamedTemplateRequired, _NamedTemplateOptional):
    pass


_NewConsentRequired = TypedDict(
    "_NewConsentRequired",
    {
        "status": Literal["opted_in", "opted_out"],
    },
)

_NewConsentOptional = TypedDict(
    "_NewConsentOptional",
    {
        # Time of the change; now if it is missing.
        "at": Union[str, None],
        # The SID of a message, or another proof, such as the URL of a form.
        "evidence": Union[str, None],
        "note": Union[str, None],
        # One of your senders; or else service.
        "sender": Union[str, None],
        # A Messaging Service (MG…), for all of its senders.
        "service": Union[str, None],
        # Place where the user agreed or refused, such as `order form`.
        "source": Union[str, None],
    }, total=False,
)


class NewConsent(_NewConsentRequired, _NewConsentOptional):
    pass


_NewHandoffOptional = TypedDict(
    "_NewHandoffOptional",
    {
        # Only the conversation with this sender.
        "sender": Union[str, None],
        # Time without a message from the user after which it ends, up to 720h; handoff.ttl if it is missing.
        "ttl": Union[str, None],
        # null: the bot is silent.
        "url": Union[str, None],
    }, total=False,
)


class NewHandoff(_NewHandoffOptional):
    pass


_NewMessageRequired = TypedDict(
    "_NewMessageRequired",
    {
        # The recipient, such as whatsapp:+15550001111.
        "to": str,
    },
)

_NewMessageChoicesRequired = TypedDict(
    "_NewMessageChoicesRequired",
    {
        "title": str,
    },
)

_NewMessageChoicesOptional = TypedDict(
    "_NewMessageChoicesOptional",
    {
        "description": Union[str, None],
        "id": Union[str, None],
    }, total=False,
)


class NewMessageChoices(_NewMessageChoicesRequired, _NewMessageChoicesOptional):
    pass


_NewMessageOptional = TypedDict(
    "_NewMessageOptional",
    {
        # The account that sends, if it is not that of TWILIO_ACCOUNT_SID.
        "account_sid": Union[str, None],
        # Text of the message.
        "body": Union[str, None],
        # Answers below `body`, which is the question. A missing `id` is the title.
        "choices": Union[List[Union[str, "NewMessageChoices"]], None],
        # Label of the button that opens a list.
        "choices_button": Union[str, None],
        # Line below numbered choices.
        "choices_hint": Union[str, None],
        # Comes back with the answer, as `choice.key`.
        "choices_key": Union[str, None],
        # A template, which is a message of its own, or a button below the text.
        "content": Union["Template", "NamedTemplate", "Link", None],
        # The sender.
        "from": Union[str, None],
        # A location, which is a message of its own.
        "location": Union["Location", None],
        # Public URLs of files.
        "media": Union[List[str], None],
        # The Messaging Service, which chooses the sender unless `from` is set.
        "messaging_service_sid": Union[str, None],
        # 5 minutes to 35 days ahead, through a Messaging Service.
        "send_at": Union[str, None],
    }, total=False,
)


class NewMessage(_NewMessageRequired, _NewMessageOptional):
    pass


_ProblemRequired = TypedDict(
    "_ProblemRequired",
    {
        # The cause.
        "message": str,
        # A word for programs: opted_out, window_closed, no_opt_in, invalid_address, unknown_sender, template_not_approved, …
        "reason": str,
        # Change that solves the problem.
        "remedy": str,
    },
)


class Problem(_ProblemRequired):
    pass


_QueuedMessageRequired = TypedDict(
    "_QueuedMessageRequired",
    {
        "id": int,
        "state": "MessageState",
    },
)


class QueuedMessage(_QueuedMessageRequired):
    pass


_ReplyMessageChoicesRequired = TypedDict(
    "_ReplyMessageChoicesRequired",
    {
        "title": str,
    },
)

_ReplyMessageChoicesOptional = TypedDict(
    "_ReplyMessageChoicesOptional",
    {
        "description": Union[str, None],
        "id": Union[str, None],
    }, total=False,
)


class ReplyMessageChoices(_ReplyMessageChoicesRequired, _ReplyMessageChoicesOptional):
    pass


_ReplyMessageOptional = TypedDict(
    "_ReplyMessageOptional",
    {
        # Text of the message.
        "body": Union[str, None],
        # Answers below `body`, which is the question. A missing `id` is the title.
        "choices": Union[List[Union[str, "ReplyMessageChoices"]], None],
        # Label of the button that opens a list.
        "choices_button": Union[str, None],
        # Line below numbered choices.
        "choices_hint": Union[str, None],
        # Comes back with the answer, as `choice.key`.
        "choices_key": Union[str, None],
        # A template, which is a message of its own, or a button below the text.
        "content": Union["Template", "NamedTemplate", "Link", None],
        # A location, which is a message of its own.
        "location": Union["Location", None],
        # Public URLs of files.
        "media": Union[List[str], None],
    }, total=False,
)


class ReplyMessage(_ReplyMessageOptional):
    pass


_ServiceResponseChoicesRequired = TypedDict(
    "_ServiceResponseChoicesRequired",
    {
        "title": str,
    },
)

_ServiceResponseChoicesOptional = TypedDict(
    "_ServiceResponseChoicesOptional",
    {
        "description": Union[str, None],
        "id": Union[str, None],
    }, total=False,
)


class ServiceResponseChoices(_ServiceResponseChoicesRequired, _ServiceResponseChoicesOptional):
    pass


_ServiceResponseOptional = TypedDict(
    "_ServiceResponseOptional",
    {
        # Text of the message.
        "body": Union[str, None],
        # Answers below `body`, which is the question. A missing `id` is the title.
        "choices": Union[List[Union[str, "ServiceResponseChoices"]], None],
        # Label of the button that opens a list.
        "choices_button": Union[str, None],
        # Line below numbered choices.
        "choices_hint": Union[str, None],
        # Comes back with the answer, as `choice.key`.
        "choices_key": Union[str, None],
        # A template, which is a message of its own, or a button below the text.
        "content": Union["Template", "NamedTemplate", "Link", None],
        "handoff": Union["HandoffStart", None],
        # A location, which is a message of its own.
        "location": Union["Location", None],
        # Public URLs of files.
        "media": Union[List[str], None],
        "messages": Union[List["ReplyMessage"], None],
    }, total=False,
)


class ServiceResponse(_ServiceResponseOptional):
    pass


_TemplateRequired = TypedDict(
    "_TemplateRequired",
    {
        # HX…
        "sid": str,
    },
)

_TemplateOptional = TypedDict(
    "_TemplateOptional",
    {
        "variables": Union[Dict[str, Union[str, float]], None],
    }, total=False,
)


class Template(_TemplateRequired, _TemplateOptional):
    pass


# An event, to handler.events_url. Its `type` says which.
ReplyhookEvent = Union[ConsentChangedEvent, HandoffEndedEvent, HandoffStartedEvent, MessageFailedEvent, MessageReceivedEvent, MessageStatusEvent]

__all__ = [
    "Consent",
    "ConsentChangedEvent",
    "ConsentEventData",
    "DeletedMessage",
    "ForwardedMessage",
    "Handoff",
    "HandoffEndedEvent",
    "HandoffEventData",
    "HandoffStart",
    "HandoffStartedEvent",
    "KeyInUse",
    "Link",
    "Location",
    "Message",
    "MessageEventData",
    "MessageFailedEvent",
    "MessageReceivedEvent",
    "MessageState",
    "MessageStatusEvent",
    "NamedTemplate",
    "NewConsent",
    "NewHandoff",
    "NewMessage",
    "Problem",
    "QueuedMessage",
    "ReplyMessage",
    "ServiceResponse",
    "Template",
    "ReplyhookEvent",
]
