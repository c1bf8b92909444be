//! Opt-outs and opt-ins, which take effect in the step that accepts the keyword.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use replyhook::Address;
use replyhook::internals::{
    AcceptOutcome, ConsentKeyword, ConsentState, NewInbound, NewOutbound, ReplyDecision,
    SavedResponse, Store,
};
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource, OutboundState};
use tokio::sync::Barrier;

use super::{
    ANA, ANA_ID, Backend, Completion, SENDER, SERVICE, accept, accept_claimed, at, inbound_from,
    message_row, new_inbound, over_all_stores, reply, sent_outcome, service, sid, start_keyword,
    stop_keyword, with_keyword,
};

over_all_stores!(
    stop_opts_out_on_accept_until_start,
    start_without_opt_out_is_ordinary_message,
    twilio_start_and_help_skip_handler,
    keyword_confirmed_by_twilio_gets_empty_response,
    service_consent_applies_to_its_other_senders,
    opt_out_during_handler_empties_response,
    consent_applies_to_all_addresses_of_user,
    consent_ledger_records_changes_with_source,
    threat_43_stop_racing_claim_sends_or_suppresses,
);

fn sender_scope() -> Vec<ConsentScope> {
    vec![ConsentScope::Sender(SENDER.into())]
}

async fn consent(store: &dyn Store, user: &str) -> ConsentState {
    store.consent(sender_scope(), &user.into()).await.unwrap()
}

fn keyword_outcome(opted_out: bool, answer: &str) -> AcceptOutcome {
    AcceptOutcome::ConsentKeyword {
        opted_out,
        confirmation: answer.to_owned(),
    }
}

async fn stop_opts_out_on_accept_until_start(backend: &mut Backend) {
    let store = backend.store();
    let stopped = accept(store, with_keyword(stop_keyword(), new_inbound(1))).await;
    assert_eq!(stopped, keyword_outcome(true, "stopped"));
    assert_eq!(consent(store, ANA).await.opted_out, Some(at(1)));
    // A redelivery of the keyword gets the saved confirmation. A second STOP gets none.
    let redelivery = accept(store, with_keyword(stop_keyword(), new_inbound(1))).await;
    let answered = SavedResponse {
        twiml: Some("stopped".to_owned()),
    };
    assert_eq!(redelivery, AcceptOutcome::AlreadyAnswered(answered));
    let second = accept(store, with_keyword(stop_keyword(), new_inbound(2))).await;
    assert_eq!(second, AcceptOutcome::OptedOut);
    assert_eq!(accept(store, new_inbound(3)).await, AcceptOutcome::OptedOut);
    let started = accept(store, with_keyword(start_keyword(), new_inbound(4))).await;
    assert_eq!(started, keyword_outcome(false, "started"));
    assert_eq!(consent(store, ANA).await, ConsentState::default());
    accept_claimed(store, new_inbound(5)).await;
}

async fn start_without_opt_out_is_ordinary_message(backend: &mut Backend) {
    let store = backend.store();
    accept_claimed(store, with_keyword(start_keyword(), new_inbound(1))).await;
    assert!(store.consent_ledger(0, 10).await.unwrap().is_empty());
}

async fn twilio_start_and_help_skip_handler(backend: &mut Backend) {
    let store = backend.store();
    let typed = ConsentKeyword::Start {
        source: ConsentSource::OptOutType,
        confirmation: String::new(),
    };
    let started = accept(store, with_keyword(typed, new_inbound(1))).await;
    assert_eq!(started, keyword_outcome(false, ""));
    let help = ConsentKeyword::Help;
    let helped = accept(store, with_keyword(help.clone(), new_inbound(2))).await;
    assert_eq!(helped, keyword_outcome(false, ""));
    accept(store, with_keyword(stop_keyword(), new_inbound(3))).await;
    let helped = accept(store, with_keyword(help.clone(), new_inbound(4))).await;
    assert_eq!(helped, keyword_outcome(true, ""));
    let redelivery = accept(store, with_keyword(help, new_inbound(4))).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
}

async fn keyword_confirmed_by_twilio_gets_empty_response(backend: &mut Backend) {
    let store = backend.store();
    let silent = ConsentKeyword::Stop {
        source: ConsentSource::Keyword,
        confirmation: String::new(),
    };
    let stopped = accept(store, with_keyword(silent.clone(), new_inbound(1))).await;
    assert_eq!(stopped, keyword_outcome(true, ""));
    let redelivery = accept(store, with_keyword(silent, new_inbound(1))).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
}

