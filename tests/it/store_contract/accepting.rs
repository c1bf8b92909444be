//! A message is kept once, however often and from wherever it comes.

use std::task::Poll;

use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{
    Acceptance, Access, Answered, Arrival, Claim, ConsentAction, ConsentHow, ConsentRecord,
    ConsentScope, Decision, DialogueChange, MessageFilter, Store, StoreErrorKind, Turn,
};
use replyhook::{Address, Form};

use super::{
    ANA, APOLOGY, BEN, Backend, Ending, US, arrival, at, begin, claimed, converse, from,
    over_all_stores, reply, saying, shown, stop,
};

over_all_stores!(
    a_message_is_new_then_in_progress_then_answered_with_the_saved_text,
    a_message_without_an_answer_is_answered_with_nothing_again,
    the_same_sid_of_another_account_is_another_message,
    a_duplicate_neither_opens_the_window_nor_changes_consent,
    of_racing_duplicates_one_wins,
    of_racing_first_messages_of_a_user_one_goes_first_and_all_share_a_conversation,
    of_racing_messages_in_a_known_conversation_one_goes_first,
    a_failed_message_is_attempted_again_until_its_last_answer,
    a_last_answer_of_nothing_is_the_empty_response,
    a_message_that_is_deferred_or_done_is_answered_with_nothing,
    every_text_comes_back_as_it_was_given,
);

async fn a_message_is_new_then_in_progress_then_answered_with_the_saved_text(
    backend: &mut Backend,
) {
    let store = backend.store();
    let claim = begin(store, arrival(1)).await;
    assert_eq!((claim.attempt, claim.failed_before), (1, false));
    let again = store.accept(std::sync::Arc::new(arrival(1))).await.unwrap();
    assert_eq!(again, Acceptance::InProgress { id: claim.id });
    let answered = Answered {
        twiml: Some("<Response><Message>\u{1F980} \"it's\" & ünï</Message></Response>".to_owned()),
    };
    let decision = store
        .answer(claim, answered.twiml.clone(), Ending::default(), at(2))
        .await
        .unwrap();
    assert_eq!(decision, Decision::Answered(answered.clone()));
    for _ in 0..2 {
        let again = store.accept(std::sync::Arc::new(arrival(1))).await.unwrap();
        assert_eq!(again, Acceptance::Answered(answered.clone()));
    }
}

async fn a_message_without_an_answer_is_answered_with_nothing_again(backend: &mut Backend) {
    let store = backend.store();
    let claim = begin(store, arrival(1)).await;
    store
        .answer(claim, None, Ending::default(), at(2))
        .await
        .unwrap();
    let again = store.accept(std::sync::Arc::new(arrival(1))).await.unwrap();
    assert_eq!(again, Acceptance::Answered(Answered::EMPTY));
}

async fn the_same_sid_of_another_account_is_another_message(backend: &mut Backend) {
    let store = backend.store();
    let first = begin(store, from(&[ANA], 1)).await;
    let other = Arrival {
        account: "AC00000000000000000000000000000002".parse().unwrap(),
        ..from(&[BEN], 1)
    };
    assert_ne!(begin(store, other).await.id, first.id);
}

async fn a_duplicate_neither_opens_the_window_nor_changes_consent(backend: &mut Backend) {
    let store = backend.store();
    let (us, ana) = (Address::from(US), Address::from(ANA));
    let claim = begin(store, arrival(1)).await;
    store
        .answer(claim, None, Ending::default(), at(2))
        .await
        .unwrap();
    let late = Arrival {
        at: at(5000),
        ..saying(stop(), arrival(1))
    };
    let again = store.accept(std::sync::Arc::new(late)).await.unwrap();
    assert_eq!(again, Acceptance::Answered(Answered::EMPTY));
    let conversation = store.conversation(&us, &ana).await.unwrap().unwrap();
    assert_eq!(conversation.last_inbound, Some(at(1)));
    let consent = store.consent(vec![ConsentScope::Sender(us)], &ana);
    assert_eq!(consent.await.unwrap().opted_out, None);
}

async fn of_racing_duplicates_one_wins(backend: &mut Backend) {
    // Once as the first message of a user, once in a conversation that is known.
    for (number, user) in [(1, ANA), (2, ANA), (3, BEN)] {
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let store = backend.shared();
                tokio::spawn(async move {
                    store
                        .accept(std::sync::Arc::new(from(&[user], number)))
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut winner = None;
        let mut others = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Acceptance::New(claim) => assert!(winner.replace(claim).is_none(), "two winners"),
                Acceptance::InProgress { id } => others.push(id),
                other => panic!("{other:?}"),
            }
        }
        let winner = winner.unwrap();
        assert_eq!(others, vec![winner.id; 31]);
        let store = backend.store();
        store
            .answer(winner, None, Ending::default(), at(9))
            .await
            .unwrap();
    }
}

