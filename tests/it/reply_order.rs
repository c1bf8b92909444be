//! Order of replies: they reach the phone in the order of their messages, by TwiML or via the REST API, and none waits
//! long. Each test runs on SQLite, and on two servers that share PostgreSQL.

use std::sync::Arc;

use replyhook::clock::SignedDuration;
use replyhook::internals::{MessageFilter, Store};
use replyhook::{Clock, Context, HandlerError, InboundMessage, ManualClock, Reply, SystemClock};
use tokio::sync::Semaphore;

use crate::support::twilio::{Fault, PhoneMessage, SentVia};
use crate::support::{EMPTY, FakeTwilio, TestApp, Wait, Webhook, twiml_message};

const USER: &str = "whatsapp:+15550001111";
const BY_REST: &str = r#"replyhook_webhooks_total{endpoint="primary",outcome="by_rest"}"#;
const TOO_MANY_REQUESTS: Fault = Fault::Status {
    status: 429,
    code: Some(20429),
    retry_after: None,
};

/// Servers that share a store, a fake Twilio and a clock.
struct Machines {
    apps: Vec<Arc<TestApp>>,
    twilio: FakeTwilio,
    clock: Arc<ManualClock>,
    /// Permits for the handlers of messages that begin with "late".
    go: Arc<Semaphore>,
}

impl Machines {
    async fn start(number: usize, env: &[(&str, &str)]) -> Self {
        let twilio = FakeTwilio::start();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let go = Arc::new(Semaphore::new(0));
        let apps = (0..number).map(|_| {
            let (clock, go) = (clock.clone(), go.clone());
            let app = TestApp::with_twilio(&twilio, env, |app| {
                app.clock(clock)
                    .handler(move |_: Context, message: InboundMessage| reply(message, go.clone()))
            });
            Arc::new(app)
        });
        let apps: Vec<_> = apps.collect();
        for app in &apps {
            app.wait_until_ready().await;
        }
        Self {
            apps,
            twilio,
            clock,
            go,
        }
    }

    /// Returns the server that receives the message with this number.
    fn app(&self, number: u64) -> &Arc<TestApp> {
        let machines = u64::try_from(self.apps.len()).unwrap();
        &self.apps[usize::try_from(number % machines).unwrap()]
    }

