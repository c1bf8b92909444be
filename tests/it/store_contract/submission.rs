//! Submission of outbound messages: idempotency keys, eligibility and rate limits.

use std::time::Duration;

use replyhook::internals::{
    IdempotencyKey, Ineligible, NewOutbound, Retention, SendEligibility, SendOutcome, Store,
    Submission, SubmitOutcome,
};
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource, OutboundState};
use replyhook::{Address, MessageStatus};

use super::{
    ANA, ANA_ID, BEN, Backend, SENDER, SERVICE, accept, accept_and_answer, at, bodies, deliver,
    expire_all, inbound_from, new_inbound, over_all_stores, reply, service, sid, stop_keyword,
    with_keyword,
};

over_all_stores!(
    idempotency_key_queues_one_message_under_concurrency,
    ineligible_message_is_rejected_and_frees_key,
    eligibility_is_shared_by_addresses_of_user,
    service_message_respects_opt_out_from_any_sender,
    rate_limit_spaces_messages_of_one_sender,
    submitted_message_survives_crash,
    held_message_waits_for_release,
    idempotency_key_outlives_message_until_retention_ends,
);

fn text(body: &str) -> Submission {
    Submission {
        message: reply(body),
        earlier_parts: Vec::new(),
        question: None,
        key: None,
        due: at(10),
        min_interval: Duration::ZERO,
        consent_required: true,
    }
}

fn with_key(key: &str, submission: Submission) -> Submission {
    Submission {
        key: Some(IdempotencyKey::new(key)),
        ..submission
    }
}

fn as_template(submission: Submission) -> Submission {
    Submission {
        message: NewOutbound {
            template: true,
            ..submission.message
        },
        ..submission
    }
}

fn with_user(user: &str, submission: Submission) -> Submission {
    Submission {
        message: NewOutbound {
            user: user.into(),
            ..submission.message
        },
        ..submission
    }
}

#[track_caller]
fn new(submitted: SubmitOutcome) -> i64 {
    match submitted {
        SubmitOutcome::Queued(id) => id,
        other => panic!("{other:?} is not Queued"),
    }
}

fn consent(scope: ConsentScope, user: &str, action: ConsentAction) -> ConsentRecord {
    ConsentRecord {
        scope,
        user: user.into(),
        action,
        source: ConsentSource::Api,
        evidence: None,
        note: None,
        at: at(1),
    }
}

// A later submission with the same key returns the first message, whatever it contains.
async fn idempotency_key_queues_one_message_under_concurrency(backend: &mut Backend) {
    accept_and_answer(backend.store(), new_inbound(1)).await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = backend.shared();
            tokio::spawn(async move {
                let submission = Submission {
                    min_interval: Duration::from_secs(1),
                    ..with_key("order-42", text("ready"))
                };
                store.submit(submission, at(10)).await.unwrap()
            })
        })
        .collect();
    let mut submitted = Vec::new();
    for task in tasks {
        submitted.push(task.await.unwrap());
    }
    let store = backend.store();
    let id = store
        .find_by_key(IdempotencyKey::new("order-42"))
        .await
        .unwrap()
        .unwrap()
        .id;
    let count = |wanted| submitted.iter().filter(|one| **one == wanted).count();
    assert_eq!(
        (
            count(SubmitOutcome::Queued(id)),
            count(SubmitOutcome::Duplicate(id))
        ),
        (1, 15)
    );
    assert_eq!(
        store
            .find_by_key(IdempotencyKey::new("order-43"))
            .await
            .unwrap(),
        None
    );
    let claimed = store.claim(99, at(10)).await.unwrap();
    assert_eq!(bodies(&claimed), ["ready"]);
    // The key still leads to the first message after it was sent, also from a submission with other content.
    let sent = SendOutcome::Sent {
        sid: sid(9),
        status: MessageStatus::Queued,
    };
    store.record_outcome(id, sent, at(11)).await.unwrap();
    let duplicate = with_key("order-42", with_user(BEN, text("another")));
    let duplicate = store.submit(duplicate, at(12)).await.unwrap();
    assert_eq!(duplicate, SubmitOutcome::Duplicate(id));
    let row = store.outbound(id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.sid, row.status.as_deref()),
        (OutboundState::Sent, Some(sid(9)), Some("queued"))
    );
    // Messages without a key are not deduplicated. The fifteen duplicates have not used up the rate limit.
    new(store.submit(text("one"), at(12)).await.unwrap());
    new(store.submit(text("one"), at(12)).await.unwrap());
    assert_eq!(bodies(&deliver(store, 12).await), ["one", "one"]);
}

