//! Time to claim the messages of the outbox that may be sent now, with 100,000 of them due. Linux only.
//!
//! - due to ten people: nearly all messages wait for the one before
//! - due to 100,000 people: all may be sent
//! - one blocked line: all are for one person, and the first is being sent
//!
//! `cargo bench --bench claims` prints the figures for SQLite, and with `-- --postgres URL` also for PostgreSQL, on that server.
//! With `-- --check` it exits with 1 if a limit is missed.

mod database;
mod figures;
mod runtime;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use database::Database;
use figures::{Figures, Run, median};
use jiff::Timestamp;
use replyhook::Secret;
use replyhook::internals::{NewOutbound, Store};
use replyhook::signature::AuthTokenKind;
use replyhook::store::Access;
use replyhook::store::postgres::PostgresStore;
use replyhook::store::sqlite::SqliteStore;

/// Limit: median time of a claim.
const MAX_MS: f64 = 50.0;
/// Maximum number of messages in one claim: the concurrent calls of the outbox.
const CLAIM: usize = 16;
/// Messages that are queued in one transaction.
const BATCH: u32 = 1_000;

fn main() -> ExitCode {
    let run = Run::from_args();
    let messages = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => 200,
        Run::Measure | Run::Check => 100_000,
    };
    let mut figures = Figures::new(run);
    let runtime = runtime::start(2);
    let url = std::env::args()
        .skip_while(|arg| arg != "--postgres")
        .nth(1);
    for (name, users, is_blocked) in [
        ("ten people", 10, false),
        ("as many people", messages, false),
        ("one blocked line", 1, true),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let sqlite = Arc::new(SqliteStore::file(folder.path().join("bench.db")));
        let times = runtime.block_on(measure(sqlite, messages, users, is_blocked));
        report(&mut figures, &format!("SQLite, due to {name}"), times);
        if let Some(url) = &url {
            let times = runtime.block_on(measure_postgres(url, messages, users, is_blocked));
            report(&mut figures, &format!("PostgreSQL, due to {name}"), times);
        }
    }
    figures.end()
}

fn report(figures: &mut Figures, name: &str, times: Vec<f64>) {
    let longest = times.iter().copied().fold(0.0, f64::max);
    figures.show(&format!("{name}, longest"), longest, "ms");
    figures.limit(name, median(times), "ms", MAX_MS);
}

async fn measure_postgres(url: &str, messages: u32, users: u32, is_blocked: bool) -> Vec<f64> {
    let database = Database::create(url, "claims").await;
    let store = PostgresStore::new(Secret::new(database.url()));
    let times = measure(Arc::new(store), messages, users, is_blocked).await;
    database.remove().await;
    times
}

/// Returns the times of nine claims in milliseconds.
// The first claims find messages, and the last ones find that all others wait. Both are polled every second.
async fn measure(store: Arc<dyn Store>, messages: u32, users: u32, is_blocked: bool) -> Vec<f64> {
    store.open(Access::Owner).await.expect("the store opens");
    let mut number = 0;
    if is_blocked {
        queue(&*store, 0..1, users).await;
        let first = store.claim(CLAIM, now()).await.expect("it can be claimed");
        assert_eq!(first.len(), 1, "the first message is being sent");
        number = 1;
    }
    while number < messages {
        let end = messages.min(number + BATCH);
        queue(&*store, number..end, users).await;
        number = end;
    }
    let mut claimed = 0;
    let mut times = Vec::new();
    for _ in 0..9 {
        let started = Instant::now();
        let found = store.claim(CLAIM, now()).await.expect("it can be claimed");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        claimed += found.len();
    }
    let expected = if is_blocked {
        0
    } else {
        (9 * CLAIM).min(users as usize)
    };
    assert_eq!(claimed, expected, "claimed messages");
    store.close().await.expect("the store closes");
    times
}

async fn queue(store: &dyn Store, numbers: std::ops::Range<u32>, users: u32) {
    let messages = numbers.map(|number| NewOutbound {
        account: "AC00000000000000000000000000000001".parse().expect("a SID"),
        auth_token: AuthTokenKind::Primary,
        sender: "whatsapp:+15550002222".into(),
        user: format!("whatsapp:+1555{:07}", number % users).into(),
        service: None,
        params: [("Body", "Your order has been shipped. It arrives tomorrow.")]
            .into_iter()
            .collect(),
        template: false,
    });
    let queued = store.enqueue(messages.collect(), now()).await;
    queued.expect("the messages are queued");
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}
