//! A limit on log lines that anyone on the internet can cause.

use std::sync::Mutex;
use std::time::Instant;

/// Lets a burst through and then one a second, and counts what it held back.
#[derive(Debug)]
pub(crate) struct Throttle {
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: f64,
    at: Instant,
    held: u64,
}

impl Throttle {
    pub(crate) fn new(burst: u32) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            state: Mutex::new(State {
                left: burst,
                at: Instant::now(),
                held: 0,
            }),
        }
    }

    /// Whether a line may be written now, and how many were held back before it.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        state.left = (state.left + now.duration_since(state.at).as_secs_f64()).min(self.burst);
        state.at = now;
        if state.left < 1.0 {
            state.held += 1;
            return None;
        }
        state.left -= 1.0;
        Some(std::mem::take(&mut state.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_held_and_counted() {
        let throttle = Throttle::new(3);
        let passed = (0..1000).filter(|_| throttle.pass().is_some()).count();
        assert!((3..100).contains(&passed), "{passed}");
        assert!(throttle.state.lock().unwrap().held > 900);
    }
}
