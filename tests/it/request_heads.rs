//! Heads of requests over raw sockets: control characters that are tolerated, and framing that a proxy could read
//! differently (request smuggling).

use std::io::Write;

use crate::support::{HttpResponse, ORIGIN, Server, Webhook, twiml_message, wire};

/// Returns the lines of a signed message that are the same in every test, and its body.
fn signed(number: u64, text: &str) -> (String, String) {
    let webhook = Webhook::message(number, text);
    let lines = format!(
        "X-Twilio-Signature: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        webhook.signature_for(ORIGIN)
    );
    (lines, webhook.form.encode())
}

/// Returns a message with a further header.
fn with_header(number: u64, text: &str, line: &str) -> Vec<u8> {
    let (lines, body) = signed(number, text);
    let length = body.len();
    format!("POST /webhook HTTP/1.1\r\nHost: h\r\n{lines}{line}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn send(server: &Server, bytes: &[u8]) -> Option<HttpResponse> {
    server.exchange(bytes)
}

/// Sends bytes in pieces, and returns the response.
fn send_in_pieces(server: &Server, bytes: &[u8], size: usize) -> Option<HttpResponse> {
    let mut stream = wire::connect(server.public);
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(size) {
        let _ = stream.write_all(piece);
    }
    wire::read_response(&mut stream)
}

// Spoke #993: Twilio copied a reaction into a header that no program reads.
#[test]
fn control_character_in_uninterpreted_header_is_tolerated() {
    let server = Server::start(&[]);
    for (number, line) in (1..).zip([
        "X-Twilio-Body: Liked \x1cHi",
        "X-A: \x01\x02\x7f",
        "x-a:\x0b",
        "Accept: */*\x1f",
        "X-Twilio-Idempotency-Token: \x08",
    ]) {
        let request = with_header(number, "hi", line);
        let answer = send(&server, &request).unwrap();
        assert_eq!(answer.twiml(), twiml_message("hi"), "{line:?}");
    }
    // In any number of reads.
    let request = with_header(20, "hi", "X-A: a\x1cb\x01");
    for size in [1, 2, 7] {
        let answer = send_in_pieces(&server, &request, size).unwrap();
        assert_eq!(answer.twiml(), twiml_message("hi"), "{size}");
    }
    // In every request of a pipeline, while bodies stay as they are: a changed one would not verify.
    let text = "X-A: \x01\r\n\r\nGET / HTTP/1.1\r\nX-B: \x02";
    let (lines, _) = signed(21, text);
    let raw: String = {
        let form = Webhook::message(21, text).form;
        let pairs = form.iter().map(|(name, value)| {
            let value = value.replace('+', "%2B").replace(' ', "+");
            format!("{name}={value}")
        });
        pairs.collect::<Vec<_>>().join("&")
    };
    let first = format!(
        "POST /webhook HTTP/1.1\r\nHost: h\r\n{lines}X-A: \x03\r\nContent-Length: {}\r\n\r\n{raw}",
        raw.len()
    );
    let both = [first.into_bytes(), with_header(22, "second", "X-B: \x04")].concat();
    let mut stream = wire::connect(server.public);
    stream.write_all(&both).unwrap();
    let answer = wire::read_response(&mut stream).unwrap();
    assert!(answer.twiml().contains("GET / HTTP/1.1"), "{}", answer.body);
    let answer = wire::read_response(&mut stream).unwrap();
    assert_eq!(answer.twiml(), twiml_message("second"));
    let log = server.log();
    assert!(!log.contains("rejected"), "{log}");
}

#[test]
fn control_character_elsewhere_in_head_is_rejected() {
    let server = Server::start(&[]);
    for line in [
        "Connection: keep-alive\x01",
        "Upgrade: \x01",
        "Expect: \x01",
        "Trailer: X-A\x01",
        "X-Twilio-Webhooks-Signature: \x01",
        "X-A\x01: b",
        "X-\x01A: b",
        "\x01X-A: b",
        "X-A: b\r\n \x01folded",
        "X-A: b\x01\r\n\tfolded",
        "X-A : \x01",
        "X-A: bare\rCR",
        "X-A: \x01bare\rCR",
        "X-A: NUL\0",
        "X-A: \x01NUL\0",
    ] {
        let answer = send(&server, &with_header(1, "hi", line));
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{line:?}");
    }
    let (lines, body) = signed(1, "hi");
    let length = body.len();
    for head in [
        format!("POST /webhook\x01 HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {length}\r\n"),
        format!("POST /webhook HTTP/1.1\r\nHost: h\x01\r\n{lines}Content-Length: {length}\r\n"),
        format!("POST /webhook HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {length}\x01\r\n"),
        format!("POST /webhook HTTP/1.1\r\nHost: h\r\n{lines}Transfer-Encoding: \x0bchunked\r\n"),
        format!(
            "POST /webhook HTTP/1.1\r\nHost: h\r\n{}Content-Length: {length}\r\n",
            lines.replacen(": ", ": \x01", 1)
        ),
    ] {
        let answer = send(&server, format!("{head}\r\n{body}").as_bytes());
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{head:?}");
    }
}

/// A request that this server and a proxy could separate differently, followed by one that would then be smuggled in.
struct Variant {
    name: &'static str,
    headers: String,
    body: String,
}

/// Each variant once as it is, and once with a control character that the server tolerates.
fn variants() -> Vec<Variant> {
    let (lines, body) = signed(30, "hi");
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let variant = |name, headers: &str, body: &str| Variant {
        name,
        headers: format!("{lines}{headers}"),
        body: body.to_owned(),
    };
    let length_line = format!("Content-Length: {length}\r\n");
    vec![
        variant(
            "TE.TE",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            &chunked,
        ),
        variant(
            "TE with a prefix",
            "Transfer-Encoding: xchunked\r\n",
            &chunked,
        ),
        variant(
            "TE list",
            "Transfer-Encoding: chunked, identity\r\n",
            &chunked,
        ),
        variant(
            "TE with a tab",
            "Transfer-Encoding:\x0bchunked\r\n",
            &chunked,
        ),
        variant(
            "TE with a space before the colon",
            "Transfer-Encoding : chunked\r\n",
            &chunked,
        ),
        variant("TE folded", "Transfer-Encoding:\r\n chunked\r\n", &chunked),
        variant(
            "TE behind a folded line",
            "X-A: b\r\n Transfer-Encoding: chunked\r\n",
            &chunked,
        ),
        variant(
            "TE behind a bare CR",
            "X-A: b\rTransfer-Encoding: chunked\r\n",
            &chunked,
        ),
        variant(
            "TE behind NUL",
            "X-A: b\0Transfer-Encoding: chunked\r\n",
            &chunked,
        ),
        variant(
            "two lengths",
            &format!("{length_line}Content-Length: 0\r\n"),
            &body,
        ),
        variant(
            "length list",
            &format!("Content-Length: {length}, 0\r\n"),
            &body,
        ),
        variant(
            "length with a sign",
            &format!("Content-Length: +{length}\r\n"),
            &body,
        ),
        variant(
            "length in hexadecimal",
            &format!("Content-Length: 0x{length:x}\r\n"),
            &body,
        ),
        variant(
            "length with a fraction",
            &format!("Content-Length: {length}.0\r\n"),
            &body,
        ),
        variant(
            "length folded",
            &format!("Content-Length:\r\n {length}\r\n"),
            &body,
        ),
        variant(
            "length with a space before the colon",
            &format!("Content-Length : {length}\r\n"),
            &body,
        ),
        variant(
            "chunk size with a sign",
            "Transfer-Encoding: chunked\r\n",
            &format!("+{chunked}"),
        ),
        variant(
            "chunk size with 0x",
            "Transfer-Encoding: chunked\r\n",
            &format!("0x{chunked}"),
        ),
        variant(
            "chunk size empty",
            "Transfer-Encoding: chunked\r\n",
            &format!("\r\n{chunked}"),
        ),
        variant(
            "chunk size too large",
            "Transfer-Encoding: chunked\r\n",
            &format!("1{}{chunked}", "0".repeat(16)),
        ),
        variant(
            "chunk size with a trailing space",
            "Transfer-Encoding: chunked\r\n",
            &format!("{length:x} \r\n{body}\r\n0\r\n\r\n"),
        ),
        variant(
            "chunk size with a trailing tab",
            "Transfer-Encoding: chunked\r\n",
            &format!("{length:x}\t\r\n{body}\r\n0\r\n\r\n"),
        ),
        variant(
            "last chunk size with a trailing space",
            "Transfer-Encoding: chunked\r\n",
            &format!("{length:x}\r\n{body}\r\n0 \r\n\r\n"),
        ),
        variant(
            "chunk longer than its size",
            "Transfer-Encoding: chunked\r\n",
            &format!("1\r\n{body}\r\n0\r\n\r\n"),
        ),
        variant(
            "chunk extension with a line feed",
            "Transfer-Encoding: chunked\r\n",
            &format!("{length:x};\n{body}\r\n0\r\n\r\n"),
        ),
    ]
}

#[test]
fn smuggling_variants_never_yield_a_second_response() {
    let server = Server::start(&[]);
    for Variant {
        name,
        headers,
        body,
    } in variants()
    {
        for extra in ["", "X-Tolerated: \x01\r\n"] {
            let mut stream = wire::connect(server.public);
            let request =
                format!("POST /webhook HTTP/1.1\r\nHost: h\r\n{extra}{headers}\r\n{body}");
            let smuggled = with_header(31, "smuggled", "X-B: \x01");
            let _ = stream.write_all(&[request.into_bytes(), smuggled].concat());
            let answer = wire::read_response(&mut stream);
            let status = answer.map(|answer| answer.status);
            assert!(
                matches!(status, Some(400 | 501) | None),
                "{name}: {status:?}"
            );
            // The connection is closed, and nothing behind the ambiguous request is read as a request.
            assert!(wire::read_response(&mut stream).is_none(), "{name}");
        }
    }
    let smuggled = server.send(&Webhook::message(31, "smuggled"));
    assert_eq!(smuggled.twiml(), twiml_message("smuggled"));
    // Otherwise this was a redelivery.
    let metrics = server.get("/metrics").body;
    let duplicates = r#"replyhook_webhooks_total{endpoint="primary",outcome="duplicate"}"#;
    let mut lines = metrics.lines().filter(|line| line.starts_with(duplicates));
    assert!(lines.all(|line| line.ends_with(" 0")), "{metrics}");
}

// CL.TE and TE.CL, two lengths, and a header that only a reader of bare LF sees: a proxy may read each in another way.
#[test]
fn ambiguous_head_is_rejected_and_nothing_behind_it_is_read() {
    let server = Server::start(&[]);
    let (lines, body) = signed(40, "hi");
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("Content-Length: {}\r\n", body.len());
    let encoding = "Transfer-Encoding: chunked\r\n";
    let start = "POST /webhook HTTP/1.1\r\nHost: h\r\n";
    for (head, body, fault) in [
        (
            format!("{start}{lines}{length}{encoding}\r\n"),
            &chunked,
            "together with Transfer-Encoding",
        ),
        (
            format!("{start}{lines}{encoding}X-A: \x01\r\n{length}\r\n"),
            &chunked,
            "together with Transfer-Encoding",
        ),
        (
            format!("{start}{lines}{length}{length}\r\n"),
            &body,
            "comes twice",
        ),
        (
            format!("{start}{lines}X-A: b\n{length}\r\n"),
            &body,
            "LF alone",
        ),
        (
            format!("{start}{lines}{length}X-A: b\n{encoding}\r\n"),
            &chunked,
            "LF alone",
        ),
        (
            format!("{start}{lines}{length}\r\n").replace("\r\n", "\n"),
            &body,
            "LF alone",
        ),
        (format!("{start}{lines}{length}\n"), &body, "LF alone"),
        (
            format!("{start}Transfer-Encoding : chunked\r\n{lines}\r\n"),
            &chunked,
            "invalid name",
        ),
        (
            format!("{start}Connection: a\x01\r\n{lines}{length}\r\n"),
            &body,
            "the header Connection",
        ),
    ] {
        let mut stream = wire::connect(server.public);
        let smuggled = with_header(41, "smuggled", "X-B: \x01");
        let _ = stream.write_all(
            &[
                head.clone().into_bytes(),
                body.clone().into_bytes(),
                smuggled,
            ]
            .concat(),
        );
        let answer = wire::read_response(&mut stream).unwrap();
        assert_eq!(answer.status, 400, "{head:?}");
        assert!(wire::read_response(&mut stream).is_none(), "{head:?}");
        let lines = server.wait_for_new(0, |line| line.contains(fault));
        assert!(!lines.is_empty(), "{head:?}");
    }
    // In any number of reads.
    let request = format!("{start}{lines}X-A: b\n{length}\r\n{body}");
    for size in [1, 2, 7] {
        let answer = send_in_pieces(&server, request.as_bytes(), size);
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{size}");
    }
    let smuggled = server.send(&Webhook::message(41, "smuggled"));
    assert_eq!(smuggled.twiml(), twiml_message("smuggled"));
}

// Chunks are read as they are sent, in any number of reads. RFC 9112 allows white space before an extension.
#[test]
fn white_space_after_chunk_size_is_rejected() {
    let server = Server::start(&[]);
    let request = |number, size: &str, last: &str| {
        let (lines, body) = signed(number, "hi");
        let (first, rest) = body.split_at(20);
        let size = size.replace('N', &format!("{:x}", rest.len()));
        format!(
            "POST /webhook HTTP/1.1\r\nHost: h\r\n{lines}Transfer-Encoding: chunked\r\n\r\n\
             14\r\n{first}\r\n{size}\r\n{rest}\r\n{last}\r\n\r\n"
        )
        .into_bytes()
    };
    for (number, (size, last)) in (60..).zip([("N", "0"), ("0N ; a = b ", "0"), ("N;a", "000;b")]) {
        let answer = send(&server, &request(number, size, last)).unwrap();
        assert_eq!(answer.twiml(), twiml_message("hi"), "{size}");
        let answer = send_in_pieces(&server, &request(number + 10, size, last), 1).unwrap();
        assert_eq!(answer.twiml(), twiml_message("hi"), "{size}");
    }
    for (size, last) in [("N ", "0"), ("N\t ", "0"), ("N", "0 ")] {
        for piece in [1, 7, 9999] {
            let answer = send_in_pieces(&server, &request(90, size, last), piece).unwrap();
            assert_eq!(answer.status, 400, "{size:?} {last:?}");
        }
    }
    server.wait_for("the size of a chunk is followed by white space");
}

// hyper's own responses have no body.
#[test]
fn rejected_head_gets_reason_as_plain_text() {
    let server = Server::start(&[]);
    let long = "x".repeat(70_000);
    for (request, status, reason) in [
        (
            "GET / HTTP/1.1\r\nHost: h\r\nX-A\x01: b\r\n\r\n".to_owned(),
            400,
            "a header has an invalid name, or is folded",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\nX-A: b\r\n\r\n".to_owned(),
            400,
            "a line of the head ends with LF alone, without CR",
        ),
        (
            "G\x01T / HTTP/1.1\r\n\r\n".to_owned(),
            400,
            "the request is not valid HTTP/1.1",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\nX-A: {long}\r\n\r\n"),
            431,
            "the head of the request has too many bytes or headers",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
                "X-A: b\r\n".repeat(99)
            ),
            431,
            "the head of the request has too many bytes or headers",
        ),
    ] {
        // The second head of a connection too.
        for before in ["", "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"] {
            let address = if before.is_empty() {
                server.public
            } else {
                server.private
            };
            let mut stream = wire::connect(address);
            if !before.is_empty() {
                stream.write_all(before.as_bytes()).unwrap();
                assert_eq!(wire::read_response(&mut stream).unwrap().status, 200);
            }
            let _ = stream.write_all(request.as_bytes());
            let answer = wire::read_response(&mut stream).unwrap();
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (status, format!("{reason}\n").as_str())
            );
            let content_type = answer.header("content-type");
            assert_eq!(content_type, Some("text/plain; charset=utf-8"));
            assert!(
                wire::read_response(&mut stream).is_none(),
                "the connection is closed"
            );
        }
    }
}
