//! Sending via the REST API: in order, once, and not to users who have opted out.

use replyhook::internals::{
    NewInbound, NewOutbound, OutboundMessage, SendOutcome, StatusEvent, Store,
};
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource, OutboundState};
use replyhook::{Address, ErrorCode, MessageStatus};

use super::{
    ANA, ANA_ID, BEN, Backend, SENDER, accept, accept_and_answer, accept_claimed, account, at,
    bodies, deliver, inbound_from, message_row, new_inbound, over_all_stores, reply,
    reply_via_rest, sent_outcome, service, sid, start_keyword, stop_keyword, with_keyword,
};
use crate::support::Wait;

over_all_stores!(
    reply_parts_are_sent_sequentially,
    held_or_failed_part_blocks_rest_until_release,
    outbound_messages_are_claimed_once_up_to_limit,
    opted_out_user_gets_nothing_under_any_address,
    confirmation_of_opt_out_is_sent,
    opt_out_lists_scheduled_messages_for_cancellation,
    claimed_message_carries_window_and_opt_in,
    retry_delays_of_one_account_end,
    retried_message_waits_until_due,
    send_interrupted_by_crash_is_looked_up,
    preparation_interrupted_by_crash_is_pending,
    prepared_message_is_claimed_again,
    lookup_goes_to_one_worker_until_resolved,
    opt_out_error_code_opts_user_out,
    opt_out_error_of_service_message_covers_service,
    unmatched_sids_exclude_own_messages,
    outbox_stats_count_messages_by_state,
);

async fn claim_one(store: &dyn Store, seconds: i64) -> OutboundMessage {
    let mut claimed = store.claim(9, at(seconds)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    claimed.pop().unwrap()
}

async fn reply_parts_are_sent_sequentially(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["one", "two", "three"]).await;
    for (number, text) in [(11, "one"), (12, "two"), (13, "three")] {
        let message = claim_one(store, 2).await;
        assert_eq!(message.params.get("Body"), Some(text));
        assert_eq!(
            (message.attempt, message.lookups, message.sent_at),
            (1, 0, Some(at(2)))
        );
        assert_eq!(
            (message.sender.as_str(), message.user.as_str()),
            (SENDER, ANA)
        );
        assert!(store.claim(9, at(2)).await.unwrap().is_empty());
        store
            .record_outcome(message.id, sent_outcome(number), at(3))
            .await
            .unwrap();
    }
    assert!(store.claim(9, at(3)).await.unwrap().is_empty());
    let row = message_row(store, 1).await;
    assert_eq!(row.state, "sent");
    let sids: Vec<_> = row.replies.iter().map(|reply| reply.sid).collect();
    assert_eq!(sids, [Some(sid(11)), Some(sid(12)), Some(sid(13))]);
}

async fn held_or_failed_part_blocks_rest_until_release(backend: &mut Backend) {
    let store = backend.store();
    let failed = SendOutcome::Failed {
        code: Some(ErrorCode(63016)),
        reason: "rejected".into(),
    };
    let looked = SendOutcome::Unknown {
        lookup_at: at(3),
        looked_up: true,
    };
    for (number, outcomes, state) in [
        (1, vec![failed], "failed"),
        (2, vec![looked, SendOutcome::Held], "held"),
    ] {
        reply_via_rest(store, new_inbound(number), &["one", "two"]).await;
        let message = claim_one(store, 2).await;
        for outcome in outcomes {
            store
                .record_outcome(message.id, outcome, at(3))
                .await
                .unwrap();
        }
        assert!(store.claim(9, at(9)).await.unwrap().is_empty());
        assert!(store.claim_lookups(9, at(9)).await.unwrap().is_empty());
        assert_eq!(message_row(store, number).await.state, state);
        assert_eq!(store.release(sid(number), at(10)).await.unwrap(), 1);
        assert_eq!(message_row(store, number).await.replies[0].error_code, None);
        for (sid, text) in [(10 * number + 1, "one"), (10 * number + 2, "two")] {
            let message = claim_one(store, 10).await;
            assert_eq!(message.params.get("Body"), Some(text));
            store
                .record_outcome(message.id, sent_outcome(sid), at(11))
                .await
                .unwrap();
        }
        assert_eq!(message_row(store, number).await.state, "sent");
        assert_eq!(store.release(sid(number), at(12)).await.unwrap(), 0);
    }
}

