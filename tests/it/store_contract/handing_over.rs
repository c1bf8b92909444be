//! Hand-overs: begun and continued with an answer, ended by time or by being taken back, and one person's.

use std::sync::Arc;

use replyhook::store::{Choice, Claim, Ending, HandOverChange, Store, Turn};

use super::{
    ANA, ANA_ID, BEN, Backend, RETRY, US, arrival, at, begin, converse, from, over_all_stores,
    reply, shown, waiting,
};

over_all_stores!(
    a_hand_over_begins_with_the_answer_and_every_later_claim_says_so,
    a_hand_over_begins_with_a_reply_by_rest_too_and_says_that_it_did_not_redirect,
    it_lasts_to_its_end_and_is_continued_unless_it_was_taken_back,
    a_lost_claim_hands_over_nothing,
    of_two_conversations_of_one_person_the_longer_hand_over_counts,
    what_is_purged_is_not_handed_over_any_more,
);

const FLOW: &str = "https://flow.example.test/?name=Ana&\u{fc}";

fn until(second: i64) -> Ending {
    Ending {
        hand_over: Some(HandOverChange::Begin {
            to: FLOW.to_owned(),
            until: at(second),
        }),
        ..Ending::default()
    }
}

fn continued(second: i64) -> Ending {
    let until = at(second);
    Ending {
        hand_over: Some(HandOverChange::Continue { until }),
        ..Ending::default()
    }
}

/// Accepts a message and hands over with its answer.
async fn hand_over(store: &dyn Store, claim: Claim, end: i64) {
    let twiml = Some("redirect".to_owned());
    store.answer(claim, twiml, until(end), at(2)).await.unwrap();
}

async fn to(store: &dyn Store, claim: Claim, second: i64) -> Option<String> {
    store
        .handed_over(claim.conversation, at(second))
        .await
        .unwrap()
}

async fn a_hand_over_begins_with_the_answer_and_every_later_claim_says_so(backend: &mut Backend) {
    let store = backend.store();
    let first = begin(store, arrival(1)).await;
    assert!(!first.handed_over);
    let waits = store.accept(Arc::new(arrival(2))).await.unwrap();
    assert_eq!(to(store, first, 2).await, None);
    hand_over(store, first, 100).await;
    assert_eq!(to(store, first, 2).await.as_deref(), Some(FLOW));
    // What has waited, what comes, what was left behind, and what failed.
    let Turn::Yours(second) = store.turn(waiting(&waits), at(3)).await.unwrap() else {
        panic!("its turn has come")
    };
    assert!(second.handed_over);
    store.fail(second, "it failed", false).await.unwrap();
    let again = begin(store, arrival(2)).await;
    assert!(again.handed_over);
    assert!(!begin(store, from(&[BEN], 3)).await.handed_over);
    let waits = store.accept(Arc::new(arrival(4))).await.unwrap();
    let waits = waiting(&waits);
    store.decide(waits, Choice::Rest, at(4)).await.unwrap();
    store
        .answer(again, None, Ending::default(), at(5))
        .await
        .unwrap();
    let taken = store.take_up(9, RETRY, at(6)).await.unwrap().taken;
    assert!(taken[0].claim.handed_over);
    store
        .finish(taken[0].claim, Vec::new(), continued(100), at(6))
        .await
        .unwrap();
    let known = begin(store, arrival(5)).await;
    assert!(known.handed_over);
    store
        .answer(known, None, Ending::default(), at(7))
        .await
        .unwrap();
    if backend.crash().await {
        assert!(begin(backend.store(), arrival(8)).await.handed_over);
    }
}

