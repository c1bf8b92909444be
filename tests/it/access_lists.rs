//! Users who may write to the bot: `guard.allow`, `guard.block` and `guard.refusal`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use replyhook::clock::{ManualClock, SignedDuration};
use replyhook::{Clock, Context, InboundMessage, SystemClock};
use rustix::process::Signal;

use crate::support::{EMPTY, FakeTwilio, Server, TempStore, TestApp, Webhook, twiml_message};

const ANA: &str = "whatsapp:+15550001111";
const BEN: &str = "whatsapp:+4915112345678";
const SENDER: &str = "whatsapp:+15550002222";
const REFUSAL: (&str, &str) = ("REPLYHOOK__GUARD__REFUSAL", "This bot is private.");
const LOOP_DETECTION_OFF: (&str, &str) = ("REPLYHOOK__GUARD__LOOP_DETECTION", "false");

fn allow(entries: &'static str) -> (&'static str, &'static str) {
    ("REPLYHOOK__GUARD__ALLOW", entries)
}

fn block(entries: &'static str) -> (&'static str, &'static str) {
    ("REPLYHOOK__GUARD__BLOCK", entries)
}

/// A bot with a manual clock that counts the messages that its handler gets.
struct Bot {
    app: TestApp,
    clock: Arc<ManualClock>,
    calls: Arc<AtomicUsize>,
    number: AtomicUsize,
}

impl Bot {
    fn new(env: &[(&str, &str)]) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = calls.clone();
        let handler = move |_: Context, message: InboundMessage| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move { message.body }
        };
        let env = [&[LOOP_DETECTION_OFF][..], env].concat();
        let app = TestApp::build(&env, |app| app.clock(clock.clone()).handler(handler));
        Self {
            app,
            clock,
            calls,
            number: AtomicUsize::new(1),
        }
    }

    fn webhook(&self, user: &str, body: &str) -> Webhook {
        let number = self.number.fetch_add(1, Ordering::SeqCst) as u64;
        let sender = match user.split_once(':') {
            Some((channel, _)) => format!("{channel}:+15550002222"),
            None => "+15550002222".to_owned(),
        };
        let webhook = Webhook::message(number, body);
        webhook.with("From", user).with("To", &sender)
    }

    async fn says(&self, user: &str, body: &str) -> String {
        let answer = self.app.send(self.webhook(user, body)).await;
        answer.twiml().to_owned()
    }

    async fn is_answered(&self, webhook: Webhook) -> bool {
        let calls = self.calls.load(Ordering::SeqCst);
        let answered = self.app.send(webhook).await.twiml() != EMPTY;
        let called = self.calls.load(Ordering::SeqCst) > calls;
        assert_eq!(answered, called);
        answered
    }

    async fn blocked_count(&self, reason: &str) -> f64 {
        let series = format!(r#"replyhook_messages_blocked_total{{reason="{reason}"}}"#);
        self.app.metric(&series).await
    }
}

#[tokio::test]
async fn block_list_keeps_messages_from_bot() {
    let bot = Bot::new(&[block("+1555, DE, messenger:, whatsapp:MX.1349, 12345")]);
    for (user, answered) in [
        (ANA, false),
        ("+15550001111", false),
        ("rcs:+15550001111", false),
        ("+15560001111", true),
        (BEN, false),
        ("whatsapp:DE.13491208655302741918", false),
        ("whatsapp:DE.ENT.11815799212886", false),
        ("whatsapp:FR.13491208655302741918", true),
        ("whatsapp:MX.13491208655302741918", false),
        ("whatsapp:MX.2349", true),
        ("messenger:4242", false),
        ("12345", false),
        ("whatsapp:+34600000001", true),
    ] {
        let webhook = bot.webhook(user, "hi");
        assert_eq!(bot.is_answered(webhook).await, answered, "{user}");
    }
    assert_eq!(bot.blocked_count("blocked").await, 9.0);
    let ok = r#"replyhook_webhooks_total{endpoint="primary",outcome="ok"}"#;
    assert_eq!(bot.app.metric(ok).await, 13.0);
}

