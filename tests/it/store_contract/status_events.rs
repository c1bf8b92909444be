//! Status events of outbound messages, which lead to the same state in any order and number.

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use proptest::test_runner::{Config, TestRunner};
use replyhook::internals::{
    OutboundMessage, Retention, SendOutcome, StatusEffect, StatusEvent, Store,
};
use replyhook::store::{ConsentScope, ConsentSource, OutboundState};
use replyhook::{ErrorCode, MessageStatus, Timestamp};

use super::{
    ANA, Backend, SENDER, account, at, message_row, new_inbound, over_all_stores, reply_via_rest,
    sent_outcome, sid,
};

over_all_stores!(
    status_events_in_any_order_yield_same_state,
    status_event_with_reference_resolves_unknown_message,
    status_event_with_wrong_reference_matches_nothing,
    unmatched_status_event_waits_until_retention_ends,
    status_event_with_21610_opts_user_out,
    callback_racing_with_rest_response_is_applied,
);

fn status_event(number: u64, status: &str) -> StatusEvent {
    StatusEvent {
        account: account(),
        sid: sid(number),
        outbound: None,
        status: MessageStatus::parse(status),
        error_code: None,
        sender: Some(SENDER.into()),
        service: None,
        user: vec![ANA.into()],
        at: at(5),
    }
}

fn failure(number: u64) -> StatusEvent {
    StatusEvent {
        error_code: Some(ErrorCode(30003)),
        ..status_event(number, "undelivered")
    }
}

async fn claim_new_reply(store: &dyn Store, number: u64) -> OutboundMessage {
    reply_via_rest(store, new_inbound(number), &["text"]).await;
    store.claim(1, at(999)).await.unwrap().pop().unwrap()
}

