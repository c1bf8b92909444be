//! Store outages: the server acknowledges no message that it has not stored, and fallback calls still get a response.
//! After the outage no user gets a second reply.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use replyhook::clock::SignedDuration;
use replyhook::store::{MessageFilter, MessageRow};
use replyhook::{Clock, Context, InboundMessage, ManualClock, Timestamp};
use rusqlite::Connection;
use rustix::process::Signal;
use tokio::sync::Semaphore;

use crate::support::twilio::By;
use crate::support::{EMPTY, FakeTwilio, Server, TestApp, Webhook, says};

const USER: &str = "whatsapp:+15550001111";
const APOLOGY: (&str, &str) = ("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry");

fn fallback(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body)
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", "https://hooks.example.test/webhook")
}

/// Locks the database, like a process whose write does not end.
fn locked(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(20)).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

/// Handler that waits for a permit before it replies.
fn patient(
    go: &Arc<Semaphore>,
) -> impl Fn(Context, InboundMessage) -> BoxFuture<'static, String> + use<> {
    let go = go.clone();
    move |_, message| {
        let go = go.clone();
        Box::pin(async move {
            go.acquire().await.unwrap().forget();
            message.body
        })
    }
}

/// Waits until the journal has this number of messages and all are answered.
async fn are_recorded(app: &TestApp, number: usize) {
    app.opened().await;
    let filter = || MessageFilter {
        limit: 1000,
        ..MessageFilter::default()
    };
    let is_answered = |row: &MessageRow| row.state == "answered";
    loop {
        let rows = app.store.messages(filter()).await.unwrap_or_default();
        if rows.len() == number && rows.iter().all(is_answered) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

struct Place {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    url: String,
}

impl Place {
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
    let place = Place::new();
    let counted = Arc::new(AtomicUsize::new(0));
    let handled = counted.clone();
    let app = TestApp::build(&[("DATABASE_URL", &place.url)], |app| {
        app.handler(move |_, message: InboundMessage| {
            handled.fetch_add(1, Ordering::SeqCst);
            std::future::ready(message.body)
        })
    });
    assert_eq!(app.says(1, "hi").await, says("hi"));
    let lock = locked(&place.path);
    let rejected = app.ask(Webhook::message(2, "hi")).await;
    assert_eq!(rejected.rejected(503), "store unavailable\n");
    let readiness = app.readiness().await;
    assert_eq!(readiness["ready"], false);
    assert_eq!(readiness["checks"]["store"]["ok"], false);
    assert_eq!(counted.load(Ordering::SeqCst), 1);
    // `>=`, since the operation is counted again if it fails after its request has timed out.
    let failed = r#"replyhook_store_errors_total{operation="accept"}"#;
    assert!(app.metric(failed).await >= 1.0);
    drop(lock);
    app.opened().await;
    assert_eq!(app.says(2, "hi").await, says("hi"));
    assert_eq!(counted.load(Ordering::SeqCst), 2);
}

// The handler does not run, and the fallback text stays the only reply to the message after the outage.
#[tokio::test(flavor = "multi_thread")]
async fn threat_71_fallback_during_store_outage_sends_fallback_text() {
    let place = Place::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let counted = Arc::new(AtomicUsize::new(0));
    let handled = counted.clone();
    let env = [
        ("DATABASE_URL", place.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
        APOLOGY,
    ];
    let app = TestApp::build(&env, |app| {
        app.handler(move |_, message: InboundMessage| {
            handled.fetch_add(1, Ordering::SeqCst);
            std::future::ready(message.body)
        })
    });
    app.opened().await;
    let lock = locked(&place.path);
    app.ask(Webhook::message(1, "hi")).await.rejected(503);
    assert_eq!(app.ask(fallback(1, "hi")).await.twiml(), says("Sorry"));
    drop(lock);
    are_recorded(&app, 1).await;
    // The reply was flushed before the backlog was processed, so the fallback text is the saved response.
    assert_eq!(app.says(1, "hi").await, says("Sorry"));
    assert_eq!(counted.load(Ordering::SeqCst), 0);
    app.idle_rounds(2).await;
    assert_eq!(twilio.posts().len(), 0);
    assert_eq!(counted.load(Ordering::SeqCst), 0);
}

/// Starts a server, locks its store, and lets it send the unflushed fallback reply `Sorry`.
fn told_from_memory(place: &Place, drain: &str) -> (Server, Connection) {
    let env = [
        ("DATABASE_URL", place.url.as_str()),
        ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", drain),
        APOLOGY,
    ];
    let server = Server::start(&env);
    let lock = locked(&place.path);
    assert_eq!(server.send(&fallback(1, "hi")).twiml(), says("Sorry"));
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
    let place = Place::new();
    let (server, lock) = told_from_memory(&place, "60");
    server.signal(Signal::TERM);
    server.wait_for("draining");
    drop(lock);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    let again = Server::start(&[("DATABASE_URL", &place.url)]);
    assert_eq!(
        again.send(&Webhook::message(1, "hi")).twiml(),
        says("Sorry")
    );
}

// The log names the MessageSids, and the exit status is not zero.
#[test]
fn unflushed_reply_at_exit_is_logged_as_failure() {
    let place = Place::new();
    let (server, _lock) = told_from_memory(&place, "1");
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
    let place = Place::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let counted = Arc::new(AtomicUsize::new(0));
    let handled = counted.clone();
    let env = [
        ("DATABASE_URL", place.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
        APOLOGY,
    ];
    let app = Arc::new(TestApp::build(&env, |app| {
        // The clock stands still, so no deadline passes while the 50 replies are flushed.
        let app = app.clock(ManualClock::new(Timestamp::UNIX_EPOCH));
        app.handler(move |_, message: InboundMessage| {
            handled.fetch_add(1, Ordering::SeqCst);
            std::future::ready(message.body)
        })
    }));
    app.opened().await;
    let of_user = |webhook: Webhook, number| webhook.with("From", &format!("+1555000{number:04}"));
    let ask = |webhooks: Vec<Webhook>| {
        let ask = |webhook| {
            let app = app.clone();
            tokio::spawn(async move { app.ask(webhook).await })
        };
        webhooks.into_iter().map(ask).collect::<Vec<_>>()
    };
    let lock = locked(&place.path);
    let fallbacks = (0..50).map(|number| of_user(fallback(number, "hi"), number));
    for told in ask(fallbacks.collect()) {
        assert_eq!(told.await.unwrap().twiml(), says("Sorry"));
    }
    // The requests that wait for the store are accepted in one commit; each unflushed reply takes its own commit.
    let again = (0..50).map(|number| of_user(Webhook::message(number, "hi"), number));
    let again = ask(again.collect());
    while app.metric("replyhook_requests_in_flight").await < 50.0
        && !again.iter().any(tokio::task::JoinHandle::is_finished)
    {
        tokio::task::yield_now().await;
    }
    drop(lock);
    for told in again {
        let told = told.await.unwrap();
        assert!(
            told.status == 503 || told.twiml() == says("Sorry"),
            "{told:?}"
        );
    }
    are_recorded(&app, 50).await;
    for number in 0..50 {
        let again = of_user(Webhook::message(number, "hi"), number);
        assert_eq!(app.send(again).await.twiml(), says("Sorry"));
    }
    assert_eq!(counted.load(Ordering::SeqCst), 0);
    assert_eq!(twilio.posts().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_71_reply_after_fallback_text_is_superseded() {
    let place = Place::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let go = Arc::new(Semaphore::new(0));
    let env = [
        ("DATABASE_URL", place.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
        APOLOGY,
    ];
    let app = Arc::new(TestApp::build(&env, |app| app.handler(patient(&go))));
    let asking = app.clone();
    let asked = tokio::spawn(async move { asking.send(Webhook::message(1, "hi")).await });
    while app.kept().await < 1 {}
    let lock = locked(&place.path);
    assert_eq!(app.ask(fallback(1, "hi")).await.twiml(), says("Sorry"));
    go.add_permits(1);
    asked.await.unwrap().rejected(503);
    // The reply is superseded while the store is still locked.
    app.wait_for("replyhook_replies_superseded_total", 1.0)
        .await;
    drop(lock);
    are_recorded(&app, 1).await;
    assert_eq!(app.says(1, "hi").await, says("Sorry"));
    assert_eq!(twilio.posts().len(), 0);
}

// The reply is sent via the REST API once the store is available again.
#[tokio::test(flavor = "multi_thread")]
async fn outage_message_without_fallback_text_gets_late_reply() {
    let place = Place::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let env = [
        ("DATABASE_URL", place.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
    ];
    let app = TestApp::build(&env, |app| app);
    app.opened().await;
    let lock = locked(&place.path);
    assert_eq!(app.ask(fallback(1, "hi")).await.twiml(), EMPTY);
    drop(lock);
    let shown = twilio.wait_for_phone(USER, 1);
    assert_eq!((shown[0].body.as_str(), shown[0].by), ("hi", By::Rest));
    assert_eq!(app.says(1, "hi").await, EMPTY);
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_ready_during_store_outage_is_not_lost() {
    let place = Place::new();
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let go = Arc::new(Semaphore::new(0));
    let env = [
        ("DATABASE_URL", place.url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
    ];
    let app = Arc::new(TestApp::build(&env, |app| app.handler(patient(&go))));
    let asking = app.clone();
    let asked = tokio::spawn(async move { asking.send(Webhook::message(1, "hi")).await });
    while app.kept().await < 1 {}
    let lock = locked(&place.path);
    go.add_permits(1);
    // 503, so that Twilio retries: the reply is not saved.
    asked.await.unwrap().rejected(503);
    drop(lock);
    let shown = twilio.wait_for_phone(USER, 1);
    assert_eq!((shown[0].body.as_str(), shown[0].by), ("hi", By::Rest));
    assert_eq!(app.says(1, "hi").await, EMPTY);
    assert_eq!(twilio.posts().len(), 1);
}

// The fallback call waits for the running handler, which runs once.
#[tokio::test(flavor = "multi_thread")]
async fn threat_70_fallback_during_handler_gets_same_reply() {
    let go = Arc::new(Semaphore::new(0));
    let wait = go.clone();
    let counted = Arc::new(AtomicUsize::new(0));
    let handled = counted.clone();
    let app = Arc::new(TestApp::with(move |_, message: InboundMessage| {
        handled.fetch_add(1, Ordering::SeqCst);
        let wait = wait.clone();
        async move {
            wait.acquire().await.unwrap().forget();
            message.body
        }
    }));
    let asking = app.clone();
    let primary = tokio::spawn(async move { asking.send(Webhook::message(1, "hi")).await });
    while app.kept().await < 1 {}
    let asking = app.clone();
    let second = tokio::spawn(async move { asking.send(fallback(1, "hi")).await });
    app.wait_for("replyhook_requests_in_flight", 2.0).await;
    go.add_permits(1);
    assert_eq!(primary.await.unwrap().twiml(), says("hi"));
    assert_eq!(second.await.unwrap().twiml(), says("hi"));
    assert_eq!(counted.load(Ordering::SeqCst), 1);
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
    app.until(|| twilio.posts().len() == 1).await;
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
    let filter = || replyhook::store::MessageFilter {
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
    let (us, user) = ("whatsapp:+15550002222".into(), USER.into());
    assert_eq!(app.says(1, "hi").await, says("hi"));
    let opened = clock.now();
    for (number, jump) in [(2, -7200), (3, 14_400), (4, -86_400)] {
        clock.advance(SignedDuration::from_secs(jump));
        assert_eq!(app.says(number, "hi").await, says("hi"));
        assert_eq!(app.says(1, "hi").await, says("hi"));
    }
    let conversation = app.store.conversation(&us, &user).await.unwrap().unwrap();
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
    use crate::support::postgres::{Proxy, TestDatabase, Way};
    let Some(database) = TestDatabase::create().await else {
        return crate::support::left_out("a slow database: there is no PostgreSQL");
    };
    let twilio = FakeTwilio::start();
    let api = twilio.url();
    let proxy = Proxy::to(&database).await;
    proxy.set(Way::Slow(5)).await;
    let url = database.url_at("127.0.0.1", proxy.port);
    let env = [
        ("DATABASE_URL", url.expose()),
        ("REPLYHOOK__TWILIO__API_URL", &api),
    ];
    let app = Arc::new(TestApp::build(&env, |app| app));
    app.opened().await;
    let user = |number: u64| format!("whatsapp:+1555000{number:04}");
    let asked: Vec<_> = (1..=12)
        .map(|number| {
            let app = app.clone();
            let webhook = Webhook::message(number, "hi").with("From", &user(number));
            tokio::spawn(async move {
                // Repeat until success, as Twilio would with a retry and the fallback URL.
                loop {
                    let answer = app.send(webhook.clone()).await;
                    if answer.status == 200 {
                        return (webhook, answer);
                    }
                }
            })
        })
        .collect();
    for asked in asked {
        let (webhook, answer) = asked.await.unwrap();
        assert!(twilio.execute(&webhook, &answer));
    }
    app.wait_for_outbox("pending", 0).await;
    for number in 1..=12 {
        let again = Webhook::message(number, "hi").with("From", &user(number));
        let again = app.send(again).await;
        let shown = twilio.wait_for_phone(&user(number), 1);
        assert_eq!((shown.len(), shown[0].body.as_str()), (1, "hi"));
        // A redelivery gets the reply if it went by TwiML, and an empty response if it went via the REST API.
        let by_twiml = shown[0].by == By::Twiml;
        assert_eq!(again.twiml() == says("hi"), by_twiml, "{again:?}");
    }
    Arc::into_inner(app).unwrap().end().await;
    database.remove().await;
}
