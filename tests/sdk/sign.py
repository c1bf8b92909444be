"""Requests signed by Twilio's own Python library, against a running server.

Needs PyPI `twilio` (`scripts/sdk` installs it) and a `replyhook serve` with the default handler, echo:

    python tests/sdk/sign.py --base http://127.0.0.1:8080 --public-url https://hooks.example.test/bots/a \
        --token 0123456789abcdef0123456789abcdef --cases 300 --seed 1

Every case is one request that Twilio could make, and at least two forgeries of it. The request must get 200, with
TwiML that a strict parser reads and that contains echo's reply. The forgeries must get 403. A request whose signed
bytes were cut into other names and values must get 400. Case `i` of seed `s` is always the same request: `--only i`
repeats it alone. `sign.mjs` is the same program with Twilio's Node library.

With three `--shared-key ID:SECRET`, each request is also signed with one of the first two keys. The library verifies
it, and the server must send the same response. Then one mix of signer, algorithm and header must get 200 if the
library verifies it with the secret of the named key, and otherwise 403. The third key belongs to another account.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import random
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Optional
from urllib.parse import urlsplit

try:
    from twilio.request_validator import RequestValidator, get_signature_algorithm
except ImportError as error:
    sys.exit(f"sign.py: {error}; use the python that `scripts/sdk DIR` prints")

ACCOUNT = "AC00000000000000000000000000000001"
FORM = "application/x-www-form-urlencoded"
OTHER_TOKEN = "fedcba9876543210fedcba9876543210"
MOST_TARGET, MOST_BODY, MOST_PAIRS, MOST_UNITS = 48 * 1024, 128 * 1024, 512, 1600

# Unicode's White_Space. `str.strip()` would treat U+001C to U+001F as blanks too.
BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

# Pieces of texts. No piece is an opt-in or opt-out keyword.
PIECES = [
    "hello", "Zoë", "Ana", "1 < 2", "x", "ok?", "42", "the quick brown fox",
    "Olá + 100% & 👍", "a&b=c", "=", "&&", "%", "%41%zz", "%2B", "+", "+1 +2", "100%25", "a;b", "~-._*", "C:\\dir\\",
    '"', "'", "it's", "`", "«»", "<b>bold</b>", "&amp;", "&#0;", "]]>", "<!--", "<?xml version='1.0'?>", "<![CDATA[",
    "مرحبا بالعالم", "שלום", "\u202eevil\u202c", "\u200f(1)\u200e", "\u061c",
    "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "1️⃣", "\u200d", "\u200b", "\ufeff", "𝒜𝔅", "𠮷野家",
    "e\u0301", "é", "\u212b", "\uac00", "\u1100\u1161", "ﬃ", "İ", "ß", "日本語", "ไทย", "नमस्ते",
    "\r\n", "\r", "\n", "\n\r", "\t", " ", "  ", "\xa0", "\u3000", "\u2028", "\x85",
    "\0", "\x01", "\x08", "\x0b", "\x0c", "\x1b[31m", "\x1f", "\x7f", "\x9f",
    "\ue000", "\uff21", "\ufdd0", "\ufffd", "\ufffe", "\uffff", "\U0001ffff", "\U0010ffff",
]  # fmt: skip

# Texts from which a faulty server makes invalid XML, or XML with another meaning.
NASTY = [
    "".join(map(chr, range(0x20))), "a" + "".join(map(chr, range(0x20))) + "b", "".join(map(chr, range(0x7F, 0xA0))),
    "\0", "\0\0\0", "a\0b", "\x1c", "\x1c\x1d\x1e\x1f", "\ufffe", "\uffff", "a\ufffeb\uffffc", "\ufffd",
    "\ufdd0\U0001fffe\U0010ffff", "\ufeff", "\ufeffhi", "\u200b", "\u2060", "\x85x\x85", "\u2028x\u2029",
    "<", ">", "&", '"', "'", "<>&\"'", "]]>", "a]]>b", "]]&gt;", "<![CDATA[x]]>", "<!--", "--><x/>", "<?xml?>", "<?x y?>",
    "</Message>", "</Message><Message>two</Message>", "<Response/>", "<!DOCTYPE a [<!ENTITY b 'c'>]>&b;", "&lt;", "&amp;amp;",
    "&#13;", "&#x0;", "&#xD800;", "&nbsp;", "&", "&;", "&#;", "a\rb", "a\r\nb", "a\n\rb", "\rx\r", "\nx\n", "\tx\t", " x ",
    "  two  blanks  ", "\xa0x\xa0", "\u3000x", "\r\n x \r\n", "e\u0301\u0301\u0301", "Z͑ͫ̓a̴l̷g̸o", "\u202e\u2066abc\u2069\u202c",
    "👨‍👩‍👧‍👦" * 40, "🇩🇪🇫🇷", "👍🏽" * 400, "\U0001f44d\uff21\ue000", "%00%0d%0a", "%", "%%", "+", "a+b c%20d", "=&=&",
    "&" * 1600, '"' * 1600, "\0" * 1600, "a\r" * 800, "a" * 1600, "a" * 1601, "👍" * 800, "👍" * 801, "é" * 1600,
    "word " * 640 + "end", "<&> " * 1200 + "end", "日本語" * 1200, "e\u0301" * 1700, "a\n" * 1500 + "b",
    "\\0\\u0000\\x00", "${jndi:ldap://x}", "{{7*7}}", "'; DROP TABLE messages; --", "../../etc/passwd", "%s%n%d",
]  # fmt: skip

# Queries of a configured webhook URL. They are signed unchanged.
QUERIES = [
    "a=%20", "b=+", "c=%2B", "d=%2b", "e=%C3%A9", "f=%c3%a9", "g", "h=", "=i", "x=1&x=2", "z=2&y=1", "q=it's",
    "q=it%27s", "r=it's+here", "u=a@b:c", "u=a%40b%3Ac", "u=a%40b%3ac", "v=/../p/./", "w=a?b", "s=;", "t=(1)*!$,", "%41=1",
    "n=%00", "o=~-._", "p=%7E%2D", "lang=de&tenant=a%20b", "m=%F0%9F%91%8D", "k=%26%3D%23", "&&j=1&", "l=100%25",
]  # fmt: skip


class Pair(NamedTuple):
    name: str
    value: str
    raw: str
    """Name and value as sent."""


class Params:
    """Pairs as the SDK reads them: like Django's QueryDict."""

    def __init__(self, pairs):
        self.values = {}
        for pair in pairs:
            self.values.setdefault(pair.name, []).append(pair.value)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def getlist(self, name):
        return self.values[name]


