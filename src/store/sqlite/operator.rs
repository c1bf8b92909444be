//! [`Operator`] in SQLite.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::media::forget_links;
use super::{SqliteStore, handover, journal, outbox, retention};
use crate::address::Address;
use crate::sid::MessageSid;
use crate::store::rows;
use crate::store::{
    Arrival, Expired, MessageFilter, MessageRow, OpenMessages, Operator, OutboundMessage, Outcome,
    OutgoingRow, Purged, ReplyRow, ReplyState, Retention, StoreError, TakenParams,
};

impl Operator for SqliteStore {
    fn messages(&self, filter: MessageFilter) -> Outcome<'_, Vec<MessageRow>> {
        self.read(move |db| messages(db, &filter))
    }

    fn outgoing_messages(&self, filter: MessageFilter) -> Outcome<'_, Vec<OutgoingRow>> {
        self.read(move |db| outgoing_messages(db, &filter))
    }

    fn open_messages(&self) -> Outcome<'_, OpenMessages> {
        self.read(|db| {
            let mut open = OpenMessages::default();
            let mut statement = db.prepare_cached(
                "SELECT state, count(*), min(received_at) FROM inbound INDEXED BY inbound_open WHERE state < 3 GROUP BY state",
            )?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                open.add(row.get(0)?, row.get(1)?, rows::time(row.get(2)?)?);
            }
            let mut statement = db.prepare_cached(
                "SELECT reason, count(*) FROM inbound INDEXED BY inbound_dead WHERE state = 6 GROUP BY reason",
            )?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let reason: Option<String> = row.get(0)?;
                open.add_dead(reason.as_deref(), row.get(1)?);
            }
            Ok(open)
        })
    }

    fn retry(&self, sid: MessageSid, now: Timestamp) -> Outcome<'_, bool> {
        self.write(move |db| {
            let changed = db.execute(
                // In the conversation that its own was joined to, if it was.
                "UPDATE inbound SET state = 2, owner = NULL, claimed_at = ?2, unordered = 1, conversation = coalesce(\
                   (SELECT joined FROM conversation c WHERE c.id = inbound.conversation), conversation) \
                 WHERE sid = ?1 AND state IN (5, 6) AND params IS NOT NULL",
                params![rows::sid_bytes(sid.as_str()), now.as_microsecond()],
            )?;
            Ok(changed > 0)
        })
    }

    fn release(&self, sid: MessageSid, now: Timestamp) -> Outcome<'_, u64> {
        self.write(move |db| {
            let freed = db.execute(
                "UPDATE reply SET state = 0, attempt = 0, looks = 0, not_before = ?2, reason = NULL, error_code = NULL, \
                 unordered = 1 WHERE inbound IN (SELECT id FROM inbound WHERE sid = ?1) AND state IN (3, 5) AND params IS NOT NULL",
                params![rows::sid_bytes(sid.as_str()), now.as_microsecond()],
            )?;
            Ok(freed as u64)
        })
    }

    fn release_outgoing(&self, id: Option<i64>, now: Timestamp) -> Outcome<'_, u64> {
        self.write(move |db| {
            let freed = db.execute(
                "UPDATE reply SET state = 0, attempt = 0, looks = 0, not_before = ?2, reason = NULL, error_code = NULL \
                 WHERE inbound IS NULL AND params IS NOT NULL AND ((?1 IS NULL AND state = 3) OR (id = ?1 AND state IN (3, 5)))",
                params![id, now.as_microsecond()],
            )?;
            Ok(freed as u64)
        })
    }

    fn enter_answered(&self, arrival: Arc<Arrival>) -> Outcome<'_, ()> {
        let me = self.owner;
        self.write(move |db| journal::enter_answered(db, me, &arrival))
    }

    fn open_replies(
        &self,
        state: ReplyState,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Outcome<'_, Vec<OutboundMessage>> {
        self.read(move |db| {
            let ids: Vec<i64> = db
                .prepare_cached(
                    "SELECT id FROM reply WHERE state = ?1 AND state < 4 AND id > ?2 ORDER BY id LIMIT ?3",
                )?
                .query_map(params![rows::reply_number(state), after, limit], |row| {
                    row.get(0)
                })?
                .collect::<Result<_, _>>()?;
            ids.into_iter()
                .map(|id| outbox::message(db, id, now))
                .collect()
        })
    }

    fn purge_user(&self, user: &Address, forget_opt_out: bool) -> Outcome<'_, Purged> {
        let user = user.clone();
        Box::pin(async move {
            let purged = self
                .write(move |db| purge_user(db, &user, forget_opt_out))
                .await?;
            // What was deleted is still in the write-ahead log until it is folded in.
            self.opened()?.truncate_log().await?;
            Ok(purged)
        })
    }

    fn forget_all(&self) -> Outcome<'_, ()> {
        self.write(|db| {
            for table in rows::CONTENT {
                db.execute(&format!("DELETE FROM {table}"), [])?;
            }
            retention::begin_anew(db)
        })
    }

    fn expire(&self, retention: Retention) -> Outcome<'_, Expired> {
        self.write(move |db| retention::expire(db, &retention))
    }
}

