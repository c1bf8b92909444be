//! [`Operator::expire`](crate::store::operator::Operator::expire). The module [`expiry`] selects the rows of a step, and
//! explains marks and `expire_later`.
//!
//! Of a range of messages, the texts are deleted first, then replies and conversations, and the deduplication keys last.

use super::conversations::{delete_conversations, unused_link};
use super::database::{Database, StoredRow, ids, params};
use crate::store::error::StoreError;
use crate::store::expiry::{
    self, CONTENT, DELETE_CONTENT, IdRange, KEYS, LATER, LINKS, MESSAGE, MESSAGE_MARKS, OUTBOUND,
    OUTBOUND_CONTENT, OUTBOUND_TEXTS, ROWS_PER_STEP, TEXTS,
};
use crate::store::operator::{ExpiryReport, Retention};
use crate::store::{packing, states};

// Every statement finds its rows by an index or by ID, so that a step reads few rows however many there are.

/// Reads up to $2 rows after the mark $1, each with its time and whether it is in `expire_later`.
const MESSAGES: &str = "SELECT i.id, i.received_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = i.id) \
     FROM inbound i WHERE i.id > $1 ORDER BY i.id LIMIT $2";
const REPLIES: &str = "SELECT r.id, r.created_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = r.id) \
     FROM outbound r WHERE r.id > $1 ORDER BY r.id LIMIT $2";

/// Records the messages after $1 and up to $2 that are open (below 3), or that have an open reply (up to 3, HELD).
// The mark passes them, so they are in `expire_later` from then on, until they are finished. DO NOTHING: a row that
// another mark has recorded keeps its first time.
const POSTPONE_OPEN_MESSAGES: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT 0, id, received_at FROM inbound WHERE id > $1 AND id <= $2 AND state < 3 ON CONFLICT DO NOTHING";
const POSTPONE_OPEN_REPLIES: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT DISTINCT 0, i.id, i.received_at FROM outbound r JOIN inbound i ON i.id = r.inbound \
     WHERE r.inbound > $1 AND r.inbound <= $2 AND r.state <= 3 ON CONFLICT DO NOTHING";
/// Records the open outbound messages (up to 3, HELD), which are not replies, after $1 and up to $2.
// Unary `+`, here and below, keeps SQLite from the index on `inbound`, which is NULL in every row that is not a reply.
const POSTPONE_OPEN_OUTBOUND: &str = "INSERT INTO expire_later (kind, id, at) \
     SELECT 1, id, created_at FROM outbound WHERE id > $1 AND id <= $2 AND +inbound IS NULL AND state <= 3 \
     ON CONFLICT DO NOTHING";

