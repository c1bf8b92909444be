// Conversation as bubbles. A bubble keeps its element as long as its message object exists, so that a new status
// changes only its ticks.

import { $, fill, fillIfChanged, h, onNextFrame, placeChildren, reportErrors } from "./dom.js";
import { contentElements, isFailed } from "./content.js";
import { select } from "./conversation.js";
import { channelOf, fetchServerState, nameOf, on, sendersFor, state } from "./store.js";
import { messageText, reasonOf, time } from "./text.js";

const BATCH_SIZE = 200; // earlier messages are loaded by a button: thousands of bubbles make typing slow
const log = $("log");
const scroll = $("scroll");
const nodes = new Map(); // message -> { item, body, details }
let firstShown = 0; // index of the first message shown
let tabStop = null; // message whose details button is in the Tab order; arrow keys move to others (roving tabindex)

/** Returns [glyph, description, CSS class] of a message's ticks. */
export function ticks(message) {
  if (message.direction === "in") {
    if (message.status === "unsent") return ["⚠", `not sent: ${message.problem}`, "bad"];
    if (!message.sid) return ["◷", "sending", ""];
    const outcome = state.outcomes.get(message.sid);
    if (message.failure) return ["⚠", `your bot failed: ${message.failure}`, "bad"];
    if (!outcome) return ["✓", "sent to Twilio", ""];
    return outcome.ok ? ["✓✓", "delivered to your bot", ""] : [`⚠ ${outcome.code ?? ""}`, `your bot did not accept it. ${reasonOf(outcome.code)}`, "bad"];
  }
  const { status, error_code: code } = message;
  if (status === "failed" || status === "undelivered") return [`⚠ ${code ?? ""}`, `${status}. ${reasonOf(code)}`, "bad"];
  return { sent: ["✓", "sent", ""], delivered: ["✓✓", "delivered", ""], read: ["✓✓", "read", "read"] }[status] ?? ["◷", status, ""];
}

