//! Response time of signed messages during a flood of unauthenticated requests. Linux only.
//!
//! A thousand messages arrive per second, each on its own connection. In the meantime other clients request media
//! links, hold connections, send bodies and heads that never end, or forge signatures.
//!
//! The same flood goes alternately to the server and to a bare axum server on the same processor. The messages always
//! go to the server. No message may fail. The p99 response time is divided by the one during the flood of the bare
//! server. So the ratio shows the cost of the flood to the server itself.
//!
//! `cargo bench --bench floods` prints the figures. With `-- --check` it exits with 1 if a limit is missed.
//! `-- --binary PATH` measures another build of the program. `-- --only NAME` measures one flood.

mod arrivals;
mod figures;
mod flood;
mod running;
mod runtime;
mod servers;
mod steady;
mod webhook;

use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use arrivals::send_all;
use figures::{Figures, Run, median};
use flood::{Flood, Manner};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use servers::{Server, http};
use webhook::{TARGET, Webhook};

/// Limit: messages that fail during a flood.
const MAX_FAILED: f64 = 0.0;
/// Limit: p99 response time of the messages, divided by p99 while the flood goes to the bare server.
const MAX_OF_BARE: f64 = 2.0;
/// Limit: peak memory of the server during a flood of unfinished requests. The machine of `fly.toml` has 256 MiB.
const MACHINE_KIB: f64 = 256.0 * 1024.0;
/// Budget for unverified bytes on such a machine: a quarter of its memory.
// Set explicitly, because the default is a quarter of the memory of the machine that runs the benchmark.
const UNVERIFIED_BYTES: (&str, &str) = ("REPLYHOOK__SERVER__UNVERIFIED_BYTES", "67108864");

/// Interval of the messages.
const INTERVAL: Duration = Duration::from_millis(1);
/// Number of open files to allow where the system sets no limit. The largest flood has 4,200 connections.
const DESCRIPTORS: u64 = 6_000;
/// Bytes of an unfinished body: the default of `server.max_body_bytes`, so that it is not rejected by its length.
const BODY: usize = 128 * 1024;

/// Extent of a run.
struct Plan {
    /// Path of the program to measure.
    binary: String,
    rounds: u32,
    /// Messages in each round, one per millisecond.
    messages: u32,
    /// Divisor of the number of clients of each flood.
    divisor: u32,
    /// Waits until a flood has reached its full size, before messages are timed.
    waits_for_growth: bool,
}

/// A flood and its limits.
struct Scenario {
    name: &'static str,
    clients: u32,
    manner: Manner,
    /// Time until the flood has reached its full size.
    growth_time: Duration,
    /// Limit of the server's peak memory in KiB, for floods that use memory.
    max_memory_kib: Option<f64>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if servers::is_bare(&args) {
        return servers::bare(&args);
    }
    let run = Run::from_args();
    let (rounds, messages, divisor, waits_for_growth) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1, 20, 64, false),
        // The median of five rounds, because a shared disk sometimes delays an fsync by more than a flood does.
        Run::Measure | Run::Check => (5, 1_500, 1, true),
    };
    let option = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1).cloned();
    let (binary, only) = (option("--binary"), option("--only"));
    let plan = Plan {
        binary: binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_replyhook").to_owned()),
        rounds,
        messages,
        divisor,
        waits_for_growth,
    };
    // Before any thread starts, since threads inherit the processor.
    servers::stay_on(servers::CLIENT);
    let mut figures = Figures::new(run);
    // Before the servers start, which inherit the limit.
    let descriptors = raise_descriptors();
    for scenario in scenarios() {
        if only.as_ref().is_some_and(|only| only != scenario.name) {
            continue;
        }
        // A margin of as many again: the server also opens its store, and closes old connections with a delay.
        if u64::from(scenario.clients / divisor) * 2 > descriptors {
            skip(&scenario, descriptors);
            continue;
        }
        measure(&plan, &scenario, &mut figures);
    }
    figures.end()
}

