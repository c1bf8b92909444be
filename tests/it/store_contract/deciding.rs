//! One message, one carrier; and who has lost a message cannot write.

use std::time::Duration;

use replyhook::Timestamp;
use replyhook::store::{
    Acceptance, Answered, Choice, Claim, CrashPolicy, DeadMessage, DeadReason, Decision,
    Settlement, Store, Taken, Turn,
};

use super::{
    BEN, Backend, Ending, RETRY, arrival, at, begin, defer, from, over_all_stores, reply, saying,
    shown, sid, stop, waiting,
};

over_all_stores!(
    of_racing_deciders_one_chooses_the_carrier,
    a_carrier_is_decided_once,
    a_claim_counts_once_and_for_its_attempt_only,
    what_is_deferred_is_taken_up_oldest_first_and_one_of_a_conversation,
    what_a_dead_process_held_is_taken_up_or_dies_as_the_policy_says,
    what_a_dead_process_waited_with_is_taken_over_by_a_repeat,
    an_older_message_does_not_wait_for_what_a_dead_process_held,
    what_is_let_go_is_free_and_what_is_held_is_not,
    what_was_said_in_an_outage_is_the_answer,
    a_closed_store_holds_nothing,
);

fn said(text: &str) -> Answered {
    Answered {
        twiml: Some(text.to_owned()),
    }
}

async fn of_racing_deciders_one_chooses_the_carrier(backend: &mut Backend) {
    for number in 1..=8 {
        let store = backend.shared();
        let claim = begin(&*store, arrival(number)).await;
        let choose = |choice: Choice| {
            let store = backend.shared();
            tokio::spawn(async move { store.decide(claim.id, choice, at(2)).await.unwrap() })
        };
        let answer = {
            let store = backend.shared();
            let answer = Some("answer".to_owned());
            tokio::spawn(async move {
                store
                    .answer(claim, answer, Ending::default(), at(2))
                    .await
                    .unwrap()
            })
        };
        let failure = {
            let store = backend.shared();
            tokio::spawn(async move { store.fail(claim, "it failed", false).await.unwrap() })
        };
        let apology = choose(Choice::Twiml("apology".to_owned()));
        let rest = choose(Choice::Rest);
        let (answer, failure) = (answer.await.unwrap(), failure.await.unwrap());
        let (apology, rest) = (apology.await.unwrap(), rest.await.unwrap());
        let end = store.decide(claim.id, Choice::Rest, at(3)).await.unwrap();
        let told = [answer, apology.clone(), rest];
        let answers: Vec<_> = told
            .iter()
            .filter_map(|decision| match decision {
                Decision::Answered(answered) => Some(answered.clone()),
                _ => None,
            })
            .collect();
        // Everyone who was told an answer was told the same one, and it is what stays.
        assert!(
            answers.windows(2).all(|two| two[0] == two[1]),
            "{told:?} {failure:?}"
        );
        match end {
            Decision::Answered(end) => assert!(answers.iter().all(|answered| *answered == end)),
            Decision::Deferred => assert!(answers.is_empty(), "{told:?}"),
            // It failed, and whoever chose TwiML came before that or not at all.
            Decision::Lost => panic!("{apology:?} overrules a failure"),
        }
        if store
            .take_up(1, RETRY, at(4))
            .await
            .unwrap()
            .taken
            .is_empty()
        {
            let _ = store
                .finish(claim, Vec::new(), Ending::default(), at(4))
                .await
                .unwrap();
        }
        assert_ne!(shown(&*store, number).await.state, "processing");
    }
}