/// Messages of Ana's that come at once: the one that goes first, and those that wait.
async fn race(backend: &Backend, numbers: std::ops::Range<u64>) -> (Claim, Vec<(i64, i64)>) {
    let tasks: Vec<_> = numbers
        .map(|number| {
            let store = backend.shared();
            tokio::spawn(async move {
                store
                    .accept(std::sync::Arc::new(arrival(number)))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut first = None;
    let mut waiting = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Acceptance::New(claim) => assert!(first.replace(claim).is_none(), "two go first"),
            Acceptance::Waiting {
                id, conversation, ..
            } => waiting.push((id, conversation)),
            other => panic!("{other:?}"),
        }
    }
    (first.unwrap(), waiting)
}

async fn of_racing_first_messages_of_a_user_one_goes_first_and_all_share_a_conversation(
    backend: &mut Backend,
) {
    let (first, waiting) = race(backend, 1..17).await;
    assert_eq!(waiting.len(), 15);
    assert!(
        waiting
            .iter()
            .all(|(id, conversation)| *id > first.id && *conversation == first.conversation)
    );
}

async fn of_racing_messages_in_a_known_conversation_one_goes_first(backend: &mut Backend) {
    let store = backend.store();
    converse(store, arrival(1)).await;
    for round in 1..=10 {
        // One that failed is tried again at the same time.
        let failed = begin(store, arrival(100 * round)).await;
        store
            .fail(failed, "the handler failed", false)
            .await
            .unwrap();
        let (first, waiting) = race(backend, 100 * round..100 * round + 9).await;
        assert_eq!(waiting.len(), 8);
        let mut left: Vec<i64> = waiting.iter().map(|(id, _)| *id).collect();
        left.sort_unstable();
        store
            .answer(first, None, Ending::default(), at(3))
            .await
            .unwrap();
        for id in left {
            let Turn::Yours(claim) = store.turn(id, at(3)).await.unwrap() else {
                panic!("the turn of {id} has come")
            };
            store
                .answer(claim, None, Ending::default(), at(3))
                .await
                .unwrap();
        }
    }
}

async fn a_failed_message_is_attempted_again_until_its_last_answer(backend: &mut Backend) {
    let store = backend.store();
    let mut claim = begin(store, arrival(1)).await;
    for attempt in 2..=3 {
        let failed = store.fail(claim, "the handler failed", false).await;
        assert_eq!(failed.unwrap(), Decision::Lost);
        assert_eq!(shown(store, 1).await.state, "failed");
        claim = begin(store, arrival(1)).await;
        assert_eq!((claim.attempt, claim.failed_before), (attempt, true));
    }
    store
        .fail(claim, "the handler failed", false)
        .await
        .unwrap();
    let last = Acceptance::Answered(Answered {
        twiml: Some(APOLOGY.to_owned()),
    });
    for _ in 0..2 {
        assert_eq!(
            store.accept(std::sync::Arc::new(arrival(1))).await.unwrap(),
            last
        );
    }
    assert_eq!(shown(store, 1).await.state, "answered");
}

async fn a_last_answer_of_nothing_is_the_empty_response(backend: &mut Backend) {
    let store = backend.store();
    let silent = Arrival {
        attempts: 1,
        last_answer: String::new(),
        ..arrival(1)
    };
    let claim = begin(store, silent.clone()).await;
    store
        .fail(claim, "the handler failed", false)
        .await
        .unwrap();
    for _ in 0..2 {
        let answered = store
            .accept(std::sync::Arc::new(silent.clone()))
            .await
            .unwrap();
        assert_eq!(answered, Acceptance::Answered(Answered::EMPTY));
    }
}

async fn a_message_that_is_deferred_or_done_is_answered_with_nothing(backend: &mut Backend) {
    let store = backend.store();
    let claim = begin(store, arrival(1)).await;
    let empty = Acceptance::Answered(Answered::EMPTY);
    let rest = replyhook::store::Choice::Rest;
    store.decide(claim.id, rest, at(2)).await.unwrap();
    assert_eq!(
        store.accept(std::sync::Arc::new(arrival(1))).await.unwrap(),
        empty
    );
    assert!(
        store
            .finish(claim, vec![reply("later")], Ending::default(), at(3))
            .await
            .unwrap()
    );
    assert_eq!(
        store.accept(std::sync::Arc::new(arrival(1))).await.unwrap(),
        empty
    );
    let claim = begin(store, arrival(2)).await;
    store.fail(claim, "it cannot be read", true).await.unwrap();
    assert_eq!(
        store.accept(std::sync::Arc::new(arrival(2))).await.unwrap(),
        empty
    );
}

async fn every_text_comes_back_as_it_was_given(backend: &mut Backend) {
    let store = backend.store();
    let nasty = "\0 \u{1} \u{1}0 \u{1F980}\u{10FFFF} '\"\\ %_ \r\n\t $1 ?1 ünï";
    let (us, user) = (
        Address::from(format!("whatsapp:us{nasty}")),
        Address::from(format!("whatsapp:{nasty}")),
    );
    let params: Form = [("Body", nasty), (nasty, "")].into_iter().collect();
    let strange = Arrival {
        us: us.clone(),
        user: vec![user.clone()],
        params: params.encode(),
        ..arrival(1)
    };
    let claim = claimed(
        &store
            .accept(std::sync::Arc::new(strange.clone()))
            .await
            .unwrap(),
    );
    let answer = Some(format!("<Response>{nasty}</Response>"));
    let dialogue = DialogueChange::Set {
        data: nasty.to_owned(),
        expires_at: None,
    };
    store
        .answer(claim, answer.clone(), dialogue.into(), at(2))
        .await
        .unwrap();
    assert_eq!(
        store.accept(std::sync::Arc::new(strange)).await.unwrap(),
        Acceptance::Answered(Answered { twiml: answer })
    );
    let conversation = store.conversation(&us, &user).await.unwrap().unwrap();
    assert_eq!(conversation.id, claim.conversation);
    let dialogue = store.dialogue(claim.conversation, at(3)).await.unwrap();
    assert_eq!(dialogue.unwrap().0, nasty);
    let row = shown(store, 1).await;
    assert_eq!(row.user, Some(user.clone()));
    assert_eq!(row.params.unwrap().0, params.encode());
    let of_user = MessageFilter {
        user: Some(user.clone()),
        limit: 9,
        ..MessageFilter::default()
    };
    assert_eq!(store.messages(of_user).await.unwrap().len(), 1);

    let record = ConsentRecord {
        scope: ConsentScope::Sender(us.clone()),
        user: user.clone(),
        action: ConsentAction::OptIn,
        how: ConsentHow::Operator,
        evidence: None,
        note: Some(nasty.to_owned()),
        at: at(4),
    };
    store.record_consent(record).await.unwrap();
    let ledger = store.consent_ledger(0, 10).await.unwrap();
    assert_eq!(ledger[0].record.note.as_deref(), Some(nasty));
    assert_eq!(ledger[0].record.user, user);
    assert_eq!(ledger[0].record.scope, ConsentScope::Sender(us.clone()));

    let out = replyhook::store::NewReply {
        us: us.clone(),
        user: user.clone(),
        params: params.clone(),
        ..reply("")
    };
    store.enqueue(vec![out], at(5)).await.unwrap();
    let sent = store.claim(1, at(5)).await.unwrap().pop().unwrap();
    assert_eq!((&sent.us, &sent.user), (&us, &user));
    assert_eq!(sent.params, params);
    assert!(sent.opted_in && sent.window.is_some());
    let purged = store.purge_user(&user, true).await.unwrap();
    assert_eq!(
        (purged.messages, purged.replies, purged.consents),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn threat_56_what_a_file_cannot_be_given_is_refused_at_once_and_what_waits_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    SqliteStore::file(&path).open(Access::Owner).await.unwrap();
    // An operator's has more patience than the test needs.
    let store = SqliteStore::file(&path);
    store.open(Access::Operator).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = Vec::new();
    let refusal = loop {
        assert!(waiting.len() < 100_000, "it takes everything");
        let mut write = store.check();
        match futures_util::poll!(&mut write) {
            Poll::Ready(outcome) => break outcome.unwrap_err(),
            Poll::Pending => waiting.push(write),
        }
    };
    assert_eq!(refusal.kind(), StoreErrorKind::Busy, "{refusal}");
    drop(other);
    for write in waiting {
        write.await.unwrap();
    }
    store.check().await.unwrap();
}
