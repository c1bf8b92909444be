//! Twilio's libraries with the emulator: as clients of its REST API, and as servers that verify its signatures.
//!
//! `./scripts/test` installs them.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    ANA, BEN, Dev, OTHER_TOKEN, Program, SANDBOX, installed, replyhook, report_skipped, root,
};

const ID_USER: &str = "whatsapp:US.13491208655302741918";

/// Checks that a client with Twilio's library can make all its REST calls to the emulator.
fn check_rest_client(client: &mut Command) {
    let dev = Dev::start();
    prepare_templates(&dev);
    create_declared_template(&dev);
    let output = client
        .args(["--base", &dev.url, "--account", &dev.account])
        .args(["--token", &dev.token])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("things done as with Twilio"), "{text}");
}

/// Makes every content resource that messages of replyhook use, with its own client. A second call makes none.
fn prepare_templates(dev: &Dev) {
    let env = [
        ("TWILIO_ACCOUNT_SID", dev.account.as_str()),
        ("TWILIO_AUTH_TOKEN", dev.token.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", dev.url.as_str()),
    ];
    let prepare = |args: &[&str]| {
        let (code, out, err) = replyhook(&[&["templates", "prepare"], args].concat(), &env, "");
        assert_eq!(code, 0, "{err}");
        let lines = |state: &str| out.lines().filter(|line| line.contains(state)).count();
        (lines(" made "), lines(" exists "))
    };
    let all = ["--channels", "whatsapp,messenger,rcs", "--descriptions"];
    assert_eq!(prepare(&[]), (14, 0));
    assert_eq!(prepare(&all), (29, 14));
    assert_eq!(prepare(&all), (0, 43));
    let (code, _, err) = replyhook(&["templates", "prepare", "--channels", "sms"], &env, "");
    assert_eq!(code, 2, "{err}");
}

/// Creates and submits the template of `tests/sdk/order_ready.toml`.
fn create_declared_template(dev: &Dev) {
    let file = root().join("tests/sdk/order_ready.toml");
    let env = [
        ("TWILIO_ACCOUNT_SID", dev.account.as_str()),
        ("TWILIO_AUTH_TOKEN", dev.token.as_str()),
        ("REPLYHOOK__TWILIO__CONTENT_URL", dev.url.as_str()),
    ];
    let args = ["templates", "create", file.to_str().unwrap(), "--submit"];
    let (code, _, err) = replyhook(&args, &env, "");
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn twilio_python_library_works_with_emulator() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        return report_skipped("the official Python library as client of the emulator");
    };
    check_rest_client(Command::new(python).arg(root().join("tests/sdk/rest.py")));
}

#[test]
fn twilio_node_library_works_with_emulator() {
    let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") else {
        return report_skipped("the official Node library as client of the emulator");
    };
    check_rest_client(
        Command::new("node")
            .arg(root().join("tests/sdk/rest.mjs"))
            .args(["--node-modules", &modules]),
    );
}

/// A bot in another language, and the emulator that calls it.
struct Bot {
    program: Program,
    dev: Dev,
    url: String,
}

impl Bot {
    /// Starts both. The bot verifies with `token`, by default the emulator's.
    fn start(command: &mut Command, token: Option<&str>) -> Self {
        let mut program = Program::start(command);
        let port = program.wait_for("port", |line| {
            Some(line.strip_prefix("listening on ")?.to_owned())
        });
        let url = format!("http://127.0.0.1:{port}");
        let [sms, fallback, status] =
            ["sms", "fallback", "status"].map(|path| format!("{url}/{path}"));
        let urls = [
            "--webhook",
            &sms,
            "--fallback",
            &fallback,
            "--status-callback",
            &status,
        ];
        let dev = Dev::start_with(&urls, &[]);
        program.write_line(token.unwrap_or(&dev.token));
        Self { program, dev, url }
    }

