//! Reply path of a message: it is decided once, and a lost claim cannot change it.

use std::time::Duration;

use replyhook::Timestamp;
use replyhook::internals::{
    AcceptOutcome, BacklogMessage, Claim, CrashPolicy, DeadMessage, DeadReason, FailOutcome,
    ReplyDecision, ReplyPath, SavedResponse, SendOutcome, Store, TurnStatus,
};

use super::{
    BEN, Backend, Completion, RETRY, accept, accept_claimed, at, claim_backlog, expect_queued,
    inbound_from, message_row, new_inbound, over_all_stores, reply, reply_via_rest, save_twiml,
    sid, stop_keyword, with_keyword,
};

over_all_stores!(
    racing_decisions_choose_one_reply_path,
    reply_path_is_decided_once,
    claim_is_valid_for_its_attempt_only,
    backlog_is_claimed_oldest_first_per_conversation,
    message_claimed_at_crash_follows_crash_policy,
    duplicate_after_crash_claims_message,
    retried_message_after_crash_precedes_newer_message,
    stale_claim_is_released_and_active_claims_remain,
    flushed_fallback_reply_becomes_saved_response,
    closed_store_releases_its_claims,
);

fn saved_response(text: &str) -> SavedResponse {
    SavedResponse {
        twiml: Some(text.to_owned()),
    }
}

async fn racing_decisions_choose_one_reply_path(backend: &mut Backend) {
    for number in 1..=8 {
        let store = backend.shared();
        let claim = accept_claimed(&*store, new_inbound(number)).await;
        let choose = |choice: ReplyPath| {
            let store = backend.shared();
            tokio::spawn(async move { store.decide(claim.id, choice, at(2)).await.unwrap() })
        };
        let answer = {
            let store = backend.shared();
            let answer = Some("answer".to_owned());
            tokio::spawn(async move {
                store
                    .complete_inline(claim, answer, Completion::default(), at(2))
                    .await
                    .unwrap()
            })
        };
        let failure = {
            let store = backend.shared();
            tokio::spawn(async move {
                store
                    .record_failure(claim, "it failed", false, at(0))
                    .await
                    .unwrap()
            })
        };
        let apology = choose(ReplyPath::Twiml("apology".to_owned()));
        let rest = choose(ReplyPath::Rest);
        let (answer, failure) = (answer.await.unwrap(), failure.await.unwrap());
        let (apology, rest) = (apology.await.unwrap(), rest.await.unwrap());
        let end = store
            .decide(claim.id, ReplyPath::Rest, at(3))
            .await
            .unwrap();
        let decisions = [answer, apology.clone(), rest];
        let mut answers: Vec<_> = decisions
            .iter()
            .filter_map(|decision| match decision {
                ReplyDecision::Inline(answered) => Some(answered.clone()),
                _ => None,
            })
            .collect();
        if let FailOutcome::AlreadyAnswered(response) = &failure {
            answers.push(response.clone());
        }
        // All calls that returned a response returned the same one, and it stays saved.
        assert!(
            answers.windows(2).all(|two| two[0] == two[1]),
            "{decisions:?} {failure:?}"
        );
        match end {
            ReplyDecision::Inline(end) => assert!(answers.iter().all(|answered| *answered == end)),
            ReplyDecision::ViaRest => assert!(answers.is_empty(), "{decisions:?}"),
            // Unreachable: `apology` decides TwiML for a failed message too.
            ReplyDecision::ClaimLost => panic!("no decision after {apology:?}"),
        }
        if store
            .claim_backlog(1, RETRY, at(4))
            .await
            .unwrap()
            .messages
            .is_empty()
        {
            let _ = store
                .complete_via_rest(claim, Vec::new(), Completion::default(), at(4))
                .await
                .unwrap();
        }
        assert_ne!(message_row(&*store, number).await.state, "processing");
    }
}

