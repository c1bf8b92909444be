//! [`Journal`] in PostgreSQL.
//!
//! A transaction that claims a message first locks its conversation, in a statement of its own. Under READ COMMITTED
//! the following statements see everything committed before the lock was acquired. Until the commit no other
//! transaction can claim a message of the same conversation.
//!
//! A handler or a request changes a message's state by compare-and-set: one UPDATE whose condition names the states
//! that it may change, and owner and attempt if it needs the claim.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::conversations::DialogueParams;
use super::error::CallError;
use super::text::{pack, unpack};
use super::{PostgresStore, accept, backlog, handoff, outbox};
use crate::store::decisions::{self, MessageState};
use crate::store::outbox::MAX_ORDER_WAIT;
use crate::store::states::{self, inbound};
use crate::store::{
    AcceptOutcome, Claim, ClaimedBacklog, Completion, CrashPolicy, FailOutcome, Journal,
    NewInbound, NewOutbound, QueuedMessage, RedactedParams, ReplyDecision, ReplyPath,
    SavedResponse, StoreFuture, TurnStatus, packing,
};

impl Journal for PostgresStore {
    fn accept(&self, inbound: Arc<NewInbound>) -> StoreFuture<'_, AcceptOutcome> {
        let me = self.owner;
        Box::pin(async move {
            let shared = inbound.clone();
            let fast_path = self.run(move |db| {
                let inbound = shared.clone();
                Box::pin(async move { accept::accept_usual(db, me, &inbound).await })
            });
            if let Some(outcome) = fast_path.await? {
                return Ok(outcome);
            }
            let full_accept = self.run_claiming(move |db| {
                let inbound = inbound.clone();
                Box::pin(async move { accept::accept(db, me, &inbound).await })
            });
            full_accept.await
        })
    }

    fn try_claim(&self, id: i64, now: Timestamp) -> StoreFuture<'_, TurnStatus> {
        let me = self.owner;
        Box::pin(async move {
            // Most polls find that an older message is still open, which needs no lock. A message that seems free is
            // checked again under the lock.
            let unlocked = self
                .run(move |db| Box::pin(async move { Ok(read_state(db, me, id).await?.turn(me)) }));
            if let Some(turn) = unlocked.await? {
                return Ok(turn);
            }
            let claimed = self.run_claiming(move |db| {
                Box::pin(async move {
                    lock_conversation(db, id).await?;
                    let message = lock_and_read_state(db, me, id).await?;
                    match message.turn(me) {
                        Some(turn) => Ok(turn),
                        None => Ok(TurnStatus::Claimed(claim(db, me, &message, now).await?)),
                    }
                })
            });
            claimed.await
        })
    }

    fn queued_behind(&self, claim: Claim, limit: u32) -> StoreFuture<'_, Vec<QueuedMessage>> {
        let me = self.owner;
        self.run(move |db| {
            Box::pin(async move {
                let found = sqlx::query(QUEUED_BEHIND)
                    .bind(me)
                    .bind(claim.id)
                    .bind(i64::from(limit))
                    .fetch_all(db)
                    .await?;
                let queued = found.into_iter().map(|row| {
                    Ok(QueuedMessage {
                        id: row.try_get(0)?,
                        params: RedactedParams(unpack(row.try_get(1)?)),
                        received_at: packing::time(row.try_get(2)?)?,
                    })
                });
                queued.collect()
            })
        })
    }

    fn decide(&self, id: i64, path: ReplyPath, now: Timestamp) -> StoreFuture<'_, ReplyDecision> {
        let me = self.owner;
        self.run(move |db| {
            let path = path.clone();
            Box::pin(async move { decide(db, me, id, path, now).await })
        })
    }

    fn complete_inline(
        &self,
        claim: Claim,
        twiml: Option<String>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, ReplyDecision> {
        let (me, dialogue) = (self.owner, DialogueParams::of(completion.dialogue));
        let (merged, handoff_columns) = (
            completion.merged,
            handoff::columns(completion.handoff.as_ref()),
        );
        let queue = Arc::new(completion.queue);
        self.run(move |db| {
            let (twiml, dialogue, merged) = (twiml.clone(), dialogue.clone(), merged.clone());
            let (url, until) = handoff_columns.clone();
            let queue = queue.clone();
            Box::pin(async move {
                let query = sqlx::query_as(COMPLETE_INLINE)
                    .bind(claim.id)
                    .bind(me)
                    .bind(i64::from(claim.attempt));
                let queue = (*queue).as_ref();
                let decided: Option<(i64, Option<String>)> = dialogue
                    .bind(query, now)
                    .bind(merged)
                    .bind(states::MERGED)
                    .bind(twiml.as_deref().map(pack))
                    .bind(url)
                    .bind(until)
                    .bind(queue.map(|queue| pack(queue.sender.as_str())))
                    .bind(queue.map(|queue| pack(queue.user.as_str())))
                    .bind(micros(MAX_ORDER_WAIT))
                    .fetch_optional(&mut *db)
                    .await?;
                Ok(match decided {
                    Some((inbound::ANSWERED, saved)) => ReplyDecision::Inline(SavedResponse {
                        twiml: saved.map(unpack),
                    }),
                    Some(_) => ReplyDecision::ViaRest,
                    // Nothing was changed: the path was decided before, or the claim is lost.
                    None => read_state(db, me, claim.id)
                        .await?
                        .reply_decision_for(me, claim),
                })
            })
        })
    }

    fn complete_via_rest(
        &self,
        claim: Claim,
        replies: Vec<NewOutbound>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, bool> {
        let (me, dialogue) = (self.owner, DialogueParams::of(completion.dialogue));
        let (merged, handoff_columns) = (
            completion.merged,
            handoff::columns(completion.handoff.as_ref()),
        );
        let reason = completion
            .handoff
            .is_some()
            .then_some(states::NOT_REDIRECTED);
        let replies = Arc::new(outbox::Columns::of(&replies));
        self.run(move |db| {
            let (replies, dialogue, merged) = (replies.clone(), dialogue.clone(), merged.clone());
            let (url, until) = handoff_columns.clone();
            Box::pin(async move {
                let query = sqlx::query_as(COMPLETE_VIA_REST)
                    .bind(claim.id)
                    .bind(me)
                    .bind(i64::from(claim.attempt));
                let query = dialogue.bind(query, now).bind(merged).bind(states::MERGED);
                let query = replies.bind(query).bind(url).bind(until).bind(reason);
                let completed: Option<(i64,)> = query.fetch_optional(db).await?;
                Ok(completed.is_some())
            })
        })
    }

    fn record_failure(
        &self,
        claim: Claim,
        reason: &'static str,
        last_attempt: bool,
    ) -> StoreFuture<'_, FailOutcome> {
        let me = self.owner;
        self.run(move |db| {
            Box::pin(async move {
                // Fenced by the claim. Only PROCESSING (1) can get another request, and becomes FAILED (5). DEFERRED
                // (2) becomes DEAD (6), since Twilio has its response.
                let failed: Option<i64> = sqlx::query_scalar(
                    "UPDATE inbound SET state = CASE WHEN state = 1 AND NOT $5 THEN 5 ELSE 6 END, reason = $4 \
                     WHERE id = $1 AND state IN (1, 2) AND owner = $2 AND attempt = $3 RETURNING state",
                )
                .bind(claim.id)
                .bind(me)
                .bind(i64::from(claim.attempt))
                .bind(reason)
                .bind(last_attempt)
                .fetch_optional(&mut *db)
                .await?;
                Ok(match failed {
                    Some(inbound::FAILED) => FailOutcome::Retryable,
                    Some(_) => FailOutcome::Dead,
                    // Nothing was changed: the message is decided, or the claim is lost.
                    None => {
                        let message = read_state(db, me, claim.id).await?;
                        decisions::failure_not_recorded(message.reply_decision_for(me, claim))
                    }
                })
            })
        })
    }

    fn claim_backlog(
        &self,
        limit: usize,
        policy: CrashPolicy,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedBacklog> {
        let me = self.owner;
        self.run_claiming(move |db| Box::pin(backlog::claim_backlog(db, me, limit, policy, now)))
    }

    fn release_stale_claims(&self, running: Vec<i64>, before: Timestamp) -> StoreFuture<'_, u64> {
        let me = self.owner;
        self.run(move |db| {
            let running = running.clone();
            Box::pin(async move {
                // Open claims (below 3) whose response from the database was lost: the process owns them without
                // knowing. PROCESSING (1) becomes RECEIVED (0). `claimed_at` excludes a claim whose response is still
                // on its way. As in `release_claims`, this is not a crash.
                let released = sqlx::query(
                    "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END \
                     WHERE state < 3 AND owner = $1 AND claimed_at < $2 AND NOT id = ANY ($3)",
                )
                .bind(me)
                .bind(before.as_microsecond())
                .bind(running)
                .execute(db)
                .await?;
                Ok(released.rows_affected())
            })
        })
    }

    fn backfill(&self, inbound: Arc<NewInbound>, twiml: Option<String>) -> StoreFuture<'_, ()> {
        let (me, unflushed) = (self.owner, Arc::new((inbound, twiml)));
        self.run_claiming(move |db| {
            let unflushed = unflushed.clone();
            Box::pin(
                async move { accept::backfill(db, me, &unflushed.0, unflushed.1.as_deref()).await },
            )
        })
    }
}

