//! Merging of queued messages into the message before them: all or none.

use replyhook::internals::{
    AcceptOutcome, Claim, Completion, ReplyDecision, ReplyPath, SavedResponse, Store, TurnStatus,
};

use super::{
    BEN, Backend, accept, accept_and_answer, accept_claimed, at, claim_backlog, expect_queued,
    inbound_from, message_row, new_inbound, over_all_stores, reply,
};

over_all_stores!(
    queued_messages_are_listed_in_order,
    merged_messages_get_empty_response,
    rest_reply_completes_merged_messages,
    already_decided_message_keeps_its_response,
    failure_keeps_messages_queued,
    lost_claim_merges_nothing,
);

/// Accepts a message and `behind` more. Returns the claim of the first, and the IDs of the queued others.
async fn claim_with_queued(store: &dyn Store, first: u64, behind: u64) -> (Claim, Vec<i64>) {
    let claim = accept_claimed(store, new_inbound(first)).await;
    let mut ids = Vec::new();
    for number in first + 1..=first + behind {
        let accepted = accept(store, new_inbound(number)).await;
        ids.push(expect_queued(&accepted));
    }
    (claim, ids)
}

async fn ids_behind(store: &dyn Store, claim: Claim, limit: u32) -> Vec<i64> {
    let behind = store.queued_behind(claim, limit).await.unwrap();
    behind.iter().map(|one| one.id).collect()
}

fn merge_completion(ids: &[i64]) -> Completion {
    Completion {
        merged: ids.to_vec(),
        ..Completion::default()
    }
}

// Deferred messages are included, and messages that have a response are not.
async fn queued_messages_are_listed_in_order(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    let (claim, ids) = claim_with_queued(store, 2, 3).await;
    accept_claimed(store, inbound_from(&[BEN], 9)).await;
    accept(store, inbound_from(&[BEN], 10)).await;
    assert_eq!(ids_behind(store, claim, 9).await, ids);
    assert_eq!(ids_behind(store, claim, 2).await, ids[..2]);
    store.decide(ids[0], ReplyPath::Rest, at(9)).await.unwrap();
    let apology = ReplyPath::Twiml("apology".to_owned());
    store.decide(ids[1], apology, at(9)).await.unwrap();
    let found = store.queued_behind(claim, 9).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|one| (one.id, one.params.0.as_str(), one.received_at))
        .collect();
    assert_eq!(
        found,
        [
            (ids[0], "Body=text+3", at(3)),
            (ids[2], "Body=text+5", at(5))
        ]
    );
}

// Merged messages end with the message before them, and the next message can be claimed.
async fn merged_messages_get_empty_response(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = claim_with_queued(store, 1, 3).await;
    store.decide(ids[1], ReplyPath::Rest, at(5)).await.unwrap();
    let completion = merge_completion(&ids[..2]);
    store
        .complete_inline(claim, Some("all".to_owned()), completion, at(6))
        .await
        .unwrap();
    for number in [2, 3] {
        let redelivery = accept(store, new_inbound(number)).await;
        assert_eq!(
            redelivery,
            AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
        );
        let row = message_row(store, number).await;
        assert_eq!(row.state, "answered");
        assert!(
            row.reason
                .unwrap()
                .contains("merged into the message before it")
        );
    }
    let waited = store.try_claim(ids[0], at(7)).await.unwrap();
    assert_eq!(
        waited,
        TurnStatus::Resolved(ReplyDecision::Inline(SavedResponse::EMPTY))
    );
    assert!(claim_backlog(store, at(7)).await.is_empty());
    // The message after them can be claimed.
    let next = store.try_claim(ids[2], at(7)).await.unwrap();
    let TurnStatus::Claimed(next) = next else {
        panic!("{next:?}")
    };
    let earlier = store.earlier(next.id, 9).await.unwrap();
    let is_merged: Vec<bool> = earlier.iter().map(|one| one.is_merged).collect();
    assert_eq!(is_merged, [false, true, true]);
}

async fn rest_reply_completes_merged_messages(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = claim_with_queued(store, 1, 2).await;
    store
        .decide(claim.id, ReplyPath::Rest, at(5))
        .await
        .unwrap();
    let finished =
        store.complete_via_rest(claim, vec![reply("all")], merge_completion(&ids), at(6));
    assert!(finished.await.unwrap());
    for number in [2, 3] {
        let redelivery = accept(store, new_inbound(number)).await;
        assert_eq!(
            redelivery,
            AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
        );
        assert!(message_row(store, number).await.replies.is_empty());
    }
    assert_eq!(store.claim(9, at(7)).await.unwrap().len(), 1);
    assert!(claim_backlog(store, at(7)).await.is_empty());
}

// The fallback text was decided while the earlier message, which would have merged it, was still being handled.
async fn already_decided_message_keeps_its_response(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = claim_with_queued(store, 1, 1).await;
    let apology = ReplyPath::Twiml("apology".to_owned());
    store.decide(ids[0], apology, at(3)).await.unwrap();
    store
        .complete_inline(claim, Some("all".to_owned()), merge_completion(&ids), at(4))
        .await
        .unwrap();
    let kept = SavedResponse {
        twiml: Some("apology".to_owned()),
    };
    let redelivery = accept(store, new_inbound(2)).await;
    assert_eq!(redelivery, AcceptOutcome::AlreadyAnswered(kept));
}

async fn failure_keeps_messages_queued(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = claim_with_queued(store, 1, 2).await;
    assert_eq!(ids_behind(store, claim, 9).await, ids);
    store
        .record_failure(claim, "it failed", false, at(0))
        .await
        .unwrap();
    let TurnStatus::Claimed(second) = store.try_claim(ids[0], at(4)).await.unwrap() else {
        panic!("the queued message cannot be claimed")
    };
    assert_eq!(ids_behind(store, second, 9).await, ids[1..]);
}

async fn lost_claim_merges_nothing(backend: &mut Backend) {
    let (claim, ids) = claim_with_queued(backend.store(), 1, 2).await;
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    let stale = store.complete_inline(claim, Some("all".to_owned()), merge_completion(&ids), at(5));
    assert_eq!(stale.await.unwrap(), ReplyDecision::ClaimLost);
    assert!(
        !store
            .complete_via_rest(claim, Vec::new(), merge_completion(&ids), at(5))
            .await
            .unwrap()
    );
    // The next claim of the message finds all messages that were queued behind it.
    let backlog = claim_backlog(store, at(6)).await;
    assert_eq!(backlog.len(), 1);
    let claim = backlog[0].claim;
    assert_eq!(ids_behind(store, claim, 9).await, ids);
    let finished =
        store.complete_via_rest(claim, vec![reply("all")], merge_completion(&ids), at(7));
    assert!(finished.await.unwrap());
    assert!(claim_backlog(store, at(8)).await.is_empty());
}
