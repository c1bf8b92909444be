//! Messages of the outbox in PostgreSQL: queueing, lookups and outcomes.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::calls;
use super::error::CallError;
use super::new_outbound::{Columns, new_outbound_rows};
use super::reading::{message, read_message};
use super::text::{pack, unpack};
use crate::clock::after;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid};
use crate::store::conversations::ConsentRecord;
use crate::store::outbound_message::{OutboundMessage, SendOutcome};
use crate::store::outbox::LOOKUP_TIMEOUT;
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::due_messages::queues_of_conversation;
use crate::store::shared::{outbox as shared_outbox, status_events};
use crate::store::{decisions, packing, states};

/// SQL that begins a transaction under an advisory lock on a message SID.
// The response of a REST call and the status callback of the same message can arrive concurrently on two servers.
// Without the lock, `record_outcome` finds no early status and `status_events::apply_status` finds no message, since
// the other transaction is not committed: the status would be lost. The lock ends with the transaction, so a connection
// pooler cannot lose it.
pub(super) fn begin_with_sid_lock(sid: MessageSid) -> String {
    // 15 hexadecimal digits fit into the key. Two messages that share them wait for each other; nothing worse.
    let digits = sid.as_str().get(2..17).unwrap_or_default();
    let key = i64::from_str_radix(digits, 16).unwrap_or(0);
    format!("{}; SELECT pg_advisory_xact_lock({key})", calls::BEGIN)
}

fn to_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Queues outbound messages. Returns their ids in the order of the messages.
pub(super) async fn insert(
    db: &mut PgConnection,
    replies: &Columns,
    now: Timestamp,
) -> Result<Vec<i64>, CallError> {
    let query = sqlx::query_as(ENQUEUE).bind(now.as_microsecond());
    let mut ids: Vec<(i64, i64)> = replies.bind(query).fetch_all(db).await?;
    // RETURNING does not promise an order. The first column is the ordinal.
    ids.sort_unstable();
    Ok(ids.into_iter().map(|(_, id)| id).collect())
}

/// Queues the confirmation of an opt-out. Returns the ids of its messages.
pub(super) async fn insert_confirmation(
    db: &mut PgConnection,
    messages: &Columns,
    now: Timestamp,
) -> Result<Vec<i64>, CallError> {
    let ids = insert(db, messages, now).await?;
    sqlx::query("UPDATE outbound SET confirms_opt_out = true WHERE id = ANY ($1)")
        .bind(&ids)
        .execute(db)
        .await?;
    Ok(ids)
}

// In PENDING (0). `ORDER BY`, so that ids rise with the messages: the outbox sends by id.
const ENQUEUE: &str = concat!(
    "INSERT INTO outbound (ordinal, account, auth_token, sender, address, address_key, consent_key, service, template, state, not_before, \
     created_at, params) SELECT r.ordinal - 1, r.account, r.auth_token, r.sender, r.address, r.address_key, r.consent_key, r.service, \
     r.template, 0, $1, $1, r.params \
     FROM ",
    new_outbound_rows!("$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10"),
    " ORDER BY r.ordinal RETURNING ordinal, id"
);

/// Due messages of unknown result (2, UNKNOWN), to be looked up in Twilio's list.
// Moves `not_before` past the time that a look-up may take, so that no other server looks up the same message. If this
// process dies, the look-up is due again after that time.
const CLAIM_LOOKUPS: &str = concat!(
    "WITH due AS (SELECT id FROM outbound WHERE state = 2 AND not_before <= $1 ORDER BY not_before LIMIT $2 FOR UPDATE SKIP LOCKED), \
     m AS (UPDATE outbound r SET not_before = $3 FROM due WHERE r.id = due.id RETURNING r.*) SELECT ",
    message!(),
    " FROM m ORDER BY m.id"
);

