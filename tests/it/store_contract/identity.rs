//! Users with several addresses: two spellings, business-scoped IDs, merges and splits.

use replyhook::internals::{
    AcceptOutcome, Claim, LinkKind, MessageFilter, NewInbound, NewOutbound, SendEligibility,
    StatusEvent, Store, UserChange,
};
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource, OutboundState};
use replyhook::{AccountSid, Address};

use super::{
    ANA, ANA_ID, BEN, Backend, Completion, SENDER, accept, accept_and_answer, accept_claimed,
    account, at, inbound_from, over_all_stores, reply, service, sid, start_keyword, stop_keyword,
    with_keyword,
};

over_all_stores!(
    two_spellings_share_conversation_and_consent,
    argentine_spellings_share_opt_outs_only,
    sms_and_rcs_share_opt_out_and_start,
    status_callback_ties_id_to_number,
    parent_id_ties_two_ids,
    opt_out_under_one_address_holds_under_all,
    start_counts_for_the_class_only,
    recycled_number_is_split_off,
    late_status_callback_splits_nothing,
    operator_merges_and_splits,
    merge_before_the_claim_suppresses,
    links_of_another_account_do_not_count,
    user_of_one_account_is_not_that_of_another,
    user_is_found_by_either_spelling,
    user_has_one_id_on_all_channels,
    purge_keeps_opt_out_under_every_address,
    repeated_stop_reaches_addresses_that_started_again,
    repeated_stop_counts_against_an_earlier_start,
    repeated_stop_keeps_its_place_after_a_purge,
    repeated_error_of_twilio_is_recorded_after_a_start_only,
);

const OTHER_SENDER: &str = "whatsapp:+15550004444";
const OTHER_ID: &str = "whatsapp:US.99999999999999999999";

async fn eligibility(store: &dyn Store, sender: &str, user: &str) -> SendEligibility {
    let found = store.eligibility(&sender.into(), None, &user.into(), at(50));
    found.await.unwrap()
}

async fn is_opted_out(store: &dyn Store, user: &str) -> bool {
    eligibility(store, SENDER, user).await.opted_out
}

async fn conversation(store: &dyn Store, sender: &str, user: &str) -> Option<i64> {
    let found = store.conversation(&sender.into(), &user.into());
    found.await.unwrap().map(|found| found.id)
}

async fn answered(store: &dyn Store, inbound: NewInbound) -> Claim {
    let now = inbound.received_at;
    let claim = accept_claimed(store, inbound).await;
    let completion = Completion::default();
    store
        .complete_inline(claim, None, completion, now)
        .await
        .unwrap();
    claim
}

async fn stop(store: &dyn Store, user: &[&str], number: u64) {
    let stopped = accept(
        store,
        with_keyword(stop_keyword(), inbound_from(user, number)),
    )
    .await;
    assert!(
        matches!(
            stopped,
            AcceptOutcome::ConsentKeyword {
                opted_out: true,
                ..
            }
        ),
        "{stopped:?}"
    );
}

fn change(user: &str, reason: &str) -> UserChange {
    UserChange {
        account: account(),
        user: user.into(),
        reason: reason.to_owned(),
        at: at(40),
    }
}

/// The actions of the ledger, with the address and note of each.
async fn ledger(store: &dyn Store) -> Vec<(String, String, String)> {
    let entries = store.consent_ledger(0, 99).await.unwrap();
    let fields = entries.into_iter().map(|entry| {
        let record = entry.record;
        let action = record.action.as_str().to_owned();
        let user = record.user.as_str().to_owned();
        (action, user, record.note.unwrap_or_default())
    });
    fields.collect()
}

