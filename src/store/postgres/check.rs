//! [`Store::check`](crate::store::store_trait::Store::check) in PostgreSQL.

use sqlx::{Connection, PgConnection};

use super::error::CallError;
use super::{accept, journal};
use crate::store::check;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::journal::{AcceptOutcome, ReplyPath};

/// Accepts and answers a message within a savepoint, and rolls the savepoint back.
///
/// The surrounding transaction is committed. It has a transaction id and has written to the log, so PostgreSQL syncs
/// the log to disk as it does for a message.
pub(super) async fn check(db: &mut PgConnection, me: i64) -> Result<(), CallError> {
    // One key for each process. The dead rows that remain until a vacuum are then in one page of each index, and two
    // processes do not wait for each other's unique key.
    let inbound = check::new_inbound(me)?;
    let mut savepoint = db.begin().await?;
    let id = match accept::accept(&mut savepoint, me, &inbound, false).await? {
        AcceptOutcome::Claimed(claim) => claim.id,
        // Any other outcome would mean that the message of an earlier check was stored.
        _ => return Err(StoreError::new(StoreErrorKind::Internal).into()),
    };
    let path = ReplyPath::Twiml("checked".to_owned());
    journal::decide(&mut savepoint, me, id, path, inbound.received_at).await?;
    savepoint.rollback().await?;
    Ok(())
}
