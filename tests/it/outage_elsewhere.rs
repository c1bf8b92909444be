//! Outage of a PostgreSQL database that two servers share. A fallback text that one of them sends during the outage is
//! the only reply, even if the other server has already handled the message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use replyhook::clock::{Clock, ManualClock, SignedDuration, SystemClock};
use replyhook::{Context, InboundMessage};
use tokio::sync::Semaphore;

use crate::support::postgres::{Proxy, ProxyState, TestDatabase};
use crate::support::twilio::SentVia;
use crate::support::{
    ACCOUNT, FakeTwilio, Policy, TOKEN, TestApp, Wait, Webhook, replyhook, report_skipped,
    twiml_message,
};

const USER: &str = "whatsapp:+15550001111";
/// Time after an outage in which a server with peers sends no reply via the REST API.
const HOLD: SignedDuration = SignedDuration::from_secs(20);

/// Time within which a message gets 503 during an outage, as documented in docs/src/how-to/scale.md.
const OUTAGE_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Server, the proxy to its database, its clock, and the semaphore that lets its handler reply.
struct Machine {
    app: Arc<TestApp>,
    proxy: Proxy,
    clock: Arc<ManualClock>,
    go: Arc<Semaphore>,
}

impl Machine {
    async fn start(database: &TestDatabase, twilio: &FakeTwilio) -> Self {
        let proxy = Proxy::to(database).await;
        let url = database.url_at("127.0.0.1", proxy.port);
        let env = [
            ("DATABASE_URL", url.expose()),
            ("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry"),
        ];
        let go = Arc::new(Semaphore::new(0));
        let wait = go.clone();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = TestApp::with_twilio(twilio, &env, |app| {
            app.clock(clock.clone())
                .handler(move |_: Context, message: InboundMessage| {
                    let wait = wait.clone();
                    let answer: BoxFuture<'static, String> = Box::pin(async move {
                        wait.acquire().await.unwrap().forget();
                        message.body
                    });
                    answer
                })
        });
        app.wait_until_ready().await;
        // The start counts as a failure of the store, for messages that were received before.
        clock.advance(HOLD);
        Self {
            app: Arc::new(app),
            proxy,
            clock,
            go,
        }
    }
}

/// Runs a test with servers during an outage. The first one has handled a message but could not save its reply, and has
/// responded 503.
async fn during_outage(number: usize, test: impl AsyncFnOnce(&[Machine], &FakeTwilio)) {
    let Some(database) = TestDatabase::create().await else {
        return report_skipped("an outage with several machines, which needs PostgreSQL");
    };
    let twilio = FakeTwilio::start();
    let mut machines = Vec::new();
    for _ in 0..number {
        machines.push(Machine::start(&database, &twilio).await);
    }
    let one = &machines[0];
    // Until its next heartbeat the first server has not seen the others.
    let wait = Wait::until("the first server knows of its peers");
    while number > 1 && !one.app.store.has_peers() {
        wait.pause().await;
    }
    let client = one.app.clone();
    let request = tokio::spawn(async move { client.send(Webhook::message(1, "hi")).await });
    one.app.wait_for_messages(1).await;
    for machine in &machines {
        machine.proxy.set(ProxyState::Closed).await;
    }
    one.go.add_permits(1);
    request.await.unwrap().assert_rejected(503);
    test(&machines, &twilio).await;
    drop(machines);
    database.remove().await;
}

// The database refuses connections, or accepts them and is silent. Each response comes within OUTAGE_RESPONSE_TIMEOUT,
// no handler runs, and the server recovers.
#[tokio::test(flavor = "multi_thread")]
async fn threat_54_outage_response_precedes_documented_timeout() {
    let Some(database) = TestDatabase::create().await else {
        return report_skipped("the response during an outage: PostgreSQL is not available");
    };
    let proxy = Proxy::to(&database).await;
    let url = database.url_at("127.0.0.1", proxy.port);
    let handler_runs = Arc::new(AtomicUsize::new(0));
    let counter = handler_runs.clone();
    let app = TestApp::build(&[("DATABASE_URL", url.expose())], |app| {
        app.handler(move |_: Context, message: InboundMessage| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(message.body)
        })
    });
    let message = |number: u64| {
        let from = format!("whatsapp:+1555000{number:04}");
        Webhook::message(number, "hi").with("From", &from)
    };
    assert_eq!(app.send(message(0)).await.twiml(), twiml_message("hi"));
    for (outage, number) in [(ProxyState::Closed, 10), (ProxyState::Silent, 20)] {
        let runs_before = handler_runs.load(Ordering::SeqCst);
        proxy.set(outage).await;
        // The first request finds the outage, and the later ones meet the open circuit breaker.
        for number in number..number + 5 {
            let response = app.send_without_waiting(message(number));
            let response = tokio::time::timeout(OUTAGE_RESPONSE_TIMEOUT, response).await;
            let rejected = response.unwrap_or_else(|_| panic!("{outage:?}: no response in time"));
            assert_eq!(rejected.assert_rejected(503), "store unavailable\n");
        }
        assert_eq!(handler_runs.load(Ordering::SeqCst), runs_before);
        proxy.set(ProxyState::Open).await;
        app.wait_until_ready().await;
        let recovered = app.send(message(number + 9)).await;
        assert_eq!(recovered.twiml(), twiml_message("hi"), "{outage:?}");
    }
    drop(app);
    database.remove().await;
}

