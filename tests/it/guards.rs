//! Messages that never reach the handler: reply loops, own senders, and messages over the rate limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use replyhook::clock::{ManualClock, SignedDuration};
use replyhook::config::Sources;
use replyhook::emulator::EmulatorClient;
use replyhook::{
    App, Clock, Context, DevServer, DevServerOptions, Echo, Handler, HandlerError, InboundMessage,
    Reply, SystemClock,
};
use serde_json::json;

use crate::support::{EMPTY, TestApp, Webhook, twiml_message};

const LOOP_DETECTION_OFF: (&str, &str) = ("REPLYHOOK__GUARD__LOOP_DETECTION", "false");
const SENDERS: [&str; 2] = ["whatsapp:+15550001111", "whatsapp:+15550002222"];

/// A bot with a manual clock.
struct Bot {
    app: TestApp,
    clock: Arc<ManualClock>,
}

impl Bot {
    fn echo(env: &[(&str, &str)]) -> Self {
        Self::with(env, Echo)
    }

    fn with(env: &[(&str, &str)], handler: impl Handler) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = TestApp::build(env, |app| app.clock(clock.clone()).handler(handler));
        Self { app, clock }
    }

    async fn says(&self, number: u64, body: &str) -> String {
        self.app.says(number, body).await
    }

    /// Sends the same text once per number until a response is empty. Returns the number of replies before that.
    async fn send_until_blocked(&self, numbers: std::ops::Range<u64>, body: &str) -> usize {
        let mut answered = 0;
        for number in numbers {
            let answer = self.says(number, body).await;
            if answer == EMPTY {
                break;
            }
            assert_eq!(answer, twiml_message(body));
            answered += 1;
        }
        answered
    }

    async fn blocked_count(&self, reason: &str) -> f64 {
        let series = format!(r#"replyhook_messages_blocked_total{{reason="{reason}"}}"#);
        self.app.metric(&series).await
    }

    fn advance(&self, ms: i64) {
        self.clock.advance(SignedDuration::from_millis(ms));
    }
}

/// Returns the text of the first message in a TwiML document.
fn first_text(twiml: &str) -> Option<&str> {
    twiml.split_once("<Message>")?.1.split("</Message>").next()
}

// The loop is counted once, so that an alert can fire, and other users still get replies.
#[tokio::test]
async fn threat_72_two_echo_bots_stop_within_ten_turns() {
    let bots = [Bot::echo(&[]), Bot::echo(&[])];
    let mut answers = [0, 0];
    let mut text = "Thank you for your message!".to_owned();
    // Bounded, so that a loop which does not stop fails the test instead of hanging it.
    for number in 0..40 {
        let (receiver, sender) = (number % 2, (number + 1) % 2);
        let webhook = Webhook::message(number as u64, &text)
            .with("From", SENDERS[sender])
            .with("To", SENDERS[receiver]);
        let answer = bots[receiver].app.send(webhook).await;
        for bot in &bots {
            bot.advance(500);
        }
        let Some(answer) = first_text(answer.twiml()) else {
            break;
        };
        answers[receiver] += 1;
        answer.clone_into(&mut text);
    }
    assert_eq!(answers, [9, 9], "replies of each bot before the block");
    assert_eq!(bots[0].blocked_count("loop").await, 1.0);
    assert_eq!(bots[1].blocked_count("loop").await, 0.0);
    // Another user still gets replies.
    let other = Webhook::message(1000, "hi").with("From", "whatsapp:+15550003333");
    assert_eq!(bots[0].app.send(other).await.twiml(), twiml_message("hi"));
}