/// Condition: the message is in `expire_later` ($3 is true), or is not ($3 is false).
// The deletions below run over a range of IDs that a mark passes, without the recorded rows, and over one recorded row.
macro_rules! matches_postponed {
    ($id:literal) => {
        concat!(
            " AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = ",
            $id,
            ")"
        )
    };
}
// Closed replies only (above 3, HELD): the text of an open one may still be sent.
const DELETE_TEXTS_OF_REPLIES: &str = concat!(
    "UPDATE outbound SET params = NULL WHERE inbound > $1 AND inbound <= $2 AND state > 3",
    matches_postponed!("outbound.inbound")
);
// Messages in FAILED or DEAD (5, 6). Without their text no operator can retry them, so they become DEAD with that reason,
// and `expire` returns their SIDs. RETURNING reports each once, since its `params` are NULL from then on.
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
// Open replies (up to 3, HELD) stay, and their messages are in `expire_later`.
const DELETE_REPLIES: &str = concat!(
    "DELETE FROM outbound WHERE inbound > $1 AND inbound <= $2 AND state > 3",
    matches_postponed!("outbound.inbound")
);
/// SQL that finds the conversations of a range of messages that are old: the last message is older than $4.
///
/// If its time is in the future, which a wrong clock has written ($5 is the current time), it must be among those up to
/// $2 instead.
macro_rules! old_conversations {
    ($lock:literal) => {
        concat!(
            "SELECT c.id FROM conversation c WHERE c.id IN (SELECT conversation FROM inbound WHERE id > $1 AND id <= $2",
            matches_postponed!("inbound.id"),
            ") AND (c.last_inbound < $4 OR (c.last_inbound > $5 AND c.newest <= $2))",
            $lock
        )
    };
}
const OLD_CONVERSATIONS: &str = old_conversations!("");
// In PostgreSQL it locks them. SKIP LOCKED: a message is being accepted in a locked conversation, which makes it recent.
// This step has locked replies before, against the order of locks in PostgreSQL, so it must not wait for a conversation
// either.
const LOCK_OLD_CONVERSATIONS: &str = old_conversations!(" FOR UPDATE OF c SKIP LOCKED");
/// Finds the conversations among $1 without an open message (below 3), and those merged into them.
// A statement of its own, after `LOCK_OLD_CONVERSATIONS` has acquired the locks: a message may have been accepted before
// that.
const IDLE_CONVERSATIONS: &str = "WITH idle AS (SELECT o.id FROM conversation o WHERE o.id = ANY ($1) AND NOT EXISTS (\
       SELECT 1 FROM inbound p WHERE p.conversation = o.id AND p.state < 3)) \
     SELECT id FROM idle UNION SELECT c.id FROM conversation c JOIN idle ON idle.id = c.merged_into";
/// Finds the messages that never got a reply, when even their deduplication keys are deleted: open (below 3), or FAILED
/// or DEAD (5, 6) with content.
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
const DELETE_TEXTS_OF_OUTBOUND: &str = "UPDATE outbound SET params = NULL WHERE id > $1 AND id <= $2 AND +inbound IS NULL AND state > 3 \
     AND params IS NOT NULL AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = outbound.id)";
const DELETE_OUTBOUND: &str = "DELETE FROM outbound WHERE id > $1 AND id <= $2 AND +inbound IS NULL AND state > 3 \
     AND $3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = outbound.id)";

// Few rows per step, as everywhere. All tables have an index on their time.
const DELETE_OLD_KEYS: &str = "DELETE FROM idempotency_key WHERE key IN (SELECT key FROM idempotency_key WHERE at < $1 ORDER BY at LIMIT $2)";
// A split is needed as long as the keys: a status callback about an older message must not tie the address again.
const DELETE_OLD_SPLITS: &str = "DELETE FROM identity_split WHERE (address_key, account) IN (\
       SELECT address_key, account FROM identity_split WHERE at < $1 ORDER BY at LIMIT $2)";
/// Finds the time of the $3rd link after the time $1 and before $2.
const OLD_LINKS: &str = "SELECT max(at) FROM (SELECT at FROM identity_link WHERE at > $1 AND at < $2 ORDER BY at LIMIT $3) AS next";
/// Deletes the links that no operator has made, after $1 and up to $2, whose addresses have neither a conversation nor a consent.
// They come from status callbacks about users who never wrote, so no deletion of a conversation deletes them.
const DELETE_UNUSED_LINKS: &str = concat!(
    "DELETE FROM identity_link WHERE at > $1 AND at <= $2 AND kind <> 'operator' AND ",
    unused_link!()
);
const DELETE_OLD_STATUS: &str = "DELETE FROM unmatched_status WHERE (sid, account) IN (SELECT sid, account FROM unmatched_status WHERE at < $1 ORDER BY at LIMIT $2)";

/// Reads up to $3 rows of `expire_later` after the position $2.
const POSTPONED_ROWS: &str =
    "SELECT id, at FROM expire_later WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3";
/// Checks whether a message of `expire_later` is an ordinary row again.
// Nothing is open (messages below 3, replies up to 3), and it was recorded with its own time. A row from the future was
// recorded with another one.
const IS_ORDINARY: &str = "SELECT NOT EXISTS (SELECT 1 FROM inbound WHERE id = $1 AND (state < 3 OR received_at <> $2)) \
     AND NOT EXISTS (SELECT 1 FROM outbound WHERE inbound = $1 AND state <= 3)";
