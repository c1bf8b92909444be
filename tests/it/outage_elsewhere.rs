//! Outage of a PostgreSQL database that two servers share. A fallback text that one of them sends during the outage is
//! the only reply, even if the other server has already handled the message.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use replyhook::{Context, InboundMessage};
use tokio::sync::Semaphore;

use crate::support::postgres::{Proxy, TestDatabase, Way};
use crate::support::twilio::By;
use crate::support::{FakeTwilio, TestApp, Webhook, left_out, says};

const USER: &str = "whatsapp:+15550001111";

/// Server, the proxy to its database, and the semaphore that lets its handler reply.
struct Machine {
    app: Arc<TestApp>,
    way: Proxy,
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
        let app = TestApp::beside(twilio, &env, |app| {
            app.handler(move |_: Context, message: InboundMessage| {
                let wait = wait.clone();
                let answer: BoxFuture<'static, String> = Box::pin(async move {
                    wait.acquire().await.unwrap().forget();
                    message.body
                });
                answer
            })
        });
        app.opened().await;
        Self {
            app: Arc::new(app),
            way,
            go,
        }
    }
}

/// Runs a test with two servers during an outage. The first one has handled a message but could not save its reply,
/// and has responded 503.
async fn in_an_outage(test: impl AsyncFnOnce(&Machine, &Machine, &FakeTwilio)) {
    let Some(database) = TestDatabase::create().await else {
        return left_out("an outage with two machines: there is no PostgreSQL");
    };
    let twilio = FakeTwilio::start();
    let one = Machine::start(&database, &twilio).await;
    let two = Machine::start(&database, &twilio).await;
    let asking = one.app.clone();
    let asked = tokio::spawn(async move { asking.send(Webhook::message(1, "hi")).await });
    while one.app.kept().await < 1 {}
    one.way.set(Way::Closed).await;
    two.way.set(Way::Closed).await;
    one.go.add_permits(1);
    asked.await.unwrap().rejected(503);
    test(&one, &two, &twilio).await;
    drop((one, two));
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
    in_an_outage(async |one, two, twilio| {
        assert_eq!(two.app.ask(fallback()).await.twiml(), says("Sorry"));
        one.way.set(Way::Open).await;
        one.app.opened().await;
        // Five polls of the outbox: a queued reply would have been sent by now.
        one.app.idle_rounds(5).await;
        assert_eq!(twilio.posts().len(), 0);
        two.way.set(Way::Open).await;
        one.app
            .wait_for("replyhook_replies_superseded_total", 1.0)
            .await;
        two.app
            .wait_for("replyhook_unflushed_fallback_replies", 0.0)
            .await;
        for machine in [one, two] {
            assert_eq!(machine.app.says(1, "hi").await, says("Sorry"));
        }
        assert_eq!(twilio.posts().len(), 0);
    })
    .await;
}

// No machine has sent a fallback text, so the reply is sent once, via the REST API.
#[tokio::test(flavor = "multi_thread")]
async fn reply_is_sent_after_all_machines_have_flushed() {
    in_an_outage(async |one, two, twilio| {
        one.way.set(Way::Open).await;
        two.way.set(Way::Open).await;
        let shown = twilio.wait_for_phone(USER, 1);
        assert_eq!((shown[0].body.as_str(), shown[0].by), ("hi", By::Rest));
        // The fallback call comes after the outage, so the journal decides its response.
        assert_eq!(two.app.ask(fallback()).await.twiml(), crate::support::EMPTY);
        assert_eq!(twilio.posts().len(), 1);
    })
    .await;
}
