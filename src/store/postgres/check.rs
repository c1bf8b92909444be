//! [`Store::check`](crate::store::Store::check) in PostgreSQL.

use sqlx::{Connection, PgConnection};

use super::error::Trouble;
use super::{accept, journal};
use crate::store::{Acceptance, Choice, StoreError, StoreErrorKind, check};

/// Accepts and answers a message and takes it back, within a transaction. That is committed: it has a number, and what it
/// wrote before was logged, so that the server syncs it as it does for a message.
///
/// The message's key is always the same for one process, so that what is left of it until a vacuum is in one page of each
/// index, and no two processes wait for each other.
pub(super) async fn check(db: &mut PgConnection, me: i64) -> Result<(), Trouble> {
    let arrival = check::arrival(me)?;
    let mut savepoint = db.begin().await?;
    let id = match accept::accept(&mut savepoint, me, &arrival).await? {
        Acceptance::New(claim) => claim.id,
        _ => return Err(StoreError::new(StoreErrorKind::Internal).into()),
    };
    let choice = Choice::Twiml("checked".to_owned());
    journal::decide(&mut savepoint, me, id, choice, arrival.at).await?;
    savepoint.rollback().await?;
    Ok(())
}
