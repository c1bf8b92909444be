/**
 * A bot in Express like those in Twilio's guides: `twilio.webhook()` verifies every request, and `MessagingResponse`
 * makes the TwiML of the response.
 *
 * Needs npm `twilio` and `express` (`scripts/sdk` installs them):
 *
 *     node tests/sdk/serve.mjs --node-modules DIR
 *
 * It prints its port on 127.0.0.1, and reads the account's token from stdin before it answers a request. So its caller
 * can be started in between. For each verified request it prints a line of JSON. `serve.py` is the same bot in Flask.
 */

import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util"; // Node 18.3

const { values: args } = parseArgs({ options: { "node-modules": { type: "string" } } });
const require = createRequire(path.resolve(args["node-modules"], "x.js"));
const express = require("express");
const twilio = require("twilio");

const input = createInterface({ input: process.stdin });
const token = new Promise((resolve) => input.once("line", (line) => resolve(line.trim())));
// Exits with the process that started it.
input.once("close", () => process.exit(0));

const app = express();
app.use(express.urlencoded({ extended: false }));
app.use(async (request, response, next) => twilio.webhook(await token)(request, response, next));
app.use((request, response, next) => {
  console.log(JSON.stringify({ path: request.path, form: request.body }));
  next();
});

app.post("/sms", (request, response) => {
  const { Body, From, MediaContentType0, Latitude, ButtonPayload } = request.body;
  if (Body === "fail") return response.status(500).send("it was told to fail");
  const twiml = new twilio.twiml.MessagingResponse();
  twiml.message(`${Body} & <${MediaContentType0 || Latitude || ButtonPayload || "None"}> from ${From}`);
  return response.type("text/xml").send(twiml.toString());
});

app.post("/fallback", (request, response) => {
  const twiml = new twilio.twiml.MessagingResponse();
  twiml.message(`sorry, ${request.body.ErrorCode}`);
  response.type("text/xml").send(twiml.toString());
});

app.post("/status", (request, response) => response.status(204).end());

const server = app.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
