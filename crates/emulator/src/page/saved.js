// Conversations in files: saving and opening them, and saving them as tests.

import { $, download, notice, reportErrors } from "./dom.js";
import { api } from "./api.js";
import { open, showSaved } from "./conversation.js";
import { nameOf, on, state } from "./store.js";

const FORMAT = "replyhook conversation 1";
const fileNameOf = (user) => nameOf(user).toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_|_$/g, "") || "conversation";
const TEST_FILES = { rust: (name) => `${name}_test.rs`, python: (name) => `test_${name}.py`, node: (name) => `${name}.test.mjs` };

function showFiles(visible) {
  $("files").hidden = !visible;
  $("files-open").setAttribute("aria-expanded", visible);
}
$("files-open").onclick = () => showFiles($("files").hidden);
$("files").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  showFiles(false);
  $("files-open").focus();
});

for (const button of $("files").querySelectorAll("[data-language]")) button.onclick = reportErrors(async () => {
  const { language } = button.dataset;
  download(TEST_FILES[language](fileNameOf(state.current)), await api.test(state.current, language));
});

const readAsDataUrl = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

/** Returns all media of a message, also those of its content and cards. */
const mediaOf = (message) => [message, message.content, ...(message.content?.cards ?? [])].flatMap((part) => part?.media ?? []).filter(Boolean);

$("save-conversation").onclick = reportErrors(async () => {
  const user = state.current;
  const [messages, exchanges] = await Promise.all([api.messages(user), api.exchanges()]);
  // The files themselves: the emulator that has them ends.
  for (const media of messages.flatMap(mediaOf)) {
    const response = media.src && (await fetch(media.src).catch(() => null));
    media.src = response?.ok ? await readAsDataUrl(await response.blob()) : null;
  }
  const sids = new Set(messages.map(({ sid }) => sid));
  const isOwn = (exchange) => exchange.user === user || sids.has(exchange.message_sid);
  const saved = { format: FORMAT, user, name: nameOf(user), saved_at: new Date().toISOString(), messages, exchanges: exchanges.filter(isOwn) };
  download(`${fileNameOf(user)}.json`, JSON.stringify(saved, null, 1));
});

$("open-conversation").onclick = () => $("conversation-file").click();
$("conversation-file").onchange = reportErrors(async () => {
  const [file] = $("conversation-file").files;
  if (!file) return;
  const text = await file.text();
  // Else the same file could not be opened again.
  $("conversation-file").value = "";
  showSaved({ ...parse(text, file.name), file: file.name });
  showFiles(false);
  notice(`${file.name} is open.`);
});

/** Checks the content of a file, which may be anything. */
function parse(text, name) {
  const invalid = new Error(`${name} is not a conversation that this page has saved.`);
  let saved;
  try {
    saved = JSON.parse(text);
  } catch {
    throw invalid;
  }
  const isText = (value) => typeof value === "string";
  const isRecord = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const isMessage = (message) => isRecord(message) && ["sid", "sender", "body", "status", "at"].every((field) => isText(message[field])) &&
    ["in", "out"].includes(message.direction) && !Number.isNaN(Date.parse(message.at)) && Array.isArray(message.media) && mediaOf(message).every(isRecord) &&
    (message.content == null || (isRecord(message.content) && Array.isArray(message.content.items) && (message.content.cards ?? []).every((card) => isRecord(card) && Array.isArray(card.items))));
  const isExchange = (exchange) => isRecord(exchange) && ["id", "kind", "at"].every((field) => isText(exchange[field])) && isRecord(exchange.request) &&
    ["method", "url", "body"].every((field) => isText(exchange.request[field])) && Array.isArray(exchange.request.headers) && Array.isArray(exchange.params) &&
    (exchange.response == null || (isRecord(exchange.response) && isText(exchange.response.body) && Array.isArray(exchange.response.headers)));
  if (saved?.format !== FORMAT || !isText(saved.user) || !Array.isArray(saved.messages) || !saved.messages.every(isMessage)) throw invalid;
  if (!Array.isArray(saved.exchanges) || !saved.exchanges.every(isExchange)) throw invalid;
  for (const media of saved.messages.flatMap(mediaOf)) media.src = isText(media.src) ? blobUrl(media) : null;
  for (const exchange of saved.exchanges) exchange.ms = Number(exchange.ms) || 0;
  return { user: saved.user, sender: saved.messages[0]?.sender ?? null, messages: saved.messages.map((message) => ({ ...message, buttons: [] })), exchanges: saved.exchanges };
}

/** Returns an address of a file in a saved conversation, which the page's policy lets it show. */
function blobUrl({ src, content_type: type }) {
  try {
    const bytes = Uint8Array.from(atob(src.slice(src.indexOf(",") + 1)), (character) => character.charCodeAt(0));
    // Of other types only the bytes: an HTML file opened from here would be a page of the emulator.
    const isShown = /^(image\/(png|jpeg|gif|webp)|audio\/|video\/)/.test(type);
    return URL.createObjectURL(new Blob([bytes], { type: isShown ? type : "application/octet-stream" }));
  } catch {
    return null;
  }
}

$("close-saved").onclick = reportErrors(async () => {
  await open(state.current);
  $("body").focus();
});
on("opened", () => {
  $("saved").hidden = !state.saved;
  $("saved").firstElementChild.textContent = state.saved ? `Saved conversation, from ${state.saved.file}` : "";
  for (const button of $("files").querySelectorAll("#save-conversation, [data-language]")) button.disabled = Boolean(state.saved);
});
