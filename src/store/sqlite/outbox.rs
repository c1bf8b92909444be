//! [`Outbox`] in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, news, operator, submission};
use crate::address::Address;
use crate::clock::after;
use crate::form::Form;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::outbox::{GRACE, LOOK, MAX_PAUSE};
use crate::store::rows;
use crate::store::{
    ConsentRecord, NewReply, News, NewsEffect, OutboundMessage, Outbox, OutboxState, Outcome,
    ReplyRow, ScheduledMessage, SendKey, Settlement, Standing, StoreError, Submission, Submitted,
};

impl Outbox for SqliteStore {
    fn claim(&self, limit: usize, now: Timestamp) -> Outcome<'_, Vec<OutboundMessage>> {
        let me = self.owner;
        self.write(move |db| claim(db, me, limit, now))
    }

    fn settle(&self, id: i64, settlement: Settlement, now: Timestamp) -> Outcome<'_, ()> {
        self.write(move |db| settle(db, id, &settlement, now))
    }

    fn unknown(&self, limit: usize, now: Timestamp) -> Outcome<'_, Vec<OutboundMessage>> {
        let me = self.owner;
        self.write(move |db| {
            let ids: Vec<i64> = db
                .prepare_cached(LOST)?
                .query_map(params![now.as_microsecond(), count(limit), me], |row| {
                    row.get(0)
                })?
                .collect::<Result<_, _>>()?;
            ids.into_iter()
                .map(|id| {
                    db.prepare_cached(
                        "UPDATE reply SET owner = ?3, not_before = ?2 WHERE id = ?1",
                    )?
                    .execute(params![
                        id,
                        after(now, LOOK).as_microsecond(),
                        me
                    ])?;
                    message(db, id, now)
                })
                .collect()
        })
    }

    fn unwanted(&self, after: i64, limit: usize) -> Outcome<'_, Vec<ScheduledMessage>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(UNWANTED)?;
            let mut found = statement.query([after, count(limit)])?;
            let mut unwanted = Vec::new();
            while let Some(row) = found.next()? {
                unwanted.push(ScheduledMessage {
                    id: row.get(0)?,
                    account: rows::account_sid(&row.get::<_, Vec<u8>>(1)?)?,
                    slot: rows::slot(row.get(2)?),
                    sid: rows::message_sid(&row.get::<_, Vec<u8>>(3)?)?,
                });
            }
            Ok(unwanted)
        })
    }

    fn unclaimed_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> Outcome<'_, Vec<MessageSid>> {
        self.read(move |db| {
            let mut free = Vec::new();
            for sid in &sids {
                let taken: bool = db
                    .prepare_cached(
                        "SELECT EXISTS (SELECT 1 FROM reply WHERE sid = ?1 AND account = ?2)",
                    )?
                    .query_row(
                        params![
                            rows::sid_bytes(sid.as_str()),
                            rows::sid_bytes(account.as_str())
                        ],
                        |row| row.get(0),
                    )?;
                if !taken {
                    free.push(*sid);
                }
            }
            Ok(free)
        })
    }

    fn enqueue(&self, replies: Vec<NewReply>, now: Timestamp) -> Outcome<'_, Vec<i64>> {
        self.write(move |db| insert(db, None, &replies, now))
    }

    fn submit(&self, submission: Submission, now: Timestamp) -> Outcome<'_, Submitted> {
        self.write(move |db| submission::submit(db, &submission, now))
    }

    fn standing(
        &self,
        us: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> Outcome<'_, Standing> {
        let (us, user) = (us.clone(), user.clone());
        self.read(move |db| submission::standing(db, &us, service, &user, at))
    }

    fn keyed(&self, key: SendKey) -> Outcome<'_, Option<i64>> {
        self.read(move |db| submission::keyed(db, &key))
    }

    fn outgoing(&self, id: i64) -> Outcome<'_, Option<ReplyRow>> {
        self.read(move |db| operator::reply(db, id))
    }

    fn news(&self, news: News) -> Outcome<'_, NewsEffect> {
        self.write(move |db| news::take(db, &news))
    }

    fn outbox_state(&self) -> Outcome<'_, OutboxState> {
        self.read(|db| {
            let mut state = OutboxState::default();
            let mut statement = db.prepare_cached(
                "SELECT state, count(*), min(coalesce(due, created_at)) FROM reply WHERE state < 4 GROUP BY state",
            )?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                state.add(row.get(0)?, row.get(1)?, rows::time(row.get(2)?)?);
            }
            Ok(state)
        })
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn insert(
    db: &Connection,
    inbound: Option<i64>,
    replies: &[NewReply],
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let mut ids = Vec::with_capacity(replies.len());
    for (ordinal, reply) in replies.iter().enumerate() {
        db.prepare_cached(
            "INSERT INTO reply (inbound, ordinal, account, slot, us, address, service, template, state, not_before, \
             created_at, params, unordered) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?9, ?10, \
             (SELECT unordered FROM inbound WHERE id = ?1))",
        )?
        .execute(params![
            inbound,
            count(ordinal),
            rows::sid_bytes(reply.account.as_str()),
            rows::slot_number(reply.slot),
            reply.us.as_str(),
            reply.user.as_str(),
            reply.service.as_ref().map(MessagingServiceSid::as_str),
            reply.template,
            now.as_microsecond(),
            reply.params.encode(),
        ])?;
        ids.push(db.last_insert_rowid());
    }
    Ok(ids)
}

