//! Ownership of the database file: one server per file, even through a hard link, and no access for other users.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use replyhook::internals::Store;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{Access, StoreErrorKind};
use rustix::process::Signal;

use crate::support::{
    JournalFile, ORIGIN, Server, TOKEN, Webhook, replyhook, report_missing, twiml_message,
};

/// Settings that `check` requires.
const REQUIRED_ENV: [(&str, &str); 2] = [("TWILIO_AUTH_TOKEN", TOKEN), ("PUBLIC_URL", ORIGIN)];

/// Folder for a database.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn database(&self) -> PathBuf {
        self.file("replyhook.db")
    }
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn serve(path: &Path) -> Server {
    Server::start(&[("DATABASE_URL", &url(path))])
}

/// Starts a server that must exit with 2, through the wrapper command `through` if there is one. Returns its log.
fn start_rejected(wrapper: &[&str], path: &Path) -> String {
    let binary = env!("CARGO_BIN_EXE_replyhook");
    let words = [wrapper, &[binary]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let env = [
        ("DATABASE_URL", &*url(path)),
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    let (status, log) = Server::launch(command, &env).wait();
    assert_eq!(status.code(), Some(2), "{log}");
    log
}

/// Returns the kinds of locks that a process has on a file: `FLOCK`, `POSIX`.
fn held_locks(pid: u32, file: &Path) -> Vec<String> {
    let (pid, inode) = (
        pid.to_string(),
        format!(":{}", file.metadata().unwrap().ino()),
    );
    let all = std::fs::read_to_string("/proc/locks").unwrap();
    let mut kinds = Vec::new();
    for line in all.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if words.get(4) == Some(&&*pid) && words.get(5).is_some_and(|word| word.ends_with(&inode)) {
            kinds.push(words[1].to_owned());
        }
    }
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn second_server_through_hard_link_is_rejected() {
    let folder = Folder::new();
    let link = folder.file("link.db");
    let first = serve(&folder.database());
    std::fs::hard_link(folder.database(), &link).unwrap();
    let mut kept = Vec::new();
    for number in 1..=20 {
        // Twenty users, since loop detection stops one user who repeats a text.
        let user = format!("whatsapp:+1555{number:07}");
        let webhook = Webhook::message(number, "hi").with("From", &user);
        assert_eq!(first.send(&webhook).twiml(), twiml_message("hi"));
        kept.push(webhook.form.get("MessageSid").unwrap().to_owned());
        if number % 10 == 0 {
            let log = start_rejected(&[], &link);
            assert!(log.contains("another running server owns"), "{log}");
        }
    }
    assert_eq!(
        held_locks(first.pid(), &folder.database()),
        ["FLOCK", "POSIX"]
    );
    assert!(!folder.file("link.db-wal").exists());
    first.signal(Signal::TERM);
    let (status, log) = first.wait();
    assert!(status.success(), "{log}");
    let journal = JournalFile::read(&folder.database());
    journal.assert_intact();
    assert_eq!(journal.find_missing(&kept), None);
}

// Closing any descriptor of a file drops the process's POSIX locks on it, such as those of SQLite.
#[tokio::test]
async fn rejected_second_open_keeps_sqlite_locks() {
    let folder = Folder::new();
    let path = folder.database();
    let first = SqliteStore::file(&path);
    first.open(Access::Owner).await.unwrap();
    let before = held_locks(std::process::id(), &path);
    assert_eq!(before, ["FLOCK", "POSIX"]);
    let link = folder.file("link.db");
    std::fs::hard_link(&path, &link).unwrap();
    for name in [&path, &link] {
        for access in [Access::Owner, Access::Migrate] {
            let second = SqliteStore::file(name);
            let error = second.open(access).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Owned, "{error}");
        }
    }
    assert_eq!(held_locks(std::process::id(), &path), before);
    drop(first);
    let third = SqliteStore::file(&path);
    third.open(Access::Owner).await.unwrap();
}

#[test]
fn command_through_hard_link_of_served_database_is_rejected() {
    let folder = Folder::new();
    let link = folder.file("link.db");
    let server = serve(&folder.database());
    std::fs::hard_link(folder.database(), &link).unwrap();
    let list = |path: &Path| {
        let url = url(path);
        replyhook(&["messages", "list"], &[("DATABASE_URL", &url)], "")
    };
    let (code, _, err) = list(&link);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("link.db is a hard link"), "{err}");
    let (code, _, err) = list(&folder.database());
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
}

#[test]
fn hard_linked_database_gives_warning() {
    let folder = Folder::new();
    drop(serve(&folder.database()));
    std::fs::hard_link(folder.database(), folder.file("link.db")).unwrap();
    let server = serve(&folder.database());
    let line = server.wait_for("2 names (hard links)");
    assert!(line.contains("\"WARN\""), "{line}");
    assert_check_warns(&folder.database(), "2 names (hard links)");
}

#[test]
fn database_readable_by_others_gives_warning() {
    let folder = Folder::new();
    let server = serve(&folder.database());
    assert!(!server.log().contains("chmod 600"), "{}", server.log());
    drop(server);
    std::fs::set_permissions(folder.database(), PermissionsExt::from_mode(0o644)).unwrap();
    let server = serve(&folder.database());
    let line = server.wait_for("chmod 600");
    assert!(line.contains("mode 0644"), "{line}");
    assert_check_warns(&folder.database(), "mode 0644");
}

fn assert_check_warns(path: &Path, part: &str) {
    let url = url(path);
    let env = [&REQUIRED_ENV[..], &[("DATABASE_URL", url.as_str())]].concat();
    let (code, out, err) = replyhook(&["check"], &env, "");
    assert_eq!(code, 0, "{err}");
    let is_warned = out
        .lines()
        .any(|line| line.starts_with("warning: ") && line.contains(part));
    assert!(is_warned, "{part} is not in {out}");
}

#[test]
fn database_files_are_created_for_their_owner_alone() {
    let folder = Folder::new();
    let mut command = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_replyhook");
    command.args(["-c", r#"umask 0; exec "$@""#, "sh", binary]);
    let server = Server::start_by(command, &[("DATABASE_URL", &url(&folder.database()))]);
    assert_eq!(
        server.send(&Webhook::message(1, "hi")).twiml(),
        twiml_message("hi")
    );
    let mut files: Vec<_> = std::fs::read_dir(folder.0.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    files.sort();
    let expected = ["replyhook.db", "replyhook.db-shm", "replyhook.db-wal"];
    assert_eq!(files, expected.map(|name| (name.to_owned(), 0o600)));
}

#[test]
fn file_system_without_locks_is_rejected() {
    let inject = ["-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"];
    let strace = [&["strace", "-f", "-o", "/dev/null"], &inject[..]].concat();
    let works = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        return report_missing("a file system without locks: strace");
    }
    let folder = Folder::new();
    let log = start_rejected(&strace, &folder.database());
    assert!(
        log.contains("cannot be locked") && log.contains("local file system"),
        "{log}"
    );
}