async fn outbound_messages_are_claimed_once_up_to_limit(backend: &mut Backend) {
    let store = backend.store();
    let texts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let to_each = |text: &String| NewOutbound {
        user: format!("whatsapp:+155500{text}").as_str().into(),
        ..reply(text)
    };
    let replies = texts.iter().map(to_each).collect();
    let ids = store.enqueue(replies, at(1)).await.unwrap();
    assert!(ids.is_sorted() && ids.len() == 40);
    let first = store.claim(3, at(1)).await.unwrap();
    assert_eq!(bodies(&first), ["0", "1", "2"]);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = backend.shared();
            tokio::spawn(async move { store.claim(9, at(1)).await.unwrap() })
        })
        .collect();
    let mut claimed: Vec<i64> = first.iter().map(|message| message.id).collect();
    for task in tasks {
        claimed.extend(task.await.unwrap().iter().map(|message| message.id));
    }
    // Concurrent claims may leave some messages, so claim the rest. No message may be claimed twice.
    claimed.extend(
        store
            .claim(99, at(1))
            .await
            .unwrap()
            .iter()
            .map(|message| message.id),
    );
    claimed.sort_unstable();
    assert_eq!(claimed, ids);
}

async fn opted_out_user_gets_nothing_under_any_address(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    reply_via_rest(store, inbound_from(&[ANA], 2), &["one", "two"]).await;
    let by_id = NewOutbound {
        user: ANA_ID.into(),
        ..reply("by id")
    };
    let to_ben = NewOutbound {
        user: BEN.into(),
        ..reply("to Ben")
    };
    let by_service = NewOutbound {
        sender: "whatsapp:+15550004444".into(),
        service: Some(service()),
        ..reply("by the service")
    };
    let replies = vec![by_id, to_ben, by_service];
    store.enqueue(replies, at(2)).await.unwrap();
    let through = NewInbound {
        service: Some(service()),
        ..with_keyword(stop_keyword(), inbound_from(&[ANA], 3))
    };
    accept(store, through).await;
    accept(store, with_keyword(stop_keyword(), inbound_from(&[ANA], 4))).await;
    let claimed = store.claim(9, at(5)).await.unwrap();
    assert_eq!(bodies(&claimed), ["by id", "to Ben"][1..]);
    // Suppressed messages cannot be claimed.
    assert!(store.claim(9, at(5)).await.unwrap().is_empty());
    let row = message_row(store, 2).await;
    let states: Vec<_> = row.replies.iter().map(|reply| reply.state).collect();
    assert_eq!(
        states,
        [OutboundState::Suppressed, OutboundState::Suppressed]
    );
    assert_eq!(
        row.replies[0].reason.as_deref(),
        Some("the user has opted out")
    );
    accept(
        store,
        with_keyword(start_keyword(), inbound_from(&[ANA_ID], 6)),
    )
    .await;
    store.enqueue(vec![reply("again")], at(7)).await.unwrap();
    // The opt-out from the service still applies, but not to a message without the service.
    assert_eq!(bodies(&store.claim(9, at(7)).await.unwrap()), ["again"]);
}

