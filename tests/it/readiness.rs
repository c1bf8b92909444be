//! Readiness: it shows whether the server can store messages. Without traffic, a periodic check writes what accepting
//! a message writes.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use replyhook::App;
use rusqlite::Connection;

#[cfg(feature = "postgres")]
use crate::support::postgres::TestDatabase;
use crate::support::{TestApp, Wait, Webhook, app, twiml_message};

const STORE_OK: &str = "replyhook_store_up";
/// Promised maximum time, without traffic, until a failure makes the server not ready.
const MAX_TIME_TO_FAIL: Duration = Duration::from_secs(10);
/// Promised maximum time, without traffic, until the server is ready again.
const MAX_TIME_TO_RECOVER: Duration = Duration::from_secs(25);
const RESTART_NEEDED: &str = "not ready until a restart";

/// Database that the test changes while a server uses it.
enum Database {
    Sqlite {
        path: PathBuf,
        _folder: tempfile::TempDir,
    },
    #[cfg(feature = "postgres")]
    Postgres(Box<TestDatabase>),
}

impl Database {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::Sqlite {
            path: folder.path().join("a.db"),
            _folder: folder,
        }
    }

    #[cfg(feature = "postgres")]
    async fn postgres() -> Option<Self> {
        let database = TestDatabase::create().await;
        if database.is_none() {
            crate::support::report_skipped("readiness over PostgreSQL");
        }
        database.map(|database| Self::Postgres(Box::new(database)))
    }

    fn app(&self) -> TestApp {
        let url = match self {
            Self::Sqlite { path, .. } => format!("sqlite:{}", path.display()),
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => database.url().expose().to_owned(),
        };
        TestApp::build(&[("DATABASE_URL", &url)], |app| app)
    }

    async fn run(&self, sql: &'static str) {
        match self {
            Self::Sqlite { path, .. } => connect(path).execute_batch(sql).unwrap(),
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => database.run(sql).await,
        }
    }

    /// Stops the app, and removes the test's database.
    async fn end(self, app: TestApp) {
        app.shut_down().await;
        #[cfg(feature = "postgres")]
        if let Self::Postgres(database) = &self {
            database.remove().await;
        }
    }
}

fn connect(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(20)).unwrap();
    db
}

/// Waits for the gauge without a request to `/readyz`, so that only the server's own check can change it.
async fn wait_for_gauge(app: &TestApp, value: f64, within: Duration) {
    let started = Instant::now();
    app.wait_for(STORE_OK, value).await;
    let elapsed = started.elapsed();
    assert!(elapsed < within, "{STORE_OK} {value} after {elapsed:?}");
}

async fn assert_rejected_and_not_ready(app: &TestApp) {
    let rejected = app.send_without_waiting(Webhook::message(1, "hi")).await;
    assert_eq!(rejected.assert_rejected(503), "store unavailable\n");
    let readiness = app.readiness().await;
    assert_eq!(readiness["ready"], false, "{readiness}");
    assert_eq!(readiness["checks"]["store"]["ok"], false, "{readiness}");
}

