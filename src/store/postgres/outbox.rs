//! [`Outbox`] in PostgreSQL.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::{PgConnection, Postgres, Row};

use super::error::CallError;
use super::text::{pack, unpack};
use super::{PostgresStore, calls, operator, status_events, submission};
use crate::address::Address;
use crate::clock::after;
use crate::form::FormParams;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::outbox::{LOOKUP_GRACE, LOOKUP_TIMEOUT, MAX_PAUSE};
use crate::store::{
    ConsentRecord, IdempotencyKey, NewOutbound, OutboundMessage, OutboundRow, OutboundState,
    Outbox, OutboxStats, ScheduledMessage, SendEligibility, SendOutcome, StatusEffect, StatusEvent,
    StoreFuture, Submission, SubmitOutcome, decisions, packing, states,
};

impl Outbox for PostgresStore {
    fn claim(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>> {
        let me = self.owner;
        self.run_claiming(move |db| Box::pin(claim(db, me, limit, now)))
    }

    fn record_outcome(&self, id: i64, outcome: SendOutcome, now: Timestamp) -> StoreFuture<'_, ()> {
        let (me, outcome) = (self.owner, Arc::new(outcome));
        // Only this outcome stores a SID, so only it can race with a status callback of the same message.
        let begin = match &*outcome {
            SendOutcome::Sent { sid, .. } => begin_with_sid_lock(*sid),
            _ => calls::BEGIN.to_owned(),
        };
        self.call(Some(begin.into()), move |db| {
            let outcome = outcome.clone();
            Box::pin(async move { record_outcome(db, me, id, &outcome, now).await })
        })
    }

    fn claim_lookups(&self, limit: usize, now: Timestamp) -> StoreFuture<'_, Vec<OutboundMessage>> {
        self.run(move |db| {
            Box::pin(async move {
                let found = sqlx::query(CLAIM_LOOKUPS)
                    .bind(now.as_microsecond())
                    .bind(to_i64(limit))
                    .bind(after(now, LOOKUP_TIMEOUT).as_microsecond())
                    .fetch_all(db)
                    .await?;
                found.iter().map(|row| read_message(row, now)).collect()
            })
        })
    }

    fn scheduled_to_cancel(
        &self,
        after: i64,
        limit: usize,
    ) -> StoreFuture<'_, Vec<ScheduledMessage>> {
        self.run(move |db| {
            Box::pin(async move {
                let found = sqlx::query(SCHEDULED_TO_CANCEL)
                    .bind(after)
                    .bind(to_i64(limit))
                    .fetch_all(db)
                    .await?;
                found
                    .iter()
                    .map(|row| {
                        Ok(ScheduledMessage {
                            id: row.try_get(0)?,
                            account: packing::account_sid(row.try_get(1)?)?,
                            auth_token: packing::auth_token(row.try_get(2)?),
                            sid: packing::message_sid(row.try_get(3)?)?,
                        })
                    })
                    .collect()
            })
        })
    }

    fn unmatched_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> StoreFuture<'_, Vec<MessageSid>> {
        let sids: Arc<[MessageSid]> = sids.into();
        self.run(move |db| {
            let sids = sids.clone();
            Box::pin(async move {
                let packed: Vec<_> = sids
                    .iter()
                    .map(|sid| packing::sid_bytes(sid.as_str()))
                    .collect();
                let known: Vec<Vec<u8>> = sqlx::query_scalar(
                    "SELECT sid FROM outbound WHERE sid = ANY ($1) AND account = $2",
                )
                .bind(packed)
                .bind(packing::sid_bytes(account.as_str()))
                .fetch_all(db)
                .await?;
                let is_unmatched =
                    |sid: &&MessageSid| !known.contains(&packing::sid_bytes(sid.as_str()));
                Ok(sids.iter().filter(is_unmatched).copied().collect())
            })
        })
    }

    fn enqueue(&self, replies: Vec<NewOutbound>, now: Timestamp) -> StoreFuture<'_, Vec<i64>> {
        let replies = Arc::new(Columns::of(&replies));
        self.run(move |db| {
            let replies = replies.clone();
            Box::pin(async move { insert(db, &replies, now).await })
        })
    }

    fn submit(&self, submission: Submission, now: Timestamp) -> StoreFuture<'_, SubmitOutcome> {
        let submission = Arc::new(submission);
        self.write(move |db| {
            let submission = submission.clone();
            Box::pin(async move { submission::submit(db, &submission, now).await })
        })
    }

    fn eligibility(
        &self,
        sender: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> StoreFuture<'_, SendEligibility> {
        let pair = Arc::new((sender.clone(), user.clone()));
        self.run(move |db| {
            let pair = pair.clone();
            Box::pin(
                async move { submission::eligibility(db, &pair.0, service, &pair.1, at).await },
            )
        })
    }

    fn find_by_key(&self, key: IdempotencyKey) -> StoreFuture<'_, Option<i64>> {
        self.run(move |db| Box::pin(async move { submission::find_by_key(db, &key).await }))
    }

    fn outbound(&self, id: i64) -> StoreFuture<'_, Option<OutboundRow>> {
        self.run(move |db| Box::pin(operator::find_outbound(db, id)))
    }

    fn apply_status(&self, event: StatusEvent) -> StoreFuture<'_, StatusEffect> {
        let begin = begin_with_sid_lock(event.sid);
        let event = Arc::new(event);
        self.call(Some(begin.into()), move |db| {
            let event = event.clone();
            Box::pin(async move { status_events::apply_status(db, &event).await })
        })
    }

    fn outbox_stats(&self) -> StoreFuture<'_, OutboxStats> {
        self.run(|db| {
            Box::pin(async {
                // Open messages (below 4). `due` is the send time from the rate limit: a message is not late before
                // that.
                let found: Vec<(i64, i64, i64)> = sqlx::query_as(
                    "SELECT state, count(*), min(coalesce(due, created_at)) FROM outbound WHERE state < 4 GROUP BY state",
                )
                .fetch_all(db)
                .await?;
                let mut stats = OutboxStats::default();
                for (state, number, oldest) in found {
                    stats.add(state, number, packing::time(oldest)?);
                }
                Ok(stats)
            })
        })
    }
}

