//! Operator calls: lists, retries, backfill, purges and retention.

use std::sync::Arc;

use replyhook::internals::{
    AcceptOutcome, DialogueChange, FailOutcome, MessageFilter, ReplyPath, Retention, SavedResponse,
    SendOutcome, StatusEvent, Store,
};
use replyhook::store::{ConsentScope, OutboundState};
use replyhook::{MessageStatus, Timestamp};

use super::{
    ANA, ANA_ID, BEN, Backend, Completion, NewInbound, RETRY, SENDER, accept, accept_and_answer,
    accept_claimed, account, at, bodies, claim_backlog, expect_queued, expire_all,
    filter_with_limit, inbound_from, message_row, new_inbound, over_all_stores, reply,
    reply_via_rest, save_twiml, sent_outcome, sid, start_keyword, stop_keyword, with_keyword,
};

over_all_stores!(
    messages_are_listed_newest_first_and_filtered,
    message_list_shows_current_state,
    dead_message_is_retried_once,
    backfilled_answered_message_is_not_handled,
    open_message_marked_answered_is_not_handled,
    open_outbound_messages_are_listed_without_claiming,
    dead_messages_count_until_retried_or_purged,
    expired_content_of_unanswered_messages_is_returned,
    purged_user_leaves_key_and_opt_out,
    purge_with_consent_leaves_no_trace,
    purge_closes_open_messages,
    retention_deletes_text_then_replies_then_keys,
    store_check_leaves_no_message,
    delete_everything_leaves_empty_store,
);

async fn list_numbers(store: &dyn Store, filter: MessageFilter) -> Vec<u64> {
    let rows = store.messages(filter).await.unwrap();
    let number = |text: &str| u64::from_str_radix(&text[2..], 16).unwrap();
    rows.iter().map(|row| number(row.sid.as_str())).collect()
}

async fn messages_are_listed_newest_first_and_filtered(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA], 1)).await;
    accept_and_answer(store, inbound_from(&[ANA_ID], 2)).await;
    accept_and_answer(store, inbound_from(&[BEN], 3)).await;
    accept_and_answer(store, inbound_from(&[ANA, ANA_ID], 4)).await;
    accept_claimed(store, inbound_from(&[BEN], 5)).await;
    assert_eq!(
        list_numbers(store, filter_with_limit(9)).await,
        [5, 4, 3, 2, 1]
    );
    assert_eq!(list_numbers(store, filter_with_limit(2)).await, [5, 4]);
    let fourth = message_row(store, 4).await.id;
    let page = MessageFilter {
        before_id: Some(fourth),
        ..filter_with_limit(2)
    };
    assert_eq!(list_numbers(store, page).await, [3, 2]);
    // Messages of merged conversations belong to one user.
    for user in [ANA, ANA_ID] {
        let of_user = MessageFilter {
            user: Some(user.into()),
            ..filter_with_limit(9)
        };
        assert_eq!(list_numbers(store, of_user).await, [4, 2, 1]);
    }
    let in_state = |state: &str| MessageFilter {
        state: Some(state.to_owned()),
        ..filter_with_limit(9)
    };
    assert_eq!(list_numbers(store, in_state("processing")).await, [5]);
    assert_eq!(
        list_numbers(store, in_state("answered")).await,
        [4, 3, 2, 1]
    );
    let unknown_user = MessageFilter {
        user: Some("whatsapp:+1".into()),
        ..filter_with_limit(9)
    };
    assert!(list_numbers(store, unknown_user).await.is_empty());
    let row = message_row(store, 2).await;
    assert_eq!(
        (row.account, row.received_at, row.attempt),
        (account(), at(2), 1)
    );
    assert_eq!(row.params.unwrap().0, "Body=text+2");
    assert_eq!(row.response.unwrap().0, "<Response/>");
    assert!([ANA, ANA_ID].contains(&row.user.unwrap().as_str()));
}

