//! [`Journal`] in SQLite.
//!
//! A transaction holds the write lock from its start, so rows that it has read do not change before it commits.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, backlog, complete_inline, conversations, handoff, outbox};
use crate::sid::MessagingServiceSid;
use crate::store::decisions::{self, MessageState, Redelivery};
use crate::store::new_inbound::ConsentEffect;
use crate::store::states::{self, inbound};
use crate::store::{
    AcceptOutcome, Claim, ClaimedBacklog, Completion, CrashPolicy, FailOutcome, Journal,
    NewInbound, NewOutbound, QueuedMessage, RedactedParams, ReplyDecision, ReplyPath,
    SavedResponse, StoreError, StoreFuture, TurnStatus, packing,
};

/// Condition: another open message of the conversation comes before the message `i`. `?1` is this process.
// Open: below 3, ANSWERED. Older messages come first, and so does a newer one in PROCESSING (1) or DEFERRED (2) that
// this process handles, since a conversation has one handler at a time. A newer message that a dead process has claimed
// must not block: it waits for the older one, so that neither would ever be handled.
pub(super) const BLOCKED: &str = "EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = i.conversation AND p.state < 3 \
     AND p.id <> i.id AND (p.id < i.id OR (p.state IN (1, 2) AND p.owner = ?1)))";

/// End of the handoff of the message's conversation, which may have passed.
pub(super) const HANDOFF_END: &str =
    "(SELECT until FROM handoff h WHERE h.conversation = i.conversation)";

/// Columns that [`read_state`] expects first. [`BLOCKED`] and [`HANDOFF_END`] must follow them.
pub(super) const STATE_COLUMNS: &str =
    "i.id, i.conversation, i.state, i.attempt, i.owner, i.reason IS NOT NULL, i.response";

