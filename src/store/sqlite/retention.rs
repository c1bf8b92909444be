//! [`Operator::expire`](crate::store::operator::Operator::expire) in SQLite. The module [`expiry`] selects the rows of a step.

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::handoff;
use crate::sid::MessageSid;
use crate::store::error::StoreError;
use crate::store::expiry::{
    self, CONTENT, IdRange, KEYS, LATER, MESSAGE, MESSAGE_MARKS, OUTBOUND, OUTBOUND_CONTENT,
    OUTBOUND_TEXTS, ROWS_PER_STEP, TEXTS,
};
use crate::store::operator::{ExpiryReport, Retention};
use crate::store::{packing, states};

// Every statement finds its rows by an index or by ID, so that a step reads few rows however many there are.

/// Reads up to ?2 rows after the mark ?1.
const MESSAGES: &str = "SELECT i.id, i.received_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = i.id) \
     FROM inbound i WHERE i.id > ?1 ORDER BY i.id LIMIT ?2";
const REPLIES: &str = "SELECT r.id, r.created_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = r.id) \
     FROM outbound r WHERE r.id > ?1 ORDER BY r.id LIMIT ?2";

/// Records the messages after ?1 and up to ?2 that are open (below 3), or that have an open reply (up to 3, HELD).
// The mark passes them, so they are in `expire_later` from then on.
const POSTPONE_OPEN_MESSAGES: &str = "INSERT OR IGNORE INTO expire_later (kind, id, at) \
     SELECT 0, id, received_at FROM inbound WHERE id > ?1 AND id <= ?2 AND state < 3";
const POSTPONE_OPEN_REPLIES: &str = "INSERT OR IGNORE INTO expire_later (kind, id, at) \
     SELECT 0, r.inbound, i.received_at FROM outbound r JOIN inbound i ON i.id = r.inbound \
     WHERE r.inbound > ?1 AND r.inbound <= ?2 AND r.state <= 3";
/// Records the open outbound messages (up to 3, HELD), which are not replies, after ?1 and up to ?2.
// Unary `+` keeps SQLite from the index on `inbound`, which is NULL in every row that is not a reply.
const POSTPONE_OPEN_OUTBOUND: &str = "INSERT OR IGNORE INTO expire_later (kind, id, at) \
     SELECT 1, id, created_at FROM outbound WHERE id > ?1 AND id <= ?2 AND +inbound IS NULL AND state <= 3";

/// Condition: the message is in `expire_later` (?3 is true), or is not (?3 is false).
// The deletions below run over a range of IDs that a mark passes, without the recorded rows, and over one recorded row.
macro_rules! matches_postponed {
    ($id:literal) => {
        concat!(
            " AND ?3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = ",
            $id,
            ")"
        )
    };
}
// Closed replies only (above 3, HELD): the text of an open one may still be sent.
const DELETE_TEXTS_OF_REPLIES: &str = concat!(
    "UPDATE outbound SET params = NULL WHERE inbound > ?1 AND inbound <= ?2 AND state > 3",
    matches_postponed!("outbound.inbound")
);
// Messages in FAILED or DEAD (5, 6) whose text is about to be deleted. Without it no operator can retry them, so they
// become dead with that reason, and `expire` returns their SIDs.
const UNANSWERED: &str = concat!(
    "SELECT sid FROM inbound WHERE id > ?1 AND id <= ?2 AND state IN (5, 6) AND params IS NOT NULL",
    matches_postponed!("inbound.id")
);
const MARK_UNANSWERED_DEAD: &str = concat!(
    "UPDATE inbound SET state = 6, reason = ?4 WHERE id > ?1 AND id <= ?2 AND state IN (5, 6) AND params IS NOT NULL",
    matches_postponed!("inbound.id")
);
// Closed messages only (above 2, DEFERRED): a handler still needs the content of an open one.
const DELETE_TEXTS_OF_MESSAGES: &str = concat!(
    "UPDATE inbound SET params = NULL, response = NULL WHERE id > ?1 AND id <= ?2 AND state > 2",
    matches_postponed!("inbound.id")
);
// Open replies (up to 3, HELD) stay, and their messages are in `expire_later`.
const DELETE_REPLIES: &str = concat!(
    "DELETE FROM outbound WHERE inbound > ?1 AND inbound <= ?2 AND state > 3",
    matches_postponed!("outbound.inbound")
);
const CONVERSATIONS: &str = concat!(
    "SELECT DISTINCT conversation FROM inbound WHERE id > ?1 AND id <= ?2",
    matches_postponed!("inbound.id")
);
// Messages that never got a reply although their key expires: open (below 3), or FAILED or DEAD (5, 6) with content.
const UNANSWERED_AT_DELETION: &str = concat!(
    "SELECT sid FROM inbound WHERE id > ?1 AND id <= ?2 \
     AND (state < 3 OR (state IN (5, 6) AND params IS NOT NULL))",
    matches_postponed!("inbound.id")
);
const DELETE_ALL_REPLIES: &str = concat!(
    "DELETE FROM outbound WHERE inbound > ?1 AND inbound <= ?2",
    matches_postponed!("outbound.inbound")
);
const DELETE_MESSAGES: &str = concat!(
    "DELETE FROM inbound WHERE id > ?1 AND id <= ?2",
    matches_postponed!("inbound.id")
);

