//! Outage of a PostgreSQL database that two servers share. A fallback text that one of them sends during the outage is
//! the only reply, even if the other server has already handled the message.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use replyhook::clock::{Clock, ManualClock, SignedDuration, SystemClock};
use replyhook::{Context, InboundMessage};
use tokio::sync::Semaphore;

use crate::support::postgres::{Proxy, TestDatabase, Way};
use crate::support::twilio::By;
use crate::support::{FakeTwilio, TestApp, Webhook, left_out, says};

const USER: &str = "whatsapp:+15550001111";
/// Time after an outage in which a server with peers sends no reply via the REST API.
const HOLD: SignedDuration = SignedDuration::from_secs(20);

/// Server, the proxy to its database, its clock, and the semaphore that lets its handler reply.
struct Machine {
    app: Arc<TestApp>,
    way: Proxy,
    clock: Arc<ManualClock>,
    go: Arc<Semaphore>,
}

impl Machine {
    async fn start(database: &TestDatabase, twilio: &FakeTwilio) -> Self {
        let way = Proxy::to(database).await;
        let url = database.url_at("127.0.0.1", way.port);
        let env = [
            ("DATABASE_URL", url.expose()),
            ("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry"),
        ];
        let go = Arc::new(Semaphore::new(0));
        let wait = go.clone();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = TestApp::beside(twilio, &env, |app| {
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
        app.opened().await;
        // The start counts as a failure of the store, for messages that were received before.
        clock.advance(HOLD);
        Self {
            app: Arc::new(app),
            way,
            clock,
            go,
        }
    }
}

/// Runs a test with servers during an outage. The first one has handled a message but could not save its reply, and has
/// responded 503.
async fn in_an_outage(number: usize, test: impl AsyncFnOnce(&[Machine], &FakeTwilio)) {
    let Some(database) = TestDatabase::create().await else {
        return left_out("an outage with several machines: there is no PostgreSQL");
    };
    let twilio = FakeTwilio::start();
    let mut machines = Vec::new();
    for _ in 0..number {
        machines.push(Machine::start(&database, &twilio).await);
    }
    let one = &machines[0];
    // Until its next heartbeat the first server has not seen the others.
    while number > 1 && !one.app.store.has_peers() {
        tokio::task::yield_now().await;
    }
    let asking = one.app.clone();
    let asked = tokio::spawn(async move { asking.send(Webhook::message(1, "hi")).await });
    while one.app.kept().await < 1 {}
    for machine in &machines {
        machine.way.set(Way::Closed).await;
    }
    one.go.add_permits(1);
    asked.await.unwrap().rejected(503);
    test(&machines, &twilio).await;
    drop(machines);
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
    in_an_outage(2, async |machines, twilio| {
        let (one, two) = (&machines[0], &machines[1]);
        assert_eq!(two.app.ask(fallback()).await.twiml(), says("Sorry"));
        one.way.set(Way::Open).await;
        one.app.opened().await;
        // Five polls of the outbox: a queued reply would have been sent by now.
        one.app.idle_rounds(5).await;
        assert_eq!(twilio.posts().len(), 0);
        two.way.set(Way::Open).await;
        two.app
            .wait_for("replyhook_unflushed_fallback_replies", 0.0)
            .await;
        one.clock.advance(HOLD);
        one.app
            .wait_for("replyhook_replies_superseded_total", 1.0)
            .await;
        for machine in [one, two] {
            assert_eq!(machine.app.says(1, "hi").await, says("Sorry"));
        }
        assert_eq!(twilio.posts().len(), 0);
    })
    .await;
}

// No machine has sent a fallback text, so the reply is sent once, via the REST API, when the pause is over.
#[tokio::test(flavor = "multi_thread")]
async fn reply_is_sent_after_pause_for_other_machines() {
    in_an_outage(2, async |machines, twilio| {
        let (one, two) = (&machines[0], &machines[1]);
        for machine in machines {
            machine.way.set(Way::Open).await;
        }
        one.app.opened().await;
        one.app.idle_rounds(5).await;
        assert_eq!(twilio.posts().len(), 0);
        one.clock.advance(HOLD);
        let shown = twilio.wait_for_phone(USER, 1);
        assert_eq!((shown[0].body.as_str(), shown[0].by), ("hi", By::Rest));
        // The fallback call comes after the outage, so the journal decides its response.
        assert_eq!(two.app.ask(fallback()).await.twiml(), crate::support::EMPTY);
        assert_eq!(twilio.posts().len(), 1);
    })
    .await;
}

// The pause is for messages that were received before the end of the outage.
#[tokio::test(flavor = "multi_thread")]
async fn message_after_outage_is_answered_without_pause() {
    in_an_outage(2, async |machines, twilio| {
        let one = &machines[0];
        one.way.set(Way::Open).await;
        one.app.opened().await;
        one.clock.advance(SignedDuration::from_secs(1));
        let late = one.app.clone();
        let message = Webhook::message(2, "later").with("From", "whatsapp:+15550003333");
        let asked = tokio::spawn(async move { late.send(message).await });
        while one.app.kept().await < 2 {}
        // The reply deadline passes, and less than the pause.
        one.clock.advance(SignedDuration::from_secs(11));
        assert_eq!(asked.await.unwrap().twiml(), crate::support::EMPTY);
        one.go.add_permits(1);
        let shown = twilio.wait_for_phone("whatsapp:+15550003333", 1);
        assert_eq!(shown[0].body, "later");
        assert_eq!(twilio.posts().len(), 1);
    })
    .await;
}

// A server without peers knows every fallback text that was sent, so its reply needs no pause: its clock stands still.
#[tokio::test(flavor = "multi_thread")]
async fn only_machine_sends_reply_without_pause() {
    in_an_outage(1, async |machines, twilio| {
        machines[0].way.set(Way::Open).await;
        let shown = twilio.wait_for_phone(USER, 1);
        assert_eq!((shown[0].body.as_str(), shown[0].by), ("hi", By::Rest));
        assert_eq!(twilio.posts().len(), 1);
    })
    .await;
}
