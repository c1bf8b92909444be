//! Limits of the resources that an unverified client can use, in the real binary over TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{ORIGIN, Server, Webhook, twiml_message, wire};

fn start_server() -> Server {
    Server::start(&[])
}

/// Starts a server with one short timeout, for a test that waits for it.
fn start_with_short_timeout(timeout: &str) -> Server {
    Server::start(&[(timeout, "1000")])
}

/// Checks that the server still replies to a message.
fn assert_serving(server: &Server) {
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
}

fn send_raw(server: &Server, text: &str) -> Option<u16> {
    server.exchange(text.as_bytes()).map(|answer| answer.status)
}

// The declared length is checked first, and a chunked body is counted as it arrives.
#[test]
fn threat_15_body_over_limit_is_rejected_with_413() {
    let server = start_server();
    let limit = 128 * 1024;
    let rejected = server.exchange(format!("POST /webhook HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n", limit + 1).as_bytes()).unwrap();
    rejected.assert_rejected(413);
    assert_eq!(rejected.header("connection"), Some("close"));
    let mut chunked = b"POST /webhook HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n".to_vec();
    let chunk = vec![b'a'; 64 * 1024];
    for _ in 0..3 {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(&chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    server.exchange(&chunked).unwrap().assert_rejected(413);
    // The longest text that a channel carries, in characters of four bytes, fits.
    let longest = "😀".repeat(4096);
    assert!(
        server
            .send(&Webhook::message(2, &longest))
            .twiml()
            .contains("😀")
    );
    assert!(
        server.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="rejected_body"}"#)
            >= 2.0
    );
}

// A body that stops, and one that goes on with a byte every 200 ms: the limit applies to the whole body.
#[test]
fn threat_16_slow_body_times_out_with_408() {
    let server = start_with_short_timeout("REPLYHOOK__SERVER__BODY_TIMEOUT_MS");
    let webhook = Webhook::message(3, "hi").raw(ORIGIN);
    let mut stream = wire::connect(server.public);
    stream.write_all(&webhook[..webhook.len() - 10]).unwrap();
    let answer = wire::read_response(&mut stream).unwrap();
    answer.assert_rejected(408);
    assert!(wire::is_closed(&mut stream));
    let (head, body) = webhook.split_at(webhook.len() - 110);
    let mut stream = wire::connect(server.public);
    stream.write_all(head).unwrap();
    let answer = wire::trickle(&mut stream, &body[..100]).unwrap();
    answer.assert_rejected(408);
    assert!(wire::is_closed(&mut stream));
    assert_serving(&server);
}

// Covers a connection without a request, one with half a head, and an idle keep-alive connection.
#[test]
fn threat_17_idle_connection_is_closed() {
    let server = Server::start(&[
        ("REPLYHOOK__SERVER__HEADER_TIMEOUT_MS", "1000"),
        ("REPLYHOOK__SERVER__IDLE_TIMEOUT_S", "5"),
    ]);
    let mut idle = wire::connect(server.public);
    let mut half = wire::connect(server.public);
    half.write_all(b"POST /webhook HTTP/1.1\r\nHost: h\r\nX-A: ")
        .unwrap();
    let mut kept_alive = wire::connect(server.public);
    kept_alive
        .write_all(&Webhook::message(4, "hi").raw(ORIGIN))
        .unwrap();
    wire::read_response(&mut kept_alive).unwrap().twiml();
    for (what, stream) in [
        ("idle connect", &mut idle),
        ("half a head", &mut half),
        ("idle keep-alive", &mut kept_alive),
    ] {
        assert!(wire::is_closed(stream), "{what}");
    }
    assert_serving(&server);
}

// A byte every 200 ms prolongs nothing: the limit applies to the whole head, and empty lines before it belong to it.
#[test]
fn threat_17_slowly_sent_head_is_cut_off() {
    let server = start_with_short_timeout("REPLYHOOK__SERVER__HEADER_TIMEOUT_MS");
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: h\r\nX-A: {}",
        "a".repeat(60)
    );
    let mut stream = wire::connect(server.public);
    let response = wire::trickle(&mut stream, head.as_bytes());
    assert!(response.is_none_or(|response| response.status == 408));
    let mut kept_alive = wire::connect(server.public);
    kept_alive
        .write_all(&Webhook::message(4, "hi").raw(ORIGIN))
        .unwrap();
    wire::read_response(&mut kept_alive).unwrap().twiml();
    let response = wire::trickle(&mut kept_alive, "\r\n".repeat(50).as_bytes());
    assert!(response.is_none_or(|response| response.status == 408));
    assert_serving(&server);
}

