//! Messages of the outbox in SQLite: queueing, lookups and outcomes.

use jiff::Timestamp;
use replyhook_core::address_key::{AddressKey, ConsentKey};
use rusqlite::{Connection, OptionalExtension, params};

use super::database::ready;
use super::reading::message;
use crate::clock::after;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::conversations::ConsentRecord;
use crate::store::error::StoreError;
use crate::store::outbound_message::{NewOutbound, OutboundMessage, SendOutcome};
use crate::store::outbox::LOOKUP_TIMEOUT;
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::due_messages::queues_of_conversation;
use crate::store::shared::{outbox as shared_outbox, status_events};
use crate::store::{decisions, packing, states};

fn to_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Queues messages, and returns their IDs. `inbound` is the message that they reply to.
pub(super) fn insert(
    db: &Connection,
    inbound: Option<i64>,
    replies: &[NewOutbound],
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let mut ids = Vec::with_capacity(replies.len());
    for (ordinal, reply) in replies.iter().enumerate() {
        let key = AddressKey::of(&reply.user);
        // In PENDING (0). `ordinal` is the order of the parts of a reply. `unordered` is inherited from a retried
        // message: its reply is late, and later replies must not wait for it.
        db.prepare_cached(
            "INSERT INTO outbound (inbound, ordinal, account, auth_token, sender, address, address_key, consent_key, service, template, \
             state, not_before, created_at, params, unordered) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?11, ?12, \
             (SELECT unordered FROM inbound WHERE id = ?1))",
        )?
        .execute(params![
            inbound,
            to_i64(ordinal),
            packing::sid_bytes(reply.account.as_str()),
            packing::auth_token_number(reply.auth_token),
            reply.sender.as_str(),
            reply.user.as_str(),
            key.as_str(),
            ConsentKey::from(&key).as_str(),
            reply.service.as_ref().map(MessagingServiceSid::as_str),
            reply.template,
            now.as_microsecond(),
            reply.params.encode(),
        ])?;
        ids.push(db.last_insert_rowid());
    }
    Ok(ids)
}

/// Queues the confirmation of an opt-out, and returns the IDs of its messages.
pub(super) fn insert_confirmation(
    db: &Connection,
    messages: &[NewOutbound],
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let ids = insert(db, None, messages, now)?;
    for id in &ids {
        db.prepare_cached("UPDATE outbound SET confirms_opt_out = 1 WHERE id = ?1")?
            .execute([id])?;
    }
    Ok(ids)
}

// As in `outbox_claim`, `state < 4` is the condition of the partial index of open messages.

/// Finds the messages in UNKNOWN (2) whose lookup is due.
// A lookup of a dead process has another owner. It never ends, so the message is due immediately.
const DUE_LOOKUPS: &str = "SELECT id FROM outbound WHERE state = 2 AND state < 4 AND (not_before <= ?1 OR owner <> ?3) \
     ORDER BY not_before LIMIT ?2";

