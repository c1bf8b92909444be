//! Deduplication, the order of a conversation's messages, and opt-outs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use replyhook::clock::SignedDuration;
use replyhook::{
    Clock, ConsentChange, ConsentKind, Context, HandlerError, InboundMessage, ManualClock, Reply,
    ReplyMessage, SystemClock,
};
use tokio::sync::Semaphore;

use crate::support::{EMPTY, FakeTwilio, TestApp, Webhook, twiml_message};

const SHORT_DEADLINE: (&str, &str) = ("REPLYHOOK__REPLY__DEADLINE_MS", "150");

/// Returns a bot that numbers its replies, so that a second handler run shows in the reply.
fn counting_handler(
    counted: &Arc<AtomicUsize>,
) -> impl Fn(Context, InboundMessage) -> std::future::Ready<String> + use<> {
    let counted = counted.clone();
    move |_, message| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready(format!("{} {number}", message.body))
    }
}

// `WhatsApp:` is another spelling of `whatsapp:`, and Twilio gets the one that it has sent.
#[tokio::test(flavor = "multi_thread")]
async fn channel_prefix_in_any_case_is_one_conversation() {
    let twilio = FakeTwilio::start();
    let app = TestApp::with_twilio(&twilio, &[], |app| {
        app.handler(async |cx: Context, message: InboundMessage| {
            let is_first = cx.is_first_contact().await?;
            let text = format!("{} {is_first}", message.channel().as_str());
            let messages = if message.body == "long" { 11 } else { 1 };
            let reply: Reply = std::iter::repeat_n(ReplyMessage::text(text), messages).collect();
            Ok::<_, HandlerError>(reply)
        })
    });
    assert_eq!(app.says(1, "hi").await, twiml_message("whatsapp true"));
    let other = |number, body| {
        Webhook::message(number, body)
            .with("From", "WhatsApp:+15550001111")
            .with("To", "WhatsApp:+15550002222")
    };
    assert_eq!(
        app.send(other(2, "hi")).await.twiml(),
        twiml_message("whatsapp false")
    );
    assert_eq!(app.send(other(3, "long")).await.twiml(), EMPTY);
    twilio.wait_for_phone("WhatsApp:+15550001111", 11);
    let form = &twilio.posts()[0].form;
    assert_eq!(form.get("From"), Some("WhatsApp:+15550002222"));
    // An opt-out under one spelling holds under the other one.
    app.send(other(4, "STOP")).await.twiml();
    assert_eq!(app.says(5, "hi").await, EMPTY);
}

#[tokio::test]
async fn duplicate_gets_saved_response_without_handler() {
    let counted = Arc::new(AtomicUsize::new(0));
    let app = TestApp::with(counting_handler(&counted));
    let first = app.says(1, "hi").await;
    assert_eq!(first, twiml_message("hi 1"));
    let redelivery = Webhook::message(1, "hi").header("I-Twilio-Idempotency-Token", "another");
    assert_eq!(app.send(redelivery).await.twiml(), first);
    let fallback = Webhook::message(1, "hi")
        .to("/webhook/fallback")
        .with("ErrorCode", "11200");
    assert_eq!(app.send(fallback).await.twiml(), first);
    assert_eq!(app.says(2, "hi").await, twiml_message("hi 2"));
    // The same SID of another account is another message.
    let other = Webhook::message(1, "hi").with("AccountSid", "AC00000000000000000000000000000009");
    assert_eq!(app.send(other).await.twiml(), twiml_message("hi 3"));
    app.wait_for(
        r#"replyhook_webhooks_total{endpoint="primary",outcome="duplicate"}"#,
        1.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_duplicates_run_handler_once() {
    let counted = Arc::new(AtomicUsize::new(0));
    let slow = counted.clone();
    let app = Arc::new(TestApp::with(move |_: Context, message: InboundMessage| {
        let number = slow.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            format!("{} {number}", message.body)
        }
    }));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.says(1, "hi").await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), twiml_message("hi 1"));
    }
    assert_eq!(counted.load(Ordering::SeqCst), 1);
}

