//! What Twilio tells of a message ends the same, in whatever order and however often it is told.

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use proptest::test_runner::{Config, TestRunner};
use replyhook::store::{
    ConsentHow, ConsentScope, News, NewsEffect, OutboundMessage, ReplyState, Retention, Settlement,
    Store,
};
use replyhook::{ErrorCode, MessageStatus, Timestamp};

use super::{ANA, Backend, US, account, arrival, at, defer, over_all_stores, shown, sid};

over_all_stores!(
    news_and_the_end_of_the_call_end_the_same_in_every_order,
    news_that_names_a_message_proves_that_it_was_taken,
    a_wrong_name_or_account_joins_nothing,
    news_of_unknown_messages_waits_for_its_call_for_a_day,
    a_user_who_blocks_us_is_opted_out,
    a_call_that_ends_while_its_callback_comes_knows_of_it,
);

fn news(number: u64, status: &str) -> News {
    News {
        account: account(),
        sid: sid(number),
        reply: None,
        status: MessageStatus::parse(status),
        error_code: None,
        us: Some(US.into()),
        service: None,
        user: Some(ANA.into()),
        at: at(5),
    }
}

fn failure(number: u64) -> News {
    News {
        error_code: Some(ErrorCode(30003)),
        ..news(number, "undelivered")
    }
}

fn sent(number: u64) -> Settlement {
    Settlement::Sent {
        sid: sid(number),
        status: MessageStatus::Queued,
    }
}

async fn sending(store: &dyn Store, number: u64) -> OutboundMessage {
    defer(store, arrival(number), &["text"]).await;
    store.claim(1, at(999)).await.unwrap().pop().unwrap()
}

