//! Conversations in SQLite: windows, consents, dialogues and history.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::database::ready;
use crate::sid::MessagingServiceSid;
use crate::store::conversations::{ConsentScope, EarlierMessage};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::identity::NamedAddresses;
use crate::store::journal::DialogueChange;
use crate::store::new_inbound::NewInbound;
use crate::store::redacted_params::RedactedParams;
use crate::store::shared::{consent, identity};
use crate::store::{packing, states};

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

/// Conversation of a new message.
pub(super) struct FoundConversation {
    pub(super) id: i64,
    /// ID that the conversations of the user have in common.
    pub(super) user_id: Option<i64>,
    /// True if its user has opted out in one of the message's scopes.
    pub(super) opted_out: bool,
}

/// A [`FoundConversation`] with its state.
pub(super) struct KnownConversation {
    pub(super) found: FoundConversation,
    /// Number of open messages.
    pub(super) ahead: u32,
    /// End of the handoff, which may have passed.
    pub(super) handed_off_until: Option<i64>,
    pub(super) has_question: bool,
}

/// Finds or creates the conversation of a new message, and merges conversations that turn out to be one.
///
/// The caller must then call [`record_newest`] with the new message.
pub(super) fn find_or_create(
    db: &Connection,
    inbound: &NewInbound,
) -> Result<FoundConversation, StoreError> {
    let named = inbound.named_addresses();
    let named = named.ok_or_else(|| StoreError::new(StoreErrorKind::Internal))?;
    if let Some(known) = find_known(db, inbound, &named)? {
        return Ok(known.found);
    }
    let id = ready(identity::find_conversation(&mut &*db, inbound, &named))?;
    // After linking the addresses, which can add an opt-out, or end that of a number's old owner.
    let scopes = ready(consent::scopes_of(&mut &*db, inbound))?;
    let opted_out = has_opted_out(db, named.user.consent_key().as_str(), &scopes)?;
    let user_id = db
        .prepare_cached("SELECT min(user_id) FROM conversation_address WHERE conversation = ?1")?
        .query_row([id], |row| row.get(0))?;
    Ok(FoundConversation {
        id,
        user_id,
        opted_out,
    })
}

/// Reads the conversation that a sender has with an address, and its state.
// If the message has a service, finds nothing unless the sender was last seen in it. Otherwise an opt-out from the service that
// the sender was last seen in counts. Unary `+` keeps SQLite from building a table for the scopes. Open messages are below 3,
// ANSWERED.
const KNOWN_CONVERSATION: &str = "SELECT a.conversation, EXISTS (\
       SELECT 1 FROM consent c WHERE c.consent_key = a.consent_key AND c.suppressed IS NOT NULL AND (+c.scope = ?1 OR +c.scope = ?3 \
         OR +c.scope = (SELECT v.service FROM service_sender v WHERE v.sender = ?1))), \
     a.external_id, a.parent_id, a.user_id, \
     (SELECT count(*) FROM inbound i WHERE i.conversation = a.conversation AND i.state < 3), \
     (SELECT h.until FROM handoff h WHERE h.conversation = a.conversation), \
     EXISTS (SELECT 1 FROM question q WHERE q.conversation = a.conversation AND q.expires_at > ?4) \
     FROM conversation_address a WHERE a.sender = ?1 AND a.address_key = ?2 \
     AND (?3 IS NULL OR EXISTS (SELECT 1 FROM service_sender v WHERE v.sender = ?1 AND v.service = ?3))";

/// Returns the conversation if the message says nothing new about its user, which is the usual case and takes one statement.
pub(super) fn find_known(
    db: &Connection,
    inbound: &NewInbound,
    named: &NamedAddresses,
) -> Result<Option<KnownConversation>, StoreError> {
    let mut statement = db.prepare_cached(KNOWN_CONVERSATION)?;
    let mut found = statement.query(params![
        inbound.sender.as_str(),
        named.user.key.as_str(),
        inbound.service.as_ref().map(MessagingServiceSid::as_str),
        inbound.received_at.as_microsecond(),
    ])?;
    let Some(row) = found.next()? else {
        return Ok(None);
    };
    let text = |column| {
        row.get_ref(column)?
            .as_str_or_null()
            .map_err(rusqlite::Error::from)
    };
    let is_known = named.are_recorded(text(2)?, text(3)?);
    let known = KnownConversation {
        found: FoundConversation {
            id: row.get(0)?,
            opted_out: row.get(1)?,
            user_id: row.get(4)?,
        },
        ahead: row.get(5)?,
        handed_off_until: row.get(6)?,
        has_question: row.get(7)?,
    };
    Ok(is_known.then_some(known))
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

/// Returns true if a user has opted out in one of up to two scopes.
fn has_opted_out(
    db: &Connection,
    consent_key: &str,
    scopes: &[ConsentScope],
) -> Result<bool, StoreError> {
    let (Some(scope), Some(other)) = (scopes.first(), scopes.last()) else {
        return Ok(false);
    };
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM consent WHERE consent_key = ?1 AND suppressed IS NOT NULL AND (+scope = ?2 OR +scope = ?3)",
    )?;
    Ok(statement.exists(params![consent_key, scope.as_str(), other.as_str()])?)
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
