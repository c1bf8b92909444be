//! [`Journal`] in SQLite.
//!
//! A transaction holds the write lock from its start, so rows that it has read do not change before it commits.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, answer, backlog, conversations, handoff, outbox};
use crate::sid::MessagingServiceSid;
use crate::store::new_inbound::ConsentEffect;
use crate::store::rows::{self, inbound};
use crate::store::{
    AcceptOutcome, Claim, ClaimedBacklog, Completion, CrashPolicy, FailOutcome, Journal,
    NewInbound, NewOutbound, QueuedMessage, RedactedParams, ReplyDecision, ReplyPath,
    SavedResponse, StoreError, StoreFuture, TurnStatus,
};

/// Condition: another open message of the conversation comes before the message `i`. `?1` is this process.
// Older messages come first, and so does a newer one that this process handles, since a conversation has one handler at
// a time. A newer message that a dead process has claimed must not block: it waits for the older one, so that neither
// would ever be handled.
pub(super) const BLOCKED: &str = "EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = i.conversation AND p.state < 3 \
     AND p.id <> i.id AND (p.id < i.id OR (p.state IN (1, 2) AND p.owner = ?1)))";

/// End of the handoff of the message's conversation, which may have passed.
pub(super) const HANDED_OVER: &str =
    "(SELECT until FROM handoff h WHERE h.conversation = i.conversation)";

fn is_active(until: Option<i64>, now: Timestamp) -> bool {
    until.is_some_and(|until| until > now.as_microsecond())
}

