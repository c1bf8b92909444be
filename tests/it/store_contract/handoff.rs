//! Handoffs: they start and continue with a reply, end by time or by the operator, and belong to one user.

use std::time::Duration;

use replyhook::internals::{
    ActiveHandoff, Claim, Completion, HandoffChange, ReplyPath, Store, TurnStatus,
};

use super::{
    ANA, ANA_ID, BEN, Backend, SENDER, accept, accept_and_answer, accept_claimed, at,
    claim_backlog, expect_queued, inbound_from, message_row, new_inbound, over_all_stores, reply,
};

over_all_stores!(
    handoff_starts_with_reply_and_marks_later_claims,
    handoff_via_rest_reply_records_missing_redirect,
    handoff_lasts_until_expiry_or_end,
    lost_claim_starts_no_handoff,
    merged_conversations_keep_longer_handoff,
    purge_ends_handoff,
    active_handoffs_are_listed_in_order_of_their_end,
    silent_handoff_begins_without_message_for_chosen_senders,
);

const FLOW: &str = "https://flow.example.test/?name=Ana&\u{fc}";

fn begin_handoff(second: i64) -> Completion {
    Completion {
        handoff: Some(HandoffChange::Begin {
            handoff: ActiveHandoff {
                url: Some(FLOW.to_owned()),
                ttl: Duration::from_secs(10),
            },
            until: at(second),
        }),
        ..Completion::default()
    }
}

fn continue_handoff(second: i64) -> Completion {
    let until = at(second);
    Completion {
        handoff: Some(HandoffChange::Continue {
            until,
            redirects: true,
        }),
        ..Completion::default()
    }
}

// Each database has its own statement that lists handoffs.
async fn active_handoffs_are_listed_in_order_of_their_end(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    reply_with_handoff(store, claim, 200).await;
    let claim = accept_claimed(store, inbound_from(&[BEN], 2)).await;
    reply_with_handoff(store, claim, 100).await;
    let listed = store.active_handoffs(9, at(50)).await.unwrap();
    let users: Vec<_> = listed.iter().map(|row| row.user.clone()).collect();
    let mut ana = vec![ANA.into(), ANA_ID.into()];
    ana.sort_by(|a: &replyhook::Address, b| a.as_str().cmp(b.as_str()));
    assert_eq!(users, [vec![BEN.into()], ana]);
    let first = &listed[0];
    assert_eq!(
        (
            first.sender.as_str(),
            first.handoff.url.as_deref(),
            first.until
        ),
        (SENDER, Some(FLOW), at(100))
    );
    // The limit counts conversations, not addresses.
    assert_eq!(store.active_handoffs(1, at(50)).await.unwrap(), listed[..1]);
    assert_eq!(
        store.active_handoffs(1, at(150)).await.unwrap(),
        listed[1..]
    );
    store.end_handoff(None, &ANA.into(), at(150)).await.unwrap();
    assert_eq!(store.active_handoffs(9, at(150)).await.unwrap(), []);
    let shown = format!("{first:?}");
    assert!(
        !shown.contains("example.test") && !shown.contains(BEN),
        "{shown}"
    );
}

/// Completes a claimed message inline, with a handoff until second `end`.
async fn reply_with_handoff(store: &dyn Store, claim: Claim, end: i64) {
    let twiml = Some("redirect".to_owned());
    store
        .complete_inline(claim, twiml, begin_handoff(end), at(2))
        .await
        .unwrap();
}

async fn handoff_url(store: &dyn Store, claim: Claim, second: i64) -> Option<String> {
    let handoff = store.handoff(claim.conversation, at(second)).await;
    handoff.unwrap()?.url
}

