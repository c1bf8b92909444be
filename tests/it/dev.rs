//! `replyhook dev` and `replyhook chat`, as a user types them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use replyhook::emulator::{EmulatorClient, SignedRequest};
use replyhook::{FormParams, Secret};
use serde_json::{Value, json};

use crate::support::http::{Listener, http_response};
use crate::support::{
    ACCOUNT, ANA, Dev, Program, SANDBOX, ScriptedServer, TOKEN, base64_of, output_of, replyhook,
    report_missing, wire,
};

/// Starts a dev server that reads its settings from a file.
fn start_with_settings(file: &Path) -> Dev {
    let file = file.to_str().unwrap();
    Dev::start_with(&["--port", "0", "--config", file], &[])
}

/// Replaces a file atomically, so that the dev server never reads half of it.
fn replace_file(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// Waits for a printed line that contains `part`, and returns it.
fn wait_for_line(dev: &Dev, part: &str) -> String {
    dev.program
        .wait_for(part, |line| line.contains(part).then(|| line.to_owned()))
}

// The token of a folder stays valid in the settings of a bot that `dev --webhook` calls.
#[test]
fn dev_account_of_folder_stays_until_new_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let start = |args: &[&str]| {
        let dev = Dev::start_in(folder.path(), &[&["--port", "0"], args].concat(), &[]);
        (dev.account.clone(), dev.token.clone())
    };
    let first = start(&[]);
    assert_eq!(start(&[]), first);
    let second = start(&["--new-credentials"]);
    assert!(second.0 != first.0 && second.1 != first.1);
    assert_eq!(start(&[]), second);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let kept = account_file(&folder.path().join("state"));
    assert_eq!(mode(&kept), 0o600);
    assert_eq!(mode(kept.parent().unwrap()), 0o700);
    // Only the user's state, which the test has put into this folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Returns the only file of credentials in a state folder.
fn account_file(state: &Path) -> PathBuf {
    let folder = state.join("replyhook/dev");
    let mut files = std::fs::read_dir(folder).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

#[test]
fn dev_with_unusable_account_file_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    drop(Dev::start_in(folder.path(), &["--port", "0"], &[]));
    let file = account_file(&state);
    let name = file.file_name().unwrap().to_str().unwrap();
    let saved = json!({"account_sid": ACCOUNT, "auth_token": TOKEN}).to_string();
    let target = folder.path().join("other.json");
    std::fs::write(&target, &saved).unwrap();
    std::fs::remove_file(&file).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    for (content, mode, part) in [
        (Some("{}".to_owned()), 0o600, "account_sid"),
        (Some(saved.replace(TOKEN, "short")), 0o600, "auth_token"),
        (Some(saved.clone()), 0o644, "other users may read"),
        (None, 0o600, "not your file"),
    ] {
        match content {
            Some(content) => {
                std::fs::write(&file, content).unwrap();
                let mut permissions = private.clone();
                permissions.set_mode(mode);
                std::fs::set_permissions(&file, permissions).unwrap();
            }
            None => std::os::unix::fs::symlink(&target, &file).unwrap(),
        }
        let output = Command::new(env!("CARGO_BIN_EXE_replyhook"))
            .args(["dev", "--emulator-port", "0", "--port", "0"])
            .env_clear()
            .env("XDG_STATE_HOME", &state)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        for part in [part, name, "--new-credentials"] {
            assert!(err.contains(part), "{err}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}

fn reply_to_stop(dev: &Dev, number: u32) -> String {
    let user = format!("whatsapp:+1555000{number:04}");
    let answer = dev.says(&json!({"from": user, "body": "STOP"}));
    answer["messages"][0]["body"].as_str().unwrap().to_owned()
}

#[test]
fn dev_hot_reload_keeps_old_settings_if_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replyhook.toml");
    std::fs::write(&file, "[consent]\nstop_reply = \"Bye one\"\n").unwrap();
    let dev = start_with_settings(&file);
    assert_eq!(reply_to_stop(&dev, 1), "Bye one");
    replace_file(&file, "[consent]\nstop_reply = \"Bye number two\"\n");
    wait_for_line(&dev, "Reloaded the changed settings");
    assert_eq!(reply_to_stop(&dev, 2), "Bye number two");
    replace_file(
        &file,
        "[consent]\nstop_replie = \"Bye for the third time\"\n",
    );
    wait_for_line(&dev, "the previous settings stay in use");
    let reason = wait_for_line(&dev, "stop_replie");
    assert!(reason.contains("did you mean"), "{reason}");
    assert_eq!(reply_to_stop(&dev, 3), "Bye number two");
}

// A busy port in the new settings must not end the process, and `admin.listen` must not expose it.
#[test]
fn dev_hot_reload_failure_keeps_running_on_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replyhook.toml");
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy_port = busy.local_addr().unwrap().port();
    std::fs::write(&file, "[admin]\nlisten = \"0.0.0.0:0\"\n").unwrap();
    let dev = start_with_settings(&file);
    let private = wait_for_line(&dev, "private");
    assert!(private.contains("http://127.0.0.1:"), "{private}");
    let settings = format!("[admin]\nlisten = \"0.0.0.0:{busy_port}\"\n");
    replace_file(&file, &settings);
    wait_for_line(&dev, "the previous settings stay in use");
    let message = json!({"from": "whatsapp:+15550001111", "body": "still here?"});
    let answer = dev.says(&message);
    assert_eq!(answer["messages"][0]["body"], "still here?");
    replace_file(&file, "[consent]\nstop_reply = \"Bye\"\n");
    wait_for_line(&dev, "Reloaded the changed settings");
    assert_eq!(reply_to_stop(&dev, 1), "Bye");
}

#[test]
fn dev_with_busy_port_option_exits_with_2() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let args = ["dev", "--emulator-port", &port, "--port", "0"];
    let (code, _, err) = replyhook(&args, &[], "");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--emulator-port"), "{err}");
    let (code, _, err) = replyhook(&["dev", "--webhook", "localhost:3000"], &[], "");
    assert_eq!(code, 2);
    assert!(err.contains("http://localhost:3000/sms"), "{err}");
}

#[test]
fn chat_in_pipe_prints_replies_and_exits() {
    let (code, out, err) = replyhook(&["chat"], &[], "hi\n\n/help me\n//slash\n");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("bot: hi\n"), "{out}");
    assert!(out.ends_with("bot: /slash\n"), "{out}");
    let (code, out, _) = replyhook(
        &["chat", "--as", "+15550004444"],
        &[],
        "two\\nlines\nSTOP\n",
    );
    assert_eq!(code, 0);
    assert!(
        out.starts_with("bot: two\\\\nlines\ntwilio: You have"),
        "{out}"
    );
    for user in ["rcs:+15550006666", "messenger:4242"] {
        let (code, out, err) = replyhook(&["chat", "--as", user], &[], "hi\n");
        assert_eq!((code, out.as_str()), (0, "bot: hi\n"), "{err}");
    }
    let (code, _, err) = replyhook(&["chat", "--as", "viber:1"], &[], "hi\n");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("no sender on this channel"), "{err}");
    let (code, out, _) = replyhook(&["chat"], &[], "/photo /nowhere.png\nstill here\n");
    assert_eq!(code, 1);
    assert!(out.contains("! /photo /nowhere.png"), "{out}");
    assert!(out.ends_with("bot: still here\n"), "{out}");
}

