//! Outbound messages from the library: `App::outbound`.

use std::sync::Arc;

use replyhook::clock::SignedDuration;
use replyhook::outbound::{OutboundClient, SendErrorKind};
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource, OutboundState};
use replyhook::twilio::NewMessage;
use replyhook::{App, AppBuilder, Clock, Echo, ManualClock, SystemClock};

use super::{ANA, BEN, SENDER, SERVICE, TEMPLATE, UNREACHABLE_CONTENT_API};
use crate::support::{ACCOUNT, FakeTwilio, Fault, TestApp, Wait, Webhook, sources};

fn app_with_twilio(
    twilio: &FakeTwilio,
    env: &[(&str, &str)],
    configure: impl FnOnce(AppBuilder) -> AppBuilder,
) -> TestApp {
    let base_env = [("TWILIO_ACCOUNT_SID", ACCOUNT), UNREACHABLE_CONTENT_API];
    TestApp::with_twilio(twilio, &[&base_env[..], env].concat(), |app| {
        configure(app.handler(Echo))
    })
}

fn text(body: &str) -> NewMessage {
    NewMessage::text(ANA, body).from(SENDER)
}

fn template(to: &str) -> NewMessage {
    NewMessage::template(to, TEMPLATE, [("1", "Ana"), ("2", "12:00")]).from(SENDER)
}

async fn record_consent(app: &TestApp, user: &str, action: ConsentAction) {
    let record = ConsentRecord {
        scope: ConsentScope::Sender(SENDER.into()),
        user: user.into(),
        action,
        source: ConsentSource::Api,
        evidence: None,
        note: None,
        at: SystemClock.now(),
    };
    app.store.record_consent(record).await.unwrap();
}

/// Waits until a message has this state.
async fn wait_for_state(app: &TestApp, id: i64, state: OutboundState) {
    let wait = Wait::until(format!("message {id} is {}", state.as_str()));
    loop {
        let found = app.outbound.receipt(id).await.unwrap().unwrap();
        if found.state == Some(state) {
            return;
        }
        wait.check_found(&found);
        tokio::task::yield_now().await;
    }
}

