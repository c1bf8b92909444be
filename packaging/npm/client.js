// A client of replyhook's HTTP API.
"use strict";

/** A response other than success: its status and `reason`, the remedy, and the id of the first message after a 409. */
class ApiError extends Error {
  constructor(status, problem) {
    super(`${status} ${problem?.reason}: ${problem?.message}; ${problem?.remedy}`);
    Object.assign(this, { name: "ApiError", status, reason: problem?.reason ?? "", remedy: problem?.remedy ?? "", id: problem?.id });
  }
}

/** Calls the API. See index.d.ts. */
class Client {
  #url;
  #token;
  #timeout;

  constructor({ url = process.env.REPLYHOOK_API_URL, token = process.env.REPLYHOOK_API_TOKEN, timeoutMs = 30_000 } = {}) {
    if (!url || !token) throw new Error("the client needs url and token; set REPLYHOOK_API_URL and REPLYHOOK_API_TOKEN");
    this.#url = url.replace(/\/+$/, "");
    this.#token = token;
    this.#timeout = timeoutMs;
  }

  send(message, key) {
    // A header carries bytes; `fetch` takes them as Latin-1.
    const headers = key === undefined ? {} : { "idempotency-key": Buffer.from(key).toString("latin1") };
    return this.#call("POST", "/messages", message, headers);
  }

  message(id) {
    return this.#call("GET", `/messages/${id}`);
  }

  recordConsent(address, consent) {
    return this.#call("PUT", path("consents", address), consent);
  }

  consent(address, scope) {
    return this.#find(path("consents", address, scope));
  }

  beginHandoff(address, handoff) {
    return this.#call("PUT", path("handoffs", address), handoff);
  }

  handoff(address, scope) {
    return this.#find(path("handoffs", address, scope));
  }

  async endHandoff(address, scope) {
    await this.#call("DELETE", path("handoffs", address, scope));
  }

  async #find(path) {
    try {
      return await this.#call("GET", path);
    } catch (error) {
      if (error.status === 404 && error.reason !== "unknown_path") return undefined;
      throw error;
    }
  }

  async #call(method, path, body, headers = {}) {
    headers = { ...headers, authorization: `Bearer ${this.#token}`, "content-type": "application/json" };
    const signal = AbortSignal.timeout(this.#timeout);
    // Follow no redirect: another server would get the token.
    const options = { method, headers, signal, redirect: "error", body: body === undefined ? undefined : JSON.stringify(body) };
    const response = await fetch(`${this.#url}/v1${path}`, options);
    const text = await response.text();
    const found = text.startsWith("{") ? JSON.parse(text) : undefined;
    if (response.ok) return found;
    throw new ApiError(response.status, found);
  }
}

const path = (kind, address, scope) => `/${kind}/${encodeURIComponent(address)}${scope ? `?${new URLSearchParams(scope)}` : ""}`;

module.exports = { ApiError, Client };
