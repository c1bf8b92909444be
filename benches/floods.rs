//! Signed messages beside floods: a thousand a second, each on a connection of its own, while strangers ask for media
//! links, hold connections, send bodies and heads that never end, or forge signatures.
//!
//! The same flood goes to the server and, in turn, to a bare axum server on the same processor; the messages always go to
//! the server. None may fail, and none may wait much longer than beside the flood that the server has nothing to do with.
//! Linux only.
//!
//! `cargo bench --bench floods` prints the figures; with `-- --check` it fails where one exceeds its limit. `-- --binary
//! PATH` measures another build of the program.

mod figures;
mod flood;
mod running;
mod servers;
mod webhook;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use flood::{Flood, Manner};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use servers::{Server, http};
use webhook::{TARGET, Webhook};

/// Messages that fail beside a flood.
const MOST_FAILED: f64 = 0.0;
/// p99 of the wait of a message, divided by p99 while the flood goes to the bare server.
const MOST_OF_BARE: f64 = 2.0;
/// The machine of the shipped `fly.toml`.
const MACHINE_KIB: f64 = 256.0 * 1024.0;
/// A quarter of it, where the server can be told.
const UNVERIFIED_BYTES: (&str, &str) = ("REPLYHOOK__SERVER__UNVERIFIED_BYTES", "67108864");

/// Threads that send messages.
const SENDERS: u32 = 64;
/// A message that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Descriptors of the largest flood, and some to spare.
const DESCRIPTORS: u64 = 6_000;
/// Bytes of a body as the server takes it by default.
const BODY: usize = 128 * 1024;

struct Plan {
    binary: String,
    rounds: u32,
    /// Messages in each round, one each millisecond.
    paced: u32,
    /// The part of a flood's clients that there are.
    part: u32,
    /// Whether a flood gets the time to grow.
    grown: bool,
}

struct Scenario {
    name: &'static str,
    clients: u32,
    manner: Manner,
    /// How long a flood grows before messages are timed.
    grows: Duration,
    /// It is about memory: of all that the server may have.
    most_kib: Option<f64>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if servers::is_bare(&args) {
        return servers::bare(&args);
    }
    let run = Run::from_args();
    let (rounds, paced, part, grown) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1, 20, 64, false),
        // The median of five: a shared disk delays an fsync now and then by more than a flood does.
        Run::Measure | Run::Check => (5, 1_500, 1, true),
    };
    let binary = args.into_iter().skip_while(|arg| arg != "--binary").nth(1);
    let plan = Plan {
        binary: binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_replyhook").to_owned()),
        rounds,
        paced,
        part,
        grown,
    };
    servers::stay_on(servers::CLIENT);
    let mut figures = Figures::new(run);
    let descriptors = raise_descriptors();
    for scenario in scenarios() {
        if u64::from(scenario.clients / part) * 2 > descriptors {
            skip(&scenario, descriptors);
            continue;
        }
        measure(&plan, &scenario, &mut figures);
    }
    figures.end()
}

/// The floods, as a stranger can send them.
fn scenarios() -> Vec<Scenario> {
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: bot.example.com\r\n\r\n").into_bytes();
    let links = (0..4096).map(|number| get(&format!("/media/{}", token(number))));
    let forged = (0..1024).map(|number| {
        let (webhook, other) = (Webhook::numbered(number), Webhook::numbered(number + 1));
        http(&webhook.body, &other.signature)
    });
    let trickled = |requests: Vec<Vec<u8>>| Manner::Unfinished {
        requests: requests.into(),
        pieces: 16,
        every: Duration::from_millis(125),
    };
    vec![
        Scenario {
            name: "media links",
            clients: 512,
            manner: Manner::ClosedLoop {
                requests: links.collect(),
                per_second: 5_000,
            },
            grows: Duration::from_millis(700),
            most_kib: None,
        },
        Scenario {
            name: "connections",
            clients: 4_200,
            manner: Manner::KeepAlive {
                request: get("/x").into(),
                every: Duration::from_secs(4),
            },
            grows: Duration::from_millis(1_500),
            most_kib: None,
        },
        Scenario {
            name: "bodies",
            clients: 1_500,
            manner: trickled(vec![unfinished_body()]),
            grows: Duration::from_secs(2),
            most_kib: Some(MACHINE_KIB),
        },
        Scenario {
            name: "heads",
            clients: 3_000,
            manner: trickled([32, 64].map(unfinished_head).into()),
            grows: Duration::from_secs(2),
            most_kib: Some(MACHINE_KIB),
        },
        Scenario {
            name: "forgeries",
            clients: 64,
            manner: Manner::ClosedLoop {
                requests: forged.collect(),
                per_second: 5_000,
            },
            grows: Duration::from_millis(700),
            most_kib: None,
        },
    ]
}

/// 43 characters, as a media link has.
fn token(number: u128) -> String {
    let spread = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{spread:032x}{spread:010.10x}")[..42].to_owned() + "A"
}

