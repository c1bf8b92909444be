//! The commands as a user types them: their output and exit codes.

use std::process::Command;

use crate::support::{
    ORIGIN, OTHER_TOKEN, Server, TOKEN, Webhook, replyhook, silent_port, twiml_message,
};

const REQUIRED_ENV: [(&str, &str); 2] = [("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", ORIGIN)];

#[test]
fn serve_without_settings_lists_problems_and_exits_2() {
    let (code, out, err) = replyhook(&["serve"], &[("PORT", "x")], "");
    assert_eq!((code, out.as_str()), (2, ""));
    for part in [
        "3 problems",
        "TWILIO_AUTH_TOKEN",
        "PUBLIC_URL",
        "PORT (environment variable PORT): is \"x\"",
    ] {
        assert!(err.contains(part), "{part} is not in {err}");
    }
}

#[test]
fn serve_on_used_port_exits_with_2() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let env = [
        &REQUIRED_ENV[..],
        &[
            ("REPLYHOOK__SERVER__LISTEN", listen.as_str()),
            ("REPLYHOOK__ADMIN__LISTEN", ""),
            ("DATABASE_URL", "sqlite::memory:"),
        ],
    ]
    .concat();
    let (code, _, err) = replyhook(&["serve"], &env, "");
    assert_eq!(code, 2);
    assert!(
        err.contains(&format!("cannot listen on {listen} (server.listen)")),
        "{err}"
    );
}

#[test]
fn report_mode_beyond_loopback_needs_its_flag() {
    let env = [
        &REQUIRED_ENV[..],
        &[("REPLYHOOK__SIGNATURE__MODE", "report")],
    ]
    .concat();
    let (code, _, err) = replyhook(&["serve"], &env, "");
    assert_eq!(code, 2);
    assert!(err.contains("--allow-public-diagnostics"), "{err}");
}

// It also prints the webhook URLs to enter at Twilio.
#[test]
fn check_prints_effective_values_and_masks_secrets() {
    let (code, out, _) = replyhook(&["check"], &REQUIRED_ENV, "");
    assert_eq!(code, 0);
    // The verdict is the first line, and the long list only comes with its option.
    assert!(out.starts_with("no problem\n"), "{out}");
    assert!(!out.contains("server.shutdown_timeout_s"), "{out}");
    let (code, out, _) = replyhook(&["check", "--all"], &REQUIRED_ENV, "");
    assert_eq!(code, 0);
    assert!(out.starts_with("no problem\n"), "{out}");
    assert!(
        out.contains("server.shutdown_timeout_s = 20  # default"),
        "{out}"
    );
    assert!(
        out.contains("twilio.auth_token = ********  # environment variable TWILIO_AUTH_TOKEN"),
        "{out}"
    );
    assert!(
        out.contains("https://hooks.example.test/webhook/fallback"),
        "{out}"
    );
    assert!(!out.contains(TOKEN));
    let (code, out, err) = replyhook(
        &["check", "--all"],
        &[("REPLYHOOK__SERVER__SHUTDWON_TIMEOUT_S", "1")],
        "",
    );
    assert_eq!(code, 2);
    assert!(
        out.contains("server.shutdown_timeout_s = 20")
            && err.contains("did you mean server.shutdown_timeout_s?"),
        "{err}"
    );
}

#[test]
fn check_of_unused_forward_url_warns_of_echo() {
    let url = ("REPLYHOOK__HANDLER__FORWARD_URL", "http://127.0.0.1:3000/");
    let (code, out, _) = replyhook(&["check"], &[&REQUIRED_ENV[..], &[url]].concat(), "");
    assert_eq!(code, 0);
    let warning = out.lines().find(|line| line.starts_with("warning: "));
    let warning = warning.unwrap_or_else(|| panic!("no warning in {out}"));
    assert!(
        warning.contains("handler.forward_url") && warning.contains("their own words back"),
        "{warning}"
    );
}