async fn handoff_starts_with_reply_and_marks_later_claims(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, new_inbound(1)).await;
    assert!(!first.handed_off);
    let waits = accept(store, new_inbound(2)).await;
    assert_eq!(handoff_url(store, first, 2).await, None);
    reply_with_handoff(store, first, 100).await;
    assert_eq!(handoff_url(store, first, 2).await.as_deref(), Some(FLOW));
    // Claims of a queued, a failed, a deferred and a new message are marked.
    let TurnStatus::Claimed(second) = store.try_claim(expect_queued(&waits), at(3)).await.unwrap()
    else {
        panic!("the queued message cannot be claimed")
    };
    assert!(second.handed_off);
    store
        .record_failure(second, "it failed", false, at(0))
        .await
        .unwrap();
    let again = accept_claimed(store, new_inbound(2)).await;
    assert!(again.handed_off);
    assert!(
        !accept_claimed(store, inbound_from(&[BEN], 3))
            .await
            .handed_off
    );
    let waits = accept(store, new_inbound(4)).await;
    let waits = expect_queued(&waits);
    store.decide(waits, ReplyPath::Rest, at(4)).await.unwrap();
    store
        .complete_inline(again, None, Completion::default(), at(5))
        .await
        .unwrap();
    let backlog = claim_backlog(store, at(6)).await;
    assert!(backlog[0].claim.handed_off);
    store
        .complete_via_rest(backlog[0].claim, Vec::new(), continue_handoff(100), at(6))
        .await
        .unwrap();
    let known = accept_claimed(store, new_inbound(5)).await;
    assert!(known.handed_off);
    store
        .complete_inline(known, None, Completion::default(), at(7))
        .await
        .unwrap();
    if backend.crash().await {
        assert!(
            accept_claimed(backend.store(), new_inbound(8))
                .await
                .handed_off
        );
    }
}

// A reply via the REST API cannot redirect: the handoff starts, and the reason of the message says so.
async fn handoff_via_rest_reply_records_missing_redirect(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    store
        .decide(claim.id, ReplyPath::Rest, at(2))
        .await
        .unwrap();
    let texts = vec![reply("One moment.")];
    assert!(
        store
            .complete_via_rest(claim, texts, begin_handoff(100), at(3))
            .await
            .unwrap()
    );
    assert_eq!(store.claim(9, at(4)).await.unwrap().len(), 1);
    let row = message_row(store, 1).await;
    assert!(row.reason.unwrap().starts_with("it was not redirected"));
    assert_eq!(row.handed_off_until, Some(at(100)));
    assert!(accept_claimed(store, new_inbound(4)).await.handed_off);
}

// A message extends a handoff, even an expired one, but not one that was ended.
async fn handoff_lasts_until_expiry_or_end(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, new_inbound(1)).await;
    reply_with_handoff(store, first, 10).await;
    assert!(handoff_url(store, first, 9).await.is_some());
    assert!(handoff_url(store, first, 10).await.is_none());
    let late = accept_claimed(store, new_inbound(10)).await;
    assert!(!late.handed_off);
    store
        .complete_inline(late, None, continue_handoff(100), at(11))
        .await
        .unwrap();
    assert!(handoff_url(store, first, 99).await.is_some());
    let next = accept_claimed(store, new_inbound(20)).await;
    assert!(next.handed_off);
    let (sender, user) = (SENDER.into(), ANA.into());
    assert_eq!(
        store
            .end_handoff(Some(&BEN.into()), &user, at(21))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        store.end_handoff(None, &BEN.into(), at(21)).await.unwrap(),
        0
    );
    assert_eq!(
        store
            .end_handoff(Some(&sender), &user, at(21))
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.end_handoff(None, &user, at(21)).await.unwrap(), 0);
    store
        .complete_inline(next, None, continue_handoff(200), at(22))
        .await
        .unwrap();
    assert!(handoff_url(store, first, 23).await.is_none());
    assert_eq!(message_row(store, 1).await.handed_off_until, None);
    // A new handoff can start.
    let again = accept_claimed(store, new_inbound(30)).await;
    reply_with_handoff(store, again, 300).await;
    assert_eq!(store.end_handoff(None, &user, at(300)).await.unwrap(), 0);
    assert_eq!(store.end_handoff(None, &user, at(299)).await.unwrap(), 1);
}