/// SQL that begins a transaction under an advisory lock on a message SID.
// The response of a REST call and the status callback of the same message can arrive concurrently on two servers.
// Without the lock, `record_outcome` finds no early status and `status_events::apply_status` finds no message, since
// the other transaction is not committed: the status would be lost. The lock ends with the transaction, so a connection
// pooler cannot lose it.
fn begin_with_sid_lock(sid: MessageSid) -> String {
    // 15 hexadecimal digits fit into the key. Two messages that share them wait for each other; nothing worse.
    let digits = sid.as_str().get(2..17).unwrap_or_default();
    let key = i64::from_str_radix(digits, 16).unwrap_or(0);
    format!("{}; SELECT pg_advisory_xact_lock({key})", calls::BEGIN)
}

fn to_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Columns of new messages, for `unnest`.
#[derive(Default)]
pub(super) struct Columns {
    accounts: Vec<Vec<u8>>,
    auth_tokens: Vec<i64>,
    senders: Vec<String>,
    addresses: Vec<String>,
    services: Vec<Option<String>>,
    templates: Vec<bool>,
    params: Vec<String>,
}

impl Columns {
    pub(super) fn of(replies: &[NewOutbound]) -> Self {
        let mut columns = Self::default();
        for reply in replies {
            let service = reply.service.as_ref();
            columns
                .accounts
                .push(packing::sid_bytes(reply.account.as_str()));
            columns
                .auth_tokens
                .push(packing::auth_token_number(reply.auth_token));
            columns
                .senders
                .push(pack(reply.sender.as_str()).into_owned());
            columns
                .addresses
                .push(pack(reply.user.as_str()).into_owned());
            columns
                .services
                .push(service.map(|sid| sid.as_str().to_owned()));
            columns.templates.push(reply.template);
            columns
                .params
                .push(pack(&reply.params.encode()).into_owned());
        }
        columns
    }

    /// Binds the parameters of `unnest`.
    pub(super) fn bind<'q, O>(
        &'q self,
        query: QueryAs<'q, Postgres, O, PgArguments>,
    ) -> QueryAs<'q, Postgres, O, PgArguments> {
        query
            .bind(&self.accounts)
            .bind(&self.auth_tokens)
            .bind(&self.senders)
            .bind(&self.addresses)
            .bind(&self.services)
            .bind(&self.templates)
            .bind(&self.params)
    }
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