/// Claims the messages whose lookup is due.
pub(super) fn claim_lookups(
    db: &Connection,
    me: i64,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, StoreError> {
    // The new owner and time keep other workers from the same lookup until it is recorded or has timed out.
    let ids: Vec<i64> = db
        .prepare_cached(DUE_LOOKUPS)?
        .query_map(params![now.as_microsecond(), to_i64(limit), me], |row| {
            row.get(0)
        })?
        .collect::<Result<_, _>>()?;
    ids.into_iter()
        .map(|id| {
            db.prepare_cached("UPDATE outbound SET owner = ?3, not_before = ?2 WHERE id = ?1")?
                .execute(params![id, after(now, LOOKUP_TIMEOUT).as_microsecond(), me])?;
            message(db, id, now)
        })
        .collect()
}

/// Returns those of the SIDs that belong to no message in the outbox.
pub(super) fn unmatched_sids(
    db: &Connection,
    account: AccountSid,
    sids: &[MessageSid],
) -> Result<Vec<MessageSid>, StoreError> {
    let mut unmatched = Vec::new();
    for sid in sids {
        let is_known: bool = db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM outbound WHERE sid = ?1 AND account = ?2) \
                 OR EXISTS (SELECT 1 FROM outbound WHERE earlier_sid = ?1 AND account = ?2)",
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
}

/// Records the outcome of a call or a lookup.
pub(super) fn record_outcome(
    db: &Connection,
    me: i64,
    id: i64,
    outcome: &SendOutcome,
    now: Timestamp,
    records_events: bool,
) -> Result<(), StoreError> {
    match outcome {
        SendOutcome::Sent { sid, status } => {
            let bytes = packing::sid_bytes(sid.as_str());
            // To SENT (4), from any state: Twilio's SID proves that it has accepted the message, even if another worker
            // has recorded a failure. A SID that is known already stays. Not if a callback has already reported the failure
            // of this send, and a second one is queued.
            let recorded = db
                .prepare_cached(
                    "UPDATE outbound SET state = 4, owner = NULL, sid = coalesce(sid, ?2), reason = NULL \
                     WHERE id = ?1 AND (earlier_sid IS NULL OR earlier_sid <> ?2)",
                )?
                .execute(params![id, bytes])?;
            if recorded == 0 {
                return Ok(());
            }
            let (status, rank) = (status.as_str(), states::status_rank(status));
            ready(status_events::raise_status(
                &mut &*db, id, status, rank, None,
            ))?;
            // A status callback may arrive before the response to the REST call.
            ready(status_events::apply_unmatched(&mut &*db, id, *sid, now))?;
        }
        SendOutcome::Prepared => ready(shared_outbox::end_preparation(&mut &*db, me, id))?,
        // The other outcomes change a message only while it is SENDING or UNKNOWN (1, 2): nothing takes back that it
        // was sent.
        SendOutcome::Retry { not_before, .. }
        | SendOutcome::RetryOnce { not_before, .. }
        | SendOutcome::RetryAsText { not_before, .. } => {
            ready(shared_outbox::queue_again(&mut &*db, me, id, outcome))?;
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
                let record = ConsentRecord::refusal(scope, user, None, now);
                let mut db = db;
                let mut db = RecordingDatabase::new(&mut db, records_events);
                ready(status_events::record_rejection(&mut db, &record))?;
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

/// Delays the later messages of the same conversation as long as a message that is retried.
// Without it, every claim would read these messages and pass over them. `attempt = 1` keeps their position, as if they
// had been tried too. PENDING (0) only; `state < 3` is the condition of the index `outbound_queue`.
fn delay_queue(
    db: &Connection,
    id: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    db.prepare_cached(concat!(
        "UPDATE outbound SET not_before = ?2, attempt = max(attempt, 1) FROM (",
        queues_of_conversation!(),
        ") AS retried \
         WHERE outbound.sender = retried.sender AND outbound.address_key = retried.address_key AND outbound.account = retried.account AND outbound.id > ?1 \
         AND outbound.state = 0 AND outbound.state < 3 AND outbound.not_before < ?2 AND outbound.not_before <= ?3"
    ))?
    .execute(params![id, until.as_microsecond(), now.as_microsecond()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Access;
    use crate::store::shared::outbox::SCHEDULED_TO_CANCEL;
    use crate::store::sqlite::schema::DatabaseFile;

    // The time of these statements must not grow with the number of completed messages.
    #[test]
    fn open_outbox_queries_avoid_table_scans() {
        let database = DatabaseFile {
            path: None,
            wait_for_lock: crate::store::sqlite::busy_handler::wait::<0>,
        };
        let db = database.open(Access::Owner).unwrap();
        for sql in [DUE_LOOKUPS, SCHEDULED_TO_CANCEL] {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let mut steps = plan.raw_query();
            while let Some(step) = steps.next().unwrap() {
                let step: String = step.get(3).unwrap();
                assert!(!step.starts_with("SCAN"), "{step}: {sql}");
            }
        }
    }
}