impl Journal for SqliteStore {
    fn accept(&self, arrival: Arc<NewInbound>) -> StoreFuture<'_, AcceptOutcome> {
        let me = self.owner;
        self.write(move |db| accept(db, me, &arrival))
    }

    fn try_claim(&self, id: i64, now: Timestamp) -> StoreFuture<'_, TurnStatus> {
        let me = self.owner;
        self.write(move |db| {
            let row = MessageState::of(db, me, id)?;
            // The message is not queued for this process any more: it was decided, merged, deferred or released.
            if row.state != inbound::RECEIVED || row.owner != Some(me) {
                return Ok(TurnStatus::Resolved(row.decision()));
            }
            if row.blocked {
                return Ok(TurnStatus::Waiting);
            }
            Ok(TurnStatus::Claimed(row.claim(
                db,
                me,
                inbound::PROCESSING,
                now,
            )?))
        })
    }

    fn queued_behind(&self, claim: Claim, limit: u32) -> StoreFuture<'_, Vec<QueuedMessage>> {
        let me = self.owner;
        self.read(move |db| queued_behind(db, me, claim.id, limit))
    }

    fn decide(&self, id: i64, choice: ReplyPath, now: Timestamp) -> StoreFuture<'_, ReplyDecision> {
        let me = self.owner;
        self.write(move |db| decide(db, me, id, &choice, now))
    }

    fn complete_inline(
        &self,
        claim: Claim,
        twiml: Option<String>,
        ending: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, ReplyDecision> {
        let me = self.owner;
        self.write(move |db| answer::save(db, me, claim, twiml.as_deref(), &ending, now))
    }

    fn complete_via_rest(
        &self,
        claim: Claim,
        replies: Vec<NewOutbound>,
        ending: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, bool> {
        let me = self.owner;
        // Only a TwiML response can redirect, so the handoff begins without this message.
        let reason = ending.handoff.is_some().then_some(rows::NOT_REDIRECTED);
        self.write(move |db| {
            // Fenced by the claim: owner and attempt match only if no other attempt has begun since. The replies are
            // inserted in the same transaction, so a crash neither loses nor repeats them.
            let ended: Option<i64> = db
                .prepare_cached(
                    "UPDATE inbound SET state = 4, reason = ?4 WHERE id = ?1 AND state IN (1, 2) AND owner = ?2 AND attempt = ?3 \
                     RETURNING conversation",
                )?
                .query_row(params![claim.id, me, claim.attempt, reason], |row| row.get(0))
                .optional()?;
            let Some(conversation) = ended else {
                return Ok(false);
            };
            outbox::insert(db, Some(claim.id), &replies, now)?;
            end(db, me, conversation, &ending, now)?;
            Ok(true)
        })
    }

    fn record_failure(
        &self,
        claim: Claim,
        reason: &'static str,
        last_attempt: bool,
    ) -> StoreFuture<'_, FailOutcome> {
        let me = self.owner;
        self.write(move |db| {
            // Fenced by the claim. Only state 1 can become FAILED: for a deferred message Twilio has its response, so
            // no redelivery would retry it.
            let failed: Option<i64> = db
                .prepare_cached(
                    "UPDATE inbound SET state = CASE WHEN state = 1 AND NOT ?5 THEN 5 ELSE 6 END, reason = ?4 \
                     WHERE id = ?1 AND state IN (1, 2) AND owner = ?2 AND attempt = ?3 RETURNING state",
                )?
                .query_row(
                    params![claim.id, me, claim.attempt, reason, last_attempt],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(match failed {
                Some(inbound::FAILED) => FailOutcome::Retryable,
                Some(_) => FailOutcome::Dead,
                None => rows::failure_not_recorded(MessageState::of(db, me, claim.id)?.decision_for(me, claim)),
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
        self.write(move |db| backlog::take_up(db, me, limit, policy, now))
    }

    fn release_stale_claims(&self, running: Vec<i64>, before: Timestamp) -> StoreFuture<'_, u64> {
        let me = self.owner;
        self.write(move |db| {
            // Without INDEXED BY, SQLite would scan the whole table for the few open messages.
            let ids: Vec<i64> = db
                .prepare_cached(
                    "SELECT id FROM inbound INDEXED BY inbound_open WHERE state < 3 AND owner = ?1 AND claimed_at < ?2",
                )?
                .query_map(params![me, before.as_microsecond()], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut released = 0;
            for id in ids.iter().filter(|id| !running.contains(id)) {
                release(db, *id)?;
                released += 1;
            }
            Ok(released)
        })
    }

    fn backfill(&self, arrival: Arc<NewInbound>, twiml: Option<String>) -> StoreFuture<'_, ()> {
        let me = self.owner;
        self.write(move |db| backfill(db, me, &arrival, twiml.as_deref()))
    }
}

/// Columns of a message that decide who may handle it and what its response is.
pub(super) struct MessageState {
    pub(super) id: i64,
    conversation: i64,
    pub(super) state: i64,
    pub(super) attempt: u32,
    pub(super) owner: Option<i64>,
    failed_before: bool,
    answer: Option<String>,
    blocked: bool,
    handed_off_until: Option<i64>,
}

impl MessageState {
    /// Columns that [`MessageState::read`] expects first. [`BLOCKED`] and [`HANDED_OVER`] must follow them.
    pub(super) const COLUMNS: &str =
        "i.id, i.conversation, i.state, i.attempt, i.owner, i.reason IS NOT NULL, i.response";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            conversation: row.get(1)?,
            state: row.get(2)?,
            attempt: row.get(3)?,
            owner: row.get(4)?,
            failed_before: row.get(5)?,
            answer: row.get(6)?,
            blocked: row.get(7)?,
            handed_off_until: row.get(8)?,
        })
    }

    pub(super) fn of(db: &Connection, me: i64, id: i64) -> Result<Self, StoreError> {
        let sql = format!(
            "SELECT {}, {BLOCKED}, {HANDED_OVER} FROM inbound i WHERE i.id = ?2",
            Self::COLUMNS
        );
        Ok(db.prepare_cached(&sql)?.query_row([me, id], Self::read)?)
    }

    /// Returns the reply decision for a caller without a claim.
    fn decision(&self) -> ReplyDecision {
        rows::decision(self.state, self.answer.as_ref())
    }

    /// Returns the reply decision for a caller that got this claim, which may be lost.
    pub(super) fn decision_for(&self, me: i64, claim: Claim) -> ReplyDecision {
        let mine = self.owner == Some(me) && self.attempt == claim.attempt;
        rows::fenced(self.decision(), mine)
    }

    /// Claims the message for its next attempt.
    pub(super) fn claim(
        &self,
        db: &Connection,
        me: i64,
        state: i64,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        // A higher attempt invalidates earlier claims of this process too.
        let attempt = self.attempt + 1;
        db.prepare_cached(
            "UPDATE inbound SET state = ?2, owner = ?3, attempt = ?4, claimed_at = ?5 WHERE id = ?1",
        )?
        .execute(params![self.id, state, me, attempt, now.as_microsecond()])?;
        Ok(Claim {
            id: self.id,
            conversation: self.conversation,
            attempt,
            failed_before: self.failed_before,
            handed_off: is_active(self.handed_off_until, now),
        })
    }
}

pub(super) fn accept(
    db: &Connection,
    me: i64,
    arrival: &NewInbound,
) -> Result<AcceptOutcome, StoreError> {
    let key = Key::of(arrival);
    if let Some(id) = key.known(db)? {
        // Move the message to the conversation that its own was merged into, before `State::of` checks the order there.
        conversations::follow(db, id)?;
        return redelivered(db, me, MessageState::of(db, me, id)?, arrival);
    }
    let now = arrival.received_at.as_microsecond();
    let person = conversations::enter(db, &arrival.sender, &arrival.user, &arrival.scopes(), now)?;
    let conversation = person.conversation;
    let effect = arrival.apply_keyword(person.opted_out);
    // In the transaction that accepts the message, so that an acknowledged STOP is always in force.
    if let ConsentEffect::Keyword {
        change: Some(action),
        ..
    } = effect
    {
        for record in arrival.ledger_records(&person.addresses, action) {
            conversations::record_consent(db, &record)?;
        }
    }
    let mut state = match effect {
        ConsentEffect::Ordinary => inbound::PROCESSING,
        _ => inbound::ANSWERED,
    };
    // An empty confirmation is stored as NULL, which is the empty response.
    let answer = match &effect {
        ConsentEffect::Keyword {
            confirmation: answer,
            ..
        } => Some(answer).filter(|answer| !answer.is_empty()),
        _ => None,
    };
    let (mut ahead, mut handed_off_until) = (0, None);
    if state == inbound::PROCESSING {
        (ahead, handed_off_until) = conversation_state(db, conversation)?;
        if ahead > 0 {
            state = inbound::RECEIVED;
        }
    }
    let attempt = u32::from(state == inbound::PROCESSING);
    // `previous` links the message to the last one of its conversation. A queued message has an owner too: its request
    // waits for it in this process, so the backlog must not claim it.
    db.prepare_cached(
        "INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, service, \
         response, params, previous) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, \
         (SELECT newest FROM conversation WHERE id = ?3))",
    )?
    .execute(params![
        key.account,
        key.sid,
        conversation,
        state,
        attempt,
        (state != inbound::ANSWERED).then_some(me),
        now,
        rows::auth_token_number(arrival.auth_token),
        arrival.service.as_ref().map(MessagingServiceSid::as_str),
        answer,
        arrival.params,
    ])?;
    let id = db.last_insert_rowid();
    conversations::continued(db, conversation, id, now)?;
    Ok(match effect {
        ConsentEffect::Keyword {
            opted_out,
            confirmation: answer,
            ..
        } => AcceptOutcome::ConsentKeyword {
            opted_out,
            confirmation: answer,
        },
        ConsentEffect::OptedOut => AcceptOutcome::OptedOut,
        ConsentEffect::Ordinary if ahead > 0 => AcceptOutcome::Queued {
            id,
            conversation,
            ahead,
        },
        ConsentEffect::Ordinary => AcceptOutcome::Claimed(Claim {
            id,
            conversation,
            attempt,
            failed_before: false,
            handed_off: is_active(handed_off_until, arrival.received_at),
        }),
    })
}

/// Returns the number of open messages of a conversation, and the end of its handoff, which may have passed.
fn conversation_state(
    db: &Connection,
    conversation: i64,
) -> Result<(u32, Option<i64>), StoreError> {
    let found = db
        .prepare_cached(
            "SELECT (SELECT count(*) FROM inbound WHERE conversation = ?1 AND state < 3), \
             (SELECT until FROM handoff WHERE conversation = ?1)",
        )?
        .query_row([conversation], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found)
}

/// Key for deduplication, as stored.
struct Key {
    account: Vec<u8>,
    sid: Vec<u8>,
}

impl Key {
    fn of(arrival: &NewInbound) -> Self {
        Self {
            account: rows::sid_bytes(arrival.account.as_str()),
            sid: rows::sid_bytes(arrival.sid.as_str()),
        }
    }

    /// Returns the ID of the stored message with this key.
    fn known(&self, db: &Connection) -> Result<Option<i64>, StoreError> {
        let id = db
            .prepare_cached("SELECT id FROM inbound WHERE sid = ?1 AND account = ?2")?
            .query_row(params![self.sid, self.account], |row| row.get(0))
            .optional()?;
        Ok(id)
    }
}

/// Returns the outcome of a redelivery, which changes neither the customer service window nor consent.
fn redelivered(
    db: &Connection,
    me: i64,
    row: MessageState,
    arrival: &NewInbound,
) -> Result<AcceptOutcome, StoreError> {
    let final_response = |db: &Connection| -> Result<AcceptOutcome, StoreError> {
        // An empty text is stored as NULL, which is the empty response.
        let twiml = Some(arrival.final_response.clone()).filter(|twiml| !twiml.is_empty());
        db.prepare_cached("UPDATE inbound SET state = 3, response = ?2 WHERE id = ?1")?
            .execute(params![row.id, twiml])?;
        Ok(AcceptOutcome::AlreadyAnswered(SavedResponse { twiml }))
    };
    match row.state {
        inbound::ANSWERED => {
            return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse {
                twiml: row.answer,
            }));
        }
        inbound::FAILED if row.attempt >= arrival.max_attempts => return final_response(db),
        // This process still handles the message, or has it queued.
        inbound::RECEIVED | inbound::PROCESSING if row.owner == Some(me) => {
            return Ok(AcceptOutcome::InProgress { id: row.id });
        }
        // Another owner is dead, because one server owns the file. It died during an attempt.
        inbound::PROCESSING
            if !arrival.retry_after_crash || row.attempt >= arrival.max_attempts =>
        {
            return final_response(db);
        }
        // A queued message had no attempt yet, so the crash policy does not apply to it.
        inbound::RECEIVED | inbound::PROCESSING | inbound::FAILED => {}
        // DEFERRED, DONE and DEAD: no later request gets the reply.
        _ => return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)),
    }
    if row.blocked {
        // Queued again, now for the request of this redelivery.
        db.prepare_cached(
            "UPDATE inbound SET state = 0, owner = ?2, claimed_at = ?3 WHERE id = ?1",
        )?
        .execute(params![row.id, me, arrival.received_at.as_microsecond()])?;
        return Ok(AcceptOutcome::Queued {
            id: row.id,
            conversation: row.conversation,
            ahead: 1,
        });
    }
    Ok(AcceptOutcome::Claimed(row.claim(
        db,
        me,
        inbound::PROCESSING,
        arrival.received_at,
    )?))
}

