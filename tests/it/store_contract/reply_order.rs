//! A reply does not overtake an older one to the same user that is still being sent.

use std::time::Duration;

use replyhook::ErrorCode;
use replyhook::internals::{
    AcceptOutcome, Claim, Completion, NewOutbound, ReplyDecision, SavedResponse, SendOutcome,
    Store, Submission,
};

use super::{
    ANA, BEN, Backend, RETRY, accept, accept_and_answer, accept_claimed, at, bodies, deliver,
    new_inbound, over_all_stores, reply, reply_via_rest, sent_outcome, sid, start_keyword,
    stop_keyword, with_keyword,
};

over_all_stores!(
    reply_behind_open_reply_is_deferred,
    reply_without_older_reply_is_saved,
    oldest_reply_in_queue_limits_waiting,
    reply_from_future_limits_waiting,
    reply_behind_other_authors_reply_is_deferred,
    retried_and_released_replies_are_not_waited_for,
    replies_to_all_addresses_of_conversation_keep_order,
    replies_to_two_spellings_keep_order,
);

const TWIML: &str = "<Response><Message>two</Message></Response>";

/// Accepts message `number` of Ana at second `number`, and completes it inline.
async fn reply_inline(store: &dyn Store, number: u64) -> ReplyDecision {
    let claim = accept_claimed(store, new_inbound(number)).await;
    reply_inline_at(store, claim, i64::try_from(number).unwrap()).await
}

async fn reply_inline_at(store: &dyn Store, claim: Claim, seconds: i64) -> ReplyDecision {
    let completion = Completion {
        keeps_order: true,
        ..Completion::default()
    };
    let twiml = Some(TWIML.to_owned());
    store
        .complete_inline(claim, twiml, completion, at(seconds))
        .await
        .unwrap()
}

fn inline_decision() -> ReplyDecision {
    ReplyDecision::Inline(SavedResponse {
        twiml: Some(TWIML.to_owned()),
    })
}

async fn reply_behind_open_reply_is_deferred(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["one"]).await;
    let claim = accept_claimed(store, new_inbound(2)).await;
    assert_eq!(
        reply_inline_at(store, claim, 2).await,
        ReplyDecision::ViaRest
    );
    // A redelivery gets the empty response, and the handler can still complete the message.
    let repeated = accept(store, new_inbound(2)).await;
    assert_eq!(
        repeated,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
    let two = vec![reply("two")];
    let finished = store.complete_via_rest(claim, two, Completion::default(), at(2));
    assert!(finished.await.unwrap());
    // The older reply is being sent, then waits for a retry, then has an unknown outcome.
    let one = store.claim(9, at(3)).await.unwrap();
    assert_eq!(bodies(&one), ["one"]);
    let retry = SendOutcome::Retry {
        not_before: at(20),
        code: None,
    };
    let unknown = SendOutcome::Unknown {
        lookup_at: at(30),
        looked_up: false,
    };
    for (number, outcome) in [(3, None), (4, Some(retry)), (5, Some(unknown))] {
        if let Some(outcome) = outcome {
            store.claim(9, at(20)).await.unwrap();
            store
                .record_outcome(one[0].id, outcome, at(3))
                .await
                .unwrap();
        }
        let claim = accept_claimed(store, new_inbound(number)).await;
        assert_eq!(
            reply_inline_at(store, claim, 5).await,
            ReplyDecision::ViaRest
        );
        let text = vec![reply(&number.to_string())];
        let finished = store.complete_via_rest(claim, text, Completion::default(), at(5));
        assert!(finished.await.unwrap());
    }
    store
        .record_outcome(one[0].id, sent_outcome(1), at(6))
        .await
        .unwrap();
    assert_eq!(bodies(&deliver(store, 30).await), ["two", "3", "4", "5"]);
    assert_eq!(reply_inline(store, 31).await, inline_decision());
}

