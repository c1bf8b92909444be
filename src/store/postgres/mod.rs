//! The store in PostgreSQL: several machines share it, each of them equal.
//!
//! A message is kept once because its SID and account are unique, whatever number of machines takes it at the same time.
//! Everything runs at READ COMMITTED; what must not change while it is looked at is locked, always in this order: the
//! conversation, the message, what goes out. Whoever puts a message into somebody's hands locks its conversation first,
//! so that two of one conversation never are in hands at once.
//!
//! What a process claims is leased: its row in `owner` lives for 15 s of the database's time and is renewed every five. A
//! process that was paused for longer finds its claims taken, and what it writes then is fenced by owner, attempt and
//! state. With that it says, in `meta`, that it has entered whatever it told while the database was away.
//!
//! Every call ends within a time, and a database that is away is not asked again for two seconds, so that Twilio gets its
//! answer in time. When the database returns nothing needs to be restarted.

/// Whether a process lives, as SQL.
macro_rules! lives {
    ($owner:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM owner o WHERE o.id = ",
            $owner,
            " AND o.alive_until > statement_timestamp())"
        )
    };
}

/// Whether the message `i` is in somebody's hands, this process's or another's that lives, as SQL. `$me` is its parameter.
macro_rules! held {
    ($me:literal) => {
        concat!(
            "(coalesce(i.owner = ",
            $me,
            ", false) OR ",
            lives!("i.owner"),
            ")"
        )
    };
}

