//! The test kit: its use in users' own tests, and assertions that fail when they should.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use replyhook::config::Sources;
use replyhook::testing::{DeliveryExchange, TestBot};
use replyhook::twilio::NewMessage;
use replyhook::{App, Context, InboundMessage, Media, Reply, ReplyMessage};
use serde_json::json;
use tokio::sync::Barrier;

async fn shop(_cx: Context, message: InboundMessage) -> Reply {
    match message.body.as_str() {
        "picture" => Reply::from(
            ReplyMessage::text("Look").media(Media::url("https://cdn.example.test/a.png")),
        ),
        "nothing" => Reply::none(),
        other => Reply::text(format!("Got {other}.")),
    }
}

async fn bot() -> TestBot {
    TestBot::start(|| App::builder().handler(shop)).await
}

#[tokio::test]
async fn test_user_actions_get_replies() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001").named("Ana");
    let ben = bot.sms("+15550004444");
    ana.says("order 42")
        .await
        .assert_reply("Got order 42.")
        .assert_replied_inline()
        .assert_handler_runs(1);
    ana.says("picture")
        .await
        .assert_reply("Look")
        .assert_media(1);
    ana.says("nothing").await.assert_no_reply();
    ana.presses("Yes", "confirm:42")
        .await
        .assert_reply("Got Yes.");
    ben.says("hello").await.assert_reply_contains("hello");
    assert_eq!(bot.handler_calls().await, 5);
}

#[tokio::test]
async fn test_bot_simulates_redelivery_latency_outage_and_restart() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("one").await.assert_reply("Got one.");
    bot.redeliver()
        .await
        .assert_same_response()
        .assert_handler_runs(1);
    bot.set_handler_latency(Duration::from_secs(20)).await;
    ana.says("two").await.assert_replied_via_rest("Got two.");
    bot.redeliver()
        .await
        .assert_same_response()
        .assert_handler_runs(1);
    bot.set_handler_latency(Duration::from_secs(3)).await;
    ana.says("three")
        .await
        .assert_reply("Got three.")
        .assert_replied_inline();
    bot.set_handler_latency(Duration::ZERO).await;
    bot.set_primary_down(true).await;
    ana.says("four").await.assert_fallback("Got four.");
    bot.set_primary_down(false).await;
    bot.restart().await;
    bot.redeliver().await.assert_same_response();
    ana.says("five").await.assert_reply("Got five.");
}

// The user's next message opens it again.
#[tokio::test]
async fn customer_service_window_closes_after_one_day() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await;
    bot.send_to(&ana, "News").await.assert_delivered();
    bot.advance(Duration::from_hours(25)).await;
    bot.send_to(&ana, "News").await.assert_rejected(63016);
    ana.says("back").await;
    bot.send_to(&ana, "News").await.assert_delivered();
}

// Tests send equal texts without a pause, which would otherwise count as a loop.
#[tokio::test]
async fn loop_detection_is_off_unless_enabled() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    for _ in 0..20 {
        ana.says("next").await.assert_reply("Got next.");
    }
    let guarded = Sources::default().with_env([("REPLYHOOK__GUARD__LOOP_DETECTION", "true")]);
    let bot = TestBot::start_with(guarded, || App::builder().handler(shop)).await;
    let ana = bot.whatsapp("+34600000001");
    for _ in 0..9 {
        ana.says("next").await.assert_reply("Got next.");
    }
    ana.says("next").await.assert_no_reply();
    bot.redeliver()
        .await
        .assert_same_response()
        .assert_handler_runs(0);
    bot.advance(Duration::from_mins(1)).await;
    ana.says("next").await.assert_reply("Got next.");
}

// Each call replaces all faults of the emulator, so one that arrives too late would undo the others.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_faults_all_take_effect() {
    let bot = bot().await;
    let names = ["duplicate", "delay_ms", "media_404", "handler_ms"];
    for value in 1..=50 {
        join_all(names.map(|name| bot.set_fault(name, json!(value)))).await;
        let active = bot.emulator_client().get(&["faults"]).await.unwrap();
        for name in names {
            assert_eq!(active[name], json!(value), "{name}: {active}");
        }
    }
}

// The handler replies to neither user before it has both messages.
#[tokio::test]
async fn handler_runs_of_concurrent_users_are_separate() {
    let both = Arc::new(Barrier::new(2));
    let bot = TestBot::start(move || {
        let both = both.clone();
        App::builder().handler(move |_cx: Context, message: InboundMessage| {
            let both = both.clone();
            async move {
                both.wait().await;
                message.body
            }
        })
    })
    .await;
    let (ana, ben) = (bot.whatsapp("+34600000001"), bot.sms("+15550004444"));
    let (to_ana, to_ben) = tokio::join!(ana.says("one"), ben.says("two"));
    to_ana.assert_reply("one").assert_handler_runs(1);
    to_ben.assert_reply("two").assert_handler_runs(1);
    assert_eq!(bot.handler_calls().await, 2);
}