// These are asked every second, beside all that was ever sent: SQLite takes the index of what is open only where it reads
// `state < 4` too.

/// Calls of dead processes become unknown.
const ORPHANED: &str = "UPDATE reply SET state = 2, owner = NULL, not_before = ?2 \
     WHERE state = 1 AND state < 4 AND owner <> ?1";

/// Pauses that end too late, since the clock was set back, end now. The time that a paced message may go is no such pause.
const SET_BACK: &str = "UPDATE reply SET not_before = ?1 \
     WHERE state IN (0, 2) AND state < 4 AND not_before > ?2 AND due IS NULL";

/// What is to be looked for. A look of a dead process never ends.
const LOST: &str = "SELECT id FROM reply WHERE state = 2 AND state < 4 AND (not_before <= ?1 OR owner <> ?3) \
     ORDER BY not_before LIMIT ?2";

/// What may go: of one reply only the first, and to one person only the oldest of what is due, is on its way, or was tried
/// before. What stands behind a part that is held or failed is in nobody's way.
const DUE: &str = "SELECT r.id FROM reply r WHERE r.state = 0 AND r.state < 4 AND r.not_before <= ?1 \
     AND r.id = (SELECT q.id FROM reply q WHERE q.us = r.us AND q.address = r.address AND q.account = r.account \
       AND q.state < 3 AND (q.state > 0 OR q.not_before <= ?1 OR q.attempt > 0) \
       AND (q.inbound IS NULL OR NOT EXISTS (\
         SELECT 1 FROM reply p WHERE p.inbound = q.inbound AND p.ordinal < q.ordinal AND p.state IN (3, 5))) \
       ORDER BY q.id LIMIT 1) \
     AND (r.inbound IS NULL OR NOT EXISTS (\
       SELECT 1 FROM reply p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state NOT IN (4, 6))) \
     ORDER BY r.not_before, r.id LIMIT ?2";

