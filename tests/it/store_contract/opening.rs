//! Opening of a store: its schema, damaged and foreign files, and commands alongside a server.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use replyhook::internals::Store;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{Access, StoreError, StoreErrorKind};

use super::{
    Backend, Kind, accept_and_answer, accept_claimed, at, message_row, new_inbound, over_all_stores,
};

over_all_stores!(
    store_before_open_rejects_calls,
    reopened_store_keeps_its_messages,
    commands_work_alongside_running_server,
    threat_57_newer_schema_is_rejected,
    newer_compatible_schema_is_used_unchanged,
    store_without_schema_rejects_commands_until_migrated,
    unreleased_schema_is_rejected_with_remedy,
);

#[test]
fn threat_54_store_timeout_is_below_two_seconds() {
    let mut stores: Vec<Box<dyn Store>> = vec![Box::new(SqliteStore::file("nowhere.db"))];
    #[cfg(feature = "postgres")]
    stores.push(Box::new(replyhook::store::postgres::PostgresStore::new(
        replyhook::Secret::new("postgres://nobody@nowhere.test/db"),
    )));
    for store in stores {
        // This limits the time for which a request waits for the store.
        assert!(store.operation_timeout() < Duration::from_secs(2));
    }
}

async fn open_error(store: &dyn Store, access: Access) -> StoreError {
    store.open(access).await.unwrap_err()
}

async fn store_before_open_rejects_calls(backend: &mut Backend) {
    let store = backend.another();
    let error = store
        .accept(std::sync::Arc::new(new_inbound(1)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotOpen);
    assert_eq!(
        store.check().await.unwrap_err().kind(),
        StoreErrorKind::NotOpen
    );
    assert_eq!(
        store.close().await.unwrap_err().kind(),
        StoreErrorKind::NotOpen
    );
}

async fn reopened_store_keeps_its_messages(backend: &mut Backend) {
    accept_and_answer(backend.store(), new_inbound(1)).await;
    backend.store().close().await.unwrap();
    if backend.crash().await {
        assert_eq!(message_row(backend.store(), 1).await.state, "answered");
        accept_claimed(backend.store(), new_inbound(2)).await;
    }
}

// SQLite rejects a second server under any name of the file, and PostgreSQL allows several.
async fn commands_work_alongside_running_server(backend: &mut Backend) {
    if backend.kind == Kind::Memory {
        return;
    }
    let claim = accept_claimed(backend.store(), new_inbound(1)).await;
    let command = backend.another();
    command.open(Access::Operator).await.unwrap();
    assert_eq!(message_row(&*command, 1).await.state, "processing");
    backend
        .store()
        .record_failure(claim, "it failed", true, at(0))
        .await
        .unwrap();
    assert!(command.retry(super::sid(1), at(3)).await.unwrap());
    assert_eq!(message_row(backend.store(), 1).await.state, "deferred");
    command.close().await.unwrap();
    let server = backend.another();
    let second = server.open(Access::Owner).await;
    if backend.kind == Kind::File {
        let error = second.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Owned);
        assert!(error.to_string().contains("DATABASE_URL"), "{error}");
        // Symbolic links lead to the same file.
        let link = backend.path().with_file_name("link.db");
        let of_link = backend.path().with_file_name("link of link.db");
        std::os::unix::fs::symlink(backend.path().file_name().unwrap(), &link).unwrap();
        std::os::unix::fs::symlink(&link, &of_link).unwrap();
        for name in [link, of_link] {
            let server = SqliteStore::file(name);
            let error = server.open(Access::Owner).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Owned);
        }
    } else {
        // Servers share PostgreSQL.
        second.unwrap();
    }
}

/// Marks the store's schema as newer, and runs `min_reader_sql`, which sets the versions that may open it.
async fn set_newer_schema(backend: &mut Backend, min_reader_sql: &'static str) {
    match backend.kind {
        Kind::Memory => {}
        Kind::File => {
            backend.store = None;
            let db = rusqlite::Connection::open(backend.path()).unwrap();
            db.pragma_update(None, "user_version", 99).unwrap();
            db.execute_batch(min_reader_sql).unwrap();
        }
        #[cfg(feature = "postgres")]
        Kind::Postgres => {
            let database = backend.database();
            database
                .run("INSERT INTO replyhook_schema VALUES (99)")
                .await;
            database.run(min_reader_sql).await;
        }
    }
}

async fn threat_57_newer_schema_is_rejected(backend: &mut Backend) {
    if backend.kind == Kind::Memory {
        return;
    }
    let too_new = "UPDATE meta SET value = 99 WHERE name = 'min_reader'";
    let silent = "DELETE FROM meta WHERE name = 'min_reader'";
    set_newer_schema(backend, too_new).await;
    for access in [Access::Owner, Access::Operator, Access::Migrate] {
        let error = open_error(&*backend.another(), access).await;
        assert_eq!(error.kind(), StoreErrorKind::Schema);
        let text = error.to_string();
        assert!(text.contains("its schema is number 99"), "{text}");
        assert!(text.contains("run the newer replyhook"), "{text}");
    }
    match backend.kind {
        #[cfg(feature = "postgres")]
        Kind::Postgres => backend.database().run(silent).await,
        _ => {
            let db = rusqlite::Connection::open(backend.path()).unwrap();
            db.execute_batch(silent).unwrap();
        }
    }
    let error = open_error(&*backend.another(), Access::Owner).await;
    assert_eq!(error.kind(), StoreErrorKind::Schema);
}