// It is the one message that the user gets after the opt-out, also if its first call is retried.
async fn confirmation_of_opt_out_is_sent(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, inbound_from(&[ANA], 1), &["pending"]).await;
    accept(store, with_keyword(stop_keyword(), inbound_from(&[ANA], 2))).await;
    let queued = store.enqueue_confirmation(vec![reply("goodbye")], at(2));
    assert_eq!(queued.await.unwrap().len(), 1);
    store.enqueue(vec![reply("later")], at(2)).await.unwrap();
    assert!(store.claim(1, at(3)).await.unwrap().len() <= 1);
    let id = message_row(store, 1).await.replies[0].id;
    let confirmation = store.outbound(id + 1).await.unwrap().unwrap();
    if confirmation.state == OutboundState::Sending {
        let retry = SendOutcome::Retry {
            not_before: at(4),
            code: None,
        };
        let recorded = store.record_outcome(confirmation.id, retry, at(3));
        recorded.await.unwrap();
    }
    assert_eq!(bodies(&deliver(store, 9).await), ["goodbye"]);
    assert!(store.claim(9, at(99)).await.unwrap().is_empty());
}

async fn opt_out_lists_scheduled_messages_for_cancellation(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    let to = |user: &str| NewOutbound {
        user: user.into(),
        ..reply("later")
    };
    let ids = store
        .enqueue(vec![to(ANA), to(BEN), to(ANA_ID), to(ANA)], at(2))
        .await
        .unwrap();
    let statuses = [
        MessageStatus::Scheduled,
        MessageStatus::Scheduled,
        MessageStatus::Scheduled,
        MessageStatus::Queued,
    ];
    for (number, status) in statuses.into_iter().enumerate() {
        let wait = Wait::until("no message is left to claim");
        while !store.claim(9, at(3)).await.unwrap().is_empty() {
            wait.check();
        }
        let sid = sid(100 + number as u64);
        let outcome = SendOutcome::Sent { sid, status };
        store
            .record_outcome(ids[number], outcome, at(3))
            .await
            .unwrap();
    }
    let unwanted = async |store: &dyn Store, after: i64, limit: usize| -> Vec<_> {
        let found = store.scheduled_to_cancel(after, limit).await.unwrap();
        found.iter().map(|found| (found.id, found.sid)).collect()
    };
    assert_eq!(unwanted(store, 0, 9).await, []);
    let stopped = with_keyword(stop_keyword(), inbound_from(&[ANA], 4));
    accept(store, stopped).await;
    let both = [(ids[0], sid(100)), (ids[2], sid(102))];
    assert_eq!(unwanted(store, 0, 9).await, both);
    assert_eq!(unwanted(store, 0, 1).await, both[..1]);
    assert_eq!(unwanted(store, ids[0], 1).await, both[1..]);
    let called_back = StatusEvent {
        account: account(),
        sid: sid(100),
        outbound: None,
        status: MessageStatus::Canceled,
        error_code: None,
        sender: None,
        service: None,
        user: Vec::new(),
        at: at(5),
    };
    store.apply_status(called_back).await.unwrap();
    assert_eq!(unwanted(store, 0, 9).await, both[1..]);
}

async fn claimed_message_carries_window_and_opt_in(backend: &mut Backend) {
    let store = backend.store();
    let hours = |hours: i64| hours * 3600;
    accept_and_answer(store, new_inbound(0)).await;
    let template = NewOutbound {
        template: true,
        ..reply("template")
    };
    let sms = NewOutbound {
        sender: "+15550002222".into(),
        user: "+15550001111".into(),
        ..reply("sms")
    };
    let foreign_message = NewOutbound {
        user: BEN.into(),
        ..reply("stranger")
    };
    let all = vec![reply("text"), template, sms, foreign_message];
    store.enqueue(all.clone(), at(0)).await.unwrap();
    let closed = |claimed: &[OutboundMessage]| -> Vec<bool> {
        claimed
            .iter()
            .map(|message| message.window.is_none())
            .collect()
    };
    let claimed = deliver(store, hours(24) - 121).await;
    assert_eq!(closed(&claimed), [false, false, false, true]);
    assert!(claimed.iter().all(|message| !message.opted_in));
    let record = ConsentRecord {
        scope: ConsentScope::Sender(SENDER.into()),
        user: Address::from(ANA),
        action: ConsentAction::OptIn,
        source: ConsentSource::Api,
        evidence: None,
        note: None,
        at: at(1),
    };
    store.record_consent(record).await.unwrap();
    store.enqueue(all, at(0)).await.unwrap();
    let claimed = deliver(store, hours(24) - 120).await;
    assert_eq!(closed(&claimed), [true, true, false, true]);
    let opted_in: Vec<_> = claimed.iter().map(|message| message.opted_in).collect();
    assert_eq!(opted_in, [true, true, false, false]);
}

