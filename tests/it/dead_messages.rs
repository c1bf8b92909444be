//! Dead messages: the log names each one once, a metric counts it, and `/readyz` shows their number.

use replyhook::internals::{DeadReason, MessageFilter};
use replyhook::{Clock, HandlerError, InboundMessage, ManualClock, SystemClock, Timestamp};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{EMPTY, TestApp, Webhook};

fn dead_series(reason: DeadReason) -> String {
    let reason = reason.as_str();
    format!(r#"replyhook_dead_messages_total{{reason="{reason}"}}"#)
}

/// Returns `checks.messages` of `/readyz`, after checking that the server is ready.
async fn messages_check(app: &TestApp) -> Value {
    let readiness = app.readiness().await;
    assert_eq!(readiness["ready"], true, "{readiness}");
    readiness["checks"]["messages"].clone()
}

/// Returns the number of messages that `messages list --state dead` shows.
async fn count_dead_messages(app: &TestApp) -> usize {
    let filter = MessageFilter {
        state: Some("dead".to_owned()),
        limit: 100,
        ..MessageFilter::default()
    };
    app.store.messages(filter).await.unwrap().len()
}

#[cfg(feature = "failpoints")]
#[test]
fn message_that_crashes_twice_is_reported_once() {
    use crate::support::world::{World, assert_crashed};
    use crate::support::{ORIGIN, wire};
    let world = World::new(&[]);
    let message = Webhook::message(1, "hello");
    let first = world.start("P4=return");
    wire::exchange(first.public, &message.raw(ORIGIN));
    assert_crashed(first);
    let second = world.launch("P4=return");
    assert_crashed(second);
    let third = world.start("");
    let sid = format!("SM{:032x}", 1);
    let line = third.wait_for("a message is dead");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["level"], &line["message_sid"]),
        (&"ERROR".into(), &sid.into())
    );
    assert_eq!(line["reason"], "crashed");
    assert_eq!(third.metric(&dead_series(DeadReason::Crashed)), 1.0);
    let readiness = third.get("/readyz");
    assert_eq!(readiness.status, 200);
    let readiness: Value = serde_json::from_str(&readiness.body).unwrap();
    assert_eq!(readiness["checks"]["messages"]["dead"], 1);
    assert_eq!(third.log().matches("a message is dead").count(), 1);
    assert!(!third.log().contains("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_failure_is_dead_until_retried_or_purged() {
    let app = TestApp::build(&[("REPLYHOOK__REPLY__DEADLINE_MS", "50")], |app| {
        app.handler(async |_, message: InboundMessage| {
            tokio::time::sleep(Duration::from_millis(500)).await;
            match message.body.as_str() {
                "panic" => panic!("on purpose"),
                _ => Err::<String, _>(HandlerError::new("on purpose")),
            }
        })
    });
    assert_eq!(app.says(1, "fail").await, EMPTY);
    app.wait_for(&dead_series(DeadReason::HandlerFailed), 1.0)
        .await;
    assert_eq!(app.says(2, "panic").await, EMPTY);
    app.wait_for(&dead_series(DeadReason::HandlerPanicked), 1.0)
        .await;
    assert_eq!(messages_check(&app).await["dead"], 2);
    assert_eq!(count_dead_messages(&app).await, 2);
    let sid = format!("SM{:032x}", 1).parse().unwrap();
    assert!(app.store.retry(sid, SystemClock.now()).await.unwrap());
    assert_eq!(messages_check(&app).await["dead"], 1);
    // The handler runs again, and fails again.
    app.wait_for(&dead_series(DeadReason::HandlerFailed), 2.0)
        .await;
    assert_eq!(messages_check(&app).await["dead"], 2);
    let user = "whatsapp:+15550001111".into();
    app.store.purge_user(&user, None, false).await.unwrap();
    assert_eq!(messages_check(&app).await["dead"], 0);
    assert_eq!(count_dead_messages(&app).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_message_whose_content_expires_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("a.db").display());
    let env = [("DATABASE_URL", url.as_str())];
    let clock = Arc::new(ManualClock::new(
        Timestamp::from_second(1_800_000_000).unwrap(),
    ));
    let start = || {
        TestApp::build(&env, |app| {
            app.clock(clock.clone())
                .handler(async |_, _: InboundMessage| {
                    Err::<String, _>(HandlerError::new("on purpose"))
                })
        })
    };
    let app = start();
    app.send(Webhook::message(1, "hi"))
        .await
        .assert_rejected(500);
    assert_eq!(messages_check(&app).await["expired_unanswered"], 0);
    app.shut_down().await;
    clock.advance(replyhook::clock::SignedDuration::from_hours(31 * 24));
    // The server looks for expired messages when it starts.
    let app = start();
    app.wait_until_ready().await;
    app.wait_for(&dead_series(DeadReason::Expired), 1.0).await;
    let shown = messages_check(&app).await;
    assert_eq!(
        (&shown["dead"], &shown["expired_unanswered"]),
        (&0.into(), &1.into())
    );
    assert_eq!(count_dead_messages(&app).await, 1);
    assert!(clock.now() > Timestamp::UNIX_EPOCH);
    app.shut_down().await;
}