async fn message_list_shows_current_state(backend: &mut Backend) {
    let store = backend.store();
    let state = async |number| message_row(store, number).await.state;
    let claim = accept_claimed(store, new_inbound(1)).await;
    assert_eq!(state(1).await, "processing");
    expect_queued(&accept(store, new_inbound(2)).await);
    assert_eq!(state(2).await, "received");
    store
        .decide(claim.id, ReplyPath::Rest, at(2))
        .await
        .unwrap();
    assert_eq!(state(1).await, "deferred");
    let replies = vec![reply("one"), reply("two")];
    store
        .complete_via_rest(claim, replies, Completion::default(), at(2))
        .await
        .unwrap();
    assert_eq!(state(1).await, "deferred");
    let first = store.claim(9, at(3)).await.unwrap().pop().unwrap();
    assert_eq!(state(1).await, "deferred");
    store
        .record_outcome(first.id, sent_outcome(11), at(3))
        .await
        .unwrap();
    assert_eq!(state(1).await, "deferred");
    let second = store.claim(9, at(3)).await.unwrap().pop().unwrap();
    store
        .record_outcome(second.id, sent_outcome(12), at(3))
        .await
        .unwrap();
    assert_eq!(state(1).await, "sent");
    let failed = StatusEvent {
        account: account(),
        sid: sid(12),
        outbound: None,
        status: MessageStatus::Failed,
        error_code: None,
        sender: None,
        service: None,
        user: Vec::new(),
        at: at(4),
    };
    store.apply_status(failed).await.unwrap();
    assert_eq!(state(1).await, "failed");
    let row = message_row(store, 1).await;
    assert_eq!(row.replies.len(), 2);
    assert_eq!(row.replies[1].status.as_deref(), Some("failed"));
    assert!(
        row.replies[0]
            .params
            .as_ref()
            .unwrap()
            .0
            .ends_with("Body=one")
    );
}

async fn dead_message_is_retried_once(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    assert!(!store.retry(sid(1), at(2)).await.unwrap());
    store
        .record_failure(claim, "it failed", true, at(0))
        .await
        .unwrap();
    assert_eq!(
        message_row(store, 1).await.reason.as_deref(),
        Some("it failed")
    );
    assert!(store.retry(sid(1), at(3)).await.unwrap());
    assert!(!store.retry(sid(1), at(3)).await.unwrap());
    assert!(!store.retry(sid(9), at(3)).await.unwrap());
    let backlog = claim_backlog(store, at(4)).await;
    assert_eq!(
        (backlog[0].claim.attempt, backlog[0].claim.failed_before),
        (2, true)
    );
}

/// Stores messages, a dialogue, replies and opt-outs of Ana, and one message of Ben.
async fn store_conversation(store: &dyn Store) {
    accept_and_answer(store, inbound_from(&[ANA], 1)).await;
    let change = DialogueChange::Set {
        data: format!("the number is {ANA}"),
        expires_at: None,
    };
    let claim = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 2)).await;
    let answer = Some("<Response>secret</Response>".to_owned());
    store
        .complete_inline(claim, answer, change.into(), at(2))
        .await
        .unwrap();
    reply_via_rest(store, inbound_from(&[ANA_ID], 3), &["secret"]).await;
    store.enqueue(vec![reply("secret")], at(3)).await.unwrap();
    accept(store, with_keyword(stop_keyword(), inbound_from(&[ANA], 4))).await;
    accept(
        store,
        with_keyword(start_keyword(), inbound_from(&[ANA], 5)),
    )
    .await;
    accept(store, with_keyword(stop_keyword(), inbound_from(&[ANA], 6))).await;
    accept_and_answer(store, inbound_from(&[BEN], 7)).await;
}

