//! Response time of messages while retention deletes old rows. Linux only.
//!
//! The store has two million outbound messages, half of them older than `store.retention_days`. Messages arrive at a
//! steady rate, while both the server and `replyhook purge --expired` delete rows. The response times are compared with
//! those of the same server with an empty store.
//!
//! `cargo bench --bench retention` prints the figures. With `-- --check` it exits with 1 if a limit is missed.
//! `-- --binary PATH` measures another build of the program.

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

/// Messages per second.
const RATE: u32 = 200;
/// Maximum number of requests in flight.
const CONNECTIONS: usize = 32;
/// Limit: median and p99 response time, divided by the same figure with an empty store.
const MAX: f64 = 3.0;
/// Number of consecutive parts of a run. p99 is the median of their p99.
// A shared disk sometimes delays one fsync by some hundred milliseconds, which affects one part. The deletion affects
// most of them.
const PARTS: usize = 5;

/// Extent of a run.
struct Plan {
    /// Path of the program to measure.
    binary: String,
    /// Rows in the table `outbound`.
    rows: u32,
    /// Messages of each run.
    messages: u32,
}

/// Outcome of a run.
struct Waits {
    /// Messages with another status than 200, or without a response.
    rejected: u32,
    /// Median response time in milliseconds.
    p50: f64,
    /// p99 response time in milliseconds.
    p99: f64,
    /// Resident memory of the server at the end, in KiB.
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
    // The first run creates the schema, so the rows can only be inserted after it.
    let without = measure(&plan, &place);
    place.fill(plan.rows);
    let with = measure(&plan, &place);
    for (name, waits) in [("empty store", &without), ("with rows", &with)] {
        figures.show(&format!("median response time, {name}"), waits.p50, "ms");
        figures.show(&format!("p99 response time, {name}"), waits.p99, "ms");
    }
    figures.show("the server's memory at the end", with.resident, "kB");
    // Shows that rows were in fact deleted during the run.
    figures.show(
        "rows deleted during the run",
        f64::from(place.deleted(plan.rows)),
        "",
    );
    figures.limit(
        "messages rejected",
        f64::from(without.rejected + with.rejected),
        "",
        0.0,
    );
    figures.limit(
        "median / same with an empty store",
        with.p50 / without.p50,
        "×",
        MAX,
    );
    figures.limit(
        "p99 / same with an empty store",
        with.p99 / without.p99,
        "×",
        MAX,
    );
    figures.end()
}

/// Runs a server and `replyhook purge --expired`, and measures the response time of messages at [`RATE`].
// Each time begins when the message was due. Otherwise messages that wait for a free connection, because the server is
// slow, would not count as slow.
fn measure(plan: &Plan, place: &Place) -> Waits {
    // Both runs use the same store: a number of the first run would be a redelivery in the second. Relaxed suffices,
    // since only the main thread uses it.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut serve = Command::new(&plan.binary);
    serve.args(["serve", "--config", "/dev/null"]);
    let server = Running(place.start(serve));
    let first = NUMBER.fetch_add(1_000_000, Ordering::Relaxed);
    let request = |number: u32| http(&Webhook::numbered(first + number));
    // One message on each connection before the clock starts, so that no connection is still being accepted.
    let connections = (0..).take(CONNECTIONS).map(|number| {
        let mut connection = place.connect();
        ask(&mut connection, &request(plan.messages + number));
        connection
    });
    let mut connections: Vec<_> = connections.collect();
    let mut purge = Command::new(&plan.binary);
    purge.args(["purge", "--expired", "--config", "/dev/null"]);
    // Killed on drop, before the server: locals are dropped in reverse order.
    let _purge = Running(place.start(purge));
    // Relaxed: `next` hands out each number once, and the end of the scope orders the increments of `rejected` before
    // `into_inner`.
    let (next, rejected) = (AtomicU32::new(0), AtomicU32::new(0));
    let started = Instant::now();
    let mut waits: Vec<(u32, f64)> = std::thread::scope(|scope| {
        let threads = connections.iter_mut().map(|connection| {
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
                        rejected.fetch_add(1, Ordering::Relaxed);
                    }
                    // The server has closed the connection. Later messages must not fail because of it.
                    if status.is_none() {
                        *connection = place.connect();
                    }
                    waits.push((number, due.elapsed().as_secs_f64() * 1e3));
                }
            })
        });
        // `collect` starts all threads before the first is joined.
        let threads: Vec<_> = threads.collect();
        let waits = threads
            .into_iter()
            .map(|thread| thread.join().expect("a sender thread does not panic"));
        waits.flatten().collect()
    });
    // By number, and so by time, because the parts are consecutive.
    waits.sort_by_key(|(number, _)| *number);
    let waits: Vec<f64> = waits.into_iter().map(|(_, wait)| wait).collect();
    let parts = waits.chunks(waits.len().div_ceil(PARTS)).map(|part| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        part[(part.len() * 99 / 100).min(part.len() - 1)]
    });
    Waits {
        rejected: rejected.into_inner(),
        p99: median(parts.collect()),
        p50: median(waits),
        resident: server.memory_kib("VmRSS"),
    }
}