async fn service_consent_applies_to_its_other_senders(backend: &mut Backend) {
    let store = backend.store();
    let through = |inbound| NewInbound {
        service: Some(service()),
        ..inbound
    };
    let to_other_sender = |number| NewInbound {
        sender: "whatsapp:+15550004444".into(),
        ..new_inbound(number)
    };
    accept(store, through(with_keyword(stop_keyword(), new_inbound(1)))).await;
    let other = accept(store, through(to_other_sender(2))).await;
    assert_eq!(other, AcceptOutcome::OptedOut);
    // It covers a message and a send that do not name the service, once the sender was seen in it.
    let unnamed = accept(store, to_other_sender(3)).await;
    assert_eq!(unnamed, AcceptOutcome::OptedOut);
    for sender in [SENDER, "whatsapp:+15550004444"] {
        let found = store.eligibility(&sender.into(), None, &ANA.into(), at(3));
        assert!(found.await.unwrap().opted_out);
    }
    let queued = [SENDER, "whatsapp:+15550004444"].map(|sender| NewOutbound {
        sender: sender.into(),
        ..reply("without the service")
    });
    store.enqueue(queued.into(), at(3)).await.unwrap();
    assert!(store.claim(9, at(3)).await.unwrap().is_empty());
    // A sender that was never seen in it is not covered.
    let elsewhere = NewInbound {
        sender: "whatsapp:+15550005555".into(),
        ..new_inbound(6)
    };
    accept_claimed(store, elsewhere).await;
    // A START that does not name the service ends the opt-out from it, and a STOP begins it.
    let started = accept(store, with_keyword(start_keyword(), to_other_sender(7))).await;
    assert_eq!(started, keyword_outcome(false, "started"));
    let found = store.eligibility(&SENDER.into(), None, &ANA.into(), at(8));
    assert!(!found.await.unwrap().opted_out);
    accept(store, with_keyword(stop_keyword(), to_other_sender(8))).await;
    let found = store.eligibility(&SENDER.into(), None, &ANA.into(), at(9));
    assert!(found.await.unwrap().opted_out);
    let started = accept(
        store,
        through(with_keyword(start_keyword(), to_other_sender(4))),
    )
    .await;
    assert_eq!(started, keyword_outcome(false, "started"));
    accept_claimed(store, through(new_inbound(5))).await;
    let scopes = vec![
        ConsentScope::parse(SERVICE),
        ConsentScope::Sender(SENDER.into()),
    ];
    let state = store.consent(scopes, &ANA.into()).await.unwrap();
    assert_eq!(state.opted_out, None);
}

async fn opt_out_during_handler_empties_response(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    accept(store, with_keyword(stop_keyword(), new_inbound(2))).await;
    let answer = Some("<Response>hello</Response>".to_owned());
    let decision = store
        .complete_inline(claim, answer, Completion::default(), at(3))
        .await
        .unwrap();
    assert_eq!(decision, ReplyDecision::Inline(SavedResponse::EMPTY));
    let redelivery = accept(store, new_inbound(1)).await;
    assert_eq!(
        redelivery,
        AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)
    );
}

async fn consent_applies_to_all_addresses_of_user(backend: &mut Backend) {
    let store = backend.store();
    let both = inbound_from(&[ANA, ANA_ID], 1);
    let claim = accept_claimed(store, both).await;
    store
        .complete_inline(claim, None, Completion::default(), at(1))
        .await
        .unwrap();
    let stopped = accept(store, with_keyword(stop_keyword(), inbound_from(&[ANA], 2))).await;
    assert_eq!(stopped, keyword_outcome(true, "stopped"));
    let by_id = accept(store, inbound_from(&[ANA_ID], 3)).await;
    assert_eq!(by_id, AcceptOutcome::OptedOut);
    assert!(consent(store, ANA_ID).await.opted_out.is_some());
    let started = accept(
        store,
        with_keyword(start_keyword(), inbound_from(&[ANA_ID], 4)),
    )
    .await;
    assert_eq!(started, keyword_outcome(false, "started"));
    accept_claimed(store, inbound_from(&[ANA], 5)).await;
}

