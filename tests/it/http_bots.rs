//! Bots in Python and Node.js with the packages' `bot` and `Client`: the examples of the tutorial, and the two helpers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::markdown::blocks;
use crate::support::server::reserve_port;
use crate::support::{
    ACCOUNT, ANA, API_TOKEN, Dev, FakeTwilio, HttpResponse, TempStore, Wait, Webhook, installed,
    output_of, read, report_skipped, root, wire,
};

const FOLDER: &str = "examples/http";
const PAGE: &str = "docs/src/tutorial/http-bot.md";
const CARLA: &str = "whatsapp:+15550003333";
const DORA: &str = "whatsapp:+15550005555";

/// Folder of a bot with the packages that it imports.
struct BotFolder(tempfile::TempDir);

impl BotFolder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("node_modules");
        std::fs::create_dir(&modules).unwrap();
        let package = root().join("packaging/npm");
        std::os::unix::fs::symlink(package, modules.join("replyhook")).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn copy(&self, name: &str) {
        std::fs::copy(root().join(FOLDER).join(name), self.path().join(name)).unwrap();
    }
}

/// Folder of the Python package.
fn python_path() -> String {
    root()
        .join("packaging/pypi/python")
        .to_str()
        .unwrap()
        .to_owned()
}

fn node() -> Option<String> {
    let found = Command::new("sh").args(["-c", "command -v node"]).output();
    let found = String::from_utf8(found.ok()?.stdout).ok()?;
    Some(found.trim().to_owned()).filter(|path| !path.is_empty())
}

/// The example of the tutorial, started as its page says, on another port.
struct World {
    dev: Dev,
    bot: SocketAddr,
    _folder: BotFolder,
}

impl World {
    fn start(interpreter: &str, file: &str, settings: &str) -> Self {
        let folder = BotFolder::new();
        folder.copy(file);
        // Held until the end, so that no other process gets the port.
        let reserved = reserve_port();
        let bot = reserved.local_addr().unwrap();
        let toml = read(&format!("{FOLDER}/replyhook.toml"));
        let toml = toml.replace("127.0.0.1:3000", &bot.to_string()) + settings;
        std::fs::write(folder.path().join("replyhook.toml"), toml).unwrap();
        std::fs::write(folder.path().join("admin.token"), API_TOKEN).unwrap();
        let url = format!("http://{bot}/message");
        let env = [
            ("PYTHONPATH", &*python_path()),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("REPLYHOOK__ADMIN__LISTEN", "127.0.0.1:0"),
        ];
        let args = ["--port", "0", "--forward", &url, "--", interpreter, file];
        let dev = Dev::start_in(folder.path(), &args, &env);
        Self {
            dev,
            bot,
            _folder: folder,
        }
    }

    fn says(&self, user: &str, text: &str) -> String {
        self.sends(&json!({"from": user, "body": text}))
    }

    fn taps(&self, user: &str, choice: &str) -> String {
        self.sends(&json!({"from": user, "choice": {"id": choice}}))
    }

    /// Sends a user's message, and returns the text of the reply, which may be none.
    fn sends(&self, message: &Value) -> String {
        let result = self.dev.says(message);
        let text = result["messages"][0]["body"].as_str().unwrap_or_default();
        assert_eq!(
            result["failure"],
            Value::Null,
            "{}",
            self.dev.program.output()
        );
        text.to_owned()
    }

