// bot.mjs
import { ApiError, Client, bot, serve } from "replyhook";

const SENDER = process.env.SENDER ?? "whatsapp:+14155238886";
// An approved template with one variable: "Your appointment is on {{1}}. See you then!"
const REMINDER = process.env.REMINDER ?? "HX00000000000000000000000000000001";
const SERVICES = ["Haircut", "Beard trim", "Both"];
const DAYS = ["Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const client = new Client();
const appointments = new Map(); // day by user
const inbox = new Map(); // messages for people, by SID: an event may come twice
const calls = new Map(); // reason by user whom a message has not reached

const ask = (body, choices_key, choices) => ({ body, choices, choices_key, choices_button: "Days" });

async function replyTo(message) {
  const { from: user, choice } = message;
  const text = message.body.trim().toLowerCase();
  if (text === "book") return ask("What shall we do?", "what", SERVICES);
  if (text === "human") {
    await client.beginHandoff(user, { url: null, ttl: "12h" });
    return "A person answers you here.";
  }
  // A button of an old question is not an answer to the open one.
  if (!choice?.current) return "Write book for an appointment, or human for a person.";
  const [question, what, day] = choice.key.split("/");
  if (question === "what") return ask("Which day?", `day/${choice.id}`, DAYS);
  if (question === "day") return ask(`${what} on ${choice.id}: is that right?`, `sure/${what}/${choice.id}`, ["Confirm", "Not now"]);
  if (choice.id !== "Confirm") return "Nothing is booked.";
  appointments.set(user, day);
  return `Booked: ${what} on ${day}.`;
}

function onEvent({ type, data }) {
  if (type === "message.received") {
    inbox.set(data.message_sid, { from: data.from, body: data.body }); // while people answer
  } else if (type === "message.failed" && data.direction === "outbound") {
    calls.set(data.to, data.error_meaning);
  }
}

const routes = {
  // The web form: its box is the opt-in.
  async "/form"({ phone, day, page }) {
    const user = `whatsapp:${phone}`;
    await client.recordConsent(user, { sender: SENDER, status: "opted_in", source: "web form", evidence: page });
    appointments.set(user, day);
  },
  // Called by a timer, each evening. Called again, it sends nothing twice.
  async "/remind"({ day, date }) {
    for (const [user, booked] of appointments) {
      const content = { sid: REMINDER, variables: { 1: day } };
      if (booked === day) await client.send({ to: user, from: SENDER, content }, `${date} ${user}`);
    }
  },
  // The answer of a person.
  "/desk/answer": ({ to, body }) => client.send({ to, from: SENDER, body }),
  "/desk/done": ({ to }) => client.endHandoff(to),
};
const service = bot(replyTo, { onEvent });

// Protect these pages with a login. Requests from replyhook are signed, and `bot` checks the signature.
serve(async (request, response) => {
  if (request.url === "/message") return service(request, response);
  let status = 200;
  let result = { inbox: [...inbox.values()], calls: Object.fromEntries(calls) };
  const route = routes[request.url];
  if (route) {
    const chunks = await request.toArray();
    try {
      await route(Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString())));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      [status, result] = [400, { reason: error.reason, remedy: error.remedy }]; // such as no_opt_in or invalid_address
    }
  }
  response.statusCode = status;
  response.setHeader("content-type", "application/json").end(JSON.stringify(result));
});
