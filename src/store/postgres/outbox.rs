//! [`Outbox`] in PostgreSQL.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::{PgConnection, Postgres, Row};

use super::error::Trouble;
use super::text::{pack, unpack};
use super::{PostgresStore, calls, news, operator, submission};
use crate::address::Address;
use crate::clock::after;
use crate::form::Form;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::outbox::{GRACE, LOOK, MAX_PAUSE};
use crate::store::rows;
use crate::store::{
    ConsentRecord, NewReply, News, NewsEffect, OutboundMessage, Outbox, OutboxState, Outcome,
    ReplyRow, ReplyState, ScheduledMessage, SendKey, Settlement, Standing, Submission, Submitted,
};

impl Outbox for PostgresStore {
    fn claim(&self, limit: usize, now: Timestamp) -> Outcome<'_, Vec<OutboundMessage>> {
        let me = self.owner;
        self.claim(move |db| Box::pin(claim(db, me, limit, now)))
    }

    fn settle(&self, id: i64, settlement: Settlement, now: Timestamp) -> Outcome<'_, ()> {
        let (me, settlement) = (self.owner, Arc::new(settlement));
        let begin = match &*settlement {
            Settlement::Sent { sid, .. } => about(*sid),
            _ => calls::BEGIN.to_owned(),
        };
        self.call(Some(begin.into()), move |db| {
            let settlement = settlement.clone();
            Box::pin(async move { settle(db, me, id, &settlement, now).await })
        })
    }

    fn unknown(&self, limit: usize, now: Timestamp) -> Outcome<'_, Vec<OutboundMessage>> {
        self.ask(move |db| {
            Box::pin(async move {
                let found = sqlx::query(UNKNOWN)
                    .bind(now.as_microsecond())
                    .bind(count(limit))
                    .bind(after(now, LOOK).as_microsecond())
                    .fetch_all(db)
                    .await?;
                found.iter().map(|row| read_message(row, now)).collect()
            })
        })
    }

    fn unwanted(&self, after: i64, limit: usize) -> Outcome<'_, Vec<ScheduledMessage>> {
        self.ask(move |db| {
            Box::pin(async move {
                let found = sqlx::query(UNWANTED)
                    .bind(after)
                    .bind(count(limit))
                    .fetch_all(db)
                    .await?;
                found
                    .iter()
                    .map(|row| {
                        Ok(ScheduledMessage {
                            id: row.try_get(0)?,
                            account: rows::account_sid(row.try_get(1)?)?,
                            slot: rows::slot(row.try_get(2)?),
                            sid: rows::message_sid(row.try_get(3)?)?,
                        })
                    })
                    .collect()
            })
        })
    }

    fn unclaimed_sids(
        &self,
        account: AccountSid,
        sids: Vec<MessageSid>,
    ) -> Outcome<'_, Vec<MessageSid>> {
        let sids: Arc<[MessageSid]> = sids.into();
        self.ask(move |db| {
            let sids = sids.clone();
            Box::pin(async move {
                let packed: Vec<_> = sids
                    .iter()
                    .map(|sid| rows::sid_bytes(sid.as_str()))
                    .collect();
                let taken: Vec<Vec<u8>> = sqlx::query_scalar(
                    "SELECT sid FROM reply WHERE sid = ANY ($1) AND account = $2",
                )
                .bind(packed)
                .bind(rows::sid_bytes(account.as_str()))
                .fetch_all(db)
                .await?;
                let is_free = |sid: &&MessageSid| !taken.contains(&rows::sid_bytes(sid.as_str()));
                Ok(sids.iter().filter(is_free).copied().collect())
            })
        })
    }

    fn enqueue(&self, replies: Vec<NewReply>, now: Timestamp) -> Outcome<'_, Vec<i64>> {
        let replies = Arc::new(Columns::of(&replies));
        self.ask(move |db| {
            let replies = replies.clone();
            Box::pin(async move { insert(db, &replies, now).await })
        })
    }

    fn submit(&self, submission: Submission, now: Timestamp) -> Outcome<'_, Submitted> {
        let submission = Arc::new(submission);
        self.write(move |db| {
            let submission = submission.clone();
            Box::pin(async move { submission::submit(db, &submission, now).await })
        })
    }

    fn standing(
        &self,
        us: &Address,
        service: Option<MessagingServiceSid>,
        user: &Address,
        at: Timestamp,
    ) -> Outcome<'_, Standing> {
        let who = Arc::new((us.clone(), user.clone()));
        self.ask(move |db| {
            let who = who.clone();
            Box::pin(async move { submission::standing(db, &who.0, service, &who.1, at).await })
        })
    }

    fn keyed(&self, key: SendKey) -> Outcome<'_, Option<i64>> {
        self.ask(move |db| Box::pin(async move { submission::keyed(db, &key).await }))
    }

    fn outgoing(&self, id: i64) -> Outcome<'_, Option<ReplyRow>> {
        self.ask(move |db| Box::pin(operator::reply(db, id)))
    }

    fn news(&self, news: News) -> Outcome<'_, NewsEffect> {
        let begin = about(news.sid);
        let news = Arc::new(news);
        self.call(Some(begin.into()), move |db| {
            let news = news.clone();
            Box::pin(async move { news::take(db, &news).await })
        })
    }

    fn outbox_state(&self) -> Outcome<'_, OutboxState> {
        self.ask(|db| {
            Box::pin(async {
                let found: Vec<(i64, i64, i64)> = sqlx::query_as(
                    "SELECT state, count(*), min(coalesce(due, created_at)) FROM reply WHERE state < 4 GROUP BY state",
                )
                .fetch_all(db)
                .await?;
                let mut state = OutboxState::default();
                for (kind, number, oldest) in found {
                    state.add(kind, number, rows::time(oldest)?);
                }
                Ok(state)
            })
        })
    }
}

