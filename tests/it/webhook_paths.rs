//! The paths of the public listener: `server.paths`, `server.health_path`, and webhooks of other products at them.

use http::Method;
use replyhook::config::{Settings, Sources};

use crate::support::console::Console;
use crate::support::{
    ACCOUNT, Dev, EMPTY, ORIGIN, Server, TOKEN, TestApp, Webhook, replyhook, twiml_message,
};

const PATHS: [(&str, &str); 3] = [
    ("REPLYHOOK__SERVER__PATHS__PRIMARY", "/sms"),
    ("REPLYHOOK__SERVER__PATHS__FALLBACK", "/sms/failed/"),
    ("REPLYHOOK__SERVER__PATHS__STATUS", "/twilio/status"),
];

fn callback(target: &str) -> Webhook {
    let sid = format!("SM{:032x}", 9);
    Webhook::form(
        target,
        &[
            ("MessageSid", &sid),
            ("AccountSid", ACCOUNT),
            ("MessageStatus", "delivered"),
            ("To", "whatsapp:+15550001111"),
            ("From", "whatsapp:+15550002222"),
        ],
    )
}

#[tokio::test]
async fn configured_paths_replace_default_ones() {
    let prefixed = [&PATHS[..], &[("PUBLIC_URL", "https://bot.example.com/a")]].concat();
    for (env, prefix) in [(&PATHS[..], ""), (&prefixed, "/a")] {
        let app = TestApp::build(env, |app| app);
        let origin = if prefix.is_empty() {
            ORIGIN
        } else {
            "https://bot.example.com"
        };
        let mut number = 0;
        // A proxy may keep the prefix or strip it; the signature has it always.
        for kept in [prefix, ""] {
            for slash in ["", "/"] {
                number += 1;
                let target = format!("{kept}/sms{slash}");
                let message = Webhook::message(number, "hi")
                    .to(&target)
                    .signed_for(&format!("{origin}{prefix}/sms{slash}"));
                assert_eq!(
                    app.send(message).await.twiml(),
                    twiml_message("hi"),
                    "{target}"
                );
                let target = format!("{kept}/twilio/status{slash}");
                let status =
                    callback(&target).signed_for(&format!("{origin}{prefix}/twilio/status{slash}"));
                assert_eq!(app.send(status).await.twiml(), EMPTY, "{target}");
                let target = format!("{kept}/sms/failed{slash}");
                let fallback = Webhook::message(number + 100, "hi")
                    .with("ErrorCode", "11200")
                    .with("ErrorUrl", "https://bot.example.com/a/sms")
                    .to(&target)
                    .signed_for(&format!("{origin}{prefix}/sms/failed{slash}"));
                assert_eq!(
                    app.send(fallback).await.twiml(),
                    twiml_message("hi"),
                    "{target}"
                );
            }
        }
        for target in ["/webhook", "/webhook/fallback", "/webhook/status"] {
            let message = Webhook::message(900, "hi").to(target);
            assert_eq!(app.send(message).await.status, 404, "{target}");
        }
        let other_method = Webhook::message(901, "hi")
            .to("/sms")
            .method(Method::DELETE);
        assert_eq!(app.send(other_method).await.status, 405);
        app.shut_down().await;
    }
}

#[tokio::test]
async fn root_can_be_a_webhook() {
    let env = [("REPLYHOOK__SERVER__PATHS__PRIMARY", "/")];
    let app = TestApp::build(&env, |app| app);
    let message = Webhook::message(1, "hi").to("/");
    assert_eq!(app.send(message).await.twiml(), twiml_message("hi"));
    app.shut_down().await;
}

