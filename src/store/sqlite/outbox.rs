//! [`Outbox`] in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, operator, status_events, submission};
use crate::address::Address;
use crate::clock::after;
use crate::form::FormParams;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::outbox::{LOOKUP_GRACE, LOOKUP_TIMEOUT, MAX_PAUSE};
use crate::store::{
    ConsentRecord, IdempotencyKey, NewOutbound, OutboundMessage, OutboundRow, Outbox, OutboxStats,
    ScheduledMessage, SendEligibility, SendOutcome, StatusEffect, StatusEvent, StoreError,
    StoreFuture, Submission, SubmitOutcome, decisions, packing, states,
};

impl Outbox for SqliteStore {
    fn claim(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>> {
        let me = self.owner;
        self.write(move |db| claim(db, me, limit, now))
    }

    fn record_outcome(&self, id: i64, outcome: SendOutcome, now: Timestamp) -> StoreFuture<'_, ()> {
        self.write(move |db| record_outcome(db, id, &outcome, now))
    }

    fn claim_lookups(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>> {
        let me = self.owner;
        self.write(move |db| {
            // The new owner and time keep other workers from the same lookup until it is recorded or has timed out.
            let ids: Vec<i64> = db
                .prepare_cached(DUE_LOOKUPS)?
                .query_map(params![now.as_microsecond(), to_i64(limit), me], |row| {
                    row.get(0)
                })?
                .collect::<Result<_, _>>()?;
            ids.into_iter()
                .map(|id| {
                    db.prepare_cached(
                        "UPDATE outbound SET owner = ?3, not_before = ?2 WHERE id = ?1",
                    )?
                    .execute(params![
                        id,
                        after(now, LOOKUP_TIMEOUT).as_microsecond(),
                        me
                    ])?;
                    message(db, id, now)
                })
                .collect()
        })
    }

    fn scheduled_to_cancel(
        &self,
        after: i64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<ScheduledMessage>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(SCHEDULED_TO_CANCEL)?;
            let mut found = statement.query([after, to_i64(limit)])?;
            let mut scheduled = Vec::new();
            while let Some(row) = found.next()? {
                scheduled.push(ScheduledMessage {
                    id: row.get(0)?,
                    account: packing::account_sid(&row.get::<_, Vec<u8>>(1)?)?,
                    auth_token: packing::auth_token(row.get(2)?),
                    sid: packing::message_sid(&row.get::<_, Vec<u8>>(3)?)?,
                });
            }
            Ok(scheduled)
        })
    }

    fn unmatched_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> StoreFuture<'_, Vec<MessageSid>> {
        self.read(move |db| {
            let mut unmatched = Vec::new();
            for sid in &sids {
                let is_known: bool = db
                    .prepare_cached(
                        "SELECT EXISTS (SELECT 1 FROM outbound WHERE sid = ?1 AND account = ?2)",
                    )?
                    .query_row(
                        params![
                            packing::sid_bytes(sid.as_str()),
                            packing::sid_bytes(account.as_str())
                        ],
                        |row| row.get(0),
                    )?;
                if !is_known {
                    unmatched.push(*sid);
                }
            }
            Ok(unmatched)
        })
    }

    fn enqueue(&self, replies: Vec<NewOutbound>, now: Timestamp) -> StoreFuture<'_, Vec<i64>> {
        self.write(move |db| insert(db, None, &replies, now))
    }

    fn submit(&self, submission: Submission, now: Timestamp) -> StoreFuture<'_, SubmitOutcome> {
        self.write(move |db| submission::submit(db, &submission, now))
    }

    fn eligibility(
        &self,
        sender: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> StoreFuture<'_, SendEligibility> {
        let (sender, user) = (sender.clone(), user.clone());
        self.read(move |db| submission::eligibility(db, &sender, service, &user, at))
    }

    fn find_by_key(&self, key: IdempotencyKey) -> StoreFuture<'_, Option<i64>> {
        self.read(move |db| submission::find_by_key(db, &key))
    }

    fn outbound(&self, id: i64) -> StoreFuture<'_, Option<OutboundRow>> {
        self.read(move |db| operator::find_outbound(db, id))
    }

    fn apply_status(&self, event: StatusEvent) -> StoreFuture<'_, StatusEffect> {
        self.write(move |db| status_events::apply_status(db, &event))
    }

    fn outbox_stats(&self) -> StoreFuture<'_, OutboxStats> {
        self.read(|db| {
            let mut stats = OutboxStats::default();
            // Open messages (below 4). `due` is the send time from the rate limit. A paced message is not late before
            // that.
            let mut statement = db.prepare_cached(
                "SELECT state, count(*), min(coalesce(due, created_at)) FROM outbound WHERE state < 4 GROUP BY state",
            )?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                stats.add(row.get(0)?, row.get(1)?, packing::time(row.get(2)?)?);
            }
            Ok(stats)
        })
    }
}