// Each server's replies go through its emulator to the other server.
#[tokio::test]
async fn threat_72_two_dev_servers_stop_within_ten_turns() {
    const WHATSAPP: &str = "whatsapp:+14155238886";
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let mut dev_servers = Vec::new();
    for _ in 0..2 {
        let mut options = DevServerOptions::default();
        options.emulator_port = Some(0);
        options.port = Some(0);
        options.clock = Some(clock.clone());
        let dev_server = DevServer::start(App::builder(), Sources::default(), options);
        let dev_server = dev_server.await.unwrap();
        let twilio = EmulatorClient::new(dev_server.emulator().url()).unwrap();
        dev_servers.push((dev_server, twilio));
    }
    // Each server's reply is the next message to the other.
    let mut text = "Thank you for your message!".to_owned();
    let mut receiver = 0;
    for _ in 0..40 {
        let message = json!({"from": SENDERS[receiver], "to": WHATSAPP, "body": text});
        let answer = dev_servers[receiver]
            .1
            .post(&["messages"], &message)
            .await
            .unwrap();
        let Some(body) = answer["messages"][0]["body"].as_str() else {
            assert!(answer["twiml"].as_str().unwrap().ends_with("<Response/>"));
            break;
        };
        body.clone_into(&mut text);
        receiver = 1 - receiver;
    }
    for (dev_server, _) in dev_servers {
        assert_eq!(dev_server.handler_calls(), 9);
        dev_server.stop().await;
    }
}

#[tokio::test]
async fn threat_72_quick_conversation_is_not_blocked() {
    let bot = Bot::echo(&[]);
    for number in 0..20 {
        let text = format!("and another thing, number {number}");
        assert_eq!(bot.says(number, &text).await, twiml_message(&text));
        bot.advance(500);
    }
    // A user who sends each text twice is not blocked either.
    for number in 20..40 {
        let text = format!("listen, number {}", number / 2);
        assert_eq!(bot.says(number, &text).await, twiml_message(&text));
    }
    // Files without a text and tapped buttons never count as a loop, because people send them.
    for number in 40..60 {
        let file = Webhook::message(number, "")
            .with("NumMedia", "1")
            .with("MediaUrl0", "https://api.twilio.com/a/b")
            .with("MediaContentType0", "image/jpeg");
        assert_eq!(
            bot.app.send(file).await.twiml(),
            twiml_message("image/jpeg")
        );
        let button = Webhook::message(100 + number, "Next").with("ButtonPayload", "next");
        assert_ne!(bot.app.send(button).await.twiml(), EMPTY);
    }
    assert_eq!(bot.blocked_count("loop").await, 0.0);
}

#[tokio::test]
async fn threat_72_slow_repeated_texts_are_not_blocked() {
    let bot = Bot::echo(&[]);
    for number in 0..30 {
        assert_eq!(bot.says(number, "hello?").await, twiml_message("hello?"));
        bot.advance(10_000);
    }
    assert_eq!(bot.blocked_count("loop").await, 0.0);
}

/// Returns a bot that quotes the message in its reply.
fn quoting_bot(env: &[(&str, &str)]) -> Bot {
    Bot::with(env, |_: Context, message: InboundMessage| async move {
        format!("Hello Bot, you said: {}", message.body)
    })
}

// The bot receives its own replies, each of which quotes the one before.
#[tokio::test]
async fn threat_72_loop_of_growing_quotes_stops_within_ten_turns() {
    let bot = quoting_bot(&[]);
    let mut text = "hi".to_owned();
    let mut answers = 0;
    while let Some(answer) = first_text(&bot.says(answers, &text).await) {
        answer.clone_into(&mut text);
        answers += 1;
        assert!(answers < 40, "the loop does not stop");
        bot.advance(1_000);
    }
    assert_eq!(answers, 9);
    assert_eq!(bot.blocked_count("loop").await, 1.0);
}

#[tokio::test]
async fn threat_72_loop_of_alternating_texts_stops_within_ten_turns() {
    for answers in 1..=3 {
        let bot = Bot::echo(&[]);
        let mut answered = 0;
        loop {
            let text = format!("Sorry, what? ({})", answered % answers);
            if bot.says(answered, &text).await == EMPTY {
                break;
            }
            answered += 1;
            assert!(answered < 40, "the loop does not stop");
            bot.advance(1_000);
        }
        assert_eq!(answered, 9, "{answers}");
    }
}

