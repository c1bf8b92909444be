// Open conversation: loading, sending, and matching a message typed here with the one that the emulator reports.

import { api } from "./api.js";
import { notice } from "./dom.js";
import { emit, fetchServerState, isWhatsApp, now, rowOf, sendersFor, state, storeExchange, storeOutcome } from "./store.js";

let unconfirmed = []; // messages typed here and not yet reported by the emulator
let arrivedDuringLoad = null; // what events report while `load` is fetching: { messages, changed: SIDs }; null otherwise

const bySid = (sid) => state.messages.find((message) => sid && message.sid === sid);

export async function open(user) {
  state.saved = null;
  state.current = user;
  const senders = sendersFor(user);
  state.sender = senders[0] ?? null;
  state.messages = unconfirmed.filter((message) => message.user === user);
  state.selected = state.selectedCall = state.server = null;
  emit("opened");
  emit("conversation");
  emit("server");
  await load();
}

/** Fetches the open conversation, also after a reconnection. */
export async function load() {
  // An opened file stays as it is.
  if (state.saved) return;
  const user = state.current;
  // Collect events that arrive during the fetch: the response may have been made before them.
  const reported = (arrivedDuringLoad = { messages: [], changed: new Set() });
  const list = await api.messages(user);
  if (reported !== arrivedDuringLoad) return; // a later load has started, such as for another user, or a file was opened
  arrivedDuringLoad = null;
  const selected = state.selected;
  // The object of a message that is shown stays, and with it its bubble: the user may be clicking on it.
  state.messages = list.map((message) => Object.assign(bySid(message.sid) ?? {}, message));
  // The response may be older than the event, so load again.
  const isStale = list.some(({ sid }) => reported.changed.has(sid));
  for (const message of reported.messages) if (!bySid(message.sid)) state.messages.push(message);
  state.messages.push(...unconfirmed.filter((message) => message.user === user));
  state.selected = state.messages.find((message) => message === selected || (selected?.sid && message.sid === selected.sid)) ?? null;
  rowOf(user).unread = 0;
  emit("users");
  emit("conversation");
  if (!state.selected && state.messages.length) select(state.messages.at(-1));
  else emit("selected");
  markReadSoon();
  fetchServerState();
  if (isStale) await load();
}

/** Shows a conversation of a file, in place of the open one. */
export function showSaved({ user, sender, messages, ...saved }) {
  arrivedDuringLoad = null;
  saved.exchanges.forEach(storeOutcome);
  Object.assign(state, { current: user, sender, messages, saved, selected: null, selectedCall: null, server: null });
  rowOf(user);
  for (const topic of ["opened", "conversation", "server", "users"]) emit(topic);
  if (messages.length) select(messages.at(-1));
}

export function select(message, isByUser = false) {
  state.selected = message;
  state.selectedCall = null;
  emit("selected", isByUser);
  // `storeExchange` drops old calls. Fetch those of an old message again.
  if (!message?.sid || state.saved || [...state.exchanges.values()].some((exchange) => exchange.message_sid === message.sid)) return;
  api.exchanges(message.sid).then((list) => {
    list.forEach(storeExchange);
    if (list.length) emit("exchange");
  }, () => {});
}

let readTimer;
/** Marks the open conversation as read if the page is visible. Delayed, so that several messages cause one request. */
export function markReadSoon() {
  clearTimeout(readTimer);
  readTimer = setTimeout(() => {
    const isUnread = (message) => message.direction === "out" && !["read", "failed", "undelivered"].includes(message.status);
    if (document.visibilityState === "visible" && !state.saved && state.messages.some(isUnread)) api.read(state.current).catch(() => {});
  }, 250);
}

/** Handles a `typing` event. The indicator ends with the next message, or after 25 s, as at Twilio. */
export function setTyping(user, isTyping = true) {
  clearTimeout(state.typing.get(user));
  state.typing.delete(user);
  if (isTyping) state.typing.set(user, setTimeout(setTyping, 25000, user, false));
  emit("typing");
}

/** Handles a `message` event. */
export function receive(user, message) {
  if (message.direction === "out") setTyping(user, false);
  const row = rowOf(user);
  // A message is reported again when its media has been fetched. Only a new message counts as unread.
  const isNew = row.last?.sid !== message.sid && !(row.last && message.at < row.last.at);
  if (isNew || row.last?.sid === message.sid) row.last = message;
  // The event usually arrives before the response to our POST, which waits for the bot. The local message has no SID
  // yet, so match it by content.
  const local = message.direction === "in" && unconfirmed.find((candidate) => isSame(candidate, user, message));
  if (local) unconfirmed = unconfirmed.filter((other) => other !== local);
  if (user !== state.current || state.saved) {
    if (isNew && message.direction === "out") row.unread += 1;
    emit("users");
    return;
  }
  emit("users");
  arrivedDuringLoad?.messages.push(message);
  arrivedDuringLoad?.changed.add(message.sid);
  const known = bySid(message.sid) ?? local;
  if (known) Object.assign(known, message);
  else state.messages.push(message);
  emit("message", known || message);
  if (local) setTimeout(() => local.previews.forEach((url) => URL.revokeObjectURL(url)), 1000); // still shown until redrawn
  if (local && local === state.selected) emit("selected");
  if (message.direction === "out") markReadSoon();
  fetchServerState();
}

