use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

/// Database file, read independently of the server.
pub struct JournalFile {
    file: PathBuf,
    db: Connection,
}

/// State of a message and of its replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// One of `STATES`.
    pub state: &'static str,
    /// One of `REPLIES` for each message of the reply.
    pub replies: Vec<&'static str>,
}

const STATES: [&str; 7] = [
    "received",
    "processing",
    "deferred",
    "answered",
    "done",
    "failed",
    "dead",
];
const REPLIES: [&str; 7] = [
    "pending",
    "sending",
    "unknown",
    "held",
    "sent",
    "failed",
    "suppressed",
];

impl JournalFile {
    /// Opens the file read-only, so that the next server finds it as the crash left it.
    pub fn read(file: &Path) -> Self {
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        db.busy_timeout(Duration::from_secs(30)).unwrap();
        Self {
            file: file.to_owned(),
            db,
        }
    }

    /// Returns all messages by their SIDs.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        let mut statement = self
            .db
            .prepare(
                "SELECT 'SM' || lower(hex(substr(i.sid, 2))), i.state, r.state FROM inbound i \
                 LEFT JOIN outbound r ON r.inbound = i.id ORDER BY i.id, r.ordinal",
            )
            .unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut entries = BTreeMap::new();
        while let Some(row) = rows.next().unwrap() {
            let (state, reply): (u32, Option<u32>) = (row.get(1).unwrap(), row.get(2).unwrap());
            let entry = entries.entry(row.get(0).unwrap()).or_insert_with(|| Entry {
                state: STATES[state as usize],
                replies: Vec::new(),
            });
            entry
                .replies
                .extend(reply.map(|reply| REPLIES[reply as usize]));
        }
        entries
    }

    /// Waits until no message and no reply is open. A held reply is not open.
    pub fn wait_until_drained(&self) -> BTreeMap<String, Entry> {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let open: i64 = self
                .db
                .query_row(
                    "SELECT (SELECT count(*) FROM inbound WHERE state < 3) + (SELECT count(*) FROM outbound WHERE state < 3)",
                    [],
                    |row| row.get(0),
                )
                .unwrap();
            if open == 0 {
                return self.entries();
            }
            assert!(
                Instant::now() < deadline,
                "{open} stay open: {:?}",
                self.entries()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asserts that every page and every index is intact.
    #[track_caller]
    pub fn assert_intact(&self) {
        let found: String = self
            .db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(found, "ok", "{}", self.file.display());
    }

    /// Returns the first of these messages that is not stored.
    pub fn find_missing<'a>(
        &self,
        sids: impl IntoIterator<Item = &'a String>,
    ) -> Option<&'a String> {
        let mut statement = self
            .db
            .prepare("SELECT EXISTS (SELECT 1 FROM inbound WHERE sid = ?1)")
            .unwrap();
        sids.into_iter().find(|sid| {
            let digits = u128::from_str_radix(&sid[2..], 16).unwrap();
            let key = [&b"S"[..], &digits.to_be_bytes()].concat();
            let is_stored: bool = statement.query_row([key], |row| row.get(0)).unwrap();
            !is_stored
        })
    }
}
