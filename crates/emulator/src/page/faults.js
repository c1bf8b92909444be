// Switches for faults, and a description of the active ones, including those set by another client.

import { $, fillIfChanged, h, reportErrors } from "./dom.js";
import { api } from "./api.js";
import { emit, on, state } from "./store.js";

const SWITCHES = [
  { label: "Duplicate", hint: "Twilio delivers every message twice", faults: { duplicate: 1 } },
  { label: "Crash", hint: "The bot’s handler fails", faults: { handler_fails: true }, needsApp: true },
  { label: "Drop", hint: "The connection to the webhook is dropped; Twilio calls the fallback URL", faults: { drop_connection: true } },
  { label: "Reorder", hint: "Status callbacks arrive in the wrong order", faults: { reorder_status: true } },
  { label: "Retry", hint: "Twilio retries after a failed connection or a 5xx", faults: { retry: "ct,5xx" } },
  { label: "REST 429", hint: "The bot’s next three REST calls are rejected as too many requests", faults: { rest_error: { status: 429, code: 20429, times: 3 } } },
  { label: "Media 404", hint: "The bot’s next fetch of a media file gets 404", faults: { media_404: 1 } },
];

// Handler latencies need an attached app; response delays work with any server.
function latencyOptions() {
  const deadline = state.config.deadline_ms;
  const seconds = (ms) => `${(ms / 1000).toLocaleString("en")} s`;
  const handler = state.config.app_attached ? [["handler_ms", 3000, "handler +…"], ...(deadline ? [["handler_ms", deadline + 2000, "handler +…, past the deadline"]] : [])] : [];
  return [...handler, ["delay_ms", 3000, "response +…"], ["delay_ms", 16000, "response +…, past Twilio’s timeout"]].map(([key, ms, label]) => ({ key, ms, text: label.replace("…", seconds(ms)) }));
}

function describeFaults({ duplicate, retry, drop_connection, delay_ms, reorder_status, rest_error, media_404, handler_ms, handler_fails, shared_key, content_error, content_delay_ms, content_lost, content_failure, template_state, template_review_s, api_key }) {
  return [
    duplicate && `every message ${duplicate + 1} times`, handler_ms && `handler ${handler_ms / 1000} s slower`, delay_ms && `responses ${delay_ms / 1000} s late`,
    handler_fails && "handler fails", drop_connection && "connections dropped", reorder_status && "statuses out of order", retry && `retries on ${retry}`,
    rest_error && `REST returns ${rest_error.status}${rest_error.times ? ` (${rest_error.times}×)` : ""}`, media_404 && `${media_404} media not found`,
    content_error && `Content API returns ${content_error.status}${content_error.times ? ` (${content_error.times}×)` : ""}`, content_delay_ms && `Content API ${content_delay_ms / 1000} s late`,
    content_lost && `${content_lost} templates lost`, content_failure && `templates fail with ${content_failure.code}${content_failure.times ? ` (${content_failure.times}×)` : ""}`, template_state && `templates ${template_state}`, template_review_s && `templates reviewed for ${template_review_s} s`,
    shared_key && `signed with ${shared_key.id}`, api_key && `REST with ${api_key.sid}${api_key.allow ? ", restricted" : ""}`,
  ].filter(Boolean);
}

/** Sets some faults and keeps the others. */
async function changeFaults(changes) {
  // PUT replaces all faults, so send the active ones too. Faults that are off are left out.
  const active = Object.entries({ ...state.faults, ...changes }).filter(([, value]) => value);
  state.faults = (await api.setFaults(Object.fromEntries(active))) ?? {};
  emit("faults");
}

const isOn = (fault) => Object.keys(fault.faults).every((key) => state.faults[key]);
const faultsOff = (fault) => Object.fromEntries(Object.keys(fault.faults).map((key) => [key, null]));

function draw() {
  if (!state.config) return;
  const descriptions = describeFaults(state.faults);
  $("faults").classList.toggle("on", descriptions.length > 0);
  const text = descriptions.length ? `Active: ${descriptions.join(" · ")}` : "No faults";
  // Unchanged text is not set again: screen readers would announce it again.
  if ($("faults-now").textContent !== text) $("faults-now").textContent = text;
  const isSlow = Boolean(state.faults.handler_ms || state.faults.delay_ms);
  fillIfChanged($("faults-list"), [state.faults, latencyOptions(), state.config.app_attached, selectedLatency], () => switches(isSlow, descriptions.length > 0));
}

function switches(isSlow, isAnyActive) {
  const toggle = (label, hint, pressed, onClick) => h("button", { type: "button", title: hint, "data-key": label, "aria-pressed": String(pressed), onclick: reportErrors(onClick) }, label);
  const options = latencyOptions();
  // Select the active latency, else the last choice of the user. Latencies set elsewhere may not be in the list.
  const current = options.find(({ key, ms }) => state.faults[key] === ms) ?? options[selectedLatency] ?? options[0];
  const select = h("select", { "aria-label": "How slow", "data-key": "how slow", onchange: reportErrors(async () => {
    selectedLatency = select.selectedIndex;
    if (isSlow) await setLatency(options[selectedLatency]);
  }) }, options.map((option) => h("option", { selected: option === current }, option.text)));
  return [
    h("span", { class: "pair" }, toggle("Slow", "The bot is slow", isSlow, () => setLatency(isSlow ? null : options[select.selectedIndex])), select),
    SWITCHES.filter((fault) => !fault.needsApp || state.config.app_attached).map((fault) => toggle(fault.label, fault.hint, isOn(fault), () => changeFaults(isOn(fault) ? faultsOff(fault) : fault.faults))),
    h("button", { type: "button", class: isAnyActive ? null : "unused", "data-key": "clear", onclick: reportErrors(async () => {
      state.faults = (await api.setFaults({})) ?? {};
      emit("faults");
    }) }, "All off")];
}

let selectedLatency = 0; // index in the result of `latencyOptions`
const setLatency = (option) => changeFaults({ handler_ms: null, delay_ms: null, ...(option && { [option.key]: option.ms }) });

on("faults", draw);
$("faults-more").onclick = () => {
  const open = $("faults").classList.toggle("open");
  $("faults-more").setAttribute("aria-expanded", open);
};
