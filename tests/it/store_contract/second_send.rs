//! Second sends: a message that Twilio accepted and then reported as failed is sent once more, or again by an operator.

use replyhook::internals::{NewOutbound, OutboundMessage, StatusEffect, StatusEvent, Store};
use replyhook::store::OutboundState;
use replyhook::{ErrorCode, MessageStatus};

use super::{
    ANA, Backend, SENDER, accept, account, at, bodies, deliver, inbound_from, message_row,
    new_inbound, over_all_stores, reply, reply_via_rest, sent_outcome, sid, stop_keyword,
    with_keyword,
};

over_all_stores!(
    failed_send_is_queued_once_after_a_minute,
    failure_reported_before_response_is_queued_again,
    other_failures_are_not_queued_again,
    second_send_to_opted_out_user_is_suppressed,
    late_delivery_cancels_second_send,
    second_send_blocks_nothing,
    not_found_call_is_repeated_once,
    operator_sends_undelivered_message_again,
    refused_content_is_queued_once_as_text,
);

fn status(number: u64, status: &str, code: u32, seconds: i64) -> StatusEvent {
    StatusEvent {
        account: account(),
        sid: sid(number),
        outbound: None,
        status: MessageStatus::parse(status),
        error_code: Some(ErrorCode(code)).filter(|code| code.0 > 0),
        sender: Some(SENDER.into()),
        service: None,
        user: vec![ANA.into()],
        at: at(seconds),
    }
}

async fn apply(store: &dyn Store, event: StatusEvent) -> StatusEffect {
    store.apply_status(event).await.unwrap()
}

