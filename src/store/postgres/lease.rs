//! How a process says that it lives, so that others leave alone what it has claimed.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::AbortHandle;

/// How often.
const PERIOD: Duration = Duration::from_secs(5);
/// Between tries while the database is away.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Extends this process's lease to 15 s, if fewer than so many seconds are left.
fn extend(owner: i64, left: u32) -> String {
    format!(
        "INSERT INTO owner (id, alive_until) SELECT {owner}, clock_timestamp() + interval '15 s' \
         WHERE NOT EXISTS (SELECT 1 FROM owner WHERE id = {owner} AND alive_until > clock_timestamp() + interval '{left} s') \
         ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until"
    )
}

/// Begins a transaction that claims. A process that was paused for longer than its lease must not claim under it: others
/// would take at once what it has just claimed. Nobody's row is locked in the usual case.
pub(super) fn begin_claiming(owner: i64) -> String {
    format!("{}; {}", super::calls::BEGIN, extend(owner, 5))
}

/// The task that keeps a lease alive. It ends when this is dropped.
pub(super) struct Heartbeat(AbortHandle);

impl Heartbeat {
    pub(super) fn start(pool: PgPool, owner: i64) -> Self {
        let task = async move {
            loop {
                let beaten = tokio::time::timeout(PATIENCE, beat(&pool, owner)).await;
                let pause = match beaten {
                    Ok(Ok(())) => PERIOD,
                    // Whoever needs the database meanwhile says so louder.
                    Ok(Err(_)) | Err(_) => AGAIN,
                };
                tokio::time::sleep(pause).await;
            }
        };
        Self(tokio::spawn(task).abort_handle())
    }

    pub(super) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Extends the lease, and forgets processes that are long dead.
pub(super) async fn beat(pool: &PgPool, owner: i64) -> Result<(), sqlx::Error> {
    let mut db = super::calls::Held::take(pool).await?;
    sqlx::raw_sql(AssertSqlSafe(extend(owner, 15)))
        .execute(db.connection())
        .await?;
    sqlx::query("DELETE FROM owner WHERE alive_until < clock_timestamp() - interval '1 h'")
        .execute(db.connection())
        .await?;
    db.give_back();
    Ok(())
}