    fn advance(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    async fn says(&self, number: u64, text: &str) -> String {
        self.app(number).says(number, text).await
    }

    /// Sends a message whose handler misses the deadline, and waits until the reply is in the outbox.
    async fn reply_late(&self, number: u64) {
        let app = self.app(number).clone();
        let text = format!("late {number}");
        let client = app.clone();
        let request = tokio::spawn(async move { client.says(number, &text).await });
        app.wait_for("replyhook_handlers_running", 1.0).await;
        self.advance(12);
        assert_eq!(request.await.unwrap(), EMPTY);
        self.go.add_permits(1);
        app.wait_for("replyhook_handlers_running", 0.0).await;
        let filter = MessageFilter {
            sid: Some(format!("SM{number:032x}").parse().unwrap()),
            limit: 1,
            ..MessageFilter::default()
        };
        let wait = Wait::until("the late reply is in the outbox");
        while self.store().messages(filter.clone()).await.unwrap()[0]
            .replies
            .is_empty()
        {
            wait.pause().await;
        }
    }

    fn store(&self) -> &dyn Store {
        &*self.apps[0].store
    }

    /// Waits until the outbox has a message with an unknown outcome.
    async fn wait_for_unknown(&self) {
        let wait = Wait::until("the outcome of a message is unknown");
        while self.store().outbox_stats().await.unwrap().unknown < 1 {
            wait.pause().await;
        }
    }

    /// Advances the clock until the phone shows this number of messages.
    // By up to 750 s: the delay before a retry can be 600 s after a long outage of the REST API.
    async fn wait_for_phone(&self, number: usize) -> Vec<PhoneMessage> {
        for _ in 0..150 {
            let phone = self.twilio.phone(USER);
            if phone.len() >= number {
                return phone;
            }
            self.advance(5);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("the phone shows {:?}", self.twilio.phone(USER));
    }
}

async fn reply(message: InboundMessage, go: Arc<Semaphore>) -> Result<Reply, HandlerError> {
    let text = message.body;
    if text.starts_with("late") {
        go.acquire().await.map_err(HandlerError::new)?.forget();
    }
    Ok(match text.as_str() {
        "empty" => Reply::none(),
        "redirect" => Reply::redirect("https://webhooks.twilio.com/v1/Flows/FW1")
            .map_err(HandlerError::new)?
            .and("moment"),
        _ => Reply::text(text),
    })
}

/// Runs these tests on one machine with SQLite, and on two with PostgreSQL.
macro_rules! on_one_and_two_machines {
    ($($test:ident),+ $(,)?) => {
        $(
            mod $test {
                #[tokio::test(flavor = "multi_thread")]
                async fn on_sqlite() {
                    super::$test(&super::Machines::start(1, &[]).await).await;
                }

                #[cfg(feature = "postgres")]
                #[tokio::test(flavor = "multi_thread")]
                async fn on_two_machines() {
                    super::on_two_machines(super::$test).await;
                }
            }
        )+
    };
}

#[cfg(feature = "postgres")]
async fn on_two_machines(test: impl AsyncFnOnce(&Machines)) {
    use crate::support::postgres::TestDatabase;

    let Some(database) = TestDatabase::create().await else {
        return crate::support::report_skipped(
            "the order of replies on two machines: no PostgreSQL",
        );
    };
    let url = database.url();
    let machines = Machines::start(2, &[("DATABASE_URL", url.expose())]).await;
    test(&machines).await;
    drop(machines);
    database.remove().await;
}

on_one_and_two_machines!(
    reply_behind_429_goes_via_rest,
    reply_behind_sending_goes_via_rest,
    reply_behind_unknown_goes_via_rest,
    held_reply_does_not_block_later_replies,
    fallback_reply_behind_pending_goes_via_rest,
    empty_reply_and_redirect_never_wait,
    rest_outage_delays_inline_replies_one_minute,
);

fn texts(phone: &[PhoneMessage]) -> Vec<(&str, SentVia)> {
    phone
        .iter()
        .map(|message| (message.body.as_str(), message.via))
        .collect()
}

/// Asserts that the replies after the open reply `late 1` go via the REST API, and by TwiML again once all are sent.
async fn following_replies_keep_order(machines: &Machines, recover: impl FnOnce()) {
    let before = [
        machines.app(2).metric(BY_REST).await,
        machines.app(3).metric(BY_REST).await,
    ];
    assert_eq!(machines.says(2, "two").await, EMPTY);
    assert_eq!(machines.says(3, "three").await, EMPTY);
    let after = [
        machines.app(2).metric(BY_REST).await,
        machines.app(3).metric(BY_REST).await,
    ];
    let each = if machines.apps.len() == 1 { 2.0 } else { 1.0 };
    assert_eq!([after[0] - before[0], after[1] - before[1]], [each, each]);
    // A redelivery gets the saved response.
    assert_eq!(machines.says(2, "two").await, EMPTY);
    recover();
    machines.wait_for_phone(3).await;
    machines.apps[0].wait_for_outbox("pending", 0).await;
    assert_eq!(machines.says(4, "four").await, twiml_message("four"));
    let phone = machines.twilio.phone(USER);
    let expected = ["late 1", "two", "three"].map(|text| (text, SentVia::Rest));
    assert_eq!(texts(&phone), expected);
}

async fn reply_behind_429_goes_via_rest(machines: &Machines) {
    machines.twilio.fault(TOO_MANY_REQUESTS, 2);
    machines.reply_late(1).await;
    machines.twilio.wait_for_posts(1);
    following_replies_keep_order(machines, || {}).await;
}

async fn reply_behind_sending_goes_via_rest(machines: &Machines) {
    machines.twilio.hold_posts();
    machines.reply_late(1).await;
    machines.twilio.wait_for_posts(1);
    following_replies_keep_order(machines, || machines.twilio.release_posts()).await;
}

async fn reply_behind_unknown_goes_via_rest(machines: &Machines) {
    machines.twilio.fault(Fault::AcceptedThenReset, 1);
    machines.reply_late(1).await;
    machines.wait_for_unknown().await;
    following_replies_keep_order(machines, || {}).await;
}

async fn held_reply_does_not_block_later_replies(machines: &Machines) {
    machines.twilio.fault(Fault::ResetBefore, 1);
    machines.reply_late(1).await;
    machines.wait_for_unknown().await;
    assert_eq!(machines.says(2, "two").await, EMPTY);
    machines.wait_for_phone(1).await;
    machines.apps[0].wait_for_outbox("held", 1).await;
    machines.apps[0].wait_for_outbox("pending", 0).await;
    assert_eq!(machines.says(3, "three").await, twiml_message("three"));
    assert_eq!(
        texts(&machines.twilio.phone(USER)),
        [("two", SentVia::Rest)]
    );
}

async fn fallback_reply_behind_pending_goes_via_rest(machines: &Machines) {
    machines.twilio.fault(TOO_MANY_REQUESTS, 1);
    machines.reply_late(1).await;
    machines.twilio.wait_for_posts(1);
    let fallback = Webhook::message(2, "two")
        .to("/webhook/fallback")
        .with("ErrorCode", "11200");
    let answer = machines.app(2).send(fallback).await;
    assert_eq!(answer.twiml(), EMPTY);
    let phone = machines.wait_for_phone(2).await;
    assert_eq!(
        texts(&phone),
        [("late 1", SentVia::Rest), ("two", SentVia::Rest)]
    );
}

async fn empty_reply_and_redirect_never_wait(machines: &Machines) {
    machines.twilio.start_outage();
    machines.reply_late(1).await;
    assert_eq!(machines.says(2, "empty").await, EMPTY);
    assert_eq!(machines.app(2).metric(BY_REST).await, 0.0);
    let redirect = machines.says(3, "redirect").await;
    assert!(redirect.contains("<Redirect"), "{redirect}");
    assert_eq!(machines.says(4, "text").await, EMPTY);
    assert_eq!(machines.app(4).metric(BY_REST).await, 1.0);
}

// After a minute, replies go by TwiML again although an older reply is still in the outbox.
async fn rest_outage_delays_inline_replies_one_minute(machines: &Machines) {
    machines.twilio.start_outage();
    machines.reply_late(1).await;
    // For an hour, the user writes every twelve seconds.
    let mut replied = Vec::new();
    for number in 2..302 {
        machines.advance(12);
        let text = format!("text {number}");
        let answer = machines.says(number, &text).await;
        replied.push(answer == twiml_message(&text));
    }
    // Newer replies keep joining the queue, each younger than a minute. Only the age of the oldest one counts.
    let (first_minute, rest_of_hour) = replied.split_at(4);
    assert_eq!(first_minute, [false; 4]);
    assert!(rest_of_hour.iter().all(|replied| *replied));
    machines.twilio.end_outage();
    let phone = machines.wait_for_phone(5).await;
    let expected = ["late 1", "text 2", "text 3", "text 4", "text 5"];
    assert_eq!(texts(&phone), expected.map(|text| (text, SentVia::Rest)));
}