/// Claims one message and records that Twilio accepted it.
async fn send_one(store: &dyn Store, number: u64, seconds: i64) -> OutboundMessage {
    let mut claimed = store.claim(9, at(seconds)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let message = claimed.remove(0);
    let outcome = sent_outcome(number);
    let recorded = store.record_outcome(message.id, outcome, at(seconds));
    recorded.await.unwrap();
    message
}

async fn failed_send_is_queued_once_after_a_minute(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    let first = send_one(store, 11, 2).await;
    assert_eq!(first.resent_after, None);
    assert_eq!(
        apply(store, status(11, "sent", 0, 3)).await,
        StatusEffect::Applied
    );
    let failed = status(11, "failed", 63018, 10);
    assert_eq!(
        apply(store, failed.clone()).await,
        StatusEffect::QueuedAgain
    );
    // Late and repeated callbacks of the first send prove nothing about the second.
    for late in [
        failed.clone(),
        status(11, "sent", 0, 11),
        StatusEvent {
            outbound: Some(first.name()),
            ..failed.clone()
        },
    ] {
        assert_eq!(apply(store, late).await, StatusEffect::Unmatched);
    }
    let row = message_row(store, 1).await;
    assert_eq!(row.state, "deferred");
    let shown = &row.replies[0];
    assert_eq!(shown.state, OutboundState::Pending);
    assert_eq!((shown.sid, shown.earlier_sid), (None, Some(sid(11))));
    assert_eq!(shown.resent_after, Some(63018));
    // The first send belongs to this message, so a lookup of the second does not find it.
    let unmatched = store.unmatched_sids(account(), vec![sid(11), sid(12)]);
    assert_eq!(unmatched.await.unwrap(), [sid(12)]);
    assert!(store.claim(9, at(69)).await.unwrap().is_empty());
    let second = send_one(store, 12, 70).await;
    assert_eq!(
        (second.id, second.attempt, second.resent_after),
        (first.id, 1, Some(ErrorCode(63018)))
    );
    assert_eq!(bodies(&[second]), ["text"]);
    // Once only.
    assert_eq!(
        apply(store, status(12, "failed", 63018, 80)).await,
        StatusEffect::Applied
    );
    assert!(store.claim(9, at(999)).await.unwrap().is_empty());
    let row = message_row(store, 1).await;
    assert_eq!(row.state, "failed");
    assert_eq!(row.replies[0].sid, Some(sid(12)));
    assert_eq!(row.replies[0].error_code, Some(63018));
}

async fn failure_reported_before_response_is_queued_again(backend: &mut Backend) {
    let store = backend.store();
    // By the SID, while no message has it yet.
    reply_via_rest(store, new_inbound(1), &["one"]).await;
    let one = store.claim(9, at(2)).await.unwrap().remove(0);
    assert_eq!(
        apply(store, status(11, "failed", 30001, 2)).await,
        StatusEffect::Unmatched
    );
    let recorded = store.record_outcome(one.id, sent_outcome(11), at(3));
    recorded.await.unwrap();
    assert_eq!(
        message_row(store, 1).await.replies[0].state,
        OutboundState::Pending
    );
    send_one(store, 12, 63).await;
    // By the name. The response of the first call must not end the second send.
    reply_via_rest(store, new_inbound(100), &["two"]).await;
    let two = store.claim(9, at(100)).await.unwrap().remove(0);
    let named = StatusEvent {
        outbound: Some(two.name()),
        ..status(21, "failed", 63017, 100)
    };
    assert_eq!(apply(store, named).await, StatusEffect::QueuedAgain);
    let recorded = store.record_outcome(two.id, sent_outcome(21), at(101));
    recorded.await.unwrap();
    let shown = message_row(store, 100).await.replies.remove(0);
    assert_eq!(
        (shown.state, shown.sid, shown.earlier_sid),
        (OutboundState::Pending, None, Some(sid(21)))
    );
    let second = store.claim(9, at(160)).await.unwrap().remove(0);
    // A callback proves the second send, whose call has not ended.
    let proof = StatusEvent {
        outbound: Some(second.name()),
        ..status(22, "delivered", 0, 161)
    };
    assert_eq!(apply(store, proof).await, StatusEffect::Applied);
    let shown = message_row(store, 100).await.replies.remove(0);
    assert_eq!(
        (shown.state, shown.sid),
        (OutboundState::Sent, Some(sid(22)))
    );
}

async fn other_failures_are_not_queued_again(backend: &mut Backend) {
    let store = backend.store();
    for (number, before, last, code) in [
        (1, "sent", "undelivered", 30001),
        (2, "delivered", "failed", 30001),
        (3, "undelivered", "failed", 63018),
        (4, "sent", "failed", 30003),
        (5, "sent", "canceled", 63053),
    ] {
        let seconds = i64::try_from(number).unwrap();
        reply_via_rest(store, new_inbound(number), &["text"]).await;
        send_one(store, 10 + number, seconds).await;
        apply(store, status(10 + number, before, 0, seconds)).await;
        let effect = apply(store, status(10 + number, last, code, seconds)).await;
        assert_ne!(effect, StatusEffect::QueuedAgain, "{number}");
    }
    assert!(store.claim(9, at(999)).await.unwrap().is_empty());
}

async fn second_send_to_opted_out_user_is_suppressed(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    send_one(store, 11, 2).await;
    apply(store, status(11, "failed", 63053, 3)).await;
    accept(store, with_keyword(stop_keyword(), inbound_from(&[ANA], 4))).await;
    assert!(store.claim(9, at(99)).await.unwrap().is_empty());
    let shown = message_row(store, 1).await.replies.remove(0);
    assert_eq!(shown.state, OutboundState::Suppressed);
}

// Twilio's callbacks arrive in any order: the user has the message.
async fn late_delivery_cancels_second_send(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    send_one(store, 11, 2).await;
    apply(store, status(11, "failed", 63018, 3)).await;
    let late = apply(store, status(11, "delivered", 0, 4)).await;
    assert_eq!(late, StatusEffect::Applied);
    assert!(store.claim(9, at(999)).await.unwrap().is_empty());
    let shown = message_row(store, 1).await.replies.remove(0);
    assert_eq!(
        (shown.state, shown.sid, shown.earlier_sid),
        (OutboundState::Sent, Some(sid(11)), None)
    );
    assert_eq!((shown.resent_after, shown.error_code), (None, None));
    // A failure that is repeated after it queues nothing.
    let failed = apply(store, status(11, "failed", 63018, 5)).await;
    assert_ne!(failed, StatusEffect::QueuedAgain);
}

async fn second_send_blocks_nothing(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["one", "two"]).await;
    send_one(store, 11, 2).await;
    apply(store, status(11, "failed", 30001, 3)).await;
    reply_via_rest(store, new_inbound(4), &["later"]).await;
    let other = NewOutbound {
        user: ANA.into(),
        ..reply("outbound")
    };
    store.enqueue(vec![other], at(5)).await.unwrap();
    assert_eq!(
        bodies(&deliver(store, 5).await),
        ["two", "later", "outbound"]
    );
    assert_eq!(bodies(&deliver(store, 63).await), ["one"]);
}