// In PENDING (0). `ORDER BY`, so that ids rise with the messages: the outbox sends by id.
const ENQUEUE: &str = "INSERT INTO outbound (ordinal, account, auth_token, sender, address, service, template, state, not_before, \
     created_at, params) SELECT r.ordinal - 1, r.account, r.auth_token, r.sender, r.address, r.service, r.template, 0, $1, $1, r.params \
     FROM unnest($2::bytea[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::text[]) WITH ORDINALITY \
     AS r (account, auth_token, sender, address, service, template, params, ordinal) ORDER BY r.ordinal RETURNING ordinal, id";

/// SQL columns of the message `m`, in the order that `read_message` expects.
// Window and consent are read with each claim, since both may have changed after the message was queued.
macro_rules! message {
    () => {
        "m.id, m.created_at, m.account, m.auth_token, m.sender, m.address, m.service, m.template, m.attempt, m.lookups, m.sent_at, m.params, \
         (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.sender = m.sender AND a.address = m.address), \
         EXISTS (SELECT 1 FROM consent c WHERE c.opted_in IS NOT NULL AND c.scope IN (m.sender, m.service) \
           AND (c.address = m.address OR c.address IN (SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation WHERE a.sender = m.sender AND a.address = m.address)))"
    };
}

/// Makes messages unknown that a dead process was sending.
// SENDING (1) becomes UNKNOWN (2). The process may have died after its call reached Twilio, so the call must not be
// repeated on a guess.
const MARK_ORPHANS_UNKNOWN: &str = concat!(
    "UPDATE outbound r SET state = 2, owner = NULL, not_before = $2 WHERE r.state = 1 AND r.owner <> $1 AND NOT ",
    has_valid_lease!("r.owner"),
);

/// Ends pauses that would last too long, because they were written before the clock was set back.
// PENDING and UNKNOWN (0, 2) only: in other states `not_before` has no effect. `due` is the send time of a rate-limited
// message, which may be far ahead. `state < 4` repeats the condition of the partial index `outbound_open`, so that
// PostgreSQL can use it.
const END_LONG_PAUSES: &str = "UPDATE outbound SET not_before = $1 \
     WHERE state IN (0, 2) AND state < 4 AND not_before > $2 AND due IS NULL";

/// SQL condition: the user of a row has opted out, with any address.
// If the sender is the service's SID, the service chooses the sender, so an opt-out from any sender counts.
macro_rules! opted_out {
    ($row:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM consent c WHERE c.opted_out IS NOT NULL \
               AND (c.scope = ",
            $row,
            ".sender OR c.scope = ",
            $row,
            ".service OR ",
            $row,
            ".sender = ",
            $row,
            ".service) \
               AND (c.address = ",
            $row,
            ".address OR c.address IN (SELECT b.address FROM conversation_address a \
                 JOIN conversation_address b ON b.conversation = a.conversation \
                 WHERE a.sender = ",
            $row,
            ".sender AND a.address = ",
            $row,
            ".address)))"
        )
    };
}

/// Messages that Twilio has scheduled and whose user has opted out since.
const SCHEDULED_TO_CANCEL: &str = concat!(
    "SELECT r.id, r.account, r.auth_token, r.sid FROM outbound r \
     WHERE r.status = 'scheduled' AND r.sid IS NOT NULL AND r.id > $1 AND ",
    opted_out!("r"),
    " ORDER BY r.id LIMIT $2",
);