// Also the message behind it, which was not tried yet.
async fn retry_delays_of_one_account_end(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text", "next"]).await;
    let message = claim_one(store, 2).await;
    let retry = SendOutcome::Retry {
        not_before: at(60),
        code: None,
    };
    let recorded = store.record_outcome(message.id, retry, at(3));
    recorded.await.unwrap();
    let other = "AC00000000000000000000000000000002".parse().unwrap();
    store.end_retry_delays(other, at(4)).await.unwrap();
    assert!(store.claim(9, at(9)).await.unwrap().is_empty());
    let account = super::account();
    store.end_retry_delays(account, at(10)).await.unwrap();
    assert_eq!(bodies(&deliver(store, 10).await), ["text", "next"]);
}

async fn retried_message_waits_until_due(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    let message = claim_one(store, 2).await;
    let retry = SendOutcome::Retry {
        not_before: at(10),
        code: None,
    };
    store
        .record_outcome(message.id, retry, at(3))
        .await
        .unwrap();
    assert!(store.claim(9, at(9)).await.unwrap().is_empty());
    let second = claim_one(store, 10).await;
    assert_eq!(
        (second.id, second.attempt, second.sent_at),
        (message.id, 2, Some(at(10)))
    );
}

// The message is not sent again; a status callback has two seconds to resolve it before the lookup.
async fn send_interrupted_by_crash_is_looked_up(backend: &mut Backend) {
    reply_via_rest(backend.store(), new_inbound(1), &["text"]).await;
    let message = claim_one(backend.store(), 2).await;
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    assert!(store.claim(9, at(10)).await.unwrap().is_empty());
    assert_eq!(message_row(store, 1).await.state, "unknown");
    assert!(store.claim_lookups(9, at(11)).await.unwrap().is_empty());
    let lost = store.claim_lookups(9, at(12)).await.unwrap();
    assert_eq!((lost[0].id, lost[0].sent_at), (message.id, Some(at(2))));
    store
        .record_outcome(message.id, sent_outcome(11), at(13))
        .await
        .unwrap();
    assert_eq!(message_row(store, 1).await.state, "sent");
}

// No call was made for the message, so it is sent as if it had not been claimed.
async fn preparation_interrupted_by_crash_is_pending(backend: &mut Backend) {
    reply_via_rest(backend.store(), new_inbound(1), &["text"]).await;
    let message = claim_one(backend.store(), 2).await;
    assert!(backend.store().begin_preparation(message.id).await.unwrap());
    if !backend.crash().await {
        return;
    }
    let again = claim_one(backend.store(), 3).await;
    assert_eq!((again.id, again.attempt), (message.id, 1));
    // Now a call may have been made.
    backend.crash().await;
    let store = backend.store();
    let wait = Wait::until("the call of the dead process is unknown");
    while message_row(store, 1).await.state != "unknown" {
        wait.check();
        // The first renewal of the lease may still be on its way when the process dies.
        backend.expire_leases().await;
        assert!(store.claim(9, at(10)).await.unwrap().is_empty());
    }
    assert!(!store.begin_preparation(message.id).await.unwrap());
}

