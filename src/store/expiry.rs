//! Which rows a step of [`Operator::expire`](super::Operator::expire) takes, the same in both databases.
//!
//! Rows are as old as their numbers, so that one number, the *mark* of each kind, says how far it has come, and no index by
//! time has to be written for every message. Two kinds of rows are not as old as their numbers:
//!
//! - A row whose time lies in the future was written while the clock was wrong. It is as old as the next row.
//! - A row that may not be deleted when the mark comes to it, because a message or a reply is still open, is put down in
//!   `expire_later` with its time, and so is one in the future that has no next row. From then on it goes by that time.

/// Rows of one step, of each kind: few, since messages wait for it.
pub(super) const STEP: u16 = 20;

/// A message, in `expire_later`.
pub(super) const MESSAGE: i64 = 0;
/// A message that was sent first, in `expire_later`.
pub(super) const OUTGOING: i64 = 1;

/// The marks that are numbers of messages, and with them may have to go back.
pub(super) const MESSAGE_MARKS: [&str; 3] = [TEXTS, CONTENT, KEYS];
pub(super) const TEXTS: &str = "texts_expired";
pub(super) const CONTENT: &str = "content_expired";
pub(super) const KEYS: &str = "keys_expired";
pub(super) const OUTGOING_TEXTS: &str = "outgoing_texts_expired";
pub(super) const OUTGOING_CONTENT: &str = "outgoing_expired";
/// The number up to which `expire_later` has been looked through, plus one of these for each kind.
pub(super) const LATER: [&str; 2] = ["messages_later", "outgoing_later"];

/// A row behind a mark: its number, its time, and whether it is in `expire_later`.
pub(super) type Row = (i64, i64, bool);

/// The rows that a mark passes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// The last of them.
    pub(super) to: Option<i64>,
    /// Those of them that go by the time of this step.
    pub(super) later: Vec<i64>,
}

/// Takes from at most [`STEP`] rows behind a mark, in the order of their numbers, those that are older than `before`.
pub(super) fn batch(rows: &[Row], before: i64, now: i64) -> Batch {
    let mut batch = Batch::default();
    let mut ahead = Vec::new();
    for (id, time, is_later) in rows {
        if *is_later {
            if ahead.is_empty() {
                batch.to = Some(*id);
            }
        } else if *time > now {
            ahead.push(*id);
        } else if *time < before {
            batch.to = Some(*id);
            ahead.clear();
        } else {
            // Those in the future before it wait until it is old.
            return batch;
        }
    }
    let may_see_more = rows.len() >= usize::from(STEP) && batch.to.is_some();
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
    fn old_rows_are_taken_up_to_the_first_young_one() {
        assert_eq!(taken(&[]), (None, vec![]));
        assert_eq!(taken(&[1, 2, 99]), (Some(3), vec![]));
        // The last one is older than its number says.
        assert_eq!(taken(&[1, 100, 3]), (Some(1), vec![]));
        assert_eq!(taken(&[150, 3]), (None, vec![]));
    }

    #[test]
    fn future_row_is_as_old_as_the_next() {
        assert_eq!(taken(&[1, 999, 2]), (Some(3), vec![]));
        assert_eq!(taken(&[1, 999, 150, 2]), (Some(1), vec![]));
        assert_eq!(taken(&[999, 999, 150]), (None, vec![]));
    }

    #[test]
    fn future_row_without_a_next_goes_later() {
        assert_eq!(taken(&[1, 999]), (Some(2), vec![2]));
        assert_eq!(taken(&[999]), (Some(1), vec![1]));
        // A next one may be behind the batch, unless the whole batch is in the future.
        let mut full = vec![1; usize::from(STEP) - 1];
        full.push(999);
        let last = i64::from(STEP);
        assert_eq!(taken(&full), (Some(last - 1), vec![]));
        assert_eq!(taken(&vec![999; usize::from(STEP)]).0, Some(last));
    }

    #[test]
    fn rows_that_go_later_are_passed() {
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
