//! [`Operator::expire`](crate::store::operator::Operator::expire) in PostgreSQL.
//!
//! [`expiry`] selects the rows of a step and explains marks and `expire_later`. Of a range of messages, the texts are
//! deleted first, then replies and conversations, and the deduplication keys last.

use sqlx::PgConnection;

use super::conversations::delete_conversations;
use super::error::CallError;
use crate::store::expiry::{
    self, CONTENT, IdRange, KEYS, LATER, MESSAGE, MESSAGE_MARKS, OUTBOUND, OUTBOUND_CONTENT,
    OUTBOUND_TEXTS, ROWS_PER_STEP, TEXTS,
};
use crate::store::operator::{ExpiryReport, Retention};
use crate::store::{packing, states};

/// Key of the advisory lock under which one server at a time deletes: "rply" and 2.
const EXPIRY: i64 = 0x7270_6c79_0002;

/// Up to $2 rows after the mark $1, each with its time and whether it is in `expire_later`.
const MESSAGES: &str = "SELECT i.id, i.received_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = i.id) \
     FROM inbound i WHERE i.id > $1 ORDER BY i.id LIMIT $2";
const REPLIES: &str = "SELECT r.id, r.created_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = r.id) \
     FROM outbound r WHERE r.id > $1 ORDER BY r.id LIMIT $2";

/// Postpones open rows (messages below 3, outbound messages up to 3, HELD) after $1 and up to $2.
// An open message or reply must not be deleted when the mark passes it. It stays in `expire_later`
// until it is finished. DO NOTHING: a row that another mark has postponed keeps its first time.
const POSTPONE_OPEN_MESSAGES: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT 0, id, received_at FROM inbound WHERE id > $1 AND id <= $2 AND state < 3 ON CONFLICT DO NOTHING";
const POSTPONE_OPEN_REPLIES: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT DISTINCT 0, i.id, i.received_at FROM outbound r JOIN inbound i ON i.id = r.inbound \
     WHERE r.inbound > $1 AND r.inbound <= $2 AND r.state <= 3 ON CONFLICT DO NOTHING";
const POSTPONE_OPEN_OUTBOUND: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT 1, id, created_at FROM outbound WHERE id > $1 AND id <= $2 AND inbound IS NULL AND state <= 3 \
     ON CONFLICT DO NOTHING";

/// SQL condition for the statements below: $3 is true for the rows in `expire_later`, and false for all others.
// A mark must not delete a postponed row before its own time, and `expire_postponed_messages` must not delete any other
// row.
macro_rules! matches_postponed {
    ($id:literal) => {
        concat!(
            " AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = ",
            $id,
            ")"
        )
    };
}
// Open replies (up to 3, HELD) keep their text, which may still be sent.
const DELETE_TEXTS_OF_REPLIES: &str = concat!(
    "UPDATE outbound SET params = NULL WHERE inbound > $1 AND inbound <= $2 AND state > 3",
    matches_postponed!("outbound.inbound")
);
// A message in FAILED (5) without content cannot be handled again, so it becomes DEAD (6). RETURNING reports each once,
// since its `params` are NULL from then on.
const MARK_UNANSWERED_DEAD: &str = concat!(
    "UPDATE inbound SET state = 6, reason = $4, params = NULL, response = NULL \
     WHERE id > $1 AND id <= $2 AND state IN (5, 6) AND params IS NOT NULL",
    matches_postponed!("inbound.id"),
    " RETURNING sid"
);
// Closed messages only (above 2, DEFERRED): a handler still needs the content of an open one.
const DELETE_TEXTS_OF_MESSAGES: &str = concat!(
    "UPDATE inbound SET params = NULL, response = NULL WHERE id > $1 AND id <= $2 AND state > 2 \
     AND (params IS NOT NULL OR response IS NOT NULL)",
    matches_postponed!("inbound.id")
);
// Open replies (up to 3, HELD) stay until they are closed.
const DELETE_REPLIES: &str = concat!(
    "DELETE FROM outbound WHERE inbound > $1 AND inbound <= $2 AND state > 3",
    matches_postponed!("outbound.inbound")
);
/// Conversations of a range of messages that are old: the last message is older than $4. If its time is in the future,
/// which a wrong clock has written, it must be among those up to $2 instead.
// SKIP LOCKED: a message is being accepted in a locked conversation, which makes it recent. This step has locked
// replies before, against the lock order of this module, so it must not wait for a conversation either.
const LOCK_OLD_CONVERSATIONS: &str = concat!(
    "SELECT c.id FROM conversation c WHERE c.id IN (SELECT conversation FROM inbound WHERE id > $1 AND id <= $2",
    matches_postponed!("inbound.id"),
    ") AND (c.last_inbound < $4 OR (c.last_inbound > $5 AND c.newest <= $2)) FOR UPDATE OF c SKIP LOCKED"
);
/// Conversations among $1 without an open message (below 3), and those merged into them.
// A statement of its own, after `LOCK_OLD_CONVERSATIONS` has acquired the locks: a message may have been accepted
// before that.
const IDLE_CONVERSATIONS: &str = "WITH idle AS (SELECT o.id FROM unnest($1::bigint[]) AS o (id) WHERE NOT EXISTS (\
       SELECT 1 FROM inbound p WHERE p.conversation = o.id AND p.state < 3)) \
     SELECT id FROM idle UNION SELECT c.id FROM conversation c JOIN idle ON idle.id = c.merged_into";
