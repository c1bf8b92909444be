//! A server that dies at its crash points and is started again, on a database that outlives it.

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
use super::{Delivery, FakeTwilio, Journal, Policy, Server, Shown, Webhook, json_lines, replyhook};

pub const USER: &str = "whatsapp:+15550001111";
const SIGABRT: i32 = 6;
/// States, of messages and of replies, in which something is still to come.
const OPEN: [&str; 6] = [
    "received",
    "processing",
    "deferred",
    "pending",
    "sending",
    "unknown",
];

/// A database that outlives its servers, beside a Twilio.
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
    /// On a file.
    pub fn new(env: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", file_in(&folder).display());
        Self::on(Database::File(folder), url, env)
    }

    /// `None` where there is no server.
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
        ];
        all.extend(env.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self {
            database,
            twilio,
            env: all,
        }
    }

    /// One that dies at `point`, or at none where that is empty. It may not come to listening.
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

    /// Of a file.
    pub fn journal(&self) -> Journal {
        let Database::File(folder) = &self.database else {
            panic!("it is on a server");
        };
        Journal::read(&file_in(folder))
    }

    /// Waits until every message has its answer, and every reply is sent or held.
    fn drained(&self) {
        if let Database::File(_) = self.database {
            self.journal().drained();
            return;
        }
        let patience = Instant::now() + Duration::from_mins(1);
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
            assert!(Instant::now() < patience, "{rows}{error}");
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
pub fn has_crashed(server: Server) {
    let (status, log) = server.wait();
    assert_eq!(status.signal(), Some(SIGABRT), "{status}\n{log}");
}

/// What starts a server again: each time it died, and with the next crash point.
pub struct Supervisor<'a> {
    world: &'a World,
    current: Mutex<Option<Server>>,
    points: Mutex<Vec<&'a str>>,
}

impl<'a> Supervisor<'a> {
    /// The first server dies at the first point, and so on; the last one lives.
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

    /// Waits for the crash that is due, if one is, and starts the next server.
    pub fn revive(&self) {
        let Some(point) = self.points.lock().unwrap().pop() else {
            return;
        };
        let mut current = self.current.lock().unwrap();
        has_crashed(current.take().unwrap());
        *current = Some(self.world.start(point));
    }

    pub fn has_met_all(&self) -> bool {
        self.points.lock().unwrap().is_empty()
    }

    /// The message as Twilio delivers it: what comes after the first attempt finds the next server.
    pub fn deliver(&self, webhook: &Webhook, policy: Policy) -> Delivery {
        let is_first = Cell::new(true);
        let server = || {
            if !is_first.replace(false) {
                self.revive();
            }
            Some(self.address())
        };
        self.world.twilio.deliver(server, webhook, policy)
    }

    /// Lets happen what is still to come, with the server that lives.
    pub fn settled(&self) -> (Vec<Shown>, u64) {
        while !self.has_met_all() {
            self.revive();
        }
        self.world.drained();
        let current = self.current.lock().unwrap();
        let server = current.as_ref().unwrap();
        // On a busy disk a look may take too long.
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