#[tokio::test]
async fn threat_72_slow_loop_stops_before_40_turns() {
    for pause in [3_400, 19_000] {
        let bots = [Bot::echo(&[]), quoting_bot(&[])];
        let mut text = "Thank you for your message!".to_owned();
        for bot in bots {
            let mut answered = 0;
            while let Some(answer) = first_text(&bot.says(answered, &text).await) {
                answer.clone_into(&mut text);
                answered += 1;
                assert!(answered < 40, "{pause}");
                bot.advance(pause);
            }
            assert_eq!(bot.blocked_count("loop").await, 1.0);
            bot.advance(60_000);
            assert_ne!(bot.says(100, "hello?").await, EMPTY, "the mute has ended");
        }
    }
}

// A user may page with one word, and a machine may report without getting replies.
#[tokio::test]
async fn threat_72_hour_of_repeated_texts_is_not_muted() {
    let bot = Bot::echo(&[]);
    for number in 0..180 {
        assert_eq!(bot.says(number, "next").await, twiml_message("next"));
        bot.advance(20_000);
    }
    // A machine that reports and gets no replies is not muted either.
    let silent = Bot::with(&[], |_: Context, _: InboundMessage| async { Reply::none() });
    for number in 0..100 {
        silent.says(number, "all is well").await;
        silent.advance(5_000);
    }
    for bot in [bot, silent] {
        assert_eq!(bot.blocked_count("loop").await, 0.0);
    }
}

#[tokio::test]
async fn threat_72_loop_threshold_is_nineteen_turns_in_30_seconds() {
    let handler_runs = Arc::new(AtomicUsize::new(0));
    let silent = handler_runs.clone();
    let bot = Bot::with(&[], move |_: Context, _: InboundMessage| {
        silent.fetch_add(1, Ordering::SeqCst);
        async { Reply::none() }
    });
    for number in 0..18 {
        bot.says(number, " hello? ").await;
        bot.advance(1_600);
    }
    assert_eq!(handler_runs.load(Ordering::SeqCst), 18);
    // The first message is 30 s old by now and does not count.
    bot.advance(1_200);
    bot.says(18, "hello?").await;
    assert_eq!(handler_runs.load(Ordering::SeqCst), 19);
    // The second message still counts, so this one is the nineteenth turn.
    bot.says(19, "hello?").await;
    assert_eq!(handler_runs.load(Ordering::SeqCst), 19);
    assert_eq!(bot.blocked_count("loop").await, 1.0);
}

// A mute counts as one loop, however many messages it blocks.
#[tokio::test]
async fn threat_72_mute_ends_after_one_minute() {
    let bot = Bot::echo(&[]);
    assert_eq!(bot.send_until_blocked(0..20, "hi").await, 9);
    bot.advance(59_999);
    assert_eq!(bot.says(20, "another text").await, EMPTY);
    assert_eq!(bot.blocked_count("loop").await, 1.0);
    assert_eq!(bot.blocked_count("muted").await, 1.0);
    bot.advance(1);
    // Counting starts again after the mute.
    assert_eq!(bot.send_until_blocked(30..50, "hi").await, 9);
    assert_eq!(bot.blocked_count("loop").await, 2.0);
}

// It gets the same empty response, also after the mute and via the fallback URL.
#[tokio::test]
async fn threat_72_redelivery_of_muted_message_skips_handler() {
    let handler_runs = Arc::new(AtomicUsize::new(0));
    let counter = handler_runs.clone();
    let bot = Bot::with(&[], move |_: Context, message: InboundMessage| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { message.body }
    });
    assert_eq!(bot.send_until_blocked(0..20, "hi").await, 9);
    assert_eq!(bot.says(10, "muted").await, EMPTY);
    for number in [9, 10] {
        assert_eq!(bot.says(number, "hi").await, EMPTY);
    }
    bot.advance(60_000);
    for number in [9, 10] {
        assert_eq!(bot.says(number, "hi").await, EMPTY);
        let fallback = Webhook::message(number, "hi").to("/webhook/fallback");
        assert_eq!(bot.app.send(fallback).await.twiml(), EMPTY);
    }
    assert_eq!(handler_runs.load(Ordering::SeqCst), 9);
    assert_eq!(
        bot.blocked_count("muted").await,
        1.0,
        "repeats are not counted"
    );
    assert_eq!(bot.app.message_count().await, 11);
}

