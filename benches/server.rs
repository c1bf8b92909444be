//! What the whole server costs, beside a bare axum route that reads the body and answers a constant: processor time of
//! either process for each request of 64 connections, what a start and an idle server take, and how long a message waits
//! for its answer when a thousand come each second. Linux only.
//!
//! `cargo bench --bench server` prints the figures; with `-- --check` it fails where one exceeds its limit. Cargo builds
//! dependencies with what dev-dependencies ask of them as well; `-- --binary PATH` measures a program built without.

mod figures;
mod running;
mod servers;
mod webhook;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use servers::{Server, http};
use webhook::Webhook;

const CONNECTIONS: usize = 64;

/// A request by that of the bare route: verified, kept durably, answered, and the answer kept durably.
const MOST_OF_BARE: f64 = 7.0;
/// A refused request by a good one: 1, and what two runs of the same differ by.
const MOST_OF_GOOD: f64 = 1.1;
const MOST_START_MS: f64 = 40.0;
/// What 99 of 100 messages wait, at a thousand each second.
const MOST_WAIT_MS: f64 = 25.0;
/// A disk is quiet on which 99 of 100 fsyncs take no longer. On another the wait is the disk's, and is only shown.
const QUIET_MS: f64 = 5.0;
const MOST_IDLE_KIB: f64 = 14.0 * 1024.0;

/// What is measured, and how much of it.
struct Plan {
    binary: String,
    rounds: u32,
    /// Of each kind in each round.
    requests: u32,
    starts: u32,
    idle: Duration,
    /// Messages that come one each millisecond.
    paced: u32,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if servers::is_bare(&args) {
        return servers::bare(&args);
    }
    let run = Run::from_args();
    let (rounds, requests, starts, idle, paced) = match run {
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
        paced,
    };
    servers::stay_on(servers::CLIENT);
    let mut figures = Figures::new(run);
    start_and_rest(&plan, &mut figures);
    serve(&plan, &mut figures);
    pace(&plan, &mut figures);
    let size = fs::metadata(&plan.binary).map_or(0, |metadata| metadata.len());
    figures.show("the program's file", in_thousands(size), "kB");
    figures.end()
}

fn start_and_rest(plan: &Plan, figures: &mut Figures) {
    let request = good(0);
    let starts = (0..plan.starts).map(|_| {
        let started = Instant::now();
        let server = Server::replyhook(&plan.binary, &[]);
        connect(&server).ask(&request, 200);
        started.elapsed().as_secs_f64() * 1e3
    });
    let start = median(starts.collect());
    figures.limit("from start to the first answer", start, "ms", MOST_START_MS);
    let server = Server::replyhook(&plan.binary, &[]);
    connect(&server).ask(&request, 200);
    sleep(plan.idle);
    figures.limit(
        "resident memory at rest",
        server.process.memory_kib("VmRSS"),
        "kB",
        MOST_IDLE_KIB,
    );
}

fn serve(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(&plan.binary, &[]);
    let length = connect(&server).ask(&good(0), 200);
    let bare = Server::bare(length);
    let (mut to_server, mut to_bare) = (connections(&server), connections(&bare));
    let mut taken: [Vec<f64>; 5] = Default::default();
    // The first round warms up: memory, connections, and a burst of refusals that are explained in the log.
    for round in 0..=plan.rounds {
        let numbers = (1 + round * plan.requests)..=((round + 1) * plan.requests);
        let goods: Vec<_> = numbers.clone().map(good).collect();
        let forgeries: Vec<_> = numbers.map(forged).collect();
        let good = micros(&server, &mut to_server, &goods, 200);
        let bare = micros(&bare, &mut to_bare, &goods, 200);
        let forged = micros(&server, &mut to_server, &forgeries, 403);
        if round > 0 {
            let figures = [good, bare, good / bare, forged, forged / good];
            taken
                .iter_mut()
                .zip(figures)
                .for_each(|(all, one)| all.push(one));
        }
    }
    let [good, bare, of_bare, forged, of_good] = taken.map(median);
    figures.show("a request", good, "µs");
    figures.show("a request of the bare route", bare, "µs");
    figures.limit("request / bare route", of_bare, "×", MOST_OF_BARE);
    figures.show("a refused request", forged, "µs");
    figures.limit("refused / good request", of_good, "×", MOST_OF_GOOD);
    figures.show(
        "resident memory after all requests",
        server.process.memory_kib("VmRSS"),
        "kB",
    );
}