async fn two_spellings_share_conversation_and_consent(backend: &mut Backend) {
    let store = backend.store();
    for (number, (spelled, other)) in [
        ("whatsapp:+5215512345678", "whatsapp:+525512345678"),
        ("whatsapp:+5561999887766", "whatsapp:+556199887766"),
    ]
    .into_iter()
    .enumerate()
    {
        let number = 10 * (number as u64 + 1);
        let first = answered(store, inbound_from(&[spelled], number)).await;
        let window = eligibility(store, SENDER, other).await;
        assert!(window.window_open, "{other}");
        let second = answered(store, inbound_from(&[other], number + 1)).await;
        assert_eq!(first.conversation, second.conversation);
        let earlier = store.earlier(second.id, 9).await.unwrap();
        assert_eq!(earlier.len(), 1);
        stop(store, &[spelled], number + 2).await;
        assert!(is_opted_out(store, other).await);
        let silent = accept(store, inbound_from(&[other], number + 3)).await;
        assert_eq!(silent, AcceptOutcome::OptedOut);
        let started = with_keyword(start_keyword(), inbound_from(&[other], number + 4));
        accept(store, started).await;
        assert!(!is_opted_out(store, spelled).await);
        // The ledger has what came.
        let users: Vec<_> = ledger(store)
            .await
            .into_iter()
            .map(|entry| entry.1)
            .collect();
        assert!(users.contains(&spelled.to_owned()) && users.contains(&other.to_owned()));
    }
}

async fn user_has_one_id_on_all_channels(backend: &mut Backend) {
    let store = backend.store();
    let sms = |number| NewInbound {
        sender: "+15550002222".into(),
        ..inbound_from(&["+15550001111"], number)
    };
    // Without links, the number tells the user.
    assert_eq!(answered(store, sms(1)).await.user, None);
    assert_eq!(answered(store, inbound_from(&[ANA], 2)).await.user, None);
    // A link of the number on WhatsApp counts for the conversations that exist, and for new ones.
    let user = answered(store, inbound_from(&[ANA, ANA_ID], 3)).await.user;
    assert!(user.is_some());
    assert_eq!(answered(store, sms(4)).await.user, user);
    let rcs = NewInbound {
        sender: "rcs:brand_agent".into(),
        ..inbound_from(&["rcs:+15550001111"], 5)
    };
    assert_eq!(answered(store, rcs).await.user, user);
    let other = NewInbound {
        sender: OTHER_SENDER.into(),
        ..inbound_from(&[ANA_ID], 6)
    };
    assert_eq!(answered(store, other).await.user, user);
    assert_eq!(answered(store, inbound_from(&[BEN], 7)).await.user, None);
    // The number has a new owner.
    let split = store.split_user(change(ANA, "a new owner"));
    assert!(split.await.unwrap());
    assert_eq!(answered(store, sms(8)).await.user, None);
}

async fn argentine_spellings_share_opt_outs_only(backend: &mut Backend) {
    let store = backend.store();
    let (mobile, other) = ("whatsapp:+5491123456789", "whatsapp:+541123456789");
    let first = answered(store, inbound_from(&[mobile], 1)).await;
    assert!(!eligibility(store, SENDER, other).await.window_open);
    let second = answered(store, inbound_from(&[other], 2)).await;
    assert_ne!(first.conversation, second.conversation);
    stop(store, &[mobile], 3).await;
    assert!(is_opted_out(store, other).await);
    // Its own START lifts it for this spelling only.
    accept(
        store,
        with_keyword(start_keyword(), inbound_from(&[other], 4)),
    )
    .await;
    assert!(!is_opted_out(store, other).await);
    assert!(is_opted_out(store, mobile).await);
    // On SMS the two are not the same.
    let record = |user: &str| ConsentRecord {
        scope: ConsentScope::Service(service()),
        user: user.into(),
        action: ConsentAction::OptOut,
        source: ConsentSource::Operator,
        evidence: None,
        note: None,
        at: at(5),
    };
    store
        .record_consent(record("+5491123456789"))
        .await
        .unwrap();
    let found = store.consents(&"+541123456789".into()).await.unwrap();
    assert!(found.is_empty());
}

