// Inspector of the selected message: its calls, the state of the user on the bot's server, and the debugger.

import { $, fill, fillIfChanged, h, notice, onNextFrame, reportErrors, syncChildren } from "./dom.js";
import { api } from "./api.js";
import { contentOf, send } from "./conversation.js";
import { edit } from "./composer.js";
import { selectCall, showExchange, titleOf, verdictOf } from "./exchange.js";
import { ticks } from "./chat.js";
import { emit, isWhatsApp, nameOf, now, on, state, storeExchange } from "./store.js";
import { codeLink, duration, explain, sizeOf, time } from "./text.js";

/**
 * Returns the calls of the selected message's turn: an inbound message and all messages until the next inbound one. The
 * server knows of a late reply which message it answers.
 */
function callsOf(message) {
  const answers = state.server?.answers ?? {};
  const answered = state.messages.findIndex(({ sid }) => sid && sid === answers[message.sid]);
  const index = answered < 0 ? state.messages.indexOf(message) : answered;
  if (index < 0) return [];
  let first = index;
  while (first > 0 && state.messages[first].direction !== "in") first -= 1;
  let next = index + 1;
  while (next < state.messages.length && state.messages[next].direction !== "in") next += 1;
  const inbound = state.messages[first].sid;
  const isOfTurn = ({ sid }) => sid && (answers[sid] ?? inbound) === inbound;
  const late = Object.keys(answers).filter((sid) => answers[sid] === inbound);
  const sids = new Set([...state.messages.slice(first, next).filter(isOfTurn).map(({ sid }) => sid), ...late]);
  const since = state.messages[first].at;
  const until = state.messages[next]?.at ?? "9"; // later than every time, compared as text
  // A call without a message, such as a lookup or a refused reply, names the message that it answers if the server runs
  // here. Otherwise it belongs to the turn in which it was made.
  const isInTurn = (exchange) => !exchange.message_sid && !exchange.in_reply_to && exchange.user === state.current && exchange.at >= since && exchange.at < until;
  const isOwn = (exchange) => sids.has(exchange.message_sid) || exchange.in_reply_to === inbound || isInTurn(exchange);
  return (state.saved?.exchanges ?? [...state.exchanges.values()]).filter(isOwn).sort((a, b) => a.at.localeCompare(b.at));
}

/**
 * Returns the call to show. Default: for an inbound message its latest webhook; for an outbound one the REST call that
 * created it, else the webhook with the TwiML.
 */
function callToShow(calls, message) {
  const own = calls.filter((call) => call.message_sid === message.sid);
  return calls.find((call) => call.id === state.selectedCall) ?? own.find((call) => call.kind === "rest") ??
    own.findLast((call) => call.kind === "webhook") ?? calls.findLast((call) => call.kind === "webhook") ?? calls.at(-1) ?? null;
}

const pathOf = (url) => {
  try {
    return new URL(url).pathname;
  } catch {
    return url;
  }
};

// Rows are reused by `syncChildren`, so they read everything but the ID when they are drawn.
const callRow = ({ id }) => h("li", {}, h("button", { type: "button", class: "call", "data-key": id, onclick: () => selectCall(id) }));

function drawCalls() {
  const message = state.selected;
  const calls = message ? callsOf(message) : [];
  const shownCall = message ? callToShow(calls, message) : null;
  $("exchanges").hidden = !message;
  syncChildren($("exchange-list"), calls, (call) => call.id, callRow, ({ firstChild: button }, call) => {
    const { kind, message_sid: sid, ms, request } = call;
    const verdict = verdictOf(call);
    button.classList.toggle("own", sid === message.sid);
    button.ariaCurrent = call === shownCall ? "true" : null;
    fillIfChanged(button, [titleOf(call), verdict, ms], () => [
      h("span", { class: `kind ${kind}`, "aria-hidden": "true" }, kind === "rest" ? "←" : "→"),
      h("span", { class: "title" }, titleOf(call)), h("span", { class: "path" }, pathOf(request.url)),
      h("span", { class: `verdict ${verdict.tone}` }, verdict.text), h("span", { class: "ms" }, `${ms.toLocaleString("en")} ms`)]);
  });
  $("no-calls").hidden = calls.length > 0;
  $("no-calls").textContent = message?.startedAt ? "The first call is in progress." : message?.sid ? "No calls are stored for it." : "None.";
  showExchange($("exchange"), shownCall);
}

