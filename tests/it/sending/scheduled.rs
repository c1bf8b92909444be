//! Scheduled messages, which the server cancels at Twilio when the user opts out. The emulator stands in for Twilio.

use std::time::Duration;

use replyhook::config::Sources;
use replyhook::internals::{Conversations, Store};
use replyhook::outbound::OutboundClient;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{Access, ConsentAction, ConsentRecord, ConsentScope, ConsentSource};
use replyhook::testing::{TestBot, User};
use replyhook::twilio::NewMessage;
use replyhook::{App, Echo, Timestamp};

use super::SERVICE;
use crate::support::Wait;

/// Schedules a reminder for half an hour after the test kit's start time, and waits until Twilio has accepted it.
async fn schedule_reminder(outbound: &OutboundClient, user: &User<'_>) -> i64 {
    let reminder = NewMessage::text(user.address(), "See you soon.")
        .from(user.sender())
        .service(SERVICE.parse().unwrap())
        .send_at("2026-01-05T09:30:00Z".parse().unwrap());
    let id = outbound.send(&reminder).await.unwrap().id;
    wait_for_status(outbound, id, "scheduled").await;
    id
}

/// Waits until a message has this status.
async fn wait_for_status(outbound: &OutboundClient, id: i64, status: &str) {
    let wait = Wait::until(format!("message {id} is {status}"));
    loop {
        let found = outbound.receipt(id).await.unwrap().unwrap();
        if found.status.as_deref() == Some(status) {
            return;
        }
        wait.check_found(&found);
        tokio::task::yield_now().await;
    }
}

async fn count_reminders(bot: &TestBot, user: &User<'_>) -> usize {
    let path = ["conversations", user.address()];
    let shown = bot.emulator_client().get(&path).await.unwrap();
    let shown = shown.as_array().unwrap();
    let reminder = |message: &&serde_json::Value| message["body"] == "See you soon.";
    let arrived = |message: &&serde_json::Value| message["status"] != "canceled";
    shown.iter().filter(reminder).filter(arrived).count()
}

#[tokio::test]
async fn stop_cancels_only_own_scheduled_messages() {
    let bot = TestBot::start(|| App::builder().handler(Echo)).await;
    let (ana, ben) = (bot.whatsapp("+34600000001"), bot.whatsapp("+34600000002"));
    let outbound = bot.outbound().await;
    ana.says("hello").await;
    ben.says("hello").await;
    let to_ana = schedule_reminder(&outbound, &ana).await;
    // Longer than the interval that the sender's rate limit requires.
    bot.advance(Duration::from_secs(1)).await;
    let to_ben = schedule_reminder(&outbound, &ben).await;
    ana.says("STOP").await;
    wait_for_status(&outbound, to_ana, "canceled").await;
    let receipt = outbound.receipt(to_ana).await.unwrap().unwrap();
    assert_eq!(bot.send_result(&receipt).await.status, "canceled");
    bot.advance(Duration::from_mins(31)).await;
    wait_for_status(&outbound, to_ben, "read").await;
    assert_eq!(count_reminders(&bot, &ana).await, 0);
    assert_eq!(count_reminders(&bot, &ben).await, 1);
    bot.stop().await;
}

#[tokio::test]
async fn opt_out_by_another_process_cancels_scheduled_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bot.db");
    let url = format!("sqlite:{}", file.display());
    let sources = Sources::default().with_env([("DATABASE_URL", url)]);
    let bot = TestBot::start_with(sources, || App::builder().handler(Echo)).await;
    let ana = bot.whatsapp("+34600000001");
    ana.says("hello").await;
    let to_ana = schedule_reminder(&bot.outbound().await, &ana).await;
    let command = SqliteStore::file(file);
    command.open(Access::Operator).await.unwrap();
    let opted_out = ConsentRecord {
        scope: ConsentScope::Sender(ana.sender().into()),
        user: ana.address().into(),
        action: ConsentAction::OptOut,
        source: ConsentSource::Operator,
        evidence: None,
        note: None,
        at: Timestamp::UNIX_EPOCH,
    };
    command.record_consent(opted_out).await.unwrap();
    // A restart polls for opt-outs immediately; otherwise it would take up to 30 s.
    bot.restart().await;
    wait_for_status(&bot.outbound().await, to_ana, "canceled").await;
    bot.advance(Duration::from_mins(31)).await;
    assert_eq!(count_reminders(&bot, &ana).await, 0);
    bot.stop().await;
}