/// Messages that never got a reply, when even their deduplication keys are deleted: open (below 3), or FAILED or DEAD
/// (5, 6) with content.
const UNANSWERED_AT_DELETION: &str = concat!(
    "SELECT sid FROM inbound WHERE id > $1 AND id <= $2 \
     AND (state < 3 OR (state IN (5, 6) AND params IS NOT NULL))",
    matches_postponed!("inbound.id")
);
const DELETE_ALL_REPLIES: &str = concat!(
    "DELETE FROM outbound WHERE inbound > $1 AND inbound <= $2",
    matches_postponed!("outbound.inbound")
);
const DELETE_MESSAGES: &str = concat!(
    "DELETE FROM inbound WHERE id > $1 AND id <= $2",
    matches_postponed!("inbound.id")
);

/// Deletions of a range of closed outbound messages (above 3, HELD) that are not replies.
const DELETE_TEXTS_OF_OUTBOUND: &str = "UPDATE outbound SET params = NULL WHERE id > $1 AND id <= $2 AND inbound IS NULL AND state > 3 \
     AND params IS NOT NULL AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = outbound.id)";
const DELETE_OUTBOUND: &str = "DELETE FROM outbound WHERE id > $1 AND id <= $2 AND inbound IS NULL AND state > 3 \
     AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = outbound.id)";

// With a subquery, since DELETE has no LIMIT of its own.
const DELETE_OLD_KEYS: &str = "DELETE FROM idempotency_key WHERE key IN (SELECT key FROM idempotency_key WHERE at < $1 ORDER BY at LIMIT $2)";
const DELETE_OLD_STATUS: &str = "DELETE FROM unmatched_status WHERE (sid, account) IN (SELECT sid, account FROM unmatched_status WHERE at < $1 ORDER BY at LIMIT $2)";

/// Up to $3 rows of `expire_later` after the mark $2.
const POSTPONED_ROWS: &str =
    "SELECT id, at FROM expire_later WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3";
/// True if a message no longer needs its row in `expire_later`: nothing is open (messages below 3, replies up to 3),
/// and its own time is the postponed one.
const IS_ORDINARY: &str = "SELECT NOT EXISTS (SELECT 1 FROM inbound WHERE id = $1 AND (state < 3 OR received_at <> $2)) \
     AND NOT EXISTS (SELECT 1 FROM outbound WHERE inbound = $1 AND state <= 3)";

/// One step: the times, in microseconds, before which texts, content and keys are deleted, and the outcome so far.
struct PostgresRetentionStep<'a> {
    db: &'a mut PgConnection,
    now: i64,
    texts: i64,
    content: i64,
    keys: i64,
    expired: ExpiryReport,
}