// Twilio may have accepted a message in spite of a 5xx. The app searches Twilio's list as the clock advances.
#[tokio::test]
async fn send_result_is_unknown_then_held() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await;
    bot.set_fault("rest_error", json!({"status": 500, "times": 1}))
        .await;
    let news = NewMessage::text(ana.address(), "News").from(ana.sender());
    let receipt = bot.outbound().await.send(&news).await.unwrap();
    assert_eq!(bot.send_result(&receipt).await.status, "unknown");
    let mut status = String::new();
    // Two look-ups are enough, unless the machine is so slow that `send_result` returns before the first.
    for _ in 0..10 {
        bot.advance(Duration::from_secs(10)).await;
        status = bot.send_result(&receipt).await.status;
        if status != "unknown" {
            break;
        }
    }
    assert_eq!(status, "held");
}

/// Returns whether an assertion panics.
fn panics(answer: &DeliveryExchange, assertion: impl FnOnce(&DeliveryExchange)) -> bool {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| assertion(answer)));
    outcome.is_err()
}

#[tokio::test]
async fn assertions_fail_when_they_should() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    let answer = ana.says("one").await;
    assert!(panics(&answer, |answer| _ = answer.assert_reply("Got two.")));
    assert!(panics(&answer, |answer| _ = answer.assert_no_reply()));
    assert!(panics(&answer, |answer| _ = answer.assert_media(1)));
    assert!(panics(&answer, |answer| _ = answer.assert_fallback("Got one.")));
    assert!(panics(&answer, |answer| _ = answer.assert_handler_runs(2)));
    assert!(panics(&answer, |answer| {
        _ = answer.assert_replied_via_rest("Got one.");
    }));
    bot.set_handler_failing(true).await;
    let failed = ana.says("two").await;
    assert!(panics(&failed, |answer| _ = answer.assert_replied_inline()));
    bot.set_handler_failing(false).await;
    bot.set_handler_latency(Duration::from_secs(20)).await;
    let late = ana.says("three").await;
    assert!(panics(&late, |answer| _ = answer.assert_replied_inline()));
    let sent = bot.send_to(&ana, "x").await;
    assert!(std::panic::catch_unwind(|| _ = sent.assert_rejected(63016)).is_err());
    let unused_bot = TestBot::start(|| App::builder().handler(shop)).await;
    assert!(
        AssertUnwindSafe(unused_bot.redeliver())
            .catch_unwind()
            .await
            .is_err()
    );
}

// The dev server records conversations without real names and numbers.
#[tokio::test]
async fn recording_replays_and_detects_difference() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = replyhook::DevServerOptions::default();
    options.emulator_port = Some(0);
    options.port = Some(0);
    options.record_dir = Some(folder.path().to_owned());
    let sources = Sources::default();
    let dev_server = replyhook::DevServer::start(App::builder().handler(shop), sources, options);
    let dev_server = dev_server.await.unwrap();
    let remote = replyhook::emulator::EmulatorClient::new(dev_server.emulator().url()).unwrap();
    for body in ["one", "I am Ana García, +34600000001"] {
        let message = serde_json::json!({
            "from": "whatsapp:+34600000001", "body": body, "profile_name": "Ana García",
        });
        remote.post(&["messages"], &message).await.unwrap();
    }
    let written = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        files.sort_by_key(|file| file.as_ref().unwrap().path());
        let read = |file: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(file.unwrap().path()).unwrap()
        };
        files.into_iter().map(read).collect::<Vec<_>>()
    };
    let wait = tokio::time::timeout(Duration::from_secs(20), async {
        while written().len() < 2 || written().iter().any(String::is_empty) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    wait.await.unwrap();
    dev_server.stop().await;
    let text = written().concat();
    for real in ["34600000001", "Ana", "García"] {
        assert!(!text.contains(real), "{real} is in {text}");
    }
    let bot = bot().await;
    bot.replay(folder.path()).await;
    let other = TestBot::start(App::builder).await;
    let replay = AssertUnwindSafe(other.replay(folder.path()));
    assert!(
        replay.catch_unwind().await.is_err(),
        "the echo handler replies differently"
    );
}

/// Creates a template with the emulator's REST API, and sends it to a user.
async fn send_question(bot: &TestBot, user: &str, sender: &str, types: serde_json::Value) {
    let emulator = bot.emulator_client();
    let config = emulator.get(&["config"]).await.unwrap();
    let text = |name: &str| config[name].as_str().unwrap().to_owned();
    let (account, token) = (text("account_sid"), text("auth_token"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"language": "en", "types": types}).to_string();
    let created = client
        .post(format!("{}/v1/Content", emulator.url()))
        .basic_auth(&account, Some(&token))
        .header("content-type", "application/json")
        .body(body);
    let created = created.send().await.unwrap().text().await.unwrap();
    let created: serde_json::Value = serde_json::from_str(&created).unwrap();
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("From", sender), ("To", user)])
        .append_pair("ContentSid", created["sid"].as_str().unwrap())
        .finish();
    let path = format!("2010-04-01/Accounts/{account}/Messages.json");
    let sent = client
        .post(format!("{}/{path}", emulator.url()))
        .basic_auth(&account, Some(&token))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert_eq!(sent.send().await.unwrap().status(), 201);
}