class Public:
    """PUBLIC_URL and the origins that Twilio may sign for it."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.scheme, self.authority, self.prefix = parts.scheme, parts.netloc, parts.path.rstrip("/")
        host, colon, port = self.authority.rpartition(":")
        self.host, self.port = (host, port) if colon and not port.endswith("]") else (self.authority, None)
        self.other = self.host if self.port else f"{self.host}:{443 if self.scheme == 'https' else 80}"
        self.origins = [f"{self.scheme}://{self.authority}", f"{self.scheme}://{self.other}"]


@dataclass(frozen=True)
class Case:
    label: str
    method: str
    path: str
    query: Optional[str]
    """In a GET, the part before its pairs."""
    pairs: tuple
    kept: bool
    """True if the request has the prefix."""
    origin: str
    """Origin of the signed URL."""
    content_type: str
    says: Optional[str]
    """Expected reply of echo."""

    def target(self):
        encoded = "&".join(pair.raw for pair in self.pairs)
        query = self.query
        if self.method == "GET":
            query = encoded if query is None else f"{query}&{encoded}"
        return self.path if query is None else f"{self.path}?{query}"

    def body(self):
        return None if self.method == "GET" else "&".join(pair.raw for pair in self.pairs).encode()

    def wire_target(self, public):
        return (public.prefix if self.kept else "") + self.target()

    def url(self, public, origin=None):
        return (origin or self.origin) + public.prefix + self.target()

    def signed(self):
        """Parameters that are signed in addition to the URL."""
        return Params(()) if self.method == "GET" else Params(self.pairs)


# --- parts of a case -----------------------------------------------------------------------------------------------

URL_PLAIN = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._*")
URL_LEGAL = URL_PLAIN | set(b"~!$'(),;:@/?")


def escaped(text, style):
    """Form-encodes as Twilio does, or in an equivalent way."""
    out = []
    for byte in text.encode():
        if style == "all":
            out.append(f"%{byte:02X}")
        elif byte in URL_PLAIN or (style in ("legal", "raw") and byte in URL_LEGAL):
            out.append(chr(byte))
        elif style == "raw" and byte >= 0x80:
            out.append(bytes([byte]).decode("latin-1"))
        elif byte == 0x20 and style != "percent":
            out.append("+")
        else:
            out.append(f"%{byte:02x}" if style == "lower" else f"%{byte:02X}")
    return "".join(out).encode("latin-1").decode() if style == "raw" else "".join(out)


def pair(name, value, style="twilio", bare=False):
    raw = escaped(name, style)
    return Pair(name, value, raw if bare and value == "" and name else f"{raw}={escaped(value, style)}")


def text(rng, most=8):
    return "".join(rng.choice(PIECES) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, most)))


def units(text):
    return len(text.encode("utf-16-le")) // 2


def long_text(rng):
    """Over 1600 units, without a run of blanks and without blanks at its end: a blank part could not be sent."""
    whole = ""
    while units(whole) <= MOST_UNITS or rng.random() < 0.9 and units(whole) < 5000:
        whole += text(rng, 4).strip(BLANKS) + rng.choice([" ", "\n", "", "\r\n"])
    return whole.rstrip(BLANKS) + "."


def body_text(rng, may_be_long):
    kind = rng.random()
    if kind < 0.08:
        return None
    if kind < 0.16:
        return ""
    if kind < 0.23:
        return "".join(rng.choice(BLANKS) for _ in range(rng.randint(1, 4)))
    if kind < 0.33 and may_be_long:
        return long_text(rng)
    if kind < 0.37 and may_be_long:
        whole = text(rng, 30)
        return whole + "x" * (MOST_UNITS - units(whole)) if units(whole) < MOST_UNITS else whole[:800]
    blanks = ["", "", "", " ", "  ", "\n", "\t", "\xa0"]
    return rng.choice(blanks) + text(rng) + rng.choice(blanks)


def sender(rng, number):
    return rng.choice([
        f"+1555{number:09}", f"whatsapp:+1555{number:09}", f"whatsapp:+1555{number:09}", f"whatsapp:US.1349{number:012}",
        f"whatsapp:US.ENT.{number:09}", f"rcs:+1555{number:09}", f"messenger:{number:012}",
    ])  # fmt: skip


def extras(rng):
    """Parameters of a message, and parameters that Twilio might add."""
    found = [("SmsStatus", "received"), ("ApiVersion", "2010-04-01"), ("NumSegments", "1")]
    if rng.random() < 0.5:
        found += [("ProfileName", text(rng, 4)), ("WaId", "15550001111"), ("MessageType", "text"), ("ReferralNumMedia", "0")]
    if rng.random() < 0.4:
        found += [(end + part, rng.choice(["", "", text(rng, 2)])) for end in ("From", "To") for part in ("City", "State", "Zip")]
    if rng.random() < 0.3:
        context = {"type": "whatsapp", "data": {"context": {"ProfileName": text(rng, 3)}}}
        found.append(("ChannelMetadata", json.dumps(context, ensure_ascii=rng.random() < 0.5)))
    if rng.random() < 0.4:
        found += [(name, text(rng, 2)) for name in rng.sample(["callSid", "CallSid", "CALLSID", "callsid", "body", "BODY", "from"], 3)]
    if rng.random() < 0.3:
        found += [(name, text(rng, 2)) for name in rng.sample(["Reason", "ReasonConferenceEnded", "Re", "a", "A", "_", "Z", "z"], 4)]
    if rng.random() < 0.5:
        values = rng.choice([
            ["b", "a"], ["b", "a", "b"], ["a", "a"], ["", "x"], ["10", "9", "1", "01"], ["é", "e\u0301"],
            ["\U0001f44d", "\uff21"], ["\U0001f44d", "\ue000", "\ufb01"], [text(rng, 2), text(rng, 2), text(rng, 2)],
        ])  # fmt: skip
        found += [(rng.choice(["Tag", "MessagingBinding.Address", "Tag[]"]), value) for value in values]
    if rng.random() < 0.4:
        names = ["Tág", "日本", "👍", "\uff21", "\ue000", "a b", "a+b", "a&b", "a=b", "a%b", "a[b]", "x.y", "T\0", '"', "e\u0301", "é", ""]
        found += [(name, text(rng, 2)) for name in rng.sample(names, 3)]
    found += [(f"Empty{at}", "") for at in range(rng.choice([0, 0, 1, 2]))]
    return found


def media(rng):
    count = rng.choice([0, 0, 0, 1, 2, 3, 11])
    types = ["image/jpeg", "image/png", "audio/ogg", "video/mp4", "application/pdf", "text/vcard"]
    found = [("NumMedia", str(count))]
    for at in range(count):
        url = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/MM{at:032x}/Media/ME{at:032x}"
        found += [(f"MediaUrl{at}", url), (f"MediaContentType{at}", rng.choice(types))]
    return found, [value for name, value in found if name.startswith("MediaContentType")]


def sid(public, label, pairs):
    """A SID that depends on the content, so that a journal that outlives the run returns no earlier response."""
    content = hashlib.sha256(repr(("sign.py", public.prefix, label, pairs)).encode()).hexdigest()
    return ("MM" if ("NumMedia", "0") not in pairs else "SM") + content[:32]


def finish(rng, public, label, method, pairs, says, path="/webhook", query=None, kept=True, origin=None, styled=True):
    """Adds the SIDs of a message, and chooses its order and encoding."""
    message_sid = sid(public, label, pairs)
    pairs = [("MessageSid", message_sid), ("SmsSid", message_sid), ("SmsMessageSid", message_sid), *pairs]
    if rng.random() < 0.15:
        pairs += rng.sample(pairs, 2)
    rng.shuffle(pairs)
    styles = ["twilio"]
    if styled:
        styles += ["twilio", "lower", "percent", "legal", "all"] + (["raw"] if method != "GET" else [])
    spelt = tuple(pair(name, value, rng.choice(styles), styled and rng.random() < 0.3) for name, value in pairs)
    content_type = rng.choice([FORM, FORM + "; charset=UTF-8"])
    return Case(label, method, path, query, spelt, kept, origin or public.origins[0], content_type, says)


def drawn(public, seed, index):
    rng = random.Random(f"{seed}|{index}")
    method = ["POST", "POST", "POST", "GET", "PUT", "GET"][index % 6]
    body = body_text(rng, method != "GET")
    attachments, types = media(rng)
    says = body if body is not None and body.strip(BLANKS) else ", ".join(types) or None
    number = int(hashlib.sha256(f"sign.py|{seed}|{index}".encode()).hexdigest(), 16) % 10**9
    pairs = [("AccountSid", ACCOUNT), ("From", sender(rng, number)), ("To", rng.choice(["+15550002222", "whatsapp:+15550002222"]))]
    pairs += attachments + extras(rng) + ([("Body", body)] if body is not None else [])
    query = "&".join(rng.sample(QUERIES, rng.randint(1, 4))) if rng.random() < 0.4 else None
    if query and method != "GET" and rng.random() < 0.2:
        query += "&Body=not+the+body&From=%2B1&MessageStatus=sent"
    case = finish(
        rng, public, str(index), method, pairs, says,
        path=rng.choice(["/webhook", "/webhook", "/webhook/"]),
        query=query,
        kept=not public.prefix or rng.random() < 0.5,
        origin=rng.choice([public.origins[0], public.origins[0], public.origins[1]]),
    )  # fmt: skip
    if method == "GET" and len(case.wire_target(public)) > MOST_TARGET:
        case = replace(case, method="POST")
    return to_the_limit(public, case, index)


def to_the_limit(public, case, index):
    """Extends some cases to a limit of the server."""
    if case.method == "GET":
        return case
    if index % 60 == 6:
        return replace(case, pairs=case.pairs + tuple(pair(f"P{at}", "") for at in range(MOST_PAIRS - len(case.pairs))))
    if index % 60 == 18:
        room = MOST_BODY - len(case.body()) - len("&Filler=")
        return replace(case, pairs=case.pairs + (pair("Filler", "f" * room),))
    if index % 60 == 30:
        case = replace(case, query="f=" if case.query is None else case.query + "&f=")
        return replace(case, query=case.query + "f" * (MOST_TARGET - len(case.wire_target(public))))
    return case


def fixed(public, seed):
    """Messages like captured ones, and the nasty texts."""
    whatsapp = [("AccountSid", ACCOUNT), ("To", "whatsapp:+15550002222"), ("NumSegments", "1"), ("SmsStatus", "received")]
    whatsapp += [("ProfileName", "Ana"), ("ApiVersion", "2010-04-01"), ("ReferralNumMedia", "0")]
    media_url = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/MM{17:032x}/Media/ME{1:032x}"
    picture = [("NumMedia", "1"), ("MediaUrl0", media_url), ("MediaContentType0", "image/jpeg"), ("MessageType", "image")]
    pin = [("NumMedia", "0"), ("Latitude", "52.5200"), ("Longitude", "13.4050"), ("Address", "1 Example St"), ("Body", "")]
    meta = '{"type":"whatsapp","data":{"context":{"ProfileName":"Ana","ButtonText":"Sure"}}}'
    button = [("NumMedia", "0"), ("ButtonText", "Sure"), ("ButtonPayload", "confirm:42"), ("ChannelMetadata", meta)]
    button += [("OriginalRepliedMessageSid", "MM" + "0" * 30 + "10"), ("Forwarded", "false"), ("MessageType", "interactive")]
    captured = [
        (picture + [("Body", "look")], "look"),
        (picture + [("Body", "")], "image/jpeg"),
        (pin + [("Label", "Office")], "location 52.52, 13.405 (Office)"),
        (pin + [("Label", "")], "location 52.52, 13.405"),
        (button + [("Body", "Sure")], "Sure"),
        (button + [("Body", "")], "button confirm:42"),
    ]
    texts = [([("NumMedia", "0"), ("Body", text)], text if text.strip(BLANKS) else None) for text in NASTY]
    for at, (pairs, says) in enumerate(captured + texts):
        label = f"fixed-{at}"
        rng = random.Random(f"{seed}|{label}")
        number = int(hashlib.sha256(f"sign.py|{seed}|{label}".encode()).hexdigest(), 16) % 10**9
        pairs = whatsapp + [("From", f"whatsapp:+1556{number:09}")] + pairs
        yield finish(rng, public, label, rng.choice(["POST", "PUT"]), pairs, says, styled=False)


# --- forgeries -----------------------------------------------------------------------------------------------------


class Forgery(NamedTuple):
    case: Case
    """Request that is sent."""
    signatures: list
    headers: tuple = ()


class Forger:
    """Turns a case and its signature into requests that no holder of the token has signed."""

    def __init__(self, public, token):
        self.public, self.sdk, self.stranger = public, RequestValidator(token), RequestValidator(OTHER_TOKEN)

    def sign(self, case, url=None, sdk=None):
        return (sdk or self.sdk).compute_signature(url or case.url(self.public), case.signed())

    def would_fit(self, case, signatures):
        """Returns true if the result is not a forgery: two requests can have the same signed text."""
        urls = [case.url(self.public, origin) for origin in self.public.origins]
        return len(signatures) == 1 and signatures[0] in [self.sign(case, url) for url in urls]

    def forge(self, rng, kind, case):
        forged = getattr(self, kind)(rng, case, self.sign(case))
        if forged is None or self.would_fit(forged.case, forged.signatures):
            return None
        target = forged.case.wire_target(self.public)
        too_big = len(target) > MOST_TARGET or len(forged.case.body() or b"") > MOST_BODY or len(forged.case.pairs) > MOST_PAIRS
        return None if too_big else forged

    def changed_value(self, rng, case, signature):
        at = rng.randrange(len(case.pairs))
        name, old, _ = case.pairs[at]
        ways = [old.strip(BLANKS), old.replace("\r\n", "\n"), old.replace("\0", ""), old.replace("+", " "), old.swapcase()]
        ways += [unicodedata.normalize(form, old) for form in ("NFC", "NFD")] + [old + "x", old + " ", ""]
        new = rng.choice([way for way in ways if way != old])
        return Forgery(replace(case, pairs=(*case.pairs[:at], pair(name, new), *case.pairs[at + 1 :])), [signature])

    def added_parameter(self, rng, case, signature):
        more = rng.choice([("Extra", "1"), ("Extra", ""), ("OptOutType", "STOP"), ("MessageStatus", "sent"), ("bodySHA256", "0" * 64)])
        at = rng.randrange(len(case.pairs) + 1)
        return Forgery(replace(case, pairs=(*case.pairs[:at], pair(*more), *case.pairs[at:])), [signature])

    def second_value(self, rng, case, signature):
        more = pair(rng.choice(["From", "Body", "MessageSid", "AccountSid", "Tag"]), "evil")
        return Forgery(replace(case, pairs=rng.choice([(more, *case.pairs), (*case.pairs, more)])), [signature])

    def without(self, rng, case, signature, wanted):
        found = [at for at, found in enumerate(case.pairs) if wanted(found)]
        if not found:
            return None
        at = rng.choice(found)
        return Forgery(replace(case, pairs=case.pairs[:at] + case.pairs[at + 1 :]), [signature])

    def dropped_empty_parameter(self, rng, case, signature):
        return self.without(rng, case, signature, lambda found: found.value == "")

    def dropped_repeat(self, rng, case, signature):
        often = Counter(found.name for found in set(case.pairs))
        return self.without(rng, case, signature, lambda found: often[found.name] > 1)

    def dropped_parameter(self, rng, case, signature):
        return self.without(rng, case, signature, lambda found: found.value != "")

    def renamed_parameter(self, rng, case, signature):
        at = rng.randrange(len(case.pairs))
        name, value, _ = case.pairs[at]
        new = rng.choice([name.swapcase(), name + "x", "x" + name])
        return Forgery(replace(case, pairs=(*case.pairs[:at], pair(new, value), *case.pairs[at + 1 :])), [signature])

    def other_token(self, rng, case, signature):
        return Forgery(case, [self.sign(case, sdk=self.stranger)])

    def empty_token(self, rng, case, signature):
        return Forgery(case, [self.sign(case, sdk=RequestValidator(""))])

    def shared_key(self, rng, case, signature):
        """Signs as a SharedKey does (HMAC-SHA256), by the library's rule. Older versions of the library lack it."""
        settings = ("X-Twilio-Webhooks-Signature-Settings", "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256")
        params = case.signed()
        signed = "".join(name + value for name in sorted(params) for value in sorted(set(params.getlist(name))))
        key = rng.choice([self.sdk, self.stranger]).token
        mac = hmac.digest(key, (case.url(self.public) + signed).encode(), "sha256")
        return Forgery(case, [base64.b64encode(mac).decode()], (settings,) if rng.random() < 0.5 else ())

    def flipped_character(self, rng, case, signature):
        at = rng.randrange(26)
        return Forgery(case, [signature[:at] + ("B" if signature[at] == "A" else "A") + signature[at + 1 :]])

    def non_canonical_base64(self, rng, case, signature):
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        return Forgery(case, [signature[:26] + alphabet[alphabet.index(signature[26]) + rng.randint(1, 3)] + "="])

    def other_base64(self, rng, case, signature):
        url_safe = signature.replace("+", "-").replace("/", "_")
        ways = [url_safe, signature[:-1], signature + "=", signature[:-1] + "A", signature + ", " + signature, "sha1=" + signature]
        return Forgery(case, [rng.choice([way for way in ways if way != signature])])

    def other_scheme(self, rng, case, signature):
        scheme = "http" if self.public.scheme == "https" else "https"
        return Forgery(case, [self.sign(case, case.url(self.public, f"{scheme}://{self.public.authority}"))])

    def other_port(self, rng, case, signature):
        port = rng.choice([port for port in ("8443", "80", "443", "1") if f":{port}" not in "".join(self.public.origins)])
        return Forgery(case, [self.sign(case, case.url(self.public, f"{self.public.scheme}://{self.public.host}:{port}"))])

    def other_host(self, rng, case, signature):
        host = rng.choice(["evil.test", "www." + self.public.host, self.public.host.upper(), "user:pass@" + self.public.host])
        return Forgery(case, [self.sign(case, case.url(self.public, f"{self.public.scheme}://{host}"))])

    def other_path(self, rng, case, signature):
        slash = "/webhook" if case.path.endswith("/") else "/webhook/"
        path = rng.choice([slash, slash, "/webhook/status", "/webhook/fallback", "/Webhook", "//webhook", "/", ""])
        return Forgery(case, [self.sign(case, replace(case, path=path).url(self.public))])

    def prefix_not_signed(self, rng, case, signature):
        if not self.public.prefix:
            return None
        return Forgery(case, [self.sign(case, case.origin + case.target())])

    def prefix_signed_twice(self, rng, case, signature):
        if not self.public.prefix:
            return None
        return Forgery(case, [self.sign(case, case.origin + self.public.prefix + self.public.prefix + case.target())])

    def query_changed(self, rng, case, signature):
        new = "x=1" if case.query is None else rng.choice([case.query + "&x=1", "x=1&" + case.query, case.query + "&", None])
        return Forgery(replace(case, query=new), [signature])

    def query_respelled(self, rng, case, signature):
        """Other bytes that decode to the same query."""
        if case.method == "GET":
            found = [at for at, found in enumerate(case.pairs) if any(char in found.raw for char in "+%")]
            if not found:
                return None
            at = rng.choice(found)
            raw = respelled(case.pairs[at].raw)
            return Forgery(replace(case, pairs=(*case.pairs[:at], case.pairs[at]._replace(raw=raw), *case.pairs[at + 1 :])), [signature])
        if case.query is None or respelled(case.query) == case.query:
            return None
        return Forgery(replace(case, query=respelled(case.query)), [signature])

    def parameters_not_as_method_says(self, rng, case, signature):
        """The body left out of the signature, or a GET's query signed as a body too."""
        params = Params(case.pairs) if case.method == "GET" else Params(())
        return Forgery(case, [self.sdk.compute_signature(case.url(self.public), params)])

    def missing_header(self, rng, case, signature):
        return Forgery(case, [])

    def empty_header(self, rng, case, signature):
        return Forgery(case, [rng.choice(["", " "])])

    def doubled_header(self, rng, case, signature):
        wrong = self.sign(case, sdk=self.stranger)
        return Forgery(case, rng.choice([[signature, signature], [signature, wrong], [wrong, signature], ["", signature]]))


