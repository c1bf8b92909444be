// Details of one HTTP exchange: time, parameters, signature, headers, bodies.

import { fillIfChanged, h, notice, reportErrors } from "./dom.js";
import { emit, state } from "./store.js";
import { bytes, codeLink, curl, explain, sizeOf, twiml } from "./text.js";

const TWILIO_TIMEOUT = 15000; // ms
const MAX_SHOWN_CHARACTERS = 100000; // characters of a body; longer texts make the browser slow

const ATTEMPTS = { primary: "Webhook", retry: "Webhook, retry", fallback: "Fallback", redirect: "Redirect", action: "Action", duplicate: "Webhook, duplicate" };

export function titleOf(exchange) {
  const status = exchange.params.find(([name]) => name === "MessageStatus")?.[1];
  if (exchange.kind === "webhook") return ATTEMPTS[exchange.attempt] ?? "Webhook";
  if (exchange.kind === "status") return `Status${status ? `: ${status}` : ""}${exchange.attempt && exchange.attempt !== "primary" ? ` (${exchange.attempt})` : ""}`;
  return exchange.kind === "rest" ? "REST call by the bot" : "Media";
}

export function verdictOf({ response, error_code: code }) {
  const status = response?.status;
  const isGood = !code && status >= 200 && status < 400;
  return { text: code ? `${status ?? "no response"} · ${code}` : String(status ?? "in progress"), tone: isGood ? "good" : code || status >= 400 ? "bad" : "" };
}

const openSections = new Map([["Parameters", true], ["Response", true], ["Signature", true]]); // stays the same when another exchange is shown

function section(name, title, ...content) {
  const element = h("details", { open: openSections.get(name) ?? false, ontoggle: () => openSections.set(name, element.open) },
    h("summary", { "data-key": `section ${name}` }, h("h4", {}, title)), content);
  return element;
}

// Wide content scrolls inside its box, which is focusable so that the arrow keys can scroll it.
const pre = (label, ...content) => h("pre", { tabindex: "0", role: "region", "aria-label": label }, content);
const truncate = (text) => (text.length > MAX_SHOWN_CHARACTERS ? `${text.slice(0, MAX_SHOWN_CHARACTERS)}\n… ${(text.length - MAX_SHOWN_CHARACTERS).toLocaleString("en")} more characters` : text);

const pairTable = (caption, head, list) => h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, h("table", {},
  h("caption", { class: "hide" }, caption),
  h("thead", { class: "hide" }, h("tr", {}, h("th", { scope: "col" }, head), h("th", { scope: "col" }, "Value"))),
  h("tbody", {}, list.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { dir: "auto" }, value === "" ? h("i", { class: "muted" }, "empty") : value))))));

/** Shows the response time as a share of Twilio's timeout, with a mark at replyhook's deadline. */
function timing({ ms }) {
  const deadline = state.config.deadline_ms;
  const share = (value) => `${Math.min(100, (value / TWILIO_TIMEOUT) * 100)}%`;
  const tone = ms >= TWILIO_TIMEOUT ? "bad" : deadline && ms > deadline ? "late" : "";
  const bar = h("div", { class: `used ${tone}` });
  // Set by script: the page's policy forbids style attributes, but not this.
  bar.style.width = share(ms);
  const mark = deadline && deadline < TWILIO_TIMEOUT ? h("div", { class: "mark" }) : null;
  if (mark) mark.style.left = share(deadline);
  const label = `${ms.toLocaleString("en")} ms of Twilio’s ${TWILIO_TIMEOUT / 1000} s`;
  const deadlineNote = deadline ? `; after ${(deadline / 1000).toLocaleString("en")} s replyhook sends an empty response and replies via the REST API` : "";
  return h("div", { class: "timing" }, h("div", { class: "track", role: "img", "aria-label": label + deadlineNote }, bar, mark), h("p", { class: "muted" }, label, deadlineNote));
}

function responseSection({ kind, response, error_code: code }) {
  if (!response) return section("Response", code ? "No response" : "Response in progress", h("p", { class: "muted" }, code ? "The request ended without an HTTP response." : "…"));
  const { body } = response;
  const size = `${bytes(body).toLocaleString("en")} bytes`;
  if (!body) return section("Response", "Response: empty", h("p", { class: "muted" }, "The body is empty."));
  if (kind === "webhook" && body.trimStart().startsWith("<")) {
    // Do not parse what Twilio rejected as malformed (12100): the browser's parser describes the error with inline
    // styles, which the page's policy forbids and reports on the console.
    const rawReason = code === 12100 ? "Not well-formed XML; shown as received." : body.length > MAX_SHOWN_CHARACTERS && "Too long to be formatted.";
    const { nodes, texts, problem } = rawReason ? { nodes: null, texts: [], problem: rawReason } : twiml(body);
    return section("Response", `Response: TwiML, ${size}`,
      problem && h("p", { class: "problem" }, problem),
      pre("TwiML", nodes ?? truncate(body)),
      texts.length > 0 && h("ol", { class: "texts", "aria-label": "Messages in this response" }, texts.map((text) => h("li", {}, h("bdi", {}, `“${text.length > 60 ? `${text.slice(0, 60)}…` : text}”`), " ", h("span", { class: "muted" }, sizeOf(text, state.current))))));
  }
  let formatted = body;
  try {
    formatted = JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    // Not JSON. Show the body unchanged.
  }
  return section("Response", `Response: ${size}`, pre("Response", truncate(formatted)));
}

async function copy(exchange) {
  await navigator.clipboard.writeText(curl(exchange.request)).catch(() => {
    throw new Error("The browser does not let this page use the clipboard.");
  });
  notice("Copied as a curl command.");
}

let shownExchange = null;

/** Shows an exchange in `parent`, unless it is already shown. */
export function showExchange(parent, exchange) {
  if (exchange === shownExchange) return; // avoids the comparison in `fillIfChanged`, which is slow for large bodies
  shownExchange = exchange;
  fillIfChanged(parent, exchange, () => (exchange ? details(exchange) : []));
}

function details(exchange) {
  const { request, response, signed, params, error_code: code } = exchange;
  const verdict = verdictOf(exchange);
  return [
    h("div", { class: "line" }, h("h3", {}, titleOf(exchange)), h("span", { class: `verdict ${verdict.tone}` }, verdict.text),
      h("button", { type: "button", "data-key": "curl", onclick: reportErrors(() => copy(exchange)) }, "Copy as curl")),
    h("p", { class: "url" }, h("strong", {}, request.method), " ", request.url),
    code && h("p", { class: "problem" }, `${code}: ${explain(code) ?? "Twilio counts this as an error."} `, codeLink(code)),
    exchange.kind === "webhook" && timing(exchange),
    responseSection(exchange),
    section("Parameters", `Parameters (${params.length})`, params.length ? pairTable("Decoded parameters", "Parameter", params) : h("p", { class: "muted" }, "None.")),
    signed && section("Signature", "Signature", h("p", {}, signed.verdict), h("p", { class: "muted" }, "This text was signed:"), pre("Signed text", truncate(signed.string))),
    section("Request headers", `Request headers (${request.headers.length})`, pairTable("Request headers", "Header", request.headers)),
    response && section("Response headers", `Response headers (${response.headers.length})`, pairTable("Response headers", "Header", response.headers)),
    request.body && section("Request body", `Request body as sent, ${bytes(request.body).toLocaleString("en")} bytes`, pre("Request body", truncate(request.body))),
    response?.body && section("Response body", "Response body as received", pre("Response body", truncate(response.body)))];
}

export function selectCall(id) {
  state.selectedCall = id;
  emit("callSelected");
}
