//! Export of spans via OTLP with the feature `otel`, to a receiver on a socket.

#[cfg(not(feature = "otel"))]
#[test]
fn spans_are_exported_via_otlp() {
    crate::support::report_skipped("traces: built without the feature otel");
}

#[cfg(feature = "otel")]
#[test]
fn spans_are_exported_via_otlp() {
    use std::io::{Read, Write};

    use crate::support::{Server, Webhook, twiml_message};

    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", receiver.local_addr().unwrap());
    let request = std::thread::spawn(move || {
        // With a timeout, so that a missing request fails the test instead of blocking it.
        receiver.set_nonblocking(true).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut stream = loop {
            match receiver.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if std::time::Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("no trace was received: {error}"),
            }
        };
        stream.set_nonblocking(false).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(30)))
            .unwrap();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        // Read the head, and the body up to its Content-Length.
        loop {
            let read = stream.read(&mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&bytes);
            let Some(head) = text.find("\r\n\r\n") else {
                continue;
            };
            let length = text
                .to_lowercase()
                .find("content-length: ")
                .map(|at| &text[at + 16..]);
            let length: usize = length
                .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
                .unwrap();
            if read == 0 || bytes.len() >= head + 4 + length {
                break;
            }
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        bytes
    });
    let server = Server::start(&[("REPLYHOOK__TELEMETRY__OTLP_ENDPOINT", &endpoint)]);
    assert_eq!(
        server.send(&Webhook::message(1, "canary-text")).twiml(),
        twiml_message("canary-text")
    );
    server.signal(rustix::process::Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let bytes = request.join().unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for part in [
        "POST /v1/traces",
        "application/x-protobuf",
        "replyhook",
        "webhook",
        "endpoint",
        "primary",
        "request_id",
    ] {
        assert!(text.contains(part), "{part} is not in what was received");
    }
    assert!(!text.contains("canary-text") && !text.contains("15550001111"));
}