/// What happens to a message, in an order that does not count.
#[derive(Debug, Clone)]
enum Event {
    Settled,
    Told(&'static str),
    TooLate,
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
    let told = subsequence(&STATUSES[..], 0..=STATUSES.len());
    let extra = proptest::collection::vec(any::<Index>(), 0..4);
    (told, extra, any::<bool>(), any::<bool>())
        .prop_map(|(told, extra, too_late, named)| {
            let mut events: Vec<_> = told.into_iter().map(Event::Told).collect();
            events.push(Event::Settled);
            let again: Vec<_> = extra.iter().map(|at| at.get(&events).clone()).collect();
            events.extend(again);
            if too_late {
                events.push(Event::TooLate);
            }
            (events, named)
        })
        .prop_flat_map(|(events, named)| (Just(events).prop_shuffle(), Just(named)))
}

async fn news_and_the_end_of_the_call_end_the_same_in_every_order(backend: &mut Backend) {
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
        let message = sending(store, case).await;
        let number = 10_000 + case;
        for event in &events {
            match event {
                Event::Settled => store.settle(message.id, sent(number), at(3)).await.unwrap(),
                // The call ended in a timeout, for all that its process knows.
                Event::TooLate => {
                    let unknown = Settlement::Unknown {
                        look_at: at(900),
                        looked: false,
                    };
                    store.settle(message.id, unknown, at(3)).await.unwrap();
                }
                Event::Told(status) => {
                    let told = if *status == "undelivered" {
                        failure(number)
                    } else {
                        news(number, status)
                    };
                    let told = News {
                        reply: named.then(|| message.name()),
                        ..told
                    };
                    store.news(told).await.unwrap();
                }
            }
        }
        let reply = shown(store, case).await.replies.pop().unwrap();
        let told = events.iter().filter_map(|event| match event {
            Event::Told(status) => Some(MessageStatus::parse(status)),
            _ => None,
        });
        let best = told
            .chain([MessageStatus::Queued])
            .filter(|status| status.rank().is_some())
            .max_by_key(MessageStatus::rank)
            .unwrap();
        let code = best.is_failure().then_some(30003);
        assert_eq!(
            (reply.state, reply.sid),
            (ReplyState::Sent, Some(sid(number))),
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

async fn news_that_names_a_message_proves_that_it_was_taken(backend: &mut Backend) {
    let store = backend.store();
    let message = sending(store, 1).await;
    let unknown = Settlement::Unknown {
        look_at: at(3),
        looked: false,
    };
    store.settle(message.id, unknown, at(3)).await.unwrap();
    let named = |status| News {
        reply: Some(message.name()),
        ..news(11, status)
    };
    assert_eq!(store.news(named("sent")).await.unwrap(), NewsEffect::Moved);
    assert_eq!(store.news(named("sent")).await.unwrap(), NewsEffect::Old);
    assert_eq!(store.news(named("queued")).await.unwrap(), NewsEffect::Old);
    assert!(store.unknown(9, at(99)).await.unwrap().is_empty());
    let row = shown(store, 1).await;
    assert_eq!((row.state, row.replies[0].sid), ("sent", Some(sid(11))));
    assert_eq!(store.news(failure(11)).await.unwrap(), NewsEffect::Moved);
    let row = shown(store, 1).await;
    assert_eq!(
        (row.state, row.replies[0].error_code),
        ("failed", Some(30003))
    );
}

async fn a_wrong_name_or_account_joins_nothing(backend: &mut Backend) {
    let store = backend.store();
    let message = sending(store, 1).await;
    let (id, made) = message
        .name()
        .split_once('-')
        .map(|(id, made)| (id.to_owned(), made.to_owned()))
        .unwrap();
    let other_account = News {
        account: "AC00000000000000000000000000000002".parse().unwrap(),
        reply: Some(message.name()),
        ..news(11, "sent")
    };
    assert_eq!(
        store.news(other_account).await.unwrap(),
        NewsEffect::Unknown
    );
    for name in [
        format!("{id}-1"),
        format!("9{id}-{made}"),
        "x".to_owned(),
        format!("{id}-\0"),
    ] {
        let wrong = News {
            reply: Some(name),
            ..news(12, "sent")
        };
        assert_eq!(store.news(wrong).await.unwrap(), NewsEffect::Unknown);
    }
    assert_eq!(shown(store, 1).await.replies[0].sid, None);
    // Neither does the account's own callback fall to another account's message.
    store.settle(message.id, sent(13), at(3)).await.unwrap();
    let other_account = News {
        account: "AC00000000000000000000000000000002".parse().unwrap(),
        ..news(13, "read")
    };
    assert_eq!(
        store.news(other_account).await.unwrap(),
        NewsEffect::Unknown
    );
    let reply = shown(store, 1).await.replies.pop().unwrap();
    assert_eq!(reply.status.as_deref(), Some("queued"));
    // Whose SID is known already keeps it.
    let second = News {
        reply: Some(message.name()),
        ..news(14, "sent")
    };
    assert_eq!(store.news(second).await.unwrap(), NewsEffect::Unknown);
    assert_eq!(shown(store, 1).await.replies[0].sid, Some(sid(13)));
}

async fn news_of_unknown_messages_waits_for_its_call_for_a_day(backend: &mut Backend) {
    let store = backend.store();
    for number in [11, 12] {
        assert_eq!(
            store.news(news(number, "sent")).await.unwrap(),
            NewsEffect::Unknown
        );
        assert_eq!(
            store.news(news(number, "queued")).await.unwrap(),
            NewsEffect::Unknown
        );
    }
    let never = Timestamp::MIN;
    let keep = Retention {
        now: at(100),
        texts_before: never,
        content_before: never,
        keys_before: never,
        news_before: at(5),
    };
    assert!(!store.expire(keep).await.unwrap().more);
    let message = sending(store, 1).await;
    store.settle(message.id, sent(11), at(6)).await.unwrap();
    let reply = shown(store, 1).await.replies.pop().unwrap();
    assert_eq!(reply.status.as_deref(), Some("sent"));
    let forget = Retention {
        news_before: at(6),
        ..keep
    };
    assert!(!store.expire(forget).await.unwrap().more);
    let message = sending(store, 2).await;
    store.settle(message.id, sent(12), at(6)).await.unwrap();
    let reply = shown(store, 2).await.replies.pop().unwrap();
    assert_eq!(reply.status.as_deref(), Some("queued"));
}

async fn a_user_who_blocks_us_is_opted_out(backend: &mut Backend) {
    let store = backend.store();
    let blocked = News {
        error_code: Some(ErrorCode(21610)),
        ..news(11, "failed")
    };
    for _ in 0..2 {
        store.news(blocked.clone()).await.unwrap();
    }
    let scopes = vec![ConsentScope::Sender(US.into())];
    let state = store.consent(scopes, &ANA.into()).await.unwrap();
    assert_eq!(state.opted_out, Some(at(5)));
    let ledger = store.consent_ledger(0, 9).await.unwrap();
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].record.how, ConsentHow::Refusal);
    assert_eq!(ledger[0].record.evidence, Some(sid(11)));
}

async fn a_call_that_ends_while_its_callback_comes_knows_of_it(backend: &mut Backend) {
    for number in 1..=20 {
        let message = sending(backend.store(), number).await;
        let told = {
            let store = backend.shared();
            tokio::spawn(async move { store.news(news(100 + number, "delivered")).await.unwrap() })
        };
        let settled = {
            let store = backend.shared();
            let sent = sent(100 + number);
            tokio::spawn(async move { store.settle(message.id, sent, at(3)).await.unwrap() })
        };
        told.await.unwrap();
        settled.await.unwrap();
        let reply = shown(backend.store(), number).await.replies.pop().unwrap();
        assert_eq!(reply.status.as_deref(), Some("delivered"));
    }
}