impl Journal for SqliteStore {
    fn accept(&self, inbound: Arc<NewInbound>) -> StoreFuture<'_, AcceptOutcome> {
        let me = self.owner;
        self.write(move |db| accept(db, me, &inbound))
    }

    fn try_claim(&self, id: i64, now: Timestamp) -> StoreFuture<'_, TurnStatus> {
        let me = self.owner;
        self.write(move |db| {
            let message = message_state(db, me, id)?;
            if let Some(turn) = message.turn(me) {
                return Ok(turn);
            }
            let claim = claim(db, me, &message, inbound::PROCESSING, now)?;
            Ok(TurnStatus::Claimed(claim))
        })
    }

    fn queued_behind(&self, claim: Claim, limit: u32) -> StoreFuture<'_, Vec<QueuedMessage>> {
        let me = self.owner;
        self.read(move |db| queued_behind(db, me, claim.id, limit))
    }

    fn decide(&self, id: i64, path: ReplyPath, now: Timestamp) -> StoreFuture<'_, ReplyDecision> {
        let me = self.owner;
        self.write(move |db| decide(db, me, id, &path, now))
    }

    fn complete_inline(
        &self,
        claim: Claim,
        twiml: Option<String>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, ReplyDecision> {
        let me = self.owner;
        self.write(move |db| {
            complete_inline::complete_inline(db, me, claim, twiml.as_deref(), &completion, now)
        })
    }

    fn complete_via_rest(
        &self,
        claim: Claim,
        replies: Vec<NewOutbound>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, bool> {
        let me = self.owner;
        // Only a TwiML response can redirect, so the handoff begins without this message.
        let reason = completion
            .handoff
            .is_some()
            .then_some(states::NOT_REDIRECTED);
        self.write(move |db| {
            // To DONE (4) from PROCESSING or DEFERRED (1, 2). Fenced by the claim: owner and attempt match only if no
            // other attempt has begun since. The replies are inserted in the same transaction, so a crash neither loses
            // nor repeats them.
            let conversation: Option<i64> = db
                .prepare_cached(
                    "UPDATE inbound SET state = 4, reason = ?4 WHERE id = ?1 AND state IN (1, 2) AND owner = ?2 AND attempt = ?3 \
                     RETURNING conversation",
                )?
                .query_row(params![claim.id, me, claim.attempt, reason], |row| row.get(0))
                .optional()?;
            let Some(conversation) = conversation else {
                return Ok(false);
            };
            outbox::insert(db, Some(claim.id), &replies, now)?;
            save_completion(db, me, conversation, &completion, now)?;
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
            // Fenced by the claim. Only PROCESSING (1) can become FAILED (5). A message in DEFERRED (2) becomes DEAD
            // (6): Twilio has its response, so no redelivery would retry it.
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
                None => {
                    let message = message_state(db, me, claim.id)?;
                    decisions::failure_not_recorded(message.reply_decision_for(me, claim))
                }
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
        self.write(move |db| backlog::claim_backlog(db, me, limit, policy, now))
    }

    fn release_stale_claims(&self, running: Vec<i64>, before: Timestamp) -> StoreFuture<'_, u64> {
        let me = self.owner;
        self.write(move |db| {
            // Open messages (below 3). Without INDEXED BY, SQLite would scan the whole table for them. `claimed_at`
            // excludes a claim whose result is still on its way to the caller.
            let ids: Vec<i64> = db
                .prepare_cached(
                    "SELECT id FROM inbound INDEXED BY inbound_open WHERE state < 3 AND owner = ?1 AND claimed_at < ?2",
                )?
                .query_map(params![me, before.as_microsecond()], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut released = 0;
            for id in ids.iter().filter(|id| !running.contains(id)) {
                release_claim(db, *id)?;
                released += 1;
            }
            Ok(released)
        })
    }

    fn backfill(&self, inbound: Arc<NewInbound>, twiml: Option<String>) -> StoreFuture<'_, ()> {
        let me = self.owner;
        self.write(move |db| backfill(db, me, &inbound, twiml.as_deref()))
    }
}

/// Reads [`STATE_COLUMNS`] and the two conditions after them.
pub(super) fn read_state(row: &Row<'_>, me: i64) -> rusqlite::Result<MessageState> {
    let owner = row.get(4)?;
    Ok(MessageState {
        id: row.get(0)?,
        conversation: row.get(1)?,
        state: row.get(2)?,
        attempt: row.get(3)?,
        owner,
        // Another owner is dead, because one server owns the file.
        is_owned: owner == Some(me),
        failed_before: row.get(5)?,
        response: row.get(6)?,
        is_blocked: row.get(7)?,
        handed_off_until: row.get(8)?,
    })
}

pub(super) fn message_state(db: &Connection, me: i64, id: i64) -> Result<MessageState, StoreError> {
    let sql =
        format!("SELECT {STATE_COLUMNS}, {BLOCKED}, {HANDOFF_END} FROM inbound i WHERE i.id = ?2");
    Ok(db
        .prepare_cached(&sql)?
        .query_row([me, id], |row| read_state(row, me))?)
}

/// Claims a message for its next attempt.
pub(super) fn claim(
    db: &Connection,
    me: i64,
    message: &MessageState,
    state: i64,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    let claim = message.next_claim(now);
    // By ID alone: the caller has read the row under the write lock of this transaction.
    db.prepare_cached(
        "UPDATE inbound SET state = ?2, owner = ?3, attempt = ?4, claimed_at = ?5 WHERE id = ?1",
    )?
    .execute(params![
        claim.id,
        state,
        me,
        claim.attempt,
        now.as_microsecond()
    ])?;
    Ok(claim)
}

pub(super) fn accept(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
) -> Result<AcceptOutcome, StoreError> {
    let key = MessageKey::of(inbound);
    if let Some(id) = key.find_id(db)? {
        // Move the message to the conversation that its own was merged into, before `message_state` checks the order
        // there.
        conversations::move_to_merged(db, id)?;
        return accept_redelivery(db, me, &message_state(db, me, id)?, inbound);
    }
    let now = inbound.received_at.as_microsecond();
    let found =
        conversations::find_or_create(db, &inbound.sender, &inbound.user, &inbound.scopes(), now)?;
    let conversation = found.id;
    let effect = inbound.apply_keyword(found.opted_out);
    // In the transaction that accepts the message, so that an acknowledged STOP is always in force.
    if let ConsentEffect::Keyword {
        change: Some(action),
        ..
    } = effect
    {
        for record in inbound.ledger_records(&found.addresses, action) {
            conversations::record_consent(db, &record)?;
        }
    }
    let response = decisions::initial_response(&effect);
    let (ahead, handed_off_until) = match effect {
        ConsentEffect::Ordinary => conversation_state(db, conversation)?,
        // No handler runs, so neither the order nor the handoff applies.
        ConsentEffect::Keyword { .. } | ConsentEffect::OptedOut => (0, None),
    };
    let state = decisions::initial_state(&effect, ahead);
    let attempt = u32::from(state == inbound::PROCESSING);
    // `previous` links the message to the last one of its conversation. A queued message has an owner too: its request
    // waits for it in this process, so the backlog must not claim it. Without ON CONFLICT: under the write lock,
    // `find_id` has found no message with this key.
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
        packing::auth_token_number(inbound.auth_token),
        inbound.service.as_ref().map(MessagingServiceSid::as_str),
        response,
        inbound.params,
    ])?;
    let id = db.last_insert_rowid();
    conversations::record_newest(db, conversation, id, now)?;
    let handed_off = decisions::is_handoff_active(handed_off_until, inbound.received_at);
    Ok(decisions::outcome_of_new(
        effect,
        id,
        conversation,
        ahead,
        handed_off,
    ))
}

