// Formatting: texts of messages, SMS segments, TwiML, curl, error codes, times.

import { h } from "./dom.js";
import { markupNodes } from "./markup.js";
import { channelOf, isWhatsApp } from "./store.js";

const GSM = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const GSM_EXTENDED = "\f^{}\\[~]|€"; // each takes two septets

/** Counts the SMS segments of a text: 160 or 153 characters each in GSM-7, 70 or 67 units in UCS-2. */
export function segments(text) {
  // One character outside GSM-7 makes the whole text UCS-2.
  const characters = [...text];
  const isGsm = characters.every((character) => GSM.includes(character) || GSM_EXTENDED.includes(character));
  const cost = (character) => (isGsm ? (GSM_EXTENDED.includes(character) ? 2 : 1) : character.length);
  const units = characters.reduce((sum, character) => sum + cost(character), 0);
  let count = 1;
  // The header that joins segments takes 7 characters or 3 units of each.
  if (units > (isGsm ? 160 : 70)) {
    // A character is not split between segments. One that does not fit starts the next segment.
    let remaining = isGsm ? 153 : 67;
    for (const character of characters) {
      if (remaining < cost(character)) {
        count += 1;
        remaining = isGsm ? 153 : 67;
      }
      remaining -= cost(character);
    }
  }
  return { count, units, encoding: isGsm ? "GSM-7" : "UCS-2" };
}

/** Returns the length of a text; for SMS with the segments, which no other channel has. */
export function sizeOf(text, user) {
  if (channelOf(user) !== "sms") {
    const length = [...text].length;
    return `${length.toLocaleString("en")} character${length === 1 ? "" : "s"}`;
  }
  const { count, units, encoding } = segments(text);
  return `${units.toLocaleString("en")} ${encoding === "GSM-7" ? "characters" : "units"}, ${count} SMS segment${count === 1 ? "" : "s"} (${encoding})`;
}

/** Returns the element of a message's text, as a phone of the user's channel shows it. */
export const messageText = (user, text) => h("div", { class: "text", dir: "auto" }, isWhatsApp(user) ? markupNodes(text) : text);

export const bytes = (text) => new TextEncoder().encode(text).length;

/** Formats TwiML as indented, colored lines, and lists the texts that it sends. `nodes` is null if it is not XML. */
export function twiml(text) {
  const parsed = new DOMParser().parseFromString(text, "application/xml");
  const problem = parsed.querySelector("parsererror");
  if (problem) return { nodes: null, texts: [], problem: problem.textContent.replace(/\s+/g, " ").trim() };
  const lines = [];
  formatElement(parsed.documentElement, 0, lines);
  // As Twilio does: with a <Body>, text next to it is not sent.
  const texts = [...parsed.querySelectorAll("Message, Sms")].map((message) => {
    const bodies = [...message.children].filter((child) => child.localName === "Body");
    const source = bodies.length ? bodies : [...message.childNodes].filter((node) => node.nodeType === 3 || node.nodeType === 4);
    return source.map((node) => node.textContent).join("").trim();
  });
  return { nodes: lines.flat(), texts, problem: null };
}

