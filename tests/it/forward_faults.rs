//! Faults of a service behind the handler `forward`: Twilio's response, and the log.

use crate::support::server::reserve_port;
use crate::support::{End, Server, Storage, Webhook, says};

/// Secret of 24 bytes, the minimum length.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const ASKED: &str = "POST /hush/message";

fn forwarding_to(url: &str, env: &[(&str, &str)]) -> Server {
    let url = format!("{url}/hush/message");
    let own = [
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
    ];
    Server::start(&[&own[..], env].concat())
}

/// Returns a whole response without a `Connection` header.
fn whole(status: u16, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Sends a message that fails, and returns its line in the log.
fn why(server: &Server, number: u64) -> String {
    server.send(&Webhook::message(number, "hush")).rejected(500);
    server.wait_for(&format!("SM{number:032x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_response_log_explains_fault_without_content() {
    let service = Storage::start().await;
    let large = "hush ".repeat(2_000_000);
    let json = "application/json";
    let cases = [
        (String::new(), "connection closed before message completed"),
        ("SSH-2.0-hush\r\n".to_owned(), "invalid HTTP version"),
        (
            "HTTP/1.1 200 x\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\nhush"
                .to_owned(),
            "end of file before message length reached",
        ),
        (
            whole(302, "text/plain", "hush"),
            "redirects (302); set handler.forward_url",
        ),
        (
            whole(304, "text/plain", ""),
            "responded with HTTP status 304",
        ),
        (
            whole(500, "text/plain", "hush"),
            "responded with HTTP status 500",
        ),
        (whole(200, "text/hush", "hush"), "a content type other than"),
        (
            whole(200, json, "{\n\"hush"),
            "invalid JSON (line 2, column 5)",
        ),
        (
            whole(200, json, r#"{"hush":1}"#),
            "JSON of an unknown shape",
        ),
        (
            whole(200, json, r#"{"messages":[{"body":""},{"text":"hush"}]}"#),
            "message 2 of the service's response has neither body nor media",
        ),
        (
            whole(
                200,
                json,
                r#"{"media":["https://hush.test"],"messages":[]}"#,
            ),
            "messages and also with a body or media",
        ),
        (
            whole(200, json, r#"{"media":["file:///hush"]}"#),
            "media that is not an http or https URL",
        ),
        // 10 MB, of which the server reads only up to its limit.
        (whole(200, "text/plain", &large), "larger than 1 MiB"),
    ];
    for (answer, _) in &cases {
        service.raw(ASKED, answer.as_str(), End::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for (number, (_, reason)) in (1..).zip(&cases) {
        let line = why(&server, number);
        assert!(line.contains(reason), "{reason}: {line}");
    }
    assert!(!server.log().contains("hush"), "{}", server.log());
}

#[test]
fn log_distinguishes_refused_connection_from_unknown_host() {
    let nobody = reserve_port();
    let rejected = format!("http://{}", nobody.local_addr().unwrap());
    // A label of a DNS name has 63 characters at most.
    let unknown = format!("http://{}.test", "a".repeat(64));
    for (url, reason) in [(rejected, "Connection refused"), (unknown, "dns error")] {
        let server = forwarding_to(&url, &[]);
        let line = why(&server, 1);
        assert!(line.contains("the service cannot be reached: "), "{line}");
        assert!(line.contains(reason), "{line}");
        assert!(!line.contains("hush") && !line.contains(&url), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_response_key_is_logged_once_without_value() {
    let service = Storage::start().await;
    let messages =
        r#"{"messages":[{"body":"hi","medai":["https://hush.test"],"+15550001111":"hush"}]}"#;
    for answer in [
        messages,
        messages,
        r#"{"body":"hi","quick_replies":["hush"]}"#,
        "end",
    ] {
        let answer = whole(200, "application/json", answer);
        service.raw(ASKED, answer, End::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=3 {
        let answer = server.send(&Webhook::message(number, "hush"));
        assert_eq!(answer.twiml(), says("hi"));
    }
    why(&server, 4);
    let log = server.log();
    for key in ["medai", "quick_replies", "(not a plain name)"] {
        let told = log.lines().filter(|line| line.contains(key)).count();
        assert_eq!(told, 1, "{key}: {log}");
    }
    assert!(!log.contains("hush") && !log.contains("1555000"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_connection_is_reused() {
    let service = Storage::start().await;
    service.raw(ASKED, whole(200, "text/plain", "hi"), End::Keep);
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=10 {
        // Different texts, so that the loop detection does not block them.
        let answer = server.send(&Webhook::message(number, &format!("number {number}")));
        assert_eq!(answer.twiml(), says("hi"));
    }
    assert_eq!(service.asked().len(), 10);
    assert!(service.connections() < 10, "{}", service.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_service_connection_is_not_reused() {
    let service = Storage::start().await;
    service.raw(ASKED, whole(200, "text/plain", "hi"), End::Close);
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=10 {
        // Different texts, so that the loop detection does not block them.
        let answer = server.send(&Webhook::message(number, &format!("number {number}")));
        assert_eq!(answer.twiml(), says("hi"));
        service
            .wait_for_closed(usize::try_from(number).unwrap())
            .await;
    }
    assert_eq!(service.connections(), 10);
}

// The service closes the connection after reading the request and may have processed it.
#[tokio::test(flavor = "multi_thread")]
async fn lost_request_is_retried_only_by_fallback_call() {
    let service = Storage::start().await;
    service.raw(ASKED, whole(200, "text/plain", "hi"), End::Keep);
    service.raw(ASKED, "", End::Close);
    service.raw(ASKED, whole(200, "text/plain", "again"), End::Keep);
    let server = forwarding_to(service.url(), &[]);
    let first = server.send(&Webhook::message(1, "hi"));
    assert_eq!(first.twiml(), says("hi"));
    why(&server, 2);
    assert_eq!(service.asked().len(), 2, "forward must not retry");
    let fallback = Webhook::message(2, "hi").to("/webhook/fallback");
    assert_eq!(server.send(&fallback).twiml(), says("again"));
    let asked = service.asked();
    assert!(asked[2].contains("replyhook-attempt: 2"), "{}", asked[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_service_times_out_and_connection_closes() {
    let service = Storage::start().await;
    service.raw(ASKED, "", End::Silence);
    let env = [("REPLYHOOK__HANDLER__TIMEOUT_MS", "300")];
    let server = forwarding_to(service.url(), &env);
    let line = why(&server, 1);
    assert!(line.contains("longer than handler.timeout_ms"), "{line}");
    service.wait_for_closed(1).await;
}
