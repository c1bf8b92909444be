//! Connections of unverified clients next to those of Twilio, to the real binary over TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::http::{Listener, http_response};
use crate::support::{ORIGIN, Server, StopOnDrop, Webhook, twiml_message, wire};

/// Secret of 24 bytes, the minimum length.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const MAX_CONNECTIONS: &str = "REPLYHOOK__SERVER__MAX_CONNECTIONS";
const IDLE_TIMEOUT: &str = "REPLYHOOK__SERVER__IDLE_TIMEOUT_S";
const HEADER_TIMEOUT: &str = "REPLYHOOK__SERVER__HEADER_TIMEOUT_MS";
const REJECTED_REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
const HALF_HEAD: &[u8] = b"GET /x HTTP/1.1\r\nHost: h\r\nX-A: ";

/// Returns an idle connection that has carried a verified request.
fn connect_verified(server: &Server, number: u64) -> TcpStream {
    let mut stream = wire::connect(server.public);
    send_message(&mut stream, number);
    stream
}

/// Creates the message with this number. Each number has its own user.
fn message(number: u64) -> Webhook {
    let from = format!("whatsapp:+1555000{number:04}");
    Webhook::message(number, "hi").with("From", &from)
}

/// Sends a signed message, and checks its reply.
fn send_message(stream: &mut TcpStream, number: u64) {
    let webhook = message(number).raw(ORIGIN);
    stream.write_all(&webhook).unwrap();
    let response = wire::read_response(stream).expect("the signed message is answered");
    assert_eq!(response.twiml(), twiml_message("hi"));
}

/// Returns true if the connection is open now. Does not wait for the server to close it.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Discards the bytes that have arrived. Returns false if the server has closed the connection.
fn drain_responses(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let is_open = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    is_open
}

fn evicted_count(server: &Server) -> f64 {
    server.metric("replyhook_connections_evicted_total")
}

/// A server whose bot replies to one message for each value sent to `release`.
struct BlockedServer {
    server: Server,
    release: mpsc::Sender<()>,
    handler_calls: mpsc::Receiver<()>,
    _service: Listener,
}

impl BlockedServer {
    fn start(env: &[(&str, &str)]) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (call_sender, calls) = mpsc::channel();
        let (call_sender, released) = (
            std::sync::Mutex::new(call_sender),
            std::sync::Mutex::new(released),
        );
        let service = Listener::start(None, move |_| {
            call_sender.lock().unwrap().send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            http_response(200, &[("Content-Type", "text/plain")], "hi")
        });
        let url = format!("http://{}/", service.address);
        let base_env = [
            ("REPLYHOOK__HANDLER__KIND", "forward"),
            ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
            ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
        ];
        Self {
            server: Server::start(&[&base_env[..], env].concat()),
            release,
            handler_calls: calls,
            _service: service,
        }
    }
}

