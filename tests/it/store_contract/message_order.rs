//! Order in a conversation: one message at a time, in the order of acceptance.

use replyhook::Address;
use replyhook::internals::{
    AcceptOutcome, Dialogue, DialogueChange, ReplyDecision, ReplyPath, Store, TurnStatus,
};
use replyhook::store::ConsentScope;

use super::{
    ANA, ANA_ID, BEN, Backend, Completion, SENDER, accept, accept_and_answer, accept_claimed, at,
    claim_backlog, expect_queued, inbound_from, new_inbound, over_all_stores, stop_keyword,
    with_keyword,
};

over_all_stores!(
    message_waits_only_for_older_in_conversation,
    retried_message_precedes_newer_unclaimed_messages,
    message_with_both_addresses_merges_conversations,
    dialogue_of_open_message_follows_merged_conversation,
    reopened_message_belongs_to_merged_conversation,
);

async fn message_waits_only_for_older_in_conversation(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, new_inbound(1)).await;
    let second = accept(store, new_inbound(2)).await;
    let third = accept(store, new_inbound(3)).await;
    let AcceptOutcome::Queued {
        id,
        conversation,
        ahead: 1,
    } = second
    else {
        panic!("{second:?}")
    };
    assert_eq!(conversation, first.conversation);
    assert!(matches!(third, AcceptOutcome::Queued { ahead: 2, .. }));
    accept_claimed(store, inbound_from(&[BEN], 4)).await;
    let third = expect_queued(&third);
    assert_eq!(
        store.try_claim(id, at(5)).await.unwrap(),
        TurnStatus::Waiting
    );
    store
        .complete_inline(first, None, Completion::default(), at(5))
        .await
        .unwrap();
    assert_eq!(
        store.try_claim(third, at(5)).await.unwrap(),
        TurnStatus::Waiting
    );
    let TurnStatus::Claimed(claim) = store.try_claim(id, at(5)).await.unwrap() else {
        panic!("the queued message cannot be claimed")
    };
    assert_eq!(
        (claim.id, claim.attempt, claim.conversation),
        (id, 1, conversation)
    );
    // A claimed message cannot be claimed again.
    let decided = TurnStatus::Resolved(ReplyDecision::ClaimLost);
    assert_eq!(store.try_claim(id, at(5)).await.unwrap(), decided);
    store
        .record_failure(claim, "the handler failed", false, at(0))
        .await
        .unwrap();
    assert!(matches!(
        store.try_claim(third, at(6)).await.unwrap(),
        TurnStatus::Claimed(_)
    ));
}

async fn retried_message_precedes_newer_unclaimed_messages(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, new_inbound(1)).await;
    store
        .record_failure(first, "the handler failed", true, at(0))
        .await
        .unwrap();
    let second = accept_claimed(store, new_inbound(2)).await;
    let third = expect_queued(&accept(store, new_inbound(3)).await);
    store.decide(third, ReplyPath::Rest, at(3)).await.unwrap();
    assert!(store.retry(first_sid(), at(3)).await.unwrap());
    // The second message is claimed, so neither of the others can be.
    assert!(claim_backlog(store, at(4)).await.is_empty());
    store
        .complete_inline(second, None, Completion::default(), at(5))
        .await
        .unwrap();
    for expected in [first.id, third] {
        let backlog = claim_backlog(store, at(6)).await;
        assert_eq!(
            backlog
                .iter()
                .map(|message| message.claim.id)
                .collect::<Vec<_>>(),
            [expected]
        );
        assert!(
            store
                .complete_via_rest(backlog[0].claim, Vec::new(), Completion::default(), at(6))
                .await
                .unwrap()
        );
    }
}

fn first_sid() -> replyhook::MessageSid {
    super::sid(1)
}

async fn set_dialogue(store: &dyn Store, number: u64, user: &str, data: &str) -> i64 {
    let claim = accept_claimed(store, inbound_from(&[user], number)).await;
    let change = DialogueChange::Set {
        data: data.to_owned(),
        expires_at: Some(at(900)),
    };
    let now = at(i64::try_from(number).unwrap());
    store
        .complete_inline(claim, None, change.into(), now)
        .await
        .unwrap();
    claim.conversation
}