/// Runs one step of the retention.
pub(super) async fn expire(
    db: &mut PgConnection,
    retention: Retention,
) -> Result<ExpiryReport, CallError> {
    // The marks are read and written without locking their rows, so two servers must not run steps concurrently. `try`:
    // the server that has the lock does the work, and this one need not wait.
    let has_lock: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(EXPIRY)
        .fetch_one(&mut *db)
        .await?;
    if !has_lock {
        return Ok(ExpiryReport::default());
    }
    let mut step = PostgresRetentionStep {
        db,
        now: retention.now.as_microsecond(),
        texts: retention.texts_before.as_microsecond(),
        content: retention.content_before.as_microsecond(),
        keys: retention.keys_before.as_microsecond(),
        expired: ExpiryReport::default(),
    };
    if let Some(range) = step.next(TEXTS, step.texts).await? {
        step.delete_texts(range).await?;
    }
    if let Some(range) = step.next(CONTENT, step.content).await? {
        step.delete_content(range).await?;
    }
    if let Some(range) = step.next(KEYS, step.keys).await? {
        step.delete_keys(range).await?;
    }
    if let Some(range) = step.next_outbound(OUTBOUND_TEXTS, step.texts).await? {
        step.run(DELETE_TEXTS_OF_OUTBOUND, range).await?;
    }
    if let Some(range) = step.next_outbound(OUTBOUND_CONTENT, step.content).await? {
        step.run(DELETE_OUTBOUND, range).await?;
    }
    step.expire_postponed_messages().await?;
    step.expire_postponed_outbound().await?;
    for (sql, before) in [
        (DELETE_OLD_KEYS, retention.keys_before),
        (DELETE_OLD_STATUS, retention.unmatched_status_before),
    ] {
        let deleted = sqlx::query(sql)
            .bind(before.as_microsecond())
            .bind(i64::from(ROWS_PER_STEP))
            .execute(&mut *step.db)
            .await?;
        step.expired.has_more |= deleted.rows_affected() == u64::from(ROWS_PER_STEP);
    }
    Ok(step.expired)
}

/// Deletes the marks of messages and all postponed rows, after everything was deleted.
pub(super) async fn reset_marks(db: &mut PgConnection) -> Result<(), CallError> {
    sqlx::query("DELETE FROM expire_later")
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM meta WHERE name = ANY ($1)")
        .bind(&MESSAGE_MARKS[..])
        .execute(db)
        .await?;
    Ok(())
}