async function redeliver(message) {
  const { attempts } = await api.redeliver(message.sid);
  const last = attempts.at(-1);
  notice(`Delivered again: ${last?.status ?? "no response"}${last ? ` after ${last.ms} ms` : ""}.`);
}

// The buttons are created once, and act on the message that is selected when they are pressed.
const actionButton = (key, label, title, onClick) => h("button", { type: "button", "data-key": key, title, onclick: reportErrors(() => state.selected.sid && onClick(state.selected)) }, label);
fill($("actions"),
  actionButton("again", "Deliver again", "Sends the webhook again with the same MessageSid: a duplicate", redeliver),
  actionButton("resend", "Resend", "Sends the same content as a new message", async (message) => send(await contentOf(message))),
  actionButton("edit", "Edit and resend", "Puts content and parameters into the message box", async (message) => {
    const content = await contentOf(message);
    // On a narrow screen, the message box must be visible before `edit` focuses it.
    document.body.dataset.view = "chat";
    edit(content);
    emit("view");
  }));

function drawSelected() {
  const message = state.selected;
  const isInbound = message?.direction === "in";
  $("actions").hidden = !isInbound || message.status === "unsent" || Boolean(state.saved);
  // Not `disabled`, which would move the focus away while a message is being sent.
  for (const button of $("actions").children) button.ariaDisabled = message?.sid ? null : "true";
  if (!message) return fillIfChanged($("about"), null, () => h("p", { class: "muted" }, "Send or select a message to see its calls here."));
  const from = isInbound ? nameOf(state.current) : message.by === "twilio" ? "Twilio itself" : "the bot";
  const when = `${time.full(message.at)}, ${isInbound ? "to" : "by"} ${message.sender}`;
  const [glyph, words, tone] = ticks(message);
  const size = message.body && sizeOf(message.body, state.current) + (isWhatsApp(state.current) && [...message.body].length > 1600 ? "; more than the 1,600 characters that Twilio accepts" : "");
  const code = message.error_code;
  const reason = state.server?.reasons?.[message.sid];
  fillIfChanged($("about"), [from, when, glyph, words, message.sid, size, code, reason], () => [
    h("p", { class: "line" }, h("strong", {}, `From ${from}`), h("span", { class: "muted" }, when)),
    h("p", {}, h("span", { class: `ticks ${tone}`, "aria-hidden": "true" }, `${glyph} `), words, code && [" ", codeLink(code)]),
    reason && h("p", { class: "reason" }, reason),
    message.sid && h("p", {}, h("code", { class: "sid" }, message.sid)),
    size && h("p", { class: "muted" }, size)]);
}

// When, where and how the user opted out.
function why(optOut) {
  if (!optOut) return "";
  const as = optOut.user === state.current ? "" : `, as ${optOut.user}`;
  return `; since ${time.full(optOut.since)} from ${optOut.scope} by ${optOut.source}${as}`;
}

// Twilio's window, and how much earlier the bot's server stops, so that no message arrives too late.
function windowEnd({ closes_at: serverEnd }) {
  const last = state.messages.findLast(({ direction, sender, status }) => direction === "in" && sender === state.server.sender && status !== "unsent");
  const end = last ? Date.parse(last.at) + 24 * 3600000 : Date.parse(serverEnd);
  const margin = end - Date.parse(serverEnd);
  if (Number.isNaN(end)) return "";
  return `, ${duration(end - now())} left${margin >= 60000 ? `; your bot’s server stops ${duration(margin)} before` : ""}`;
}