// Equal texts sent in quick succession match in order: the first unconfirmed one is found first.
const isSame = (local, user, message) =>
  local.status === "sending" && local.user === user && local.sender === message.sender &&
  (local.body ?? "") === (message.body ?? "") && local.media.length === (message.media?.length ?? 0) && !local.location === !message.location;

/** Handles a `status` event. */
export function setStatus({ user, sid, status, error_code, failure }) {
  const row = state.users.get(user);
  if (row?.last?.sid === sid) row.last.status = status;
  if (user === state.current) arrivedDuringLoad?.changed.add(sid);
  const message = user === state.current && !state.saved && bySid(sid);
  if (!message) return;
  Object.assign(message, { status, error_code, failure });
  emit("status", message);
}

/**
 * Sends a message as the user of the open conversation. `content` is the body of POST messages; `files` are attached.
 * `shown` replaces parts of `content` on the page, until the emulator reports the message.
 */
export async function send({ files = [], shown = {}, ...content }) {
  if (state.saved) throw new Error("Close the saved conversation first.");
  const user = state.current;
  const name = isWhatsApp(user) ? state.users.get(user)?.name : null;
  const previews = files.map((file) => URL.createObjectURL(file));
  const media = [...(content.media ?? []), ...files.map((file, index) => ({ url: "", content_type: file.type, filename: file.name, src: previews[index] }))];
  const local = {
    sid: null, user, sender: state.sender, direction: "in", by: "user", body: shown.body ?? content.body ?? "", media, status: "sending", error_code: null,
    at: now().toISOString(), location: content.location ?? null, button: shown.button ?? content.button ?? null, flow: content.flow ?? null, content: null, startedAt: performance.now(), previews,
    retry: () => { discard(local); return send({ files, shown, ...content }); },
  };
  // Show the message immediately; the POST responds only after the bot.
  unconfirmed.push(local);
  state.messages.push(local);
  emit("message", local);
  select(local);
  try {
    const data = await Promise.all(files.map(async (file) => ({ data: await base64(file), content_type: file.type || "application/octet-stream", filename: file.name })));
    const response = await api.send({ from: user, to: local.sender, ...(name && { profile_name: name }), ...content, media: [...(content.media ?? []), ...data] });
    confirmSent(local, response.message_sid);
  } catch (error) {
    // With a SID, the emulator has accepted the message, and only the response was lost.
    if (local.sid) notice(error.message, true);
    else Object.assign(local, { status: "unsent", problem: error.message });
  }
  local.startedAt = null;
  emit("status", local);
}

/** Handles the response of POST messages. */
function confirmSent(local, sid) {
  unconfirmed = unconfirmed.filter((message) => message !== local);
  // `receive` has matched the event with this message.
  if (local.sid) return;
  const reported = bySid(sid);
  if (reported) {
    // The event was not matched, because parameters changed the content. The message is shown twice; remove the local
    // one.
    discard(local);
    if (!state.selected) select(reported);
  } else {
    Object.assign(local, { sid, status: "received" });
    if (local === state.selected) select(local);
  }
}

/** Empties the open conversation after a reset. */
export function clearConversation() {
  unconfirmed = [];
  // A file that is shown does not belong to the emulator.
  if (state.saved) return;
  state.messages = [];
  state.selected = state.selectedCall = state.server = null;
  for (const user of [...state.typing.keys()]) setTyping(user, false);
  for (const topic of ["conversation", "selected", "server"]) emit(topic);
}

function discard(local) {
  unconfirmed = unconfirmed.filter((message) => message !== local);
  state.messages = state.messages.filter((message) => message !== local);
  if (state.selected === local) state.selected = null;
  emit("conversation");
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    // Cut off the prefix `data:…;base64,`.
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

// Parameters derived from content or delivery. Sent again unchanged, they would contradict an edited message.
const DERIVED = /^(MessageSid|SmsSid|SmsMessageSid|AccountSid|ApiVersion|SmsStatus|From|To|Body|WaId|NumMedia|NumSegments|MessageType|Media\w*\d+|Latitude|Longitude|Label|Address|Button\w+|InteractiveData|FlowData)$/;

/** Returns the content of a sent message, to send it again. */
export async function contentOf(message) {
  const content = { body: message.body, files: [], media: [] };
  if (message.location) content.location = message.location;
  if (message.button) content.button = message.button;
  if (message.flow) content.flow = message.flow;
  for (const media of message.media ?? []) {
    // The file itself if the emulator has it, else its URL.
    const response = media.src && (await fetch(media.src).catch(() => null));
    if (response?.ok) content.files.push(new File([await response.blob()], media.filename || "attachment", { type: media.content_type }));
    else content.media.push({ url: media.url, content_type: media.content_type });
  }
  const webhook = [...state.exchanges.values()].find((exchange) => exchange.kind === "webhook" && exchange.message_sid === message.sid);
  const params = (webhook?.params ?? []).filter(([name]) => !DERIVED.test(name));
  if (params.length) content.params = Object.fromEntries(params);
  return content;
}