async fn a_carrier_is_decided_once(backend: &mut Backend) {
    let store = backend.store();
    let twiml = |text: &str| Choice::Twiml(text.to_owned());
    // TwiML first.
    let claim = begin(store, arrival(1)).await;
    let first = store.decide(claim.id, twiml("late"), at(2)).await.unwrap();
    assert_eq!(first, Decision::Answered(said("late")));
    for choice in [twiml("later"), Choice::Rest] {
        let again = store.decide(claim.id, choice, at(3)).await.unwrap();
        assert_eq!(again, Decision::Answered(said("late")));
    }
    let answer = store
        .answer(claim, Some("mine".to_owned()), Ending::default(), at(3))
        .await
        .unwrap();
    assert_eq!(answer, Decision::Answered(said("late")));
    assert!(
        !store
            .finish(claim, vec![reply("mine")], Ending::default(), at(3))
            .await
            .unwrap()
    );
    let failed = store.fail(claim, "it failed", false).await.unwrap();
    assert_eq!(failed, Decision::Answered(said("late")));
    assert_eq!(store.claim(9, at(4)).await.unwrap().len(), 0);
    // REST first.
    let claim = begin(store, arrival(2)).await;
    let first = store.decide(claim.id, Choice::Rest, at(2)).await.unwrap();
    assert_eq!(first, Decision::Deferred);
    let again = store.decide(claim.id, twiml("late"), at(3)).await.unwrap();
    assert_eq!(again, Decision::Deferred);
    let answer = store
        .answer(claim, Some("mine".to_owned()), Ending::default(), at(3))
        .await
        .unwrap();
    assert_eq!(answer, Decision::Deferred);
    assert!(
        store
            .finish(claim, vec![reply("mine")], Ending::default(), at(3))
            .await
            .unwrap()
    );
    assert_eq!(store.claim(9, at(4)).await.unwrap().len(), 1);
    // Nothing is the empty answer; a failure can still be apologised for, and not deferred.
    let claim = begin(store, arrival(3)).await;
    store.fail(claim, "it failed", false).await.unwrap();
    let rest = store.decide(claim.id, Choice::Rest, at(4)).await.unwrap();
    assert_eq!(rest, Decision::Lost);
    let nothing = store.decide(claim.id, twiml(""), at(4)).await.unwrap();
    assert_eq!(nothing, Decision::Answered(Answered::EMPTY));
    // What REST carries fails for good.
    let claim = begin(store, arrival(4)).await;
    store.decide(claim.id, Choice::Rest, at(4)).await.unwrap();
    let failed = store.fail(claim, "it failed", false).await.unwrap();
    assert_eq!(failed, Decision::Deferred);
    assert_eq!(shown(store, 4).await.state, "dead");
}

async fn a_claim_counts_once_and_for_its_attempt_only(backend: &mut Backend) {
    let store = backend.store();
    let first = begin(store, arrival(1)).await;
    store.fail(first, "it failed", false).await.unwrap();
    let second = begin(store, arrival(1)).await;
    let stale = store
        .answer(first, Some("stale".to_owned()), Ending::default(), at(3))
        .await
        .unwrap();
    assert_eq!(stale, Decision::Lost);
    assert!(
        !store
            .finish(first, vec![reply("stale")], Ending::default(), at(3))
            .await
            .unwrap()
    );
    assert_eq!(
        store.fail(first, "stale", true).await.unwrap(),
        Decision::Lost
    );
    let stranger = Claim {
        attempt: 9,
        ..second
    };
    let lost = store
        .answer(stranger, Some("stale".to_owned()), Ending::default(), at(3))
        .await
        .unwrap();
    assert_eq!(lost, Decision::Lost);
    let answer = store
        .answer(second, Some("fresh".to_owned()), Ending::default(), at(3))
        .await
        .unwrap();
    assert_eq!(answer, Decision::Answered(said("fresh")));
    assert!(store.claim(9, at(4)).await.unwrap().is_empty());
}

fn ids(taken: &[Taken]) -> Vec<i64> {
    taken.iter().map(|taken| taken.claim.id).collect()
}

async fn put_off(store: &dyn Store, id: i64) {
    let decided = store.decide(id, Choice::Rest, at(9)).await.unwrap();
    assert_eq!(decided, Decision::Deferred);
}

