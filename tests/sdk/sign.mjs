/**
 * Requests signed by Twilio's own Node library, against a running server.
 *
 * Needs npm `twilio` and `saxes` (`scripts/sdk` installs them) and a `replyhook serve` with the default handler, echo:
 *
 *     node tests/sdk/sign.mjs --node-modules DIR --base http://127.0.0.1:8080 \
 *         --public-url https://hooks.example.test/bots/a --token 0123456789abcdef0123456789abcdef --cases 300 --seed 1
 *
 * Every case is one request that Twilio could make, and at least two forgeries of it. The request must get 200, with
 * TwiML that a strict parser reads and that contains echo's reply. The forgeries must get 403. A request whose signed
 * bytes were cut into other names and values must get 400. Case `i` of seed `s` is always the same request: `--only i`
 * repeats it alone. `sign.py` is the same program with Twilio's Python library.
 */

import { createHash, createHmac } from "node:crypto";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { parseArgs } from "node:util"; // Node 18.3

const ACCOUNT = "AC00000000000000000000000000000001";
const FORM = "application/x-www-form-urlencoded";
const OTHER_TOKEN = "fedcba9876543210fedcba9876543210";
const [MOST_TARGET, MOST_BODY, MOST_PAIRS, MOST_UNITS] = [48 * 1024, 128 * 1024, 512, 1600];

// Unicode's White_Space. `trim()` would treat U+FEFF as a blank, and U+0085 not.
const BLANK = "[\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const strip = (text) => text.replace(new RegExp(`^${BLANK}+|${BLANK}+$`, "gu"), "");
const isBlank = (text) => strip(text) === "";

const range = (from, to) => Array.from({ length: to - from }, (_, at) => String.fromCharCode(from + at));

// Pieces of texts. No piece is an opt-in or opt-out keyword.
const PIECES = [
  "hello", "Zoë", "Ana", "1 < 2", "x", "ok?", "42", "the quick brown fox",
  "Olá + 100% & 👍", "a&b=c", "=", "&&", "%", "%41%zz", "%2B", "+", "+1 +2", "100%25", "a;b", "~-._*", "C:\\dir\\",
  '"', "'", "it's", "`", "«»", "<b>bold</b>", "&amp;", "&#0;", "]]>", "<!--", "<?xml version='1.0'?>", "<![CDATA[",
  "مرحبا بالعالم", "שלום", "\u202eevil\u202c", "\u200f(1)\u200e", "\u061c",
  "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "1️⃣", "\u200d", "\u200b", "\ufeff", "𝒜𝔅", "𠮷野家",
  "e\u0301", "é", "\u212b", "\uac00", "\u1100\u1161", "ﬃ", "İ", "ß", "日本語", "ไทย", "नमस्ते",
  "\r\n", "\r", "\n", "\n\r", "\t", " ", "  ", "\xa0", "\u3000", "\u2028", "\x85",
  "\0", "\x01", "\x08", "\x0b", "\x0c", "\x1b[31m", "\x1f", "\x7f", "\x9f",
  "\ue000", "\uff21", "\ufdd0", "\ufffd", "\ufffe", "\uffff", "\u{1ffff}", "\u{10ffff}",
];

// Texts from which a faulty server makes invalid XML, or XML with another meaning.
const NASTY = [
  range(0, 0x20).join(""), `a${range(0, 0x20).join("")}b`, range(0x7f, 0xa0).join(""),
  "\0", "\0\0\0", "a\0b", "\x1c", "\x1c\x1d\x1e\x1f", "\ufffe", "\uffff", "a\ufffeb\uffffc", "\ufffd",
  "\ufdd0\u{1fffe}\u{10ffff}", "\ufeff", "\ufeffhi", "\u200b", "\u2060", "\x85x\x85", "\u2028x\u2029",
  "<", ">", "&", '"', "'", "<>&\"'", "]]>", "a]]>b", "]]&gt;", "<![CDATA[x]]>", "<!--", "--><x/>", "<?xml?>", "<?x y?>",
  "</Message>", "</Message><Message>two</Message>", "<Response/>", "<!DOCTYPE a [<!ENTITY b 'c'>]>&b;", "&lt;", "&amp;amp;",
  "&#13;", "&#x0;", "&#xD800;", "&nbsp;", "&;", "&#;", "a\rb", "a\r\nb", "a\n\rb", "\rx\r", "\nx\n", "\tx\t", " x ",
  "  two  blanks  ", "\xa0x\xa0", "\u3000x", "\r\n x \r\n", "e\u0301\u0301\u0301", "Z͑ͫ̓a̴l̷g̸o", "\u202e\u2066abc\u2069\u202c",
  "👨‍👩‍👧‍👦".repeat(40), "🇩🇪🇫🇷", "👍🏽".repeat(400), "\u{1f44d}\uff21\ue000", "%00%0d%0a", "%", "%%", "+", "a+b c%20d", "=&=&",
  "&".repeat(1600), '"'.repeat(1600), "\0".repeat(1600), "a\r".repeat(800), "a".repeat(1600), "a".repeat(1601),
  "👍".repeat(800), "👍".repeat(801), "é".repeat(1600), "word ".repeat(640) + "end", "<&> ".repeat(1200) + "end",
  "日本語".repeat(1200), "e\u0301".repeat(1700), "a\n".repeat(1500) + "b",
  "\\0\\u0000\\x00", "${jndi:ldap://x}", "{{7*7}}", "'; DROP TABLE messages; --", "../../etc/passwd", "%s%n%d",
];

