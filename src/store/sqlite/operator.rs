//! Operations of commands in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::media::delete_links;
use super::reading::{OUTBOUND_COLUMNS, message, read_outbound};
use super::{handoff, retention};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
use crate::store::error::StoreError;
use crate::store::operator::{
    BacklogStats, MessageFilter, MessageRow, OutboundDetails, PurgeReport,
};
use crate::store::outbound_message::{OutboundMessage, OutboundRow, OutboundState};
use crate::store::redacted_params::RedactedParams;
use crate::store::{expiry, packing, states};

/// Returns the numbers of messages without a reply.
pub(super) fn backlog_stats(db: &Connection) -> Result<BacklogStats, StoreError> {
    let mut stats = BacklogStats::default();
    // Open messages (below 3), and those in DEAD (6). Both statements read a partial index only, so that their time does
    // not grow with the number of messages.
    let mut statement = db.prepare_cached(
        "SELECT state, count(*), min(received_at) FROM inbound INDEXED BY inbound_open WHERE state < 3 GROUP BY state",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        stats.add(row.get(0)?, row.get(1)?, packing::time(row.get(2)?)?);
    }
    let mut statement = db.prepare_cached(
        "SELECT reason, count(*) FROM inbound INDEXED BY inbound_dead WHERE state = 6 GROUP BY reason",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let reason: Option<String> = row.get(0)?;
        stats.add_dead(reason.as_deref(), row.get(1)?);
    }
    Ok(stats)
}

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

/// Releases the held and failed replies to a message, and returns their number.
pub(super) fn release(db: &Connection, sid: MessageSid, now: Timestamp) -> Result<u64, StoreError> {
    // From HELD or FAILED (3, 5) to PENDING (0). Parts behind a held or failed one are still pending, and follow by
    // themselves.
    let released = db.execute(
        "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = ?2, reason = NULL, error_code = NULL, \
         unordered = 1 WHERE inbound IN (SELECT id FROM inbound WHERE sid = ?1) AND state IN (3, 5) AND params IS NOT NULL",
        params![packing::sid_bytes(sid.as_str()), now.as_microsecond()],
    )?;
    Ok(released as u64)
}

/// Releases outbound messages that are not replies, and returns their number.
pub(super) fn release_outbound(
    db: &Connection,
    id: Option<i64>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    // Without an ID only messages in HELD (3): one in FAILED (5) is sent again only if the operator names it.
    let released = db.execute(
        "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = ?2, reason = NULL, error_code = NULL \
         WHERE inbound IS NULL AND params IS NOT NULL AND ((?1 IS NULL AND state = 3) OR (id = ?1 AND state IN (3, 5)))",
        params![id, now.as_microsecond()],
    )?;
    Ok(released as u64)
}

