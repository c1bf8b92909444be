//! `kill -9` at random moments.
//!
//! The random numbers come from a printed seed, which `KILL_SEED` sets. `KILL_CYCLES`, `KILL_COMMITS` and
//! `KILL_CHECKPOINTS` set the numbers of kills.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use replyhook::{Clock, SystemClock};
use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;

use crate::support::wal;
use crate::support::{
    FakeTwilio, HttpResponse, JournalFile, ORIGIN, PhoneMessage, Policy, Random, Server, Wait,
    Webhook, number_setting, wire,
};

const SENDERS: u64 = 12;
/// Multiple of the planned kills after which the test ends, if none of them has hit its target.
const MAX_ROUNDS: u64 = 10;
/// Maximum time to wait for the log's file to grow. It does not grow if new frames overwrite old ones.
const MAX_WATCH: Duration = Duration::from_millis(50);

/// Number of users of each sender. Two senders share them, so that a conversation has concurrent messages.
const USERS: u64 = 6;

/// Returns the seed of this run: `KILL_SEED`, or else the time.
fn seed() -> u64 {
    let now = SystemClock.now().as_microsecond();
    number_setting("KILL_SEED", now.unsigned_abs())
}

/// Prints a line to standard error directly, because the test harness hides the captured output of passing tests.
fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn start(file: &Path, twilio: &FakeTwilio) -> Server {
    let url = format!("sqlite:{}", file.display());
    let api = twilio.url();
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
        ("REPLYHOOK__REPLY__DEADLINE_MS", "150"),
        // A message must not become dead because of many kills.
        ("REPLYHOOK__HANDLER__MAX_ATTEMPTS", "100"),
    ];
    Server::start_by(Command::new(env!("CARGO_BIN_EXE_fault-bot")), &env)
}

/// Kills the server with SIGKILL, and waits for its end.
fn kill(server: Server) {
    server.signal(Signal::KILL);
    let (status, log) = server.wait();
    assert!(
        status.code().is_none(),
        "the server ended by itself: {status}\n{log}"
    );
    assert!(!log.contains("panicked"), "{log}");
}

/// Shuts the server down with SIGTERM, and waits for its end.
fn stop_gracefully(server: Server) {
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// Address of the current server, for the senders.
#[derive(Default)]
struct ServerAddress {
    address: Mutex<Option<SocketAddr>>,
    changed: Condvar,
    /// Number of webhook calls so far.
    calls: AtomicU64,
    /// Number of acknowledged deliveries so far.
    acknowledged: AtomicU64,
    stopped: AtomicBool,
}

impl ServerAddress {
    fn set(&self, address: Option<SocketAddr>) {
        *self.address.lock().unwrap() = address;
        self.changed.notify_all();
    }

    /// Waits for a running server, and counts the call.
    fn wait_for_address(&self) -> Option<SocketAddr> {
        let found = self
            .changed
            .wait_while(self.address.lock().unwrap(), |address| address.is_none());
        let address = *found.unwrap();
        self.calls.fetch_add(1, Ordering::SeqCst);
        address
    }
}

/// Stops the senders when it is dropped, so also if an assertion fails.
struct StopOnDrop<'a>(&'a ServerAddress);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let unused_address = SocketAddr::from(([127, 0, 0, 1], 9));
        self.0.address.lock().unwrap().get_or_insert(unused_address);
        self.0.changed.notify_all();
    }
}

fn wait_for_increment(number: &AtomicU64) {
    let before = number.load(Ordering::SeqCst);
    let wait = Wait::until("the number has changed");
    while number.load(Ordering::SeqCst) == before {
        wait.check();
        std::thread::yield_now();
    }
}

/// A delivered message, and its outcome.
struct SentMessage {
    sid: String,
    user: String,
    text: String,
    acknowledged: bool,
}

fn user(number: u64) -> String {
    format!("whatsapp:+1555{number:07}")
}

fn send_until_stopped(
    sender: u64,
    seed: u64,
    server_address: &ServerAddress,
    twilio: &FakeTwilio,
) -> Vec<SentMessage> {
    let mut random = Random::new(seed, sender + 1);
    let mut sent = Vec::new();
    for serial in 0.. {
        if server_address.stopped.load(Ordering::SeqCst) {
            break;
        }
        let number = sender * 1_000_000 + serial;
        let user = user((sender / 2) * USERS + random.below(USERS));
        let text = match random.below(10) {
            0 => format!("slow 200 number {number}."),
            1 => format!("slow 140 number {number}."),
            2 => format!("fail number {number}."),
            _ => format!("number {number}."),
        };
        let policy = Policy::new(random.below(2) == 0, random.below(2) == 0);
        let webhook = Webhook::message(number, &text).with("From", &user);
        let delivery = twilio.deliver(|| server_address.wait_for_address(), &webhook, policy);
        let acknowledged = delivery.acknowledged();
        server_address
            .acknowledged
            .fetch_add(u64::from(acknowledged), Ordering::SeqCst);
        sent.push(SentMessage {
            sid: webhook.form.get("MessageSid").unwrap().to_owned(),
            user,
            text,
            acknowledged,
        });
    }
    sent
}