async fn newer_compatible_schema_is_used_unchanged(backend: &mut Backend) {
    if backend.kind == Kind::Memory {
        return;
    }
    // The statement changes nothing: the `min_reader` that this version wrote still allows it.
    set_newer_schema(backend, "SELECT value FROM meta WHERE name = 'min_reader'").await;
    for access in [Access::Migrate, Access::Operator] {
        backend.another().open(access).await.unwrap();
    }
    let store = backend.another();
    store.open(Access::Owner).await.unwrap();
    accept_and_answer(&*store, new_inbound(1)).await;
    assert_eq!(message_row(&*store, 1).await.state, "answered");
    drop(store);
    if backend.kind == Kind::File {
        let db = rusqlite::Connection::open(backend.path()).unwrap();
        let version: i64 = db
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(version, 99);
    }
}

// The server or `replyhook migrate` updates the schema; no other command does.
async fn store_without_schema_rejects_commands_until_migrated(backend: &mut Backend) {
    match backend.kind {
        Kind::Memory => return,
        Kind::File => {
            backend.store = None;
            std::fs::remove_file(backend.path()).unwrap();
            let db = rusqlite::Connection::open(backend.path()).unwrap();
            db.pragma_update(None, "application_id", 0x7270_6c79)
                .unwrap();
        }
        #[cfg(feature = "postgres")]
        Kind::Postgres => {
            backend.store = None;
            backend
                .database()
                .run("DROP SCHEMA replyhook CASCADE")
                .await;
        }
    }
    let error = open_error(&*backend.another(), Access::Operator).await;
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.to_string().contains("`replyhook migrate`"), "{error}");
    backend.another().open(Access::Migrate).await.unwrap();
    backend.another().open(Access::Operator).await.unwrap();
    let store = backend.another();
    store.open(Access::Owner).await.unwrap();
    accept_claimed(&*store, new_inbound(1)).await;
}

// Until the first release the initial schema is edited in place, so another version of it has the same number. Schemas
// from before it became one schema have higher numbers.
async fn unreleased_schema_is_rejected_with_remedy(backend: &mut Backend) {
    const OTHER: &str = "UPDATE meta SET value = 1 WHERE name = 'initial_schema'";
    const NONE: &str = "DELETE FROM meta WHERE name = 'initial_schema'";
    const MIN_READER: &str = "UPDATE meta SET value = 9 WHERE name = 'min_reader'";
    for (change, number) in [(OTHER, 1), (NONE, 1), (MIN_READER, 10)] {
        let remedy = match backend.kind {
            Kind::Memory => return,
            Kind::File => {
                backend.store = None;
                let db = rusqlite::Connection::open(backend.path()).unwrap();
                db.execute_batch(change).unwrap();
                db.pragma_update(None, "user_version", number).unwrap();
                "start with an empty store"
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                backend.store = None;
                let database = backend.database();
                database.run(change).await;
                let newer = "INSERT INTO replyhook_schema (version) VALUES (10)";
                if number == 10 {
                    database.run(newer).await;
                }
                "DROP SCHEMA replyhook CASCADE"
            }
        };
        for access in [Access::Owner, Access::Operator, Access::Migrate] {
            let error = open_error(&*backend.another(), access).await;
            assert_eq!(error.kind(), StoreErrorKind::Schema);
            let text = error.to_string();
            assert!(text.contains(remedy), "{change}: {text}");
            assert!(text.contains("which loses messages"), "{change}: {text}");
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

#[test]
fn threat_57_damaged_file_is_rejected_and_never_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    block_on(async {
        let store = SqliteStore::file(&path);
        store.open(Access::Owner).await.unwrap();
        accept_and_answer(&store, new_inbound(1)).await;
    });
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xaa; 8 * 4096]).unwrap();
    drop(file);
    let damaged = std::fs::read(&path).unwrap();
    for access in [Access::Owner, Access::Operator] {
        let error = block_on(open_error(&SqliteStore::file(&path), access));
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
        let text = error.to_string();
        for part in [
            "restore a backup",
            "store.db-wal and ",
            "store.db-shm",
            "saved responses and opt-outs",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
    std::fs::write(
        &path,
        "this is no database, and it is longer than its header",
    )
    .unwrap();
    let error = block_on(open_error(&SqliteStore::file(&path), Access::Owner));
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
}

#[test]
fn threat_57_file_of_another_program_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE theirs (id INTEGER); INSERT INTO theirs VALUES (1)")
        .unwrap();
    let error = block_on(open_error(&SqliteStore::file(&path), Access::Owner));
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("another program's"), "{error}");
    let rows: i64 = db
        .query_row("SELECT count(*) FROM theirs", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn database_files_are_readable_by_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::file(&path);
    block_on(store.open(Access::Owner)).unwrap();
    for name in ["a.db", "a.db-wal", "a.db-shm"] {
        let mode = folder.path().join(name).metadata().unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
}