function attachment(media) {
  const name = media.filename || media.content_type || "attachment";
  if (!media.src) return h("p", { class: "file lost" }, `⚠ ${name} could not be fetched`);
  if (/^image\//.test(media.content_type)) return h("img", { src: media.src, alt: `Picture ${media.filename ?? ""}`.trim() });
  if (/^audio\//.test(media.content_type)) return h("audio", { controls: true, src: media.src, "aria-label": `Audio ${media.filename ?? ""}`.trim() });
  if (/^video\//.test(media.content_type)) return h("video", { controls: true, src: media.src, "aria-label": `Video ${media.filename ?? ""}`.trim() });
  return h("a", { class: "file", href: media.src, download: media.filename || "" }, `↓ ${name}`);
}

function bubbleContent(message) {
  const { content, location, button, flow } = message;
  return [
    // Content shows its media itself.
    !content && (message.media ?? []).map(attachment),
    location && h("p", { class: "place" }, h("strong", {}, "⌖ ", location.label || "Location"), location.address && h("span", {}, location.address), h("code", {}, `${location.latitude}, ${location.longitude}`)),
    // The title, as a phone shows it. The payload is among the parameters.
    button && h("p", { class: "tap" }, "Tapped “", h("bdi", {}, button.text), "”"),
    // A button tap has its text as the body too. Show it once.
    message.body && !content && !(button && button.text === message.body) && messageText(state.current, message.body),
    flow && h("dl", { class: "form-answer" }, Object.entries(flow).map(([name, value]) => [h("dt", {}, h("bdi", {}, name)), h("dd", { dir: "auto" }, typeof value === "string" ? value : JSON.stringify(value))])),
    content && contentElements(message, attachment),
    message.failure && h("p", { class: "problem" }, `Your bot failed: ${message.failure}${hasReply(message) ? "" : ". The user gets nothing: set reply.fallback_text to send a text in this case."}`),
    message.status === "unsent" && h("p", { class: "problem" }, `Not sent. ${message.problem}`),
    message.status === "unsent" && h("button", { type: "button", class: "again", onclick: reportErrors(message.retry) }, "Try again"),
  ];
}

/** Returns whether the bot has sent something since this message, until the user's next one. */
function hasReply(message) {
  const next = state.messages[state.messages.indexOf(message) + 1];
  return next?.direction === "out" && !isFailed(next);
}

// Everything that the content of a bubble depends on.
const contentInput = (message) => [message.failure && [message.failure, hasReply(message)], message.body, message.media, message.location, message.button, message.flow, message.content, isFailed(message), message.status === "unsent"];

function buildBubble(message) {
  const isOutbound = message.direction === "out";
  const author = message.by === "twilio" ? "Twilio" : isOutbound ? "Bot" : nameOf(state.current);
  const details = h("button", { type: "button", class: "details", tabindex: "-1", onclick: (event) => { event.stopPropagation(); select(message, true); } },
    h("span"), h("span", { "aria-hidden": "true" }), h("span", { class: "hide" }));
  const body = h("div", { class: "content" });
  const item = h("article", { class: `bubble ${isOutbound ? "out" : "in"} ${message.by === "twilio" ? "twilio" : ""}`, onclick: (event) => {
    // The whole bubble is a target for the mouse, except while text is selected.
    if (!event.target.closest("button, a, audio, video") && !getSelection().toString()) select(message, true);
  } }, h("span", { class: message.by === "twilio" ? "from" : "hide" }, `${author}: `), body, details);
  const node = { item, body, details };
  nodes.set(message, node);
  drawBubble(message, node);
  return item;
}

function drawBubble(message, node) {
  if (fillIfChanged(node.body, contentInput(message), () => bubbleContent(message))) onNextFrame(scrollIfPinned);
  if (message.sid) node.details.dataset.key = `${message.sid} details`;
  const [glyph, words, tone] = ticks(message);
  const at = time.clock(message.at);
  const [timeLabel, tickLabel, description] = node.details.children;
  timeLabel.textContent = at;
  tickLabel.textContent = glyph;
  tickLabel.className = `ticks ${tone}`;
  description.textContent = `, ${words}. Show details`;
  node.details.title = words;
  node.item.classList.toggle("chosen", message === state.selected);
  node.details.setAttribute("aria-pressed", message === state.selected);
}

let pinned = true; // whether the view is at the end and follows new messages
let lastTop = 0;
const scrollToEnd = () => { scroll.scrollTop = scroll.scrollHeight; };
scroll.addEventListener("scroll", () => {
  // Only scrolling up ends it. The event of `scrollToEnd` comes a frame later, and messages added in between make the
  // view look as if it were not at the end.
  if (scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60) pinned = true;
  else if (scroll.scrollTop < lastTop) pinned = false;
  lastTop = scroll.scrollTop;
  $("newest").hidden = pinned;
}, { passive: true });
// The view and its content: a picture that is loaded, an error below a message, or a panel of the message box.
const sizes = new ResizeObserver(() => pinned && scrollToEnd());
for (const element of [scroll, log]) sizes.observe(element);

/** Scrolls to the end if pinned. Called once per frame, since `scrollHeight` forces a layout. */
function scrollIfPinned() {
  if (pinned) scrollToEnd();
  // Tab reaches the latest message, unless the user is moving among the messages.
  if (!log.contains(document.activeElement)) setTabStop(state.messages.at(-1));
}

/** Returns the elements of a message: the day if the message before is of another one, and the bubble. */
function elementsOf(message) {
  const before = state.messages[state.messages.indexOf(message) - 1];
  const day = time.day(message.at);
  const node = nodes.get(message);
  if (node) drawBubble(message, node);
  const bubble = node?.item ?? buildBubble(message);
  return before && time.day(before.at) === day ? [bubble] : [h("p", { class: "day" }, day), bubble];
}

function drawAll(start = Math.max(0, state.messages.length - BATCH_SIZE)) {
  firstShown = start;
  const shown = state.messages.slice(firstShown);
  const kept = new Set(shown);
  for (const message of [...nodes.keys()]) if (!kept.has(message)) nodes.delete(message);
  // Screen readers must not announce messages that are only redrawn.
  log.setAttribute("aria-live", "off");
  placeChildren(log, shown.flatMap(elementsOf));
  $("earlier").hidden = firstShown === 0;
  $("earlier").textContent = `Show earlier messages (${firstShown.toLocaleString("en")} more)`;
  $("empty").hidden = state.messages.length > 0 || !state.sender;
  setTabStop(state.messages.find((message) => nodes.get(message)?.details === document.activeElement) ?? state.messages.at(-1));
  // Delayed: screen readers process the inserted elements asynchronously.
  setTimeout(() => log.setAttribute("aria-live", "polite"), 300);
}

function setTabStop(message) {
  nodes.get(tabStop)?.details.setAttribute("tabindex", "-1");
  nodes.get(message)?.details.setAttribute("tabindex", "0");
  tabStop = message;
}

log.addEventListener("keydown", (event) => {
  const index = state.messages.indexOf(tabStop);
  const target = { ArrowUp: Math.max(firstShown, index - 1), ArrowDown: index + 1, Home: firstShown, End: state.messages.length - 1 }[event.key];
  if (target === undefined || !event.target.classList.contains("details")) return;
  event.preventDefault();
  if (!state.messages[target]) return;
  setTabStop(state.messages[target]);
  nodes.get(tabStop).details.focus();
});

$("earlier").onclick = () => {
  // Measured from the end, which does not change: the messages in view stay where they are.
  const height = scroll.scrollHeight - scroll.scrollTop;
  const first = state.messages[firstShown];
  drawAll(Math.max(0, firstShown - BATCH_SIZE));
  scroll.scrollTop = scroll.scrollHeight - height;
  setTabStop(first);
  nodes.get(first)?.details.focus({ preventScroll: true });
};
$("newest").onclick = () => {
  scrollToEnd();
  $("body").focus();
};

on("opened", () => {
  const senders = sendersFor(state.current);
  document.body.dataset.channel = channelOf(state.current);
  $("chat-title").textContent = nameOf(state.current);
  $("chat-address").textContent = state.current;
  $("sender-choice").hidden = senders.length < 2;
  fill($("sender"), senders.map((sender) => h("option", {}, sender)));
  pinned = true;
});
$("sender").onchange = () => {
  state.sender = $("sender").value;
  fetchServerState();
};

on("conversation", () => {
  drawAll();
  if (!state.messages.length) pinned = true;
  $("newest").hidden = pinned;
  if (pinned) scrollToEnd();
});
on("message", (message) => {
  // A reply to a failed message changes what that one says.
  const before = state.messages[state.messages.indexOf(message) - 1];
  if (before?.failure && nodes.has(before)) drawBubble(before, nodes.get(before));
  const node = nodes.get(message);
  if (node) return drawBubble(message, node);
  if (message.direction === "in") pinned = true; // a message that the user has just sent is always visible
  $("newest").hidden = pinned;
  // Reduce to the latest batch, but not while the user reads earlier messages.
  if (nodes.size > 2 * BATCH_SIZE && pinned) drawAll();
  else log.append(...elementsOf(message));
  $("empty").hidden = true;
  onNextFrame(scrollIfPinned);
});
on("status", (message) => nodes.has(message) && drawBubble(message, nodes.get(message)));
on("outcomes", () => nodes.forEach((node, message) => drawBubble(message, node)));
on("selected", () => nodes.forEach((node, message) => {
  node.item.classList.toggle("chosen", message === state.selected);
  node.details.setAttribute("aria-pressed", message === state.selected);
}));

on("typing opened", () => {
  const typing = state.typing.has(state.current);
  fillIfChanged($("typing"), typing, () => typing && h("p", {}, h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), " Bot is typing…"));
});

// Shows how long Twilio has been waiting for the bot. Quick responses, below 400 ms, show nothing.
setInterval(() => {
  const pending = state.messages.findLast((message) => message.startedAt);
  const ms = pending ? performance.now() - pending.startedAt : 0;
  $("waiting").hidden = ms < 400;
  if (ms >= 400) $("waiting-text").textContent = `Waiting for your bot, ${(ms / 1000).toFixed(1)} s`;
}, 200);