// Every acknowledged message is stored, and no user receives two replies.
#[test]
fn threat_59_random_kill_neither_loses_nor_repeats_acknowledged_message() {
    let (cycles, seed) = (number_setting("KILL_CYCLES", 15), seed());
    report(&format!("kill loop: KILL_SEED={seed} KILL_CYCLES={cycles}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replyhook.db");
    let twilio = FakeTwilio::start();
    let server_address = ServerAddress::default();
    let mut random = Random::new(seed, 0);
    let sent: Vec<SentMessage> = std::thread::scope(|scope| {
        let _end = StopOnDrop(&server_address);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (server_address, twilio) = (&server_address, &twilio);
                scope.spawn(move || send_until_stopped(sender, seed, server_address, twilio))
            })
            .collect();
        for _ in 0..cycles {
            let server = start(&file, &twilio);
            server_address.set(Some(server.public));
            let counter = [&server_address.calls, &server_address.acknowledged]
                [usize::from(random.below(3) > 0)];
            wait_for_increment(counter);
            std::thread::sleep(Duration::from_micros(random.below(30_000)));
            server_address.set(None);
            // Some servers shut down as at a deployment. The next server must claim what a shutdown leaves, too.
            if random.below(4) == 0 {
                stop_gracefully(server);
            } else {
                kill(server);
            }
        }
        let last = start(&file, &twilio);
        server_address.stopped.store(true, Ordering::SeqCst);
        server_address.set(Some(last.public));
        let sent = senders
            .into_iter()
            .flat_map(|sender| sender.join().unwrap())
            .collect();
        JournalFile::read(&file).wait_until_drained();
        sent
    });
    check_guarantees(&sent, &twilio, &JournalFile::read(&file));
}

/// Checks each message on the user's phone, and in the journal if the phone does not show a reply.
fn check_guarantees(sent: &[SentMessage], twilio: &FakeTwilio, journal: &JournalFile) {
    journal.assert_intact();
    let entries = journal.entries();
    let mut phones = BTreeMap::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for message in sent {
        let phone = phones
            .entry(&message.user)
            .or_insert_with(|| twilio.phone(&message.user));
        let about = |shown: &&PhoneMessage| {
            shown.in_reply_to.as_ref() == Some(&message.sid) || shown.body == message.text
        };
        let shown: Vec<_> = phone.iter().filter(about).collect();
        let entry = entries.get(&message.sid);
        let what = format!("{} {:?}: {shown:?} {entry:?}", message.sid, message.text);
        assert!(shown.len() <= 1, "answered twice: {what}");
        let fate = match (message.acknowledged, shown.len(), entry) {
            (true, _, None) => panic!("acknowledged and not kept: {what}"),
            (true, 1, _) => "answered",
            (false, 1, _) => "answered by REST, though the request was lost",
            (false, _, _) => "not acknowledged, not answered",
            (true, _, Some(entry)) if entry.replies == ["held"] => "held",
            // Its handler failed after the request had ended.
            (true, _, Some(entry)) if entry.state == "dead" && message.text.starts_with("fail") => {
                "dead"
            }
            _ => panic!("acknowledged and not answered: {what}"),
        };
        *counts.entry(fate).or_default() += 1;
    }
    report(&format!("kill loop: {} messages: {counts:?}", sent.len()));
}

/// Sends messages from several threads, and kills the server after `ready` returns true and `delay` has passed.
///
/// `ready` gets the number of acknowledged messages. `now` runs just before the kill. Returns the acknowledged SIDs.
fn kill_during_burst(
    server: Server,
    serial: &AtomicU64,
    ready: impl Fn(u64) -> bool,
    delay: Duration,
    now: impl Fn(),
) -> Vec<String> {
    let address = server.public;
    let acknowledged = AtomicU64::new(0);
    let send_sequentially = || {
        let mut sids = Vec::new();
        loop {
            let number = serial.fetch_add(1, Ordering::SeqCst);
            let webhook = Webhook::message(number, "hello").with("From", &user(number));
            let answer = exchange(address, &webhook.raw(ORIGIN));
            let Some(answer) = answer else { return sids };
            if answer.status == 200 {
                sids.push(webhook.form.get("MessageSid").unwrap().to_owned());
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| scope.spawn(send_sequentially))
            .collect();
        let wait = Wait::until("enough messages are acknowledged");
        while !ready(acknowledged.load(Ordering::SeqCst)) {
            wait.check();
            std::thread::yield_now();
        }
        let until = Instant::now() + delay;
        while Instant::now() < until {
            std::thread::yield_now();
        }
        now();
        kill(server);
        let sids = senders.into_iter().map(|sender| sender.join().unwrap());
        sids.flatten().collect()
    })
}

/// Sends a request. Returns `None` if the server has ended.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<HttpResponse> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(bytes).ok()?;
    wire::read_response(&mut stream)
}