async fn reply_without_older_reply_is_saved(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    // Messages that are not replies do not count, even one that waits for the rate limit of its sender.
    store.enqueue(vec![reply("first")], at(1)).await.unwrap();
    let rate_limited = Submission {
        message: reply("paced"),
        earlier_parts: Vec::new(),
        question: None,
        key: None,
        due: at(1),
        min_interval: Duration::from_secs(100),
        consent_required: true,
    };
    store.submit(rate_limited.clone(), at(1)).await.unwrap();
    store.submit(rate_limited, at(1)).await.unwrap();
    assert_eq!(reply_inline(store, 2).await, inline_decision());
    deliver(store, 3).await;
    // Replies to another user, by another sender or of another account do not count.
    let claim = accept_claimed(store, new_inbound(4)).await;
    let to_ben = NewOutbound {
        user: BEN.into(),
        ..reply("to Ben")
    };
    let by_another = NewOutbound {
        sender: "whatsapp:+15550004444".into(),
        ..reply("by another")
    };
    let of_another = NewOutbound {
        account: "AC00000000000000000000000000000009".parse().unwrap(),
        ..reply("of another account")
    };
    let replies = vec![to_ben, by_another, of_another];
    let finished = store.complete_via_rest(claim, replies, Completion::default(), at(4));
    assert!(finished.await.unwrap());
    assert_eq!(reply_inline(store, 5).await, inline_decision());
    deliver(store, 6).await;
    // A held reply and the part behind it do not count.
    reply_via_rest(store, new_inbound(7), &["held", "rest"]).await;
    let held = store.claim(9, at(7)).await.unwrap()[0].id;
    let unknown = SendOutcome::Unknown {
        lookup_at: at(7),
        looked_up: true,
    };
    store.record_outcome(held, unknown, at(7)).await.unwrap();
    store
        .record_outcome(held, SendOutcome::Held, at(7))
        .await
        .unwrap();
    assert_eq!(reply_inline(store, 8).await, inline_decision());
    // A failed reply and the part behind it do not count.
    reply_via_rest(store, new_inbound(9), &["failed", "rest"]).await;
    let failed = store.claim(9, at(9)).await.unwrap()[0].id;
    let failure = SendOutcome::Failed {
        code: Some(ErrorCode(63024)),
        reason: "rejected".into(),
    };
    store.record_outcome(failed, failure, at(9)).await.unwrap();
    assert_eq!(reply_inline(store, 10).await, inline_decision());
    // A completion that does not keep the order does not wait for a pending reply.
    reply_via_rest(store, new_inbound(11), &["pending"]).await;
    let claim = accept_claimed(store, new_inbound(12)).await;
    let empty = store.complete_inline(claim, None, Completion::default(), at(12));
    assert_eq!(
        empty.await.unwrap(),
        ReplyDecision::Inline(SavedResponse::EMPTY)
    );
    // A reply that was suppressed by an opt-out does not count.
    accept(store, with_keyword(stop_keyword(), new_inbound(13))).await;
    assert_eq!(deliver(store, 14).await.len(), 0);
    let resumed = with_keyword(start_keyword(), new_inbound(15));
    accept(store, resumed).await;
    assert_eq!(reply_inline(store, 16).await, inline_decision());
}

async fn oldest_reply_in_queue_limits_waiting(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(100), &["one"]).await;
    for number in [112, 124, 159] {
        let claim = accept_claimed(store, new_inbound(number)).await;
        let seconds = i64::try_from(number).unwrap();
        assert_eq!(
            reply_inline_at(store, claim, seconds).await,
            ReplyDecision::ViaRest
        );
        let text = vec![reply(&number.to_string())];
        let finished = store.complete_via_rest(claim, text, Completion::default(), at(seconds));
        assert!(finished.await.unwrap());
    }
    for number in [160, 161, 200, 4000] {
        assert_eq!(
            reply_inline(store, number).await,
            inline_decision(),
            "{number}"
        );
    }
}

async fn reply_from_future_limits_waiting(backend: &mut Backend) {
    let store = backend.store();
    // Saved before the clock was set back by an hour, or by a machine whose clock is ahead.
    reply_via_rest(store, new_inbound(3700), &["one"]).await;
    assert_eq!(reply_inline(store, 100).await, inline_decision());
    let claim = accept_claimed(store, new_inbound(3690)).await;
    assert_eq!(
        reply_inline_at(store, claim, 3690).await,
        ReplyDecision::ViaRest
    );
}

