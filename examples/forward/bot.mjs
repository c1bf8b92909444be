// A bot in Node behind `handler.kind = "forward"`: npm install standardwebhooks
//
// FORWARD_SECRET=whsec_… node bot.mjs [PORT]

import { createServer } from "node:http";
import { createRequire } from "node:module";

// Where NODE_PATH leads too, which `import` does not look at.
const { Webhook } = createRequire(import.meta.url)("standardwebhooks");

const webhook = new Webhook(process.env.FORWARD_SECRET);

/** What the bot says: a text, or null for nothing. */
function answer(message) {
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
  // The very bytes that came: the signature is over them.
  const body = Buffer.concat(chunks).toString();
  try {
    webhook.verify(body, request.headers);
  } catch {
    return response.writeHead(401, { "content-type": "text/plain" }).end("not signed with FORWARD_SECRET\n");
  }
  const text = answer(JSON.parse(body));
  if (text === null) return response.writeHead(204).end();
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ body: text }));
});

server.listen(Number(process.argv[2] ?? 3000), "127.0.0.1", () => {
  console.log(`listening on ${server.address().port}`);
});
