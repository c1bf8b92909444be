//! What keeping a message costs: accepted and answered, durably, by 64 at once, at the beginning and in a journal of a
//! million messages and a hundred thousand conversations; and how soon that journal is open again after `kill -9`, with its
//! log full and thousands of messages and replies open. Linux only.
//!
//! `cargo bench --bench store` prints the figures; with `-- --check` it fails where one exceeds its limit.

mod figures;
mod journal;
mod webhook;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use journal::{arrival, now, open};
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{CrashPolicy, Journal, NewReply, Outbox};

/// Processor time of a message in the large journal by that in the small one.
const MOST_GROWTH: f64 = 2.0;
const MOST_OPEN_S: f64 = 2.0;

fn main() -> ExitCode {
    let run = Run::from_args();
    let (small, large, measured, users, open_ones) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (64, 256, 128, 256, 64),
        Run::Measure | Run::Check => (1_000, 1_000_000, 10_000, 100_000, 4_000),
    };
    let mut figures = Figures::new(run);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("bench.db");
    let left = folder.path().join("left.db");
    let next = Arc::new(AtomicU32::new(0));
    runtime.block_on(async {
        let store = open(&path).await;
        keep(&store, &next, small, users).await;
        let at_small = measure(&store, &next, measured, users).await;
        keep(&store, &next, large, users).await;
        let at_large = measure(&store, &next, measured, users).await;
        figures.show("a message at 1,000", at_small, "µs");
        figures.show("a message at 1,000,000", at_large, "µs");
        figures.limit(
            "large / small journal",
            at_large / at_small,
            "×",
            MOST_GROWTH,
        );
        // Who reads keeps the log from being folded in.
        let reader = rusqlite::Connection::open(&path).expect("it can be read");
        let begin = "BEGIN; SELECT count(*) FROM meta";
        reader.execute_batch(begin).expect("a read begins");
        keep(&store, &next, measured, users).await;
        leave_open(&store, &next, open_ones, users).await;
        // What is on the disk now is what `kill -9` would leave.
        for end in ["", "-wal"] {
            copy(&path, &left, end);
        }
    });
    figures.show("the file", megabytes(&left, ""), "MB");
    figures.show("its log", megabytes(&left, "-wal"), "MB");
    let started = Instant::now();
    runtime.block_on(async {
        let store = open(&left).await;
        // Of somebody for whom nothing is open.
        keep(&store, &next, 1, u32::MAX).await;
        let policy = CrashPolicy {
            retry: true,
            attempts: 2,
        };
        let left = store.take_up(64, policy, now()).await.expect("it can be");
        let claimed = store.claim(16, now()).await.expect("it can be");
        assert!(
            !left.taken.is_empty() && !claimed.is_empty(),
            "much is left"
        );
    });
    let seconds = started.elapsed().as_secs_f64();
    figures.limit("open after kill -9", seconds, "s", MOST_OPEN_S);
    figures.end()
}

fn beside(path: &Path, end: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn copy(from: &Path, to: &Path, end: &str) {
    std::fs::copy(beside(from, end), beside(to, end)).expect("there is room for a copy");
}

fn megabytes(path: &Path, end: &str) -> f64 {
    let size = std::fs::metadata(beside(path, end)).map_or(0, |metadata| metadata.len());
    #[expect(clippy::cast_precision_loss, reason = "no file is as large as 2^52")]
    let size = size as f64;
    size / 1e6
}

/// Messages whose handlers run, or which wait behind them, and as many replies that are to be sent.
async fn leave_open(store: &Arc<SqliteStore>, next: &Arc<AtomicU32>, number: u32, users: u32) {
    for _ in 0..number {
        let arrival = arrival(next.fetch_add(1, Ordering::Relaxed), users);
        let reply = NewReply {
            account: arrival.account,
            slot: arrival.slot,
            us: arrival.us.clone(),
            user: arrival.user[0].clone(),
            service: None,
            params: [("Body", "It is ready.")].into_iter().collect(),
            template: false,
        };
        store.accept(arrival).await.expect("it is kept");
        let queued = store.enqueue(vec![reply], now()).await;
        queued.expect("it is kept");
    }
}

/// The median of a few rounds.
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

/// Keeps so many messages, and returns the processor time of one, in µs.
async fn keep(store: &Arc<SqliteStore>, next: &Arc<AtomicU32>, messages: u32, users: u32) -> f64 {
    let before = cpu_time();
    journal::keep(store, next, messages, users).await;
    cpu_time().saturating_sub(before).as_secs_f64() * 1e6 / f64::from(messages)
}

/// Of the whole process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
