//! Start, graceful shutdown and forced end of the server.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::support::{ORIGIN, Server, TOKEN, Webhook, twiml_message, wire};

/// Body timeout that outlasts the test, even on a busy machine.
const SLOW_BODY: (&str, &str) = ("REPLYHOOK__SERVER__BODY_TIMEOUT_MS", "60000");

fn message_text(number: u64) -> String {
    format!("under way {number}")
}

/// Sends a webhook without its last bytes, so that the request stays in flight. Returns them with the connection.
fn start_message(server: &Server, number: u64) -> (std::net::TcpStream, Vec<u8>) {
    let mut stream = wire::connect(server.public);
    let mut bytes = Webhook::message(number, &message_text(number)).raw(ORIGIN);
    let rest = bytes.split_off(bytes.len() - 20);
    stream.write_all(&bytes).unwrap();
    (stream, rest)
}

#[test]
fn threat_61_graceful_shutdown_finishes_running_requests_and_rejects_new() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&[SLOW_BODY]);
        let waiting: Vec<_> = (0..20)
            .map(|number| start_message(&server, number))
            .collect();
        server.wait_until("replyhook_requests_in_flight", 20.0);
        server.signal(signal);
        server.wait_for("draining");
        assert!(server.get("/readyz").body.contains(r#""draining":true"#));
        assert_eq!(server.get("/readyz").status, 503);
        assert_eq!(server.get("/livez").status, 200);
        // Until the listener closes, the kernel accepts connections that the server does not serve.
        let refused = (0..10_000).any(|_| std::net::TcpStream::connect(server.public).is_err());
        assert!(refused, "the public listener is closed");
        for (number, (mut stream, rest)) in (0..).zip(waiting) {
            stream.write_all(&rest).unwrap();
            assert_eq!(
                wire::read_response(&mut stream).unwrap().twiml(),
                twiml_message(&message_text(number))
            );
        }
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopped"));
    }
}

#[test]
fn threat_62_second_signal_or_shutdown_timeout_ends_process() {
    for (first, second, code) in [
        (Signal::TERM, Signal::TERM, 143),
        (Signal::TERM, Signal::INT, 130),
        (Signal::INT, Signal::INT, 130),
    ] {
        let server = Server::start(&[SLOW_BODY]);
        let (_open, _rest) = start_message(&server, 1);
        server.wait_until("replyhook_requests_in_flight", 1.0);
        server.signal(first);
        server.wait_for("draining");
        server.signal(second);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(code), "{log}");
    }
    let server = Server::start(&[("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "1"), SLOW_BODY]);
    let (_open, _rest) = start_message(&server, 1);
    server.wait_until("replyhook_requests_in_flight", 1.0);
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(143), "{log}");
    assert!(log.contains("shutdown timed out; work in progress was aborted"));
}

// Connections with incomplete bodies may use no more memory than their buffers.
#[test]
fn threat_64_killed_server_restarts_and_memory_is_bounded() {
    let server = Server::start(&[("REPLYHOOK__SERVER__MAX_CONNECTIONS", "64"), SLOW_BODY]);
    let before = server.resident();
    let body = vec![b'a'; 120 * 1024];
    let held: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = wire::connect(server.public);
            let head = format!(
                "POST /webhook HTTP/1.1\r\nHost: h\r\nX-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
                body.len() + 1
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            stream
        })
        .collect();
    server.wait_until("replyhook_requests_in_flight", 60.0);
    // Each connection holds at most its head buffer (32 KiB, as its head is short) and its body (128 KiB, twice while its parts are joined).
    let ceiling = 64 * (32 + 2 * 128);
    let growth = server.resident().saturating_sub(before);
    assert!(growth < ceiling + 4096, "{growth} kB more than before");
    drop(held);
    server.signal(Signal::KILL);
    let (status, _) = server.wait();
    assert_eq!(status.signal(), Some(9));
    let next_server = Server::start(&[]);
    assert_eq!(
        next_server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
}

#[test]
fn log_shows_webhook_urls_and_omits_successful_requests() {
    let server = Server::start(&[("PUBLIC_URL", "https://hooks.example.test/a")]);
    let before = server.log().lines().count();
    for (number, path) in ["/webhook", "/a/webhook"].into_iter().enumerate() {
        let webhook = Webhook::message(number as u64, "hi")
            .to(path)
            .signed_for("https://hooks.example.test/a/webhook");
        server.send(&webhook).twiml();
    }
    // Other lines may have been logged since then.
    for line in server.log().lines().skip(before) {
        let about_requests = ["webhook", "rejected", "request"];
        let is_one = about_requests.iter().any(|word| line.contains(word));
        assert!(!is_one, "{line}");
    }
    let ready = server.wait_for("ready");
    for url in [
        "https://hooks.example.test/a/webhook",
        "https://hooks.example.test/a/webhook/fallback",
        "https://hooks.example.test/a/webhook/status",
    ] {
        assert!(ready.contains(url));
    }
}

#[test]
fn auth_token_can_come_from_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
    let server = Server::start(&[
        ("TWILIO_AUTH_TOKEN", ""),
        ("TWILIO_AUTH_TOKEN_FILE", file.path().to_str().unwrap()),
    ]);
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
}

