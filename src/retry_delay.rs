//! [`retry_delay`]: the pause before the next attempt of a call that failed.

use std::time::Duration;

/// Maximum pause, without jitter.
const MAX_DELAY: Duration = Duration::from_mins(5);

/// Returns the pause after an attempt, counted from 1.
///
/// Doubles from `first` to 5 min; jitter adds up to the same again.
// Jitter spreads calls that failed at the same time.
pub(crate) fn retry_delay(attempt: u32, first: Duration) -> Duration {
    // At most 16 doublings, which exceed the maximum for any `first` of at least 5 ms.
    let doublings = attempt.saturating_sub(1).min(16);
    let delay = first.saturating_mul(1 << doublings).min(MAX_DELAY);
    // Without random bytes the jitter is zero, which only lets calls coincide.
    let random = getrandom::u32().unwrap_or_default();
    delay + delay.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Jitter adds up to the delay itself.
    #[test]
    fn retry_delay_doubles_up_to_five_minutes() {
        for (attempt, min, max) in [
            (1, 1, 2),
            (2, 2, 4),
            (5, 16, 32),
            (12, 300, 600),
            (u32::MAX, 300, 600),
        ] {
            let pause = retry_delay(attempt, Duration::from_secs(1)).as_secs_f64();
            assert!(
                (f64::from(min)..=f64::from(max)).contains(&pause),
                "{attempt}: {pause}"
            );
        }
    }

    #[test]
    fn retry_delay_has_jitter() {
        let delays = [(); 8].map(|()| retry_delay(1, Duration::from_secs(1)));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
