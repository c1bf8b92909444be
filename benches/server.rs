//! What the whole server costs, beside a bare axum route that reads the body and answers a constant: processor time of
//! either process for each request of 64 connections, and what a start and an idle server take. Linux only.
//!
//! `cargo bench --bench server` prints the figures; with `-- --check` it fails where one exceeds its limit. Cargo builds
//! dependencies with what dev-dependencies ask of them as well; `-- --binary PATH` measures a program built without.

mod figures;
mod webhook;

use std::fs;
use std::future::ready;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use figures::{Figures, Run, median};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use webhook::{PUBLIC_URL, TARGET, TOKEN, Webhook};

/// The argument that makes this program the bare server.
const BARE: &str = "bare";
const CONNECTIONS: usize = 64;

/// A request by that of the bare route.
const MOST_OF_BARE: f64 = 2.5;
/// A refused request by a good one: 1, and what two runs of the same differ by.
const MOST_OF_GOOD: f64 = 1.1;
const MOST_START_MS: f64 = 20.0;
const MOST_IDLE_KIB: f64 = 8.0 * 1024.0;

/// What is measured, and how much of it.
struct Plan {
    binary: String,
    rounds: u32,
    /// Of each kind in each round.
    requests: u32,
    starts: u32,
    idle: Duration,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, port, length] = args.as_slice()
        && mode == BARE
    {
        return bare(port, length.parse().expect("the length is a number"));
    }
    let run = Run::from_args();
    let (rounds, requests, starts, idle) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1, 128, 1, Duration::ZERO),
        Run::Measure | Run::Check => (25, 8_000, 11, Duration::from_secs(1)),
    };
    let binary = args.into_iter().skip_while(|arg| arg != "--binary").nth(1);
    let plan = Plan {
        binary: binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_replyhook").to_owned()),
        rounds,
        requests,
        starts,
        idle,
    };
    let mut figures = Figures::new(run);
    start_and_rest(&plan, &mut figures);
    serve(&plan, &mut figures);
    let size = fs::metadata(&plan.binary).map_or(0, |metadata| metadata.len());
    figures.show("the program's file", in_thousands(size), "kB");
    figures.end()
}

fn start_and_rest(plan: &Plan, figures: &mut Figures) {
    let request = good(0);
    let starts = (0..plan.starts).map(|_| {
        let started = Instant::now();
        let server = Server::replyhook(&plan.binary);
        server.connect().ask(&request, 200);
        started.elapsed().as_secs_f64() * 1e3
    });
    let start = median(starts.collect());
    figures.limit("from start to the first answer", start, "ms", MOST_START_MS);
    let server = Server::replyhook(&plan.binary);
    server.connect().ask(&request, 200);
    sleep(plan.idle);
    figures.limit("resident memory at rest", server.resident_kib(), "kB", MOST_IDLE_KIB);
}

fn serve(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(&plan.binary);
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
        if round > 0 || plan.rounds == 1 {
            let figures = [good, bare, good / bare, forged, forged / good];
            taken.iter_mut().zip(figures).for_each(|(all, one)| all.push(one));
        }
    }
    let [good, bare, of_bare, forged, of_good] = taken.map(median);
    figures.show("a request", good, "µs");
    figures.show("a request of the bare route", bare, "µs");
    figures.limit("request / bare route", of_bare, "×", MOST_OF_BARE);
    figures.show("a refused request", forged, "µs");
    figures.limit("refused / good request", of_good, "×", MOST_OF_GOOD);
    figures.show("resident memory after all requests", server.resident_kib(), "kB");
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
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn replyhook(binary: &str) -> Self {
        let [port, private] = free_ports();
        let mut command = Command::new(binary);
        command
            .args(["serve", "--config", "/dev/null"])
            .env_clear()
            .env("PORT", port.to_string())
            .env("REPLYHOOK__ADMIN__LISTEN", format!("127.0.0.1:{private}"))
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("PUBLIC_URL", PUBLIC_URL);
        Self::start(command, port)
    }

    fn bare(length: usize) -> Self {
        let [port, _] = free_ports();
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([BARE, &port.to_string(), &length.to_string()]);
        Self::start(command, port)
    }

    /// On the first processor, with this program on the last: how two share one is not what is measured.
    fn start(mut command: Command, port: u16) -> Self {
        let allowed = sched_getaffinity(None).expect("this program's processors are known");
        let mut processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
        let first = processors.next().expect("it runs on one");
        let last = processors.next_back().unwrap_or(first);
        let stay_on = |processors| sched_setaffinity(None, processors).expect("they are allowed");
        stay_on(&only(first));
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        // The next server starts where this program may run: all that was allowed.
        stay_on(&only(last));
        Self {
            process,
            address: (Ipv4Addr::LOCALHOST, port).into(),
        }
    }
}
