// Entry point: connects the modules, subscribes to events, and reloads everything after a gap.

import { $, notice, reportErrors } from "./dom.js";
import { api, listen } from "./api.js";
import { clearConversation, load, markReadSoon, open, receive, setStatus, setTyping } from "./conversation.js";
import { emit, fetchServerState, now, on, rowOf, setNow, state, storeExchange } from "./store.js";
import { firstUser, loadUsers, removeTransientUsers } from "./users.js";
import { time } from "./text.js";
import { addExchanges } from "./inspector.js";
import "./chat.js";
import "./composer.js";
import "./faults.js";
import "./saved.js";

// The cookie has the access key by now. Remove it from the address bar and the history, where others could read it.
if (location.search) history.replaceState(null, "", location.pathname);

let latestRun; // identifies the current run of `reloadAll`

/** Reloads everything: at the start, after a gap in the events, after a reset. */
async function reloadAll() {
  const run = (latestRun = {});
  // Clear before fetching: what events add while the requests are in flight is newer than the responses, and must stay.
  state.exchanges.clear();
  state.outcomes.clear();
  state.debugger = [];
  const [config, conversations, exchanges, entries, faults] = await Promise.all([api.config(), api.conversations(), api.exchanges(), api.debugger(), api.faults()]);
  // A later run has started. These responses may be from before a reset.
  if (run !== latestRun) return;
  delete config.auth_token; // the page does not need it
  state.config = config;
  setNow(config.now);
  $("webhook").textContent = config.webhook;
  for (const row of state.users.values()) Object.assign(row, { last: null, unread: 0 });
  for (const { user, last, unread } of conversations) Object.assign(rowOf(user), { last, unread });
  // Entries that arrived as events may also be in the response. They have no ID, so compare time and code.
  state.debugger = [...entries, ...state.debugger.filter((added) => !entries.some((entry) => entry.at === added.at && entry.code === added.code))];
  state.faults = faults ?? {};
  // Before the conversation is fetched: the row of faults must not grow while the user is reading.
  for (const topic of ["faults", "clock"]) emit(topic);
  if (state.current) await load();
  else {
    await open(firstUser());
    // Not on a narrow screen: on a phone, the focus opens the keyboard.
    if (!narrow.matches && document.activeElement === document.body) $("body").focus();
  }
  addExchanges(exchanges);
  for (const topic of ["users", "debugger"]) emit(topic);
  document.querySelector("main").ariaBusy = null;
}

let disconnectTimer; // timer of the message about a lost connection; null while connected
const events = {
  message: ({ user, ...message }) => receive(user, message),
  status: setStatus,
  typing: ({ user }) => setTyping(user),
  exchange: (exchange) => {
    storeExchange(exchange);
    const message = exchange.kind === "webhook" && state.messages.find(({ sid }) => sid && sid === exchange.message_sid);
    if (message) emit("status", message);
    emit("exchange");
  },
  debugger: (entry) => { state.debugger.push(entry); emit("debugger"); },
  clock: (clock) => { setNow(clock.now); fetchServerState(); emit("clock"); },
  faults: (faults) => { state.faults = faults ?? {}; emit("faults"); },
  reset: reportErrors(() => { clearConversation(); removeTransientUsers(); return reloadAll(); }),
  reload: ({ ok, message }) => {
    $("settings").hidden = ok;
    $("settings").textContent = ok ? "" : `The changed settings are invalid, so the old ones stay in effect: ${message}`;
    if (ok) notice("Settings reloaded.");
    fetchServerState();
  },
};

listen(events, () => {
  clearTimeout(disconnectTimer);
  disconnectTimer = null;
  $("gone").hidden = true;
  reportErrors(reloadAll)();
}, () => {
  // Delayed, because most connections are restored immediately.
  disconnectTimer ??= setTimeout(() => {
    $("gone").hidden = false;
    $("gone").textContent = "Disconnected: the emulator is not running. The page reconnects when it is back.";
  }, 700);
});

$("later").onclick = reportErrors(async () => {
  const { now } = await api.advance(25 * 3600);
  setNow(now);
  emit("clock");
  fetchServerState();
  notice(`It is now ${time.full(now)}.`);
});
$("reset").onclick = reportErrors(async () => {
  const store = state.config.store;
  const storeWarning = store && store !== "sqlite::memory:" ? `\n\nThis also deletes EVERYTHING in ${store}, including journal and consent.` : "";
  if (!confirm(`Delete every message, call and debugger entry?${storeWarning}`)) return;
  await api.reset();
  notice("Everything is deleted.");
});

// A narrow screen shows either the chat or the inspector. The width is the one in page.css.
const narrow = matchMedia("(max-width: 860px)");
function showView(view, moveFocus) {
  document.body.dataset.view = view;
  for (const name of ["chat", "inspector"]) $(`view-${name}`).setAttribute("aria-pressed", name === view);
  if (moveFocus && view === "inspector") $("inspector").focus();
}
for (const view of ["chat", "inspector"]) $(`view-${view}`).onclick = () => showView(view);
// Switch to the inspector only when the user selects a message, not when a new one is selected automatically.
on("selected", (isByUser) => isByUser === true && narrow.matches && showView("inspector", true));
on("view", () => showView(document.body.dataset.view));
on("opened", () => showView("chat"));
$("skip-inspector").onclick = () => showView("inspector", true);

on("users", () => {
  const unread = [...state.users.values()].reduce((sum, row) => sum + row.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}replyhook – local Twilio emulator`;
});
document.addEventListener("visibilitychange", () => state.current && markReadSoon());

function drawClock() {
  const at = now();
  $("clock").textContent = time.full(at);
  $("clock").dateTime = at.toISOString();
}
on("clock", drawClock);
setInterval(drawClock, 1000);
setInterval(() => emit("clock"), 30000); // updates the time left in the customer service window

loadUsers();
emit("users");
