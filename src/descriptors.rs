//! The open-file limit, and the number of connections that it allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that public connections must leave free: for the listeners, the connections of the private listener,
/// files, outgoing calls, and evicted connections that are not closed yet.
const RESERVED_DESCRIPTORS: u64 = 160;

/// Raises the open-file limit as far as `connections` need and the hard limit allows, and returns the number of
/// connections that fit into it, at most `connections`.
pub(crate) fn max_connections(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = connections as u64 + RESERVED_DESCRIPTORS;
    // `None` means unlimited.
    let Some(mut current) = limit.current else {
        return connections;
    };
    if current < needed {
        // An unprivileged process may raise its soft limit up to the hard limit. `max` keeps the call from lowering it.
        let raised = limit
            .maximum
            .map_or(needed, |max| max.min(needed))
            .max(current);
        let new_limit = Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, new_limit).is_ok() {
            current = raised;
        }
    }
    // With a limit below twice the reserve, connections get half of it. At least one, so that the server can serve.
    let allowed = current
        .saturating_sub(RESERVED_DESCRIPTORS)
        .max(current / 2)
        .max(1);
    usize::try_from(allowed).map_or(connections, |allowed| allowed.min(connections))
}
