//! Privacy: numbers, texts, names and secrets appear in replies only, not in logs, metrics, errors or `Debug` output.

use http::{HeaderMap, Method};
use replyhook::config::{Settings, Sources};
use replyhook::signature::{PublicUrl, SignatureVerifier, UnverifiedRequest};
use replyhook::{InboundMessage, Reply, Secret, StatusUpdate, Timestamp};

use crate::support::{ACCOUNT, ORIGIN, Server, TOKEN, Webhook, base64_of};

const NUMBER: &str = "15550417263";
const TEXT: &str = "canary-text-7f3a";
const NAME: &str = "canary-name-91bc";
const QUERY: &str = "canary-query-55de";
const CANARIES: [&str; 5] = [NUMBER, TEXT, NAME, QUERY, TOKEN];

fn canary(number: u64) -> Webhook {
    Webhook::message(number, TEXT)
        .with("From", &format!("whatsapp:+{NUMBER}"))
        .with("ProfileName", NAME)
        .with("WaId", NUMBER)
}

#[track_caller]
fn assert_no_canary(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary} is in {what}:\n{text}");
    }
}

#[test]
fn threat_37_logs_metrics_and_rejections_contain_no_user_data() {
    let server = Server::start(&[("REPLYHOOK__LOG__LEVEL", "trace")]);
    let signature = canary(0).signature_for(ORIGIN);
    let mut answers = vec![server.send(&canary(1))];
    assert!(answers[0].body.contains(TEXT));
    answers.clear();
    let queried = canary(2).to(&format!("/webhook?tenant={QUERY}"));
    server.send(&queried).twiml();
    for webhook in [
        canary(3).token(crate::support::OTHER_TOKEN),
        queried.clone().signed_for("https://other.example/webhook"),
        canary(4).without("MessageSid"),
        canary(5).also("Body", "another"),
        canary(6).body(format!("Body={TEXT}%ff&From=%2B{NUMBER}")),
        canary(7).content_type(Some("application/json")),
        canary(8).get().signature(&base64_of(&[1; 20])),
        canary(9).method(Method::DELETE),
    ] {
        let answer = server.send(&webhook);
        assert_ne!(answer.status, 200);
        answers.push(answer);
    }
    server
        .send(
            &canary(11)
                .to("/webhook/fallback")
                .with("ErrorCode", "11200")
                .with("ErrorUrl", &format!("https://h/?{QUERY}")),
        )
        .twiml();
    // Too long for TwiML: the reply stays in the outbox, since Twilio is not reachable.
    let overlong = format!("{TEXT}{}", "x".repeat(20_000));
    server.send(&canary(10).with("Body", &overlong)).twiml();
    server.wait_for("a message was not sent");
    let failed = canary(12)
        .to("/webhook/status")
        .with("MessageStatus", "failed")
        .with("ErrorCode", "30003")
        .with("ErrorMessage", TEXT);
    server.send(&failed).twiml();
    let _ = server
        .exchange(format!("POST /webhook?{QUERY} HTTP/1.1\r\nX-{TEXT}: \0\r\n\r\n").as_bytes());
    // Many equal messages in a short time are a reply loop, which is logged.
    for number in 20..40 {
        server.send(&canary(number)).twiml();
    }
    server.wait_for("a reply loop");
    let metrics = server.get("/metrics").body;
    server.signal(rustix::process::Signal::TERM);
    let (_, log) = server.wait();
    assert!(
        log.lines().count() > 10,
        "the log is too short to check:\n{log}"
    );
    assert_no_canary("the log", &log);
    assert!(!log.contains(&signature));
    assert_no_canary("the metrics", &metrics);
    for answer in answers {
        assert_no_canary("a rejection", &answer.body);
    }
}

// The bot panics with the user's number and text, like an `unwrap` of a value that contains them.
#[cfg(feature = "failpoints")]
#[test]
fn threat_37_panic_log_has_location_but_no_text() {
    let bot = std::process::Command::new(env!("CARGO_BIN_EXE_fault-bot"));
    let server = Server::start_by(bot, &[("REPLYHOOK__LOG__LEVEL", "trace")]);
    let rejected = server.send(&canary(1).with("Body", &format!("panic {TEXT}")));
    assert_eq!(rejected.assert_rejected(500), "handler failed\n");
    let panicked = server.wait_for("panicked; the text is not logged");
    assert!(panicked.contains("fault.rs"), "no location: {panicked}");
    server.wait_for("the handler panicked");
    let metrics = server.get("/metrics").body;
    server.signal(rustix::process::Signal::TERM);
    let (_, log) = server.wait();
    assert_no_canary("the log", &log);
    assert_no_canary("the metrics", &metrics);
}

