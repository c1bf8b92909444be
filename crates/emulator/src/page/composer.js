// Message box: text, files, location, button tap, additional webhook parameters.

import { $, fill, h, notice, reportErrors } from "./dom.js";
import { send } from "./conversation.js";
import { channelName, channelOf, nameOf, on, state } from "./store.js";
import { sizeOf } from "./text.js";

const MAX_BYTES = 16 * 1024 * 1024; // Twilio's limit for a WhatsApp file
let attached = []; // { file } on this machine, or { url } of an earlier message
let editedParts = {}; // location, button and form of the message that is being edited

const field = (id, label, value, props) => h("div", { class: "field" }, h("label", { for: id }, label), h("input", { id, value, autocomplete: "off", ...props }));
const degrees = (max) => ({ type: "number", step: "any", min: -max, max, required: true });

const panels = {
  location: h("form", { id: "panel-location", class: "panel", "aria-label": "Send a location", hidden: true, onsubmit: reportErrors(sendLocation) },
    field("latitude", "Latitude", "37.7955", degrees(90)), field("longitude", "Longitude", "-122.3937", degrees(180)),
    field("place", "Label", "Ferry Building"), field("address", "Address", "1 Ferry Building, San Francisco"),
    h("button", { type: "submit", class: "primary" }, "Send location")),
  tap: h("form", { id: "panel-tap", class: "panel", "aria-label": "Tap a button", hidden: true, onsubmit: reportErrors(sendTap) },
    field("tap-text", "Button text", "Yes", { required: true }), field("tap-payload", "Payload", "yes"),
    h("button", { type: "submit", class: "primary" }, "Send tap")),
  params: h("form", { id: "panel-params", class: "panel", "aria-label": "Form parameters", hidden: true, onsubmit: sendWithParams },
    h("div", { class: "field wide" }, h("label", { for: "params" }, "Form parameters that replace or add to Twilio’s, one Name=value per line"),
      h("textarea", { id: "params", rows: 3, spellcheck: "false", placeholder: "ProfileName=Ana María\nForwarded=true" })),
    h("button", { type: "submit", class: "primary" }, "Send with these parameters")),
};
const toggles = Object.fromEntries(Object.entries({ location: "Location", tap: "Button tap", params: "Parameters" }).map(([name, label]) =>
  [name, h("button", { type: "button", "aria-expanded": "false", "aria-controls": `panel-${name}`, onclick: () => showPanel(name, panels[name].hidden, true) }, label)]));
const picker = h("input", { type: "file", multiple: true, hidden: true, onchange: () => { attach(picker.files); picker.value = ""; } });
const box = h("textarea", { id: "body", rows: 1, dir: "auto", enterkeyhint: "send", "aria-describedby": "size" });
const sendButton = h("button", { type: "submit", class: "primary send" }, "Send");
const label = h("label", { for: "body" });
const size = h("span", { id: "size", class: "muted" });
const chips = h("ul", { class: "chips", "aria-label": "Attachments" });
const form = h("form", { class: "write" }, h("div", { class: "line" }, label, size), chips, h("div", { class: "line" }, box, sendButton));

$("composer").append(
  h("div", { class: "tools" },
    h("button", { type: "button", title: "Attach an image, voice note or document; you can also drop or paste it", onclick: () => picker.click() }, "Attach"), picker,
    toggles.location, toggles.tap, toggles.params,
    h("button", { type: "button", class: "stop", title: "Send the word STOP: the user opts out", onclick: reportErrors(() => send({ body: "STOP" })) }, "STOP")),
  panels.location, panels.tap, panels.params, form);

function showPanel(name, visible, focus = false) {
  for (const other of Object.keys(panels)) {
    panels[other].hidden = !(visible && other === name);
    toggles[other].setAttribute("aria-expanded", !panels[other].hidden);
  }
  if (focus) (visible ? panels[name].querySelector("input, textarea") : toggles[name]).focus();
}
$("composer").addEventListener("keydown", (event) => {
  const openPanel = event.key === "Escape" && Object.keys(panels).find((name) => !panels[name].hidden);
  if (openPanel) showPanel(openPanel, false, true);
});

function attach(files) {
  for (const file of files) {
    if (file.size > MAX_BYTES) notice(`${file.name} is larger than the 16 MB that Twilio accepts.`, true);
    else attached.push({ file });
  }
  drawChips();
  box.focus();
}

function drawChips() {
  const chip = (text, remove) => h("li", {}, h("bdi", {}, text), h("button", { type: "button", "aria-label": `Remove ${text}`, onclick: () => { remove(); drawChips(); box.focus(); } }, "×"));
  fill(chips,
    attached.map((item) => chip(item.file ? `${item.file.name} (${Math.ceil(item.file.size / 1024)} KB)` : item.url, () => { attached = attached.filter((other) => other !== item); })),
    editedParts.location && chip(`Location ${editedParts.location.label ?? ""}`, () => { delete editedParts.location; }),
    editedParts.button && chip(`Tap ${editedParts.button.text}`, () => { delete editedParts.button; }),
    editedParts.flow && chip("Form", () => { delete editedParts.flow; }));
  chips.hidden = !chips.children.length;
}