// A replay neither extends the window nor opts the user out again.
#[tokio::test]
async fn threat_07_replay_after_restart_gets_saved_response() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("a.db").display());
    let env = [("DATABASE_URL", store.as_str())];
    let counted = Arc::new(AtomicUsize::new(0));
    {
        let app = TestApp::build(&env, |app| app.handler(counting_handler(&counted)));
        assert_eq!(app.says(1, "hi").await, twiml_message("hi 1"));
        app.says(2, "STOP").await;
        app.says(3, "START").await;
        app.shut_down().await;
    }
    let app = TestApp::build(&env, |app| app.handler(counting_handler(&counted)));
    let sender = "whatsapp:+15550002222".into();
    let user = "whatsapp:+15550001111".into();
    app.wait_until_ready().await;
    let window = |conversation: Option<replyhook::internals::Conversation>| {
        conversation.and_then(|conversation| conversation.last_inbound)
    };
    let before = window(app.store.conversation(&sender, &user).await.unwrap());
    assert!(before.is_some());
    assert_eq!(app.says(1, "hi").await, twiml_message("hi 1"));
    // A replayed STOP does not opt the user out.
    app.says(2, "STOP").await;
    assert_eq!(
        window(app.store.conversation(&sender, &user).await.unwrap()),
        before
    );
    assert_eq!(app.says(4, "hi").await, twiml_message("hi 2"));
}

#[tokio::test]
async fn threat_08_replayed_status_callback_changes_nothing() {
    let twilio = FakeTwilio::start();
    let url = twilio.url();
    let app = TestApp::build(&[("REPLYHOOK__TWILIO__API_URL", &url)], |app| {
        app.handler(async |_, _| "x".repeat(20_000))
    });
    app.says(1, "hi").await;
    app.wait_until(|| twilio.phone("whatsapp:+15550001111").len() == 13)
        .await;
    let sid = twilio.phone("whatsapp:+15550001111")[0].sid.clone();
    app.wait_for_outbox("pending", 0).await;
    let status = |status| twilio.status_webhook(&sid, status, None);
    for callback in ["sent", "read", "delivered", "sent", "read"].map(status) {
        assert_eq!(app.send(callback).await.twiml(), EMPTY);
    }
    let filter = replyhook::internals::MessageFilter {
        limit: 1,
        ..Default::default()
    };
    let rows = app.store.messages(filter).await.unwrap();
    assert_eq!(rows[0].replies[0].status.as_deref(), Some("read"));
}

// Each redelivery is one attempt; after the last one the response is the fallback text.
#[tokio::test]
async fn failed_message_is_retried_until_attempts_run_out() {
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = attempts.clone();
    let apology = [("REPLYHOOK__REPLY__FALLBACK_TEXT", "Sorry")];
    let app = TestApp::build(&apology, |app| {
        app.handler(move |cx: Context, message: InboundMessage| {
            seen.lock().unwrap().push(cx.attempt());
            async move {
                match message.body.as_str() {
                    "twice" if cx.attempt() == 2 => Ok("done"),
                    _ => Err(HandlerError::new("no")),
                }
            }
        })
    });
    app.send(Webhook::message(1, "twice"))
        .await
        .assert_rejected(500);
    assert_eq!(app.says(1, "twice").await, twiml_message("done"));
    app.send(Webhook::message(2, "never"))
        .await
        .assert_rejected(500);
    app.send(Webhook::message(2, "never"))
        .await
        .assert_rejected(500);
    assert_eq!(app.says(2, "never").await, twiml_message("Sorry"));
    assert_eq!(app.says(2, "never").await, twiml_message("Sorry"));
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 1, 2]);
}

/// Returns a bot that waits for a permit, and records its message. It panics if two messages are handled concurrently.
fn recording_handler(
    go: &Arc<Semaphore>,
    handled: &Arc<Mutex<Vec<String>>>,
) -> impl Fn(Context, InboundMessage) -> futures_util::future::BoxFuture<'static, String> + use<> {
    let (go, handled, busy) = (go.clone(), handled.clone(), Arc::new(AtomicUsize::new(0)));
    move |_, message| {
        let (go, handled, busy) = (go.clone(), handled.clone(), busy.clone());
        Box::pin(async move {
            assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0, "not sequential");
            go.acquire().await.unwrap().forget();
            handled.lock().unwrap().push(message.body.clone());
            busy.fetch_sub(1, Ordering::SeqCst);
            message.body
        })
    }
}

/// Sends messages of one user, each after the one before is stored. Returns tasks with their responses.
async fn send_in_sequence(
    app: &Arc<TestApp>,
    number: usize,
) -> Vec<tokio::task::JoinHandle<String>> {
    let mut tasks = Vec::new();
    for number in 0..number {
        let client = app.clone();
        tasks.push(tokio::spawn(async move {
            client.says(number as u64, &number.to_string()).await
        }));
        app.wait_for_messages(number + 1).await;
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn conversation_messages_are_handled_sequentially_in_order() {
    let (go, handled) = (Arc::new(Semaphore::new(0)), Arc::default());
    let app = Arc::new(TestApp::with(recording_handler(&go, &handled)));
    let tasks = send_in_sequence(&app, 6).await;
    go.add_permits(6);
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), twiml_message(&number.to_string()));
    }
    assert_eq!(*handled.lock().unwrap(), ["0", "1", "2", "3", "4", "5"]);
}