/// Returns what contains Ana's addresses or a message text: rows of PostgreSQL, or canaries in SQLite's files.
async fn find_canaries(backend: &Backend) -> Vec<String> {
    let canaries = ["5550001111", "13491208655302741918", "secret", "text+"];
    #[cfg(feature = "postgres")]
    if let Some(database) = &backend.database {
        let dump = database.dump().await;
        let rows = dump
            .lines()
            .filter(|row| canaries.iter().any(|canary| row.contains(canary)));
        return rows.map(str::to_owned).collect();
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(backend.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let has = canaries.iter().filter(|canary| text.contains(**canary));
        found.extend(has.map(|canary| format!("{canary} in {}", path.display())));
    }
    found
}

// The message opens the window and applies its keyword. Its redelivery gets the empty response.
async fn backfilled_answered_message_is_not_handled(backend: &mut Backend) {
    let store = backend.store();
    let backfill =
        async |inbound: NewInbound| store.backfill_answered(Arc::new(inbound)).await.unwrap();
    backfill(new_inbound(1)).await;
    let row = message_row(store, 1).await;
    assert_eq!((row.state, row.attempt), ("answered", 0));
    let reason = row.reason.unwrap();
    assert!(reason.starts_with("it was answered before"), "{reason}");
    assert!(claim_backlog(store, at(2)).await.is_empty());
    // Its webhook counts as a redelivery, its window is open, and later messages do not wait for it.
    let redelivery = accept(store, new_inbound(1)).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
    let conversation = store
        .conversation(&SENDER.into(), &ANA.into())
        .await
        .unwrap();
    assert!(conversation.unwrap().window(at(3)).is_some());
    accept_claimed(store, new_inbound(2)).await;
    // A known message is not changed. A backfilled message is answered even behind an open one.
    backfill(new_inbound(2)).await;
    assert_eq!(message_row(store, 2).await.state, "processing");
    backfill(new_inbound(3)).await;
    assert_eq!(message_row(store, 3).await.state, "answered");
    backfill(with_keyword(stop_keyword(), inbound_from(&[BEN], 4))).await;
    let scopes = vec![ConsentScope::Sender(SENDER.into())];
    let consent = store.consent(scopes, &BEN.into()).await.unwrap();
    assert_eq!(consent.opted_out, Some(at(4)));
}

// Commands after a restore use it. The owners of the claims are processes of the lost journal.
async fn open_message_marked_answered_is_not_handled(backend: &mut Backend) {
    let store = backend.store();
    let mark = async |number| {
        let inbound = new_inbound(number);
        store
            .mark_answered(inbound.account, inbound.sid)
            .await
            .unwrap()
    };
    accept_claimed(store, new_inbound(1)).await;
    accept(store, new_inbound(2)).await;
    reply_via_rest(store, inbound_from(&[BEN], 3), &["three"]).await;
    assert_eq!(message_row(store, 1).await.state, "processing");
    assert_eq!(message_row(store, 2).await.state, "received");
    assert!(mark(1).await && mark(2).await);
    for number in [1, 2] {
        let row = message_row(store, number).await;
        assert_eq!(row.state, "answered");
        let reason = row.reason.unwrap();
        assert!(reason.starts_with("it was answered before"), "{reason}");
    }
    // The replies of the third are in the outbox, and no fourth message exists.
    assert!(!mark(3).await && !mark(4).await);
    assert!(!mark(1).await);
    let backlog = store.claim_backlog(9, RETRY, at(9)).await.unwrap();
    assert!(backlog.messages.is_empty());
}

async fn open_outbound_messages_are_listed_without_claiming(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["one", "two"]).await;
    let open = async |state, after, limit| {
        let open = store.list_open_outbound(state, after, limit, at(3)).await;
        open.unwrap()
    };
    let first = open(OutboundState::Pending, 0, 1).await;
    assert_eq!(bodies(&first), ["one"]);
    assert_eq!((first[0].attempt, first[0].window.is_some()), (0, true));
    let rest = open(OutboundState::Pending, first[0].id, 9).await;
    assert_eq!(bodies(&rest), ["two"]);
    let claimed = store.claim(9, at(3)).await.unwrap();
    assert_eq!(bodies(&claimed), ["one"]);
    assert_eq!(bodies(&open(OutboundState::Sending, 0, 9).await), ["one"]);
    assert_eq!(bodies(&open(OutboundState::Pending, 0, 9).await), ["two"]);
    let sent = SendOutcome::Sent {
        sid: sid(9),
        status: MessageStatus::Sent,
    };
    store
        .record_outcome(claimed[0].id, sent, at(4))
        .await
        .unwrap();
    assert!(open(OutboundState::Sent, 0, 9).await.is_empty());
}