// A handler that reads a choice as a button or as a number.
async fn delivery(_cx: Context, message: InboundMessage) -> String {
    let tapped = message
        .button
        .as_ref()
        .and_then(|button| button.payload.clone());
    match tapped.as_deref().unwrap_or(&message.body) {
        "tomorrow" | "2" => "We come tomorrow.".to_owned(),
        _ => "When?\n1. Today – before 6 pm\n2. Tomorrow".to_owned(),
    }
}

#[tokio::test]
async fn test_user_taps_title_on_each_channel() {
    let bot = TestBot::start(|| App::builder().handler(delivery)).await;
    let action = |title: &str, id: &str| json!({"type": "QUICK_REPLY", "title": title, "id": id});
    let actions = [action("Today", "today"), action("Tomorrow", "tomorrow")];
    let row = |title: &str, id: &str| json!({"item": title, "id": id, "description": "x"});
    let rows = [row("Today", "today"), row("Tomorrow", "tomorrow")];
    let list = json!({"body": "When?", "button": "Days", "items": rows});
    for (user, types) in [
        (
            bot.whatsapp("+34600000001"),
            json!({"twilio/quick-reply": {"body": "When?", "actions": actions}}),
        ),
        (
            bot.whatsapp("+34600000002"),
            json!({"twilio/list-picker": list}),
        ),
        (
            bot.rcs("+34600000001"),
            json!({"twilio/card": {"body": "When?", "actions": actions}}),
        ),
        (
            bot.messenger("4242"),
            json!({"twilio/quick-reply": {"body": "When?", "actions": actions}}),
        ),
    ] {
        user.says("hi").await.assert_choices(["Today", "Tomorrow"]);
        send_question(&bot, user.address(), user.sender(), types).await;
        user.taps("Tomorrow")
            .await
            .assert_reply("We come tomorrow.");
    }
    let ben = bot.sms("+15550004444");
    let asked = ben.says("hi").await;
    asked.assert_choices(["Today", "Tomorrow"]);
    let wrong = std::panic::catch_unwind(AssertUnwindSafe(|| {
        asked.assert_choices(["Tomorrow", "Today"]);
    }));
    assert!(wrong.is_err());
    ben.taps("Tomorrow").await.assert_reply("We come tomorrow.");
    let missing = AssertUnwindSafe(ben.taps("Never")).catch_unwind().await;
    assert!(missing.is_err());
}

// The path of the fallback URL is the app's, not the default one.
#[tokio::test]
async fn fallback_assertion_follows_configured_paths() {
    let paths = [
        ("REPLYHOOK__SERVER__PATHS__PRIMARY", "/sms/fallback"),
        ("REPLYHOOK__SERVER__PATHS__FALLBACK", "/sms/failed/"),
    ];
    let sources = Sources::default().with_env(paths);
    let bot = TestBot::start_with(sources, || App::builder().handler(shop)).await;
    let ana = bot.whatsapp("+34600000001");
    let answer = ana.says("one").await;
    assert!(panics(&answer, |answer| _ = answer.assert_fallback("Got one.")));
    bot.set_primary_down(true).await;
    ana.says("two").await.assert_fallback("Got two.");
}

// Time stands still, so the rate limit of outbound messages is off unless the test sets one.
#[tokio::test]
async fn two_outbound_messages_are_delivered_without_advancing_the_clock() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await;
    let outbound = bot.outbound().await;
    let mut receipts = Vec::new();
    for text in ["One.", "Two."] {
        let message = NewMessage::text(ana.address(), text).from(ana.sender());
        receipts.push(outbound.send(&message).await.unwrap());
    }
    for receipt in &receipts {
        bot.send_result(receipt).await.assert_delivered();
    }
    let limited = Sources::default().with_env([("REPLYHOOK__OUTBOUND__RATE_PER_SECOND", "1")]);
    let bot = TestBot::start_with(limited, || App::builder().handler(shop)).await;
    let ben = bot.sms("+15550004444");
    let outbound = bot.outbound().await;
    let mut receipts = Vec::new();
    for text in ["One.", "Two."] {
        let message = NewMessage::text(ben.address(), text).from(ben.sender());
        receipts.push(outbound.send(&message).await.unwrap());
    }
    bot.send_result(&receipts[0]).await.assert_delivered();
    let waiting = outbound.receipt(receipts[1].id).await.unwrap().unwrap();
    assert_eq!(waiting.sid, None);
    bot.advance(Duration::from_secs(1)).await;
    bot.send_result(&receipts[1]).await.assert_delivered();
}
