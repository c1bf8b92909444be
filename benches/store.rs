//! What keeping a message costs: accepted and answered, durably, by 64 at once, at the beginning and in a journal of a
//! million messages and a hundred thousand conversations; and how soon that journal is open again after `kill -9`, with its
//! log full and thousands of messages and replies open. Linux only.
//!
//! `cargo bench --bench store` prints the figures; with `-- --check` it fails where one exceeds its limit.

mod figures;
mod webhook;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use jiff::Timestamp;
use replyhook::signature::TokenSlot;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{
    Acceptance, Access, Arrival, CrashPolicy, Ending, Journal, NewReply, Outbox, Store,
};

const AT_ONCE: u32 = 64;
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
        let taken = store.take_up(64, policy, now()).await.expect("it can be");
        let claimed = store.claim(16, now()).await.expect("it can be");
        assert!(!taken.is_empty() && !claimed.is_empty(), "much is left");
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

async fn open(path: &Path) -> Arc<SqliteStore> {
    let store = Arc::new(SqliteStore::file(path));
    store.open(Access::Owner).await.expect("the store opens");
    store
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
    let end = next.load(Ordering::Relaxed) + messages;
    let before = cpu_time();
    let keepers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    let accepted = store.accept(arrival(number, users)).await;
                    let Ok(Acceptance::New(claim)) = accepted else {
                        panic!("{accepted:?}")
                    };
                    let twiml = Some(ANSWER.to_owned());
                    let saved = store.answer(claim, twiml, Ending::default(), now()).await;
                    saved.expect("the answer is saved");
                }
            })
        })
        .collect();
    for keeper in keepers {
        keeper.await.expect("no keeper panics");
    }
    next.store(end, Ordering::Relaxed);
    cpu_time().saturating_sub(before).as_secs_f64() * 1e6 / f64::from(messages)
}

const ANSWER: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response><Message>Of course. See you at half past three, and bring the papers.</Message></Response>"#;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn arrival(number: u32, users: u32) -> Arc<Arrival> {
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    // Neighbours are from different users, so that none waits for another.
    let user = number.wrapping_mul(2_654_435_761) % users;
    let webhook = webhook::Webhook::numbered(number % 64);
    assert_eq!(
        webhook.signature.len(),
        28,
        "a journal keeps only what is signed"
    );
    let arrival = Arrival {
        account: "AC00000000000000000000000000000001".parse().expect("a SID"),
        sid: format!("SM{spread:032x}").parse().expect("a SID"),
        us: "whatsapp:+15550002222".into(),
        user: vec![
            format!("whatsapp:+1555{user:07}").as_str().into(),
            format!("whatsapp:US.1349120865530{user:07}")
                .as_str()
                .into(),
        ],
        service: None,
        slot: TokenSlot::Primary,
        params: webhook.body,
        consent: None,
        attempts: 2,
        retry_crashed: true,
        last_answer: String::new(),
        at: now() + Duration::from_micros(number.into()),
    };
    Arc::new(arrival)
}

/// Of the whole process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