def respelled(raw):
    """The same query with `+` and `%20` exchanged, else with the other hexadecimal digits."""
    if "+" in raw:
        return raw.replace("+", "%20")
    if "%20" in raw:
        return raw.replace("%20", "+")
    out, at = "", 0
    while at < len(raw):
        step = 3 if raw[at] == "%" else 1
        out += raw[at : at + 3].swapcase() if step == 3 else raw[at]
        at += step
    return out


def reshaped(case):
    """The same signed bytes, cut so that the quoted message becomes the message. Only the `MessageSid` reveals it."""
    if case.method == "GET":
        return None
    found = sorted({(name, value) for name, value, _ in case.pairs})
    names = [name for name, _ in found]
    if len(set(names)) < len(names) or not {"MessageSid", "OriginalRepliedMessageSid"} <= set(names):
        return None
    own, quoted = names.index("MessageSid"), names.index("OriginalRepliedMessageSid")
    if own == 0:
        return None
    hidden = "".join(name + value for name, value in found[own:quoted]) + "OriginalReplied"
    before = (found[own - 1][0], found[own - 1][1] + hidden)
    cut = [*found[: own - 1], before, ("MessageSid", found[quoted][1]), *found[quoted + 1 :]]
    return replace(case, pairs=tuple(pair(name, value) for name, value in cut))