// A bot in another language asks by REST, with a list that has descriptions. Each message stays one line.
#[test]
fn chat_in_pipe_numbers_items_of_question() {
    let question = Arc::new(OnceLock::<(SocketAddr, String)>::new());
    let asked = question.clone();
    let bot = Listener::start(None, move |request| {
        let is_first = request.body.windows(7).any(|part| part == b"Body=hi");
        if let Some((emulator, call)) = asked.get().filter(|_| is_first) {
            let sent = wire::exchange(*emulator, call.as_bytes()).unwrap();
            assert_eq!(sent.status, 201, "{}", sent.body);
        }
        http_response(200, &[("Content-Type", "text/xml")], "<Response/>")
    });
    let webhook = format!("http://{}/sms", bot.address);
    let dev = Dev::start_with(&["--webhook", &webhook], &[]);
    let list = json!({"body": "Which day?", "button": "Days", "items": [
        {"item": "Today", "id": "today", "description": "before 6 pm"},
        {"item": "Another day", "id": "other"},
    ]});
    let template = json!({"language": "en", "types": {"twilio/list-picker": list}}).to_string();
    let created = dev.call(
        "POST",
        "/v1/Content",
        &dev.token,
        "application/json",
        &template,
    );
    let created: serde_json::Value = serde_json::from_str(&created.body).unwrap();
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("From", SANDBOX), ("To", ANA)])
        .append_pair("ContentSid", created["sid"].as_str().unwrap())
        .finish();
    let login = base64_of(format!("{}:{}", dev.account, dev.token).as_bytes());
    let call = format!(
        "POST /2010-04-01/Accounts/{}/Messages.json HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {login}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        dev.account,
        dev.host(),
        body.len()
    );
    question.set((dev.host().parse().unwrap(), call)).unwrap();
    let lines = "hi\n/tap another day\n";
    let (code, out, err) = replyhook(&["chat", "--emulator", &dev.url], &[], lines);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(
        out,
        "bot: Which day? [1 Today (before 6 pm)] [2 Another day]\n"
    );
    assert_eq!(dev.conversation(ANA)[2]["button"]["payload"], "other");
}