/// Deletions of a range of closed outbound messages (above 3, HELD) that are not replies.
const DELETE_TEXTS_OF_OUTBOUND: &str = "UPDATE outbound SET params = NULL WHERE id > ?1 AND id <= ?2 AND +inbound IS NULL AND state > 3 \
     AND params IS NOT NULL AND ?3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = outbound.id)";
const DELETE_OUTBOUND: &str = "DELETE FROM outbound WHERE id > ?1 AND id <= ?2 AND +inbound IS NULL AND state > 3 \
     AND ?3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = outbound.id)";

/// Finds the conversation ?1 if it has no open message (below 3) and its last message is older than ?2.
// A last message later than ?3, the current time, counts as old if the mark has come to it, ?4.
const OLD_CONVERSATION: &str = "SELECT 1 FROM conversation c WHERE c.id = ?1 \
     AND (c.last_inbound < ?2 OR (c.last_inbound > ?3 AND c.newest <= ?4)) \
     AND NOT EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = c.id AND p.state < 3)";

// Few rows per step, as everywhere. Both tables have an index on their time.
const DELETE_OLD_KEYS: &str = "DELETE FROM idempotency_key WHERE key IN (SELECT key FROM idempotency_key WHERE at < ?1 LIMIT ?2)";
const DELETE_OLD_STATUS: &str = "DELETE FROM unmatched_status WHERE (sid, account) IN (SELECT sid, account FROM unmatched_status WHERE at < ?1 LIMIT ?2)";

/// Reads up to ?3 rows of `expire_later` after the position ?2.
const POSTPONED_ROWS: &str =
    "SELECT id, at FROM expire_later WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
/// Checks whether a message of `expire_later` is an ordinary row again.
// Nothing is open (messages below 3, replies up to 3), and it was recorded with its own time. A row from the future was
// recorded with another one.
const IS_ORDINARY: &str = "SELECT NOT EXISTS (SELECT 1 FROM inbound WHERE id = ?1 AND (state < 3 OR received_at <> ?2)) \
     AND NOT EXISTS (SELECT 1 FROM outbound WHERE inbound = ?1 AND state <= 3)";
const EXISTS_OUTBOUND: &str = "SELECT 1 FROM outbound WHERE id = ?1";

/// Step of retention: its age limits in microseconds, and what it has deleted.
struct SqliteRetentionStep<'a> {
    db: &'a Connection,
    now: i64,
    texts: i64,
    content: i64,
    keys: i64,
    expired: ExpiryReport,
}