class SharedKeys:
    """Signs with shared keys, by the library. The last one belongs to another account."""

    SETTINGS = "X-Twilio-Webhooks-Signature-Settings"
    ALGORITHMS = ("HMAC_SHA1", "HMAC_SHA256")
    UNKNOWN = "webhooks_sharedkey_unknown"

    def __init__(self, public, token, options):
        self.public, self.token = public, token
        self.secrets = dict(option.split(":", 1) for option in options)
        self.own = list(self.secrets)[:2]

    def signature(self, case, secret, algorithm):
        return RequestValidator(secret).compute_signature(case.url(self.public), case.signed(), algorithm)

    def verifies(self, case, secret, signature, header):
        """Returns whether the library verifies a request with a secret and the algorithm that its header names."""
        url = case.url(self.public, self.public.origins[0])
        return RequestValidator(secret).validate(url, case.signed(), signature, get_signature_algorithm(header))

    def header(self, rng, name, algorithm):
        parts = [f"key={name}", f"algorithm={rng.choice([algorithm, algorithm.lower()])}"]
        if algorithm == "HMAC_SHA1" and rng.random() < 0.3:
            parts.pop()
        if rng.random() < 0.3:
            parts.reverse()
        return rng.choice([",", ", ", " ,"]).join(parts)

    def genuine(self, rng, case):
        """A request that one of the keys has signed: its signature and header."""
        name, algorithm = rng.choice(self.own), rng.choice(self.ALGORITHMS)
        return self.signature(case, self.secrets[name], algorithm), self.header(rng, name, algorithm)

    def mix(self, rng, case):
        """A signature, a header or None, and whether the server must accept them."""
        secret = rng.choice([self.token, OTHER_TOKEN, *self.secrets.values()])
        signature = self.signature(case, secret, rng.choice(self.ALGORITHMS))
        name = rng.choice([None, self.UNKNOWN, *self.secrets])
        header = None if name is None else self.header(rng, name, rng.choice(self.ALGORITHMS))
        known = self.token if name is None else self.secrets.get(name)
        fits = known is not None and self.verifies(case, known, signature, header)
        return signature, header, fits and (name is None or name in self.own)