// A user whose number is hidden on some days is listed by either address.
#[tokio::test]
async fn block_list_matches_any_address_of_the_message() {
    let bot = Bot::new(&[block("whatsapp:US.1349")]);
    let from_number = |name, id| bot.webhook(ANA, "hi").with(name, id);
    for (name, id, answered) in [
        ("ExternalUserId", "whatsapp:US.13491208655302741918", false),
        ("ParentExternalUserId", "whatsapp:US.1349", false),
        ("ExternalUserId", "whatsapp:US.999", true),
    ] {
        let webhook = from_number(name, id);
        assert_eq!(bot.is_answered(webhook).await, answered, "{name} {id}");
    }
    // Twilio's own statement of the country precedes the number.
    let bot = Bot::new(&[block("CA")]);
    let sms = || bot.webhook("+15550001111", "hi");
    assert!(!bot.is_answered(sms().with("FromCountry", "CA")).await);
    assert!(bot.is_answered(sms().with("FromCountry", "US")).await);
}

// A complete number is listed in both of its spellings; the beginning of one is compared as it is written.
#[tokio::test]
async fn lists_match_both_spellings_of_a_number() {
    for entry in ["+5215512345678", "+525512345678"] {
        let bot = Bot::new(&[block(entry), REFUSAL]);
        let first = bot.says("whatsapp:+5215512345678", "hi").await;
        assert_eq!(first, twiml_message(REFUSAL.1), "{entry}");
        // One address, and so one refusal.
        assert_eq!(bot.says("whatsapp:+525512345678", "hi").await, EMPTY);
        let other = bot.webhook("+525512345679", "hi");
        assert!(bot.is_answered(other).await);
        // STOP counts under the other spelling as well.
        let stopped = bot.says("whatsapp:+525512345678", "STOP").await;
        assert!(stopped.contains("no more messages"), "{stopped}");
    }
    let bot = Bot::new(&[allow("whatsapp:+5561999887766, +521")]);
    for (user, answered) in [
        ("whatsapp:+556199887766", true),
        ("whatsapp:+5561999887766", true),
        ("+5561999887766", false),
        ("whatsapp:+5215512345678", true),
        ("whatsapp:+525512345678", false),
    ] {
        let webhook = bot.webhook(user, "hi");
        assert_eq!(bot.is_answered(webhook).await, answered, "{user}");
    }
}

// An empty list allows everybody, and `block` wins.
#[tokio::test]
async fn allow_list_admits_only_its_users() {
    let bot = Bot::new(&[allow("whatsapp:+1555, de"), block("whatsapp:+15550009")]);
    for (user, answered) in [
        (ANA, true),
        (BEN, true),
        ("+15550001111", false),
        ("whatsapp:+34600000001", false),
        ("whatsapp:+15550009999", false),
    ] {
        let webhook = bot.webhook(user, "hi");
        assert_eq!(bot.is_answered(webhook).await, answered, "{user}");
    }
    assert_eq!(bot.blocked_count("not_allowed").await, 2.0);
    assert_eq!(bot.blocked_count("blocked").await, 1.0);
    let open = Bot::new(&[]);
    assert!(open.is_answered(open.webhook(ANA, "hi")).await);
}

