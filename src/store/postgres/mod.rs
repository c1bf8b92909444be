//! Store in PostgreSQL, shared by any number of equal servers.
//!
//! A message is stored once, because its SID and account are unique, however many servers receive it concurrently.
//! Transactions run at READ COMMITTED. Rows that must not change are locked, always in this order: conversation,
//! inbound message, outbound messages. A transaction that claims an inbound message first locks its conversation, so
//! two messages of one conversation are never handled concurrently.
//!
//! Claims are leased. The row of a process in `owner` is valid for 15 seconds of the database's time and is renewed
//! every five. Claims of a process that was paused for longer may be taken over. What its handlers write later changes
//! nothing, since each write compares owner, attempt and state. The heartbeat that renews the lease also looks for
//! other servers.
//!
//! Every call has a timeout. After a failed call, further calls fail immediately for two seconds, so that Twilio gets
//! its 503 in time. When the database is back, nothing needs a restart.

/// SQL condition: the process with this id has a valid lease.
// `statement_timestamp()`, since `now()` is the start of the transaction, which may be before a long wait for a lock.
macro_rules! has_valid_lease {
    ($owner:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM owner o WHERE o.id = ",
            $owner,
            " AND o.alive_until > statement_timestamp())"
        )
    };
}

/// SQL condition: this process or another live one owns the message `i`. `$me` is the parameter with this process's id.
// `coalesce`, since `NOT is_owned!` must be true for a message without an owner, and `NULL = $me` is NULL.
macro_rules! is_owned {
    ($me:literal) => {
        concat!(
            "(coalesce(i.owner = ",
            $me,
            ", false) OR ",
            has_valid_lease!("i.owner"),
            ")"
        )
    };
}