// A redelivery of a purged message is still a duplicate, and the user stays opted out.
async fn purged_user_leaves_key_and_opt_out(backend: &mut Backend) {
    let store = backend.store();
    store_conversation(store).await;
    let purged = store.purge_user(&ANA.into(), None, false).await.unwrap();
    assert_eq!((purged.messages, purged.outbound), (6, 2));
    assert_eq!(purged.consents, 0);
    for number in 1..=6 {
        let row = message_row(store, number).await;
        assert!(row.params.is_none() && row.response.is_none() && row.user.is_none());
        assert!(row.replies.is_empty());
        let redelivery = accept(store, inbound_from(&[ANA], number)).await;
        assert_eq!(
            redelivery,
            AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
        );
    }
    let conversation = store
        .conversation(&SENDER.into(), &ANA.into())
        .await
        .unwrap();
    assert!(conversation.is_none());
    // The evidence of the opt-out that is in force stays, under each address of the user, and nothing else.
    let ledger = store.consent_ledger(0, 99).await.unwrap();
    for user in [ANA, ANA_ID] {
        let has_evidence = ledger
            .iter()
            .any(|entry| entry.record.user.as_str() == user && entry.record.at == at(6));
        assert!(has_evidence, "no evidence for {user}");
    }
    assert!(
        ledger
            .iter()
            .all(|entry| entry.record.action.as_str() == "opt_out")
    );
    assert_eq!(message_row(store, 7).await.params.unwrap().0, "Body=text+7");
    assert_eq!(
        accept(store, inbound_from(&[ANA_ID], 8)).await,
        AcceptOutcome::OptedOut
    );
    if backend.kind != super::Kind::Memory {
        let store = backend.store();
        store.purge_user(&ANA.into(), None, false).await.unwrap();
        store.purge_user(&BEN.into(), None, false).await.unwrap();
        store.purge_user(&ANA_ID.into(), None, false).await.unwrap();
        let found = find_canaries(backend).await;
        // Only the opt-out of the user is left.
        let consent = |row: &String| {
            row.starts_with("consent") || row.starts_with("55") || row.starts_with("13")
        };
        assert!(!found.is_empty() && found.iter().all(consent), "{found:?}");
    }
}

async fn purge_with_consent_leaves_no_trace(backend: &mut Backend) {
    let store = backend.store();
    store_conversation(store).await;
    let purged = store.purge_user(&ANA_ID.into(), None, true).await.unwrap();
    assert_eq!(
        (purged.messages, purged.outbound, purged.consents),
        (6, 2, 2)
    );
    store.purge_user(&BEN.into(), None, true).await.unwrap();
    assert!(store.consent_ledger(0, 99).await.unwrap().is_empty());
    if backend.kind != super::Kind::Memory {
        assert_eq!(find_canaries(backend).await, Vec::<String>::new());
    }
    accept_claimed(backend.store(), inbound_from(&[ANA], 9)).await;
}

async fn purge_closes_open_messages(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    let second = expect_queued(&accept(store, new_inbound(2)).await);
    store.purge_user(&ANA.into(), None, true).await.unwrap();
    assert!(
        !store
            .complete_via_rest(claim, vec![reply("late")], Completion::default(), at(3))
            .await
            .unwrap()
    );
    let lost = save_twiml(store, claim, "late", at(3)).await;
    assert_eq!(lost, replyhook::internals::ReplyDecision::ClaimLost);
    for (number, id) in [(1, claim.id), (2, second)] {
        assert_eq!(message_row(store, number).await.state, "dead");
        let decided = store.decide(id, ReplyPath::Rest, at(3)).await.unwrap();
        assert_eq!(decided, replyhook::internals::ReplyDecision::ViaRest);
        assert!(!store.retry(sid(number), at(4)).await.unwrap());
    }
    assert!(claim_backlog(store, at(5)).await.is_empty());
    accept_claimed(store, new_inbound(3)).await;
}

