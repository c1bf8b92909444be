//! Tests in Python, with pytest and the control API.

use serde_json::json;

use super::literals::{LiteralStyle, json_string, webhook_path};
use super::script_calls::{fill_template, script_calls};
use crate::scripted_conversation::ScriptedConversation;

const STYLE: LiteralStyle = LiteralStyle {
    words: ["None", "True", "False"],
    quote: json_string,
};

const TEMPLATE: &str = r#"import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest

USER = {{user}}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# How `replyhook dev` starts your bot. Put your own command here.
BOT = {{bot}}


class Emulator:
    def __init__(self, url):
        self.url = url
        self.seen = set()
        self.sids = []

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}_emulator/{path}", data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def messages_of_bot(self):
        conversation = self.call("GET", f"conversations/{urllib.parse.quote(USER, safe='')}")
        return [message for message in conversation if message["direction"] == "out"]

    def is_busy(self):
        state = self.call("GET", f"state/{urllib.parse.quote(USER, safe='')}")
        return bool(state and state.get("pending"))

    def expect(self, replies):
        """Waits for the replies, late ones included."""
        deadline = time.monotonic() + 60
        while True:
            is_busy = self.is_busy()
            new = [message for message in self.messages_of_bot() if message["sid"] not in self.seen]
            if time.monotonic() > deadline or (len(new) >= len(replies) and not is_busy):
                break
            time.sleep(0.05)
        self.seen.update(message["sid"] for message in new)
        assert [message["body"] for message in new] == replies

    def sends(self, message, replies):
        result = self.call("POST", "messages", {{common}} | message)
        self.sids.append(result["message_sid"])
        self.expect(replies)

    def taps(self, title, replies):
        for message in reversed(self.messages_of_bot()):
            for item in (message["content"] or {}).get("items", []):
                if item["title"] == title:
                    return self.sends({"choice": {"id": item["id"], "message_sid": message["sid"]}}, replies)
        raise AssertionError(f"no message offers {title!r}")

    def redeliver(self, index, replies):
        self.call("POST", f"messages/{self.sids[index]}/redeliver", {})
        self.expect(replies)

    def faults(self, faults):
        self.call("PUT", "faults", faults)

    def advance(self, seconds):
        self.call("POST", "clock", {"advance_seconds": seconds})


@pytest.fixture
def emulator():
    dev = subprocess.Popen(["replyhook", "dev", "--emulator-port", "0", *BOT], stdout=subprocess.PIPE, text=True)
    try:
        url = None
        for line in dev.stdout:
            if found := re.search(r"Chat with your bot: +(\S+)", line):
                url = found[1]
            # The last line: the emulator and the bot are ready.
            if "Ctrl-C" in line:
                break
        assert url, "replyhook dev did not start"
        # Read on: a full pipe would stop a bot that prints.
        threading.Thread(target=dev.stdout.read, daemon=True).start()
        yield Emulator(url)
    finally:
        dev.terminate()
        dev.wait()


def test_bot_replies_as_recorded(emulator):
{{steps}}"#;

pub(super) fn export(script: &ScriptedConversation, webhook: Option<&str>) -> String {
    let bot = match webhook {
        None => "[\"--port\", \"0\", \"--rules\", \"bot.toml\"]".to_owned(),
        Some(url) => {
            let url = webhook_path(url).map_or_else(
                || json_string(url),
                |path| {
                    let path = path.replace('{', "{{").replace('}', "}}");
                    format!(
                        "f{}",
                        json_string(&format!("http://127.0.0.1:{{free_port()}}{path}"))
                    )
                },
            );
            format!("[\"--webhook\", {url}, \"--\", sys.executable, \"app.py\"]")
        }
    };
    let common = json!({"to": script.sender, "profile_name": script.profile_name});
    let common = match &script.profile_name {
        Some(_) => STYLE.literal(&common),
        None => STYLE.literal(&json!({"to": script.sender})),
    };
    let common = format!("{{\"from\": USER, {}", &common[1..]);
    let calls = script_calls(script, &STYLE);
    let mut steps: Vec<_> = calls
        .iter()
        .map(|call| format!("    emulator.{call}\n"))
        .collect();
    if steps.is_empty() {
        steps.push("    assert emulator.messages_of_bot() == []\n".to_owned());
    }
    fill_template(TEMPLATE, script, &bot, &common, &steps.concat())
}
