//! [`Journal`] in SQLite. There is one writer, so that what a transaction has read stays so until it commits.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, answer, backlog, conversations, handover, outbox};
use crate::sid::MessagingServiceSid;
use crate::store::journal::Heeded;
use crate::store::rows::{self, inbound};
use crate::store::{
    Acceptance, Answered, Arrival, Behind, Choice, Claim, CrashPolicy, Decision, Ending, Journal,
    NewReply, Outcome, StoreError, TakenParams, TakenUp, Turn,
};

/// Anything else open in the message's conversation that comes before it: what is older, and what is in the hands of this
/// process, `?1`. A dead one's hands hold nothing: what it left would wait for an older message that waits for it.
pub(super) const BLOCKED: &str = "EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = i.conversation AND p.state < 3 \
     AND p.id <> i.id AND (p.id < i.id OR (p.state IN (1, 2) AND p.owner = ?1)))";

/// Until when the message's conversation is handed over, or was.
pub(super) const HANDED_OVER: &str =
    "(SELECT until FROM handover h WHERE h.conversation = i.conversation)";

fn lasts(until: Option<i64>, now: Timestamp) -> bool {
    until.is_some_and(|until| until > now.as_microsecond())
}

impl Journal for SqliteStore {
    fn accept(&self, arrival: Arc<Arrival>) -> Outcome<'_, Acceptance> {
        let me = self.owner;
        self.write(move |db| accept(db, me, &arrival))
    }

    fn turn(&self, id: i64, now: Timestamp) -> Outcome<'_, Turn> {
        let me = self.owner;
        self.write(move |db| {
            let row = State::of(db, me, id)?;
            if row.state != inbound::RECEIVED || row.owner != Some(me) {
                return Ok(Turn::Decided(row.decision()));
            }
            if row.blocked {
                return Ok(Turn::Wait);
            }
            Ok(Turn::Yours(row.claim(db, me, inbound::HANDLING, now)?))
        })
    }

    fn behind(&self, claim: Claim, limit: u32) -> Outcome<'_, Vec<Behind>> {
        let me = self.owner;
        self.read(move |db| behind(db, me, claim.id, limit))
    }

    fn decide(&self, id: i64, choice: Choice, now: Timestamp) -> Outcome<'_, Decision> {
        let me = self.owner;
        self.write(move |db| decide(db, me, id, &choice, now))
    }

    fn answer(
        &self,
        claim: Claim,
        twiml: Option<String>,
        ending: Ending,
        now: Timestamp,
    ) -> Outcome<'_, Decision> {
        let me = self.owner;
        self.write(move |db| answer::save(db, me, claim, twiml.as_deref(), &ending, now))
    }

    fn finish(
        &self,
        claim: Claim,
        replies: Vec<NewReply>,
        ending: Ending,
        now: Timestamp,
    ) -> Outcome<'_, bool> {
        let me = self.owner;
        let reason = ending.hand_over.is_some().then_some(rows::NOT_REDIRECTED);
        self.write(move |db| {
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

    fn fail(&self, claim: Claim, reason: &'static str, for_good: bool) -> Outcome<'_, Decision> {
        let me = self.owner;
        self.write(move |db| {
            let failed: Option<i64> = db
                .prepare_cached(
                    "UPDATE inbound SET state = CASE WHEN state = 1 AND NOT ?5 THEN 5 ELSE 6 END, reason = ?4 \
                     WHERE id = ?1 AND state IN (1, 2) AND owner = ?2 AND attempt = ?3 RETURNING state",
                )?
                .query_row(
                    params![claim.id, me, claim.attempt, reason, for_good],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(match failed {
                Some(inbound::FAILED) => Decision::Lost,
                Some(_) => Decision::Deferred,
                None => State::of(db, me, claim.id)?.decision_for(me, claim),
            })
        })
    }

    fn take_up(&self, limit: usize, policy: CrashPolicy, now: Timestamp) -> Outcome<'_, TakenUp> {
        let me = self.owner;
        self.write(move |db| backlog::take_up(db, me, limit, policy, now))
    }

    fn let_go(&self, running: Vec<i64>, before: Timestamp) -> Outcome<'_, u64> {
        let me = self.owner;
        self.write(move |db| {
            let ids: Vec<i64> = db
                .prepare_cached(
                    "SELECT id FROM inbound INDEXED BY inbound_open WHERE state < 3 AND owner = ?1 AND claimed_at < ?2",
                )?
                .query_map(params![me, before.as_microsecond()], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut gone = 0;
            for id in ids.iter().filter(|id| !running.contains(id)) {
                release(db, *id)?;
                gone += 1;
            }
            Ok(gone)
        })
    }

    fn enter(&self, arrival: Arc<Arrival>, twiml: Option<String>) -> Outcome<'_, ()> {
        let me = self.owner;
        self.write(move |db| enter(db, me, &arrival, twiml.as_deref()))
    }
}

/// What a message's row says about who may do what.
#[expect(clippy::struct_field_names, reason = "the column is named so")]
pub(super) struct State {
    pub(super) id: i64,
    conversation: i64,
    pub(super) state: i64,
    pub(super) attempt: u32,
    pub(super) owner: Option<i64>,
    failed_before: bool,
    answer: Option<String>,
    blocked: bool,
    handed_over_until: Option<i64>,
}

impl State {
    pub(super) const COLUMNS: &str =
        "i.id, i.conversation, i.state, i.attempt, i.owner, i.reason IS NOT NULL, i.answer";

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
            handed_over_until: row.get(8)?,
        })
    }

    pub(super) fn of(db: &Connection, me: i64, id: i64) -> Result<Self, StoreError> {
        let sql = format!(
            "SELECT {}, {BLOCKED}, {HANDED_OVER} FROM inbound i WHERE i.id = ?2",
            Self::COLUMNS
        );
        Ok(db.prepare_cached(&sql)?.query_row([me, id], Self::read)?)
    }

    /// What its answer is for somebody without a claim.
    fn decision(&self) -> Decision {
        rows::decision(self.state, self.answer.as_ref())
    }

    /// What it is for somebody who had this claim.
    pub(super) fn decision_for(&self, me: i64, claim: Claim) -> Decision {
        let mine = self.owner == Some(me) && self.attempt == claim.attempt;
        rows::fenced(self.decision(), mine)
    }

    /// Takes it for the next attempt.
    pub(super) fn claim(
        &self,
        db: &Connection,
        me: i64,
        state: i64,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
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
            handed_over: lasts(self.handed_over_until, now),
        })
    }
}