// Open messages are not deleted, however old they are.
async fn retention_deletes_text_then_replies_then_keys(backend: &mut Backend) {
    let store = backend.store();
    // Message `number` was received at second `number`.
    for number in 1..=3 {
        let claim = reply_via_rest(store, inbound_from(&[BEN], number), &["text"]).await;
        assert!(
            store
                .dialogue(claim.conversation, at(0))
                .await
                .unwrap()
                .is_none()
        );
        let message = store.claim(9, at(4)).await.unwrap().pop().unwrap();
        let sent = SendOutcome::Sent {
            sid: sid(10 + number),
            status: MessageStatus::Queued,
        };
        store.record_outcome(message.id, sent, at(4)).await.unwrap();
    }
    for number in 1..=3 {
        let change = DialogueChange::Set {
            data: "step 1".to_owned(),
            expires_at: None,
        };
        let talk = NewInbound {
            sender: "whatsapp:+15550004444".into(),
            ..inbound_from(&[ANA], 20 + number)
        };
        let claim = accept_claimed(store, talk).await;
        store
            .complete_inline(claim, None, change.into(), at(5))
            .await
            .unwrap();
    }
    let open = accept_claimed(store, inbound_from(&["whatsapp:+15550006666"], 40)).await;
    let never = Timestamp::MIN;
    let retention = |texts: i64, content: i64, keys: i64| Retention {
        now: at(100),
        texts_before: at(texts),
        content_before: at(content),
        keys_before: at(keys),
        unmatched_status_before: never,
    };
    let finish = async |retention| expire_all(store, retention).await;
    let nothing = retention(-9, -9, -9);
    assert!(!store.expire(nothing).await.unwrap().has_more);

    finish(retention(3, -9, -9)).await;
    for (number, there) in [(1, false), (2, false), (3, true)] {
        let row = message_row(store, number).await;
        assert_eq!(row.params.is_some(), there, "{number}");
        assert_eq!(row.replies[0].params.is_some(), there, "{number}");
        assert_eq!(row.replies[0].sid, Some(sid(10 + number)));
    }
    finish(retention(90, 3, -9)).await;
    assert!(message_row(store, 1).await.replies.is_empty());
    assert_eq!(message_row(store, 3).await.replies.len(), 1);
    let row = message_row(store, 40).await;
    assert!(row.params.is_some(), "an open message has expired");

    finish(retention(90, 90, -9)).await;
    assert!(message_row(store, 3).await.replies.is_empty());
    assert!(message_row(store, 3).await.user.is_none());
    let (ben, other) = (BEN.into(), "whatsapp:+15550004444".into());
    assert!(
        store
            .conversation(&SENDER.into(), &ben)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        store
            .conversation(&other, &ANA.into())
            .await
            .unwrap()
            .is_none()
    );
    let redelivery = accept(store, inbound_from(&[BEN], 3)).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
    assert!(
        store
            .complete_via_rest(open, Vec::new(), Completion::default(), at(41))
            .await
            .unwrap()
    );

    finish(retention(90, 90, 90)).await;
    assert!(
        store
            .messages(filter_with_limit(9))
            .await
            .unwrap()
            .is_empty()
    );
    accept_claimed(store, inbound_from(&[BEN], 3)).await;
    let scopes = vec![ConsentScope::Sender(SENDER.into())];
    assert!(
        store
            .consent(scopes, &ben)
            .await
            .unwrap()
            .opted_out
            .is_none()
    );
}

async fn store_check_leaves_no_message(backend: &mut Backend) {
    let store = backend.store();
    store.check().await.unwrap();
    accept_claimed(store, new_inbound(1)).await;
    store.check().await.unwrap();
    store.check().await.unwrap();
    assert_eq!(list_numbers(store, filter_with_limit(9)).await, [1]);
    assert_eq!(store.backlog_stats().await.unwrap().processing, 1);
    #[cfg(feature = "postgres")]
    if let Some(database) = &backend.database {
        assert!(!database.dump().await.contains("check:"));
    }
}