async fn a_hand_over_begins_with_a_reply_by_rest_too_and_says_that_it_did_not_redirect(
    backend: &mut Backend,
) {
    let store = backend.store();
    let claim = begin(store, arrival(1)).await;
    store.decide(claim.id, Choice::Rest, at(2)).await.unwrap();
    let texts = vec![reply("One moment.")];
    assert!(store.finish(claim, texts, until(100), at(3)).await.unwrap());
    assert_eq!(store.claim(9, at(4)).await.unwrap().len(), 1);
    let row = shown(store, 1).await;
    assert!(row.reason.unwrap().starts_with("it was not redirected"));
    assert_eq!(row.handed_over_until, Some(at(100)));
    assert!(begin(store, arrival(4)).await.handed_over);
}

async fn it_lasts_to_its_end_and_is_continued_unless_it_was_taken_back(backend: &mut Backend) {
    let store = backend.store();
    let first = begin(store, arrival(1)).await;
    hand_over(store, first, 10).await;
    assert!(to(store, first, 9).await.is_some());
    assert!(to(store, first, 10).await.is_none());
    let late = begin(store, arrival(10)).await;
    assert!(!late.handed_over);
    store
        .answer(late, None, continued(100), at(11))
        .await
        .unwrap();
    assert!(to(store, first, 99).await.is_some());
    let next = begin(store, arrival(20)).await;
    assert!(next.handed_over);
    let (us, user) = (US.into(), ANA.into());
    assert_eq!(
        store
            .take_back(Some(&BEN.into()), &user, at(21))
            .await
            .unwrap(),
        0
    );
    assert_eq!(store.take_back(None, &BEN.into(), at(21)).await.unwrap(), 0);
    assert_eq!(store.take_back(Some(&us), &user, at(21)).await.unwrap(), 1);
    assert_eq!(store.take_back(None, &user, at(21)).await.unwrap(), 0);
    store
        .answer(next, None, continued(200), at(22))
        .await
        .unwrap();
    assert!(to(store, first, 23).await.is_none());
    assert_eq!(shown(store, 1).await.handed_over_until, None);
    // It can begin anew.
    let again = begin(store, arrival(30)).await;
    hand_over(store, again, 300).await;
    assert_eq!(store.take_back(None, &user, at(300)).await.unwrap(), 0);
    assert_eq!(store.take_back(None, &user, at(299)).await.unwrap(), 1);
}

async fn a_lost_claim_hands_over_nothing(backend: &mut Backend) {
    let claim = begin(backend.store(), arrival(1)).await;
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    hand_over(store, claim, 100).await;
    assert!(
        !store
            .finish(claim, Vec::new(), until(100), at(3))
            .await
            .unwrap()
    );
    assert_eq!(to(store, claim, 4).await, None);
}

async fn of_two_conversations_of_one_person_the_longer_hand_over_counts(backend: &mut Backend) {
    let store = backend.store();
    let phone = begin(store, from(&[ANA], 1)).await;
    hand_over(store, phone, 50).await;
    let id = begin(store, from(&[ANA_ID], 2)).await;
    store.answer(id, None, until(100), at(3)).await.unwrap();
    let both = begin(store, from(&[ANA, ANA_ID], 4)).await;
    assert!(both.handed_over);
    store
        .answer(both, None, Ending::default(), at(5))
        .await
        .unwrap();
    assert!(begin(store, from(&[ANA], 60)).await.handed_over);
    assert_eq!(shown(store, 2).await.handed_over_until, Some(at(100)));
    assert_eq!(
        store.take_back(None, &ANA_ID.into(), at(61)).await.unwrap(),
        1
    );
    assert_eq!(store.take_back(None, &ANA.into(), at(61)).await.unwrap(), 0);
}

async fn what_is_purged_is_not_handed_over_any_more(backend: &mut Backend) {
    let store = backend.store();
    let claim = begin(store, arrival(1)).await;
    hand_over(store, claim, 100).await;
    store.purge_user(&ANA.into(), false).await.unwrap();
    assert_eq!(to(store, claim, 3).await, None);
    converse(store, arrival(4)).await;
    assert!(!begin(store, arrival(5)).await.handed_over);
}