impl PostgresRetentionStep<'_> {
    async fn run(&mut self, sql: &'static str, range: IdRange) -> Result<(), CallError> {
        sqlx::query(sql)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    /// Moves a mark past the next messages that are older than `before`, and returns their range.
    async fn next(&mut self, mark: &str, before: i64) -> Result<Option<IdRange>, CallError> {
        let open = [POSTPONE_OPEN_MESSAGES, POSTPONE_OPEN_REPLIES];
        self.advance(mark, before, MESSAGES, MESSAGE, &open).await
    }

    /// Moves a mark of the outbox. Replies in its range are skipped, since they are deleted with their messages.
    async fn next_outbound(
        &mut self,
        mark: &str,
        before: i64,
    ) -> Result<Option<IdRange>, CallError> {
        let open = [POSTPONE_OPEN_OUTBOUND];
        self.advance(mark, before, REPLIES, OUTBOUND, &open).await
    }

    /// Moves a mark past the next rows of `select`, after postponing those that must not be deleted yet.
    async fn advance(
        &mut self,
        mark: &str,
        before: i64,
        select: &'static str,
        kind: i64,
        open: &[&'static str],
    ) -> Result<Option<IdRange>, CallError> {
        let from = self.mark(mark).await?;
        let rows: Vec<expiry::Row> = sqlx::query_as(select)
            .bind(from)
            .bind(i64::from(ROWS_PER_STEP))
            .fetch_all(&mut *self.db)
            .await?;
        let batch = expiry::batch(&rows, before, self.now);
        let Some(to) = batch.to else { return Ok(None) };
        // Rows from the future, without a later row that tells their age: from now on they count as created now.
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
        // In the transaction of the deletions: after a rollback the mark is still before these rows.
        self.set_mark(mark, to).await?;
        self.expired.has_more = true;
        Ok(Some(IdRange {
            from,
            to,
            later: false,
        }))
    }

    async fn mark(&mut self, name: &str) -> Result<i64, CallError> {
        let value: Option<i64> = sqlx::query_scalar("SELECT value FROM meta WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.db)
            .await?;
        Ok(value.unwrap_or(0))
    }

    async fn set_mark(&mut self, name: &str, value: i64) -> Result<(), CallError> {
        // An upsert: the first step inserts the mark.
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    /// Deletes the texts of a range of messages and of their replies.
    async fn delete_texts(&mut self, range: IdRange) -> Result<(), CallError> {
        self.run(DELETE_TEXTS_OF_REPLIES, range).await?;
        // Before `DELETE_TEXTS_OF_MESSAGES`, which deletes the `params` by which this finds the messages.
        let unanswered: Vec<Vec<u8>> = sqlx::query_scalar(MARK_UNANSWERED_DEAD)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .bind(states::EXPIRED)
            .fetch_all(&mut *self.db)
            .await?;
        self.unanswered(&unanswered)?;
        self.run(DELETE_TEXTS_OF_MESSAGES, range).await
    }

    fn unanswered(&mut self, sids: &[Vec<u8>]) -> Result<(), CallError> {
        for sid in sids {
            self.expired.unanswered.push(packing::message_sid(sid)?);
        }
        Ok(())
    }

    /// Deletes the replies to a range of messages, and the old conversations.
    async fn delete_content(&mut self, range: IdRange) -> Result<(), CallError> {
        self.run(DELETE_REPLIES, range).await?;
        self.delete_old_conversations(range).await
    }

    /// Deletes a range of messages with everything that belongs to them.
    async fn delete_keys(&mut self, range: IdRange) -> Result<(), CallError> {
        // Keys are kept for over a year, so this is usually empty.
        let unanswered: Vec<Vec<u8>> = sqlx::query_scalar(UNANSWERED_AT_DELETION)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .fetch_all(&mut *self.db)
            .await?;
        self.unanswered(&unanswered)?;
        // Open replies as well, which `delete_content` has left.
        self.run(DELETE_ALL_REPLIES, range).await?;
        self.delete_old_conversations(range).await?;
        self.run(DELETE_MESSAGES, range).await
    }

    /// Deletes the old conversations of a range of messages.
    // One that is not old yet is checked again when the mark reaches its last message.
    async fn delete_old_conversations(&mut self, range: IdRange) -> Result<(), CallError> {
        let old: Vec<i64> = sqlx::query_scalar(LOCK_OLD_CONVERSATIONS)
            .bind(range.from)
            .bind(range.to)
            .bind(range.later)
            .bind(self.content)
            .bind(self.now)
            .fetch_all(&mut *self.db)
            .await?;
        if old.is_empty() {
            return Ok(());
        }
        let idle: Vec<i64> = sqlx::query_scalar(IDLE_CONVERSATIONS)
            .bind(&old)
            .fetch_all(&mut *self.db)
            .await?;
        delete_conversations(self.db, &idle).await
    }

    /// Next rows of `expire_later`. After the last row it continues with the first.
    async fn later(&mut self, kind: i64) -> Result<Vec<(i64, i64)>, CallError> {
        let mark = LATER[usize::from(kind != MESSAGE)];
        let from = self.mark(mark).await?;
        let found: Vec<(i64, i64)> = sqlx::query_as(POSTPONED_ROWS)
            .bind(kind)
            .bind(from)
            .bind(i64::from(ROWS_PER_STEP))
            .fetch_all(&mut *self.db)
            .await?;
        let is_end = found.len() < usize::from(ROWS_PER_STEP);
        let to = found.last().filter(|_| !is_end).map_or(0, |row| row.0);
        if to != from {
            self.set_mark(mark, to).await?;
        }
        self.expired.has_more |= !is_end;
        Ok(found)
    }

    /// Deletes what is old enough of the next postponed messages.
    async fn expire_postponed_messages(&mut self) -> Result<(), CallError> {
        for (id, at) in self.later(MESSAGE).await? {
            let range = IdRange {
                from: id - 1,
                to: id,
                later: true,
            };
            if at >= self.texts {
                continue;
            }
            self.delete_texts(range).await?;
            if at < self.content {
                self.delete_content(range).await?;
            }
            if at < self.keys {
                self.delete_keys(range).await?;
            } else {
                // The row can go if the marks do the rest: those of content and keys that still have to act on the
                // message must not have passed it.
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
            self.delete_postponed(MESSAGE, id).await?;
        }
        Ok(())
    }

    /// Deletes what is old enough of the next postponed outbound messages.
    async fn expire_postponed_outbound(&mut self) -> Result<(), CallError> {
        for (id, at) in self.later(OUTBOUND).await? {
            let range = IdRange {
                from: id - 1,
                to: id,
                later: true,
            };
            if at < self.texts {
                self.run(DELETE_TEXTS_OF_OUTBOUND, range).await?;
            }
            if at < self.content {
                self.run(DELETE_OUTBOUND, range).await?;
            }
            let exists: bool =
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outbound WHERE id = $1)")
                    .bind(id)
                    .fetch_one(&mut *self.db)
                    .await?;
            if !exists {
                self.delete_postponed(OUTBOUND, id).await?;
            }
        }
        Ok(())
    }

    /// Removes a row from `expire_later`.
    async fn delete_postponed(&mut self, kind: i64, id: i64) -> Result<(), CallError> {
        sqlx::query("DELETE FROM expire_later WHERE kind = $1 AND id = $2")
            .bind(kind)
            .bind(id)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }
}
