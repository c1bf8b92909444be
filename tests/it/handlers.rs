//! Failing, slow and blocking handlers: Twilio gets its response in time, and the server keeps running.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use replyhook::{Context, HandlerError, InboundMessage, ManualClock, Reply, Timestamp, handler_fn};
use tokio::sync::Notify;

use crate::support::{EMPTY, Server, TestApp, Wait, Webhook, number_setting, twiml_message};

#[tokio::test]
async fn handler_can_return_every_supported_type() {
    async fn free(
        _cx: Context,
        message: InboundMessage,
    ) -> Result<Option<String>, std::num::ParseIntError> {
        if message.body.is_empty() {
            return Ok(None);
        }
        message
            .body
            .parse::<i32>()
            .map(|n| Some((n + 1).to_string()))
    }
    let app = TestApp::with(free);
    assert_eq!(app.says(1, "41").await, twiml_message("42"));
    assert_eq!(app.says(2, "").await, EMPTY);
    assert_eq!(
        app.send(Webhook::message(3, "x"))
            .await
            .assert_rejected(500),
        "handler failed\n"
    );
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="handler_error"}"#)
            .await,
        1.0
    );
    let app = TestApp::with(handler_fn(|_cx, message| async move { message.body }));
    assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    let app = TestApp::with(async |cx: Context, _| format!("attempt {}", cx.attempt()));
    assert_eq!(app.says(1, "hi").await, twiml_message("attempt 1"));
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "in Drop");
    }
}

#[tokio::test]
async fn threat_46_handler_panic_returns_500_and_server_continues() {
    let app = TestApp::with(|_: Context, message: InboundMessage| {
        assert_ne!(message.body, "before the future");
        async move {
            assert_ne!(message.body, "in the future");
            let _guard = (message.body == "in drop").then(|| PanicsOnDrop);
            tokio::task::yield_now().await;
            message.body
        }
    });
    for (number, place) in ["before the future", "in the future", "in drop"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(
            app.send(Webhook::message(number as u64, place))
                .await
                .assert_rejected(500),
            "handler failed\n"
        );
    }
    assert_eq!(app.says(9, "hi").await, twiml_message("hi"));
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="panic"}"#)
            .await,
        3.0
    );
    assert_eq!(app.metric("replyhook_handlers_running").await, 0.0);
}

/// Numbers of handler runs that have begun and ended.
#[derive(Default)]
struct Counts {
    started: AtomicUsize,
    finished: AtomicUsize,
}

impl Counts {
    /// Waits until this number of runs has begun.
    async fn wait_until_started(&self, number: usize) {
        let wait = Wait::until(format!("{number} handler runs have begun"));
        while self.started.load(Ordering::SeqCst) < number {
            wait.pause().await;
        }
    }

    fn finished_count(&self) -> usize {
        self.finished.load(Ordering::SeqCst)
    }
}

/// Creates an app with a manual clock. Its handler waits for `release`, unless the text is "quick".
fn build_waiting_app(
    release: &Arc<Notify>,
    env: &[(&str, &str)],
) -> (TestApp, Arc<ManualClock>, Arc<Counts>) {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let counts = Arc::new(Counts::default());
    let (release, shared_counts, shared) = (release.clone(), counts.clone(), clock.clone());
    let app = TestApp::build(env, |app| {
        app.clock(shared)
            .handler(move |_: Context, message: InboundMessage| {
                let (release, shared_counts) = (release.clone(), shared_counts.clone());
                async move {
                    shared_counts.started.fetch_add(1, Ordering::SeqCst);
                    if message.body != "quick" {
                        release.notified().await;
                    }
                    shared_counts.finished.fetch_add(1, Ordering::SeqCst);
                    message.body
                }
            })
    });
    (app, clock, counts)
}