/// Folder and port of the server.
struct Place {
    folder: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        // The listener is closed again here. Another process may take the port before the server does.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let free = free.and_then(|free| free.local_addr());
        Self {
            folder: tempfile::tempdir().expect("a temporary folder can be created"),
            port: free.expect("some port is free").port(),
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("bench.db")
    }

    /// Starts a command with the settings of the server, and without those of this machine.
    fn start(&self, mut command: Command) -> std::process::Child {
        let log =
            fs::File::create(self.folder.path().join("log")).expect("the file can be written");
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

    /// Connects to the server, once it listens.
    ///
    /// # Panics
    /// If it does not listen within a minute.
    fn connect(&self) -> TcpStream {
        let give_up = Instant::now() + Duration::from_mins(1);
        loop {
            match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))) {
                Ok(stream) => {
                    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
                    return stream;
                }
                Err(error) => assert!(
                    Instant::now() < give_up,
                    "the server does not listen: {error}"
                ),
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Inserts outbound messages of the last sixty days, at even intervals.
    ///
    /// The default of `store.retention_days` is 30, so half of them are expired.
    fn fill(&self, rows: u32) {
        let db = Connection::open(self.database()).expect("it can be written");
        // 500 MB of cache and no fsync, so that filling does not take minutes. No server has the file open.
        db.execute_batch("PRAGMA cache_size = -500000; PRAGMA synchronous = off")
            .expect("these settings exist");
        // `at` counts upwards from the oldest row: retention relies on rows being older the smaller their id is. State
        // 4 is a sent message. `inbound` stays NULL, which makes the row an outbound message and not a reply. The
        // account and the SID only have the size of real ones: retention does not read them.
        db.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 - 1), \
               at (i, t) AS (SELECT i, (unixepoch() - 5184000 + i * 5184000 / ?1) * 1000000 FROM n) \
             INSERT INTO outbound (ordinal, account, auth_token, sender, address, template, state, not_before, created_at, sent_at, sid, \
               status, rank, params) \
             SELECT 0, x'41', 0, 'whatsapp:+15550002222', 'whatsapp:+1777' || i, 0, 4, t, t, t, randomblob(17), 'delivered', 5, \
               'To=whatsapp%3A%2B1777' || i || '&From=whatsapp%3A%2B15550002222&Body=Your+order+is+on+its+way' FROM at",
            [rows],
        )
        .expect("the rows can be inserted");
        // Otherwise the disk would still be busy with these rows while the server is measured.
        db.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(()))
            .expect("no other connection reads the database");
        let file = fs::File::open(self.database());
        file.and_then(|file| file.sync_all())
            .expect("the file can be synced");
    }

    /// Returns the number of deleted rows.
    fn deleted(&self, rows: u32) -> u32 {
        let db = Connection::open(self.database()).expect("it can be read");
        let remaining: u32 = db
            .query_row("SELECT count(*) FROM outbound", [], |row| row.get(0))
            .expect("it can be counted");
        rows - remaining
    }
}

/// Returns the bytes of a request.
fn http(webhook: &Webhook) -> Vec<u8> {
    let Webhook { body, signature } = webhook;
    let length = body.len();
    format!(
        "POST {TARGET} HTTP/1.1\r\nHost: bot.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {length}\r\nX-Twilio-Signature: {signature}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends a request and reads the whole response. Returns the status, or `None` if the connection is closed.
fn ask(connection: &mut TcpStream, request: &[u8]) -> Option<u16> {
    connection.write_all(request).ok()?;
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = connection.read(&mut buffer).ok().filter(|read| *read > 0)?;
        response.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&response);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.expect("the response has a Content-Length") {
            let status = head.split(' ').nth(1);
            return status.and_then(|status| status.parse().ok());
        }
    }
}
