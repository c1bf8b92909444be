// State of the page, and listeners for its changes by topic.

import { api } from "./api.js";

export const state = {
  config: null,
  clockOffset: 0, // the emulator's clock minus this machine's, in ms
  users: new Map(), // address -> { address, name, last, unread, added }
  current: null, // address of the open conversation
  sender: null,
  saved: null, // conversation opened from a file: { name, exchanges }; `messages` has its messages then
  messages: [], // of the open conversation, in order
  selected: null, // one of `messages`
  selectedCall: null, // ID of the call that the user selected; null: the inspector selects one
  exchanges: new Map(), // ID -> exchange, oldest first
  outcomes: new Map(), // MessageSid of an inbound message -> { ok, code } of its latest webhook
  debugger: [],
  faults: {},
  server: null, // response of GET state for the open conversation
  typing: new Map(), // user who sees a typing indicator -> timer that ends it
};

const listeners = {};
export const on = (topics, listener) => topics.split(" ").forEach((topic) => (listeners[topic] ??= []).push(listener));
export const emit = (topic, detail) => (listeners[topic] ?? []).forEach((listener) => listener(detail));

export const isWhatsApp = (address) => address.startsWith("whatsapp:");
/** Returns the channel of an address: "whatsapp", "rcs", "messenger", another prefix, or "sms" without one. */
export const channelOf = (address) => (address.includes(":") ? address.split(":")[0] : "sms");
const CHANNEL_NAMES = { whatsapp: "WhatsApp", sms: "SMS", rcs: "RCS", messenger: "Messenger" };
export const channelName = (address) => CHANNEL_NAMES[channelOf(address)] ?? channelOf(address);
export const withoutChannel = (address) => address.replace(/^(whatsapp|rcs|messenger):/, "");
export const sendersFor = (address) => (state.config?.senders ?? []).filter((sender) => channelOf(sender) === channelOf(address));
export const now = () => new Date(Date.now() + state.clockOffset);
export const setNow = (text) => {
  state.clockOffset = Date.parse(text) - Date.now();
};
/** Returns the row of a user, and adds one for a new user. */
export function rowOf(address) {
  if (!state.users.has(address)) state.users.set(address, { address, name: "", last: null, unread: 0, added: false });
  return state.users.get(address);
}
export const nameOf = (address) => state.users.get(address)?.name || withoutChannel(address);

// Bounds the page's memory. `select` fetches the calls of an older message again.
const MAX_EXCHANGES = 3000;

export function storeExchange(exchange) {
  // A Map iterates in the order of insertion, so its first key is the oldest.
  state.exchanges.set(exchange.id, exchange);
  if (state.exchanges.size > MAX_EXCHANGES) state.exchanges.delete(state.exchanges.keys().next().value);
  storeOutcome(exchange);
}

/** Stores whether the bot has accepted a message. */
export function storeOutcome(exchange) {
  if (exchange.kind !== "webhook" || !exchange.message_sid || (!exchange.response && !exchange.error_code)) return;
  const status = exchange.response?.status;
  const ok = !exchange.error_code && status >= 200 && status < 300;
  // Exchanges can arrive out of order while the page catches up. The latest webhook decides; times compare as texts.
  if (state.outcomes.get(exchange.message_sid)?.at > exchange.at) return;
  state.outcomes.set(exchange.message_sid, { ok, code: exchange.error_code, at: exchange.at });
}

let fetchTimer;
/** Fetches the state of the user from the bot's server, once for several events in quick succession. */
export function fetchServerState() {
  clearTimeout(fetchTimer);
  if (!state.current || state.saved) return;
  fetchTimer = setTimeout(async () => {
    const user = state.current;
    const serverState = await api.state(user, state.sender).catch(() => null);
    // The user switched conversations while the request was in flight.
    if (user !== state.current || state.saved) return;
    state.server = serverState;
    emit("server");
  }, 150);
}