pub(super) fn accept(
    db: &Connection,
    me: i64,
    arrival: &Arrival,
) -> Result<Acceptance, StoreError> {
    let key = Key::of(arrival);
    if let Some(id) = key.known(db)? {
        conversations::follow(db, id)?;
        return repeated(db, me, State::of(db, me, id)?, arrival);
    }
    let now = arrival.at.as_microsecond();
    let person = conversations::enter(db, &arrival.us, &arrival.user, &arrival.scopes(), now)?;
    let conversation = person.conversation;
    let heeded = arrival.heed(person.opted_out);
    if let Heeded::Word {
        change: Some(action),
        ..
    } = heeded
    {
        for record in arrival.records(&person.addresses, action) {
            conversations::record_consent(db, &record)?;
        }
    }
    let mut state = match heeded {
        Heeded::Ordinary => inbound::HANDLING,
        _ => inbound::ANSWERED,
    };
    let answer = match &heeded {
        Heeded::Word { answer, .. } => Some(answer).filter(|answer| !answer.is_empty()),
        _ => None,
    };
    let (mut ahead, mut handed_over_until) = (0, None);
    if state == inbound::HANDLING {
        (ahead, handed_over_until) = standing(db, conversation)?;
        if ahead > 0 {
            state = inbound::RECEIVED;
        }
    }
    let attempt = u32::from(state == inbound::HANDLING);
    db.prepare_cached(
        "INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, slot, service, \
         answer, params, previous) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, \
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
        rows::slot_number(arrival.slot),
        arrival.service.as_ref().map(MessagingServiceSid::as_str),
        answer,
        arrival.params,
    ])?;
    let id = db.last_insert_rowid();
    conversations::continued(db, conversation, id, now)?;
    Ok(match heeded {
        Heeded::Word {
            opted_out, answer, ..
        } => Acceptance::Consent { opted_out, answer },
        Heeded::OptedOut => Acceptance::OptedOut,
        Heeded::Ordinary if ahead > 0 => Acceptance::Waiting {
            id,
            conversation,
            ahead,
        },
        Heeded::Ordinary => Acceptance::New(Claim {
            id,
            conversation,
            attempt,
            failed_before: false,
            handed_over: lasts(handed_over_until, arrival.at),
        }),
    })
}

