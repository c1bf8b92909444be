//! How a process says that it lives, so that others leave alone what it has claimed; and that it has entered what it told
//! from memory, so that others need not wait for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::AbortHandle;

use super::calls::{Calls, Held};
use super::error::Trouble;

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
    pub(super) fn start(calls: Arc<Calls>, owner: i64, owes: Arc<AtomicBool>) -> Self {
        let task = async move {
            loop {
                let beaten = tokio::time::timeout(PATIENCE, beat(&calls, owner, &owes)).await;
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

/// Extends the lease, says so where everything told is entered, and forgets processes that are long dead.
pub(super) async fn beat(calls: &Calls, owner: i64, owes: &AtomicBool) -> Result<(), sqlx::Error> {
    let mut db = Held::take(&calls.pool).await?;
    sqlx::raw_sql(AssertSqlSafe(extend(owner, 15)))
        .execute(db.connection())
        .await?;
    // Before the mark: from here on calls come through, and nothing is told from memory.
    calls.answered();
    // Before the look: what is told after it is not what the mark speaks of.
    let now: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            .fetch_one(db.connection())
            .await?;
    if !owes.load(Ordering::Acquire) {
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('entered ' || $1::bigint, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(owner)
        .bind(now)
        .execute(db.connection())
        .await?;
    }
    sqlx::raw_sql(
        "DELETE FROM owner WHERE alive_until < clock_timestamp() - interval '1 d'; \
         DELETE FROM meta m WHERE m.name LIKE 'entered %' AND NOT EXISTS (SELECT 1 FROM owner o WHERE m.name = 'entered ' || o.id)",
    )
    .execute(db.connection())
    .await?;
    db.give_back();
    Ok(())
}

/// Whether every other process has said within so many microseconds that it has entered everything. Those that never say
/// so, as commands do, tell nothing.
pub(super) async fn others_entered(
    db: &mut PgConnection,
    me: i64,
    within: i64,
) -> Result<bool, Trouble> {
    let entered = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM owner o JOIN meta m ON m.name = 'entered ' || o.id WHERE o.id <> $1 \
           AND m.value <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $2)",
    )
    .bind(me)
    .bind(within)
    .fetch_one(db)
    .await?;
    Ok(entered)
}
