// One call on the wire in every detail: time, parameters, signature, headers, answer.

import { h, notice, refill, told } from "./dom.js";
import { emit, state } from "./store.js";
import { bytes, codeLink, curl, explain, sizeOf, twiml } from "./text.js";

const TWILIO_WAITS = 15000;
const SHOWN = 100000; // characters of a body; more would only stop the browser

const ATTEMPTS = { primary: "Webhook", retry: "Webhook, retry", fallback: "Fallback", redirect: "Redirect", action: "Action", duplicate: "Webhook, duplicate" };

export function titleOf(exchange) {
  const status = exchange.params.find(([name]) => name === "MessageStatus")?.[1];
  if (exchange.kind === "webhook") return ATTEMPTS[exchange.attempt] ?? "Webhook";
  if (exchange.kind === "status") return `Status${status ? `: ${status}` : ""}${exchange.attempt && exchange.attempt !== "primary" ? ` (${exchange.attempt})` : ""}`;
  return exchange.kind === "rest" ? "REST call by the bot" : "Media";
}

export function verdictOf({ response, error_code: code }) {
  const status = response?.status;
  const good = !code && status >= 200 && status < 400;
  return { text: code ? `${status ?? "no answer"} · ${code}` : String(status ?? "under way"), tone: good ? "good" : code || status >= 400 ? "bad" : "" };
}

const open = new Map([["Parameters", true], ["Answer", true], ["Signature", true]]); // sections stay as they were left

function section(name, title, ...content) {
  const element = h("details", { open: open.get(name) ?? false, ontoggle: () => open.set(name, element.open) },
    h("summary", { "data-key": `section ${name}` }, h("h4", {}, title)), content);
  return element;
}

// Wide content scrolls by itself; it takes the focus so that the arrow keys can scroll it.
const pre = (label, ...content) => h("pre", { tabindex: "0", role: "region", "aria-label": label }, content);
const cut = (text) => (text.length > SHOWN ? `${text.slice(0, SHOWN)}\n… ${(text.length - SHOWN).toLocaleString("en")} characters more` : text);

const pairs = (caption, head, list) => h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, h("table", {},
  h("caption", { class: "hide" }, caption),
  h("thead", { class: "hide" }, h("tr", {}, h("th", { scope: "col" }, head), h("th", { scope: "col" }, "Value"))),
  h("tbody", {}, list.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { dir: "auto" }, value === "" ? h("i", { class: "muted" }, "empty") : value))))));

/** How long the bot took of the time that Twilio gives it. */
function timing({ ms }) {
  const deadline = state.config.deadline_ms;
  const share = (value) => `${Math.min(100, (value / TWILIO_WAITS) * 100)}%`;
  const tone = ms >= TWILIO_WAITS ? "bad" : deadline && ms > deadline ? "late" : "";
  const bar = h("div", { class: `used ${tone}` });
  bar.style.width = share(ms);
  const mark = deadline && deadline < TWILIO_WAITS ? h("div", { class: "mark" }) : null;
  if (mark) mark.style.left = share(deadline);
  const words = `${ms.toLocaleString("en")} ms of Twilio’s ${TWILIO_WAITS / 1000} s`;
  const late = deadline ? `; past ${(deadline / 1000).toLocaleString("en")} s replyhook answers empty and replies by REST` : "";
  return h("div", { class: "timing" }, h("div", { class: "track", role: "img", "aria-label": words + late }, bar, mark), h("p", { class: "muted" }, words, late));
}

function answer({ kind, response, error_code: code }) {
  if (!response) return section("Answer", code ? "No answer" : "Answer under way", h("p", { class: "muted" }, code ? "The connection gave no HTTP answer." : "…"));
  const { body } = response;
  const size = `${bytes(body).toLocaleString("en")} bytes`;
  if (!body) return section("Answer", "Answer: empty", h("p", { class: "muted" }, "Nothing in the body."));
  if (kind === "webhook" && body.trimStart().startsWith("<")) {
    // The browser's parser marks up its complaint with inline styles, which the page's policy forbids: what Twilio could
    // not read is not parsed again.
    const raw = code === 12100 ? "Not well-formed XML: shown as it came." : body.length > SHOWN && "Too long to be laid out.";
    const { nodes, texts, problem } = raw ? { nodes: null, texts: [], problem: raw } : twiml(body);
    return section("Answer", `Answer: TwiML, ${size}`,
      problem && h("p", { class: "problem" }, problem),
      pre("TwiML", nodes ?? cut(body)),
      texts.length > 0 && h("ol", { class: "texts", "aria-label": "Messages in it" }, texts.map((text) => h("li", {}, h("bdi", {}, `“${text.length > 60 ? `${text.slice(0, 60)}…` : text}”`), " ", h("span", { class: "muted" }, sizeOf(text))))));
  }
  let laidOut = body;
  try {
    laidOut = JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    // Not JSON: as it came.
  }
  return section("Answer", `Answer: ${size}`, pre("Answer", cut(laidOut)));
}

async function copy(exchange) {
  await navigator.clipboard.writeText(curl(exchange.request)).catch(() => {
    throw new Error("The browser does not let this page use the clipboard.");
  });
  notice("Copied: a curl command.");
}

let drawn = null;

/** Shows the call, unless it is the one shown already. */
export function showExchange(place, exchange) {
  if (exchange === drawn) return; // spares the comparison, for every frame of a burst
  drawn = exchange;
  refill(place, exchange, () => (exchange ? details(exchange) : []));
}

function details(exchange) {
  const { request, response, signed, params, error_code: code } = exchange;
  const verdict = verdictOf(exchange);
  return [
    h("div", { class: "line" }, h("h3", {}, titleOf(exchange)), h("span", { class: `verdict ${verdict.tone}` }, verdict.text),
      h("button", { type: "button", "data-key": "curl", onclick: told(() => copy(exchange)) }, "Copy as curl")),
    h("p", { class: "url" }, h("strong", {}, request.method), " ", request.url),
    code && h("p", { class: "problem" }, `${code}: ${explain(code) ?? "Twilio counts this as an error."} `, codeLink(code)),
    exchange.kind === "webhook" && timing(exchange),
    answer(exchange),
    section("Parameters", `Parameters (${params.length})`, params.length ? pairs("Decoded parameters", "Parameter", params) : h("p", { class: "muted" }, "None.")),
    signed && section("Signature", "Signature", h("p", {}, signed.verdict), h("p", { class: "muted" }, "This text was signed:"), pre("Signed text", cut(signed.string))),
    section("Request headers", `Request headers (${request.headers.length})`, pairs("Request headers", "Header", request.headers)),
    response && section("Response headers", `Response headers (${response.headers.length})`, pairs("Response headers", "Header", response.headers)),
    request.body && section("Request body", `Request body as sent, ${bytes(request.body).toLocaleString("en")} bytes`, pre("Request body", cut(request.body))),
    response?.body && section("Response body", "Response body as it came", pre("Response body", cut(response.body)))];
}

export function choose(id) {
  state.chosen = id;
  emit("chosen");
}