async fn reply_path_is_decided_once(backend: &mut Backend) {
    let store = backend.store();
    let twiml = |text: &str| ReplyPath::Twiml(text.to_owned());
    // TwiML is decided first.
    let claim = accept_claimed(store, new_inbound(1)).await;
    let first = store.decide(claim.id, twiml("late"), at(2)).await.unwrap();
    assert_eq!(first, ReplyDecision::Inline(saved_response("late")));
    for choice in [twiml("later"), ReplyPath::Rest] {
        let decision = store.decide(claim.id, choice, at(3)).await.unwrap();
        assert_eq!(decision, ReplyDecision::Inline(saved_response("late")));
    }
    let answer = save_twiml(store, claim, "mine", at(3)).await;
    assert_eq!(answer, ReplyDecision::Inline(saved_response("late")));
    assert!(
        !store
            .complete_via_rest(claim, vec![reply("mine")], Completion::default(), at(3))
            .await
            .unwrap()
    );
    let failed = store
        .record_failure(claim, "it failed", false, at(0))
        .await
        .unwrap();
    assert_eq!(failed, FailOutcome::AlreadyAnswered(saved_response("late")));
    assert_eq!(store.claim(9, at(4)).await.unwrap().len(), 0);
    // The REST API is decided first.
    let claim = accept_claimed(store, new_inbound(2)).await;
    let first = store
        .decide(claim.id, ReplyPath::Rest, at(2))
        .await
        .unwrap();
    assert_eq!(first, ReplyDecision::ViaRest);
    let decision = store.decide(claim.id, twiml("late"), at(3)).await.unwrap();
    assert_eq!(decision, ReplyDecision::ViaRest);
    let answer = save_twiml(store, claim, "mine", at(3)).await;
    assert_eq!(answer, ReplyDecision::ViaRest);
    assert!(
        store
            .complete_via_rest(claim, vec![reply("mine")], Completion::default(), at(3))
            .await
            .unwrap()
    );
    assert_eq!(store.claim(9, at(4)).await.unwrap().len(), 1);
    // A failed message can still get a TwiML response, but not a deferral. Empty TwiML is the empty response.
    let claim = accept_claimed(store, new_inbound(3)).await;
    let failed = store
        .record_failure(claim, "it failed", false, at(0))
        .await
        .unwrap();
    assert_eq!(failed, FailOutcome::Retryable);
    let rest = store
        .decide(claim.id, ReplyPath::Rest, at(4))
        .await
        .unwrap();
    assert_eq!(rest, ReplyDecision::ClaimLost);
    let nothing = store.decide(claim.id, twiml(""), at(4)).await.unwrap();
    assert_eq!(nothing, ReplyDecision::Inline(SavedResponse::EMPTY));
    // After the decision for the REST API, a failure is final.
    let claim = accept_claimed(store, new_inbound(4)).await;
    store
        .decide(claim.id, ReplyPath::Rest, at(4))
        .await
        .unwrap();
    let failed = store
        .record_failure(claim, "it failed", false, at(0))
        .await
        .unwrap();
    assert_eq!(failed, FailOutcome::Dead);
    assert_eq!(message_row(store, 4).await.state, "dead");
}

async fn claim_is_valid_for_its_attempt_only(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, new_inbound(1)).await;
    store
        .record_failure(first, "it failed", false, at(0))
        .await
        .unwrap();
    let second = accept_claimed(store, new_inbound(1)).await;
    let stale = save_twiml(store, first, "stale", at(3)).await;
    assert_eq!(stale, ReplyDecision::ClaimLost);
    assert!(
        !store
            .complete_via_rest(first, vec![reply("stale")], Completion::default(), at(3))
            .await
            .unwrap()
    );
    assert_eq!(
        store
            .record_failure(first, "stale", true, at(0))
            .await
            .unwrap(),
        FailOutcome::ClaimLost
    );
    let foreign_claim = Claim {
        attempt: 9,
        ..second
    };
    let lost = save_twiml(store, foreign_claim, "stale", at(3)).await;
    assert_eq!(lost, ReplyDecision::ClaimLost);
    let answer = save_twiml(store, second, "fresh", at(3)).await;
    assert_eq!(answer, ReplyDecision::Inline(saved_response("fresh")));
    assert!(store.claim(9, at(4)).await.unwrap().is_empty());
}