    /// Sends a user's message, and returns the reply. The first attempt must succeed.
    fn send_and_get_reply(&self, message: &Value) -> String {
        let exchange = self.dev.says(message);
        let attempts = exchange["attempts"].as_array().unwrap();
        let bot = self.program.output();
        assert_eq!(attempts.len(), 1, "{exchange:#}\n{bot}");
        assert_eq!(attempts[0]["status"], 200, "{exchange:#}\n{bot}");
        assert_eq!(attempts[0]["error_code"], Value::Null, "{exchange:#}");
        let messages = exchange["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1, "{exchange:#}");
        messages[0]["body"].as_str().unwrap().to_owned()
    }

    /// Waits until the bot has verified a status callback for a message to this user.
    fn wait_for_callback(&self, to: &str, status: &str) -> Value {
        self.program
            .wait_for(&format!("callback of {status}"), |line| {
                let request: Value = serde_json::from_str(line).ok()?;
                let form = &request["form"];
                let is_match = request["path"] == "/status" && form["To"] == to;
                (is_match && form["MessageStatus"] == status).then(|| form.clone())
            })
    }
}

fn check_every_message(bot: &mut Command) {
    let bot = Bot::start(bot, None);
    let picture = json!({"data": "iVBORw0KGgo=", "content_type": "image/png", "filename": "a.png"});
    for (message, what) in [
        (
            json!({"from": ANA, "body": "Olá + 100% & <b>\"it's\"</b> 👍"}),
            "None",
        ),
        (json!({"from": BEN, "body": "two\nlines\t"}), "None"),
        (json!({"from": ID_USER, "body": "no number"}), "None"),
        (
            json!({"from": ANA, "body": "look", "media": [picture]}),
            "image/png",
        ),
        (
            json!({"from": BEN, "body": "look", "media": [picture, picture]}),
            "image/png",
        ),
        (
            json!({"from": ANA, "location": {"latitude": 37.7955, "longitude": -122.3937, "label": "Büro + Café", "address": "1 A & B"}}),
            "37.7955",
        ),
        (
            json!({"from": ANA, "button": {"text": "Yes, please", "payload": "confirm:42 +&="}}),
            "confirm:42 +&=",
        ),
        (
            json!({"from": ANA, "body": "", "profile_name": "Zoë + 1", "params": {"Forwarded": "true", "Zzz": "", "ÄÖ": "ü"}}),
            "None",
        ),
    ] {
        let body = message["body"]
            .as_str()
            .or(message["button"]["text"].as_str());
        let from = message["from"].as_str().unwrap();
        let expected = format!("{} & <{what}> from {from}", body.unwrap_or_default());
        assert_eq!(bot.send_and_get_reply(&message), expected, "{message}");
    }
    // The bot also verifies the status callbacks of its replies to each of these users.
    for (user, last) in [(ANA, "read"), (BEN, "delivered"), (ID_USER, "read")] {
        for status in ["sent", "delivered", last] {
            let form = bot.wait_for_callback(user, status);
            assert_eq!(form["AccountSid"], bot.dev.account.as_str());
        }
    }
    let answers = bot.dev.exchanges();
    let calls = |kind: &str| {
        let of_kind = answers.iter().filter(|exchange| exchange["kind"] == kind);
        of_kind.collect::<Vec<_>>()
    };
    assert_eq!(calls("webhook").len(), 8);
    for call in [calls("webhook"), calls("status")].concat() {
        let verdict = call["signed"]["verdict"].as_str().unwrap();
        assert!(verdict.starts_with("accepted with 20"), "{call:#}");
    }
    assert_eq!(bot.dev.debugger(), Vec::<Value>::new());
}

fn check_fallback(bot: &mut Command) {
    let bot = Bot::start(bot, None);
    let exchange = bot.dev.says(&json!({"from": ANA, "body": "fail"}));
    let attempts = exchange["attempts"].as_array().unwrap();
    let shown: Vec<_> = attempts
        .iter()
        .map(|attempt| (&attempt["url"], &attempt["status"], &attempt["error_code"]))
        .collect();
    let [primary, fallback] = ["sms", "fallback"].map(|path| json!(format!("{}/{path}", bot.url)));
    assert_eq!(
        shown,
        [
            (&primary, &json!(500), &json!(11217)),
            (&fallback, &json!(200), &Value::Null)
        ]
    );
    assert_eq!(exchange["messages"][0]["body"], "sorry, 11217");
    let form = bot.program.wait_for("fallback", |line| {
        let request: Value = serde_json::from_str(line).ok()?;
        (request["path"] == "/fallback").then(|| request["form"].clone())
    });
    assert_eq!(form["ErrorUrl"], primary);
    assert_eq!(form["MessageSid"], exchange["message_sid"]);
    assert_eq!(bot.dev.debugger()[0]["code"], 11217);
}

fn check_wrong_token(bot: &mut Command) {
    let bot = Bot::start(bot, Some(OTHER_TOKEN));
    let exchange = bot
        .dev
        .says(&json!({"from": ANA, "to": SANDBOX, "body": "hello"}));
    let attempts = exchange["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{exchange:#}");
    for attempt in attempts {
        assert_eq!(
            (&attempt["status"], &attempt["error_code"]),
            (&json!(403), &json!(11217))
        );
    }
    assert_eq!(exchange["messages"], json!([]));
    let entries = bot.dev.debugger();
    assert_eq!(entries.len(), 2, "{entries:#?}");
    for entry in &entries {
        assert_eq!(entry["code"], 11217, "{entry:#}");
        assert_eq!(entry["message_sid"], exchange["message_sid"]);
    }
    let exchanges = bot.dev.exchanges();
    let verdict = exchanges[0]["signed"]["verdict"].as_str().unwrap();
    assert!(verdict.starts_with("rejected with 403"), "{verdict}");
}

fn flask() -> Option<Command> {
    let mut command = Command::new(installed("REPLYHOOK_TEST_PYTHON")?);
    command.arg(root().join("tests/sdk/serve.py"));
    Some(command)
}

fn express() -> Option<Command> {
    let modules = installed("REPLYHOOK_TEST_NODE_MODULES")?;
    let mut command = Command::new("node");
    command.arg(root().join("tests/sdk/serve.mjs"));
    command.args(["--node-modules", &modules]);
    Some(command)
}

#[test]
fn flask_app_verifies_every_message_and_callback() {
    match flask() {
        Some(mut bot) => check_every_message(&mut bot),
        None => report_skipped("a Flask app with the official library, called by the emulator"),
    }
}

#[test]
fn express_app_verifies_every_message_and_callback() {
    match express() {
        Some(mut bot) => check_every_message(&mut bot),
        None => report_skipped("an Express app with the official library, called by the emulator"),
    }
}

#[test]
fn failing_flask_app_gets_fallback_call() {
    match flask() {
        Some(mut bot) => check_fallback(&mut bot),
        None => report_skipped("the fallback of a Flask app"),
    }
}

#[test]
fn failing_express_app_gets_fallback_call() {
    match express() {
        Some(mut bot) => check_fallback(&mut bot),
        None => report_skipped("the fallback of an Express app"),
    }
}

// The debugger shows 11217 for the webhook and for the fallback call.
#[test]
fn flask_app_with_wrong_token_returns_403() {
    match flask() {
        Some(mut bot) => check_wrong_token(&mut bot),
        None => report_skipped("a Flask app with a wrong token"),
    }
}

// The debugger shows 11217 for the webhook and for the fallback call.
#[test]
fn express_app_with_wrong_token_returns_403() {
    match express() {
        Some(mut bot) => check_wrong_token(&mut bot),
        None => report_skipped("an Express app with a wrong token"),
    }
}
