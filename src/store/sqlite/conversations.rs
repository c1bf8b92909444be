//! [`Conversations`] in SQLite.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{SqliteStore, handoff};
use crate::address::Address;
use crate::store::conversations::Dialogue;
use crate::store::rows;
use crate::store::{
    ConsentAction, ConsentEntry, ConsentRecord, ConsentScope, ConsentSource, ConsentState,
    Conversation, Conversations, DialogueChange, EarlierMessage, RedactedParams, StoreError,
    StoreFuture,
};

impl Conversations for SqliteStore {
    fn conversation(&self, us: &Address, user: &Address) -> StoreFuture<'_, Option<Conversation>> {
        let (us, user) = (us.clone(), user.clone());
        self.read(move |db| {
            let found: Option<(i64, i64)> = db
                .prepare_cached(
                    "SELECT c.id, c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
                     WHERE a.sender = ?1 AND a.address = ?2",
                )?
                .query_row(params![us.as_str(), user.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            found
                .map(|(id, last)| {
                    Ok(Conversation::new(
                        id,
                        us.clone(),
                        user.clone(),
                        Some(rows::time(last)?),
                    ))
                })
                .transpose()
        })
    }

    fn consent(&self, scopes: Vec<ConsentScope>, user: &Address) -> StoreFuture<'_, ConsentState> {
        let user = user.clone();
        self.read(move |db| {
            let mut state = ConsentState::default();
            for address in addresses_of(db, &scopes, &user)? {
                for scope in &scopes {
                    let found: Option<(Option<i64>, Option<i64>)> = db
                        .prepare_cached("SELECT opted_out, opted_in FROM consent WHERE address = ?1 AND scope = ?2")?
                        .query_row(params![address, scope.as_str()], |row| {
                            Ok((row.get(0)?, row.get(1)?))
                        })
                        .optional()?;
                    let Some((out, into)) = found else { continue };
                    // One opt-out in any scope, under any address, suffices.
                    state.opted_out = state.opted_out.or(out.map(rows::time).transpose()?);
                    state.opted_in = state.opted_in.or(into.map(rows::time).transpose()?);
                }
            }
            Ok(state)
        })
    }

    fn record_consent(&self, record: ConsentRecord) -> StoreFuture<'_, ()> {
        self.write(move |db| record_consent(db, &record))
    }

    fn consent_ledger(&self, after: i64, limit: u32) -> StoreFuture<'_, Vec<ConsentEntry>> {
        self.read(move |db| {
            // By ID, so that a caller can read the ledger in pages while entries are added.
            let mut statement = db.prepare_cached(
                "SELECT id, scope, address, action, source, evidence, note, at FROM consent_ledger WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let mut found = statement.query(params![after, limit])?;
            let mut entries = Vec::new();
            while let Some(row) = found.next()? {
                let evidence: Option<Vec<u8>> = row.get(5)?;
                entries.push(ConsentEntry {
                    id: row.get(0)?,
                    record: ConsentRecord {
                        scope: ConsentScope::parse(&row.get::<_, String>(1)?),
                        user: row.get::<_, String>(2)?.into(),
                        action: ConsentAction::parse(&row.get::<_, String>(3)?).ok_or_else(rows::unreadable)?,
                        source: ConsentSource::parse(&row.get::<_, String>(4)?).ok_or_else(rows::unreadable)?,
                        evidence: evidence.map(|sid| rows::message_sid(&sid)).transpose()?,
                        note: row.get(6)?,
                        at: rows::time(row.get(7)?)?,
                    },
                });
            }
            Ok(entries)
        })
    }

    fn dialogue(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<Dialogue>> {
        self.read(move |db| {
            // An expired dialogue stays in the table until its conversation is deleted or it is replaced.
            let found = db
                .prepare_cached(
                    "SELECT data FROM dialogue WHERE conversation = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
                )?
                .query_row(params![conversation, now.as_microsecond()], |row| {
                    Ok(Dialogue(row.get(0)?))
                })
                .optional()?;
            Ok(found)
        })
    }

    fn earlier(&self, message: i64, limit: u32) -> StoreFuture<'_, Vec<EarlierMessage>> {
        self.read(move |db| earlier(db, message, limit))
    }
}

