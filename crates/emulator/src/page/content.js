// Content of a message as a phone shows it: buttons, lists, chips, cards, carousels, locations, media and forms.

import { $, h, notice, reportErrors } from "./dom.js";
import { send } from "./conversation.js";
import { state } from "./store.js";
import { messageText } from "./text.js";

/** Returns the elements of a message's content. `attachment` makes the element of a media file. */
export function contentElements(message, attachment) {
  const { content } = message;
  const media = (content.media ?? []).filter(Boolean).map(attachment);
  // The location is an element of its own, and has the label.
  const texts = content.type === "location" ? [] : textElements(content);
  if (content.type === "carousel") return [texts, carousel(message, attachment)];
  if (content.type === "list") return [texts, listButton(message)];
  const items = itemGroup(message, content.items, content.type === "chips" ? "Suggestions" : "Buttons");
  return content.type === "card" ? h("div", { class: "card" }, media, texts, items) : [media, texts, items];
}

const textElements = ({ title, body, subtitle }) => [
  title && h("p", { class: "text title", dir: "auto" }, title),
  body && messageText(state.current, body),
  subtitle && h("p", { class: "text muted", dir: "auto" }, subtitle)];

const itemGroup = (message, items, label) =>
  items.length > 0 && h("div", { class: "offers", role: "group", "aria-label": label }, items.map((item) => itemElement(message, item)));

/** Returns the button or link of an item. */
function itemElement(message, item) {
  const element = makeItem(message, item);
  element.dataset.key = `${message.sid} ${item.id ?? item.title}`; // keeps the focus when the message is drawn again
  // A message that was not delivered is not on the phone.
  if (isFailed(message)) element.ariaDisabled = "true";
  return element;
}

export const isFailed = (message) => ["failed", "undelivered"].includes(message.status);

function makeItem(message, item) {
  const { kind = "reply", title, value } = item;
  const tap = reportErrors(() => sendTap(message, item));
  if (kind === "reply" || kind === "call") return h("button", { type: "button", onclick: tap }, title);
  if (kind === "flow") return h("button", { type: "button", class: "opens", "aria-haspopup": "dialog", onclick: (event) => openForm(message, item, event.currentTarget) }, title);
  if (kind === "link" && isWebAddress(value)) {
    return h("a", { class: "action", href: value, target: "_blank", rel: "noopener noreferrer", title: value, onclick: item.is_reported && tap },
      title, h("span", { "aria-hidden": "true" }, " ↗"), h("span", { class: "hide" }, ", opens a link in a new tab"));
  }
  const effects = {
    link: [" ↗", ", opens a link", () => notice(`A phone would open ${value}.`)],
    phone: [" ✆", ", calls a number", () => notice(`A phone would call ${value}.`)],
    copy: [" ⧉", ", copies a code", () => copy(value ?? title)],
  };
  const [glyph, effect, act] = effects[kind] ?? ["", ", not available here", () => notice(`The emulator does not show what “${title}” does.`)];
  return h("button", { type: "button", class: "action", title: value, onclick: reportErrors(async () => {
    await act();
    if (item.is_reported) await sendTap(message, item);
  }) }, title, h("span", { "aria-hidden": "true" }, glyph), h("span", { class: "hide" }, effect));
}

// A template's URL may be anything, such as javascript:. Only a web address becomes a link.
function isWebAddress(url) {
  try {
    return ["http:", "https:"].includes(new URL(url).protocol);
  } catch {
    return false;
  }
}

async function copy(text) {
  await navigator.clipboard.writeText(text).catch(() => {
    throw new Error("The browser does not let this page use the clipboard.");
  });
  notice(`Copied ${text}.`);
}

function sendTap(message, item) {
  if (isFailed(message)) throw new Error("The message was not delivered, so its buttons cannot be tapped.");
  const isCall = item.kind === "call";
  // The payload of a choice of replyhook differs from its ID. The local message must match the emulator's.
  const { payload } = message.buttons.find(({ text }) => text === item.title) ?? { payload: item.id };
  const shown = isCall ? { text: "VOICE_CALL_REQUEST", payload: "ACCEPTED" } : { text: item.title, payload };
  // By message: the user may tap a button of an old message.
  return send({ choice: { id: item.id, message_sid: message.sid }, shown: { body: shown.text, button: shown } });
}

