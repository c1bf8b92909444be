//! [`Journal`] in PostgreSQL.
//!
//! Whoever puts a message into hands has locked its conversation in an earlier statement: the next one sees everything
//! that was committed before the lock was had, and nobody else can put another message of it into hands meanwhile.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::conversations::Change;
use super::error::Trouble;
use super::text::{pack, unpack};
use super::{PostgresStore, accept, backlog, handover, outbox};
use crate::store::outbox::MAX_ORDER_WAIT;
use crate::store::rows::{self, inbound};
use crate::store::{
    Acceptance, Answered, Arrival, Behind, Choice, Claim, CrashPolicy, Decision, Ending, Journal,
    NewReply, Outcome, TakenParams, TakenUp, Turn,
};

impl Journal for PostgresStore {
    fn accept(&self, arrival: Arc<Arrival>) -> Outcome<'_, Acceptance> {
        let me = self.owner;
        Box::pin(async move {
            let shared = arrival.clone();
            let at_once = self.ask(move |db| {
                let arrival = shared.clone();
                Box::pin(async move { accept::accept_at_once(db, me, &arrival).await })
            });
            if let Some(acceptance) = at_once.await? {
                return Ok(acceptance);
            }
            let with_care = self.claim(move |db| {
                let arrival = arrival.clone();
                Box::pin(async move { accept::accept(db, me, &arrival).await })
            });
            with_care.await
        })
    }

    fn turn(&self, id: i64, now: Timestamp) -> Outcome<'_, Turn> {
        let me = self.owner;
        Box::pin(async move {
            // Most looks find that it is not time yet, and need no lock for that.
            let looked = self.ask(move |db| {
                Box::pin(async move { Ok(Standing::of(db, me, id).await?.turn(me)) })
            });
            if let Some(turn) = looked.await? {
                return Ok(turn);
            }
            let claimed = self.claim(move |db| {
                Box::pin(async move {
                    lock_conversation(db, id).await?;
                    let row = Standing::locked(db, me, id).await?;
                    match row.turn(me) {
                        Some(turn) => Ok(turn),
                        None => Ok(Turn::Yours(row.claim(db, me, now).await?)),
                    }
                })
            });
            claimed.await
        })
    }

    fn behind(&self, claim: Claim, limit: u32) -> Outcome<'_, Vec<Behind>> {
        let me = self.owner;
        self.ask(move |db| {
            Box::pin(async move {
                let found = sqlx::query(BEHIND)
                    .bind(me)
                    .bind(claim.id)
                    .bind(i64::from(limit))
                    .fetch_all(db)
                    .await?;
                let behind = found.into_iter().map(|row| {
                    Ok(Behind {
                        id: row.try_get(0)?,
                        params: TakenParams(unpack(row.try_get(1)?)),
                        received_at: rows::time(row.try_get(2)?)?,
                    })
                });
                behind.collect()
            })
        })
    }

    fn decide(&self, id: i64, choice: Choice, now: Timestamp) -> Outcome<'_, Decision> {
        let me = self.owner;
        self.ask(move |db| {
            let choice = choice.clone();
            Box::pin(async move { decide(db, me, id, choice, now).await })
        })
    }

    fn answer(
        &self,
        claim: Claim,
        twiml: Option<String>,
        ending: Ending,
        now: Timestamp,
    ) -> Outcome<'_, Decision> {
        let (me, dialogue) = (self.owner, Change::of(ending.dialogue));
        let (merged, hand_over) = (ending.merged, handover::columns(ending.hand_over.as_ref()));
        let queue = Arc::new(ending.queue);
        self.ask(move |db| {
            let (twiml, dialogue, merged) = (twiml.clone(), dialogue.clone(), merged.clone());
            let (url, until) = hand_over.clone();
            let queue = queue.clone();
            Box::pin(async move {
                let query = sqlx::query_as(ANSWER)
                    .bind(claim.id)
                    .bind(me)
                    .bind(i64::from(claim.attempt));
                let queue = (*queue).as_ref();
                let decided: Option<(i64, Option<String>)> = dialogue
                    .bind(query, now)
                    .bind(merged)
                    .bind(rows::MERGED)
                    .bind(twiml.as_deref().map(pack))
                    .bind(url)
                    .bind(until)
                    .bind(queue.map(|queue| pack(queue.sender.as_str())))
                    .bind(queue.map(|queue| pack(queue.user.as_str())))
                    .bind(micros(MAX_ORDER_WAIT))
                    .fetch_optional(&mut *db)
                    .await?;
                Ok(match decided {
                    Some((inbound::ANSWERED, saved)) => Decision::Answered(Answered {
                        twiml: saved.map(unpack),
                    }),
                    Some(_) => Decision::Deferred,
                    None => Standing::of(db, me, claim.id)
                        .await?
                        .decision_for(me, claim),
                })
            })
        })
    }

    fn finish(
        &self,
        claim: Claim,
        replies: Vec<NewReply>,
        ending: Ending,
        now: Timestamp,
    ) -> Outcome<'_, bool> {
        let (me, dialogue) = (self.owner, Change::of(ending.dialogue));
        let (merged, hand_over) = (ending.merged, handover::columns(ending.hand_over.as_ref()));
        let reason = ending.hand_over.is_some().then_some(rows::NOT_REDIRECTED);
        let replies = Arc::new(outbox::Columns::of(&replies));
        self.ask(move |db| {
            let (replies, dialogue, merged) = (replies.clone(), dialogue.clone(), merged.clone());
            let (url, until) = hand_over.clone();
            Box::pin(async move {
                let query = sqlx::query_as(FINISH)
                    .bind(claim.id)
                    .bind(me)
                    .bind(i64::from(claim.attempt));
                let query = dialogue.bind(query, now).bind(merged).bind(rows::MERGED);
                let query = replies.bind(query).bind(url).bind(until).bind(reason);
                let ended: Option<(i64,)> = query.fetch_optional(db).await?;
                Ok(ended.is_some())
            })
        })
    }

    fn fail(&self, claim: Claim, reason: &'static str, for_good: bool) -> Outcome<'_, Decision> {
        let me = self.owner;
        self.ask(move |db| {
            Box::pin(async move {
                let failed: Option<i64> = sqlx::query_scalar(
                    "UPDATE inbound SET state = CASE WHEN state = 1 AND NOT $5 THEN 5 ELSE 6 END, reason = $4 \
                     WHERE id = $1 AND state IN (1, 2) AND owner = $2 AND attempt = $3 RETURNING state",
                )
                .bind(claim.id)
                .bind(me)
                .bind(i64::from(claim.attempt))
                .bind(reason)
                .bind(for_good)
                .fetch_optional(&mut *db)
                .await?;
                Ok(match failed {
                    Some(inbound::FAILED) => Decision::Lost,
                    Some(_) => Decision::Deferred,
                    None => Standing::of(db, me, claim.id)
                        .await?
                        .decision_for(me, claim),
                })
            })
        })
    }

    fn take_up(&self, limit: usize, policy: CrashPolicy, now: Timestamp) -> Outcome<'_, TakenUp> {
        let me = self.owner;
        self.claim(move |db| Box::pin(backlog::take_up(db, me, limit, policy, now)))
    }

    fn let_go(&self, running: Vec<i64>, before: Timestamp) -> Outcome<'_, u64> {
        let me = self.owner;
        self.ask(move |db| {
            let running = running.clone();
            Box::pin(async move {
                let gone = sqlx::query(
                    "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END \
                     WHERE state < 3 AND owner = $1 AND claimed_at < $2 AND NOT id = ANY ($3)",
                )
                .bind(me)
                .bind(before.as_microsecond())
                .bind(running)
                .execute(db)
                .await?;
                Ok(gone.rows_affected())
            })
        })
    }

    fn enter(&self, arrival: Arc<Arrival>, twiml: Option<String>) -> Outcome<'_, ()> {
        let (me, told) = (self.owner, Arc::new((arrival, twiml)));
        self.claim(move |db| {
            let told = told.clone();
            Box::pin(async move { accept::enter(db, me, &told.0, told.1.as_deref()).await })
        })
    }
}

