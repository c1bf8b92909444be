//! Busy handler: waits for a lock that another process holds, such as a running `replyhook purge --expired`.

use std::cell::Cell;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pause between two attempts to get the lock.
// A command holds the lock for a few milliseconds. SQLite's own busy timeout sleeps longer each time, up to 100 ms, so
// a message would often wait several times as long as the lock is held.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

thread_local! {
    /// Start of the current wait.
    // Per thread, because a busy handler has no state of its own. SQLite calls it on the thread that uses the
    // connection, and a thread waits for one lock at a time.
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Sleeps and returns true, until `SECONDS` have passed since attempt 0 of this wait. Then returns false.
pub(super) fn wait<const SECONDS: u64>(attempt: i32) -> bool {
    if attempt == 0 {
        START.set(Some(Instant::now()));
    }
    // Measured rather than counted: on a busy machine a sleep takes longer, and a server's wait has to end before its
    // `OPERATION_TIMEOUT`.
    let waited = START.get().map_or(Duration::ZERO, |start| start.elapsed());
    let is_waiting = waited < Duration::from_secs(SECONDS);
    if is_waiting {
        sleep(RETRY_INTERVAL);
    }
    is_waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_has_the_whole_time() {
        assert!(!wait::<0>(0));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(2));
        START.set(long_ago);
        assert!(!wait::<1>(1), "a wait of one second goes on after two");
        assert!(wait::<1>(0), "a new wait has the start of the old one");
        assert!(wait::<1>(1));
    }
}
