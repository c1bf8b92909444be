// Entry point: connects the modules, subscribes to events, and reloads everything after a gap.

import { $, notice, told } from "./dom.js";
import { api, listen } from "./api.js";
import { forget, load, looked, open, receive, setStatus, setTyping } from "./conversation.js";
import { askServer, emit, keepExchange, now, on, rowOf, setNow, state } from "./store.js";
import { firstUser, forgetStrangers, loadUsers } from "./users.js";
import { time } from "./text.js";
import { keepCalls } from "./inspector.js";
import "./chat.js";
import "./composer.js";
import "./faults.js";

// The cookie has the access key by now. Remove it from the address bar and the history, where others could read it.
if (location.search) history.replaceState(null, "", location.pathname);

let latest; // the current run of `catchUp`

/** Reloads everything: at the start, after a gap in the events, after a reset. */
async function catchUp() {
  const mine = (latest = {});
  // Clear before fetching: what events add while the requests are in flight is newer than the responses, and must stay.
  state.exchanges.clear();
  state.outcomes.clear();
  state.debugger = [];
  const [config, conversations, exchanges, entries, faults] = await Promise.all([api.config(), api.conversations(), api.exchanges(), api.debugger(), api.faults()]);
  // A later run has started. These responses may be from before a reset.
  if (mine !== latest) return;
  delete config.auth_token; // the page does not need it
  state.config = config;
  setNow(config.now);
  $("webhook").textContent = config.webhook;
  for (const row of state.users.values()) Object.assign(row, { last: null, unread: 0 });
  for (const { user, last, unread } of conversations) Object.assign(rowOf(user), { last, unread });
  // Entries that arrived as events may also be in the response. They have no ID, so compare time and code.
  state.debugger = [...entries, ...state.debugger.filter((late) => !entries.some((entry) => entry.at === late.at && entry.code === late.code))];
  state.faults = faults ?? {};
  if (state.current) await load();
  else {
    await open(firstUser());
    // Not on a narrow screen: on a phone, the focus opens the keyboard.
    if (!narrow.matches && document.activeElement === document.body) $("body").focus();
  }
  keepCalls(exchanges);
  for (const topic of ["users", "debugger", "faults", "clock"]) emit(topic);
}

let gone; // timer of the message about a lost connection; null while connected
const events = {
  message: ({ user, ...message }) => receive(user, message),
  status: setStatus,
  typing: ({ user }) => setTyping(user),
  exchange: (exchange) => {
    keepExchange(exchange);
    const message = exchange.kind === "webhook" && state.messages.find((one) => one.sid && one.sid === exchange.message_sid);
    if (message) emit("status", message);
    emit("exchange");
  },
  debugger: (entry) => { state.debugger.push(entry); emit("debugger"); },
  clock: (clock) => { setNow(clock.now); askServer(); emit("clock"); },
  faults: (faults) => { state.faults = faults ?? {}; emit("faults"); },
  reset: told(() => { forget(); forgetStrangers(); return catchUp(); }),
  reload: ({ ok, message }) => {
    $("settings").hidden = ok;
    $("settings").textContent = ok ? "" : `The changed settings are invalid, so the old ones stay in effect: ${message}`;
    if (ok) notice("Settings reloaded.");
    askServer();
  },
};

listen(events, () => {
  clearTimeout(gone);
  gone = null;
  $("gone").hidden = true;
  told(catchUp)();
}, () => {
  // Delayed, because most connections are restored immediately.
  gone ??= setTimeout(() => {
    $("gone").hidden = false;
    $("gone").textContent = "Disconnected: the emulator is not running. The page reconnects when it is back.";
  }, 700);
});

$("later").onclick = told(async () => {
  const { now } = await api.advance(25 * 3600);
  setNow(now);
  emit("clock");
  askServer();
  notice(`It is now ${time.full(now)}.`);
});
$("reset").onclick = told(async () => {
  const kept = state.config.store;
  const stored = kept && kept !== "sqlite::memory:" ? `\n\nThis also deletes EVERYTHING in ${kept}, including journal and consent.` : "";
  if (!confirm(`Delete every message, call and debugger entry?${stored}`)) return;
  await api.reset();
  notice("Everything is deleted.");
});

// A narrow screen shows either the chat or the inspector. The width is the one in page.css.
const narrow = matchMedia("(max-width: 860px)");
function showView(view, focus) {
  document.body.dataset.view = view;
  for (const one of ["chat", "inspector"]) $(`view-${one}`).setAttribute("aria-pressed", one === view);
  if (focus && view === "inspector") $("inspector").focus();
}
for (const view of ["chat", "inspector"]) $(`view-${view}`).onclick = () => showView(view);
// Switch to the inspector only when the user selects a message, not when a new one is selected automatically.
on("selected", (byHand) => byHand === true && narrow.matches && showView("inspector", true));
on("view", () => showView(document.body.dataset.view));
on("opened", () => showView("chat"));
$("skip-inspector").onclick = () => showView("inspector", true);

on("users", () => {
  const unread = [...state.users.values()].reduce((sum, row) => sum + row.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}replyhook – local Twilio emulator`;
});
document.addEventListener("visibilitychange", () => state.current && looked());

function tick() {
  const at = now();
  $("clock").textContent = time.full(at);
  $("clock").dateTime = at.toISOString();
}
on("clock", tick);
setInterval(tick, 1000);
setInterval(() => emit("clock"), 30000); // updates the time left in the customer service window

loadUsers();
emit("users");