const FIND_OUTBOUND: &str = "SELECT id FROM outbound WHERE id = $1";

/// The statements over the rows of messages, whose time must not grow with the number of stored rows.
#[cfg(all(test, feature = "sqlite"))]
pub(in crate::store) const STATEMENTS: [&str; 23] = [
    MESSAGES,
    REPLIES,
    POSTPONE_OPEN_MESSAGES,
    POSTPONE_OPEN_REPLIES,
    POSTPONE_OPEN_OUTBOUND,
    DELETE_TEXTS_OF_REPLIES,
    MARK_UNANSWERED_DEAD,
    DELETE_TEXTS_OF_MESSAGES,
    DELETE_REPLIES,
    OLD_CONVERSATIONS,
    UNANSWERED_AT_DELETION,
    DELETE_ALL_REPLIES,
    DELETE_MESSAGES,
    DELETE_TEXTS_OF_OUTBOUND,
    DELETE_OUTBOUND,
    DELETE_OLD_KEYS,
    DELETE_OLD_SPLITS,
    DELETE_OLD_STATUS,
    OLD_LINKS,
    DELETE_UNUSED_LINKS,
    POSTPONED_ROWS,
    IS_ORDINARY,
    FIND_OUTBOUND,
];

/// Step of retention: its age limits in microseconds, and what it has deleted.
struct RetentionStep<'a, D> {
    db: &'a mut D,
    now: i64,
    texts: i64,
    content: i64,
    keys: i64,
    expired: ExpiryReport,
}

/// Runs one step of retention.
pub(in crate::store) async fn expire<D: Database>(
    db: &mut D,
    retention: &Retention,
) -> Result<ExpiryReport, D::Error> {
    let mut step = RetentionStep {
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
        step.expired.outbound += step.run(DELETE_OUTBOUND, range).await?;
    }
    step.delete_unused_links().await?;
    step.expire_postponed_messages().await?;
    step.expire_postponed_outbound().await?;
    for (sql, before) in [
        (DELETE_OLD_KEYS, retention.keys_before),
        (DELETE_OLD_SPLITS, retention.keys_before),
        (DELETE_OLD_STATUS, retention.unmatched_status_before),
    ] {
        let rows = u32::from(ROWS_PER_STEP);
        let deleted = step.db.execute(sql, params![before, rows]).await?;
        step.expired.has_more |= deleted == u64::from(rows);
    }
    Ok(step.expired)
}

/// Deletes the content of the store. The link signing key and the schema's version are not content, and stay.
pub(in crate::store) async fn delete_everything<D: Database>(db: &mut D) -> Result<(), D::Error> {
    for sql in DELETE_CONTENT {
        db.execute(sql, params![]).await?;
    }
    // No message is left that a mark could have passed, or that could be recorded.
    db.execute("DELETE FROM expire_later", params![]).await?;
    for mark in MESSAGE_MARKS {
        db.execute("DELETE FROM meta WHERE name = $1", params![mark])
            .await?;
    }
    Ok(())
}