fn to_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn insert(
    db: &Connection,
    inbound: Option<i64>,
    replies: &[NewOutbound],
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let mut ids = Vec::with_capacity(replies.len());
    for (ordinal, reply) in replies.iter().enumerate() {
        // In PENDING (0). `ordinal` is the order of the parts of a reply. `unordered` is inherited from a retried
        // message: its reply is late, and later replies must not wait for it.
        db.prepare_cached(
            "INSERT INTO outbound (inbound, ordinal, account, auth_token, sender, address, service, template, state, not_before, \
             created_at, params, unordered) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?9, ?10, \
             (SELECT unordered FROM inbound WHERE id = ?1))",
        )?
        .execute(params![
            inbound,
            to_i64(ordinal),
            packing::sid_bytes(reply.account.as_str()),
            packing::auth_token_number(reply.auth_token),
            reply.sender.as_str(),
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

// These statements run every second on a table of everything that was ever sent. SQLite uses the partial index of open
// messages only if the condition contains the index's own condition, `state < 4` (below SENT).

/// Marks the calls of dead processes as unknown.
// SENDING (1) becomes UNKNOWN (2). Any other owner is dead, because one server owns the file. Twilio may have accepted
// the message, so it is not sent again.
const MARK_ORPHANS_UNKNOWN: &str = "UPDATE outbound SET state = 2, owner = NULL, not_before = ?2 \
     WHERE state = 1 AND state < 4 AND owner <> ?1";

/// Ends pauses that are longer than any pause, because the clock was set back after they were stored.
// PENDING and UNKNOWN (0, 2) only: in other states `not_before` has no effect. Messages with a send time from the rate
// limit, `due`, may lie further ahead.
const END_LONG_PAUSES: &str = "UPDATE outbound SET not_before = ?1 \
     WHERE state IN (0, 2) AND state < 4 AND not_before > ?2 AND due IS NULL";

/// Finds the messages in UNKNOWN (2) whose lookup is due.
// A lookup of a dead process has another owner. It never ends, so the message is due immediately.
const DUE_LOOKUPS: &str = "SELECT id FROM outbound WHERE state = 2 AND state < 4 AND (not_before <= ?1 OR owner <> ?3) \
     ORDER BY not_before LIMIT ?2";

/// Finds the messages that may be sent now.
// Two invariants. First, of one sender to one user only the oldest may go: the first subquery is the head of that
// queue. It counts messages that are PENDING (0) and due, SENDING or UNKNOWN (1, 2), and those that were tried before
// and so keep their position. A part that waits behind a HELD or FAILED part (3, 5) blocks no other message. Second, a
// part of a reply goes only once every part before it is SENT or SUPPRESSED (4, 6).
const DUE_MESSAGES: &str = "SELECT r.id FROM outbound r WHERE r.state = 0 AND r.state < 4 AND r.not_before <= ?1 \
     AND r.id = (SELECT q.id FROM outbound q WHERE q.sender = r.sender AND q.address = r.address AND q.account = r.account \
       AND q.state < 3 AND (q.state > 0 OR q.not_before <= ?1 OR q.attempt > 0) \
       AND (q.inbound IS NULL OR NOT EXISTS (\
         SELECT 1 FROM outbound p WHERE p.inbound = q.inbound AND p.ordinal < q.ordinal AND p.state IN (3, 5))) \
       ORDER BY q.id LIMIT 1) \
     AND (r.inbound IS NULL OR NOT EXISTS (\
       SELECT 1 FROM outbound p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state NOT IN (4, 6))) \
     ORDER BY r.not_before, r.id LIMIT ?2";

fn claim(
    db: &Connection,
    me: i64,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, StoreError> {
    // Before the claims: an unknown message keeps the later messages to its user waiting.
    db.prepare_cached(MARK_ORPHANS_UNKNOWN)?
        .execute(params![me, after(now, LOOKUP_GRACE).as_microsecond()])?;
    db.prepare_cached(END_LONG_PAUSES)?
        .execute([now.as_microsecond(), after(now, MAX_PAUSE).as_microsecond()])?;
    let mut claimed = Vec::new();
    loop {
        let ids: Vec<i64> = db
            .prepare_cached(DUE_MESSAGES)?
            .query_map(
                params![now.as_microsecond(), to_i64(limit - claimed.len())],
                |row| row.get(0),
            )?
            .collect::<Result<_, _>>()?;
        let mut suppressed = false;
        for id in ids {
            // In the transaction of the claim: an opt-out that was committed before always suppresses the message.
            if suppress(db, id)? {
                suppressed = true;
                continue;
            }
            // To SENDING (1). By ID alone: the row was found in this transaction, under the write lock.
            db.prepare_cached(
                "UPDATE outbound SET state = 1, owner = ?2, attempt = attempt + 1, sent_at = ?3 WHERE id = ?1",
            )?
            .execute(params![id, me, now.as_microsecond()])?;
            claimed.push(message(db, id, now)?);
        }
        // A suppressed message makes way for the next one of its reply or of its user, so search again.
        if !suppressed || claimed.len() >= limit {
            return Ok(claimed);
        }
    }
}

/// Condition: the user of a row of `outbound` has opted out, under any address.
// A sender that equals the service means that the service chooses the sender, so an opt-out from any sender counts.
macro_rules! opted_out {
    () => {
        "EXISTS (SELECT 1 FROM consent c WHERE c.opted_out IS NOT NULL \
           AND (c.scope = outbound.sender OR c.scope = outbound.service OR outbound.sender = outbound.service) \
           AND (c.address = outbound.address OR c.address IN (SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation \
             WHERE a.sender = outbound.sender AND a.address = outbound.address)))"
    };
}

/// Suppresses a message whose user has opted out: it becomes SUPPRESSED (6).
const SUPPRESS_OPTED_OUT: &str = concat!(
    "UPDATE outbound SET state = 6, reason = 'the user has opted out' WHERE id = ?1 AND ",
    opted_out!(),
);

/// Finds messages that Twilio holds until their send time although the user has opted out.
const SCHEDULED_TO_CANCEL: &str = concat!(
    "SELECT id, account, auth_token, sid FROM outbound WHERE status = 'scheduled' AND sid IS NOT NULL AND id > ?1 AND ",
    opted_out!(),
    " ORDER BY id LIMIT ?2",
);

fn suppress(db: &Connection, id: i64) -> Result<bool, StoreError> {
    let suppressed = db.prepare_cached(SUPPRESS_OPTED_OUT)?.execute([id])?;
    Ok(suppressed > 0)
}

/// Reads a message with the window and the opt-in of its user.
pub(super) fn message(
    db: &Connection,
    id: i64,
    now: Timestamp,
) -> Result<OutboundMessage, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT r.id, r.created_at, r.account, r.auth_token, r.sender, r.address, r.service, r.template, r.attempt, r.lookups, r.sent_at, \
         r.params, (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.sender = r.sender AND a.address = r.address), \
         EXISTS (SELECT 1 FROM consent c WHERE c.opted_in IS NOT NULL AND c.scope IN (r.sender, r.service) \
           AND (c.address = r.address OR c.address IN (SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation WHERE a.sender = r.sender AND a.address = r.address))) \
         FROM outbound r WHERE r.id = ?1",
    )?;
    let mut found = statement.query([id])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    read_message(row, now)
}

fn read_message(row: &Row<'_>, now: Timestamp) -> Result<OutboundMessage, StoreError> {
    let sender: Address = row.get::<_, String>(4)?.into();
    let user: Address = row.get::<_, String>(5)?.into();
    let last_inbound: Option<i64> = row.get(12)?;
    let params: Option<String> = row.get(11)?;
    Ok(OutboundMessage {
        id: row.get(0)?,
        created_at: packing::time(row.get(1)?)?,
        account: packing::account_sid(&row.get::<_, Vec<u8>>(2)?)?,
        auth_token: packing::auth_token(row.get(3)?),
        template: row.get(7)?,
        window: decisions::window(&user, last_inbound, now)?,
        sender,
        user,
        service: row
            .get::<_, Option<String>>(6)?
            .and_then(|service| service.parse().ok()),
        attempt: row.get(8)?,
        lookups: row.get(9)?,
        sent_at: row
            .get::<_, Option<i64>>(10)?
            .map(packing::time)
            .transpose()?,
        // Retention deletes the parameters of closed messages only.
        params: FormParams::parse(params.unwrap_or_default().as_bytes(), usize::MAX)
            .unwrap_or_default(),
        opted_in: row.get(13)?,
    })
}

fn record_outcome(
    db: &Connection,
    id: i64,
    outcome: &SendOutcome,
    now: Timestamp,
) -> Result<(), StoreError> {
    match outcome {
        SendOutcome::Sent { sid, status } => {
            let bytes = packing::sid_bytes(sid.as_str());
            // To SENT (4), from any state: Twilio's SID proves that it has accepted the message, even if another worker
            // has recorded a failure. A SID that is known already stays.
            db.prepare_cached("UPDATE outbound SET state = 4, owner = NULL, sid = coalesce(sid, ?2), reason = NULL WHERE id = ?1")?
                .execute(params![id, bytes])?;
            status_events::raise_status(
                db,
                id,
                status.as_str(),
                states::status_rank(status),
                None,
            )?;
            // A status callback may arrive before the response to the REST call.
            let early: Option<(String, i64, Option<u32>)> = db
                .prepare_cached(
                    "DELETE FROM unmatched_status WHERE sid = ?2 AND account = (SELECT account FROM outbound WHERE id = ?1) \
                     RETURNING status, rank, error_code",
                )?
                .query_row(params![id, bytes], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            if let Some((status, rank, code)) = early {
                status_events::raise_status(db, id, &status, rank, code)?;
            }
        }
        // The other outcomes change a message only while it is SENDING or UNKNOWN (1, 2): nothing takes back that it
        // was sent. Back to PENDING (0).
        SendOutcome::Retry { not_before } => {
            db.prepare_cached(
                "UPDATE outbound SET state = 0, owner = NULL, not_before = ?2 WHERE id = ?1 AND state IN (1, 2)",
            )?
            .execute(params![id, not_before.as_microsecond()])?;
            delay_queue(db, id, *not_before, now)?;
        }
        // To FAILED (5).
        SendOutcome::Failed { code, reason } => {
            let code = code.map(|code| code.0);
            let failed = db
                .prepare_cached(
                    "UPDATE outbound SET state = 5, owner = NULL, error_code = ?2, reason = ?3 WHERE id = ?1 AND state IN (1, 2) \
                     RETURNING sender, address, service",
                )?
                .query_row(params![id, code, reason], |row| {
                    let service: Option<String> = row.get(2)?;
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, service))
                })
                .optional()?;
            if let Some((sender, user, service)) = failed
                && let Some(scope) = decisions::opt_out_scope(code, &sender, service.as_deref())
            {
                status_events::record_rejection(
                    db,
                    &ConsentRecord::refusal(scope, user, None, now),
                )?;
            }
        }
        // To UNKNOWN (2), or its next lookup.
        SendOutcome::Unknown {
            lookup_at,
            looked_up,
        } => {
            db.prepare_cached(
                "UPDATE outbound SET state = 2, owner = NULL, not_before = ?2, lookups = lookups + ?3 WHERE id = ?1 AND state IN (1, 2)",
            )?
            .execute(params![id, lookup_at.as_microsecond(), looked_up])?;
        }
        // To HELD (3), only from UNKNOWN (2): the lookups have not found the message.
        SendOutcome::Held => {
            db.prepare_cached(
                "UPDATE outbound SET state = 3, owner = NULL, reason = 'whether it was sent is not known' WHERE id = ?1 AND state = 2",
            )?
            .execute([id])?;
        }
    }
    Ok(())
}

/// Delays the later messages of the same sender to the same user as long as a message that is retried.
// Without it, every claim would read these messages and pass over them. `attempt = 1` keeps their position, as if they
// had been tried too. PENDING (0) only; `state < 3` is the condition of the index `outbound_queue`.
fn delay_queue(
    db: &Connection,
    id: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE outbound SET not_before = ?2, attempt = max(attempt, 1) \
         FROM (SELECT sender, address, account FROM outbound WHERE id = ?1 AND state = 0) AS retried \
         WHERE outbound.sender = retried.sender AND outbound.address = retried.address AND outbound.account = retried.account AND outbound.id > ?1 \
         AND outbound.state = 0 AND outbound.state < 3 AND outbound.not_before < ?2 AND outbound.not_before <= ?3",
    )?
    .execute(params![id, until.as_microsecond(), now.as_microsecond()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Access;
    use crate::store::sqlite::schema::DatabaseFile;

    // The time of these statements must not grow with the number of completed messages.
    #[test]
    fn open_outbox_queries_avoid_table_scans() {
        let database = DatabaseFile {
            path: None,
            wait_for_lock: crate::store::sqlite::busy_handler::wait::<0>,
        };
        let db = database.open(Access::Owner).unwrap();
        for sql in [
            MARK_ORPHANS_UNKNOWN,
            END_LONG_PAUSES,
            DUE_LOOKUPS,
            DUE_MESSAGES,
            SCHEDULED_TO_CANCEL,
        ] {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let mut steps = plan.raw_query();
            while let Some(step) = steps.next().unwrap() {
                let step: String = step.get(3).unwrap();
                assert!(!step.starts_with("SCAN"), "{step}: {sql}");
            }
        }
    }
}
