//! [`Operator::expire`](crate::store::Operator::expire) in SQLite: see [`expiry`] for the rows that a step takes.

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::handover;
use crate::sid::MessageSid;
use crate::store::expiry::{
    self, CONTENT, KEYS, LATER, MESSAGE, MESSAGE_MARKS, OUTGOING, OUTGOING_CONTENT, OUTGOING_TEXTS,
    STEP, TEXTS,
};
use crate::store::{Expired, Retention, StoreError, rows};

/// Rows behind the mark ?1, at most ?2 of them.
const MESSAGES: &str = "SELECT i.id, i.received_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = i.id) \
     FROM inbound i WHERE i.id > ?1 ORDER BY i.id LIMIT ?2";
const REPLIES: &str = "SELECT r.id, r.created_at, EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = r.id) \
     FROM reply r WHERE r.id > ?1 ORDER BY r.id LIMIT ?2";

/// Open messages after ?1 and up to ?2.
const OPEN_MESSAGES: &str = "INSERT OR IGNORE INTO expire_later (kind, id, at) \
     SELECT 0, id, received_at FROM inbound WHERE id > ?1 AND id <= ?2 AND state < 3";
const OPEN_REPLIES: &str = "INSERT OR IGNORE INTO expire_later (kind, id, at) \
     SELECT 0, r.inbound, i.received_at FROM reply r JOIN inbound i ON i.id = r.inbound \
     WHERE r.inbound > ?1 AND r.inbound <= ?2 AND r.state <= 3";
/// An index by the message that a reply belongs to would find all that answer nothing.
const OPEN_OUTGOING: &str = "INSERT OR IGNORE INTO expire_later (kind, id, at) \
     SELECT 1, id, created_at FROM reply WHERE id > ?1 AND id <= ?2 AND +inbound IS NULL AND state <= 3";

/// The deletions of a range of messages; ?3 says whether those in `expire_later` are meant.
macro_rules! meant {
    ($id:literal) => {
        concat!(
            " AND ?3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 0 AND l.id = ",
            $id,
            ")"
        )
    };
}
const TEXTS_OF_REPLIES: &str = concat!(
    "UPDATE reply SET params = NULL WHERE inbound > ?1 AND inbound <= ?2 AND state > 3",
    meant!("reply.inbound")
);
const UNANSWERED: &str = concat!(
    "SELECT sid FROM inbound WHERE id > ?1 AND id <= ?2 AND state IN (5, 6) AND params IS NOT NULL",
    meant!("inbound.id")
);
const BECOMES_DEAD: &str = concat!(
    "UPDATE inbound SET state = 6, reason = ?4 WHERE id > ?1 AND id <= ?2 AND state IN (5, 6) AND params IS NOT NULL",
    meant!("inbound.id")
);
const TEXTS_OF_MESSAGES: &str = concat!(
    "UPDATE inbound SET params = NULL, answer = NULL WHERE id > ?1 AND id <= ?2 AND state > 2",
    meant!("inbound.id")
);
const DELETE_REPLIES: &str = concat!(
    "DELETE FROM reply WHERE inbound > ?1 AND inbound <= ?2 AND state > 3",
    meant!("reply.inbound")
);
const CONVERSATIONS: &str = concat!(
    "SELECT DISTINCT conversation FROM inbound WHERE id > ?1 AND id <= ?2",
    meant!("inbound.id")
);
const OPEN_TO_THE_END: &str = concat!(
    "SELECT sid FROM inbound WHERE id > ?1 AND id <= ?2 \
     AND (state < 3 OR (state IN (5, 6) AND params IS NOT NULL))",
    meant!("inbound.id")
);
const DELETE_ALL_REPLIES: &str = concat!(
    "DELETE FROM reply WHERE inbound > ?1 AND inbound <= ?2",
    meant!("reply.inbound")
);
const DELETE_MESSAGES: &str = concat!(
    "DELETE FROM inbound WHERE id > ?1 AND id <= ?2",
    meant!("inbound.id")
);

