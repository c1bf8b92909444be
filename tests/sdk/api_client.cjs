// Calls the HTTP API with `replyhook.Client`. Prints `ok` at the end.
"use strict";

const assert = require("node:assert");
const { ApiError, Client } = require("replyhook");

const ANA = "whatsapp:+15550001111";
const SENDER = "whatsapp:+15550002222";

async function main() {
  const client = new Client();
  assert.strictEqual(await client.consent(ANA), undefined);
  assert.strictEqual(await client.handoff(ANA), undefined);
  const recorded = await client.recordConsent(ANA, { sender: SENDER, status: "opted_in", source: "form ✓" });
  assert.deepStrictEqual(await client.consent(ANA, { sender: SENDER }), recorded);
  const first = await client.send({ to: ANA, from: SENDER, body: "One ✓" }, "order 42 ✓");
  assert.strictEqual((await client.send({ to: ANA, from: SENDER, body: "One ✓" }, "order 42 ✓")).id, first.id);
  assert.strictEqual((await client.message(first.id)).id, first.id);
  for (const [call, status, reason, id] of [
    [() => client.send({ to: ANA, from: SENDER, body: "Two" }, "order 42 ✓"), 409, "key_in_use", first.id],
    [() => client.send({ to: "ana", from: SENDER, body: "x" }), 422, "invalid_address", undefined],
    [() => client.message(999), 404, "unknown_message", undefined],
    [() => new Client({ token: "x".repeat(32) }).message(1), 401, "unauthorized", undefined],
  ]) {
    const error = await call().then(() => undefined, (error) => error);
    assert(error instanceof ApiError, String(error));
    assert.deepStrictEqual([error.status, error.reason, error.id], [status, reason, id]);
  }
  const begun = await client.beginHandoff(ANA, { url: null, ttl: "12h" });
  assert.strictEqual((await client.handoff(ANA, { sender: SENDER })).until, begun.until);
  await client.endHandoff(ANA);
  assert.strictEqual(await client.handoff(ANA), undefined);
  console.log("ok");
}

main();