// The loop detection counts messages, not attempts.
#[tokio::test]
async fn threat_72_second_attempt_is_muted_but_not_counted() {
    let bot = Bot::with(&[], |cx: Context, message: InboundMessage| async move {
        match cx.attempt() {
            1 => Err(HandlerError::new("no")),
            _ => Ok(message.body),
        }
    });
    let first = |number| bot.app.send(Webhook::message(number, "hi"));
    for number in 0..9 {
        first(number).await.assert_rejected(500);
        assert_eq!(bot.says(number, "hi").await, twiml_message("hi"));
    }
    first(100).await.twiml();
    assert_eq!(bot.blocked_count("loop").await, 1.0);

    let bot = Bot::with(&[], |_: Context, message: InboundMessage| async move {
        match message.body.as_str() {
            "fail" => Err(HandlerError::new("no")),
            _ => Ok(message.body),
        }
    });
    let failed = bot.app.send(Webhook::message(0, "fail")).await;
    failed.assert_rejected(500);
    assert!(bot.send_until_blocked(1..20, "hi").await < 10);
    assert_eq!(bot.says(0, "fail").await, EMPTY);
}

#[tokio::test]
async fn threat_72_disabled_loop_detection_answers_everything() {
    let bot = Bot::echo(&[LOOP_DETECTION_OFF]);
    assert_eq!(bot.send_until_blocked(0..40, "hi").await, 40);
    assert_eq!(bot.blocked_count("loop").await, 0.0);
}

#[tokio::test]
async fn threat_72_message_from_own_sender_is_not_answered() {
    let (sender, other_sender, listed) = (SENDERS[1], "whatsapp:+15550003333", "+15550004444");
    let own_numbers = (
        "REPLYHOOK__GUARD__OWN_NUMBERS",
        "+15550005555, +15550004444",
    );
    let bot = Bot::echo(&[own_numbers, LOOP_DETECTION_OFF]);
    let from_to = |number, from, to| {
        let webhook = Webhook::message(number, "hi").with("From", from);
        bot.app.send(webhook.with("To", to))
    };
    // The server learns that a sender is its own from the first message to it.
    assert_eq!(
        from_to(1, other_sender, sender).await.twiml(),
        twiml_message("hi")
    );
    assert_eq!(
        from_to(2, SENDERS[0], other_sender).await.twiml(),
        twiml_message("hi")
    );
    assert_eq!(from_to(3, other_sender, sender).await.twiml(), EMPTY);
    assert_eq!(from_to(4, sender, other_sender).await.twiml(), EMPTY);
    assert_eq!(from_to(5, sender, sender).await.twiml(), EMPTY);
    assert_eq!(from_to(6, listed, "+15550006666").await.twiml(), EMPTY);
    assert_eq!(bot.blocked_count("own_number").await, 4.0);
    assert_eq!(
        from_to(7, SENDERS[0], sender).await.twiml(),
        twiml_message("hi")
    );
}

// WhatsApp may name a number of Mexico or Brazil in another spelling than the one that is configured or was written to.
#[tokio::test]
async fn threat_72_own_sender_is_known_by_either_spelling() {
    let own_numbers = (
        "REPLYHOOK__GUARD__OWN_NUMBERS",
        "whatsapp:+5215512345678, whatsapp:+5561999887766",
    );
    let bot = Bot::echo(&[own_numbers, LOOP_DETECTION_OFF]);
    let mut number = 0;
    let mut from_to = async |from, to| {
        number += 1;
        let webhook = Webhook::message(number, "hi").with("From", from);
        bot.app
            .send(webhook.with("To", to))
            .await
            .twiml()
            .to_owned()
    };
    for own in [
        "whatsapp:+5215512345678",
        "whatsapp:+525512345678",
        "whatsapp:+5561999887766",
        "whatsapp:+556199887766",
    ] {
        assert_eq!(from_to(own, SENDERS[1]).await, EMPTY, "{own}");
    }
    // A sender that is learned from the first message to it.
    let (sender, spelled) = ("whatsapp:+525587654321", "whatsapp:+5215587654321");
    assert_eq!(from_to(spelled, SENDERS[1]).await, twiml_message("hi"));
    assert_eq!(from_to(SENDERS[0], sender).await, twiml_message("hi"));
    assert_eq!(from_to(spelled, SENDERS[1]).await, EMPTY);
    assert_eq!(from_to(spelled, sender).await, EMPTY);
    // Other channels, and another number.
    for other in ["+5215512345678", "whatsapp:+525512345679"] {
        assert_eq!(
            from_to(other, SENDERS[1]).await,
            twiml_message("hi"),
            "{other}"
        );
    }
}