/// Yields often enough for every ready task to run.
async fn yield_to_tasks() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn handler_at_deadline_continues_after_empty_response() {
    let release = Arc::new(Notify::new());
    let (app, clock, counts) = build_waiting_app(&release, &[]);
    let app = Arc::new(app);
    let client = app.clone();
    let answer = tokio::spawn(async move { client.send(Webhook::message(1, "slow")).await });
    counts.wait_until_started(1).await;
    clock.advance(std::time::Duration::from_millis(9_999).try_into().unwrap());
    yield_to_tasks().await;
    assert!(!answer.is_finished());
    clock.advance(std::time::Duration::from_millis(1).try_into().unwrap());
    assert_eq!(answer.await.unwrap().twiml(), EMPTY);
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="late"}"#)
            .await,
        1.0
    );
    assert_eq!(
        (
            counts.finished_count(),
            app.metric("replyhook_handlers_running").await
        ),
        (0, 1.0)
    );
    release.notify_one();
    app.wait_for("replyhook_handlers_running", 0.0).await;
    assert_eq!(counts.finished_count(), 1);
    app.wait_for_outbox("pending", 1).await;
}

#[tokio::test]
async fn handler_continues_after_client_disconnects() {
    let release = Arc::new(Notify::new());
    let (app, _clock, counts) = build_waiting_app(&release, &[]);
    let app = Arc::new(app);
    let client = app.clone();
    let request = tokio::spawn(async move { client.send(Webhook::message(1, "slow")).await });
    counts.wait_until_started(1).await;
    request.abort();
    app.wait_for(
        r#"replyhook_webhooks_total{endpoint="primary",outcome="disconnected"}"#,
        1.0,
    )
    .await;
    release.notify_one();
    app.wait_for("replyhook_handlers_running", 0.0).await;
    assert_eq!(counts.finished_count(), 1);
    // The connection is closed, so the reply goes via the REST API.
    app.wait_for_outbox("pending", 1).await;
    assert_eq!(app.says(1, "slow").await, EMPTY);
}

#[tokio::test]
async fn handler_exceeding_timeout_is_aborted() {
    let release = Arc::new(Notify::new());
    let (app, clock, counts) = build_waiting_app(&release, &[]);
    let app = Arc::new(app);
    let client = app.clone();
    let answer = tokio::spawn(async move { client.send(Webhook::message(1, "slow")).await });
    counts.wait_until_started(1).await;
    clock.advance(Duration::from_secs(10).try_into().unwrap());
    assert_eq!(answer.await.unwrap().twiml(), EMPTY);
    clock.advance(Duration::from_secs(110).try_into().unwrap());
    app.wait_for("replyhook_handlers_running", 0.0).await;
    assert_eq!(counts.finished_count(), 0);
}

// The empty response at the deadline and other users' replies come although one worker thread is blocked.
#[test]
fn threat_47_blocking_handler_delays_no_response() {
    // Two workers, the server's minimum: the handler blocks one, and the timer runs on the other.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (free, blocked) = std::sync::mpsc::channel::<()>();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let blocked = std::sync::Mutex::new(blocked);
    let answers = runtime.block_on(async {
        let app = TestApp::build(&[("REPLYHOOK__REPLY__DEADLINE_MS", "300")], |app| {
            app.handler(move |_: Context, message: InboundMessage| {
                if message.body == "block" {
                    // Wakes no task: a task that is woken here would wait for this blocked thread.
                    let _ = entered.send(());
                    let _ = blocked.lock().unwrap().recv();
                }
                async move { message.body }
            })
        });
        let app = Arc::new(app);
        let blocking = app.clone();
        let first = tokio::spawn(async move { blocking.send(Webhook::message(1, "block")).await });
        has_entered.recv().unwrap();
        let other = Webhook::message(2, "hi").with("From", "whatsapp:+15550003333");
        let second = app.send(other).await;
        (first.await.unwrap(), second)
    });
    drop(free);
    assert_eq!(answers.0.twiml(), EMPTY);
    assert_eq!(answers.1.twiml(), twiml_message("hi"));
}