pub(super) fn decide(
    db: &Connection,
    me: i64,
    id: i64,
    choice: &ReplyPath,
    now: Timestamp,
) -> Result<ReplyDecision, StoreError> {
    let row = MessageState::of(db, me, id)?;
    // Compare and set: the state was read under the write lock, so of a deadline and a handler that finish at the same
    // time the first one decides.
    let open = matches!(row.state, inbound::RECEIVED | inbound::PROCESSING);
    match choice {
        // A failed message can still get the fallback text, but cannot be deferred: no handler runs that would reply.
        ReplyPath::Twiml(twiml) if open || row.state == inbound::FAILED => {
            let answer = Some(twiml.clone()).filter(|twiml| !twiml.is_empty());
            db.prepare_cached(
                "UPDATE inbound SET state = 3, owner = NULL, response = ?2 WHERE id = ?1",
            )?
            .execute(params![id, answer])?;
            Ok(ReplyDecision::Inline(SavedResponse { twiml: answer }))
        }
        ReplyPath::Rest if open => {
            // A queued message is released to the backlog. A running handler keeps its claim and queues the reply
            // later.
            db.prepare_cached(
                "UPDATE inbound SET owner = CASE WHEN state = 0 THEN NULL ELSE owner END, state = 2, claimed_at = ?2 WHERE id = ?1",
            )?
            .execute(params![id, now.as_microsecond()])?;
            Ok(ReplyDecision::ViaRest)
        }
        _ => Ok(row.decision()),
    }
}