// A request with too many messages ahead gets an empty response immediately; the backlog replies via the REST API.
#[tokio::test(flavor = "multi_thread")]
async fn threat_73_user_flood_gets_late_replies_without_loss() {
    let twilio = FakeTwilio::start();
    let url = twilio.url();
    let (go, handled) = (Arc::new(Semaphore::new(0)), Arc::default());
    let env = [
        ("REPLYHOOK__TWILIO__API_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__MAX_CONCURRENT", "64"),
    ];
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = Arc::new(TestApp::build(&env, |app| {
        app.clock(clock.clone())
            .handler(recording_handler(&go, &handled))
    }));
    let tasks = send_in_sequence(&app, 60).await;
    // A request with 20 or more messages ahead gets its response immediately. The first 20 wait for the deadline.
    let finished = || tasks.iter().filter(|task| task.is_finished()).count();
    app.wait_until(|| finished() == 40).await;
    assert!(!tasks[..20].iter().any(tokio::task::JoinHandle::is_finished));
    clock.advance(SignedDuration::from_secs(10));
    for task in tasks {
        assert_eq!(task.await.unwrap(), EMPTY);
    }
    go.add_permits(60);
    let phone = twilio.wait_for_phone("whatsapp:+15550001111", 60);
    let expected: Vec<String> = (0..60).map(|number: u32| number.to_string()).collect();
    assert_eq!(*handled.lock().unwrap(), expected);
    let mut texts: Vec<String> = phone.into_iter().map(|message| message.body).collect();
    texts.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(texts, expected);
    // The first message was claimed by its request, and the other 59 by the backlog.
    assert_eq!(app.metric("replyhook_backlog_processed_total").await, 59.0);
}