async fn delete_everything_leaves_empty_store(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    let opting_out = with_keyword(stop_keyword(), inbound_from(&[BEN], 2));
    accept(store, opting_out).await;
    reply_via_rest(store, new_inbound(3), &["late"]).await;
    store.delete_everything().await.unwrap();
    assert!(list_numbers(store, filter_with_limit(9)).await.is_empty());
    assert!(store.consent_ledger(0, 9).await.unwrap().is_empty());
    let scopes = vec![ConsentScope::Sender(SENDER.into())];
    let consent = store.consent(scopes, &BEN.into()).await.unwrap();
    assert_eq!(consent.opted_out, None);
    let sender = SENDER.into();
    assert!(
        store
            .conversation(&sender, &ANA.into())
            .await
            .unwrap()
            .is_none()
    );
    // A redelivery counts as a new message.
    let claim = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    assert_eq!(claim.attempt, 1);
}

async fn dead_messages_count_until_retried_or_purged(backend: &mut Backend) {
    let store = backend.store();
    let counts = async || {
        let open = store.backlog_stats().await.unwrap();
        let dead = MessageFilter {
            state: Some("dead".to_owned()),
            ..filter_with_limit(9)
        };
        let listed = list_numbers(store, dead).await.len() as u64;
        assert_eq!(listed, open.dead + open.expired_unanswered);
        (open.dead, open.expired_unanswered)
    };
    assert_eq!(counts().await, (0, 0));
    for (number, user) in [(1, ANA), (2, BEN)] {
        let claim = accept_claimed(store, inbound_from(&[user], number)).await;
        let failed = store
            .record_failure(claim, "it failed", true, at(0))
            .await
            .unwrap();
        assert_eq!(failed, FailOutcome::Dead);
    }
    accept_claimed(store, inbound_from(&[ANA_ID], 3)).await;
    assert_eq!(counts().await, (2, 0));
    assert!(store.retry(sid(1), at(4)).await.unwrap());
    assert_eq!(counts().await, (1, 0));
    store.purge_user(&BEN.into(), None, false).await.unwrap();
    // An open message of a purged user becomes dead, but is not counted.
    store.purge_user(&ANA_ID.into(), None, false).await.unwrap();
    assert_eq!(counts().await, (0, 0));
}

async fn expired_content_of_unanswered_messages_is_returned(backend: &mut Backend) {
    let store = backend.store();
    let retention = |texts: i64, keys: i64| Retention {
        now: at(100),
        texts_before: at(texts),
        content_before: at(-9),
        keys_before: at(keys),
        unmatched_status_before: Timestamp::MIN,
    };
    accept_and_answer(store, inbound_from(&[ANA], 1)).await;
    let failed = accept_claimed(store, inbound_from(&[ANA], 2)).await;
    store
        .record_failure(failed, "it failed", false, at(0))
        .await
        .unwrap();
    let dead = accept_claimed(store, inbound_from(&[ANA], 3)).await;
    store
        .record_failure(dead, "it failed", true, at(0))
        .await
        .unwrap();
    accept_claimed(store, inbound_from(&[BEN], 4)).await;
    accept_claimed(store, inbound_from(&[ANA_ID], 5)).await;
    store.purge_user(&ANA_ID.into(), None, false).await.unwrap();
    let expire = async |retention| {
        let mut unanswered = Vec::new();
        loop {
            let expired = store.expire(retention).await.unwrap();
            unanswered.extend(expired.unanswered);
            if !expired.has_more {
                return unanswered;
            }
        }
    };
    assert_eq!(expire(retention(9, -9)).await, [sid(2), sid(3)]);
    let open = store.backlog_stats().await.unwrap();
    assert_eq!((open.dead, open.expired_unanswered), (0, 2));
    assert_eq!(expire(retention(9, -9)).await, []);
    for number in [2, 3] {
        let row = message_row(store, number).await;
        assert_eq!((row.state, row.params.is_none()), ("dead", true));
        assert!(!store.retry(sid(number), at(9)).await.unwrap());
    }
    assert_eq!(expire(retention(9, 9)).await, [sid(4)]);
    let open = store.backlog_stats().await.unwrap();
    assert_eq!((open.dead, open.expired_unanswered), (0, 0));
}