fn queued_behind(
    db: &Connection,
    me: i64,
    message: i64,
    limit: u32,
) -> Result<Vec<QueuedMessage>, StoreError> {
    // Queued messages, and those that were deferred while queued: they have no owner, or a dead one. Expired content
    // cannot be merged.
    let mut statement = db.prepare_cached(
        "SELECT id, params, received_at FROM inbound INDEXED BY inbound_open \
         WHERE conversation = (SELECT conversation FROM inbound WHERE id = ?1) AND id > ?1 AND state < 3 \
         AND (state = 0 OR (state = 2 AND (owner IS NULL OR owner <> ?2))) AND params IS NOT NULL ORDER BY id LIMIT ?3",
    )?;
    let mut found = statement.query(params![message, me, limit])?;
    let mut queued = Vec::new();
    while let Some(row) = found.next()? {
        queued.push(QueuedMessage {
            id: row.get(0)?,
            params: RedactedParams(row.get(1)?),
            received_at: rows::time(row.get(2)?)?,
        });
    }
    Ok(queued)
}

/// Saves the state changes that are committed with a reply. `conversation` comes from the message's row and not from
/// its claim, because the conversation may have been merged into another one since.
pub(super) fn end(
    db: &Connection,
    me: i64,
    conversation: i64,
    ending: &Completion,
    now: Timestamp,
) -> Result<(), StoreError> {
    conversations::change_dialogue(db, conversation, ending.dialogue.as_ref(), now)?;
    handoff::change(db, conversation, ending.handoff.as_ref())?;
    for id in &ending.merged {
        // Queued becomes answered with the empty response, deferred becomes done without replies. The conditions of
        // `queued_behind` are repeated, because a message may have been claimed or decided since.
        db.prepare_cached(
            "UPDATE inbound SET state = CASE WHEN state = 0 THEN 3 ELSE 4 END, owner = NULL, reason = ?2, claimed_at = ?3 \
             WHERE id = ?1 AND conversation = ?4 AND (state = 0 OR (state = 2 AND (owner IS NULL OR owner <> ?5)))",
        )?
        .execute(params![id, rows::MERGED, now.as_microsecond(), conversation, me])?;
    }
    Ok(())
}