// Queries of a configured webhook URL. They are signed unchanged.
const QUERIES = [
  "a=%20", "b=+", "c=%2B", "d=%2b", "e=%C3%A9", "f=%c3%a9", "g", "h=", "=i", "x=1&x=2", "z=2&y=1", "q=it's",
  "q=it%27s", "r=it's+here", "u=a@b:c", "u=a%40b%3Ac", "u=a%40b%3ac", "v=/../p/./", "w=a?b", "s=;", "t=(1)*!$,", "%41=1",
  "n=%00", "o=~-._", "p=%7E%2D", "lang=de&tenant=a%20b", "m=%F0%9F%91%8D", "k=%26%3D%23", "&&j=1&", "l=100%25",
];

// --- random numbers, which depend on the seed ----------------------------------------------------------------------

class Chance {
  #state;

  constructor(name) {
    this.#state = createHash("sha256").update(`sign.mjs|${name}`).digest().readUInt32LE(0);
  }

  /** mulberry32: a number from 0 to below 1. */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  below(limit) {
    return Math.floor(this.next() * limit);
  }

  either(share) {
    return this.next() < share;
  }

  of(list) {
    return list[this.below(list.length)];
  }

  shuffled(list) {
    const out = [...list];
    for (let at = out.length - 1; at > 0; at--) {
      const other = this.below(at + 1);
      [out[at], out[other]] = [out[other], out[at]];
    }
    return out;
  }

  some(list, count) {
    return this.shuffled(list).slice(0, count);
  }
}

// --- parts of a case ------------------------------------------------------------------------------------------------