/// A database that is checked after each kill.
struct CheckedDatabase {
    folder: tempfile::TempDir,
    twilio: FakeTwilio,
    sids: Vec<String>,
}

impl CheckedDatabase {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            twilio: FakeTwilio::start(),
            sids: Vec::new(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("replyhook.db")
    }

    /// Starts the next server, and checks that the journal has every message that the last one acknowledged.
    fn restart(&self, last_sids: &[String]) -> Server {
        let server = start(&self.file(), &self.twilio);
        let journal = JournalFile::read(&self.file());
        journal.assert_intact();
        assert_eq!(
            journal.find_missing(last_sids),
            None,
            "acknowledged and lost"
        );
        server
    }

    /// Truncates the log, so that the next frames make its file longer.
    fn truncate_log(&self) {
        let db = Connection::open(self.file()).unwrap();
        db.pragma_update_and_check(None, "wal_checkpoint", "truncate", |_| Ok(()))
            .unwrap();
    }

    fn finish(self, what: &str, kills: u64, hits: u64) {
        let _server = self.restart(&self.sids);
        report(&format!(
            "{what}: {hits} of {kills} kills, {} messages acknowledged and kept",
            self.sids.len()
        ));
        assert!(hits > 0, "no kill hit its target");
    }
}

#[test]
fn threat_59_commit_cut_by_kill_is_atomic() {
    let (kills, seed) = (number_setting("KILL_COMMITS", 50), seed());
    report(&format!("kills in commits: KILL_SEED={seed}"));
    let mut database = CheckedDatabase::new();
    let (mut random, mut hits) = (Random::new(seed, 0), 0);
    let serial = AtomicU64::new(1);
    let mut last = Vec::new();
    let mut number = 0;
    while number < kills || hits == 0 && number < MAX_ROUNDS * kills {
        let server = database.restart(&last);
        let delay = Duration::from_micros(random.below(10_000));
        let file = database.file();
        let watched = random.below(2) == 0;
        let written = || wal::bytes(&file);
        // Half of the kills wait for the moment at which the log grows.
        let now = || {
            let (before, since) = (written(), Instant::now());
            while watched && written() == before && since.elapsed() < MAX_WATCH {
                std::hint::spin_loop();
            }
        };
        last = kill_during_burst(server, &serial, |acknowledged| acknowledged > 0, delay, now);
        hits += u64::from(wal::frames(&database.file()).torn > 0);
        database.sids.extend_from_slice(&last);
        number += 1;
        if number % 10 == 0 {
            database.truncate_log();
        }
    }
    database.finish("a transaction was cut in the log", number, hits);
}

#[test]
fn threat_59_checkpoint_cut_by_kill_keeps_acknowledged_messages() {
    let (kills, seed) = (number_setting("KILL_CHECKPOINTS", 50), seed());
    report(&format!("kills in checkpoints: KILL_SEED={seed}"));
    let mut database = CheckedDatabase::new();
    let (mut random, mut hits) = (Random::new(seed, 0), 0);
    let serial = AtomicU64::new(1);
    let mut last = Vec::new();
    let mut number = 0;
    while number < kills || hits == 0 && number < MAX_ROUNDS * kills {
        let server = database.restart(&last);
        let file = database.file();
        let delay = Duration::from_micros(random.below(10_000));
        let before = wal::last_copied(&file);
        let readers = Readers::new(&file);
        last = std::thread::scope(|scope| {
            scope.spawn(|| readers.keep_transaction_open());
            if number % 10 == 0 {
                wal::fill_log(&database.file());
            }
            // Half of the kills wait for the first checkpoint, which copies the whole log.
            let aimed = number % 2 == 0;
            let ready =
                |acknowledged| acknowledged > 0 || aimed && wal::last_copied(&file) > before;
            let sids = kill_during_burst(server, &serial, ready, delay, || ());
            readers.stopped.store(true, Ordering::SeqCst);
            sids
        });
        drop(readers);
        hits += u64::from(wal::was_checkpoint_interrupted(&file, before));
        database.sids.extend_from_slice(&last);
        number += 1;
        if number % 10 == 0 {
            database.truncate_log();
        }
    }
    database.finish("a checkpoint was cut", number, hits);
}

/// Two connections whose read transactions overlap, so that one is always open.
// While one is open SQLite cannot restart the log, so there are always frames to copy.
struct Readers {
    pair: Mutex<[Connection; 2]>,
    stopped: AtomicBool,
}

impl Readers {
    fn new(file: &Path) -> Self {
        let open = || Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        Self {
            pair: Mutex::new([open(), open()]),
            stopped: AtomicBool::new(false),
        }
    }

    fn keep_transaction_open(&self) {
        let [one, other] = &*self.pair.lock().unwrap();
        let begin = |db: &Connection| {
            db.execute_batch("BEGIN; SELECT count(*) FROM meta")
                .unwrap();
        };
        begin(one);
        while !self.stopped.load(Ordering::SeqCst) {
            begin(other);
            one.execute_batch("COMMIT").unwrap();
            begin(one);
            other.execute_batch("COMMIT").unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
