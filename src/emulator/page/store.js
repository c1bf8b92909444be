// What the page knows, and who is told when it changes.

import { api } from "./api.js";

export const state = {
  config: null,
  offset: 0, // emulated clock minus this machine's, in ms
  users: new Map(), // address -> { address, name, last, unread, added }
  current: null, // address of the open conversation
  sender: null,
  messages: [], // of the open conversation, in order
  selected: null, // one of `messages`
  chosen: null, // id of the call looked at; null = the one that tells most
  exchanges: new Map(), // id -> EXCHANGE, oldest first
  outcomes: new Map(), // MessageSid of an inbound message -> { ok, code } of its latest webhook
  debugger: [],
  faults: {},
  server: null, // GET state of the open conversation
  typing: new Map(), // user to whom the bot shows that it types -> the timer that ends it
};

const listeners = {};
export const on = (topics, listener) => topics.split(" ").forEach((topic) => (listeners[topic] ??= []).push(listener));
export const emit = (topic, detail) => (listeners[topic] ?? []).forEach((listener) => listener(detail));

export const isWhatsApp = (address) => address.startsWith("whatsapp:");
export const sendersFor = (address) => (state.config?.senders ?? []).filter((sender) => isWhatsApp(sender) === isWhatsApp(address));
export const now = () => new Date(Date.now() + state.offset);
export const setNow = (text) => {
  state.offset = Date.parse(text) - Date.now();
};
/** What is known of a user; somebody new is added. */
export function rowOf(address) {
  if (!state.users.has(address)) state.users.set(address, { address, name: "", last: null, unread: 0, added: false });
  return state.users.get(address);
}
export const nameOf = (address) => state.users.get(address)?.name || address.replace("whatsapp:", "");

const KEPT_EXCHANGES = 3000;

export function keepExchange(exchange) {
  state.exchanges.set(exchange.id, exchange);
  if (state.exchanges.size > KEPT_EXCHANGES) state.exchanges.delete(state.exchanges.keys().next().value);
  if (exchange.kind !== "webhook" || !exchange.message_sid || (!exchange.response && !exchange.error_code)) return;
  const status = exchange.response?.status;
  const ok = !exchange.error_code && status >= 200 && status < 300;
  if (state.outcomes.get(exchange.message_sid)?.at > exchange.at) return;
  state.outcomes.set(exchange.message_sid, { ok, code: exchange.error_code, at: exchange.at });
}

/** Asks the bot's server what it knows of the user; many events in a row cost one question. */
let asking;
export function askServer() {
  clearTimeout(asking);
  if (!state.current) return;
  asking = setTimeout(async () => {
    const user = state.current;
    const answer = await api.state(user, state.sender).catch(() => null);
    if (user !== state.current) return;
    state.server = answer;
    emit("server");
  }, 150);
}