// The client reads a byte every 200 ms. A window that opens so slowly lets the server write nothing.
#[test]
fn threat_17_slowly_read_response_is_cut_off() {
    let server = start_with_short_timeout("REPLYHOOK__SERVER__WRITE_TIMEOUT_MS");
    let request = Webhook::message(5, &"x".repeat(15_000)).raw(ORIGIN);
    let mut stream = wire::connect(server.public);
    // A write that waits this long means that responses fill every buffer between the two.
    stream
        .set_write_timeout(Some(wire::TRICKLE_INTERVAL))
        .unwrap();
    let (mut sent, mut bytes_read) = (0, 0);
    let error = loop {
        match stream.write(&request[sent % request.len()..]) {
            Ok(bytes) => {
                sent += bytes;
                assert!(
                    sent < 4096 * request.len(),
                    "the server buffers without a limit"
                );
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                assert!(
                    bytes_read < 100,
                    "the server waits for a client that reads slowly"
                );
                if let Err(error) = stream.read_exact(&mut [0]) {
                    break error;
                }
                bytes_read += 1;
            }
            Err(error) => break error,
        }
    };
    let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    assert!(closed.contains(&error.kind()), "{error}");
    assert_serving(&server);
}

#[test]
fn threat_17_connection_not_reading_responses_is_closed() {
    let server = start_with_short_timeout("REPLYHOOK__SERVER__WRITE_TIMEOUT_MS");
    // Long responses that the client does not read fill every buffer between the two. Then the server closes.
    let webhook = Webhook::message(5, &"x".repeat(15_000)).raw(ORIGIN);
    let mut stream = wire::connect(server.public);
    let error = (0..4096).find_map(|_| stream.write_all(&webhook).err());
    let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    let error = error.map(|error| error.kind());
    assert!(
        error.is_some_and(|kind| closed.contains(&kind)),
        "the server waits for a client that reads no responses: {error:?}"
    );
    assert_serving(&server);
}

// At `server.max_connections` the server evicts unverified connections. The verified ones still get responses.
#[test]
fn threat_18_connection_flood_leaves_admin_listener_responsive() {
    let server = Server::start(&[("REPLYHOOK__SERVER__MAX_CONNECTIONS", "8")]);
    let mut live: Vec<_> = (0..4).map(|_| wire::connect(server.public)).collect();
    for stream in &mut live {
        stream
            .write_all(&Webhook::message(1, "hi").raw(ORIGIN))
            .unwrap();
        wire::read_response(stream).unwrap().twiml();
    }
    let flood: Vec<_> = (0..100).map(|_| wire::connect(server.public)).collect();
    assert_eq!(server.get("/livez").body, "ok\n");
    assert_eq!(server.get("/readyz").status, 200);
    for stream in &mut live {
        stream
            .write_all(&Webhook::message(2, "still here").raw(ORIGIN))
            .unwrap();
        assert_eq!(
            wire::read_response(stream).unwrap().twiml(),
            twiml_message("still here")
        );
    }
    assert!(server.metric("replyhook_connections") <= 8.0);
    drop((flood, live));
    assert_eq!(
        server.send(&Webhook::message(3, "hi")).twiml(),
        twiml_message("hi")
    );
}

#[test]
fn threat_19_oversized_headers_get_431_and_uri_414() {
    let server = start_server();
    let head = |headers: &str| {
        format!("POST /webhook HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: 0\r\n\r\n")
    };
    let many: String = (0..70).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(send_raw(&server, &head(&many)), Some(431));
    assert_eq!(
        send_raw(
            &server,
            &head(&format!("X-A: {}\r\n", "a".repeat(64 * 1024)))
        ),
        Some(431)
    );
    server.wait_for(
        "choose POST for the webhook in Twilio's console, or raise server.max_header_bytes",
    );
    let long = format!(
        "POST /webhook?{} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "a".repeat(48 * 1024)
    );
    assert_eq!(send_raw(&server, &long), Some(414));
    assert_eq!(
        send_raw(
            &server,
            &format!(
                "GET /webhook?{} HTTP/1.1\r\nHost: h\r\n\r\n",
                "a".repeat(60_000)
            )
        ),
        Some(414)
    );
    server
        .wait_for("exceed server.max_uri_bytes; choose POST for this webhook in Twilio's console");
    assert_serving(&server);
}

