//! Calls to the database, with a timeout, a connection pool and a circuit breaker.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::connections::Connections;
use super::error::{CallError, store_error};
use crate::lock::IgnorePoison;
use crate::store::error::{StoreError, StoreErrorKind};

/// SQL that begins a transaction. Each of its statements sees everything committed before that statement began.
// The level is named, since a database can have another default, and the locking of this module relies on it.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// Minimum timeout for acquiring a connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of attempts at a transaction that conflicts with others.
const MAX_ATTEMPTS: usize = 8;
/// Time for which calls fail immediately after a failure of the connection.
const BREAKER_DELAY: Duration = Duration::from_secs(2);

/// Future of the statements of a call.
pub(super) type Work<'c, T> = BoxFuture<'c, Result<T, CallError>>;

/// Connections with a timeout and a circuit breaker.
pub(super) struct Calls {
    pub(super) connections: Connections,
    /// Usual timeout of a call, which includes the wait for a connection.
    pub(super) operation_timeout: Duration,
    breaker: Breaker,
}

impl Calls {
    pub(super) fn new(connections: Connections, operation_timeout: Duration) -> Self {
        Self {
            connections,
            operation_timeout,
            breaker: Breaker::default(),
        }
    }

    /// Closes the circuit breaker after a response of the database to a statement outside of [`run`](Self::run).
    pub(super) fn answered(&self) {
        self.breaker.answered();
    }

    /// Runs `work`, in a transaction if `begin` is given, and again from the beginning if it conflicts with others.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] if the database cannot be reached, does not respond within `operation_timeout`,
    /// or failed less than two seconds ago. [`StoreErrorKind::Busy`] if all connections are in use.
    pub(super) async fn run<T, F>(
        &self,
        begin: Option<Arc<str>>,
        operation_timeout: Duration,
        work: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync,
        T: Send,
    {
        if !self.breaker.admit_call() {
            return Err(StoreError::with_source(
                StoreErrorKind::Unavailable,
                "the database failed less than two seconds ago, so calls are not tried for two seconds",
            ));
        }
        // Real time, not the store's clock: Twilio waits in real time.
        let started = Instant::now();
        let mut db = match self.connections.take().await {
            Ok(db) => db,
            Err(error) => return Err(self.no_connection(&error)),
        };
        let remaining = operation_timeout.saturating_sub(started.elapsed());
        let attempts = run_attempts(db.connection(), begin.as_ref(), &work);
        match tokio::time::timeout(remaining, attempts).await {
            Ok(Ok(value)) => {
                self.breaker.answered();
                db.give_back();
                Ok(value)
            }
            Ok(Err(error)) if error.is_lost_connection() => {
                drop(db);
                self.lost();
                Err(error.into())
            }
            // An error from a database that responds. `run_once` has rolled back, so the connection can be used again.
            Ok(Err(error)) => {
                self.breaker.answered();
                db.give_back();
                Err(error.into())
            }
            // The statement may still run, so this connection must not be kept.
            Err(_) => {
                drop(db);
                self.lost();
                Err(StoreError::with_source(
                    StoreErrorKind::Unavailable,
                    "the database did not respond in time",
                ))
            }
        }
    }

    fn no_connection(&self, error: &sqlx::Error) -> StoreError {
        if matches!(error, sqlx::Error::PoolTimedOut) && self.breaker.has_answered_lately() {
            // The database responds to other calls, so only the connections are in use: the breaker stays closed.
            return StoreError::with_source(
                StoreErrorKind::Busy,
                "all connections to the database are in use",
            );
        }
        self.lost();
        store_error(error)
    }

    /// Opens the circuit breaker and closes all idle connections.
    fn lost(&self) {
        self.breaker.failed();
        // A restart, a failover or a network failure breaks all connections. Each idle one would cost
        // a call its timeout.
        self.connections.close_idle();
    }
}

async fn run_attempts<T, F>(
    db: &mut PgConnection,
    begin: Option<&Arc<str>>,
    work: &F,
) -> Result<T, CallError>
where
    F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync,
{
    // Without a pause: the transaction in the way has committed, or continues because this one was a deadlock's victim.
    // The timeout in `run` bounds all attempts together.
    for _ in 1..MAX_ATTEMPTS {
        match run_once(db, begin, work).await {
            Err(CallError::Conflict) => {}
            other => return other,
        }
    }
    run_once(db, begin, work).await
}

async fn run_once<T, F>(
    db: &mut PgConnection,
    begin: Option<&Arc<str>>,
    work: &F,
) -> Result<T, CallError>
where
    F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync,
{
    let Some(begin) = begin else {
        return work(db).await;
    };
    let mut transaction = db.begin_with(AssertSqlSafe(begin.clone())).await?;
    match work(&mut transaction).await {
        Ok(value) => {
            transaction.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // Without a connection there is nothing to roll back: PostgreSQL aborts the transaction itself.
            if !error.is_lost_connection() {
                transaction.rollback().await?;
            }
            Err(error)
        }
    }
}

/// Circuit breaker. After a failure all calls fail immediately, except one every two seconds.
#[derive(Default)]
struct Breaker(Mutex<BreakerState>);

#[derive(Default)]
struct BreakerState {
    /// Time before which calls are rejected; `None` while the breaker is closed.
    open_until: Option<Instant>,
    /// Time of the last response.
    answered: Option<Instant>,
}

impl Breaker {
    fn admit_call(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        match state.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                // Let this call through as a trial, and reject others until it succeeds. If its future is dropped,
                // which records no outcome, the next trial follows after the same delay.
                state.open_until = Some(now + BREAKER_DELAY);
                true
            }
        }
    }

    fn answered(&self) {
        let mut state = self.lock();
        state.open_until = None;
        state.answered = Some(Instant::now());
    }

    fn has_answered_lately(&self) -> bool {
        let answered = self.lock().answered;
        // Within the time that a call waits for a connection: so the response came while this call waited.
        answered.is_some_and(|at| at.elapsed() < ACQUIRE_TIMEOUT)
    }

    fn failed(&self) {
        self.lock().open_until = Some(Instant::now() + BREAKER_DELAY);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        // A poisoned lock is usable: both fields are valid at every moment.
        self.0.lock().ignore_poison()
    }
}
