//! Conversations in PostgreSQL: windows, consents, dialogues and history.

use sqlx::{PgConnection, Row};

use super::error::CallError;
use super::text::{pack, packed, unpack};
use crate::address::Address;
use crate::store::conversations::{ConsentState, EarlierMessage};
use crate::store::redacted_params::RedactedParams;
use crate::store::{packing, states};

/// Returns the current consent of a user, under any of their addresses. `scopes` and `user` are escaped for storage.
pub(super) async fn consent(
    db: &mut PgConnection,
    scopes: &[String],
    user: &str,
) -> Result<ConsentState, CallError> {
    // All addresses of the user count: one that opted out by phone number has also opted out by its BSUID. Of several
    // times, the one of the first address, in the first of the scopes.
    let (opted_out, opted_in): (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (array_agg(opted_out ORDER BY address, at) FILTER (WHERE opted_out IS NOT NULL))[1], \
         (array_agg(opted_in ORDER BY address, at) FILTER (WHERE opted_in IS NOT NULL))[1] \
         FROM (SELECT address, opted_out, opted_in, array_position($1, scope::text) AS at FROM consent \
           WHERE scope = ANY ($1) AND address IN (SELECT $2 UNION SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation \
             WHERE a.sender = ANY ($1) AND a.address = $2)) found",
    )
    .bind(scopes)
    .bind(user)
    .fetch_one(db)
    .await?;
    Ok(ConsentState {
        opted_out: opted_out.map(packing::time).transpose()?,
        opted_in: opted_in.map(packing::time).transpose()?,
    })
}

/// Lists the last messages of the same user and sender before a message, oldest first.
pub(super) async fn earlier(
    db: &mut PgConnection,
    message: i64,
    limit: u32,
) -> Result<Vec<EarlierMessage>, CallError> {
    let mut found = sqlx::query(EARLIER)
        .bind(message)
        .bind(i64::from(limit))
        .bind(states::MERGED)
        .fetch_all(db)
        .await?;
    found.reverse();
    let redact = |text: String| RedactedParams(unpack(text));
    let earlier = found.into_iter().map(|row| {
        let (params, response): (Option<String>, Option<String>) =
            (row.try_get(1)?, row.try_get(2)?);
        let replies: Vec<String> = row.try_get(3)?;
        Ok(EarlierMessage {
            received_at: packing::time(row.try_get(0)?)?,
            params: params.map(redact),
            response: response.map(redact),
            replies: replies.into_iter().map(redact).collect(),
            answered_at: packing::time(row.try_get(4)?)?,
            is_merged: row.try_get(5)?,
        })
    });
    earlier.collect()
}

/// Last `$2` messages before message `$1` with the same user, newest first.
// Follows `previous` from the message itself, from the end of its conversation, and from the end of each conversation
// merged into it, since a merged conversation keeps a list of its own. `number` counts the messages before `$1`, so
// each list ends after `$2` of them. Lists that meet have counted the same, so UNION continues them as one.
//
// A reply part in FAILED or SUPPRESSED (5, 6) was not sent and is left out.
const EARLIER: &str = "WITH RECURSIVE current_message AS (SELECT i.previous, coalesce(c.merged_into, i.conversation) AS id FROM inbound i \
       LEFT JOIN conversation c ON c.id = i.conversation WHERE i.id = $1), \
     list_end AS (SELECT previous AS id FROM current_message \
       UNION SELECT c.newest FROM current_message JOIN conversation c ON c.id = current_message.id \
       UNION SELECT c.newest FROM current_message JOIN conversation c ON c.merged_into = current_message.id), \
     previous_message AS (SELECT i.id, i.previous, (i.id < $1)::int::bigint AS number FROM list_end JOIN inbound i ON i.id = list_end.id \
       UNION SELECT i.id, i.previous, previous_message.number + (i.id < $1)::int FROM previous_message JOIN inbound i ON i.id = previous_message.previous \
       WHERE previous_message.number < $2) \
     SELECT i.received_at, i.params, i.response, ARRAY(SELECT r.params FROM outbound r WHERE r.inbound = i.id AND r.state < 5 \
       AND r.params IS NOT NULL ORDER BY r.ordinal), \
       coalesce((SELECT max(r.created_at) FROM outbound r WHERE r.inbound = i.id AND r.state < 5), i.claimed_at), \
       coalesce(i.reason = $3, false) \
     FROM (SELECT DISTINCT id FROM previous_message WHERE id < $1 ORDER BY id DESC LIMIT $2) AS last JOIN inbound i ON i.id = last.id \
     ORDER BY i.id DESC";