function carousel(message, attachment) {
  const { cards } = message.content;
  return h("div", { class: "carousel", role: "group", "aria-roledescription": "carousel", "aria-label": "Cards", tabindex: "0" }, cards.map((card, index) =>
    h("div", { class: "card", role: "group", "aria-roledescription": "card", "aria-label": `${index + 1} of ${cards.length}${card.title ? `: ${card.title}` : ""}` },
      (card.media ?? []).filter(Boolean).map(attachment), textElements(card), itemGroup(message, card.items, "Buttons"))));
}

/** Opens a dialog, and closes it with the focus on the element that opened it. */
function openDialog(title, opener, ...children) {
  const heading = h("h2", { id: "sheet-title", dir: "auto" }, title);
  const dialog = h("dialog", { class: "sheet", "aria-labelledby": "sheet-title", onclose: () => {
    dialog.remove();
    // The message may have been drawn again, such as by a new status.
    (opener.isConnected ? opener : $("body")).focus();
  } }, h("div", { class: "inside" }, heading, children, h("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close")));
  // A click on the backdrop counts as one on the dialog itself.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const listButton = (message) => h("div", { class: "offers", role: "group", "aria-label": "List" },
  h("button", { type: "button", class: "opens", "data-key": `${message.sid} list`, "aria-haspopup": "dialog", onclick: (event) => openList(message, event.currentTarget) },
    h("span", { "aria-hidden": "true" }, "☰ "), message.content.button || "Options"));

function openList(message, opener) {
  // The description is a part of the target for the mouse, but not of the button's name.
  const rows = message.content.items.map((item, index) => h("li", {}, h("button", { type: "button", class: "row", "aria-labelledby": `row-${index}-title`, "aria-describedby": item.description && `row-${index}-description`, onclick: reportErrors(() => {
    dialog.close();
    return sendTap(message, item);
  }) }, h("span", { id: `row-${index}-title`, dir: "auto" }, item.title), item.description && h("span", { id: `row-${index}-description`, class: "muted", dir: "auto" }, item.description))));
  const list = h("ul", { class: "rows", onkeydown: (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...list.querySelectorAll("button")];
    const index = buttons.indexOf(document.activeElement);
    if (!step || index < 0) return;
    event.preventDefault();
    buttons[Math.min(buttons.length - 1, Math.max(0, index + step))].focus();
  } }, rows);
  const dialog = openDialog(message.content.button || "Options", opener, list);
}

/** Opens the form of a Flow. A template that names no fields gets a box for any. */
function openForm(message, item, opener) {
  const inputs = (message.content.flow ?? []).map(({ name, label }, index) => ({ name, label, input: h("input", { id: `flow-${index}`, autocomplete: "off" }) }));
  const box = h("textarea", { id: "flow-fields", rows: 4, spellcheck: "false", placeholder: "name=Ana\nguests=2" });
  const problem = h("p", { class: "problem", role: "alert" });
  const form = h("form", { class: "form", onsubmit: reportErrors((event) => {
    event.preventDefault();
    const fields = inputs.length ? Object.fromEntries(inputs.map(({ name, input }) => [name, input.value])) : parseFields(box.value);
    problem.textContent = fields ? "" : "Type one Name=value per line.";
    if (!fields) return box.focus();
    dialog.close();
    return send({ flow: fields });
  }) },
    inputs.length ? inputs.map(({ label, input }) => h("div", { class: "field" }, h("label", { for: input.id }, label), input))
      : h("div", { class: "field" }, h("label", { for: box.id }, "Fields of the form, one Name=value per line"), box),
    problem, h("button", { type: "submit", class: "primary" }, "Send form"));
  const dialog = openDialog(item.title, opener, form);
}

function parseFields(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  // Only the first `=` separates: a value may contain others.
  if (!lines.length || lines.some((line) => line.indexOf("=") < 1)) return null;
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")).trim(), line.slice(line.indexOf("=") + 1)]));
}