fn claim(
    db: &Connection,
    me: i64,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, StoreError> {
    db.prepare_cached(ORPHANED)?
        .execute(params![me, after(now, GRACE).as_microsecond()])?;
    db.prepare_cached(SET_BACK)?
        .execute([now.as_microsecond(), after(now, MAX_PAUSE).as_microsecond()])?;
    let mut claimed = Vec::new();
    loop {
        let ids: Vec<i64> = db
            .prepare_cached(DUE)?
            .query_map(
                params![now.as_microsecond(), count(limit - claimed.len())],
                |row| row.get(0),
            )?
            .collect::<Result<_, _>>()?;
        let mut suppressed = false;
        for id in ids {
            if suppress(db, id)? {
                suppressed = true;
                continue;
            }
            db.prepare_cached(
                "UPDATE reply SET state = 1, owner = ?2, attempt = attempt + 1, sent_at = ?3 WHERE id = ?1",
            )?
            .execute(params![id, me, now.as_microsecond()])?;
            claimed.push(message(db, id, now)?);
        }
        // Behind one that is taken back stands the next of its reply, or of its user.
        if !suppressed || claimed.len() >= limit {
            return Ok(claimed);
        }
    }
}

/// Whether the user of a `reply` has opted out, under whatever address.
macro_rules! opted_out {
    () => {
        "EXISTS (SELECT 1 FROM consent c WHERE c.opted_out IS NOT NULL \
           AND (c.scope = reply.us OR c.scope = reply.service OR reply.us = reply.service) \
           AND (c.address = reply.address OR c.address IN (SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation \
             WHERE a.us = reply.us AND a.address = reply.address)))"
    };
}

/// Takes a message back whose user has opted out.
const SUPPRESS: &str = concat!(
    "UPDATE reply SET state = 6, reason = 'the user has opted out' WHERE id = ?1 AND ",
    opted_out!(),
);

/// What Twilio holds until its time and is not wanted any more.
const UNWANTED: &str = concat!(
    "SELECT id, account, slot, sid FROM reply WHERE status = 'scheduled' AND sid IS NOT NULL AND id > ?1 AND ",
    opted_out!(),
    " ORDER BY id LIMIT ?2",
);

fn suppress(db: &Connection, id: i64) -> Result<bool, StoreError> {
    let suppressed = db.prepare_cached(SUPPRESS)?.execute([id])?;
    Ok(suppressed > 0)
}

pub(super) fn message(
    db: &Connection,
    id: i64,
    now: Timestamp,
) -> Result<OutboundMessage, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT r.id, r.created_at, r.account, r.slot, r.us, r.address, r.service, r.template, r.attempt, r.looks, r.sent_at, \
         r.params, (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.us = r.us AND a.address = r.address), \
         EXISTS (SELECT 1 FROM consent c WHERE c.opted_in IS NOT NULL AND c.scope IN (r.us, r.service) \
           AND (c.address = r.address OR c.address IN (SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation WHERE a.us = r.us AND a.address = r.address))) \
         FROM reply r WHERE r.id = ?1",
    )?;
    let mut found = statement.query([id])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    read_message(row, now)
}

fn read_message(row: &Row<'_>, now: Timestamp) -> Result<OutboundMessage, StoreError> {
    let us: Address = row.get::<_, String>(4)?.into();
    let user: Address = row.get::<_, String>(5)?.into();
    let last_inbound: Option<i64> = row.get(12)?;
    let params: Option<String> = row.get(11)?;
    Ok(OutboundMessage {
        id: row.get(0)?,
        created_at: rows::time(row.get(1)?)?,
        account: rows::account_sid(&row.get::<_, Vec<u8>>(2)?)?,
        slot: rows::slot(row.get(3)?),
        template: row.get(7)?,
        window: rows::window(&user, last_inbound, now)?,
        us,
        user,
        service: row
            .get::<_, Option<String>>(6)?
            .and_then(|service| service.parse().ok()),
        attempt: row.get(8)?,
        looks: row.get(9)?,
        sent_at: row.get::<_, Option<i64>>(10)?.map(rows::time).transpose()?,
        params: Form::parse(params.unwrap_or_default().as_bytes(), usize::MAX).unwrap_or_default(),
        opted_in: row.get(13)?,
    })
}