/// Lists earlier messages, newest first by following the `previous` links, and then reverses the list.
fn earlier(db: &Connection, message: i64, limit: u32) -> Result<Vec<EarlierMessage>, StoreError> {
    // Each conversation has its own list of messages, and so has each conversation that was merged into this one. The
    // lists are followed together, always from the highest ID. This statement finds the ends of all lists.
    let mut next: BTreeSet<i64> = db
        .prepare_cached(
            "WITH own AS (SELECT i.previous, coalesce(c.merged_into, i.conversation) AS id FROM inbound i \
               LEFT JOIN conversation c ON c.id = i.conversation WHERE i.id = ?1), \
             ends AS (SELECT previous AS id FROM own \
               UNION SELECT c.newest FROM own JOIN conversation c ON c.id = own.id \
               UNION SELECT c.newest FROM own JOIN conversation c ON c.merged_into = own.id) \
             SELECT id FROM ends WHERE id IS NOT NULL",
        )?
        .query_map([message], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut row = db.prepare_cached(
        "SELECT previous, received_at, claimed_at, reason IS ?2, params, response FROM inbound WHERE id = ?1",
    )?;
    // `state < 5` leaves out failed and suppressed replies, which the user has not received.
    let mut replies = db.prepare_cached(
        "SELECT params, created_at FROM outbound WHERE inbound = ?1 AND state < 5 AND params IS NOT NULL ORDER BY ordinal",
    )?;
    let mut found = Vec::new();
    while found.len() < limit as usize
        && let Some(id) = next.pop_last()
    {
        let read = row
            .query_row(params![id, rows::MERGED], |row| {
                let previous: Option<i64> = row.get(0)?;
                let times: (i64, i64) = (row.get(1)?, row.get(2)?);
                let texts: (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
                Ok((previous, times, row.get(3)?, texts))
            })
            .optional()?;
        // Retention has deleted the message, so its list ends here.
        let Some((previous, (received_at, mut answered_at), is_merged, (params, answer))) = read
        else {
            continue;
        };
        next.extend(previous);
        // Newer messages are passed to reach the older ones behind them.
        if id >= message {
            continue;
        }
        let mut sent = Vec::new();
        let mut with = replies.query([id])?;
        while let Some(reply) = with.next()? {
            sent.push(RedactedParams(reply.get(0)?));
            // The replies were ready when they were queued. `claimed_at` is earlier: the claim or the deferral.
            answered_at = reply.get(1)?;
        }
        found.push(EarlierMessage {
            received_at: rows::time(received_at)?,
            params: params.map(RedactedParams),
            response: answer.map(RedactedParams),
            replies: sent,
            answered_at: rows::time(answered_at)?,
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

/// Author of a message to a sender.
pub(super) struct Person {
    pub(super) conversation: i64,
    /// All known addresses, not only those of the current message: consent under one of them applies to the person.
    pub(super) addresses: Vec<Address>,
    pub(super) opted_out: bool,
}

/// Finds or creates the conversation of a sender and a user, and merges conversations that turn out to be one.
///
/// The caller must then call [`continued`] with the new message.
pub(super) fn enter(
    db: &Connection,
    us: &Address,
    user: &[Address],
    scopes: &[ConsentScope],
    now: i64,
) -> Result<Person, StoreError> {
    if let Some(person) = known(db, us, user, scopes)? {
        return Ok(person);
    }
    // After the merge, since the other conversation brings its addresses.
    let conversation = find_or_create(db, us, user, now)?;
    let addresses = addresses(db, conversation)?;
    let opted_out = opted_out(db, &addresses, scopes)?;
    Ok(Person {
        conversation,
        addresses,
        opted_out,
    })
}

/// Returns the person if all addresses are known in one conversation, which is the usual case and takes one statement.
fn known(
    db: &Connection,
    us: &Address,
    user: &[Address],
    scopes: &[ConsentScope],
) -> Result<Option<Person>, StoreError> {
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
        us.as_str(),
        first.as_str(),
        scope.as_str(),
        other.as_str()
    ])?;
    let mut person = Person {
        conversation: 0,
        addresses: Vec::with_capacity(user.len()),
        opted_out: false,
    };
    while let Some(row) = found.next()? {
        person.conversation = row.get(0)?;
        person.addresses.push(row.get::<_, String>(1)?.into());
        person.opted_out |= row.get::<_, bool>(2)?;
    }
    let known = user
        .iter()
        .all(|address| person.addresses.contains(address));
    Ok(known.then_some(person))
}

fn find_or_create(
    db: &Connection,
    us: &Address,
    user: &[Address],
    now: i64,
) -> Result<i64, StoreError> {
    let mut ids = Vec::with_capacity(user.len());
    for address in user {
        let id: Option<i64> = db
            .prepare_cached(
                "SELECT conversation FROM conversation_address WHERE sender = ?1 AND address = ?2",
            )?
            .query_row(params![us.as_str(), address.as_str()], |row| row.get(0))
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
        [kept, ref others @ ..] => {
            for other in others {
                join(db, kept, *other)?;
            }
            kept
        }
    };
    for address in user.iter().zip(&ids).filter(|(_, id)| id.is_none()) {
        // OR IGNORE, in case `user` contains an address twice.
        db.prepare_cached(
            "INSERT OR IGNORE INTO conversation_address (sender, address, conversation) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![us.as_str(), address.0.as_str(), id])?;
    }
    Ok(id)
}

/// Makes a message the newest of its conversation, and opens the customer service window.
pub(super) fn continued(
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

/// Merges the conversation `other` into `kept`, because both are with one person.
///
/// The later window, the newer dialogue and the longer handoff remain.
fn join(db: &Connection, kept: i64, other: i64) -> Result<(), StoreError> {
    db.execute(
        "UPDATE conversation SET last_inbound = max(last_inbound, (SELECT last_inbound FROM conversation WHERE id = ?2)) WHERE id = ?1",
        [kept, other],
    )?;
    db.execute(
        "UPDATE conversation_address SET conversation = ?1 WHERE conversation = ?2",
        [kept, other],
    )?;
    // Only open messages: from now on one order applies to all of them. Closed messages stay in their list, and
    // `merged_into` leads from there to this conversation.
    db.execute(
        "UPDATE inbound SET conversation = ?1 WHERE conversation = ?2 AND state < 3",
        [kept, other],
    )?;
    // Deletes the older of two dialogues, and then moves the remaining one if it is the other's.
    db.execute(
        "DELETE FROM dialogue WHERE conversation IN (?1, ?2) AND changed_at < \
         (SELECT max(changed_at) FROM dialogue WHERE conversation IN (?1, ?2))",
        [kept, other],
    )?;
    db.execute(
        "UPDATE OR REPLACE dialogue SET conversation = ?1 WHERE conversation = ?2",
        [kept, other],
    )?;
    handoff::join(db, kept, other)?;
    // Conversations that were merged into `other` before lead here as well, so one step always finds the remaining one.
    db.execute(
        "UPDATE conversation SET merged_into = ?1 WHERE id = ?2 OR merged_into = ?2",
        [kept, other],
    )?;
    Ok(())
}

/// Moves a message to the conversation that its own was merged into.
pub(super) fn follow(db: &Connection, message: i64) -> Result<(), StoreError> {
    // `join` moves open messages only. A failed message that a redelivery opens again must keep the order of the merged
    // conversation.
    db.prepare_cached(
        "UPDATE inbound SET conversation = c.merged_into FROM conversation c \
         WHERE inbound.id = ?1 AND c.id = inbound.conversation AND c.merged_into IS NOT NULL",
    )?
    .execute([message])?;
    Ok(())
}

/// Returns the addresses of a conversation's user.
fn addresses(db: &Connection, conversation: i64) -> Result<Vec<Address>, StoreError> {
    let addresses = db
        .prepare_cached("SELECT address FROM conversation_address WHERE conversation = ?1")?
        .query_map([conversation], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    Ok(addresses.into_iter().map(Address::from).collect())
}

/// Returns true if a user has opted out in one of up to two scopes, under one of these addresses.
pub(super) fn opted_out(
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

pub(super) fn record_consent(db: &Connection, record: &ConsentRecord) -> Result<(), StoreError> {
    let (address, scope, at) = (
        record.user.as_str(),
        record.scope.as_str(),
        record.at.as_microsecond(),
    );
    // `coalesce` keeps the time of the first opt-out and of the first opt-in.
    let sql = match record.action {
        ConsentAction::OptOut => {
            "INSERT INTO consent (address, scope, opted_out) VALUES (?1, ?2, ?3) \
             ON CONFLICT (address, scope) DO UPDATE SET opted_out = coalesce(opted_out, ?3)"
        }
        // `nullif(?3, ?3)` is NULL; it uses the parameter, which every statement gets.
        ConsentAction::Resume => {
            "INSERT INTO consent (address, scope, opted_out) VALUES (?1, ?2, nullif(?3, ?3)) \
             ON CONFLICT (address, scope) DO UPDATE SET opted_out = NULL"
        }
        // A later opt-in ends an earlier opt-out.
        ConsentAction::OptIn => {
            "INSERT INTO consent (address, scope, opted_in) VALUES (?1, ?2, ?3) \
             ON CONFLICT (address, scope) DO UPDATE SET opted_in = coalesce(opted_in, ?3), opted_out = NULL"
        }
    };
    db.prepare_cached(sql)?
        .execute(params![address, scope, at])?;
    // In the same transaction: each consent has its evidence.
    db.prepare_cached(
        "INSERT INTO consent_ledger (scope, address, action, source, evidence, note, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        scope,
        address,
        record.action.as_str(),
        record.source.as_str(),
        record.evidence.map(|sid| rows::sid_bytes(sid.as_str())),
        record.note,
        at,
    ])?;
    Ok(())
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
