//! What keeping a message costs: accepted and answered, durably, by 64 at once, at the beginning and in a journal of a
//! million messages and a hundred thousand conversations; and how soon that journal is open again. Linux only.
//!
//! `cargo bench --bench store` prints the figures; with `-- --check` it fails where one exceeds its limit.

mod figures;
mod journal;
mod webhook;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use journal::open;
use replyhook::store::sqlite::SqliteStore;

/// Processor time of a message in the large journal by that in the small one.
const MOST_GROWTH: f64 = 2.0;
const MOST_OPEN_S: f64 = 2.0;

fn main() -> ExitCode {
    let run = Run::from_args();
    let (small, large, measured, users) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (64, 256, 128, 256),
        Run::Measure | Run::Check => (1_000, 1_000_000, 10_000, 100_000),
    };
    let mut figures = Figures::new(run);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("bench.db");
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
    });
    let started = Instant::now();
    runtime.block_on(async {
        let store = open(&path).await;
        keep(&store, &next, 1, users).await;
    });
    let seconds = started.elapsed().as_secs_f64();
    figures.limit("open again and first message", seconds, "s", MOST_OPEN_S);
    let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    #[expect(clippy::cast_precision_loss, reason = "no file is as large as 2^52")]
    figures.show("the file", size as f64 / 1e6, "MB");
    figures.end()
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
