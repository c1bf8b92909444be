//! [`Operator::expire`](crate::store::operator::Operator::expire) in SQLite, where IDs of deleted messages are used again.

use rusqlite::Connection;

use super::database::ready;
use crate::store::error::StoreError;
use crate::store::expiry::MESSAGE_MARKS;
use crate::store::operator::{ExpiryReport, Retention};
use crate::store::shared::retention;

/// Runs one step of retention.
pub(super) fn expire(
    mut db: &Connection,
    retention: &Retention,
) -> Result<ExpiryReport, StoreError> {
    // Messages may have been deleted in another way since the last step.
    lower_marks(db)?;
    let expired = ready(retention::expire(&mut db, retention))?;
    lower_marks(db)?;
    Ok(expired)
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

#[cfg(test)]
mod tests {
    use super::super::schema::DatabaseFile;
    use crate::store::Access;
    use crate::store::shared::retention::STATEMENTS;

    // With a scan, a step would take longer the more messages are stored.
    #[test]
    fn retention_statements_avoid_table_scans() {
        let database = DatabaseFile {
            path: None,
            wait_for_lock: crate::store::sqlite::busy_handler::wait::<0>,
        };
        let db = database.open(Access::Owner).unwrap();
        for sql in STATEMENTS {
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
