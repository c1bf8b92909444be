//! A journal in an SQLite file, filled with messages whose response is saved.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use replyhook::internals::{AcceptOutcome, Completion, Journal, NewInbound, Store};
use replyhook::signature::AuthTokenKind;
use replyhook::store::Access;
use replyhook::store::sqlite::SqliteStore;

use crate::webhook;

/// Number of tasks that write concurrently, and share the store's commits.
const CONCURRENCY: u32 = 64;

pub(crate) async fn open(path: &Path) -> Arc<SqliteStore> {
    let store = Arc::new(SqliteStore::file(path));
    store.open(Access::Owner).await.expect("the store opens");
    store
}

/// Stores `messages` messages of `users` users, from the number `next` on, each with its response.
pub(crate) async fn keep(
    store: &Arc<SqliteStore>,
    next: &Arc<AtomicU32>,
    messages: u32,
    users: u32,
) {
    keep_with(store, next, messages, users, 2).await;
}

/// As [`keep`], with messages that name one or two `addresses` of their users.
pub(crate) async fn keep_with(
    store: &Arc<SqliteStore>,
    next: &Arc<AtomicU32>,
    messages: u32,
    users: u32,
    addresses: usize,
) {
    // Relaxed, here and below: the counter only hands out numbers, and no other data depends on its order. `await` of
    // the tasks orders the last store after their increments.
    let end = next.load(Ordering::Relaxed) + messages;
    let tasks: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    // Always claimed: the SID is new, and `arrival` gives neighbors different users, so no older
                    // message of the conversation is open.
                    let accepted = store.accept(arrival(number, users, addresses)).await;
                    let Ok(AcceptOutcome::Claimed(claim)) = accepted else {
                        panic!("{accepted:?}")
                    };
                    let twiml = Some(RESPONSE.to_owned());
                    let saved = store
                        .complete_inline(claim, twiml, Completion::default(), now())
                        .await;
                    saved.expect("the response is saved");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    // Each task has taken one number too many.
    next.store(end, Ordering::Relaxed);
}

const RESPONSE: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response><Message>Of course. See you at half past three, and bring the papers.</Message></Response>"#;

/// Fixed time at which the messages are received and their responses saved.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

/// Creates the message with this number, from one of `users` users, which names one or two `addresses` of theirs.
pub(crate) fn arrival(number: u32, users: u32, addresses: usize) -> Arc<NewInbound> {
    // Unique and spread over the index, as in `Webhook::numbered`.
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    // Neighbors are from different users: the journal queues a message behind an open one of its conversation. The factor has
    // no common divisor with the numbers of users, so that as many messages in a row as there are users are one of each.
    let user = u64::from(number) * 2_654_435_761 % u64::from(users);
    // The journal stores the parameters and does not read them, so their SID need not be this message's.
    let webhook = webhook::Webhook::numbered(number % 64);
    assert_eq!(
        webhook.signature.len(),
        28,
        "the signature is the base64 of 20 bytes"
    );
    let mut user_addresses = vec![
        format!("whatsapp:+1555{user:07}").as_str().into(),
        format!("whatsapp:US.1349120865530{user:07}")
            .as_str()
            .into(),
    ];
    user_addresses.truncate(addresses);
    let arrival = NewInbound {
        account: "AC00000000000000000000000000000001".parse().expect("a SID"),
        sid: format!("SM{spread:032x}").parse().expect("a SID"),
        sender: "whatsapp:+15550002222".into(),
        user: user_addresses,
        service: None,
        auth_token: AuthTokenKind::Primary,
        params: webhook.body,
        consent: None,
        max_attempts: 2,
        retry_after_crash: true,
        final_response: String::new(),
        // Later messages are newer, as in a real journal.
        received_at: now() + Duration::from_micros(number.into()),
    };
    Arc::new(arrival)
}
