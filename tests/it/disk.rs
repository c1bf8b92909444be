//! A store whose disk is full, slow, locked, broken or without power.
//!
//! The server keeps acknowledged messages, rejects those that it cannot store, and recovers by itself if it can.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::support::{
    EMPTY, FakeTwilio, JournalFile, Policy, Random, SentVia, Server, StopOnDrop, Wait, Webhook,
    report_missing, report_skipped, twiml_message,
};

const USER: &str = "whatsapp:+15550001111";

/// A folder with a database, optionally on its own file system.
struct Disk {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Disk {
    fn plain() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            mounted: false,
        }
    }

    /// Mounts a file system on a new folder. Returns `None` if this user may not mount.
    fn mount(options: &[&str], source: &str) -> Option<Self> {
        let mut disk = Self::plain();
        disk.mounted = run_quietly(
            Command::new("mount")
                .args(options)
                .arg(source)
                .arg(disk.folder.path()),
        );
        disk.mounted.then_some(disk)
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("replyhook.db")
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.database().display())
    }

    /// Starts the real binary with this database, through the command `wrapper` unless that is empty.
    fn serve(&self, wrapper: &[impl AsRef<str>], twilio: &FakeTwilio) -> Server {
        serve(
            env!("CARGO_BIN_EXE_replyhook"),
            wrapper,
            &self.url(),
            twilio,
        )
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            run_quietly(Command::new("umount").arg("--lazy").arg(self.folder.path()));
        }
    }
}

fn serve(binary: &str, wrapper: &[impl AsRef<str>], url: &str, twilio: &FakeTwilio) -> Server {
    let api = twilio.url();
    let env = [
        ("DATABASE_URL", url),
        ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    let words: Vec<&str> = wrapper.iter().map(AsRef::as_ref).chain([binary]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    Server::start_by(command, &env)
}

/// Returns true if the program exists and succeeds.
fn run_quietly(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn strace_works() -> bool {
    run_quietly(Command::new("strace").args(["-f", "-o", "/dev/null", "-e", "trace=none", "true"]))
}

/// No command to start the server through.
const NO_WRAPPER: &[&str] = &[];
const HANDLER_RUNS: &str = "replyhook_handler_duration_seconds_count";

#[test]
fn threat_50_locked_database_rejects_messages_until_released() {
    let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
    let server = disk.serve(NO_WRAPPER, &twilio);
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    server.wait_for_readiness(200);
    let before = server.metric(HANDLER_RUNS);
    let mut locked_before = false;
    let other = Connection::open(disk.database()).unwrap();
    for lock in ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"] {
        other.execute_batch(lock).unwrap();
        std::thread::scope(|scope| {
            for number in 10..20 {
                let server = &server;
                scope.spawn(move || {
                    server
                        .send(&Webhook::message(number, &format!("hi {number}")))
                        .assert_rejected(503)
                        .len()
                });
            }
        });
        server.wait_for_readiness(503);
        // Messages that waited for the first lock may be handled after its release.
        assert!(locked_before || server.metric(HANDLER_RUNS) == before);
        locked_before = true;
        // A fallback call succeeds even without the store.
        let fallback = Webhook::message(30, "hi").to("/webhook/fallback");
        server.send(&fallback.with("ErrorCode", "11200")).twiml();
        other.execute_batch("ROLLBACK").unwrap();
        server.wait_for_readiness(200);
    }
    // Another user, because a reply to the first one would wait for replies that are still sent via the REST API.
    let again = Webhook::message(40, "again").with("From", "whatsapp:+15550009999");
    assert_eq!(server.send(&again).twiml(), twiml_message("again"));
}

#[test]
fn moved_database_file_rejects_messages_until_moved_back() {
    let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
    let server = disk.serve(NO_WRAPPER, &twilio);
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    let away = disk.folder.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let names = ["", "-wal", "-shm"].map(|end| format!("replyhook.db{end}"));
    let rename = |from: &Path, to: &Path| {
        for name in &names {
            std::fs::rename(from.join(name), to.join(name)).unwrap();
        }
    };
    rename(disk.folder.path(), &away);
    let before = server.metric(HANDLER_RUNS);
    server.send(&Webhook::message(2, "hi")).assert_rejected(503);
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("put it back"), "{}", ready.body);
    server.wait_for("put it back");
    assert_eq!(server.metric(HANDLER_RUNS), before);
    assert!(!disk.database().exists(), "no new database is created");
    rename(&away, disk.folder.path());
    server.wait_for_readiness(200);
    assert_eq!(
        server.send(&Webhook::message(2, "hi")).twiml(),
        twiml_message("hi")
    );
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    drop(server);
    JournalFile::read(&disk.database()).assert_intact();
}

// The message is committed, but the server cannot know that its file will be there at the next start, so it rejects it.
// It then has a claim, and no task that handles it.
#[test]
fn message_committed_while_file_is_moved_is_handled_once() {
    let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
    let server = disk.serve(NO_WRAPPER, &twilio);
    server.send(&Webhook::message(1, "hi")).twiml();
    let away = disk.folder.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let names = ["", "-wal", "-shm"].map(|end| format!("replyhook.db{end}"));
    let rename = |from: &Path, to: &Path| {
        for name in &names {
            std::fs::rename(from.join(name), to.join(name)).unwrap();
        }
    };
    // Moves the file between the check before the commit and the one after it: the lock stops the writer in between.
    let lock = Connection::open(disk.database()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let rejected = scope.spawn(|| server.send(&Webhook::message(2, "hi")));
        server.wait_until("replyhook_requests_in_flight", 1.0);
        // The request is in the writer's queue a moment after it is counted.
        std::thread::sleep(Duration::from_millis(300));
        rename(disk.folder.path(), &away);
        drop(lock);
        rejected.join().unwrap().assert_rejected(503);
    });
    rename(&away, disk.folder.path());
    server.wait_for_readiness(200);
    // It is in the journal. Twenty seconds later the server knows that no task of its own handles it.
    assert_eq!(server.send(&Webhook::message(2, "hi")).twiml(), EMPTY);
    let phone = twilio.wait_for_phone(USER, 1);
    assert_eq!(
        (phone[0].body.as_str(), phone[0].via),
        ("hi", SentVia::Rest)
    );
    assert_eq!(server.metric(HANDLER_RUNS), 2.0);
    drop(server);
    JournalFile::read(&disk.database()).assert_intact();
}

