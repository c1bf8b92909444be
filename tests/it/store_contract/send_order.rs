//! Send order: messages to one user are sent sequentially, oldest first, and delay no other user.

use std::time::Duration;

use replyhook::internals::{
    NewOutbound, SendOutcome, StatusEvent, Store, Submission, SubmitOutcome,
};
use replyhook::{ErrorCode, MessageStatus};

use super::{
    ANA, BEN, Backend, accept_and_answer, at, bodies, deliver, new_inbound, over_all_stores, reply,
    reply_via_rest, sent_outcome,
};
use crate::support::Wait;

over_all_stores!(
    messages_to_one_user_are_sent_sequentially,
    retried_or_unknown_message_keeps_its_position,
    message_not_due_or_failed_blocks_no_other,
    concurrent_claims_keep_order,
    part_waits_for_delivery_of_part_before,
    long_queues_hide_no_other,
);

/// Claims the due messages, and returns their IDs and texts.
async fn claim_due(store: &dyn Store, seconds: i64) -> Vec<(i64, String)> {
    let claimed = store.claim(9, at(seconds)).await.unwrap();
    let ids = claimed.iter().map(|message| message.id);
    let texts = bodies(&claimed).into_iter().map(str::to_owned);
    ids.zip(texts).collect()
}

/// Asserts that one message is due, with this text, and returns its ID.
#[track_caller]
fn only_id(due: &[(i64, String)], text: &str) -> i64 {
    let texts: Vec<_> = due.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, [text]);
    due[0].0
}

async fn messages_to_one_user_are_sent_sequentially(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["one", "two"]).await;
    let to_ben = NewOutbound {
        user: BEN.into(),
        ..reply("to Ben")
    };
    let by_another = NewOutbound {
        sender: "whatsapp:+15550004444".into(),
        ..reply("by another")
    };
    let replies = vec![reply("three"), to_ben, by_another, reply("four")];
    store.enqueue(replies, at(2)).await.unwrap();
    let first = claim_due(store, 2).await;
    let texts: Vec<_> = first.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["one", "to Ben", "by another"]);
    assert!(claim_due(store, 2).await.is_empty());
    store
        .record_outcome(first[0].0, sent_outcome(1), at(3))
        .await
        .unwrap();
    for (text, number) in [("two", 2), ("three", 3), ("four", 4)] {
        let id = only_id(&claim_due(store, 3).await, text);
        assert!(claim_due(store, 3).await.is_empty());
        store
            .record_outcome(id, sent_outcome(number), at(3))
            .await
            .unwrap();
    }
}

// A held message no longer blocks the messages behind it.
async fn retried_or_unknown_message_keeps_its_position(backend: &mut Backend) {
    let store = backend.store();
    let replies = vec![reply("one"), reply("two")];
    store.enqueue(replies, at(1)).await.unwrap();
    let one = only_id(&claim_due(store, 2).await, "one");
    let retry = SendOutcome::Retry {
        not_before: at(10),
        code: None,
    };
    store.record_outcome(one, retry, at(3)).await.unwrap();
    store.enqueue(vec![reply("three")], at(4)).await.unwrap();
    assert!(claim_due(store, 9).await.is_empty());
    assert_eq!(only_id(&claim_due(store, 10).await, "one"), one);
    let unknown = SendOutcome::Unknown {
        lookup_at: at(12),
        looked_up: false,
    };
    store.record_outcome(one, unknown, at(11)).await.unwrap();
    assert!(claim_due(store, 99).await.is_empty());
    assert_eq!(store.claim_lookups(9, at(12)).await.unwrap().len(), 1);
    // A held message waits for the operator, and blocks no other.
    store
        .record_outcome(one, SendOutcome::Held, at(13))
        .await
        .unwrap();
    assert_eq!(bodies(&deliver(store, 13).await), ["two", "three"]);
}

async fn message_not_due_or_failed_blocks_no_other(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    let rate_limited = |text: &str| Submission {
        message: reply(text),
        earlier_parts: Vec::new(),
        question: None,
        key: None,
        due: at(10),
        min_interval: Duration::from_secs(100),
        consent_required: true,
    };
    for text in ["a", "b"] {
        let submitted = store.submit(rate_limited(text), at(10)).await.unwrap();
        assert!(matches!(submitted, SubmitOutcome::Queued(_)));
    }
    let claim = reply_via_rest(store, new_inbound(11), &["one", "two"]).await;
    assert!(claim.id > 0);
    let a = only_id(&claim_due(store, 12).await, "a");
    store
        .record_outcome(a, sent_outcome(1), at(12))
        .await
        .unwrap();
    let one = only_id(&claim_due(store, 12).await, "one");
    let failed = SendOutcome::Failed {
        code: Some(ErrorCode(63024)),
        reason: "rejected".into(),
    };
    store.record_outcome(one, failed, at(12)).await.unwrap();
    store.enqueue(vec![reply("next")], at(13)).await.unwrap();
    assert_eq!(bodies(&deliver(store, 13).await), ["next"]);
    store.release(super::sid(11), at(14)).await.unwrap();
    assert_eq!(bodies(&deliver(store, 14).await), ["one", "two"]);
    // The age of a message that is due later counts from its due time.
    let state = store.outbox_stats().await.unwrap();
    assert_eq!((state.pending, state.oldest), (1, Some(at(110))));
    assert!(claim_due(store, 109).await.is_empty());
    only_id(&claim_due(store, 110).await, "b");
}