#[test]
fn secrets_of_urls_reach_neither_check_nor_log() {
    let database = "postgres://u:canary@127.0.0.1:9/db?password=canary&passwrd=canary";
    let endpoint = "http://u:canary@127.0.0.1:9/v1/traces?key=canary";
    let mut env = vec![
        ("DATABASE_URL", database),
        ("REPLYHOOK__HANDLER__FORWARD_URL", endpoint),
    ];
    if cfg!(feature = "otel") {
        env.push(("REPLYHOOK__TELEMETRY__OTLP_ENDPOINT", endpoint));
    }
    let (code, out, err) = replyhook(
        &["check", "--all"],
        &[&REQUIRED_ENV[..], &env[..]].concat(),
        "",
    );
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("passwrd=…") && !out.contains("canary"),
        "{out}"
    );
    // Nothing listens on the ports of these URLs, so the server does not start.
    let server = Server::launch(Command::new(env!("CARGO_BIN_EXE_replyhook")), &env);
    let (status, log) = server.wait();
    assert!(!status.success() && !log.contains("canary"), "{log}");
    assert!(log.contains("passwrd"), "{log}");
}

#[test]
fn serve_with_echo_warns_and_chat_does_not() {
    const WARNING: &str = "users get their own words back";
    let server = Server::start(&[]);
    let line = server.wait_for(WARNING);
    assert!(line.contains("\"WARN\""), "{line}");
    let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    let forwarding = Server::start(&[
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", "http://127.0.0.1:9/"),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", secret),
    ]);
    assert!(!forwarding.log().contains(WARNING), "{}", forwarding.log());
    // `chat` uses the echo as a demonstration, so it does not warn.
    let (code, _, err) = replyhook(&["chat"], &[], "hi\n");
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn sign_prints_twilio_signature() {
    let token = [("TWILIO_AUTH_TOKEN", "12345")];
    let p5 = [
        "CallSid=CA1234567890ABCDE",
        "Caller=+14158675309",
        "Digits=1234",
        "From=+14158675309",
        "To=+18005551212",
    ];
    let mut args = vec![
        "sign",
        "--url",
        "https://mycompany.com/myapp.php?foo=1&bar=2",
    ];
    for pair in p5 {
        args.extend(["--data", pair]);
    }
    let (code, out, err) = replyhook(&args, &token, "");
    assert_eq!(
        (code, out.as_str()),
        (0, "RSOYDt4T1cUTdK1PDd93/VVr8B8=\n"),
        "{err}"
    );
    let get = [
        "sign",
        "--method",
        "get",
        "--url",
        "https://hooks.example.test/twilio/sms?x=1&MessageSid=SM00000000000000000000000000000007&Body=Hello%20there",
    ];
    assert_eq!(
        replyhook(&get, &REQUIRED_ENV, "").1,
        "07kIepIGnUKLoR0VVQ6Tq43aw6o=\n"
    );
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        body.path(),
        "Body=++hi%0D%0Athere++&MessageSid=SM00000000000000000000000000000003",
    )
    .unwrap();
    let file = [
        "sign",
        "--url",
        "https://hooks.example.test/twilio/sms",
        "--body-file",
        body.path().to_str().unwrap(),
    ];
    assert_eq!(
        replyhook(&file, &REQUIRED_ENV, "").1,
        "eIviMN83MknGiqDa/LQAvdAE6Co=\n"
    );
}

