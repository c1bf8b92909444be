//! Retention: small steps delete old rows by ID. Reused IDs, a wrong clock or open messages must not stop it.

use replyhook::Timestamp;
use replyhook::internals::{Completion, MessageFilter, NewOutbound, Retention, Store};

use super::{
    ANA, BEN, Backend, NewInbound, SENDER, accept_and_answer, accept_claimed, at, deliver,
    expire_all, inbound_from, message_row, new_inbound, over_all_stores, reply, reply_via_rest,
};
use crate::support::Wait;

over_all_stores!(
    step_deletes_few_rows,
    messages_expire_after_row_ids_restart,
    messages_expire_after_newest_were_deleted,
    messages_expire_after_delete_everything,
    message_from_future_blocks_no_expiry,
    last_message_from_future_expires,
    open_reply_expires_once_sent,
    open_outbound_message_expires_once_sent,
    conversation_expires_once_no_message_is_open,
);

/// Seconds, far beyond any retention.
const FUTURE: i64 = 1_000_000_000;

/// Retention at second `now` that expires texts, content and keys from before these seconds.
fn retention_before(texts: i64, content: i64, keys: i64, now: i64) -> Retention {
    Retention {
        now: at(now),
        texts_before: at(texts),
        content_before: at(content),
        keys_before: at(keys),
        unmatched_status_before: Timestamp::MIN,
    }
}

fn inbound_at(seconds: i64, number: u64) -> NewInbound {
    NewInbound {
        received_at: at(seconds),
        ..new_inbound(number)
    }
}

async fn has_text(store: &dyn Store, number: u64) -> bool {
    message_row(store, number).await.params.is_some()
}

async fn outbound_has_content(store: &dyn Store) -> Vec<bool> {
    let filter = MessageFilter {
        limit: 1000,
        ..MessageFilter::default()
    };
    let rows = store.outbound_messages(filter).await.unwrap();
    rows.iter()
        .map(|row| row.message.params.is_some())
        .collect()
}

async fn count_messages(store: &dyn Store) -> usize {
    let filter = MessageFilter {
        limit: 1000,
        ..MessageFilter::default()
    };
    store.messages(filter).await.unwrap().len()
}

async fn step_deletes_few_rows(backend: &mut Backend) {
    const MAX: usize = 100;
    let store = backend.store();
    let replies = (0..250).map(|number| NewOutbound {
        user: format!("whatsapp:+1555{number:07}").into(),
        ..reply("text")
    });
    store.enqueue(replies.collect(), at(1)).await.unwrap();
    deliver(store, 2).await;
    assert_eq!(outbound_has_content(store).await.len(), 250);
    let mut remaining = 250;
    loop {
        let more = store
            .expire(retention_before(50, 50, 50, 100))
            .await
            .unwrap()
            .has_more;
        let now = outbound_has_content(store).await.len();
        assert!(remaining - now <= MAX, "{remaining} {now}");
        remaining = now;
        if !more {
            break;
        }
    }
    assert_eq!(remaining, 0);
}

async fn messages_expire_after_row_ids_restart(backend: &mut Backend) {
    let store = backend.store();
    for number in 1..=3 {
        accept_and_answer(store, new_inbound(number)).await;
    }
    expire_all(store, retention_before(50, 50, 50, 100)).await;
    assert_eq!(count_messages(store).await, 0);
    for number in 61..=63 {
        accept_and_answer(store, new_inbound(number)).await;
    }
    expire_all(store, retention_before(63, 9, 9, 100)).await;
    for (number, there) in [(61, false), (62, false), (63, true)] {
        assert_eq!(has_text(store, number).await, there, "{number}");
    }
    expire_all(store, retention_before(70, 70, 70, 100)).await;
    assert_eq!(count_messages(store).await, 0);
}

async fn messages_expire_after_newest_were_deleted(backend: &mut Backend) {
    let store = backend.store();
    // Message 1 stays. Message 2 is deleted, and SQLite assigns its ID again.
    accept_and_answer(store, inbound_at(FUTURE, 1)).await;
    expire_all(store, retention_before(50, 50, 50, 100)).await;
    accept_and_answer(store, inbound_from(&[BEN], 2)).await;
    expire_all(store, retention_before(50, 50, 50, 100)).await;
    assert_eq!(count_messages(store).await, 1);
    for number in 61..=64 {
        accept_and_answer(store, inbound_from(&[BEN], number)).await;
    }
    expire_all(store, retention_before(70, 9, 9, 100)).await;
    for number in 61..=64 {
        assert!(!has_text(store, number).await, "{number}");
    }
}

async fn messages_expire_after_delete_everything(backend: &mut Backend) {
    let store = backend.store();
    for number in 1..=3 {
        accept_and_answer(store, new_inbound(number)).await;
    }
    expire_all(store, retention_before(50, 9, 9, 100)).await;
    store.delete_everything().await.unwrap();
    for number in 11..=12 {
        accept_and_answer(store, new_inbound(number)).await;
    }
    expire_all(store, retention_before(50, 9, 9, 100)).await;
    assert!(!has_text(store, 11).await);
    assert!(!has_text(store, 12).await);
}

async fn message_from_future_blocks_no_expiry(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    accept_and_answer(store, inbound_at(FUTURE, 2)).await;
    accept_and_answer(store, new_inbound(3)).await;
    accept_and_answer(store, new_inbound(4)).await;
    // Message 2 counts as old as message 3, which is not old yet.
    expire_all(store, retention_before(2, 2, 2, 10)).await;
    assert!(has_text(store, 2).await);
    expire_all(store, retention_before(4, 2, 2, 10)).await;
    for (number, there) in [(2, false), (3, false), (4, true)] {
        assert_eq!(has_text(store, number).await, there, "{number}");
    }
    expire_all(store, retention_before(50, 50, 50, 100)).await;
    assert_eq!(count_messages(store).await, 0);
    let conversation = store
        .conversation(&SENDER.into(), &ANA.into())
        .await
        .unwrap();
    assert!(conversation.is_none());
}

