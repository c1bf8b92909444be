//! Addresses that are split off their user: what was addressed to the former user is not sent, and old evidence does not
//! tie them again.

use replyhook::internals::{
    NewInbound, NewOutbound, OutboundRow, SendOutcome, StatusEvent, Store, UserChange,
};
use replyhook::store::OutboundState;
use replyhook::{Address, ErrorCode, MessageStatus};

use super::{
    ANA, ANA_ID, Backend, Completion, SENDER, accept_and_answer, accept_claimed, account, at,
    bodies, deliver, inbound_from, message_row, new_inbound, over_all_stores, reply,
    reply_via_rest, sent_outcome, sid,
};

over_all_stores!(
    reply_to_former_user_fails_at_the_claim,
    reply_that_was_deferred_before_a_split_fails,
    held_and_failed_messages_are_not_released_after_a_split,
    scheduled_message_of_former_user_is_canceled,
    status_callback_from_before_a_split_ties_nothing,
    split_of_another_account_does_not_count,
);

const OTHER_ID: &str = "whatsapp:US.99999999999999999999";
const NEW_OWNER: &str = "it must not be sent: its address is of another user now";

async fn split(store: &dyn Store, user: &str, seconds: i64) {
    let change = UserChange {
        account: account(),
        user: user.into(),
        reason: "a new owner".to_owned(),
        at: at(seconds),
    };
    assert!(store.split_user(change).await.unwrap());
}

async fn outbound(store: &dyn Store, id: i64) -> OutboundRow {
    store.outbound(id).await.unwrap().unwrap()
}

/// Asserts that a message has failed because its address is of another user.
async fn assert_refused(store: &dyn Store, id: i64) {
    let row = outbound(store, id).await;
    assert_eq!(
        (row.state, row.reason.as_deref(), row.refusal),
        (OutboundState::Failed, Some(NEW_OWNER), Some(NEW_OWNER))
    );
}

async fn reply_to_former_user_fails_at_the_claim(backend: &mut Backend) {
    let store = backend.store();
    let old = inbound_from(&[ANA, ANA_ID], 1);
    reply_via_rest(store, old, &["one", "two", "three"]).await;
    // The number has another ID on the same sender.
    let new = inbound_from(&[ANA, OTHER_ID], 2);
    reply_via_rest(store, new, &["for the new owner"]).await;
    let outbox = store
        .claim_with_wait(9, std::time::Duration::ZERO, at(3))
        .await
        .unwrap();
    assert_eq!(bodies(&outbox.new_owner), ["one"]);
    assert!(outbox.suppressed.is_empty());
    let mut sent = outbox.messages;
    for message in &sent {
        let outcome = store.record_outcome(message.id, sent_outcome(50), at(3));
        outcome.await.unwrap();
    }
    sent.extend(deliver(store, 4).await);
    assert_eq!(bodies(&sent), ["for the new owner"]);
    let row = message_row(store, 1).await;
    assert_eq!((row.state, row.replies.len()), ("failed", 3));
    for reply in &row.replies {
        assert_refused(store, reply.id).await;
    }
    assert_eq!(store.release(sid(1), at(5)).await.unwrap(), 0);
    for reply in &row.replies {
        assert!(!store.send_again(reply.id, at(5)).await.unwrap());
    }
    assert!(deliver(store, 6).await.is_empty());
    assert_eq!(store.outbox_stats().await.unwrap().pending, 0);
    // Replies to the ID of the former user are sent.
    let to_id = NewOutbound {
        user: ANA_ID.into(),
        ..reply("by ID")
    };
    store.enqueue(vec![to_id], at(6)).await.unwrap();
    assert_eq!(bodies(&deliver(store, 7).await), ["by ID"]);
}

async fn reply_that_was_deferred_before_a_split_fails(backend: &mut Backend) {
    let store = backend.store();
    // Two handlers run while the number is split off: one for the former user, whose reply is queued after the split.
    let old = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    split(store, ANA, 2).await;
    let late = store.complete_via_rest(old, vec![reply("late")], Completion::default(), at(3));
    assert!(late.await.unwrap());
    assert!(deliver(store, 4).await.is_empty());
    assert_refused(store, message_row(store, 1).await.replies[0].id).await;
    // An operator lets a handler run again for a message from before.
    reply_via_rest(store, new_inbound(5), &["new"]).await;
    assert_eq!(bodies(&deliver(store, 6).await), ["new"]);
}