#[tokio::test]
async fn threat_48_many_messages_leak_no_task() {
    let messages = number_setting("LEAK_MESSAGES", 1000);
    let app = TestApp::with(
        async |_, message: InboundMessage| match message.body.as_str() {
            text if text.starts_with("fail") => Err(HandlerError::new("no")),
            text => Ok(Reply::text(text)),
        },
    );
    for number in 0..100 {
        let text = format!("warm {number}");
        app.send(Webhook::message(number, &text)).await.twiml();
    }
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    for number in 100..100 + messages {
        // Each handler must run: a message without a handler could leave nothing behind.
        if number % 2 == 0 {
            let text = format!("hi {number}");
            assert_eq!(app.says(number, &text).await, twiml_message(&text));
        } else {
            let failing = Webhook::message(number, &format!("fail {number}"));
            app.send(failing).await.assert_rejected(500);
        }
    }
    app.wait_for("replyhook_handlers_running", 0.0).await;
    yield_to_tasks().await;
    assert!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            <= tasks
    );
    for gauge in ["replyhook_handlers_running", "replyhook_requests_in_flight"] {
        assert_eq!(app.metric(gauge).await, 0.0, "{gauge}");
    }
}

// In a process of its own, whose memory and file descriptors belong to no other test. Each message comes on its own
// connection: if one of fifty left a descriptor open, the server could not accept the last ones.
#[test]
fn threat_48_server_memory_and_descriptors_stay_flat() {
    const MESSAGES: u64 = 4000;
    const MESSAGE_KIB: u64 = 8;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("replyhook.db").display());
    let server = Server::start(&[
        ("DATABASE_URL", &url),
        ("REPLYHOOK__GUARD__LOOP_DETECTION", "false"),
    ]);
    let filling = "x".repeat(1024 * usize::try_from(MESSAGE_KIB).unwrap());
    let send_all = |numbers: std::ops::Range<u64>| {
        std::thread::scope(|scope| {
            for part in 0..8 {
                let (server, filling, numbers) = (&server, &filling, numbers.clone());
                scope.spawn(move || {
                    for number in numbers.skip(part).step_by(8) {
                        let from = format!("whatsapp:+1555000{part:04}");
                        let webhook = Webhook::message(number, "hi")
                            .with("From", &from)
                            .with("Filling", filling);
                        assert_eq!(server.send(&webhook).twiml(), twiml_message("hi"));
                    }
                });
            }
        });
    };
    // Fills caches and the pools of the store.
    send_all(0..1000);
    server.set_descriptor_limit(128);
    let before = server.resident();
    send_all(1000..1000 + MESSAGES);
    let growth = server.resident().saturating_sub(before);
    // Half of the content of the messages.
    assert!(growth < MESSAGES * MESSAGE_KIB / 2, "{growth} kB");
    assert_eq!(server.metric("replyhook_accept_errors_total"), 0.0);
}

#[tokio::test]
async fn load_over_handler_limit_is_shed_immediately() {
    let release = Arc::new(Notify::new());
    let env = [
        ("REPLYHOOK__HANDLER__MAX_CONCURRENT", "2"),
        ("REPLYHOOK__SERVER__MAX_IN_FLIGHT", "3"),
    ];
    let (app, clock, counts) = build_waiting_app(&release, &env);
    let app = Arc::new(app);
    let mut waiters = Vec::new();
    for number in 0..2 {
        let client = app.clone();
        waiters.push(tokio::spawn(async move {
            let from = format!("whatsapp:+1555000{number:04}");
            client
                .send(Webhook::message(number, "slow").with("From", &from))
                .await
        }));
    }
    counts.wait_until_started(2).await;
    // Two handlers run: a third is not started.
    assert_eq!(
        app.send(Webhook::message(3, "quick"))
            .await
            .assert_rejected(503),
        "overloaded\n"
    );
    clock.advance(Duration::from_secs(10).try_into().unwrap());
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().twiml(), EMPTY);
    }
    // Handlers whose deadline has passed still count.
    assert_eq!(
        app.send(Webhook::message(4, "quick"))
            .await
            .assert_rejected(503),
        "overloaded\n"
    );
    release.notify_waiters();
    app.wait_for("replyhook_handlers_running", 0.0).await;
    assert_eq!(app.says(5, "quick").await, twiml_message("quick"));
    assert_eq!(
        app.metric(r#"replyhook_webhooks_total{endpoint="primary",outcome="unavailable"}"#)
            .await,
        2.0
    );
}
