//! Changes of the wall clock while a message is handled: they do not change its deadline, timeout or pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use replyhook::clock::SignedDuration;
use replyhook::{Clock, Context, InboundMessage, ManualClock, SystemClock, Timestamp};
use tokio::sync::Semaphore;

use crate::support::twilio::Fault;
use crate::support::{EMPTY, FakeTwilio, TestApp, Webhook, twiml_message};

const USER: &str = "whatsapp:+15550001111";

/// System clock with an offset that a test can set.
#[derive(Debug, Default)]
struct SettableClock {
    hours: AtomicI64,
}

impl SettableClock {
    fn set(&self, hours: i64) {
        self.hours.store(hours, Ordering::SeqCst);
    }
}

impl Clock for SettableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_hours(self.hours.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let remaining = at.duration_since(self.now());
        SystemClock.sleep(remaining.try_into().unwrap_or_default())
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn sleep_until_monotonic(&self, at: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until_monotonic(at)
    }
}

/// Sets the clock while a message waits for its deadline, and returns how long it waited.
async fn deadline_after_setting(hours: i64) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    // A file, since a store in memory has a longer operation timeout.
    let url = format!("sqlite:{}", folder.path().join("a.db").display());
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("REPLYHOOK__REPLY__DEADLINE_MS", "4000"),
    ];
    let clock = Arc::new(SettableClock::default());
    let shared = clock.clone();
    let app = TestApp::build(&env, |app| {
        app.clock(shared)
            .handler(|_: Context, _: InboundMessage| std::future::pending::<String>())
    });
    app.wait_until_ready().await;
    let app = Arc::new(app);
    let (client, started) = (app.clone(), Instant::now());
    let request = tokio::spawn(async move { client.says(1, "hi").await });
    app.wait_for("replyhook_handlers_running", 1.0).await;
    clock.set(hours);
    let answer = tokio::time::timeout(Duration::from_secs(30), request).await;
    assert_eq!(answer.expect("a response at its deadline").unwrap(), EMPTY);
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_survives_clock_set_back() {
    assert!(deadline_after_setting(-1).await >= Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_survives_clock_set_forward() {
    assert!(deadline_after_setting(1).await >= Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_timeout_survives_clock_set_back() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let (shared, started) = (clock.clone(), Arc::new(Semaphore::new(0)));
    let starting = started.clone();
    let env = [("REPLYHOOK__HANDLER__TIMEOUT_MS", "5000")];
    let app = TestApp::build(&env, |app| {
        app.clock(shared)
            .handler(move |_: Context, _: InboundMessage| {
                starting.add_permits(1);
                std::future::pending::<String>()
            })
    });
    let app = Arc::new(app);
    app.wait_until_ready().await;
    let client = app.clone();
    let request = tokio::spawn(async move { client.send(Webhook::message(1, "hi")).await });
    started.acquire().await.unwrap().forget();
    clock.advance(SignedDuration::from_hours(-1));
    clock.advance(SignedDuration::from_secs(6));
    let answer = tokio::time::timeout(Duration::from_secs(30), request).await;
    let answer = answer.expect("a failure at its timeout").unwrap();
    answer.assert_rejected(500);
}

#[tokio::test(flavor = "multi_thread")]
async fn debounce_survives_clock_set_back() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let shared = clock.clone();
    let env = [("REPLYHOOK__REPLY__DEBOUNCE_MS", "2000")];
    let app = TestApp::build(&env, |app| {
        app.clock(shared)
            .handler(async |_: Context, message: InboundMessage| {
                message.body.lines().collect::<Vec<_>>().join(" + ")
            })
    });
    let app = Arc::new(app);
    app.wait_until_ready().await;
    let mut requests = Vec::new();
    for (number, text) in [(1, "one"), (2, "two")] {
        let client = app.clone();
        requests.push(tokio::spawn(async move { client.says(number, text).await }));
        app.wait_for_messages(usize::try_from(number).unwrap())
            .await;
        clock.advance(SignedDuration::from_secs(1));
    }
    clock.advance(SignedDuration::from_hours(-1));
    clock.advance(SignedDuration::from_millis(1500));
    let answer = tokio::time::timeout(Duration::from_secs(30), requests.remove(0)).await;
    assert_eq!(
        answer.expect("a reply after the pause").unwrap(),
        twiml_message("one + two")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_of_rest_api_survives_clock_set_back() {
    let twilio = FakeTwilio::start();
    let busy = Fault::Status {
        status: 429,
        code: Some(20429),
        retry_after: Some(7),
    };
    twilio.fault(busy, 1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let (shared, go) = (clock.clone(), Arc::new(Semaphore::new(0)));
    let wait = go.clone();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.clock(shared)
            .handler(move |_: Context, message: InboundMessage| {
                let wait = wait.clone();
                async move {
                    wait.acquire().await.unwrap().forget();
                    message.body
                }
            })
    });
    let app = Arc::new(app);
    app.wait_until_ready().await;
    let client = app.clone();
    let request = tokio::spawn(async move { client.says(1, "late").await });
    app.wait_for("replyhook_handlers_running", 1.0).await;
    clock.advance(SignedDuration::from_secs(11));
    assert_eq!(request.await.unwrap(), EMPTY);
    go.add_permits(1);
    app.wait_for(r#"replyhook_replies_total{outcome="retry"}"#, 1.0)
        .await;
    clock.advance(SignedDuration::from_hours(-1));
    // The outbox discards its own pause, which the set-back clock makes too long. The account's pause still holds: it
    // uses the monotonic clock.
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 1);
    clock.advance(SignedDuration::from_secs(10));
    assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, "late");
}
