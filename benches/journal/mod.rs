//! A journal in a file, filled with messages that were answered.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use replyhook::signature::TokenSlot;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{Acceptance, Access, Arrival, Ending, Journal, Store};

use crate::webhook;

const AT_ONCE: u32 = 64;

pub(crate) async fn open(path: &Path) -> Arc<SqliteStore> {
    let store = Arc::new(SqliteStore::file(path));
    store.open(Access::Owner).await.expect("the store opens");
    store
}

/// Keeps so many messages of so many users.
pub(crate) async fn keep(
    store: &Arc<SqliteStore>,
    next: &Arc<AtomicU32>,
    messages: u32,
    users: u32,
) {
    let end = next.load(Ordering::Relaxed) + messages;
    let keepers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    let accepted = store.accept(arrival(number, users)).await;
                    let Ok(Acceptance::New(claim)) = accepted else {
                        panic!("{accepted:?}")
                    };
                    let twiml = Some(ANSWER.to_owned());
                    let saved = store.answer(claim, twiml, Ending::default(), now()).await;
                    saved.expect("the answer is saved");
                }
            })
        })
        .collect();
    for keeper in keepers {
        keeper.await.expect("no keeper panics");
    }
    next.store(end, Ordering::Relaxed);
}

const ANSWER: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response><Message>Of course. See you at half past three, and bring the papers.</Message></Response>"#;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

pub(crate) fn arrival(number: u32, users: u32) -> Arc<Arrival> {
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    // Neighbours are from different users, so that none waits for another.
    let user = number.wrapping_mul(2_654_435_761) % users;
    let webhook = webhook::Webhook::numbered(number % 64);
    assert_eq!(
        webhook.signature.len(),
        28,
        "a journal keeps only what is signed"
    );
    let arrival = Arrival {
        account: "AC00000000000000000000000000000001".parse().expect("a SID"),
        sid: format!("SM{spread:032x}").parse().expect("a SID"),
        us: "whatsapp:+15550002222".into(),
        user: vec![
            format!("whatsapp:+1555{user:07}").as_str().into(),
            format!("whatsapp:US.1349120865530{user:07}")
                .as_str()
                .into(),
        ],
        service: None,
        slot: TokenSlot::Primary,
        params: webhook.body,
        consent: None,
        attempts: 2,
        retry_crashed: true,
        last_answer: String::new(),
        at: now() + Duration::from_micros(number.into()),
    };
    Arc::new(arrival)
}
