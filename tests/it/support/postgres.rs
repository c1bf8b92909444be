//! Test databases on the server of `REPLYHOOK_TEST_POSTGRES`, one per test, and a proxy that can interrupt them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use replyhook::Secret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, watch};

/// URL of the server on which databases can be created.
fn server() -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test asks its script, not a setting"
    )]
    std::env::var("REPLYHOOK_TEST_POSTGRES")
        .ok()
        .filter(|url| !url.is_empty())
}

/// Database of one test, empty at first.
pub struct TestDatabase {
    server: PgConnectOptions,
    name: String,
}

impl TestDatabase {
    /// Creates a database. Returns `None` without a database server.
    pub async fn create() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let url = server()?;
        let server: PgConnectOptions = url.parse().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("replyhook_test_{}_{number}", std::process::id());
        let database = Self { server, name };
        let sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'",
            database.name
        );
        database.administrate(sql).await;
        Some(database)
    }

    pub async fn remove(&self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        self.administrate(sql).await;
    }

    /// Runs SQL about this database in another one.
    pub async fn administrate(&self, sql: String) {
        let mut db = PgConnection::connect_with(&self.server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut db)
            .await
            .unwrap();
        db.close().await.unwrap();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> Secret {
        self.url_at(self.server.get_host(), self.server.get_port())
    }

    pub fn url_at(&self, host: &str, port: u16) -> Secret {
        let url = server().unwrap();
        let (scheme, rest) = url.split_once("://").unwrap();
        let user = rest.split_once('@').map_or("", |(user, _)| user);
        Secret::new(format!("{scheme}://{user}@{host}:{port}/{}", self.name))
    }

    /// Opens a connection that finds the store's tables.
    pub async fn connect(&self) -> PgConnection {
        let options = self.server.clone().database(&self.name);
        let options = options.options([("search_path", "replyhook")]);
        PgConnection::connect_with(&options).await.unwrap()
    }

    /// Runs SQL on a separate connection.
    pub async fn run(&self, sql: &'static str) {
        let mut db = self.connect().await;
        sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    }

    /// Ends every connection to the database, as a restart does.
    pub async fn cut(&self) {
        let name = &self.name;
        self.administrate(format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        ))
        .await;
    }

    /// Returns every row of every table as text.
    pub async fn dump(&self) -> String {
        let mut db = self.connect().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'replyhook'",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        let mut text = String::new();
        for table in tables {
            let sql = format!("SELECT t::text FROM {table} t");
            let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_all(&mut db)
                .await
                .unwrap();
            for row in found {
                text.push_str(&format!("{table} {row}\n"));
            }
        }
        db.close().await.unwrap();
        text
    }
}

/// State of a proxy between a store and its database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyState {
    Open,
    /// Delays each chunk by this number of milliseconds, in both directions.
    Slow(u64),
    /// Accepts connections and bytes, and returns nothing.
    Silent,
    /// Closes existing and new connections.
    Closed,
}

/// Proxy to the database server that a test opens and closes.
pub struct Proxy {
    pub port: u16,
    state: watch::Sender<ProxyState>,
    /// Read-locked by each connection while it forwards bytes.
    passing: Arc<RwLock<()>>,
    /// Number of times that a client has sent something after a response, on any connection.
    round_trips: Arc<AtomicU32>,
}

impl Proxy {
    pub async fn to(database: &TestDatabase) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, receiver) = watch::channel(ProxyState::Open);
        let passing = Arc::new(RwLock::new(()));
        let shared = passing.clone();
        let round_trips = Arc::<AtomicU32>::default();
        let counter = round_trips.clone();
        let server = (
            database.server.get_host().to_owned(),
            database.server.get_port(),
        );
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, receiver, passing) =
                    (server.clone(), receiver.clone(), shared.clone());
                tokio::spawn(forward(client, server, receiver, passing, counter.clone()));
            }
        });
        Self {
            port,
            state,
            passing,
            round_trips,
        }
    }

    /// Returns the number of round trips while the proxy was open, of all connections.
    pub fn round_trips(&self) -> u32 {
        self.round_trips.load(Ordering::SeqCst)
    }

    /// Sets the state, and waits until connections have stopped forwarding bytes that it forbids.
    pub async fn set(&self, state: ProxyState) {
        self.state.send_replace(state);
        if !state.forwards() {
            // Each connection holds the read lock while it forwards, so this waits for all of them.
            let _exclusive = self.passing.write().await;
        }
    }
}

async fn forward(
    mut client: TcpStream,
    server: (String, u16),
    mut state: watch::Receiver<ProxyState>,
    passing: Arc<RwLock<()>>,
    round_trips: Arc<AtomicU32>,
) {
    let mut upstream = TcpStream::connect(server).await.unwrap();
    loop {
        let forwarding = passing.read().await;
        let now = *state.borrow_and_update();
        if now.forwards() {
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = copy_both_ways(&mut client, &mut upstream, now, &round_trips) => return,
            }
            continue;
        }
        drop(forwarding);
        if now == ProxyState::Closed || state.changed().await.is_err() {
            return;
        }
    }
}

impl ProxyState {
    fn forwards(self) -> bool {
        matches!(self, Self::Open | Self::Slow(_))
    }
}

async fn copy_both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    state: ProxyState,
    round_trips: &AtomicU32,
) {
    let ProxyState::Slow(millis) = state else {
        return copy_counted(client, server, round_trips).await;
    };
    let pause = Duration::from_millis(millis);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        () = copy_delayed(&mut from_client, &mut to_server, pause) => {}
        () = copy_delayed(&mut from_server, &mut to_client, pause) => {}
    }
}

/// Copies in both directions, and counts the round trips.
async fn copy_counted(client: &mut TcpStream, server: &mut TcpStream, round_trips: &AtomicU32) {
    let (mut request, mut response) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut has_responded = true;
    loop {
        let copied = tokio::select! {
            read = client.read(&mut request) => match read {
                Ok(length @ 1..) => {
                    round_trips.fetch_add(u32::from(has_responded), Ordering::SeqCst);
                    has_responded = false;
                    server.write_all(&request[..length]).await
                }
                _ => return,
            },
            read = server.read(&mut response) => match read {
                Ok(length @ 1..) => {
                    has_responded = true;
                    client.write_all(&response[..length]).await
                }
                _ => return,
            },
        };
        if copied.is_err() {
            return;
        }
    }
}

async fn copy_delayed(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    pause: Duration,
) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        tokio::time::sleep(pause).await;
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}