/// All of a request but its last byte, with a signature that is well-formed.
fn unfinished_body() -> Vec<u8> {
    let body = "Body=".to_owned() + &"x".repeat(BODY - 5);
    let mut request = http(&body, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    request.pop();
    request
}

/// A head of so many KiB without its end.
fn unfinished_head(kib: usize) -> Vec<u8> {
    let line = |number: usize| format!("X-Fill-{number:02}: {}\r\n", "x".repeat(1024 - 14));
    let lines: String = (1..kib).map(line).collect();
    format!("POST {TARGET} HTTP/1.1\r\nHost: bot.example.com\r\n{lines}").into_bytes()
}

/// Outcome of the messages of one round.
struct Round {
    p99: f64,
    failed: u32,
    flood_per_second: f64,
}

fn measure(plan: &Plan, scenario: &Scenario, figures: &mut Figures) {
    let told = scenario.most_kib.is_some() && knows_budget(&plan.binary);
    let env = if told { &[UNVERIFIED_BYTES][..] } else { &[] };
    let server = Server::replyhook(&plan.binary, env);
    let bare = Server::bare(100);
    drop((server.connect(), bare.connect()));
    let first = AtomicU32::new(0);
    let round = |flooded: SocketAddr| {
        let requests = first.fetch_add(plan.paced, Ordering::Relaxed);
        let requests = (requests..requests + plan.paced).map(|number| {
            let webhook = Webhook::numbered(number);
            http(&webhook.body, &webhook.signature)
        });
        let requests: Vec<_> = requests.collect();
        let clients = scenario.clients / plan.part;
        let flood = Flood::start(clients, &scenario.manner, flooded);
        if plan.grown {
            sleep(scenario.grows);
        }
        let (p99, failed) = pace(server.address, &requests);
        let flood_per_second = flood.end();
        Round {
            p99,
            failed,
            flood_per_second,
        }
    };
    let (mut here, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        here.push(round(server.address));
        // Connections of the flood that has ended are closed by now, or soon.
        sleep(Duration::from_millis(if plan.grown { 300 } else { 0 }));
        beside.push(round(bare.address));
    }
    let p99 = |rounds: &[Round]| median(rounds.iter().map(|round| round.p99).collect());
    let failed = |rounds: &[Round]| f64::from(rounds.iter().map(|round| round.failed).sum::<u32>());
    let speed =
        |rounds: &[Round]| median(rounds.iter().map(|round| round.flood_per_second).collect());
    let fsync = server.fsync_ms(plan.paced / 20);
    let name = scenario.name;
    let row = |what: &str| format!("{name}: {what}");
    figures.show(&row("an fsync, 99 of 100"), fsync, "ms");
    figures.show(&row("requests of the flood that ended"), speed(&here), "/s");
    figures.show(&row("the same at a bare server"), speed(&beside), "/s");
    figures.limit(&row("messages that failed"), failed(&here), "", MOST_FAILED);
    figures.show(&row("the same beside a bare server"), failed(&beside), "");
    figures.show(&row("a wait, 99 of 100"), p99(&here), "ms");
    figures.show(&row("the same beside a bare server"), p99(&beside), "ms");
    let ratio = p99(&here) / p99(&beside);
    figures.limit(
        &row("wait / beside a bare server"),
        ratio,
        "×",
        MOST_OF_BARE,
    );
    let peak = server.process.memory_kib("VmHWM");
    match scenario.most_kib {
        Some(most) => figures.limit(&row("memory at its peak"), peak, "kB", most),
        None => figures.show(&row("memory at its peak"), peak, "kB"),
    }
}

/// Whether the program has a budget for bytes that nobody has vouched for.
fn knows_budget(binary: &str) -> bool {
    let output = Command::new(binary).args(["config", "default"]).output();
    let output = output.expect("the program starts");
    String::from_utf8_lossy(&output.stdout).contains("unverified_bytes")
}

/// Sends a message each millisecond, whether the server keeps up or not. Returns what 99 of 100 waited from the moment they
/// were due, and how many failed; one that failed has waited as long as it was given.
fn pace(server: SocketAddr, requests: &[Vec<u8>]) -> (f64, u32) {
    let (next, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    let started = Instant::now();
    let due = |number: u32| started + Duration::from_millis(number.into());
    let count = u32::try_from(requests.len()).expect("there are few messages");
    let end = due(count) + PATIENCE;
    let mut waits: Vec<f64> = std::thread::scope(|scope| {
        let sending = (0..SENDERS).map(|_| {
            scope.spawn(|| {
                let mut waits = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(number as usize) else {
                        return waits;
                    };
                    let due = due(number);
                    sleep(due.saturating_duration_since(Instant::now()));
                    // All senders wait for messages that fail: what could not even be sent has failed too.
                    let answered = Instant::now() < end && send(server, request).is_ok();
                    if !answered {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    waits.push(due.elapsed().as_secs_f64() * 1e3);
                }
            })
        });
        let sending: Vec<_> = sending.collect();
        let waits = sending.into_iter().map(|one| one.join().expect("it sends"));
        waits.flatten().collect()
    });
    waits.sort_by(f64::total_cmp);
    let p99 = waits[(waits.len() * 99 / 100).min(waits.len() - 1)];
    (p99, failed.into_inner())
}

/// Sends a message on a connection of its own, and reads its answer.
fn send(server: SocketAddr, request: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&piece[..length]);
        if received.ends_with(b"</Response>") || received.ends_with(b"<Response/>") {
            break;
        }
    }
    if received.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Raises the limit of open files, also for the servers, and returns it.
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
    reason = "a limit that was not measured is no limit that held"
)]
fn skip(scenario: &Scenario, descriptors: u64) {
    println!(
        "{}: skipped, {} connections need more than the {descriptors} open files that are allowed here (ulimit -Hn)",
        scenario.name, scenario.clients
    );
}