async fn reply_behind_other_authors_reply_is_deferred(backend: &mut Backend) {
    let store = backend.store();
    // The reply to Ben's message goes to Ana.
    let from_ben = super::inbound_from(&[BEN], 1);
    reply_via_rest(store, from_ben, &["to Ana"]).await;
    let claim = accept_claimed(store, new_inbound(2)).await;
    assert_eq!(
        reply_inline_at(store, claim, 2).await,
        ReplyDecision::ViaRest
    );
}

async fn retried_and_released_replies_are_not_waited_for(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["released"]).await;
    let failed = store.claim(9, at(1)).await.unwrap()[0].id;
    let failure = SendOutcome::Failed {
        code: None,
        reason: "rejected".into(),
    };
    store.record_outcome(failed, failure, at(1)).await.unwrap();
    assert_eq!(store.release(sid(1), at(2)).await.unwrap(), 1);
    assert_eq!(reply_inline(store, 3).await, inline_decision());
    let claim = accept_claimed(store, new_inbound(4)).await;
    store
        .record_failure(claim, "the handler failed", true, at(0))
        .await
        .unwrap();
    assert!(store.retry(sid(4), at(5)).await.unwrap());
    let retried = store.claim_backlog(9, RETRY, at(5)).await.unwrap();
    let text = vec![reply("retried")];
    let finished = store.complete_via_rest(
        retried.messages[0].claim,
        text,
        Completion::default(),
        at(5),
    );
    assert!(finished.await.unwrap());
    assert_eq!(reply_inline(store, 6).await, inline_decision());
    // Both replies are still sent in order.
    assert_eq!(bodies(&deliver(store, 7).await), ["released", "retried"]);
}

/// Business-scoped ID of Ana.
const ANA_ID: &str = "whatsapp:US.13491208655302741918";

/// Accepts message `number` from the first of these addresses, and replies to it via the REST API.
async fn reply_to(store: &dyn Store, addresses: &[&str], number: u64) {
    let claim = accept_claimed(store, super::inbound_from(addresses, number)).await;
    let message = NewOutbound {
        user: addresses[0].into(),
        ..reply(&number.to_string())
    };
    let now = at(i64::try_from(number).unwrap());
    let finished = store.complete_via_rest(claim, vec![message], Completion::default(), now);
    assert!(finished.await.unwrap());
}

/// Retries the first reply at second 20, and asserts that the two others are sent after it and in order.
async fn assert_order_after_retry(store: &dyn Store) {
    let first = store.claim(9, at(4)).await.unwrap();
    assert_eq!(bodies(&first), ["1"]);
    let retry = SendOutcome::Retry {
        not_before: at(20),
        code: None,
    };
    store
        .record_outcome(first[0].id, retry, at(4))
        .await
        .unwrap();
    assert_eq!(bodies(&store.claim(9, at(5)).await.unwrap()), [""; 0]);
    for number in 1..=3 {
        let claimed = store.claim(9, at(20)).await.unwrap();
        assert_eq!(bodies(&claimed), [number.to_string()]);
        let sent = sent_outcome(100 + number);
        store
            .record_outcome(claimed[0].id, sent, at(20))
            .await
            .unwrap();
    }
}

async fn replies_to_all_addresses_of_conversation_keep_order(backend: &mut Backend) {
    let store = backend.store();
    reply_to(store, &[ANA, ANA_ID], 1).await;
    // The first reply was sent to Ana's number. This one would be the response.
    let inline = accept_claimed(store, super::inbound_from(&[ANA_ID], 2)).await;
    assert_eq!(
        reply_inline_at(store, inline, 2).await,
        ReplyDecision::ViaRest
    );
    let message = NewOutbound {
        user: ANA_ID.into(),
        ..reply("2")
    };
    let finished = store.complete_via_rest(inline, vec![message], Completion::default(), at(2));
    assert!(finished.await.unwrap());
    reply_to(store, &[ANA], 3).await;
    assert_order_after_retry(store).await;
}

async fn replies_to_two_spellings_keep_order(backend: &mut Backend) {
    let store = backend.store();
    for (number, address) in [
        (1, "whatsapp:+5215512345678"),
        (2, "whatsapp:+525512345678"),
        (3, "whatsapp:+5215512345678"),
    ] {
        reply_to(store, &[address], number).await;
    }
    assert_order_after_retry(store).await;
}