// A second server has created the files again; the first must not acknowledge messages that it would write to deleted
// files.
#[test]
fn server_with_deleted_database_rejects_messages_after_replacement() {
    let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
    let first = disk.serve(NO_WRAPPER, &twilio);
    for end in ["", "-wal", "-shm"] {
        std::fs::remove_file(disk.folder.path().join(format!("replyhook.db{end}"))).unwrap();
    }
    let second = disk.serve(NO_WRAPPER, &twilio);
    first.send(&Webhook::message(1, "hi")).assert_rejected(503);
    first.wait_for_readiness(503);
    assert_eq!(
        second.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
}

/// Sends messages while the disk is full, frees it, and checks that the same server accepts messages again.
fn check_full_disk(
    server: &Server,
    disk: &Disk,
    twilio: &FakeTwilio,
    fill: impl Fn(u64),
    free: impl Fn(),
) {
    let address = || Some(server.public);
    let mut number = 100;
    for left in [0, 1, 4096, 20_000, 40_000] {
        fill(left);
        // If some space is left, the server still accepts some messages.
        let mut rejected = 0;
        for _ in 0..200 {
            number += 1;
            let webhook = Webhook::message(number, &format!("hi {number}"))
                .with("From", "whatsapp:+15550009999");
            let delivery = twilio.deliver(address, &webhook, Policy::NEITHER);
            match delivery.attempts[0].status {
                Some(200) => {}
                Some(503) => rejected += 1,
                other => panic!("{other:?} with {left} bytes left\n{}", server.log()),
            }
            if rejected == 5 {
                break;
            }
        }
        assert_eq!(rejected, 5, "the disk is not full");
        server.wait_for_readiness(503);
        free();
        server.wait_for_readiness(200);
        number += 1;
        let webhook = Webhook::message(number, &format!("room {left}"));
        let delivery = twilio.deliver(address, &webhook, Policy::NEITHER);
        assert!(delivery.acknowledged(), "{delivery:?}\n{}", server.log());
    }
    JournalFile::read(&disk.database()).assert_intact();
    assert_eq!(twilio.phone(USER).len(), 5);
}

#[test]
fn threat_51_full_disk_rejects_messages_until_space_is_freed() {
    let Some(disk) = Disk::mount(&["-t", "tmpfs", "-o", "size=4m"], "none") else {
        return report_skipped("a full disk: this user may not mount");
    };
    let twilio = FakeTwilio::start();
    let server = disk.serve(NO_WRAPPER, &twilio);
    let filler = disk.folder.path().join("filler");
    let fill = |left: u64| {
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left)).unwrap();
    };
    let free = || std::fs::remove_file(&filler).unwrap();
    check_full_disk(&server, &disk, &twilio, fill, free);
}