// A wrong number or title sends nothing, and names the items.
#[test]
fn chat_taps_item_by_number_or_title() {
    let dev = Dev::start();
    let items = [("Yes", "home:yes"), ("Not today", "home:no")];
    dev.send_quick_replies("whatsapp:+15550001111", "At home?", &items);
    let lines = "/tap 2\n/tap yes\n/tap 3\n/tap maybe\n/form guests=2\n";
    let (code, out, err) = replyhook(&["chat", "--emulator", &dev.url], &[], lines);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    let listed = "no such item; there are 1 Yes, 2 Not today";
    let expected =
        format!("bot: Not today\nbot: Yes\n! /tap 3: {listed}\n! /tap maybe: {listed}\n");
    assert!(out.starts_with(&expected), "{out}");
    let conversation = dev.conversation("whatsapp:+15550001111");
    let sent = conversation
        .iter()
        .filter(|message| message["direction"] == "in");
    let payloads: Vec<_> = sent
        .map(|message| message["button"]["payload"].clone())
        .collect();
    assert_eq!(
        payloads,
        ["home:no".into(), "home:yes".into(), serde_json::Value::Null]
    );
    // Without a message that has items.
    for user in ["rcs:+15550006666", "messenger:4242", "+15550004444"] {
        let args = ["chat", "--emulator", &dev.url, "--as", user];
        let (code, out, _) = replyhook(&args, &[], "/tap 1\nhi\n");
        assert_eq!(code, 1);
        assert!(out.starts_with("! /tap: no message has buttons"), "{out}");
        assert!(out.ends_with("bot: hi\n"), "{out}");
    }
}

#[test]
fn chat_waits_for_late_reply_and_shows_fallback() {
    let env = [("REPLYHOOK__REPLY__DEADLINE_MS", "200")];
    let (code, out, _) = replyhook(&["chat"], &env, "/late 1s\nslow\n/down\nhello?\n/dup\n");
    assert_eq!(code, 0, "{out}");
    let replies: Vec<_> = out
        .lines()
        .filter(|line| line.starts_with("bot: "))
        .collect();
    assert_eq!(replies, ["bot: slow", "bot: hello?"]);
    assert!(out.contains("no new messages"), "{out}");
}

#[test]
fn chat_last_shows_params_and_save_rejects_path() {
    let (_, out, _) = replyhook(&["chat"], &[], "hello\n/last\n/save ../escape.rs\n");
    assert!(out.contains("Body = hello"), "{out}");
    assert!(out.contains("! /save FILE, as in"), "{out}");
}

