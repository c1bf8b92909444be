//! Tests in JavaScript, with `node:test` and the control API.

use super::literals::{LiteralStyle, json_string, webhook_path};
use super::script_calls::{fill_template, script_calls};
use crate::scripted_conversation::ScriptedConversation;

const STYLE: LiteralStyle = LiteralStyle {
    words: ["null", "true", "false"],
    quote: json_string,
};

const TEMPLATE: &str = r#"import assert from "node:assert";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

const USER = {{user}};

async function freePort() {
  const free = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => free.once("listening", resolve));
  const { port } = free.address();
  await new Promise((resolve) => free.close(resolve));
  return port;
}

// How `replyhook dev` starts your bot. Put your own command here.
const BOT = {{bot}};

let dev, url;
const seen = new Set();
const sids = [];

before(async () => {
  dev = spawn("replyhook", ["dev", "--emulator-port", "0", ...BOT], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: dev.stdout })) {
    url = line.match(/Chat with your bot: +(\S+)/)?.[1] ?? url;
    // The last line: the emulator and the bot are ready.
    if (line.includes("Ctrl-C")) break;
  }
  // Read on: a full pipe would stop a bot that prints.
  dev.stdout.resume();
  assert(url, "replyhook dev did not start");
});

after(async () => {
  dev.kill();
  await new Promise((resolve) => dev.once("exit", resolve));
});

async function call(method, path, body) {
  const init = body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`${url}_emulator/${path}`, { method, ...init });
  const data = await response.json();
  assert(response.ok, data?.error);
  return data;
}

async function messagesOfBot() {
  const conversation = await call("GET", `conversations/${encodeURIComponent(USER)}`);
  return conversation.filter((message) => message.direction === "out");
}

const isBusy = async () => Boolean((await call("GET", `state/${encodeURIComponent(USER)}`))?.pending);

/** Waits for the replies, late ones included. */
async function expect(replies) {
  const deadline = Date.now() + 60000;
  let added;
  for (;;) {
    const busy = await isBusy();
    added = (await messagesOfBot()).filter((message) => !seen.has(message.sid));
    if (Date.now() > deadline || (added.length >= replies.length && !busy)) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  for (const message of added) seen.add(message.sid);
  assert.deepStrictEqual(added.map((message) => message.body), replies);
}

async function sends(message, replies) {
  const result = await call("POST", "messages", { {{common}}, ...message });
  sids.push(result.message_sid);
  await expect(replies);
}

async function taps(title, replies) {
  for (const message of (await messagesOfBot()).reverse()) {
    const item = message.content?.items?.find((item) => item.title === title);
    if (item) return sends({ choice: { id: item.id, message_sid: message.sid } }, replies);
  }
  assert.fail(`no message offers ${title}`);
}

async function redeliver(index, replies) {
  await call("POST", `messages/${sids[index]}/redeliver`, {});
  await expect(replies);
}

const faults = (faults) => call("PUT", "faults", faults);
const advance = (seconds) => call("POST", "clock", { advance_seconds: seconds });

test("the bot replies as recorded", async () => {
{{steps}}});
"#;

pub(super) fn export(script: &ScriptedConversation, webhook: Option<&str>) -> String {
    let bot = match webhook {
        None => "[\"--port\", \"0\", \"--rules\", \"bot.toml\"]".to_owned(),
        Some(url) => {
            let url = webhook_path(url).map_or_else(
                || json_string(url),
                |path| {
                    format!(
                        "`http://127.0.0.1:${{await freePort()}}` + {}",
                        json_string(path)
                    )
                },
            );
            format!("[\"--webhook\", {url}, \"--\", process.execPath, \"app.mjs\"]")
        }
    };
    let name = script.profile_name.as_ref();
    let name = name.map(|name| format!(", profile_name: {}", json_string(name)));
    let common = format!(
        "from: USER, to: {}{}",
        json_string(&script.sender),
        name.unwrap_or_default()
    );
    let calls = script_calls(script, &STYLE);
    let mut steps: Vec<_> = calls
        .iter()
        .map(|call| format!("  await {call};\n"))
        .collect();
    if steps.is_empty() {
        steps.push("  await expect([]);\n".to_owned());
    }
    fill_template(TEMPLATE, script, &bot, &common, &steps.concat())
}