/// How many messages of a conversation are open, and until when it is handed over, or was.
fn standing(db: &Connection, conversation: i64) -> Result<(u32, Option<i64>), StoreError> {
    let found = db
        .prepare_cached(
            "SELECT (SELECT count(*) FROM inbound WHERE conversation = ?1 AND state < 3), \
             (SELECT until FROM handover WHERE conversation = ?1)",
        )?
        .query_row([conversation], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found)
}

/// What a message is known by, as it is stored.
struct Key {
    account: Vec<u8>,
    sid: Vec<u8>,
}

impl Key {
    fn of(arrival: &Arrival) -> Self {
        Self {
            account: rows::sid_bytes(arrival.account.as_str()),
            sid: rows::sid_bytes(arrival.sid.as_str()),
        }
    }

    /// The number of the message, if it is kept already.
    fn known(&self, db: &Connection) -> Result<Option<i64>, StoreError> {
        let id = db
            .prepare_cached("SELECT id FROM inbound WHERE sid = ?1 AND account = ?2")?
            .query_row(params![self.sid, self.account], |row| row.get(0))
            .optional()?;
        Ok(id)
    }
}

/// A message that is kept already. The window and consent are not touched.
fn repeated(
    db: &Connection,
    me: i64,
    row: State,
    arrival: &Arrival,
) -> Result<Acceptance, StoreError> {
    let last_answer = |db: &Connection| -> Result<Acceptance, StoreError> {
        // Nothing to say is the empty response, and no empty body.
        let twiml = Some(arrival.last_answer.clone()).filter(|twiml| !twiml.is_empty());
        db.prepare_cached("UPDATE inbound SET state = 3, answer = ?2 WHERE id = ?1")?
            .execute(params![row.id, twiml])?;
        Ok(Acceptance::Answered(Answered { twiml }))
    };
    match row.state {
        inbound::ANSWERED => {
            return Ok(Acceptance::Answered(Answered { twiml: row.answer }));
        }
        inbound::FAILED if row.attempt >= arrival.attempts => return last_answer(db),
        inbound::RECEIVED | inbound::HANDLING if row.owner == Some(me) => {
            return Ok(Acceptance::InProgress { id: row.id });
        }
        // A process died over it.
        inbound::HANDLING if !arrival.retry_crashed || row.attempt >= arrival.attempts => {
            return last_answer(db);
        }
        inbound::RECEIVED | inbound::HANDLING | inbound::FAILED => {}
        _ => return Ok(Acceptance::Answered(Answered::EMPTY)),
    }
    if row.blocked {
        db.prepare_cached(
            "UPDATE inbound SET state = 0, owner = ?2, claimed_at = ?3 WHERE id = ?1",
        )?
        .execute(params![row.id, me, arrival.at.as_microsecond()])?;
        return Ok(Acceptance::Waiting {
            id: row.id,
            conversation: row.conversation,
            ahead: 1,
        });
    }
    Ok(Acceptance::New(row.claim(
        db,
        me,
        inbound::HANDLING,
        arrival.at,
    )?))
}

pub(super) fn decide(
    db: &Connection,
    me: i64,
    id: i64,
    choice: &Choice,
    now: Timestamp,
) -> Result<Decision, StoreError> {
    let row = State::of(db, me, id)?;
    let open = matches!(row.state, inbound::RECEIVED | inbound::HANDLING);
    match choice {
        Choice::Twiml(twiml) if open || row.state == inbound::FAILED => {
            let answer = Some(twiml.clone()).filter(|twiml| !twiml.is_empty());
            db.prepare_cached(
                "UPDATE inbound SET state = 3, owner = NULL, answer = ?2 WHERE id = ?1",
            )?
            .execute(params![id, answer])?;
            Ok(Decision::Answered(Answered { twiml: answer }))
        }
        Choice::Rest if open => {
            // What waits for its turn is let go; what is being handled stays so.
            db.prepare_cached(
                "UPDATE inbound SET owner = CASE WHEN state = 0 THEN NULL ELSE owner END, state = 2, claimed_at = ?2 WHERE id = ?1",
            )?
            .execute(params![id, now.as_microsecond()])?;
            Ok(Decision::Deferred)
        }
        _ => Ok(row.decision()),
    }
}

