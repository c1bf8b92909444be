//! [`Operator::expire`](crate::store::operator::Operator::expire) in PostgreSQL: one server at a time.

use sqlx::PgConnection;

use super::error::CallError;
use crate::store::operator::{ExpiryReport, Retention};
use crate::store::shared::retention;

/// Key of the advisory lock under which one server at a time deletes: "rply" and 2.
const EXPIRY: i64 = 0x7270_6c79_0002;

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
    retention::expire(db, &retention).await
}
