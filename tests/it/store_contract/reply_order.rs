//! A reply does not overtake an older one to the same user that is still being sent.

use std::time::Duration;

use replyhook::ErrorCode;
use replyhook::store::{
    AcceptOutcome, Claim, Completion, NewOutbound, ReplyDecision, ReplyQueue, SavedResponse,
    SendOutcome, Store, Submission,
};

use super::{
    ANA, BEN, Backend, RETRY, US, arrival, at, begin, bodies, converse, defer, deliver,
    over_all_stores, reply, saying, sent, sid, start, stop,
};

over_all_stores!(
    reply_behind_open_reply_is_deferred,
    reply_without_older_reply_is_saved,
    oldest_reply_in_queue_limits_waiting,
    reply_from_future_limits_waiting,
    reply_behind_other_authors_reply_is_deferred,
    retried_and_released_replies_are_not_waited_for,
);

const TWIML: &str = "<Response><Message>two</Message></Response>";

/// Accepts message `number` at second `number`, and completes it inline with Ana's reply queue.
async fn answer(store: &dyn Store, number: u64) -> ReplyDecision {
    let claim = begin(store, arrival(number)).await;
    answer_at(store, claim, i64::try_from(number).unwrap()).await
}

async fn answer_at(store: &dyn Store, claim: Claim, seconds: i64) -> ReplyDecision {
    let queue = ReplyQueue {
        sender: US.into(),
        user: ANA.into(),
    };
    let ending = Completion {
        queue: Some(queue),
        ..Completion::default()
    };
    let twiml = Some(TWIML.to_owned());
    store
        .complete_inline(claim, twiml, ending, at(seconds))
        .await
        .unwrap()
}

fn saved() -> ReplyDecision {
    ReplyDecision::Inline(SavedResponse {
        twiml: Some(TWIML.to_owned()),
    })
}

async fn reply_behind_open_reply_is_deferred(backend: &mut Backend) {
    let store = backend.store();
    defer(store, arrival(1), &["one"]).await;
    let claim = begin(store, arrival(2)).await;
    assert_eq!(answer_at(store, claim, 2).await, ReplyDecision::ViaRest);
    // A redelivery gets the empty response, and the handler can still complete the message.
    let repeated = store.accept(arrival(2).into()).await.unwrap();
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
    let again = SendOutcome::Retry { not_before: at(20) };
    let unknown = SendOutcome::Unknown {
        lookup_at: at(30),
        looked_up: false,
    };
    for (number, settlement) in [(3, None), (4, Some(again)), (5, Some(unknown))] {
        if let Some(settlement) = settlement {
            store.claim(9, at(20)).await.unwrap();
            store
                .record_outcome(one[0].id, settlement, at(3))
                .await
                .unwrap();
        }
        let claim = begin(store, arrival(number)).await;
        assert_eq!(answer_at(store, claim, 5).await, ReplyDecision::ViaRest);
        let text = vec![reply(&number.to_string())];
        let finished = store.complete_via_rest(claim, text, Completion::default(), at(5));
        assert!(finished.await.unwrap());
    }
    store
        .record_outcome(one[0].id, sent(1), at(6))
        .await
        .unwrap();
    assert_eq!(bodies(&deliver(store, 30).await), ["two", "3", "4", "5"]);
    assert_eq!(answer(store, 31).await, saved());
}

