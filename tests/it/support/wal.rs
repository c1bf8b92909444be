//! SQLite's write-ahead log and its index, as a dead process has left them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Offsets in the index: up to which frame a checkpoint has copied, and up to which one was attempted.
const BACKFILLED: usize = 96;
const ATTEMPTED: usize = 128;

/// Number of valid frames of a log. Each checksum continues the one before.
#[derive(Debug, PartialEq, Eq)]
pub struct Frames {
    /// Frames up to the last commit.
    pub committed: usize,
    /// Frames after it, from a transaction that never committed.
    pub torn: usize,
}

/// Path of the database with `suffix` appended, such as `-wal`.
pub fn path_with_suffix(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Length of the log, read without opening it.
pub fn bytes(database: &Path) -> u64 {
    let metadata = path_with_suffix(database, "-wal").metadata();
    metadata.map_or(0, |metadata| metadata.len())
}

/// Length in bytes at which a checkpoint of the log is due.
pub const CHECKPOINT_DUE: u64 = 8_000 * 4_096;

/// Fills the log of a running server, so that its next commit finds a checkpoint due.
pub fn fill_log(database: &Path) {
    let db = rusqlite::Connection::open(database).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE filler AS SELECT zeroblob({CHECKPOINT_DUE}); DROP TABLE filler"
    ))
    .unwrap();
    assert!(bytes(database) > CHECKPOINT_DUE);
}

/// Salts of the current log. They change when the log starts from the beginning.
pub fn salts(database: &Path) -> [u8; 8] {
    let mut header = [0; 24];
    let mut log = std::fs::File::open(path_with_suffix(database, "-wal")).unwrap();
    std::io::Read::read_exact(&mut log, &mut header).unwrap();
    header[16..].try_into().unwrap()
}

/// Number of transactions that were committed since the log started.
pub fn commits(database: &Path) -> usize {
    let log = std::fs::read(path_with_suffix(database, "-wal")).unwrap();
    let page = usize::try_from(word(&log, 8)).unwrap();
    let salts = &log[16..24];
    let frames = log[HEADER..].chunks_exact(FRAME_HEADER + page);
    let current = frames.take_while(|frame| &frame[8..16] == salts);
    current.filter(|frame| word(frame, 4) > 0).count()
}

pub fn frames(database: &Path) -> Frames {
    let log = std::fs::read(path_with_suffix(database, "-wal")).unwrap();
    let mut frames = Frames {
        committed: 0,
        torn: 0,
    };
    if log.len() < HEADER {
        return frames;
    }
    let big_endian = word(&log, 0) & 1 == 1;
    let page = usize::try_from(word(&log, 8)).unwrap();
    let salts = &log[16..24];
    let mut sum = checksum([0, 0], &log[..24], big_endian);
    assert_eq!(sum, [word(&log, 24), word(&log, 28)], "the log's header");
    for frame in log[HEADER..].chunks_exact(FRAME_HEADER + page) {
        let (header, content) = frame.split_at(FRAME_HEADER);
        sum = checksum(checksum(sum, &header[..8], big_endian), content, big_endian);
        if &header[8..16] != salts || sum != [word(header, 16), word(header, 20)] {
            break;
        }
        frames.torn += 1;
        if word(header, 4) > 0 {
            frames.committed += std::mem::take(&mut frames.torn);
        }
    }
    frames
}

/// Time of the last write to the database file. Only checkpoints write to it.
pub fn last_copied(database: &Path) -> SystemTime {
    database.metadata().unwrap().modified().unwrap()
}

/// Returns true if a checkpoint of the last server was interrupted while it copied.
///
/// `before` is the time of the last write to the database before that server started. A recovery leaves the index in
/// the state of an interrupted checkpoint, but does not write to the database. Call this only while no connection of
/// this process is open: closing the file releases their locks.
pub fn was_checkpoint_interrupted(database: &Path, before: SystemTime) -> bool {
    let index = std::fs::read(path_with_suffix(database, "-shm")).unwrap();
    let number = |at: usize| u32::from_ne_bytes(index[at..at + 4].try_into().unwrap());
    last_copied(database) > before && number(ATTEMPTED) > number(BACKFILLED)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn checksum(sum: [u32; 2], bytes: &[u8], big_endian: bool) -> [u32; 2] {
    let word = |four: &[u8]| {
        let four = four.try_into().unwrap();
        if big_endian {
            u32::from_be_bytes(four)
        } else {
            u32::from_le_bytes(four)
        }
    };
    bytes.chunks_exact(8).fold(sum, |[a, b], eight| {
        let a = a.wrapping_add(word(&eight[..4])).wrapping_add(b);
        let b = b.wrapping_add(word(&eight[4..])).wrapping_add(a);
        [a, b]
    })
}