fn settle(
    db: &Connection,
    id: i64,
    settlement: &Settlement,
    now: Timestamp,
) -> Result<(), StoreError> {
    match settlement {
        Settlement::Sent { sid, status } => {
            let bytes = rows::sid_bytes(sid.as_str());
            db.prepare_cached("UPDATE reply SET state = 4, owner = NULL, sid = coalesce(sid, ?2), reason = NULL WHERE id = ?1")?
                .execute(params![id, bytes])?;
            news::raise(db, id, status.as_str(), rows::rank(status), None)?;
            // A callback may have been faster than the answer to the call.
            let early: Option<(String, i64, Option<u32>)> = db
                .prepare_cached(
                    "DELETE FROM news WHERE sid = ?2 AND account = (SELECT account FROM reply WHERE id = ?1) \
                     RETURNING status, rank, error_code",
                )?
                .query_row(params![id, bytes], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            if let Some((status, rank, code)) = early {
                news::raise(db, id, &status, rank, code)?;
            }
        }
        Settlement::Again { not_before } => {
            db.prepare_cached(
                "UPDATE reply SET state = 0, owner = NULL, not_before = ?2 WHERE id = ?1 AND state IN (1, 2)",
            )?
            .execute(params![id, not_before.as_microsecond()])?;
            hold_up(db, id, *not_before, now)?;
        }
        Settlement::Failed { code, reason } => {
            let code = code.map(|code| code.0);
            let failed = db
                .prepare_cached(
                    "UPDATE reply SET state = 5, owner = NULL, error_code = ?2, reason = ?3 WHERE id = ?1 AND state IN (1, 2) \
                     RETURNING us, address, service",
                )?
                .query_row(params![id, code, reason], |row| {
                    let service: Option<String> = row.get(2)?;
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, service))
                })
                .optional()?;
            if let Some((us, user, service)) = failed
                && let Some(scope) = rows::refused_scope(code, &us, service.as_deref())
            {
                news::refused(db, &ConsentRecord::refusal(scope, user, None, now))?;
            }
        }
        Settlement::Unknown { look_at, looked } => {
            db.prepare_cached(
                "UPDATE reply SET state = 2, owner = NULL, not_before = ?2, looks = looks + ?3 WHERE id = ?1 AND state IN (1, 2)",
            )?
            .execute(params![id, look_at.as_microsecond(), looked])?;
        }
        Settlement::Held => {
            db.prepare_cached(
                "UPDATE reply SET state = 3, owner = NULL, reason = 'whether it was sent is not known' WHERE id = ?1 AND state = 2",
            )?
            .execute([id])?;
        }
    }
    Ok(())
}

/// Lets what is due to the same person wait as long as this one does: each claim would pass over it otherwise. It counts as
/// tried, since it is as old.
fn hold_up(db: &Connection, id: i64, until: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE reply SET not_before = ?2, attempt = max(attempt, 1) \
         FROM (SELECT us, address, account FROM reply WHERE id = ?1 AND state = 0) AS h \
         WHERE reply.us = h.us AND reply.address = h.address AND reply.account = h.account AND reply.id > ?1 \
         AND reply.state = 0 AND reply.state < 3 AND reply.not_before < ?2 AND reply.not_before <= ?3",
    )?
    .execute(params![id, until.as_microsecond(), now.as_microsecond()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Access;
    use crate::store::sqlite::schema::Place;

    #[test]
    fn what_is_open_is_found_without_a_look_at_what_is_done() {
        let place = Place {
            path: None,
            patience: Duration::ZERO,
        };
        let db = place.open(Access::Owner).unwrap();
        for sql in [ORPHANED, SET_BACK, LOST, DUE, UNWANTED] {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let mut steps = plan.raw_query();
            while let Some(step) = steps.next().unwrap() {
                let step: String = step.get(3).unwrap();
                assert!(!step.starts_with("SCAN"), "{step}: {sql}");
            }
        }
    }
}
