//! Processor time of a message, relative to an older version of this program, to Go, and to a bare axum route. Linux only.
//!
//! All servers get the same messages, one server after the other in each round, over 64 connections. The messages are
//! WhatsApp's, of known users with two addresses: a number and a business-scoped ID.
//!
//! - with SQLite: all steps of a message, and both durable commits
//! - with PostgreSQL, on the server of `--postgres URL`: the processor time of this server alone
//! - with `forward` to a service in this process: the processor time of this server alone
//!
//! `cargo bench --bench compare` prints the figures. With `-- --check` it exits with 1 if a limit is missed.
//! `-- --binary PATH` measures another build of the program, `--old PATH` is an older version to compare with, and
//! `--go PATH` the program in `benches/go`.

mod client;
mod database;
mod figures;
mod running;
mod runtime;
mod servers;
mod webhook;

use std::future::ready;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use client::{Reuse, connect, connections, micros};
use database::Database;
use figures::{Figures, Run, median};
use servers::{Server, http};
use webhook::{PUBLIC_URL, TOKEN, Webhook};

/// Limit: processor time of a message with SQLite, divided by that of the older version.
const MAX_OF_OLD_SQLITE: f64 = 0.75;
/// Limit: the same, divided by Go's without a store.
const MAX_OF_GO: f64 = 1.1;
/// Limit: processor time of a message with PostgreSQL, divided by that of the older version.
const MAX_OF_OLD_POSTGRES: f64 = 0.75;
/// Limit: processor time of a message that is forwarded, divided by that of the older version.
const MAX_OF_OLD_FORWARD: f64 = 0.8;
/// Standard Webhooks secret with which messages are forwarded: a fixed one, since nothing verifies it.
const FORWARD_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Programs to measure.
struct Programs {
    new: String,
    old: Option<String>,
    go: Option<String>,
    /// Numbers of rounds, and of messages to each server in a round.
    rounds: u32,
    messages: u32,
}

/// A server with its connections, and the processor times of its messages.
struct Side {
    name: &'static str,
    server: Server,
    times: Vec<f64>,
}

impl Side {
    fn new(name: &'static str, server: Server) -> Self {
        Self {
            name,
            server,
            times: Vec::new(),
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if servers::is_bare(&args) {
        return servers::bare(&args);
    }
    let run = Run::from_args();
    let (rounds, messages) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1, 128),
        Run::Measure | Run::Check => (7, 4_096),
    };
    let path = |option: &str| {
        let value = args.iter().skip_while(|arg| *arg != option).nth(1);
        value.cloned()
    };
    let programs = Programs {
        new: path("--binary").unwrap_or_else(|| env!("CARGO_BIN_EXE_replyhook").to_owned()),
        old: path("--old"),
        go: path("--go"),
        rounds,
        messages,
    };
    // Before any thread starts, since threads inherit the processor.
    servers::stay_on(servers::CLIENT);
    let runtime = runtime::start(1);
    let mut figures = Figures::new(run);
    measure_sqlite(&programs, &mut figures);
    measure_forward(&programs, &mut figures, &runtime);
    if let Some(url) = path("--postgres") {
        measure_postgres(&programs, &mut figures, &runtime, &url);
    }
    figures.end()
}

fn measure_sqlite(programs: &Programs, figures: &mut Figures) {
    let new = Server::replyhook(&programs.new, &[]);
    let length = connect(&new).ask(&good(0), 200);
    let mut sides = vec![Side::new("this version", new)];
    if let Some(old) = &programs.old {
        sides.push(Side::new("older version", Server::replyhook(old, &[])));
    }
    if let Some(go) = &programs.go {
        sides.push(Side::new("Go, without a store", program(go)));
    }
    sides.push(Side::new("bare axum route", Server::bare(length)));
    measure(&mut sides, programs);
    show(figures, "SQLite", &sides);
    limit(
        figures,
        "SQLite",
        &sides,
        "older version",
        MAX_OF_OLD_SQLITE,
    );
    limit(figures, "SQLite", &sides, "Go, without a store", MAX_OF_GO);
    figures.show(
        "SQLite: this version / bare axum route",
        ratio(&sides, "bare axum route").unwrap_or_default(),
        "×",
    );
    figures.show(
        "SQLite: p99 of an fsync on the same disk",
        sides[0].server.fsync_ms(50),
        "ms",
    );
    let memory = sides[0].server.process.memory_kib("RssAnon");
    figures.show("SQLite: anonymous memory after all messages", memory, "kB");
}