const escape = (text) => text.replace(/[&<>]/g, (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[character]);

function formatElement(element, depth, lines) {
  const indent = "  ".repeat(depth);
  const tag = (name) => h("span", { class: "tag" }, name);
  const attributes = [...element.attributes].flatMap(({ name, value }) => [" ", h("span", { class: "attr" }, name), `="${escape(value).replaceAll('"', "&quot;")}"`]);
  const content = [...element.childNodes].filter((node) => node.nodeType !== 3 || node.data.trim());
  if (!content.length) {
    lines.push([indent, tag(`<${element.tagName}`), ...attributes, tag("/>"), "\n"]);
  } else if (content.every((node) => node.nodeType === 3 || node.nodeType === 4)) {
    lines.push([indent, tag(`<${element.tagName}`), ...attributes, tag(">"), escape(element.textContent), tag(`</${element.tagName}>`), "\n"]);
  } else {
    lines.push([indent, tag(`<${element.tagName}`), ...attributes, tag(">"), "\n"]);
    for (const node of content) {
      if (node.nodeType === 1) formatElement(node, depth + 1, lines);
      else if (node.nodeType === 8) lines.push([indent, h("span", { class: "muted" }, `  <!--${node.data}-->`), "\n"]);
      else lines.push([indent, "  ", escape(node.textContent.trim()), "\n"]);
    }
    lines.push([indent, tag(`</${element.tagName}>`), "\n"]);
  }
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curl({ method, url, headers, body }) {
  // curl sets these headers itself. Copied values would contradict a body that is edited.
  const setByCurl = /^(host|content-length|connection|accept-encoding|transfer-encoding)$/i;
  const parts = [`curl -i -X ${method} ${quote(url)}`];
  for (const [name, value] of headers) if (!setByCurl.test(name)) parts.push(`-H ${quote(`${name}: ${value}`)}`);
  if (body) parts.push(`--data-raw ${quote(body)}`);
  return parts.join(" \\\n  ");
}

const CODES = {
  11200: "The response of the webhook has no content type. Respond with text/xml.",
  11205: "Twilio could not connect, or got no response within 15 seconds. Is your bot running and fast enough, and is this the right address?",
  11206: "The response breaks the HTTP protocol, or sets an invalid cookie.",
  11210: "The host name of the webhook does not resolve.",
  11215: "The webhook redirects too often. Configure its final address.",
  11216: "Twilio follows only 301, 302, 303 and 307, with a valid Location. Configure the final address.",
  11217: "The webhook responded with an error status. Check your server’s log.",
  11220: "The TLS handshake with the webhook failed.",
  11237: "The webhook’s certificate is not trusted.",
  11750: "The response is larger than the 64 KB that Twilio allows for TwiML.",
  11751: "A media file is larger than Twilio allows.",
  12100: "The response is not well-formed XML. Is there an unescaped & or < in a text?",
  12200: "The TwiML does not follow Twilio’s schema. The spelling of verbs and attributes counts, upper case too.",
  12300: "Twilio does not accept this content type. Respond with text/xml.",
  14101: "A message’s To is not valid.",
  14103: "A message holds neither text nor media.",
  20003: "The account SID or the token that the bot used is wrong.",
  20404: "This REST resource does not exist.",
  20429: "Too many requests. The bot should wait, then retry.",
  21211: "The To number is not valid.",
  21408: "Sending to this region is not enabled.",
  21610: "The user sent STOP. Nothing may be sent until START.",
  21617: "The text is longer than the 1,600 characters of one message.",
  21654: "ContentVariables needs a ContentSid.",
  21655: "The account has no content template with this SID.",
  21656: "The variables of the content template are not valid. They are a JSON object of texts.",
  30003: "The phone cannot be reached.",
  30007: "The carrier filtered the message as spam.",
  30008: "The carrier gave no reason.",
  63007: "The account does not have this WhatsApp sender.",
  63016: "The 24-hour window is closed. Only a template may be sent now.",
  63005: "The channel refuses the content. Without an approved template, WhatsApp takes three short quick replies, a list or one link.",
  63013: "A variable breaks WhatsApp’s policy: an approved template takes no line breaks, tabs or empty values.",
  63019: "WhatsApp could not fetch the media.",
  63021: "The content is too long, or has no type that this channel supports.",
  63024: "WhatsApp cannot deliver to this address.",
  63027: "The template does not exist any more.",
  63028: "The template has a variable without a value and without a sample.",
  63040: "WhatsApp has rejected the template.",
  63041: "WhatsApp has paused the template.",
};
export const explain = (code) => CODES[code] ?? null;
const pageOf = (code) => `https://www.twilio.com/docs/api/errors/${code}`;
/** Returns the explanation, or a reference to Twilio's page of the code. */
export const reasonOf = (code) => (code ? explain(code) ?? `See ${pageOf(code)}` : "");
// Only an https URL becomes a link: `url` could be a javascript: URL otherwise.
export const codeLink = (code, url) => h("a", { href: /^https:\/\//.test(url ?? "") ? url : pageOf(code), target: "_blank", rel: "noopener noreferrer" }, `Twilio on ${code}`);

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long" });
const full = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const time = { clock: (at) => clock.format(new Date(at)), day: (at) => day.format(new Date(at)), full: (at) => full.format(new Date(at)) };

export function duration(ms) {
  // Rounded up: a full day is 24 h, also a moment after it has begun.
  const minutes = Math.max(0, Math.ceil(ms / 60000));
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
}
