//! A client with many connections, and the processor time of the server that it asks. Linux only.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::servers::Server;

/// Number of connections, and so of requests in flight.
// Several, because concurrent messages share the store's commits.
pub(crate) const CONNECTIONS: usize = 64;

/// Use of a connection for more than one request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    Keep,
    /// A new connection for each request.
    Reconnect,
}

pub(crate) fn connect(server: &Server) -> Connection {
    Connection::new(server.connect())
}

pub(crate) fn connections(server: &Server) -> Vec<Connection> {
    (0..CONNECTIONS).map(|_| connect(server)).collect()
}

/// Returns the server's processor time for one request in microseconds, with a request in flight on each connection.
///
/// # Panics
/// If a response has another status.
pub(crate) fn micros(
    server: &Server,
    connections: &mut [Connection],
    requests: &[Vec<u8>],
    status: u16,
    reuse: Reuse,
) -> f64 {
    let before = cpu_nanos(server);
    for (number, request) in requests.iter().enumerate() {
        let connection = &mut connections[number % CONNECTIONS];
        // The connection still has a request in flight, and HTTP/1.1 without pipelining allows one.
        if number >= CONNECTIONS {
            connection.receive(status);
        }
        if reuse == Reuse::Reconnect {
            *connection = connect(server);
        }
        connection.send(request);
    }
    for connection in connections {
        connection.receive(status);
        // For the requests of the next round.
        if reuse == Reuse::Reconnect {
            *connection = connect(server);
        }
    }
    // The kernel updates a thread's time in `schedstat` when the thread stops running.
    sleep(Duration::from_millis(10));
    in_thousands(cpu_nanos(server) - before) / in_thousands(requests.len() as u64) / 1e3
}

/// Returns the processor time of all threads of the server, in nanoseconds.
// The time of a thread that has ended is missing. The runtime's workers and the store's threads run as long as the
// server.
fn cpu_nanos(server: &Server) -> u64 {
    let threads = format!("/proc/{}/task", server.process.0.id());
    let threads = fs::read_dir(threads).expect("Linux lists a running process's threads");
    let nanos = threads.map(|thread| {
        let file = thread
            .expect("threads can be listed")
            .path()
            .join("schedstat");
        // Its first field is the time on a processor, in nanoseconds.
        let text = fs::read_to_string(file).expect("the kernel counts a thread's time");
        let first = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        first.unwrap_or(0)
    });
    nanos.sum()
}

/// A client connection with one request at a time.
// Only as much of HTTP/1.1 as these two servers need.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        // Otherwise the kernel may hold back the last packet of a request until the one before is acknowledged.
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends a request and reads its response. Returns the length of the body.
    pub(crate) fn ask(&mut self, request: &[u8], status: u16) -> usize {
        self.send(request);
        self.receive(status)
    }

    fn send(&mut self, request: &[u8]) {
        self.stream
            .write_all(request)
            .expect("the server accepts the request");
    }

    fn receive(&mut self, status: u16) -> usize {
        self.received.clear();
        let mut piece = [0; 4096];
        loop {
            let length = self.stream.read(&mut piece).expect("the server responds");
            assert_ne!(length, 0, "the server closed the connection");
            self.received.extend_from_slice(&piece[..length]);
            if let Some(length) = body_length(&self.received, status) {
                return length;
            }
        }
    }
}

/// Returns the length of a response's body, once all of it has arrived.
///
/// # Panics
/// If the status is another one.
fn body_length(response: &[u8], status: u16) -> Option<usize> {
    let end = response
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&response[..end]).expect("the head is UTF-8");
    assert_eq!(
        head.split(' ').nth(1),
        Some(status.to_string().as_str()),
        "{head}"
    );
    // hyper writes header names in lower case, and Go does not.
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length
        .and_then(|(_, length)| length.parse().ok())
        .expect("the response has a Content-Length");
    (response.len() == end + 4 + length).then_some(length)
}

#[expect(clippy::cast_precision_loss, reason = "no figure is as large as 2^52")]
pub(crate) fn in_thousands(count: u64) -> f64 {
    count as f64 / 1e3
}