// No user of Twilio's has a number without its plus sign: a server ignores such a message, and nothing would show why.
#[test]
fn address_without_plus_is_an_error_everywhere() {
    let (code, out, err) = replyhook(&["chat", "--as", "15550001111"], &[], "hi\n");
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("15550001111: not an address"), "{err}");
    let (code, out, _) = replyhook(&["chat"], &[], "/as whatsapp:15550001111\nhi\n");
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("not an address"), "{out}");
    assert!(out.contains("bot: hi"), "{out}");
    let dev = Dev::start();
    let addresses = [
        ("from", json!({"from": "15550001111", "body": "hi"})),
        (
            "from",
            json!({"from": "whatsapp:15550001111", "body": "hi"}),
        ),
        (
            "to",
            json!({"from": ANA, "to": "whatsapp:14155238886", "body": "hi"}),
        ),
    ];
    for (field, message) in addresses {
        let host = dev.url.strip_prefix("http://").unwrap();
        let headers = [("Host", host), ("Content-Type", "application/json")];
        let body = message.to_string();
        let response = dev.exchange("POST", "/_emulator/messages", &headers, &body);
        assert_eq!(response.status, 400, "{}", response.body);
        let named = format!("{field}: not an address");
        assert!(response.body.contains(&named), "{}", response.body);
    }
}

// In the languages of the page. The tests themselves run on bots in `saved_tests`.
#[test]
fn chat_saves_test_in_language_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start();
    let mut chat = Command::new(env!("CARGO_BIN_EXE_replyhook"));
    chat.args(["chat", "--emulator", &dev.url])
        .current_dir(&folder);
    let lines = "hello\n/save order_test.rs\n/save test_order.py\n/save order.test.mjs\n";
    let out = output_of(&mut chat, lines);
    assert!(out.contains("Written to test_order.py."), "{out}");
    for (file, part) in [
        ("order_test.rs", "TestBot"),
        ("test_order.py", "def test_"),
        ("order.test.mjs", "node:test"),
    ] {
        let test = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(
            test.contains(part) && test.contains("hello"),
            "{file}: {test}"
        );
    }
}

#[tokio::test]
async fn chat_connects_to_running_emulator() {
    let dev = Dev::start();
    let url = dev.url.clone();
    let chat = tokio::task::spawn_blocking(move || {
        replyhook(&["chat", "--emulator", &url], &[], "from the terminal\n")
    });
    let (code, out, _) = chat.await.unwrap();
    assert_eq!((code, out.as_str()), (0, "bot: from the terminal\n"));
    let shown = dev.control("GET", "/conversations", &serde_json::Value::Null);
    assert_eq!(shown[0]["user"], "whatsapp:+15550001111");
    let chat_without_emulator = tokio::task::spawn_blocking(|| {
        replyhook(&["chat", "--emulator", "http://127.0.0.1:9"], &[], "hi\n")
    });
    let (code, _, err) = chat_without_emulator.await.unwrap();
    assert_eq!(code, 2);
    assert!(
        err.contains("no emulator responds at http://127.0.0.1:9"),
        "{err}"
    );
    // The address of the bot, in place of the page's.
    let bot = Listener::start(None, |_| {
        http_response(404, &[("Content-Type", "text/html")], "<!doctype html>")
    });
    let url = format!("http://{}", bot.address);
    let bot_url = url.clone();
    let chat = tokio::task::spawn_blocking(move || {
        replyhook(&["chat", "--emulator", &bot_url], &[], "hi\n")
    });
    let (code, _, err) = chat.await.unwrap();
    assert_eq!(code, 2);
    let expected = format!(
        "{url} responded 404 Not Found: <!doctype html>; pass the address of the page that `replyhook dev` prints"
    );
    assert!(err.contains(&expected), "{err}");
}