KINDS = [name for name, member in vars(Forger).items() if callable(member) and not name.startswith("_")]
KINDS = [name for name in KINDS if name not in ("sign", "would_fit", "forge", "without")]


# --- the server ----------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Server:
    """One connection, kept alive."""

    def __init__(self, base):
        parts = urlsplit(base)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=20)
        self.used = False

    def send(self, method, target, body, headers):
        while True:
            try:
                self.connection.putrequest(method, target, skip_accept_encoding=True)
                for name, value in headers:
                    self.connection.putheader(name, value)
                if body is not None:
                    self.connection.putheader("Content-Length", str(len(body)))
                self.connection.endheaders(body)
                response = self.connection.getresponse()
                answer = Answer(response.status, response.headers, response.read())
                self.used = not response.will_close
                return answer
            except (ConnectionError, http.client.HTTPException):
                # A server may close an idle connection at the moment of its next use.
                self.connection.close()
                if not self.used:
                    raise
                self.used = False

    def ask(self, public, case, signatures, headers=()):
        found = [("User-Agent", "TwilioProxy/1.1"), ("Accept", "*/*"), ("X-Home-Region", "us1")]
        found += [("I-Twilio-Idempotency-Token", hashlib.md5(repr(case).encode()).hexdigest()), *headers]
        found += [("X-Twilio-Signature", signature) for signature in signatures]
        if case.method != "GET":
            found.append(("Content-Type", case.content_type))
        return self.send(case.method, case.wire_target(public), case.body(), found)


