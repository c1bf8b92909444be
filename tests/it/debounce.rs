//! Debounce: the handler gets several quick messages of one user as one, and each webhook gets a response.

use std::sync::{Arc, Mutex};

use replyhook::internals::{Journal, MessageFilter, NewInbound, Store};
use replyhook::store::Access;
use replyhook::store::sqlite::SqliteStore;
use replyhook::{Clock, Context, InboundMessage, ManualClock, SystemClock};
use tokio::task::JoinHandle;

use crate::support::{EMPTY, HttpResponse, TestApp, Webhook, twiml_message};

/// Debounce of two seconds.
const PAUSE: (&str, &str) = ("REPLYHOOK__REPLY__DEBOUNCE_MS", "2000");

/// App whose handler echoes the lines of a message, joined by ` + `.
struct Bot {
    app: Arc<TestApp>,
    clock: Arc<ManualClock>,
    turns: Arc<Mutex<Vec<InboundMessage>>>,
    sent: usize,
}

impl Bot {
    fn start(env: &[(&str, &str)]) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let turns = Arc::new(Mutex::new(Vec::new()));
        let (recorder, time) = (turns.clone(), clock.clone());
        let handler = move |cx: Context, message: InboundMessage| {
            let recorder = recorder.clone();
            async move {
                recorder.lock().unwrap().push(message.clone());
                if message.body.starts_with("fail") && cx.attempt() == 1 {
                    return Err("failed on request");
                }
                Ok(message.body.lines().collect::<Vec<_>>().join(" + "))
            }
        };
        let app = TestApp::build(env, |app| app.handler(handler).clock(time));
        Self {
            app: Arc::new(app),
            clock,
            turns,
            sent: 0,
        }
    }

    /// Sends a webhook, and returns once the journal has the message.
    async fn send_webhook(&mut self, webhook: Webhook) -> JoinHandle<HttpResponse> {
        self.app.wait_until_ready().await;
        let app = self.app.clone();
        let request = tokio::spawn(async move { app.send(webhook).await });
        self.sent += 1;
        self.app.wait_for_messages(self.sent).await;
        request
    }

    async fn send_text(&mut self, number: u64, text: &str) -> JoinHandle<HttpResponse> {
        self.send_webhook(Webhook::message(number, text)).await
    }

    fn advance(&self, millis: i64) {
        self.clock
            .advance(jiff::SignedDuration::from_millis(millis));
    }

    /// Message body of each handler call.
    fn turns(&self) -> Vec<String> {
        let turns = self.turns.lock().unwrap();
        turns.iter().map(|message| message.body.clone()).collect()
    }
}

async fn response_twiml(request: JoinHandle<HttpResponse>) -> String {
    request.await.unwrap().twiml().to_owned()
}

// The first message gets the reply, the others an empty response, and each redelivery gets the same as before.
#[tokio::test]
async fn burst_within_debounce_gets_one_reply() {
    let mut bot = Bot::start(&[PAUSE]);
    let mut requests = Vec::new();
    for (number, text) in [(1, "one"), (2, "two"), (3, "three")] {
        requests.push(bot.send_text(number, text).await);
        bot.advance(1500);
    }
    assert!(bot.turns().is_empty(), "the debounce is not over");
    bot.advance(500);
    let expected = [
        twiml_message("one + two + three"),
        EMPTY.to_owned(),
        EMPTY.to_owned(),
    ];
    for (request, expected) in requests.into_iter().zip(&expected) {
        assert_eq!(response_twiml(request).await, *expected);
    }
    assert_eq!(bot.turns(), ["one\ntwo\nthree"]);
    let merged = bot.turns.lock().unwrap()[0].merged.clone();
    let merged: Vec<_> = merged.iter().map(ToString::to_string).collect();
    assert_eq!(merged, [2, 3].map(|number| format!("SM{number:032x}")));
    for (number, expected) in (1..).zip(&expected) {
        assert_eq!(bot.app.says(number, "again").await, *expected);
    }
    assert_eq!(bot.turns().len(), 1);
    let rows = bot.app.store.messages(MessageFilter {
        limit: 9,
        ..MessageFilter::default()
    });
    assert!(
        rows.await
            .unwrap()
            .iter()
            .all(|row| row.state == "answered")
    );
}

#[tokio::test]
async fn messages_without_debounce_are_handled_separately() {
    let mut bot = Bot::start(&[]);
    for (number, text) in [(1, "one"), (2, "two")] {
        let request = bot.send_text(number, text).await;
        assert_eq!(response_twiml(request).await, twiml_message(text));
    }
    assert_eq!(bot.turns(), ["one", "two"]);
}

#[tokio::test]
async fn message_after_debounce_gets_own_reply() {
    let mut bot = Bot::start(&[PAUSE]);
    let first = bot.send_text(1, "one").await;
    bot.advance(2000);
    assert_eq!(response_twiml(first).await, twiml_message("one"));
    let second = bot.send_text(2, "two").await;
    bot.advance(2000);
    assert_eq!(response_twiml(second).await, twiml_message("two"));
    assert_eq!(bot.turns(), ["one", "two"]);
}

