//! Faults of a service behind the handler `forward`: Twilio's response, and the log.

use crate::support::server::reserve_port;
use crate::support::{EMPTY, RawServer, ResponseEnd, Server, Webhook, twiml_message};

/// Secret of 24 bytes, the minimum length.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const HANDLER_REQUEST: &str = "POST /hush/message";

fn forwarding_to(url: &str, env: &[(&str, &str)]) -> Server {
    let url = format!("{url}/hush/message");
    let base_env = [
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
    ];
    Server::start(&[&base_env[..], env].concat())
}

/// Returns a whole response that announces the end of its connection.
fn complete_response(status: u16, content_type: &str, body: &str) -> String {
    // Otherwise the client could send its next request on the connection while the service closes it.
    let end = "connection: close\r\n";
    response_with(end, status, content_type, body)
}

/// Returns a whole response that does not announce the end of its connection.
fn kept_response(status: u16, content_type: &str, body: &str) -> String {
    response_with("", status, content_type, body)
}

fn response_with(header: &str, status: u16, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n{header}\r\n{body}"
    )
}

/// Sends a message that fails, and returns its line in the log.
fn failure_log(server: &Server, number: u64) -> String {
    // Different texts, or loop detection would block the user.
    server
        .send(&Webhook::message(number, &format!("hush {number}")))
        .assert_rejected(500);
    server.wait_for(&format!("SM{number:032x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_response_log_explains_fault_without_content() {
    let service = RawServer::start().await;
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
            complete_response(302, "text/plain", "hush"),
            "redirects (302); set handler.forward_url",
        ),
        (
            complete_response(304, "text/plain", ""),
            "responded with HTTP status 304",
        ),
        (
            complete_response(500, "text/plain", "hush"),
            "responded with HTTP status 500",
        ),
        (
            complete_response(200, "text/hush", "hush"),
            "a content type other than",
        ),
        (
            complete_response(200, json, "{\n\"hush"),
            "invalid JSON (line 2, column 5)",
        ),
        (
            complete_response(200, json, r#"["hush"]"#),
            "JSON of an unknown shape",
        ),
        (
            complete_response(200, json, r#"{"mesage":"hush"}"#),
            "the key mesage; did you mean messages?",
        ),
        (
            complete_response(200, json, r#"{"hush":1,"medai":["hush"]}"#),
            "the key medai; did you mean media?",
        ),
        (
            complete_response(200, json, r#"{"messages":[{"body":""},{"text":"hush"}]}"#),
            "message 2 of the service's response has none of the keys body, media",
        ),
        (
            complete_response(
                200,
                json,
                r#"{"media":["https://hush.test"],"messages":[]}"#,
            ),
            "messages and also with media; move this into messages",
        ),
        (
            complete_response(200, json, r#"{"body":null,"mesage":"hush"}"#),
            "the key mesage; did you mean messages?",
        ),
        (
            complete_response(200, json, r#"{"media":[],"body":"","bdoy":"hush"}"#),
            "the key bdoy; did you mean body?",
        ),
        (
            complete_response(200, json, r#"{"choices_key":"hush","Body":"hush"}"#),
            "the key Body; did you mean body?",
        ),
        (
            complete_response(
                200,
                json,
                r#"{"messages":[{"body":"hush"},{"bodi":"hush"}]}"#,
            ),
            "message 2 of the service's response has the key bodi; did you mean body?",
        ),
        (
            complete_response(200, json, r#"{"messages":[{"media":[],"bdoy":"hush"}]}"#),
            "message 1 of the service's response has the key bdoy; did you mean body?",
        ),
        (
            complete_response(
                200,
                json,
                r#"{"messages":[{"body":"hush"}],"body":"hush","choices":["hush"]}"#,
            ),
            "messages and also with body, choices; move this into messages",
        ),
        (
            complete_response(200, json, r#"{"media":["file:///hush"]}"#),
            "media that is not an http or https URL",
        ),
        // 10 MB, of which the server reads only up to its limit.
        (
            complete_response(200, "text/plain", &large),
            "larger than 1 MiB",
        ),
    ];
    for (answer, _) in &cases {
        service.queue_bytes(HANDLER_REQUEST, answer.as_str(), ResponseEnd::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for (number, (_, reason)) in (1..).zip(&cases) {
        let line = failure_log(&server, number);
        assert!(line.contains(reason), "{reason}: {line}");
    }
    assert!(!server.log().contains("hush"), "{}", server.log());
}

#[test]
fn log_distinguishes_refused_connection_from_unknown_host() {
    let reserved_port = reserve_port();
    let refused = format!("http://{}", reserved_port.local_addr().unwrap());
    // A label of a DNS name has 63 characters at most.
    let unknown = format!("http://{}.test", "a".repeat(64));
    for (url, reason) in [(refused, "connection refused"), (unknown, "dns error")] {
        let server = forwarding_to(&url, &[]);
        let line = failure_log(&server, 1);
        assert!(line.contains("the service cannot be reached: "), "{line}");
        assert!(line.contains(reason), "{line}");
        assert!(!line.contains("hush") && !line.contains(&url), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_parts_and_keys_of_choices_are_logged_once() {
    let service = RawServer::start().await;
    let response = r#"{"body":"hi","location":{"latitude":91,"longitude":"hush"},"choices":[{"title":"A","descripton":"hush"}],"choices_button":"hush, a label that is too long"}"#;
    for answer in [response, response, "end"] {
        let answer = complete_response(200, "application/json", answer);
        service.queue_bytes(HANDLER_REQUEST, answer, ResponseEnd::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=2 {
        let webhook = Webhook::message(number, "hush");
        let webhook = webhook
            .with("From", "+15550001111")
            .with("To", "+15550002222");
        assert_eq!(server.send(&webhook).twiml(), twiml_message("hi\n1. A"));
    }
    failure_log(&server, 3);
    let log = server.log();
    for part in [
        "descripton",
        r#""part":"location""#,
        r#""part":"choices_button""#,
    ] {
        assert_eq!(log.matches(part).count(), 1, "{part}: {log}");
    }
    assert!(!log.contains("hush"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_next_to_messages_belong_to_the_last_message() {
    let service = RawServer::start().await;
    let cases = [
        (
            r#"{"messages":[{"body":"One"},{"body":"Pick"}],"choices":["A","B"]}"#,
            &["One", "Pick\n1. A\n2. B"][..],
        ),
        (
            r#"{"messages":[{"body":"Own","choices":["C"]}],"choices":["A","B"]}"#,
            &["Own\n1. C"],
        ),
    ];
    for (response, _) in cases {
        let answer = complete_response(200, "application/json", response);
        service.queue_bytes(HANDLER_REQUEST, answer, ResponseEnd::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for (number, (response, texts)) in (1..).zip(cases) {
        let webhook = Webhook::message(number, "hush");
        let webhook = webhook
            .with("From", "+15550001111")
            .with("To", "+15550002222");
        let answer = server.send(&webhook);
        let twiml = answer.twiml();
        for text in texts {
            assert!(twiml.contains(text), "{response}: {twiml}");
        }
        assert_eq!(twiml.matches("<Message").count(), texts.len(), "{twiml}");
    }
    server.wait_for(r#""part":"choices""#);
}

// .NET, PowerShell and some editors write one.
#[tokio::test(flavor = "multi_thread")]
async fn byte_order_mark_before_response_is_ignored() {
    let service = RawServer::start().await;
    for (content_type, body) in [
        ("application/json", "\u{feff}{\"body\":\"hi\"}"),
        ("text/plain", "\u{feff}hi"),
    ] {
        let answer = complete_response(200, content_type, body);
        service.queue_bytes(HANDLER_REQUEST, answer, ResponseEnd::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=2 {
        let answer = server.send(&Webhook::message(number, "hush"));
        assert_eq!(answer.twiml(), twiml_message("hi"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_response_key_is_logged_once_without_value() {
    let service = RawServer::start().await;
    let messages =
        r#"{"messages":[{"body":"hi","medai":["https://hush.test"],"+15550001111":"hush"}]}"#;
    for answer in [
        messages,
        messages,
        r#"{"body":"hi","quick_replies":["hush"]}"#,
        "end",
    ] {
        let answer = complete_response(200, "application/json", answer);
        service.queue_bytes(HANDLER_REQUEST, answer, ResponseEnd::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=3 {
        let answer = server.send(&Webhook::message(number, "hush"));
        assert_eq!(answer.twiml(), twiml_message("hi"));
    }
    failure_log(&server, 4);
    let log = server.log();
    for key in ["medai", "quick_replies", "(not a plain name)"] {
        let count = log.lines().filter(|line| line.contains(key)).count();
        assert_eq!(count, 1, "{key}: {log}");
    }
    assert!(!log.contains("hush") && !log.contains("1555000"), "{log}");
}

// A workflow tool that responds before its workflow has run.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_object_is_logged_once_per_shape() {
    let service = RawServer::start().await;
    let started = r#"{"message":"hush","executionId":1}"#;
    let other = r#"{"status":"hush","+15550001111":1}"#;
    for answer in [started, started, other, "{}", "null", "end"] {
        let answer = complete_response(200, "application/json", answer);
        service.queue_bytes(HANDLER_REQUEST, answer, ResponseEnd::Close);
    }
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=5 {
        let answer = server.send(&Webhook::message(number, "hush"));
        assert_eq!(answer.twiml(), EMPTY);
    }
    failure_log(&server, 6);
    let log = server.log();
    for keys in ["executionId, message", "(not a plain name), status"] {
        let count = log.lines().filter(|line| line.contains(keys)).count();
        assert_eq!(count, 1, "{keys}: {log}");
    }
    assert_eq!(log.matches("has none of the keys").count(), 2, "{log}");
    assert!(!log.contains("hush") && !log.contains("1555000"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_connection_is_reused() {
    let service = RawServer::start().await;
    service.queue_bytes(
        HANDLER_REQUEST,
        kept_response(200, "text/plain", "hi"),
        ResponseEnd::Keep,
    );
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=10 {
        // Different texts, so that the loop detection does not block them.
        let answer = server.send(&Webhook::message(number, &format!("number {number}")));
        assert_eq!(answer.twiml(), twiml_message("hi"));
    }
    assert_eq!(service.requests().len(), 10);
    assert!(service.connections() < 10, "{}", service.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_service_connection_is_not_reused() {
    let service = RawServer::start().await;
    service.queue_bytes(
        HANDLER_REQUEST,
        kept_response(200, "text/plain", "hi"),
        ResponseEnd::Close,
    );
    let server = forwarding_to(service.url(), &[]);
    for number in 1..=10 {
        // Different texts, so that the loop detection does not block them.
        let answer = server.send(&Webhook::message(number, &format!("number {number}")));
        assert_eq!(answer.twiml(), twiml_message("hi"));
        service
            .wait_for_closed(usize::try_from(number).unwrap())
            .await;
    }
    assert_eq!(service.connections(), 10);
}

// The service closes the connection after reading the request and may have processed it.
#[tokio::test(flavor = "multi_thread")]
async fn lost_request_is_retried_only_by_fallback_call() {
    let service = RawServer::start().await;
    service.queue_bytes(
        HANDLER_REQUEST,
        kept_response(200, "text/plain", "hi"),
        ResponseEnd::Keep,
    );
    service.queue_bytes(HANDLER_REQUEST, "", ResponseEnd::Close);
    service.queue_bytes(
        HANDLER_REQUEST,
        kept_response(200, "text/plain", "again"),
        ResponseEnd::Keep,
    );
    let server = forwarding_to(service.url(), &[]);
    let first = server.send(&Webhook::message(1, "hi"));
    assert_eq!(first.twiml(), twiml_message("hi"));
    failure_log(&server, 2);
    assert_eq!(service.requests().len(), 2, "forward must not retry");
    let fallback = Webhook::message(2, "hi").to("/webhook/fallback");
    assert_eq!(server.send(&fallback).twiml(), twiml_message("again"));
    let requests = service.requests();
    assert!(
        requests[2].contains("replyhook-attempt: 2"),
        "{}",
        requests[2]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_service_times_out_and_connection_closes() {
    let service = RawServer::start().await;
    service.queue_bytes(HANDLER_REQUEST, "", ResponseEnd::Silence);
    let env = [("REPLYHOOK__HANDLER__TIMEOUT_MS", "300")];
    let server = forwarding_to(service.url(), &env);
    let line = failure_log(&server, 1);
    assert!(line.contains("longer than handler.timeout_ms"), "{line}");
    service.wait_for_closed(1).await;
}