def xml_text(text):
    """Replaces the characters that XML 1.0 does not allow."""

    def fits(char):
        return char in "\t\n\r" or "\x20" <= char <= "\ud7ff" or "\ue000" <= char <= "\ufffd" or char >= "\U00010000"

    return "".join(char if fits(char) else "\ufffd" for char in text)


def wrong_answer(case, answer):
    """Returns what is wrong with the response to a genuine request, or None."""
    if answer.status != 200:
        return f"status {answer.status}, not 200: {answer.body[:200]!r}"
    if answer.headers.get_all("Content-Type") != ["text/xml; charset=utf-8"]:
        return f"Content-Type is {answer.headers.get_all('Content-Type')}"
    if answer.headers.get_all("Content-Length") != [str(len(answer.body))]:
        return f"Content-Length is {answer.headers.get_all('Content-Length')} for {len(answer.body)} bytes"
    if case.method == "GET" and answer.headers.get("Cache-Control") != "no-store":
        return f"Cache-Control is {answer.headers.get('Cache-Control')} on a GET"
    if not answer.body.startswith(b"<?xml"):
        return f"the body does not begin with <?xml: {answer.body[:40]!r}"
    try:
        root = ElementTree.fromstring(answer.body)
    except ElementTree.ParseError as error:
        return f"not well-formed: {error}: {answer.body[:400]!r}"
    if root.tag != "Response" or root.attrib or (root.text or "").strip():
        return f"the root is no plain Response: {answer.body[:200]!r}"
    for message in root:
        if message.tag != "Message" or message.attrib or len(message) or message.tail:
            return f"more than a plain Message: {answer.body[:400]!r}"
        if not (message.text or "").strip(BLANKS) or units(message.text) > MOST_UNITS:
            return f"a Message of {units(message.text or '')} units: {message.text!r:.200}"
    said = "".join(message.text for message in root) if len(root) else None
    expected = None if case.says is None else xml_text(case.says)
    if said != expected:
        return f"says {said!r:.400}, not {expected!r:.400}"
    if expected is not None and units(expected) <= MOST_UNITS and len(root) != 1:
        return f"{len(root)} messages for {units(expected)} units"
    return None