/// Saves a TwiML reply and completes its message, or defers the message because an older reply has to be sent first.
// One statement: either this reply or the `decide` of the request's deadline wins. Only a reply that wins changes the
// dialogue state and the handoff.
//
// `oldest_reply` is the oldest reply to the same user that is PENDING, SENDING or UNKNOWN (below 3). A part behind a
// HELD or FAILED part (3, 5) of its reply will not be sent without an operator, so nothing waits for it. `unordered`
// marks what an operator has released or retried.
//
// `must_wait` limits the wait to MAX_ORDER_WAIT after that reply was created. `abs`: a time in the future was written
// before the clock was set back, and must not extend the wait.
//
// `message_deferred` moves the message from PROCESSING (1) to DEFERRED (2), and `completed` to ANSWERED (3). Both are
// fenced by owner and attempt.
//
// `completed` checks the opt-out in the statement that completes the message. The reply of a user who opted out after
// the claim becomes NULL, the empty response.
const COMPLETE_INLINE: &str = concat!(
    "WITH oldest_reply AS (SELECT r.created_at FROM outbound r WHERE r.sender = $13 AND r.address = $14 \
       AND r.account = (SELECT account FROM inbound WHERE id = $1) AND r.state < 3 AND r.inbound IS NOT NULL \
       AND r.unordered IS NULL AND NOT EXISTS (\
         SELECT 1 FROM outbound p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state IN (3, 5)) \
       ORDER BY r.id LIMIT 1), \
     must_wait AS (SELECT FROM oldest_reply WHERE abs($7 - created_at) < $15), \
     message_deferred AS (UPDATE inbound SET state = 2, claimed_at = $7 \
       WHERE id = $1 AND state = 1 AND owner = $2 AND attempt = $3 AND EXISTS (SELECT FROM must_wait) RETURNING state), \
     completed AS (UPDATE inbound i SET state = 3, reason = NULL, response = CASE WHEN EXISTS (\
       SELECT 1 FROM conversation_address a JOIN consent c ON c.address = a.address \
       WHERE a.conversation = i.conversation AND c.opted_out IS NOT NULL AND (c.scope = a.sender OR c.scope = i.service)) \
       THEN NULL ELSE $10 END, claimed_at = $7 \
     WHERE i.id = $1 AND i.state = 1 AND i.owner = $2 AND i.attempt = $3 AND NOT EXISTS (SELECT FROM must_wait) \
     RETURNING i.state, i.response, i.conversation), ",
    change_dialogue!(),
    ", ",
    merge_queued!(),
    ", ",
    change_handoff!("$11", "$12"),
    " SELECT state, response FROM completed UNION ALL SELECT state, NULL FROM message_deferred"
);