fn claim_ids(backlog: &[BacklogMessage]) -> Vec<i64> {
    backlog.iter().map(|message| message.claim.id).collect()
}

async fn decide_rest(store: &dyn Store, id: i64) {
    let decided = store.decide(id, ReplyPath::Rest, at(9)).await.unwrap();
    assert_eq!(decided, ReplyDecision::ViaRest);
}

// A conversation never has two claimed messages.
async fn backlog_is_claimed_oldest_first_per_conversation(backend: &mut Backend) {
    let store = backend.store();
    let running = accept_claimed(store, new_inbound(1)).await;
    let second = expect_queued(&accept(store, new_inbound(2)).await);
    let third = expect_queued(&accept(store, new_inbound(3)).await);
    let bens = accept_claimed(store, inbound_from(&[BEN], 4)).await;
    let bens_second = expect_queued(&accept(store, inbound_from(&[BEN], 5)).await);
    for id in [second, third, bens_second] {
        decide_rest(store, id).await;
    }
    assert!(claim_backlog(store, at(10)).await.is_empty());
    store
        .complete_inline(running, None, Completion::default(), at(10))
        .await
        .unwrap();
    decide_rest(store, bens.id).await;
    // Ben's first message is still running, although deferred, so his second one is not claimed.
    let backlog = claim_backlog(store, at(10)).await;
    assert_eq!(claim_ids(&backlog), [second]);
    assert_eq!((backlog[0].sid, backlog[0].claim.attempt), (sid(2), 1));
    assert_eq!(backlog[0].params.0, "Body=text+2");
    assert_eq!(backlog[0].received_at, at(2));
    store
        .complete_via_rest(bens, Vec::new(), Completion::default(), at(10))
        .await
        .unwrap();
    store
        .complete_via_rest(backlog[0].claim, Vec::new(), Completion::default(), at(10))
        .await
        .unwrap();
    assert_eq!(
        claim_ids(
            &store
                .claim_backlog(1, RETRY, at(10))
                .await
                .unwrap()
                .messages
        ),
        [third]
    );
    assert_eq!(
        claim_ids(
            &store
                .claim_backlog(1, RETRY, at(10))
                .await
                .unwrap()
                .messages
        ),
        [bens_second]
    );
    assert!(
        store
            .claim_backlog(1, RETRY, at(10))
            .await
            .unwrap()
            .messages
            .is_empty()
    );
}

// The policy decides between a retry and a dead message; messages that were only queued are always resumed.
async fn message_claimed_at_crash_follows_crash_policy(backend: &mut Backend) {
    let once = CrashPolicy {
        retry: true,
        max_attempts: 1,
    };
    let never = CrashPolicy {
        retry: false,
        max_attempts: 3,
    };
    let mut number = 0;
    for (policy, is_retried) in [(RETRY, true), (once, false), (never, false)] {
        number += 2;
        let claim = accept_claimed(backend.store(), new_inbound(number)).await;
        let second = expect_queued(&accept(backend.store(), new_inbound(number + 1)).await);
        if !backend.crash().await {
            return;
        }
        let store = backend.store();
        let lost = save_twiml(store, claim, "stale", at(50)).await;
        assert_eq!(lost, ReplyDecision::ClaimLost);
        let backlog = store.claim_backlog(9, policy, at(51)).await.unwrap();
        let (messages, dead) = (backlog.messages, backlog.dead);
        if is_retried {
            assert_eq!(claim_ids(&messages), [claim.id]);
            assert_eq!(messages[0].claim.attempt, 2);
            // A redelivery now gets the empty response, because the reply goes via the REST API.
            let empty = AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY);
            assert_eq!(accept(store, new_inbound(number)).await, empty);
            assert!(
                store
                    .complete_via_rest(messages[0].claim, Vec::new(), Completion::default(), at(52))
                    .await
                    .unwrap()
            );
        } else {
            assert!(messages.is_empty());
            // This call reports the dead message, and the next call does not report it again.
            let crashed = DeadMessage {
                sid: sid(number),
                reason: DeadReason::Crashed,
            };
            assert_eq!(dead, [crashed]);
            let row = message_row(store, number).await;
            assert_eq!(row.state, "dead");
            assert_eq!(
                row.reason.as_deref(),
                Some("the process ended while it was handled")
            );
        }
        // The crash does not count as an attempt of the message that was only queued.
        let backlog = store.claim_backlog(9, policy, at(53)).await.unwrap();
        assert_eq!(backlog.dead, []);
        let messages = backlog.messages;
        assert_eq!(claim_ids(&messages), [second]);
        assert_eq!(messages[0].claim.attempt, 1);
        assert!(
            store
                .complete_via_rest(messages[0].claim, Vec::new(), Completion::default(), at(54))
                .await
                .unwrap()
        );
    }
}