def wrong_rejection(answer, signature):
    """Returns what is wrong with the response to a forgery, or None."""
    if answer.status != 403:
        return f"status {answer.status}, not 403: {answer.body[:200]!r}"
    if not (answer.headers.get("Content-Type") or "").startswith("text/plain"):
        return f"rejected with Content-Type {answer.headers.get('Content-Type')}"
    if signature.encode() in answer.body:
        return "the rejection reveals the right signature"
    return None


def shown(text):
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--base", required=True, help="where the server listens: http://127.0.0.1:PORT")
    parser.add_argument("--public-url", required=True, help="its PUBLIC_URL")
    parser.add_argument("--token", required=True, help="its TWILIO_AUTH_TOKEN (a made-up one)")
    parser.add_argument("--shared-key", action="append", default=[], help="ID:SECRET of a shared key; the last of three is of another account")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one case, by its index")
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8")

    public = Public(args.public_url)
    forger, server = Forger(public, args.token), Server(args.base)
    keys = SharedKeys(public, args.token, args.shared_key)
    accepted, rejected, recut, failures, kinds, mixes = 0, 0, 0, [], Counter(), Counter()

    def failed(case, what, signed_for=None):
        lines = [f"seed {args.seed} index {case.label}: {case.method} {shown(case.wire_target(public))}"]
        if signed_for is not None:
            lines.append(f"signed for {shown(signed_for)}")
        if case.method != "GET":
            lines.append(f"body {shown(case.body().decode())!r}")
        failures.append("\n  ".join([*lines, what]))

    cases = [drawn(public, args.seed, index) for index in range(args.cases)] + list(fixed(public, args.seed))
    try:
        for at, case in enumerate(cases):
            if args.only not in (None, case.label):
                continue
            rng = random.Random(f"{args.seed}|{case.label}|forgeries")
            signature = forger.sign(case)
            url = case.url(public, public.origins[0])
            if "[" not in public.authority and not forger.sdk.validate(url, case.signed(), signature):
                failed(case, "the SDK rejects its own signature: a mistake in this program", url)
            wrong = wrong_answer(case, server.ask(public, case, [signature]))
            if wrong:
                failed(case, wrong, case.url(public))
            else:
                accepted += 1
            if keys.secrets and "[" not in public.authority:
                drawn_keys = random.Random(f"{args.seed}|{case.label}|keys")
                shared, header = keys.genuine(drawn_keys, case)
                if not any(keys.verifies(case, secret, shared, header) for secret in keys.secrets.values()):
                    failed(case, f"the SDK rejects its own shared-key signature ({header}): a mistake in this program", url)
                wrong = wrong_answer(case, server.ask(public, case, [shared], [(keys.SETTINGS, header)]))
                if wrong:
                    failed(case, f"signed with a shared key ({header}): {wrong}", case.url(public))
                mixed, header, fits = keys.mix(drawn_keys, case)
                answer = server.ask(public, case, [mixed], [] if header is None else [(keys.SETTINGS, header)])
                wrong = wrong_answer(case, answer) if fits else wrong_rejection(answer, signature)
                if wrong:
                    failed(case, f"mix of keys ({header}, signature {mixed}): {wrong}", case.url(public))
                mixes[fits] += 1
            if (cut := reshaped(case)) is not None:
                if forger.sign(cut) != signature:
                    failed(cut, "the reshaped request has another signature: a mistake in this program")
                if (status := server.ask(public, cut, [signature]).status) != 400:
                    failed(cut, f"reshaped: status {status}, not 400")
                recut += 1
            turned = KINDS[at % len(KINDS) :] + KINDS[: at % len(KINDS)]
            tries = ((kind, forger.forge(rng, kind, case)) for kind in turned[:1] + rng.sample(turned[1:], len(turned) - 1))
            made = list(islice(((kind, forged) for kind, forged in tries if forged is not None), 2))
            for kind, forged in made:
                kinds[kind] += 1
                wrong = wrong_rejection(server.ask(public, forged.case, forged.signatures, forged.headers), signature)
                if wrong:
                    failed(forged.case, f"forgery ({kind.replace('_', ' ')}), signatures {forged.signatures}: {wrong}")
                else:
                    rejected += 1
            if len(made) < 2:
                failed(case, "fewer than two forgeries could be made: a mistake in this program")
            if len(failures) >= 100:
                break
    except (OSError, http.client.HTTPException) as error:
        failed(case, f"no answer: {error!r}")

    if not accepted or not rejected:
        failures.append("a run without an accepted request or without a rejected forgery shows nothing")
    if args.only is None and keys.secrets and not failures and (mixes[True] < 5 or mixes[False] < 100):
        failures.append(f"too few mixes of shared keys: {mixes}")
    if args.only is None and not recut:
        failures.append("a run without a reshaped request shows nothing")
    needed = [kind for kind in KINDS if public.prefix or not kind.startswith("prefix")]
    if args.only is None and args.cases >= 200 and not failures and (unused := [kind for kind in needed if not kinds[kind]]):
        failures.append(f"forgeries that were never made: {', '.join(unused)}")
    for failure in failures[:5]:
        print(failure)
    if len(failures) > 5:
        print(f"… and {len(failures) - 5} more")
    print(f"sign.py: {accepted} requests accepted, {rejected} forgeries rejected, {recut} reshaped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