async fn concurrent_claims_keep_order(backend: &mut Backend) {
    let texts: Vec<String> = (10..30).map(|number| number.to_string()).collect();
    let replies = texts.iter().map(|text| reply(text)).collect();
    backend.store().enqueue(replies, at(1)).await.unwrap();
    let claimed_texts = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (store, claimed_texts) = (backend.shared(), claimed_texts.clone());
            tokio::spawn(async move {
                let wait = Wait::until("all 20 messages are claimed");
                while claimed_texts.lock().unwrap().len() < 20 {
                    wait.check();
                    for message in store.claim(9, at(1)).await.unwrap() {
                        let text = message.params.get("Body").unwrap_or_default().to_owned();
                        claimed_texts.lock().unwrap().push(text);
                        let number = message.id.unsigned_abs();
                        store
                            .record_outcome(message.id, sent_outcome(number), at(1))
                            .await
                            .unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*claimed_texts.lock().unwrap(), texts);
}

// More queues and more waiting messages than the first steps of either search of `due_messages`.
async fn long_queues_hide_no_other(backend: &mut Backend) {
    let store = backend.store();
    let to = |user: &str, text: String| NewOutbound {
        user: user.into(),
        ..reply(&text)
    };
    let long = (0..700).map(|number| {
        let user = [ANA, BEN][number % 2];
        to(user, format!("long {number}"))
    });
    store.enqueue(long.collect(), at(1)).await.unwrap();
    let others = (0..200).map(|number| {
        let user = format!("whatsapp:+1555000{:04}", 9_000 - number);
        to(&user, format!("other {number}"))
    });
    store.enqueue(others.collect(), at(2)).await.unwrap();
    let by_another = NewOutbound {
        sender: "whatsapp:+15550004444".into(),
        ..reply("by another")
    };
    store.enqueue(vec![by_another], at(3)).await.unwrap();
    // Oldest first, which is not the order of the addresses.
    let mut expected = vec!["long 0".to_owned(), "long 1".to_owned()];
    expected.extend((0..200).map(|number| format!("other {number}")));
    expected.push("by another".to_owned());
    for nine in expected.chunks(9) {
        let due = claim_due(store, 4).await;
        let texts: Vec<_> = due.into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, nine);
    }
    // All queues wait for their first message now.
    assert!(claim_due(store, 4).await.is_empty());
}

// The wait is in the database, so it survives a restart.
async fn part_waits_for_delivery_of_part_before(backend: &mut Backend) {
    let texts = ["one", "two", "three", "four"];
    reply_via_rest(backend.store(), new_inbound(1), &texts).await;
    let wait = Duration::from_secs(10);
    let status = |number, status: &str| StatusEvent {
        account: super::account(),
        sid: super::sid(number),
        outbound: None,
        status: MessageStatus::parse(status),
        error_code: None,
        sender: None,
        service: None,
        user: Vec::new(),
        at: at(2),
    };
    let send = async |store: &dyn Store, seconds: i64, number: u64, text: &str| {
        let claimed = store
            .claim_with_wait(9, wait, at(seconds))
            .await
            .unwrap()
            .messages;
        assert_eq!(bodies(&claimed), [text]);
        let recorded = store.record_outcome(claimed[0].id, sent_outcome(number), at(seconds));
        recorded.await.unwrap();
    };
    let assert_waits = async |store: &dyn Store, seconds: i64| {
        let claimed = store
            .claim_with_wait(9, wait, at(seconds))
            .await
            .unwrap()
            .messages;
        assert_eq!(bodies(&claimed), [""; 0]);
    };
    send(backend.store(), 2, 11, "one").await;
    let applied = backend.store().apply_status(status(11, "sent"));
    applied.await.unwrap();
    if backend.crash().await {
        assert_waits(backend.store(), 3).await;
    }
    let store = backend.store();
    // A later reply keeps its place behind the parts that wait.
    reply_via_rest(store, new_inbound(4), &["later"]).await;
    assert_waits(store, 11).await;
    store.apply_status(status(11, "delivered")).await.unwrap();
    send(store, 11, 12, "two").await;
    assert_waits(store, 20).await;
    // The wait is over.
    send(store, 21, 13, "three").await;
    store.apply_status(status(13, "undelivered")).await.unwrap();
    // A failed part is not waited for.
    send(store, 22, 14, "four").await;
    send(store, 22, 15, "later").await;
    // Without a wait, and after the clock was set back, the next part follows.
    reply_via_rest(store, new_inbound(30), &["five", "six"]).await;
    send(store, 3600, 16, "five").await;
    send(store, 31, 17, "six").await;
    reply_via_rest(store, new_inbound(40), &["seven", "eight"]).await;
    assert_eq!(bodies(&deliver(store, 40).await), ["seven", "eight"]);
}
