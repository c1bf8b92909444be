//! Tests that the page writes with *Save as test*. Twenty conversations are recorded, and what the page writes in each
//! language passes on the same bot.
//!
//! The tests in Rust are in `saved_tests/`, compiled here. `REPLYHOOK_UPDATE_DOCS=1` writes them again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use replyhook::config::Sources;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::markdown::blocks;
use crate::support::server::reserve_port;
use crate::support::{ANA, BEN, Dev, Wait, base64_of, installed, report_skipped, root};

/// Late replies after one second, so that the tests take seconds.
const SETTINGS: [(&str, &str); 2] = [
    ("REPLYHOOK__REPLY__DEADLINE_MS", "1000"),
    ("REPLYHOOK__GUARD__LOOP_DETECTION", "false"),
];

/// Settings of the bot, for the tests in Rust.
fn settings() -> Sources {
    let rules = folder().join("bot.toml").display().to_string();
    Sources::default().with_env(SETTINGS).with_env([
        ("REPLYHOOK__HANDLER__KIND", "rules".to_owned()),
        ("REPLYHOOK__HANDLER__RULES", rules),
    ])
}

fn folder() -> PathBuf {
    root().join("tests/it/saved_tests")
}

macro_rules! saved_tests {
    ($($name:ident)*) => {
        /// Names of the conversations, in order.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[expect(clippy::redundant_closure, reason = "a closure as of a bot with a handler")]
        mod $name {
            include!(concat!("saved_tests/", stringify!($name), ".rs.txt"));
        })*
    };
}

saved_tests! {
    one_text several_texts two_replies no_reply failed_handler failing_fault buttons old_buttons form picture
    location pressed_button flow parameters late_reply overlapping_late_reply clock redelivery faults sms
}

