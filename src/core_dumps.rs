//! Protection from core dumps: the memory of a server holds tokens, phone numbers and messages, which a crash must not
//! write to a file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Disables core dumps of this process. On Linux, other processes of the same user cannot read its memory any more
/// either.
///
/// A failure of one measure is only logged, since the other one usually prevents a core file by itself.
pub(crate) fn disable() {
    // The soft limit suffices. The hard limit stays as the system has set it.
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "could not set the core dump size limit to 0");
    }
    // The limit has no effect if the kernel pipes core dumps to a program, such as systemd-coredump.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::warn!(%error, "could not make the process non-dumpable");
        }
    }
}