/// Marks an open message as answered.
pub(super) fn mark_answered(
    db: &Connection,
    account: AccountSid,
    sid: MessageSid,
) -> Result<bool, StoreError> {
    // Only open messages (0, 1, 2), to ANSWERED (3): the responses of others are saved or queued. The owner is the
    // process that ended with the lost journal.
    let changed = db.execute(
        "UPDATE inbound SET state = 3, owner = NULL, reason = ?3 \
         WHERE sid = ?1 AND account = ?2 AND state IN (0, 1, 2)",
        params![
            packing::sid_bytes(sid.as_str()),
            packing::sid_bytes(account.as_str()),
            states::ANSWERED_BEFORE
        ],
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

/// Deletes the content of the store. The link signing key and the schema's version are not content, and stay.
pub(super) fn delete_everything(db: &Connection) -> Result<(), StoreError> {
    for table in expiry::CONTENT_TABLES {
        db.execute(&format!("DELETE FROM {table}"), [])?;
    }
    retention::reset_marks(db)
}

/// Lists inbound messages with their replies, newest first.
pub(super) fn messages(
    db: &Connection,
    filter: &MessageFilter,
) -> Result<Vec<MessageRow>, StoreError> {
    let conversations = match &filter.user {
        None => None,
        Some(user) => Some(conversations_of(db, user)?),
    };
    let wanted = filter.limit.max(1) as usize;
    let mut before = filter.before_id.unwrap_or(i64::MAX);
    let mut listed = Vec::new();
    // In pages of 500 rows: user and state are compared here and not in SQL, because the shown state follows from the
    // replies.
    loop {
        let sid = filter.sid.map(|sid| packing::sid_bytes(sid.as_str()));
        // Two conditions: with one for both cases SQLite would scan the whole table for a single SID.
        let condition = if sid.is_some() {
            "+i.id < ?1 AND i.sid = ?2"
        } else {
            "i.id < ?1 AND ?2 IS NULL"
        };
        let mut statement = db.prepare_cached(&format!(
            "SELECT i.id, i.sid, i.account, i.state, i.attempt, i.received_at, i.reason, i.params, i.response, i.conversation \
             FROM inbound i WHERE {condition} ORDER BY i.id DESC LIMIT 500",
        ))?;
        let mut found = statement.query(params![before, sid])?;
        let mut any = false;
        while let Some(row) = found.next()? {
            any = true;
            before = row.get(0)?;
            let conversation: i64 = row.get(9)?;
            if conversations
                .as_ref()
                .is_some_and(|known| !known.contains(&conversation))
            {
                continue;
            }
            let replies = replies(db, before)?;
            let states: Vec<_> = replies
                .iter()
                .map(|(reply, rank)| (reply.state, *rank == states::FAILURE_RANK))
                .collect();
            let state = states::shown_inbound_state(row.get(3)?, &states);
            let reason: Option<String> = row.get(6)?;
            if states::is_left_out(filter.state.as_deref(), state, reason.as_deref()) {
                continue;
            }
            listed.push(MessageRow {
                id: before,
                sid: packing::message_sid(&row.get::<_, Vec<u8>>(1)?)?,
                account: packing::account_sid(&row.get::<_, Vec<u8>>(2)?)?,
                state,
                attempt: row.get(4)?,
                user: address_of(db, conversation)?,
                handed_off_until: handed_off_until(db, conversation)?,
                received_at: packing::time(row.get(5)?)?,
                reason,
                replies: replies.into_iter().map(|(reply, _)| reply).collect(),
                params: row.get::<_, Option<String>>(7)?.map(RedactedParams),
                response: row.get::<_, Option<String>>(8)?.map(RedactedParams),
            });
            if listed.len() == wanted {
                return Ok(listed);
            }
        }
        if !any {
            return Ok(listed);
        }
    }
}

/// Lists outbound messages that are not replies, newest first.
pub(super) fn outbound_messages(
    db: &Connection,
    filter: &MessageFilter,
) -> Result<Vec<OutboundDetails>, StoreError> {
    let state = filter.state.as_deref().map(states::outbound_number_by_name);
    if state == Some(None) {
        return Ok(Vec::new());
    }
    // Rank 6 is FAILURE_RANK: a message in SENT (4) with it is shown as FAILED (5). Unary `+` makes SQLite read the
    // table from the newest row down. By the index of replies it would have to find and sort all messages that are not
    // replies.
    let mut statement = db.prepare_cached(
        "SELECT id, state, sid, status, error_code, reason, params, rank, account, sender, address, attempt, created_at \
         FROM outbound WHERE +inbound IS NULL AND id < ?1 AND (?2 IS NULL OR sid = ?2) \
         AND (?3 IS NULL OR ?3 = CASE WHEN state = 4 AND rank = 6 THEN 5 ELSE state END) \
         AND (?4 IS NULL OR address = ?4 OR address IN (SELECT b.address FROM conversation_address a \
           JOIN conversation_address b ON b.conversation = a.conversation WHERE a.address = ?4)) \
         ORDER BY id DESC LIMIT ?5",
    )?;
    let mut found = statement.query(params![
        filter.before_id.unwrap_or(i64::MAX),
        filter.sid.map(|sid| packing::sid_bytes(sid.as_str())),
        state.flatten(),
        filter.user.as_ref().map(Address::as_str),
        filter.limit.max(1)
    ])?;
    let mut listed = Vec::new();
    while let Some(row) = found.next()? {
        let message = read_outbound(row)?;
        listed.push(OutboundDetails {
            account: packing::account_sid(&row.get::<_, Vec<u8>>(8)?)?,
            sender: row.get::<_, String>(9)?.into(),
            user: row.get::<_, String>(10)?.into(),
            state: states::shown_outbound_state(message.state, row.get(7)?),
            attempt: row.get(11)?,
            created_at: packing::time(row.get(12)?)?,
            message,
        });
    }
    Ok(listed)
}

fn replies(db: &Connection, inbound: i64) -> Result<Vec<(OutboundRow, i64)>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {OUTBOUND_COLUMNS} WHERE inbound = ?1 ORDER BY ordinal"
    ))?;
    let mut found = statement.query([inbound])?;
    let mut replies = Vec::new();
    while let Some(row) = found.next()? {
        replies.push((read_outbound(row)?, row.get(7)?));
    }
    Ok(replies)
}

/// Returns an address of a conversation's user, the same one each time.
fn address_of(db: &Connection, conversation: i64) -> Result<Option<Address>, StoreError> {
    let address: Option<String> = db
        .prepare_cached(
            "SELECT min(a.address) FROM conversation_address a WHERE a.conversation = \
             (SELECT coalesce(merged_into, id) FROM conversation WHERE id = ?1)",
        )?
        .query_row([conversation], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(address.map(Address::from))
}

/// Returns the end of the handoff of a conversation, or of the one that it was merged into.
fn handed_off_until(db: &Connection, conversation: i64) -> Result<Option<Timestamp>, StoreError> {
    let current: Option<i64> = db
        .prepare_cached("SELECT coalesce(merged_into, id) FROM conversation WHERE id = ?1")?
        .query_row([conversation], |row| row.get(0))
        .optional()?;
    let until = current
        .map(|current| handoff::handoff_end(db, current))
        .transpose()?;
    until.flatten().map(packing::time).transpose()
}

/// Returns all conversations of a user, including those that were merged into others.
fn conversations_of(db: &Connection, user: &Address) -> Result<Vec<i64>, StoreError> {
    let found = db
        .prepare(
            "WITH own AS (SELECT DISTINCT conversation AS id FROM conversation_address WHERE address = ?1) \
             SELECT id FROM own UNION SELECT id FROM conversation WHERE merged_into IN (SELECT id FROM own)",
        )?
        .query_map([user.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(found)
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
    let conversations = conversations_of(db, user)?;
    // The address itself too: an outbound message or a consent may exist without a conversation.
    let mut addresses = vec![user.as_str().to_owned()];
    let mut purged = PurgeReport::default();
    for conversation in conversations {
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
        db.execute(
            "DELETE FROM dialogue WHERE conversation = ?1",
            [conversation],
        )?;
        handoff::delete_handoff(db, conversation)?;
        db.execute(
            "DELETE FROM conversation_address WHERE conversation = ?1",
            [conversation],
        )?;
        db.execute("DELETE FROM conversation WHERE id = ?1", [conversation])?;
    }
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
