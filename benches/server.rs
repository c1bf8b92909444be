//! Cost of the whole server: processor time, start, memory and response time. Linux only.
//!
//! - Processor time of a request over 64 connections, relative to a bare axum route that reads the body and responds
//!   with a constant.
//! - Time from the start to the first response, and memory of an idle server.
//! - Response time at a thousand messages per second.
//!
//! `cargo bench --bench server` prints the figures. With `-- --check` it exits with 1 if a limit is missed. Cargo
//! builds dependencies with the features of dev-dependencies too. `-- --binary PATH` measures a program built without
//! them.

mod figures;
mod running;
mod servers;
mod steady;
mod webhook;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use servers::{Server, http};
use steady::{percentile, response_times};
use webhook::Webhook;

/// Number of connections, and so of requests in flight.
// Several, because concurrent messages share the store's commits.
const CONNECTIONS: usize = 64;

/// Limit: processor time of a message, divided by that of a request of the bare route.
// The server verifies the message, stores it, calls the handler, and stores the response. Both writes are durable.
const MAX_OF_BARE: f64 = 7.0;
/// Limit: processor time of a forgery, divided by that of a signed message, each on a new connection.
// 1, and a tenth for the variation between runs: rejecting a request must not cost more than handling one. On new
// connections, because the server closes the connection of a rejected request.
const MAX_OF_GOOD: f64 = 1.1;
/// Limit: time from the start of the process to its first response.
const MAX_START_MS: f64 = 40.0;
/// Limit: p99 response time at a thousand messages per second.
const MAX_WAIT_MS: f64 = 25.0;
/// Maximum p99 of an fsync on a disk that is not busy.
// On a slower disk the response time is mostly the disk's, so it is printed without its limit.
const QUIET_MS: f64 = 5.0;
/// Limit: anonymous memory of a server after one message.
// Not all of its resident memory: the rest is pages of the program's file, which the kernel can drop.
const MAX_IDLE_KIB: f64 = 8.0 * 1024.0;

/// First number of the messages on new connections.
const LONE: u32 = 100_000_000;

/// Use of a connection for more than one request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Keep,
    /// A new connection for each request.
    Reconnect,
}

/// Extent of a run.
struct Plan {
    /// Path of the program to measure.
    binary: String,
    rounds: u32,
    /// Requests of each kind in each round.
    requests: u32,
    starts: u32,
    /// Time until the memory of an idle server is read.
    idle: Duration,
    /// Messages sent at one per millisecond.
    timed: u32,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if servers::is_bare(&args) {
        return servers::bare(&args);
    }
    let run = Run::from_args();
    let (rounds, requests, starts, idle, timed) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1, 128, 1, Duration::ZERO, 64),
        Run::Measure | Run::Check => (9, 4_000, 11, Duration::from_secs(1), 10_000),
    };
    let binary = args.into_iter().skip_while(|arg| arg != "--binary").nth(1);
    let plan = Plan {
        binary: binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_replyhook").to_owned()),
        rounds,
        requests,
        starts,
        idle,
        timed,
    };
    // Before any thread starts, since threads inherit the processor.
    servers::stay_on(servers::CLIENT);
    let mut figures = Figures::new(run);
    measure_start_and_memory(&plan, &mut figures);
    measure_processor_time(&plan, &mut figures);
    measure_response_time(&plan, &mut figures);
    let size = fs::metadata(&plan.binary).map_or(0, |metadata| metadata.len());
    figures.show("size of the program", in_thousands(size), "kB");
    figures.end()
}

/// Measures the time to the first response, and the memory of an idle server.
fn measure_start_and_memory(plan: &Plan, figures: &mut Figures) {
    let request = good(0);
    // Each start has a new store, so the same message is new each time.
    let starts = (0..plan.starts).map(|_| {
        let started = Instant::now();
        let server = Server::replyhook(&plan.binary, &[]);
        // The server opens its store before it listens, so the first connection gets a response, and not a 503.
        connect(&server).ask(&request, 200);
        started.elapsed().as_secs_f64() * 1e3
    });
    let start = median(starts.collect());
    figures.limit(
        "from start to the first response",
        start,
        "ms",
        MAX_START_MS,
    );
    let server = Server::replyhook(&plan.binary, &[]);
    connect(&server).ask(&request, 200);
    sleep(plan.idle);
    figures.limit(
        "anonymous memory when idle",
        server.process.memory_kib("RssAnon"),
        "kB",
        MAX_IDLE_KIB,
    );
}

