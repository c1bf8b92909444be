//! Acceptance of inbound messages, deduplicated by `AccountSid` and `MessageSid`.

use std::task::Poll;

use replyhook::internals::{
    AcceptOutcome, Claim, DialogueChange, FailOutcome, MessageFilter, NewInbound, ReplyDecision,
    SavedResponse, Store, TurnStatus,
};
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{
    Access, ConsentAction, ConsentRecord, ConsentScope, ConsentSource, StoreErrorKind,
};
use replyhook::{Address, FormParams};

use super::{
    ANA, BEN, Backend, Completion, FALLBACK_TWIML, SENDER, accept, accept_and_answer,
    accept_claimed, at, expect_claimed, inbound_from, message_row, new_inbound, over_all_stores,
    reply, stop_keyword, with_keyword,
};

over_all_stores!(
    duplicate_is_in_progress_then_gets_saved_response,
    duplicate_of_message_without_reply_gets_empty_response,
    same_sid_in_another_account_is_new_message,
    duplicate_changes_neither_window_nor_consent,
    racing_duplicates_yield_one_claim,
    racing_first_messages_share_one_conversation,
    racing_messages_in_known_conversation_yield_one_claim,
    failed_message_is_retried_until_final_response,
    blank_final_response_becomes_empty_response,
    duplicate_of_deferred_message_gets_empty_response,
    stored_text_is_returned_unchanged,
);

async fn duplicate_is_in_progress_then_gets_saved_response(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    assert_eq!((claim.attempt, claim.failed_before), (1, false));
    let redelivery = accept(store, new_inbound(1)).await;
    assert_eq!(redelivery, AcceptOutcome::InProgress { id: claim.id });
    let answered = SavedResponse {
        twiml: Some("<Response><Message>\u{1F980} \"it's\" & ünï</Message></Response>".to_owned()),
    };
    let decision = store
        .complete_inline(claim, answered.twiml.clone(), Completion::default(), at(2))
        .await
        .unwrap();
    assert_eq!(decision, ReplyDecision::Inline(answered.clone()));
    for _ in 0..2 {
        let redelivery = accept(store, new_inbound(1)).await;
        assert_eq!(redelivery, AcceptOutcome::AlreadyAnswered(answered.clone()));
    }
}

async fn duplicate_of_message_without_reply_gets_empty_response(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    store
        .complete_inline(claim, None, Completion::default(), at(2))
        .await
        .unwrap();
    let redelivery = accept(store, new_inbound(1)).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
}

async fn same_sid_in_another_account_is_new_message(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, inbound_from(&[ANA], 1)).await;
    let other = NewInbound {
        account: "AC00000000000000000000000000000002".parse().unwrap(),
        ..inbound_from(&[BEN], 1)
    };
    assert_ne!(accept_claimed(store, other).await.id, first.id);
}

async fn duplicate_changes_neither_window_nor_consent(backend: &mut Backend) {
    let store = backend.store();
    let (sender, ana) = (Address::from(SENDER), Address::from(ANA));
    let claim = accept_claimed(store, new_inbound(1)).await;
    store
        .complete_inline(claim, None, Completion::default(), at(2))
        .await
        .unwrap();
    let late = NewInbound {
        received_at: at(5000),
        ..with_keyword(stop_keyword(), new_inbound(1))
    };
    let redelivery = accept(store, late).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
    let conversation = store.conversation(&sender, &ana).await.unwrap().unwrap();
    assert_eq!(conversation.last_inbound, Some(at(1)));
    let consent = store.consent(vec![ConsentScope::Sender(sender)], &ana);
    assert_eq!(consent.await.unwrap().opted_out, None);
}

async fn racing_duplicates_yield_one_claim(backend: &mut Backend) {
    // Messages 1 and 3 are the first of their conversations. Message 2 is in a known conversation.
    for (number, user) in [(1, ANA), (2, ANA), (3, BEN)] {
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let store = backend.shared();
                tokio::spawn(async move { accept(&*store, inbound_from(&[user], number)).await })
            })
            .collect();
        let mut winner = None;
        let mut others = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                AcceptOutcome::Claimed(claim) => {
                    assert!(winner.replace(claim).is_none(), "two claims");
                }
                AcceptOutcome::InProgress { id } => others.push(id),
                other => panic!("{other:?}"),
            }
        }
        let winner = winner.unwrap();
        assert_eq!(others, vec![winner.id; 31]);
        let store = backend.store();
        store
            .complete_inline(winner, None, Completion::default(), at(9))
            .await
            .unwrap();
    }
}