/// Completes a message and puts its reply into the outbox.
// To DONE (4) from PROCESSING or DEFERRED (1, 2), fenced by owner and attempt. The outbound messages are PENDING (0).
//
// One statement: a crash leaves either the claim or the complete reply, never some of its parts. `queued` reads
// from `completed`, so a lost claim queues nothing. `ORDER BY r.ordinal` makes ids rise with the parts, since the
// outbox sends by id.
const COMPLETE_VIA_REST: &str = concat!(
    "WITH completed AS (UPDATE inbound SET state = 4, reason = $19 \
     WHERE id = $1 AND state IN (1, 2) AND owner = $2 AND attempt = $3 RETURNING id, conversation, unordered), ",
    change_dialogue!(),
    ", ",
    merge_queued!(),
    ", ",
    change_handoff!("$17", "$18"),
    ", queued AS (INSERT INTO outbound (inbound, ordinal, account, auth_token, sender, address, service, template, state, not_before, \
       created_at, params, unordered) SELECT completed.id, r.ordinal - 1, r.account, r.auth_token, r.sender, r.address, r.service, \
       r.template, 0, $7, $7, r.params, completed.unordered FROM completed, unnest($10::bytea[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::boolean[], \
       $16::text[]) WITH ORDINALITY AS r (account, auth_token, sender, address, service, template, params, ordinal) ORDER BY r.ordinal) \
     SELECT id FROM completed"
);