/// Saves an answer, or decides that it goes behind an older reply. A part that stands behind a failed or held one is not
/// going to be sent, and so is not waited for.
const ANSWER: &str = concat!(
    "WITH oldest AS (SELECT r.created_at FROM reply r WHERE r.us = $13 AND r.address = $14 \
       AND r.account = (SELECT account FROM inbound WHERE id = $1) AND r.state < 3 AND r.inbound IS NOT NULL \
       AND r.unordered IS NULL AND NOT EXISTS (\
         SELECT 1 FROM reply p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state IN (3, 5)) \
       ORDER BY r.id LIMIT 1), \
     waits AS (SELECT FROM oldest WHERE abs($7 - created_at) < $15), \
     behind AS (UPDATE inbound SET state = 2, claimed_at = $7 \
       WHERE id = $1 AND state = 1 AND owner = $2 AND attempt = $3 AND EXISTS (SELECT FROM waits) RETURNING state), \
     ended AS (UPDATE inbound i SET state = 3, reason = NULL, answer = CASE WHEN EXISTS (\
       SELECT 1 FROM conversation_address a JOIN consent c ON c.address = a.address \
       WHERE a.conversation = i.conversation AND c.opted_out IS NOT NULL AND (c.scope = a.us OR c.scope = i.service)) \
       THEN NULL ELSE $10 END, claimed_at = $7 \
     WHERE i.id = $1 AND i.state = 1 AND i.owner = $2 AND i.attempt = $3 AND NOT EXISTS (SELECT FROM waits) \
     RETURNING i.state, i.answer, i.conversation), ",
    change_dialogue!(),
    ", ",
    merge!(),
    ", ",
    hand_over!("$11", "$12"),
    " SELECT state, answer FROM ended UNION ALL SELECT state, NULL FROM behind"
);

