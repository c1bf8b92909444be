//! File descriptors: as many connections as there can be, and always some to spare for whoever asks after our health.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the listeners, the private ones' connections, files and outgoing calls, and as many evicted connections as may not
/// have ended yet.
const SPARE: u64 = 128;

/// Raises this process's limit as far as `connections` need and the system lets it, and returns how many there can be.
pub(crate) fn room_for(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + SPARE;
    let Some(mut current) = limit.current else {
        return connections;
    };
    if current < wanted {
        let raised = limit
            .maximum
            .map_or(wanted, |most| most.min(wanted))
            .max(current);
        let new = Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, new).is_ok() {
            current = raised;
        }
    }
    // Where there are very few, half of them.
    let room = current.saturating_sub(SPARE).max(current / 2).max(1);
    usize::try_from(room).map_or(connections, |room| room.min(connections))
}
