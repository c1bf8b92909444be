// The HTTP service of a bot: a listener for `http.createServer` and for Express, and a server.
"use strict";

const { createHmac, timingSafeEqual } = require("node:crypto");
const { createServer } = require("node:http");

const MAX_AGE_S = 300; // of a signature, as Standard Webhooks recommends
const MAX_BODY_BYTES = 8 * 1024 * 1024;

/** Verifies the signature of a request (Standard Webhooks). `secret` is the value of `handler.forward_secret`. */
function verify(secret, headers, body) {
  const name = headers["webhook-id"] ?? "";
  const sentAt = headers["webhook-timestamp"] ?? "";
  if (!name || !/^\d+$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > MAX_AGE_S) return false;
  const mac = createHmac("sha256", Buffer.from(secret.trim().slice("whsec_".length), "base64"));
  const expected = Buffer.from(`v1,${mac.update(`${name}.${sentAt}.`).update(body).digest("base64")}`);
  const isSame = (text) => Buffer.byteLength(text) === expected.length && timingSafeEqual(Buffer.from(text), expected);
  return (headers["webhook-signature"] ?? "").split(" ").some(isSame);
}

/** Returns the response to a verified request: status and JSON. */
async function respond({ onMessage, onEvent }, body) {
  try {
    const payload = JSON.parse(body.toString());
    // An event; messages have no type.
    if (payload.type !== undefined) {
      await onEvent?.(payload);
      return { status: 204, body: "" };
    }
    let reply = await onMessage?.(payload);
    if (typeof reply === "string") reply = { body: reply };
    if (Array.isArray(reply)) reply = { messages: reply };
    return reply === undefined || reply === null ? { status: 204, body: "" } : { status: 200, body: JSON.stringify(reply) };
  } catch (error) {
    console.error(error);
    return { status: 500, body: "" }; // replyhook then repeats the message after Twilio's fallback call, and an event later.
  }
}

/** Reads the body exactly as it was received; undefined if it is too large. */
async function read(request) {
  if (Buffer.isBuffer(request.body)) return request.body; // of express.raw
  if (request.readableEnded) throw new Error("the body was read already; use the bot before express.json()");
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Creates the service. See index.d.ts. */
function bot(onMessage, { onEvent, secret = process.env.FORWARD_SECRET } = {}) {
  if (!/^whsec_[A-Za-z0-9+/]+=*$/.test(secret?.trim() ?? "")) {
    throw new Error("the secret is not whsec_ and base64; set FORWARD_SECRET to the value of handler.forward_secret");
  }
  const handle = async (headers, body) =>
    verify(secret, headers, body) ? respond({ onMessage, onEvent }, body) : { status: 401, body: "" };
  const listener = async (request, response) => {
    const body = await read(request).catch((error) => (console.error(error), null));
    if (body === null) return response.writeHead(500).end();
    if (body === undefined) return response.writeHead(413, { connection: "close" }).end();
    const result = await handle(request.headers, body);
    response.statusCode = result.status;
    if (result.body) response.setHeader("content-type", "application/json");
    response.end(result.body);
  };
  return Object.assign(listener, { handle });
}

const serve = (listener, port = Number(process.env.PORT ?? 3000), host = "127.0.0.1") => createServer(listener).listen(port, host);

module.exports = { bot, serve, verify };
