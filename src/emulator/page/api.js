// The emulator's control interface, and nothing else.

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
    throw new Error("The emulator does not answer.");
  }
  const text = await response.text();
  const json = response.headers.get("content-type")?.includes("json");
  if (response.ok) return json ? JSON.parse(text) : text;
  let problem;
  try {
    problem = JSON.parse(text).error;
  } catch {
    // Not from the emulator's own hand; the status has to do.
  }
  throw new Error(problem ?? `The emulator answered ${response.status}.`);
}

const user = (address) => `conversations/${encodeURIComponent(address)}`;

export const api = {
  config: () => call("GET", "config"),
  conversations: () => call("GET", "conversations"),
  messages: (address) => call("GET", user(address)),
  read: (address) => call("POST", `${user(address)}/read`, {}),
  test: (address) => call("GET", `${user(address)}/test`),
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

/** Listens for as long as the page is open. `up` is called after every (re)connection: what happened in between was missed. */
export function listen(handlers, up, down) {
  const source = new EventSource("/_emulator/events");
  for (const [name, handler] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
  }
  source.onopen = up;
  source.onerror = () => {
    down();
    // Some browsers give up when the connection is refused; then it is on us to try again.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(handlers, up, down), 2000);
  };
}