async fn consent_ledger_records_changes_with_source(backend: &mut Backend) {
    let store = backend.store();
    accept(store, with_keyword(stop_keyword(), new_inbound(1))).await;
    let record = |action, seconds| ConsentRecord {
        scope: ConsentScope::Service(service()),
        user: Address::from(ANA),
        action,
        source: ConsentSource::Operator,
        evidence: None,
        note: Some("by phone".to_owned()),
        at: at(seconds),
    };
    store
        .record_consent(record(ConsentAction::OptIn, 2))
        .await
        .unwrap();
    store
        .record_consent(record(ConsentAction::OptOut, 3))
        .await
        .unwrap();
    store
        .record_consent(record(ConsentAction::OptOut, 4))
        .await
        .unwrap();
    store
        .record_consent(record(ConsentAction::Resume, 5))
        .await
        .unwrap();
    let ledger = store.consent_ledger(0, 10).await.unwrap();
    let actions: Vec<_> = ledger
        .iter()
        .map(|entry| entry.record.action.as_str())
        .collect();
    assert_eq!(
        actions,
        ["opt_out", "opt_in", "opt_out", "opt_out", "resume"]
    );
    assert_eq!(ledger[0].record.evidence, Some(sid(1)));
    assert_eq!(ledger[0].record.source, ConsentSource::Keyword);
    assert_eq!(ledger[4].record.note.as_deref(), Some("by phone"));
    assert_eq!(ledger[4].record.at, at(5));
    let rest = store.consent_ledger(ledger[2].id, 1).await.unwrap();
    assert_eq!(
        rest.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        [ledger[3].id]
    );
    // After the resume, the earlier opt-in counts again, with its own date.
    let scopes = vec![ConsentScope::Service(service())];
    let state = store.consent(scopes, &ANA.into()).await.unwrap();
    assert_eq!((state.opted_out, state.opted_in), (None, Some(at(2))));
}

// The claim checks the opt-out in its own transaction. So the late reply is claimed before the opt-out, or never.
async fn threat_43_stop_racing_claim_sends_or_suppresses(backend: &mut Backend) {
    const MIN_ROUNDS: u64 = 60;
    const MAX_ROUNDS: u64 = 1000;
    let (mut sent, mut suppressed) = (0, 0);
    for round in 0..MAX_ROUNDS {
        if round >= MIN_ROUNDS && sent > 0 && suppressed > 0 {
            break;
        }
        let user = format!("whatsapp:+1555{round:07}");
        let (number, stop_number) = (2 * round + 1, 2 * round + 2);
        let now = at(i64::try_from(stop_number).unwrap());
        let late = NewOutbound {
            user: user.as_str().into(),
            ..reply("late")
        };
        let store = backend.store();
        let claim = accept_claimed(store, inbound_from(&[&user], number)).await;
        let queued = store
            .complete_via_rest(claim, vec![late], Completion::default(), now)
            .await;
        assert!(queued.unwrap());
        let stop = with_keyword(stop_keyword(), inbound_from(&[&user], stop_number));
        let start = Arc::new(Barrier::new(2));
        let is_stopped = Arc::new(AtomicBool::new(false));
        let opt_out = {
            let (store, start, is_stopped) = (backend.shared(), start.clone(), is_stopped.clone());
            async move {
                start.wait().await;
                accept(&*store, stop).await;
                is_stopped.store(true, Ordering::SeqCst);
            }
        };
        let claiming = {
            let store = backend.shared();
            async move {
                start.wait().await;
                let is_after_stop = is_stopped.load(Ordering::SeqCst);
                (is_after_stop, store.claim(9, now).await.unwrap())
            }
        };
        // The task that arrives last at the barrier is ahead, so the tasks start in both orders.
        let (opt_out, claiming) = if round % 2 == 0 {
            let claiming = tokio::spawn(claiming);
            (tokio::spawn(opt_out), claiming)
        } else {
            let opt_out = tokio::spawn(opt_out);
            (opt_out, tokio::spawn(claiming))
        };
        opt_out.await.unwrap();
        let (is_after_stop, claimed) = claiming.await.unwrap();
        assert!(
            claimed.is_empty() || !is_after_stop,
            "claimed after the opt-out"
        );
        // This claim certainly follows the opt-out.
        assert!(backend.store().claim(9, now).await.unwrap().is_empty());
        for message in &claimed {
            let outcome = sent_outcome(10_000 + round);
            let recorded = backend.store().record_outcome(message.id, outcome, now);
            recorded.await.unwrap();
        }
        let state = message_row(backend.store(), number).await.replies[0].state;
        match claimed.len() {
            0 => {
                assert_eq!(state, OutboundState::Suppressed);
                suppressed += 1;
            }
            count => {
                assert_eq!((count, state), (1, OutboundState::Sent));
                sent += 1;
            }
        }
    }
    assert!(
        sent > 0 && suppressed > 0,
        "one order only: {sent} sent, {suppressed} suppressed"
    );
}
