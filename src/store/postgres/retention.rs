//! [`Operator::expire`](crate::store::Operator::expire) in PostgreSQL: see [`expiry`] for the rows that a step takes.

use sqlx::PgConnection;

use super::error::Trouble;
use super::operator::forget;
use crate::store::expiry::{
    self, CONTENT, KEYS, LATER, MESSAGE, MESSAGE_MARKS, OUTGOING, OUTGOING_CONTENT, OUTGOING_TEXTS,
    STEP, TEXTS,
};
use crate::store::{Expired, Retention, rows};

/// "rply" and 2: of several machines one deletes at a time.
const EXPIRY: i64 = 0x7270_6c79_0002;

/// Rows behind the mark $1, at most $2 of them.
const MESSAGES: &str = "SELECT i.id, i.received_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = i.id) \
     FROM inbound i WHERE i.id > $1 ORDER BY i.id LIMIT $2";
const REPLIES: &str = "SELECT r.id, r.created_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = r.id) \
     FROM reply r WHERE r.id > $1 ORDER BY r.id LIMIT $2";

/// Open messages after $1 and up to $2.
const OPEN_MESSAGES: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT 0, id, received_at FROM inbound WHERE id > $1 AND id <= $2 AND state < 3 ON CONFLICT DO NOTHING";
const OPEN_REPLIES: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT DISTINCT 0, i.id, i.received_at FROM reply r JOIN inbound i ON i.id = r.inbound \
     WHERE r.inbound > $1 AND r.inbound <= $2 AND r.state <= 3 ON CONFLICT DO NOTHING";
const OPEN_OUTGOING: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT 1, id, created_at FROM reply WHERE id > $1 AND id <= $2 AND inbound IS NULL AND state <= 3 \
     ON CONFLICT DO NOTHING";

/// The deletions of a range of messages; $3 says whether those in `expire_later` are meant.
macro_rules! meant {
    ($id:literal) => {
        concat!(
            " AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = ",
            $id,
            ")"
        )
    };
}
const TEXTS_OF_REPLIES: &str = concat!(
    "UPDATE reply SET params = NULL WHERE inbound > $1 AND inbound <= $2 AND state > 3",
    meant!("reply.inbound")
);
const BECOMES_DEAD: &str = concat!(
    "UPDATE inbound SET state = 6, reason = $4, params = NULL, answer = NULL \
     WHERE id > $1 AND id <= $2 AND state IN (5, 6) AND params IS NOT NULL",
    meant!("inbound.id"),
    " RETURNING sid"
);
const TEXTS_OF_MESSAGES: &str = concat!(
    "UPDATE inbound SET params = NULL, answer = NULL WHERE id > $1 AND id <= $2 AND state > 2 \
     AND (params IS NOT NULL OR answer IS NOT NULL)",
    meant!("inbound.id")
);
const DELETE_REPLIES: &str = concat!(
    "DELETE FROM reply WHERE inbound > $1 AND inbound <= $2 AND state > 3",
    meant!("reply.inbound")
);
/// Those that are over: the last message is older than $4, or is in the future and among those up to $2, and none is open.
/// Rows locked by another transaction are skipped: it opens their window, so they are no longer old.
const OVER: &str = concat!(
    "SELECT c.id FROM conversation c WHERE c.id IN (SELECT conversation FROM inbound WHERE id > $1 AND id <= $2",
    meant!("inbound.id"),
    ") AND (c.last_inbound < $4 OR (c.last_inbound > $5 AND c.newest <= $2)) FOR UPDATE OF c SKIP LOCKED"
);
/// The check is repeated under the lock, since a message may have arrived before it; merged conversations go too.
const FORGOTTEN: &str = "WITH over AS (SELECT o.id FROM unnest($1::bigint[]) AS o (id) WHERE NOT EXISTS (\
       SELECT 1 FROM inbound p WHERE p.conversation = o.id AND p.state < 3)) \
     SELECT id FROM over UNION SELECT c.id FROM conversation c JOIN over ON over.id = c.joined";
const OPEN_TO_THE_END: &str = concat!(
    "SELECT sid FROM inbound WHERE id > $1 AND id <= $2 \
     AND (state < 3 OR (state IN (5, 6) AND params IS NOT NULL))",
    meant!("inbound.id")
);
const DELETE_ALL_REPLIES: &str = concat!(
    "DELETE FROM reply WHERE inbound > $1 AND inbound <= $2",
    meant!("reply.inbound")
);
const DELETE_MESSAGES: &str = concat!(
    "DELETE FROM inbound WHERE id > $1 AND id <= $2",
    meant!("inbound.id")
);

/// The deletions of a range of what answers nothing.
const TEXTS_OF_OUTGOING: &str = "UPDATE reply SET params = NULL WHERE id > $1 AND id <= $2 AND inbound IS NULL AND state > 3 \
     AND params IS NOT NULL AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = reply.id)";
const DELETE_OUTGOING: &str = "DELETE FROM reply WHERE id > $1 AND id <= $2 AND inbound IS NULL AND state > 3 \
     AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = reply.id)";