// Percent-encoding triples the bytes of a text, and a referral has further URLs and texts.
#[test]
fn long_message_by_get_is_answered() {
    let server = start_server();
    let text = "😀".repeat(1600);
    let answer = server.send(&Webhook::message(1, &text).get());
    assert!(answer.twiml().contains("😀"));
    let text = "नमस्ते ".repeat(230);
    let referral = Webhook::message(2, &text)
        .with("ReferralSourceType", "ad")
        .with("ReferralSourceId", "120225000000000000")
        .with(
            "ReferralSourceUrl",
            &format!("https://fb.me/{}", "x".repeat(2000)),
        )
        .with(
            "ReferralMediaUrl",
            &format!("https://scontent.example/{}", "%C3".repeat(1500)),
        )
        .with("ReferralHeadline", &"\u{6f22}".repeat(500))
        .with("ReferralBody", &"\u{6f22}".repeat(1000));
    let request = referral.get();
    assert!(request.target.len() > 32 * 1024, "{}", request.target.len());
    assert!(server.send(&request).twiml().contains("नमस्ते"));
    let log = server.log();
    assert!(!log.contains("rejected"), "{log}");
}

// A proxy and this server could read such a request differently (request smuggling).
#[test]
fn threat_30_ambiguous_request_framing_is_rejected() {
    let server = start_server();
    let good = Webhook::message(6, "hi");
    let body = String::from_utf8(good.bytes()).unwrap();
    let signed = format!(
        "X-Twilio-Signature: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        good.signature_for(ORIGIN)
    );
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let post = |headers: &str, body: &str| {
        send_raw(
            &server,
            &format!("POST /webhook HTTP/1.1\r\n{headers}\r\n{body}"),
        )
    };
    let host = "Host: h\r\n";
    for (what, headers, body) in [
        (
            "two lengths",
            format!(
                "{host}{signed}Content-Length: {length}\r\nContent-Length: {}\r\n",
                length + 1
            ),
            body.as_str(),
        ),
        (
            "a length and an encoding",
            format!("{host}{signed}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
            &chunked,
        ),
        (
            "an invalid length",
            format!("{host}{signed}Content-Length: x\r\n"),
            &body,
        ),
        (
            "an unknown encoding",
            format!("{host}{signed}Transfer-Encoding: gzip\r\n"),
            &chunked,
        ),
        (
            "an encoding that hides another",
            format!("{host}{signed}Transfer-Encoding: xchunked\r\n"),
            &chunked,
        ),
        (
            "a folded header",
            format!("{host}{signed}X-A: b\r\n c\r\nContent-Length: {length}\r\n"),
            &body,
        ),
        (
            "a space before the colon",
            format!("{host}{signed}X-A : b\r\nContent-Length: {length}\r\n"),
            &body,
        ),
        (
            "a NUL",
            format!("{host}{signed}X-A: \0\r\nContent-Length: {length}\r\n"),
            &body,
        ),
        (
            "two Hosts",
            format!("{host}Host: evil\r\n{signed}Content-Length: {length}\r\n"),
            &body,
        ),
        (
            "an invalid chunk size",
            format!("{host}{signed}Transfer-Encoding: chunked\r\n"),
            "zz\r\n",
        ),
    ] {
        assert!(matches!(post(&headers, body), Some(400) | None), "{what}");
    }
    assert_serving(&server);
}

#[test]
fn transfer_encodings_other_than_chunked_are_501() {
    let server = start_server();
    let good = Webhook::message(6, "hi");
    let body = String::from_utf8(good.bytes()).unwrap();
    let signature = good.signature_for(ORIGIN);
    let request = |encoding: &str| {
        let length = body.len();
        let text = format!(
            "POST /webhook HTTP/1.1\r\nHost: h\r\nX-Twilio-Signature: {signature}\r\nContent-Type: application/x-www-form-urlencoded\r\n{encoding}\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        );
        server.exchange(text.as_bytes()).unwrap()
    };
    for encoding in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: , chunked\r\n",
    ] {
        let response = request(encoding);
        assert_eq!(response.status, 501, "{encoding}");
        assert_eq!(response.header("connection"), Some("close"), "{encoding}");
    }
    assert_eq!(
        request("Transfer-Encoding: Chunked\r\n").twiml(),
        twiml_message("hi")
    );
}

#[test]
fn request_head_over_exact_limit_gets_431() {
    let server = start_server();
    let head = |bytes: usize| {
        let (begin, end) = ("GET /x HTTP/1.1\r\nHost: h\r\nX-A: ", "\r\n\r\n");
        let filling = "a".repeat(bytes - begin.len() - end.len());
        format!("{begin}{filling}{end}")
    };
    for (bytes, status) in [(65_536, 404), (65_537, 431), (81_920, 431), (200_000, 431)] {
        assert_eq!(send_raw(&server, &head(bytes)), Some(status), "{bytes}");
        // The same head in pieces: each of them could be the last that fits.
        let mut stream = wire::connect(server.public);
        for piece in head(bytes).as_bytes().chunks(1000) {
            let _ = stream.write_all(piece);
        }
        let response = wire::read_response(&mut stream);
        assert_eq!(
            response.map(|response| response.status),
            Some(status),
            "{bytes}"
        );
    }
}

#[test]
fn threat_31_non_http_1_request_is_rejected() {
    let server = start_server();
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /webhook HTTP/9.9\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ] {
        let answer = server.exchange(bytes).map(|answer| answer.status);
        assert!(matches!(answer, Some(400 | 505) | None), "{answer:?}");
    }
    assert_serving(&server);
}