async fn prepared_message_is_claimed_again(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["one", "two"]).await;
    let message = claim_one(store, 2).await;
    let prepared = async |seconds| {
        let recorded = store.record_outcome(message.id, SendOutcome::Prepared, at(seconds));
        recorded.await.unwrap();
    };
    // Without its beginning, a call may have been made.
    prepared(3).await;
    assert!(store.claim(9, at(3)).await.unwrap().is_empty());
    assert!(store.begin_preparation(message.id).await.unwrap());
    assert!(store.claim(9, at(3)).await.unwrap().is_empty());
    prepared(3).await;
    let again = claim_one(store, 3).await;
    assert_eq!((again.id, again.attempt), (message.id, 1));
    // It ends with a claim, so the outcome of the earlier one has no effect.
    prepared(4).await;
    assert!(store.claim(9, at(4)).await.unwrap().is_empty());
    let sent = store.record_outcome(message.id, sent_outcome(11), at(4));
    sent.await.unwrap();
    assert_eq!(claim_one(store, 4).await.params.get("Body"), Some("two"));
}

// Another worker gets the lookup after a minute; nothing changes a message that is known to be sent.
async fn lookup_goes_to_one_worker_until_resolved(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    let message = claim_one(store, 2).await;
    let unknown = |seconds, looked| SendOutcome::Unknown {
        lookup_at: at(seconds),
        looked_up: looked,
    };
    store
        .record_outcome(message.id, unknown(5, false), at(3))
        .await
        .unwrap();
    assert!(store.claim_lookups(9, at(4)).await.unwrap().is_empty());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = backend.shared();
            tokio::spawn(async move { store.claim_lookups(9, at(5)).await.unwrap() })
        })
        .collect();
    let mut lookups = Vec::new();
    for task in tasks {
        lookups.extend(task.await.unwrap());
    }
    assert_eq!(
        (lookups.len(), lookups[0].id, lookups[0].lookups),
        (1, message.id, 0)
    );
    // The first worker may have died, so the lookup can be claimed again after a minute.
    assert!(store.claim_lookups(9, at(64)).await.unwrap().is_empty());
    assert_eq!(store.claim_lookups(9, at(65)).await.unwrap().len(), 1);
    store
        .record_outcome(message.id, unknown(70, true), at(66))
        .await
        .unwrap();
    let lookup = store.claim_lookups(9, at(70)).await.unwrap().pop().unwrap();
    assert_eq!(lookup.lookups, 1);
    store
        .record_outcome(message.id, SendOutcome::Held, at(71))
        .await
        .unwrap();
    // `Sent` overwrites `Held`, and no later outcome overwrites `Sent`.
    store
        .record_outcome(message.id, sent_outcome(11), at(72))
        .await
        .unwrap();
    for late in [
        SendOutcome::Retry {
            not_before: at(73),
            code: None,
        },
        unknown(73, true),
        SendOutcome::Held,
        SendOutcome::Failed {
            code: None,
            reason: "given up".into(),
        },
    ] {
        store
            .record_outcome(message.id, late, at(73))
            .await
            .unwrap();
        assert_eq!(message_row(store, 1).await.state, "sent");
    }
    assert!(store.claim(9, at(99)).await.unwrap().is_empty());
}

async fn opt_out_error_code_opts_user_out(backend: &mut Backend) {
    let store = backend.store();
    for (number, code) in [(1, 21610), (2, 63014), (3, 63016)] {
        let user = format!("whatsapp:+1555000{code}");
        accept_claimed(store, inbound_from(&[&user], number)).await;
        let to_user = NewOutbound {
            user: user.as_str().into(),
            ..reply("text")
        };
        store.enqueue(vec![to_user], at(2)).await.unwrap();
        let message = claim_one(store, 3).await;
        let rejected = SendOutcome::Failed {
            code: Some(ErrorCode(code)),
            reason: "rejected".into(),
        };
        store
            .record_outcome(message.id, rejected.clone(), at(4))
            .await
            .unwrap();
        store
            .record_outcome(message.id, rejected, at(5))
            .await
            .unwrap();
        let scopes = vec![ConsentScope::Sender(SENDER.into())];
        let state = store.consent(scopes, &user.as_str().into()).await.unwrap();
        assert_eq!(state.opted_out, (code != 63016).then_some(at(4)));
    }
    let ledger = store.consent_ledger(0, 9).await.unwrap();
    assert_eq!(ledger.len(), 2);
    assert!(
        ledger
            .iter()
            .all(|entry| entry.record.source == ConsentSource::Refusal)
    );
}