/// Anything else open in the conversation of message `i` that comes before it: what is older, and what is in living
/// hands. As SQL.
macro_rules! blocked {
    ($me:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = i.conversation AND p.state < 3 AND p.id <> i.id \
             AND (p.id < i.id OR (p.state IN (1, 2) AND (p.owner = ",
            $me,
            " OR ",
            lives!("p.owner"),
            "))))"
        )
    };
}

/// Changes the dialogue of the conversation that `ended` names, as SQL: parameters 4 to 7 are those of `Change::bind`.
macro_rules! change_dialogue {
    () => {
        "forgotten AS (DELETE FROM dialogue d USING ended WHERE d.conversation = ended.conversation AND $5), \
         kept AS (INSERT INTO dialogue (conversation, data, expires_at, changed_at) \
           SELECT ended.conversation, $4::text, $6::bigint, $7::bigint FROM ended WHERE $4::text IS NOT NULL \
           ON CONFLICT (conversation) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at, \
           changed_at = excluded.changed_at)"
    };
}

/// Changes the hand-over of the conversation that `ended` names, as SQL: parameters are the URL, if it begins, and until when
/// it lasts.
macro_rules! hand_over {
    ($url:literal, $until:literal) => {
        concat!(
            "handed AS (INSERT INTO handover (conversation, url, until) \
               SELECT ended.conversation, ", $url, "::text, ", $until, "::bigint FROM ended WHERE ", $url, "::text IS NOT NULL \
               ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until), \
             lasting AS (UPDATE handover h SET until = ", $until, "::bigint FROM ended \
               WHERE h.conversation = ended.conversation AND ", $url, "::text IS NULL AND ", $until, "::bigint IS NOT NULL)"
        )
    };
}

/// Answers with the message that `ended` names those of its conversation that waited behind it and were merged into it, as
/// SQL: parameter 8 is their numbers, 9 says why; 2 and 7 are the owner and the time.
macro_rules! merge {
    () => {
        concat!(
            "merged AS (UPDATE inbound i SET state = CASE WHEN i.state = 0 THEN 3 ELSE 4 END, owner = NULL, reason = $9, \
               claimed_at = $7 FROM ended WHERE i.id = ANY ($8::bigint[]) AND i.conversation = ended.conversation \
               AND (i.state = 0 OR (i.state = 2 AND NOT ",
            held!("$2"),
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
mod handover;
mod journal;
mod lease;
mod media;
mod news;
mod operator;
mod outbox;
mod retention;
mod schema;
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
use super::{Access, LinkSigningKey, Outcome, Store, StoreError, StoreErrorKind};
use crate::secret::Secret;
use crate::store::rows;

/// How long a command waits.
const OPERATOR_PATIENCE: Duration = Duration::from_mins(1);
/// How long what runs in the background may take, without anybody waiting for it.
const UPKEEP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection is waited for.
const ACQUIRE: Duration = Duration::from_secs(1);
/// After this long unused a connection is tried before it is relied upon.
const TRUSTED: Duration = Duration::from_secs(1);
/// Connections at least.
const CONNECTIONS: usize = 16;
/// Further connections, for files behind links: they are not among those that accept messages.
const MEDIA_CONNECTIONS: usize = 3;
/// How long one step of a file may take: no message waits for it, and a piece of it is large.
const MEDIA_PATIENCE: Duration = Duration::from_secs(5);

/// The store in a PostgreSQL database.
///
/// ```no_run
/// use replyhook::store::postgres::PostgresStore;
/// use replyhook::{App, Secret};
///
/// # fn build() -> Result<App, replyhook::StartError> {
/// let url = Secret::new("postgres://bot:s3cret@db.internal/replyhook");
/// let app = App::builder().store(PostgresStore::new(url)).build()?;
/// # Ok(app) }
/// ```
pub struct PostgresStore {
    url: Secret,
    owner: i64,
    claiming: Arc<str>,
    /// How long a server waits for an answer.
    patience: Duration,
    /// Something was told that is not entered.
    owes: Arc<AtomicBool>,
    open: OnceLock<Open>,
}

struct Open {
    calls: Arc<Calls>,
    /// With a circuit breaker of their own: a link that cannot be read says nothing about messages.
    media_calls: Calls,
    heartbeat: Option<Heartbeat>,
    link_signing_key: LinkSigningKey,
}

impl PostgresStore {
    /// The store at an address, `postgres://USER:PASSWORD@HOST/NAME`. Nothing is connected before it is opened.
    pub fn new(url: Secret) -> Self {
        let owner = rows::new_owner();
        Self {
            url,
            owner,
            claiming: lease::begin_claiming(owner).into(),
            patience: super::PATIENCE,
            owes: Arc::default(),
            open: OnceLock::new(),
        }
    }

    /// For tests: a machine that is busy is no database that is away.
    #[doc(hidden)]
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn opened(&self) -> Result<&Open, StoreError> {
        self.open
            .get()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotOpen))
    }

    fn call<T, F>(&self, begin: Option<Arc<str>>, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        Box::pin(async move {
            let calls = &self.opened()?.calls;
            calls.run(begin, calls.patience, work).await
        })
    }

    /// Runs statements that each count by themselves.
    fn ask<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(None, work)
    }

    /// Runs statements for files behind links, on connections that are theirs alone.
    fn ask_media<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        Box::pin(async move {
            let calls = &self.opened()?.media_calls;
            calls.run(None, calls.patience, work).await
        })
    }

    /// Creates a pool of at most so many connections; none is opened before it is needed.
    fn pool(&self, options: PgConnectOptions, connections: usize) -> PgPool {
        PgPoolOptions::new()
            .max_connections(u32::try_from(connections).unwrap_or(u32::MAX))
            .acquire_timeout(ACQUIRE.max(self.patience / 2))
            // A round trip for each call would be half of it.
            .test_before_acquire(false)
            .before_acquire(|db, known| {
                Box::pin(async move {
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
    fn write<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(Some(calls::BEGIN.into()), work)
    }

    /// Runs `work` in a transaction that may claim.
    fn claim<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        self.call(Some(self.claiming.clone()), work)
    }

    /// Runs `work` in a transaction that may take its time.
    fn upkeep<T, F>(&self, work: F) -> Outcome<'_, T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> Work<'c, T> + Send + Sync + 'static,
    {
        let millis = UPKEEP_PATIENCE.as_millis();
        let begin = format!("{}; SET LOCAL statement_timeout = {millis}", calls::BEGIN);
        Box::pin(async move {
            let calls = &self.opened()?.calls;
            let patience = calls.patience.max(UPKEEP_PATIENCE);
            calls.run(Some(begin.into()), patience, work).await
        })
    }
}

impl Store for PostgresStore {
    fn open(&self, access: Access) -> Outcome<'_, ()> {
        Box::pin(async move {
            let (patience, statement) = match access {
                // PostgreSQL gives a statement up before the server does.
                Access::Owner => (self.patience, self.patience * 4 / 5),
                Access::Operator | Access::Migrate => (OPERATOR_PATIENCE, OPERATOR_PATIENCE),
            };
            let options = schema::options(&self.url, statement)?;
            let link_signing_key = schema::open(&options, access).await?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let most = (2 * cores + 1).max(CONNECTIONS);
            let calls = Arc::new(Calls::new(self.pool(options, most), patience));
            let media_patience = patience.max(MEDIA_PATIENCE);
            let media = schema::options(&self.url, media_patience * 4 / 5)?;
            let media_calls = Calls::new(self.pool(media, MEDIA_CONNECTIONS), media_patience);
            let heartbeat = match access {
                Access::Owner => {
                    lease::beat(&calls, self.owner, &self.owes)
                        .await
                        .map_err(|error| store_error(&error))?;
                    let owes = self.owes.clone();
                    Some(Heartbeat::start(calls.clone(), self.owner, owes))
                }
                Access::Operator | Access::Migrate => None,
            };
            let open = Open {
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

    fn check(&self) -> Outcome<'_, ()> {
        let me = self.owner;
        self.write(move |db| Box::pin(check::check(db, me)))
    }

    fn owes(&self, owes: bool) {
        self.owes.store(owes, Ordering::Release);
    }

    fn others_entered(&self, within: Duration) -> Outcome<'_, bool> {
        let me = self.owner;
        let within = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
        self.ask(move |db| Box::pin(lease::others_entered(db, me, within)))
    }

    fn close(&self) -> Outcome<'_, ()> {
        let me = self.owner;
        if let Some(heartbeat) = self.open.get().and_then(|open| open.heartbeat.as_ref()) {
            heartbeat.stop();
        }
        self.write(move |db| {
            Box::pin(async move {
                journal::close(db, me).await?;
                outbox::close(db, me).await?;
                sqlx::query("DELETE FROM owner WHERE id = $1")
                    .bind(me)
                    .execute(db)
                    .await?;
                Ok(())
            })
        })
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