// The disk fills up while the handler runs: Twilio gets 503, and the reply follows after space is freed.
#[cfg(feature = "failpoints")]
#[test]
fn threat_51_unsaved_reply_on_full_disk_is_sent_later() {
    let Some(disk) = Disk::mount(&["-t", "tmpfs", "-o", "size=4m"], "none") else {
        return report_skipped("a full disk: this user may not mount");
    };
    let twilio = FakeTwilio::start();
    let bot = env!("CARGO_BIN_EXE_fault-bot");
    let server = serve(bot, NO_WRAPPER, &disk.url(), &twilio);
    let message = Webhook::message(1, "slow 5000 of words");
    let filler = disk.folder.path().join("filler");
    std::thread::scope(|scope| {
        let delivery =
            scope.spawn(|| twilio.deliver(|| Some(server.public), &message, Policy::NEITHER));
        server.wait_until("replyhook_handlers_running", 1.0);
        let wait = Wait::until("the message is stored");
        while JournalFile::read(&disk.database()).entries().is_empty() {
            wait.check();
            std::thread::yield_now();
        }
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        // A reply that is not saved must not become the response.
        assert_eq!(delivery.join().unwrap().attempts[0].status, Some(503));
    });
    std::fs::remove_file(&filler).unwrap();
    JournalFile::read(&disk.database()).wait_until_drained();
    let phone = twilio.phone(USER);
    assert_eq!(phone.len(), 1, "{phone:?}");
    assert_eq!(phone[0].body, "slow 5000 of words");
}