/// Returns the number of open messages of a conversation, and the end of its handoff, which may have passed.
fn conversation_state(
    db: &Connection,
    conversation: i64,
) -> Result<(u32, Option<i64>), StoreError> {
    let found = db
        .prepare_cached(
            // Open messages are below 3, ANSWERED.
            "SELECT (SELECT count(*) FROM inbound WHERE conversation = ?1 AND state < 3), \
             (SELECT until FROM handoff WHERE conversation = ?1)",
        )?
        .query_row([conversation], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found)
}

/// Key for deduplication, as stored.
struct MessageKey {
    account: Vec<u8>,
    sid: Vec<u8>,
}

impl MessageKey {
    fn of(inbound: &NewInbound) -> Self {
        Self {
            account: packing::sid_bytes(inbound.account.as_str()),
            sid: packing::sid_bytes(inbound.sid.as_str()),
        }
    }

    /// Returns the ID of the stored message with this key.
    fn find_id(&self, db: &Connection) -> Result<Option<i64>, StoreError> {
        let id = db
            .prepare_cached("SELECT id FROM inbound WHERE sid = ?1 AND account = ?2")?
            .query_row(params![self.sid, self.account], |row| row.get(0))
            .optional()?;
        Ok(id)
    }
}

/// Returns the outcome of a redelivery, which changes neither the customer service window nor consent.
fn accept_redelivery(
    db: &Connection,
    me: i64,
    message: &MessageState,
    inbound: &NewInbound,
) -> Result<AcceptOutcome, StoreError> {
    let id = message.id;
    match message.redelivery(inbound) {
        Redelivery::Answered(response) => return Ok(AcceptOutcome::AlreadyAnswered(response)),
        Redelivery::InProgress => return Ok(AcceptOutcome::InProgress { id }),
        Redelivery::Exhausted => {
            let twiml = decisions::stored_response(inbound.final_response.clone());
            // To ANSWERED (3), so that further redeliveries get the same response.
            db.prepare_cached("UPDATE inbound SET state = 3, response = ?2 WHERE id = ?1")?
                .execute(params![id, twiml])?;
            return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse { twiml }));
        }
        Redelivery::Retry => {}
    }
    if message.is_blocked {
        // Queued again, in RECEIVED (0), now for the request of this redelivery.
        db.prepare_cached(
            "UPDATE inbound SET state = 0, owner = ?2, claimed_at = ?3 WHERE id = ?1",
        )?
        .execute(params![id, me, inbound.received_at.as_microsecond()])?;
        return Ok(AcceptOutcome::Queued {
            id,
            conversation: message.conversation,
            ahead: 1,
        });
    }
    Ok(AcceptOutcome::Claimed(claim(
        db,
        me,
        message,
        inbound::PROCESSING,
        inbound.received_at,
    )?))
}

pub(super) fn decide(
    db: &Connection,
    me: i64,
    id: i64,
    path: &ReplyPath,
    now: Timestamp,
) -> Result<ReplyDecision, StoreError> {
    let message = message_state(db, me, id)?;
    // Compare and set: the state was read under the write lock, so of a deadline and a handler that finish at the same
    // time the first one decides.
    let is_open = matches!(message.state, inbound::RECEIVED | inbound::PROCESSING);
    match path {
        // A failed message can still get the fallback text, but cannot be deferred: no handler runs that would reply.
        ReplyPath::Twiml(twiml) if is_open || message.state == inbound::FAILED => {
            let twiml = decisions::stored_response(twiml.clone());
            // To ANSWERED (3). Without an owner, a handler that still runs has lost its claim.
            db.prepare_cached(
                "UPDATE inbound SET state = 3, owner = NULL, response = ?2 WHERE id = ?1",
            )?
            .execute(params![id, twiml])?;
            Ok(ReplyDecision::Inline(SavedResponse { twiml }))
        }
        ReplyPath::Rest if is_open => {
            // To DEFERRED (2). A queued message, in RECEIVED (0), is released to the backlog. A running handler keeps
            // its claim and queues the reply later.
            db.prepare_cached(
                "UPDATE inbound SET owner = CASE WHEN state = 0 THEN NULL ELSE owner END, state = 2, claimed_at = ?2 WHERE id = ?1",
            )?
            .execute(params![id, now.as_microsecond()])?;
            Ok(ReplyDecision::ViaRest)
        }
        _ => Ok(message.reply_decision()),
    }
}

