//! Handoffs, but for those that begin or continue with a reply.

use jiff::Timestamp;
use replyhook_core::address_key::AddressKey;

use super::database::{Database, params};
use crate::address::Address;
use crate::store::handoff::HandoffRow;
use crate::store::packing;

/// Returns the URL of a conversation's handoff, if one is active.
pub(in crate::store) async fn handoff_url<D: Database>(
    db: &mut D,
    conversation: i64,
    now: Timestamp,
) -> Result<Option<String>, D::Error> {
    let found = db
        .row(
            "SELECT url FROM handoff WHERE conversation = $1 AND until > $2",
            params![conversation, now],
        )
        .await?;
    Ok(found.map(|mut row| row.take(0)).transpose()?)
}

/// Ends the handoffs of a user, and returns their number.
pub(in crate::store) async fn end_handoff<D: Database>(
    db: &mut D,
    sender: Option<&Address>,
    user: &Address,
    now: Timestamp,
) -> Result<u64, D::Error> {
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
            "SELECT h.conversation, a.sender, a.address, h.url, h.until \
             FROM (SELECT conversation, url, until FROM handoff WHERE until > $1 ORDER BY until, conversation LIMIT $2) h \
             JOIN conversation_address a ON a.conversation = h.conversation \
             ORDER BY h.until, h.conversation, a.address",
            params![now, limit],
        )
        .await?;
    let mut found = Vec::new();
    for mut row in rows {
        let (sender, user): (String, String) = (row.take(1)?, row.take(2)?);
        let handoff = HandoffRow {
            sender: sender.into(),
            user: vec![user.into()],
            url: row.take(3)?,
            until: packing::time(row.take(4)?)?,
        };
        HandoffRow::collect(&mut found, row.take(0)?, handoff);
    }
    Ok(found.into_iter().map(|(_, handoff)| handoff).collect())
}