#[test]
fn forged_request_is_rejected_and_reason_logged() {
    let server = Server::start(&[]);
    let tunnel = Webhook::message(1, "hi")
        .header("X-Forwarded-Host", "x.ngrok.app")
        .signed_for("https://x.ngrok.app/webhook");
    server.send(&tunnel).assert_rejected(403);
    let line = server.wait_for("rejected");
    assert!(
        line.contains("set PUBLIC_URL=https://x.ngrok.app,"),
        "{line}"
    );
    // A flood of forgeries writes a few lines and counts the rest.
    for number in 0..200 {
        server
            .send(&Webhook::message(number, "hi").token(crate::support::OTHER_TOKEN))
            .assert_rejected(403);
    }
    let lines = server
        .log()
        .lines()
        .filter(|line| line.contains("rejected"))
        .count();
    assert!((2..100).contains(&lines), "{lines}");
    assert_eq!(
        server
            .metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="rejected_signature"}"#),
        201.0
    );
}

// Unsigned requests and wrong methods must not use up the log's rate limit for explanations.
#[test]
fn explainable_signature_is_logged_despite_noise() {
    let server = Server::start(&[]);
    for number in 0..60 {
        server.send(&Webhook::message(number, "hi").method(http::Method::DELETE));
        server.send(&Webhook::message(number, "hi").signature(""));
    }
    server
        .send(&Webhook::message(1, "hi").signed_for("http://hooks.example.test/webhook"))
        .assert_rejected(403);
    server.wait_for("signed for http://hooks.example.test/webhook");
}

#[test]
fn log_of_unknown_error_code_links_to_twilio() {
    let server = Server::start(&[]);
    let failed = Webhook::message(1, "")
        .to("/webhook/status")
        .with("MessageStatus", "failed")
        .with("ErrorCode", "30022");
    server.send(&failed).twiml();
    server.wait_for("not delivered: see https://www.twilio.com/docs/api/errors/30022");
    let fallback = Webhook::message(1, "hi")
        .to("/webhook/fallback")
        .with("ErrorCode", "13803");
    server.send(&fallback).twiml();
    server.wait_for("fallback URL: see https://www.twilio.com/docs/api/errors/13803");
}

#[test]
fn warning_of_one_kind_does_not_suppress_another() {
    let server = Server::start(&[]);
    for number in 0..60 {
        let call = Webhook::message(number, "hi")
            .to("/webhook/fallback")
            .with("ErrorCode", "11200");
        server.send(&call).twiml();
    }
    let failed = Webhook::message(1, "")
        .to("/webhook/status")
        .with("MessageStatus", "failed")
        .with("ErrorCode", "30003");
    server.send(&failed).twiml();
    server.wait_for("a message was not delivered: the handset cannot be reached");
}

#[test]
fn unknown_path_is_counted_and_logged_if_signed() {
    let server = Server::start(&[]);
    let metric = "replyhook_unrouted_requests_total";
    let status_with = |header: &str| {
        let request =
            format!("POST /webhok HTTP/1.1\r\nHost: a\r\n{header}Content-Length: 0\r\n\r\n");
        server.exchange(request.as_bytes()).unwrap().status
    };
    assert_eq!((status_with(""), server.metric(metric)), (404, 1.0));
    assert!(!server.log().contains("for an unknown path"));
    assert_eq!(status_with("X-Twilio-Signature: 0000\r\n"), 404);
    let line = server.wait_for("for an unknown path");
    assert!(line.contains("\"path\":\"/webhok\""), "{line}");
    assert_eq!(server.metric(metric), 2.0);
}
