/**
 * Twilio's own Node library as a client of the emulator, with nothing changed but the base URL.
 *
 * Needs npm `twilio` (`scripts/sdk` installs it) and a `replyhook dev`:
 *
 *     node tests/sdk/rest.mjs --node-modules DIR --base http://127.0.0.1:8081 --account AC… --token …
 *
 * Every function below is one action of a bot, or one error that it must understand. All of them run, and each failure
 * is printed. `rest.py` is the same program with Twilio's Python library.
 */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util"; // Node 18.3

const options = { type: "string" };
const { values: args } = parseArgs({ options: { "node-modules": options, base: options, account: options, token: options } });
const require = createRequire(path.resolve(args["node-modules"], "x.js"));
const twilio = require("twilio");
const { MessageInstance } = require("twilio/lib/rest/api/v2010/account/message");
const { MediaInstance } = require("twilio/lib/rest/api/v2010/account/message/media");

const [ANA, SANDBOX] = ["whatsapp:+15550001111", "whatsapp:+14155238886"];
const [BEN, NUMBER] = ["+15550004444", "+15005550006"];
const ID_USER = "whatsapp:US.13491208655302741918";
const SERVICE = `MG${"0".repeat(31)}1`;
const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const PATIENCE = 30_000; // limit for conditions that must become true

/** The library's HTTP client, which also keeps the last response. */
let last = null;
class Seen extends twilio.RequestClient {
  async request(opts) {
    last = await super.request(opts);
    return last;
  }
}

/** A client of the library with another base URL. */
function connect(token = args.token) {
  const client = twilio(args.account, token, { httpClient: new Seen({ timeout: PATIENCE }) });
  for (const domain of [client.api, client.messaging, client.content]) domain.baseUrl = args.base;
  return client;
}

/** Calls the emulator's control interface, for the phone and the clock. */
async function control(method, at, body) {
  const response = await fetch(`${args.base}/_emulator${at}`, { method, body: body && JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE) });
  assert.ok(response.ok, `${at}: ${response.status}`);
  return response.json();
}

/** Sends a user's message, and returns the result. */
const says = (user, body, more) =>
  control("POST", "/messages", { from: user, to: user.startsWith("whatsapp:") ? SANDBOX : NUMBER, body, ...more });

/** URL of a picture that the emulator can fetch. */
async function pictureUrl() {
  const { message_sid: sid } = await says(ANA, "", { media: [{ data: PNG, content_type: "image/png" }] });
  return args.base + (await control("GET", `/conversations/${ANA}`)).find((one) => one.sid === sid).media[0].src;
}

/** Fields of each content type, whether WhatsApp needs its approval, and the form in which the phone shows it. */
function contentTypes(picture) {
  const reply = { type: "QUICK_REPLY", title: "Yes", id: "yes" };
  const link = { type: "URL", title: "Open", url: "https://shop.example/1" };
  const page = { id: "p1", title: "Guests", layout: [{ type: "TEXT_INPUT", label: "Name" }] };
  const card = (title) => ({ title, body: "b", media: picture, actions: [link] });
  return {
    "twilio/text": [{ body: "Hi {{1}}, hello" }, false, "text"],
    "twilio/media": [{ body: "Look", media: [picture] }, false, "media"],
    "twilio/location": [{ latitude: 52.5, longitude: 13.4, label: "Office" }, false, "location"],
    "twilio/quick-reply": [{ body: "Home?", actions: [reply] }, false, "buttons"],
    "twilio/call-to-action": [{ body: "Look", actions: [link] }, false, "buttons"],
    "twilio/list-picker": [{ body: "When?", button: "Days", items: [{ item: "Today", id: "today", description: "before 6 pm" }] }, false, "list"],
    "twilio/card": [{ title: "Bike", subtitle: "new", media: [picture], actions: [reply] }, false, "card"],
    "twilio/carousel": [{ body: "Two", cards: [card("A"), card("B")] }, true, "carousel"],
    "twilio/catalog": [{ body: "Shop", id: "c1", items: [{ id: "p1", name: "Hat", price: 9.5 }] }, false, "card"],
    "twilio/flows": [{ body: "Book", button_text: "Book", type: "OTHER", pages: [page] }, true, "buttons"],
    "whatsapp/flows": [{ body: "Rate", button_text: "Rate", flow_id: "1" }, true, "buttons"],
    "whatsapp/card": [{ body: "Bike", header_text: "New", footer: "f", actions: [link] }, false, "card"],
    "whatsapp/authentication": [{ code_expiration_minutes: 5, actions: [{ type: "COPY_CODE", copy_code_text: "Copy" }] }, true, "buttons"],
  };
}