async fn ineligible_message_is_rejected_and_frees_key(backend: &mut Backend) {
    let store = backend.store();
    let try_once = async |submission| {
        store
            .submit(with_key("k", submission), at(10))
            .await
            .unwrap()
    };
    let closed = SubmitOutcome::Ineligible(Ineligible::WindowClosed);
    assert_eq!(try_once(text("hi")).await, closed);
    let no_opt_in = SubmitOutcome::Ineligible(Ineligible::NoOptIn);
    assert_eq!(try_once(as_template(text("hi"))).await, no_opt_in);
    let scope = || ConsentScope::Sender(SENDER.into());
    let out = consent(scope(), ANA, ConsentAction::OptOut);
    store.record_consent(out).await.unwrap();
    let opted_out = SubmitOutcome::Ineligible(Ineligible::OptedOut);
    assert_eq!(try_once(as_template(text("hi"))).await, opted_out);
    assert_eq!(
        store.find_by_key(IdempotencyKey::new("k")).await.unwrap(),
        None
    );
    assert!(store.claim(9, at(10)).await.unwrap().is_empty());
    let agreed = consent(scope(), ANA, ConsentAction::OptIn);
    store.record_consent(agreed).await.unwrap();
    new(try_once(as_template(text("hi"))).await);
    // No opt-in is needed without `consent_required`, and no window on SMS.
    let free = Submission {
        consent_required: false,
        ..as_template(with_user(BEN, text("free")))
    };
    new(store.submit(free, at(10)).await.unwrap());
    let sms = Submission {
        message: NewOutbound {
            sender: "+15550002222".into(),
            user: "+15550001111".into(),
            ..reply("sms")
        },
        ..text("")
    };
    new(store.submit(sms, at(10)).await.unwrap());
    let claimed = store.claim(9, at(10)).await.unwrap();
    let shown: Vec<_> = claimed
        .iter()
        .map(|one| (one.template, one.window.is_none(), one.opted_in))
        .collect();
    assert_eq!(
        shown,
        [
            (true, true, true),
            (true, true, false),
            (false, false, false)
        ]
    );
}

async fn eligibility(
    store: &dyn Store,
    sender: &str,
    via_service: bool,
    user: &str,
    seconds: i64,
) -> SendEligibility {
    let service = via_service.then(service);
    store
        .eligibility(&sender.into(), service, &user.into(), at(seconds))
        .await
        .unwrap()
}