/// Starts a scripted emulator for a user that writes "hi" after `/down`, and the response to each call of its faults.
async fn start_scripted_emulator(faults: &[(u16, &str)]) -> ScriptedServer {
    let emulator = ScriptedServer::start().await;
    let state = format!("/_emulator/state/{ANA}");
    let conversation = format!("/_emulator/conversations/{ANA}");
    let config = r#"{"senders":["whatsapp:+14155238886"],"app_attached":true}"#;
    for (path, body) in [
        ("/_emulator/config", config),
        (conversation.as_str(), "[]"),
        (state.as_str(), r#"{"pending":0}"#),
        (
            "/_emulator/messages",
            r#"{"message_sid":"SM1","attempts":[]}"#,
        ),
    ] {
        emulator.queue_response(path, 200, "application/json", body);
    }
    for (status, body) in faults {
        emulator.queue_response("/_emulator/faults", *status, "application/json", body);
    }
    emulator
}

/// Runs `/down` and a message in the terminal of this emulator.
async fn chat_with_fault(emulator: &ScriptedServer) -> (i32, String, String) {
    let url = emulator.url().to_owned();
    let chat = tokio::task::spawn_blocking(move || {
        replyhook(&["chat", "--emulator", &url], &[], "/down\nhi\n")
    });
    chat.await.unwrap()
}

const NO_FAULTS: (u16, &str) = (200, r#"{"drop_connection":false,"media_404":2}"#);
const DOWN: (u16, &str) = (200, r#"{"drop_connection":true,"media_404":1}"#);
const BUSY: (u16, &str) = (500, r#"{"error":"busy"}"#);

// The faults hold for all users. A fault that counts down keeps its new value.
#[tokio::test]
async fn chat_restores_fault_after_failed_attempt() {
    // GET and PUT before the message, and GET, PUT, GET and PUT after it.
    let script = [NO_FAULTS, DOWN, DOWN, BUSY, DOWN, NO_FAULTS];
    let emulator = start_scripted_emulator(&script).await;
    let (code, out, err) = chat_with_fault(&emulator).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let calls = emulator.requests_to("/_emulator/faults");
    assert_eq!(calls.len(), script.len());
    let body = |at: usize| serde_json::from_slice::<serde_json::Value>(&calls[at].body).unwrap();
    assert_eq!(body(1), json!({"drop_connection": true, "media_404": 2}));
    assert_eq!(body(5), json!({"drop_connection": false, "media_404": 1}));
}

#[tokio::test]
async fn chat_reports_fault_that_stays() {
    let emulator = start_scripted_emulator(&[NO_FAULTS, DOWN, BUSY]).await;
    let (code, out, err) = chat_with_fault(&emulator).await;
    assert_eq!(code, 1, "{out}");
    let problem = "the faults of /late or /down stay in the emulator: busy";
    assert!(out.contains(&format!("! {problem}")), "{out}");
    assert!(err.contains(problem), "{err}");
}

// The tunnel URL verifies only with the real account, and the local URL only with the emulated one.
#[tokio::test]
async fn real_account_behind_tunnel_is_hidden_from_emulator() {
    let tunnel = "https://tunnel.example.test/bots/a";
    let env = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
    ];
    let dev = Dev::start_with(&["--port", "0", "--tunnel-url", tunnel], &env);
    let webhook = wait_for_line(&dev, "  webhook  ");
    let webhook = webhook.split_whitespace().nth(1).unwrap().to_owned();
    wait_for_line(&dev, &format!("{tunnel}/webhook/fallback"));
    let remote = EmulatorClient::new(&dev.url).unwrap();
    let config = remote.get(&["config"]).await.unwrap();
    let emulator = (dev.account.clone(), dev.token.clone());
    let real = (ACCOUNT.to_owned(), TOKEN.to_owned());
    let behind = format!("{tunnel}/webhook");
    let mut number = 0;
    let mut status = async |(account, token): &(String, String), signed_url: &str| {
        number += 1;
        let call = SignedRequest {
            url: webhook.clone(),
            signed_url: Some(signed_url.to_owned()),
            method: http::Method::POST,
            form: FormParams::from_iter([
                ("MessageSid", format!("SM{number:032}").as_str()),
                ("AccountSid", account),
                ("From", "whatsapp:+15550001111"),
                ("To", "whatsapp:+15550002222"),
                ("Body", "hi"),
                ("NumMedia", "0"),
            ]),
            headers: http::HeaderMap::new(),
        };
        let token = Secret::new(token.clone());
        replyhook::emulator::send_signed(&token, &call)
            .await
            .unwrap()
            .status
    };
    assert_eq!(status(&real, &behind).await, 200);
    assert_eq!(status(&emulator, &webhook).await, 200);
    assert_eq!(
        status(&real, &webhook).await,
        403,
        "the real account must verify with the tunnel URL only"
    );
    assert_eq!(
        status(&emulator, &behind).await,
        403,
        "the emulated account must verify with the local URL only"
    );
    let all = remote.get(&["exchanges"]).await.unwrap().to_string();
    assert!(!all.contains(TOKEN) && !all.contains(ACCOUNT));
    assert!(!config.to_string().contains(TOKEN));
    let (code, _, err) = tokio::task::spawn_blocking(move || {
        replyhook(
            &["dev", "--tunnel-url", "https://t.example.test"],
            &[("TWILIO_AUTH_TOKEN", TOKEN)],
            "",
        )
    })
    .await
    .unwrap();
    assert_eq!(code, 2);
    assert!(err.contains("TWILIO_ACCOUNT_SID"), "{err}");
}

/// Returns code and output of a chat with a bot that forwards to this URL.
fn chat_with_service(url: &str) -> (i32, String) {
    let env = [
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url),
        (
            "REPLYHOOK__HANDLER__FORWARD_SECRET",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        ),
    ];
    let (code, out, err) = replyhook(&["chat"], &env, "hi\n");
    assert!(err.is_empty(), "{err}");
    (code, out)
}

// Neither the fallback call nor the empty reply hides that the bot failed.
#[test]
fn chat_in_pipe_names_reason_of_failed_bot() {
    let (code, out) = chat_with_service("http://127.0.0.1:9/message");
    let refused = "bot failed: the service cannot be reached: connection refused\n";
    assert_eq!((code, out.as_str()), (1, refused));
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/message", service.local_addr().unwrap());
    let failing = std::thread::spawn(move || {
        for stream in service.incoming().take(2) {
            use std::io::{Read, Write};
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut vec![0; 65536]);
            let response = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(response).unwrap();
        }
    });
    let (code, out) = chat_with_service(&url);
    let status = "bot failed: the service responded with HTTP status 500\n";
    assert_eq!((code, out.as_str()), (1, status));
    failing.join().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("bot.toml");
    std::fs::write(&rules, "[otherwise]\nreply = '{{ 1 / 0 }}'\n").unwrap();
    let rules = rules.to_str().unwrap();
    let (code, out, _) = replyhook(&["chat", "--rules", rules], &[], "hi\n");
    assert_eq!(code, 1, "{out}");
    assert!(
        out.starts_with("bot failed: ") && out.contains("line 2"),
        "{out}"
    );
}

// The handler has returned by then: the file of a reply is checked after it.
#[test]
fn chat_names_reason_of_reply_that_cannot_be_sent() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("bot.toml");
    let reply =
        "{ media = 'https://example.com/setup', content_type = 'application/x-msdownload' }";
    std::fs::write(&rules, format!("[otherwise]\nreply = {reply}\n")).unwrap();
    let rules = rules.to_str().unwrap();
    let late = [("REPLYHOOK__REPLY__DEADLINE_MS", "1")];
    for env in [&[][..], &late] {
        let (code, out, _) = replyhook(&["chat", "--rules", rules], env, "hi\n");
        assert_eq!(code, 1, "{out}");
        assert!(
            out.starts_with("bot failed: the reply cannot be sent: ")
                && out.contains("application/x-msdownload"),
            "{out}"
        );
    }
    // Each message of a burst has the reason, also those that were merged into the first.
    let dev = Dev::start_with(
        &["--port", "0", "--rules", rules],
        &[("REPLYHOOK__REPLY__DEBOUNCE_MS", "1500")],
    );
    std::thread::scope(|scope| {
        let dev = &dev;
        for text in ["one", "two"] {
            scope.spawn(move || dev.says(&json!({"from": ANA, "body": text})));
        }
    });
    let failures: Vec<Value> = dev
        .conversation(ANA)
        .iter()
        .map(|message| message["failure"].clone())
        .collect();
    assert_eq!(failures.len(), 2, "{failures:?}");
    for failure in failures {
        let failure = failure.as_str().unwrap_or_default();
        assert!(
            failure.starts_with("the reply cannot be sent: "),
            "{failure}"
        );
    }
}

