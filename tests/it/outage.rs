//! Store outages: the server acknowledges no message that it has not stored, and fallback calls still get a response.
//! After the outage no user gets a second reply.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use replyhook::clock::SignedDuration;
use replyhook::internals::{MessageFilter, MessageRow};
use replyhook::{Clock, InboundMessage, ManualClock, Timestamp};
use rusqlite::Connection;
use rustix::process::Signal;
use tokio::sync::Semaphore;

use crate::support::twilio::SentVia;
use crate::support::{
    EMPTY, FakeTwilio, Server, TestApp, Wait, Webhook, handler_with_permits, twiml_message,
};

const USER: &str = "whatsapp:+15550001111";
const FALLBACK_TEXT: (&str, &str) = ("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry");

fn fallback(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body)
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", "https://hooks.example.test/webhook")
}

/// Locks the database, like a process whose write does not end.
fn lock_database(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(20)).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

// Zero would hide the failure. The worker opens the store, and has not run yet: this runtime has one thread.
#[tokio::test]
async fn message_count_of_unopened_store_panics() {
    let app = TestApp::echo();
    let counted = AssertUnwindSafe(app.message_count()).catch_unwind().await;
    assert!(counted.is_err());
    app.wait_for_messages(0).await;
    assert_eq!(app.message_count().await, 0);
}

/// Waits until the journal has this number of messages and all are answered.
async fn wait_until_answered(app: &TestApp, number: usize) {
    app.wait_until_ready().await;
    let filter = || MessageFilter {
        limit: 1000,
        ..MessageFilter::default()
    };
    let is_answered = |row: &MessageRow| row.state == "answered";
    let wait = Wait::until(format!("{number} messages are answered"));
    loop {
        let rows = app.store.messages(filter()).await.unwrap_or_default();
        if rows.len() == number && rows.iter().all(is_answered) {
            return;
        }
        wait.pause().await;
    }
}

struct DatabaseFile {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    url: String,
}

impl DatabaseFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Self {
            url: format!("sqlite:{}", path.display()),
            path,
            _folder: folder,
        }
    }
}

// No handler runs, and the server recovers when the lock is released.
#[tokio::test(flavor = "multi_thread")]
async fn threat_50_locked_store_returns_503_and_not_ready() {
    let file = DatabaseFile::new();
    let handler_runs = Arc::new(AtomicUsize::new(0));
    let counter = handler_runs.clone();
    let app = TestApp::build(&[("DATABASE_URL", &file.url)], |app| {
        app.handler(move |_, message: InboundMessage| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(message.body)
        })
    });
    assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    let lock = lock_database(&file.path);
    let rejected = app.send_without_waiting(Webhook::message(2, "hi")).await;
    assert_eq!(rejected.assert_rejected(503), "store unavailable\n");
    let readiness = app.readiness().await;
    assert_eq!(readiness["ready"], false);
    assert_eq!(readiness["checks"]["store"]["ok"], false);
    assert_eq!(handler_runs.load(Ordering::SeqCst), 1);
    // `>=`, since the operation is counted again if it fails after its request has timed out.
    let failed = r#"replyhook_store_errors_total{operation="accept"}"#;
    assert!(app.metric(failed).await >= 1.0);
    drop(lock);
    app.wait_until_ready().await;
    assert_eq!(app.says(2, "hi").await, twiml_message("hi"));
    assert_eq!(handler_runs.load(Ordering::SeqCst), 2);
}

