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

mod client;
mod figures;
mod running;
mod runtime;
mod servers;
mod steady;
mod webhook;

use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use client::{Reuse, connect, connections, in_thousands, micros};
use figures::{Figures, Run, median};
use servers::{Server, http};
use steady::{percentile, response_times};
use webhook::Webhook;

/// Limit: processor time of a message, divided by that of a request of the bare route.
// The server verifies the message, stores it, calls the handler, and stores the response. Both writes are durable.
const MAX_OF_BARE: f64 = 7.0;
/// Limit: processor time of a forgery, divided by that of a signed message, each on a new connection.
// 1, and a tenth for the variation between runs: rejecting a request must not cost more than handling one. On new
// connections, because the server closes the connection of a rejected request.
const MAX_OF_GOOD: f64 = 1.1;
/// Limit: time from the start of the process to its first response.
const MAX_START_MS: f64 = 8.0;
/// Limit: p99 response time at a thousand messages per second.
const MAX_WAIT_MS: f64 = 25.0;
/// Limit: the same, divided by what no durable server can avoid: p99 of the bare route, and p99 of two syncs.
const MAX_OF_FLOOR: f64 = 1.7;
/// Maximum p99 of an fsync on a disk that is not busy.
// On a slower disk the response time is mostly the disk's, so it is printed without its limit.
const QUIET_MS: f64 = 5.0;
/// Limit: anonymous memory of a server after one message.
// Not all of its resident memory: the rest is pages of the program's file, which the kernel can drop.
const MAX_IDLE_KIB: f64 = 2.5 * 1024.0;
/// Limit: anonymous memory of a server after 100,000 messages.
const MAX_USED_KIB: f64 = 6.0 * 1024.0;

/// First number of the messages on new connections.
const LONE: u32 = 100_000_000;

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
        Run::Measure | Run::Check => (9, 5_000, 11, Duration::from_secs(1), 10_000),
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
    figures.limit(
        "anonymous memory after all requests",
        server.process.memory_kib("RssAnon"),
        "kB",
        MAX_USED_KIB,
    );
}

/// Measures the response time at a thousand messages per second, relative to the bare route and to two syncs of the disk.
fn measure_response_time(plan: &Plan, figures: &mut Figures) {
    let server = Server::replyhook(&plan.binary, &[]);
    let length = connect(&server).ask(&good(0), 200);
    let bare = Server::bare(length);
    let bare_p99 = percentile(&times_at_rate(plan, &bare), 99);
    let times = times_at_rate(plan, &server);
    // After the messages, so that it does not disturb them.
    let fsync = server.fsync_ms(plan.timed / 20);
    figures.show("p99 of an fsync on the same disk", fsync, "ms");
    figures.show("p99 response time of the bare route", bare_p99, "ms");
    figures.show(
        "median response time at 1,000 messages/s",
        percentile(&times, 50),
        "ms",
    );
    let p99 = percentile(&times, 99);
    let what = "p99 response time at 1,000 messages/s";
    if fsync <= QUIET_MS {
        figures.limit(what, p99, "ms", MAX_WAIT_MS);
        figures.limit(
            "p99 / (bare route + two fsyncs)",
            p99 / (bare_p99 + 2.0 * fsync),
            "×",
            MAX_OF_FLOOR,
        );
    } else {
        figures.show(what, p99, "ms");
    }
}

/// Returns the response times at a thousand messages per second, in milliseconds, sorted, whether or not the server keeps up.
fn times_at_rate(plan: &Plan, server: &Server) -> Vec<f64> {
    // Signed before the clock starts. Numbers of their own, since the server has had a message before.
    let requests: Vec<_> = (1..=plan.timed).map(good).collect();
    let mut connections = connections(server);
    // One message on each connection before the clock starts, so that no connection is still being accepted.
    for (number, connection) in connections.iter_mut().enumerate() {
        let number = u32::try_from(number).expect("there are few connections");
        connection.ask(&good(plan.timed + 1 + number), 200);
    }
    response_times(
        &mut connections,
        &requests,
        Duration::from_millis(1),
        |connection, request| {
            connection.ask(request, 200);
        },
    )
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
