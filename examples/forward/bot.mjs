// A bot in Node for `handler.kind = "forward"`.
//
//   npm install standardwebhooks
//   FORWARD_SECRET=whsec_… node bot.mjs [PORT]
//
// FORWARD_SECRET is the value of `handler.forward_secret`. The port is that of the environment variable PORT, or 3000, unless
// given; 0 is any free port. `replyhook dev -- node bot.mjs` sets both variables.

import { createServer } from "node:http";
import { createRequire } from "node:module";

// `require` also searches NODE_PATH, where the tests have the library; `import` does not.
const { Webhook } = createRequire(import.meta.url)("standardwebhooks");

const webhook = new Webhook(process.env.FORWARD_SECRET);

/** Returns the bot's reply: a text, or null for no reply. */
function replyTo(message) {
  // profile_name, location and its label are null if Twilio did not send them.
  const name = message.profile_name ?? "you";
  if (message.location) {
    const { label, latitude, longitude } = message.location;
    return `Hello ${name}, you are at ${label ?? `${latitude}, ${longitude}`}.`;
  }
  return `Hello ${name}, you said: ${message.body}`;
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  // Verify the body as received, before it is parsed: the signature covers exactly these bytes.
  const body = Buffer.concat(chunks).toString();
  try {
    webhook.verify(body, request.headers);
  } catch {
    return response.writeHead(401, { "content-type": "text/plain" }).end("not signed with FORWARD_SECRET\n");
  }
  // Other keys of the message are ignored: there may be more than this bot needs.
  const text = replyTo(JSON.parse(body));
  if (text === null) return response.writeHead(204).end();
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ body: text }));
});

// Loopback only: replyhook runs on the same machine.
server.listen(Number(process.argv[2] ?? process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on ${server.address().port}`);
});