/// Accepts messages of Ana concurrently. Returns the one claim, and message ID and conversation of the queued others.
async fn race(backend: &Backend, numbers: std::ops::Range<u64>) -> (Claim, Vec<(i64, i64)>) {
    let tasks: Vec<_> = numbers
        .map(|number| {
            let store = backend.shared();
            tokio::spawn(async move { accept(&*store, new_inbound(number)).await })
        })
        .collect();
    let mut first = None;
    let mut waiting = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            AcceptOutcome::Claimed(claim) => {
                assert!(first.replace(claim).is_none(), "two claims");
            }
            AcceptOutcome::Queued {
                id, conversation, ..
            } => waiting.push((id, conversation)),
            other => panic!("{other:?}"),
        }
    }
    (first.unwrap(), waiting)
}

// One of the messages is claimed, and the others are queued behind it.
async fn racing_first_messages_share_one_conversation(backend: &mut Backend) {
    let (first, waiting) = race(backend, 1..17).await;
    assert_eq!(waiting.len(), 15);
    assert!(
        waiting
            .iter()
            .all(|(id, conversation)| *id > first.id && *conversation == first.conversation)
    );
}

async fn racing_messages_in_known_conversation_yield_one_claim(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    for round in 1..=10 {
        // The failed message is redelivered concurrently with the new messages.
        let failed = accept_claimed(store, new_inbound(100 * round)).await;
        store
            .record_failure(failed, "the handler failed", false, at(0))
            .await
            .unwrap();
        let (first, waiting) = race(backend, 100 * round..100 * round + 9).await;
        assert_eq!(waiting.len(), 8);
        let mut remaining: Vec<i64> = waiting.iter().map(|(id, _)| *id).collect();
        remaining.sort_unstable();
        store
            .complete_inline(first, None, Completion::default(), at(3))
            .await
            .unwrap();
        for id in remaining {
            let TurnStatus::Claimed(claim) = store.try_claim(id, at(3)).await.unwrap() else {
                panic!("message {id} cannot be claimed")
            };
            store
                .complete_inline(claim, None, Completion::default(), at(3))
                .await
                .unwrap();
        }
    }
}

async fn failed_message_is_retried_until_final_response(backend: &mut Backend) {
    let store = backend.store();
    let mut claim = accept_claimed(store, new_inbound(1)).await;
    for attempt in 2..=3 {
        let failed = store
            .record_failure(claim, "the handler failed", false, at(0))
            .await;
        assert_eq!(failed.unwrap(), FailOutcome::Retryable);
        assert_eq!(message_row(store, 1).await.state, "failed");
        claim = accept_claimed(store, new_inbound(1)).await;
        assert_eq!((claim.attempt, claim.failed_before), (attempt, true));
    }
    store
        .record_failure(claim, "the handler failed", false, at(0))
        .await
        .unwrap();
    let last = AcceptOutcome::AlreadyAnswered(SavedResponse {
        twiml: Some(FALLBACK_TWIML.to_owned()),
    });
    for _ in 0..2 {
        assert_eq!(accept(store, new_inbound(1)).await, last);
    }
    assert_eq!(message_row(store, 1).await.state, "answered");
}

async fn blank_final_response_becomes_empty_response(backend: &mut Backend) {
    let store = backend.store();
    let silent = NewInbound {
        max_attempts: 1,
        final_response: String::new(),
        ..new_inbound(1)
    };
    let claim = accept_claimed(store, silent.clone()).await;
    store
        .record_failure(claim, "the handler failed", false, at(0))
        .await
        .unwrap();
    for _ in 0..2 {
        let answered = accept(store, silent.clone()).await;
        assert_eq!(
            answered,
            AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
        );
    }
}

// The same holds once its replies are queued, and for a dead message.
async fn duplicate_of_deferred_message_gets_empty_response(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    let empty = AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY);
    let rest = replyhook::internals::ReplyPath::Rest;
    store.decide(claim.id, rest, at(2)).await.unwrap();
    assert_eq!(accept(store, new_inbound(1)).await, empty);
    assert!(
        store
            .complete_via_rest(claim, vec![reply("later")], Completion::default(), at(3))
            .await
            .unwrap()
    );
    assert_eq!(accept(store, new_inbound(1)).await, empty);
    let claim = accept_claimed(store, new_inbound(2)).await;
    store
        .record_failure(claim, "it cannot be read", true, at(0))
        .await
        .unwrap();
    assert_eq!(accept(store, new_inbound(2)).await, empty);
}