const OLD_KEYS: &str = "DELETE FROM send_key WHERE key IN (SELECT key FROM send_key WHERE at < $1 ORDER BY at LIMIT $2)";
const OLD_NEWS: &str = "DELETE FROM news WHERE (sid, account) IN (SELECT sid, account FROM news WHERE at < $1 ORDER BY at LIMIT $2)";

/// Rows of `expire_later` behind the mark $2.
const LATER_ROWS: &str =
    "SELECT id, at FROM expire_later WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3";
/// Whether a message of `expire_later` is as any other again: nothing is open, and it is as old as its number.
const IS_ORDINARY: &str = "SELECT NOT EXISTS (SELECT 1 FROM inbound WHERE id = $1 AND (state < 3 OR received_at <> $2)) \
     AND NOT EXISTS (SELECT 1 FROM reply WHERE inbound = $1 AND state <= 3)";

/// Numbers: after the first and up to the second, and whether those of `expire_later` are meant.
#[derive(Clone, Copy)]
struct Range {
    from: i64,
    to: i64,
    later: bool,
}

/// The rows that a step deletes, and the time that they go by.
struct Step<'a> {
    db: &'a mut PgConnection,
    now: i64,
    texts: i64,
    content: i64,
    keys: i64,
    expired: Expired,
}

pub(super) async fn expire(
    db: &mut PgConnection,
    retention: Retention,
) -> Result<Expired, Trouble> {
    let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(EXPIRY)
        .fetch_one(&mut *db)
        .await?;
    if !alone {
        return Ok(Expired::default());
    }
    let mut step = Step {
        db,
        now: retention.now.as_microsecond(),
        texts: retention.texts_before.as_microsecond(),
        content: retention.content_before.as_microsecond(),
        keys: retention.keys_before.as_microsecond(),
        expired: Expired::default(),
    };
    if let Some(range) = step.next(TEXTS, step.texts).await? {
        step.texts_of_messages(range).await?;
    }
    if let Some(range) = step.next(CONTENT, step.content).await? {
        step.content_of_messages(range).await?;
    }
    if let Some(range) = step.next(KEYS, step.keys).await? {
        step.keys_of_messages(range).await?;
    }
    if let Some(range) = step.next_outgoing(OUTGOING_TEXTS, step.texts).await? {
        step.run(TEXTS_OF_OUTGOING, range).await?;
    }
    if let Some(range) = step.next_outgoing(OUTGOING_CONTENT, step.content).await? {
        step.run(DELETE_OUTGOING, range).await?;
    }
    step.messages_later().await?;
    step.outgoing_later().await?;
    for (sql, before) in [
        (OLD_KEYS, retention.keys_before),
        (OLD_NEWS, retention.news_before),
    ] {
        let deleted = sqlx::query(sql)
            .bind(before.as_microsecond())
            .bind(i64::from(STEP))
            .execute(&mut *step.db)
            .await?;
        step.expired.more |= deleted.rows_affected() == u64::from(STEP);
    }
    Ok(step.expired)
}

/// Resets the marks after everything was deleted.
pub(super) async fn begin_anew(db: &mut PgConnection) -> Result<(), Trouble> {
    sqlx::query("DELETE FROM expire_later")
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM meta WHERE name = ANY ($1)")
        .bind(&MESSAGE_MARKS[..])
        .execute(db)
        .await?;
    Ok(())
}

