//! Opening the database: how it is reached, whether it keeps what it is given, which version made its tables.
//!
//! The tables stand in a PostgreSQL schema of their own, `replyhook`, so that nothing else in the database is in their
//! way, nor they in its.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::error::store_error;
use super::media;
use crate::secret::Secret;
use crate::store::{Access, LinkSigningKey, MIN_READER, SCHEMA, StoreError, StoreErrorKind, rows};

/// All versions of the schema, oldest first; the same numbers as SQLite's.
const MIGRATIONS: [&str; SCHEMA] = [
    include_str!("migrations/0001_journal.sql"),
    include_str!("migrations/0002_previous.sql"),
    include_str!("migrations/0003_sending.sql"),
    include_str!("migrations/0004_media.sql"),
    include_str!("migrations/0005_handover.sql"),
    include_str!("migrations/0006_order.sql"),
    include_str!("migrations/0007_scheduled.sql"),
    include_str!("migrations/0008_reply_order.sql"),
    include_str!("migrations/0009_media_link_key.sql"),
    include_str!("migrations/0010_retention.sql"),
];
/// "rply" and 1: whoever holds this changes the schema.
const LOCK: i64 = 0x7270_6c79_0001;
/// How long the way to the database may take when it is opened.
const CONNECT: Duration = Duration::from_secs(5);

/// How the database is reached. `statement` is how long one statement may take.
pub(super) fn options(url: &Secret, statement: Duration) -> Result<PgConnectOptions, StoreError> {
    let (url, unknown) = without_unknown_parameters(url.expose());
    for name in unknown {
        tracing::warn!(
            name,
            "DATABASE_URL has a parameter that is not known and has no effect"
        );
    }
    let options: PgConnectOptions = url.expose().parse().map_err(|error| store_error(&error))?;
    let millis = |duration: Duration| duration.as_millis().to_string();
    let named = options.get_application_name().is_some();
    let options = if named {
        options
    } else {
        options.application_name("replyhook")
    };
    Ok(options
        .options([
            ("search_path", "replyhook".to_owned()),
            ("statement_timeout", millis(statement)),
            ("lock_timeout", millis(statement / 4 * 3)),
            // What a process held when it was paused in the middle is not in anybody's way for long.
            ("idle_in_transaction_session_timeout", millis(statement * 2)),
            // The server notices by these that we are gone; we notice by our own time that it is.
            ("tcp_keepalives_idle", "10".to_owned()),
            ("tcp_keepalives_interval", "5".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ])
        .disable_statement_logging())
}

/// Names of the parameters that sqlx reads.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// The URL with the parameters that sqlx reads, and the names of the others.
///
/// sqlx logs the others with their values, and one of them may be a misspelt `password`.
fn without_unknown_parameters(url: &str) -> (Secret, Vec<String>) {
    let Some((place, query)) = url.split_once('?') else {
        return (Secret::new(url), Vec::new());
    };
    let mut unknown = Vec::new();
    let mut known = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // A value without a name is not shown.
        let name = pair.split_once('=').map_or("", |(name, _)| name);
        if PARAMETERS.contains(&name) || name.starts_with("options[") {
            known.push(pair);
        } else {
            unknown.push(name.to_owned());
        }
    }
    (Secret::new(format!("{place}?{}", known.join("&"))), unknown)
}