// A user who blocks the sender opts out of that sender only.
async fn opt_out_error_of_service_message_covers_service(backend: &mut Backend) {
    let store = backend.store();
    let sender = ConsentScope::Sender(SENDER.into());
    let both = [ConsentScope::Service(service()), sender];
    let standing = async |store: &dyn Store, user: &str| {
        let mut opted_out = Vec::new();
        for scope in &both {
            let state = store.consent(vec![scope.clone()], &user.into()).await;
            opted_out.push(state.unwrap().opted_out);
        }
        opted_out
    };
    let by_service = NewOutbound {
        service: Some(service()),
        ..reply("text")
    };
    store.enqueue(vec![by_service], at(2)).await.unwrap();
    let message = claim_one(store, 3).await;
    let rejected = SendOutcome::Failed {
        code: Some(ErrorCode(21610)),
        reason: "rejected".into(),
    };
    store
        .record_outcome(message.id, rejected, at(4))
        .await
        .unwrap();
    assert_eq!(standing(store, ANA).await, [Some(at(4)), None]);
    let told_later = StatusEvent {
        account: account(),
        sid: sid(7),
        outbound: None,
        status: MessageStatus::Failed,
        error_code: Some(ErrorCode(21610)),
        sender: Some(SENDER.into()),
        service: Some(service()),
        user: vec![BEN.into()],
        at: at(5),
    };
    store.apply_status(told_later.clone()).await.unwrap();
    assert_eq!(standing(store, BEN).await, [Some(at(5)), None]);
    // 63014: the user has blocked the sender.
    let blocked = StatusEvent {
        sid: sid(8),
        error_code: Some(ErrorCode(63014)),
        at: at(6),
        ..told_later
    };
    store.apply_status(blocked).await.unwrap();
    assert_eq!(standing(store, BEN).await, [Some(at(5)), Some(at(6))]);
}

async fn unmatched_sids_exclude_own_messages(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    let message = claim_one(store, 2).await;
    store
        .record_outcome(message.id, sent_outcome(11), at(3))
        .await
        .unwrap();
    let sids = vec![sid(13), sid(11), sid(12)];
    let free = store
        .unmatched_sids(super::account(), sids.clone())
        .await
        .unwrap();
    assert_eq!(free, [sid(13), sid(12)]);
    let other = "AC00000000000000000000000000000002".parse().unwrap();
    assert_eq!(
        store.unmatched_sids(other, sids.clone()).await.unwrap(),
        sids
    );
}

async fn outbox_stats_count_messages_by_state(backend: &mut Backend) {
    let store = backend.store();
    assert_eq!(store.outbox_stats().await.unwrap().oldest, None);
    let to_one = |number| NewOutbound {
        user: format!("whatsapp:+155500{number}").as_str().into(),
        ..reply("text")
    };
    let ids = store
        .enqueue((1..=4).map(to_one).collect(), at(5))
        .await
        .unwrap();
    store.enqueue(vec![to_one(5)], at(6)).await.unwrap();
    store.claim(3, at(6)).await.unwrap();
    let unknown = SendOutcome::Unknown {
        lookup_at: at(9),
        looked_up: false,
    };
    store
        .record_outcome(ids[0], sent_outcome(11), at(7))
        .await
        .unwrap();
    store
        .record_outcome(ids[1], unknown.clone(), at(7))
        .await
        .unwrap();
    store.record_outcome(ids[2], unknown, at(7)).await.unwrap();
    store
        .record_outcome(ids[2], SendOutcome::Held, at(7))
        .await
        .unwrap();
    let state = store.outbox_stats().await.unwrap();
    assert_eq!((state.pending, state.unknown, state.held), (2, 1, 1));
    assert_eq!(state.oldest, Some(at(5)));
}