/// The deletions of a range of what answers nothing.
const TEXTS_OF_OUTGOING: &str = "UPDATE reply SET params = NULL WHERE id > ?1 AND id <= ?2 AND +inbound IS NULL AND state > 3 \
     AND params IS NOT NULL AND ?3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = reply.id)";
const DELETE_OUTGOING: &str = "DELETE FROM reply WHERE id > ?1 AND id <= ?2 AND +inbound IS NULL AND state > 3 \
     AND ?3 = EXISTS (SELECT 1 FROM expire_later l WHERE l.kind = 1 AND l.id = reply.id)";

/// A conversation whose last message is older than ?2, or is in the future and among those up to ?4, and that has none open.
const IS_OVER: &str = "SELECT 1 FROM conversation c WHERE c.id = ?1 \
     AND (c.last_inbound < ?2 OR (c.last_inbound > ?3 AND c.newest <= ?4)) \
     AND NOT EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = c.id AND p.state < 3)";

const OLD_KEYS: &str =
    "DELETE FROM send_key WHERE key IN (SELECT key FROM send_key WHERE at < ?1 LIMIT ?2)";
const OLD_NEWS: &str = "DELETE FROM news WHERE (sid, account) IN (SELECT sid, account FROM news WHERE at < ?1 LIMIT ?2)";

/// Rows of `expire_later` behind the mark ?2.
const LATER_ROWS: &str =
    "SELECT id, at FROM expire_later WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
/// Whether a message of `expire_later` is as any other again: nothing is open, and it is as old as its number.
const IS_ORDINARY: &str = "SELECT NOT EXISTS (SELECT 1 FROM inbound WHERE id = ?1 AND (state < 3 OR received_at <> ?2)) \
     AND NOT EXISTS (SELECT 1 FROM reply WHERE inbound = ?1 AND state <= 3)";
const IS_THERE: &str = "SELECT 1 FROM reply WHERE id = ?1";

/// Numbers: after the first and up to the second, and whether those of `expire_later` are meant.
#[derive(Clone, Copy)]
struct Range {
    from: i64,
    to: i64,
    later: bool,
}

/// The rows that a step deletes, and the time that they go by.
struct Step<'a> {
    db: &'a Connection,
    now: i64,
    texts: i64,
    content: i64,
    keys: i64,
    expired: Expired,
}

pub(super) fn expire(db: &Connection, retention: &Retention) -> Result<Expired, StoreError> {
    let mut step = Step {
        db,
        now: retention.now.as_microsecond(),
        texts: retention.texts_before.as_microsecond(),
        content: retention.content_before.as_microsecond(),
        keys: retention.keys_before.as_microsecond(),
        expired: Expired::default(),
    };
    // Should messages have been deleted otherwise.
    put_marks_back(db)?;
    if let Some(range) = step.next(TEXTS, step.texts)? {
        step.texts_of_messages(range)?;
    }
    if let Some(range) = step.next(CONTENT, step.content)? {
        step.content_of_messages(range)?;
    }
    if let Some(range) = step.next(KEYS, step.keys)? {
        step.keys_of_messages(range)?;
    }
    if let Some(range) = step.next_outgoing(OUTGOING_TEXTS, step.texts)? {
        step.run(TEXTS_OF_OUTGOING, range)?;
    }
    if let Some(range) = step.next_outgoing(OUTGOING_CONTENT, step.content)? {
        step.run(DELETE_OUTGOING, range)?;
    }
    step.messages_later()?;
    step.outgoing_later()?;
    for (sql, before) in [
        (OLD_KEYS, retention.keys_before),
        (OLD_NEWS, retention.news_before),
    ] {
        let deleted = db
            .prepare_cached(sql)?
            .execute(params![before.as_microsecond(), STEP])?;
        step.expired.more |= deleted == usize::from(STEP);
    }
    Ok(step.expired)
}

/// Resets the marks after everything was deleted.
pub(super) fn begin_anew(db: &Connection) -> Result<(), StoreError> {
    db.execute("DELETE FROM expire_later", [])?;
    put_marks_back(db)
}