#[track_caller]
fn kind<T>(sent: Result<T, replyhook::outbound::SendError>) -> SendErrorKind {
    match sent {
        Err(error) => error.kind(),
        Ok(_) => panic!("the message was accepted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_sent_only_within_24_hour_window() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = app_with_twilio(&twilio, &[], |app| app.clock(clock.clone()));
    app.wait_until_ready().await;
    assert_eq!(
        kind(app.outbound.send(&text("hi")).await),
        SendErrorKind::WindowClosed
    );
    app.says(1, "hello").await;
    let receipt = app
        .outbound
        .send(&text("your order is ready"))
        .await
        .unwrap();
    assert_eq!(
        (receipt.is_duplicate, receipt.state),
        (false, Some(OutboundState::Pending))
    );
    let phone = twilio.wait_for_phone(ANA, 1);
    assert_eq!(phone.last().unwrap().body, "your order is ready");
    assert_eq!(phone.last().unwrap().from, SENDER);
    app.wait_for_outbox("pending", 0).await;
    let sent = app.outbound.receipt(receipt.id).await.unwrap().unwrap();
    assert_eq!(sent.state, Some(OutboundState::Sent));
    assert_eq!(sent.sid.unwrap().as_str(), phone.last().unwrap().sid);
    assert!(app.outbound.receipt(999).await.unwrap().is_none());
    // A status callback updates it, as for a reply.
    let callback = twilio.status_webhook(&phone.last().unwrap().sid, "read", None);
    app.send(callback).await.twiml();
    let read = app.outbound.receipt(receipt.id).await.unwrap().unwrap();
    assert_eq!(read.status.as_deref(), Some("read"));
    clock.advance(SignedDuration::from_hours(24));
    let error = app.outbound.send(&text("hi")).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::WindowClosed);
    assert!(error.to_string().contains("only a template"), "{error}");
    // SMS has no customer service window.
    let sms = NewMessage::text("+15550001111", "hi").from("+15550002222");
    app.outbound.send(&sms).await.unwrap();
    assert_eq!(twilio.wait_for_phone("+15550001111", 1)[0].body, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn template_outside_window_needs_opt_in_unless_disabled() {
    let twilio = FakeTwilio::start();
    let app = app_with_twilio(&twilio, &[], |app| app);
    app.wait_until_ready().await;
    let error = app.outbound.send(&template(ANA)).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::NoOptIn);
    assert!(error.to_string().contains("consent.required"), "{error}");
    // A user with an open window needs no opt-in.
    app.send(Webhook::message(1, "hello").with("From", BEN))
        .await;
    app.outbound.send(&template(BEN)).await.unwrap();
    record_consent(&app, ANA, ConsentAction::OptIn).await;
    app.outbound.send(&template(ANA)).await.unwrap();
    for user in [ANA, BEN] {
        let phone = twilio.wait_for_phone(user, 1);
        let expected = format!(r#"{TEMPLATE} {{"1":"Ana","2":"12:00"}}"#);
        assert_eq!(phone.last().unwrap().body, expected);
    }
    let free = app_with_twilio(
        &twilio,
        &[("REPLYHOOK__CONSENT__REQUIRED", "false")],
        |app| app,
    );
    free.wait_until_ready().await;
    let cleo = "whatsapp:+15550005555";
    free.outbound.send(&template(cleo)).await.unwrap();
    twilio.wait_for_phone(cleo, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn opted_out_user_gets_no_outbound_message() {
    let twilio = FakeTwilio::start();
    let app = app_with_twilio(&twilio, &[], |app| app);
    app.says(1, "hello").await;
    record_consent(&app, ANA, ConsentAction::OptIn).await;
    app.says(2, "STOP").await;
    let service = || SERVICE.parse().unwrap();
    let location = NewMessage::location(ANA, 52.52, 13.405, "Office").from(SENDER);
    let by_service = NewMessage::template(ANA, TEMPLATE, [("1", "x")]).service(service());
    let file = text("").media("https://cdn.example.com/a.png");
    for message in [text("hi"), template(ANA), location, by_service, file] {
        let sent = app.outbound.send_once("k", &message).await;
        assert_eq!(kind(sent), SendErrorKind::OptedOut, "{message:?}");
    }
    app.says(3, "START").await;
    // A rejected message does not use up its key.
    assert!(
        !app.outbound
            .send_once("k", &text("hi"))
            .await
            .unwrap()
            .is_duplicate
    );
    assert_eq!(twilio.wait_for_posts(1).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn opt_out_after_queueing_suppresses_message() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let pace = [("REPLYHOOK__OUTBOUND__RATE_PER_SECOND", "1")];
    let app = app_with_twilio(&twilio, &pace, |app| app.clock(clock.clone()));
    app.says(1, "hello").await;
    app.outbound.send(&text("one")).await.unwrap();
    let two = app.outbound.send(&text("two")).await.unwrap();
    twilio.wait_for_phone(ANA, 1);
    app.says(2, "STOP").await;
    clock.advance(SignedDuration::from_secs(1));
    app.wait_for_outbox("pending", 0).await;
    let two = app.outbound.receipt(two.id).await.unwrap().unwrap();
    assert_eq!(two.state, Some(OutboundState::Suppressed));
    assert_eq!(two.reason.as_deref(), Some("the user has opted out"));
    assert_eq!(twilio.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_key_used_concurrently_sends_once() {
    let twilio = FakeTwilio::start();
    let app = Arc::new(app_with_twilio(&twilio, &[], |app| app));
    app.says(1, "hello").await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.outbound.send_once("order-42", &text("ready")).await })
        })
        .collect();
    let mut ids = Vec::new();
    let mut first = 0;
    for task in tasks {
        let receipt = task.await.unwrap().unwrap();
        first += usize::from(!receipt.is_duplicate);
        ids.push(receipt.id);
    }
    ids.dedup();
    assert_eq!((first, ids.len()), (1, 1));
    twilio.wait_for_phone(ANA, 1);
    app.wait_for_outbox("pending", 0).await;
    // A known key returns the first message, even if the new one is different or invalid.
    let known = app.outbound.send_once("order-42", &text("")).await.unwrap();
    assert_eq!((known.id, known.is_duplicate), (ids[0], true));
    assert_eq!(known.sid.unwrap().as_str(), twilio.phone(ANA)[0].sid);
    assert_eq!(twilio.posts().len(), 1);
    assert!(
        !app.outbound
            .send_once("order-43", &text("ready"))
            .await
            .unwrap()
            .is_duplicate
    );
    twilio.wait_for_phone(ANA, 2);
}

// Its idempotency key stays known after the restart, so submitting it again returns the same message.
#[tokio::test(flavor = "multi_thread")]
async fn outbound_message_queued_before_crash_is_sent_once() {
    let twilio = FakeTwilio::start();
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("a.db").display());
    let env = [("DATABASE_URL", store.as_str())];
    let ready = NewMessage::text("+15550001111", "ready").from("+15550002222");
    let receipt = {
        // The app is dropped before its worker delivers anything, like a crash.
        let own = [("TWILIO_ACCOUNT_SID", ACCOUNT), env[0]];
        let app = App::builder().sources(sources(&own)).build().unwrap();
        let sender = app.outbound();
        let (_webhooks, mut worker) = app.into_parts();
        worker.open().await.unwrap();
        sender.send_once("k", &ready).await.unwrap()
    };
    let app = app_with_twilio(&twilio, &env, |app| app);
    app.wait_until_ready().await;
    let duplicate = app.outbound.send_once("k", &ready).await.unwrap();
    assert_eq!((duplicate.id, duplicate.is_duplicate), (receipt.id, true));
    assert_eq!(twilio.wait_for_phone("+15550001111", 1)[0].body, "ready");
    wait_for_state(&app, receipt.id, OutboundState::Sent).await;
    assert_eq!(twilio.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_send_result_is_looked_up_not_repeated() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = app_with_twilio(&twilio, &[], |app| app.clock(clock.clone()));
    app.says(1, "hello").await;
    twilio.fault(Fault::AcceptedThenReset, 1);
    let by_service =
        NewMessage::template(ANA, TEMPLATE, [("1", "x")]).service(SERVICE.parse().unwrap());
    record_consent(&app, ANA, ConsentAction::OptIn).await;
    let scope = ConsentScope::Service(SERVICE.parse().unwrap());
    let record = ConsentRecord {
        scope,
        user: ANA.into(),
        action: ConsentAction::OptIn,
        source: ConsentSource::Api,
        evidence: None,
        note: None,
        at: SystemClock.now(),
    };
    app.store.record_consent(record).await.unwrap();
    let receipt = app.outbound.send_once("k", &by_service).await.unwrap();
    twilio.wait_for_posts(1);
    wait_for_state(&app, receipt.id, OutboundState::Unknown).await;
    clock.advance(SignedDuration::from_secs(2));
    wait_for_state(&app, receipt.id, OutboundState::Sent).await;
    assert_eq!(twilio.posts().len(), 1);
    // A Messaging Service chooses the sender, so the lookup does not filter by it.
    assert_eq!(twilio.lists()[0].get("From"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn outbound_rate_limit_applies_per_sender() {
    let twilio = FakeTwilio::start();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let pace = [("REPLYHOOK__OUTBOUND__RATE_PER_SECOND", "2")];
    let app = app_with_twilio(&twilio, &pace, |app| app.clock(clock.clone()));
    app.says(1, "hello").await;
    for number in 0..5 {
        app.outbound.send(&text(&number.to_string())).await.unwrap();
    }
    let other = NewMessage::text("+15550001111", "of another").from("+15550002222");
    app.outbound.send(&other).await.unwrap();
    twilio.wait_for_posts(2);
    app.wait_for_outbox("pending", 4).await;
    for posts in 3..=6 {
        clock.advance(SignedDuration::from_millis(500));
        twilio.wait_for_posts(posts);
        app.wait_for_outbox("pending", 6 - posts as u64).await;
    }
    let bodies: Vec<_> = twilio
        .phone(ANA)
        .into_iter()
        .map(|shown| shown.body)
        .collect();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
    assert_eq!(twilio.posts().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_location_and_media_params_reach_twilio() {
    let twilio = FakeTwilio::start();
    let start = SystemClock.now();
    let clock = Arc::new(ManualClock::new(start));
    let app = app_with_twilio(&twilio, &[], |app| app.clock(clock.clone()));
    app.says(1, "hello").await;
    let later = |hours| start + SignedDuration::from_hours(hours);
    let scheduled = |hours| {
        let message = text("in time").service(SERVICE.parse().unwrap());
        message.send_at(later(hours))
    };
    app.outbound.send(&scheduled(23)).await.unwrap();
    // The window must be open at the send time.
    assert_eq!(
        kind(app.outbound.send(&scheduled(24)).await),
        SendErrorKind::WindowClosed
    );
    let location = NewMessage::location(ANA, 52.52, 13.405, "Office").from(SENDER);
    app.outbound.send(&location).await.unwrap();
    clock.advance(SignedDuration::from_secs(1));
    let file = text("look").media("https://cdn.example.com/a.png");
    app.outbound.send(&file).await.unwrap();
    twilio.wait_for_posts(2);
    clock.advance(SignedDuration::from_secs(1));
    let posts = twilio.wait_for_posts(3);
    let params = |name: &str| -> Vec<_> {
        let param = |post: &crate::support::Post| post.form.get(name).map(str::to_owned);
        posts.iter().filter_map(param).collect()
    };
    assert_eq!(params("ScheduleType"), ["fixed"]);
    assert_eq!(params("SendAt"), [later(23).strftime("%FT%TZ").to_string()]);
    assert_eq!(params("MessagingServiceSid"), [SERVICE]);
    assert_eq!(params("PersistentAction"), ["geo:52.52,13.405|Office"]);
    assert_eq!(params("MediaUrl"), ["https://cdn.example.com/a.png"]);
    assert_eq!(params("Body").len(), 3);
}

#[tokio::test]
async fn send_without_account_or_store_returns_reason() {
    let app = App::builder().sources(sources(&[])).build().unwrap();
    let error = app.outbound().send(&text("hi")).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::NoAccount);
    assert!(error.to_string().contains("TWILIO_ACCOUNT_SID"), "{error}");
    let env = [("TWILIO_ACCOUNT_SID", ACCOUNT)];
    let app = App::builder().sources(sources(&env)).build().unwrap();
    let sender: OutboundClient = app.outbound();
    let error = sender.send(&text("hi")).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::Store);
    assert_eq!(error.to_string(), "the store is not open");
    let error = sender.send(&text("")).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::Invalid);
    assert!(!format!("{error:?} {sender:?}").contains("15550001111"));
}