// A server without HTTP/2 is not vulnerable to HTTP/2 floods.
#[test]
fn threat_32_http_2_is_not_supported() {
    let server = start_server();
    let mut upgrade = Webhook::message(7, "hi");
    upgrade = upgrade
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA");
    let answer = server.send(&upgrade);
    assert_eq!(answer.twiml(), twiml_message("hi"));
    let preface = server
        .exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .map(|answer| answer.status);
    assert!(matches!(preface, Some(400 | 505) | None), "{preface:?}");
    let lock = crate::support::read("Cargo.lock");
    assert!(!lock.contains("name = \"h2\"\n"), "a crate enables HTTP/2");
}

#[test]
fn threat_63_file_descriptor_exhaustion_leaves_health_checks_working() {
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=96:96", env!("CARGO_BIN_EXE_replyhook")]);
    if Command::new("prlimit").arg("--version").output().is_err() {
        return crate::support::report_missing("file descriptors running out: prlimit");
    }
    let server = Server::start_by(limited, &[]);
    server.wait_for("fewer connections than server.max_connections");
    let flood: Vec<_> = (0..200).map(|_| wire::connect(server.public)).collect();
    for _ in 0..5 {
        assert_eq!(server.get("/livez").status, 200);
        assert_eq!(server.get("/readyz").status, 200);
    }
    drop(flood);
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    assert_eq!(server.metric("replyhook_accept_errors_total"), 0.0);
}

