// List of users, with channel and last message, and the form that adds one.

import { $, each, h, refill, soon, told } from "./dom.js";
import { open } from "./conversation.js";
import { isWhatsApp, nameOf, on, rowOf, sendersFor, state } from "./store.js";
import { time } from "./text.js";

const KEPT = "replyhook.users"; // the only key that this page stores in the browser
const DEFAULTS = [["whatsapp:+15550001111", "Ana"], ["+15550004444", "Ben"]];

export function loadUsers() {
  for (const [address, name] of DEFAULTS) rowOf(address).name = name;
  try {
    for (const { address, name } of JSON.parse(localStorage.getItem(KEPT) ?? "[]")) if (valid(address)) Object.assign(rowOf(address), { name, added: true });
  } catch {
    // Storage is disabled, or its content is not ours. Use the default users.
  }
}

/** Removes users that appeared only because of a message. Default and added users stay, and the open conversation. */
export function forgetStrangers() {
  const stays = ({ address, added }) => added || address === state.current || DEFAULTS.some(([known]) => known === address);
  for (const row of state.users.values()) if (!stays(row)) state.users.delete(row.address);
}

/** Returns the user to open first: one on a channel on which the bot has a sender. */
export const firstUser = () => [...state.users.keys()].find((address) => sendersFor(address).length) ?? DEFAULTS[0][0];

function keep() {
  const added = [...state.users.values()].filter((row) => row.added).map(({ address, name }) => ({ address, name }));
  try {
    localStorage.setItem(KEPT, JSON.stringify(added));
  } catch {
    // Storage is disabled. The users are lost when the page is closed.
  }
}

// A phone number, a WhatsApp business-scoped user ID, or a short code.
const valid = (address) => /^(whatsapp:)?\+\d{5,15}$|^whatsapp:[A-Z]{2}\.[A-Za-z0-9]{1,128}$|^\d{3,8}$/.test(address);

function addressOf(typed) {
  // People paste numbers with blanks, brackets and hyphens.
  const bare = typed.replace(/[\s()-]/g, "");
  return /^[A-Z]{2}\.\w/.test(bare) ? `whatsapp:${bare}` : bare;
}

const glimpse = (message) => message.body || message.location?.label || (message.location && "Location") || message.button?.text || (message.media?.length && "Attachment") || "…";

function userRow({ address }) {
  const channel = isWhatsApp(address) ? "whatsapp" : "sms";
  return h("li", {},
    h("button", { type: "button", class: `user ${channel}`, "data-key": address, title: address, onclick: told(() => open(address)) }),
    h("button", { type: "button", class: "remove", onclick: () => {
      state.users.delete(address);
      keep();
      if (address === state.current) open(firstUser()).catch(() => {});
      draw();
    } }, "×"));
}

function drawRow(item, { address, last, unread, added }) {
  const [button, remove] = item.children;
  const name = nameOf(address);
  const said = last ? ((last.direction === "in" ? "" : "Bot: ") + glimpse(last)).slice(0, 120) : address.replace("whatsapp:", "");
  button.ariaCurrent = address === state.current ? "true" : null;
  refill(button, [name, said, last?.at, unread], () => [
    h("span", { class: "avatar", "aria-hidden": "true" }, [...name.replace(/^\+/, "")][0].toUpperCase()),
    h("span", { class: "name" }, h("bdi", {}, name)),
    h("span", { class: "channel" }, isWhatsApp(address) ? "WhatsApp" : "SMS"),
    h("span", { class: "said", dir: "auto" }, said),
    last && h("span", { class: "when" }, time.clock(last.at)),
    unread > 0 && h("span", { class: "unread" }, String(unread), h("span", { class: "hide" }, " unread"))]);
  remove.hidden = !added || Boolean(last);
  remove.ariaLabel = `Remove ${name}`;
}

function draw() {
  // Latest conversation first. Times compare as texts.
  const rows = [...state.users.values()].sort((a, b) => (b.last?.at ?? "").localeCompare(a.last?.at ?? ""));
  each($("user-list"), rows, (row) => row.address, userRow, drawRow);
}

function showForm(visible) {
  $("add").hidden = !visible;
  $("add-open").setAttribute("aria-expanded", visible);
  $(visible ? "add-address" : "add-open").focus();
}

on("users opened", () => soon(draw));
$("add-open").onclick = () => showForm($("add").hidden);
$("add").addEventListener("keydown", (event) => event.key === "Escape" && showForm(false));
$("add").onsubmit = told(async (event) => {
  event.preventDefault();
  const address = addressOf($("add-address").value);
  $("add-problem").textContent = valid(address) ? "" : "Invalid address; expected a number with its country code, such as +15550002222 or whatsapp:+15550002222.";
  if (!valid(address)) return $("add-address").focus();
  const row = rowOf(address);
  // Default users are always there, and need not be stored.
  if (!DEFAULTS.some(([known]) => known === address)) row.added = true;
  if ($("add-name").value.trim()) row.name = $("add-name").value.trim();
  keep();
  $("add").reset();
  showForm(false);
  await open(address);
  $("body").focus();
});
