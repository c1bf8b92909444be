//! Messages that are answered with the one before them: all with it, or none.

use std::sync::Arc;

use replyhook::store::{Acceptance, Answered, Choice, Claim, Decision, Ending, Store, Turn};

use super::{
    BEN, Backend, RETRY, arrival, at, begin, converse, from, over_all_stores, reply, shown, waiting,
};

over_all_stores!(
    what_waits_behind_a_message_is_told_in_its_order,
    what_was_merged_ends_with_its_message_and_gets_the_empty_answer,
    what_was_merged_ends_with_a_reply_by_rest_too,
    what_was_decided_meanwhile_keeps_its_answer,
    a_failure_leaves_what_waits_in_line,
    a_lost_claim_merges_nothing,
);

/// A claimed message, and so many that wait behind it.
async fn line(store: &dyn Store, first: u64, behind: u64) -> (Claim, Vec<i64>) {
    let claim = begin(store, arrival(first)).await;
    let mut ids = Vec::new();
    for number in first + 1..=first + behind {
        let accepted = store.accept(Arc::new(arrival(number))).await.unwrap();
        ids.push(waiting(&accepted));
    }
    (claim, ids)
}

async fn behind(store: &dyn Store, claim: Claim, limit: u32) -> Vec<i64> {
    let behind = store.behind(claim, limit).await.unwrap();
    behind.iter().map(|one| one.id).collect()
}

fn merged(ids: &[i64]) -> Ending {
    Ending {
        merged: ids.to_vec(),
        ..Ending::default()
    }
}

async fn what_waits_behind_a_message_is_told_in_its_order(backend: &mut Backend) {
    let store = backend.store();
    converse(store, arrival(1)).await;
    let (claim, ids) = line(store, 2, 3).await;
    begin(store, from(&[BEN], 9)).await;
    store.accept(Arc::new(from(&[BEN], 10))).await.unwrap();
    assert_eq!(behind(store, claim, 9).await, ids);
    assert_eq!(behind(store, claim, 2).await, ids[..2]);
    // What goes by REST waits as well, and what has its answer does not.
    store.decide(ids[0], Choice::Rest, at(9)).await.unwrap();
    let apology = Choice::Twiml("apology".to_owned());
    store.decide(ids[1], apology, at(9)).await.unwrap();
    let found = store.behind(claim, 9).await.unwrap();
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

async fn what_was_merged_ends_with_its_message_and_gets_the_empty_answer(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = line(store, 1, 3).await;
    store.decide(ids[1], Choice::Rest, at(5)).await.unwrap();
    let ending = merged(&ids[..2]);
    store
        .answer(claim, Some("all".to_owned()), ending, at(6))
        .await
        .unwrap();
    for number in [2, 3] {
        let again = store.accept(Arc::new(arrival(number))).await.unwrap();
        assert_eq!(again, Acceptance::Answered(Answered::EMPTY));
        let row = shown(store, number).await;
        assert_eq!(row.state, "answered");
        assert!(row.reason.unwrap().contains("with the message before it"));
    }
    let waited = store.turn(ids[0], at(7)).await.unwrap();
    assert_eq!(waited, Turn::Decided(Decision::Answered(Answered::EMPTY)));
    assert!(
        store
            .take_up(9, RETRY, at(7))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
    // The one after them has its turn.
    let next = store.turn(ids[2], at(7)).await.unwrap();
    let Turn::Yours(next) = next else {
        panic!("{next:?}")
    };
    let earlier = store.earlier(next.id, 9).await.unwrap();
    let is_merged: Vec<bool> = earlier.iter().map(|one| one.is_merged).collect();
    assert_eq!(is_merged, [false, true, true]);
}

async fn what_was_merged_ends_with_a_reply_by_rest_too(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = line(store, 1, 2).await;
    store.decide(claim.id, Choice::Rest, at(5)).await.unwrap();
    let finished = store.finish(claim, vec![reply("all")], merged(&ids), at(6));
    assert!(finished.await.unwrap());
    for number in [2, 3] {
        let again = store.accept(Arc::new(arrival(number))).await.unwrap();
        assert_eq!(again, Acceptance::Answered(Answered::EMPTY));
        assert!(shown(store, number).await.replies.is_empty());
    }
    assert_eq!(store.claim(9, at(7)).await.unwrap().len(), 1);
    assert!(
        store
            .take_up(9, RETRY, at(7))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
}

async fn what_was_decided_meanwhile_keeps_its_answer(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = line(store, 1, 1).await;
    let apology = Choice::Twiml("apology".to_owned());
    store.decide(ids[0], apology, at(3)).await.unwrap();
    store
        .answer(claim, Some("all".to_owned()), merged(&ids), at(4))
        .await
        .unwrap();
    let kept = Answered {
        twiml: Some("apology".to_owned()),
    };
    let again = store.accept(Arc::new(arrival(2))).await.unwrap();
    assert_eq!(again, Acceptance::Answered(kept));
}

async fn a_failure_leaves_what_waits_in_line(backend: &mut Backend) {
    let store = backend.store();
    let (claim, ids) = line(store, 1, 2).await;
    assert_eq!(behind(store, claim, 9).await, ids);
    store.fail(claim, "it failed", false).await.unwrap();
    let Turn::Yours(second) = store.turn(ids[0], at(4)).await.unwrap() else {
        panic!("its turn has come")
    };
    assert_eq!(behind(store, second, 9).await, ids[1..]);
}

async fn a_lost_claim_merges_nothing(backend: &mut Backend) {
    let (claim, ids) = line(backend.store(), 1, 2).await;
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    let stale = store.answer(claim, Some("all".to_owned()), merged(&ids), at(5));
    assert_eq!(stale.await.unwrap(), Decision::Lost);
    assert!(
        !store
            .finish(claim, Vec::new(), merged(&ids), at(5))
            .await
            .unwrap()
    );
    // Whoever takes it up finds all that waited with it.
    let taken = store.take_up(9, RETRY, at(6)).await.unwrap().taken;
    assert_eq!(taken.len(), 1);
    let claim = taken[0].claim;
    assert_eq!(behind(store, claim, 9).await, ids);
    let finished = store.finish(claim, vec![reply("all")], merged(&ids), at(7));
    assert!(finished.await.unwrap());
    assert!(
        store
            .take_up(9, RETRY, at(8))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
}