fn behind(db: &Connection, me: i64, message: i64, limit: u32) -> Result<Vec<Behind>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, params, received_at FROM inbound INDEXED BY inbound_open \
         WHERE conversation = (SELECT conversation FROM inbound WHERE id = ?1) AND id > ?1 AND state < 3 \
         AND (state = 0 OR (state = 2 AND (owner IS NULL OR owner <> ?2))) AND params IS NOT NULL ORDER BY id LIMIT ?3",
    )?;
    let mut found = statement.query(params![message, me, limit])?;
    let mut behind = Vec::new();
    while let Some(row) = found.next()? {
        behind.push(Behind {
            id: row.get(0)?,
            params: TakenParams(row.get(1)?),
            received_at: rows::time(row.get(2)?)?,
        });
    }
    Ok(behind)
}

/// What ends with a message. Its conversation is not the claim's: it may have been joined to another meanwhile.
pub(super) fn end(
    db: &Connection,
    me: i64,
    conversation: i64,
    ending: &Ending,
    now: Timestamp,
) -> Result<(), StoreError> {
    conversations::change_dialogue(db, conversation, ending.dialogue.as_ref(), now)?;
    handover::change(db, conversation, ending.hand_over.as_ref())?;
    for id in &ending.merged {
        db.prepare_cached(
            "UPDATE inbound SET state = CASE WHEN state = 0 THEN 3 ELSE 4 END, owner = NULL, reason = ?2, claimed_at = ?3 \
             WHERE id = ?1 AND conversation = ?4 AND (state = 0 OR (state = 2 AND (owner IS NULL OR owner <> ?5)))",
        )?
        .execute(params![id, rows::MERGED, now.as_microsecond(), conversation, me])?;
    }
    Ok(())
}

fn enter(
    db: &Connection,
    me: i64,
    arrival: &Arrival,
    twiml: Option<&str>,
) -> Result<(), StoreError> {
    let key = Key::of(arrival);
    let is_new = key.known(db)?.is_none();
    if is_new {
        accept(db, me, arrival)?;
    }
    let Some(id) = key.known(db)? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // What was said is the answer, also where REST was to carry one that is not in the outbox yet.
        db.prepare_cached("UPDATE inbound SET state = 3, owner = NULL, answer = ?2 WHERE id = ?1 AND state IN (0, 1, 2, 5)")?
            .execute(params![id, twiml])?;
    } else if is_new {
        // Nothing was said: it is left to be handled.
        db.prepare_cached("UPDATE inbound SET state = 2, owner = NULL, attempt = 0 WHERE id = ?1 AND state IN (0, 1)")?
            .execute([id])?;
    }
    Ok(())
}

/// Keeps a message as answered, so that nobody handles it, unless it is kept already.
pub(super) fn enter_answered(
    db: &Connection,
    me: i64,
    arrival: &Arrival,
) -> Result<(), StoreError> {
    let key = Key::of(arrival);
    if key.known(db)?.is_some() {
        return Ok(());
    }
    accept(db, me, arrival)?;
    db.execute(
        "UPDATE inbound SET state = 3, owner = NULL, attempt = 0, reason = ?3 \
         WHERE sid = ?1 AND account = ?2 AND state IN (0, 1)",
        params![key.sid, key.account, rows::ANSWERED_BEFORE],
    )?;
    Ok(())
}

/// Lets a message go: whoever comes next may have it. A carrier that is decided stays so.
fn release(db: &Connection, id: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END WHERE id = ?1 AND state < 3",
    )?
    .execute([id])?;
    Ok(())
}

/// Lets everything go.
pub(super) fn close(db: &Connection, me: i64) -> Result<(), StoreError> {
    db.execute(
        "UPDATE inbound INDEXED BY inbound_open SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END \
         WHERE state < 3 AND owner = ?1",
        [me],
    )?;
    Ok(())
}