/// Sends rejected requests repeatedly, and reopens connections that the server has closed.
fn flood(address: SocketAddr, connections: usize, stop: &AtomicBool) {
    let mut streams: Vec<Option<TcpStream>> = (0..connections).map(|_| None).collect();
    while !stop.load(Ordering::SeqCst) {
        for stream in &mut streams {
            let open = stream.get_or_insert_with(|| wire::connect(address));
            if open.write_all(REJECTED_REQUEST).is_err() || !drain_responses(open) {
                *stream = None;
            }
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn rejected_flood_over_limit_lets_messages_through() {
    let server = Server::start(&[(MAX_CONNECTIONS, "32")]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..4 {
            scope.spawn(|| flood(server.public, 16, &stop));
        }
        for number in 0..50 {
            assert_eq!(server.send(&message(number)).twiml(), twiml_message("hi"));
        }
    });
}

#[test]
fn silent_flood_over_limit_lets_messages_through() {
    let server = Server::start(&[(MAX_CONNECTIONS, "16")]);
    let mut flood: Vec<_> = (0..200).map(|_| wire::connect(server.public)).collect();
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    server.wait_until("replyhook_connections_evicted_total", 185.0);
    assert!(server.metric("replyhook_connections") <= 16.0);
    assert_eq!(server.metric("replyhook_connections_limit"), 16.0);
    server.wait_for("connection limit reached");
    // The server has evicted the oldest connections, and kept the newest.
    assert!(wire::is_closed(&mut flood[0]));
    assert!(is_open(&mut flood[199]));
}

#[test]
fn unverified_connections_are_evicted_first_and_oldest_first() {
    let server = Server::start(&[(MAX_CONNECTIONS, "4")]);
    let mut first_verified = connect_verified(&server, 1);
    let mut first = wire::connect(server.public);
    server.wait_until("replyhook_connections", 2.0);
    let mut second_verified = connect_verified(&server, 2);
    let mut second = wire::connect(server.public);
    server.wait_until("replyhook_connections", 4.0);
    let mut third_verified = connect_verified(&server, 3);
    assert!(wire::is_closed(&mut first));
    assert!(is_open(&mut second));
    let mut fourth_verified = connect_verified(&server, 4);
    assert!(wire::is_closed(&mut second));
    // All connections are verified now, so the server evicts the one that has been idle longest.
    send_message(&mut first_verified, 5);
    let mut fifth_verified = connect_verified(&server, 6);
    assert!(wire::is_closed(&mut second_verified));
    for stream in [
        &mut first_verified,
        &mut third_verified,
        &mut fourth_verified,
        &mut fifth_verified,
    ] {
        assert!(is_open(stream));
    }
    assert_eq!(evicted_count(&server), 3.0);
}

#[test]
fn partial_header_protects_verified_connection() {
    let server = Server::start(&[(MAX_CONNECTIONS, "2"), (HEADER_TIMEOUT, "60000")]);
    let mut verified = connect_verified(&server, 1);
    let next = Webhook::message(2, "hi").raw(ORIGIN);
    let (half, rest) = next.split_at(40);
    verified.write_all(half).unwrap();
    // A partial head protects an unverified connection for one second only.
    let mut unverified = wire::connect(server.public);
    unverified.write_all(HALF_HEAD).unwrap();
    server.wait_until("replyhook_connections", 2.0);
    drop(connect_verified(&server, 3));
    assert!(wire::is_closed(&mut unverified));
    for number in 4..8 {
        drop(connect_verified(&server, number));
    }
    verified.write_all(rest).unwrap();
    assert_eq!(
        wire::read_response(&mut verified).unwrap().twiml(),
        twiml_message("hi")
    );
}

#[test]
fn verified_request_in_progress_is_never_evicted() {
    let blocked = BlockedServer::start(&[(MAX_CONNECTIONS, "2")]);
    let server = &blocked.server;
    let mut streams: Vec<_> = (1..3)
        .map(|number| {
            let mut stream = wire::connect(server.public);
            stream.write_all(&message(number).raw(ORIGIN)).unwrap();
            blocked.handler_calls.recv().unwrap();
            stream
        })
        .collect();
    // The server serves this connection only after one of the two requests has got its response.
    let mut waiting = wire::connect(server.public);
    waiting
        .write_all(&Webhook::form("/webhook", &[]).raw(ORIGIN))
        .unwrap();
    server.wait_for("a new connection waits");
    for stream in &mut streams {
        assert!(is_open(stream));
    }
    for _ in 0..2 {
        blocked.release.send(()).unwrap();
    }
    for stream in &mut streams {
        assert_eq!(
            wire::read_response(stream).unwrap().twiml(),
            twiml_message("hi")
        );
    }
    assert_eq!(wire::read_response(&mut waiting).unwrap().status, 400);
}

#[test]
fn request_without_valid_signature_closes_connection() {
    let server = Server::start(&[]);
    let forged = "X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n";
    let token = "A".repeat(43);
    for (request, status) in [
        ("GET /x HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404),
        (
            format!("POST /webhook HTTP/1.1\r\nHost: h\r\n{form}\r\na=b"),
            403,
        ),
        (
            format!("POST /webhook HTTP/1.1\r\nHost: h\r\n{forged}{form}\r\na=b"),
            403,
        ),
        (
            format!(
                "POST /webhook/status HTTP/1.1\r\nHost: h\r\n{forged}Content-Length: 3\r\n\r\na=b"
            ),
            415,
        ),
        (
            "DELETE /webhook HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            405,
        ),
        (
            format!("GET /media/{token} HTTP/1.1\r\nHost: h\r\n\r\n"),
            404,
        ),
    ] {
        let mut stream = wire::connect(server.public);
        stream.write_all(request.as_bytes()).unwrap();
        let response = wire::read_response(&mut stream).unwrap();
        assert_eq!(response.status, status, "{request}");
        assert_eq!(response.header("connection"), Some("close"), "{request}");
        assert!(wire::is_closed(&mut stream), "{request}");
    }
    // The server also closes a connection that has carried verified requests, even if the last one was in the same
    // write.
    let mut stream = connect_verified(&server, 1);
    let both = [&Webhook::message(2, "hi").raw(ORIGIN), REJECTED_REQUEST].concat();
    stream.write_all(&both).unwrap();
    assert_eq!(
        wire::read_response(&mut stream).unwrap().twiml(),
        twiml_message("hi")
    );
    assert_eq!(wire::read_response(&mut stream).unwrap().status, 404);
    assert!(wire::is_closed(&mut stream));
}

#[test]
fn signed_requests_and_private_listener_keep_connections() {
    let server = Server::start(&[]);
    let mut public = connect_verified(&server, 1);
    // A signed request without a message.
    let nothing = Webhook::form("/webhook", &[]).raw(ORIGIN);
    public.write_all(&nothing).unwrap();
    let response = wire::read_response(&mut public).unwrap();
    assert_eq!(
        (response.status, response.header("connection")),
        (400, None)
    );
    send_message(&mut public, 2);
    let mut private = wire::connect(server.private);
    for _ in 0..2 {
        private.write_all(REJECTED_REQUEST).unwrap();
        assert_eq!(wire::read_response(&mut private).unwrap().status, 404);
    }
}

#[test]
fn idle_connection_outlives_header_timeout() {
    let server = Server::start(&[(HEADER_TIMEOUT, "100"), (IDLE_TIMEOUT, "5")]);
    let mut reused = connect_verified(&server, 1);
    let mut fresh = wire::connect(server.public);
    let opened = Instant::now();
    sleep(Duration::from_secs(1));
    send_message(&mut reused, 2);
    send_message(&mut fresh, 3);
    // The header timeout begins at the first byte of a head, on a new and on a reused connection.
    let mut half = wire::connect(server.public);
    for stream in [&mut half, &mut fresh] {
        stream.write_all(HALF_HEAD).unwrap();
        assert!(wire::is_closed(stream));
    }
    assert!(opened.elapsed() < Duration::from_secs(5));
    assert!(is_open(&mut reused));
    assert!(wire::is_closed(&mut reused));
    assert!(opened.elapsed() > Duration::from_secs(5));
}

// A load balancer reuses pooled connections that were idle for about as long as the header timeout.
#[test]
fn pooling_client_loses_no_request() {
    const POOL: usize = 100;
    let server = Server::start(&[(HEADER_TIMEOUT, "300")]);
    let mut pool: Vec<_> = (0..POOL).map(|_| wire::connect(server.public)).collect();
    let mut number = 0;
    for pause in [290, 300, 310, 290, 300, 310, 295, 300, 305, 300] {
        sleep(Duration::from_millis(pause));
        for stream in &mut pool {
            number += 1;
            send_message(stream, number);
        }
    }
    assert_eq!(number, 1000);
    assert_eq!(evicted_count(&server), 0.0);
}
