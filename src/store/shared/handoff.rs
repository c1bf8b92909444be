//! Handoffs, but for those that begin or continue with a reply.

use jiff::Timestamp;
use replyhook_core::address_key::AddressKey;

use super::database::{Database, StoredRow, ids, params};
use super::events;
use crate::address::Address;
use crate::clock::after;
use crate::store::error::StoreError;
use crate::store::handoff::{ActiveHandoff, HandoffRow};
use crate::store::packing;

/// Returns a conversation's handoff, if one is active.
pub(in crate::store) async fn handoff<D: Database>(
    db: &mut D,
    conversation: i64,
    now: Timestamp,
) -> Result<Option<ActiveHandoff>, D::Error> {
    let found = db
        .row(
            "SELECT url, ttl FROM handoff WHERE conversation = $1 AND until > $2",
            params![conversation, now],
        )
        .await?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    Ok(Some(ActiveHandoff::from_columns(
        row.take(0)?,
        row.take(1)?,
    )))
}

/// Starts handoffs of a user, and returns their number.
pub(in crate::store) async fn begin_handoff<D: Database>(
    db: &mut D,
    sender: Option<&Address>,
    user: &Address,
    handoff: &ActiveHandoff,
    now: Timestamp,
) -> Result<u64, D::Error> {
    let (url, ttl) = handoff.columns();
    // DISTINCT: two addresses of the user may share the conversation, and an upsert must not change a row twice.
    let begun = db.execute(
        "INSERT INTO handoff (conversation, url, until, ttl) \
         SELECT DISTINCT conversation, $3, $4, $5 FROM conversation_address \
         WHERE address_key = $2 AND ($1 IS NULL OR sender = $1) \
         ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until, ttl = excluded.ttl",
        params![
            sender.map(Address::as_str),
            AddressKey::of(user).as_str(),
            url,
            after(now, handoff.ttl),
            ttl
        ],
    )
    .await?;
    if db.records_events() {
        let conversations = db
            .rows(
                "SELECT DISTINCT conversation FROM conversation_address \
                 WHERE address_key = $2 AND ($1 IS NULL OR sender = $1)",
                params![sender.map(Address::as_str), AddressKey::of(user).as_str()],
            )
            .await?;
        events::record_all_started(db, &ids(conversations)?, "request", now).await?;
    }
    Ok(begun)
}

/// Returns the active handoffs of a user, those that end last before the others.
pub(in crate::store) async fn handoffs_of<D: Database>(
    db: &mut D,
    user: &Address,
    now: Timestamp,
) -> Result<Vec<HandoffRow>, D::Error> {
    let rows = db
        .rows(
            "SELECT h.conversation, a.sender, a.address, h.url, h.ttl, h.until FROM handoff h \
             JOIN conversation_address a ON a.conversation = h.conversation WHERE h.until > $2 AND h.conversation IN (\
               SELECT conversation FROM conversation_address WHERE address_key = $1) \
             ORDER BY h.until DESC, h.conversation, a.address",
            params![AddressKey::of(user).as_str(), now],
        )
        .await?;
    Ok(collect_rows(rows)?)
}

/// Ends the handoffs of a user, and returns their number.
pub(in crate::store) async fn end_handoff<D: Database>(
    db: &mut D,
    sender: Option<&Address>,
    user: &Address,
    now: Timestamp,
) -> Result<u64, D::Error> {
    if db.records_events() {
        let ended = db
            .rows(
                "SELECT conversation FROM handoff WHERE until > $3 AND conversation IN (\
                   SELECT conversation FROM conversation_address WHERE address_key = $2 AND ($1 IS NULL OR sender = $1))",
                params![
                    sender.map(Address::as_str),
                    AddressKey::of(user).as_str(),
                    now
                ],
            )
            .await?;
        events::record_ended(db, &ids(ended)?, "request", now).await?;
    }
    // Only active handoffs, since their number is returned. The row of an expired one has no effect.
    db.execute(
        "DELETE FROM handoff WHERE until > $3 AND conversation IN (\
           SELECT conversation FROM conversation_address WHERE address_key = $2 AND ($1 IS NULL OR sender = $1))",
        params![
            sender.map(Address::as_str),
            AddressKey::of(user).as_str(),
            now
        ],
    )
    .await
}

/// Lists active handoffs, those that end first before the others.
pub(in crate::store) async fn active_handoffs<D: Database>(
    db: &mut D,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<HandoffRow>, D::Error> {
    let rows = db
        .rows(
            "SELECT h.conversation, a.sender, a.address, h.url, h.ttl, h.until \
             FROM (SELECT conversation, url, ttl, until FROM handoff WHERE until > $1 ORDER BY until, conversation LIMIT $2) h \
             JOIN conversation_address a ON a.conversation = h.conversation \
             ORDER BY h.until, h.conversation, a.address",
            params![now, limit],
        )
        .await?;
    Ok(collect_rows(rows)?)
}

/// Reads the columns `conversation, sender, address, url, ttl, until`, with the rows of a conversation next to each other.
fn collect_rows(rows: Vec<StoredRow>) -> Result<Vec<HandoffRow>, StoreError> {
    let mut found = Vec::new();
    for mut row in rows {
        let (sender, user): (String, String) = (row.take(1)?, row.take(2)?);
        let handoff = HandoffRow {
            sender: sender.into(),
            user: vec![user.into()],
            handoff: ActiveHandoff::from_columns(row.take(3)?, row.take(4)?),
            until: packing::time(row.take(5)?)?,
        };
        HandoffRow::collect(&mut found, row.take(0)?, handoff);
    }
    Ok(found.into_iter().map(|(_, handoff)| handoff).collect())
}
