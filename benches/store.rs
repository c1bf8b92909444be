//! Cost of storing a message in SQLite, and time to open a store after `kill -9`. Linux only.
//!
//! - Processor time to accept a message and save its response, durably, with 64 concurrent tasks. It is measured in a
//!   small journal, and in one of a million messages and a hundred thousand conversations.
//! - The same for users with one and with two addresses, among a thousand users and among a million.
//! - Time to open that store after `kill -9`, store a message, and claim the backlog and the outbox. The store has a
//!   long write-ahead log, and thousands of open messages and replies.
//!
//! `cargo bench --bench store` prints the figures. With `-- --check` it exits with 1 if a limit is missed.

mod figures;
mod journal;
mod runtime;
mod webhook;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use journal::{arrival, now};
use replyhook::internals::{CrashPolicy, Journal, NewOutbound, Outbox};
use replyhook::store::sqlite::SqliteStore;

/// Limit: processor time of a message in the large journal, divided by that in the small one.
const MAX_GROWTH: f64 = 1.1;
/// Limit: processor time of a message among a million users, divided by that among a thousand.
const MAX_USER_GROWTH: f64 = 1.1;
/// Limit: processor time of a message of a user with two addresses, divided by that of a user with one.
const MAX_ADDRESSES: f64 = 1.2;
/// Limit: time from opening the store to the first claims of its backlog and outbox.
const MAX_OPEN_S: f64 = 2.0;

fn main() -> ExitCode {
    let run = Run::from_args();
    let (small, large, measured, users, open) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (64, 256, 128, 256, 64),
        Run::Measure | Run::Check => (1_000, 1_000_000, 10_000, 100_000, 4_000),
    };
    let mut figures = Figures::new(run);
    let runtime = runtime::start(2);
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let path = folder.path().join("bench.db");
    let copy_path = folder.path().join("copy.db");
    let next = Arc::new(AtomicU32::new(0));
    runtime.block_on(async {
        let store = journal::open(&path).await;
        keep(&store, &next, small, users).await;
        let at_small = measure(&store, &next, measured, users).await;
        keep(&store, &next, large, users).await;
        let at_large = measure(&store, &next, measured, users).await;
        figures.show("a message in a journal of 1,000", at_small, "µs");
        figures.show("a message in a journal of 1,000,000", at_large, "µs");
        figures.limit(
            "large / small journal",
            at_large / at_small,
            "×",
            MAX_GROWTH,
        );
        // SQLite cannot reset the write-ahead log while a read transaction is open, so the log becomes long.
        let reader = rusqlite::Connection::open(&path).expect("it can be read");
        let begin = "BEGIN; SELECT count(*) FROM meta";
        reader.execute_batch(begin).expect("a read begins");
        keep(&store, &next, measured, users).await;
        leave_open(&store, &next, open, users).await;
        // `kill -9` would leave these two files; SQLite builds the `-shm` file from the log. All writes are committed.
        // A checkpoint may still copy pages from the log into the database. The log keeps them as long as `reader` is
        // open, so the copies fit together.
        for suffix in ["", "-wal"] {
            copy(&path, &copy_path, suffix);
        }
    });
    let one = runtime.block_on(measure_users(
        &folder.path().join("one.db"),
        measured,
        large,
        1,
    ));
    let two = runtime.block_on(measure_users(
        &folder.path().join("two.db"),
        measured,
        large,
        2,
    ));
    for (addresses, (few, many)) in [("one address", one), ("two addresses", two)] {
        figures.show(&format!("a message of a user with {addresses}"), few, "µs");
        figures.limit(
            &format!("many / few users with {addresses}"),
            many / few,
            "×",
            MAX_USER_GROWTH,
        );
    }
    figures.limit("two addresses / one", two.0 / one.0, "×", MAX_ADDRESSES);
    figures.show("size of the database", megabytes(&copy_path, ""), "MB");
    figures.show("size of its log", megabytes(&copy_path, "-wal"), "MB");
    let started = Instant::now();
    runtime.block_on(async {
        let store = journal::open(&copy_path).await;
        // A message of a new user: behind an open message it would be queued, and not claimed.
        keep(&store, &next, 1, u32::MAX).await;
        let policy = CrashPolicy {
            retry: true,
            max_attempts: 2,
        };
        // The claims of the copy belong to another owner. Only one process at a time owns the file, so this store takes
        // them over without waiting.
        let backlog = store
            .claim_backlog(64, policy, now())
            .await
            .expect("the backlog can be claimed");
        let claimed = store.claim(16, now()).await;
        let claimed = claimed.expect("the outbox can be claimed");
        assert!(
            !backlog.messages.is_empty() && !claimed.is_empty(),
            "the copy has open messages and replies"
        );
    });
    let seconds = started.elapsed().as_secs_f64();
    figures.limit("open and claim after kill -9", seconds, "s", MAX_OPEN_S);
    figures.end()
}

