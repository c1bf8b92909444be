//! Connections to the database, each used by one call at a time.
//!
//! sqlx's pool opens them. It is not used for keeping them, because it sends a message to the database, and waits for the
//! response, each time that a connection returns: every call would take two round trips.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::IgnorePoison;

/// Idle time after which a connection is pinged before it is used.
const TRUSTED: Duration = Duration::from_secs(1);
/// Idle time after which a connection is closed.
const MAX_IDLE: Duration = Duration::from_mins(10);
/// Age at which a connection is closed instead of being kept: the server process of an old connection keeps caches of its statements.
const MAX_AGE: Duration = Duration::from_mins(30);

/// Up to a number of connections.
pub(super) struct Connections {
    pool: PgPool,
    /// Time limit of [`take`](Self::take).
    timeout: Duration,
    /// One for each connection in use.
    permits: Arc<Semaphore>,
    idle: Arc<IdleConnections>,
}

/// Connections that no call uses, in the order in which they were given back.
#[derive(Default)]
struct IdleConnections(Mutex<Vec<IdleConnection>>);

struct IdleConnection {
    db: PgConnection,
    opened: Instant,
    since: Instant,
}

impl Connections {
    /// Creates an empty set for up to `connections` connections, which `pool` opens when they are needed.
    pub(super) fn new(pool: PgPool, connections: usize, timeout: Duration) -> Self {
        Self {
            pool,
            timeout,
            permits: Arc::new(Semaphore::new(connections)),
            idle: Arc::default(),
        }
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] after the timeout, or the error of a new connection.
    pub(super) async fn take(&self) -> Result<CallConnection, sqlx::Error> {
        let taken = tokio::time::timeout(self.timeout, self.take_in_turn());
        taken.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn take_in_turn(&self) -> Result<CallConnection, sqlx::Error> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let (db, opened) = self.idle_or_new().await?;
        Ok(CallConnection {
            db: Some(db),
            opened,
            idle: self.idle.clone(),
            _permit: permit,
        })
    }

    async fn idle_or_new(&self) -> Result<(PgConnection, Instant), sqlx::Error> {
        // The last one first: it is the least likely to need a ping.
        while let Some(mut idle) = self.idle.pop() {
            // The database or a proxy may have closed an idle connection. A failed ping discards it.
            if idle.since.elapsed() < TRUSTED || idle.db.ping().await.is_ok() {
                return Ok((idle.db, idle.opened));
            }
        }
        // Detached, so that the pool neither counts nor keeps it. `permits` limits the number: a connection is opened only if
        // none is idle.
        Ok((self.pool.acquire().await?.detach(), Instant::now()))
    }

    /// Closes all idle connections.
    pub(super) fn close_idle(&self) {
        self.idle.lock().clear();
    }
}

impl IdleConnections {
    fn pop(&self) -> Option<IdleConnection> {
        self.lock().pop()
    }

    fn push(&self, db: PgConnection, opened: Instant) {
        let since = Instant::now();
        let mut idle = self.lock();
        if since.duration_since(opened) < MAX_AGE {
            idle.push(IdleConnection { db, opened, since });
        }
        // The first one has been idle for longest.
        if idle
            .first()
            .is_some_and(|first| first.since.elapsed() > MAX_IDLE)
        {
            idle.remove(0);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<IdleConnection>> {
        // A poisoned lock is usable: the list is whole at every moment.
        self.0.lock().ignore_poison()
    }
}

/// Connection of one call. It is closed on drop, unless it was given back.
// A call can be cut off between two statements, by its timeout or because its future was dropped. Closing the
// connection ends its transaction and releases its locks.
pub(super) struct CallConnection {
    /// `None` once it was given back.
    db: Option<PgConnection>,
    opened: Instant,
    idle: Arc<IdleConnections>,
    // Last, since fields are dropped in this order: the connection is closed before another one may be opened.
    _permit: OwnedSemaphorePermit,
}

impl CallConnection {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        match &mut self.db {
            Some(db) => db,
            None => unreachable!("it is given back by value"),
        }
    }

    /// Keeps the connection for another call. It must be in no transaction.
    pub(super) fn give_back(mut self) {
        // Before the permit is dropped, so that the call that waits for it finds this connection.
        if let Some(db) = self.db.take() {
            self.idle.push(db, self.opened);
        }
    }
}