/// Claims the messages whose lookup is due.
pub(super) async fn claim_lookups(
    db: &mut PgConnection,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, CallError> {
    let found = sqlx::query(CLAIM_LOOKUPS)
        .bind(now.as_microsecond())
        .bind(to_i64(limit))
        .bind(after(now, LOOKUP_TIMEOUT).as_microsecond())
        .fetch_all(db)
        .await?;
    found.iter().map(|row| read_message(row, now)).collect()
}

/// Returns those of the SIDs that belong to no message in the outbox.
pub(super) async fn unmatched_sids(
    db: &mut PgConnection,
    account: AccountSid,
    sids: &[MessageSid],
) -> Result<Vec<MessageSid>, CallError> {
    let packed: Vec<_> = sids
        .iter()
        .map(|sid| packing::sid_bytes(sid.as_str()))
        .collect();
    let known: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT sid FROM outbound WHERE sid = ANY ($1) AND account = $2 \
             UNION ALL SELECT earlier_sid FROM outbound WHERE earlier_sid = ANY ($1) AND account = $2")
            .bind(packed)
            .bind(packing::sid_bytes(account.as_str()))
            .fetch_all(db)
            .await?;
    let is_unmatched = |sid: &&MessageSid| !known.contains(&packing::sid_bytes(sid.as_str()));
    Ok(sids.iter().filter(is_unmatched).copied().collect())
}

/// Records the outcome of a call.
// Except for `Sent`, each update requires that this process is SENDING (1) the message or that its result is
// UNKNOWN (2). A message that another process has claimed since then is left to that process. `Sent` is a fact,
// with or without a claim.
pub(super) async fn record_outcome(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    outcome: &SendOutcome,
    now: Timestamp,
    records_events: bool,
) -> Result<(), CallError> {
    match outcome {
        SendOutcome::Sent { sid, status } => record_sent(db, id, *sid, status, now).await?,
        SendOutcome::Prepared => shared_outbox::end_preparation(db, me, id).await?,
        SendOutcome::Retry { not_before, .. }
        | SendOutcome::RetryOnce { not_before, .. }
        | SendOutcome::RetryAsText { not_before, .. } => {
            shared_outbox::queue_again(db, me, id, outcome).await?;
            delay_queue(db, id, *not_before, now).await?;
        }
        // To FAILED (5).
        SendOutcome::Failed { code, reason } => {
            let code = code.map(|code| code.0);
            let failed: Option<(String, String, Option<String>)> = sqlx::query_as(
                "UPDATE outbound SET state = 5, owner = NULL, error_code = $2, reason = $3 \
                 WHERE id = $1 AND (state = 2 OR (state = 1 AND owner = $4)) RETURNING sender, address, service",
            )
            .bind(id)
            .bind(code.map(i64::from))
            .bind(reason.as_ref())
            .bind(me)
            .fetch_optional(&mut *db)
            .await?;
            // This process no longer sends the message, so its failure has no consequences.
            let Some((sender, user, service)) = failed else {
                return Ok(());
            };
            let sender = unpack(sender);
            if let Some(scope) = decisions::opt_out_scope(code, &sender, service.as_deref()) {
                let record = ConsentRecord::refusal(scope, unpack(user), None, now);
                let mut db = RecordingDatabase::new(db, records_events);
                status_events::record_rejection(&mut db, &record).await?;
            }
        }
        // To UNKNOWN (2), or its next lookup.
        SendOutcome::Unknown {
            lookup_at,
            looked_up,
        } => {
            sqlx::query(
                "UPDATE outbound SET state = 2, owner = NULL, not_before = $2, lookups = lookups + $3 \
                 WHERE id = $1 AND (state = 2 OR (state = 1 AND owner = $4))",
            )
            .bind(id)
            .bind(lookup_at.as_microsecond())
            .bind(i64::from(*looked_up))
            .bind(me)
            .execute(db)
            .await?;
        }
        // To HELD (3), only from UNKNOWN (2): the lookups have not found the message.
        SendOutcome::Held => {
            sqlx::query(
                "UPDATE outbound SET state = 3, owner = NULL, reason = 'whether it was sent is not known' WHERE id = $1 AND state = 2",
            )
            .bind(id)
            .execute(db)
            .await?;
        }
    }
    Ok(())
}

/// Records that Twilio has accepted a message, and applies a status callback that arrived before.
async fn record_sent(
    db: &mut PgConnection,
    id: i64,
    sid: MessageSid,
    status: &MessageStatus,
    now: Timestamp,
) -> Result<(), CallError> {
    let bytes = packing::sid_bytes(sid.as_str());
    // To SENT (4). A callback may have stored SID and status first: neither is overwritten with an older one. Not if
    // a callback has already reported the failure of this send, and a second one is queued.
    let recorded = sqlx::query(
        "UPDATE outbound SET state = 4, owner = NULL, sid = coalesce(sid, $2), reason = NULL, \
         status = CASE WHEN rank < $4 THEN $3 ELSE status END, rank = greatest(rank, $4) \
         WHERE id = $1 AND (earlier_sid IS NULL OR earlier_sid <> $2)",
    )
    .bind(id)
    .bind(&bytes)
    .bind(pack(status.as_str()))
    .bind(states::status_rank(status))
    .execute(&mut *db)
    .await?;
    if recorded.rows_affected() == 0 {
        return Ok(());
    }
    // A callback may have arrived before the call's response, when no message had this SID.
    status_events::apply_unmatched(db, id, sid, now).await
}

/// Delays due messages behind a retried one of the same conversation until that one is due again.
// Otherwise each claim would read them and pass over them. `attempt = 1` marks them as tried, so that
// the claim keeps their place in the queue although they are not due. PENDING (0) only. SKIP LOCKED: a delay is not worth
// waiting for another transaction.
async fn delay_queue(
    db: &mut PgConnection,
    id: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), CallError> {
    sqlx::query(concat!(
        "WITH retried AS (",
        queues_of_conversation!(),
        "), later AS (SELECT r.id FROM retried JOIN outbound r ON r.sender = retried.sender AND r.address_key = retried.address_key \
           AND r.account = retried.account WHERE r.id > $1 AND r.state = 0 AND r.state < 3 AND r.not_before < $2 AND r.not_before <= $3 \
           ORDER BY r.id FOR UPDATE OF r SKIP LOCKED) \
         UPDATE outbound r SET not_before = $2, attempt = greatest(r.attempt, 1) FROM later WHERE r.id = later.id"
    ))
    .bind(id)
    .bind(until.as_microsecond())
    .bind(now.as_microsecond())
    .execute(db)
    .await?;
    Ok(())
}

/// Makes the messages UNKNOWN (2) that this process is SENDING (1) at its end: they have to be looked up at Twilio. Those
/// that it is preparing become PENDING (0), since no call was made for them.
pub(super) async fn mark_calls_unknown(db: &mut PgConnection, me: i64) -> Result<(), CallError> {
    sqlx::query(
        "UPDATE outbound SET state = CASE WHEN preparing THEN 0 ELSE 2 END, owner = NULL, \
         attempt = attempt - CASE WHEN preparing THEN 1 ELSE 0 END, preparing = NULL WHERE state = 1 AND owner = $1",
    )
        .bind(me)
        .execute(db)
        .await?;
    Ok(())
}