/// A thousand messages each second, whether the server keeps up or not: each waits from the moment that it was due.
fn pace(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(&plan.binary, &[]);
    let requests: Vec<_> = (0..plan.paced).map(good).collect();
    let next = AtomicUsize::new(0);
    let mut connections = connections(&server);
    // Once each, so that none is being opened while time is taken.
    for (number, connection) in connections.iter_mut().enumerate() {
        let number = u32::try_from(number).expect("there are few connections");
        connection.ask(&good(plan.paced + number), 200);
    }
    let started = Instant::now();
    let mut waits: Vec<f64> = std::thread::scope(|scope| {
        let asking = connections.iter_mut().map(|connection| {
            scope.spawn(|| {
                let mut waits = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(number) else {
                        return waits;
                    };
                    let due = started + Duration::from_millis(number as u64);
                    sleep(due.saturating_duration_since(Instant::now()));
                    connection.ask(request, 200);
                    waits.push(due.elapsed().as_secs_f64() * 1e3);
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        let waits = asking.into_iter().map(|one| one.join().expect("it asks"));
        waits.flatten().collect()
    });
    let fsync = server.fsync_ms(plan.paced / 20);
    waits.sort_by(f64::total_cmp);
    let of_100 = |part: usize| waits[(waits.len() * part / 100).min(waits.len() - 1)];
    figures.show("an fsync there, 99 of 100", fsync, "ms");
    figures.show("a wait at 1,000 a second, 50 of 100", of_100(50), "ms");
    let what = "a wait at 1,000 a second, 99 of 100";
    if fsync <= QUIET_MS {
        figures.limit(what, of_100(99), "ms", MOST_WAIT_MS);
    } else {
        figures.show(what, of_100(99), "ms");
    }
}

/// A signed request.
fn good(number: u32) -> Vec<u8> {
    let webhook = Webhook::numbered(number);
    http(&webhook.body, &webhook.signature)
}

/// One with another's signature.
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

/// Processor time of a request, while every connection has one under way.
fn micros(
    server: &Server,
    connections: &mut [Connection],
    requests: &[Vec<u8>],
    status: u16,
) -> f64 {
    let before = cpu_nanos(server);
    for (number, request) in requests.iter().enumerate() {
        let connection = &mut connections[number % CONNECTIONS];
        if number >= CONNECTIONS {
            connection.receive(status);
        }
        connection.send(request);
    }
    for connection in connections {
        connection.receive(status);
    }
    // The kernel writes a thread's time down when it comes to rest.
    sleep(Duration::from_millis(10));
    in_thousands(cpu_nanos(server) - before) / in_thousands(requests.len() as u64) / 1e3
}

/// Of all its threads: a runtime's stay as long as it does, so that none takes its time along.
fn cpu_nanos(server: &Server) -> u64 {
    let threads = format!("/proc/{}/task", server.process.0.id());
    let threads = fs::read_dir(threads).expect("Linux lists a running process's threads");
    let nanos = threads.map(|thread| {
        let file = thread.expect("a thread stays").path().join("schedstat");
        let text = fs::read_to_string(file).expect("the kernel counts a thread's time");
        let first = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        first.unwrap_or(0)
    });
    nanos.sum()
}

/// HTTP/1.1 with one request at a time, and no more of it than these two servers need.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        stream
            .set_nodelay(true)
            .expect("an open connection has options");
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Returns the length of the answer's body.
    fn ask(&mut self, request: &[u8], status: u16) -> usize {
        self.send(request);
        self.receive(status)
    }

    fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("the server reads");
    }

    fn receive(&mut self, status: u16) -> usize {
        self.received.clear();
        let mut piece = [0; 4096];
        loop {
            let length = self.stream.read(&mut piece).expect("the server answers");
            assert_ne!(length, 0, "the server closed the connection");
            self.received.extend_from_slice(&piece[..length]);
            if let Some(length) = body_length(&self.received, status) {
                return length;
            }
        }
    }
}

/// The length of an answer's body, once it is there.
fn body_length(answer: &[u8], status: u16) -> Option<usize> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).expect("a head is text");
    assert_eq!(
        head.split(' ').nth(1),
        Some(status.to_string().as_str()),
        "{head}"
    );
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length
        .and_then(|length| length.parse().ok())
        .expect("an answer has a length");
    (answer.len() == end + 4 + length).then_some(length)
}

#[expect(clippy::cast_precision_loss, reason = "no figure is as large as 2^52")]
fn in_thousands(count: u64) -> f64 {
    count as f64 / 1e3
}