fn backfill(
    db: &Connection,
    me: i64,
    arrival: &NewInbound,
    twiml: Option<&str>,
) -> Result<(), StoreError> {
    let key = Key::of(arrival);
    let is_new = key.known(db)?.is_none();
    if is_new {
        // Opens the window and applies a keyword, as for any message. The claim that it makes is undone below.
        accept(db, me, arrival)?;
    }
    let Some(id) = key.known(db)? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // The user has this reply, so it becomes the response, even of a deferred message whose reply is not queued
        // yet. A running handler loses its claim. Responses that are saved or queued already stay.
        db.prepare_cached("UPDATE inbound SET state = 3, owner = NULL, response = ?2 WHERE id = ?1 AND state IN (0, 1, 2, 5)")?
            .execute(params![id, twiml])?;
    } else if is_new {
        // No reply was sent: the message joins the backlog, as if no attempt had begun.
        db.prepare_cached("UPDATE inbound SET state = 2, owner = NULL, attempt = 0 WHERE id = ?1 AND state IN (0, 1)")?
            .execute([id])?;
    }
    Ok(())
}

/// Records a message as answered with the empty response, unless it is stored already.
pub(super) fn backfill_answered(
    db: &Connection,
    me: i64,
    arrival: &NewInbound,
) -> Result<(), StoreError> {
    let key = Key::of(arrival);
    if key.known(db)?.is_some() {
        return Ok(());
    }
    // Opens the window and applies a keyword. A message that is a keyword is answered by that, and stays as it is.
    accept(db, me, arrival)?;
    db.execute(
        "UPDATE inbound SET state = 3, owner = NULL, attempt = 0, reason = ?3 \
         WHERE sid = ?1 AND account = ?2 AND state IN (0, 1)",
        params![key.sid, key.account, rows::ANSWERED_BEFORE],
    )?;
    Ok(())
}

/// Releases a claim, so that the backlog or a redelivery can claim the message.
fn release(db: &Connection, id: i64) -> Result<(), StoreError> {
    // A deferred message stays deferred: Twilio has the empty response for it.
    db.prepare_cached(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END WHERE id = ?1 AND state < 3",
    )?
    .execute([id])?;
    Ok(())
}

/// Releases all claims of this process.
pub(super) fn close(db: &Connection, me: i64) -> Result<(), StoreError> {
    // A message without an owner does not count as crashed when the next server claims it.
    db.execute(
        "UPDATE inbound INDEXED BY inbound_open SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END \
         WHERE state < 3 AND owner = ?1",
        [me],
    )?;
    Ok(())
}
