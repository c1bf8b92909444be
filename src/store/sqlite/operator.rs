//! Operations of commands that SQLite does in its own way.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::database::ready;
use super::reading::message;
use crate::address::Address;
use crate::sid::MessageSid;
use crate::store::error::StoreError;
use crate::store::operator::PurgeReport;
use crate::store::outbound_message::{OutboundMessage, OutboundState};
use crate::store::shared::conversations::delete_conversations;
use crate::store::shared::operator::conversations_of;
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
    forget_opt_out: bool,
) -> Result<PurgeReport, StoreError> {
    // Overwrite deleted content in every page, not only where that costs no I/O. It stays on for this connection, so
    // that later deletions are overwritten too.
    db.pragma_update_and_check(None, "secure_delete", "on", |_| Ok(()))?;
    let conversations = ready(conversations_of(&mut &*db, user))?;
    // The address itself too: an outbound message or a consent may exist without a conversation.
    let mut addresses = vec![user.as_str().to_owned()];
    let mut purged = PurgeReport::default();
    for &conversation in &conversations {
        let found = db
            .prepare("SELECT address FROM conversation_address WHERE conversation = ?1")?
            .query_map([conversation], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        addresses.extend(found);
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
    // Two conversations may have the same address, with different senders.
    addresses.sort_unstable();
    addresses.dedup();
    for address in &addresses {
        purged.outbound += db.execute("DELETE FROM outbound WHERE address = ?1", [address])? as u64;
        let (consent, ledger) = if forget_opt_out {
            (
                "DELETE FROM consent WHERE address = ?1",
                "DELETE FROM consent_ledger WHERE address = ?1",
            )
        } else {
            (
                "DELETE FROM consent WHERE address = ?1 AND opted_out IS NULL",
                // Of the ledger only the evidence of an opt-out in force stays. It is the only reason to keep a number.
                "DELETE FROM consent_ledger WHERE address = ?1 AND (action <> 'opt_out' OR NOT EXISTS (\
                   SELECT 1 FROM consent c WHERE c.address = consent_ledger.address AND c.scope = consent_ledger.scope \
                   AND c.opted_out IS NOT NULL))",
            )
        };
        purged.consents += db.execute(consent, [address])? as u64;
        db.execute(ledger, [address])?;
        // An opt-out stays, an opt-in of the same row does not.
        if !forget_opt_out {
            db.execute(
                "UPDATE consent SET opted_in = NULL WHERE address = ?1",
                [address],
            )?;
        }
    }
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