#[test]
fn threat_38_debug_and_errors_show_no_private_data() {
    let form = canary(1).form;
    let message = InboundMessage::parse(form.clone(), Timestamp::UNIX_EPOCH).unwrap();
    assert_no_canary("InboundMessage", &format!("{message:?} {message:#?}"));
    assert_no_canary("Form", &format!("{form:?}"));
    assert_no_canary(
        "Reply",
        &format!(
            "{:?}",
            Reply::text(TEXT)
                .and(replyhook::ReplyMessage::text(TEXT).to(format!("whatsapp:+{NUMBER}")))
        ),
    );
    let status = canary(2)
        .with("MessageStatus", "sent")
        .with("ChannelToAddress", &format!("+{NUMBER}"))
        .form;
    assert_no_canary(
        "StatusUpdate",
        &format!("{:?}", StatusUpdate::parse(status).unwrap()),
    );
    let parts = format!(
        "{:?} {:?} {:?}",
        InboundMessage::parse(
            form.iter()
                .chain([
                    ("ButtonText", TEXT),
                    ("ListId", TEXT),
                    ("ReferralBody", TEXT),
                    ("Latitude", "1"),
                    ("Longitude", "1"),
                    ("Label", TEXT),
                    ("ChannelMetadata", TEXT),
                    ("MediaUrl0", TEXT),
                    ("FromCity", TEXT)
                ])
                .collect(),
            Timestamp::UNIX_EPOCH
        )
        .unwrap(),
        message.from,
        message.from_geo,
    );
    assert_no_canary("parts of a message", &parts);
    let secret = Secret::new(TOKEN);
    assert_no_canary("Secret", &format!("{secret:?} {secret:#?}"));
    let verifier = SignatureVerifier::new(PublicUrl::parse(ORIGIN).unwrap().0, [secret]).unwrap();
    assert_no_canary("SignatureVerifier", &format!("{verifier:?}"));
    let mut headers = HeaderMap::new();
    headers.insert("x-twilio-signature", base64_of(&[0; 20]).parse().unwrap());
    headers.insert(
        "content-type",
        "application/x-www-form-urlencoded".parse().unwrap(),
    );
    let request = UnverifiedRequest {
        method: &Method::POST,
        target: &format!("/webhook?{QUERY}"),
        headers: &headers,
        body: TEXT.as_bytes(),
    };
    let error = verifier.verify(&request).unwrap_err();
    assert_no_canary(
        "an error",
        &format!(
            "{error} {error:?} {request:?} {}",
            verifier.explain(&request)
        ),
    );
}

#[test]
fn threat_38_settings_show_secret_source_but_no_value() {
    let account = format!("REPLYHOOK__TWILIO__ACCOUNTS__{ACCOUNT}__AUTH_TOKEN");
    let mut sources = Sources::default().with_env([
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("TWILIO_AUTH_TOKEN_SECONDARY", TOKEN),
        ("PUBLIC_URL", ORIGIN),
        (&account, TOKEN),
    ]);
    let loaded = Settings::load(&sources).unwrap();
    assert_no_canary(
        "the settings",
        &format!("{:?} {:?}", loaded.settings, loaded.effective),
    );
    sources = sources.with_env([("TWILIO_AUTH_TOKEN_FILE", "/nonexistent")]);
    assert_no_canary(
        "a problem",
        &format!("{0} {0:?}", Settings::load(&sources).unwrap_err()),
    );
    // No option takes a token, so that no token appears in a process list.
    let (code, options, _) = crate::support::replyhook(&["completions", "bash"], &[], "");
    assert!(code == 0 && options.contains("--idempotency-key"));
    for option in ["--token", "--auth-token"] {
        assert!(!options.contains(option), "{option} takes a token");
        for command in ["serve", "check", "sign", "explain", "invoke"] {
            let (code, _, error) = crate::support::replyhook(&[command, option, TOKEN], &[], "");
            assert_eq!(code, 2, "{command}: {error}");
            assert!(error.contains("unexpected argument"), "{command}: {error}");
        }
    }
}

#[test]
fn sources_debug_shows_names_but_no_values() {
    let mut sources = Sources::default().with_env([("TWILIO_AUTH_TOKEN", TOKEN)]);
    sources.fixed.insert("twilio.auth_token", TOKEN.to_owned());
    let text = format!("{sources:?}");
    assert!(
        text.contains("TWILIO_AUTH_TOKEN") && !text.contains(TOKEN),
        "{text}"
    );
}