/// Messages that are queued behind a message and that no live process handles, oldest first.
// A message in RECEIVED (0) is in the list even if a process owns it: its request only waits for its turn. One in
// DEFERRED (2) must have no live owner. `state < 3` is the condition of the partial index. A message without `params`
// has lost its content by age and cannot be merged.
const QUEUED_BEHIND: &str = concat!(
    "SELECT i.id, i.params, i.received_at FROM inbound i \
     WHERE i.conversation = (SELECT conversation FROM inbound WHERE id = $2) AND i.id > $2 AND i.state < 3 \
     AND (i.state = 0 OR (i.state = 2 AND NOT ",
    is_owned!("$1"),
    ")) AND i.params IS NOT NULL ORDER BY i.id LIMIT $3"
);

/// SQL that reads a [`MessageState`]. `$more` follows the condition on the id.
macro_rules! message_state {
    ($more:literal) => {
        concat!(
            "SELECT i.id, i.conversation, i.state, i.attempt, i.owner, ",
            is_owned!("$1"),
            ", i.reason IS NOT NULL, i.response, ",
            is_blocked!("$1"),
            ", (SELECT until FROM handoff h WHERE h.conversation = i.conversation) FROM inbound i WHERE i.id = $2",
            $more
        )
    };
}

/// Reads the state of a message without a lock.
pub(super) async fn read_state(
    db: &mut PgConnection,
    me: i64,
    id: i64,
) -> Result<MessageState, CallError> {
    query_state(db, message_state!(""), me, id).await
}

/// Reads the state of a message, and locks its row until the end of the transaction.
pub(super) async fn lock_and_read_state(
    db: &mut PgConnection,
    me: i64,
    id: i64,
) -> Result<MessageState, CallError> {
    query_state(db, message_state!(" FOR UPDATE OF i"), me, id).await
}

async fn query_state(
    db: &mut PgConnection,
    sql: &'static str,
    me: i64,
    id: i64,
) -> Result<MessageState, CallError> {
    let row = sqlx::query(sql).bind(me).bind(id).fetch_one(db).await?;
    Ok(MessageState {
        id: row.try_get(0)?,
        conversation: row.try_get(1)?,
        state: row.try_get(2)?,
        attempt: number(row.try_get(3)?),
        owner: row.try_get(4)?,
        is_owned: row.try_get(5)?,
        failed_before: row.try_get(6)?,
        response: row.try_get::<Option<String>, _>(7)?.map(unpack),
        is_blocked: row.try_get(8)?,
        handed_off_until: row.try_get(9)?,
    })
}