/// Returns the floods. None of them needs a secret of the server.
fn scenarios() -> Vec<Scenario> {
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: bot.example.com\r\n\r\n").into_bytes();
    let links = (0..4096).map(|number| closing(get(&format!("/media/{}", token(number)))));
    // Well-formed signatures of other messages, so that the server has to compute the HMAC to reject them.
    let forged = (0..1024).map(|number| {
        let (webhook, other) = (Webhook::numbered(number), Webhook::numbered(number + 1));
        closing(http(&webhook.body, &other.signature))
    });
    // 16 pieces in 2 s. Then each client holds the request until 5 s have passed, which is the server's timeout for a
    // head and for a body.
    let trickled = |requests: Vec<Vec<u8>>| Manner::Unfinished {
        requests: requests.into(),
        pieces: 16,
        every: Duration::from_millis(125),
        period: Duration::from_secs(5),
    };
    vec![
        Scenario {
            name: "media links",
            clients: 512,
            manner: Manner::ClosedLoop {
                requests: links.collect(),
                per_second: 2_500,
            },
            growth_time: Duration::from_millis(700),
            max_memory_kib: None,
        },
        Scenario {
            // More connections than the default of `server.max_connections`, 4,096. The server responds with 404.
            name: "connections",
            clients: 4_200,
            manner: Manner::KeepAlive {
                request: get("/x").into(),
                every: Duration::from_secs(4),
            },
            growth_time: Duration::from_millis(1_500),
            max_memory_kib: None,
        },
        Scenario {
            name: "bodies",
            clients: 1_500,
            manner: trickled(vec![unfinished_body()]),
            growth_time: Duration::from_secs(5),
            max_memory_kib: Some(MACHINE_KIB),
        },
        Scenario {
            // 64 KiB is the default of `server.max_header_bytes`; the head of 128 KiB exceeds it.
            name: "heads",
            clients: 3_000,
            manner: trickled([64, 128].map(unfinished_head).into()),
            growth_time: Duration::from_secs(5),
            max_memory_kib: Some(MACHINE_KIB),
        },
        Scenario {
            name: "forgeries",
            clients: 64,
            manner: Manner::ClosedLoop {
                requests: forged.collect(),
                per_second: 2_500,
            },
            growth_time: Duration::from_millis(700),
            max_memory_kib: None,
        },
    ]
}

/// Adds `Connection: close` to a request.
// Replyhook closes the connection after a rejected request, and the bare server does not. Without this header the
// clients would open 2,500 connections per second to one of them only, on the processor that also sends the messages.
fn closing(request: Vec<u8>) -> Vec<u8> {
    let request = String::from_utf8(request).expect("it was formatted as text");
    let (line, rest) = request.split_once("\r\n").expect("it has a request line");
    format!("{line}\r\nConnection: close\r\n{rest}").into_bytes()
}

/// Returns the token of a media link, with an invalid tag.
// It has the length of a valid token, so that the server computes the tag.
fn token(number: u128) -> String {
    let spread = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{spread:032x}{:032x}", !spread)
}