async fn sms_and_rcs_share_opt_out_and_start(backend: &mut Backend) {
    let store = backend.store();
    let by = |sender: &str, user: &str, number| NewInbound {
        sender: sender.into(),
        service: Some(service()),
        ..inbound_from(&[user], number)
    };
    let (sms, rcs, whatsapp) = ("+15550001111", "rcs:+15550001111", ANA);
    answered(store, by("+15550002222", sms, 1)).await;
    let stopped = with_keyword(stop_keyword(), by("+15550002222", sms, 2));
    accept(store, stopped).await;
    let by_rcs = accept(store, by("rcs:brand", rcs, 3)).await;
    assert_eq!(by_rcs, AcceptOutcome::OptedOut);
    // WhatsApp has its own opt-outs, also in the same service.
    answered(store, by(SENDER, whatsapp, 4)).await;
    let started = with_keyword(start_keyword(), by("rcs:brand", rcs, 5));
    accept(store, started).await;
    answered(store, by("+15550002222", sms, 6)).await;
    // Two channels are two conversations.
    let one = conversation(store, "+15550002222", sms).await;
    assert_ne!(one, conversation(store, "rcs:brand", rcs).await);
}

fn callback(number: u64, user: &[&str], seconds: i64) -> StatusEvent {
    StatusEvent {
        account: account(),
        sid: sid(number),
        outbound: None,
        status: replyhook::MessageStatus::Delivered,
        error_code: None,
        sender: Some(SENDER.into()),
        service: None,
        user: user.iter().map(|user| Address::from(*user)).collect(),
        at: at(seconds),
    }
}

async fn status_callback_ties_id_to_number(backend: &mut Backend) {
    let store = backend.store();
    answered(store, inbound_from(&[ANA], 1)).await;
    store
        .apply_status(callback(900, &[ANA, ANA_ID], 2))
        .await
        .unwrap();
    assert_eq!(
        conversation(store, SENDER, ANA_ID).await,
        conversation(store, SENDER, ANA).await
    );
    stop(store, &[ANA_ID], 3).await;
    assert!(is_opted_out(store, ANA).await);
    let user = store.user(&ANA.into(), None).await.unwrap();
    assert_eq!(user.links[0].kind, LinkKind::StatusCallback);
    assert_eq!(user.links[0].evidence, Some(sid(900)));
}

async fn parent_id_ties_two_ids(backend: &mut Backend) {
    let store = backend.store();
    let parent = "whatsapp:US.ENT.118157";
    answered(store, inbound_from(&[ANA_ID, parent], 1)).await;
    // The same user with another portfolio of the same parent.
    let other = NewInbound {
        sender: OTHER_SENDER.into(),
        ..inbound_from(&[OTHER_ID, parent], 2)
    };
    answered(store, other).await;
    assert_eq!(
        conversation(store, SENDER, OTHER_ID).await,
        conversation(store, SENDER, ANA_ID).await
    );
    stop(store, &[ANA_ID], 3).await;
    assert!(is_opted_out(store, OTHER_ID).await);
}