    /// Calls one of the bot's own pages.
    fn call(&self, path: &str, fields: &[(&str, &str)]) -> HttpResponse {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let method = if fields.is_empty() { "GET" } else { "POST" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        wire::exchange(self.bot, head.as_bytes()).unwrap()
    }

    #[track_caller]
    fn post(&self, path: &str, fields: &[(&str, &str)]) {
        let response = self.call(path, fields);
        assert_eq!(response.status, 200, "{}", response.body);
    }

    /// Returns the desk once it has a value at a path.
    fn desk(&self, pointer: &str) -> Value {
        let wait = Wait::until(format!("the desk has {pointer}"));
        loop {
            let desk: Value = serde_json::from_str(&self.call("/desk", &[]).body).unwrap();
            if let Some(found) = desk.pointer(pointer) {
                return found.clone();
            }
            wait.check_found(&desk);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Returns the bot's messages on a phone once there are `number` of them.
    fn phone(&self, user: &str, number: usize) -> Vec<Value> {
        let wait = Wait::until(format!("the phone has {number} messages"));
        loop {
            let mut messages = self.dev.conversation(user);
            messages.retain(|message| message["direction"] == "out");
            if messages.len() >= number {
                return messages;
            }
            wait.check_found(&messages);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn assert_example(world: &World) {
    // The conversation of the tutorial on choices.
    assert_eq!(world.says(ANA, "book"), "What shall we do?");
    assert_eq!(world.taps(ANA, "Beard trim"), "Which day?");
    let sure = world.taps(ANA, "Thursday");
    assert_eq!(sure, "Beard trim on Thursday: is that right?");
    let booked = world.taps(ANA, "Confirm");
    assert_eq!(booked, "Booked: Beard trim on Thursday.");

    // The web form records an opt-in, without which no template may open a conversation.
    let page = ("page", "https://shop.example/book");
    let form = |phone: &'static str, day: &'static str| [("phone", phone), ("day", day), page];
    let wrong = world.call("/form", &form("15550003333", "Thursday"));
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    assert!(wrong.body.contains("invalid_address"), "{}", wrong.body);
    world.post("/form", &form("+15550003333", "Thursday"));

    // The reminder, whose repetition sends nothing.
    let evening = [("day", "Thursday"), ("date", "2026-12-02")];
    world.post("/remind", &evening);
    world.post("/remind", &evening);
    let reminder = &world.phone(CARLA, 1)[0];
    assert!(
        reminder["body"].as_str().unwrap().contains("Thursday"),
        "{reminder}"
    );

    // Hand over to a person and back.
    assert_eq!(world.says(ANA, "human"), "A person answers you here.");
    assert_eq!(world.says(ANA, "are you open on Monday?"), "");
    let first = world.desk("/inbox/0");
    assert_eq!(first["body"], "are you open on Monday?");
    assert_eq!(first["from"], ANA);
    world.post("/desk/answer", &[("to", ANA), ("body", "Sorry, no.")]);
    world.post("/desk/done", &[("to", ANA)]);
    let messages = world.phone(ANA, 7);
    let texts: Vec<_> = messages.iter().map(|message| &message["body"]).collect();
    assert_eq!(texts.len(), 7, "{texts:?}");
    assert!(texts[4].as_str().unwrap().contains("Thursday"), "{texts:?}");
    assert_eq!(texts[6], "Sorry, no.");
    assert_eq!(world.says(ANA, "book"), "What shall we do?");
    assert_eq!(world.phone(CARLA, 1).len(), 1);

    // A failed reminder is added to the list of users to call.
    world.post("/form", &form("+15550005555", "Friday"));
    let fault = json!({"content_failure": {"code": 63024, "times": 1}});
    world.dev.control("PUT", "/faults", &fault);
    world.post("/remind", &[("day", "Friday"), ("date", "2026-12-03")]);
    let reason = world.desk(&format!("/calls/{DORA}"));
    assert!(!reason.as_str().unwrap().is_empty());
}

#[test]
fn python_bot_reminds_records_opt_in_and_hands_off() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        return report_skipped("the tutorial's bot over HTTP in Python");
    };
    assert_example(&World::start(&python, "bot.py", ""));
}

// With `admin.token` in the settings, `dev` passes on that token and makes none.
#[test]
fn node_bot_reminds_records_opt_in_and_hands_off() {
    let Some(node) = node() else {
        return report_skipped("the tutorial's bot over HTTP in Node.js");
    };
    let settings = "\n[admin]\ntoken_file = \"admin.token\"\n";
    assert_example(&World::start(&node, "bot.mjs", settings));
}

#[test]
fn page_shows_the_bots_that_are_tested() {
    let blocks = blocks(PAGE);
    for name in ["bot.py", "bot.mjs", "replyhook.toml"] {
        let text = read(&format!("{FOLDER}/{name}"));
        assert!(blocks.iter().any(|block| block.text == text), "{name}");
    }
}

// The first bot of each page, and of each package's README.
#[test]
fn shortest_bots_of_the_pages_reply() {
    for (page, kind, file, interpreter) in [
        (
            "docs/src/how-to/python.md",
            "python",
            "bot.py",
            installed("REPLYHOOK_TEST_PYTHON"),
        ),
        (
            "packaging/pypi/README.md",
            "python",
            "bot.py",
            installed("REPLYHOOK_TEST_PYTHON"),
        ),
        ("docs/src/how-to/node.md", "js", "bot.mjs", node()),
        ("packaging/npm/README.md", "js", "bot.mjs", node()),
    ] {
        let Some(interpreter) = interpreter else {
            report_skipped(page);
            continue;
        };
        let folder = BotFolder::new();
        let mut blocks = blocks(page).into_iter();
        let block = blocks.find(|block| block.kind == kind).unwrap();
        std::fs::write(folder.path().join(file), block.text).unwrap();
        let env = [
            ("PYTHONPATH", &*python_path()),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let args = ["--port", "0", "--", &interpreter, file];
        let dev = Dev::start_in(folder.path(), &args, &env);
        let result = dev.says(&json!({"from": ANA, "body": "hi"}));
        assert_eq!(result["messages"][0]["body"], "You said: hi", "{page}");
    }
}

fn python_command(script: &str) -> Option<Command> {
    let mut command = Command::new(installed("REPLYHOOK_TEST_PYTHON")?);
    command
        .arg(root().join("tests/sdk").join(script))
        .env("PYTHONPATH", python_path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// Returns a command that finds the package, and the libraries of the tests, below `folder`.
fn node_command(folder: &BotFolder, script: &str) -> Option<Command> {
    let modules = installed("REPLYHOOK_TEST_NODE_MODULES")?;
    let own = folder.path().join("node_modules");
    let mut command = Command::new("node");
    command
        .arg(root().join("tests/sdk").join(script))
        .env("NODE_PATH", format!("{}:{modules}", own.display()));
    Some(command)
}

// The official libraries sign the requests.
#[test]
fn python_helper_verifies_and_responds() {
    match python_command("bot_helper.py") {
        Some(mut command) => assert_eq!(output_of(&mut command, ""), "ok\n"),
        None => report_skipped("the helper bot in Python"),
    }
}

#[test]
fn node_helper_verifies_and_responds() {
    match node_command(&BotFolder::new(), "bot_helper.cjs") {
        Some(mut command) => assert_eq!(output_of(&mut command, ""), "ok\n"),
        None => report_skipped("the helper bot in Node.js"),
    }
}

/// Runs a client of the API of the real program.
fn assert_client(command: &mut Command) {
    let twilio = FakeTwilio::start();
    let store = TempStore::new();
    let url = twilio.url();
    let env = [
        ("REPLYHOOK__ADMIN__TOKEN", API_TOKEN),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("REPLYHOOK__TWILIO__API_URL", url.as_str()),
    ];
    let server = store.server_with(&env);
    server.send(&Webhook::message(1, "hi")).twiml();
    command
        .env("REPLYHOOK_API_URL", format!("http://{}/", server.private))
        .env("REPLYHOOK_API_TOKEN", API_TOKEN);
    assert_eq!(output_of(command, ""), "ok\n");
}

#[test]
fn python_client_calls_every_route() {
    match python_command("api_client.py") {
        Some(mut command) => assert_client(&mut command),
        None => report_skipped("the client of the API in Python"),
    }
}

#[test]
fn node_client_calls_every_route() {
    match node_command(&BotFolder::new(), "api_client.cjs") {
        Some(mut command) => assert_client(&mut command),
        None => report_skipped("the client of the API in Node.js"),
    }
}
