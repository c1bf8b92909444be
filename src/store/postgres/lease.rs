//! Leases and heartbeats.
//!
//! While its lease is valid, no other process takes over the claims of a process. The heartbeat renews the lease, and
//! records when the process last had no unflushed replies, so that others need not wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::AbortHandle;

use super::calls::{CallConnection, Calls};
use super::error::Trouble;

/// Interval of heartbeats, a third of the lease.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failed heartbeat.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Timeout of one heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// SQL that extends this process's lease to 15 s, if fewer than `left` seconds remain.
fn extend(owner: i64, left: u32) -> String {
    // The database's clock only, so that servers with different clocks agree. `clock_timestamp()` is the time now;
    // `now()` would be the start of the transaction. `owner` is a number, so it needs no parameter.
    format!(
        "INSERT INTO owner (id, alive_until) SELECT {owner}, clock_timestamp() + interval '15 s' \
         WHERE NOT EXISTS (SELECT 1 FROM owner WHERE id = {owner} AND alive_until > clock_timestamp() + interval '{left} s') \
         ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until"
    )
}

/// SQL that begins a claiming transaction, after renewing a lease that is about to end.
// Other processes would immediately take over what a process claims under an expired lease, for example after a pause.
// While more than five seconds remain, which is usual, this writes nothing and locks no row.
pub(super) fn begin_claiming(owner: i64) -> String {
    format!("{}; {}", super::calls::BEGIN, extend(owner, 5))
}

/// Task that renews a lease until this value is dropped.
pub(super) struct Heartbeat(AbortHandle);

impl Heartbeat {
    pub(super) fn start(calls: Arc<Calls>, owner: i64, has_unflushed: Arc<AtomicBool>) -> Self {
        let task = async move {
            loop {
                let beaten =
                    tokio::time::timeout(HEARTBEAT_TIMEOUT, beat(&calls, owner, &has_unflushed))
                        .await;
                let pause = match beaten {
                    Ok(Ok(())) => HEARTBEAT_INTERVAL,
                    // Not logged: the regular check of the store and the calls for messages report an outage.
                    Ok(Err(_)) | Err(_) => RETRY_DELAY,
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

/// Renews the lease, records that all replies are flushed, if so, and deletes processes that died long ago.
pub(super) async fn beat(
    calls: &Calls,
    owner: i64,
    has_unflushed: &AtomicBool,
) -> Result<(), sqlx::Error> {
    // Directly on the pool: a circuit breaker that is open must not stop the heartbeat that can close it.
    let mut db = CallConnection::take(&calls.pool).await?;
    sqlx::raw_sql(AssertSqlSafe(extend(owner, 15)))
        .execute(db.connection())
        .await?;
    // Close the circuit breaker before the mark is taken: from here on messages reach the store, so fallback calls are
    // not answered from memory.
    calls.answered();
    // Read the time before `has_unflushed`. A reply that is buffered between the two is newer than the mark. In the other order,
    // the mark would claim that this reply is flushed.
    let now: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            .fetch_one(db.connection())
            .await?;
    // Acquire, with the Release in `set_unflushed`: if this reads `false`, the flush that set it is complete.
    if !has_unflushed.load(Ordering::Acquire) {
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('flushed ' || $1::bigint, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(owner)
        .bind(now)
        .execute(db.connection())
        .await?;
    }
    // `lives!` treats a missing row like an expired lease, so messages that name such a process can
    // still be taken over.
    sqlx::raw_sql(
        "DELETE FROM owner WHERE alive_until < clock_timestamp() - interval '1 d'; \
         DELETE FROM meta m WHERE m.name LIKE 'flushed %' AND NOT EXISTS (SELECT 1 FROM owner o WHERE m.name = 'flushed ' || o.id)",
    )
    .execute(db.connection())
    .await?;
    db.give_back();
    Ok(())
}

/// Returns whether all other processes have recorded an empty buffer of replies within the last `within` microseconds.
// The join leaves out processes that never record it: commands have leases but no heartbeat, and buffer no replies.
pub(super) async fn others_entered(
    db: &mut PgConnection,
    me: i64,
    within: i64,
) -> Result<bool, Trouble> {
    let entered = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM owner o JOIN meta m ON m.name = 'flushed ' || o.id WHERE o.id <> $1 \
           AND m.value <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $2)",
    )
    .bind(me)
    .bind(within)
    .fetch_one(db)
    .await?;
    Ok(entered)
}
