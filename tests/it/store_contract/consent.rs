//! Who wants nothing from us gets nothing, in the step in which they say so.

use replyhook::Address;
use replyhook::store::{
    Acceptance, Answered, Arrival, ArrivalConsent, ConsentAction, ConsentHow, ConsentRecord,
    ConsentScope, ConsentState, Decision, Store,
};

use super::{
    ANA, ANA_ID, Backend, Ending, SERVICE, US, arrival, at, begin, from, over_all_stores, saying,
    service, sid, start, stop,
};

over_all_stores!(
    stop_opts_out_in_the_accepting_step_and_start_resumes,
    start_by_somebody_who_has_not_opted_out_is_a_message_like_any_other,
    twilios_own_start_and_help_are_no_message_to_the_bot,
    a_word_that_twilio_answers_is_answered_with_nothing,
    consent_of_a_service_counts_for_its_other_senders,
    who_opts_out_while_the_handler_runs_is_answered_with_nothing,
    what_one_address_says_counts_for_the_persons_others,
    the_ledger_says_what_happened_and_how_it_is_known,
);

fn of_us() -> Vec<ConsentScope> {
    vec![ConsentScope::Sender(US.into())]
}

async fn consent(store: &dyn Store, user: &str) -> ConsentState {
    store.consent(of_us(), &user.into()).await.unwrap()
}

fn said(opted_out: bool, answer: &str) -> Acceptance {
    Acceptance::Consent {
        opted_out,
        answer: answer.to_owned(),
    }
}

async fn stop_opts_out_in_the_accepting_step_and_start_resumes(backend: &mut Backend) {
    let store = backend.store();
    let stopped = store
        .accept(std::sync::Arc::new(saying(stop(), arrival(1))))
        .await
        .unwrap();
    assert_eq!(stopped, said(true, "stopped"));
    assert_eq!(consent(store, ANA).await.opted_out, Some(at(1)));
    // A repeat of the word gets the same answer, a second STOP none.
    let again = store
        .accept(std::sync::Arc::new(saying(stop(), arrival(1))))
        .await
        .unwrap();
    let answered = Answered {
        twiml: Some("stopped".to_owned()),
    };
    assert_eq!(again, Acceptance::Answered(answered));
    let second = store
        .accept(std::sync::Arc::new(saying(stop(), arrival(2))))
        .await
        .unwrap();
    assert_eq!(second, Acceptance::OptedOut);
    assert_eq!(
        store.accept(std::sync::Arc::new(arrival(3))).await.unwrap(),
        Acceptance::OptedOut
    );
    let started = store
        .accept(std::sync::Arc::new(saying(start(), arrival(4))))
        .await
        .unwrap();
    assert_eq!(started, said(false, "started"));
    assert_eq!(consent(store, ANA).await, ConsentState::default());
    begin(store, arrival(5)).await;
}

async fn start_by_somebody_who_has_not_opted_out_is_a_message_like_any_other(
    backend: &mut Backend,
) {
    let store = backend.store();
    begin(store, saying(start(), arrival(1))).await;
    assert!(store.consent_ledger(0, 10).await.unwrap().is_empty());
}

async fn twilios_own_start_and_help_are_no_message_to_the_bot(backend: &mut Backend) {
    let store = backend.store();
    let typed = ArrivalConsent::Start {
        how: ConsentHow::OptOutType,
        answer: String::new(),
    };
    let started = store
        .accept(std::sync::Arc::new(saying(typed, arrival(1))))
        .await
        .unwrap();
    assert_eq!(started, said(false, ""));
    let help = ArrivalConsent::Help;
    let helped = store
        .accept(std::sync::Arc::new(saying(help.clone(), arrival(2))))
        .await
        .unwrap();
    assert_eq!(helped, said(false, ""));
    store
        .accept(std::sync::Arc::new(saying(stop(), arrival(3))))
        .await
        .unwrap();
    let helped = store
        .accept(std::sync::Arc::new(saying(help.clone(), arrival(4))))
        .await
        .unwrap();
    assert_eq!(helped, said(true, ""));
    let again = store
        .accept(std::sync::Arc::new(saying(help, arrival(4))))
        .await
        .unwrap();
    assert_eq!(again, Acceptance::Answered(Answered::EMPTY));
}

