//! Open questions: asked and ended with a reply, on both paths, one in a conversation.

use std::time::Duration;

use replyhook::choice::{Choices, OpenQuestion, QuestionId};
use replyhook::internals::{
    Claim, Completion, IdempotencyKey, NewInbound, NewOutbound, QuestionChange, ReplyPath, Store,
    Submission, SubmitOutcome,
};

use super::{
    ANA, ANA_ID, BEN, Backend, SENDER, accept_claimed, account, at, bodies, deliver, inbound_from,
    new_inbound, over_all_stores, reply, sid,
};

over_all_stores!(
    question_is_stored_with_inline_reply,
    question_is_stored_with_rest_reply,
    next_question_replaces_and_answer_ends_it,
    question_expires,
    lost_claim_asks_nothing,
    merged_conversations_keep_newer_question,
    backlog_claim_knows_of_question,
    question_is_numbered_until_the_next_is_asked,
    outbound_message_asks_its_question,
    rejected_submission_asks_nothing,
);

fn question(number: u64) -> OpenQuestion {
    OpenQuestion {
        id: QuestionId::of_reply(account(), sid(number), 0),
        key: Some("day\u{0}?".to_owned()),
        choices: Choices::new(["Today", "Mañana"]).unwrap(),
        text_units: 5,
        label: "Días".to_owned(),
        has_numbers: false,
    }
}

fn ask(number: u64, end: i64) -> Completion {
    Completion {
        question: Some(QuestionChange::Ask {
            question: Box::new(question(number)),
            expires_at: at(end),
        }),
        ..Completion::default()
    }
}

fn end(number: u64) -> Completion {
    Completion {
        question: Some(QuestionChange::End(question(number).id)),
        ..Completion::default()
    }
}

async fn complete(store: &dyn Store, claim: Claim, completion: Completion, second: i64) {
    store
        .complete_inline(claim, None, completion, at(second))
        .await
        .unwrap();
}

/// Accepts message `number` of Ana, and returns its claim and the open question.
async fn accept_from_ana(store: &dyn Store, number: u64) -> (Claim, Option<OpenQuestion>) {
    let now = at(i64::try_from(number).unwrap());
    let claim = accept_claimed(store, new_inbound(number)).await;
    let open = store.open_question(claim.conversation, now).await.unwrap();
    assert_eq!(claim.has_question, open.is_some());
    (claim, open)
}

async fn question_is_stored_with_inline_reply(backend: &mut Backend) {
    let store = backend.store();
    let (claim, open) = accept_from_ana(store, 1).await;
    assert_eq!(open, None);
    complete(store, claim, ask(1, 100), 1).await;
    let (_, open) = accept_from_ana(store, 2).await;
    assert_eq!(open, Some(question(1)));
    // Another user has none.
    let claim = accept_claimed(store, inbound_from(&[BEN], 3)).await;
    assert!(!claim.has_question);
}

async fn question_is_stored_with_rest_reply(backend: &mut Backend) {
    let store = backend.store();
    let (claim, _) = accept_from_ana(store, 1).await;
    let replies = vec![reply("When?")];
    let completed = store.complete_via_rest(claim, replies, ask(1, 100), at(1));
    assert!(completed.await.unwrap());
    let (claim, open) = accept_from_ana(store, 2).await;
    assert_eq!(open, Some(question(1)));
    let completed = store.complete_via_rest(claim, Vec::new(), end(1), at(2));
    assert!(completed.await.unwrap());
    assert_eq!(accept_from_ana(store, 3).await.1, None);
}

async fn next_question_replaces_and_answer_ends_it(backend: &mut Backend) {
    let store = backend.store();
    let (claim, _) = accept_from_ana(store, 1).await;
    complete(store, claim, ask(1, 100), 1).await;
    let (claim, _) = accept_from_ana(store, 2).await;
    complete(store, claim, ask(2, 100), 2).await;
    // The answer to the first question does not end the second.
    let (claim, open) = accept_from_ana(store, 3).await;
    assert_eq!(open, Some(question(2)));
    complete(store, claim, end(1), 3).await;
    let (claim, open) = accept_from_ana(store, 4).await;
    assert_eq!(open, Some(question(2)));
    complete(store, claim, end(2), 4).await;
    assert_eq!(accept_from_ana(store, 5).await.1, None);
}

async fn question_expires(backend: &mut Backend) {
    let store = backend.store();
    let (claim, _) = accept_from_ana(store, 1).await;
    complete(store, claim, ask(1, 3), 1).await;
    let (claim, open) = accept_from_ana(store, 2).await;
    assert!(open.is_some());
    complete(store, claim, Completion::default(), 2).await;
    assert_eq!(accept_from_ana(store, 3).await.1, None);
}

async fn lost_claim_asks_nothing(backend: &mut Backend) {
    let store = backend.store();
    let (claim, _) = accept_from_ana(store, 1).await;
    store
        .decide(claim.id, ReplyPath::Twiml("sent".to_owned()), at(1))
        .await
        .unwrap();
    complete(store, claim, ask(1, 100), 1).await;
    assert_eq!(accept_from_ana(store, 2).await.1, None);
}

async fn merged_conversations_keep_newer_question(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, inbound_from(&[ANA], 1)).await;
    complete(store, first, ask(1, 100), 1).await;
    let second = accept_claimed(store, inbound_from(&[ANA_ID], 2)).await;
    complete(store, second, ask(2, 100), 2).await;
    let both = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 3)).await;
    let open = store.open_question(both.conversation, at(3)).await.unwrap();
    assert_eq!((both.has_question, open), (true, Some(question(2))));
}