async fn what_is_deferred_is_taken_up_oldest_first_and_one_of_a_conversation(
    backend: &mut Backend,
) {
    let store = backend.store();
    let running = begin(store, arrival(1)).await;
    let second = waiting(&store.accept(std::sync::Arc::new(arrival(2))).await.unwrap());
    let third = waiting(&store.accept(std::sync::Arc::new(arrival(3))).await.unwrap());
    let bens = begin(store, from(&[BEN], 4)).await;
    let bens_second = waiting(
        &store
            .accept(std::sync::Arc::new(from(&[BEN], 5)))
            .await
            .unwrap(),
    );
    for id in [second, third, bens_second] {
        put_off(store, id).await;
    }
    assert!(
        store
            .take_up(9, RETRY, at(10))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
    store
        .answer(running, None, Ending::default(), at(10))
        .await
        .unwrap();
    put_off(store, bens.id).await;
    // Ben's first runs on, deferred or not.
    let taken = store.take_up(9, RETRY, at(10)).await.unwrap().taken;
    assert_eq!(ids(&taken), [second]);
    assert_eq!((taken[0].sid, taken[0].claim.attempt), (sid(2), 1));
    assert_eq!(taken[0].params.0, "Body=text+2");
    assert_eq!(taken[0].received_at, at(2));
    store
        .finish(bens, Vec::new(), Ending::default(), at(10))
        .await
        .unwrap();
    store
        .finish(taken[0].claim, Vec::new(), Ending::default(), at(10))
        .await
        .unwrap();
    assert_eq!(
        ids(&store.take_up(1, RETRY, at(10)).await.unwrap().taken),
        [third]
    );
    assert_eq!(
        ids(&store.take_up(1, RETRY, at(10)).await.unwrap().taken),
        [bens_second]
    );
    assert!(
        store
            .take_up(1, RETRY, at(10))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
}

async fn what_a_dead_process_held_is_taken_up_or_dies_as_the_policy_says(backend: &mut Backend) {
    let once = CrashPolicy {
        retry: true,
        attempts: 1,
    };
    let never = CrashPolicy {
        retry: false,
        attempts: 3,
    };
    let mut number = 0;
    for (policy, taken_up) in [(RETRY, true), (once, false), (never, false)] {
        number += 2;
        let claim = begin(backend.store(), arrival(number)).await;
        let second = waiting(
            &backend
                .store()
                .accept(std::sync::Arc::new(arrival(number + 1)))
                .await
                .unwrap(),
        );
        if !backend.crash().await {
            return;
        }
        let store = backend.store();
        let lost = store
            .answer(claim, Some("stale".to_owned()), Ending::default(), at(50))
            .await
            .unwrap();
        assert_eq!(lost, Decision::Lost);
        let left = store.take_up(9, policy, at(51)).await.unwrap();
        let (taken, dead) = (left.taken, left.dead);
        if taken_up {
            assert_eq!(ids(&taken), [claim.id]);
            assert_eq!(taken[0].claim.attempt, 2);
            // A request that comes meanwhile gets nothing: REST carries the answer.
            let empty = Acceptance::Answered(Answered::EMPTY);
            assert_eq!(
                store
                    .accept(std::sync::Arc::new(arrival(number)))
                    .await
                    .unwrap(),
                empty
            );
            assert!(
                store
                    .finish(taken[0].claim, Vec::new(), Ending::default(), at(52))
                    .await
                    .unwrap()
            );
        } else {
            assert!(taken.is_empty());
            // Only this call says so, and the count agrees.
            let crashed = DeadMessage {
                sid: sid(number),
                reason: DeadReason::Crashed,
            };
            assert_eq!(dead, [crashed]);
            let row = shown(store, number).await;
            assert_eq!(row.state, "dead");
            assert_eq!(
                row.reason.as_deref(),
                Some("the process ended while it was handled")
            );
        }
        // What had only waited is not to blame.
        let left = store.take_up(9, policy, at(53)).await.unwrap();
        assert_eq!(left.dead, []);
        let taken = left.taken;
        assert_eq!(ids(&taken), [second]);
        assert_eq!(taken[0].claim.attempt, 1);
        assert!(
            store
                .finish(taken[0].claim, Vec::new(), Ending::default(), at(54))
                .await
                .unwrap()
        );
    }
}

async fn what_a_dead_process_waited_with_is_taken_over_by_a_repeat(backend: &mut Backend) {
    let claim = begin(backend.store(), arrival(1)).await;
    let second = waiting(
        &backend
            .store()
            .accept(std::sync::Arc::new(arrival(2)))
            .await
            .unwrap(),
    );
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    let again = store.accept(std::sync::Arc::new(arrival(2))).await.unwrap();
    assert_eq!(waiting(&again), second);
    let first = begin(store, arrival(1)).await;
    assert_eq!((first.id, first.attempt), (claim.id, 2));
    assert_eq!(store.turn(second, at(9)).await.unwrap(), Turn::Wait);
    store
        .answer(first, None, Ending::default(), at(9))
        .await
        .unwrap();
    assert!(matches!(
        store.turn(second, at(9)).await.unwrap(),
        Turn::Yours(_)
    ));
    // Where crashes are not retried, a repeat gets the last answer.
    let careful = replyhook::store::Arrival {
        retry_crashed: false,
        ..from(&[BEN], 3)
    };
    begin(store, careful.clone()).await;
    assert!(backend.crash().await);
    let answered = backend
        .store()
        .accept(std::sync::Arc::new(careful))
        .await
        .unwrap();
    assert_eq!(answered, Acceptance::Answered(said(super::APOLOGY)));
}

async fn an_older_message_does_not_wait_for_what_a_dead_process_held(backend: &mut Backend) {
    let store = backend.store();
    let first = begin(store, arrival(1)).await;
    store.fail(first, "it failed", true).await.unwrap();
    let second = begin(store, arrival(2)).await;
    assert!(store.retry(sid(1), at(3)).await.unwrap());
    assert!(
        store
            .take_up(9, RETRY, at(3))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    for id in [first.id, second.id] {
        let taken = store.take_up(9, RETRY, at(4)).await.unwrap().taken;
        assert_eq!(ids(&taken), [id]);
        store
            .finish(taken[0].claim, Vec::new(), Ending::default(), at(4))
            .await
            .unwrap();
    }
}

async fn what_is_let_go_is_free_and_what_is_held_is_not(backend: &mut Backend) {
    let store = backend.store();
    let kept = begin(store, arrival(1)).await;
    let lost = begin(store, from(&[BEN], 2)).await;
    let young = begin(store, from(&["whatsapp:+15550005555"], 30)).await;
    assert_eq!(store.let_go(vec![kept.id], at(20)).await.unwrap(), 1);
    let taken = store.take_up(9, RETRY, at(40)).await.unwrap().taken;
    assert_eq!(ids(&taken), [lost.id]);
    // The claim that was lost does not count any more, those that are held do.
    assert!(
        !store
            .finish(lost, Vec::new(), Ending::default(), at(41))
            .await
            .unwrap()
    );
    for claim in [kept, young, taken[0].claim] {
        assert!(
            store
                .finish(claim, Vec::new(), Ending::default(), at(41))
                .await
                .unwrap()
        );
    }
}

async fn what_was_said_in_an_outage_is_the_answer(backend: &mut Backend) {
    let store = backend.store();
    let apology = || Some("apology".to_owned());
    // Nobody knew it.
    store
        .enter(std::sync::Arc::new(arrival(1)), apology())
        .await
        .unwrap();
    let again = store.accept(std::sync::Arc::new(arrival(1))).await.unwrap();
    assert_eq!(again, Acceptance::Answered(said("apology")));
    // Its handler still runs: it has lost.
    let claim = begin(store, arrival(2)).await;
    store
        .enter(std::sync::Arc::new(arrival(2)), apology())
        .await
        .unwrap();
    assert!(
        !store
            .finish(claim, vec![reply("late")], Ending::default(), at(3))
            .await
            .unwrap()
    );
    // It had been answered before.
    let claim = begin(store, arrival(3)).await;
    store
        .answer(claim, Some("first".to_owned()), Ending::default(), at(3))
        .await
        .unwrap();
    store
        .enter(std::sync::Arc::new(arrival(3)), apology())
        .await
        .unwrap();
    let again = store.accept(std::sync::Arc::new(arrival(3))).await.unwrap();
    assert_eq!(again, Acceptance::Answered(said("first")));
    // Nothing was said: it is left to be handled, and one that is being handled stays so.
    store
        .enter(std::sync::Arc::new(arrival(4)), None)
        .await
        .unwrap();
    let taken = store.take_up(9, RETRY, at(5)).await.unwrap().taken;
    assert_eq!(
        (taken.len(), taken[0].sid, taken[0].claim.attempt),
        (1, sid(4), 1)
    );
    store
        .enter(std::sync::Arc::new(arrival(4)), None)
        .await
        .unwrap();
    assert!(
        store
            .finish(taken[0].claim, Vec::new(), Ending::default(), at(5))
            .await
            .unwrap()
    );
    // A word counts also then.
    store
        .enter(std::sync::Arc::new(saying(stop(), arrival(5))), None)
        .await
        .unwrap();
    assert_eq!(
        store.accept(std::sync::Arc::new(arrival(6))).await.unwrap(),
        Acceptance::OptedOut
    );
}

async fn a_closed_store_holds_nothing(backend: &mut Backend) {
    let store = backend.store();
    let claim = begin(store, arrival(1)).await;
    defer(store, from(&[BEN], 2), &["text"]).await;
    let sending = store.claim(1, at(3)).await.unwrap().pop().unwrap();
    store.close().await.unwrap();
    assert_eq!(shown(store, 1).await.state, "received");
    assert!(
        !store
            .finish(claim, Vec::new(), Ending::default(), at(4))
            .await
            .unwrap()
    );
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    let taken = store.take_up(9, RETRY, at(5)).await.unwrap().taken;
    // It was not a crash: it had been let go.
    assert_eq!((ids(&taken), taken[0].claim.attempt), (vec![claim.id], 2));
    let later = |seconds: u64| -> Timestamp { at(5) + Duration::from_secs(seconds) };
    assert!(store.claim(9, at(5)).await.unwrap().is_empty());
    let lost = store.unknown(9, later(2)).await.unwrap();
    assert_eq!(
        lost.iter().map(|message| message.id).collect::<Vec<_>>(),
        [sending.id]
    );
    let settlement = Settlement::Held;
    store
        .settle(sending.id, settlement, later(3))
        .await
        .unwrap();
    assert_eq!(shown(store, 2).await.state, "held");
}
