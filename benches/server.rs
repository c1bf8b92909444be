//! What the whole server costs, beside a bare axum route that reads the body and answers a constant: processor time of
//! either process for each request of 64 connections, what a start and an idle server take, and how long a message waits
//! for its answer when a thousand come each second. Linux only.
//!
//! `cargo bench --bench server` prints the figures; with `-- --check` it fails where one exceeds its limit. Cargo builds
//! dependencies with what dev-dependencies ask of them as well; `-- --binary PATH` measures a program built without.

mod figures;
mod running;
mod webhook;

use std::fs;
use std::future::ready;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use figures::{Figures, Run, median};
use running::Running;
use rustix::thread::{CpuSet, sched_setaffinity};
use webhook::{PUBLIC_URL, TARGET, TOKEN, Webhook};

/// The argument that makes this program the bare server.
const BARE: &str = "bare";
const CONNECTIONS: usize = 64;
/// Processors.
const SERVER: usize = 0;
const CLIENT: usize = 1;

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
    if let [_, mode, port, length] = args.as_slice()
        && mode == BARE
    {
        return bare(port, length.parse().expect("the length is a number"));
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
    stay_on(CLIENT);
    let mut figures = Figures::new(run);
    start_and_rest(&plan, &mut figures);
    serve(&plan, &mut figures);
    pace(&plan, &mut figures);
    let size = fs::metadata(&plan.binary).map_or(0, |metadata| metadata.len());
    figures.show("the program's file", in_thousands(size), "kB");
    figures.end()
}

/// Keeps this process, and what it starts from now on, on one processor. Servers have one to themselves and the client
/// another: on the client's, a server would work only while the client does not, and find no more than it left.
fn stay_on(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor);
    sched_setaffinity(None, &one).expect("there are two processors");
}

fn start_and_rest(plan: &Plan, figures: &mut Figures) {
    let request = good(0);
    let starts = (0..plan.starts).map(|_| {
        let started = Instant::now();
        let server = Server::replyhook(plan);
        server.connect().ask(&request, 200);
        started.elapsed().as_secs_f64() * 1e3
    });
    let start = median(starts.collect());
    figures.limit("from start to the first answer", start, "ms", MOST_START_MS);
    let server = Server::replyhook(plan);
    server.connect().ask(&request, 200);
    sleep(plan.idle);
    figures.limit(
        "resident memory at rest",
        server.process.resident_kib(),
        "kB",
        MOST_IDLE_KIB,
    );
}

fn serve(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(plan);
    let length = server.connect().ask(&good(0), 200);
    let bare = Server::bare(length);
    let (mut to_server, mut to_bare) = (server.connections(), bare.connections());
    let mut taken: [Vec<f64>; 5] = Default::default();
    // The first round warms up: memory, connections, and a burst of refusals that are explained in the log.
    for round in 0..=plan.rounds {
        let numbers = (1 + round * plan.requests)..=((round + 1) * plan.requests);
        let goods: Vec<_> = numbers.clone().map(good).collect();
        let forgeries: Vec<_> = numbers.map(forged).collect();
        let good = server.micros(&mut to_server, &goods, 200);
        let bare = bare.micros(&mut to_bare, &goods, 200);
        let forged = server.micros(&mut to_server, &forgeries, 403);
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
        server.process.resident_kib(),
        "kB",
    );
}