#[tokio::test]
async fn rate_limit_applies_per_user_and_minute() {
    let bot = Bot::echo(&[
        ("REPLYHOOK__GUARD__MESSAGES_PER_USER_PER_MINUTE", "3"),
        LOOP_DETECTION_OFF,
    ]);
    assert_eq!(bot.send_until_blocked(0..10, "hi").await, 3);
    let other = Webhook::message(100, "hi").with("From", "whatsapp:+15550003333");
    assert_eq!(bot.app.send(other).await.twiml(), twiml_message("hi"));
    bot.advance(59_999);
    assert_eq!(bot.says(10, "hi").await, EMPTY);
    bot.advance(1);
    assert_eq!(bot.send_until_blocked(11..20, "hi").await, 3);
    assert_eq!(bot.blocked_count("rate").await, 3.0);
}

// One human: a number on several channels, senders and in two spellings, and addresses that evidence ties together.
#[tokio::test]
async fn rate_limit_counts_all_addresses_of_a_user() {
    const ID: &str = "whatsapp:MX.13491208655302741918";
    let limit = |number: &'static str| {
        let key = "REPLYHOOK__GUARD__MESSAGES_PER_USER_PER_MINUTE";
        Bot::echo(&[(key, number), LOOP_DETECTION_OFF])
    };
    let bot = limit("4");
    let send = async |bot: &Bot, number: u64, from: &str, to: &str, id: &str| {
        let webhook = Webhook::message(number, "hi")
            .with("From", from)
            .with("To", to);
        let webhook = match id {
            "" => webhook,
            id => webhook.with("ExternalUserId", id),
        };
        bot.app.send(webhook).await.twiml() != EMPTY
    };
    let of_number = [
        ("+5215512345678", "+15550002222"),
        ("+525512345678", "+15550003333"),
        ("rcs:+525512345678", "rcs:brand_agent"),
        ("whatsapp:+5215512345678", "whatsapp:+15550002222"),
        ("whatsapp:+525512345678", "whatsapp:+15550002222"),
        ("+525512345678", "+15550002222"),
    ];
    for (number, (from, to)) in (0..).zip(of_number) {
        let is_within = number < 4;
        assert_eq!(send(&bot, number, from, to, "").await, is_within, "{from}");
    }
    assert!(send(&bot, 10, "+525512345679", "+15550002222", "").await);
    assert_eq!(bot.blocked_count("rate").await, 2.0);
    // The ID is tied to the number on WhatsApp, and the number is also on SMS, whichever comes first.
    let (sms, whatsapp) = ("+15550002222", "whatsapp:+15550002222");
    let number = "whatsapp:+5215512345678";
    for order in [["sms", "pair", "id"], ["pair", "sms", "id"]] {
        let bot = limit("3");
        for (index, what) in (0..).zip(order) {
            let answered = match what {
                "sms" => send(&bot, index, "+525512345678", sms, "").await,
                "pair" => send(&bot, index, number, whatsapp, ID).await,
                _ => send(&bot, index, ID, whatsapp, "").await,
            };
            assert!(answered, "{what} of {order:?}");
        }
        for (index, from, to) in [
            (20, "+525512345678", sms),
            (21, ID, whatsapp),
            (22, ID, "whatsapp:+15550003333"),
        ] {
            assert!(!send(&bot, index, from, to, "").await, "{from} {order:?}");
        }
        bot.advance(60_000);
        assert!(send(&bot, 30, ID, whatsapp, "").await);
    }
}

#[tokio::test]
async fn rate_limit_is_off_by_default() {
    let bot = Bot::echo(&[]);
    for number in 0..100 {
        let text = number.to_string();
        assert_eq!(bot.says(number, &text).await, twiml_message(&text));
    }
    assert_eq!(bot.blocked_count("rate").await, 0.0);
}