// A redelivery can claim a message of a dead process; without crash retries it gets the final response.
async fn duplicate_after_crash_claims_message(backend: &mut Backend) {
    let claim = accept_claimed(backend.store(), new_inbound(1)).await;
    let second = expect_queued(&accept(backend.store(), new_inbound(2)).await);
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    let redelivery = accept(store, new_inbound(2)).await;
    assert_eq!(expect_queued(&redelivery), second);
    let first = accept_claimed(store, new_inbound(1)).await;
    assert_eq!((first.id, first.attempt), (claim.id, 2));
    assert_eq!(
        store.try_claim(second, at(9)).await.unwrap(),
        TurnStatus::Waiting
    );
    store
        .complete_inline(first, None, Completion::default(), at(9))
        .await
        .unwrap();
    assert!(matches!(
        store.try_claim(second, at(9)).await.unwrap(),
        TurnStatus::Claimed(_)
    ));
    // Without `retry_after_crash`, a redelivery gets the final response.
    let careful = replyhook::internals::NewInbound {
        retry_after_crash: false,
        ..inbound_from(&[BEN], 3)
    };
    accept_claimed(store, careful.clone()).await;
    assert!(backend.crash().await);
    let answered = accept(backend.store(), careful).await;
    assert_eq!(
        answered,
        AcceptOutcome::AlreadyAnswered(saved_response(super::FALLBACK_TWIML))
    );
}

// The newer message was claimed by the process that crashed.
async fn retried_message_after_crash_precedes_newer_message(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, new_inbound(1)).await;
    store
        .record_failure(first, "it failed", true, at(0))
        .await
        .unwrap();
    let second = accept_claimed(store, new_inbound(2)).await;
    assert!(store.retry(sid(1), at(3)).await.unwrap());
    assert!(claim_backlog(store, at(3)).await.is_empty());
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    for id in [first.id, second.id] {
        let backlog = claim_backlog(store, at(4)).await;
        assert_eq!(claim_ids(&backlog), [id]);
        store
            .complete_via_rest(backlog[0].claim, Vec::new(), Completion::default(), at(4))
            .await
            .unwrap();
    }
}

async fn stale_claim_is_released_and_active_claims_remain(backend: &mut Backend) {
    let store = backend.store();
    let kept = accept_claimed(store, new_inbound(1)).await;
    let lost = accept_claimed(store, inbound_from(&[BEN], 2)).await;
    let young = accept_claimed(store, inbound_from(&["whatsapp:+15550005555"], 30)).await;
    assert_eq!(
        store
            .release_stale_claims(vec![kept.id], at(20))
            .await
            .unwrap(),
        1
    );
    let backlog = claim_backlog(store, at(40)).await;
    assert_eq!(claim_ids(&backlog), [lost.id]);
    // The released claim is invalid. The other claims are still valid.
    assert!(
        !store
            .complete_via_rest(lost, Vec::new(), Completion::default(), at(41))
            .await
            .unwrap()
    );
    for claim in [kept, young, backlog[0].claim] {
        assert!(
            store
                .complete_via_rest(claim, Vec::new(), Completion::default(), at(41))
                .await
                .unwrap()
        );
    }
}