/// Returns the processor time of a message of a known user in µs: among a thousand users, and among as many as `many`.
async fn measure_users(path: &Path, measured: u32, many: u32, addresses: usize) -> (f64, f64) {
    let few = many.min(1_000);
    let store = journal::open(path).await;
    let next = Arc::new(AtomicU32::new(0));
    let mut times = Vec::new();
    for users in [few, many] {
        // Each user has written once, so that the messages measured are of known users.
        journal::keep_with(&store, &next, users, users, addresses).await;
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let before = cpu_time();
            journal::keep_with(&store, &next, measured, users, addresses).await;
            let took = cpu_time().saturating_sub(before);
            rounds.push(took.as_secs_f64() * 1e6 / f64::from(measured));
        }
        times.push(median(rounds));
    }
    (times[0], times[1])
}

fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn copy(from: &Path, to: &Path, suffix: &str) {
    let copied = std::fs::copy(with_suffix(from, suffix), with_suffix(to, suffix));
    copied.expect("the file can be copied");
}

fn megabytes(path: &Path, suffix: &str) -> f64 {
    let size = std::fs::metadata(with_suffix(path, suffix)).map_or(0, |metadata| metadata.len());
    #[expect(clippy::cast_precision_loss, reason = "no file is as large as 2^52")]
    let size = size as f64;
    size / 1e6
}

/// Stores messages that are claimed or queued behind one, and as many replies in the outbox.
// Their responses are never saved, as if the process had died while the handlers ran.
async fn leave_open(store: &Arc<SqliteStore>, next: &Arc<AtomicU32>, number: u32, users: u32) {
    for _ in 0..number {
        let arrival = arrival(next.fetch_add(1, Ordering::Relaxed), users, 2);
        let reply = NewOutbound {
            account: arrival.account,
            auth_token: arrival.auth_token,
            sender: arrival.sender.clone(),
            user: arrival.user[0].clone(),
            service: None,
            params: [("Body", "It is ready.")].into_iter().collect(),
            template: false,
        };
        store.accept(arrival).await.expect("the message is stored");
        let queued = store.enqueue(vec![reply], now()).await;
        queued.expect("the reply is stored");
    }
}

/// Returns the processor time of one message in µs: the median of three rounds.
async fn measure(
    store: &Arc<SqliteStore>,
    next: &Arc<AtomicU32>,
    messages: u32,
    users: u32,
) -> f64 {
    let mut rounds = Vec::new();
    for _ in 0..3 {
        rounds.push(keep(store, next, messages, users).await);
    }
    median(rounds)
}

/// Stores `messages` messages with their responses. Returns the processor time of one in µs.
// Not the wall clock, which would mostly measure the disk's fsync.
async fn keep(store: &Arc<SqliteStore>, next: &Arc<AtomicU32>, messages: u32, users: u32) -> f64 {
    let before = cpu_time();
    journal::keep(store, next, messages, users).await;
    cpu_time().saturating_sub(before).as_secs_f64() * 1e6 / f64::from(messages)
}

/// Returns the processor time of the whole process: the writer has its own thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