async fn reply_without_older_reply_is_saved(backend: &mut Backend) {
    let store = backend.store();
    converse(store, arrival(1)).await;
    // Messages that are not replies do not count, even one that waits for the rate limit of its sender.
    store.enqueue(vec![reply("first")], at(1)).await.unwrap();
    let paced = Submission {
        message: reply("paced"),
        key: None,
        due: at(1),
        min_interval: Duration::from_secs(100),
        consent_required: true,
    };
    store.submit(paced.clone(), at(1)).await.unwrap();
    store.submit(paced, at(1)).await.unwrap();
    assert_eq!(answer(store, 2).await, saved());
    deliver(store, 3).await;
    // Replies to another user, by another sender or of another account do not count.
    let claim = begin(store, arrival(4)).await;
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
    assert_eq!(answer(store, 5).await, saved());
    deliver(store, 6).await;
    // A held reply and the part behind it do not count.
    defer(store, arrival(7), &["held", "rest"]).await;
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
    assert_eq!(answer(store, 8).await, saved());
    // A failed reply and the part behind it do not count.
    defer(store, arrival(9), &["failed", "rest"]).await;
    let failed = store.claim(9, at(9)).await.unwrap()[0].id;
    let failure = SendOutcome::Failed {
        code: Some(ErrorCode(63024)),
        reason: "rejected",
    };
    store.record_outcome(failed, failure, at(9)).await.unwrap();
    assert_eq!(answer(store, 10).await, saved());
    // A completion without `queue` does not wait for a pending reply.
    defer(store, arrival(11), &["pending"]).await;
    let claim = begin(store, arrival(12)).await;
    let empty = store.complete_inline(claim, None, Completion::default(), at(12));
    assert_eq!(
        empty.await.unwrap(),
        ReplyDecision::Inline(SavedResponse::EMPTY)
    );
    // A reply that was suppressed by an opt-out does not count.
    store
        .accept(saying(stop(), arrival(13)).into())
        .await
        .unwrap();
    assert_eq!(deliver(store, 14).await.len(), 0);
    let resumed = saying(start(), arrival(15));
    store.accept(resumed.into()).await.unwrap();
    assert_eq!(answer(store, 16).await, saved());
}

async fn oldest_reply_in_queue_limits_waiting(backend: &mut Backend) {
    let store = backend.store();
    defer(store, arrival(100), &["one"]).await;
    for number in [112, 124, 159] {
        let claim = begin(store, arrival(number)).await;
        let seconds = i64::try_from(number).unwrap();
        assert_eq!(
            answer_at(store, claim, seconds).await,
            ReplyDecision::ViaRest
        );
        let text = vec![reply(&number.to_string())];
        let finished = store.complete_via_rest(claim, text, Completion::default(), at(seconds));
        assert!(finished.await.unwrap());
    }
    for number in [160, 161, 200, 4000] {
        assert_eq!(answer(store, number).await, saved(), "{number}");
    }
}

async fn reply_from_future_limits_waiting(backend: &mut Backend) {
    let store = backend.store();
    // Saved before the clock was set back by an hour, or by a machine whose clock is ahead.
    defer(store, arrival(3700), &["one"]).await;
    assert_eq!(answer(store, 100).await, saved());
    let claim = begin(store, arrival(3690)).await;
    assert_eq!(answer_at(store, claim, 3690).await, ReplyDecision::ViaRest);
}

async fn reply_behind_other_authors_reply_is_deferred(backend: &mut Backend) {
    let store = backend.store();
    // The reply to Ben's message goes to Ana.
    let from_ben = super::from(&[BEN], 1);
    defer(store, from_ben, &["to Ana"]).await;
    let claim = begin(store, arrival(2)).await;
    assert_eq!(answer_at(store, claim, 2).await, ReplyDecision::ViaRest);
}

async fn retried_and_released_replies_are_not_waited_for(backend: &mut Backend) {
    let store = backend.store();
    defer(store, arrival(1), &["released"]).await;
    let failed = store.claim(9, at(1)).await.unwrap()[0].id;
    let failure = SendOutcome::Failed {
        code: None,
        reason: "rejected",
    };
    store.record_outcome(failed, failure, at(1)).await.unwrap();
    assert_eq!(store.release(sid(1), at(2)).await.unwrap(), 1);
    assert_eq!(answer(store, 3).await, saved());
    let claim = begin(store, arrival(4)).await;
    store
        .record_failure(claim, "the handler failed", true)
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
    assert_eq!(answer(store, 6).await, saved());
    // Both replies are still sent in order.
    assert_eq!(bodies(&deliver(store, 7).await), ["released", "retried"]);
}