async fn check_renamed_table(database: Database) {
    let app = database.app();
    wait_for_gauge(&app, 1.0, MAX_TIME_TO_FAIL).await;
    database.run("ALTER TABLE inbound RENAME TO away").await;
    wait_for_gauge(&app, 0.0, MAX_TIME_TO_FAIL).await;
    assert_rejected_and_not_ready(&app).await;
    database.run("ALTER TABLE away RENAME TO inbound").await;
    wait_for_gauge(&app, 1.0, MAX_TIME_TO_RECOVER).await;
    assert_eq!(app.says(2, "hi").await, twiml_message("hi"));
    database.end(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_table_is_not_ready_until_restored() {
    check_renamed_table(Database::sqlite()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn renamed_postgres_table_is_not_ready_until_restored() {
    if let Some(database) = Database::postgres().await {
        check_renamed_table(database).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_database_is_not_ready_until_released() {
    let database = Database::sqlite();
    let Database::Sqlite { path, .. } = &database else {
        unreachable!()
    };
    let app = database.app();
    wait_for_gauge(&app, 1.0, MAX_TIME_TO_FAIL).await;
    let lock = connect(path);
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    wait_for_gauge(&app, 0.0, MAX_TIME_TO_FAIL).await;
    assert_rejected_and_not_ready(&app).await;
    drop(lock);
    wait_for_gauge(&app, 1.0, MAX_TIME_TO_RECOVER).await;
    assert_eq!(app.says(2, "hi").await, twiml_message("hi"));
    database.end(app).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn locked_postgres_table_is_not_ready_until_released() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let Database::Postgres(server) = &database else {
        unreachable!()
    };
    let app = database.app();
    wait_for_gauge(&app, 1.0, MAX_TIME_TO_FAIL).await;
    let mut other = server.connect().await;
    let lock = "BEGIN; LOCK TABLE replyhook.inbound";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    wait_for_gauge(&app, 0.0, MAX_TIME_TO_FAIL).await;
    assert_rejected_and_not_ready(&app).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    wait_for_gauge(&app, 1.0, MAX_TIME_TO_RECOVER).await;
    assert_eq!(app.says(2, "hi").await, twiml_message("hi"));
    drop(other);
    database.end(app).await;
}

// A trigger raises PostgreSQL's error code for a damaged page. The test cannot damage a real page: only PostgreSQL's
// user can.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn damaged_postgres_page_is_not_ready_until_restart() {
    let Some(database) = Database::postgres().await else {
        return;
    };
    let app = database.app();
    wait_for_gauge(&app, 1.0, MAX_TIME_TO_FAIL).await;
    database
        .run(
            "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'invalid page' USING ERRCODE = 'XX001'; END $$; \
             CREATE TRIGGER damage BEFORE INSERT ON inbound FOR EACH ROW EXECUTE FUNCTION damage()",
        )
        .await;
    wait_for_gauge(&app, 0.0, MAX_TIME_TO_FAIL).await;
    database.run("DROP TRIGGER damage ON inbound").await;
    // Messages are stored again and checks succeed, but the server stays not ready.
    assert_eq!(
        app.send_without_waiting(Webhook::message(1, "hi"))
            .await
            .twiml(),
        twiml_message("hi")
    );
    for _ in 0..4 {
        let readiness = app.readiness().await;
        assert_eq!(readiness["ready"], false, "{readiness}");
    }
    app.shut_down().await;
    let restarted = database.app();
    restarted.wait_until_ready().await;
    database.end(restarted).await;
}

/// Makes the database larger than the limit up to which a start checks every page.
fn grow(path: &Path) {
    connect(path)
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) \
             INSERT INTO inbound (account, sid, conversation, state, attempt, claimed_at, received_at, auth_token, params) \
             SELECT x'00', i, 0, 3, 1, 0, 0, 0, hex(zeroblob(500000)) FROM n",
        )
        .unwrap();
}

/// Overwrites the root page of the message table, and returns its previous content.
fn damage(path: &Path, bytes: &[u8; 4096]) -> [u8; 4096] {
    let root: u32 = connect(path)
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'inbound'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut before = [0; 4096];
    let at = SeekFrom::Start((u64::from(root) - 1) * 4096);
    file.seek(at).unwrap();
    file.read_exact(&mut before).unwrap();
    file.seek(at).unwrap();
    file.write_all(bytes).unwrap();
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_page_is_not_ready_until_restart() {
    let database = Database::sqlite();
    let Database::Sqlite { path, .. } = &database else {
        unreachable!()
    };
    let app = database.app();
    app.wait_until_ready().await;
    app.shut_down().await;
    grow(path);
    let whole = damage(path, &[0xFF; 4096]);
    let app = database.app();
    // Not `wait_for_gauge`: the gauge is also 0 before the store is open.
    let started = Instant::now();
    while !app.readiness().await.to_string().contains(RESTART_NEEDED) {
        assert!(
            started.elapsed() < MAX_TIME_TO_FAIL,
            "{}",
            app.readiness().await
        );
    }
    assert_rejected_and_not_ready(&app).await;
    // Restore the page. The server stays not ready, since it may have used data that it read from the damaged page.
    damage(path, &whole);
    // Another program's commit makes the server read its pages again.
    database
        .run("INSERT INTO meta (name, value) VALUES ('test', 1)")
        .await;
    let accepted = app.send_without_waiting(Webhook::message(2, "hi")).await;
    assert_eq!(accepted.twiml(), twiml_message("hi"));
    for _ in 0..4 {
        let readiness = app.readiness().await;
        assert_eq!(readiness["ready"], false, "{readiness}");
        let reason = readiness["checks"]["store"]["reason"].as_str().unwrap();
        assert!(reason.contains(RESTART_NEEDED), "{reason}");
    }
    app.shut_down().await;
    let restarted = database.app();
    restarted.wait_until_ready().await;
    assert_eq!(restarted.says(3, "hi").await, twiml_message("hi"));
    database.end(restarted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failing_message_leaves_server_ready() {
    let database = Database::sqlite();
    let app = database.app();
    app.wait_until_ready().await;
    database
        .run(
            "CREATE TRIGGER poison BEFORE INSERT ON inbound WHEN NEW.params LIKE '%poison%' \
             BEGIN SELECT RAISE(ABORT, 'poison'); END",
        )
        .await;
    for _ in 0..10 {
        app.send_without_waiting(Webhook::message(1, "poison"))
            .await
            .assert_rejected(503);
        assert_eq!(app.readiness().await["ready"], true);
    }
    assert_eq!(app.says(2, "hi").await, twiml_message("hi"));
    database.end(app).await;
}

// The trigger fails only messages with this text, so the periodic check does not notice it.
#[tokio::test(flavor = "multi_thread")]
async fn failing_messages_despite_successful_check_are_not_ready() {
    let database = Database::sqlite();
    let app = database.app();
    app.wait_until_ready().await;
    database
        .run(
            "CREATE TRIGGER poison BEFORE INSERT ON inbound WHEN NEW.params LIKE '%poison%' \
             BEGIN SELECT RAISE(ABORT, 'poison'); END",
        )
        .await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut number = 10;
    // Repeat: the periodic check may succeed between the third rejection and the readiness query.
    while app.readiness().await["ready"] == true {
        assert!(Instant::now() < deadline, "ready after {number} rejections");
        for _ in 0..3 {
            number += 1;
            app.send_without_waiting(Webhook::message(number, "poison"))
                .await
                .assert_rejected(503);
        }
    }
    database.run("DROP TRIGGER poison").await;
    app.wait_until_ready().await;
    assert_eq!(app.says(2, "hi").await, twiml_message("hi"));
    database.end(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_worker_is_not_ready() {
    let app = App::builder().sources(app::sources(&[])).build().unwrap();
    let admin = app.admin_router();
    let (router, worker) = app.into_parts();
    let worker = tokio::spawn(worker.run(std::future::pending()));
    let readiness = async || {
        let request = http::Request::get("/readyz")
            .body(axum::body::Body::empty())
            .unwrap();
        app::call_router(&admin, request).await
    };
    let wait = Wait::until("the app is ready");
    while readiness().await.status != 200 {
        wait.pause().await;
    }
    worker.abort();
    assert!(worker.await.unwrap_err().is_cancelled());
    let answer = readiness().await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains(r#""worker":"ended""#),
        "{}",
        answer.body
    );
    let rejected = app::call_router(&router, Webhook::message(1, "hi").request()).await;
    assert!(rejected.assert_rejected(503).contains("has ended"));
}