#[tokio::test]
async fn opt_out_of_blocked_user_counts() {
    let bot = Bot::new(&[block("+1555"), REFUSAL]);
    let stopped = bot.says(ANA, "Stop!").await;
    assert!(stopped.contains("no more messages"), "{stopped}");
    // After the opt-out nothing follows, not even the refusal.
    assert_eq!(bot.says(ANA, "hi").await, EMPTY);
    let scopes = vec![replyhook::store::ConsentScope::Sender(SENDER.into())];
    let consent = bot.app.store.consent(scopes.clone(), &ANA.into()).await;
    assert!(consent.unwrap().opted_out.is_some());
    let started = bot.says(ANA, "START").await;
    assert!(started.contains("messages from us again"), "{started}");
    let consent = bot.app.store.consent(scopes, &ANA.into()).await;
    assert!(consent.unwrap().opted_out.is_none());
    assert_eq!(bot.says(ANA, "hi").await, twiml_message(REFUSAL.1));
    assert_eq!(bot.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn refusal_is_sent_once_per_address_and_day() {
    let bot = Bot::new(&[allow("DE"), REFUSAL]);
    assert_eq!(bot.says(BEN, "hi").await, twiml_message("hi"));
    let first = bot.webhook(ANA, "hi");
    assert_eq!(
        bot.app.send(first.clone()).await.twiml(),
        twiml_message(REFUSAL.1)
    );
    // A redelivery gets the saved response.
    assert_eq!(bot.app.send(first).await.twiml(), twiml_message(REFUSAL.1));
    for _ in 0..50 {
        assert_eq!(bot.says(ANA, "hi").await, EMPTY);
    }
    assert_eq!(
        bot.says("+15550001111", "hi").await,
        twiml_message(REFUSAL.1),
        "another address"
    );
    bot.clock.advance(SignedDuration::from_secs(86_399));
    assert_eq!(bot.says(ANA, "hi").await, EMPTY);
    bot.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(bot.says(ANA, "hi").await, twiml_message(REFUSAL.1));
    assert_eq!(bot.says(ANA, "hi").await, EMPTY);
    assert_eq!(bot.calls.load(Ordering::SeqCst), 1);
}

// A reply to an own sender would come back as a message.
#[tokio::test]
async fn own_sender_gets_no_refusal() {
    let own = ("REPLYHOOK__GUARD__OWN_NUMBERS", ANA);
    let bot = Bot::new(&[block("+1555"), REFUSAL, own]);
    assert_eq!(bot.says(ANA, "hi").await, EMPTY);
    assert_eq!(bot.blocked_count("own_number").await, 1.0);
    assert_eq!(bot.blocked_count("blocked").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_takes_the_path_of_replies() {
    let twilio = FakeTwilio::start();
    let env = [block("+1555"), REFUSAL, ("REPLYHOOK__REPLY__PATH", "rest")];
    let app = TestApp::with_twilio(&twilio, &env, |app| app.handler(replyhook::Echo));
    for number in 1..4 {
        assert_eq!(app.says(number, "hi").await, EMPTY);
    }
    assert_eq!(twilio.wait_for_phone(ANA, 1)[0].body, REFUSAL.1);
    app.wait_for_outbox("pending", 0).await;
    assert_eq!(twilio.posts().len(), 1);
}

// The journal knows the refusal of an earlier process, and names the reason; the log has no number.
#[test]
fn restart_sends_no_second_refusal() {
    let store = TempStore::new();
    let env = [block("+1555"), REFUSAL];
    let server = store.server_with(&env);
    let send = |server: &Server, number| server.send(&Webhook::message(number, "hi"));
    assert_eq!(send(&server, 1).twiml(), twiml_message(REFUSAL.1));
    server.wait_for("its user is in guard.block");
    for number in 2..5 {
        assert_eq!(send(&server, number).twiml(), EMPTY);
    }
    server.signal(Signal::TERM);
    let (_, log) = server.wait();
    assert_eq!(log.matches("guard.block").count(), 1, "{log}");
    assert!(!log.contains("0001111") && !log.contains("…11"), "{log}");
    let server = store.server_with(&env);
    assert_eq!(send(&server, 5).twiml(), EMPTY);
    for number in [1, 5] {
        let sid = format!("SM{number:032x}");
        let shown = store.run_ok(&["messages", "show", &sid]);
        assert!(
            shown.contains("the bot did not get it: its user is in guard.block"),
            "{shown}"
        );
    }
}