/// A thousand messages each second, whether the server keeps up or not: each waits from the moment that it was due.
fn pace(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(plan);
    let requests: Vec<_> = (0..plan.paced).map(good).collect();
    let next = AtomicUsize::new(0);
    let mut connections = server.connections();
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
    let fsync = fsync_ms(&server, plan.paced / 20);
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

/// What 99 of 100 fsyncs of a few bytes take, where the server's store is.
fn fsync_ms(server: &Server, times: u32) -> f64 {
    let path = server.folder.path().join("fsync");
    let mut file = fs::File::create(path).expect("there is room for a file");
    let mut taken: Vec<f64> = (0..times.max(1))
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[0; 4096]).expect("there is room");
            file.sync_data().expect("the disk takes it");
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[taken.len() * 99 / 100]
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

/// With the headers that Twilio sends.
fn http(body: &str, signature: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {TARGET} HTTP/1.1\r\n\
         Host: bot.example.com\r\n\
         User-Agent: TwilioProxy/1.1\r\n\
         Accept: */*\r\n\
         Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n\
         Content-Length: {length}\r\n\
         I-Twilio-Idempotency-Token: 00000000-0000-4000-8000-000000000001\r\n\
         X-Twilio-Signature: {signature}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A server in a process of its own.
struct Server {
    process: Running,
    address: SocketAddr,
    /// Where its store is.
    folder: tempfile::TempDir,
}

impl Server {
    fn replyhook(plan: &Plan) -> Self {
        let [port, private] = free_ports();
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let store = format!("sqlite:{}", folder.path().join("bench.db").display());
        let mut command = Command::new(&plan.binary);
        command
            .args(["serve", "--config", "/dev/null"])
            .env_clear()
            .env("PORT", port.to_string())
            .env("REPLYHOOK__ADMIN__LISTEN", format!("127.0.0.1:{private}"))
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("PUBLIC_URL", PUBLIC_URL)
            .env("DATABASE_URL", store);
        Self::start(command, port, folder)
    }

    fn bare(length: usize) -> Self {
        let [port, _] = free_ports();
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([BARE, &port.to_string(), &length.to_string()]);
        let folder = tempfile::tempdir().expect("there is room for a folder");
        Self::start(command, port, folder)
    }

    fn start(mut command: Command, port: u16, folder: tempfile::TempDir) -> Self {
        stay_on(SERVER);
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        stay_on(CLIENT);
        Self {
            process: Running(process),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            folder,
        }
    }

    /// Waits until it listens.
    fn connect(&self) -> Connection {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => return Connection::new(stream),
                Err(error) => assert!(Instant::now() < give_up, "no server: {error}"),
            }
            sleep(Duration::from_micros(100));
        }
    }

    fn connections(&self) -> Vec<Connection> {
        (0..CONNECTIONS).map(|_| self.connect()).collect()
    }

    /// Processor time of a request, while every connection has one under way.
    fn micros(&self, connections: &mut [Connection], requests: &[Vec<u8>], status: u16) -> f64 {
        let before = self.cpu_nanos();
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
        in_thousands(self.cpu_nanos() - before) / in_thousands(requests.len() as u64) / 1e3
    }

    /// Of all its threads: a runtime's stay as long as it does, so that none takes its time along.
    fn cpu_nanos(&self) -> u64 {
        let threads = format!("/proc/{}/task", self.process.0.id());
        let threads = fs::read_dir(threads).expect("Linux lists a running process's threads");
        let nanos = threads.map(|thread| {
            let file = thread.expect("a thread stays").path().join("schedstat");
            let text = fs::read_to_string(file).expect("the kernel counts a thread's time");
            let first = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
            first.unwrap_or(0)
        });
        nanos.sum()
    }
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

/// The bare server: what axum itself costs for the same requests.
fn bare(port: &str, length: usize) -> ExitCode {
    let answer: &str = "x".repeat(length).leak();
    let router = Router::new().route(TARGET, post(move |_: Bytes| ready(answer)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await;
        let listener = listener.expect("the port is free");
        axum::serve(listener, router)
            .await
            .expect("it serves until it is killed");
    });
    ExitCode::SUCCESS
}

fn free_ports() -> [u16; 2] {
    // Both are held before either is let go, so that they differ.
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    listeners.map(|listener| {
        let address = listener.and_then(|listener| listener.local_addr());
        address.expect("some port is free").port()
    })
}

#[expect(clippy::cast_precision_loss, reason = "no figure is as large as 2^52")]
fn in_thousands(count: u64) -> f64 {
    count as f64 / 1e3
}