async fn a_word_that_twilio_answers_is_answered_with_nothing(backend: &mut Backend) {
    let store = backend.store();
    let silent = ArrivalConsent::Stop {
        how: ConsentHow::Keyword,
        answer: String::new(),
    };
    let stopped = store
        .accept(std::sync::Arc::new(saying(silent.clone(), arrival(1))))
        .await
        .unwrap();
    assert_eq!(stopped, said(true, ""));
    let again = store
        .accept(std::sync::Arc::new(saying(silent, arrival(1))))
        .await
        .unwrap();
    assert_eq!(again, Acceptance::Answered(Answered::EMPTY));
}

async fn consent_of_a_service_counts_for_its_other_senders(backend: &mut Backend) {
    let store = backend.store();
    let through = |arrival| Arrival {
        service: Some(service()),
        ..arrival
    };
    let elsewhere = |number| Arrival {
        us: "whatsapp:+15550004444".into(),
        ..arrival(number)
    };
    store
        .accept(std::sync::Arc::new(through(saying(stop(), arrival(1)))))
        .await
        .unwrap();
    let other = store
        .accept(std::sync::Arc::new(through(elsewhere(2))))
        .await
        .unwrap();
    assert_eq!(other, Acceptance::OptedOut);
    // A sender that does not belong to it is not meant.
    begin(store, elsewhere(3)).await;
    let started = store
        .accept(std::sync::Arc::new(through(saying(start(), elsewhere(4)))))
        .await
        .unwrap();
    assert_eq!(started, said(false, "started"));
    begin(store, through(arrival(5))).await;
    let scopes = vec![
        ConsentScope::parse(SERVICE),
        ConsentScope::Sender(US.into()),
    ];
    let state = store.consent(scopes, &ANA.into()).await.unwrap();
    assert_eq!(state.opted_out, None);
}

async fn who_opts_out_while_the_handler_runs_is_answered_with_nothing(backend: &mut Backend) {
    let store = backend.store();
    let claim = begin(store, arrival(1)).await;
    store
        .accept(std::sync::Arc::new(saying(stop(), arrival(2))))
        .await
        .unwrap();
    let answer = Some("<Response>hello</Response>".to_owned());
    let decision = store
        .answer(claim, answer, Ending::default(), at(3))
        .await
        .unwrap();
    assert_eq!(decision, Decision::Answered(Answered::EMPTY));
    let again = store.accept(std::sync::Arc::new(arrival(1))).await.unwrap();
    assert_eq!(again, Acceptance::Answered(Answered::EMPTY));
}

async fn what_one_address_says_counts_for_the_persons_others(backend: &mut Backend) {
    let store = backend.store();
    let both = from(&[ANA, ANA_ID], 1);
    let claim = begin(store, both).await;
    store
        .answer(claim, None, Ending::default(), at(1))
        .await
        .unwrap();
    let stopped = store
        .accept(std::sync::Arc::new(saying(stop(), from(&[ANA], 2))))
        .await
        .unwrap();
    assert_eq!(stopped, said(true, "stopped"));
    let by_id = store
        .accept(std::sync::Arc::new(from(&[ANA_ID], 3)))
        .await
        .unwrap();
    assert_eq!(by_id, Acceptance::OptedOut);
    assert!(consent(store, ANA_ID).await.opted_out.is_some());
    let started = store
        .accept(std::sync::Arc::new(saying(start(), from(&[ANA_ID], 4))))
        .await
        .unwrap();
    assert_eq!(started, said(false, "started"));
    begin(store, from(&[ANA], 5)).await;
}

async fn the_ledger_says_what_happened_and_how_it_is_known(backend: &mut Backend) {
    let store = backend.store();
    store
        .accept(std::sync::Arc::new(saying(stop(), arrival(1))))
        .await
        .unwrap();
    let record = |action, seconds| ConsentRecord {
        scope: ConsentScope::Service(service()),
        user: Address::from(ANA),
        action,
        how: ConsentHow::Operator,
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
    assert_eq!(ledger[0].record.how, ConsentHow::Keyword);
    assert_eq!(ledger[4].record.note.as_deref(), Some("by phone"));
    assert_eq!(ledger[4].record.at, at(5));
    let rest = store.consent_ledger(ledger[2].id, 1).await.unwrap();
    assert_eq!(
        rest.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        [ledger[3].id]
    );
    // What was agreed to before counts again, and the first of two is the date.
    let scopes = vec![ConsentScope::Service(service())];
    let state = store.consent(scopes, &ANA.into()).await.unwrap();
    assert_eq!((state.opted_out, state.opted_in), (None, Some(at(2))));
}