// A response saved earlier wins, a running handler loses its claim, and a message without fallback text joins the
// backlog.
async fn flushed_fallback_reply_becomes_saved_response(backend: &mut Backend) {
    let store = backend.store();
    let apology = || Some("apology".to_owned());
    // The message is new.
    store
        .backfill(std::sync::Arc::new(new_inbound(1)), apology())
        .await
        .unwrap();
    let redelivery = accept(store, new_inbound(1)).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(saved_response("apology"))
    );
    // Its handler is still running, and loses its claim.
    let claim = accept_claimed(store, new_inbound(2)).await;
    store
        .backfill(std::sync::Arc::new(new_inbound(2)), apology())
        .await
        .unwrap();
    assert!(
        !store
            .complete_via_rest(claim, vec![reply("late")], Completion::default(), at(3))
            .await
            .unwrap()
    );
    // The message already has a saved response.
    let claim = accept_claimed(store, new_inbound(3)).await;
    save_twiml(store, claim, "first", at(3)).await;
    store
        .backfill(std::sync::Arc::new(new_inbound(3)), apology())
        .await
        .unwrap();
    let redelivery = accept(store, new_inbound(3)).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(saved_response("first"))
    );
    // Without a fallback reply the message joins the backlog. A second backfill leaves its claim valid.
    store
        .backfill(std::sync::Arc::new(new_inbound(4)), None)
        .await
        .unwrap();
    let backlog = claim_backlog(store, at(5)).await;
    assert_eq!(
        (backlog.len(), backlog[0].sid, backlog[0].claim.attempt),
        (1, sid(4), 1)
    );
    store
        .backfill(std::sync::Arc::new(new_inbound(4)), None)
        .await
        .unwrap();
    assert!(
        store
            .complete_via_rest(backlog[0].claim, Vec::new(), Completion::default(), at(5))
            .await
            .unwrap()
    );
    // A backfilled keyword changes consent too.
    store
        .backfill(
            std::sync::Arc::new(with_keyword(stop_keyword(), new_inbound(5))),
            None,
        )
        .await
        .unwrap();
    assert_eq!(accept(store, new_inbound(6)).await, AcceptOutcome::OptedOut);
}

async fn closed_store_releases_its_claims(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    reply_via_rest(store, inbound_from(&[BEN], 2), &["text"]).await;
    let sending = store.claim(1, at(3)).await.unwrap().pop().unwrap();
    store.close().await.unwrap();
    assert_eq!(message_row(store, 1).await.state, "received");
    assert!(
        !store
            .complete_via_rest(claim, Vec::new(), Completion::default(), at(4))
            .await
            .unwrap()
    );
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    let backlog = claim_backlog(store, at(5)).await;
    // `close` released the claim, so the message was not claimed at the crash.
    assert_eq!(
        (claim_ids(&backlog), backlog[0].claim.attempt),
        (vec![claim.id], 2)
    );
    let later = |seconds: u64| -> Timestamp { at(5) + Duration::from_secs(seconds) };
    assert!(store.claim(9, at(5)).await.unwrap().is_empty());
    let lost = store.claim_lookups(9, later(2)).await.unwrap();
    assert_eq!(
        lost.iter().map(|message| message.id).collect::<Vec<_>>(),
        [sending.id]
    );
    let outcome = SendOutcome::Held;
    store
        .record_outcome(sending.id, outcome, later(3))
        .await
        .unwrap();
    assert_eq!(message_row(store, 2).await.state, "held");
}
