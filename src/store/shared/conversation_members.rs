//! Conversations of a sender and the addresses of one user, who share it.

use jiff::Timestamp;

use super::database::{Database, StoredRow, ids, params};
use crate::store::identity::{Member, NamedAddresses};

/// Finds or creates the conversation of a sender and a user, and opens its window. In PostgreSQL it is locked from then on.
///
/// Merges conversations whose users turn out to be one, because `members` has an address of each.
pub(in crate::store) async fn find_or_create<D: Database>(
    db: &mut D,
    sender: &str,
    members: &[Member],
    now: i64,
) -> Result<i64, D::Error> {
    if let Some(id) = join(db, sender, members).await? {
        // The later time: messages can be accepted out of order, and the window must not get shorter. In PostgreSQL
        // `claims` increases, so that an `ACCEPT_USUAL` that waits for the lock detects that its snapshot is too old.
        let sql = D::choose(
            "UPDATE conversation SET last_inbound = max(last_inbound, $2) WHERE id = $1",
            "UPDATE conversation SET last_inbound = greatest(last_inbound, $2), claims = claims + 1 WHERE id = $1",
        );
        db.execute(sql, params![id, now]).await?;
        return Ok(id);
    }
    create(db, sender, members, now).await
}

/// As [`find_or_create`], and leaves the window of an existing conversation as it is.
pub(in crate::store) async fn join_or_create<D: Database>(
    db: &mut D,
    sender: &str,
    members: &[Member],
    now: Timestamp,
) -> Result<i64, D::Error> {
    match join(db, sender, members).await? {
        Some(id) => Ok(id),
        // The user has never written to this sender, which only channels without a window allow. Retention needs a time,
        // and must not delete the conversation before the user can answer.
        None => create(db, sender, members, now.as_microsecond()).await,
    }
}

async fn create<D: Database>(
    db: &mut D,
    sender: &str,
    members: &[Member],
    last_inbound: i64,
) -> Result<i64, D::Error> {
    // Concurrent messages of a new user may each create a conversation. The addresses decide below which one stays.
    let created = db
        .row(
            "INSERT INTO conversation (last_inbound) VALUES ($1) RETURNING id",
            params![last_inbound],
        )
        .await?;
    let id = created.unwrap_or_default().take(0)?;
    insert_members(db, sender, members, id).await?;
    Ok(id)
}

/// Joins the conversations of a sender with these addresses, and adds those addresses that have none. Returns `None` if no
/// address has one.
pub(in crate::store) async fn join<D: Database>(
    db: &mut D,
    sender: &str,
    members: &[Member],
) -> Result<Option<i64>, D::Error> {
    let known = conversations_with(db, sender, members).await?;
    let [target, sources @ ..] = &known[..] else {
        return Ok(None);
    };
    // In the order of IDs, so that two messages that name the same addresses do not deadlock.
    for id in &known {
        let sql = D::choose(
            "SELECT id FROM conversation WHERE id = $1",
            "SELECT id FROM conversation WHERE id = $1 FOR UPDATE",
        );
        db.row(sql, params![*id]).await?;
    }
    // Read again: while a statement above waited for a lock, a conversation may have been merged, deleted or created.
    if conversations_with(db, sender, members).await? != known {
        return Err(D::conflict());
    }
    for source in sources {
        merge(db, *target, *source).await?;
    }
    insert_members(db, sender, members, *target).await?;
    Ok(Some(*target))
}

