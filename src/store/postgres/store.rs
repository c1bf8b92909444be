//! The PostgreSQL store: its connections, and how it is opened and closed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::calls::{ACQUIRE_TIMEOUT, BEGIN, Calls, Work};
use super::connections::Connections;
use super::error::store_error;
use super::lease::Heartbeat;
use super::{check, claims, lease, outbox, schema};
use crate::store::access::Access;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::future::StoreFuture;
use crate::store::handle::StoreHandle;
use crate::store::media::LinkSigningKey;
use crate::store::owner;
use crate::store::store_trait::{OPERATION_TIMEOUT, Store};
use replyhook_core::Secret;

/// Timeout of a call by an operator's command.
const OPERATOR_TIMEOUT: Duration = Duration::from_mins(1);
/// Timeout of maintenance transactions and of storing a file: both write more rows than a message does.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Minimum of the maximum number of connections.
const CONNECTIONS: usize = 16;
/// Maximum number of connections for files behind links: downloads must not use up the connections that accept messages.
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
    pub(super) owner: i64,
    /// SQL that begins a transaction that may claim.
    claiming: Arc<str>,
    /// Timeout of a server's calls.
    operation_timeout: Duration,
    /// True if the last heartbeat found other servers.
    has_peers: Arc<AtomicBool>,
    /// True if changes are recorded as events.
    pub(super) records_events: AtomicBool,
    open: OnceLock<OpenPostgres>,
}

pub(super) struct OpenPostgres {
    calls: Arc<Calls>,
    // With its own circuit breaker: a link that cannot be read must not reject the calls for messages.
    media_calls: Calls,
    heartbeat: Option<Heartbeat>,
    pub(super) link_signing_key: LinkSigningKey,
}

impl PostgresStore {
    /// Creates a store for the database at `postgres://USER:PASSWORD@HOST/NAME`. It connects when it is opened.
    pub fn new(url: Secret) -> Self {
        let owner = owner::new_owner();
        Self {
            url,
            owner,
            claiming: lease::begin_claiming(owner).into(),
            operation_timeout: OPERATION_TIMEOUT,
            has_peers: Arc::default(),
            records_events: AtomicBool::new(false),
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

    pub(super) fn opened(&self) -> Result<&OpenPostgres, StoreError> {
        self.open
            .get()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotOpen))
    }

    /// Runs `work` with the usual timeout, in a transaction if `begin` is given.
    pub(super) fn call<T, F>(&self, begin: Option<Arc<str>>, work: F) -> StoreFuture<'_, T>
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
    pub(super) fn run<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(None, work)
    }

    /// Runs statements for files behind links, on connections of their own.
    pub(super) fn run_media<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        Box::pin(async move {
            let calls = &self.opened()?.media_calls;
            calls.run(None, calls.operation_timeout, work).await
        })
    }

    /// Creates a set of up to `connections` connections, each of which is opened when it is needed.
    fn connections(&self, options: PgConnectOptions, connections: usize) -> Connections {
        // `Calls::run` counts this wait as part of the call's timeout.
        let timeout = ACQUIRE_TIMEOUT.max(self.operation_timeout / 2);
        let pool = PgPoolOptions::new()
            .max_connections(u32::try_from(connections).unwrap_or(u32::MAX))
            .acquire_timeout(timeout)
            .after_connect(|db, _| Box::pin(schema::prepare(db)))
            .connect_lazy_with(options);
        Connections::new(pool, connections, timeout)
    }

    /// Runs `work` in a transaction.
    pub(super) fn write<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(Some(BEGIN.into()), work)
    }

    /// Runs `work` in a transaction that may claim messages.
    pub(super) fn run_claiming<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(Some(self.claiming.clone()), work)
    }

    /// Runs `work` in a transaction with the timeout of maintenance.
    pub(super) fn run_maintenance<T, F>(&self, work: F) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        // `SET LOCAL`, so that the connection has its usual timeout again when the transaction ends.
        let millis = MAINTENANCE_TIMEOUT.as_millis();
        let begin = format!("{BEGIN}; SET LOCAL statement_timeout = {millis}");
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
            let calls = Arc::new(Calls::new(
                self.connections(options, most),
                operation_timeout,
            ));
            let media_timeout = operation_timeout.max(MEDIA_TIMEOUT);
            let media = schema::options(&self.url, media_timeout * 4 / 5)?;
            let media_calls = Calls::new(self.connections(media, MEDIA_CONNECTIONS), media_timeout);
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
                claims::release_claims(db, me).await?;
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

impl From<PostgresStore> for StoreHandle {
    fn from(store: PostgresStore) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