fn queued_behind(
    db: &Connection,
    me: i64,
    message: i64,
    limit: u32,
) -> Result<Vec<QueuedMessage>, StoreError> {
    // Queued messages, in RECEIVED (0), and those that became DEFERRED (2) while queued: they have no owner, or a dead
    // one. Expired content cannot be merged. `state < 3` is the condition of the partial index.
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
            received_at: packing::time(row.get(2)?)?,
        });
    }
    Ok(queued)
}

/// Saves the state changes that are committed with a reply. `conversation` comes from the message's row and not from
/// its claim, because the conversation may have been merged into another one since.
pub(super) fn save_completion(
    db: &Connection,
    me: i64,
    conversation: i64,
    completion: &Completion,
    now: Timestamp,
) -> Result<(), StoreError> {
    conversations::change_dialogue(db, conversation, completion.dialogue.as_ref(), now)?;
    handoff::change_handoff(db, conversation, completion.handoff.as_ref())?;
    for id in &completion.merged {
        // RECEIVED (0) becomes ANSWERED (3) with the empty response, and DEFERRED (2) becomes DONE (4) without replies.
        // The conditions of `queued_behind` are repeated, because a message may have been claimed or decided since.
        db.prepare_cached(
            "UPDATE inbound SET state = CASE WHEN state = 0 THEN 3 ELSE 4 END, owner = NULL, reason = ?2, claimed_at = ?3 \
             WHERE id = ?1 AND conversation = ?4 AND (state = 0 OR (state = 2 AND (owner IS NULL OR owner <> ?5)))",
        )?
        .execute(params![id, states::MERGED, now.as_microsecond(), conversation, me])?;
    }
    Ok(())
}

fn backfill(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
    twiml: Option<&str>,
) -> Result<(), StoreError> {
    let key = MessageKey::of(inbound);
    let is_new = key.find_id(db)?.is_none();
    if is_new {
        // Opens the window and applies a keyword, as for any message. The claim that it makes is undone below.
        accept(db, me, inbound)?;
    }
    let Some(id) = key.find_id(db)? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // The user has this reply, so it becomes the response: open (0, 1, 2) and FAILED (5) become ANSWERED (3), even
        // a deferred message whose reply is not queued yet. A running handler loses its claim. Responses that are saved
        // or queued already stay.
        db.prepare_cached("UPDATE inbound SET state = 3, owner = NULL, response = ?2 WHERE id = ?1 AND state IN (0, 1, 2, 5)")?
            .execute(params![id, twiml])?;
    } else if is_new {
        // No reply was sent: RECEIVED or PROCESSING (0, 1) becomes DEFERRED (2), and the message joins the backlog, as
        // if no attempt had begun. A message that is a keyword is answered already.
        db.prepare_cached("UPDATE inbound SET state = 2, owner = NULL, attempt = 0 WHERE id = ?1 AND state IN (0, 1)")?
            .execute([id])?;
    }
    Ok(())
}

/// Records a message as answered with the empty response, unless it is stored already.
pub(super) fn backfill_answered(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
) -> Result<(), StoreError> {
    let key = MessageKey::of(inbound);
    if key.find_id(db)?.is_some() {
        return Ok(());
    }
    // Opens the window and applies a keyword.
    accept(db, me, inbound)?;
    // RECEIVED or PROCESSING (0, 1) becomes ANSWERED (3). A message that is a keyword is answered already, and stays as
    // it is.
    db.execute(
        "UPDATE inbound SET state = 3, owner = NULL, attempt = 0, reason = ?3 \
         WHERE sid = ?1 AND account = ?2 AND state IN (0, 1)",
        params![key.sid, key.account, states::ANSWERED_BEFORE],
    )?;
    Ok(())
}

/// Releases a claim, so that the backlog or a redelivery can claim the message.
fn release_claim(db: &Connection, id: i64) -> Result<(), StoreError> {
    // PROCESSING (1) becomes RECEIVED (0). A deferred message stays DEFERRED (2): Twilio has the empty response for it.
    db.prepare_cached(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END WHERE id = ?1 AND state < 3",
    )?
    .execute([id])?;
    Ok(())
}

/// Releases all claims of this process.
pub(super) fn release_claims(db: &Connection, me: i64) -> Result<(), StoreError> {
    // Open messages (below 3): PROCESSING (1) becomes RECEIVED (0). A message without an owner does not count as
    // crashed when the next server claims it.
    db.execute(
        "UPDATE inbound INDEXED BY inbound_open SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END \
         WHERE state < 3 AND owner = ?1",
        [me],
    )?;
    Ok(())
}
