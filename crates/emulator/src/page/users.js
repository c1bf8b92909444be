// List of users, with channel and last message, and the form that adds one.

import { $, fillIfChanged, h, onNextFrame, reportErrors, syncChildren } from "./dom.js";
import { open } from "./conversation.js";
import { channelName, channelOf, nameOf, on, rowOf, sendersFor, state, withoutChannel } from "./store.js";
import { time } from "./text.js";

const STORAGE_KEY = "replyhook.users"; // the only key that this page stores in the browser
const DEFAULT_USERS = [["whatsapp:+15550001111", "Ana"], ["+15550004444", "Ben"], ["rcs:+15550005555", "Rita"], ["messenger:24680013579", "Max"]];

export function loadUsers() {
  for (const [address, name] of DEFAULT_USERS) rowOf(address).name = name;
  try {
    for (const { address, name } of JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "[]")) if (isValidAddress(address)) Object.assign(rowOf(address), { name, added: true });
  } catch {
    // Storage is disabled, or its content is not from this page. Use the default users.
  }
}

/** Removes users that appeared only because of a message. Default and added users stay, and the open conversation. */
export function removeTransientUsers() {
  const isPermanent = ({ address, added }) => added || address === state.current || DEFAULT_USERS.some(([known]) => known === address);
  for (const row of state.users.values()) if (!isPermanent(row)) state.users.delete(row.address);
}

/** Returns the user to open first: one on a channel on which the bot has a sender. */
export const firstUser = () => [...state.users.keys()].find((address) => sendersFor(address).length) ?? DEFAULT_USERS[0][0];

function saveUsers() {
  const added = [...state.users.values()].filter((row) => row.added).map(({ address, name }) => ({ address, name }));
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(added));
  } catch {
    // Storage is disabled. The users are lost when the page is closed.
  }
}

// A phone number, a WhatsApp business-scoped user ID, a short code, or the ID of a Messenger user.
const isValidAddress = (address) => /^((whatsapp|rcs):)?\+\d{5,15}$|^whatsapp:[A-Z]{2}\.[A-Za-z0-9]{1,128}$|^\d{3,8}$|^messenger:\d{1,20}$/.test(address);

function parseAddress(input) {
  // People paste numbers with blanks, brackets and hyphens.
  const compact = input.replace(/[\s()-]/g, "");
  return /^[A-Z]{2}\.\w/.test(compact) ? `whatsapp:${compact}` : compact;
}

// The first character of a name or number. A name may consist of "+" alone.
const initialOf = (name) => ([...name.replace(/^\+/, "")][0] ?? "+").toUpperCase();
const summaryOf = (message) => message.body || message.location?.label || (message.location && "Location") || message.button?.text || (message.flow && "Form") || (message.media?.length && "Attachment") || "…";

function userRow({ address }) {
  return h("li", {},
    h("button", { type: "button", class: `user ${channelOf(address)}`, "data-key": address, title: address, onclick: reportErrors(() => open(address)) }),
    h("button", { type: "button", class: "remove", onclick: () => {
      state.users.delete(address);
      saveUsers();
      if (address === state.current) open(firstUser()).catch(() => {});
      draw();
    } }, "×"));
}

function drawRow(item, { address, last, unread, added }) {
  const [button, remove] = item.children;
  const name = nameOf(address);
  const preview = last ? ((last.direction === "in" ? "" : "Bot: ") + summaryOf(last)).slice(0, 120) : withoutChannel(address);
  button.ariaCurrent = address === state.current ? "true" : null;
  fillIfChanged(button, [name, preview, last?.at, unread], () => [
    h("span", { class: "avatar", "aria-hidden": "true" }, initialOf(name)),
    h("span", { class: "name" }, h("bdi", {}, name)),
    h("span", { class: "channel" }, channelName(address)),
    h("span", { class: "said", dir: "auto" }, preview),
    last && h("span", { class: "when" }, time.clock(last.at)),
    unread > 0 && h("span", { class: "unread" }, String(unread), h("span", { class: "hide" }, " unread"))]);
  remove.hidden = !added || Boolean(last);
  remove.ariaLabel = `Remove ${name}`;
}

function draw() {
  // Latest conversation first. Times compare as texts.
  const rows = [...state.users.values()].sort((a, b) => (b.last?.at ?? "").localeCompare(a.last?.at ?? ""));
  syncChildren($("user-list"), rows, (row) => row.address, userRow, drawRow);
}

function showForm(visible) {
  $("add").hidden = !visible;
  $("add-open").setAttribute("aria-expanded", visible);
  $(visible ? "add-address" : "add-open").focus();
}

on("users opened", () => onNextFrame(draw));
$("add-open").onclick = () => showForm($("add").hidden);
$("add").addEventListener("keydown", (event) => event.key === "Escape" && showForm(false));
$("add").onsubmit = reportErrors(async (event) => {
  event.preventDefault();
  const address = parseAddress($("add-address").value);
  $("add-problem").textContent = isValidAddress(address) ? "" : "Invalid address; expected a number with its country code, such as +15550002222, whatsapp:+15550002222 or rcs:+15550002222, or messenger: and an ID.";
  if (!isValidAddress(address)) return $("add-address").focus();
  const row = rowOf(address);
  // Default users are always there, and need not be stored.
  if (!DEFAULT_USERS.some(([known]) => known === address)) row.added = true;
  if ($("add-name").value.trim()) row.name = $("add-name").value.trim();
  saveUsers();
  $("add").reset();
  showForm(false);
  await open(address);
  $("body").focus();
});