#[test]
fn threat_51_exceeded_quota_rejects_messages_until_raised() {
    // A file size limit stands for a quota: writes fail with EFBIG instead of EDQUOT. `trap` ignores the signal.
    if !run_quietly(Command::new("prlimit").arg("--version")) {
        return report_missing("a quota: prlimit");
    }
    let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
    let ignoring = ["sh", "-c", r#"trap "" XFSZ; exec "$@""#, "sh"];
    let server = disk.serve(&ignoring, &twilio);
    server.send(&Webhook::message(1, "hi")).twiml();
    let limit = |bytes: &str| {
        let pid = server.pid().to_string();
        let limit = format!("--fsize={bytes}:unlimited");
        assert!(run_quietly(
            Command::new("prlimit").args(["--pid", &pid, &limit])
        ));
    };
    let log = disk.database().with_extension("db-wal");
    let fill = |left: u64| limit(&(log.metadata().unwrap().len() + left).to_string());
    check_full_disk(&server, &disk, &twilio, fill, || limit("unlimited"));
}

// From the first failed fsync on nothing is acknowledged, and the process ends with exit code 74.
#[test]
fn threat_52_failed_fsync_acknowledges_nothing_and_ends_server() {
    if !strace_works() {
        return report_missing("a failing fsync: strace");
    }
    let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
    let broken = strace("error=EIO:when=40+");
    let server = disk.serve(&broken, &twilio);
    let mut kept = Vec::new();
    let mut rejected = 0;
    // One after the other, so that messages do not share commits.
    for number in 1..100 {
        let webhook = Webhook::message(number, &format!("hi {number}"));
        let delivery = twilio.deliver(|| Some(server.public), &webhook, Policy::NEITHER);
        match delivery.attempts[0].status {
            Some(200) if rejected == 0 => kept.push(sid(&webhook)),
            Some(200) => panic!("acknowledged after the disk has failed"),
            Some(_) => rejected += 1,
            None => break,
        }
    }
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(74), "{log}");
    assert!(
        log.contains("the disk has failed: nothing more is acknowledged"),
        "{log}"
    );
    assert!(!log.contains("reopened the store"), "{log}");
    assert!((1..40).contains(&kept.len()), "{}", kept.len());

    let _server = disk.serve(NO_WRAPPER, &twilio);
    let journal = JournalFile::read(&disk.database());
    journal.assert_intact();
    assert_eq!(journal.find_missing(&kept), None);
    journal.wait_until_drained();
    let mut bodies: Vec<_> = twilio
        .phone(USER)
        .into_iter()
        .map(|shown| shown.in_reply_to)
        .collect();
    bodies.retain(Option::is_some);
    assert_eq!(bodies.len(), kept.len());
}

#[test]
fn threat_53_slow_disk_replies_in_time_or_rejects() {
    if !strace_works() {
        return report_missing("a slow disk: strace");
    }
    // Microseconds per fsync: a delay within the server's time limit, even on a busy machine, and one beyond it.
    for (delay, status) in [("50000", 200), ("1800000", 503)] {
        let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
        let slow = strace(&format!("delay_enter={delay}"));
        let server = disk.serve(&slow, &twilio);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (server, twilio) = (&server, &twilio);
                scope.spawn(move || {
                    let webhook = Webhook::message(number, "hi").with("From", &user(number));
                    let delivery =
                        twilio.deliver(|| Some(server.public), &webhook, Policy::NEITHER);
                    assert_eq!(delivery.attempts[0].status, Some(status));
                });
            }
        });
        // A rejected message is stored after all, so its reply goes via the REST API.
        let journal = JournalFile::read(&disk.database());
        let wait = Wait::until("8 messages are stored");
        while journal.entries().len() < 8 {
            wait.check();
            std::thread::yield_now();
        }
        journal.wait_until_drained();
        for number in 0..8 {
            assert_eq!(twilio.phone(&user(number)).len(), 1);
        }
    }
}

// A checkpoint takes seconds on a slow disk, so the thread that commits must not run it.
#[cfg(feature = "failpoints")]
#[test]
fn checkpoint_is_written_by_its_own_thread() {
    use std::time::{Duration, Instant};

    use crate::support::wal::{CHECKPOINT_DUE, fill_log, salts};

    let (disk, twilio) = (Disk::plain(), FakeTwilio::start());
    // Without this setting only root may read how much the server's threads have written.
    let server = disk.serve(&["env", "REPLYHOOK__SERVER__CORE_DUMPS=true"], &twilio);
    fill_log(&disk.database());
    let began = salts(&disk.database());
    let end = Instant::now() + Duration::from_mins(1);
    let send = |number| {
        let webhook = Webhook::message(number, "hi").with("From", &user(number));
        assert_eq!(server.send(&webhook).twiml(), twiml_message("hi"));
        assert!(Instant::now() < end, "the checkpoint never ends");
    };
    // The commit of this message requests the checkpoint. No commit follows, so the thread writes only the checkpoint.
    send(0);
    while bytes_written_by(&server, "replyhook-check") < CHECKPOINT_DUE {
        assert!(Instant::now() < end, "the thread writes no checkpoint");
        std::thread::yield_now();
    }
    // The log restarts after the checkpoint has copied all of it.
    for number in 1.. {
        if salts(&disk.database()) != began {
            break;
        }
        send(number);
    }
    let commits = bytes_written_by(&server, "replyhook-store");
    assert!(commits < CHECKPOINT_DUE, "commits wrote {commits} bytes");
}

