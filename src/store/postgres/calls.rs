//! How the database is asked: within a time, on a connection that is known to be good, and not at all while it is away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres};

use super::error::{Trouble, store_error};
use crate::store::{StoreError, StoreErrorKind};

/// Begins a transaction. Every statement in it sees what was committed before it began.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// How often a transaction is begun anew because others were in its way.
const TRIES: usize = 8;
/// How long nobody is sent to a database that has just failed.
const PAUSE: Duration = Duration::from_secs(2);

/// A piece of work on a connection.
pub(super) type Work<'c, T> = BoxFuture<'c, Result<T, Trouble>>;

/// The pool, and what is known about the way to the database.
pub(super) struct Calls {
    pub(super) pool: PgPool,
    /// How long a call may take.
    pub(super) patience: Duration,
    breaker: Breaker,
}

impl Calls {
    pub(super) fn new(pool: PgPool, patience: Duration) -> Self {
        Self {
            pool,
            patience,
            breaker: Breaker::default(),
        }
    }

    /// The database has answered somebody else's call.
    pub(super) fn answered(&self) {
        self.breaker.answered();
    }

    /// Runs `work`, within a transaction if there is something to begin it with; from the beginning if others are in its
    /// way. What it has done counts only if all of it went well.
    pub(super) async fn run<T, F>(
        &self,
        begin: Option<Arc<str>>,
        patience: Duration,
        work: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync,
        T: Send,
    {
        if !self.breaker.lets_through() {
            return Err(StoreError::with_source(
                StoreErrorKind::Unavailable,
                "it did not answer a moment ago",
            ));
        }
        let started = Instant::now();
        let mut db = match Held::take(&self.pool).await {
            Ok(db) => db,
            Err(error) => return Err(self.no_connection(&error)),
        };
        let left = patience.saturating_sub(started.elapsed());
        let tried = tries(db.connection(), begin.as_ref(), &work);
        match tokio::time::timeout(left, tried).await {
            Ok(Ok(value)) => {
                self.breaker.answered();
                db.give_back();
                Ok(value)
            }
            Ok(Err(trouble)) if trouble.is_lost_connection() => {
                drop(db);
                self.lost();
                Err(trouble.into())
            }
            Ok(Err(trouble)) => {
                self.breaker.answered();
                db.give_back();
                Err(trouble.into())
            }
            Err(_) => {
                drop(db);
                self.lost();
                Err(StoreError::with_source(
                    StoreErrorKind::Unavailable,
                    "it did not answer in time",
                ))
            }
        }
    }

    fn no_connection(&self, error: &sqlx::Error) -> StoreError {
        if matches!(error, sqlx::Error::PoolTimedOut) && self.breaker.has_answered_lately() {
            // It answers others: there are too many of us.
            return StoreError::with_source(StoreErrorKind::Busy, "all its connections are in use");
        }
        self.lost();
        store_error(error)
    }

    /// One connection was lost: the others that lie idle are not to be trusted either.
    fn lost(&self) {
        self.breaker.failed();
        while let Some(idle) = self.pool.try_acquire() {
            drop(idle.detach());
        }
    }
}

async fn tries<T, F>(
    db: &mut PgConnection,
    begin: Option<&Arc<str>>,
    work: &F,
) -> Result<T, Trouble>
where
    F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync,
{
    for _ in 1..TRIES {
        match once(db, begin, work).await {
            Err(Trouble::Again) => {}
            other => return other,
        }
    }
    once(db, begin, work).await
}

async fn once<T, F>(db: &mut PgConnection, begin: Option<&Arc<str>>, work: &F) -> Result<T, Trouble>
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
        Err(trouble) => {
            if !trouble.is_lost_connection() {
                transaction.rollback().await?;
            }
            Err(trouble)
        }
    }
}

/// A connection in use. Unless it is given back it is closed: a call that was cut off in the middle, because its time was
/// up or nobody waits for it any more, leaves nothing behind, and no place of the pool waits for its end.
pub(super) struct Held(Option<PoolConnection<Postgres>>);

impl Held {
    pub(super) async fn take(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        match &mut self.0 {
            Some(db) => db,
            None => unreachable!("it is given back by value"),
        }
    }

    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(db) = self.0.take() {
            drop(db.detach());
        }
    }
}

/// Keeps calls from a database that is away: after a failure they fail at once, and every two seconds one may try.
#[derive(Default)]
struct Breaker(Mutex<Health>);

#[derive(Default)]
struct Health {
    /// Nobody is let through before this.
    closed_until: Option<Instant>,
    answered: Option<Instant>,
}

impl Breaker {
    fn lets_through(&self) -> bool {
        let now = Instant::now();
        let mut health = self.lock();
        match health.closed_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                // This one tries; the next one does if it never comes back.
                health.closed_until = Some(now + PAUSE);
                true
            }
        }
    }

    fn answered(&self) {
        let mut health = self.lock();
        health.closed_until = None;
        health.answered = Some(Instant::now());
    }

    fn has_answered_lately(&self) -> bool {
        let answered = self.lock().answered;
        answered.is_some_and(|at| at.elapsed() < super::ACQUIRE)
    }

    fn failed(&self) {
        self.lock().closed_until = Some(Instant::now() + PAUSE);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