// NUL, control characters, quotes and SQL wildcards survive in every text column.
async fn stored_text_is_returned_unchanged(backend: &mut Backend) {
    let store = backend.store();
    let nasty = "\0 \u{1} \u{1}0 \u{1F980}\u{10FFFF} '\"\\ %_ \r\n\t $1 ?1 ünï";
    let (sender, user) = (
        Address::from(format!("whatsapp:us{nasty}")),
        Address::from(format!("whatsapp:{nasty}")),
    );
    let params: FormParams = [("Body", nasty), (nasty, "")].into_iter().collect();
    let strange = NewInbound {
        sender: sender.clone(),
        user: vec![user.clone()],
        params: params.encode(),
        ..new_inbound(1)
    };
    let claim = expect_claimed(&accept(store, strange.clone()).await);
    let answer = Some(format!("<Response>{nasty}</Response>"));
    let dialogue = DialogueChange::Set {
        data: nasty.to_owned(),
        expires_at: None,
    };
    store
        .complete_inline(claim, answer.clone(), dialogue.into(), at(2))
        .await
        .unwrap();
    assert_eq!(
        accept(store, strange).await,
        AcceptOutcome::AlreadyAnswered(SavedResponse { twiml: answer })
    );
    let conversation = store.conversation(&sender, &user).await.unwrap().unwrap();
    assert_eq!(conversation.id, claim.conversation);
    let dialogue = store.dialogue(claim.conversation, at(3)).await.unwrap();
    assert_eq!(dialogue.unwrap().0, nasty);
    let row = message_row(store, 1).await;
    assert_eq!(row.user, Some(user.clone()));
    assert_eq!(row.params.unwrap().0, params.encode());
    let of_user = MessageFilter {
        user: Some(user.clone()),
        limit: 9,
        ..MessageFilter::default()
    };
    assert_eq!(store.messages(of_user).await.unwrap().len(), 1);

    let record = ConsentRecord {
        scope: ConsentScope::Sender(sender.clone()),
        user: user.clone(),
        action: ConsentAction::OptIn,
        source: ConsentSource::Operator,
        evidence: None,
        note: Some(nasty.to_owned()),
        at: at(4),
    };
    store.record_consent(record).await.unwrap();
    let ledger = store.consent_ledger(0, 10).await.unwrap();
    assert_eq!(ledger[0].record.note.as_deref(), Some(nasty));
    assert_eq!(ledger[0].record.user, user);
    assert_eq!(ledger[0].record.scope, ConsentScope::Sender(sender.clone()));

    let out = replyhook::internals::NewOutbound {
        sender: sender.clone(),
        user: user.clone(),
        params: params.clone(),
        ..reply("")
    };
    store.enqueue(vec![out], at(5)).await.unwrap();
    let sent = store.claim(1, at(5)).await.unwrap().pop().unwrap();
    assert_eq!((&sent.sender, &sent.user), (&sender, &user));
    assert_eq!(sent.params, params);
    assert!(sent.opted_in && sent.window.is_some());
    let purged = store.purge_user(&user, None, true).await.unwrap();
    assert_eq!(
        (purged.messages, purged.outbound, purged.consents),
        (1, 1, 1)
    );
}

// Writes that are already queued behind a lock complete once it is released.
#[tokio::test]
async fn threat_56_full_write_queue_rejects_new_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    SqliteStore::file(&path).open(Access::Owner).await.unwrap();
    // Access::Operator: its timeout is longer than this test takes.
    let store = SqliteStore::file(&path);
    store.open(Access::Operator).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = Vec::new();
    let rejection = loop {
        assert!(waiting.len() < 100_000, "the write queue is unlimited");
        let mut write = store.check();
        match futures_util::poll!(&mut write) {
            Poll::Ready(outcome) => break outcome.unwrap_err(),
            Poll::Pending => waiting.push(write),
        }
    };
    assert_eq!(rejection.kind(), StoreErrorKind::Busy, "{rejection}");
    drop(other);
    for write in waiting {
        write.await.unwrap();
    }
    store.check().await.unwrap();
}
