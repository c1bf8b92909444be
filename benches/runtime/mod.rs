//! The runtime of a benchmark.

use tokio::runtime::{Builder, Runtime};

/// Starts a runtime with this number of worker threads.
pub(crate) fn start(workers: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("a runtime starts")
}