/** Returns the parameters typed, or undefined if there are none. */
function typedParams() {
  const lines = $("params").value.split("\n").filter((line) => line.trim());
  // Only the first `=` separates: a value may contain others.
  const invalid = lines.find((line) => line.indexOf("=") < 1);
  if (invalid) throw new Error(`“${invalid}” does not have the form Name=value.`);
  return lines.length ? Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")).trim(), line.slice(line.indexOf("=") + 1)])) : undefined;
}

let recalled = null; // the user's earlier message that the box shows: its position from the end, and its text

/** Puts an earlier text of the user into the empty box, as a shell does: `step` 1 is the one before, -1 the next. */
function recall(step) {
  const texts = state.messages.filter(({ direction, body, button }) => direction === "in" && body && !button).map(({ body }) => body);
  const isUnchanged = recalled !== null && box.value === recalled.text;
  if (!isUnchanged && (box.value || step < 0)) return false;
  const position = (isUnchanged ? recalled.position : 0) + step;
  if (position > texts.length) return true;
  recalled = position > 0 ? { position, text: texts[texts.length - position] } : null;
  box.value = recalled?.text ?? "";
  fitHeight();
  box.setSelectionRange(box.value.length, box.value.length);
  return true;
}

function clear() {
  recalled = null;
  box.value = $("params").value = "";
  attached = [];
  editedParts = {};
  showPanel("params", false);
  drawChips();
  fitHeight();
}

function fitHeight() {
  // Reset first: `scrollHeight` is never less than the height that is set.
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, 160)}px`;
  size.textContent = box.value ? sizeOf(box.value, state.current) : "";
}

form.onsubmit = reportErrors(async (event) => {
  event.preventDefault();
  // Throws before `clear`, so that a wrong line can be corrected.
  const params = typedParams();
  const content = { body: box.value, files: attached.flatMap((item) => item.file ?? []), ...editedParts };
  const media = attached.filter((item) => item.url);
  if (!content.body && !attached.length && !params && !Object.keys(editedParts).length) return box.focus();
  // Before sending, which takes until the bot has responded: the user can type the next message at the same time.
  clear();
  box.focus();
  await send({ ...content, ...(media.length && { media }), ...(params && { params }) });
});
box.addEventListener("input", fitHeight);
box.addEventListener("keydown", (event) => {
  const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (step && !event.isComposing && !event.shiftKey && recall(step)) return event.preventDefault();
  // isComposing: with an input method, such as for Japanese or Chinese, Enter confirms a word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
box.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  attach(event.clipboardData.files);
});

function sendWithParams(event) {
  event.preventDefault();
  form.requestSubmit();
}
function sendLocation(event) {
  event.preventDefault();
  showPanel("location", false, true);
  const location = { latitude: Number($("latitude").value), longitude: Number($("longitude").value), label: $("place").value, address: $("address").value };
  return send({ location });
}
function sendTap(event) {
  event.preventDefault();
  showPanel("tap", false, true);
  return send({ body: $("tap-text").value, button: { text: $("tap-text").value, payload: $("tap-payload").value } });
}

const chat = $("chat");
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
chat.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  chat.classList.add("dropping");
});
// `dragleave` also fires between child elements; only leaving the chat counts.
chat.addEventListener("dragleave", (event) => !chat.contains(event.relatedTarget) && chat.classList.remove("dropping"));
chat.addEventListener("drop", (event) => {
  chat.classList.remove("dropping");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  attach(event.dataTransfer.files);
});

/** Puts the content of a message into the message box, to edit and send it again. */
export function edit(content) {
  clear();
  box.value = content.body ?? "";
  attached = [...content.files.map((file) => ({ file })), ...content.media];
  editedParts = { ...(content.location && { location: content.location }), ...(content.button && { button: content.button }), ...(content.flow && { flow: content.flow }) };
  $("params").value = Object.entries(content.params ?? {}).map(([name, value]) => `${name}=${value}`).join("\n");
  if (content.params) showPanel("params", true);
  drawChips();
  fitHeight();
  box.focus();
}

on("opened", () => {
  const channel = channelName(state.current);
  // SMS has neither locations nor buttons.
  toggles.location.hidden = toggles.tap.hidden = channelOf(state.current) === "sms";
  showPanel("location", false);
  label.textContent = state.sender ? `Message from ${nameOf(state.current)} by ${channel}` : `The bot has no ${channel} sender, so nothing can be sent to it`;
  if (state.saved) label.textContent = "A saved conversation; close it to write";
  for (const control of $("composer").querySelectorAll("button, textarea")) control.disabled = !state.sender || Boolean(state.saved);
});
drawChips();