#[test]
fn invalid_arguments_exit_with_2_and_name_remedy() {
    for (args, part) in [
        (
            &["sign", "--url", "https://h/", "--data", "x"][..],
            "has no =: write NAME=VALUE",
        ),
        (
            &["sign", "--url", "https://h/", "--method", "brew"],
            "Twilio uses GET, POST and PUT",
        ),
        (&["sign"], "--url"),
        (&["explain", "--data", "a=b"], "--url is missing"),
        (&["explain", "/nonexistent.har"], "/nonexistent.har"),
        (
            &["explain", "--url", "https://h/", "--header", "x"],
            "Name: value",
        ),
        (
            &["explain", "--url", "/webhook", "--data", "a=b"],
            "set PUBLIC_URL to the URL that Twilio calls",
        ),
        (&["invoke", "ftp://h/"], "not an http or https URL"),
        (
            &["sign", "--url", "bot.example.com/webhook"],
            "is not a complete URL",
        ),
        (&["sign", "--url", "https://h/x y"], "is not a complete URL"),
        (&["health", "--timeout-ms", "0"], "0 is not in 1..=600000"),
        (&["nothing"], "unrecognized subcommand"),
    ] {
        let (code, _, err) = replyhook(args, &[("TWILIO_AUTH_TOKEN", TOKEN)], "");
        assert_eq!(code, 2, "{args:?} {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    let (code, _, err) = replyhook(&["sign", "--url", "https://h/"], &[], "");
    assert_eq!(code, 2);
    assert!(err.contains("set TWILIO_AUTH_TOKEN"), "{err}");
}

// The exit code is 0 for a valid signature, 1 for an invalid one and 2 for unreadable input.
#[test]
fn explain_accepts_flags_curl_har_and_raw_http() {
    let webhook = Webhook::message(1, "it's & more");
    let body = String::from_utf8(webhook.bytes()).unwrap();
    let signature = webhook.signature_for(ORIGIN);
    let raw = String::from_utf8(webhook.raw(ORIGIN)).unwrap();
    let curl =
        format!("curl '{ORIGIN}/webhook' -H 'X-Twilio-Signature: {signature}' --data-raw '{body}'");
    let har = format!(
        r#"{{"log":{{"entries":[{{"request":{{"method":"POST","url":"{ORIGIN}/webhook","headers":[{{"name":"X-Twilio-Signature","value":"{signature}"}},{{"name":"Content-Type","value":"application/x-www-form-urlencoded"}}],"postData":{{"text":"{body}"}}}}}}]}}}}"#
    );
    for text in [&raw, &curl, &har] {
        assert_eq!(
            replyhook(&["explain"], &REQUIRED_ENV, text),
            (0, "the signature fits\n".to_owned(), String::new()),
            "{text}"
        );
        let (code, out, _) = replyhook(
            &["explain", "-"],
            &[("TWILIO_AUTH_TOKEN", OTHER_TOKEN), ("PUBLIC_URL", ORIGIN)],
            text,
        );
        assert_eq!(code, 1);
        assert!(out.starts_with("none of these"), "{out}");
        let (code, out, _) = replyhook(
            &["explain"],
            &[
                ("TWILIO_AUTH_TOKEN", TOKEN),
                ("PUBLIC_URL", "http://hooks.example.test"),
            ],
            text,
        );
        assert_eq!(code, 1);
        assert!(
            out.contains("set PUBLIC_URL=https://hooks.example.test,"),
            "{out}"
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &curl).unwrap();
    assert_eq!(
        replyhook(
            &["explain", file.path().to_str().unwrap()],
            &[("TWILIO_AUTH_TOKEN", TOKEN)],
            ""
        )
        .0,
        0
    );
    let header = format!("X-Twilio-Signature: {signature}");
    let url = format!("{ORIGIN}/webhook");
    let mut flags = vec!["explain", "--url", &url, "--header", &header];
    let pairs: Vec<String> = webhook
        .form
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    for pair in &pairs {
        flags.extend(["--data", pair]);
    }
    assert_eq!(replyhook(&flags, &REQUIRED_ENV, "").0, 0);
    let (code, _, err) = replyhook(&["explain"], &REQUIRED_ENV, "hello");
    assert_eq!(code, 2);
    assert!(err.contains("not a request"), "{err}");
}

#[test]
fn explain_finds_signed_url_of_saved_request() {
    let webhook = Webhook::message(1, "hi");
    let url = format!("{ORIGIN}/webhook");
    let curl = format!(
        "curl -s -w '%{{http_code}}' --retry 3 '{url}' -H 'X-Twilio-Signature: {}' -H 'X-Empty;' --data-raw '{}' | jq . > out.txt",
        webhook.signature_for(ORIGIN),
        String::from_utf8(webhook.bytes()).unwrap()
    );
    for public_url in ["https://other.example", "http://127.0.0.1:18080"] {
        let (code, out, err) = replyhook(
            &["explain"],
            &[("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", public_url)],
            &curl,
        );
        assert_eq!(code, 1, "{err}");
        assert!(
            out.starts_with(&format!("signed for {url} "))
                && out.contains(&format!("PUBLIC_URL={ORIGIN},")),
            "{out}"
        );
    }
}

// Hostile input must neither take long nor send control characters to the terminal.
#[test]
fn explain_rejects_unreadable_input_and_survives_hostile_input() {
    let headers: String = (0..40_000).map(|n| format!(" -H 'x-{n}: 1'")).collect();
    let escape = "curl '\u{1b}[31mhttps://bot.example.com/\u{1b}]0;x\u{7}webhook' -d a=b -H 'X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA='";
    for (text, code, part) in [
        (format!("curl https://h/{headers}"), 2, "too many headers"),
        ("curl https://h/ -d @body.txt".to_owned(), 2, "--body-file"),
        (
            "curl ^\"https://h/^\" ^".to_owned(),
            2,
            "copy it as cURL (bash)",
        ),
        (
            "curl https://h/ -H 'odd header'".to_owned(),
            2,
            "header \"odd header\" is malformed",
        ),
        (
            format!("curl https://h/ -d '{}'", "x".repeat(10_000_000)),
            2,
            "too large for a webhook",
        ),
        (
            format!(
                "curl 'https://h/?{}' -d a=b -H 'X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA='",
                "a=1&".repeat(200_000)
            ),
            1,
            "none of these",
        ),
        (
            format!(
                "curl 'https://h{}' -d a=b -H 'X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA='",
                "/".repeat(900_000)
            ),
            1,
            "none of these",
        ),
        (escape.to_owned(), 1, "none of these"),
    ] {
        let (found, out, err) = replyhook(&["explain"], &REQUIRED_ENV, &text);
        let shown: String = out.chars().chain(err.chars()).collect();
        assert!(
            found == code && shown.contains(part),
            "{found} {}",
            &shown[..shown.len().min(300)]
        );
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'));
    }
}

#[test]
fn invoke_sends_signed_webhook_and_checks_response() {
    let server = Server::start(&[]);
    let target = format!("http://{}/webhook", server.public);
    let url = format!("{ORIGIN}/webhook");
    let (code, out, err) = replyhook(
        &["invoke", &target, "--url", &url, "--data", "Body=one & two"],
        &REQUIRED_ENV,
        "",
    );
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.starts_with("200 text/xml; charset=utf-8 ")
            && out.contains(&twiml_message("one &amp; two")),
        "{out}"
    );
    assert_eq!(
        replyhook(
            &["invoke", &target, "--url", &url, "--method", "GET"],
            &REQUIRED_ENV,
            ""
        )
        .0,
        0
    );
    let (code, out, _) = replyhook(&["invoke", &target], &REQUIRED_ENV, "");
    assert_eq!(code, 1);
    assert!(out.starts_with("403 ") && out.contains("(11217)"), "{out}");
    for part in [
        "expected: 200 text/xml",
        "got:      403 text/plain",
        "--url",
    ] {
        assert!(out.contains(part), "{out}");
    }
    let forged = [
        "invoke",
        &target,
        "--url",
        &url,
        "--header",
        "X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ];
    assert!(replyhook(&forged, &REQUIRED_ENV, "").1.starts_with("403 "));
    let silent = silent_port();
    let unreachable_url = format!("http://{}/webhook", silent.local_addr().unwrap());
    let (code, out, _) = replyhook(&["invoke", &unreachable_url], &REQUIRED_ENV, "");
    assert_eq!(code, 1);
    assert!(out.contains("(11202)"), "{out}");
}

#[test]
fn invoke_sends_locations_buttons_media_and_texts() {
    let server = Server::start(&[]);
    let target = format!("http://{}/webhook", server.public);
    let url = format!("{ORIGIN}/webhook");
    for (args, answer) in [
        (&["--body", "hello there"][..], "hello there"),
        (&["--from", "+15550004444", "--body", "by SMS"], "by SMS"),
        (
            &["--pin", "52.52,13.405 Office"],
            "location 52.52, 13.405 (Office)",
        ),
        (&["--pin", "-33.9,18.4"], "location -33.9, 18.4"),
        (&["--button", "Yes | confirm:42"], "Yes"),
        (
            &["--media", "image/png https://example.com/a.png"],
            "image/png",
        ),
    ] {
        let all = [&["invoke", &target, "--url", &url], args].concat();
        let (code, out, err) = replyhook(&all, &REQUIRED_ENV, "");
        assert_eq!(code, 0, "{args:?} {out}{err}");
        assert!(out.contains(&twiml_message(answer)), "{args:?} {out}");
    }
    for args in [
        ["--pin", "here"],
        ["--media", "a.png"],
        ["--from", "rcs:agent"],
    ] {
        let all = [&["invoke", &target][..], &args[..]].concat();
        assert_eq!(replyhook(&all, &REQUIRED_ENV, "").0, 2, "{args:?}");
    }
}

#[test]
fn health_queries_admin_listener() {
    let server = Server::start(&[]);
    let listen = server.private.to_string();
    let env = [("REPLYHOOK__ADMIN__LISTEN", listen.as_str())];
    assert_eq!(
        replyhook(&["health"], &env, ""),
        (0, "ready\n".to_owned(), String::new())
    );
    let unspecified = format!("[::]:{}", server.private.port());
    assert_eq!(
        replyhook(
            &["health"],
            &[("REPLYHOOK__ADMIN__LISTEN", &unspecified)],
            ""
        )
        .0,
        0
    );
    let silent = silent_port();
    let silent_address = silent.local_addr().unwrap().to_string();
    let env = [("REPLYHOOK__ADMIN__LISTEN", silent_address.as_str())];
    let (code, out, _) = replyhook(&["health"], &env, "");
    assert_eq!(code, 1);
    assert!(out.starts_with("no response from 127.0.0.1"), "{out}");
    assert_eq!(
        replyhook(&["health"], &[("REPLYHOOK__ADMIN__LISTEN", "")], "").0,
        2
    );
}

#[test]
fn config_default_prints_defaults_and_tolerates_closed_pipe() {
    assert_eq!(
        replyhook(&["config", "default"], &[], "").1,
        replyhook::config::DEFAULT_TOML
    );
    let cut = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{} config default | head -c 10",
            env!("CARGO_BIN_EXE_replyhook")
        ))
        .output()
        .unwrap();
    assert_eq!((cut.stdout.len(), cut.stderr.len()), (10, 0));
}

#[test]
fn completions_and_man_pages_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = replyhook(&["completions", shell], &[], "");
        assert!(code == 0 && out.contains("explain"), "{shell}");
    }
    assert!(replyhook(&["man"], &[], "").1.contains(".TH replyhook 1"));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        replyhook(&["man", "--dir", dir.path().to_str().unwrap()], &[], "").0,
        0
    );
    for page in ["replyhook.1", "replyhook-serve.1", "replyhook-explain.1"] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
}

#[test]
fn command_help_has_example_or_exit_codes() {
    let (code, help, _) = replyhook(&["--help"], &[], "");
    assert!(code == 0 && help.contains("Examples:"));
    for command in [
        "serve",
        "check",
        "health",
        "sign",
        "explain",
        "invoke",
        "messages",
        "reconcile",
        "purge",
        "consent",
        "migrate",
        "completions",
        "man",
    ] {
        assert!(help.contains(command), "{command}");
        let (code, text, _) = replyhook(&[command, "--help"], &[], "");
        assert!(
            code == 0 && (text.contains("Example") || text.contains("Exit code")),
            "{command}: {text}"
        );
    }
    assert_eq!(
        replyhook(&["--version"], &[], "").1,
        format!("replyhook {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(replyhook(&[], &[], "").0, 2);
}