/// Begins a transaction about one of Twilio's messages. An answer to a call and a status callback that come at once, on
/// two machines, would each look for what the other has not committed yet; so they go one after the other.
fn about(sid: MessageSid) -> String {
    // Twilio's digits are random; two messages that share these wait for each other, and no more.
    let digits = sid.as_str().get(2..17).unwrap_or_default();
    let key = i64::from_str_radix(digits, 16).unwrap_or(0);
    format!("{}; SELECT pg_advisory_xact_lock({key})", calls::BEGIN)
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// New messages, a column each.
#[derive(Default)]
pub(super) struct Columns {
    accounts: Vec<Vec<u8>>,
    slots: Vec<i64>,
    us: Vec<String>,
    addresses: Vec<String>,
    services: Vec<Option<String>>,
    templates: Vec<bool>,
    params: Vec<String>,
}

impl Columns {
    pub(super) fn of(replies: &[NewReply]) -> Self {
        let mut columns = Self::default();
        for reply in replies {
            let service = reply.service.as_ref();
            columns
                .accounts
                .push(rows::sid_bytes(reply.account.as_str()));
            columns.slots.push(rows::slot_number(reply.slot));
            columns.us.push(pack(reply.us.as_str()).into_owned());
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
            .bind(&self.slots)
            .bind(&self.us)
            .bind(&self.addresses)
            .bind(&self.services)
            .bind(&self.templates)
            .bind(&self.params)
    }
}

/// Adds messages that answer nothing.
pub(super) async fn insert(
    db: &mut PgConnection,
    replies: &Columns,
    now: Timestamp,
) -> Result<Vec<i64>, Trouble> {
    let query = sqlx::query_as(ENQUEUE).bind(now.as_microsecond());
    let mut ids: Vec<(i64, i64)> = replies.bind(query).fetch_all(db).await?;
    ids.sort_unstable();
    Ok(ids.into_iter().map(|(_, id)| id).collect())
}

const ENQUEUE: &str = "INSERT INTO reply (ordinal, account, slot, us, address, service, template, state, not_before, \
     created_at, params) SELECT r.ordinal - 1, r.account, r.slot, r.us, r.address, r.service, r.template, 0, $1, $1, r.params \
     FROM unnest($2::bytea[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::text[]) WITH ORDINALITY \
     AS r (account, slot, us, address, service, template, params, ordinal) ORDER BY r.ordinal RETURNING ordinal, id";

/// What a message is read from, in the order of `read_message`. As SQL, of the rows `m`.
macro_rules! message {
    () => {
        "m.id, m.created_at, m.account, m.slot, m.us, m.address, m.service, m.template, m.attempt, m.looks, m.sent_at, m.params, \
         (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.us = m.us AND a.address = m.address), \
         EXISTS (SELECT 1 FROM consent c WHERE c.opted_in IS NOT NULL AND c.scope IN (m.us, m.service) \
           AND (c.address = m.address OR c.address IN (SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation WHERE a.us = m.us AND a.address = m.address)))"
    };
}

/// Calls of dead processes become unknown.
const ORPHANS: &str = concat!(
    "UPDATE reply r SET state = 2, owner = NULL, not_before = $2 WHERE r.state = 1 AND r.owner <> $1 AND NOT ",
    lives!("r.owner"),
);

/// Pauses that end too late, since the clock was set back, end now. The time that a paced message may go is no such pause.
const SET_BACK: &str = "UPDATE reply SET not_before = $1 \
     WHERE state IN (0, 2) AND state < 4 AND not_before > $2 AND due IS NULL";

/// Whether the user of a row has opted out, under whatever address.
macro_rules! opted_out {
    ($row:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM consent c WHERE c.opted_out IS NOT NULL \
               AND (c.scope = ",
            $row,
            ".us OR c.scope = ",
            $row,
            ".service OR ",
            $row,
            ".us = ",
            $row,
            ".service) \
               AND (c.address = ",
            $row,
            ".address OR c.address IN (SELECT b.address FROM conversation_address a \
                 JOIN conversation_address b ON b.conversation = a.conversation \
                 WHERE a.us = ",
            $row,
            ".us AND a.address = ",
            $row,
            ".address)))"
        )
    };
}

/// What Twilio holds until its time and is not wanted any more.
const UNWANTED: &str = concat!(
    "SELECT r.id, r.account, r.slot, r.sid FROM reply r \
     WHERE r.status = 'scheduled' AND r.sid IS NOT NULL AND r.id > $1 AND ",
    opted_out!("r"),
    " ORDER BY r.id LIMIT $2",
);

/// Claims what is due, or takes it back where the user has opted out, under whatever address. Of one reply only the first;
/// and to one person only the oldest of what is due, is on its way, or was tried before. What stands behind a part that is
/// held or failed is in nobody's way.
const CLAIM: &str = concat!(
    "WITH due AS (SELECT r.id, r.us, r.address, r.service FROM reply r WHERE r.state = 0 AND r.not_before <= $2 \
       AND r.id = (SELECT q.id FROM reply q WHERE q.us = r.us AND q.address = r.address AND q.account = r.account \
         AND q.state < 3 AND (q.state > 0 OR q.not_before <= $2 OR q.attempt > 0) \
         AND (q.inbound IS NULL OR NOT EXISTS (\
           SELECT 1 FROM reply p WHERE p.inbound = q.inbound AND p.ordinal < q.ordinal AND p.state IN (3, 5))) \
         ORDER BY q.id LIMIT 1) \
       AND (r.inbound IS NULL OR NOT EXISTS (\
         SELECT 1 FROM reply p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND p.state NOT IN (4, 6))) \
       ORDER BY r.not_before, r.id LIMIT $3 FOR UPDATE SKIP LOCKED), \
     judged AS (SELECT due.id, ",
    opted_out!("due"),
    " AS unwanted FROM due), \
     m AS (UPDATE reply r SET state = CASE WHEN j.unwanted THEN 6 ELSE 1 END, \
       reason = CASE WHEN j.unwanted THEN 'the user has opted out' ELSE r.reason END, \
       owner = CASE WHEN j.unwanted THEN r.owner ELSE $1 END, \
       attempt = r.attempt + CASE WHEN j.unwanted THEN 0 ELSE 1 END, \
       sent_at = CASE WHEN j.unwanted THEN r.sent_at ELSE $2 END FROM judged j WHERE r.id = j.id RETURNING r.*) \
     SELECT ",
    message!(),
    " FROM m WHERE m.state = 1 ORDER BY m.id"
);

/// Hands out what is to be looked for; whoever asks next, on whatever machine, gets something else.
const UNKNOWN: &str = concat!(
    "WITH due AS (SELECT id FROM reply WHERE state = 2 AND not_before <= $1 ORDER BY not_before LIMIT $2 FOR UPDATE SKIP LOCKED), \
     m AS (UPDATE reply r SET not_before = $3 FROM due WHERE r.id = due.id RETURNING r.*) SELECT ",
    message!(),
    " FROM m ORDER BY m.id"
);

/// What is open, for whoever looks.
const OPEN: &str = concat!(
    "SELECT ",
    message!(),
    " FROM reply m WHERE m.state = $1 AND m.state < 4 AND m.id > $2 ORDER BY m.id LIMIT $3"
);

pub(super) async fn open(
    db: &mut PgConnection,
    state: ReplyState,
    after: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<OutboundMessage>, Trouble> {
    let found = sqlx::query(OPEN)
        .bind(rows::reply_number(state))
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
) -> Result<Vec<OutboundMessage>, Trouble> {
    sqlx::query(ORPHANS)
        .bind(me)
        .bind(after(now, GRACE).as_microsecond())
        .execute(&mut *db)
        .await?;
    sqlx::query(SET_BACK)
        .bind(now.as_microsecond())
        .bind(after(now, MAX_PAUSE).as_microsecond())
        .execute(&mut *db)
        .await?;
    let claimed = sqlx::query(CLAIM)
        .bind(me)
        .bind(now.as_microsecond())
        .bind(count(limit))
        .fetch_all(db)
        .await?;
    claimed.iter().map(|row| read_message(row, now)).collect()
}

fn read_message(row: &PgRow, now: Timestamp) -> Result<OutboundMessage, Trouble> {
    let us: Address = unpack(row.try_get(4)?).into();
    let user: Address = unpack(row.try_get(5)?).into();
    let service: Option<String> = row.try_get(6)?;
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let sent_at: Option<i64> = row.try_get(10)?;
    let params: Option<String> = row.try_get(11)?;
    let params = params.map(unpack).unwrap_or_default();
    let last_inbound: Option<i64> = row.try_get(12)?;
    Ok(OutboundMessage {
        id: row.try_get(0)?,
        created_at: rows::time(row.try_get(1)?)?,
        account: rows::account_sid(row.try_get(2)?)?,
        slot: rows::slot(row.try_get(3)?),
        template: row.try_get(7)?,
        window: rows::window(&user, last_inbound, now)?,
        us,
        user,
        service: service.and_then(|service| service.parse().ok()),
        attempt: number(row.try_get(8)?),
        looks: number(row.try_get(9)?),
        sent_at: sent_at.map(rows::time).transpose()?,
        params: Form::parse(params.as_bytes(), usize::MAX).unwrap_or_default(),
        opted_in: row.try_get(13)?,
    })
}

/// Writes down what became of a call. One that another process has claimed since is that one's to settle; only that it
/// was sent is true whoever says so.
async fn settle(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    settlement: &Settlement,
    now: Timestamp,
) -> Result<(), Trouble> {
    match settlement {
        Settlement::Sent { sid, status } => {
            let bytes = rows::sid_bytes(sid.as_str());
            sqlx::query(
                "UPDATE reply SET state = 4, owner = NULL, sid = coalesce(sid, $2), reason = NULL, \
                 status = CASE WHEN rank < $4 THEN $3 ELSE status END, rank = greatest(rank, $4) WHERE id = $1",
            )
            .bind(id)
            .bind(&bytes)
            .bind(pack(status.as_str()))
            .bind(rows::rank(status))
            .execute(&mut *db)
            .await?;
            // A callback may have been faster than the answer to the call.
            let early: Option<(String, i64, Option<i64>)> = sqlx::query_as(
                "DELETE FROM news WHERE sid = $2 AND account = (SELECT account FROM reply WHERE id = $1) \
                 RETURNING status, rank, error_code",
            )
            .bind(id)
            .bind(&bytes)
            .fetch_optional(&mut *db)
            .await?;
            if let Some((status, rank, code)) = early {
                news::raise(db, id, &status, rank, code).await?;
            }
        }
        Settlement::Again { not_before } => {
            sqlx::query(
                "UPDATE reply SET state = 0, owner = NULL, not_before = $2 \
                 WHERE id = $1 AND (state = 2 OR (state = 1 AND owner = $3))",
            )
            .bind(id)
            .bind(not_before.as_microsecond())
            .bind(me)
            .execute(&mut *db)
            .await?;
            hold_up(db, id, *not_before, now).await?;
        }
        Settlement::Failed { code, reason } => {
            let code = code.map(|code| code.0);
            let failed: Option<(String, String, Option<String>)> = sqlx::query_as(
                "UPDATE reply SET state = 5, owner = NULL, error_code = $2, reason = $3 \
                 WHERE id = $1 AND (state = 2 OR (state = 1 AND owner = $4)) RETURNING us, address, service",
            )
            .bind(id)
            .bind(code.map(i64::from))
            .bind(*reason)
            .bind(me)
            .fetch_optional(&mut *db)
            .await?;
            let Some((us, user, service)) = failed else {
                return Ok(());
            };
            let us = unpack(us);
            if let Some(scope) = rows::refused_scope(code, &us, service.as_deref()) {
                let record = ConsentRecord::refusal(scope, unpack(user), None, now);
                news::refused(db, &record).await?;
            }
        }
        Settlement::Unknown { look_at, looked } => {
            sqlx::query(
                "UPDATE reply SET state = 2, owner = NULL, not_before = $2, looks = looks + $3 \
                 WHERE id = $1 AND (state = 2 OR (state = 1 AND owner = $4))",
            )
            .bind(id)
            .bind(look_at.as_microsecond())
            .bind(i64::from(*looked))
            .bind(me)
            .execute(db)
            .await?;
        }
        Settlement::Held => {
            sqlx::query(
                "UPDATE reply SET state = 3, owner = NULL, reason = 'whether it was sent is not known' WHERE id = $1 AND state = 2",
            )
            .bind(id)
            .execute(db)
            .await?;
        }
    }
    Ok(())
}

/// Lets what is due to the same person wait as long as this one does: each claim would pass over it otherwise. It counts as
/// tried, since it is as old.
async fn hold_up(
    db: &mut PgConnection,
    id: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), Trouble> {
    sqlx::query(
        "WITH behind AS (SELECT r.id FROM reply h JOIN reply r ON r.us = h.us AND r.address = h.address AND r.account = h.account \
           WHERE h.id = $1 AND h.state = 0 AND r.id > $1 AND r.state = 0 AND r.not_before < $2 AND r.not_before <= $3 \
           ORDER BY r.id FOR UPDATE OF r SKIP LOCKED) \
         UPDATE reply r SET not_before = $2, attempt = greatest(r.attempt, 1) FROM behind WHERE r.id = behind.id",
    )
    .bind(id)
    .bind(until.as_microsecond())
    .bind(now.as_microsecond())
    .execute(db)
    .await?;
    Ok(())
}

/// Calls that end with this process are looked for by another.
pub(super) async fn close(db: &mut PgConnection, me: i64) -> Result<(), Trouble> {
    sqlx::query("UPDATE reply SET state = 2, owner = NULL WHERE state = 1 AND owner = $1")
        .bind(me)
        .execute(db)
        .await?;
    Ok(())
}
