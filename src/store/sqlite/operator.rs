//! Operations of commands that SQLite does in its own way.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::database::ready;
use super::reading::message;
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
use crate::store::error::StoreError;
use crate::store::operator::PurgeReport;
use crate::store::outbound_message::{OutboundMessage, OutboundState};
use crate::store::shared::account_users::{AccountUser, lock_users};
use crate::store::shared::conversations::delete_conversations;
use crate::store::shared::operator::conversations_of;
use crate::store::shared::purge::purge_addresses;
use crate::store::{packing, states};

/// Puts a failed or dead message into the backlog.
pub(super) fn retry(db: &Connection, sid: MessageSid, now: Timestamp) -> Result<bool, StoreError> {
    // From FAILED or DEAD (5, 6) to DEFERRED (2). `unordered`: the reply is late, so later replies must not wait for it.
    // The message moves to the conversation that its own was merged into, because order applies there. Without content
    // no handler can run.
    let changed = db.execute(
        "UPDATE inbound SET state = 2, owner = NULL, claimed_at = ?2, unordered = 1, conversation = coalesce(\
           (SELECT merged_into FROM conversation c WHERE c.id = inbound.conversation), conversation) \
         WHERE sid = ?1 AND state IN (5, 6) AND params IS NOT NULL",
        params![packing::sid_bytes(sid.as_str()), now.as_microsecond()],
    )?;
    Ok(changed > 0)
}

/// Lists messages of the outbox in an open state, without claiming them.
pub(super) fn list_open_outbound(
    db: &Connection,
    state: OutboundState,
    after: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, StoreError> {
    // `state < 4` is the condition of the partial index `outbound_open`; it does not follow from a parameter.
    let ids: Vec<i64> = db
        .prepare_cached(
            "SELECT id FROM outbound WHERE state = ?1 AND state < 4 AND id > ?2 ORDER BY id LIMIT ?3",
        )?
        .query_map(params![states::outbound_state_number(state), after, limit], |row| {
            row.get(0)
        })?
        .collect::<Result<_, _>>()?;
    ids.into_iter().map(|id| message(db, id, now)).collect()
}

/// Deletes the content of a user's messages, their addresses and consents.
pub(super) fn purge_user(
    db: &Connection,
    user: &Address,
    account: Option<AccountSid>,
    forget_opt_out: bool,
) -> Result<PurgeReport, StoreError> {
    // Overwrite deleted content in every page, not only where that costs no I/O. It stays on for this connection, so
    // that later deletions are overwritten too.
    db.pragma_update_and_check(None, "secure_delete", "on", |_| Ok(()))?;
    let mut purged = PurgeReport::default();
    for user in ready(lock_users(&mut &*db, user, account))? {
        purged.add(purge_in_account(db, &user, forget_opt_out)?);
    }
    Ok(purged)
}

/// Deletes a user's data in one account. The caller has locked the addresses.
fn purge_in_account(
    db: &Connection,
    user: &AccountUser,
    forget_opt_out: bool,
) -> Result<PurgeReport, StoreError> {
    let conversations = ready(conversations_of(&mut &*db, user))?;
    let mut purged = PurgeReport::default();
    for &conversation in &conversations {
        // The rows stay with their keys, so that a redelivery is still a duplicate. All but ANSWERED and DONE (3, 4)
        // become DEAD (6), because without content no handler can run.
        purged.messages += db.execute(
            "UPDATE inbound SET params = NULL, response = NULL, reason = ?2, owner = NULL, \
             state = CASE WHEN state IN (3, 4) THEN state ELSE 6 END WHERE conversation = ?1 AND params IS NOT NULL",
            params![conversation, states::PURGED],
        )? as u64;
        delete_links(db, conversation)?;
        purged.outbound += db.execute(
            "DELETE FROM outbound WHERE inbound IN (SELECT id FROM inbound WHERE conversation = ?1)",
            [conversation],
        )? as u64;
    }
    ready(delete_conversations(&mut &*db, &conversations))?;
    let (outbound, consents) = ready(purge_addresses(&mut &*db, user, forget_opt_out))?;
    purged.outbound += outbound;
    purged.consents = consents;
    Ok(purged)
}

/// Deletes the links of a conversation's messages, and the files that have no other link.
fn delete_links(db: &Connection, conversation: i64) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM media_link WHERE message IN (SELECT sid FROM inbound WHERE conversation = ?1)",
        [conversation],
    )?;
    db.execute(
        "DELETE FROM media_file WHERE NOT EXISTS (SELECT 1 FROM media_link l WHERE l.file = media_file.hash)",
        [],
    )?;
    Ok(())
}