pub(super) fn expire(db: &Connection, retention: &Retention) -> Result<ExpiryReport, StoreError> {
    let mut step = SqliteRetentionStep {
        db,
        now: retention.now.as_microsecond(),
        texts: retention.texts_before.as_microsecond(),
        content: retention.content_before.as_microsecond(),
        keys: retention.keys_before.as_microsecond(),
        expired: ExpiryReport::default(),
    };
    // Messages may have been deleted in another way since the last step.
    lower_marks(db)?;
    if let Some(range) = step.next(TEXTS, step.texts)? {
        step.delete_texts(range)?;
    }
    if let Some(range) = step.next(CONTENT, step.content)? {
        step.delete_content(range)?;
    }
    if let Some(range) = step.next(KEYS, step.keys)? {
        step.delete_keys(range)?;
    }
    if let Some(range) = step.next_outbound(OUTBOUND_TEXTS, step.texts)? {
        step.run(DELETE_TEXTS_OF_OUTBOUND, range)?;
    }
    if let Some(range) = step.next_outbound(OUTBOUND_CONTENT, step.content)? {
        step.run(DELETE_OUTBOUND, range)?;
    }
    step.expire_postponed_messages()?;
    step.expire_postponed_outbound()?;
    for (sql, before) in [
        (DELETE_OLD_KEYS, retention.keys_before),
        (DELETE_OLD_STATUS, retention.unmatched_status_before),
    ] {
        let deleted = db
            .prepare_cached(sql)?
            .execute(params![before.as_microsecond(), ROWS_PER_STEP])?;
        step.expired.has_more |= deleted == usize::from(ROWS_PER_STEP);
    }
    Ok(step.expired)
}

/// Resets the marks after all messages were deleted.
pub(super) fn reset_marks(db: &Connection) -> Result<(), StoreError> {
    db.execute("DELETE FROM expire_later", [])?;
    lower_marks(db)
}

/// Moves the marks of messages back to the highest ID that exists.
fn lower_marks(db: &Connection) -> Result<(), StoreError> {
    // `inbound` has no AUTOINCREMENT, so SQLite assigns the IDs of deleted newest messages again. Messages with an ID
    // below a mark would never expire.
    let mut lower = db.prepare_cached(
        "UPDATE meta SET value = (SELECT coalesce(max(id), 0) FROM inbound) \
         WHERE name = ?1 AND value > (SELECT coalesce(max(id), 0) FROM inbound)",
    )?;
    for name in MESSAGE_MARKS {
        lower.execute([name])?;
    }
    Ok(())
}

