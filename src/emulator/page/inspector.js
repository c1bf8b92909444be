// What lies behind the selected message: its calls, what the bot's server knows of the user, Twilio's debugger.

import { $, download, fill, h, notice, told } from "./dom.js";
import { api } from "./api.js";
import { contentOf, send } from "./conversation.js";
import { edit } from "./composer.js";
import { choose, showExchange, titleOf, verdictOf } from "./exchange.js";
import { ticks } from "./chat.js";
import { emit, isWhatsApp, keepExchange, nameOf, now, on, state } from "./store.js";
import { codeLink, duration, explain, sizeOf, time } from "./text.js";

/** The calls of the selected message's turn: a message of the user and all that the bot said until the next one. */
function callsOf(message) {
  const at = state.messages.indexOf(message);
  if (at < 0) return [];
  let first = at;
  while (first > 0 && state.messages[first].direction !== "in") first -= 1;
  let next = at + 1;
  while (next < state.messages.length && state.messages[next].direction !== "in") next += 1;
  const sids = new Set(state.messages.slice(first, next).map((one) => one.sid).filter(Boolean));
  const since = state.messages[first].at;
  const until = state.messages[next]?.at ?? "9";
  // A call that names no message (a lookup, a fetch of media) belongs to the turn it was made in.
  const near = (exchange) => !exchange.message_sid && exchange.user === state.current && exchange.at >= since && exchange.at < until;
  return [...state.exchanges.values()].filter((exchange) => sids.has(exchange.message_sid) || near(exchange)).sort((a, b) => a.at.localeCompare(b.at));
}

/** Without a choice: the latest webhook of a user's message; of the bot's, the REST call that made it or the TwiML it was in. */
function chosenOf(calls, message) {
  const own = calls.filter((call) => call.message_sid === message.sid);
  return calls.find((call) => call.id === state.chosen) ?? own.find((call) => call.kind === "rest") ??
    own.findLast((call) => call.kind === "webhook") ?? calls.findLast((call) => call.kind === "webhook") ?? calls.at(-1) ?? null;
}

const pathOf = (url) => {
  try {
    return new URL(url).pathname;
  } catch {
    return url;
  }
};

function drawCalls() {
  const message = state.selected;
  const calls = message ? callsOf(message) : [];
  const chosen = message ? chosenOf(calls, message) : null;
  $("exchanges").hidden = !message;
  const rows = calls.map((call) => {
    const verdict = verdictOf(call);
    return h("li", {}, h("button", { type: "button", class: `call ${call.message_sid === message.sid ? "own" : ""}`, "data-key": call.id, "aria-current": call === chosen && "true", onclick: () => choose(call.id) },
      h("span", { class: `kind ${call.kind}`, "aria-hidden": "true" }, call.kind === "rest" ? "←" : "→"),
      h("span", { class: "title" }, titleOf(call)), h("span", { class: "path" }, pathOf(call.request.url)),
      h("span", { class: `verdict ${verdict.tone}` }, verdict.text), h("span", { class: "ms" }, `${call.ms.toLocaleString("en")} ms`)));
  });
  fill($("exchange-list"), rows.length ? rows : h("li", { class: "muted" }, message?.sid && !message.started ? "No calls are remembered for it." : message?.started ? "The first call is under way." : "None."));
  showExchange($("exchange"), chosen);
}

async function redeliver(message) {
  const { attempts } = await api.redeliver(message.sid);
  const last = attempts.at(-1);
  notice(`Delivered again: ${last?.status ?? "no answer"}${last ? ` after ${last.ms} ms` : ""}.`);
}