async fn held_and_failed_messages_are_not_released_after_a_split(backend: &mut Backend) {
    let store = backend.store();
    let failed = SendOutcome::Failed {
        code: Some(ErrorCode(63016)),
        reason: "rejected".into(),
    };
    reply_via_rest(store, inbound_from(&[ANA, ANA_ID], 1), &["one", "two"]).await;
    let claimed = store.claim(9, at(2)).await.unwrap();
    let outcome = store.record_outcome(claimed[0].id, failed.clone(), at(2));
    outcome.await.unwrap();
    let looked = SendOutcome::Unknown {
        lookup_at: at(3),
        looked_up: true,
    };
    let mut ids = Vec::new();
    for outcomes in [vec![failed], vec![looked, SendOutcome::Held]] {
        let queued = store.enqueue(vec![reply("news")], at(3)).await.unwrap();
        let claimed = store.claim(9, at(3)).await.unwrap();
        assert_eq!(claimed[0].id, queued[0]);
        for outcome in outcomes {
            let recorded = store.record_outcome(queued[0], outcome, at(3));
            recorded.await.unwrap();
        }
        ids.extend(queued);
    }
    let waiting = store.enqueue(vec![reply("later")], at(4)).await.unwrap();
    ids.extend(waiting);
    split(store, ANA, 5).await;
    assert_eq!(
        outbound(store, ids[0]).await.refusal,
        Some(NEW_OWNER),
        "before any release"
    );
    assert_eq!(store.release(sid(1), at(6)).await.unwrap(), 0);
    assert_eq!(store.release_outbound(None, at(6)).await.unwrap(), 0);
    for id in &ids[..2] {
        assert_eq!(store.release_outbound(Some(*id), at(6)).await.unwrap(), 0);
    }
    assert!(deliver(store, 7).await.is_empty());
    let replies = message_row(store, 1).await.replies;
    ids.extend(replies.iter().map(|reply| reply.id));
    for id in ids {
        assert_refused(store, id).await;
    }
    let stats = store.outbox_stats().await.unwrap();
    assert_eq!((stats.pending, stats.held), (0, 0));
    // A message after the split is for the new owner.
    store.enqueue(vec![reply("new")], at(8)).await.unwrap();
    assert_eq!(bodies(&deliver(store, 8).await), ["new"]);
}

async fn scheduled_message_of_former_user_is_canceled(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    let schedule = async |number: u64| {
        let ids = store.enqueue(vec![reply("later")], at(2)).await.unwrap();
        assert_eq!(store.claim(9, at(2)).await.unwrap().len(), 1);
        let scheduled = SendOutcome::Sent {
            sid: sid(number),
            status: MessageStatus::Scheduled,
        };
        store
            .record_outcome(ids[0], scheduled, at(2))
            .await
            .unwrap();
        ids[0]
    };
    let id = schedule(101).await;
    assert!(store.scheduled_to_cancel(0, 9).await.unwrap().is_empty());
    split(store, ANA, 3).await;
    schedule(102).await;
    let unwanted = store.scheduled_to_cancel(0, 9).await.unwrap();
    let found: Vec<_> = unwanted.iter().map(|found| (found.id, found.sid)).collect();
    assert_eq!(found, [(id, sid(101))]);
}

fn callback(number: u64, outbound: Option<String>, seconds: i64) -> StatusEvent {
    StatusEvent {
        account: account(),
        sid: sid(number),
        outbound,
        status: MessageStatus::Delivered,
        error_code: None,
        sender: Some(SENDER.into()),
        service: None,
        user: [ANA, ANA_ID].map(Address::from).to_vec(),
        at: at(seconds),
    }
}

async fn is_tied(store: &dyn Store) -> bool {
    let user = store.user(&ANA.into(), None).await.unwrap();
    !user.links.is_empty()
}

async fn status_callback_from_before_a_split_ties_nothing(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, inbound_from(&[ANA, ANA_ID], 1), &["one", "two"]).await;
    let first = store.claim(9, at(2)).await.unwrap().remove(0);
    let sent = store.record_outcome(first.id, sent_outcome(61), at(2));
    sent.await.unwrap();
    // Twilio has accepted the second part, and its REST call has not returned.
    let second = store.claim(9, at(2)).await.unwrap().remove(0);
    split(store, ANA, 3).await;
    assert!(!is_tied(store).await);
    for event in [
        callback(61, None, 4),
        callback(62, Some(second.name()), 4),
        // Nothing says when this message was sent.
        callback(63, None, 4),
    ] {
        store.apply_status(event).await.unwrap();
        assert!(!is_tied(store).await);
    }
    // The form of a message from before, which another server had not stored yet.
    accept_and_answer(
        store,
        NewInbound {
            received_at: at(2),
            ..inbound_from(&[ANA, ANA_ID], 5)
        },
    )
    .await;
    assert!(!is_tied(store).await);
    // A redelivery of the first form.
    super::accept(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    assert!(!is_tied(store).await);
    // A message that was sent after the split says who has the number now.
    store.enqueue(vec![reply("new")], at(6)).await.unwrap();
    let sent = deliver(store, 6).await;
    assert_eq!(bodies(&sent), ["new"]);
    let number = 1000 + sent[0].id.unsigned_abs();
    store.apply_status(callback(number, None, 7)).await.unwrap();
    assert!(is_tied(store).await);
}

async fn split_of_another_account_does_not_count(backend: &mut Backend) {
    let store = backend.store();
    let other_account = "AC00000000000000000000000000000099".parse().unwrap();
    let merge = UserChange {
        account: other_account,
        user: ANA.into(),
        reason: "a test".to_owned(),
        at: at(1),
    };
    store
        .merge_users(merge.clone(), &ANA_ID.into())
        .await
        .unwrap();
    store.enqueue(vec![reply("news")], at(2)).await.unwrap();
    assert!(store.split_user(merge).await.unwrap());
    assert_eq!(bodies(&deliver(store, 3).await), ["news"]);
}
