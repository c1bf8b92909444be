//! [`Throttle`]: a rate limit for log lines that any client can cause.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::IgnorePoison;

/// Token bucket: passes a burst of lines, then one per interval, and counts the suppressed lines.
#[derive(Debug)]
pub(crate) struct Throttle {
    burst: f64,
    interval: Duration,
    state: Mutex<TokenBucket>,
}

#[derive(Debug)]
struct TokenBucket {
    /// Tokens, one per line. Fractions accumulate.
    tokens: f64,
    /// Time of the last call, up to which tokens were added.
    refilled_at: Instant,
    /// Lines suppressed since the last one that passed.
    suppressed: u64,
}

impl Throttle {
    /// Creates a throttle that passes a burst of lines, then one per second.
    pub(crate) fn new(burst: u32) -> Self {
        Self::with_interval(burst, Duration::from_secs(1))
    }

    /// Creates a throttle that passes one line per interval.
    pub(crate) fn every(interval: Duration) -> Self {
        Self::with_interval(1, interval)
    }

    fn with_interval(burst: u32, interval: Duration) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            interval,
            state: Mutex::new(TokenBucket {
                tokens: burst,
                refilled_at: Instant::now(),
                suppressed: 0,
            }),
        }
    }

    /// Returns the number of suppressed lines if a line may be written now, else `None`.
    pub(crate) fn try_log(&self) -> Option<u64> {
        // A poisoned lock is harmless: each field is valid on its own.
        let mut state = self.state.lock().ignore_poison();
        let now = Instant::now();
        // One token per interval, never more than the burst.
        let elapsed = now.duration_since(state.refilled_at);
        state.tokens = (state.tokens + elapsed.div_duration_f64(self.interval)).min(self.burst);
        state.refilled_at = now;
        if state.tokens < 1.0 {
            state.suppressed += 1;
            return None;
        }
        state.tokens -= 1.0;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_passes_burst_and_counts_suppressed_lines() {
        let throttle = Throttle::new(3);
        let passed = (0..1000).filter(|_| throttle.try_log().is_some()).count();
        assert!((3..100).contains(&passed), "{passed}");
        assert!(throttle.state.lock().unwrap().suppressed > 900);
    }
}