/// Nothing that was acknowledged may be lost: a commit is on the server's disk before it returns.
pub(super) async fn prepare(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Brings the schema up to date, or looks whether it is, as `access` allows. Returns the key of the database's links.
pub(super) async fn open(
    options: &PgConnectOptions,
    access: Access,
) -> Result<LinkSigningKey, StoreError> {
    let connected = tokio::time::timeout(CONNECT, options.connect()).await;
    let mut db = connected
        .map_err(|_| {
            StoreError::with_source(StoreErrorKind::Unavailable, "it did not answer in time")
        })?
        .map_err(|error| store_error(&error))?;
    keeps_everything(&mut db).await?;
    match access {
        Access::Owner | Access::Migrate => migrate(&mut db).await?,
        Access::Operator => current(&mut db).await?,
    }
    let link_signing_key = media::link_signing_key(&mut db).await?;
    // It has done its part; where it cannot say goodbye it is closed all the same.
    let _ = db.close().await;
    Ok(link_signing_key)
}

async fn keeps_everything(db: &mut PgConnection) -> Result<(), StoreError> {
    let (encoding, fsync): (String, String) =
        sqlx::query_as("SELECT current_setting('server_encoding'), current_setting('fsync')")
            .fetch_one(db)
            .await
            .map_err(|error| store_error(&error))?;
    if encoding != "UTF8" {
        return Err(StoreError::with_source(
            StoreErrorKind::Internal,
            format!(
                "the database's encoding is {encoding}, which does not hold every character: create one with ENCODING 'UTF8'"
            ),
        ));
    }
    if fsync != "on" {
        tracing::warn!(
            "PostgreSQL runs with fsync = {fsync}: what was acknowledged is lost when its machine fails"
        );
    }
    Ok(())
}

/// The number of the schema, if this program may work on it. A newer one may be among those.
async fn version(db: &mut PgConnection) -> Result<usize, StoreError> {
    let internal = |error| store_error(&error);
    // Not by `to_regclass`: that may remember, from before a lock was waited for, that there is none.
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'replyhook' AND c.relname = 'replyhook_schema')",
    )
    .fetch_one(&mut *db)
    .await
    .map_err(internal)?;
    if !exists {
        return Ok(0);
    }
    let version: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM replyhook.replyhook_schema")
            .fetch_one(&mut *db)
            .await
            .map_err(internal)?;
    let version = usize::try_from(version.unwrap_or(0)).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        let min_reader = sqlx::query_scalar("SELECT value FROM replyhook.meta WHERE name = $1")
            .bind(rows::MIN_READER)
            .fetch_optional(db)
            .await
            .map_err(internal)?;
        rows::readable(version, MIGRATIONS.len(), min_reader)?;
    }
    Ok(version)
}

async fn current(db: &mut PgConnection) -> Result<(), StoreError> {
    let (version, known) = (version(db).await?, MIGRATIONS.len());
    if version >= known {
        return Ok(());
    }
    Err(rows::older_schema(version, known))
}

/// All missing steps in one transaction. Of several machines that start at once one takes them.
async fn migrate(db: &mut PgConnection) -> Result<(), StoreError> {
    if version(db).await? >= MIGRATIONS.len() {
        return Ok(());
    }
    let failed = |error| store_error(&error);
    let mut db = db.begin().await.map_err(failed)?;
    // Building an index takes as long as it takes, and so does the machine that was first.
    sqlx::raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        .execute(&mut *db)
        .await
        .map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *db)
        .await
        .map_err(failed)?;
    let from = version(&mut db).await?;
    if from >= MIGRATIONS.len() {
        return Ok(());
    }
    if from == 0 {
        begin_schema(&mut db).await.map_err(failed)?;
    }
    for (sql, number) in MIGRATIONS.iter().zip(1_i64..).skip(from) {
        sqlx::raw_sql(*sql)
            .execute(&mut *db)
            .await
            .map_err(failed)?;
        sqlx::query("INSERT INTO replyhook_schema (version) VALUES ($1)")
            .bind(number)
            .execute(&mut *db)
            .await
            .map_err(failed)?;
        crate::crash_point!("P15");
    }
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(rows::MIN_READER)
    .bind(i64::try_from(MIN_READER).unwrap_or(i64::MAX))
    .execute(&mut *db)
    .await
    .map_err(failed)?;
    db.commit().await.map_err(failed)?;
    tracing::info!(
        from,
        to = MIGRATIONS.len(),
        "the store's schema is up to date"
    );
    Ok(())
}

async fn begin_schema(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Asked first: an administrator may have made it for a user who may not.
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'replyhook')",
    )
    .fetch_one(&mut *db)
    .await?;
    if !exists {
        sqlx::query("CREATE SCHEMA replyhook")
            .execute(&mut *db)
            .await?;
    }
    sqlx::query(
        "CREATE TABLE replyhook_schema (version BIGINT PRIMARY KEY, since TIMESTAMPTZ NOT NULL DEFAULT now())",
    )
    .execute(db)
    .await?;
    Ok(())
}