// The handler does not run, and the fallback text stays the only reply to the message after the outage.
#[tokio::test(flavor = "multi_thread")]
async fn threat_71_fallback_during_store_outage_sends_fallback_text() {
    let file = DatabaseFile::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let handler_runs = Arc::new(AtomicUsize::new(0));
    let counter = handler_runs.clone();
    let env = [
        ("DATABASE_URL", file.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
        FALLBACK_TEXT,
    ];
    let app = TestApp::build(&env, |app| {
        app.handler(move |_, message: InboundMessage| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(message.body)
        })
    });
    app.wait_until_ready().await;
    let lock = lock_database(&file.path);
    app.send_without_waiting(Webhook::message(1, "hi"))
        .await
        .assert_rejected(503);
    assert_eq!(
        app.send_without_waiting(fallback(1, "hi")).await.twiml(),
        twiml_message("Sorry")
    );
    drop(lock);
    wait_until_answered(&app, 1).await;
    // The reply was flushed before the backlog was processed, so the fallback text is the saved response.
    assert_eq!(app.says(1, "hi").await, twiml_message("Sorry"));
    assert_eq!(handler_runs.load(Ordering::SeqCst), 0);
    app.wait_for_worker_rounds(2).await;
    assert_eq!(twilio.posts().len(), 0);
    assert_eq!(handler_runs.load(Ordering::SeqCst), 0);
}

// Nothing can be queued for the REST API either. The handler replies after the outage, so the user gets more than a
// fallback text.
#[tokio::test(flavor = "multi_thread")]
async fn fallback_during_outage_with_rest_path_is_answered_after_it() {
    let file = DatabaseFile::new();
    let twilio = FakeTwilio::start();
    let env = [
        ("DATABASE_URL", file.url.as_str()),
        ("REPLYHOOK__REPLY__PATH", "rest"),
        FALLBACK_TEXT,
    ];
    let app = TestApp::with_twilio(&twilio, &env, |app| {
        app.handler(async |_, message: InboundMessage| message.body)
    });
    app.wait_until_ready().await;
    let lock = lock_database(&file.path);
    app.send_without_waiting(Webhook::message(1, "hi"))
        .await
        .assert_rejected(503);
    let call = app.send_without_waiting(fallback(1, "hi")).await;
    assert_eq!(call.twiml(), EMPTY);
    assert_eq!(twilio.posts().len(), 0);
    drop(lock);
    assert_eq!(twilio.wait_for_phone(USER, 1)[0].body, "hi");
    assert_eq!(app.says(1, "hi").await, EMPTY);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 1);
}

/// Starts a server, locks its store, and lets it send the unflushed fallback reply `Sorry`.
fn send_unflushed_reply(file: &DatabaseFile, drain: &str) -> (Server, Connection) {
    let env = [
        ("DATABASE_URL", file.url.as_str()),
        ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", drain),
        FALLBACK_TEXT,
    ];
    let server = Server::start(&env);
    let lock = lock_database(&file.path);
    assert_eq!(
        server.send(&fallback(1, "hi")).twiml(),
        twiml_message("Sorry")
    );
    assert_eq!(server.metric("replyhook_unflushed_fallback_replies"), 1.0);
    let readiness: serde_json::Value = serde_json::from_str(&server.get("/readyz").body).unwrap();
    assert_eq!(
        readiness["checks"]["store"]["unflushed_fallback_replies"],
        1
    );
    (server, lock)
}

#[test]
fn unflushed_reply_is_flushed_during_shutdown() {
    let file = DatabaseFile::new();
    let (server, lock) = send_unflushed_reply(&file, "60");
    server.signal(Signal::TERM);
    server.wait_for("draining");
    drop(lock);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    let restarted = Server::start(&[("DATABASE_URL", &file.url)]);
    assert_eq!(
        restarted.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("Sorry")
    );
}

// The log names the MessageSids, and the exit status is not zero.
#[test]
fn unflushed_reply_at_exit_is_logged_as_failure() {
    let file = DatabaseFile::new();
    let (server, _lock) = send_unflushed_reply(&file, "1");
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert!(!status.success(), "{log}");
    let line = log.lines().find(|line| line.contains("message_sids"));
    let line: serde_json::Value = serde_json::from_str(line.expect(&log)).unwrap();
    assert_eq!(
        (&line["count"], &line["level"]),
        (&1.into(), &"ERROR".into())
    );
    assert_eq!(line["message_sids"], format!("SM{:032x}", 1));
}