/// Event of a message. The order of events must not change the final state.
#[derive(Debug, Clone)]
enum Event {
    /// Response of the REST call.
    Response,
    /// Status callback.
    Callback(&'static str),
    /// Timeout of the REST call.
    Timeout,
}

const STATUSES: [&str; 7] = [
    "queued",
    "sending",
    "sent",
    "delivered",
    "read",
    "undelivered",
    "teleported",
];

fn events() -> impl Strategy<Value = (Vec<Event>, bool)> {
    let statuses = subsequence(&STATUSES[..], 0..=STATUSES.len());
    let extra = proptest::collection::vec(any::<Index>(), 0..4);
    (statuses, extra, any::<bool>(), any::<bool>())
        .prop_map(|(statuses, extra, times_out, named)| {
            let mut events: Vec<_> = statuses.into_iter().map(Event::Callback).collect();
            events.push(Event::Response);
            let again: Vec<_> = extra.iter().map(|at| at.get(&events).clone()).collect();
            events.extend(again);
            if times_out {
                events.push(Event::Timeout);
            }
            (events, named)
        })
        .prop_flat_map(|(events, named)| (Just(events).prop_shuffle(), Just(named)))
}

// The end of the REST call is one of the shuffled and repeated events.
async fn status_events_in_any_order_yield_same_state(backend: &mut Backend) {
    let cases = if backend.kind == super::Kind::Memory {
        128
    } else {
        24
    };
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let store = backend.store();
    let mut runner = TestRunner::new(config);
    for case in 1..=u64::from(cases) {
        use proptest::strategy::ValueTree;
        let (events, named) = events().new_tree(&mut runner).unwrap().current();
        let message = claim_new_reply(store, case).await;
        let number = 10_000 + case;
        for event in &events {
            match event {
                Event::Response => store
                    .record_outcome(message.id, sent_outcome(number), at(3))
                    .await
                    .unwrap(),
                // The REST call has timed out, so the sending process does not know its outcome.
                Event::Timeout => {
                    let unknown = SendOutcome::Unknown {
                        lookup_at: at(900),
                        looked_up: false,
                    };
                    store
                        .record_outcome(message.id, unknown, at(3))
                        .await
                        .unwrap();
                }
                Event::Callback(status) => {
                    let event = if *status == "undelivered" {
                        failure(number)
                    } else {
                        status_event(number, status)
                    };
                    let event = StatusEvent {
                        outbound: named.then(|| message.name()),
                        ..event
                    };
                    store.apply_status(event).await.unwrap();
                }
            }
        }
        let reply = message_row(store, case).await.replies.pop().unwrap();
        let statuses = events.iter().filter_map(|event| match event {
            Event::Callback(status) => Some(MessageStatus::parse(status)),
            _ => None,
        });
        let best = statuses
            .chain([MessageStatus::Queued])
            .filter(|status| status.rank().is_some())
            .max_by_key(MessageStatus::rank)
            .unwrap();
        let code = best.is_failure().then_some(30003);
        assert_eq!(
            (reply.state, reply.sid),
            (OutboundState::Sent, Some(sid(number))),
            "{events:?}"
        );
        assert_eq!(
            reply.status.as_deref(),
            Some(best.as_str()),
            "{events:?} {named}"
        );
        assert_eq!(reply.error_code, code, "{events:?} {named}");
    }
}

// A status event that names the message proves that Twilio accepted it.
async fn status_event_with_reference_resolves_unknown_message(backend: &mut Backend) {
    let store = backend.store();
    let message = claim_new_reply(store, 1).await;
    let unknown = SendOutcome::Unknown {
        lookup_at: at(3),
        looked_up: false,
    };
    store
        .record_outcome(message.id, unknown, at(3))
        .await
        .unwrap();
    let named = |status| StatusEvent {
        outbound: Some(message.name()),
        ..status_event(11, status)
    };
    assert_eq!(
        store.apply_status(named("sent")).await.unwrap(),
        StatusEffect::Applied
    );
    assert_eq!(
        store.apply_status(named("sent")).await.unwrap(),
        StatusEffect::Stale
    );
    assert_eq!(
        store.apply_status(named("queued")).await.unwrap(),
        StatusEffect::Stale
    );
    assert!(store.claim_lookups(9, at(99)).await.unwrap().is_empty());
    let row = message_row(store, 1).await;
    assert_eq!((row.state, row.replies[0].sid), ("sent", Some(sid(11))));
    assert_eq!(
        store.apply_status(failure(11)).await.unwrap(),
        StatusEffect::Applied
    );
    let row = message_row(store, 1).await;
    assert_eq!(
        (row.state, row.replies[0].error_code),
        ("failed", Some(30003))
    );
}

// An event of another account matches nothing either, and a message keeps its known SID.
async fn status_event_with_wrong_reference_matches_nothing(backend: &mut Backend) {
    let store = backend.store();
    let message = claim_new_reply(store, 1).await;
    let (id, made) = message
        .name()
        .split_once('-')
        .map(|(id, made)| (id.to_owned(), made.to_owned()))
        .unwrap();
    let other_account = StatusEvent {
        account: "AC00000000000000000000000000000002".parse().unwrap(),
        outbound: Some(message.name()),
        ..status_event(11, "sent")
    };
    assert_eq!(
        store.apply_status(other_account).await.unwrap(),
        StatusEffect::Unmatched
    );
    for name in [
        format!("{id}-1"),
        format!("9{id}-{made}"),
        "x".to_owned(),
        format!("{id}-\0"),
    ] {
        let wrong = StatusEvent {
            outbound: Some(name),
            ..status_event(12, "sent")
        };
        assert_eq!(
            store.apply_status(wrong).await.unwrap(),
            StatusEffect::Unmatched
        );
    }
    assert_eq!(message_row(store, 1).await.replies[0].sid, None);
    // A callback of another account does not match the message by its SID.
    store
        .record_outcome(message.id, sent_outcome(13), at(3))
        .await
        .unwrap();
    let other_account = StatusEvent {
        account: "AC00000000000000000000000000000002".parse().unwrap(),
        ..status_event(13, "read")
    };
    assert_eq!(
        store.apply_status(other_account).await.unwrap(),
        StatusEffect::Unmatched
    );
    let reply = message_row(store, 1).await.replies.pop().unwrap();
    assert_eq!(reply.status.as_deref(), Some("queued"));
    // A message with a known SID keeps it.
    let second = StatusEvent {
        outbound: Some(message.name()),
        ..status_event(14, "sent")
    };
    assert_eq!(
        store.apply_status(second).await.unwrap(),
        StatusEffect::Unmatched
    );
    assert_eq!(message_row(store, 1).await.replies[0].sid, Some(sid(13)));
}

// The event is applied when the REST call of its message ends, unless it has expired before.
async fn unmatched_status_event_waits_until_retention_ends(backend: &mut Backend) {
    let store = backend.store();
    for number in [11, 12] {
        assert_eq!(
            store
                .apply_status(status_event(number, "sent"))
                .await
                .unwrap(),
            StatusEffect::Unmatched
        );
        assert_eq!(
            store
                .apply_status(status_event(number, "queued"))
                .await
                .unwrap(),
            StatusEffect::Unmatched
        );
    }
    let never = Timestamp::MIN;
    let keep = Retention {
        now: at(100),
        texts_before: never,
        content_before: never,
        keys_before: never,
        unmatched_status_before: at(5),
    };
    assert!(!store.expire(keep).await.unwrap().has_more);
    let message = claim_new_reply(store, 1).await;
    store
        .record_outcome(message.id, sent_outcome(11), at(6))
        .await
        .unwrap();
    let reply = message_row(store, 1).await.replies.pop().unwrap();
    assert_eq!(reply.status.as_deref(), Some("sent"));
    let forget = Retention {
        unmatched_status_before: at(6),
        ..keep
    };
    assert!(!store.expire(forget).await.unwrap().has_more);
    let message = claim_new_reply(store, 2).await;
    store
        .record_outcome(message.id, sent_outcome(12), at(6))
        .await
        .unwrap();
    let reply = message_row(store, 2).await.replies.pop().unwrap();
    assert_eq!(reply.status.as_deref(), Some("queued"));
}

// Twilio reports 21610 for a user who has opted out there; the consent ledger records it once.
async fn status_event_with_21610_opts_user_out(backend: &mut Backend) {
    let store = backend.store();
    let blocked = StatusEvent {
        error_code: Some(ErrorCode(21610)),
        ..status_event(11, "failed")
    };
    for _ in 0..2 {
        store.apply_status(blocked.clone()).await.unwrap();
    }
    let scopes = vec![ConsentScope::Sender(SENDER.into())];
    let state = store.consent(scopes, &ANA.into()).await.unwrap();
    assert_eq!(state.opted_out, Some(at(5)));
    let ledger = store.consent_ledger(0, 9).await.unwrap();
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].record.source, ConsentSource::Refusal);
    assert_eq!(ledger[0].record.evidence, Some(sid(11)));
}

async fn callback_racing_with_rest_response_is_applied(backend: &mut Backend) {
    for number in 1..=20 {
        let message = claim_new_reply(backend.store(), number).await;
        let callback = {
            let store = backend.shared();
            tokio::spawn(async move {
                store
                    .apply_status(status_event(100 + number, "delivered"))
                    .await
                    .unwrap()
            })
        };
        let response = {
            let store = backend.shared();
            let sent = sent_outcome(100 + number);
            tokio::spawn(
                async move { store.record_outcome(message.id, sent, at(3)).await.unwrap() },
            )
        };
        callback.await.unwrap();
        response.await.unwrap();
        let reply = message_row(backend.store(), number)
            .await
            .replies
            .pop()
            .unwrap();
        assert_eq!(reply.status.as_deref(), Some("delivered"));
    }
}
