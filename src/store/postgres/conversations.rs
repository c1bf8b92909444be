//! Conversations in PostgreSQL: windows, consents, dialogues and history.

use sqlx::{PgConnection, Row};

use super::error::CallError;
use super::text::{pack, unpack};
use crate::store::conversations::EarlierMessage;
use crate::store::redacted_params::RedactedParams;
use crate::store::{packing, states};

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

/// State of a conversation that decides about its next message.
pub(super) struct ConversationRow {
    /// True if the user has opted out in one of the message's scopes.
    pub(super) opted_out: bool,
    /// Number of open messages (below 3).
    pub(super) open: i64,
    pub(super) handed_off: bool,
    pub(super) has_question: bool,
    /// ID that the conversations of the user have in common.
    pub(super) user_id: Option<i64>,
}

/// Reads the state of a conversation. The caller has locked it.
pub(super) async fn read_conversation(
    db: &mut PgConnection,
    conversation: i64,
    consent_key: &str,
    scopes: Vec<String>,
    now: i64,
) -> Result<ConversationRow, CallError> {
    let (opted_out, open, handed_off, has_question, user_id): (bool, i64, bool, bool, Option<i64>) = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM consent WHERE consent_key = $4 AND scope = ANY ($2) AND suppressed IS NOT NULL), \
         (SELECT count(*) FROM inbound WHERE conversation = $1 AND state < 3), \
         EXISTS (SELECT 1 FROM handoff WHERE conversation = $1 AND until > $3), \
         EXISTS (SELECT 1 FROM question WHERE conversation = $1 AND expires_at > $3), \
         (SELECT min(user_id) FROM conversation_address WHERE conversation = $1)",
    )
    .bind(conversation)
    .bind(scopes)
    .bind(now)
    .bind(pack(consent_key))
    .fetch_one(db)
    .await?;
    Ok(ConversationRow {
        opted_out,
        open,
        handed_off,
        has_question,
        user_id,
    })
}