/// Claims due messages, or suppresses them if their user has opted out.
// From PENDING (0) to SENDING (1), or to SUPPRESSED (6).
//
// Order: `due` takes a message only if it is the oldest of its queue (sender, user, account) that is due, in flight (1,
// 2: SENDING, UNKNOWN) or was tried before. A message with a time ahead that was never tried does not block others. The
// second subquery is the order within a reply: a part waits until all parts before it are SENT or SUPPRESSED (4, 6).
//
// A part behind a HELD or FAILED part (3, 5) will not be sent without an operator, so it blocks no other message.
//
// SKIP LOCKED: a locked row belongs to a transaction that is claiming it or recording its outcome. Two messages of one
// queue are not claimed concurrently, because the younger one's subquery still counts the older one while it is open.
//
// The statement that claims also checks the opt-out, so an opt-out that was committed before the claim always counts.
const CLAIM: &str = concat!(
    "WITH due AS (SELECT r.id, r.sender, r.address, r.service FROM outbound r WHERE r.state = 0 AND r.not_before <= $2 \
       AND r.id = (SELECT q.id FROM outbound q WHERE q.sender = r.sender AND q.address = r.address AND q.account = r.account \
         AND q.state < 3 AND (q.state > 0 OR q.not_before <= $2 OR q.attempt > 0) \
         AND (q.inbound IS NULL OR NOT EXISTS (\
           SELECT 1 FROM outbound p WHERE p.inbound = q.inbound AND p.ordinal < q.ordinal AND p.state IN (3, 5))) \
         ORDER BY q.id LIMIT 1) \
       AND (r.inbound IS NULL OR NOT EXISTS (\
         SELECT 1 FROM outbound p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state NOT IN (4, 6))) \
       ORDER BY r.not_before, r.id LIMIT $3 FOR UPDATE SKIP LOCKED), \
     checked AS (SELECT due.id, ",
    opted_out!("due"),
    " AS opted_out FROM due), \
     m AS (UPDATE outbound r SET state = CASE WHEN c.opted_out THEN 6 ELSE 1 END, \
       reason = CASE WHEN c.opted_out THEN 'the user has opted out' ELSE r.reason END, \
       owner = CASE WHEN c.opted_out THEN r.owner ELSE $1 END, \
       attempt = r.attempt + CASE WHEN c.opted_out THEN 0 ELSE 1 END, \
       sent_at = CASE WHEN c.opted_out THEN r.sent_at ELSE $2 END FROM checked c WHERE r.id = c.id RETURNING r.*) \
     SELECT ",
    message!(),
    " FROM m WHERE m.state = 1 ORDER BY m.id"
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

/// Messages in an open state, without claiming them.
// `state < 4` is the condition of the partial index `outbound_open`; it does not follow from a parameter.
const LIST_OPEN: &str = concat!(
    "SELECT ",
    message!(),
    " FROM outbound m WHERE m.state = $1 AND m.state < 4 AND m.id > $2 ORDER BY m.id LIMIT $3"
);

/// Lists messages in an open state, in the order of their ids.
pub(super) async fn list_open(
    db: &mut PgConnection,
    state: OutboundState,
    after: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, CallError> {
    let found = sqlx::query(LIST_OPEN)
        .bind(states::outbound_state_number(state))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    found.iter().map(|row| read_message(row, now)).collect()
}

async fn claim(
    db: &mut PgConnection,
    me: i64,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, CallError> {
    // Twilio's status callback may still prove that the call was processed, so the look-up waits for it.
    sqlx::query(MARK_ORPHANS_UNKNOWN)
        .bind(me)
        .bind(after(now, LOOKUP_GRACE).as_microsecond())
        .execute(&mut *db)
        .await?;
    sqlx::query(END_LONG_PAUSES)
        .bind(now.as_microsecond())
        .bind(after(now, MAX_PAUSE).as_microsecond())
        .execute(&mut *db)
        .await?;
    let claimed = sqlx::query(CLAIM)
        .bind(me)
        .bind(now.as_microsecond())
        .bind(to_i64(limit))
        .fetch_all(db)
        .await?;
    claimed.iter().map(|row| read_message(row, now)).collect()
}

fn read_message(row: &PgRow, now: Timestamp) -> Result<OutboundMessage, CallError> {
    let sender: Address = unpack(row.try_get(4)?).into();
    let user: Address = unpack(row.try_get(5)?).into();
    let service: Option<String> = row.try_get(6)?;
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let sent_at: Option<i64> = row.try_get(10)?;
    let params: Option<String> = row.try_get(11)?;
    let params = params.map(unpack).unwrap_or_default();
    let last_inbound: Option<i64> = row.try_get(12)?;
    Ok(OutboundMessage {
        id: row.try_get(0)?,
        created_at: packing::time(row.try_get(1)?)?,
        account: packing::account_sid(row.try_get(2)?)?,
        auth_token: packing::auth_token(row.try_get(3)?),
        template: row.try_get(7)?,
        window: decisions::window(&user, last_inbound, now)?,
        sender,
        user,
        service: service.and_then(|service| service.parse().ok()),
        attempt: number(row.try_get(8)?),
        lookups: number(row.try_get(9)?),
        sent_at: sent_at.map(packing::time).transpose()?,
        params: FormParams::parse(params.as_bytes(), usize::MAX).unwrap_or_default(),
        opted_in: row.try_get(13)?,
    })
}

/// Records the outcome of a call.
// Except for `Sent`, each update requires that this process is SENDING (1) the message or that its result is
// UNKNOWN (2). A message that another process has claimed since then is left to that process. `Sent` is a fact,
// with or without a claim.
async fn record_outcome(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    outcome: &SendOutcome,
    now: Timestamp,
) -> Result<(), CallError> {
    match outcome {
        SendOutcome::Sent { sid, status } => {
            let bytes = packing::sid_bytes(sid.as_str());
            // To SENT (4). A callback may have stored SID and status first: neither is overwritten with an older one.
            sqlx::query(
                "UPDATE outbound SET state = 4, owner = NULL, sid = coalesce(sid, $2), reason = NULL, \
                 status = CASE WHEN rank < $4 THEN $3 ELSE status END, rank = greatest(rank, $4) WHERE id = $1",
            )
            .bind(id)
            .bind(&bytes)
            .bind(pack(status.as_str()))
            .bind(states::status_rank(status))
            .execute(&mut *db)
            .await?;
            // A callback may have arrived before the call's response, when no message had this SID.
            let early: Option<(String, i64, Option<i64>)> = sqlx::query_as(
                "DELETE FROM unmatched_status WHERE sid = $2 AND account = (SELECT account FROM outbound WHERE id = $1) \
                 RETURNING status, rank, error_code",
            )
            .bind(id)
            .bind(&bytes)
            .fetch_optional(&mut *db)
            .await?;
            if let Some((status, rank, code)) = early {
                status_events::raise_status(db, id, &status, rank, code).await?;
            }
        }
        // Back to PENDING (0).
        SendOutcome::Retry { not_before } => {
            sqlx::query(
                "UPDATE outbound SET state = 0, owner = NULL, not_before = $2 \
                 WHERE id = $1 AND (state = 2 OR (state = 1 AND owner = $3))",
            )
            .bind(id)
            .bind(not_before.as_microsecond())
            .bind(me)
            .execute(&mut *db)
            .await?;
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
            .bind(*reason)
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
                status_events::record_rejection(db, &record).await?;
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

/// Delays due messages behind a retried one of the same queue until that one is due again.
// Otherwise each claim would read them and pass over them. `attempt = 1` marks them as tried, so that
// `CLAIM` keeps their place in the queue although they are not due. PENDING (0) only. SKIP LOCKED: a delay is not worth
// waiting for another transaction.
async fn delay_queue(
    db: &mut PgConnection,
    id: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), CallError> {
    sqlx::query(
        "WITH later AS (SELECT r.id FROM outbound retried JOIN outbound r ON r.sender = retried.sender AND r.address = retried.address \
           AND r.account = retried.account WHERE retried.id = $1 AND retried.state = 0 AND r.id > $1 AND r.state = 0 AND r.not_before < $2 AND r.not_before <= $3 \
           ORDER BY r.id FOR UPDATE OF r SKIP LOCKED) \
         UPDATE outbound r SET not_before = $2, attempt = greatest(r.attempt, 1) FROM later WHERE r.id = later.id",
    )
    .bind(id)
    .bind(until.as_microsecond())
    .bind(now.as_microsecond())
    .execute(db)
    .await?;
    Ok(())
}

/// Makes the messages UNKNOWN (2) that this process is SENDING (1) at its end: they have to be looked up at Twilio.
pub(super) async fn mark_calls_unknown(db: &mut PgConnection, me: i64) -> Result<(), CallError> {
    sqlx::query("UPDATE outbound SET state = 2, owner = NULL WHERE state = 1 AND owner = $1")
        .bind(me)
        .execute(db)
        .await?;
    Ok(())
}
