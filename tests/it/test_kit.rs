//! The test kit, as users' own tests use it; and that its assertions fail when they should.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use replyhook::config::Sources;
use replyhook::testing::{Answer, TestBot};
use replyhook::{App, Context, InboundMessage, Media, Reply, ReplyMessage};

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
async fn what_a_user_does_and_what_the_bot_answers() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001").named("Ana");
    let ben = bot.sms("+15550004444");
    ana.says("order 42")
        .await
        .assert_reply("Got order 42.")
        .assert_in_time()
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
    assert_eq!(bot.handler_runs().await, 5);
}

#[tokio::test]
async fn a_redelivery_a_slow_handler_a_broken_webhook_and_a_restart() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("one").await.assert_reply("Got one.");
    bot.redeliver()
        .await
        .assert_same_answer()
        .assert_handler_runs(1);
    bot.handler_takes(Duration::from_secs(20)).await;
    ana.says("two")
        .await
        .assert_acknowledged_then_sent("Got two.");
    bot.redeliver()
        .await
        .assert_same_answer()
        .assert_handler_runs(1);
    bot.handler_takes(Duration::from_secs(3)).await;
    ana.says("three")
        .await
        .assert_reply("Got three.")
        .assert_in_time();
    bot.handler_takes(Duration::ZERO).await;
    bot.primary_is_down(true).await;
    ana.says("four").await.assert_fallback("Got four.");
    bot.primary_is_down(false).await;
    bot.restart().await;
    bot.redeliver().await.assert_same_answer();
    ana.says("five").await.assert_reply("Got five.");
}

#[tokio::test]
async fn the_window_closes_after_a_day_and_opens_again() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hi").await;
    bot.writes(&ana, "News").await.assert_delivered();
    bot.advance(Duration::from_hours(25)).await;
    bot.writes(&ana, "News").await.assert_refused(63016);
    ana.says("back").await;
    bot.writes(&ana, "News").await.assert_delivered();
}

#[tokio::test]
async fn saying_the_same_in_no_time_is_no_loop_unless_a_test_asks_for_the_guard() {
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
        .assert_same_answer()
        .assert_handler_runs(0);
    bot.advance(Duration::from_mins(1)).await;
    ana.says("next").await.assert_reply("Got next.");
}

/// Whether an assertion panics.
fn fails(answer: &Answer, assertion: impl FnOnce(&Answer)) -> bool {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| assertion(answer)));
    outcome.is_err()
}

#[tokio::test]
async fn assertions_fail_when_they_should() {
    let bot = bot().await;
    let ana = bot.whatsapp("+34600000001");
    let answer = ana.says("one").await;
    assert!(fails(&answer, |answer| _ = answer.assert_reply("Got two.")));
    assert!(fails(&answer, |answer| _ = answer.assert_no_reply()));
    assert!(fails(&answer, |answer| _ = answer.assert_media(1)));
    assert!(fails(&answer, |answer| _ = answer.assert_fallback("Got one.")));
    assert!(fails(&answer, |answer| _ = answer.assert_handler_runs(2)));
    assert!(fails(&answer, |answer| {
        _ = answer.assert_acknowledged_then_sent("Got one.");
    }));
    bot.handler_fails(true).await;
    let failed = ana.says("two").await;
    assert!(fails(&failed, |answer| _ = answer.assert_in_time()));
    bot.handler_fails(false).await;
    bot.handler_takes(Duration::from_secs(20)).await;
    let late = ana.says("three").await;
    assert!(fails(&late, |answer| _ = answer.assert_in_time()));
    let sent = bot.writes(&ana, "x").await;
    assert!(std::panic::catch_unwind(|| _ = sent.assert_refused(63016)).is_err());
    let nobody = TestBot::start(|| App::builder().handler(shop)).await;
    assert!(
        AssertUnwindSafe(nobody.redeliver())
            .catch_unwind()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_was_recorded_at_the_desk_is_replayed_and_a_difference_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = replyhook::DeskOptions::default();
    options.emulator_port = Some(0);
    options.port = Some(0);
    options.record = Some(folder.path().to_owned());
    let sources = Sources::default();
    let desk = replyhook::Desk::start(App::builder().handler(shop), sources, options);
    let desk = desk.await.unwrap();
    let remote = replyhook::emulator::Remote::new(desk.emulator().url()).unwrap();
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
    let patience = tokio::time::timeout(Duration::from_secs(20), async {
        while written().len() < 2 || written().iter().any(String::is_empty) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    patience.await.unwrap();
    desk.stop().await;
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
        "echo answers otherwise"
    );
}
