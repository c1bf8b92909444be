// The entry: brings the parts together, follows the emulator's events, catches up after a gap.

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

// The key is in the cookie by now, and not for the history or for whoever sees the screen.
if (location.search) history.replaceState(null, "", location.pathname);

let latest; // the catching up that counts: what an earlier one is told may be from before a reset

/** Fetches everything anew: at the start, after a gap in the events, after a reset. */
async function catchUp() {
  const mine = (latest = {});
  // Emptied first: what the events bring while the answers are under way is newer than these, and stays.
  state.exchanges.clear();
  state.outcomes.clear();
  state.debugger = [];
  const [config, conversations, exchanges, entries, faults] = await Promise.all([api.config(), api.conversations(), api.exchanges(), api.debugger(), api.faults()]);
  if (mine !== latest) return;
  delete config.auth_token; // nothing here needs it
  state.config = config;
  setNow(config.now);
  $("webhook").textContent = config.webhook;
  for (const row of state.users.values()) Object.assign(row, { last: null, unread: 0 });
  for (const { user, last, unread } of conversations) Object.assign(rowOf(user), { last, unread });
  state.debugger = [...entries, ...state.debugger.filter((late) => !entries.some((entry) => entry.at === late.at && entry.code === late.code))];
  state.faults = faults ?? {};
  if (state.current) await load();
  else {
    await open(firstUser());
    if (!narrow.matches && document.activeElement === document.body) $("body").focus();
  }
  keepCalls(exchanges);
  for (const topic of ["users", "debugger", "faults", "clock"]) emit(topic);
}

let gone; // the timer, or nothing while connected
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
    $("settings").textContent = ok ? "" : `The changed settings are wrong, and the old ones stay: ${message}`;
    if (ok) notice("Settings read anew.");
    askServer();
  },
};

listen(events, () => {
  clearTimeout(gone);
  gone = null;
  $("gone").hidden = true;
  told(catchUp)();
}, () => {
  // A moment's grace: most gaps close at once.
  gone ??= setTimeout(() => {
    $("gone").hidden = false;
    $("gone").textContent = "Disconnected: the emulator is not running. The page goes on by itself when it is back.";
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
  const stored = kept && kept !== "sqlite::memory:" ? `\n\nAlso EVERYTHING in ${kept}: journal, consents and all.` : "";
  if (!confirm(`Forget every message, call and debugger entry?${stored}`)) return;
  await api.reset();
  notice("Everything is forgotten.");
});

// On a narrow screen the chat and the inspector take turns.
const narrow = matchMedia("(max-width: 860px)");
function showView(view, focus) {
  document.body.dataset.view = view;
  for (const one of ["chat", "inspector"]) $(`view-${one}`).setAttribute("aria-pressed", one === view);
  if (focus && view === "inspector") $("inspector").focus();
}
for (const view of ["chat", "inspector"]) $(`view-${view}`).onclick = () => showView(view);
on("selected", (byHand) => byHand === true && narrow.matches && showView("inspector", true));
on("view", () => showView(document.body.dataset.view));
on("opened", () => showView("chat"));
$("skip-inspector").onclick = () => showView("inspector", true);

on("users", () => {
  const unread = [...state.users.values()].reduce((sum, row) => sum + row.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}replyhook – your Twilio on the desk`;
});
document.addEventListener("visibilitychange", () => state.current && looked());

function tick() {
  const at = now();
  $("clock").textContent = time.full(at);
  $("clock").dateTime = at.toISOString();
}
on("clock", tick);
setInterval(tick, 1000);
setInterval(() => emit("clock"), 30000); // what is left of the window

loadUsers();
emit("users");
