//! Leases and heartbeats.
//!
//! While its lease is valid, no other process takes over the claims of a process. The heartbeat renews the lease, and
//! looks for other servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::task::AbortHandle;

use super::calls::{BEGIN, Calls};

/// Interval of heartbeats, a third of the lease.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failed heartbeat.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Timeout of one heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// SQL that extends this process's lease to 15 s, if fewer than `min_seconds` remain.
fn extend_lease(owner: i64, min_seconds: u32) -> String {
    // The database's clock only, so that servers with different clocks agree. `clock_timestamp()` is the time now;
    // `now()` would be the start of the transaction. `owner` is a number, so it needs no parameter. ON CONFLICT: the
    // process renews its own lease, even if it has expired.
    format!(
        "INSERT INTO owner (id, alive_until) SELECT {owner}, clock_timestamp() + interval '15 s' \
         WHERE NOT EXISTS (SELECT 1 FROM owner WHERE id = {owner} AND alive_until > clock_timestamp() + interval '{min_seconds} s') \
         ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until"
    )
}

/// SQL that begins a claiming transaction, after renewing a lease that is about to end.
// Other processes would immediately take over what a process claims under an expired lease, for example after a pause.
// While more than five seconds remain, which is usual, this writes nothing and locks no row.
pub(super) fn begin_claiming(owner: i64) -> String {
    format!("{}; {}", BEGIN, extend_lease(owner, 5))
}

/// Task that renews a lease until this value is dropped.
pub(super) struct Heartbeat(AbortHandle);

impl Heartbeat {
    pub(super) fn start(calls: Arc<Calls>, owner: i64, has_peers: Arc<AtomicBool>) -> Self {
        let task = async move {
            loop {
                let beaten =
                    tokio::time::timeout(HEARTBEAT_TIMEOUT, beat(&calls, owner, &has_peers)).await;
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

/// Renews the lease, deletes processes that died long ago, and records in `has_peers` whether there are other servers.
pub(super) async fn beat(
    calls: &Calls,
    owner: i64,
    has_peers: &AtomicBool,
) -> Result<(), sqlx::Error> {
    // Directly on a connection: a circuit breaker that is open must not stop the heartbeat that can close it.
    let mut db = calls.connections.take().await?;
    sqlx::raw_sql(AssertSqlSafe(extend_lease(owner, 15)))
        .execute(db.connection())
        .await?;
    calls.answered();
    // `has_valid_lease!` treats a missing row like an expired lease, so messages that name such a process can
    // still be taken over.
    sqlx::raw_sql("DELETE FROM owner WHERE alive_until < clock_timestamp() - interval '1 d'")
        .execute(db.connection())
        .await?;
    // Rows with an expired lease count: after an outage, all leases have expired although their servers live. A server
    // that was stopped has deleted its row; one that crashed counts for a day.
    let others: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM owner WHERE id <> $1)")
        .bind(owner)
        .fetch_one(db.connection())
        .await?;
    // Not cleared by a heartbeat that fails: during an outage the last known state counts. Relaxed: the flag publishes
    // no other data.
    has_peers.store(others, Ordering::Relaxed);
    db.give_back();
    Ok(())
}