async fn not_found_call_is_repeated_once(backend: &mut Backend) {
    use replyhook::internals::SendOutcome;
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["one", "two"]).await;
    let message = store.claim(9, at(2)).await.unwrap().remove(0);
    let once = SendOutcome::RetryOnce {
        not_before: at(4),
        code: ErrorCode(20404),
    };
    let recorded = store.record_outcome(message.id, once, at(2));
    recorded.await.unwrap();
    assert!(store.claim(9, at(3)).await.unwrap().is_empty());
    let again = send_one(store, 11, 4).await;
    assert_eq!(
        (again.attempt, again.resent_after),
        (2, Some(ErrorCode(20404)))
    );
    // The repeated call is the one second send, so none follows a failure callback.
    assert_eq!(
        apply(store, status(11, "failed", 30001, 5)).await,
        StatusEffect::Applied
    );
    assert_eq!(bodies(&deliver(store, 65).await), ["two"]);
}

async fn operator_sends_undelivered_message_again(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    let id = send_one(store, 11, 2).await.id;
    assert!(!store.send_again(id, at(3)).await.unwrap());
    for (number, state) in [(11, "undelivered"), (12, "failed")] {
        apply(store, status(number, state, 30003, 4)).await;
        assert_eq!(message_row(store, 1).await.state, "failed");
        // The other operation sends only what Twilio did not accept.
        assert_eq!(store.release(sid(1), at(5)).await.unwrap(), 0);
        assert!(store.send_again(id, at(5)).await.unwrap());
        assert!(!store.send_again(id, at(5)).await.unwrap());
        let shown = message_row(store, 1).await.replies.remove(0);
        assert_eq!(
            (shown.state, shown.earlier_sid, shown.error_code),
            (OutboundState::Pending, Some(sid(number)), None)
        );
        send_one(store, number + 1, 6).await;
    }
    // Found by the SID of a send, although it is a reply.
    for number in [12, 13] {
        let filter = replyhook::internals::MessageFilter {
            sid: Some(sid(number)),
            limit: 1,
            ..Default::default()
        };
        let found = store.outbound_messages(filter).await.unwrap();
        assert_eq!(found[0].message.id, id);
    }
    assert!(!store.send_again(999, at(7)).await.unwrap());
}

// The parameters have both. The code in `text_after` tells the worker to send the text.
async fn refused_content_is_queued_once_as_text(backend: &mut Backend) {
    let store = backend.store();
    let shape = [
        ("ContentShape", "replyhook buttons-2 v1"),
        ("ContentVariables", "{}"),
    ];
    let rich = || NewOutbound {
        params: reply("text").params.iter().chain(shape).collect(),
        ..reply("text")
    };
    store.enqueue(vec![rich()], at(1)).await.unwrap();
    send_one(store, 11, 2).await;
    let refused = |number, second| status(number, "undelivered", 63005, second);
    assert_eq!(
        apply(store, refused(11, 3)).await,
        StatusEffect::QueuedAsText
    );
    let again = send_one(store, 12, 3).await;
    assert_eq!(
        (again.resent_after, again.text_after),
        (None, Some(ErrorCode(63005)))
    );
    assert_eq!(apply(store, refused(12, 4)).await, StatusEffect::Applied);
    // After a second send for another reason, and before one.
    store.enqueue(vec![rich()], at(4)).await.unwrap();
    send_one(store, 21, 4).await;
    let passing = |number, second| status(number, "failed", 63018, second);
    assert_eq!(
        apply(store, passing(21, 5)).await,
        StatusEffect::QueuedAgain
    );
    send_one(store, 22, 65).await;
    assert_eq!(
        apply(store, refused(22, 66)).await,
        StatusEffect::QueuedAsText
    );
    let text = send_one(store, 23, 66).await;
    assert_eq!(
        (text.resent_after, text.text_after),
        (Some(ErrorCode(63018)), Some(ErrorCode(63005)))
    );
    assert_eq!(apply(store, passing(23, 67)).await, StatusEffect::Applied);
    // Another failure of a rich message, and the same failure of a text.
    for (number, message, code) in [(13, rich(), 63016), (14, reply("text"), 63005)] {
        store.enqueue(vec![message], at(5)).await.unwrap();
        send_one(store, number, 5).await;
        let effect = apply(store, status(number, "undelivered", code, 6)).await;
        assert_eq!(effect, StatusEffect::Applied, "{code}");
    }
}
