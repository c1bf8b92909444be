//! Operations of commands that PostgreSQL does in its own way.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::error::CallError;
use super::reading::{message, read_message};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
use crate::store::operator::PurgeReport;
use crate::store::outbound_message::{OutboundMessage, OutboundState};
use crate::store::shared::account_users::{AccountUser, lock_users};
use crate::store::shared::conversations::delete_conversations;
use crate::store::shared::operator::conversations_of;
use crate::store::shared::purge::purge_addresses;
use crate::store::{packing, states};

/// Puts a failed or dead message into the backlog.
pub(super) async fn retry(
    db: &mut PgConnection,
    sid: MessageSid,
    now: Timestamp,
) -> Result<bool, CallError> {
    // From FAILED or DEAD (5, 6) to DEFERRED (2), without an owner, so that the backlog handles it. Its conversation may
    // have been merged into another since, or deleted by retention: `retried` follows a merge, `restored` restores a
    // deleted one. `unordered`, so that replies to newer messages do not wait for a reply that is this late.
    let changed: i64 = sqlx::query_scalar(
        "WITH retried AS (UPDATE inbound i SET state = 2, owner = NULL, claimed_at = $2, unordered = true, \
           conversation = coalesce((SELECT merged_into FROM conversation c WHERE c.id = i.conversation), i.conversation) \
         WHERE i.sid = $1 AND i.state IN (5, 6) AND i.params IS NOT NULL RETURNING i.conversation, i.received_at), \
         restored AS (INSERT INTO conversation (id, last_inbound) SELECT conversation, received_at FROM retried \
         ON CONFLICT (id) DO NOTHING) SELECT count(*) FROM retried",
    )
    .bind(packing::sid_bytes(sid.as_str()))
    .bind(now.as_microsecond())
    .fetch_one(db)
    .await?;
    Ok(changed > 0)
}

/// Messages in an open state, without claiming them.
// `state < 4` is the condition of the partial index `outbound_open`; it does not follow from a parameter.
const LIST_OPEN: &str = concat!(
    "SELECT ",
    message!(),
    " FROM outbound m WHERE m.state = $1 AND m.state < 4 AND m.id > $2 ORDER BY m.id LIMIT $3"
);

/// Lists messages in an open state, in the order of their ids.
pub(super) async fn list_open_outbound(
    db: &mut PgConnection,
    state: OutboundState,
    after: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, CallError> {
    let found = sqlx::query(LIST_OPEN)
        .bind(states::outbound_state_number(state))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    found.iter().map(|row| read_message(row, now)).collect()
}

/// Deletes the content of a user's messages, their addresses and consents. Opt-outs stay unless `forget_opt_out`.
pub(super) async fn purge_user(
    db: &mut PgConnection,
    user: &Address,
    account: Option<AccountSid>,
    forget_opt_out: bool,
) -> Result<PurgeReport, CallError> {
    // Lock addresses before conversations, as everywhere, so that operations do not deadlock.
    let mut purged = PurgeReport::default();
    for user in lock_users(db, user, account).await? {
        purged.add(purge_in_account(db, &user, forget_opt_out).await?);
    }
    Ok(purged)
}

/// Deletes a user's data in one account. The caller has locked the addresses.
async fn purge_in_account(
    db: &mut PgConnection,
    user: &AccountUser,
    forget_opt_out: bool,
) -> Result<PurgeReport, CallError> {
    let conversations = conversations_of(db, user).await?;
    // In the order of ids, like `conversation_members::join`, so that the two do not deadlock.
    sqlx::query("SELECT id FROM conversation WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
        .bind(&conversations)
        .execute(&mut *db)
        .await?;
    // A conversation may have been merged or created while this waited for the locks. Without another attempt, its
    // messages would remain.
    let now = conversations_of(db, user).await?;
    if now.iter().any(|id| !conversations.contains(id)) {
        return Err(CallError::Conflict);
    }
    delete_links(db, &conversations).await?;
    // All but ANSWERED and DONE (3, 4) become DEAD (6), since there is nothing left to handle. Without an owner, a
    // handler that runs has lost its claim. The rows stay for deduplication.
    let messages = sqlx::query(
        "UPDATE inbound SET params = NULL, response = NULL, reason = $2, owner = NULL, \
         state = CASE WHEN state IN (3, 4) THEN state ELSE 6 END WHERE conversation = ANY ($1) AND params IS NOT NULL",
    )
    .bind(&conversations)
    .bind(states::PURGED)
    .execute(&mut *db)
    .await?;
    let replies = sqlx::query(
        "DELETE FROM outbound WHERE inbound IN (SELECT id FROM inbound WHERE conversation = ANY ($1))",
    )
    .bind(&conversations)
    .execute(&mut *db)
    .await?;
    delete_conversations(db, &conversations).await?;
    let (outbound, consents) = purge_addresses(db, user, forget_opt_out).await?;
    Ok(PurgeReport {
        messages: messages.rows_affected(),
        outbound: replies.rows_affected() + outbound,
        consents,
    })
}

/// Deletes the links made for messages of these conversations, and the files that no other link leads to.
async fn delete_links(db: &mut PgConnection, conversations: &[i64]) -> Result<(), CallError> {
    let files: Vec<Vec<u8>> = sqlx::query_scalar(
        "WITH deleted AS (DELETE FROM media_link WHERE message IN (\
           SELECT sid FROM inbound WHERE conversation = ANY ($1)) RETURNING file) \
         SELECT DISTINCT file FROM deleted WHERE file IS NOT NULL",
    )
    .bind(conversations)
    .fetch_all(&mut *db)
    .await?;
    // Lock the files in a statement of its own. A concurrent `insert_link` has then either committed its link, which
    // the next statement sees, or waits and stores the file again. In the order of hashes, so that two purges do not
    // deadlock.
    sqlx::query("SELECT hash FROM media_file WHERE hash = ANY ($1) ORDER BY hash FOR UPDATE")
        .bind(&files)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM media_file f WHERE f.hash = ANY ($1) AND NOT EXISTS (SELECT 1 FROM media_link l WHERE l.file = f.hash)",
    )
    .bind(&files)
    .execute(db)
    .await?;
    Ok(())
}
