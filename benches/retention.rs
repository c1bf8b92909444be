//! What messages wait while old rows are deleted beside them: a server with two million messages that were sent first, half
//! of them too old to be kept, beside one without any. Messages come at a steady rate, while the server deletes and
//! `replyhook purge --expired` does too. Linux only.
//!
//! `cargo bench --bench retention` prints the figures; with `-- --check` it fails where one exceeds its limit. `-- --binary PATH`
//! measures another program.

mod figures;
mod running;
mod webhook;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use running::Running;
use rusqlite::Connection;
use webhook::{PUBLIC_URL, TARGET, TOKEN, Webhook};

/// Messages a second, and requests under way at most.
const RATE: u32 = 200;
const CONNECTIONS: usize = 32;
/// Of the same figure without rows.
const MOST: f64 = 3.0;
/// Parts of a run, one after the other. p99 is the median of theirs: one fsync that a shared disk delays by some hundred
/// milliseconds is in one part, and what deleting costs is in most.
const PARTS: usize = 5;

/// How much is measured.
struct Plan {
    binary: String,
    rows: u32,
    messages: u32,
}

/// Outcome of the messages of a run.
struct Waits {
    refused: u32,
    /// Of 100, in milliseconds.
    p50: f64,
    p99: f64,
    /// Of the server, in KiB, at the end.
    resident: f64,
}

fn main() -> ExitCode {
    let run = Run::from_args();
    let (rows, messages) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1_000, 20),
        Run::Measure | Run::Check => (2_000_000, 20 * RATE),
    };
    let binary = std::env::args().skip_while(|arg| arg != "--binary").nth(1);
    let plan = Plan {
        binary: binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_replyhook").to_owned()),
        rows,
        messages,
    };
    let mut figures = Figures::new(run);
    let place = Place::new();
    let without = measured(&plan, &place);
    place.fill(plan.rows);
    let with = measured(&plan, &place);
    for (name, waits) in [("without rows", &without), ("beside the rows", &with)] {
        figures.show(&format!("a wait {name}, 50 of 100"), waits.p50, "ms");
        figures.show(&format!("a wait {name}, 99 of 100"), waits.p99, "ms");
    }
    figures.show("the server's memory after that", with.resident, "kB");
    figures.show(
        "rows deleted meanwhile",
        f64::from(place.deleted(plan.rows)),
        "",
    );
    figures.limit(
        "messages refused",
        f64::from(without.refused + with.refused),
        "",
        0.0,
    );
    figures.limit(
        "50 of 100, by that without rows",
        with.p50 / without.p50,
        "×",
        MOST,
    );
    figures.limit(
        "99 of 100, by that without rows",
        with.p99 / without.p99,
        "×",
        MOST,
    );
    figures.end()
}