const FINISH: &str = concat!(
    "WITH ended AS (UPDATE inbound SET state = 4, reason = $19 \
     WHERE id = $1 AND state IN (1, 2) AND owner = $2 AND attempt = $3 RETURNING id, conversation, unordered), ",
    change_dialogue!(),
    ", ",
    merge!(),
    ", ",
    hand_over!("$17", "$18"),
    ", put AS (INSERT INTO reply (inbound, ordinal, account, slot, us, address, service, template, state, not_before, \
       created_at, params, unordered) SELECT ended.id, r.ordinal - 1, r.account, r.slot, r.us, r.address, r.service, \
       r.template, 0, $7, $7, r.params, ended.unordered FROM ended, unnest($10::bytea[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::boolean[], \
       $16::text[]) WITH ORDINALITY AS r (account, slot, us, address, service, template, params, ordinal) ORDER BY r.ordinal) \
     SELECT id FROM ended"
);

/// What waits behind a message, and nobody has.
const BEHIND: &str = concat!(
    "SELECT i.id, i.params, i.received_at FROM inbound i \
     WHERE i.conversation = (SELECT conversation FROM inbound WHERE id = $2) AND i.id > $2 AND i.state < 3 \
     AND (i.state = 0 OR (i.state = 2 AND NOT ",
    held!("$1"),
    ")) AND i.params IS NOT NULL ORDER BY i.id LIMIT $3"
);

/// What a message's row says about who may do what.
pub(super) struct Standing {
    pub(super) id: i64,
    pub(super) conversation: i64,
    pub(super) state: i64,
    pub(super) attempt: u32,
    pub(super) owner: Option<i64>,
    /// Whether it is in living hands.
    pub(super) held: bool,
    pub(super) failed_before: bool,
    pub(super) answer: Option<String>,
    pub(super) blocked: bool,
    handed_over_until: Option<i64>,
}

/// Reads a [`Standing`]: the columns up to the table.
macro_rules! state {
    ($more:literal) => {
        concat!(
            "SELECT i.id, i.conversation, i.state, i.attempt, i.owner, ",
            held!("$1"),
            ", i.reason IS NOT NULL, i.answer, ",
            blocked!("$1"),
            ", (SELECT until FROM handover h WHERE h.conversation = i.conversation) FROM inbound i WHERE i.id = $2",
            $more
        )
    };
}

impl Standing {
    pub(super) async fn of(db: &mut PgConnection, me: i64, id: i64) -> Result<Self, Trouble> {
        Self::read(db, state!(""), me, id).await
    }

    /// The same, and nobody changes the row before the transaction ends.
    pub(super) async fn locked(db: &mut PgConnection, me: i64, id: i64) -> Result<Self, Trouble> {
        Self::read(db, state!(" FOR UPDATE OF i"), me, id).await
    }

    async fn read(
        db: &mut PgConnection,
        sql: &'static str,
        me: i64,
        id: i64,
    ) -> Result<Self, Trouble> {
        let row = sqlx::query(sql).bind(me).bind(id).fetch_one(db).await?;
        Ok(Self {
            id: row.try_get(0)?,
            conversation: row.try_get(1)?,
            state: row.try_get(2)?,
            attempt: number(row.try_get(3)?),
            owner: row.try_get(4)?,
            held: row.try_get(5)?,
            failed_before: row.try_get(6)?,
            answer: row.try_get::<Option<String>, _>(7)?.map(unpack),
            blocked: row.try_get(8)?,
            handed_over_until: row.try_get(9)?,
        })
    }

    /// What its answer is for somebody without a claim.
    fn decision(&self) -> Decision {
        rows::decision(self.state, self.answer.as_ref())
    }

    /// What it is for somebody who had this claim.
    fn decision_for(&self, me: i64, claim: Claim) -> Decision {
        let mine = self.owner == Some(me) && self.attempt == claim.attempt;
        rows::fenced(self.decision(), mine)
    }