function drawServer() {
  const { server } = state;
  const rows = [];
  const pills = [];
  if (server?.window) {
    const text = server.window.open ? `open${windowEnd(server.window)}` : "closed: only templates may be sent";
    rows.push(["24-hour window", text]);
    pills.push([server.window.open ? `Window${text.split(";")[0].replace("open,", ":").replace("open", " open")}` : "Window closed", server.window.open ? "good" : "warn"]);
  }
  if (server) {
    rows.push(["Consent", server.opted_out ? `opted out: nothing may be sent until START${why(server.opt_out)}` : "not opted out"]);
    pills.push(server.opted_out ? ["Opted out", "bad"] : ["Not opted out"]);
    if (isWhatsApp(state.current)) {
      rows.push(["Opt-in", server.opted_in ? "recorded" : "none recorded"]);
      if (server.opted_in) pills.push(["Opted in", "good"]);
    }
    if (server.handed_off_to) {
      rows.push(["Handed off to", server.handed_off_to]);
      pills.push(["Handed off", "warn"]);
    }
    const isCustom = server.handler === "your handler";
    rows.push(["Handler", isCustom ? "your own" : server.handler], ["Pending messages", String(server.pending)], ["Form", server.dialogue ?? "none"]);
    pills.push([isCustom ? "Your handler" : `Handler: ${server.handler}`]);
    if (server.pending) pills.push([`${server.pending} pending`, "warn"]);
  }
  fillIfChanged($("pills"), pills, () => pills.map(([text, tone]) => h("li", { class: tone }, text)));
  // Its place stays while the state of another user is fetched, so that the conversation below does not move.
  $("pills").hidden = !state.config?.app_attached || Boolean(state.saved);
  fillIfChanged($("state-list"), rows, () => (rows.length ? rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, h("bdi", {}, value))]) : h("dd", { class: "muted" }, "This server does not report its state.")));
}

const entryRow = (entry) => h("li", { class: entry.level },
  h("p", { class: "line" }, h("strong", {}, `${entry.level === "error" ? "Error" : "Warning"} ${entry.code}`), h("span", { class: "muted" }, time.full(entry.at))),
  h("p", {}, entry.message),
  explain(entry.code) && h("p", { class: "muted" }, explain(entry.code)),
  entry.url && h("p", { class: "url" }, entry.url),
  h("p", {}, codeLink(entry.code, entry.more_info)));

function drawDebugger() {
  const sid = state.selected?.sid;
  // The latest 100 entries, newest first.
  syncChildren($("debugger-list"), state.debugger.slice(-100).reverse(), (entry) => entry, entryRow,
    (item, entry) => item.classList.toggle("own", Boolean(sid) && entry.message_sid === sid));
  const count = state.debugger.length;
  $("no-entries").hidden = count > 0;
  $("debugger-link").hidden = !count;
  $("debugger-link").textContent = `Debugger: ${count} ${count === 1 ? "entry" : "entries"}`;
}

on("selected", () => [drawSelected, drawCalls, drawDebugger].forEach(onNextFrame));
on("message status conversation", () => [drawSelected, drawCalls].forEach(onNextFrame));
on("exchange", () => [drawSelected, drawCalls].forEach(onNextFrame));
on("callSelected", drawCalls);
on("server clock", () => onNextFrame(drawServer));
on("server", () => [drawSelected, drawCalls].forEach(onNextFrame));
on("debugger", () => onNextFrame(drawDebugger));

// By script, and not by the link itself: the browser would also scroll the page, which hides the header.
$("debugger-link").onclick = (event) => {
  event.preventDefault();
  $("inspector").scrollTop += $("debugger").getBoundingClientRect().top - $("inspector").getBoundingClientRect().top - $("debugger-link").parentElement.offsetHeight;
  $("debugger").focus({ preventScroll: true });
};

export function addExchanges(list) {
  // Exchanges that arrived as events in the meantime are newer than the list.
  for (const exchange of list) if (!state.exchanges.has(exchange.id)) storeExchange(exchange);
  emit("exchange");
  emit("outcomes");
}
