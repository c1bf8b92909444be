//! [`WatchedRuntime`]: SIGHUP never ends `serve`.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::runtime::runtime;

/// The runtime of `serve`, which watches for SIGHUP from its start on.
pub(crate) struct WatchedRuntime {
    pub(crate) runtime: Runtime,
    pub(crate) hangup: Signal,
}

impl WatchedRuntime {
    /// Starts the runtime if the command line names `serve`, without parsing it.
    // The first act of the program: until a handler is installed, SIGHUP ends the process. For other commands it must.
    pub(crate) fn start_if_serving() -> Option<std::io::Result<Self>> {
        let command = std::env::args_os().nth(1)?;
        (command == "serve").then(Self::start)
    }

    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = runtime()?;
        let context = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        drop(context);
        Ok(Self { runtime, hangup })
    }
}
