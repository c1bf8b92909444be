// Checks `replyhook.bot` against the signatures of the library standardwebhooks. Prints `ok` at the end.
"use strict";

const assert = require("node:assert");
const express = require("express");
const { Webhook } = require("standardwebhooks");
const { bot, serve, verify } = require("replyhook");

const SECRET = `whsec_${Buffer.alloc(32, "k").toString("base64")}`;
const events = [];
const replies = { text: "hi", object: { body: "hi" }, list: [{ body: "a" }, { body: "b" }], none: null, empty: "" };
const answer = async (message) => {
  if (!(message.body in replies)) throw new Error("a bot that fails");
  return replies[message.body];
};
const service = bot(answer, { onEvent: (event) => events.push(event.type), secret: SECRET });

function signed(body, shift = 0, secret = SECRET) {
  const at = new Date(Date.now() + shift * 1000);
  const seconds = String(Math.floor(at.getTime() / 1000));
  return { "webhook-id": "SM1", "webhook-timestamp": seconds, "webhook-signature": new Webhook(secret).sign("SM1", at, body) };
}
const call = (text, ...options) => {
  const body = JSON.stringify({ body: text });
  return service.handle(signed(body, ...options), Buffer.from(body));
};

async function main() {
  console.error = () => {};
  assert.deepStrictEqual(await call("text"), { status: 200, body: '{"body":"hi"}' });
  assert.deepStrictEqual(await call("object"), { status: 200, body: '{"body":"hi"}' });
  assert.deepStrictEqual(await call("list"), { status: 200, body: '{"messages":[{"body":"a"},{"body":"b"}]}' });
  assert.deepStrictEqual(await call("none"), { status: 204, body: "" });
  assert.deepStrictEqual(await call("empty"), { status: 200, body: '{"body":""}' });
  assert.deepStrictEqual(await call("unknown"), { status: 500, body: "" });
  const event = JSON.stringify({ type: "message.status", id: "evt_1", data: {} });
  assert.deepStrictEqual(await service.handle(signed(event), Buffer.from(event)), { status: 204, body: "" });
  assert.deepStrictEqual(events, ["message.status"]);
  assert.strictEqual((await bot(null, { secret: SECRET }).handle(signed(event), Buffer.from(event))).status, 204);

  // Requests that replyhook has not signed, or not now.
  const other = `whsec_${Buffer.alloc(32, "o").toString("base64")}`;
  for (const options of [[0, other], [-400], [400]]) assert.strictEqual((await call("text", ...options)).status, 401);
  const body = '{"body":"text"}';
  for (const changed of [{ "webhook-id": "" }, { "webhook-id": "SM2" }, { "webhook-timestamp": "x" }, { "webhook-signature": "" }, { "webhook-signature": "v1,é" }, { "webhook-signature": "v1" }]) {
    assert(!verify(SECRET, { ...signed(body), ...changed }, body), JSON.stringify(changed));
  }
  assert(!verify(SECRET, {}, body) && !verify(SECRET, signed(body), `${body} `));
  const several = signed(body);
  several["webhook-signature"] = `v1,bm90IGl0 ${several["webhook-signature"]}`;
  assert(verify(SECRET, several, Buffer.from(body)));

  // In node:http, and in Express before and after the body was parsed.
  const raw = express().post("/raw", express.raw({ type: "*/*" }), service).post("/plain", service);
  raw.use(express.json()).post("/parsed", service);
  const servers = [serve(service, 0), serve(raw, 0)];
  const post = async (server, path, text, headers = signed(text)) => {
    if (!server.listening) await new Promise((resolve) => server.once("listening", resolve));
    const url = `http://127.0.0.1:${server.address().port}${path}`;
    const response = await fetch(url, { method: "POST", body: text, headers: { "content-type": "application/json", ...headers } });
    return [response.status, await response.text()];
  };
  for (const [server, path] of [[servers[0], "/"], [servers[1], "/raw"], [servers[1], "/plain"]]) {
    assert.deepStrictEqual(await post(server, path, body), [200, '{"body":"hi"}'], path);
    assert.deepStrictEqual(await post(server, path, body, {}), [401, ""], path);
    assert.deepStrictEqual(await post(server, path, '{"body":"none"}'), [204, ""], path);
  }
  assert.strictEqual((await post(servers[1], "/parsed", body))[0], 500);
  const huge = " ".repeat(9 * 1024 * 1024);
  const refused = await post(servers[0], "/", huge, {}).catch(() => [413]);
  assert.strictEqual(refused[0], 413);
  for (const server of servers) server.close();

  for (const secret of ["", "password", "whsec_!"]) assert.throws(() => bot(answer, { secret }), /handler.forward_secret/);
  console.log("ok");
}

main().then(() => process.exit(0));