/** Waits for a condition that becomes true by itself. */
async function until(what, holds) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `never: ${what}`);
    await pause(20);
  }
}
const reaches = (client, sid, ...states) => until(states[0], async () => states.includes((await client.messages(sid).fetch()).status));

/** Asserts that a call throws the library's exception, with the fields that bots read. */
async function assertRejected(status, code, call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof twilio.RestException)) throw error;
    assert.deepEqual([error.status, error.code], [status, code], error.message);
    assert.ok(error.message && error.moreInfo.endsWith(`/${code}`), "without a message");
    return;
  }
  assert.fail(`not rejected with ${code}`);
}

/** The fields that a model of the library reads. */
function fields(Model) {
  const names = new Set();
  const payload = new Proxy({}, { get: (_, name) => void names.add(name) });
  new Model({}, payload, args.account, "x");
  return [...names].sort();
}
const bodyOf = (response) => (typeof response.body === "string" ? JSON.parse(response.body) : response.body);
const hasTheFields = (payload, expected) => assert.deepEqual(Object.keys(payload).sort(), expected);
const isAMessage = (payload) => hasTheFields(payload, fields(MessageInstance));

const CHECKS = {
  async "a text is created and goes its way"(client) {
    await says(ANA, "hello");
    const message = await client.messages.create({ from: SANDBOX, to: ANA, body: "Olá + 100% & 👍" });
    isAMessage(bodyOf(last));
    assert.deepEqual([message.status, message.direction, message.errorCode], ["queued", "outbound-api", null]);
    assert.deepEqual([message.from, message.to, message.body], [SANDBOX, ANA, "Olá + 100% & 👍"]);
    assert.deepEqual([message.numMedia, message.numSegments, message.dateSent], ["0", "1", null]);
    assert.ok(message.accountSid === args.account && message.sid.startsWith("SM"));
    await reaches(client, message.sid, "read");
    isAMessage(bodyOf(last));
    const fetched = await client.messages(message.sid).fetch();
    assert.ok(fetched.dateSent instanceof Date && fetched.dateSent >= fetched.dateCreated && fetched.uri === message.uri);
  },

  async "an inbound message is fetched"(client) {
    const { message_sid: sid } = await says(BEN, "inbound");
    const message = await client.messages(sid).fetch();
    isAMessage(bodyOf(last));
    assert.deepEqual([message.direction, message.status, message.from, message.to], ["inbound", "received", BEN, NUMBER]);
  },

  async "media go out and come in"(client) {
    const picture = { data: PNG, content_type: "image/png", filename: "a.png" };
    const { message_sid: sid } = await says(ANA, "two", { media: [picture, { ...picture, content_type: "image/jpeg" }] });
    const files = await client.messages(sid).media.list();
    assert.deepEqual(files.map((file) => file.contentType).sort(), ["image/jpeg", "image/png"]);
    const file = await client.messages(sid).media(files[0].sid).fetch();
    hasTheFields(bodyOf(last), fields(MediaInstance));
    assert.ok(file.parentSid === sid && file.dateCreated instanceof Date);
    assert.equal(await client.messages(sid).media(file.sid).remove(), true);
    assert.equal((await client.messages(sid).media.list()).length, 1);
    await assertRejected(404, 20404, () => client.messages(sid).media(file.sid).fetch());
    const [{ media }] = (await control("GET", `/conversations/${ANA}`)).filter((message) => message.sid === sid);
    const src = media.find((one) => one.src && !one.url.endsWith(file.sid)).src;
    const message = await client.messages.create({ from: SANDBOX, to: ANA, body: "look", mediaUrl: [args.base + src] });
    assert.ok(message.numMedia === "1" && message.sid.startsWith("MM"));
    await reaches(client, message.sid, "delivered", "read");
  },

  async "a service chooses the sender"(client) {
    await says(BEN, "hello");
    const message = await client.messages.create({ messagingServiceSid: SERVICE, to: BEN, body: "from a service" });
    isAMessage(bodyOf(last));
    assert.deepEqual([message.status, message.from, message.messagingServiceSid], ["accepted", null, SERVICE]);
    await reaches(client, message.sid, "delivered");
    assert.equal((await client.messages(message.sid).fetch()).from, NUMBER);
  },

  async "templates are made, approved, sent and deleted"(client) {
    const content = await client.content.v1.contents.create({
      friendly_name: "delivery",
      language: "en",
      variables: { 1: "you" },
      types: { "twilio/quick-reply": { body: "Is {{1}} at home?", actions: [{ type: "QUICK_REPLY", title: "Yes", id: "yes" }] } },
    });
    assert.ok(content.sid.startsWith("HX") && content.accountSid === args.account);
    const fetched = await client.content.v1.contents(content.sid).fetch();
    assert.deepEqual([fetched.friendlyName, fetched.language, fetched.variables], ["delivery", "en", { 1: "you" }]);
    assert.ok(fetched.dateCreated instanceof Date && fetched.types["twilio/quick-reply"]);
    const asked = await client.content.v1.contents(content.sid).approvalCreate.create({ name: "delivery", category: "UTILITY" });
    assert.deepEqual([asked.name, asked.category], ["delivery", "UTILITY"]);
    const { whatsapp } = await client.content.v1.contents(content.sid).approvalFetch().fetch();
    assert.deepEqual([whatsapp.status, whatsapp.name], ["approved", "delivery"]);
    assert.ok((await client.content.v1.contents.list()).some((one) => one.sid === content.sid));
    assert.ok((await client.content.v1.contentAndApprovals.list()).some((one) => one.sid === content.sid));
    // A user whose window is closed may only get a template.
    await control("POST", "/clock", { advance_seconds: 25 * 3600 });
    const text = await client.messages.create({ from: SANDBOX, to: ANA, body: "too late" });
    await reaches(client, text.sid, "failed", "undelivered");
    assert.equal((await client.messages(text.sid).fetch()).errorCode, 63016);
    const template = { from: SANDBOX, to: ANA, contentSid: content.sid };
    const message = await client.messages.create({ ...template, contentVariables: '{"1":"Ana"}' });
    isAMessage(bodyOf(last));
    await reaches(client, message.sid, "delivered", "read");
    assert.equal((await client.messages(message.sid).fetch()).body, "Is Ana at home?");
    await assertRejected(400, 21656, () => client.messages.create({ ...template, contentVariables: "{" }));
    assert.equal(await client.content.v1.contents(content.sid).remove(), true);
  },

  async "every content type is made, read back and sent"(client) {
    await says(ANA, "hello");
    const { contents } = client.content.v1;
    for (const [name, [given, needsApproval, shown]] of Object.entries(contentTypes(await pictureUrl()))) {
      const content = await contents.create({ friendly_name: "one_of_each", language: "en", variables: { 1: "you" }, types: { [name]: given } });
      assert.deepEqual(content.types, { [name]: given });
      assert.deepEqual((await contents(content.sid).fetch()).types, content.types);
      assert.equal((await contents(content.sid).approvalFetch().fetch()).whatsapp.status, "unsubmitted");
      const send = async () => {
        const { sid } = await client.messages.create({ from: SANDBOX, to: ANA, contentSid: content.sid });
        isAMessage(bodyOf(last));
        await reaches(client, sid, "delivered", "read", "failed");
        return client.messages(sid).fetch();
      };
      if (needsApproval) {
        assert.equal((await send()).errorCode, 63005, name);
        await contents(content.sid).approvalCreate.create({ name: "one_of_each", category: "UTILITY" });
      }
      const message = await send();
      assert.equal(message.errorCode, null, name);
      const got = (await control("GET", `/conversations/${ANA}`)).find((one) => one.sid === message.sid);
      assert.equal(got.content.type, shown, name);
      await contents(content.sid).remove();
    }
  },

  // Those that `replyhook templates prepare` has made, before this program.
  async "replyhook's own templates are read"(client) {
    const { contents } = client.content.v1;
    const own = (await contents.list()).filter((one) => one.friendlyName.startsWith("replyhook "));
    const kinds = { buttons: 10, list: 10, described_list: 10, chips: 11, link: 1, link_card: 1 };
    const names = Object.entries(kinds).flatMap(([kind, total]) =>
      total === 1 ? [kind] : Array.from({ length: total }, (_, n) => `${kind}-${n + 1}`));
    const expected = names.map((name) => `replyhook ${name} v1`);
    assert.deepEqual(own.map((one) => one.friendlyName).sort(), expected.sort());
    const rich = {
      buttons: "twilio/quick-reply", list: "twilio/list-picker", described_list: "twilio/list-picker",
      chips: "twilio/card", link: "twilio/call-to-action", link_card: "twilio/card",
    };
    for (const listed of own) {
      const one = await contents(listed.sid).fetch();
      assert.deepEqual([one.types, one.variables, one.language], [listed.types, listed.variables, "en"]);
      const [kind, number] = one.friendlyName.replace(/^replyhook (.*) v1$/, "$1").split("-");
      assert.deepEqual(Object.keys(one.types).sort(), [rich[kind], "twilio/text"].sort());
      const content = one.types[rich[kind]];
      const items = content.items ?? content.actions;
      assert.deepEqual([content.body, items.length], ["{{body}}", Number(number ?? 1)]);
      const used = [...JSON.stringify(one.types).matchAll(/{{(.*?)}}/g)].map(([, name]) => name);
      assert.deepEqual([...new Set(used)].sort(), Object.keys(one.variables).sort());
      items.forEach((item, n) => {
        assert.equal(item.title ?? item.item, `{{t${n + 1}}}`);
        assert.equal(item.url ?? item.id, kind.startsWith("link") ? "{{url}}" : `{{i${n + 1}}}`);
        assert.equal(item.description, kind === "described_list" ? `{{d${n + 1}}}` : undefined);
      });
    }
    await says(ANA, "hello");
    const list = own.find((one) => one.friendlyName === "replyhook list-2 v1");
    const values = { body: "When?", text: "1. A", button: "Days", t1: "Today", i1: "a", t2: "Later", i2: "b" };
    const message = await client.messages.create({ from: SANDBOX, to: ANA, contentSid: list.sid, contentVariables: JSON.stringify(values) });
    await reaches(client, message.sid, "delivered", "read");
    const { content } = (await control("GET", `/conversations/${ANA}`)).find((one) => one.sid === message.sid);
    assert.deepEqual([content.type, content.body], ["list", "When?"]);
    assert.deepEqual(content.items.map(({ id, title }) => [id, title]), [["a", "Today"], ["b", "Later"]]);
  },

  // The one that `replyhook templates create --submit` has created, before this program.
  async "a declared template is read and sent"(client) {
    const { contents } = client.content.v1;
    const [one] = (await contents.list()).filter((one) => one.friendlyName === "order_ready");
    assert.deepEqual([one.language, one.variables], ["pt_BR", { 1: "Ana", 2: "42" }]);
    assert.deepEqual(Object.keys(one.types).sort(), ["twilio/quick-reply", "twilio/text"]);
    const { whatsapp } = await contents(one.sid).approvalFetch().fetch();
    assert.deepEqual([whatsapp.name, whatsapp.category, whatsapp.status], ["order_ready", "UTILITY", "approved"]);
    const contentVariables = JSON.stringify({ 1: "Ben", 2: "7" });
    const message = await client.messages.create({ from: SANDBOX, to: ANA, contentSid: one.sid, contentVariables });
    assert.ok(message.body.startsWith("Hi Ben, your order 7 is ready."), message.body);
  },

  async "a template is changed until it is submitted"(client) {
    const { contents } = client.content.v1;
    const types = (body) => ({ types: { "twilio/text": { body } } });
    const content = await contents.create({ language: "en", ...types("old text") });
    const changed = await contents(content.sid).update(types("new text"));
    assert.deepEqual([changed.sid, changed.types], [content.sid, types("new text").types]);
    await contents(content.sid).approvalCreate.create({ name: "changed", category: "UTILITY" });
    await assertRejected(400, 20001, () => contents(content.sid).update(types("later")));
    assert.equal(await contents(content.sid).remove(), true);
    await assertRejected(404, 20404, () => contents(content.sid).fetch());
    await assertRejected(400, 21655, () => client.messages.create({ from: SANDBOX, to: ANA, contentSid: content.sid }));
  },

  async "templates are listed by page"(client) {
    const { contents } = client.content.v1;
    const before = (await contents.list()).length;
    const made = [];
    for (let n = 0; n < 5; n += 1) made.push((await contents.create({ friendly_name: String(n), language: "en", types: { "twilio/text": { body: "hi" } } })).sid);
    const sids = (list) => list.map((one) => one.sid);
    assert.deepEqual(sids(await contents.list({ pageSize: 2 })).slice(before), made);
    const page = await contents.page({ pageSize: before + 3 });
    const rest = await page.nextPage();
    assert.deepEqual([sids(page.instances).slice(before), sids(rest.instances)], [made.slice(0, 3), made.slice(3)]);
    assert.equal(await rest.nextPage(), undefined);
    for (const sid of made) await contents(sid).remove();
  },

  async "a tap names the message"(client) {
    await says(ANA, "hello");
    const types = { "twilio/quick-reply": { body: "Home?", actions: [{ title: "Yes", id: "yes" }] } };
    const content = await client.content.v1.contents.create({ language: "en", types });
    const message = await client.messages.create({ from: SANDBOX, to: ANA, contentSid: content.sid });
    await reaches(client, message.sid, "read");
    const { message_sid: tapped } = await control("POST", "/messages", { from: ANA, choice: { id: "yes" } });
    assert.equal((await client.messages(tapped).fetch()).body, "Yes");
    const webhook = (await control("GET", `/exchanges?message_sid=${tapped}`)).find(({ kind }) => kind === "webhook");
    const params = Object.fromEntries(webhook.params);
    assert.deepEqual([params.ButtonPayload, params.OriginalRepliedMessageSid], ["yes", message.sid]);
    await client.content.v1.contents(content.sid).remove();
  },

  async "what is scheduled goes later or not at all"(client) {
    const now = new Date((await control("GET", "/config")).now);
    const at = (minutes) => ({ messagingServiceSid: SERVICE, to: BEN, body: "later", scheduleType: "fixed", sendAt: new Date(+now + minutes * 60_000) });
    const [first, second] = [await client.messages.create(at(60)), await client.messages.create(at(60))];
    isAMessage(bodyOf(last));
    assert.deepEqual([first.status, first.dateSent], ["scheduled", null]);
    assert.equal((await client.messages(first.sid).update({ status: "canceled" })).status, "canceled");
    await control("POST", "/clock", { advance_seconds: 3601 });
    await reaches(client, second.sid, "delivered");
    assert.equal((await client.messages(first.sid).fetch()).status, "canceled");
    await assertRejected(400, 35114, () => client.messages.create(at(62)));
  },

  async "a text is removed and a message deleted"(client) {
    const { message_sid: sid } = await says(BEN, "secret");
    assert.equal((await client.messages(sid).update({ body: "" })).body, "");
    isAMessage(bodyOf(last));
    await assertRejected(400, 20001, () => client.messages(sid).update({ body: "other" }));
    assert.equal(await client.messages(sid).remove(), true);
    await assertRejected(404, 20404, () => client.messages(sid).fetch());
  },

  async "lists are filtered and paged"(client) {
    const begin = new Date((await control("POST", "/clock", { advance_seconds: 3600 })).now);
    const carl = "+15550007777";
    const sent = [];
    for (let n = 0; n < 5; n += 1) sent.unshift(await client.messages.create({ from: NUMBER, to: carl, body: `number ${n}` }));
    for (const message of sent) await reaches(client, message.sid, "delivered");
    const sids = (list) => list.map((message) => message.sid);
    assert.deepEqual(sids(await client.messages.list({ to: carl, pageSize: 2 })), sids(sent));
    assert.deepEqual(sids(await client.messages.list({ to: carl, from: NUMBER, limit: 3, pageSize: 2 })), sids(sent.slice(0, 3)));
    assert.deepEqual(await client.messages.list({ to: carl, from: SANDBOX }), []);
    const second = new Date(+begin - 1000);
    assert.equal((await client.messages.list({ to: carl, dateSentAfter: second })).length, 5);
    assert.equal((await client.messages.list({ to: carl, dateSentBefore: second })).length, 0);
    const midnight = new Date(begin.toISOString().slice(0, 10));
    assert.equal((await client.messages.list({ to: carl, dateSent: midnight })).length, 5);
    const page = await client.messages.page({ to: carl, pageSize: 4 });
    const payload = bodyOf(last);
    hasTheFields(payload, ["end", "first_page_uri", "messages", "next_page_uri", "page", "page_size", "previous_page_uri", "start", "uri"]);
    payload.messages.forEach(isAMessage);
    const next = await page.nextPage();
    assert.deepEqual([sids(page.instances), sids(next.instances)], [sids(sent.slice(0, 4)), sids(sent.slice(4))]);
    assert.equal(await next.nextPage(), undefined);
    assert.deepEqual(sids((await next.previousPage()).instances), sids(sent.slice(0, 4)));
  },

  async "rejections are the library's exceptions"(client) {
    const create = (message) => () => client.messages.create(message);
    await assertRejected(400, 21211, create({ from: NUMBER, to: "+1555", body: "x" }));
    await assertRejected(400, 21211, create({ from: NUMBER, to: "+15005550001", body: "x" }));
    await assertRejected(400, 21603, create({ to: BEN, body: "x" }));
    await assertRejected(400, 21606, create({ from: "+15550009999", to: BEN, body: "x" }));
    await assertRejected(400, 21617, create({ from: NUMBER, to: BEN, body: "x".repeat(1601) }));
    await assertRejected(400, 21619, create({ from: NUMBER, to: BEN }));
    await assertRejected(400, 21620, create({ from: NUMBER, to: BEN, mediaUrl: ["no url"] }));
    await assertRejected(400, 63007, create({ from: "whatsapp:+15550009999", to: ANA, body: "x" }));
    const nobody = "0".repeat(32);
    await assertRejected(404, 20404, () => client.messages(`SM${nobody}`).fetch());
    await assertRejected(401, 20003, () => connect(nobody).messages.list({ limit: 1 }));
    await assertRejected(401, 20003, () => connect(nobody).messages.create({ from: NUMBER, to: BEN, body: "x" }));
    await assertRejected(401, 20003, () => client.api.v2010.accounts(`AC${nobody}`).messages.list({ limit: 1 }));
  },

  async "STOP on SMS is kept by Twilio"(client) {
    await says(BEN, "stop");
    await assertRejected(400, 21610, () => client.messages.create({ from: NUMBER, to: BEN, body: "still there?" }));
    await says(BEN, "START");
    assert.equal((await client.messages.create({ from: NUMBER, to: BEN, body: "welcome back" })).status, "queued");
  },

  async "a user without a number is answered"(client) {
    await says(ID_USER, "hello");
    const message = await client.messages.create({ from: SANDBOX, to: ID_USER, body: "hello" });
    assert.equal(message.to, ID_USER);
    await reaches(client, message.sid, "delivered", "read");
  },

  async "an error on order arrives once"(client) {
    await control("PUT", "/faults", { rest_error: { status: 429, code: 20429, times: 1 } });
    const create = () => client.messages.create({ from: NUMBER, to: BEN, body: "x" });
    await assertRejected(429, 20429, create);
    assert.equal((await create()).status, "queued");
  },

  async "the account and its numbers are shown"(client) {
    assert.equal((await client.api.v2010.accounts(args.account).fetch()).status, "active");
    const numbers = await client.incomingPhoneNumbers.list({ phoneNumber: NUMBER });
    assert.deepEqual(numbers.map((number) => number.phoneNumber), [NUMBER]);
    const number = await client.incomingPhoneNumbers(numbers[0].sid).update({ smsUrl: "https://bot.example.test/sms" });
    assert.ok(number.smsUrl === "https://bot.example.test/sms" && number.capabilities.sms === true);
    assert.equal((await client.incomingPhoneNumbers(number.sid).fetch()).smsUrl, "https://bot.example.test/sms");
  },

  async "WhatsApp senders are shown and set"(client) {
    const senders = await client.messaging.v2.channelsSenders.list({ channel: "whatsapp" });
    assert.deepEqual(senders.map((sender) => sender.senderId), [SANDBOX]);
    const sender = client.messaging.v2.channelsSenders(senders[0].sid);
    assert.equal((await sender.fetch()).status, "ONLINE");
    await sender.update({ webhook: { callback_url: "https://bot.example.test/webhook", callback_method: "POST" } });
    assert.equal((await sender.fetch()).webhook.callbackUrl, "https://bot.example.test/webhook");
    await assertRejected(404, 20404, () => client.messaging.v2.channelsSenders(`XE${"f".repeat(32)}`).fetch());
  },

  async "typing is shown"(client) {
    const { message_sid: sid } = await says(ANA, "are you there?");
    const typing = (messageId) => client.messaging.v2.typingIndicator.create({ channel: "whatsapp", messageId });
    assert.equal((await typing(sid)).success, true);
    await assertRejected(404, 20404, () => typing(`SM${"0".repeat(32)}`));
  },

  async "typing is shown on RCS"(client) {
    const [user, agent] = ["rcs:+34600000009", "rcs:replyhook_agent"];
    await says(user, "are you there?", { to: agent });
    const typing = (changes) =>
      client.messaging.v3.typingIndicator.create({ channel: "RCS", from: agent, to: user, event: "START", ...changes });
    assert.equal((await typing({})).success, true);
    for (const wrong of [{ event: "END" }, { to: "rcs:+34600000099" }, { to: "+34600000009" }, { channel: "SMS" }]) {
      await assertRejected(400, 20001, () => typing(wrong));
    }
  },
};

let failed = 0;
for (const [name, check] of Object.entries(CHECKS)) {
  try {
    await check(connect());
  } catch (error) {
    failed += 1;
    console.error(`${name}:\n${error.stack}`);
  }
}
const all = Object.keys(CHECKS).length;
console.log(`${all - failed} of ${all} things done as with Twilio`);
process.exit(failed ? 1 : 0);
