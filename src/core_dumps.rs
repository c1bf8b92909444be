//! Core dumps: a server's memory holds tokens, phone numbers and messages, and a crash must not write them to a file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Keeps this process from being dumped, and its memory from other processes of the same user.
///
/// It is not an error if the system refuses one of the two, since the other one suffices for a core file.
pub(crate) fn disable() {
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "the limit of core dumps could not be set");
    }
    // The limit does not count where the kernel hands core dumps to a program, as with systemd-coredump.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::warn!(%error, "core dumps could not be disabled");
        }
    }
}