/// Returns the conversations of a sender with any of these addresses, in the order of their IDs.
async fn conversations_with<D: Database>(
    db: &mut D,
    sender: &str,
    members: &[Member],
) -> Result<Vec<i64>, D::Error> {
    let mut found: Vec<StoredRow> = Vec::new();
    for member in members {
        let row = db
            .row(
                "SELECT conversation FROM conversation_address WHERE sender = $1 AND address_key = $2",
                params![sender, member.key.as_str()],
            )
            .await?;
        found.extend(row);
    }
    let mut found = ids(found)?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Adds addresses to a conversation. An address that has one already stays as it is.
async fn insert_members<D: Database>(
    db: &mut D,
    sender: &str,
    members: &[Member],
    conversation: i64,
) -> Result<(), D::Error> {
    for member in members {
        // DO NOTHING: if a concurrent transaction has inserted the address, this waits until it ends.
        db.execute(
            "INSERT INTO conversation_address (sender, address_key, consent_key, address, conversation) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sender, address_key) DO NOTHING",
            params![
                sender,
                member.key.as_str(),
                member.consent_key().as_str(),
                member.address.as_str(),
                conversation,
            ],
        )
        .await?;
    }
    // If it was committed, the address belongs to another conversation. Roll back; the next attempt merges the two.
    if conversations_with(db, sender, members).await? != [conversation] {
        return Err(D::conflict());
    }
    Ok(())
}

/// Merges the conversation `source` into `target`: the later window, one order of messages, the newer dialogue state, the
/// longer handoff.
// In PostgreSQL the caller has locked both conversations.
async fn merge<D: Database>(db: &mut D, target: i64, source: i64) -> Result<(), D::Error> {
    let window = D::choose(
        "UPDATE conversation SET last_inbound = max(last_inbound, (SELECT last_inbound FROM conversation WHERE id = $2)) \
         WHERE id = $1",
        "UPDATE conversation SET last_inbound = greatest(last_inbound, (SELECT last_inbound FROM conversation WHERE id = $2)) \
         WHERE id = $1",
    );
    // Conversations merged into `source` earlier as well, so that a merged conversation names the final one.
    let merged_into = D::choose(
        "UPDATE conversation SET merged_into = $1 WHERE id = $2 OR merged_into = $2",
        "UPDATE conversation SET merged_into = $1, claims = claims + 1 WHERE id = $2 OR merged_into = $2",
    );
    for sql in [
        window,
        "UPDATE conversation_address SET conversation = $1 WHERE conversation = $2",
        // Open messages only (below 3), so that they wait for each other. Closed messages stay in their list, and
        // `merged_into` leads from there to this conversation.
        "UPDATE inbound SET conversation = $1 WHERE conversation = $2 AND state < 3",
        // The primary key allows one dialogue: the newer, or that of `source` if both changed at the same time.
        "DELETE FROM dialogue WHERE conversation IN ($1, $2) AND changed_at < \
         (SELECT max(changed_at) FROM dialogue WHERE conversation IN ($1, $2))",
        "DELETE FROM dialogue WHERE conversation = $1 AND EXISTS (SELECT 1 FROM dialogue WHERE conversation = $2)",
        "UPDATE dialogue SET conversation = $1 WHERE conversation = $2",
        // The same for their questions.
        "DELETE FROM question WHERE conversation IN ($1, $2) AND asked_at < \
         (SELECT max(asked_at) FROM question WHERE conversation IN ($1, $2))",
        "DELETE FROM question WHERE conversation = $1 AND EXISTS (SELECT 1 FROM question WHERE conversation = $2)",
        "UPDATE question SET conversation = $1 WHERE conversation = $2",
        merged_into,
        // Of two handoffs the one that lasts longer stays.
        "INSERT INTO handoff AS h (conversation, url, until, ttl) SELECT $1, url, until, ttl FROM handoff WHERE conversation = $2 \
         ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until, ttl = excluded.ttl \
         WHERE excluded.until > h.until",
        // `$1` is compared, so that the statement has both parameters.
        "DELETE FROM handoff WHERE conversation = $2 AND conversation <> $1",
    ] {
        db.execute(sql, params![target, source]).await?;
    }
    Ok(())
}

/// Records the business-scoped IDs that the last message from an address named.
pub(in crate::store) async fn record_ids<D: Database>(
    db: &mut D,
    sender: &str,
    named: &NamedAddresses,
) -> Result<(), D::Error> {
    // An ID that the message does not name stays as it is.
    db.execute(
        "UPDATE conversation_address SET external_id = coalesce($3, external_id), parent_id = coalesce($4, parent_id) \
         WHERE sender = $1 AND address_key = $2",
        params![
            sender,
            named.user.key.as_str(),
            named.external.as_ref().map(|id| id.key.as_str()),
            named.parent.as_ref().map(|id| id.key.as_str()),
        ],
    )
    .await?;
    Ok(())
}