// The URLs that a user enters at Twilio, wherever the program shows or sets them.
#[test]
fn every_command_shows_configured_urls() {
    let server = Server::start(&PATHS);
    let line = server.wait_for("enter these URLs in Twilio's console");
    for path in ["/sms\"", "/sms/failed\"", "/twilio/status\""] {
        assert!(line.contains(&format!("{ORIGIN}{path}")), "{path}: {line}");
    }
    let env = [
        &PATHS[..],
        &[
            ("TWILIO_AUTH_TOKEN", TOKEN),
            ("PUBLIC_URL", "https://bot.example.test/b"),
        ],
    ]
    .concat();
    let (code, out, err) = replyhook(&["check"], &env, "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for url in [
        "primary   https://bot.example.test/b/sms\n",
        "/b/sms/failed\n",
        "/b/twilio/status\n",
    ] {
        assert!(out.contains(url), "{url}: {out}");
    }
    let console = Console::with_sender(["https://old.example.test/", "", ""]);
    let url = console.url();
    let sender_env = [
        &env[..],
        &[
            ("TWILIO_ACCOUNT_SID", ACCOUNT),
            ("REPLYHOOK__TWILIO__MESSAGING_URL", &url),
        ],
    ]
    .concat();
    let set = ["sender", "set", "whatsapp:+15550002222", "--from-config"];
    let (code, out, err) = replyhook(&set, &sender_env, "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let webhooks = console.webhooks(0);
    assert_eq!(
        webhooks["callback_url"],
        "https://bot.example.test/b/sms#rc=2&rp=ct,5xx"
    );
    assert_eq!(
        webhooks["fallback_url"],
        "https://bot.example.test/b/sms/failed"
    );
    assert_eq!(
        webhooks["status_callback_url"],
        "https://bot.example.test/b/twilio/status"
    );
}

#[test]
fn dev_server_uses_configured_paths() {
    let dev = Dev::start_with(&["--port", "0"], &PATHS);
    let line = dev.program.wait_for("webhook", |line| {
        line.contains("(handler: ").then(|| line.to_owned())
    });
    assert!(line.contains("/sms (handler: echo)"), "{line}");
    let answer = dev.says(&serde_json::json!({"from": "whatsapp:+15550001111", "body": "hi"}));
    assert_eq!(answer["messages"][0]["body"], "hi", "{answer}");
    let called = answer["attempts"][0]["url"].as_str().unwrap();
    assert!(called.ends_with("/sms"), "{called}");
}

/// Returns the problems of settings, as `KEY: TEXT`.
fn problems(env: &[(&str, &str)], url: &str) -> Vec<String> {
    let base_env = [("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", url)];
    let sources = Sources::default().with_env([&base_env[..], env].concat());
    let problems = Settings::load(&sources).err().unwrap_or_default();
    problems
        .iter()
        .map(|problem| format!("{}: {}", problem.key, problem.text))
        .collect()
}

#[test]
fn invalid_or_clashing_paths_are_refused() {
    const PRIMARY: &str = "REPLYHOOK__SERVER__PATHS__PRIMARY";
    const STATUS: &str = "REPLYHOOK__SERVER__PATHS__STATUS";
    const HEALTH: &str = "REPLYHOOK__SERVER__HEALTH_PATH";
    let plain = "https://h.test";
    for (env, url, expected) in [
        (
            &[(PRIMARY, "sms"), (STATUS, "/a?b=1"), (HEALTH, "/media/x")][..],
            plain,
            &[
                "server.paths.primary: is \"sms\", and must begin with a slash, as in /webhook: write the path alone, without \
                 scheme and host",
                "server.paths.status: is \"/a?b=1\", and has a character other than letters, digits, - . _ ~ and slashes: write \
                 a path such as /twilio/sms, without a query",
                "server.health_path: is \"/media/x\", and is /media or below it, where the server has its links to files: write \
                 another path",
            ][..],
        ),
        (
            &[(PRIMARY, "/webhook/status/")],
            plain,
            &[
                "server.paths.status: is the same path as server.paths.primary: give each webhook a path of its own",
            ],
        ),
        (
            &[(PRIMARY, "/sms"), (HEALTH, "/sms/")],
            plain,
            &[
                "server.health_path: is /sms, which has an address in common with server.paths.primary (/sms): write another path",
            ],
        ),
        (
            &[(PRIMARY, "/twilio/sms")],
            "https://h.test/twilio",
            &[
                "server.paths.primary: is /twilio/sms, which begins with the path of PUBLIC_URL, to which it is added: leave \
                 /twilio out of one of them",
            ],
        ),
        (
            &[(PRIMARY, "/"), (HEALTH, "/a")],
            "https://h.test/a",
            &[
                "server.health_path: is /a, which has an address in common with server.paths.primary (/): write another path",
            ],
        ),
        (
            &[(PRIMARY, "/sms")],
            "https://h.test/sms",
            &[
                "server.public_url: must not end in the endpoint's path, which the server adds: write https://h.test",
            ],
        ),
        (
            &[(PRIMARY, "/sms"), (HEALTH, "/")],
            "https://h.test/webhook/x",
            &[],
        ),
    ] {
        assert_eq!(problems(env, url), expected, "{env:?}");
    }
}

#[test]
fn health_path_responds_without_signature_while_process_lives() {
    let request = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    };
    let server = Server::start(&[("REPLYHOOK__SERVER__HEALTH_PATH", "/healthz")]);
    for path in ["/healthz", "/healthz/"] {
        let answer = server.exchange(request("GET", path).as_bytes()).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("text/plain")
        );
    }
    let mut stream = crate::support::wire::connect(server.public);
    std::io::Write::write_all(&mut stream, request("HEAD", "/healthz").as_bytes()).unwrap();
    let head = crate::support::wire::read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let answer = server
        .exchange(request("POST", "/healthz").as_bytes())
        .unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (405, "GET or HEAD\n")
    );
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    let log = server.log();
    assert!(!log.contains("rejected"), "{log}");
    // Off by default.
    let server = Server::start(&[]);
    let answer = server
        .exchange(request("GET", "/healthz").as_bytes())
        .unwrap();
    assert_eq!(answer.status, 404);
}