/// Finds or creates the conversation of a sender and a user, locks it and opens its window.
///
/// Merges conversations whose users turn out to be one, because a message names an address of each.
pub(super) async fn find_or_create(
    db: &mut PgConnection,
    sender: &Address,
    user: &[Address],
    now: i64,
) -> Result<i64, CallError> {
    let sender = pack(sender.as_str()).into_owned();
    let addresses = packed(user.iter().map(Address::as_str));
    // In the order of ids, so that two messages that name the same addresses do not deadlock.
    let locked: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM conversation WHERE merged_into IS NULL AND id IN (\
           SELECT conversation FROM conversation_address WHERE sender = $1 AND address = ANY ($2)) ORDER BY id FOR UPDATE",
    )
    .bind(&sender)
    .bind(&addresses)
    .fetch_all(&mut *db)
    .await?;
    // Read again: while the statement above waited for a lock, a conversation may have been merged, deleted or created.
    let mut known: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT conversation FROM conversation_address WHERE sender = $1 AND address = ANY ($2)",
    )
    .bind(&sender)
    .bind(&addresses)
    .fetch_all(&mut *db)
    .await?;
    known.sort_unstable();
    if known != locked {
        return Err(CallError::Conflict);
    }
    let id: i64 = match known[..] {
        // Concurrent messages of a new user may each create a conversation. The addresses decide below which one stays.
        [] => {
            sqlx::query_scalar("INSERT INTO conversation (last_inbound) VALUES ($1) RETURNING id")
                .bind(now)
                .fetch_one(&mut *db)
                .await?
        }
        [target, ref sources @ ..] => {
            for source in sources {
                merge_conversations(db, target, *source).await?;
            }
            // `greatest`: messages can be accepted out of order, and the window must not get shorter. `claims`
            // increases, so that an `ACCEPT_USUAL` that waits for the lock detects that its snapshot is too old.
            sqlx::query(
                "UPDATE conversation SET last_inbound = greatest(last_inbound, $2), claims = claims + 1 WHERE id = $1",
            )
            .bind(target)
            .bind(now)
            .execute(&mut *db)
            .await?;
            target
        }
    };
    // DO NOTHING: if a concurrent transaction has inserted one of the addresses, this waits until it ends.
    sqlx::query(
        "INSERT INTO conversation_address (sender, address, conversation) SELECT $1, a, $3 FROM unnest($2::text[]) a \
         ON CONFLICT (sender, address) DO NOTHING",
    )
    .bind(&sender)
    .bind(&addresses)
    .bind(id)
    .execute(&mut *db)
    .await?;
    // If it was committed, the address belongs to another conversation. Roll back; the next attempt merges the two.
    let has_all: bool = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM conversation_address WHERE sender = $1 AND address = ANY ($2) AND conversation <> $3)",
    )
    .bind(&sender)
    .bind(&addresses)
    .bind(id)
    .fetch_one(db)
    .await?;
    if has_all {
        Ok(id)
    } else {
        Err(CallError::Conflict)
    }
}

/// Merges the conversation `source` into `target`: the later window, one order of messages, the newer dialogue
/// state, the longer handoff.
// The caller has locked both conversations.
async fn merge_conversations(
    db: &mut PgConnection,
    target: i64,
    source: i64,
) -> Result<(), CallError> {
    for sql in [
        "UPDATE conversation SET last_inbound = greatest(last_inbound, (SELECT last_inbound FROM conversation WHERE id = $2)) \
         WHERE id = $1",
        "UPDATE conversation_address SET conversation = $1 WHERE conversation = $2",
        // Open messages only (below 3), so that they wait for each other. Others stay in their list, which `EARLIER`
        // follows.
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
        // Conversations merged into `source` earlier as well, so that a merged conversation names the final one.
        "UPDATE conversation SET merged_into = $1, claims = claims + 1 WHERE id = $2 OR merged_into = $2",
    ] {
        sqlx::query(sql)
            .bind(target)
            .bind(source)
            .execute(&mut *db)
            .await?;
    }
    merge_handoffs(db, target, source).await
}

/// Merges the handoff of conversation `source` into that of `target`: the one that lasts longer stays.
// Data-modifying parts of one statement share a snapshot, so the INSERT reads the deleted row from RETURNING.
async fn merge_handoffs(db: &mut PgConnection, target: i64, source: i64) -> Result<(), CallError> {
    sqlx::query(
        "WITH deleted AS (DELETE FROM handoff WHERE conversation = $2 RETURNING url, until) \
         INSERT INTO handoff AS h (conversation, url, until) SELECT $1, url, until FROM deleted \
         ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until WHERE excluded.until > h.until",
    )
    .bind(target)
    .bind(source)
    .execute(db)
    .await?;
    Ok(())
}

/// State of a conversation that decides about its next message.
pub(super) struct ConversationRow {
    /// All addresses of its user.
    pub(super) user: Vec<Address>,
    /// True if one of them has opted out in one of the message's scopes.
    pub(super) opted_out: bool,
    /// Number of open messages (below 3).
    pub(super) open: i64,
    pub(super) handed_off: bool,
    pub(super) has_question: bool,
}

/// Reads the state of a conversation. The caller has locked it.
pub(super) async fn read_conversation(
    db: &mut PgConnection,
    conversation: i64,
    scopes: Vec<String>,
    now: i64,
) -> Result<ConversationRow, CallError> {
    let (addresses, opted_out, open, handed_off, has_question): (Vec<String>, bool, i64, bool, bool) = sqlx::query_as(
        "SELECT ARRAY(SELECT address::text FROM conversation_address WHERE conversation = $1 ORDER BY address), \
         EXISTS (SELECT 1 FROM conversation_address a JOIN consent c ON c.address = a.address \
           WHERE a.conversation = $1 AND c.scope = ANY ($2) AND c.opted_out IS NOT NULL), \
         (SELECT count(*) FROM inbound WHERE conversation = $1 AND state < 3), \
         EXISTS (SELECT 1 FROM handoff WHERE conversation = $1 AND until > $3), \
         EXISTS (SELECT 1 FROM question WHERE conversation = $1 AND expires_at > $3)",
    )
    .bind(conversation)
    .bind(scopes)
    .bind(now)
    .fetch_one(db)
    .await?;
    let user = addresses
        .into_iter()
        .map(|address| unpack(address).into())
        .collect();
    Ok(ConversationRow {
        user,
        opted_out,
        open,
        handed_off,
        has_question,
    })
}