// The webhook has responded by then, and the user gets nothing. A call that is repeated is not a failure.
#[test]
fn chat_names_reason_of_reply_that_rest_api_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("bot.toml");
    let text = "[otherwise]\nreply = { text = 'When?', choices = ['Today', 'Tomorrow'] }\n";
    std::fs::write(&rules, text).unwrap();
    let rules = rules.to_str().unwrap();
    let dev = Dev::start_with(&["--port", "0", "--rules", rules], &[]);
    let chat = || replyhook(&["chat", "--emulator", &dev.url], &[], "hi\n");
    let fault = json!({"rest_error": {"status": 400, "code": 21211}});
    dev.control("PUT", "/faults", &fault);
    let (code, out, _) = chat();
    assert_eq!(code, 1, "{out}");
    assert!(
        out.starts_with("bot failed: the reply cannot be sent: ") && out.contains("(21211)"),
        "{out}"
    );
    let fault = json!({"rest_error": {"status": 429, "times": 1}});
    dev.control("PUT", "/faults", &fault);
    dev.says(&json!({"from": ANA, "body": "hi"}));
    let conversation = dev.conversation(ANA);
    let mut latest = conversation.iter().rev();
    let inbound = latest.find(|message| message["direction"] == "in").unwrap();
    assert_eq!(inbound["failure"], Value::Null);
}