// chatwoot #15011, yap #150: the URL of the bot, entered for calls or for the debugger.
#[test]
fn webhook_of_another_product_is_named_in_log() {
    let server = Server::start(&[]);
    let call = Webhook::form(
        "/webhook",
        &[
            ("CallSid", "CA00000000000000000000000000000001"),
            ("AccountSid", ACCOUNT),
            ("From", "+15550001111"),
            ("To", "+15550002222"),
            ("CallStatus", "ringing"),
            ("Direction", "inbound"),
        ],
    );
    assert_eq!(
        server.send(&call).assert_rejected(400),
        "malformed message\n"
    );
    let line = server.wait_for("rejected a voice call (CallSid)");
    assert!(
        line.contains("WARN") && line.contains("Voice section"),
        "{line}"
    );
    for target in ["/webhook/fallback", "/webhook/status"] {
        assert_eq!(
            server.send(&call.clone().to(target)).status,
            400,
            "{target}"
        );
    }
    let event = Webhook::form(
        "/webhook",
        &[
            ("Sid", "NO00000000000000000000000000000001"),
            ("AccountSid", ACCOUNT),
            ("Level", "ERROR"),
            ("Timestamp", "2026-11-22T09:00:00Z"),
            ("PayloadType", "application/json"),
            ("Payload", r#"{"resource_sid":"SM1","error_code":"11200"}"#),
        ],
    );
    assert_eq!(server.send(&event).status, 400);
    let line = server.wait_for("rejected an event of Twilio's debugger");
    assert!(line.contains("WARN"), "{line}");
    // A message that has such a parameter as well is a message.
    let message = Webhook::message(1, "hi").with("CallSid", "CA00000000000000000000000000000001");
    assert_eq!(server.send(&message).twiml(), twiml_message("hi"));
    let log = server.log();
    assert!(!log.contains("cannot be read"), "{log}");
    for _ in 0..30 {
        assert_eq!(server.send(&call).status, 400);
    }
    let lines = server.log().matches("rejected a voice call").count();
    assert!(lines < 20, "{lines}");
}