async fn last_message_from_future_expires(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    accept_and_answer(store, inbound_at(FUTURE, 2)).await;
    expire_all(store, retention_before(50, 50, 50, 100)).await;
    // Its arrival time is wrong, so it counts as received at the step that finds it.
    assert!(has_text(store, 2).await);
    for number in 103..=104 {
        accept_and_answer(store, inbound_from(&[BEN], number)).await;
    }
    // It blocks no later message, and expires by itself.
    expire_all(store, retention_before(104, 9, 9, 150)).await;
    assert!(!has_text(store, 103).await);
    assert!(!has_text(store, 2).await);
    expire_all(store, retention_before(170, 170, 170, 200)).await;
    assert_eq!(count_messages(store).await, 0);
    let conversation = store
        .conversation(&SENDER.into(), &ANA.into())
        .await
        .unwrap();
    assert!(conversation.is_none());
    // Another step finds nothing to delete.
    assert!(
        !store
            .expire(retention_before(170, 170, 170, 200))
            .await
            .unwrap()
            .has_more
    );
}

async fn open_reply_expires_once_sent(backend: &mut Backend) {
    let store = backend.store();
    reply_via_rest(store, new_inbound(1), &["text"]).await;
    accept_and_answer(store, inbound_from(&[BEN], 2)).await;
    expire_all(store, retention_before(50, 50, 0, 100)).await;
    assert!(!has_text(store, 2).await);
    let row = message_row(store, 1).await;
    assert!(row.replies[0].params.is_some(), "an unsent reply expired");
    assert_eq!(deliver(store, 101).await.len(), 1);
    expire_all(store, retention_before(50, 0, 0, 102)).await;
    let row = message_row(store, 1).await;
    assert!(row.params.is_none() && row.replies[0].params.is_none());
    expire_all(store, retention_before(50, 50, 0, 102)).await;
    assert!(message_row(store, 1).await.replies.is_empty());
    expire_all(store, retention_before(50, 50, 50, 102)).await;
    assert_eq!(count_messages(store).await, 0);
}

async fn open_outbound_message_expires_once_sent(backend: &mut Backend) {
    let store = backend.store();
    store.enqueue(vec![reply("text")], at(1)).await.unwrap();
    expire_all(store, retention_before(50, 50, 50, 100)).await;
    assert_eq!(outbound_has_content(store).await, [true]);
    deliver(store, 101).await;
    expire_all(store, retention_before(50, 1, 1, 102)).await;
    assert_eq!(outbound_has_content(store).await, [false]);
    expire_all(store, retention_before(50, 50, 50, 102)).await;
    assert!(outbound_has_content(store).await.is_empty());
}

async fn conversation_expires_once_no_message_is_open(backend: &mut Backend) {
    let store = backend.store();
    let (sender, ana) = (SENDER.into(), ANA.into());
    let open = accept_claimed(store, new_inbound(1)).await;
    expire_all(store, retention_before(50, 50, 0, 100)).await;
    assert!(store.conversation(&sender, &ana).await.unwrap().is_some());
    store
        .complete_via_rest(open, Vec::new(), Completion::default(), at(101))
        .await
        .unwrap();
    expire_all(store, retention_before(50, 50, 0, 102)).await;
    assert!(store.conversation(&sender, &ana).await.unwrap().is_none());
    assert_eq!(message_row(store, 1).await.state, "answered");
}

// Each table has 20,000 rows that are not old.
#[cfg(feature = "postgres")]
#[test]
fn step_reads_few_rows_of_large_postgres_tables() {
    use super::{Kind, run};
    const FILL: &str = "INSERT INTO outbound (ordinal, account, auth_token, sender, address, address_key, consent_key, template, state, \
           not_before, created_at) SELECT 0, '', 0, 'us', n::text, n::text, n::text, false, 4, 0, 1e18::bigint FROM generate_series(1, 20000) n; \
         INSERT INTO unmatched_status (sid, account, status, rank, at) \
           SELECT n::text::bytea, '', 'sent', 1, 1e18::bigint FROM generate_series(1, 20000) n; \
         INSERT INTO conversation (last_inbound) SELECT 1e18::bigint FROM generate_series(1, 20000) n; \
         ANALYZE";
    const READ: &str = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint, sum(coalesce(idx_scan, 0))::bigint \
         FROM pg_stat_user_tables WHERE relname IN ('outbound', 'unmatched_status', 'conversation')";
    run(Kind::Postgres, async |backend: &mut Backend| {
        let (store, database) = (backend.store(), backend.database());
        database.run(FILL).await;
        let mut db = database.connect().await;
        let mut read = async || -> (i64, i64) {
            sqlx::query("SELECT pg_stat_clear_snapshot()")
                .execute(&mut db)
                .await
                .unwrap();
            sqlx::query_as(READ).fetch_one(&mut db).await.unwrap()
        };
        let begun = read().await;
        let mut steps = 0;
        let wait = Wait::until("the statistics have changed");
        // The store's connection reports its statistics at most once a second.
        while read().await.1 == begun.1 {
            wait.check();
            store
                .expire(retention_before(50, 50, 50, 100))
                .await
                .unwrap();
            steps += 1;
        }
        let rows = read().await.0 - begun.0;
        assert!(rows <= steps * 1000, "{rows} rows in {steps} steps");
    });
}