// The lines have neither text nor number.
#[test]
fn debug_log_has_a_line_for_each_message() {
    let env = [("REPLYHOOK__LOG__LEVEL", "replyhook=debug")];
    let dev = Dev::start_with(&["--port", "0"], &env);
    let response = dev.says(&json!({"from": ANA, "body": "a secret"}));
    let line = dev.program.wait_for("line of the message", |line| {
        let is_line = line.contains("responded to a message");
        is_line.then(|| line.to_owned())
    });
    let sid = response["message_sid"].as_str().unwrap();
    assert!(line.contains(sid) && line.contains("ok"), "{line}");
    let output = dev.program.output();
    assert!(!output.contains("a secret"), "{output}");
    // On a pipe, `dev` prints no lines about messages.
    assert!(!output.contains("primary -> 200"), "{output}");
}

// `script` gives `dev` a terminal. The line has no text of the message.
#[test]
fn dev_on_terminal_prints_line_for_each_message() {
    let folder = tempfile::tempdir().unwrap();
    let bot = Listener::start(None, |_| {
        http_response(403, &[("Content-Type", "text/plain")], "wrong signature")
    });
    let program = env!("CARGO_BIN_EXE_replyhook");
    for (args, expected) in [
        ("--port 0".to_owned(), "primary -> 200, "),
        (
            format!("--webhook http://{}/sms", bot.address),
            "primary -> 403 (11217)",
        ),
    ] {
        // Ends by itself if the test fails and leaves it running.
        let command =
            format!("exec timeout --foreground 90 {program} dev --emulator-port 0 {args}");
        let mut script = Command::new("script");
        let script = script.args(["-qefc", &command, "/dev/null"]);
        if std::process::Command::new("script")
            .arg("--version")
            .output()
            .is_err()
        {
            report_missing("script");
            return;
        }
        let program = Program::start(
            script
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("XDG_STATE_HOME", folder.path())
                .env("SHELL", "/bin/sh")
                .current_dir(folder.path()),
        );
        let mut dev = Dev::from_program(program);
        dev.says(&json!({"from": ANA, "body": "a secret"}));
        let line = wait_for_line(&dev, expected);
        assert!(line.contains(ANA) && !line.contains("a secret"), "{line}");
        // Only a rejection asks about the token.
        let asks = line.contains("does the server verify with the TWILIO_AUTH_TOKEN");
        assert_eq!(asks, expected.contains("403"), "{line}");
        // Ctrl-C.
        dev.program.write_line("\u{3}");
    }
}

// The question also stands where `chat` reports a failed message.
#[test]
fn chat_with_rejecting_server_asks_about_token() {
    let bot = Listener::start(None, |_| {
        http_response(403, &[("Content-Type", "text/plain")], "wrong signature")
    });
    let webhook = format!("http://{}/sms", bot.address);
    let dev = Dev::start_with(&["--webhook", &webhook], &[]);
    let (code, out, _) = replyhook(&["chat", "--emulator", &dev.url], &[], "hi\n");
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("does the server verify with the TWILIO_AUTH_TOKEN"),
        "{out}"
    );
}
