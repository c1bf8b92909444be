//! One conversation, one message at a time, in the order in which they were accepted.

use replyhook::Address;
use replyhook::store::{
    Acceptance, Choice, ConsentScope, Decision, Dialogue, DialogueChange, Store, Turn,
};

use super::{
    ANA, ANA_ID, BEN, Backend, Ending, RETRY, US, arrival, at, begin, converse, from,
    over_all_stores, saying, stop, waiting,
};

over_all_stores!(
    a_message_waits_for_the_older_ones_of_its_conversation_only,
    a_message_that_is_retried_goes_before_younger_ones_and_after_what_is_in_hands,
    two_addresses_of_one_person_become_one_conversation,
    an_open_message_is_followed_by_its_dialogue_into_a_joined_conversation,
    a_message_that_is_opened_again_is_in_the_joined_conversation,
);

async fn a_message_waits_for_the_older_ones_of_its_conversation_only(backend: &mut Backend) {
    let store = backend.store();
    let first = begin(store, arrival(1)).await;
    let second = store.accept(std::sync::Arc::new(arrival(2))).await.unwrap();
    let third = store.accept(std::sync::Arc::new(arrival(3))).await.unwrap();
    let Acceptance::Waiting {
        id,
        conversation,
        ahead: 1,
    } = second
    else {
        panic!("{second:?}")
    };
    assert_eq!(conversation, first.conversation);
    assert!(matches!(third, Acceptance::Waiting { ahead: 2, .. }));
    begin(store, from(&[BEN], 4)).await;
    let third = waiting(&third);
    assert_eq!(store.turn(id, at(5)).await.unwrap(), Turn::Wait);
    store
        .answer(first, None, Ending::default(), at(5))
        .await
        .unwrap();
    assert_eq!(store.turn(third, at(5)).await.unwrap(), Turn::Wait);
    let Turn::Yours(claim) = store.turn(id, at(5)).await.unwrap() else {
        panic!("its turn has come")
    };
    assert_eq!(
        (claim.id, claim.attempt, claim.conversation),
        (id, 1, conversation)
    );
    // It has been decided, for whoever asks with an old number.
    let decided = Turn::Decided(Decision::Lost);
    assert_eq!(store.turn(id, at(5)).await.unwrap(), decided);
    store
        .fail(claim, "the handler failed", false)
        .await
        .unwrap();
    assert!(matches!(
        store.turn(third, at(6)).await.unwrap(),
        Turn::Yours(_)
    ));
}

