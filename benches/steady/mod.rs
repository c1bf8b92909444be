//! Requests at a steady rate, and their response times.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Sends one request in each interval, whether or not the server keeps up. Each sender has a thread and sends one request at
/// a time.
///
/// Returns the times from the moment at which a request was due to the end of `send`, in milliseconds, sorted.
// The time does not begin with `send`. Otherwise requests that wait for a free sender, because the server is slow, would not
// count as slow.
pub(crate) fn response_times<S: Send>(
    senders: impl IntoIterator<Item = S>,
    requests: &[Vec<u8>],
    interval: Duration,
    send: impl Fn(&mut S, &[u8]) + Sync,
) -> Vec<f64> {
    // Relaxed: it hands out each number once, and the requests do not change.
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let threads = senders.into_iter().map(|mut sender| {
            let (next, send) = (&next, &send);
            scope.spawn(move || {
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(number) else {
                        return times;
                    };
                    let number = u32::try_from(number).expect("there are few requests");
                    let due = started + interval * number;
                    sleep(due.saturating_duration_since(Instant::now()));
                    send(&mut sender, request);
                    times.push(due.elapsed().as_secs_f64() * 1e3);
                }
            })
        });
        // `collect` starts all threads before the first is joined.
        let threads: Vec<_> = threads.collect();
        let times = threads
            .into_iter()
            .map(|thread| thread.join().expect("a sender thread does not panic"));
        times.flatten().collect()
    });
    times.sort_by(f64::total_cmp);
    times
}

/// Returns a percentile of sorted times.
pub(crate) fn percentile(times: &[f64], percent: usize) -> f64 {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