/// SQL condition: another open message of the conversation of `i`, older or handled by a live process, comes first.
// Open: below 3, ANSWERED. A newer message can be in PROCESSING or DEFERRED (1, 2): `i` failed, the newer one was
// claimed, then `i` was delivered again or retried.
macro_rules! is_blocked {
    ($me:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = i.conversation AND p.state < 3 AND p.id <> i.id \
             AND (p.id < i.id OR (p.state IN (1, 2) AND (p.owner = ",
            $me,
            " OR ",
            has_valid_lease!("p.owner"),
            "))))"
        )
    };
}

/// SQL that changes the dialogue state of the conversation in `completed`. `DialogueParams::bind` binds its parameters
/// 4 to 7.
// Reads from `completed`, which has no row if the claim was lost: the state changes only together with the reply. ON
// CONFLICT: a conversation has at most one dialogue, and the newest change replaces it.
macro_rules! change_dialogue {
    () => {
        "dialogue_deleted AS (DELETE FROM dialogue d USING completed WHERE d.conversation = completed.conversation AND $5), \
         dialogue_saved AS (INSERT INTO dialogue (conversation, data, expires_at, changed_at) \
           SELECT completed.conversation, $4::text, $6::bigint, $7::bigint FROM completed WHERE $4::text IS NOT NULL \
           ON CONFLICT (conversation) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at, \
           changed_at = excluded.changed_at)"
    };
}

/// SQL that begins or extends the handoff of the conversation in `completed`.
///
/// `$url` is NULL unless the handoff begins. `$until` is its end, or NULL if the handoff does not change.
// A handoff that begins replaces an earlier one. An extension is an UPDATE, not an upsert: an operator may have ended
// the handoff since the message was claimed.
macro_rules! change_handoff {
    ($url:literal, $until:literal) => {
        concat!(
            "handoff_saved AS (INSERT INTO handoff (conversation, url, until) \
               SELECT completed.conversation, ", $url, "::text, ", $until, "::bigint FROM completed WHERE ", $url, "::text IS NOT NULL \
               ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until), \
             handoff_extended AS (UPDATE handoff h SET until = ", $until, "::bigint FROM completed \
               WHERE h.conversation = completed.conversation AND ", $url, "::text IS NULL AND ", $until, "::bigint IS NOT NULL)"
        )
    };
}

/// SQL that completes the queued messages that were debounced into the message in `completed`.
///
/// Parameter 8 has their ids, 9 the reason; 2 and 7 are the owner and the time.
// A message whose request waits for its turn (0, RECEIVED) becomes ANSWERED (3), with the empty response. A deferred
// one (2) has its response already and becomes DONE (4). One that a process has claimed in the meantime gets a reply of
// its own.
macro_rules! merge_queued {
    () => {
        concat!(
            "merged AS (UPDATE inbound i SET state = CASE WHEN i.state = 0 THEN 3 ELSE 4 END, owner = NULL, reason = $9, \
               claimed_at = $7 FROM completed WHERE i.id = ANY ($8::bigint[]) AND i.conversation = completed.conversation \
               AND (i.state = 0 OR (i.state = 2 AND NOT ",
            is_owned!("$2"),
            ")))"
        )
    };
}

mod accept;
mod backlog;
mod calls;
mod check;
mod conversations;
mod error;
mod handoff;
mod journal;
mod lease;
mod media;
mod operator;
mod outbox;
mod retention;
mod schema;
mod status_events;
mod submission;
mod text;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use self::calls::{Calls, Work};
use self::error::store_error;
use self::lease::Heartbeat;
use super::{Access, LinkSigningKey, Store, StoreError, StoreErrorKind, StoreFuture};
use crate::store::owner;
use replyhook_core::Secret;

/// Timeout of a call by an operator's command.
const OPERATOR_TIMEOUT: Duration = Duration::from_mins(1);
/// Timeout of maintenance transactions and of storing a file: both write more rows than a message does.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Minimum timeout for acquiring a connection from the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle time after which a connection is pinged before it is used.
const TRUSTED: Duration = Duration::from_secs(1);
/// Minimum size of the pool.
const CONNECTIONS: usize = 16;
/// Size of the second pool, for files behind links: downloads must not use up the connections that accept messages.
const MEDIA_CONNECTIONS: usize = 3;
/// Timeout of one step of serving a file. No message waits for it, and a chunk is up to 256 KiB.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(5);

/// Store in a PostgreSQL database.
///
/// ```no_run
/// use replyhook::store::postgres::PostgresStore;
/// use replyhook::{App, Secret};
///
/// # fn build() -> Result<App, replyhook::AppError> {
/// let url = Secret::new("postgres://bot:s3cret@db.internal/replyhook");
/// let app = App::builder().store(PostgresStore::new(url)).build()?;
/// # Ok(app) }
/// ```
pub struct PostgresStore {
    url: Secret,
    // Random for each start, so that claims of an earlier process on the same machine are not taken for this one's.
    owner: i64,
    /// SQL that begins a transaction that may claim.
    claiming: Arc<str>,
    /// Timeout of a server's calls.
    operation_timeout: Duration,
    /// True if the last heartbeat found other servers.
    has_peers: Arc<AtomicBool>,
    open: OnceLock<OpenPostgres>,
}

struct OpenPostgres {
    calls: Arc<Calls>,
    // With its own circuit breaker: a link that cannot be read must not reject the calls for messages.
    media_calls: Calls,
    heartbeat: Option<Heartbeat>,
    link_signing_key: LinkSigningKey,
}

impl PostgresStore {
    /// Creates a store for the database at `postgres://USER:PASSWORD@HOST/NAME`. It connects when it is opened.
    pub fn new(url: Secret) -> Self {
        let owner = owner::new_owner();
        Self {
            url,
            owner,
            claiming: lease::begin_claiming(owner).into(),
            operation_timeout: super::OPERATION_TIMEOUT,
            has_peers: Arc::default(),
            open: OnceLock::new(),
        }
    }

    /// Sets the timeout of a server's calls. For tests on busy machines, where a slow call is not an outage.
    #[doc(hidden)]
    #[must_use]
    pub fn with_operation_timeout(mut self, operation_timeout: Duration) -> Self {
        self.operation_timeout = operation_timeout;
        self
    }

    fn opened(&self) -> Result<&OpenPostgres, StoreError> {
        self.open
            .get()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotOpen))
    }

    /// Runs `work` with the usual timeout, in a transaction if `begin` is given.
    fn call<T, F>(&self, begin: Option<Arc<str>>, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        Box::pin(async move {
            let calls = &self.opened()?.calls;
            calls.run(begin, calls.operation_timeout, work).await
        })
    }

    /// Runs statements without a transaction: each commits by itself.
    fn run<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(None, work)
    }

    /// Runs statements for files behind links, on the second pool.
    fn run_media<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        Box::pin(async move {
            let calls = &self.opened()?.media_calls;
            calls.run(None, calls.operation_timeout, work).await
        })
    }

    /// Creates a pool of up to `connections` connections, each of which is opened when it is needed.
    fn pool(&self, options: PgConnectOptions, connections: usize) -> PgPool {
        PgPoolOptions::new()
            .max_connections(u32::try_from(connections).unwrap_or(u32::MAX))
            // `Calls::run` counts this wait as part of the call's timeout.
            .acquire_timeout(ACQUIRE_TIMEOUT.max(self.operation_timeout / 2))
            // A ping before each use would double the round trips of a call with one statement.
            .test_before_acquire(false)
            .before_acquire(|db, known| {
                Box::pin(async move {
                    // The database or a proxy may have closed an idle connection. A failed ping discards it.
                    if known.idle_for >= TRUSTED {
                        db.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|db, _| Box::pin(schema::prepare(db)))
            .connect_lazy_with(options)
    }

    /// Runs `work` in a transaction.
    fn write<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(Some(calls::BEGIN.into()), work)
    }

    /// Runs `work` in a transaction that may claim messages.
    fn run_claiming<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(Some(self.claiming.clone()), work)
    }

    /// Runs `work` in a transaction with the timeout of maintenance.
    fn run_maintenance<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        // `SET LOCAL`, so that the connection has its usual timeout again when the transaction ends.
        let millis = MAINTENANCE_TIMEOUT.as_millis();
        let begin = format!("{}; SET LOCAL statement_timeout = {millis}", calls::BEGIN);
        Box::pin(async move {
            let calls = &self.opened()?.calls;
            let operation_timeout = calls.operation_timeout.max(MAINTENANCE_TIMEOUT);
            calls.run(Some(begin.into()), operation_timeout, work).await
        })
    }
}

