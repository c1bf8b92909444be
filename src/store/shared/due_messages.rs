//! Search for the messages of the outbox that may be sent now.
//!
//! Messages of one account from one sender to one address are a queue, whose order is the order of their IDs. Of each queue only
//! the first message may be sent, and only after earlier messages to the user's other addresses in the conversation. Two searches
//! find these messages, and each is slow where the other is fast:
//!
//! - by time: the messages that have been due for longest, each with a check for a place at the head of its queue. It is
//!   slow if thousands of messages wait in few queues.
//! - by queue: the head of each queue, found by a jump in the index from one queue to the next. It is slow if there are
//!   thousands of queues.
//!
//! So they take turns, each time with more steps, until one has the whole answer. Both find the same messages.

use std::time::Duration;

use jiff::Timestamp;

use super::database::{Database, params};

/// Messages that the first search by time, and queues that the first search by queue, looks at.
const FIRST_STEPS: i64 = 64;
/// Growth of the number from one turn to the next.
const GROWTH: i64 = 8;

/// SQL: the ID of the message at the head of the queue of the row `$row`, or NULL. `$1` is the time, and `$account` the row with
/// the account if `$row` has none.
macro_rules! head_of_queue {
    ($row:literal) => {
        $crate::store::shared::due_messages::head_of_queue!($row, $row)
    };
    ($row:literal, $account:literal) => {
        concat!(
            "(SELECT q.id FROM outbound_in_queue q WHERE q.sender = ",
            $row,
            ".sender AND q.address_key = ",
            $row,
            ".address_key AND q.account = ",
            $account,
            ".account AND (q.keeps_place OR q.not_before <= $1) ORDER BY q.id LIMIT 1)"
        )
    };
}
pub(in crate::store) use head_of_queue;

/// SQL condition: no earlier message to another address of the user keeps the message `r`. `$1` is the time.
// Addresses of one conversation, such as a number and its business-scoped ID: the user sees one chat. Each of them has a queue of
// its own, so that links which are learned, or removed, later move no message. The order by ID is one for all queues, so two
// queues never wait for each other. Most conversations have one address, and then this is one lookup.
macro_rules! is_first_of_conversation {
    () => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM conversation_address own JOIN conversation_address other \
               ON other.conversation = own.conversation AND other.sender = own.sender AND other.address_key <> own.address_key \
             WHERE own.sender = r.sender AND own.address_key = r.address_key AND ",
            $crate::store::shared::due_messages::head_of_queue!("other", "r"),
            " < r.id)"
        )
    };
}
#[cfg(feature = "postgres")]
pub(in crate::store) use is_first_of_conversation;

/// SQL: sender, address key and account of the queue of the message `$1`, if that is PENDING (0), and of the queues to the other
/// addresses in its conversation.
macro_rules! queues_of_conversation {
    () => {
        "SELECT o.sender, o.address_key, o.account FROM outbound o WHERE o.id = $1 AND o.state = 0 \
         UNION SELECT other.sender, other.address_key, o.account FROM outbound o \
           JOIN conversation_address own ON own.sender = o.sender AND own.address_key = o.address_key \
           JOIN conversation_address other ON other.conversation = own.conversation AND other.sender = own.sender \
         WHERE o.id = $1 AND o.state = 0"
    };
}
pub(in crate::store) use queues_of_conversation;

/// SQL condition: no earlier part of its reply keeps the message `r`. `$1` is the time, `$2` the wait for a delivery.
// A part of a reply only once every part before it is SENT or SUPPRESSED (4, 6), or has failed and waits for its second send
// (0, not tried again yet). One that was sent less than `$2` ago must also be delivered or have failed for good (ranks from 4).
// `abs`: a send further ahead dates from before the clock was set back.
macro_rules! is_next_part {
    () => {
        "(r.inbound IS NULL OR NOT EXISTS (\
           SELECT 1 FROM outbound p WHERE p.inbound = r.inbound AND p.ordinal < r.ordinal AND (\
             (p.state NOT IN (4, 6) AND (p.state > 0 OR p.attempt > 0 OR coalesce(p.resent_after, p.text_after) IS NULL)) \
             OR (p.state IN (0, 4) AND p.rank < 4 AND abs($1 - p.sent_at) < $2))))"
    };
}
#[cfg(feature = "postgres")]
pub(in crate::store) use is_next_part;

