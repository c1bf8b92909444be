//! Waiting for a lock that another process holds, such as `replyhook purge --expired` beside a server.

use std::cell::Cell;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Interval at which a connection tries to get the lock.
// A command holds the lock for a few milliseconds. SQLite's own busy timeout sleeps longer each time, up to 100 ms, so
// a message would often wait several times as long as the lock is held.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

thread_local! {
    /// Begin of the present wait.
    // Per thread, because a busy handler has no state of its own. SQLite calls it on the thread that uses the
    // connection, and a thread waits for one lock at a time.
    static BEGIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Busy handler of a connection: sleeps and returns true until `SECONDS` have passed.
///
/// `attempt` counts from 0 for each wait.
pub(super) fn wait<const SECONDS: u64>(attempt: i32) -> bool {
    let now = Instant::now();
    let begin = match BEGIN.get() {
        Some(begin) if attempt > 0 => begin,
        _ => now,
    };
    BEGIN.set(Some(begin));
    // Measured rather than counted: on a busy machine a sleep takes longer, and a server's wait has to end before its
    // `OPERATION_TIMEOUT`.
    let goes_on = now.duration_since(begin) < Duration::from_secs(SECONDS);
    if goes_on {
        sleep(RETRY_INTERVAL);
    }
    goes_on
}