/// Reads a counter over an open connection to the private listener.
fn read_counter(admin: &mut TcpStream, series: &str) -> f64 {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    admin.write_all(request).unwrap();
    let text = wire::read_response(admin).unwrap().body;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

// The limit is lowered while the server runs. Otherwise the server would derive its connection limit from it, and
// would never run out of descriptors.
#[test]
fn threat_63_accept_without_descriptors_pauses_and_recovers() {
    let server = start_server();
    let mut live = wire::connect(server.public);
    let mut exchange = |number: u64, text: &str| {
        let webhook = Webhook::message(number, text);
        live.write_all(&webhook.raw(ORIGIN)).unwrap();
        let response = wire::read_response(&mut live).unwrap();
        assert_eq!(response.twiml(), twiml_message(text));
    };
    exchange(2, "before");
    let mut admin = wire::connect(server.private);
    let errors = "replyhook_accept_errors_total";
    assert_eq!(read_counter(&mut admin, errors), 0.0);
    server.set_descriptor_limit(64);
    let began = Instant::now();
    let flood: Vec<_> = (0..100).map(|_| wire::connect(server.public)).collect();
    server.wait_for("could not accept a connection");
    // Open connections are served. A failed accept pauses for 50 ms, so the number of errors is limited by the time.
    let mut failed = 0.0;
    while failed < 5.0 {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{failed} errors: the server no longer accepts"
        );
        failed = read_counter(&mut admin, errors);
        let most = began.elapsed().as_secs_f64() / 0.05 + 2.0;
        assert!(failed <= most, "{failed} errors: the accept loop spins");
    }
    exchange(3, "without descriptors");
    drop(flood);
    assert_serving(&server);
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn stalled_unverified_requests_do_not_block_verified_ones() {
    let server = Server::start(&[
        ("REPLYHOOK__SERVER__MAX_IN_FLIGHT", "2"),
        ("REPLYHOOK__SERVER__BODY_TIMEOUT_MS", "60000"),
    ]);
    let stalled = |path: &str, signature: &str| {
        let mut stream = wire::connect(server.public);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\n{signature}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nBody="
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let forged = "X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n";
    let _held: Vec<_> = (0..80)
        .map(|n| {
            stalled(
                ["/webhook", "/webhook/fallback"][n % 2],
                ["", forged][n / 2 % 2],
            )
        })
        .collect();
    server.wait_until("replyhook_requests_in_flight", 80.0);
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    assert_eq!(
        server
            .send(&Webhook::message(2, "hi").to("/webhook/fallback"))
            .twiml(),
        twiml_message("hi")
    );
}

// The requests are built so that explaining their signatures could take long.
#[test]
fn forgery_costly_to_explain_is_rejected() {
    let server = Server::start(&[("REPLYHOOK__SERVER__MAX_HEADER_BYTES", "65536")]);
    let hosts: String = (0..2000).map(|n| format!("host=h{n}:{n};")).collect();
    let many: String = (0..500).map(|n| format!("{n}=&")).collect();
    let long = Webhook::message(1, &"x".repeat(100_000));
    for webhook in [
        long.clone().header("Forwarded", &hosts),
        long.clone()
            .header("X-Forwarded-Host", &"a.b, ".repeat(4000))
            .header("X-Forwarded-Prefix", &"/p,".repeat(5000)),
        long.body(many),
        Webhook::message(2, "hi").to(&format!("/webhook?{}", "a=%20&".repeat(600))),
        Webhook::message(3, "hi").to(&format!("/webhook?{}", "/".repeat(4000))),
    ] {
        for _ in 0..3 {
            let forged = webhook.clone().signature("AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
            assert_eq!(server.send(&forged).status, 403);
        }
    }
    assert_serving(&server);
}

// The HTTP layer rejects it before any endpoint.
#[test]
fn malformed_request_is_counted_and_logged() {
    let server = start_server();
    for head in [
        "Host: a\r\nHost: b\r\n",
        "",
        &format!("Host: h\r\nX-A: {}\r\n", "a".repeat(64 * 1024)),
    ] {
        let status = send_raw(&server, &format!("POST /webhook HTTP/1.1\r\n{head}\r\n"));
        assert!(matches!(status, Some(400 | 431)), "{status:?}");
    }
    server.wait_for("the request is malformed");
    server.wait_until("replyhook_malformed_requests_total", 3.0);
}

// The connection stays open for the next request.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start_server();
    let mut stream = wire::connect(server.public);
    let both = [
        Webhook::message(8, "first").raw(ORIGIN),
        Webhook::message(9, "second").raw(ORIGIN),
    ]
    .concat();
    stream.write_all(&both).unwrap();
    for text in ["first", "second"] {
        let answer = wire::read_response(&mut stream).unwrap();
        assert_eq!(answer.twiml(), twiml_message(text));
        assert_eq!(
            answer.header("content-length"),
            Some(answer.body.len().to_string().as_str())
        );
    }
}

#[test]
fn admin_endpoints_on_public_listener_get_404() {
    let server = start_server();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(
            send_raw(&server, &format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")),
            Some(404)
        );
        assert_eq!(server.get(path).status, 200);
    }
}

// `fault-bot` never completes the first attempt of a message with the text "hang".
#[cfg(feature = "failpoints")]
#[test]
fn stuck_handlers_at_limit_use_bounded_memory() {
    const STUCK: u64 = 2000;
    let limit = STUCK.to_string();
    let server = Server::start_by(
        Command::new(env!("CARGO_BIN_EXE_fault-bot")),
        &[
            ("REPLYHOOK__HANDLER__MAX_CONCURRENT", &limit),
            ("REPLYHOOK__REPLY__DEADLINE_MS", "1"),
        ],
    );
    let message = |number: u64| {
        let from = format!("whatsapp:+1555000{number:04}");
        Webhook::message(number, "hang").with("From", &from)
    };
    let before = server.resident();
    std::thread::scope(|scope| {
        for part in 0..8 {
            let (server, message) = (&server, &message);
            scope.spawn(move || {
                for number in (part..STUCK).step_by(8) {
                    server.send(&message(number)).twiml();
                }
            });
        }
    });
    server.wait_until("replyhook_handlers_running", 2000.0);
    let growth = server.resident().saturating_sub(before);
    // 24 kB for each message and its task.
    assert!(growth < STUCK * 24, "{growth} kB");
    let rejected = server.send(&message(STUCK));
    assert_eq!(rejected.assert_rejected(503), "overloaded\n");
    assert_eq!(server.get("/livez").status, 200);
}
