//! Crash tests: a server that aborts at crash points, and is restarted on the same database.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

#[cfg(feature = "postgres")]
use super::postgres::TestDatabase;
use super::{
    Delivery, FakeTwilio, JournalFile, PhoneMessage, Policy, Server, Webhook, json_lines, replyhook,
};

pub const USER: &str = "whatsapp:+15550001111";
const SIGABRT: i32 = 6;
/// Open states of messages and replies.
const OPEN: [&str; 6] = [
    "received",
    "processing",
    "deferred",
    "pending",
    "sending",
    "unknown",
];

/// Database that outlives its servers, with a fake Twilio.
pub struct World {
    database: Database,
    pub twilio: FakeTwilio,
    env: Vec<(&'static str, String)>,
}

enum Database {
    File(tempfile::TempDir),
    #[cfg(feature = "postgres")]
    Postgres(Box<TestDatabase>, tokio::runtime::Runtime),
}

impl World {
    /// Creates one with an SQLite file.
    pub fn new(env: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", file_in(&folder).display());
        Self::on(Database::File(folder), url, env)
    }

    /// Creates one with a PostgreSQL database. Returns `None` without a database server.
    #[cfg(feature = "postgres")]
    pub fn on_postgres() -> Option<Self> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let database = runtime.block_on(TestDatabase::create())?;
        let url = database.url().expose().to_owned();
        Some(Self::on(
            Database::Postgres(Box::new(database), runtime),
            url,
            &[],
        ))
    }

    fn on(database: Database, url: String, env: &[(&'static str, &str)]) -> Self {
        let twilio = FakeTwilio::start();
        let mut all = vec![
            ("DATABASE_URL", url),
            ("REPLYHOOK__TWILIO__API_URL", twilio.url()),
            ("REPLYHOOK__TWILIO__CONTENT_URL", twilio.url()),
        ];
        all.extend(env.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self {
            database,
            twilio,
            env: all,
        }
    }

    /// Launches a server that aborts at `point`, or never if that is empty. It may abort before it listens.
    pub fn launch(&self, point: &str) -> Server {
        Server::launch(bot(), &self.env_with(point))
    }

    pub fn start(&self, point: &str) -> Server {
        Server::start_by(bot(), &self.env_with(point))
    }

    fn env_with<'a>(&'a self, point: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut env: Vec<_> = self
            .env
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        env.push(("FAILPOINTS", point));
        env
    }

    /// Path of the SQLite file.
    pub fn path(&self) -> PathBuf {
        let Database::File(folder) = &self.database else {
            panic!("the database is not a file");
        };
        file_in(folder)
    }

    /// Reads the journal of an SQLite file.
    pub fn journal(&self) -> JournalFile {
        JournalFile::read(&self.path())
    }

    /// Waits until no message and no reply is open. A held reply is not open.
    fn wait_until_drained(&self) {
        if let Database::File(_) = self.database {
            self.journal().wait_until_drained();
            return;
        }
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let list = ["messages", "list", "--json"];
            let (_, rows, error) = replyhook(&list, &self.env_with(""), "");
            let is_open = |state: &Value| OPEN.iter().any(|open| state == open);
            let is_open = |row: &Value| {
                let mut replies = row["replies"].as_array().unwrap().iter();
                is_open(&row["state"]) || replies.any(|reply| is_open(&reply["state"]))
            };
            if !rows.is_empty() && !json_lines(&rows).iter().any(is_open) {
                return;
            }
            assert!(Instant::now() < deadline, "{rows}{error}");
        }
    }
}

#[cfg(feature = "postgres")]
impl Drop for World {
    fn drop(&mut self) {
        if let Database::Postgres(database, runtime) = &self.database {
            runtime.block_on(database.remove());
        }
    }
}

fn file_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("replyhook.db")
}

fn bot() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fault-bot"))
}

#[track_caller]
pub fn assert_crashed(server: Server) {
    let (status, log) = server.wait();
    assert_eq!(status.signal(), Some(SIGABRT), "{status}\n{log}");
}

/// Supervisor that restarts a server after each crash, with the next crash point.
pub struct Supervisor<'a> {
    world: &'a World,
    current: Mutex<Option<Server>>,
    points: Mutex<Vec<&'a str>>,
}

impl<'a> Supervisor<'a> {
    /// Starts the first server with the first crash point. The last server has none.
    pub fn new(world: &'a World, points: &[&'a str]) -> Self {
        let mut points = [points, &[""]].concat();
        points.reverse();
        let first = points.pop().unwrap_or_default();
        Self {
            world,
            current: Mutex::new(Some(world.start(first))),
            points: Mutex::new(points),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.current.lock().unwrap().as_ref().unwrap().public
    }

    /// Waits until the current server crashes, and starts the next one. Does nothing if it is the last one.
    pub fn restart_after_crash(&self) {
        let Some(point) = self.points.lock().unwrap().pop() else {
            return;
        };
        let mut current = self.current.lock().unwrap();
        assert_crashed(current.take().unwrap());
        *current = Some(self.world.start(point));
    }

    pub fn has_used_all_points(&self) -> bool {
        self.points.lock().unwrap().is_empty()
    }

    /// Delivers a message as Twilio does. Each attempt after the first one goes to the next server.
    pub fn deliver(&self, webhook: &Webhook, policy: Policy) -> Delivery {
        let is_first = Cell::new(true);
        let server = || {
            if !is_first.replace(false) {
                self.restart_after_crash();
            }
            Some(self.address())
        };
        self.world.twilio.deliver(server, webhook, policy)
    }

    /// Waits for the remaining crashes, and until the last server has no open message.
    ///
    /// Returns the messages on the user's phone, and the number of held ones.
    pub fn wait_until_settled(&self) -> (Vec<PhoneMessage>, u64) {
        while !self.has_used_all_points() {
            self.restart_after_crash();
        }
        self.world.wait_until_drained();
        let current = self.current.lock().unwrap();
        let server = current.as_ref().unwrap();
        // On a busy disk a readiness check may time out.
        let ready = std::iter::repeat_with(|| server.get("/readyz"));
        let ready = ready.take(20).find(|ready| ready.status == 200).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
        let outbox = &ready["checks"]["outbox"];
        assert_eq!(outbox["pending"], 0);
        (
            self.world.twilio.phone(USER),
            outbox["held"].as_u64().unwrap(),
        )
    }
}