async fn a_message_that_is_retried_goes_before_younger_ones_and_after_what_is_in_hands(
    backend: &mut Backend,
) {
    let store = backend.store();
    let first = begin(store, arrival(1)).await;
    store.fail(first, "the handler failed", true).await.unwrap();
    let second = begin(store, arrival(2)).await;
    let third = waiting(&store.accept(std::sync::Arc::new(arrival(3))).await.unwrap());
    store.decide(third, Choice::Rest, at(3)).await.unwrap();
    assert!(store.retry(first_sid(), at(3)).await.unwrap());
    // The second is in hands: neither may begin.
    assert!(
        store
            .take_up(9, RETRY, at(4))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
    store
        .answer(second, None, Ending::default(), at(5))
        .await
        .unwrap();
    for expected in [first.id, third] {
        let taken = store.take_up(9, RETRY, at(6)).await.unwrap().taken;
        assert_eq!(
            taken.iter().map(|taken| taken.claim.id).collect::<Vec<_>>(),
            [expected]
        );
        assert!(
            store
                .finish(taken[0].claim, Vec::new(), Ending::default(), at(6))
                .await
                .unwrap()
        );
    }
}

fn first_sid() -> replyhook::MessageSid {
    super::sid(1)
}

async fn set_dialogue(store: &dyn Store, number: u64, user: &str, data: &str) -> i64 {
    let claim = begin(store, from(&[user], number)).await;
    let change = DialogueChange::Set {
        data: data.to_owned(),
        expires_at: Some(at(900)),
    };
    let now = at(i64::try_from(number).unwrap());
    store.answer(claim, None, change.into(), now).await.unwrap();
    claim.conversation
}

async fn two_addresses_of_one_person_become_one_conversation(backend: &mut Backend) {
    let store = backend.store();
    let (us, ana, id) = (Address::from(US), Address::from(ANA), Address::from(ANA_ID));
    let by_phone = set_dialogue(store, 1, ANA, "older").await;
    let by_id = set_dialogue(store, 2, ANA_ID, "newer").await;
    assert_ne!(by_phone, by_id);
    let phone_waits = begin(store, from(&[ANA], 3)).await;
    let id_waits = begin(store, from(&[ANA_ID], 4)).await;
    // At once by both: it comes after what is open under either.
    let joined = store
        .accept(std::sync::Arc::new(from(&[ANA, ANA_ID], 5)))
        .await
        .unwrap();
    let Acceptance::Waiting {
        id: number,
        conversation,
        ahead: 2,
    } = joined
    else {
        panic!("{joined:?}")
    };
    for address in [&ana, &id] {
        let found = store.conversation(&us, address).await.unwrap().unwrap();
        assert_eq!((found.id, found.last_inbound), (conversation, Some(at(5))));
    }
    let dialogue = store.dialogue(conversation, at(6)).await.unwrap();
    assert_eq!(dialogue, Some(Dialogue("newer".to_owned())));
    assert_eq!(store.dialogue(conversation, at(900)).await.unwrap(), None);
    store
        .answer(phone_waits, None, Ending::default(), at(6))
        .await
        .unwrap();
    assert_eq!(store.turn(number, at(6)).await.unwrap(), Turn::Wait);
    store
        .answer(id_waits, None, Ending::default(), at(6))
        .await
        .unwrap();
    let Turn::Yours(claim) = store.turn(number, at(6)).await.unwrap() else {
        panic!("its turn has come")
    };
    store
        .answer(claim, None, DialogueChange::End.into(), at(7))
        .await
        .unwrap();
    assert_eq!(store.dialogue(conversation, at(7)).await.unwrap(), None);

    // The later window, whichever it was, and opted out if either was.
    converse(store, from(&["whatsapp:+1"], 20)).await;
    store
        .accept(std::sync::Arc::new(saying(
            stop(),
            from(&["whatsapp:US.x"], 30),
        )))
        .await
        .unwrap();
    let earlier = replyhook::store::Arrival {
        at: at(10),
        ..from(&["whatsapp:+1", "whatsapp:US.x"], 31)
    };
    assert_eq!(
        store.accept(std::sync::Arc::new(earlier)).await.unwrap(),
        Acceptance::OptedOut
    );
    let found = store
        .conversation(&us, &"whatsapp:+1".into())
        .await
        .unwrap();
    assert_eq!(found.unwrap().last_inbound, Some(at(30)));
    let by_phone = store
        .accept(std::sync::Arc::new(from(&["whatsapp:+1"], 32)))
        .await
        .unwrap();
    assert_eq!(by_phone, Acceptance::OptedOut);
    let scopes = vec![ConsentScope::Sender(us)];
    let state = store.consent(scopes, &"whatsapp:+1".into()).await.unwrap();
    assert_eq!(state.opted_out, Some(at(30)));
}

async fn an_open_message_is_followed_by_its_dialogue_into_a_joined_conversation(
    backend: &mut Backend,
) {
    let store = backend.store();
    converse(store, from(&[ANA], 1)).await;
    let handled = begin(store, from(&[ANA_ID], 2)).await;
    waiting(
        &store
            .accept(std::sync::Arc::new(from(&[ANA, ANA_ID], 3)))
            .await
            .unwrap(),
    );
    let change = DialogueChange::Set {
        data: "step 2".to_owned(),
        expires_at: None,
    };
    store
        .answer(handled, None, change.into(), at(4))
        .await
        .unwrap();
    let found = store
        .conversation(&US.into(), &ANA_ID.into())
        .await
        .unwrap()
        .unwrap();
    assert_ne!(found.id, handled.conversation);
    let dialogue = store.dialogue(found.id, at(5)).await.unwrap();
    assert_eq!(dialogue, Some(Dialogue("step 2".to_owned())));
}

async fn a_message_that_is_opened_again_is_in_the_joined_conversation(backend: &mut Backend) {
    let store = backend.store();
    converse(store, from(&[ANA], 1)).await;
    let failed = begin(store, from(&[ANA_ID], 2)).await;
    store
        .fail(failed, "the handler failed", false)
        .await
        .unwrap();
    let dead = begin(store, from(&[ANA_ID], 3)).await;
    store.fail(dead, "the handler failed", true).await.unwrap();
    let handled = begin(store, from(&[ANA, ANA_ID], 4)).await;
    let again = store
        .accept(std::sync::Arc::new(from(&[ANA_ID], 2)))
        .await
        .unwrap();
    assert_eq!(waiting(&again), failed.id);
    assert!(store.retry(super::sid(3), at(5)).await.unwrap());
    assert!(
        store
            .take_up(9, RETRY, at(5))
            .await
            .unwrap()
            .taken
            .is_empty()
    );
    store
        .answer(handled, None, Ending::default(), at(6))
        .await
        .unwrap();
    assert!(matches!(
        store.turn(failed.id, at(6)).await.unwrap(),
        Turn::Yours(_)
    ));
}