// The merged conversation has the newer dialogue, the later window and the opt-out of either.
async fn message_with_both_addresses_merges_conversations(backend: &mut Backend) {
    let store = backend.store();
    let (sender, ana, id) = (
        Address::from(SENDER),
        Address::from(ANA),
        Address::from(ANA_ID),
    );
    let by_phone = set_dialogue(store, 1, ANA, "older").await;
    let by_id = set_dialogue(store, 2, ANA_ID, "newer").await;
    assert_ne!(by_phone, by_id);
    let phone_waits = accept_claimed(store, inbound_from(&[ANA], 3)).await;
    let id_waits = accept_claimed(store, inbound_from(&[ANA_ID], 4)).await;
    // A message with both addresses is queued behind the open messages of both.
    let joined = accept(store, inbound_from(&[ANA, ANA_ID], 5)).await;
    let AcceptOutcome::Queued {
        id: number,
        conversation,
        ahead: 2,
    } = joined
    else {
        panic!("{joined:?}")
    };
    for address in [&ana, &id] {
        let found = store.conversation(&sender, address).await.unwrap().unwrap();
        assert_eq!((found.id, found.last_inbound), (conversation, Some(at(5))));
    }
    let dialogue = store.dialogue(conversation, at(6)).await.unwrap();
    assert_eq!(dialogue, Some(Dialogue("newer".to_owned())));
    assert_eq!(store.dialogue(conversation, at(900)).await.unwrap(), None);
    store
        .complete_inline(phone_waits, None, Completion::default(), at(6))
        .await
        .unwrap();
    assert_eq!(
        store.try_claim(number, at(6)).await.unwrap(),
        TurnStatus::Waiting
    );
    store
        .complete_inline(id_waits, None, Completion::default(), at(6))
        .await
        .unwrap();
    let TurnStatus::Claimed(claim) = store.try_claim(number, at(6)).await.unwrap() else {
        panic!("the queued message cannot be claimed")
    };
    store
        .complete_inline(claim, None, DialogueChange::End.into(), at(7))
        .await
        .unwrap();
    assert_eq!(store.dialogue(conversation, at(7)).await.unwrap(), None);

    // The merging message is older than both windows, so it must not replace the later one.
    accept_and_answer(store, inbound_from(&["whatsapp:+1"], 20)).await;
    accept(
        store,
        with_keyword(stop_keyword(), inbound_from(&["whatsapp:US.x"], 30)),
    )
    .await;
    let earlier = replyhook::internals::NewInbound {
        received_at: at(10),
        ..inbound_from(&["whatsapp:+1", "whatsapp:US.x"], 31)
    };
    assert_eq!(accept(store, earlier).await, AcceptOutcome::OptedOut);
    let found = store
        .conversation(&sender, &"whatsapp:+1".into())
        .await
        .unwrap();
    assert_eq!(found.unwrap().last_inbound, Some(at(30)));
    let by_phone = accept(store, inbound_from(&["whatsapp:+1"], 32)).await;
    assert_eq!(by_phone, AcceptOutcome::OptedOut);
    let scopes = vec![ConsentScope::Sender(sender)];
    let state = store.consent(scopes, &"whatsapp:+1".into()).await.unwrap();
    assert_eq!(state.opted_out, Some(at(30)));
}

async fn dialogue_of_open_message_follows_merged_conversation(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA], 1)).await;
    let handled = accept_claimed(store, inbound_from(&[ANA_ID], 2)).await;
    expect_queued(&accept(store, inbound_from(&[ANA, ANA_ID], 3)).await);
    let change = DialogueChange::Set {
        data: "step 2".to_owned(),
        expires_at: None,
    };
    store
        .complete_inline(handled, None, change.into(), at(4))
        .await
        .unwrap();
    let found = store
        .conversation(&SENDER.into(), &ANA_ID.into())
        .await
        .unwrap()
        .unwrap();
    assert_ne!(found.id, handled.conversation);
    let dialogue = store.dialogue(found.id, at(5)).await.unwrap();
    assert_eq!(dialogue, Some(Dialogue("step 2".to_owned())));
}

async fn reopened_message_belongs_to_merged_conversation(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA], 1)).await;
    let failed = accept_claimed(store, inbound_from(&[ANA_ID], 2)).await;
    store
        .record_failure(failed, "the handler failed", false, at(0))
        .await
        .unwrap();
    let dead = accept_claimed(store, inbound_from(&[ANA_ID], 3)).await;
    store
        .record_failure(dead, "the handler failed", true, at(0))
        .await
        .unwrap();
    let handled = accept_claimed(store, inbound_from(&[ANA, ANA_ID], 4)).await;
    let redelivery = accept(store, inbound_from(&[ANA_ID], 2)).await;
    assert_eq!(expect_queued(&redelivery), failed.id);
    assert!(store.retry(super::sid(3), at(5)).await.unwrap());
    assert!(claim_backlog(store, at(5)).await.is_empty());
    store
        .complete_inline(handled, None, Completion::default(), at(6))
        .await
        .unwrap();
    assert!(matches!(
        store.try_claim(failed.id, at(6)).await.unwrap(),
        TurnStatus::Claimed(_)
    ));
}