fn measure_forward(programs: &Programs, figures: &mut Figures, runtime: &tokio::runtime::Runtime) {
    // The service is in this process, on the client's processor, so that only the server's own time is measured.
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.expect("some port is free");
    let port = listener.local_addr().expect("it has an address").port();
    let service = Router::new().route("/bot", post(|_: Bytes| ready("Yes, you can.")));
    runtime.spawn(async move { axum::serve(listener, service).await });
    let url = format!("http://127.0.0.1:{port}/bot");
    let env = [
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", FORWARD_SECRET),
        ("HANDLER_SECRET", FORWARD_SECRET),
    ];
    compare_versions(programs, figures, "forward", MAX_OF_OLD_FORWARD, |binary| {
        Server::replyhook(binary, &env)
    });
}

fn measure_postgres(
    programs: &Programs,
    figures: &mut Figures,
    runtime: &tokio::runtime::Runtime,
    url: &str,
) {
    let databases = ["new", "old"].map(|side| runtime.block_on(Database::create(url, side)));
    let mut left = databases.iter();
    compare_versions(
        programs,
        figures,
        "PostgreSQL",
        MAX_OF_OLD_POSTGRES,
        |binary| {
            let database = left.next().expect("two versions are compared");
            Server::replyhook(binary, &[("DATABASE_URL", &database.url())])
        },
    );
    for database in databases {
        runtime.block_on(database.remove());
    }
}

/// Compares this version with the older one.
fn compare_versions(
    programs: &Programs,
    figures: &mut Figures,
    what: &str,
    max: f64,
    mut start: impl FnMut(&str) -> Server,
) {
    let mut sides = vec![Side::new("this version", start(&programs.new))];
    if let Some(old) = &programs.old {
        sides.push(Side::new("older version", start(old)));
    }
    measure(&mut sides, programs);
    show(figures, what, &sides);
    limit(figures, what, &sides, "older version", max);
}

/// Sends the messages of each round to all sides, one after the other.
// In the first round, which is not counted, the users become known and the statements are prepared.
fn measure(sides: &mut [Side], programs: &Programs) {
    for round in 0..=programs.rounds {
        let numbers = (1 + round * programs.messages)..=((round + 1) * programs.messages);
        let messages: Vec<_> = numbers.map(good).collect();
        for side in &mut *sides {
            // New ones: while the other sides are measured, a server closes idle connections.
            let mut connections = connections(&side.server);
            let time = micros(&side.server, &mut connections, &messages, 200, Reuse::Keep);
            if round > 0 {
                side.times.push(time);
            }
        }
    }
}

fn show(figures: &Figures, what: &str, sides: &[Side]) {
    for side in sides {
        let name = format!("{what}: {}", side.name);
        figures.show(&name, median(side.times.clone()), "µs");
    }
}

fn limit(figures: &mut Figures, what: &str, sides: &[Side], other: &str, max: f64) {
    if let Some(ratio) = ratio(sides, other) {
        let name = format!("{what}: this version / {other}");
        figures.limit(&name, ratio, "×", max);
    }
}

/// Returns the median of the rounds' ratios of the first side and another one.
fn ratio(sides: &[Side], other: &str) -> Option<f64> {
    let other = sides.iter().find(|side| side.name == other)?;
    let ratios = sides[0].times.iter().zip(&other.times);
    Some(median(ratios.map(|(new, other)| new / other).collect()))
}

/// Starts a program of another language, which gets its port, token and public URL in the environment.
fn program(binary: &str) -> Server {
    let [port, _] = servers::free_ports();
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env("PORT", port.to_string())
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .env("PUBLIC_URL", PUBLIC_URL);
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    Server::start(command, port, folder)
}

/// Returns a signed message.
fn good(number: u32) -> Vec<u8> {
    let webhook = Webhook::numbered(number);
    http(&webhook.body, &webhook.signature)
}