impl SqliteRetentionStep<'_> {
    fn run(&self, sql: &str, range: IdRange) -> Result<usize, StoreError> {
        let mut statement = self.db.prepare_cached(sql)?;
        Ok(statement.execute(params![range.from, range.to, range.later])?)
    }

    /// Returns the next messages that are older than `before`, and moves the mark past them.
    fn next(&mut self, mark: &str, before: i64) -> Result<Option<IdRange>, StoreError> {
        self.advance(
            mark,
            before,
            MESSAGES,
            MESSAGE,
            &[POSTPONE_OPEN_MESSAGES, POSTPONE_OPEN_REPLIES],
        )
    }

    /// Returns the next rows of the outbox that are older than `before`, and moves the mark past them.
    ///
    /// Replies are among them. They are deleted with their messages, and the statements leave them out.
    fn next_outbound(&mut self, mark: &str, before: i64) -> Result<Option<IdRange>, StoreError> {
        self.advance(mark, before, REPLIES, OUTBOUND, &[POSTPONE_OPEN_OUTBOUND])
    }

    fn advance(
        &mut self,
        mark: &str,
        before: i64,
        select: &str,
        kind: i64,
        open: &[&str],
    ) -> Result<Option<IdRange>, StoreError> {
        let db = self.db;
        let from = self.mark(mark)?;
        let rows: Vec<expiry::Row> = db
            .prepare_cached(select)?
            .query_map(params![from, ROWS_PER_STEP], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let batch = expiry::batch(&rows, before, self.now);
        let Some(to) = batch.to else { return Ok(None) };
        // Recorded before the caller deletes the range, so that its deletions leave these rows out. OR IGNORE: a row
        // that another mark has recorded keeps its first time.
        for id in batch.later {
            db.prepare_cached(
                "INSERT OR IGNORE INTO expire_later (kind, id, at) VALUES (?1, ?2, ?3)",
            )?
            .execute([kind, id, self.now])?;
        }
        for sql in open {
            db.prepare_cached(sql)?.execute([from, to])?;
        }
        self.set_mark(mark, to)?;
        self.expired.has_more = true;
        Ok(Some(IdRange {
            from,
            to,
            later: false,
        }))
    }

    fn mark(&self, name: &str) -> Result<i64, StoreError> {
        let value = self
            .db
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        Ok(value.unwrap_or(0))
    }

    fn set_mark(&self, name: &str, value: i64) -> Result<(), StoreError> {
        // An upsert: the first step inserts the mark.
        self.db
            .prepare_cached(
                "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![name, value])?;
        Ok(())
    }

    fn delete_texts(&mut self, range: IdRange) -> Result<(), StoreError> {
        self.run(DELETE_TEXTS_OF_REPLIES, range)?;
        // Read before the texts are deleted: both statements find the messages by their text.
        let unanswered = sids(self.db.prepare_cached(UNANSWERED)?, range)?;
        if !unanswered.is_empty() {
            self.db
                .prepare_cached(MARK_UNANSWERED_DEAD)?
                .execute(params![range.from, range.to, range.later, states::EXPIRED])?;
            self.expired.unanswered.extend(unanswered);
        }
        self.run(DELETE_TEXTS_OF_MESSAGES, range)?;
        Ok(())
    }

    fn delete_content(&mut self, range: IdRange) -> Result<(), StoreError> {
        self.run(DELETE_REPLIES, range)?;
        self.delete_old_conversations(range)
    }

    fn delete_keys(&mut self, range: IdRange) -> Result<(), StoreError> {
        let db = self.db;
        // Keys outlive content by 400 days, so only a very long outage leaves such messages.
        let unanswered = sids(db.prepare_cached(UNANSWERED_AT_DELETION)?, range)?;
        self.expired.unanswered.extend(unanswered);
        // Replies that are still open are deleted too, because their message is.
        self.run(DELETE_ALL_REPLIES, range)?;
        self.delete_old_conversations(range)?;
        self.run(DELETE_MESSAGES, range)?;
        lower_marks(db)
    }

    /// Deletes the old conversations of these messages.
    fn delete_old_conversations(&self, range: IdRange) -> Result<(), StoreError> {
        let db = self.db;
        let conversations: Vec<i64> = db
            .prepare_cached(CONVERSATIONS)?
            .query_map(params![range.from, range.to, range.later], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in conversations {
            // One that is not old yet is checked again when a mark reaches its last message.
            let parameters = params![id, self.content, self.now, range.to];
            if !db.prepare_cached(OLD_CONVERSATION)?.exists(parameters)? {
                continue;
            }
            for sql in [
                "DELETE FROM conversation_address WHERE conversation = ?1",
                "DELETE FROM dialogue WHERE conversation = ?1",
                "DELETE FROM conversation WHERE merged_into = ?1",
                "DELETE FROM conversation WHERE id = ?1",
            ] {
                db.prepare_cached(sql)?.execute([id])?;
            }
            handoff::delete_handoff(db, id)?;
        }
        Ok(())
    }

    /// Returns the next rows of `expire_later`, and starts again from the first one after the last one.
    fn later(&mut self, kind: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        let mark = LATER[usize::from(kind != MESSAGE)];
        let from = self.mark(mark)?;
        let found: Vec<(i64, i64)> = self
            .db
            .prepare_cached(POSTPONED_ROWS)?
            .query_map(params![kind, from, ROWS_PER_STEP], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let is_end = found.len() < usize::from(ROWS_PER_STEP);
        let to = found.last().filter(|_| !is_end).map_or(0, |row| row.0);
        if to != from {
            self.set_mark(mark, to)?;
        }
        self.expired.has_more |= !is_end;
        Ok(found)
    }

    fn expire_postponed_messages(&mut self) -> Result<(), StoreError> {
        for (id, at) in self.later(MESSAGE)? {
            let range = IdRange {
                from: id - 1,
                to: id,
                later: true,
            };
            if at >= self.texts {
                continue;
            }
            // Each of these deletes only what is closed now, so a row may need several passes.
            self.delete_texts(range)?;
            if at < self.content {
                self.delete_content(range)?;
            }
            if at < self.keys {
                self.delete_keys(range)?;
            } else {
                // An ordinary row leaves `expire_later` if the marks that have not reached it yet will delete the rest:
                // its content, unless that was deleted just now, and its key.
                let is_ordinary: bool = self
                    .db
                    .prepare_cached(IS_ORDINARY)?
                    .query_row([id, at], |row| row.get(0))?;
                let content = at < self.content || id > self.mark(CONTENT)?;
                if !(is_ordinary && content && id > self.mark(KEYS)?) {
                    continue;
                }
            }
            self.delete_postponed(MESSAGE, id)?;
        }
        Ok(())
    }

    fn expire_postponed_outbound(&mut self) -> Result<(), StoreError> {
        for (id, at) in self.later(OUTBOUND)? {
            let range = IdRange {
                from: id - 1,
                to: id,
                later: true,
            };
            if at < self.texts {
                self.run(DELETE_TEXTS_OF_OUTBOUND, range)?;
            }
            if at < self.content {
                self.run(DELETE_OUTBOUND, range)?;
            }
            if !self.db.prepare_cached(EXISTS_OUTBOUND)?.exists([id])? {
                self.delete_postponed(OUTBOUND, id)?;
            }
        }
        Ok(())
    }

    fn delete_postponed(&self, kind: i64, id: i64) -> Result<(), StoreError> {
        self.db
            .prepare_cached("DELETE FROM expire_later WHERE kind = ?1 AND id = ?2")?
            .execute([kind, id])?;
        Ok(())
    }
}

/// Runs a statement that selects SIDs of messages in a range.
fn sids(mut statement: CachedStatement<'_>, range: IdRange) -> Result<Vec<MessageSid>, StoreError> {
    let mut found = statement.query(params![range.from, range.to, range.later])?;
    let mut sids = Vec::new();
    while let Some(row) = found.next()? {
        sids.push(packing::message_sid(&row.get::<_, Vec<u8>>(0)?)?);
    }
    Ok(sids)
}

#[cfg(test)]
mod tests {
    use super::super::schema::DatabaseFile;
    use super::*;
    use crate::store::Access;

    // With a scan, a step would take longer the more messages are stored.
    #[test]
    fn retention_statements_avoid_table_scans() {
        let database = DatabaseFile {
            path: None,
            wait_for_lock: crate::store::sqlite::busy_handler::wait::<0>,
        };
        let db = database.open(Access::Owner).unwrap();
        for sql in [
            MESSAGES,
            REPLIES,
            POSTPONE_OPEN_MESSAGES,
            POSTPONE_OPEN_REPLIES,
            POSTPONE_OPEN_OUTBOUND,
            DELETE_TEXTS_OF_REPLIES,
            UNANSWERED,
            MARK_UNANSWERED_DEAD,
            DELETE_TEXTS_OF_MESSAGES,
            DELETE_REPLIES,
            CONVERSATIONS,
            UNANSWERED_AT_DELETION,
            DELETE_ALL_REPLIES,
            DELETE_MESSAGES,
            DELETE_TEXTS_OF_OUTBOUND,
            DELETE_OUTBOUND,
            OLD_CONVERSATION,
            DELETE_OLD_KEYS,
            DELETE_OLD_STATUS,
            POSTPONED_ROWS,
            IS_ORDINARY,
            EXISTS_OUTBOUND,
        ] {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let unbound = vec![rusqlite::types::Null; plan.parameter_count()];
            let steps: Vec<String> = plan
                .query_map(rusqlite::params_from_iter(unbound), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            for step in steps {
                let is_bounded = !step.starts_with("SCAN") || step == "SCAN CONSTANT ROW";
                assert!(is_bounded, "{step}: {sql}");
                // `inbound` is NULL in every row that is not a reply, so this search would find all of them.
                assert!(
                    !step.contains("inbound=?") || !sql.contains("inbound IS NULL"),
                    "{step}: {sql}"
                );
            }
        }
    }
}