#[tokio::test]
async fn threat_42_stop_variants_opt_out_until_start() {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let recorder = changes.clone();
    let counted = Arc::new(AtomicUsize::new(0));
    // The loop detection would block so many messages within a second.
    let unguarded = [("REPLYHOOK__GUARD__LOOP_DETECTION", "false")];
    let app = TestApp::build(&unguarded, |app| {
        app.handler(counting_handler(&counted))
            .on_consent(move |change: ConsentChange| {
                recorder.lock().unwrap().push(change.kind);
                async {}
            })
    });
    let goodbye =
        twiml_message("You will get no more messages from us. Write START to get them again.");
    let welcome = twiml_message("You will get messages from us again. Write STOP to end them.");
    for (number, stop) in ["STOP", "stop.", "ＳＴＯＰ", " Unsubscribe\n", "REVOKE"]
        .iter()
        .enumerate()
    {
        let number = number as u64 * 10;
        assert_eq!(app.says(number, stop).await, goodbye, "{stop:?}");
        assert_eq!(app.says(number + 1, "hi").await, EMPTY);
        // A user who has opted out gets no reply, not even a second confirmation.
        assert_eq!(app.says(number + 2, "STOP").await, EMPTY);
        assert_eq!(app.says(number + 3, "start").await, welcome);
        assert_eq!(
            app.says(number + 4, "hi").await,
            twiml_message(&format!("hi {}", number / 5 + 1))
        );
        // For a user who has not opted out, START is an ordinary text.
        assert_eq!(
            app.says(number + 5, "START").await,
            twiml_message(&format!("START {}", number / 5 + 2))
        );
    }
    assert_eq!(changes.lock().unwrap().len(), 10);
    assert_eq!(
        changes.lock().unwrap()[..2],
        [ConsentKind::OptOut, ConsentKind::OptIn]
    );
    for kind in ["opt_out", "opt_in"] {
        let series = format!(r#"replyhook_consent_changes_total{{kind="{kind}"}}"#);
        assert_eq!(app.metric(&series).await, 5.0);
    }
    for (number, word) in ["CANCEL", "END", "QUIT", "YES", "HELP"].iter().enumerate() {
        assert!(app.says(100 + number as u64, word).await.contains(word));
    }
}

// replyhook records the opt-out and sends nothing, because Twilio confirms it.
#[tokio::test]
async fn threat_42_sms_keywords_are_confirmed_by_twilio() {
    let app = TestApp::echo();
    let sms = |number, text| {
        Webhook::message(number, text)
            .with("From", "+15550001111")
            .with("To", "+15550002222")
    };
    for (number, stop) in ["CANCEL", "END", "QUIT", "OPTOUT"].iter().enumerate() {
        let number = number as u64 * 10;
        assert_eq!(app.send(sms(number, stop)).await.twiml(), EMPTY);
        assert_eq!(app.send(sms(number + 1, "hi")).await.twiml(), EMPTY);
        assert_eq!(app.send(sms(number + 2, "YES")).await.twiml(), EMPTY);
        assert_eq!(
            app.send(sms(number + 3, "hi")).await.twiml(),
            twiml_message("hi")
        );
        assert_eq!(
            app.send(sms(number + 4, "YES")).await.twiml(),
            twiml_message("YES")
        );
    }
}

// OptOutType takes precedence over keywords, because Twilio has its own in each language.
#[tokio::test]
async fn threat_42_opt_out_type_applies_to_whole_service() {
    let app = TestApp::echo();
    let service = "MG00000000000000000000000000000001";
    let from_service = |number, text, sender| {
        Webhook::message(number, text)
            .with("MessagingServiceSid", service)
            .with("To", sender)
    };
    let (one, other) = ("whatsapp:+15550002222", "whatsapp:+15550003333");
    // Twilio confirms an opt-out with `OptOutType` itself, so the response is empty.
    let stop = from_service(1, "basta", one).with("OptOutType", "STOP");
    assert_eq!(app.send(stop).await.twiml(), EMPTY);
    assert_eq!(app.send(from_service(2, "hi", other)).await.twiml(), EMPTY);
    let help = from_service(3, "HELP", one).with("OptOutType", "HELP");
    assert_eq!(app.send(help).await.twiml(), EMPTY);
    let start = from_service(4, "ciao", other).with("OptOutType", "START");
    assert_eq!(app.send(start).await.twiml(), EMPTY);
    assert_eq!(
        app.send(from_service(5, "hi", one)).await.twiml(),
        twiml_message("hi")
    );
    // The opt-out does not apply to a sender outside of the service.
    let stop = from_service(6, "basta", one).with("OptOutType", "STOP");
    app.send(stop).await.twiml();
    let outside = Webhook::message(7, "hi").with("To", "whatsapp:+15550004444");
    assert_eq!(app.send(outside).await.twiml(), twiml_message("hi"));
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_44_opt_out_during_handler_suppresses_reply() {
    let go = Arc::new(Semaphore::new(0));
    let wait = go.clone();
    let app = Arc::new(TestApp::with(move |_: Context, message: InboundMessage| {
        let wait = wait.clone();
        async move {
            wait.acquire().await.unwrap().forget();
            Reply::text(message.body)
        }
    }));
    let client = app.clone();
    let request = tokio::spawn(async move { client.says(1, "hi").await });
    app.wait_for_messages(1).await;
    app.says(2, "STOP").await;
    go.add_permits(1);
    assert_eq!(request.await.unwrap(), EMPTY);
    assert_eq!(app.metric("replyhook_replies_suppressed_total").await, 1.0);
    // A redelivery gets the same response.
    assert_eq!(app.says(1, "hi").await, EMPTY);
}

// A message that carries both addresses links them, and an opt-out then applies to both.
#[tokio::test]
async fn user_with_two_addresses_has_one_conversation() {
    let app = TestApp::echo();
    let (phone, scoped) = ("whatsapp:+15550001111", "whatsapp:US.13491208655302741918");
    app.says(1, "hi").await;
    app.send(Webhook::message(2, "STOP").with("From", scoped))
        .await
        .twiml();
    // Without a message that links the addresses, they belong to two users.
    assert_eq!(app.says(3, "hi").await, twiml_message("hi"));
    let both = Webhook::message(4, "hi").with("ExternalUserId", scoped);
    assert_eq!(app.send(both).await.twiml(), EMPTY);
    assert_eq!(app.says(5, "hi").await, EMPTY);
    let sender = "whatsapp:+15550002222".into();
    let of = |address: &str| {
        let (store, sender, address) = (app.store.clone(), &sender, address.into());
        async move {
            store
                .conversation(sender, &address)
                .await
                .unwrap()
                .unwrap()
                .id
        }
    };
    assert_eq!(of(phone).await, of(scoped).await);
}

// The rejected message is not stored.
#[tokio::test]
async fn threat_49_handlers_beyond_limit_are_rejected_immediately() {
    let app = Arc::new(TestApp::build(
        &[("REPLYHOOK__HANDLER__MAX_CONCURRENT", "1"), SHORT_DEADLINE],
        |app| app.handler(async |_, _| std::future::pending::<()>().await),
    ));
    assert_eq!(app.says(1, "stuck").await, EMPTY);
    let other = Webhook::message(2, "hi").with("From", "whatsapp:+15550009999");
    assert_eq!(app.send(other).await.assert_rejected(503), "overloaded\n");
    assert_eq!(app.message_count().await, 1);
}
