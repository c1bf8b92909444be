//! The tokio runtime of commands.

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // At least two workers: a handler that blocks one must not delay the timer of `reply.deadline_ms`.
    let workers = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .max(2);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
}