    /// What is to be said to whoever waits for its turn; nothing if it has come.
    fn turn(&self, me: i64) -> Option<Turn> {
        if self.state != inbound::RECEIVED || self.owner != Some(me) {
            return Some(Turn::Decided(self.decision()));
        }
        self.blocked.then_some(Turn::Wait)
    }

    /// Takes it for the next attempt. Its conversation is locked.
    pub(super) async fn claim(
        &self,
        db: &mut PgConnection,
        me: i64,
        now: Timestamp,
    ) -> Result<Claim, Trouble> {
        sqlx::query(
            "WITH turned AS (UPDATE conversation SET turns = turns + 1 WHERE id = $5) \
             UPDATE inbound SET state = 1, owner = $2, attempt = $3, claimed_at = $4 WHERE id = $1",
        )
        .bind(self.id)
        .bind(me)
        .bind(i64::from(self.attempt) + 1)
        .bind(now.as_microsecond())
        .bind(self.conversation)
        .execute(db)
        .await?;
        Ok(Claim {
            id: self.id,
            conversation: self.conversation,
            attempt: self.attempt + 1,
            failed_before: self.failed_before,
            handed_over: self
                .handed_over_until
                .is_some_and(|until| until > now.as_microsecond()),
        })
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn number(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Locks a message's conversation. One that was joined to another, or is forgotten, is put right first.
pub(super) async fn lock_conversation(db: &mut PgConnection, id: i64) -> Result<(), Trouble> {
    let found: Option<(Option<i64>,)> = sqlx::query_as(
        "SELECT c.joined FROM inbound i JOIN conversation c ON c.id = i.conversation WHERE i.id = $1 FOR UPDATE OF c",
    )
    .bind(id)
    .fetch_optional(&mut *db)
    .await?;
    match found {
        Some((None,)) => return Ok(()),
        Some((Some(joined),)) => {
            let locked = sqlx::query(
                "SELECT id FROM conversation WHERE id = $1 AND joined IS NULL FOR UPDATE",
            )
            .bind(joined)
            .fetch_optional(&mut *db)
            .await?;
            if locked.is_none() {
                return Err(Trouble::Again);
            }
            sqlx::query("UPDATE inbound SET conversation = $2 WHERE id = $1")
                .bind(id)
                .bind(joined)
                .execute(db)
                .await?;
        }
        None => {
            sqlx::query(
                "INSERT INTO conversation (id, last_inbound) SELECT conversation, received_at FROM inbound WHERE id = $1 \
                 ON CONFLICT (id) DO UPDATE SET turns = conversation.turns + 1",
            )
            .bind(id)
            .execute(db)
            .await?;
        }
    }
    Ok(())
}

pub(super) async fn decide(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    choice: Choice,
    now: Timestamp,
) -> Result<Decision, Trouble> {
    let rest = choice == Choice::Rest;
    let (query, decision) = match choice {
        Choice::Twiml(twiml) => {
            let answer = Some(twiml).filter(|twiml| !twiml.is_empty());
            let query = sqlx::query(
                "UPDATE inbound SET state = 3, owner = NULL, answer = $2 WHERE id = $1 AND state IN (0, 1, 5)",
            )
            .bind(id)
            .bind(answer.as_deref().map(pack));
            (
                query,
                Decision::Answered(Answered {
                    twiml: answer.clone(),
                }),
            )
        }
        // What waits for its turn is let go; what is being handled stays so.
        Choice::Rest => {
            let query = sqlx::query(
                "UPDATE inbound SET owner = CASE WHEN state = 0 THEN NULL ELSE owner END, state = 2, claimed_at = $2 \
                 WHERE id = $1 AND state IN (0, 1)",
            )
            .bind(id)
            .bind(now.as_microsecond());
            (query, Decision::Deferred)
        }
    };
    if query.execute(&mut *db).await?.rows_affected() > 0 {
        return Ok(decision);
    }
    let row = Standing::of(db, me, id).await?;
    match row.state {
        // It was opened between the two statements.
        inbound::RECEIVED | inbound::HANDLING => Err(Trouble::Again),
        inbound::FAILED if !rest => Err(Trouble::Again),
        _ => Ok(row.decision()),
    }
}

/// Lets everything go.
pub(super) async fn close(db: &mut PgConnection, me: i64) -> Result<(), Trouble> {
    sqlx::query(
        "UPDATE inbound SET owner = NULL, state = CASE WHEN state = 1 THEN 0 ELSE state END WHERE state < 3 AND owner = $1",
    )
    .bind(me)
    .execute(db)
    .await?;
    Ok(())
}