/// Lists the `$3` messages that have been due for longest: PENDING (0), and their time has come. The second column is true if
/// the message may be sent.
// `state < 4` is the condition of the partial index `outbound_open`, whose order this is.
pub(in crate::store) const BY_TIME: &str = concat!(
    "SELECT r.id, r.id = ",
    head_of_queue!("r"),
    " AND ",
    is_first_of_conversation!(),
    " AND ",
    is_next_part!(),
    " FROM outbound r WHERE r.state = 0 AND r.state < 4 AND r.not_before <= $1 ORDER BY r.not_before, r.id LIMIT $3"
);

/// Lists up to `$3` queues, each with the message at its head if that may be sent, and its time.
// `queue` has one message of each queue. Each step finds the next account with the same sender and address, or the next address
// of the sender, or the next sender: three searches, because SQLite and PostgreSQL use the index for the first column only when
// all three are compared in one condition. `state < 3` is the condition of the partial index `outbound_queue`. `next` has the
// heads that may be sent. It looks at each head by itself, in a subquery: in a join, PostgreSQL may check all due messages, as it
// does while its statistics are from before thousands of messages were queued.
pub(in crate::store) const BY_QUEUE: &str = concat!(
    "WITH RECURSIVE queue(id, place) AS (\
       SELECT f.id, 1 FROM (SELECT o.id FROM outbound o WHERE o.state < 3 ORDER BY o.sender, o.address_key, o.account, o.id LIMIT 1) f \
       UNION ALL SELECT coalesce(\
         (SELECT n.id FROM outbound n WHERE n.state < 3 AND n.sender = o.sender AND n.address_key = o.address_key AND n.account > o.account \
           ORDER BY n.account, n.id LIMIT 1), \
         (SELECT n.id FROM outbound n WHERE n.state < 3 AND n.sender = o.sender AND n.address_key > o.address_key \
           ORDER BY n.address_key, n.account, n.id LIMIT 1), \
         (SELECT n.id FROM outbound n WHERE n.state < 3 AND n.sender > o.sender \
           ORDER BY n.sender, n.address_key, n.account, n.id LIMIT 1)), queue.place + 1 \
       FROM queue JOIN outbound o ON o.id = queue.id WHERE queue.place < $3), \
     head(id) AS MATERIALIZED (SELECT ",
    head_of_queue!("o"),
    " FROM queue JOIN outbound o ON o.id = queue.id), \
     next(id) AS MATERIALIZED (SELECT (SELECT r.id FROM outbound r WHERE r.id = head.id AND r.state = 0 AND r.not_before <= $1 AND ",
    is_first_of_conversation!(),
    " AND ",
    is_next_part!(),
    ") FROM head) \
     SELECT next.id, (SELECT r.not_before FROM outbound r WHERE r.id = next.id) FROM next"
);

/// Returns the IDs of up to `limit` messages that may be sent now: those that have been due for longest.
pub(in crate::store) async fn find_due<D: Database>(
    db: &mut D,
    limit: usize,
    wait: Duration,
    now: Timestamp,
) -> Result<Vec<i64>, D::Error> {
    let wait = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
    let mut steps = FIRST_STEPS;
    loop {
        let is_whole = |found: usize| i64::try_from(found).is_ok_and(|found| found < steps);
        let oldest = db.rows(BY_TIME, params![now, wait, steps]).await?;
        let has_all = is_whole(oldest.len());
        let mut due = Vec::new();
        for mut row in oldest {
            // NULL if its queue has no head.
            if row.take::<Option<bool>>(1)?.unwrap_or_default() && due.len() < limit {
                due.push(row.take(0)?);
            }
        }
        if has_all || due.len() == limit {
            return Ok(due);
        }
        let queues = db.rows(BY_QUEUE, params![now, wait, steps]).await?;
        if is_whole(queues.len()) {
            let mut heads: Vec<(i64, i64)> = Vec::new();
            for mut row in queues {
                if let (Some(id), Some(not_before)) = (row.take(0)?, row.take(1)?) {
                    heads.push((not_before, id));
                }
            }
            heads.sort_unstable();
            return Ok(heads.into_iter().take(limit).map(|(_, id)| id).collect());
        }
        steps *= GROWTH;
    }
}
