//! Connection options, durability checks and migrations.
//!
//! The tables are in a PostgreSQL schema of their own, `replyhook`, so that they do not clash with other
//! tables of the database.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::error::store_error;
use crate::store::access::Access;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::media::LinkSigningKey;
use crate::store::shared::media;
use crate::store::versions::{self, MIN_READER, SCHEMA};
use replyhook_core::Secret;

/// Migrations, oldest first, with the same numbers as SQLite's.
const MIGRATIONS: [&str; SCHEMA] = [include_str!("migrations/0001_initial.sql")];
/// Key of the advisory lock under which the schema is changed: "rply" and 1.
const LOCK: i64 = 0x7270_6c79_0001;
/// Timeout of the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connection options for a URL. `statement` is the timeout of one statement.
pub(super) fn options(url: &Secret, statement: Duration) -> Result<PgConnectOptions, StoreError> {
    let (url, unknown) = without_unknown_parameters(url.expose());
    for name in unknown {
        tracing::warn!(
            name,
            "DATABASE_URL has an unknown parameter, which has no effect"
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
            // Shorter, so that a wait for a lock ends with its own error code.
            ("lock_timeout", millis(statement / 4 * 3)),
            // A process that is paused inside a transaction keeps its locks no longer than this.
            ("idle_in_transaction_session_timeout", millis(statement * 2)),
            // PostgreSQL detects a lost client by keepalives, within about 25 s. The client has the
            // timeout of each call.
            ("tcp_keepalives_idle", "10".to_owned()),
            ("tcp_keepalives_interval", "5".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ])
        // sqlx would log the text of each slow statement. `StoreReport` logs calls that fail or time out.
        .disable_statement_logging())
}

/// Names of the URL parameters that sqlx reads.
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

/// Removes the parameters that sqlx does not read from a URL, and returns their names.
// sqlx logs unknown parameters with their values, and one may be a misspelt `password`.
fn without_unknown_parameters(url: &str) -> (Secret, Vec<String>) {
    let Some((place, query)) = url.split_once('?') else {
        return (Secret::new(url), Vec::new());
    };
    let mut unknown = Vec::new();
    let mut known = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // A pair without `=` may be a bare secret, so its text is not reported as a name.
        let name = pair.split_once('=').map_or("", |(name, _)| name);
        if PARAMETERS.contains(&name) || name.starts_with("options[") {
            known.push(pair);
        } else {
            unknown.push(name.to_owned());
        }
    }
    (Secret::new(format!("{place}?{}", known.join("&"))), unknown)
}

/// Makes commits durable on a new connection.
// An acknowledged message must survive a crash of the database. Only `off` loses commits; `local`, `remote_write` and
// others flush to the disk of the primary, so they stay as the administrator has set them.
pub(super) async fn prepare(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Migrates the schema, or only checks its version for an operator's command. Returns the key of the database's links.
pub(super) async fn open(
    options: &PgConnectOptions,
    access: Access,
) -> Result<LinkSigningKey, StoreError> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
    let mut db = connected
        .map_err(|_| {
            StoreError::with_source(
                StoreErrorKind::Unavailable,
                "the database did not respond in time",
            )
        })?
        .map_err(|error| store_error(&error))?;
    keeps_everything(&mut db).await?;
    match access {
        Access::Owner | Access::Migrate => migrate(&mut db).await?,
        Access::Operator => current(&mut db).await?,
    }
    let link_signing_key = media::link_signing_key(&mut db).await?;
    // An error does not matter: the connection is closed in any case, and everything is committed.
    let _ = db.close().await;
    Ok(link_signing_key)
}

/// Checks the settings of the database that texts and durability depend on.
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
                "the database has the encoding {encoding}, which cannot store every character; create one with ENCODING 'UTF8'"
            ),
        ));
    }
    // Only a warning, since it is a decision of the database's administrator, and a client cannot change it.
    if fsync != "on" {
        tracing::warn!(
            "PostgreSQL runs with fsync = {fsync}; a crash of its machine can lose accepted messages"
        );
    }
    Ok(())
}

/// Version of the schema, or 0 if there is none.
///
/// # Errors
/// [`StoreErrorKind::Schema`] if the schema is newer and its makers have excluded this version, or if it was created by
/// another text of the initial migration.
async fn version(db: &mut PgConnection) -> Result<usize, StoreError> {
    let internal = |error| store_error(&error);
    // Not `to_regclass`: its result may be cached from before this transaction waited for LOCK.
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
    if version > 0 {
        let initial = meta(db, versions::INITIAL_SCHEMA_NAME).await?;
        let remedy = "drop it (DROP SCHEMA replyhook CASCADE)";
        versions::check_initial_schema(MIGRATIONS[0], initial, remedy)?;
    }
    if version > MIGRATIONS.len() {
        versions::check_readable(
            version,
            MIGRATIONS.len(),
            meta(db, versions::MIN_READER_NAME).await?,
        )?;
    }
    Ok(version)
}

/// Value in `meta`, if there is one.
async fn meta(db: &mut PgConnection, name: &str) -> Result<Option<i64>, StoreError> {
    sqlx::query_scalar("SELECT value FROM replyhook.meta WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await
        .map_err(|error| store_error(&error))
}

/// Returns an error if the schema is older than this version needs.
async fn current(db: &mut PgConnection) -> Result<(), StoreError> {
    let (version, known) = (version(db).await?, MIGRATIONS.len());
    if version >= known {
        return Ok(());
    }
    Err(versions::older_schema(version, known))
}

/// Runs all missing migrations in one transaction. Of several servers that start concurrently, one does so.
async fn migrate(db: &mut PgConnection) -> Result<(), StoreError> {
    // Without the lock first: usually there is nothing to do, and a restart must not wait for another server.
    if version(db).await? >= MIGRATIONS.len() {
        return Ok(());
    }
    let failed = |error| store_error(&error);
    let mut db = db.begin().await.map_err(failed)?;
    // Without timeouts: building an index may take long, and so may the server that has the lock.
    sqlx::raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        .execute(&mut *db)
        .await
        .map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *db)
        .await
        .map_err(failed)?;
    // Read again: the server that had the lock before may have migrated the schema.
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
    if from == 0 {
        sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2)")
            .bind(versions::INITIAL_SCHEMA_NAME)
            .bind(versions::fingerprint(MIGRATIONS[0]))
            .execute(&mut *db)
            .await
            .map_err(failed)?;
    }
    // An upsert: the value of the newest program replaces that of an older one.
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(versions::MIN_READER_NAME)
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

/// Creates the PostgreSQL schema and the table of its versions.
async fn begin_schema(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Not `CREATE SCHEMA IF NOT EXISTS`: it fails without the privilege to create schemas, even if the schema exists.
    // An administrator may have created it for this user.
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