fn fallback() -> Webhook {
    Webhook::message(1, "hi")
        .to("/webhook/fallback")
        .with("ErrorCode", "11200")
}

// Another machine may have sent the fallback text for the same message during the outage.
#[tokio::test(flavor = "multi_thread")]
async fn threat_71_reply_waits_until_other_machines_flush() {
    during_outage(2, async |machines, twilio| {
        let (one, two) = (&machines[0], &machines[1]);
        assert_eq!(
            two.app.send_without_waiting(fallback()).await.twiml(),
            twiml_message("Sorry")
        );
        one.proxy.set(ProxyState::Open).await;
        one.app.wait_until_ready().await;
        // Five polls of the outbox: a queued reply would have been sent by now.
        one.app.wait_for_worker_rounds(5).await;
        assert_eq!(twilio.posts().len(), 0);
        two.proxy.set(ProxyState::Open).await;
        two.app
            .wait_for("replyhook_unflushed_fallback_replies", 0.0)
            .await;
        one.clock.advance(HOLD);
        one.app
            .wait_for("replyhook_replies_superseded_total", 1.0)
            .await;
        for machine in [one, two] {
            assert_eq!(machine.app.says(1, "hi").await, twiml_message("Sorry"));
        }
        assert_eq!(twilio.posts().len(), 0);
    })
    .await;
}

// No machine has sent a fallback text, so the reply is sent once, via the REST API, when the pause is over.
#[tokio::test(flavor = "multi_thread")]
async fn reply_is_sent_after_pause_for_other_machines() {
    during_outage(2, async |machines, twilio| {
        let (one, two) = (&machines[0], &machines[1]);
        for machine in machines {
            machine.proxy.set(ProxyState::Open).await;
        }
        one.app.wait_until_ready().await;
        one.app.wait_for_worker_rounds(5).await;
        assert_eq!(twilio.posts().len(), 0);
        one.clock.advance(HOLD);
        let phone = twilio.wait_for_phone(USER, 1);
        assert_eq!(
            (phone[0].body.as_str(), phone[0].via),
            ("hi", SentVia::Rest)
        );
        // The fallback call comes after the outage, so the journal decides its response.
        assert_eq!(
            two.app.send_without_waiting(fallback()).await.twiml(),
            crate::support::EMPTY
        );
        assert_eq!(twilio.posts().len(), 1);
    })
    .await;
}

// The pause is for messages that were received before the end of the outage.
#[tokio::test(flavor = "multi_thread")]
async fn message_after_outage_is_answered_without_pause() {
    during_outage(2, async |machines, twilio| {
        let one = &machines[0];
        one.proxy.set(ProxyState::Open).await;
        one.app.wait_until_ready().await;
        one.clock.advance(SignedDuration::from_secs(1));
        let late = one.app.clone();
        let message = Webhook::message(2, "later").with("From", "whatsapp:+15550003333");
        let request = tokio::spawn(async move { late.send(message).await });
        one.app.wait_for_messages(2).await;
        // The reply deadline passes, and less than the pause.
        one.clock.advance(SignedDuration::from_secs(11));
        assert_eq!(request.await.unwrap().twiml(), crate::support::EMPTY);
        one.go.add_permits(1);
        let phone = twilio.wait_for_phone("whatsapp:+15550003333", 1);
        assert_eq!(phone[0].body, "later");
        assert_eq!(twilio.posts().len(), 1);
    })
    .await;
}

// A server without peers knows every fallback text that was sent, so its reply needs no pause: its clock stands still.
#[tokio::test(flavor = "multi_thread")]
async fn only_machine_sends_reply_without_pause() {
    during_outage(1, async |machines, twilio| {
        machines[0].proxy.set(ProxyState::Open).await;
        let phone = twilio.wait_for_phone(USER, 1);
        assert_eq!(
            (phone[0].body.as_str(), phone[0].via),
            ("hi", SentVia::Rest)
        );
        assert_eq!(twilio.posts().len(), 1);
    })
    .await;
}

// Servers would count the lease of a command as another server for a day, and delay replies after an outage.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_command_leaves_no_lease() {
    let Some(database) = TestDatabase::create().await else {
        return report_skipped("the lease of a command: PostgreSQL is not available");
    };
    let twilio = FakeTwilio::start();
    let lost = twilio.deliver(|| None, &Webhook::message(1, "hi"), Policy::NEITHER);
    assert!(!lost.acknowledged());
    let (url, api) = (database.url(), twilio.url());
    let commands = tokio::task::spawn_blocking(move || {
        let env = [
            ("DATABASE_URL", url.expose()),
            ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
            ("TWILIO_ACCOUNT_SID", ACCOUNT),
            ("TWILIO_AUTH_TOKEN", TOKEN),
        ];
        ["migrate", "reconcile"].map(|command| replyhook(&[command], &env, ""))
    });
    let [_, (code, out, err)] = commands.await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("1 added"), "{out}{err}");
    let mut db = database.connect().await;
    let leases = "SELECT count(*) FROM owner";
    let leases: i64 = sqlx::query_scalar(leases).fetch_one(&mut db).await.unwrap();
    assert_eq!(leases, 0);
    drop(db);
    database.remove().await;
}