/// Returns a request without its last byte, with a well-formed signature.
// The server reads a body only if the signature has the form of one.
fn unfinished_body() -> Vec<u8> {
    let body = "Body=".to_owned() + &"x".repeat(BODY - 5);
    let mut request = http(&body, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    request.pop();
    request
}

/// Returns a head of `kib` KiB without its end.
fn unfinished_head(kib: usize) -> Vec<u8> {
    let line = |number: usize| format!("X-Fill-{number:02}: {}\r\n", "x".repeat(1024 - 14));
    let lines: String = (1..kib).map(line).collect();
    format!("POST {TARGET} HTTP/1.1\r\nHost: bot.example.com\r\n{lines}").into_bytes()
}

/// Outcome of one round.
struct Round {
    /// Response time of the messages in milliseconds.
    p99: f64,
    failed: u32,
    /// Requests of the flood that ended, per second.
    flood_per_second: f64,
}

/// Measures a scenario, and prints its figures.
fn measure(plan: &Plan, scenario: &Scenario, figures: &mut Figures) {
    let sets_budget = scenario.max_memory_kib.is_some() && knows_budget(&plan.binary);
    let env = if sets_budget {
        &[UNVERIFIED_BYTES][..]
    } else {
        &[]
    };
    let server = Server::replyhook(&plan.binary, env);
    let bare = Server::bare(100);
    // Waits until both listen.
    drop((server.connect(), bare.connect()));
    // Numbers continue in the next round: a repeated message would get the saved response, which costs less.
    // Relaxed: only this thread uses the counter.
    let first = AtomicU32::new(0);
    let round = |flooded: SocketAddr| {
        // All requests exist before the flood starts: signing them takes processor time.
        let numbers = first.fetch_add(plan.messages, Ordering::Relaxed);
        let requests = (numbers..numbers + plan.messages).map(|number| {
            let webhook = Webhook::numbered(number);
            http(&webhook.body, &webhook.signature)
        });
        let requests: Vec<_> = requests.collect();
        let clients = scenario.clients / plan.divisor;
        let flood = Flood::start(clients, &scenario.manner, flooded);
        if plan.waits_for_growth {
            sleep(scenario.growth_time);
        }
        // To the server in every round, also while the flood goes to the bare server.
        let (p99, failed) = send_all(server.address, &requests, INTERVAL);
        let flood_per_second = flood.end();
        Round {
            p99,
            failed,
            flood_per_second,
        }
    };
    // Alternately, so that a change of the machine's speed affects both sides.
    let (mut on_server, mut on_bare) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        on_server.push(round(server.address));
        // Time for the server to close the connections of the flood that has ended.
        sleep(Duration::from_millis(if plan.waits_for_growth {
            300
        } else {
            0
        }));
        on_bare.push(round(bare.address));
    }
    let p99 = |rounds: &[Round]| median(rounds.iter().map(|round| round.p99).collect());
    let failed = |rounds: &[Round]| f64::from(rounds.iter().map(|round| round.failed).sum::<u32>());
    let speed =
        |rounds: &[Round]| median(rounds.iter().map(|round| round.flood_per_second).collect());
    // After the rounds, so that it does not disturb them.
    let fsync = server.fsync_ms(plan.messages / 20);
    let name = scenario.name;
    let row = |what: &str| format!("{name}: {what}");
    figures.show(&row("p99 of an fsync"), fsync, "ms");
    figures.show(&row("flood requests ended"), speed(&on_server), "/s");
    figures.show(&row("same, bare server"), speed(&on_bare), "/s");
    figures.limit(&row("failed messages"), failed(&on_server), "", MAX_FAILED);
    figures.show(&row("same, flood on bare server"), failed(&on_bare), "");
    figures.show(&row("p99 response time"), p99(&on_server), "ms");
    figures.show(&row("same, flood on bare server"), p99(&on_bare), "ms");
    let ratio = p99(&on_server) / p99(&on_bare);
    figures.limit(&row("ratio of p99"), ratio, "×", MAX_OF_BARE);
    let peak = server.process.memory_kib("VmHWM");
    match scenario.max_memory_kib {
        Some(max) => figures.limit(&row("peak memory"), peak, "kB", max),
        None => figures.show(&row("peak memory"), peak, "kB"),
    }
}

/// Returns true if the program has the setting `server.unverified_bytes`.
// `--binary` may name an older build without it.
fn knows_budget(binary: &str) -> bool {
    let output = Command::new(binary).args(["config", "default"]).output();
    let output = output.expect("the program starts");
    String::from_utf8_lossy(&output.stdout).contains("unverified_bytes")
}

/// Raises the limit of open files to the maximum that this user may set, and returns it. Child processes inherit it.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .unwrap_or(DESCRIPTORS)
        .max(limit.current.unwrap_or(0));
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        wanted
    } else {
        limit.current.unwrap_or(DESCRIPTORS)
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a skipped limit must not look like one that held"
)]
fn skip(scenario: &Scenario, descriptors: u64) {
    println!(
        "{}: skipped; {} connections need more than the {descriptors} open files allowed here (raise `ulimit -Hn`)",
        scenario.name, scenario.clients
    );
}