async fn lost_claim_starts_no_handoff(backend: &mut Backend) {
    let claim = accept_claimed(backend.store(), new_inbound(1)).await;
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    reply_with_handoff(store, claim, 100).await;
    assert!(
        !store
            .complete_via_rest(claim, Vec::new(), begin_handoff(100), at(3))
            .await
            .unwrap()
    );
    assert_eq!(handoff_url(store, claim, 4).await, None);
}

async fn merged_conversations_keep_longer_handoff(backend: &mut Backend) {
    let store = backend.store();
    let phone = accept_claimed(store, inbound_from(&[ANA], 1)).await;
    reply_with_handoff(store, phone, 50).await;
    let id = accept_claimed(store, inbound_from(&[ANA_ID], 2)).await;
    store
        .complete_inline(id, None, begin_handoff(100), at(3))
        .await
        .unwrap();
    let both = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 4)).await;
    assert!(both.handed_off);
    store
        .complete_inline(both, None, Completion::default(), at(5))
        .await
        .unwrap();
    assert!(
        accept_claimed(store, inbound_from(&[ANA], 60))
            .await
            .handed_off
    );
    assert_eq!(message_row(store, 2).await.handed_off_until, Some(at(100)));
    assert_eq!(
        store
            .end_handoff(None, &ANA_ID.into(), at(61))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store.end_handoff(None, &ANA.into(), at(61)).await.unwrap(),
        0
    );
}

async fn purge_ends_handoff(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    reply_with_handoff(store, claim, 100).await;
    store.purge_user(&ANA.into(), None, false).await.unwrap();
    assert_eq!(handoff_url(store, claim, 3).await, None);
    accept_and_answer(store, new_inbound(4)).await;
    assert!(!accept_claimed(store, new_inbound(5)).await.handed_off);
}

async fn silent_handoff_begins_without_message_for_chosen_senders(backend: &mut Backend) {
    let store = backend.store();
    let silent = ActiveHandoff {
        url: None,
        ttl: Duration::from_secs(100),
    };
    let (ana, sender) = (ANA.into(), SENDER.into());
    let begin = async |sender: Option<&replyhook::Address>, second| {
        let begun = store.begin_handoff(sender, &ana, silent.clone(), at(second));
        begun.await.unwrap()
    };
    assert_eq!(begin(None, 1).await, 0);
    // Two addresses of one user share a conversation.
    let claim = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    store
        .complete_inline(claim, None, Completion::default(), at(2))
        .await
        .unwrap();
    assert_eq!(begin(Some(&BEN.into()), 3).await, 0);
    assert_eq!(begin(Some(&sender), 3).await, 1);
    let rows = store.handoffs_of(&ANA_ID.into(), at(4)).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].handoff, rows[0].until), (&silent, at(103)));
    assert_eq!(rows[0].user.len(), 2);
    let next = accept_claimed(store, inbound_from(&[ANA], 5)).await;
    assert!(next.handed_off);
    assert_eq!(
        store.handoff(next.conversation, at(5)).await.unwrap(),
        Some(silent.clone())
    );
    // A message during the silence is not one that should have been redirected.
    store.decide(next.id, ReplyPath::Rest, at(5)).await.unwrap();
    let continued = Completion {
        handoff: Some(HandoffChange::Continue {
            until: at(200),
            redirects: false,
        }),
        ..Completion::default()
    };
    store
        .complete_via_rest(next, Vec::new(), continued, at(6))
        .await
        .unwrap();
    assert_eq!(message_row(store, 5).await.reason, None);
    assert_eq!(
        store.handoffs_of(&ana, at(199)).await.unwrap()[0].until,
        at(200)
    );
    assert_eq!(store.handoffs_of(&ana, at(200)).await.unwrap(), []);
    assert_eq!(store.handoffs_of(&BEN.into(), at(9)).await.unwrap(), []);
}