async fn opt_out_under_one_address_holds_under_all(backend: &mut Backend) {
    let store = backend.store();
    answered(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    stop(store, &[ANA_ID], 2).await;
    for user in [ANA, ANA_ID] {
        assert!(is_opted_out(store, user).await);
    }
    // On another sender the user has not opted out.
    assert!(!eligibility(store, OTHER_SENDER, ANA).await.opted_out);
    accept(
        store,
        with_keyword(start_keyword(), inbound_from(&[ANA], 3)),
    )
    .await;
    for user in [ANA, ANA_ID] {
        assert!(!is_opted_out(store, user).await);
    }
}

async fn start_counts_for_the_class_only(backend: &mut Backend) {
    let store = backend.store();
    // An operator ties an SMS address to one on WhatsApp, and that one to a second SMS address.
    let (one, other) = ("+15550001111", "+15550003333");
    store
        .merge_users(change(one, "a form"), &ANA.into())
        .await
        .unwrap();
    store
        .merge_users(change(other, "a form"), &ANA.into())
        .await
        .unwrap();
    let sms = |user: &str, number| NewInbound {
        sender: "+15550002222".into(),
        ..inbound_from(&[user], number)
    };
    accept(store, with_keyword(stop_keyword(), sms(one, 1))).await;
    assert!(eligibility(store, "+15550002222", other).await.opted_out);
    accept(store, with_keyword(start_keyword(), sms(other, 2))).await;
    assert!(!eligibility(store, "+15550002222", other).await.opted_out);
    assert!(eligibility(store, "+15550002222", one).await.opted_out);
    assert!(!is_opted_out(store, ANA).await);
}

async fn recycled_number_is_split_off(backend: &mut Backend) {
    let store = backend.store();
    let old = answered(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    let opt_in = ConsentRecord {
        scope: ConsentScope::Sender(SENDER.into()),
        user: ANA.into(),
        action: ConsentAction::OptIn,
        source: ConsentSource::Api,
        evidence: None,
        note: None,
        at: at(2),
    };
    store.record_consent(opt_in).await.unwrap();
    assert!(eligibility(store, SENDER, ANA_ID).await.opted_in);
    // The old owner stops under the ID alone, so the number has no opt-out of its own.
    stop(store, &[ANA_ID], 3).await;
    assert!(is_opted_out(store, ANA).await);
    let new = answered(store, inbound_from(&[ANA, OTHER_ID], 4)).await;
    assert_ne!(new.conversation, old.conversation);
    assert!(store.earlier(new.id, 9).await.unwrap().is_empty());
    let new_owner = eligibility(store, SENDER, ANA).await;
    assert!(!new_owner.opted_out && !new_owner.opted_in);
    assert!(is_opted_out(store, ANA_ID).await);
    assert_eq!(
        conversation(store, SENDER, ANA_ID).await,
        Some(old.conversation)
    );
    assert_eq!(
        conversation(store, SENDER, OTHER_ID).await,
        Some(new.conversation)
    );
    let splits: Vec<_> = ledger(store)
        .await
        .into_iter()
        .filter(|(action, ..)| action == "split")
        .collect();
    assert_eq!(splits.len(), 2);
    assert_eq!(splits[0].1, ANA);
    assert!(splits[0].2.contains("another ExternalUserId"));
    // An opt-out of the number itself stays with the number.
    stop(store, &[ANA, OTHER_ID], 5).await;
    let third = "whatsapp:US.33333333333333333333";
    let silent = accept(store, inbound_from(&[ANA, third], 6)).await;
    assert_eq!(silent, AcceptOutcome::OptedOut);
    assert!(is_opted_out(store, third).await && is_opted_out(store, OTHER_ID).await);
}

async fn late_status_callback_splits_nothing(backend: &mut Backend) {
    let store = backend.store();
    answered(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    let queued = store.enqueue(vec![reply("text")], at(2)).await.unwrap();
    let sent = store.claim(9, at(2)).await.unwrap();
    assert_eq!(sent[0].id, queued[0]);
    let outcome = super::sent_outcome(800);
    store
        .record_outcome(queued[0], outcome, at(2))
        .await
        .unwrap();
    let new = answered(store, inbound_from(&[ANA, OTHER_ID], 3)).await;
    store
        .apply_status(callback(800, &[ANA, ANA_ID], 9))
        .await
        .unwrap();
    assert_eq!(
        conversation(store, SENDER, ANA).await,
        Some(new.conversation)
    );
    let user = store.user(&ANA.into(), None).await.unwrap();
    assert!(!user.addresses.contains(&ANA_ID.into()), "{user:?}");
}

async fn operator_merges_and_splits(backend: &mut Backend) {
    let store = backend.store();
    let new_number = "whatsapp:+15550009999";
    let old = answered(store, inbound_from(&[ANA], 1)).await;
    answered(store, inbound_from(&[new_number], 2)).await;
    let merged = store.merge_users(change(new_number, "says she moved"), &ANA.into());
    assert!(merged.await.unwrap());
    let again = store.merge_users(change(ANA, "again"), &new_number.into());
    assert!(!again.await.unwrap());
    let claim = answered(store, inbound_from(&[new_number], 3)).await;
    assert_eq!(claim.conversation, old.conversation);
    assert_eq!(store.earlier(claim.id, 9).await.unwrap().len(), 2);
    stop(store, &[ANA], 4).await;
    assert!(is_opted_out(store, new_number).await);
    assert!(
        store
            .split_user(change(new_number, "a mistake"))
            .await
            .unwrap()
    );
    assert!(!store.split_user(change(new_number, "again")).await.unwrap());
    assert!(!is_opted_out(store, new_number).await);
    assert!(!eligibility(store, SENDER, new_number).await.window_open);
    assert!(is_opted_out(store, ANA).await);
    let claim = answered(store, inbound_from(&[new_number], 5)).await;
    assert_ne!(claim.conversation, old.conversation);
    let entries = ledger(store).await;
    let notes = |wanted: &str| {
        let found = entries.iter().filter(|(action, ..)| action == wanted);
        found
            .map(|(_, user, note)| format!("{user}: {note}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        notes("merge"),
        [
            format!("{new_number}: {ANA}: says she moved"),
            format!("{ANA}: {new_number}: says she moved")
        ]
    );
    assert!(notes("split").contains(&format!("{new_number}: a mistake")));
}

async fn merge_before_the_claim_suppresses(backend: &mut Backend) {
    let store = backend.store();
    let new_number = "whatsapp:+15550009999";
    stop(store, &[ANA], 1).await;
    let message = NewOutbound {
        user: new_number.into(),
        template: true,
        ..reply("news")
    };
    let queued = store.enqueue(vec![message.clone()], at(2)).await.unwrap();
    store
        .merge_users(change(new_number, "moved"), &ANA.into())
        .await
        .unwrap();
    assert!(store.claim(9, at(3)).await.unwrap().is_empty());
    let row = store.outbound(queued[0]).await.unwrap().unwrap();
    assert_eq!(row.state, OutboundState::Suppressed);
    // A message that was claimed before is on its way.
    let other = "whatsapp:+15550008888";
    let message = NewOutbound {
        user: other.into(),
        ..message
    };
    store.enqueue(vec![message], at(4)).await.unwrap();
    assert_eq!(store.claim(9, at(4)).await.unwrap().len(), 1);
    store
        .merge_users(change(other, "moved"), &ANA.into())
        .await
        .unwrap();
    assert!(is_opted_out(store, other).await);
}

async fn links_of_another_account_do_not_count(backend: &mut Backend) {
    let store = backend.store();
    let other_account = "AC00000000000000000000000000000099".parse().unwrap();
    let in_other = |sender: &str, user: &[&str], number| NewInbound {
        account: other_account,
        sender: sender.into(),
        ..inbound_from(user, number)
    };
    answered(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    answered(store, in_other(OTHER_SENDER, &[ANA, OTHER_ID], 2)).await;
    assert_eq!(conversation(store, SENDER, OTHER_ID).await, None);
    let stopped = with_keyword(stop_keyword(), in_other(OTHER_SENDER, &[OTHER_ID], 3));
    accept(store, stopped).await;
    assert!(eligibility(store, OTHER_SENDER, ANA).await.opted_out);
    assert!(!eligibility(store, OTHER_SENDER, ANA_ID).await.opted_out);
    assert!(!is_opted_out(store, ANA).await);
}

// A business-scoped ID can be known to two accounts, and is another user in each.
async fn user_of_one_account_is_not_that_of_another(backend: &mut Backend) {
    let store = backend.store();
    let other_account: AccountSid = "AC00000000000000000000000000000099".parse().unwrap();
    let in_other = |user: &[&str], number| NewInbound {
        account: other_account,
        sender: OTHER_SENDER.into(),
        ..inbound_from(user, number)
    };
    answered(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    answered(store, in_other(&[BEN, ANA_ID], 2)).await;
    accept(
        store,
        with_keyword(stop_keyword(), in_other(&[BEN, ANA_ID], 3)),
    )
    .await;
    let to_ben = NewOutbound {
        account: other_account,
        sender: OTHER_SENDER.into(),
        user: BEN.into(),
        ..reply("news")
    };
    store
        .enqueue(vec![to_ben, reply("news")], at(4))
        .await
        .unwrap();
    assert_eq!(
        store.accounts_of(&ANA_ID.into()).await.unwrap(),
        [account(), other_account]
    );
    let texts = async |user: &str, of: Option<AccountSid>| -> Vec<String> {
        let found = store.user(&user.into(), of).await.unwrap();
        let texts = found
            .addresses
            .iter()
            .map(|found| found.as_str().to_owned());
        texts.collect()
    };
    assert_eq!(texts(ANA, None).await, [ANA, ANA_ID]);
    assert_eq!(texts(ANA_ID, Some(account())).await, [ANA_ID, ANA]);
    assert_eq!(texts(ANA_ID, Some(other_account)).await, [ANA_ID, BEN]);
    let details = store.user(&ANA_ID.into(), Some(account())).await.unwrap();
    assert!(details.consents.is_empty(), "{:?}", details.consents);
    let counts = async |user: &str, of: Option<AccountSid>| {
        let filter = MessageFilter {
            user: Some(user.into()),
            account: of,
            limit: 9,
            ..MessageFilter::default()
        };
        let inbound = store.messages(filter.clone()).await.unwrap().len();
        let outbound = store.outbound_messages(filter).await.unwrap().len();
        (inbound, outbound)
    };
    assert_eq!(counts(ANA, None).await, (1, 1));
    assert_eq!(counts(ANA_ID, None).await, (3, 2));
    assert_eq!(counts(ANA_ID, Some(other_account)).await, (2, 1));
    // By the ID, in one account.
    let id = Address::from(ANA_ID);
    let purged = store.purge_user(&id, Some(account()), true).await.unwrap();
    assert_eq!((purged.messages, purged.outbound), (1, 1));
    assert_eq!(counts(ANA, None).await, (0, 0));
    assert_eq!(counts(BEN, None).await, (2, 1));
    assert!(eligibility(store, OTHER_SENDER, ANA_ID).await.opted_out);
    assert_eq!(texts(BEN, None).await, [BEN, ANA_ID]);
    // By the number, in each account that knows it.
    let purged = store.purge_user(&BEN.into(), None, true).await.unwrap();
    assert_eq!((purged.messages, purged.outbound), (2, 1));
    assert!(!eligibility(store, OTHER_SENDER, ANA_ID).await.opted_out);
    assert!(store.consent_ledger(0, 9).await.unwrap().is_empty());
}

async fn user_is_found_by_either_spelling(backend: &mut Backend) {
    let store = backend.store();
    let (stored, other) = ("whatsapp:+5215512345678", "whatsapp:+525512345678");
    answered(store, inbound_from(&[stored, ANA_ID], 1)).await;
    for (asked, spelling) in [(other, stored), (stored, other)] {
        let user = store.user(&asked.into(), None).await.unwrap();
        assert_eq!(user.addresses[0], Address::from(asked));
        assert!(user.addresses.contains(&spelling.into()));
        assert!(user.addresses.contains(&ANA_ID.into()));
        let pair = (Address::from(asked), Address::from(spelling));
        assert_eq!(user.spellings, [pair]);
        assert_eq!(user.links.len(), 1);
    }
}

async fn purge_keeps_opt_out_under_every_address(backend: &mut Backend) {
    let store = backend.store();
    answered(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    stop(store, &[ANA_ID], 2).await;
    accept_and_answer(
        store,
        NewInbound {
            sender: "+15550002222".into(),
            ..inbound_from(&["+15550001111"], 3)
        },
    )
    .await;
    let purged = store.purge_user(&ANA_ID.into(), None, false).await.unwrap();
    // The same number on SMS is the same user.
    assert_eq!(purged.messages, 3);
    assert!(is_opted_out(store, ANA).await && is_opted_out(store, ANA_ID).await);
    let user = store.user(&ANA.into(), None).await.unwrap();
    assert!(user.links.is_empty() && user.conversations.is_empty());
    store.purge_user(&ANA.into(), None, true).await.unwrap();
    assert!(!is_opted_out(store, ANA).await);
    store.purge_user(&ANA_ID.into(), None, true).await.unwrap();
    assert!(store.consent_ledger(0, 9).await.unwrap().is_empty());
}

async fn repeated_stop_reaches_addresses_that_started_again(backend: &mut Backend) {
    let store = backend.store();
    let (mobile, other) = ("whatsapp:+5491123456789", "whatsapp:+541123456789");
    stop(store, &[mobile], 1).await;
    accept(
        store,
        with_keyword(start_keyword(), inbound_from(&[other], 2)),
    )
    .await;
    assert!(!is_opted_out(store, other).await);
    // No confirmation, because this spelling has opted out already; but the opt-out is a later one.
    let again = accept(
        store,
        with_keyword(stop_keyword(), inbound_from(&[mobile], 3)),
    )
    .await;
    assert_eq!(again, AcceptOutcome::OptedOut);
    assert!(is_opted_out(store, other).await);
}

/// Accepts STOP from a new number and from Ana, START from the new number, and STOP from Ana again.
async fn stop_again_after_start(store: &dyn Store, new_number: &str) {
    stop(store, &[new_number], 1).await;
    stop(store, &[ANA], 2).await;
    let start = with_keyword(start_keyword(), inbound_from(&[new_number], 3));
    accept(store, start).await;
    assert!(!is_opted_out(store, new_number).await);
    let again = with_keyword(stop_keyword(), inbound_from(&[ANA], 4));
    // No second confirmation.
    assert_eq!(accept(store, again).await, AcceptOutcome::OptedOut);
}

// The address that sent START between the two STOPs is tied to the user only later.
async fn repeated_stop_counts_against_an_earlier_start(backend: &mut Backend) {
    let store = backend.store();
    let new_number = "whatsapp:+15550009999";
    stop_again_after_start(store, new_number).await;
    // Each message is in the ledger, in its order.
    let stops = store.consent_ledger(0, 9).await.unwrap().into_iter();
    let stops = stops.filter(|entry| entry.record.action == ConsentAction::OptOut);
    let stops: Vec<_> = stops.map(|entry| entry.record.evidence.unwrap()).collect();
    assert_eq!(stops, [sid(1), sid(2), sid(4)]);
    // The opt-out is still that of the first STOP.
    let consents = store.consents(&ANA.into()).await.unwrap();
    let opt_out = consents[0].opt_out.as_ref().unwrap();
    assert_eq!((opt_out.evidence, opt_out.at), (Some(sid(2)), at(2)));
    let merged = store.merge_users(change(new_number, "says she moved"), &ANA.into());
    assert!(merged.await.unwrap());
    for user in [ANA, new_number] {
        assert!(is_opted_out(store, user).await, "{user}");
    }
    // A START after that counts for both.
    let start = with_keyword(start_keyword(), inbound_from(&[ANA], 5));
    accept(store, start).await;
    for user in [ANA, new_number] {
        assert!(!is_opted_out(store, user).await, "{user}");
    }
}

// A purge keeps the opt-out, and its place after the START of the other address.
async fn repeated_stop_keeps_its_place_after_a_purge(backend: &mut Backend) {
    let store = backend.store();
    let new_number = "whatsapp:+15550009999";
    stop_again_after_start(store, new_number).await;
    store.purge_user(&ANA.into(), None, false).await.unwrap();
    assert!(is_opted_out(store, ANA).await);
    let merged = store.merge_users(change(new_number, "says she moved"), &ANA.into());
    assert!(merged.await.unwrap());
    for user in [ANA, new_number] {
        assert!(is_opted_out(store, user).await, "{user}");
    }
}

async fn repeated_error_of_twilio_is_recorded_after_a_start_only(backend: &mut Backend) {
    let store = backend.store();
    let refused = |number| StatusEvent {
        status: replyhook::MessageStatus::Undelivered,
        error_code: Some(replyhook::ErrorCode(63014)),
        user: vec![ANA.into()],
        ..callback(number, &[ANA], 1)
    };
    for number in 900..905 {
        store.apply_status(refused(number)).await.unwrap();
    }
    assert_eq!(ledger(store).await.len(), 1);
    let start = with_keyword(start_keyword(), inbound_from(&[ANA], 2));
    accept(store, start).await;
    assert!(!is_opted_out(store, ANA).await);
    for number in 905..910 {
        store.apply_status(refused(number)).await.unwrap();
    }
    assert_eq!(ledger(store).await.len(), 3);
    assert!(is_opted_out(store, ANA).await);
}