fn messages(db: &Connection, filter: &MessageFilter) -> Result<Vec<MessageRow>, StoreError> {
    let conversations = match &filter.user {
        None => None,
        Some(user) => Some(conversations_of(db, user)?),
    };
    let wanted = filter.limit.max(1) as usize;
    let mut before = filter.before.unwrap_or(i64::MAX);
    let mut listed = Vec::new();
    loop {
        let sid = filter.sid.map(|sid| rows::sid_bytes(sid.as_str()));
        // Two statements: one for both would look through the whole table for a single message.
        let which = if sid.is_some() {
            "+i.id < ?1 AND i.sid = ?2"
        } else {
            "i.id < ?1 AND ?2 IS NULL"
        };
        let mut statement = db.prepare_cached(&format!(
            "SELECT i.id, i.sid, i.account, i.state, i.attempt, i.received_at, i.reason, i.params, i.answer, i.conversation \
             FROM inbound i WHERE {which} ORDER BY i.id DESC LIMIT 500",
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
                .map(|(reply, rank)| (reply.state, *rank == rows::FAILURE_RANK))
                .collect();
            let state = rows::shown_state(row.get(3)?, &states);
            let reason: Option<String> = row.get(6)?;
            if rows::is_left_out(filter.state.as_deref(), state, reason.as_deref()) {
                continue;
            }
            listed.push(MessageRow {
                id: before,
                sid: rows::message_sid(&row.get::<_, Vec<u8>>(1)?)?,
                account: rows::account_sid(&row.get::<_, Vec<u8>>(2)?)?,
                state,
                attempt: row.get(4)?,
                user: address_of(db, conversation)?,
                handed_over_until: handed_over_until(db, conversation)?,
                received_at: rows::time(row.get(5)?)?,
                reason,
                replies: replies.into_iter().map(|(reply, _)| reply).collect(),
                params: row.get::<_, Option<String>>(7)?.map(TakenParams),
                answer: row.get::<_, Option<String>>(8)?.map(TakenParams),
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

fn outgoing_messages(
    db: &Connection,
    filter: &MessageFilter,
) -> Result<Vec<OutgoingRow>, StoreError> {
    let state = filter.state.as_deref().map(rows::reply_number_of);
    if state == Some(None) {
        return Ok(Vec::new());
    }
    // Down the table: an index of what answers nothing would have to be sorted.
    let mut statement = db.prepare_cached(
        "SELECT id, state, sid, status, error_code, reason, params, rank, account, us, address, attempt, created_at \
         FROM reply WHERE +inbound IS NULL AND id < ?1 AND (?2 IS NULL OR sid = ?2) \
         AND (?3 IS NULL OR ?3 = CASE WHEN state = 4 AND rank = 6 THEN 5 ELSE state END) \
         AND (?4 IS NULL OR address = ?4 OR address IN (SELECT b.address FROM conversation_address a \
           JOIN conversation_address b ON b.conversation = a.conversation WHERE a.address = ?4)) \
         ORDER BY id DESC LIMIT ?5",
    )?;
    let mut found = statement.query(params![
        filter.before.unwrap_or(i64::MAX),
        filter.sid.map(|sid| rows::sid_bytes(sid.as_str())),
        state.flatten(),
        filter.user.as_ref().map(Address::as_str),
        filter.limit.max(1)
    ])?;
    let mut listed = Vec::new();
    while let Some(row) = found.next()? {
        let message = reply_row(row)?;
        listed.push(OutgoingRow {
            account: rows::account_sid(&row.get::<_, Vec<u8>>(8)?)?,
            us: row.get::<_, String>(9)?.into(),
            user: row.get::<_, String>(10)?.into(),
            state: rows::shown_outgoing(message.state, row.get(7)?),
            attempt: row.get(11)?,
            created_at: rows::time(row.get(12)?)?,
            message,
        });
    }
    Ok(listed)
}

/// The columns of `reply_row`.
const REPLY: &str = "id, state, sid, status, error_code, reason, params, rank FROM reply";

fn replies(db: &Connection, inbound: i64) -> Result<Vec<(ReplyRow, i64)>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {REPLY} WHERE inbound = ?1 ORDER BY ordinal"
    ))?;
    let mut found = statement.query([inbound])?;
    let mut replies = Vec::new();
    while let Some(row) = found.next()? {
        replies.push((reply_row(row)?, row.get(7)?));
    }
    Ok(replies)
}

/// One message of the outbox.
pub(super) fn reply(db: &Connection, id: i64) -> Result<Option<ReplyRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {REPLY} WHERE id = ?1"))?;
    let mut found = statement.query([id])?;
    found.next()?.map(reply_row).transpose()
}

fn reply_row(row: &Row<'_>) -> Result<ReplyRow, StoreError> {
    let sid: Option<Vec<u8>> = row.get(2)?;
    Ok(ReplyRow {
        id: row.get(0)?,
        state: rows::reply_state(row.get(1)?)?,
        sid: sid.map(|sid| rows::message_sid(&sid)).transpose()?,
        status: row.get(3)?,
        error_code: row.get(4)?,
        reason: row.get(5)?,
        params: row.get::<_, Option<String>>(6)?.map(TakenParams),
    })
}

fn address_of(db: &Connection, conversation: i64) -> Result<Option<Address>, StoreError> {
    let address: Option<String> = db
        .prepare_cached(
            "SELECT min(a.address) FROM conversation_address a WHERE a.conversation = \
             (SELECT coalesce(joined, id) FROM conversation WHERE id = ?1)",
        )?
        .query_row([conversation], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(address.map(Address::from))
}

/// Until when a conversation is handed over, or the one that it was joined to.
fn handed_over_until(db: &Connection, conversation: i64) -> Result<Option<Timestamp>, StoreError> {
    let kept: Option<i64> = db
        .prepare_cached("SELECT coalesce(joined, id) FROM conversation WHERE id = ?1")?
        .query_row([conversation], |row| row.get(0))
        .optional()?;
    let until = kept.map(|kept| handover::until(db, kept)).transpose()?;
    until.flatten().map(rows::time).transpose()
}

/// All conversations of the person who has this address, those that were joined to others included.
fn conversations_of(db: &Connection, user: &Address) -> Result<Vec<i64>, StoreError> {
    let found = db
        .prepare(
            "WITH own AS (SELECT DISTINCT conversation AS id FROM conversation_address WHERE address = ?1) \
             SELECT id FROM own UNION SELECT id FROM conversation WHERE joined IN (SELECT id FROM own)",
        )?
        .query_map([user.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

fn purge_user(db: &Connection, user: &Address, forget_opt_out: bool) -> Result<Purged, StoreError> {
    // Deleted content is overwritten, wherever it stood.
    db.pragma_update_and_check(None, "secure_delete", "on", |_| Ok(()))?;
    let conversations = conversations_of(db, user)?;
    let mut addresses = vec![user.as_str().to_owned()];
    let mut purged = Purged::default();
    for conversation in conversations {
        let found = db
            .prepare("SELECT address FROM conversation_address WHERE conversation = ?1")?
            .query_map([conversation], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        addresses.extend(found);
        // What is still open is closed: there is nothing left to handle.
        purged.messages += db.execute(
            "UPDATE inbound SET params = NULL, answer = NULL, reason = ?2, owner = NULL, \
             state = CASE WHEN state IN (3, 4) THEN state ELSE 6 END WHERE conversation = ?1 AND params IS NOT NULL",
            params![conversation, rows::PURGED],
        )? as u64;
        forget_links(db, conversation)?;
        purged.replies += db.execute(
            "DELETE FROM reply WHERE inbound IN (SELECT id FROM inbound WHERE conversation = ?1)",
            [conversation],
        )? as u64;
        db.execute(
            "DELETE FROM dialogue WHERE conversation = ?1",
            [conversation],
        )?;
        handover::forget(db, conversation)?;
        db.execute(
            "DELETE FROM conversation_address WHERE conversation = ?1",
            [conversation],
        )?;
        db.execute("DELETE FROM conversation WHERE id = ?1", [conversation])?;
    }
    addresses.sort_unstable();
    addresses.dedup();
    for address in &addresses {
        purged.replies += db.execute("DELETE FROM reply WHERE address = ?1", [address])? as u64;
        let (consent, ledger) = if forget_opt_out {
            (
                "DELETE FROM consent WHERE address = ?1",
                "DELETE FROM consent_ledger WHERE address = ?1",
            )
        } else {
            (
                "DELETE FROM consent WHERE address = ?1 AND opted_out IS NULL",
                // An opt-out that was taken back is none, and no reason to keep a number.
                "DELETE FROM consent_ledger WHERE address = ?1 AND (action <> 'opt_out' OR NOT EXISTS (\
                   SELECT 1 FROM consent c WHERE c.address = consent_ledger.address AND c.scope = consent_ledger.scope \
                   AND c.opted_out IS NOT NULL))",
            )
        };
        purged.consents += db.execute(consent, [address])? as u64;
        db.execute(ledger, [address])?;
        if !forget_opt_out {
            db.execute(
                "UPDATE consent SET opted_in = NULL WHERE address = ?1",
                [address],
            )?;
        }
    }
    Ok(purged)
}