/// Claims a message for its next attempt. The caller has locked the conversation.
pub(super) async fn claim(
    db: &mut PgConnection,
    me: i64,
    message: &MessageState,
    now: Timestamp,
) -> Result<Claim, CallError> {
    let claim = message.next_claim(now);
    // To PROCESSING (1). `claims` increases, so that an `ACCEPT_USUAL` that waits for the lock detects that its
    // snapshot misses this claim.
    sqlx::query(
        "WITH counted AS (UPDATE conversation SET claims = claims + 1 WHERE id = $5) \
         UPDATE inbound SET state = 1, owner = $2, attempt = $3, claimed_at = $4 WHERE id = $1",
    )
    .bind(claim.id)
    .bind(me)
    .bind(i64::from(claim.attempt))
    .bind(now.as_microsecond())
    .bind(claim.conversation)
    .execute(db)
    .await?;
    Ok(claim)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn number(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Locks the conversation of a message.
///
/// First corrects the message's reference to a conversation that was merged into another, or restores a deleted one.
pub(super) async fn lock_conversation(db: &mut PgConnection, id: i64) -> Result<(), CallError> {
    // `FOR UPDATE OF c` locks the conversation only: it comes first in the lock order, and the message after it.
    let found: Option<(Option<i64>,)> = sqlx::query_as(
        "SELECT c.merged_into FROM inbound i JOIN conversation c ON c.id = i.conversation WHERE i.id = $1 FOR UPDATE OF c",
    )
    .bind(id)
    .fetch_optional(&mut *db)
    .await?;
    match found {
        Some((None,)) => return Ok(()),
        Some((Some(target),)) => {
            // The target may have been merged or deleted before its lock was acquired. The next attempt
            // follows the new reference.
            let locked = sqlx::query(
                "SELECT id FROM conversation WHERE id = $1 AND merged_into IS NULL FOR UPDATE",
            )
            .bind(target)
            .fetch_optional(&mut *db)
            .await?;
            if locked.is_none() {
                return Err(CallError::Conflict);
            }
            sqlx::query("UPDATE inbound SET conversation = $2 WHERE id = $1")
                .bind(id)
                .bind(target)
                .execute(db)
                .await?;
        }
        None => {
            // Retention has deleted the conversation, and its message remains. Restore it under its id. If another
            // transaction does the same, the upsert waits for it and locks its row.
            sqlx::query(
                "INSERT INTO conversation (id, last_inbound) SELECT conversation, received_at FROM inbound WHERE id = $1 \
                 ON CONFLICT (id) DO UPDATE SET claims = conversation.claims + 1",
            )
            .bind(id)
            .execute(db)
            .await?;
        }
    }
    Ok(())
}

/// Decides the reply path of a message whose path is open. Needs no claim.
pub(super) async fn decide(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    path: ReplyPath,
    now: Timestamp,
) -> Result<ReplyDecision, CallError> {
    let is_rest = path == ReplyPath::Rest;
    let (query, decision) = match path {
        // Compare and set: from RECEIVED, PROCESSING or FAILED (0, 1, 5) to ANSWERED (3). A failed message is included:
        // the fallback call's text is its reply. Without an owner, a handler that still runs has lost its claim.
        ReplyPath::Twiml(twiml) => {
            let twiml = decisions::stored_response(twiml);
            let query = sqlx::query(
                "UPDATE inbound SET state = 3, owner = NULL, response = $2 WHERE id = $1 AND state IN (0, 1, 5)",
            )
            .bind(id)
            .bind(twiml.as_deref().map(pack));
            (
                query,
                ReplyDecision::Inline(SavedResponse {
                    twiml: twiml.clone(),
                }),
            )
        }
        // Compare and set: to DEFERRED (2). A message that waits for its turn (0, RECEIVED) is released, since its
        // request ends: the backlog handles it. A handler that runs (1, PROCESSING) keeps its claim and replies via the
        // REST API. A failed message (5) has no reply to send.
        ReplyPath::Rest => {
            let query = sqlx::query(
                "UPDATE inbound SET owner = CASE WHEN state = 0 THEN NULL ELSE owner END, state = 2, claimed_at = $2 \
                 WHERE id = $1 AND state IN (0, 1)",
            )
            .bind(id)
            .bind(now.as_microsecond());
            (query, ReplyDecision::ViaRest)
        }
    };
    if query.execute(&mut *db).await?.rows_affected() > 0 {
        return Ok(decision);
    }
    let message = read_state(db, me, id).await?;
    match message.state {
        // Another transaction opened the path between the two statements, for example a redelivery
        // that starts an attempt.
        inbound::RECEIVED | inbound::PROCESSING => Err(CallError::Conflict),
        inbound::FAILED if !is_rest => Err(CallError::Conflict),
        _ => Ok(message.reply_decision()),
    }
}

/// Releases all claims of this process.
pub(super) async fn release_claims(db: &mut PgConnection, me: i64) -> Result<(), CallError> {
    // Open messages (below 3). PROCESSING (1) becomes RECEIVED (0): `claim_backlog` does not count that as a crash.
    sqlx::query(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END WHERE state < 3 AND owner = $1",
    )
    .bind(me)
    .execute(db)
    .await?;
    Ok(())
}
