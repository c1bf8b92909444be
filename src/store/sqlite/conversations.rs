//! Conversations in SQLite: windows, consents, dialogues and history.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::handoff;
use crate::address::Address;
use crate::store::conversations::{ConsentScope, ConsentState, EarlierMessage};
use crate::store::error::StoreError;
use crate::store::journal::DialogueChange;
use crate::store::redacted_params::RedactedParams;
use crate::store::{packing, states};

/// Returns the current consent of a user, under any of their addresses.
pub(super) fn consent(
    db: &Connection,
    scopes: &[ConsentScope],
    user: &Address,
) -> Result<ConsentState, StoreError> {
    let mut state = ConsentState::default();
    for address in addresses_of(db, scopes, user)? {
        for scope in scopes {
            let found: Option<(Option<i64>, Option<i64>)> = db
                .prepare_cached(
                    "SELECT opted_out, opted_in FROM consent WHERE address = ?1 AND scope = ?2",
                )?
                .query_row(params![address, scope.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((opted_out, opted_in)) = found else {
                continue;
            };
            // One opt-out in any scope, under any address, suffices.
            state.opted_out = state
                .opted_out
                .or(opted_out.map(packing::time).transpose()?);
            state.opted_in = state.opted_in.or(opted_in.map(packing::time).transpose()?);
        }
    }
    Ok(state)
}

/// Lists earlier messages, newest first by following the `previous` links, and then reverses the list.
pub(super) fn earlier(
    db: &Connection,
    message: i64,
    limit: u32,
) -> Result<Vec<EarlierMessage>, StoreError> {
    // Each conversation has its own list of messages, and so has each conversation that was merged into this one. The
    // lists are followed together, always from the highest ID. This statement finds the ends of all lists.
    let mut next: BTreeSet<i64> = db
        .prepare_cached(
            "WITH current_message AS (SELECT i.previous, coalesce(c.merged_into, i.conversation) AS id FROM inbound i \
               LEFT JOIN conversation c ON c.id = i.conversation WHERE i.id = ?1), \
             list_end AS (SELECT previous AS id FROM current_message \
               UNION SELECT c.newest FROM current_message JOIN conversation c ON c.id = current_message.id \
               UNION SELECT c.newest FROM current_message JOIN conversation c ON c.merged_into = current_message.id) \
             SELECT id FROM list_end WHERE id IS NOT NULL",
        )?
        .query_map([message], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut row = db.prepare_cached(
        "SELECT previous, received_at, claimed_at, reason IS ?2, params, response FROM inbound WHERE id = ?1",
    )?;
    // Below 5: FAILED and SUPPRESSED (5, 6) are left out, because the user has not received these replies.
    let mut replies = db.prepare_cached(
        "SELECT params, created_at FROM outbound WHERE inbound = ?1 AND state < 5 AND params IS NOT NULL ORDER BY ordinal",
    )?;
    let mut found = Vec::new();
    while found.len() < limit as usize
        && let Some(id) = next.pop_last()
    {
        let read = row
            .query_row(params![id, states::MERGED], |row| {
                let previous: Option<i64> = row.get(0)?;
                let times: (i64, i64) = (row.get(1)?, row.get(2)?);
                let texts: (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
                Ok((previous, times, row.get(3)?, texts))
            })
            .optional()?;
        // Retention has deleted the message, so its list ends here.
        let Some((previous, (received_at, mut answered_at), is_merged, (params, response))) = read
        else {
            continue;
        };
        next.extend(previous);
        // Newer messages are passed to reach the older ones behind them.
        if id >= message {
            continue;
        }
        let mut sent = Vec::new();
        let mut replies_of_message = replies.query([id])?;
        while let Some(reply) = replies_of_message.next()? {
            sent.push(RedactedParams(reply.get(0)?));
            // The replies were ready when they were queued. `claimed_at` is earlier: the claim or the deferral.
            answered_at = reply.get(1)?;
        }
        found.push(EarlierMessage {
            received_at: packing::time(received_at)?,
            params: params.map(RedactedParams),
            response: response.map(RedactedParams),
            replies: sent,
            answered_at: packing::time(answered_at)?,
            is_merged,
        });
    }
    found.reverse();
    Ok(found)
}

/// Returns all addresses of the user in the conversations with these senders.
fn addresses_of(
    db: &Connection,
    scopes: &[ConsentScope],
    user: &Address,
) -> Result<Vec<String>, StoreError> {
    let mut addresses = vec![user.as_str().to_owned()];
    for scope in scopes {
        // A scope that is a Messaging Service matches no row here.
        let found = db
            .prepare_cached(
                "SELECT b.address FROM conversation_address a JOIN conversation_address b ON b.conversation = a.conversation \
                 WHERE a.sender = ?1 AND a.address = ?2",
            )?
            .query_map(params![scope.as_str(), user.as_str()], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        addresses.extend(found);
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Conversation of a new message.
pub(super) struct FoundConversation {
    pub(super) id: i64,
    /// All known addresses, not only those of the current message: consent under one of them applies to all.
    pub(super) addresses: Vec<Address>,
    pub(super) opted_out: bool,
}

/// Finds or creates the conversation of a sender and a user, and merges conversations that turn out to be one.
///
/// The caller must then call [`record_newest`] with the new message.
pub(super) fn find_or_create(
    db: &Connection,
    sender: &Address,
    user: &[Address],
    scopes: &[ConsentScope],
    now: i64,
) -> Result<FoundConversation, StoreError> {
    if let Some(found) = find_known(db, sender, user, scopes)? {
        return Ok(found);
    }
    // After the merge, since the other conversation brings its addresses.
    let id = find_or_create_id(db, sender, user, now)?;
    let addresses = list_addresses(db, id)?;
    let opted_out = has_opted_out(db, &addresses, scopes)?;
    Ok(FoundConversation {
        id,
        addresses,
        opted_out,
    })
}

/// Returns the conversation if it has all of these addresses, which is the usual case and takes one statement.
fn find_known(
    db: &Connection,
    sender: &Address,
    user: &[Address],
    scopes: &[ConsentScope],
) -> Result<Option<FoundConversation>, StoreError> {
    let ([first, ..], Some(scope), Some(other)) = (user, scopes.first(), scopes.last()) else {
        return Ok(None);
    };
    // A subquery instead of a join: SQLite used to plan a cached join again whenever its parameters changed. Unary `+`
    // keeps it from building a table for the two scopes.
    let mut statement = db.prepare_cached(
        "SELECT a.conversation, a.address, EXISTS (\
           SELECT 1 FROM consent c WHERE c.address = a.address AND c.opted_out IS NOT NULL AND (+c.scope = ?3 OR +c.scope = ?4)) \
         FROM conversation_address a \
         WHERE a.conversation = (SELECT conversation FROM conversation_address WHERE sender = ?1 AND address = ?2)",
    )?;
    let mut found = statement.query(params![
        sender.as_str(),
        first.as_str(),
        scope.as_str(),
        other.as_str()
    ])?;
    let mut conversation = FoundConversation {
        id: 0,
        addresses: Vec::with_capacity(user.len()),
        opted_out: false,
    };
    while let Some(row) = found.next()? {
        conversation.id = row.get(0)?;
        conversation.addresses.push(row.get::<_, String>(1)?.into());
        conversation.opted_out |= row.get::<_, bool>(2)?;
    }
    let has_all = user
        .iter()
        .all(|address| conversation.addresses.contains(address));
    Ok(has_all.then_some(conversation))
}

/// Returns the ID of the conversation with these addresses, after a merge if they belong to several.
fn find_or_create_id(
    db: &Connection,
    sender: &Address,
    user: &[Address],
    now: i64,
) -> Result<i64, StoreError> {
    let mut ids = Vec::with_capacity(user.len());
    for address in user {
        let id: Option<i64> = db
            .prepare_cached(
                "SELECT conversation FROM conversation_address WHERE sender = ?1 AND address = ?2",
            )?
            .query_row(params![sender.as_str(), address.as_str()], |row| row.get(0))
            .optional()?;
        ids.push(id);
    }
    // The conversation with the lowest ID, which is the oldest one, absorbs the others.
    let mut known: Vec<i64> = ids.iter().flatten().copied().collect();
    known.sort_unstable();
    known.dedup();
    let id = match known[..] {
        [] => {
            db.prepare_cached("INSERT INTO conversation (last_inbound) VALUES (?1)")?
                .execute([now])?;
            db.last_insert_rowid()
        }
        [target, ref sources @ ..] => {
            for source in sources {
                merge_conversations(db, target, *source)?;
            }
            target
        }
    };
    for address in user.iter().zip(&ids).filter(|(_, id)| id.is_none()) {
        // OR IGNORE, in case `user` contains an address twice.
        db.prepare_cached(
            "INSERT OR IGNORE INTO conversation_address (sender, address, conversation) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![sender.as_str(), address.0.as_str(), id])?;
    }
    Ok(id)
}

/// Makes a message the newest of its conversation, and opens the customer service window.
pub(super) fn record_newest(
    db: &Connection,
    conversation: i64,
    message: i64,
    now: i64,
) -> Result<(), StoreError> {
    // `max`: a clock that was set back must not shorten an open window.
    db.prepare_cached(
        "UPDATE conversation SET last_inbound = max(last_inbound, ?3), newest = ?2 WHERE id = ?1",
    )?
    .execute([conversation, message, now])?;
    Ok(())
}

/// Merges the conversation `source` into `target`, because both are with one user.
///
/// The later window, the newer dialogue and the longer handoff remain.
fn merge_conversations(db: &Connection, target: i64, source: i64) -> Result<(), StoreError> {
    db.execute(
        "UPDATE conversation SET last_inbound = max(last_inbound, (SELECT last_inbound FROM conversation WHERE id = ?2)) WHERE id = ?1",
        [target, source],
    )?;
    db.execute(
        "UPDATE conversation_address SET conversation = ?1 WHERE conversation = ?2",
        [target, source],
    )?;
    // Only open messages (below 3): from now on one order applies to all of them. Closed messages stay in their list,
    // and `merged_into` leads from there to this conversation.
    db.execute(
        "UPDATE inbound SET conversation = ?1 WHERE conversation = ?2 AND state < 3",
        [target, source],
    )?;
    // Deletes the older of two dialogues, and then moves the remaining one if it is that of `source`.
    db.execute(
        "DELETE FROM dialogue WHERE conversation IN (?1, ?2) AND changed_at < \
         (SELECT max(changed_at) FROM dialogue WHERE conversation IN (?1, ?2))",
        [target, source],
    )?;
    db.execute(
        "UPDATE OR REPLACE dialogue SET conversation = ?1 WHERE conversation = ?2",
        [target, source],
    )?;
    // The same for their questions.
    db.execute(
        "DELETE FROM question WHERE conversation IN (?1, ?2) AND asked_at < \
         (SELECT max(asked_at) FROM question WHERE conversation IN (?1, ?2))",
        [target, source],
    )?;
    db.execute(
        "UPDATE OR REPLACE question SET conversation = ?1 WHERE conversation = ?2",
        [target, source],
    )?;
    handoff::merge_handoffs(db, target, source)?;
    // Conversations that were merged into `source` before lead here as well, so one step always finds the remaining
    // one.
    db.execute(
        "UPDATE conversation SET merged_into = ?1 WHERE id = ?2 OR merged_into = ?2",
        [target, source],
    )?;
    Ok(())
}

/// Moves a message to the conversation that its own was merged into.
pub(super) fn move_to_merged(db: &Connection, message: i64) -> Result<(), StoreError> {
    // `merge_conversations` moves open messages only. A failed message that a redelivery opens again must keep the
    // order of the merged conversation.
    db.prepare_cached(
        "UPDATE inbound SET conversation = c.merged_into FROM conversation c \
         WHERE inbound.id = ?1 AND c.id = inbound.conversation AND c.merged_into IS NOT NULL",
    )?
    .execute([message])?;
    Ok(())
}

/// Returns the addresses of a conversation's user.
fn list_addresses(db: &Connection, conversation: i64) -> Result<Vec<Address>, StoreError> {
    let addresses = db
        .prepare_cached("SELECT address FROM conversation_address WHERE conversation = ?1")?
        .query_map([conversation], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    Ok(addresses.into_iter().map(Address::from).collect())
}

/// Returns true if a user has opted out in one of up to two scopes, under one of these addresses.
fn has_opted_out(
    db: &Connection,
    user: &[Address],
    scopes: &[ConsentScope],
) -> Result<bool, StoreError> {
    let (Some(scope), Some(other)) = (scopes.first(), scopes.last()) else {
        return Ok(false);
    };
    // One address at a time, and unary `+`: SQLite builds a table for each list of values, also for two scopes of an
    // OR.
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM consent WHERE address = ?1 AND opted_out IS NOT NULL AND (+scope = ?2 OR +scope = ?3)",
    )?;
    for address in user {
        let found = params![address.as_str(), scope.as_str(), other.as_str()];
        if statement.exists(found)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn change_dialogue(
    db: &Connection,
    conversation: i64,
    change: Option<&DialogueChange>,
    now: Timestamp,
) -> Result<(), StoreError> {
    match change {
        None => {}
        Some(DialogueChange::End) => {
            db.prepare_cached("DELETE FROM dialogue WHERE conversation = ?1")?
                .execute([conversation])?;
        }
        Some(DialogueChange::Set { data, expires_at }) => {
            // An upsert: a conversation has at most one dialogue, and the newest change replaces it.
            db.prepare_cached(
                "INSERT INTO dialogue (conversation, data, expires_at, changed_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (conversation) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at, \
                 changed_at = excluded.changed_at",
            )?
            .execute(params![
                conversation,
                data,
                expires_at.map(Timestamp::as_microsecond),
                now.as_microsecond(),
            ])?;
        }
    }
    Ok(())
}