/// Returns the bytes that the threads of this name have written. Linux cuts names to 15 characters.
#[cfg(feature = "failpoints")]
fn bytes_written_by(server: &Server, thread: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let named_tasks = tasks.map(|task| task.unwrap().path()).filter(|task| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread)
    });
    let written: Vec<u64> = named_tasks
        .map(|task| {
            let io = std::fs::read_to_string(task.join("io")).unwrap();
            let bytes = io.lines().find_map(|line| line.strip_prefix("wchar: "));
            bytes.unwrap().parse().unwrap()
        })
        .collect();
    assert!(!written.is_empty(), "no thread is called {thread}");
    written.iter().sum()
}

/// Number of power cuts in one run.
const POWER_CUTS: usize = 50;

#[test]
fn threat_60_power_cut_loses_no_acknowledged_message() {
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("disk.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    if !run_quietly(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image)) {
        return report_missing("a power cut: mkfs.ext4");
    }
    let mount = |image: &Path| Disk::mount(&["-o", "loop"], image.to_str().unwrap());
    let Some(disk) = mount(&image) else {
        return report_skipped("a power cut: this user has no loop devices");
    };
    let twilio = FakeTwilio::start();
    let server = disk.serve(NO_WRAPPER, &twilio);
    let kept = Mutex::new(Vec::new());
    let (next, stopped) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Stops the threads if an assertion fails, too: otherwise the scope would wait for them forever.
        let _end = StopOnDrop(&stopped);
        for _ in 0..8 {
            scope.spawn(|| {
                while !stopped.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let webhook = Webhook::message(number, "hi").with("From", &user(number));
                    let answer = server.send(&webhook);
                    if answer.status == 200 {
                        kept.lock().unwrap().push(sid(&webhook));
                    } else {
                        // The request was in progress while the server was stopped.
                        answer.assert_rejected(503);
                    }
                }
            });
        }
        let mut random = Random::new(60, 0);
        for cut in 1..=POWER_CUTS {
            let wait = Wait::until(format!("{} messages are acknowledged", cut * 12));
            while kept.lock().unwrap().len() < cut * 12 {
                wait.check();
                std::thread::yield_now();
            }
            // Not always right after an acknowledgement.
            for _ in 0..random.below(200) {
                std::thread::yield_now();
            }
            server.signal(Signal::STOP);
            let acknowledged = kept.lock().unwrap().clone();
            // The image lacks writes that no fsync has forced to the disk.
            let copy = images.path().join(format!("cut-{cut}.img"));
            std::fs::copy(&image, &copy).unwrap();
            server.signal(Signal::CONT);
            let after = mount(&copy).unwrap();
            // Every tenth time a server starts on it. SQLite alone finds the same messages, and takes less time.
            let again = (cut % 10 == 0).then(|| after.serve(NO_WRAPPER, &twilio));
            let journal = JournalFile::read(&after.database());
            journal.assert_intact();
            assert_eq!(
                journal.find_missing(&acknowledged),
                None,
                "lost by cut {cut}"
            );
            drop((journal, again, after));
            std::fs::remove_file(&copy).unwrap();
        }
    });
    drop(server);
}

/// Returns the command that injects a fault into each fsync of a program. `-D` keeps it a child of this process.
fn strace(fault: &str) -> Vec<String> {
    let inject = format!("inject=fdatasync,fsync:{fault}");
    [
        "strace",
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync,fsync",
        "-e",
        &inject,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn user(number: u64) -> String {
    format!("whatsapp:+1555{number:07}")
}

fn sid(webhook: &Webhook) -> String {
    webhook.form.get("MessageSid").unwrap().to_owned()
}