impl<D: Database> RetentionStep<'_, D> {
    /// Runs a statement for a range, and returns the number of rows that it changed.
    async fn run(&mut self, sql: &'static str, range: IdRange) -> Result<u64, D::Error> {
        let params = params![range.from, range.to, range.later];
        self.db.execute(sql, params).await
    }

    /// Returns the next messages that are older than `before`, and moves the mark past them.
    async fn next(&mut self, mark: &str, before: i64) -> Result<Option<IdRange>, D::Error> {
        let open = [POSTPONE_OPEN_MESSAGES, POSTPONE_OPEN_REPLIES];
        self.advance(mark, before, MESSAGES, MESSAGE, &open).await
    }

    /// Returns the next rows of the outbox that are older than `before`, and moves the mark past them.
    ///
    /// Replies are among them. They are deleted with their messages, and the statements leave them out.
    async fn next_outbound(
        &mut self,
        mark: &str,
        before: i64,
    ) -> Result<Option<IdRange>, D::Error> {
        let open = [POSTPONE_OPEN_OUTBOUND];
        self.advance(mark, before, REPLIES, OUTBOUND, &open).await
    }

    async fn advance(
        &mut self,
        mark: &str,
        before: i64,
        select: &'static str,
        kind: i64,
        open: &[&'static str],
    ) -> Result<Option<IdRange>, D::Error> {
        let from = self.mark(mark).await?;
        let found = self
            .db
            .rows(select, params![from, u32::from(ROWS_PER_STEP)])
            .await?;
        let mut rows: Vec<expiry::Row> = Vec::with_capacity(found.len());
        for mut row in found {
            rows.push((row.take(0)?, row.take(1)?, row.take(2)?));
        }
        let batch = expiry::batch(&rows, before, self.now);
        let Some(to) = batch.to else { return Ok(None) };
        // Recorded before the caller deletes the range, so that its deletions leave these rows out. They are from the
        // future, without a later row that tells their age: from now on they count as created now. DO NOTHING: a row
        // that another mark has recorded keeps its first time.
        for id in batch.later {
            self.db
                .execute(
                    "INSERT INTO expire_later (kind, id, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                    params![kind, id, self.now],
                )
                .await?;
        }
        for sql in open {
            self.db.execute(sql, params![from, to]).await?;
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

    async fn mark(&mut self, name: &str) -> Result<i64, D::Error> {
        let found = self
            .db
            .row("SELECT value FROM meta WHERE name = $1", params![name])
            .await?;
        let value = found.map(|mut row| row.take(0)).transpose()?;
        Ok(value.unwrap_or(0))
    }

    async fn set_mark(&mut self, name: &str, value: i64) -> Result<(), D::Error> {
        // An upsert: the first step inserts the mark.
        self.db
            .execute(
                "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                params![name, value],
            )
            .await?;
        Ok(())
    }

    /// Deletes the texts of a range of messages and of their replies.
    async fn delete_texts(&mut self, range: IdRange) -> Result<(), D::Error> {
        self.run(DELETE_TEXTS_OF_REPLIES, range).await?;
        // Before `DELETE_TEXTS_OF_MESSAGES`, which deletes the `params` by which this finds the messages.
        let params = params![range.from, range.to, range.later, states::EXPIRED];
        let unanswered = self.db.rows(MARK_UNANSWERED_DEAD, params).await?;
        self.report_unanswered(unanswered)?;
        self.expired.texts += self.run(DELETE_TEXTS_OF_MESSAGES, range).await?;
        Ok(())
    }

    fn report_unanswered(&mut self, sids: Vec<StoredRow>) -> Result<(), StoreError> {
        for mut row in sids {
            let sid: Vec<u8> = row.take(0)?;
            self.expired.unanswered.push(packing::message_sid(&sid)?);
        }
        Ok(())
    }

    /// Deletes the replies to a range of messages, and the old conversations.
    async fn delete_content(&mut self, range: IdRange) -> Result<(), D::Error> {
        self.expired.outbound += self.run(DELETE_REPLIES, range).await?;
        self.delete_old_conversations(range).await
    }

    /// Deletes a range of messages with everything that belongs to them.
    async fn delete_keys(&mut self, range: IdRange) -> Result<(), D::Error> {
        // Keys outlive content by 400 days, so only a very long outage leaves such messages.
        let params = params![range.from, range.to, range.later];
        let unanswered = self.db.rows(UNANSWERED_AT_DELETION, params).await?;
        self.report_unanswered(unanswered)?;
        // Replies that are still open are deleted too, because their message is.
        self.expired.outbound += self.run(DELETE_ALL_REPLIES, range).await?;
        self.delete_old_conversations(range).await?;
        self.run(DELETE_MESSAGES, range).await?;
        Ok(())
    }

    /// Deletes the old conversations of a range of messages.
    // One that is not old yet is checked again when a mark reaches its last message.
    async fn delete_old_conversations(&mut self, range: IdRange) -> Result<(), D::Error> {
        let params = params![range.from, range.to, range.later, self.content, self.now];
        let sql = D::choose(OLD_CONVERSATIONS, LOCK_OLD_CONVERSATIONS);
        let old = ids(self.db.rows(sql, params).await?)?;
        if old.is_empty() {
            return Ok(());
        }
        let idle = self.db.rows(IDLE_CONVERSATIONS, params![&old[..]]).await?;
        delete_conversations(self.db, &ids(idle)?).await
    }

    /// Deletes the unused ones of the next old links.
    // The mark is a time, and passes each link once: a link that is used then is deleted with its conversation. A mark that is
    // not older than the content to delete was set while the clock was ahead, or before the retention was extended: start again.
    async fn delete_unused_links(&mut self) -> Result<(), D::Error> {
        let mark = self.mark(LINKS).await?;
        let from = if mark < self.content { mark } else { 0 };
        let params = params![from, self.content, u32::from(ROWS_PER_STEP)];
        let row = self.db.row(OLD_LINKS, params).await?;
        let to: Option<i64> = row.unwrap_or_default().take(0)?;
        if let Some(to) = to {
            self.db
                .execute(DELETE_UNUSED_LINKS, params![from, to])
                .await?;
            self.set_mark(LINKS, to).await?;
            self.expired.has_more = true;
        }
        Ok(())
    }

    /// Returns the next rows of `expire_later`, and starts again from the first one after the last one.
    async fn later(&mut self, kind: i64) -> Result<Vec<(i64, i64)>, D::Error> {
        let mark = LATER[usize::from(kind != MESSAGE)];
        let from = self.mark(mark).await?;
        let params = params![kind, from, u32::from(ROWS_PER_STEP)];
        let mut found = Vec::new();
        for mut row in self.db.rows(POSTPONED_ROWS, params).await? {
            found.push((row.take(0)?, row.take(1)?));
        }
        let is_end = found.len() < usize::from(ROWS_PER_STEP);
        let to = found.last().filter(|_| !is_end).map_or(0, |row| row.0);
        if to != from {
            self.set_mark(mark, to).await?;
        }
        self.expired.has_more |= !is_end;
        Ok(found)
    }

    /// Deletes what is old enough of the next postponed messages.
    async fn expire_postponed_messages(&mut self) -> Result<(), D::Error> {
        for (id, at) in self.later(MESSAGE).await? {
            let range = IdRange {
                from: id - 1,
                to: id,
                later: true,
            };
            if at >= self.texts {
                continue;
            }
            // Each of these deletes only what is closed now, so a row may need several passes.
            self.delete_texts(range).await?;
            if at < self.content {
                self.delete_content(range).await?;
            }
            if at < self.keys {
                self.delete_keys(range).await?;
            } else {
                // An ordinary row leaves `expire_later` if the marks that have not reached it yet will delete the rest:
                // its content, unless that was deleted just now, and its key.
                let row = self.db.row(IS_ORDINARY, params![id, at]).await?;
                let is_ordinary: bool = row.unwrap_or_default().take(0)?;
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
    async fn expire_postponed_outbound(&mut self) -> Result<(), D::Error> {
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
            if self.db.row(FIND_OUTBOUND, params![id]).await?.is_none() {
                self.delete_postponed(OUTBOUND, id).await?;
            }
        }
        Ok(())
    }

    async fn delete_postponed(&mut self, kind: i64, id: i64) -> Result<(), D::Error> {
        self.db
            .execute(
                "DELETE FROM expire_later WHERE kind = $1 AND id = $2",
                params![kind, id],
            )
            .await?;
        Ok(())
    }
}