/// Runs a server, and `purge --expired` beside it, while messages come.
fn measured(plan: &Plan, place: &Place) -> Waits {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut serve = Command::new(&plan.binary);
    serve.args(["serve", "--config", "/dev/null"]);
    let server = Running(place.start(serve));
    let first = NUMBER.fetch_add(1_000_000, Ordering::Relaxed);
    let request = |number: u32| http(&Webhook::numbered(first + number));
    // Asked once each, so that none is being opened while time is taken.
    let connections = (0..).take(CONNECTIONS).map(|number| {
        let mut connection = place.connect();
        ask(&mut connection, &request(plan.messages + number));
        connection
    });
    let mut connections: Vec<_> = connections.collect();
    let mut purge = Command::new(&plan.binary);
    purge.args(["purge", "--expired", "--config", "/dev/null"]);
    let _purge = Running(place.start(purge));
    let (next, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    let started = Instant::now();
    let mut waits: Vec<(u32, f64)> = std::thread::scope(|scope| {
        let asking = connections.iter_mut().map(|connection| {
            scope.spawn(|| {
                let mut waits = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= plan.messages {
                        return waits;
                    }
                    let request = request(number);
                    let due = started + Duration::from_secs(1) / RATE * number;
                    sleep(due.saturating_duration_since(Instant::now()));
                    let status = ask(connection, &request);
                    if status != Some(200) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    if status.is_none() {
                        *connection = place.connect();
                    }
                    waits.push((number, due.elapsed().as_secs_f64() * 1e3));
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        let waits = asking.into_iter().map(|one| one.join().expect("it asks"));
        waits.flatten().collect()
    });
    waits.sort_by_key(|(number, _)| *number);
    let waits: Vec<f64> = waits.into_iter().map(|(_, wait)| wait).collect();
    let parts = waits.chunks(waits.len().div_ceil(PARTS)).map(|part| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        part[(part.len() * 99 / 100).min(part.len() - 1)]
    });
    Waits {
        refused: refused.into_inner(),
        p99: median(parts.collect()),
        p50: median(waits),
        resident: server.memory_kib("VmRSS"),
    }
}

/// Where the server is.
struct Place {
    folder: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let free = free.and_then(|free| free.local_addr());
        Self {
            folder: tempfile::tempdir().expect("there is room for a folder"),
            port: free.expect("some port is free").port(),
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("bench.db")
    }

    fn start(&self, mut command: Command) -> std::process::Child {
        let log = fs::File::create(self.folder.path().join("log")).expect("there is room");
        command
            .env_clear()
            .env("PORT", self.port.to_string())
            .env("REPLYHOOK__ADMIN__LISTEN", "")
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("PUBLIC_URL", PUBLIC_URL)
            .env(
                "DATABASE_URL",
                format!("sqlite:{}", self.database().display()),
            )
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().expect("the program starts")
    }

    /// Once it listens.
    fn connect(&self) -> TcpStream {
        let give_up = Instant::now() + Duration::from_mins(1);
        loop {
            match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))) {
                Ok(stream) => {
                    stream.set_nodelay(true).expect("it is a socket");
                    return stream;
                }
                Err(error) => assert!(Instant::now() < give_up, "no server: {error}"),
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Messages that were sent first, evenly over the last sixty days, of which content is kept for thirty.
    fn fill(&self, rows: u32) {
        let db = Connection::open(self.database()).expect("it can be written");
        db.execute_batch("PRAGMA cache_size = -500000; PRAGMA synchronous = off")
            .expect("it can be set");
        db.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 - 1), \
               at (i, t) AS (SELECT i, (unixepoch() - 5184000 + i * 5184000 / ?1) * 1000000 FROM n) \
             INSERT INTO reply (ordinal, account, slot, us, address, template, state, not_before, created_at, sent_at, sid, \
               status, rank, params) \
             SELECT 0, x'41', 0, 'whatsapp:+15550002222', 'whatsapp:+1777' || i, 0, 4, t, t, t, randomblob(17), 'delivered', 5, \
               'To=whatsapp%3A%2B1777' || i || '&From=whatsapp%3A%2B15550002222&Body=Your+order+is+on+its+way' FROM at",
            [rows],
        )
        .expect("there is room");
        // Otherwise the server would be measured while the disk is busy with these.
        db.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(()))
            .expect("nothing else reads it");
        let file = fs::File::open(self.database());
        file.and_then(|file| file.sync_all())
            .expect("the disk takes it");
    }

    /// Rows that are gone.
    fn deleted(&self, rows: u32) -> u32 {
        let db = Connection::open(self.database()).expect("it can be read");
        let left: u32 = db
            .query_row("SELECT count(*) FROM reply", [], |row| row.get(0))
            .expect("it can be counted");
        rows - left
    }
}

fn http(webhook: &Webhook) -> Vec<u8> {
    let Webhook { body, signature } = webhook;
    let length = body.len();
    format!(
        "POST {TARGET} HTTP/1.1\r\nHost: bot.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {length}\r\nX-Twilio-Signature: {signature}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends a request and reads its whole answer; returns the status, or nothing where the server has closed.
fn ask(connection: &mut TcpStream, request: &[u8]) -> Option<u16> {
    connection.write_all(request).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = connection.read(&mut buffer).ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("content-length");
            is_it.then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.expect("it says how long it is") {
            let status = head.split(' ').nth(1);
            return status.and_then(|status| status.parse().ok());
        }
    }
}