impl Step<'_> {
    async fn run(&mut self, sql: &'static str, range: Range) -> Result<(), Trouble> {
        sqlx::query(sql)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    /// The next messages that are older than `before`, with the mark moved behind them.
    async fn next(&mut self, mark: &str, before: i64) -> Result<Option<Range>, Trouble> {
        let open = [OPEN_MESSAGES, OPEN_REPLIES];
        self.behind(mark, before, MESSAGES, MESSAGE, &open).await
    }

    /// The same of the outbox. Replies are in between, which go with their messages.
    async fn next_outgoing(&mut self, mark: &str, before: i64) -> Result<Option<Range>, Trouble> {
        let open = [OPEN_OUTGOING];
        self.behind(mark, before, REPLIES, OUTGOING, &open).await
    }

    async fn behind(
        &mut self,
        mark: &str,
        before: i64,
        select: &'static str,
        kind: i64,
        open: &[&'static str],
    ) -> Result<Option<Range>, Trouble> {
        let from = self.mark(mark).await?;
        let rows: Vec<expiry::Row> = sqlx::query_as(select)
            .bind(from)
            .bind(i64::from(STEP))
            .fetch_all(&mut *self.db)
            .await?;
        let batch = expiry::batch(&rows, before, self.now);
        let Some(to) = batch.to else { return Ok(None) };
        if !batch.later.is_empty() {
            sqlx::query(
                "INSERT INTO expire_later (kind, id, at) SELECT $1, id, $2 FROM unnest($3::bigint[]) AS l (id) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(kind)
            .bind(self.now)
            .bind(batch.later)
            .execute(&mut *self.db)
            .await?;
        }
        for sql in open {
            sqlx::query(*sql)
                .bind(from)
                .bind(to)
                .execute(&mut *self.db)
                .await?;
        }
        self.set_mark(mark, to).await?;
        self.expired.more = true;
        Ok(Some(Range {
            from,
            to,
            later: false,
        }))
    }

    async fn mark(&mut self, name: &str) -> Result<i64, Trouble> {
        let value: Option<i64> = sqlx::query_scalar("SELECT value FROM meta WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.db)
            .await?;
        Ok(value.unwrap_or(0))
    }

    async fn set_mark(&mut self, name: &str, value: i64) -> Result<(), Trouble> {
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    async fn texts_of_messages(&mut self, range: Range) -> Result<(), Trouble> {
        self.run(TEXTS_OF_REPLIES, range).await?;
        let unanswered: Vec<Vec<u8>> = sqlx::query_scalar(BECOMES_DEAD)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .bind(rows::EXPIRED)
            .fetch_all(&mut *self.db)
            .await?;
        self.unanswered(&unanswered)?;
        self.run(TEXTS_OF_MESSAGES, range).await
    }

    fn unanswered(&mut self, sids: &[Vec<u8>]) -> Result<(), Trouble> {
        for sid in sids {
            self.expired.unanswered.push(rows::message_sid(sid)?);
        }
        Ok(())
    }

    async fn content_of_messages(&mut self, range: Range) -> Result<(), Trouble> {
        self.run(DELETE_REPLIES, range).await?;
        self.forget_conversations(range).await
    }

    async fn keys_of_messages(&mut self, range: Range) -> Result<(), Trouble> {
        // Nothing but an outage of more than a year leaves any.
        let unanswered: Vec<Vec<u8>> = sqlx::query_scalar(OPEN_TO_THE_END)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .fetch_all(&mut *self.db)
            .await?;
        self.unanswered(&unanswered)?;
        // Those too whose content was left because something was open.
        self.run(DELETE_ALL_REPLIES, range).await?;
        self.forget_conversations(range).await?;
        self.run(DELETE_MESSAGES, range).await
    }

    /// Forgets the conversations of these messages that are over. Each comes up again with its last message.
    async fn forget_conversations(&mut self, range: Range) -> Result<(), Trouble> {
        let over: Vec<i64> = sqlx::query_scalar(OVER)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .bind(self.content)
            .bind(self.now)
            .fetch_all(&mut *self.db)
            .await?;
        if over.is_empty() {
            return Ok(());
        }
        let forgotten: Vec<i64> = sqlx::query_scalar(FORGOTTEN)
            .bind(&over)
            .fetch_all(&mut *self.db)
            .await?;
        forget(self.db, &forgotten).await
    }

    /// The next rows of `expire_later`; from the first again after the last.
    async fn later(&mut self, kind: i64) -> Result<Vec<(i64, i64)>, Trouble> {
        let mark = LATER[usize::from(kind != MESSAGE)];
        let from = self.mark(mark).await?;
        let found: Vec<(i64, i64)> = sqlx::query_as(LATER_ROWS)
            .bind(kind)
            .bind(from)
            .bind(i64::from(STEP))
            .fetch_all(&mut *self.db)
            .await?;
        let is_end = found.len() < usize::from(STEP);
        let to = found.last().filter(|_| !is_end).map_or(0, |row| row.0);
        if to != from {
            self.set_mark(mark, to).await?;
        }
        self.expired.more |= !is_end;
        Ok(found)
    }

    async fn messages_later(&mut self) -> Result<(), Trouble> {
        for (id, at) in self.later(MESSAGE).await? {
            let range = Range {
                from: id - 1,
                to: id,
                later: true,
            };
            if at >= self.texts {
                continue;
            }
            self.texts_of_messages(range).await?;
            if at < self.content {
                self.content_of_messages(range).await?;
            }
            if at < self.keys {
                self.keys_of_messages(range).await?;
            } else {
                // The marks that have not come to it yet take it as any other.
                let is_ordinary: bool = sqlx::query_scalar(IS_ORDINARY)
                    .bind(id)
                    .bind(at)
                    .fetch_one(&mut *self.db)
                    .await?;
                let content = at < self.content || id > self.mark(CONTENT).await?;
                if !(is_ordinary && content && id > self.mark(KEYS).await?) {
                    continue;
                }
            }
            self.done_later(MESSAGE, id).await?;
        }
        Ok(())
    }

    async fn outgoing_later(&mut self) -> Result<(), Trouble> {
        for (id, at) in self.later(OUTGOING).await? {
            let range = Range {
                from: id - 1,
                to: id,
                later: true,
            };
            if at < self.texts {
                self.run(TEXTS_OF_OUTGOING, range).await?;
            }
            if at < self.content {
                self.run(DELETE_OUTGOING, range).await?;
            }
            let is_there: bool =
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM reply WHERE id = $1)")
                    .bind(id)
                    .fetch_one(&mut *self.db)
                    .await?;
            if !is_there {
                self.done_later(OUTGOING, id).await?;
            }
        }
        Ok(())
    }

    async fn done_later(&mut self, kind: i64, id: i64) -> Result<(), Trouble> {
        sqlx::query("DELETE FROM expire_later WHERE kind = $1 AND id = $2")
            .bind(kind)
            .bind(id)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }
}