async fn eligibility_is_shared_by_addresses_of_user(backend: &mut Backend) {
    let store = backend.store();
    let day = 24 * 3600;
    accept_and_answer(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    let state = |opted_out, opted_in, window_open| SendEligibility {
        opted_out,
        opted_in,
        window_open,
    };
    for user in [ANA, ANA_ID] {
        let found = eligibility(store, SENDER, false, user, day - 120).await;
        assert_eq!(found, state(false, false, true));
        let found = eligibility(store, SENDER, false, user, day - 119).await;
        assert_eq!(found, state(false, false, false));
    }
    let scope = ConsentScope::Sender(SENDER.into());
    let agreed = consent(scope.clone(), ANA, ConsentAction::OptIn);
    store.record_consent(agreed).await.unwrap();
    let found = eligibility(store, SENDER, false, ANA_ID, 2).await;
    assert_eq!(found, state(false, true, true));
    // The consent of one address applies to a message to the other.
    let by_id = as_template(with_user(ANA_ID, text("template")));
    new(store.submit(by_id, at(2 * day)).await.unwrap());
    let claimed = store.claim(9, at(2 * day)).await.unwrap();
    assert!(claimed[0].opted_in && claimed[0].window.is_none());
    let out = consent(
        ConsentScope::Service(service()),
        ANA_ID,
        ConsentAction::OptOut,
    );
    store.record_consent(out).await.unwrap();
    assert!(!eligibility(store, SENDER, false, ANA, 2).await.opted_out);
    assert!(eligibility(store, SENDER, true, ANA, 2).await.opted_out);
    assert!(!eligibility(store, SENDER, true, BEN, 2).await.opted_out);
}

async fn service_message_respects_opt_out_from_any_sender(backend: &mut Backend) {
    let store = backend.store();
    let by_service = || Submission {
        message: NewOutbound {
            sender: Address::from(SERVICE),
            service: Some(service()),
            template: true,
            ..reply("by the service")
        },
        consent_required: false,
        ..text("")
    };
    new(store.submit(by_service(), at(1)).await.unwrap());
    accept(store, with_keyword(stop_keyword(), new_inbound(2))).await;
    let rejected = store.submit(by_service(), at(3)).await.unwrap();
    assert_eq!(rejected, SubmitOutcome::Ineligible(Ineligible::OptedOut));
    assert!(eligibility(store, SERVICE, true, ANA, 3).await.opted_out);
    // The message that was queued before the opt-out is not sent either.
    assert!(store.claim(9, at(3)).await.unwrap().is_empty());
    let other = Submission {
        message: NewOutbound {
            user: BEN.into(),
            ..by_service().message
        },
        ..by_service()
    };
    new(store.submit(other, at(3)).await.unwrap());
    assert_eq!(store.claim(9, at(3)).await.unwrap().len(), 1);
}

// Replies are not delayed, and unused time does not allow a burst later.
async fn rate_limit_spaces_messages_of_one_sender(backend: &mut Backend) {
    let store = backend.store();
    let rate_limited = |sender: &str, body: &str| Submission {
        message: NewOutbound {
            sender: sender.into(),
            user: "+15550001111".into(),
            ..reply(body)
        },
        min_interval: Duration::from_secs(2),
        ..text("")
    };
    for body in ["a", "b", "c"] {
        new(store
            .submit(rate_limited("+15550002222", body), at(10))
            .await
            .unwrap());
    }
    new(store
        .submit(rate_limited("+15550004444", "other"), at(10))
        .await
        .unwrap());
    store.enqueue(vec![reply("reply")], at(10)).await.unwrap();
    for (seconds, due) in [
        (10, &["a", "other", "reply"][..]),
        (11, &[]),
        (12, &["b"]),
        (13, &[]),
        (14, &["c"]),
    ] {
        assert_eq!(bodies(&deliver(store, seconds).await), due, "{seconds}");
    }
    for body in ["d", "e"] {
        new(store
            .submit(rate_limited("+15550002222", body), at(100))
            .await
            .unwrap());
    }
    assert_eq!(bodies(&deliver(store, 101).await), ["d"]);
    assert_eq!(bodies(&deliver(store, 102).await), ["e"]);
}

async fn submitted_message_survives_crash(backend: &mut Backend) {
    accept_and_answer(backend.store(), new_inbound(1)).await;
    let submission = with_key("k", text("kept"));
    let id = new(backend.store().submit(submission, at(10)).await.unwrap());
    if !backend.crash().await {
        return;
    }
    let store = backend.store();
    assert_eq!(
        store
            .find_by_key(IdempotencyKey::new("k"))
            .await
            .unwrap()
            .map(|keyed| keyed.id),
        Some(id)
    );
    assert_eq!(bodies(&store.claim(9, at(10)).await.unwrap()), ["kept"]);
}

// A failed message is released only by its ID.
async fn held_message_waits_for_release(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    accept_and_answer(store, inbound_from(&[BEN], 2)).await;
    let held = new(store.submit(text("held"), at(10)).await.unwrap());
    let failed = with_user(BEN, text("failed"));
    let failed = new(store.submit(failed, at(10)).await.unwrap());
    store.claim(9, at(10)).await.unwrap();
    let looked = SendOutcome::Unknown {
        lookup_at: at(11),
        looked_up: true,
    };
    store.record_outcome(held, looked, at(11)).await.unwrap();
    store
        .record_outcome(held, SendOutcome::Held, at(11))
        .await
        .unwrap();
    let rejected = SendOutcome::Failed {
        code: None,
        reason: "rejected".into(),
    };
    store
        .record_outcome(failed, rejected, at(11))
        .await
        .unwrap();
    assert!(store.claim(9, at(12)).await.unwrap().is_empty());
    assert_eq!(store.release_outbound(None, at(12)).await.unwrap(), 1);
    assert_eq!(bodies(&store.claim(9, at(12)).await.unwrap()), ["held"]);
    assert_eq!(store.release_outbound(Some(held), at(12)).await.unwrap(), 0);
    assert_eq!(
        store.release_outbound(Some(failed), at(13)).await.unwrap(),
        1
    );
    assert_eq!(bodies(&store.claim(9, at(13)).await.unwrap()), ["failed"]);
    // A pending message cannot be released.
    let ids = store.enqueue(vec![reply("x")], at(14)).await.unwrap();
    assert_eq!(
        store.release_outbound(Some(ids[0]), at(14)).await.unwrap(),
        0
    );
}

async fn idempotency_key_outlives_message_until_retention_ends(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    let id = new(store
        .submit(with_key("k", text("secret")), at(10))
        .await
        .unwrap());
    store.claim(9, at(10)).await.unwrap();
    let sent = SendOutcome::Sent {
        sid: sid(9),
        status: MessageStatus::Delivered,
    };
    store.record_outcome(id, sent, at(11)).await.unwrap();
    let days = |number: u64| Duration::from_secs(number * 86_400);
    let later = |number: i64| at(11 + number * 86_400);
    let expire = async |number| {
        let retention = Retention::new(days(30), days(2), later(number));
        expire_all(store, retention).await;
    };
    let again = async |number| {
        let submission = Submission {
            due: later(number),
            ..with_key("k", as_template(text("again")))
        };
        store.submit(submission, later(number)).await.unwrap()
    };
    expire(3).await;
    let row = store.outbound(id).await.unwrap().unwrap();
    assert!(row.params.is_none() && row.sid == Some(sid(9)));
    expire(31).await;
    assert!(store.outbound(id).await.unwrap().is_none());
    assert_eq!(again(31).await, SubmitOutcome::Duplicate(id));
    store.purge_user(&ANA.into(), None, true).await.unwrap();
    assert_eq!(again(32).await, SubmitOutcome::Duplicate(id));
    expire(431).await;
    assert_eq!(
        again(431).await,
        SubmitOutcome::Ineligible(Ineligible::NoOptIn)
    );
    store.delete_everything().await.unwrap();
    assert_eq!(
        store.find_by_key(IdempotencyKey::new("k")).await.unwrap(),
        None
    );
}