async fn backlog_claim_knows_of_question(backend: &mut Backend) {
    let store = backend.store();
    let (claim, _) = accept_from_ana(store, 1).await;
    complete(store, claim, ask(1, 100), 1).await;
    // A message that a request has given up, while it was queued behind another one.
    let (ahead, _) = accept_from_ana(store, 2).await;
    let queued = store
        .accept(std::sync::Arc::new(new_inbound(3)))
        .await
        .unwrap();
    let id = super::expect_queued(&queued);
    store.decide(id, ReplyPath::Rest, at(3)).await.unwrap();
    complete(store, ahead, Completion::default(), 3).await;
    let claimed = super::claim_backlog(store, at(4)).await;
    assert_eq!(claimed.len(), 1);
    assert!(claimed[0].claim.has_question);
}

async fn question_is_numbered_until_the_next_is_asked(backend: &mut Backend) {
    let store = backend.store();
    let numbered = async |number, is_numbered| {
        let id = question(number).id;
        let user = ANA.into();
        let set = store.set_question_numbered(&SENDER.into(), &user, id, is_numbered);
        set.await.unwrap();
    };
    let (claim, _) = accept_from_ana(store, 1).await;
    complete(store, claim, ask(1, 100), 1).await;
    // Another question, such as an older one that is sent late.
    numbered(7, true).await;
    let (claim, open) = accept_from_ana(store, 2).await;
    assert!(!open.unwrap().has_numbers);
    complete(store, claim, Completion::default(), 2).await;
    numbered(1, true).await;
    let (claim, open) = accept_from_ana(store, 3).await;
    assert!(open.unwrap().has_numbers);
    complete(store, claim, Completion::default(), 3).await;
    numbered(1, false).await;
    let (claim, open) = accept_from_ana(store, 4).await;
    assert!(!open.unwrap().has_numbers);
    numbered(1, true).await;
    complete(store, claim, ask(4, 100), 4).await;
    let (claim, open) = accept_from_ana(store, 5).await;
    assert!(!open.unwrap().has_numbers);
    complete(store, claim, Completion::default(), 5).await;
    let asked = store.submit(submission(6, ANA, SENDER), at(6)).await;
    asked.unwrap();
    numbered(6, true).await;
    let (_, open) = accept_from_ana(store, 7).await;
    assert!(open.is_some_and(|open| open.has_numbers && open.id == question(6).id));
}

fn submission(number: u64, user: &str, sender: &str) -> Submission {
    let part = |text: &str| NewOutbound {
        user: user.into(),
        sender: sender.into(),
        ..reply(text)
    };
    Submission {
        message: part("When?"),
        earlier_parts: vec![part("a file"), part("another")],
        question: ask(number, 100).question,
        key: Some(IdempotencyKey::new("k")),
        due: at(2),
        min_interval: Duration::from_secs(1),
        consent_required: true,
    }
}

// With its parts in order, once for its key, and to a user who has never written.
async fn outbound_message_asks_its_question(backend: &mut Backend) {
    let store = backend.store();
    let (claim, _) = accept_from_ana(store, 1).await;
    complete(store, claim, ask(1, 100), 1).await;
    let submitted = store
        .submit(submission(2, ANA, SENDER), at(2))
        .await
        .unwrap();
    let SubmitOutcome::Queued(id) = submitted else {
        panic!("{submitted:?}")
    };
    let again = store
        .submit(submission(3, ANA, SENDER), at(2))
        .await
        .unwrap();
    assert_eq!(again, SubmitOutcome::Duplicate(id));
    let mut sent = Vec::new();
    for second in 2..5 {
        sent.extend(deliver(store, second).await);
    }
    assert_eq!(bodies(&sent), ["a file", "another", "When?"]);
    assert_eq!(sent[2].id, id);
    backend.crash().await;
    let store = backend.store();
    let (claim, open) = accept_from_ana(store, 6).await;
    assert_eq!((claim.has_question, open), (true, Some(question(2))));
    let (user, sender) = ("+15550009999", "+15550002222");
    let sms = Submission {
        key: None,
        ..submission(4, user, sender)
    };
    store.submit(sms, at(7)).await.unwrap();
    let answer = NewInbound {
        sender: sender.into(),
        ..inbound_from(&[user], 8)
    };
    let claim = accept_claimed(store, answer).await;
    let open = store.open_question(claim.conversation, at(8)).await;
    assert_eq!(
        (claim.has_question, open.unwrap()),
        (true, Some(question(4)))
    );
}

async fn rejected_submission_asks_nothing(backend: &mut Backend) {
    let store = backend.store();
    let (claim, _) = accept_from_ana(store, 1).await;
    complete(store, claim, ask(1, 100), 1).await;
    // A template among its parts does not open the window for the others.
    let mut late = submission(2, ANA, SENDER);
    late.due = at(2 * 24 * 3600);
    late.message.template = true;
    let submitted = store.submit(late, at(2)).await.unwrap();
    assert!(
        matches!(submitted, SubmitOutcome::Ineligible(_)),
        "{submitted:?}"
    );
    assert_eq!(accept_from_ana(store, 3).await.1, Some(question(1)));
}