// A user who keeps writing must still get a reply before the deadline.
#[tokio::test]
async fn debounce_ends_after_half_of_deadline() {
    let mut bot = Bot::start(&[PAUSE]);
    let mut requests = vec![bot.send_text(1, "1").await];
    for number in 2..=4 {
        bot.advance(1500);
        requests.push(bot.send_text(number, &number.to_string()).await);
    }
    bot.advance(500);
    assert_eq!(
        response_twiml(requests.remove(0)).await,
        twiml_message("1 + 2 + 3 + 4")
    );
    let next = bot.send_text(5, "5").await;
    bot.advance(2000);
    assert_eq!(response_twiml(next).await, twiml_message("5"));
}

// One message cannot contain two buttons, so the second tap and the text after it are handled next.
#[tokio::test]
async fn unmergeable_message_gets_own_handler_call() {
    let mut bot = Bot::start(&[PAUSE]);
    let tap = |number, payload| {
        Webhook::message(number, "Yes")
            .with("ButtonText", "Yes")
            .with("ButtonPayload", payload)
    };
    let first = bot.send_webhook(tap(1, "yes:1")).await;
    let second = bot.send_webhook(tap(2, "yes:2")).await;
    let third = bot.send_text(3, "please").await;
    bot.advance(2000);
    assert_eq!(response_twiml(first).await, twiml_message("Yes"));
    assert_eq!(response_twiml(second).await, twiml_message("Yes + please"));
    assert_eq!(response_twiml(third).await, EMPTY);
    let payloads: Vec<_> = bot
        .turns
        .lock()
        .unwrap()
        .iter()
        .map(|turn| turn.button.as_ref().unwrap().payload.clone().unwrap())
        .collect();
    assert_eq!(payloads, ["yes:1", "yes:2"]);
}

#[tokio::test]
async fn other_users_and_keywords_are_not_merged() {
    let mut bot = Bot::start(&[PAUSE]);
    let anas = bot.send_text(1, "one").await;
    let ben = Webhook::message(2, "two").with("From", "whatsapp:+15550009999");
    let bens = bot.send_webhook(ben).await;
    let stop = bot.send_text(3, "STOP").await;
    assert!(response_twiml(stop).await.contains("no more messages"));
    bot.advance(2000);
    assert_eq!(response_twiml(bens).await, twiml_message("two"));
    // Ana has opted out since she sent this message.
    assert_eq!(response_twiml(anas).await, EMPTY);
    let mut turns = bot.turns();
    turns.sort();
    assert_eq!(turns, ["one", "two"]);
}

#[tokio::test]
async fn burst_after_handler_failure_continues_without_first_message() {
    let mut bot = Bot::start(&[PAUSE]);
    let first = bot.send_text(1, "fail").await;
    let second = bot.send_text(2, "two").await;
    let third = bot.send_text(3, "three").await;
    bot.advance(2000);
    assert_eq!(first.await.unwrap().status, 500);
    assert_eq!(response_twiml(second).await, twiml_message("two + three"));
    assert_eq!(response_twiml(third).await, EMPTY);
    assert_eq!(bot.turns(), ["fail\ntwo\nthree", "two\nthree"]);
    // Twilio calls the fallback URL for the first message. It is handled alone, since the others have their replies.
    let again = Webhook::message(1, "fail").to("/webhook/fallback");
    assert_eq!(bot.app.send(again).await.twiml(), twiml_message("fail"));
}

#[tokio::test]
async fn queued_burst_after_restart_gets_one_rest_reply() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let came_at = SystemClock.now();
    {
        let store = SqliteStore::file(&file);
        store.open(Access::Owner).await.unwrap();
        for number in 1..=3 {
            let webhook = Webhook::message(number, &number.to_string());
            let arrival = NewInbound {
                account: crate::support::ACCOUNT.parse().unwrap(),
                sid: format!("SM{number:032x}").parse().unwrap(),
                sender: "whatsapp:+15550002222".into(),
                user: vec!["whatsapp:+15550001111".into()],
                service: None,
                auth_token: replyhook::signature::AuthTokenKind::Primary,
                params: webhook.form.encode(),
                consent: None,
                max_attempts: 2,
                retry_after_crash: true,
                final_response: String::new(),
                received_at: came_at,
            };
            store.accept(Arc::new(arrival)).await.unwrap();
        }
    }
    let url = format!("sqlite:{}", file.display());
    let bot = Bot::start(&[PAUSE, ("DATABASE_URL", &url)]);
    bot.app.wait_until_ready().await;
    bot.advance(2000);
    bot.app.wait_for_outbox("pending", 1).await;
    assert_eq!(bot.turns(), ["1\n2\n3"]);
    for number in 1..=3 {
        assert_eq!(bot.app.says(number, "again").await, EMPTY);
    }
}
