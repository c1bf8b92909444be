//! [`ServeRuntime`]: the runtime of `serve`, with a handler of SIGHUP from the start.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::runtime::runtime;

/// Runtime and SIGHUP handler of `serve`.
pub(crate) struct ServeRuntime {
    pub(crate) runtime: Runtime,
    pub(crate) hangup: Signal,
}

impl ServeRuntime {
    /// Starts the runtime if the command line names `serve`, without parsing it.
    // Called before anything else: until a handler is installed, SIGHUP ends the process. Other commands must end on SIGHUP.
    pub(crate) fn start_if_serving() -> Option<std::io::Result<Self>> {
        let command = std::env::args_os().nth(1)?;
        (command == "serve").then(Self::start)
    }

    /// Starts the runtime and installs the handler.
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = runtime()?;
        let context = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        drop(context);
        Ok(Self { runtime, hangup })
    }
}
