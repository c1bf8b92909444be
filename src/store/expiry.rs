//! Selection of the rows that a step of [`Operator::expire`](super::operator::Operator::expire) deletes, for both
//! databases.
//!
//! The age of a row follows from its ID. So each kind of deletion has a *mark*, the ID up to which it has come. No
//! index on time has to be written for every message. Two kinds of rows are exceptions:
//!
//! - A row whose time lies in the future was written while the clock was wrong. It counts as old as the next row.
//! - A row may not be deleted while its message or a reply is open. If the mark reaches it then, it is recorded in
//!   `expire_later` with its time, and is deleted by that time later. The same applies to a row from the future that
//!   has no next row.

/// Deletions of messages and consents, each before those of the tables that its table refers to.
pub(super) const DELETE_CONTENT: [&str; 19] = [
    "DELETE FROM event",
    "DELETE FROM media_link",
    "DELETE FROM media_file",
    "DELETE FROM idempotency_key",
    "DELETE FROM send_rate",
    "DELETE FROM dialogue",
    "DELETE FROM question",
    "DELETE FROM handoff",
    "DELETE FROM unmatched_status",
    "DELETE FROM outbound",
    "DELETE FROM inbound",
    "DELETE FROM consent",
    "DELETE FROM consent_ledger",
    "DELETE FROM identity_link",
    "DELETE FROM identity_split",
    "DELETE FROM scope_account",
    "DELETE FROM service_sender",
    "DELETE FROM conversation_address",
    "DELETE FROM conversation",
];

/// Rows that one step reads, of each kind.
// Few, because accepting a message waits while a step runs. The deleted rows also lie in many pages, which the next
// checkpoint has to write.
pub(super) const ROWS_PER_STEP: u16 = 20;

/// Kind of an inbound message, in `expire_later`.
pub(super) const MESSAGE: i64 = 0;
/// Kind of an outbound message that is not a reply, in `expire_later`.
pub(super) const OUTBOUND: i64 = 1;

/// Marks that are IDs of inbound messages. They are reset where IDs start again.
pub(super) const MESSAGE_MARKS: [&str; 3] = [TEXTS, CONTENT, KEYS];
// Names in the table `meta`. They are stored, so renaming one would start its deletion from the first row again.
pub(super) const TEXTS: &str = "texts_expired";
pub(super) const CONTENT: &str = "content_expired";
pub(super) const KEYS: &str = "keys_expired";
pub(super) const OUTBOUND_TEXTS: &str = "outbound_texts_expired";
pub(super) const OUTBOUND_CONTENT: &str = "outbound_expired";
/// Time of the last link that the deletion of unused links has passed, in microseconds.
pub(super) const LINKS: &str = "links_expired";
/// Positions in `expire_later`, one per kind: the ID up to which its rows have been checked in this pass.
pub(super) const LATER: [&str; 2] = ["messages_later", "outbound_later"];

/// A row after a mark: its ID, its time, and true if it is in `expire_later`.
pub(super) type Row = (i64, i64, bool);

/// Rows of one deletion: IDs above `from` and up to `to`. `later` selects those in `expire_later`, or those that are
/// not.
#[derive(Clone, Copy)]
pub(super) struct IdRange {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) later: bool,
}

/// Rows that a mark passes in one step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// ID of the last of them; `None` if the mark stays where it is.
    pub(super) to: Option<i64>,
    /// IDs of those to record in `expire_later` with the time of this step.
    pub(super) later: Vec<i64>,
}

/// Selects those older than `before` from at most [`ROWS_PER_STEP`] rows after a mark, which are in the order of their
/// IDs.
pub(super) fn batch(rows: &[Row], before: i64, now: i64) -> Batch {
    let mut batch = Batch::default();
    // Rows from the future after the last row that the batch includes.
    let mut ahead = Vec::new();
    for (id, time, is_later) in rows {
        if *is_later {
            // Its own time decides when it is deleted. The mark passes it, but not the rows from the future before it.
            if ahead.is_empty() {
                batch.to = Some(*id);
            }
        } else if *time > now {
            ahead.push(*id);
        } else if *time < before {
            // An old row, so the rows from the future before it are old too.
            batch.to = Some(*id);
            ahead.clear();
        } else {
            // A recent row ends the batch. Rows from the future directly before it wait until it is old.
            return batch;
        }
    }
    // The next row decides about the rows in `ahead`, and after a full batch the next step may see it. If a full batch
    // moved the mark nowhere, the next step would read the same rows again.
    let may_see_more = rows.len() >= usize::from(ROWS_PER_STEP) && batch.to.is_some();
    if !ahead.is_empty() && !may_see_more {
        batch.to = rows.last().map(|row| row.0);
        batch.later = ahead;
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: i64 = 100;
    const NOW: i64 = 200;

    fn taken(times: &[i64]) -> (Option<i64>, Vec<i64>) {
        let rows: Vec<Row> = (1..)
            .zip(times)
            .map(|(id, time)| (id, *time, false))
            .collect();
        let batch = batch(&rows, BEFORE, NOW);
        (batch.to, batch.later)
    }

    #[test]
    fn old_rows_expire_up_to_first_recent_row() {
        assert_eq!(taken(&[]), (None, vec![]));
        assert_eq!(taken(&[1, 2, 99]), (Some(3), vec![]));
        // The last row is older than its ID suggests.
        assert_eq!(taken(&[1, 100, 3]), (Some(1), vec![]));
        assert_eq!(taken(&[150, 3]), (None, vec![]));
    }

    // A row from the future was written while the clock was wrong.
    #[test]
    fn future_row_counts_as_old_as_next() {
        assert_eq!(taken(&[1, 999, 2]), (Some(3), vec![]));
        assert_eq!(taken(&[1, 999, 150, 2]), (Some(1), vec![]));
        assert_eq!(taken(&[999, 999, 150]), (None, vec![]));
    }

    #[test]
    fn future_row_without_successor_is_postponed() {
        assert_eq!(taken(&[1, 999]), (Some(2), vec![2]));
        assert_eq!(taken(&[999]), (Some(1), vec![1]));
        // The next row may follow after the batch, unless the whole batch is from the future.
        let mut full = vec![1; usize::from(ROWS_PER_STEP) - 1];
        full.push(999);
        let last = i64::from(ROWS_PER_STEP);
        assert_eq!(taken(&full), (Some(last - 1), vec![]));
        assert_eq!(taken(&vec![999; usize::from(ROWS_PER_STEP)]).0, Some(last));
    }

    #[test]
    fn postponed_rows_do_not_stop_batch() {
        let rows = [(1, 150, true), (2, 1, false), (3, 150, true)];
        assert_eq!(batch(&rows, BEFORE, NOW).to, Some(3));
        let rows = [
            (1, 150, true),
            (2, 999, false),
            (3, 1, true),
            (4, 150, false),
        ];
        assert_eq!(batch(&rows, BEFORE, NOW).to, Some(1));
    }
}