/// SQLite gives the numbers of the newest messages again once those are deleted, and the marks must not lie before them.
fn put_marks_back(db: &Connection) -> Result<(), StoreError> {
    let mut put_back = db.prepare_cached(
        "UPDATE meta SET value = (SELECT coalesce(max(id), 0) FROM inbound) \
         WHERE name = ?1 AND value > (SELECT coalesce(max(id), 0) FROM inbound)",
    )?;
    for name in MESSAGE_MARKS {
        put_back.execute([name])?;
    }
    Ok(())
}

impl Step<'_> {
    fn run(&self, sql: &str, range: Range) -> Result<usize, StoreError> {
        let mut statement = self.db.prepare_cached(sql)?;
        Ok(statement.execute(params![range.from, range.to, range.later])?)
    }

    /// The next messages that are older than `before`, with the mark moved behind them.
    fn next(&mut self, mark: &str, before: i64) -> Result<Option<Range>, StoreError> {
        self.behind(
            mark,
            before,
            MESSAGES,
            MESSAGE,
            &[OPEN_MESSAGES, OPEN_REPLIES],
        )
    }

    /// The same of the outbox. Replies are in between, which go with their messages.
    fn next_outgoing(&mut self, mark: &str, before: i64) -> Result<Option<Range>, StoreError> {
        self.behind(mark, before, REPLIES, OUTGOING, &[OPEN_OUTGOING])
    }

    fn behind(
        &mut self,
        mark: &str,
        before: i64,
        select: &str,
        kind: i64,
        open: &[&str],
    ) -> Result<Option<Range>, StoreError> {
        let db = self.db;
        let from = self.mark(mark)?;
        let rows: Vec<expiry::Row> = db
            .prepare_cached(select)?
            .query_map(params![from, STEP], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let batch = expiry::batch(&rows, before, self.now);
        let Some(to) = batch.to else { return Ok(None) };
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
        self.expired.more = true;
        Ok(Some(Range {
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
        self.db
            .prepare_cached(
                "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![name, value])?;
        Ok(())
    }

    fn texts_of_messages(&mut self, range: Range) -> Result<(), StoreError> {
        self.run(TEXTS_OF_REPLIES, range)?;
        let unanswered = sids(self.db.prepare_cached(UNANSWERED)?, range)?;
        if !unanswered.is_empty() {
            self.db.prepare_cached(BECOMES_DEAD)?.execute(params![
                range.from,
                range.to,
                range.later,
                rows::EXPIRED
            ])?;
            self.expired.unanswered.extend(unanswered);
        }
        self.run(TEXTS_OF_MESSAGES, range)?;
        Ok(())
    }

    fn content_of_messages(&mut self, range: Range) -> Result<(), StoreError> {
        self.run(DELETE_REPLIES, range)?;
        self.forget_conversations(range)
    }

    fn keys_of_messages(&mut self, range: Range) -> Result<(), StoreError> {
        let db = self.db;
        // Nothing but an outage of more than a year leaves any.
        let unanswered = sids(db.prepare_cached(OPEN_TO_THE_END)?, range)?;
        self.expired.unanswered.extend(unanswered);
        // Those too whose content was left because something was open.
        self.run(DELETE_ALL_REPLIES, range)?;
        self.forget_conversations(range)?;
        self.run(DELETE_MESSAGES, range)?;
        put_marks_back(db)
    }

    /// Forgets the conversations of these messages that are over. Each comes up again with its last message.
    fn forget_conversations(&self, range: Range) -> Result<(), StoreError> {
        let db = self.db;
        let conversations: Vec<i64> = db
            .prepare_cached(CONVERSATIONS)?
            .query_map(params![range.from, range.to, range.later], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in conversations {
            let over = params![id, self.content, self.now, range.to];
            if !db.prepare_cached(IS_OVER)?.exists(over)? {
                continue;
            }
            for sql in [
                "DELETE FROM conversation_address WHERE conversation = ?1",
                "DELETE FROM dialogue WHERE conversation = ?1",
                "DELETE FROM conversation WHERE joined = ?1",
                "DELETE FROM conversation WHERE id = ?1",
            ] {
                db.prepare_cached(sql)?.execute([id])?;
            }
            handover::forget(db, id)?;
        }
        Ok(())
    }

    /// The next rows of `expire_later`; from the first again after the last.
    fn later(&mut self, kind: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        let mark = LATER[usize::from(kind != MESSAGE)];
        let from = self.mark(mark)?;
        let found: Vec<(i64, i64)> = self
            .db
            .prepare_cached(LATER_ROWS)?
            .query_map(params![kind, from, STEP], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let is_end = found.len() < usize::from(STEP);
        let to = found.last().filter(|_| !is_end).map_or(0, |row| row.0);
        if to != from {
            self.set_mark(mark, to)?;
        }
        self.expired.more |= !is_end;
        Ok(found)
    }

    fn messages_later(&mut self) -> Result<(), StoreError> {
        for (id, at) in self.later(MESSAGE)? {
            let range = Range {
                from: id - 1,
                to: id,
                later: true,
            };
            if at >= self.texts {
                continue;
            }
            self.texts_of_messages(range)?;
            if at < self.content {
                self.content_of_messages(range)?;
            }
            if at < self.keys {
                self.keys_of_messages(range)?;
            } else {
                // The marks that have not come to it yet take it as any other.
                let is_ordinary: bool = self
                    .db
                    .prepare_cached(IS_ORDINARY)?
                    .query_row([id, at], |row| row.get(0))?;
                let content = at < self.content || id > self.mark(CONTENT)?;
                if !(is_ordinary && content && id > self.mark(KEYS)?) {
                    continue;
                }
            }
            self.done_later(MESSAGE, id)?;
        }
        Ok(())
    }

    fn outgoing_later(&mut self) -> Result<(), StoreError> {
        for (id, at) in self.later(OUTGOING)? {
            let range = Range {
                from: id - 1,
                to: id,
                later: true,
            };
            if at < self.texts {
                self.run(TEXTS_OF_OUTGOING, range)?;
            }
            if at < self.content {
                self.run(DELETE_OUTGOING, range)?;
            }
            if !self.db.prepare_cached(IS_THERE)?.exists([id])? {
                self.done_later(OUTGOING, id)?;
            }
        }
        Ok(())
    }

    fn done_later(&self, kind: i64, id: i64) -> Result<(), StoreError> {
        self.db
            .prepare_cached("DELETE FROM expire_later WHERE kind = ?1 AND id = ?2")?
            .execute([kind, id])?;
        Ok(())
    }
}

/// The SIDs of messages whose numbers are in a range.
fn sids(mut statement: CachedStatement<'_>, range: Range) -> Result<Vec<MessageSid>, StoreError> {
    let mut found = statement.query(params![range.from, range.to, range.later])?;
    let mut sids = Vec::new();
    while let Some(row) = found.next()? {
        sids.push(rows::message_sid(&row.get::<_, Vec<u8>>(0)?)?);
    }
    Ok(sids)
}

#[cfg(test)]
mod tests {
    use super::super::schema::Place;
    use super::*;
    use crate::store::Access;

    /// Every statement finds its rows by an index, so that a step takes no longer where there are many others.
    #[test]
    fn no_statement_looks_through_a_table() {
        let place = Place {
            path: None,
            patience: std::time::Duration::ZERO,
        };
        let db = place.open(Access::Owner).unwrap();
        for sql in [
            MESSAGES,
            REPLIES,
            OPEN_MESSAGES,
            OPEN_REPLIES,
            OPEN_OUTGOING,
            TEXTS_OF_REPLIES,
            UNANSWERED,
            BECOMES_DEAD,
            TEXTS_OF_MESSAGES,
            DELETE_REPLIES,
            CONVERSATIONS,
            OPEN_TO_THE_END,
            DELETE_ALL_REPLIES,
            DELETE_MESSAGES,
            TEXTS_OF_OUTGOING,
            DELETE_OUTGOING,
            IS_OVER,
            OLD_KEYS,
            OLD_NEWS,
            LATER_ROWS,
            IS_ORDINARY,
            IS_THERE,
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
                // Equal for all that answers nothing.
                assert!(
                    !step.contains("inbound=?") || !sql.contains("inbound IS NULL"),
                    "{step}: {sql}"
                );
            }
        }
    }
}