// Its user already has the fallback text, so the handler must not run although the fallback reply is flushed later.
#[tokio::test(flavor = "multi_thread")]
async fn threat_71_message_accepted_before_flush_is_not_handled() {
    let file = DatabaseFile::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let handler_runs = Arc::new(AtomicUsize::new(0));
    let counter = handler_runs.clone();
    let env = [
        ("DATABASE_URL", file.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
        FALLBACK_TEXT,
    ];
    let app = Arc::new(TestApp::build(&env, |app| {
        // The clock stands still, so no deadline passes while the 50 replies are flushed.
        let app = app.clock(ManualClock::new(Timestamp::UNIX_EPOCH));
        app.handler(move |_, message: InboundMessage| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(message.body)
        })
    }));
    app.wait_until_ready().await;
    let of_user = |webhook: Webhook, number| webhook.with("From", &format!("+1555000{number:04}"));
    let send = |webhooks: Vec<Webhook>| {
        let send = |webhook| {
            let app = app.clone();
            tokio::spawn(async move { app.send_without_waiting(webhook).await })
        };
        webhooks.into_iter().map(send).collect::<Vec<_>>()
    };
    let lock = lock_database(&file.path);
    let fallbacks = (0..50).map(|number| of_user(fallback(number, "hi"), number));
    for response in send(fallbacks.collect()) {
        assert_eq!(response.await.unwrap().twiml(), twiml_message("Sorry"));
    }
    // The requests that wait for the store are accepted in one commit; each unflushed reply takes its own commit.
    let retries = (0..50).map(|number| of_user(Webhook::message(number, "hi"), number));
    let retries = send(retries.collect());
    let wait = Wait::until("50 requests are in flight, or one has ended");
    while app.metric("replyhook_requests_in_flight").await < 50.0
        && !retries.iter().any(tokio::task::JoinHandle::is_finished)
    {
        wait.pause().await;
    }
    drop(lock);
    for response in retries {
        let response = response.await.unwrap();
        assert!(
            response.status == 503 || response.twiml() == twiml_message("Sorry"),
            "{response:?}"
        );
    }
    wait_until_answered(&app, 50).await;
    for number in 0..50 {
        let retry = of_user(Webhook::message(number, "hi"), number);
        assert_eq!(app.send(retry).await.twiml(), twiml_message("Sorry"));
    }
    assert_eq!(handler_runs.load(Ordering::SeqCst), 0);
    assert_eq!(twilio.posts().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_71_reply_after_fallback_text_is_superseded() {
    let file = DatabaseFile::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let go = Arc::new(Semaphore::new(0));
    let env = [
        ("DATABASE_URL", file.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
        FALLBACK_TEXT,
    ];
    let app = Arc::new(TestApp::build(&env, |app| {
        app.handler(handler_with_permits(&go))
    }));
    let client = app.clone();
    let request = tokio::spawn(async move { client.send(Webhook::message(1, "hi")).await });
    app.wait_for_messages(1).await;
    let lock = lock_database(&file.path);
    assert_eq!(
        app.send_without_waiting(fallback(1, "hi")).await.twiml(),
        twiml_message("Sorry")
    );
    go.add_permits(1);
    request.await.unwrap().assert_rejected(503);
    // The reply is superseded while the store is still locked.
    app.wait_for("replyhook_replies_superseded_total", 1.0)
        .await;
    drop(lock);
    wait_until_answered(&app, 1).await;
    assert_eq!(app.says(1, "hi").await, twiml_message("Sorry"));
    assert_eq!(twilio.posts().len(), 0);
}

// The reply is sent via the REST API once the store is available again.
#[tokio::test(flavor = "multi_thread")]
async fn outage_message_without_fallback_text_gets_late_reply() {
    let file = DatabaseFile::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let env = [
        ("DATABASE_URL", file.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
    ];
    let app = TestApp::build(&env, |app| app);
    app.wait_until_ready().await;
    let lock = lock_database(&file.path);
    assert_eq!(
        app.send_without_waiting(fallback(1, "hi")).await.twiml(),
        EMPTY
    );
    drop(lock);
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(
        (phone[0].body.as_str(), phone[0].via),
        ("hi", SentVia::Rest)
    );
    assert_eq!(app.says(1, "hi").await, EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_ready_during_store_outage_is_not_lost() {
    let file = DatabaseFile::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let go = Arc::new(Semaphore::new(0));
    let env = [
        ("DATABASE_URL", file.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
    ];
    let app = Arc::new(TestApp::build(&env, |app| {
        app.handler(handler_with_permits(&go))
    }));
    let client = app.clone();
    let request = tokio::spawn(async move { client.send(Webhook::message(1, "hi")).await });
    app.wait_for_messages(1).await;
    let lock = lock_database(&file.path);
    go.add_permits(1);
    // 503, so that Twilio retries: the reply is not saved.
    request.await.unwrap().assert_rejected(503);
    drop(lock);
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(
        (phone[0].body.as_str(), phone[0].via),
        ("hi", SentVia::Rest)
    );
    assert_eq!(app.says(1, "hi").await, EMPTY);
    assert_eq!(twilio.posts().len(), 1);
}

// The fallback call waits for the running handler, which runs once.
#[tokio::test(flavor = "multi_thread")]
async fn threat_70_fallback_during_handler_gets_same_reply() {
    let go = Arc::new(Semaphore::new(0));
    let wait = go.clone();
    let handler_runs = Arc::new(AtomicUsize::new(0));
    let counter = handler_runs.clone();
    let app = Arc::new(TestApp::with(move |_, message: InboundMessage| {
        counter.fetch_add(1, Ordering::SeqCst);
        let wait = wait.clone();
        async move {
            wait.acquire().await.unwrap().forget();
            message.body
        }
    }));
    let client = app.clone();
    let primary = tokio::spawn(async move { client.send(Webhook::message(1, "hi")).await });
    app.wait_for_messages(1).await;
    let client = app.clone();
    let second = tokio::spawn(async move { client.send(fallback(1, "hi")).await });
    app.wait_for("replyhook_requests_in_flight", 2.0).await;
    go.add_permits(1);
    assert_eq!(primary.await.unwrap().twiml(), twiml_message("hi"));
    assert_eq!(second.await.unwrap().twiml(), twiml_message("hi"));
    assert_eq!(handler_runs.load(Ordering::SeqCst), 1);
}

// They may precede Twilio's REST response, repeat, or belong to a message that replyhook does not know.
#[tokio::test]
async fn threat_69_status_callbacks_apply_in_any_order() {
    let twilio = FakeTwilio::start();
    let url = twilio.url();
    let app = TestApp::build(&[("REPLYHOOK__TWILIO__API_URL", &url)], |app| {
        app.handler(async |_, _| "x".repeat(17_000))
    });
    twilio.hold_posts();
    app.says(1, "hi").await;
    app.wait_until(|| twilio.posts().len() == 1).await;
    // The status callback `delivered` arrives before the 201 of the REST call.
    let post = twilio.posts()[0].form.clone();
    let name = post
        .get("StatusCallback")
        .unwrap()
        .split('?')
        .nth(1)
        .unwrap();
    let sid = "SM0000000000000000000000000000beef";
    let news = |status: &str| {
        Webhook::form(
            &format!("/webhook/status?{name}"),
            &[
                ("MessageSid", sid),
                ("AccountSid", crate::support::ACCOUNT),
                ("MessageStatus", status),
                ("From", "whatsapp:+15550002222"),
                ("To", USER),
            ],
        )
    };
    for status in ["delivered", "sent", "delivered", "queued", "teleported"] {
        assert_eq!(app.send(news(status)).await.twiml(), EMPTY, "{status}");
    }
    let filter = || replyhook::internals::MessageFilter {
        limit: 1,
        ..Default::default()
    };
    let reply = app.store.messages(filter()).await.unwrap()[0].replies[0].clone();
    assert_eq!(reply.sid.unwrap().as_str(), sid);
    assert_eq!(reply.status.as_deref(), Some("delivered"));
    // Callbacks for an unknown MessageSid, without the parameter `r` or with a wrong one.
    for target in [
        "/webhook/status",
        "/webhook/status?r=1-1",
        "/webhook/status?r=x",
    ] {
        let unknown = news("sent")
            .to(target)
            .with("MessageSid", "SM0000000000000000000000000000cafe");
        assert_eq!(app.send(unknown).await.twiml(), EMPTY);
    }
    let reply = app.store.messages(filter()).await.unwrap()[0].replies[0].clone();
    assert_eq!(reply.sid.unwrap().as_str(), sid);
    twilio.release_posts();
}

#[tokio::test]
async fn threat_58_clock_jump_keeps_messages_and_window() {
    // A whole second, since the store keeps only microseconds.
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    let clock = Arc::new(ManualClock::new(start));
    let app = TestApp::build(&[], |app| app.clock(clock.clone()));
    let (sender, user) = ("whatsapp:+15550002222".into(), USER.into());
    assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    let opened = clock.now();
    for (number, jump) in [(2, -7200), (3, 14_400), (4, -86_400)] {
        clock.advance(SignedDuration::from_secs(jump));
        assert_eq!(app.says(number, "hi").await, twiml_message("hi"));
        assert_eq!(app.says(1, "hi").await, twiml_message("hi"));
    }
    let conversation = app
        .store
        .conversation(&sender, &user)
        .await
        .unwrap()
        .unwrap();
    let latest = opened + SignedDuration::from_secs(7200);
    assert_eq!(conversation.last_inbound, Some(latest));
    assert!(
        conversation
            .window(latest + SignedDuration::from_hours(23))
            .is_some()
    );
    assert!(
        conversation
            .window(latest + SignedDuration::from_hours(24))
            .is_none()
    );
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn threat_55_slow_database_sends_each_reply_once() {
    use crate::support::postgres::{Proxy, ProxyState, TestDatabase};
    let Some(database) = TestDatabase::create().await else {
        return crate::support::report_skipped("a slow database, which needs PostgreSQL");
    };
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let proxy = Proxy::to(&database).await;
    proxy.set(ProxyState::Slow(5)).await;
    let url = database.url_at("127.0.0.1", proxy.port);
    let env = [
        ("DATABASE_URL", url.expose()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
    ];
    let app = Arc::new(TestApp::build(&env, |app| app));
    app.wait_until_ready().await;
    let user = |number: u64| format!("whatsapp:+1555000{number:04}");
    let tasks: Vec<_> = (1..=12)
        .map(|number| {
            let app = app.clone();
            let webhook = Webhook::message(number, "hi").with("From", &user(number));
            tokio::spawn(async move {
                // Repeat until success, as Twilio would with a retry and the fallback URL.
                let wait = Wait::until("the message is acknowledged");
                loop {
                    let answer = app.send(webhook.clone()).await;
                    if answer.status == 200 {
                        return (webhook, answer);
                    }
                    wait.check_found(&answer);
                }
            })
        })
        .collect();
    for task in tasks {
        let (webhook, answer) = task.await.unwrap();
        assert!(twilio.execute(&webhook, &answer));
    }
    app.wait_for_outbox("pending", 0).await;
    for number in 1..=12 {
        let redelivery = Webhook::message(number, "hi").with("From", &user(number));
        let redelivery = app.send(redelivery).await;
        let phone = twilio.wait_for_phone(&user(number), 1);
        assert_eq!((phone.len(), phone[0].body.as_str()), (1, "hi"));
        // A redelivery gets the reply if it went by TwiML, and an empty response if it went via the REST API.
        let by_twiml = phone[0].via == SentVia::Twiml;
        assert_eq!(
            redelivery.twiml() == twiml_message("hi"),
            by_twiml,
            "{redelivery:?}"
        );
    }
    Arc::into_inner(app).unwrap().shut_down().await;
    database.remove().await;
}
