// Client of the emulator's control API.

async function call(method, path, body) {
  const init = { method };
  if (body !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(`/_emulator/${path}`, init);
  } catch {
    throw new Error("The emulator does not respond.");
  }
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.includes("json");
  if (response.ok) return isJson ? JSON.parse(text) : text;
  let problem;
  try {
    problem = JSON.parse(text).error;
  } catch {
    // Not the control API's JSON, such as the 403 of the origin check. Report the status instead.
  }
  throw new Error(problem ?? `The emulator responded with ${response.status}.`);
}

const conversationPath = (address) => `conversations/${encodeURIComponent(address)}`;

export const api = {
  config: () => call("GET", "config"),
  conversations: () => call("GET", "conversations"),
  messages: (address) => call("GET", conversationPath(address)),
  read: (address) => call("POST", `${conversationPath(address)}/read`, {}),
  test: (address, language) => call("GET", `${conversationPath(address)}/test?language=${language}`),
  send: (message) => call("POST", "messages", message),
  redeliver: (sid) => call("POST", `messages/${encodeURIComponent(sid)}/redeliver`, {}),
  exchanges: (sid) => call("GET", sid ? `exchanges?message_sid=${encodeURIComponent(sid)}` : "exchanges"),
  debugger: () => call("GET", "debugger"),
  faults: () => call("GET", "faults"),
  setFaults: (faults) => call("PUT", "faults", faults),
  advance: (seconds) => call("POST", "clock", { advance_seconds: seconds }),
  reset: () => call("POST", "reset", {}),
  state: (address, sender) => call("GET", `state/${encodeURIComponent(address)}${sender ? `?sender=${encodeURIComponent(sender)}` : ""}`),
};

/**
 * Subscribes to events while the page is open. Calls `onConnect` after every connection, and `onDisconnect` when it is
 * lost.
 */
export function listen(handlers, onConnect, onDisconnect) {
  const source = new EventSource("/_emulator/events");
  for (const [name, handler] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
  }
  // Also after a reconnection, since events in between are lost: the stream cannot resume.
  source.onopen = onConnect;
  source.onerror = () => {
    onDisconnect();
    // Browsers reconnect by themselves, but some stop when the connection is refused. Then start a new source.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(handlers, onConnect, onDisconnect), 2000);
  };
}
