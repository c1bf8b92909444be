//! Memory limits for unverified requests, tested with the real binary over sockets.

use std::io::Write;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{Server, Wait, Webhook, twiml_message, wire};

const UNVERIFIED_BYTES: &str = "REPLYHOOK__SERVER__UNVERIFIED_BYTES";
const DROPPED: &str = "replyhook_unverified_requests_dropped_total";
/// Timeouts so long that only the budget ends a request.
const LONG_TIMEOUTS: [(&str, &str); 2] = [
    ("REPLYHOOK__SERVER__BODY_TIMEOUT_MS", "60000"),
    ("REPLYHOOK__SERVER__HEADER_TIMEOUT_MS", "60000"),
];
const FORGED_HEADERS: &str = "X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nContent-Type: application/x-www-form-urlencoded\r\n";
const BODY_BYTES: usize = 128 * 1024;

fn start(env: &[(&str, &str)]) -> Server {
    Server::start(&[&LONG_TIMEOUTS[..], env].concat())
}

/// Message with its own user.
fn message(number: u64, text: &str) -> Webhook {
    let from = format!("whatsapp:+1555000{number:04}");
    Webhook::message(number, text).with("From", &from)
}

/// Begins a request with an invalid signature, and sends this number of body bytes.
fn start_forged_request(server: &Server, bytes: usize) -> TcpStream {
    let mut stream = wire::connect(server.public);
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: h\r\n{FORGED_HEADERS}Content-Length: {BODY_BYTES}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'a'; bytes]).unwrap();
    stream
}

#[test]
fn budget_exceeded_drops_slowest_unverified_request() {
    let server = start(&[(UNVERIFIED_BYTES, "1048576")]);
    let mut slowest = start_forged_request(&server, 20 * 1024);
    sleep(Duration::from_millis(300));
    let large: Vec<_> = (0..8)
        .map(|_| start_forged_request(&server, 124 * 1024))
        .collect();
    sleep(Duration::from_millis(300));
    assert_eq!(server.metric(DROPPED), 0.0);
    let mut newest = start_forged_request(&server, 124 * 1024);
    let dropped = wire::read_response(&mut slowest).unwrap();
    assert_eq!(dropped.assert_rejected(503), "overloaded\n");
    assert_eq!(dropped.header("connection"), Some("close"));
    newest.write_all(&[b'a'; 4 * 1024]).unwrap();
    wire::read_response(&mut newest)
        .unwrap()
        .assert_rejected(403);
    assert!(server.metric(DROPPED) >= 1.0);
    server.wait_for("limit of unverified bytes reached");
    // Closed connections return their bytes to the budget, so as much fits again.
    drop(large);
    let wait = Wait::until("the connections are closed");
    while server.metric("replyhook_connections") > 2.0 {
        wait.check();
    }
    let dropped = server.metric(DROPPED);
    let _again: Vec<_> = (0..8)
        .map(|_| start_forged_request(&server, 124 * 1024))
        .collect();
    sleep(Duration::from_millis(300));
    assert_eq!(server.metric(DROPPED), dropped);
}

#[test]
fn small_messages_pass_without_any_budget() {
    let server = start(&[(UNVERIFIED_BYTES, "1")]);
    let text = "x".repeat(4096);
    for number in 0..20 {
        server.send(&message(number, &text)).twiml();
    }
    // A larger message needs the budget, so it gets 503 and does not reach the handler.
    let large = message(20, &"x".repeat(20_000));
    assert_eq!(server.send(&large).assert_rejected(503), "overloaded\n");
    let label = r#"{endpoint="primary",outcome="unavailable"}"#;
    assert_eq!(
        server.metric(&format!("replyhook_webhooks_total{label}")),
        1.0
    );
}

#[test]
fn verified_requests_and_discarded_bodies_take_no_budget() {
    let server = start(&[(UNVERIFIED_BYTES, "262144")]);
    for number in 0..10 {
        server.send(&message(number, &"x".repeat(60_000))).twiml();
    }
    // Without a signature header, the server discards the body as it reads it.
    let unsigned = format!(
        "POST /webhook HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {BODY_BYTES}\r\n\r\n{}",
        "a".repeat(BODY_BYTES - 1)
    );
    let _held: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = wire::connect(server.public);
            stream.write_all(unsigned.as_bytes()).unwrap();
            stream
        })
        .collect();
    server.send(&message(10, &"x".repeat(60_000))).twiml();
    assert_eq!(server.metric(DROPPED), 0.0);
}

/// Returns the bytes that an attacker sends on the connection with this number, to fill the server's memory.
type Shape = fn(usize) -> Vec<u8>;

fn bodies(_: usize) -> Vec<u8> {
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: h\r\n{FORGED_HEADERS}Content-Length: {BODY_BYTES}\r\n\r\n"
    );
    [head.into_bytes(), vec![b'a'; BODY_BYTES - 1]].concat()
}

fn chunks(number: usize) -> Vec<u8> {
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: h\r\n{FORGED_HEADERS}Transfer-Encoding: chunked\r\n\r\n"
    );
    // From 1 byte to 16 KiB.
    let size = 1 << (number % 15);
    let chunk = format!("{size:x}\r\n{}\r\n", "a".repeat(size));
    [
        head.into_bytes(),
        chunk.repeat((BODY_BYTES - 1) / size).into_bytes(),
    ]
    .concat()
}

fn heads(_: usize) -> Vec<u8> {
    let head = "GET /webhook HTTP/1.1\r\nHost: h\r\nX-A: ";
    [head.as_bytes(), &vec![b'a'; 65_000]].concat()
}

#[test]
fn floods_of_unverified_bytes_take_bounded_memory() {
    const CONNECTIONS: usize = 1000;
    let shapes: [(&str, Shape); 3] = [("bodies", bodies), ("chunks", chunks), ("heads", heads)];
    for (name, shape) in shapes {
        let server = start(&[
            (UNVERIFIED_BYTES, "16777216"),
            ("REPLYHOOK__SERVER__MAX_HEADER_BYTES", "65536"),
        ]);
        let before = server.resident();
        let mut held = Vec::new();
        for number in 0..CONNECTIONS {
            let mut stream = wire::connect(server.public);
            // The write fails if the server drops the request.
            let _ = stream.write_all(&shape(number));
            held.push(stream);
            if number % 50 == 0 {
                let good = server.send(&message(number as u64, "hi"));
                assert_eq!(good.twiml(), twiml_message("hi"), "{name}");
            }
        }
        let growth = server.peak_resident() - before;
        // Without a budget it would be 130 MB of bodies, or 65 MB of heads.
        assert!(growth < 72 * 1024, "{name}: {growth} kB");
        assert!(server.metric(DROPPED) > 0.0, "{name}");
    }
}