impl Store for PostgresStore {
    fn open(&self, access: Access) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let (operation_timeout, statement) = match access {
                // PostgreSQL cancels a slow statement before the call times out here. The call then ends with an error
                // on a usable connection, and not with a closed connection and a statement that continues.
                Access::Owner => (self.operation_timeout, self.operation_timeout * 4 / 5),
                Access::Operator | Access::Migrate => (OPERATOR_TIMEOUT, OPERATOR_TIMEOUT),
            };
            let options = schema::options(&self.url, statement)?;
            let link_signing_key = schema::open(&options, access).await?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let most = (2 * cores + 1).max(CONNECTIONS);
            let calls = Arc::new(Calls::new(self.pool(options, most), operation_timeout));
            let media_timeout = operation_timeout.max(MEDIA_TIMEOUT);
            let media = schema::options(&self.url, media_timeout * 4 / 5)?;
            let media_calls = Calls::new(self.pool(media, MEDIA_CONNECTIONS), media_timeout);
            let heartbeat = match access {
                Access::Owner => {
                    // Take the first lease before anything can be claimed. If that fails, the store does not open.
                    lease::beat(&calls, self.owner, &self.has_peers)
                        .await
                        .map_err(|error| store_error(&error))?;
                    let has_peers = self.has_peers.clone();
                    Some(Heartbeat::start(calls.clone(), self.owner, has_peers))
                }
                // Commands have no heartbeat: each of their transactions that claims takes a lease by itself.
                Access::Operator | Access::Migrate => None,
            };
            let open = OpenPostgres {
                calls,
                media_calls,
                heartbeat,
                link_signing_key,
            };
            self.open
                .set(open)
                .map_err(|_| StoreError::new(StoreErrorKind::Internal))
        })
    }

    fn check(&self) -> StoreFuture<'_, ()> {
        let me = self.owner;
        self.write(move |db| Box::pin(check::check(db, me)))
    }

    fn has_peers(&self) -> bool {
        // Relaxed: the flag publishes no other data.
        self.has_peers.load(Ordering::Relaxed)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        let me = self.owner;
        // Stop it first: a heartbeat after the DELETE would insert the lease again.
        if let Some(heartbeat) = self.open.get().and_then(|open| open.heartbeat.as_ref()) {
            heartbeat.stop();
        }
        self.write(move |db| {
            Box::pin(async move {
                // Inbound before outbound, which is the lock order of this module.
                journal::release_claims(db, me).await?;
                outbox::mark_calls_unknown(db, me).await?;
                sqlx::query("DELETE FROM owner WHERE id = $1")
                    .bind(me)
                    .execute(db)
                    .await?;
                Ok(())
            })
        })
    }

    fn operation_timeout(&self) -> Duration {
        self.operation_timeout
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
