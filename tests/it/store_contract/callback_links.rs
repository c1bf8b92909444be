//! Links that status callbacks teach: which ones are stored, and until when.

use replyhook::internals::{LinkKind, MessageFilter, Retention, StatusEvent, Store};
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource};
use replyhook::{Address, MessageStatus};

use super::{
    ANA, ANA_ID, BEN, Backend, SENDER, accept_and_answer, account, at, expire_all, inbound_from,
    over_all_stores, reply, sent_outcome, sid,
};

over_all_stores!(
    callback_about_stranger_stores_no_link,
    callback_after_purge_stores_no_link,
    callback_about_opted_out_user_stores_link,
    link_of_user_who_never_wrote_expires,
    link_of_user_who_wrote_stays_with_conversation,
);

const BEN_ID: &str = "whatsapp:US.99999999999999999999";

/// Reports the delivery of message `number` to a user with a number and an ID.
async fn report_delivery(store: &dyn Store, number: u64, user: [&str; 2], seconds: i64) {
    let event = StatusEvent {
        account: account(),
        sid: sid(number),
        outbound: None,
        status: MessageStatus::Delivered,
        error_code: None,
        sender: Some(SENDER.into()),
        service: None,
        user: user.map(Address::from).to_vec(),
        at: at(seconds),
    };
    store.apply_status(event).await.unwrap();
}

/// Sends message `number` to Ana, who has not written.
async fn send_to_ana(store: &dyn Store, number: u64, seconds: i64) {
    let ids = store
        .enqueue(vec![reply("text")], at(seconds))
        .await
        .unwrap();
    let claimed = store.claim(9, at(seconds)).await.unwrap();
    assert_eq!(claimed[0].id, ids[0]);
    store
        .record_outcome(ids[0], sent_outcome(number), at(seconds))
        .await
        .unwrap();
}

async fn links_of(store: &dyn Store, user: &str) -> Vec<LinkKind> {
    let details = store.user(&user.into(), None).await.unwrap();
    details.links.iter().map(|link| link.kind).collect()
}

async fn expire_content(store: &dyn Store, before: i64) {
    let retention = Retention {
        now: at(1000),
        texts_before: at(before),
        content_before: at(before),
        keys_before: at(-9),
        unmatched_status_before: at(-9),
    };
    expire_all(store, retention).await;
}

// The message was sent by another program with this server's status callback.
async fn callback_about_stranger_stores_no_link(backend: &mut Backend) {
    let store = backend.store();
    report_delivery(store, 900, [ANA, ANA_ID], 1).await;
    assert_eq!(links_of(store, ANA).await, []);
    // Once the user has written, the next callback counts.
    accept_and_answer(store, inbound_from(&[ANA], 2)).await;
    report_delivery(store, 901, [ANA, ANA_ID], 3).await;
    assert_eq!(links_of(store, ANA).await, [LinkKind::StatusCallback]);
}

async fn callback_after_purge_stores_no_link(backend: &mut Backend) {
    let store = backend.store();
    send_to_ana(store, 900, 1).await;
    report_delivery(store, 900, [ANA, ANA_ID], 2).await;
    assert_eq!(links_of(store, ANA_ID).await, [LinkKind::StatusCallback]);
    store.purge_user(&ANA.into(), None, true).await.unwrap();
    report_delivery(store, 900, [ANA, ANA_ID], 3).await;
    assert_eq!(links_of(store, ANA).await, []);
}

// The opt-out is what a purge keeps. It must hold for the other address.
async fn callback_about_opted_out_user_stores_link(backend: &mut Backend) {
    let store = backend.store();
    let opt_out = ConsentRecord {
        scope: ConsentScope::Sender(SENDER.into()),
        user: ANA.into(),
        action: ConsentAction::OptOut,
        source: ConsentSource::Operator,
        evidence: None,
        note: None,
        at: at(1),
    };
    store.record_consent(opt_out).await.unwrap();
    report_delivery(store, 900, [ANA, ANA_ID], 2).await;
    let found = store.eligibility(&SENDER.into(), None, &ANA_ID.into(), at(3));
    assert!(found.await.unwrap().opted_out);
    expire_content(store, 500).await;
    assert_eq!(links_of(store, ANA).await, [LinkKind::StatusCallback]);
}

async fn link_of_user_who_never_wrote_expires(backend: &mut Backend) {
    let store = backend.store();
    send_to_ana(store, 900, 1).await;
    report_delivery(store, 900, [ANA, ANA_ID], 2).await;
    // Too young.
    expire_content(store, 1).await;
    assert_eq!(links_of(store, ANA).await, [LinkKind::StatusCallback]);
    expire_content(store, 500).await;
    assert_eq!(links_of(store, ANA).await, []);
    let filter = MessageFilter {
        limit: 9,
        ..MessageFilter::default()
    };
    assert_eq!(store.outbound_messages(filter).await.unwrap().len(), 0);
}

// The deletion passes the link while its user has a conversation, and the deletion of the conversation takes it.
async fn link_of_user_who_wrote_stays_with_conversation(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[BEN], 1)).await;
    report_delivery(store, 900, [BEN, BEN_ID], 2).await;
    accept_and_answer(store, inbound_from(&[BEN], 600)).await;
    expire_content(store, 500).await;
    assert_eq!(links_of(store, BEN).await, [LinkKind::StatusCallback]);
    expire_content(store, 700).await;
    assert_eq!(links_of(store, BEN).await, []);
}