function drawSelected() {
  const message = state.selected;
  if (!message) return fill($("selected"), h("p", { class: "muted" }, "Send or choose a message: the calls behind it show up here."));
  const inbound = message.direction === "in";
  const from = inbound ? nameOf(state.current) : message.by === "twilio" ? "Twilio itself" : "the bot";
  const [glyph, words, tone] = ticks(message);
  const act = (key, label, title, work) => h("button", { type: "button", "data-key": key, title, onclick: told(work) }, label);
  fill($("selected"),
    h("p", { class: "line" }, h("strong", {}, `From ${from}`), h("span", { class: "muted" }, `${time.full(message.at)}, ${inbound ? "to" : "by"} ${message.sender}`)),
    h("p", {}, h("span", { class: `ticks ${tone}`, "aria-hidden": "true" }, `${glyph} `), words),
    message.sid && h("p", {}, h("code", { class: "sid" }, message.sid)),
    message.body && h("p", { class: "muted" }, sizeOf(message.body), isWhatsApp(state.current) && [...message.body].length > 1600 ? "; WhatsApp takes no more than 1,600 characters" : ""),
    inbound && message.sid && h("div", { class: "actions", role: "group", "aria-label": "With this message" },
      act("again", "Deliver again", "The same message once more with the same MessageSid: a duplicate", () => redeliver(message)),
      act("resend", "Resend", "The same content as a new message", async () => send(await contentOf(message))),
      act("edit", "Edit and resend", "Puts content and parameters into the message box", async () => { const content = await contentOf(message); document.body.dataset.view = "chat"; edit(content); emit("view"); })));
}

function drawServer() {
  const { server } = state;
  const rows = [];
  const pills = [];
  const pill = (text, tone) => pills.push(h("li", { class: tone ?? "" }, text));
  if (server?.window) {
    const left = server.window.closes_at ? Date.parse(server.window.closes_at) - now() : 0;
    const text = server.window.open ? `open${server.window.closes_at ? `, ${duration(left)} left` : ""}` : "closed: only templates may be sent";
    rows.push(["24-hour window", text]);
    pill(`Window ${server.window.open ? text : "closed"}`, server.window.open ? "good" : "warn");
  }
  if (server) {
    rows.push(["Consent", server.opted_out ? "opted out: nothing may be sent until START" : "not opted out"], ["Handler", server.handler], ["Replies under way", String(server.pending)], ["Dialogue", server.dialogue ?? "none"]);
    pill(server.opted_out ? "Opted out" : "Not opted out", server.opted_out ? "bad" : "");
    pill(`Handler ${server.handler}`);
    if (server.pending) pill(`${server.pending} under way`, "warn");
  }
  fill($("pills"), pills);
  $("pills").hidden = !pills.length;
  fill($("state-list"), rows.length ? rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, h("bdi", {}, value))]).flat() : h("dd", { class: "muted" }, "The bot’s server is not one that can be asked."));
}

function drawDebugger() {
  const entries = state.debugger.slice(-100).reverse();
  fill($("debugger-list"), entries.length ? entries.map((entry) => h("li", { class: `${entry.level} ${entry.message_sid && entry.message_sid === state.selected?.sid ? "own" : ""}` },
    h("p", { class: "line" }, h("strong", {}, `${entry.level === "error" ? "Error" : "Warning"} ${entry.code}`), h("span", { class: "muted" }, time.full(entry.at))),
    h("p", {}, entry.message),
    explain(entry.code) && h("p", { class: "muted" }, explain(entry.code)),
    entry.url && h("p", { class: "url" }, entry.url),
    h("p", {}, codeLink(entry.code, entry.more_info)))) : h("li", { class: "muted" }, "No errors, no warnings."));
  const count = state.debugger.length;
  $("debugger-link").hidden = !count;
  $("debugger-link").textContent = `Debugger: ${count} ${count === 1 ? "entry" : "entries"}`;
}

// A burst of events is one redrawing.
const due = new Set();
function soon(draw) {
  if (!due.size) requestAnimationFrame(() => {
    const now = [...due];
    due.clear();
    now.forEach((one) => one());
  });
  due.add(draw);
}

on("selected", () => [drawSelected, drawCalls, drawDebugger].forEach(soon));
on("message status conversation", () => [drawSelected, drawCalls].forEach(soon));
on("exchange", () => [drawSelected, drawCalls].forEach(soon));
on("chosen", drawCalls);
on("server clock", () => soon(drawServer));
on("debugger", () => soon(drawDebugger));

$("save-test").onclick = told(async () => {
  const name = nameOf(state.current).toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_|_$/g, "") || "conversation";
  download(`${name}_test.rs`, await api.test(state.current));
});

export function keepCalls(list) {
  for (const exchange of list) if (!state.exchanges.has(exchange.id)) keepExchange(exchange);
  emit("exchange");
  emit("outcomes");
}