const URL_PLAIN = /[A-Za-z0-9\-._*]/;
const URL_LEGAL = /[A-Za-z0-9\-._*~!$'(),;:@/?]/;

/** Form-encodes as Twilio does, or in an equivalent way. */
function escaped(text, style) {
  let out = "";
  for (const char of text) {
    const plain = style === "legal" || style === "raw" ? URL_LEGAL : URL_PLAIN;
    if (style !== "all" && (plain.test(char) || (style === "raw" && char > "\x7f"))) {
      out += char;
    } else if (char === " " && style !== "percent" && style !== "all") {
      out += "+";
    } else {
      for (const byte of Buffer.from(char)) {
        const hex = byte.toString(16).padStart(2, "0");
        out += `%${style === "lower" ? hex : hex.toUpperCase()}`;
      }
    }
  }
  return out;
}

/** A name, its value, and `raw`: both as sent. */
function pair(name, value, style = "twilio", bare = false) {
  const raw = escaped(name, style);
  return { name, value, raw: bare && value === "" && name ? raw : `${raw}=${escaped(value, style)}` };
}

/** PUBLIC_URL and the origins that Twilio may sign for it. */
class Public {
  constructor(url) {
    const [, scheme, authority, prefix] = /^(https?):\/\/([^/?#]+)([^?#]*)$/.exec(url);
    Object.assign(this, { scheme, authority, prefix: prefix.replace(/\/+$/, "") });
    const port = /:(\d+)$/.exec(authority)?.[1];
    this.host = port ? authority.slice(0, -port.length - 1) : authority;
    const other = port ? this.host : `${this.host}:${scheme === "https" ? 443 : 80}`;
    this.origins = [`${scheme}://${authority}`, `${scheme}://${other}`];
  }
}

/**
 * One request. In a GET, `query` is the part before its pairs. `kept` is true if the request has the prefix, `origin`
 * is that of the signed URL, and `says` is the expected reply of echo.
 */
class Case {
  constructor(fields) {
    Object.assign(this, fields);
  }

  with(fields) {
    return new Case({ ...this, ...fields });
  }

  get encoded() {
    return this.pairs.map((pair) => pair.raw).join("&");
  }

  get target() {
    let query = this.query;
    if (this.method === "GET") query = query === null ? this.encoded : `${query}&${this.encoded}`;
    return query === null ? this.path : `${this.path}?${query}`;
  }

  get body() {
    return Buffer.from(this.method === "GET" ? "" : this.encoded);
  }

  wireTarget(site) {
    return (this.kept ? site.prefix : "") + this.target;
  }

  url(site, origin = this.origin) {
    return origin + site.prefix + this.target;
  }

  /** Parameters that are signed in addition to the URL. */
  get signed() {
    return this.method === "GET" ? {} : params(this.pairs);
  }
}

/** Pairs as the SDK reads them: a repeated name has an array. */
function params(pairs) {
  const found = {};
  for (const { name, value } of pairs) {
    if (name === "__proto__" || /^\d+$/.test(name)) throw new Error(`a name that the SDK gets wrong: ${name}`);
    found[name] = Object.hasOwn(found, name) ? [found[name], value].flat() : value;
  }
  return found;
}

function words(chance, most = 8) {
  let out = "";
  for (let left = 1 + chance.below(most); left > 0; left--) out += chance.of(PIECES) + chance.of(["", "", " "]);
  return out;
}

/** Over 1600 units, without a run of blanks and without blanks at its end: a blank part could not be sent. */
function longText(chance) {
  let whole = "";
  while (whole.length <= MOST_UNITS || (chance.either(0.9) && whole.length < 5000)) {
    whole += strip(words(chance, 4)) + chance.of([" ", "\n", "", "\r\n"]);
  }
  return `${strip(whole)}.`;
}

function bodyText(chance, mayBeLong) {
  const kind = chance.next();
  if (kind < 0.08) return null;
  if (kind < 0.16) return "";
  if (kind < 0.23) return chance.some(["\t", "\n", "\v", "\f", "\r", " ", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u3000"], 4).join("");
  if (kind < 0.33 && mayBeLong) return longText(chance);
  if (kind < 0.37 && mayBeLong) {
    const whole = [...words(chance, 20)].slice(0, 600).join("");
    return whole + "x".repeat(MOST_UNITS - whole.length);
  }
  const blanks = ["", "", "", " ", "  ", "\n", "\t", "\xa0"];
  return chance.of(blanks) + words(chance) + chance.of(blanks);
}

function sender(chance, number) {
  const digits = String(number).padStart(9, "0");
  return chance.of([
    `+1555${digits}`, `whatsapp:+1555${digits}`, `whatsapp:+1555${digits}`, `whatsapp:US.1349000${digits}`,
    `whatsapp:US.ENT.${digits}`, `rcs:+1555${digits}`, `messenger:000${digits}`,
  ]);
}

/** Parameters of a message, and parameters that Twilio might add. */
function extras(chance) {
  const found = [["SmsStatus", "received"], ["ApiVersion", "2010-04-01"], ["NumSegments", "1"]];
  if (chance.either(0.5)) {
    found.push(["ProfileName", words(chance, 4)], ["WaId", "15550001111"], ["MessageType", "text"], ["ReferralNumMedia", "0"]);
  }
  if (chance.either(0.4)) {
    for (const end of ["From", "To"]) {
      for (const part of ["City", "State", "Zip"]) found.push([end + part, chance.of(["", "", words(chance, 2)])]);
    }
  }
  if (chance.either(0.3)) {
    found.push(["ChannelMetadata", JSON.stringify({ type: "whatsapp", data: { context: { ProfileName: words(chance, 3) } } })]);
  }
  const named = (names, count) => found.push(...chance.some(names, count).map((name) => [name, words(chance, 2)]));
  if (chance.either(0.4)) named(["callSid", "CallSid", "CALLSID", "callsid", "body", "BODY", "from"], 3);
  if (chance.either(0.3)) named(["Reason", "ReasonConferenceEnded", "Re", "a", "A", "_", "Z", "z", "constructor"], 4);
  if (chance.either(0.5)) {
    const values = chance.of([
      ["b", "a"], ["b", "a", "b"], ["a", "a"], ["", "x"], ["10", "9", "1", "01"], ["é", "e\u0301"],
      ["\u{1f44d}", "\uff21"], ["\u{1f44d}", "\ue000", "\ufb01"], [words(chance, 2), words(chance, 2), words(chance, 2)],
    ]);
    found.push(...values.map((value) => [chance.of(["Tag", "MessagingBinding.Address", "Tag[]"]), value]));
  }
  if (chance.either(0.4)) {
    named(["Tág", "日本", "👍", "\uff21", "\ue000", "a b", "a+b", "a&b", "a=b", "a%b", "a[b]", "x.y", "T\0", '"', "e\u0301", "é", ""], 3);
  }
  for (let left = chance.of([0, 0, 1, 2]); left > 0; left--) found.push([`Empty${left}`, ""]);
  return found;
}

function media(chance) {
  const count = chance.of([0, 0, 0, 1, 2, 3, 11]);
  const found = [["NumMedia", String(count)]];
  const types = [];
  for (let at = 0; at < count; at++) {
    const number = at.toString(16).padStart(32, "0");
    types.push(chance.of(["image/jpeg", "image/png", "audio/ogg", "video/mp4", "application/pdf", "text/vcard"]));
    found.push([`MediaUrl${at}`, `https://api.twilio.com/2010-04-01/Accounts/${ACCOUNT}/Messages/MM${number}/Media/ME${number}`]);
    found.push([`MediaContentType${at}`, types[at]]);
  }
  return [found, types];
}

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

/** Adds the SIDs of a message, and chooses its order and encoding. */
function finish(chance, site, label, method, pairs, says, more = {}) {
  const { styled = true, ...fields } = more;
  // The SID depends on the content, so that a journal that outlives the run does not return an earlier response.
  const hash = sha256(JSON.stringify(["sign.mjs", site.prefix, label, pairs]));
  const sid = (pairs.some(([name, value]) => name === "NumMedia" && value === "0") ? "SM" : "MM") + hash.slice(0, 32);
  let all = [["MessageSid", sid], ["SmsSid", sid], ["SmsMessageSid", sid], ...pairs];
  if (chance.either(0.15)) all.push(...chance.some(all, 2));
  all = chance.shuffled(all);
  const styles = ["twilio"];
  if (styled) styles.push("twilio", "lower", "percent", "legal", "all");
  if (styled && method !== "GET") styles.push("raw");
  return new Case({
    label, method, says,
    path: "/webhook",
    query: null,
    kept: true,
    origin: site.origins[0],
    contentType: chance.of([FORM, `${FORM}; charset=UTF-8`]),
    pairs: all.map(([name, value]) => pair(name, value, chance.of(styles), styled && chance.either(0.3))),
    ...fields,
  });
}

const numberOf = (name) => Number(BigInt(`0x${sha256(`sign.mjs|${name}`)}`) % 1_000_000_000n);

function drawn(site, seed, index) {
  const chance = new Chance(`${seed}|${index}`);
  const method = ["POST", "POST", "POST", "GET", "PUT", "GET"][index % 6];
  const body = bodyText(chance, method !== "GET");
  const [attachments, types] = media(chance);
  const says = body !== null && !isBlank(body) ? body : types.join(", ") || null;
  const pairs = [["AccountSid", ACCOUNT], ["From", sender(chance, numberOf(`${seed}|${index}`))]];
  pairs.push(["To", chance.of(["+15550002222", "whatsapp:+15550002222"])], ...attachments, ...extras(chance));
  if (body !== null) pairs.push(["Body", body]);
  let query = chance.either(0.4) ? chance.some(QUERIES, 1 + chance.below(4)).join("&") : null;
  if (query !== null && method !== "GET" && chance.either(0.2)) query += "&Body=not+the+body&From=%2B1&MessageStatus=sent";
  const found = finish(chance, site, String(index), method, pairs, says, {
    path: chance.of(["/webhook", "/webhook", "/webhook/"]),
    query,
    kept: site.prefix === "" || chance.either(0.5),
    origin: chance.of([site.origins[0], site.origins[0], site.origins[1]]),
  });
  const tooLong = method === "GET" && found.wireTarget(site).length > MOST_TARGET;
  return toTheLimit(site, tooLong ? found.with({ method: "POST" }) : found, index);
}

/** Extends some cases to a limit of the server. */
function toTheLimit(site, found, index) {
  if (found.method === "GET") return found;
  if (index % 60 === 6) {
    const more = Array.from({ length: MOST_PAIRS - found.pairs.length }, (_, at) => pair(`P${at}`, ""));
    return found.with({ pairs: [...found.pairs, ...more] });
  }
  if (index % 60 === 18) {
    const room = MOST_BODY - found.body.length - "&Filler=".length;
    return found.with({ pairs: [...found.pairs, pair("Filler", "f".repeat(room))] });
  }
  if (index % 60 === 30) {
    const longer = found.with({ query: found.query === null ? "f=" : `${found.query}&f=` });
    return longer.with({ query: longer.query + "f".repeat(MOST_TARGET - longer.wireTarget(site).length) });
  }
  return found;
}

/** Messages like captured ones, and the nasty texts. */
function fixed(site, seed) {
  const whatsapp = [["AccountSid", ACCOUNT], ["To", "whatsapp:+15550002222"], ["NumSegments", "1"], ["SmsStatus", "received"]];
  whatsapp.push(["ProfileName", "Ana"], ["ApiVersion", "2010-04-01"], ["ReferralNumMedia", "0"]);
  const url = `https://api.twilio.com/2010-04-01/Accounts/${ACCOUNT}/Messages/MM${"0".repeat(30)}11/Media/ME${"0".repeat(31)}1`;
  const picture = [["NumMedia", "1"], ["MediaUrl0", url], ["MediaContentType0", "image/jpeg"], ["MessageType", "image"]];
  const pin = [["NumMedia", "0"], ["Latitude", "52.5200"], ["Longitude", "13.4050"], ["Address", "1 Example St"], ["Body", ""]];
  const meta = '{"type":"whatsapp","data":{"context":{"ProfileName":"Ana","ButtonText":"Sure"}}}';
  const button = [["NumMedia", "0"], ["ButtonText", "Sure"], ["ButtonPayload", "confirm:42"], ["ChannelMetadata", meta]];
  button.push(["OriginalRepliedMessageSid", `MM${"0".repeat(30)}10`], ["Forwarded", "false"], ["MessageType", "interactive"]);
  const messages = [
    [[...picture, ["Body", "look"]], "look"],
    [[...picture, ["Body", ""]], "image/jpeg"],
    [[...pin, ["Label", "Office"]], "location 52.52, 13.405 (Office)"],
    [[...pin, ["Label", ""]], "location 52.52, 13.405"],
    [[...button, ["Body", "Sure"]], "Sure"],
    [[...button, ["Body", ""]], "button confirm:42"],
    ...NASTY.map((text) => [[["NumMedia", "0"], ["Body", text]], isBlank(text) ? null : text]),
  ];
  return messages.map(([pairs, says], at) => {
    const label = `fixed-${at}`;
    const from = ["From", `whatsapp:+1556${String(numberOf(`${seed}|${label}`)).padStart(9, "0")}`];
    const chance = new Chance(`${seed}|${label}`);
    return finish(chance, site, label, chance.of(["POST", "PUT"]), [...whatsapp, from, ...pairs], says, { styled: false });
  });
}

// --- forgeries ------------------------------------------------------------------------------------------------------

/** Turns a case and its signature into requests that no holder of the token has signed. */
class Forger {
  constructor(site, token, sdk) {
    Object.assign(this, { site, token, sdk });
  }

  sign(found, { url = found.url(this.site), token = this.token, signed = found.signed } = {}) {
    return this.sdk(token, url, signed);
  }

  /** Returns true if the result is not a forgery: two requests can have the same signed text. */
  wouldFit(found, signatures) {
    const fits = (origin) => this.sign(found, { url: found.url(this.site, origin) }) === signatures[0];
    return signatures.length === 1 && this.site.origins.some(fits);
  }

  forge(chance, kind, found) {
    const forged = KINDS[kind](chance, found, this.sign(found), this);
    if (forged === null) return null;
    const made = { found: forged.found ?? found, signatures: forged.signatures ?? [this.sign(found)], headers: forged.headers ?? [] };
    const { pairs, body } = made.found;
    const length = made.found.wireTarget(this.site).length;
    const tooBig = length > MOST_TARGET || body.length > MOST_BODY || pairs.length > MOST_PAIRS;
    return tooBig || this.wouldFit(made.found, made.signatures) ? null : made;
  }
}

/** The request with one of its pairs replaced by others. */
const replaced = (found, at, ...pairs) => ({
  found: found.with({ pairs: [...found.pairs.slice(0, at), ...pairs, ...found.pairs.slice(at + 1)] }),
});
const inserted = (found, at, more) => ({ found: found.with({ pairs: [...found.pairs.slice(0, at), more, ...found.pairs.slice(at)] }) });

function without(chance, found, wanted) {
  const places = found.pairs.flatMap((pair, at) => (wanted(pair) ? [at] : []));
  return places.length ? replaced(found, chance.of(places)) : null;
}

/** The same signed bytes, cut so that the quoted message becomes the message. Only the `MessageSid` reveals it. */
function reshaped(found) {
  if (found.method === "GET") return null;
  const pairs = found.pairs.map(({ name, value }) => [name, value]);
  const names = pairs.map(([name]) => name);
  if (new Set(names).size < names.length) return null;
  pairs.sort(([a], [b]) => (a < b ? -1 : 1));
  const at = (wanted) => pairs.findIndex(([name]) => name === wanted);
  const [own, quoted] = [at("MessageSid"), at("OriginalRepliedMessageSid")];
  if (own < 1 || quoted < 0) return null;
  const hidden = `${pairs.slice(own, quoted).flat().join("")}OriginalReplied`;
  const [before, value] = pairs[own - 1];
  const cut = [...pairs.slice(0, own - 1), [before, value + hidden], ["MessageSid", pairs[quoted][1]], ...pairs.slice(quoted + 1)];
  return found.with({ pairs: cut.map(([name, value]) => pair(name, value)) });
}

const swapCase = (text) => text.replace(/[a-z]/gi, (char) => (char < "a" ? char.toLowerCase() : char.toUpperCase()));

/** The same query with `+` and `%20` exchanged, else with the other hexadecimal digits. */
function respelled(raw) {
  if (raw.includes("+")) return raw.replaceAll("+", "%20");
  if (raw.includes("%20")) return raw.replaceAll("%20", "+");
  return raw.replace(/%[0-9a-f]{2}/gi, swapCase);
}

/** Each returns its changes to the request, the signatures or the headers, or null if it cannot change the case. */
const KINDS = {
  "changed value"(chance, found) {
    const at = chance.below(found.pairs.length);
    const { name, value } = found.pairs[at];
    const ways = [strip(value), value.replaceAll("\r\n", "\n"), value.replaceAll("\0", ""), value.replaceAll("+", " ")];
    ways.push(swapCase(value), value.normalize("NFC"), value.normalize("NFD"), `${value}x`, `${value} `, "");
    return replaced(found, at, pair(name, chance.of(ways.filter((way) => way !== value))));
  },
  "added parameter"(chance, found) {
    const more = [["Extra", "1"], ["Extra", ""], ["OptOutType", "STOP"], ["MessageStatus", "sent"], ["bodySHA256", "0".repeat(64)]];
    return inserted(found, chance.below(found.pairs.length + 1), pair(...chance.of(more)));
  },
  "second value"(chance, found) {
    const name = chance.of(["From", "Body", "MessageSid", "AccountSid", "Tag"]);
    return inserted(found, chance.of([0, found.pairs.length]), pair(name, "evil"));
  },
  "dropped empty parameter": (chance, found) => without(chance, found, (pair) => pair.value === ""),
  "dropped parameter": (chance, found) => without(chance, found, (pair) => pair.value !== ""),
  "dropped repeat"(chance, found) {
    const often = (wanted) => new Set(found.pairs.filter((pair) => pair.name === wanted).map((pair) => pair.value)).size;
    return without(chance, found, (pair) => often(pair.name) > 1);
  },
  "renamed parameter"(chance, found) {
    const at = chance.below(found.pairs.length);
    const { name, value } = found.pairs[at];
    return replaced(found, at, pair(chance.of([swapCase(name), `${name}x`, `x${name}`]), value));
  },
  "other token": (_, found, __, forger) => ({ signatures: [forger.sign(found, { token: OTHER_TOKEN })] }),
  "empty token": (_, found, __, forger) => ({ signatures: [forger.sign(found, { token: "" })] }),
  "HMAC-SHA256"(chance, found, _, forger) {
    const names = Object.keys(found.signed).sort();
    const values = (name) => [...new Set([found.signed[name]].flat())].sort();
    const signed = found.url(forger.site) + names.flatMap((name) => values(name).map((value) => name + value)).join("");
    const signature = createHmac("sha256", chance.of([forger.token, OTHER_TOKEN])).update(signed).digest("base64");
    const settings = ["X-Twilio-Webhooks-Signature-Settings", "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"];
    return { signatures: [signature], headers: chance.either(0.5) ? [settings] : [] };
  },
  "flipped character"(chance, _, signature) {
    const at = chance.below(26);
    return { signatures: [signature.slice(0, at) + (signature[at] === "A" ? "B" : "A") + signature.slice(at + 1)] };
  },
  "non-canonical base64"(chance, _, signature) {
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    return { signatures: [`${signature.slice(0, 26)}${alphabet[alphabet.indexOf(signature[26]) + 1 + chance.below(3)]}=`] };
  },
  "other base64"(chance, _, signature) {
    const ways = [signature.replaceAll("+", "-").replaceAll("/", "_"), signature.slice(0, -1), `${signature}=`];
    ways.push(`${signature.slice(0, -1)}A`, `${signature}, ${signature}`, `sha1=${signature}`);
    return { signatures: [chance.of(ways.filter((way) => way !== signature))] };
  },
  "other scheme"(_, found, __, forger) {
    const scheme = forger.site.scheme === "https" ? "http" : "https";
    return { signatures: [forger.sign(found, { url: found.url(forger.site, `${scheme}://${forger.site.authority}`) })] };
  },
  "other port"(chance, found, _, forger) {
    const { scheme, host, origins } = forger.site;
    const port = chance.of(["8443", "80", "443", "1"].filter((port) => !origins.join("").includes(`:${port}`)));
    return { signatures: [forger.sign(found, { url: found.url(forger.site, `${scheme}://${host}:${port}`) })] };
  },
  "other host"(chance, found, _, forger) {
    const { scheme, host } = forger.site;
    const other = chance.of(["evil.test", `www.${host}`, host.toUpperCase(), `user:pass@${host}`]);
    return { signatures: [forger.sign(found, { url: found.url(forger.site, `${scheme}://${other}`) })] };
  },
  "other path"(chance, found, _, forger) {
    const slash = found.path.endsWith("/") ? "/webhook" : "/webhook/";
    const other = chance.of([slash, slash, "/webhook/status", "/webhook/fallback", "/Webhook", "//webhook", "/", ""]);
    return { signatures: [forger.sign(found, { url: found.with({ path: other }).url(forger.site) })] };
  },
  "prefix not signed"(_, found, __, forger) {
    return forger.site.prefix ? { signatures: [forger.sign(found, { url: found.origin + found.target })] } : null;
  },
  "prefix signed twice"(_, found, __, forger) {
    const { prefix } = forger.site;
    return prefix ? { signatures: [forger.sign(found, { url: found.origin + prefix + prefix + found.target })] } : null;
  },
  "query changed"(chance, found) {
    const ways = [`${found.query}&x=1`, `x=1&${found.query}`, `${found.query}&`, null];
    return { found: found.with({ query: found.query === null ? "x=1" : chance.of(ways) }) };
  },
  "query respelled"(chance, found) {
    if (found.method !== "GET") {
      return found.query === null ? null : { found: found.with({ query: respelled(found.query) }) };
    }
    const places = found.pairs.flatMap((pair, at) => (/[+%]/.test(pair.raw) ? [at] : []));
    const at = chance.of(places);
    return places.length ? replaced(found, at, { ...found.pairs[at], raw: respelled(found.pairs[at].raw) }) : null;
  },
  "parameters not as the method says"(_, found, __, forger) {
    return { signatures: [forger.sign(found, { signed: found.method === "GET" ? params(found.pairs) : {} })] };
  },
  "missing header": () => ({ signatures: [] }),
  "empty header": () => ({ signatures: [""] }),
  "doubled header"(chance, found, signature, forger) {
    const wrong = forger.sign(found, { token: OTHER_TOKEN });
    return { signatures: chance.of([[signature, signature], [signature, wrong], [wrong, signature], ["", signature]]) };
  },
};

// --- the server -----------------------------------------------------------------------------------------------------

/** One connection, kept alive. */
class Server {
  #agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

  constructor(base) {
    this.base = new URL(base);
  }

  close() {
    this.#agent.destroy();
  }

  async ask(site, found, signatures, more = []) {
    const headers = [["Host", this.base.host], ["User-Agent", "TwilioProxy/1.1"], ["Accept", "*/*"], ["X-Home-Region", "us1"]];
    headers.push(["I-Twilio-Idempotency-Token", sha256(found.target + found.encoded).slice(0, 32)], ...more);
    headers.push(...signatures.map((signature) => ["X-Twilio-Signature", signature]));
    if (found.method !== "GET") headers.push(["Content-Type", found.contentType], ["Content-Length", String(found.body.length)]);
    for (;;) {
      try {
        return await this.#send(found.method, found.wireTarget(site), headers, found.body);
      } catch (error) {
        // A server may close an idle connection at the moment of its next use.
        if (!error.reusedSocket) throw error;
      }
    }
  }

  #send(method, target, headers, body) {
    return new Promise((resolve, reject) => {
      const { hostname, port } = this.base;
      const host = hostname.replace(/^\[|\]$/g, "");
      const request = http.request({ host, port: port || 80, method, path: target, headers: headers.flat(), agent: this.#agent });
      request.setTimeout(20_000, () => request.destroy(new Error("timed out")));
      request.on("error", (error) => reject(Object.assign(error, { reusedSocket: request.reusedSocket && error.code === "ECONNRESET" })));
      request.on("response", (response) => {
        const parts = [];
        response.on("data", (part) => parts.push(part));
        response.on("error", reject);
        response.on("end", () => {
          resolve({ status: response.statusCode, headers: response.headersDistinct, body: Buffer.concat(parts) });
        });
      });
      request.end(body);
    });
  }
}

/** Replaces the characters that XML 1.0 does not allow. */
const xmlText = (text) => text.replace(/[^\t\n\r\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");

/** Returns the texts of `<Response><Message>…`. Throws if the XML is not well-formed or has anything else. */
function messagesOf(xml, SaxesParser) {
  const texts = [];
  const open = [];
  const parser = new SaxesParser();
  parser.on("error", (error) => {
    throw error;
  });
  parser.on("opentag", ({ name, attributes }) => {
    if (name !== ["Response", "Message"][open.length] || Object.keys(attributes).length) throw new Error(`more than plain messages: <${name}>`);
    open.push(name);
    if (name === "Message") texts.push("");
  });
  parser.on("closetag", () => open.pop());
  const onText = (text) => {
    if (open.length === 2) texts[texts.length - 1] += text;
    else if (text.trim()) throw new Error(`text outside of a message: ${text.slice(0, 100)}`);
  };
  parser.on("text", onText);
  parser.on("cdata", onText);
  parser.write(xml).close();
  return texts;
}

const only = (values) => (values?.length === 1 ? values[0] : undefined);
const quoted = (text) => JSON.stringify(text)?.slice(0, 400);

/** Returns what is wrong with the response to a genuine request, or null. */
function wrongAnswer(found, { status, headers, body }, SaxesParser) {
  if (status !== 200) return `status ${status}, not 200: ${quoted(String(body))}`;
  if (only(headers["content-type"]) !== "text/xml; charset=utf-8") return `Content-Type is ${headers["content-type"]}`;
  if (only(headers["content-length"]) !== String(body.length)) return `Content-Length is ${headers["content-length"]} for ${body.length} bytes`;
  if (found.method === "GET" && only(headers["cache-control"]) !== "no-store") return `Cache-Control is ${headers["cache-control"]} on a GET`;
  if (body.subarray(0, 5).toString("latin1") !== "<?xml") return `the body does not begin with <?xml: ${quoted(String(body))}`;
  let texts;
  try {
    texts = messagesOf(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body), SaxesParser);
  } catch (error) {
    return `no TwiML: ${error.message}: ${quoted(String(body))}`;
  }
  const odd = texts.find((text) => isBlank(text) || text.length > MOST_UNITS);
  if (odd !== undefined) return `a Message of ${odd.length} units: ${quoted(odd)}`;
  const said = texts.length ? texts.join("") : null;
  const expected = found.says === null ? null : xmlText(found.says);
  if (said !== expected) return `says ${quoted(said)}, not ${quoted(expected)}`;
  if (expected !== null && expected.length <= MOST_UNITS && texts.length !== 1) return `${texts.length} messages for ${expected.length} units`;
  return null;
}

/** Returns what is wrong with the response to a forgery, or null. */
function wrongRejection({ status, headers, body }, signature) {
  if (status !== 403) return `status ${status}, not 403: ${quoted(String(body))}`;
  if (!only(headers["content-type"])?.startsWith("text/plain")) return `rejected with Content-Type ${headers["content-type"]}`;
  if (body.includes(signature)) return "the rejection reveals the right signature";
  return null;
}

const shown = (text) => (text.length <= 300 ? text : `${text.slice(0, 300)}… (${text.length} characters)`);

function usage(problem) {
  console.error(`sign.mjs: ${problem}
usage: sign.mjs --base http://127.0.0.1:PORT --public-url URL --token TOKEN [--cases N] [--seed S] [--only INDEX] [--node-modules DIR]`);
  process.exit(2);
}

function settings() {
  const names = ["base", "public-url", "token", "cases", "seed", "only", "node-modules"];
  let given;
  try {
    given = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) }).values;
  } catch (error) {
    usage(error.message);
  }
  const args = { cases: "300", seed: "1", ...given };
  for (const needed of ["base", "public-url", "token"]) if (!args[needed]) usage(`--${needed} is missing`);
  for (const number of ["cases", "seed"]) if (!/^\d+$/.test(args[number])) usage(`--${number} is no number`);
  return args;
}

function libraries(modules) {
  const require = createRequire(modules ? path.join(path.resolve(modules), "_") : import.meta.url);
  try {
    return { ...require("saxes"), getExpectedTwilioSignature: require("twilio").getExpectedTwilioSignature };
  } catch (error) {
    return usage(`${error.message.split("\n")[0]}; --node-modules is the folder that scripts/sdk DIR prints`);
  }
}

async function main() {
  const args = settings();
  const { getExpectedTwilioSignature, SaxesParser } = libraries(args["node-modules"]);

  const site = new Public(args["public-url"]);
  const forger = new Forger(site, args.token, getExpectedTwilioSignature);
  const server = new Server(args.base);
  const failures = [];
  const made = new Map(Object.keys(KINDS).map((kind) => [kind, 0]));
  let [accepted, rejected, recut] = [0, 0, 0];

  const failed = (found, what, signedFor) => {
    const lines = [`seed ${args.seed} index ${found.label}: ${found.method} ${shown(found.wireTarget(site))}`];
    if (signedFor) lines.push(`signed for ${shown(signedFor)}`);
    if (found.method !== "GET") lines.push(`body ${JSON.stringify(shown(found.encoded))}`);
    failures.push([...lines, what].join("\n  "));
  };

  const drawnCases = Array.from({ length: Number(args.cases) }, (_, index) => drawn(site, args.seed, index));
  for (const [at, found] of [...drawnCases, ...fixed(site, args.seed)].entries()) {
    if (args.only !== undefined && args.only !== found.label) continue;
    try {
      const chance = new Chance(`${args.seed}|${found.label}|forgeries`);
      const signature = forger.sign(found);
      const wrong = wrongAnswer(found, await server.ask(site, found, [signature]), SaxesParser);
      if (wrong) failed(found, wrong, found.url(site));
      else accepted++;
      const cut = reshaped(found);
      if (cut !== null) {
        if (forger.sign(cut) !== signature) failed(cut, "the reshaped request has another signature: a mistake in this program");
        const { status } = await server.ask(site, cut, [signature]);
        if (status !== 400) failed(cut, `reshaped: status ${status}, not 400`);
        recut++;
      }
      const kinds = Object.keys(KINDS);
      const [first] = kinds.splice(at % kinds.length, 1);
      let count = 0;
      for (const kind of [first, ...chance.shuffled(kinds)]) {
        const forged = forger.forge(chance, kind, found);
        if (forged === null) continue;
        made.set(kind, made.get(kind) + 1);
        const wrong = wrongRejection(await server.ask(site, forged.found, forged.signatures, forged.headers), signature);
        if (wrong) failed(forged.found, `forgery (${kind}), signatures ${JSON.stringify(forged.signatures)}: ${wrong}`);
        else rejected++;
        if (++count === 2) break;
      }
      if (count < 2) failed(found, "fewer than two forgeries could be made: a mistake in this program");
    } catch (error) {
      failed(found, `no answer: ${error.message || error.code}`);
      break;
    }
    if (failures.length >= 100) break;
  }
  server.close();

  if (!accepted || !rejected) failures.push("a run without an accepted request or without a rejected forgery shows nothing");
  if (args.only === undefined && !recut) failures.push("a run without a reshaped request shows nothing");
  const unused = [...made].filter(([kind, count]) => !count && (site.prefix || !kind.startsWith("prefix"))).map(([kind]) => kind);
  if (args.only === undefined && Number(args.cases) >= 200 && !failures.length && unused.length) {
    failures.push(`forgeries that were never made: ${unused.join(", ")}`);
  }
  for (const failure of failures.slice(0, 5)) console.log(failure);
  if (failures.length > 5) console.log(`… and ${failures.length - 5} more`);
  console.log(`sign.mjs: ${accepted} requests accepted, ${rejected} forgeries rejected, ${recut} reshaped`);
  process.exitCode = failures.length ? 1 : 0;
}

await main();