/// Measures the processor time of messages and forgeries, relative to the bare route.
fn measure_processor_time(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(&plan.binary, &[]);
    // The bare route responds with as many bytes.
    let length = connect(&server).ask(&good(0), 200);
    let bare = Server::bare(length);
    let (mut to_server, mut to_bare) = (connections(&server), connections(&bare));
    let mut columns: [Vec<f64>; 6] = Default::default();
    // The first round is not counted. In it connections and memory are set up, and the log explains a burst of
    // forgeries before its throttle suppresses further explanations.
    for round in 0..=plan.rounds {
        let numbers = (1 + round * plan.requests)..=((round + 1) * plan.requests);
        let goods: Vec<_> = numbers.clone().map(good).collect();
        // Other numbers than those of `goods`, so that these messages are new too.
        let lone_goods: Vec<_> = numbers.clone().map(|number| good(LONE + number)).collect();
        let forgeries: Vec<_> = numbers.map(forged).collect();
        // One after the other in each round, so that a change of the machine's speed affects all four.
        let good = micros(&server, &mut to_server, &goods, 200, Reuse::Keep);
        let bare = micros(&bare, &mut to_bare, &goods, 200, Reuse::Keep);
        let lone = micros(&server, &mut to_server, &lone_goods, 200, Reuse::Reconnect);
        let forged = micros(&server, &mut to_server, &forgeries, 403, Reuse::Reconnect);
        if round > 0 {
            let figures = [good, bare, good / bare, lone, forged, forged / lone];
            columns
                .iter_mut()
                .zip(figures)
                .for_each(|(column, figure)| column.push(figure));
        }
    }
    // The ratios are medians of the rounds' ratios, not ratios of medians.
    let [good, bare, of_bare, lone, forged, of_good] = columns.map(median);
    figures.show("processor time of a message", good, "µs");
    figures.show("processor time of a request of the bare route", bare, "µs");
    figures.limit("message / bare route", of_bare, "×", MAX_OF_BARE);
    figures.show("message on a new connection", lone, "µs");
    figures.show("forgery on a new connection", forged, "µs");
    figures.limit("forgery / message", of_good, "×", MAX_OF_GOOD);
    figures.show(
        "resident memory after all requests",
        server.process.memory_kib("VmRSS"),
        "kB",
    );
}

/// Measures the response time at a thousand messages per second, whether or not the server keeps up.
fn measure_response_time(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(&plan.binary, &[]);
    // Signed before the clock starts.
    let requests: Vec<_> = (0..plan.timed).map(good).collect();
    let mut connections = connections(&server);
    // One message on each connection before the clock starts, so that no connection is still being accepted.
    for (number, connection) in connections.iter_mut().enumerate() {
        let number = u32::try_from(number).expect("there are few connections");
        connection.ask(&good(plan.timed + number), 200);
    }
    let times = response_times(
        &mut connections,
        &requests,
        Duration::from_millis(1),
        |connection, request| {
            connection.ask(request, 200);
        },
    );
    // After the messages, so that it does not disturb them.
    let fsync = server.fsync_ms(plan.timed / 20);
    figures.show("p99 of an fsync on the same disk", fsync, "ms");
    figures.show(
        "median response time at 1,000 messages/s",
        percentile(&times, 50),
        "ms",
    );
    let what = "p99 response time at 1,000 messages/s";
    if fsync <= QUIET_MS {
        figures.limit(what, percentile(&times, 99), "ms", MAX_WAIT_MS);
    } else {
        figures.show(what, percentile(&times, 99), "ms");
    }
}

/// Returns a signed message.
fn good(number: u32) -> Vec<u8> {
    let webhook = Webhook::numbered(number);
    http(&webhook.body, &webhook.signature)
}

/// Returns a message with the signature of another one.
fn forged(number: u32) -> Vec<u8> {
    let (webhook, other) = (Webhook::numbered(number), Webhook::numbered(number + 1));
    http(&webhook.body, &other.signature)
}

fn connect(server: &Server) -> Connection {
    Connection::new(server.connect())
}

fn connections(server: &Server) -> Vec<Connection> {
    (0..CONNECTIONS).map(|_| connect(server)).collect()
}

/// Returns the server's processor time for one request in microseconds, with a request in flight on each connection.
///
/// # Panics
/// If a response has another status.
fn micros(
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
struct Connection {
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
    fn ask(&mut self, request: &[u8], status: u16) -> usize {
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
    // hyper writes header names in lower case, and both servers send a length.
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length
        .and_then(|length| length.parse().ok())
        .expect("the response has a Content-Length");
    (response.len() == end + 4 + length).then_some(length)
}

#[expect(clippy::cast_precision_loss, reason = "no figure is as large as 2^52")]
fn in_thousands(count: u64) -> f64 {
    count as f64 / 1e3
}