enum Step {
    Says(Value),
    /// A message whose reply is not awaited before the next step.
    SaysOnly(Value),
    /// A tap on the item with this title of the last message that has it.
    Taps(&'static str),
    Faults(Value),
    Advances(u32),
    Redelivers,
}

fn says(text: &str) -> Step {
    Step::Says(json!({"body": text}))
}

fn conversation(name: &str) -> (&'static str, Vec<Step>) {
    use Step::{Advances, Faults, Redelivers, Says, SaysOnly, Taps};
    let picture = base64_of(&fs::read(root().join("tests/it/picture.png")).unwrap()[..60]);
    let file = json!({"data": picture, "content_type": "image/png", "filename": "a.png"});
    let steps = match name {
        "one_text" => vec![Says(
            json!({"body": "hello", "profile_name": "Ana \"Anna\" M."}),
        )],
        "several_texts" => vec![
            says("a"),
            says("b \\ \"c\"\n{{user}}"),
            says("ü 👍 \u{2028}"),
        ],
        "two_replies" => vec![says("x"), says("double")],
        "no_reply" => vec![says("x"), says("silence"), says("y")],
        "failed_handler" => vec![says("x"), says("divide"), says("y")],
        "failing_fault" => vec![
            says("x"),
            Faults(json!({"handler_fails": true})),
            says("y"),
            Faults(json!({})),
            says("z"),
        ],
        "buttons" => vec![says("when"), Taps("Tomorrow"), says("when"), Taps("Today")],
        "old_buttons" => vec![says("when"), says("double"), Taps("Never"), Taps("Today")],
        "form" => vec![says("book"), says("Ana"), says("many"), says("3")],
        "picture" => vec![
            Says(json!({"media": [file]})),
            Says(json!({"media": [file, file], "body": "look"})),
        ],
        "location" => vec![
            Says(json!({"location": {"latitude": 52.5, "longitude": -13.25, "label": "Home"}})),
            Says(json!({"location": {"latitude": 1.0, "longitude": 2.0, "address": "Street 1"}})),
        ],
        "pressed_button" => vec![Says(json!({"button": {"text": "Yes", "payload": "yes:1"}}))],
        "flow" => vec![Says(json!({"flow": {"name": "Ana", "guests": 2}}))],
        "parameters" => vec![
            says("x"),
            Says(json!({"body": "y", "params": {"Forwarded": "true"}})),
        ],
        "late_reply" => vec![
            says("x"),
            Faults(json!({"handler_ms": 1500})),
            says("late"),
            Faults(json!({})),
            says("y"),
        ],
        "overlapping_late_reply" => vec![
            says("x"),
            Faults(json!({"handler_ms": 1500})),
            SaysOnly(json!({"body": "first"})),
            says("second"),
        ],
        "clock" => vec![
            says("book"),
            Advances(90_000),
            says("Ana"),
            Advances(172_800),
            says("x"),
        ],
        "redelivery" => vec![says("x"), Redelivers, says("y"), Redelivers, Redelivers],
        "faults" => vec![
            Faults(json!({"duplicate": 1, "reorder_status": true})),
            says("x"),
            Faults(json!({"drop_connection": true})),
            says("y"),
            Faults(json!({"delay_ms": 300, "media_404": 1})),
            Says(json!({"media": [file]})),
            Faults(json!({"rest_error": {"status": 400, "code": 21211, "times": 1}})),
            // Choices that no other conversation asks: the server remembers that Twilio has refused this kind.
            says("where"),
        ],
        "sms" => {
            return (
                BEN,
                vec![says("x"), says("STOP"), says("y"), says("START"), says("z")],
            );
        }
        _ => panic!("no conversation {name}"),
    };
    (ANA, steps)
}

/// Waits until the bot has replied to everything.
fn wait_until_idle(dev: &Dev, user: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    // Null before the first message.
    while dev.control("GET", &format!("/state/{user}"), &Value::Null)["pending"]
        .as_u64()
        .is_some_and(|count| count > 0)
    {
        assert!(
            Instant::now() < deadline,
            "the bot does not reply to the last of {:#?}",
            dev.conversation(user)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn run(dev: &Dev, user: &str, steps: Vec<Step>) {
    let mut last = Value::Null;
    for step in steps {
        let is_awaited = !matches!(step, Step::SaysOnly(_));
        match step {
            Step::Says(mut message) | Step::SaysOnly(mut message) => {
                message["from"] = user.into();
                last = dev.says(&message)["message_sid"].clone();
            }
            Step::Taps(title) => {
                let messages = dev.conversation(user);
                let found = messages.iter().rev().find_map(|message| {
                    let items = message["content"]["items"].as_array()?;
                    let item = items.iter().find(|item| item["title"] == title)?;
                    Some(json!({"id": item["id"], "message_sid": message["sid"]}))
                });
                last = dev.says(&json!({"from": user, "choice": found.unwrap()}))["message_sid"]
                    .clone();
            }
            Step::Faults(faults) => _ = dev.control("PUT", "/faults", &faults),
            Step::Advances(seconds) => {
                dev.control("POST", "/clock", &json!({"advance_seconds": seconds}));
            }
            Step::Redelivers => {
                let path = format!("/messages/{}/redeliver", last.as_str().unwrap());
                dev.control("POST", &path, &json!({}));
            }
        }
        if is_awaited {
            wait_until_idle(dev, user);
        }
    }
}

/// Returns the test that the page writes.
fn written(dev: &Dev, user: &str, language: &str) -> String {
    let target = format!("/_emulator/conversations/{user}/test?language={language}");
    let response = dev.exchange("GET", &target, &[("Host", &dev.host())], "");
    assert_eq!(response.status, 200, "{}", response.body);
    response.body
}

/// Records all conversations, and returns a folder with the bot and the tests in Python and JavaScript.
fn record() -> (TempDir, Vec<(&'static str, String)>) {
    let recorded = tempfile::tempdir().unwrap();
    fs::copy(folder().join("bot.toml"), recorded.path().join("bot.toml")).unwrap();
    let args = ["--port", "0", "--rules", "bot.toml"];
    let dev = Dev::start_in(recorded.path(), &args, &SETTINGS);
    let mut in_rust = Vec::new();
    for name in NAMES {
        let (user, steps) = conversation(name);
        run(&dev, user, steps);
        let file = |file: String| recorded.path().join(file);
        fs::write(
            file(format!("test_{name}.py")),
            written(&dev, user, "python"),
        )
        .unwrap();
        fs::write(
            file(format!("{name}.test.mjs")),
            written(&dev, user, "node"),
        )
        .unwrap();
        in_rust.push((*name, written(&dev, user, "rust")));
        dev.control("POST", "/reset", &json!({}));
    }
    (recorded, in_rust)
}

fn run_tests(command: &mut Command, folder: &Path, passed: &str) {
    let program = Path::new(env!("CARGO_BIN_EXE_replyhook"));
    let path = installed("PATH").unwrap();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let command = command.current_dir(folder).envs(SETTINGS).env("PATH", path);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(passed), "{text}");
}

#[test]
fn recorded_conversations_pass_as_written_in_each_language() {
    let (recorded, in_rust) = record();
    let update = installed("REPLYHOOK_UPDATE_DOCS").is_some();
    for (name, source) in in_rust {
        let start = "TestBot::start(|| App::builder())";
        assert!(source.contains(start), "{source}");
        let source = source.replace(
            start,
            "TestBot::start_with(super::settings(), || App::builder())",
        );
        let file = folder().join(format!("{name}.rs.txt"));
        if update {
            fs::write(&file, &source).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            source,
            "{}",
            file.display()
        );
    }
    match installed("REPLYHOOK_TEST_PYTHON") {
        Some(python) => {
            let mut pytest = Command::new(python);
            pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
            run_tests(&mut pytest, recorded.path(), "20 passed");
        }
        None => report_skipped("saved tests in Python"),
    }
    match installed("REPLYHOOK_TEST_NODE_MODULES") {
        Some(_) => {
            let mut node = Command::new("node");
            node.args(["--test", "--test-concurrency=2"]);
            run_tests(&mut node, recorded.path(), "pass 20");
        }
        None => report_skipped("saved tests in JavaScript"),
    }
}

/// Writes the bot of a page for developers, records a conversation with it, and runs the written test.
fn record_server(
    page: &str,
    file: &str,
    program: &str,
    language: &str,
    test: &str,
    command: &mut Command,
) {
    let recorded = tempfile::tempdir().unwrap();
    let is_bot = |text: &str| text.lines().next().unwrap_or_default().ends_with(file);
    let block = blocks(page).into_iter().find(|block| is_bot(&block.text));
    fs::write(recorded.path().join(file), block.unwrap().text).unwrap();
    if let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") {
        std::os::unix::fs::symlink(modules, recorded.path().join("node_modules")).unwrap();
    }
    let reserved = reserve_port();
    let port = reserved.local_addr().unwrap().port();
    let webhook = format!("http://127.0.0.1:{port}/sms");
    let path = installed("PATH").unwrap();
    let dev = Dev::start_in(
        recorded.path(),
        &["--webhook", &webhook, "--", program, file],
        &[("PATH", &path)],
    );
    // On a busy machine, `dev` may start before its bot listens.
    let wait = Wait::until("the bot listens");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        wait.check();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for text in ["hi", "menu", "bye"] {
        dev.control(
            "POST",
            "/messages?wait_ms=5000",
            &json!({"from": ANA, "body": text}),
        );
    }
    let source = written(&dev, ANA, language);
    assert!(source.contains("What shall it be?"), "{source}");
    fs::write(recorded.path().join(test), source).unwrap();
    drop(dev);
    run_tests(
        command,
        recorded.path(),
        if language == "python" {
            "1 passed"
        } else {
            "pass 1"
        },
    );
}

#[test]
fn conversation_with_python_server_passes_as_pytest() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        report_skipped("a saved test of a server in Python");
        return;
    };
    let mut pytest = Command::new(&python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    record_server(
        "docs/src/how-to/python.md",
        "app.py",
        &python,
        "python",
        "test_ana.py",
        &mut pytest,
    );
}

#[test]
fn conversation_with_node_server_passes_as_node_test() {
    if installed("REPLYHOOK_TEST_NODE_MODULES").is_none() {
        report_skipped("a saved test of a server in JavaScript");
        return;
    }
    let mut node = Command::new("node");
    node.arg("--test");
    record_server(
        "docs/src/how-to/node.md",
        "app.mjs",
        "node",
        "node",
        "ana.test.mjs",
        &mut node,
    );
}

#[test]
fn unknown_language_is_rejected() {
    let dev = Dev::start();
    let target = format!("/_emulator/conversations/{ANA}/test?language=cobol");
    let response = dev.exchange("GET", &target, &[("Host", &dev.host())], "");
    assert_eq!(response.status, 400);
    assert!(response.body.contains("rust"), "{}", response.body);
}
