//! Claims that a failed store operation may have left behind, and the time to release them.

use std::sync::Mutex;
use std::time::Duration;

use crate::lock::IgnorePoison;

/// Age after which a claim of this process that none of its tasks holds is stale.
// Longer than a claiming operation may take, so that a claim whose response is still on its way is not released.
pub(super) const STALE_CLAIM_AGE: Duration = Duration::from_secs(20);

/// Failures of the store whose claims were not released yet.
// An operation can be committed although it failed here: its response was lost, or a check after the commit failed. The
// message is then claimed by this process, so no other process handles it, and none of its tasks does.
#[derive(Debug, Default)]
pub(super) struct StaleClaims(Mutex<Option<Failures>>);

/// Times of [`Clock::monotonic`](crate::clock::Clock::monotonic).
#[derive(Debug, Clone, Copy)]
struct Failures {
    /// Claims of the earliest failure are stale from this time on.
    due: Duration,
    latest: Duration,
}

impl StaleClaims {
    /// Records a failed operation.
    pub(super) fn record_failure(&self, now: Duration) {
        let mut failures = self.0.lock().ignore_poison();
        match &mut *failures {
            // `due` stays: a store that fails again and again must not delay the release without end.
            Some(failures) => failures.latest = failures.latest.max(now),
            None => {
                *failures = Some(Failures {
                    due: now.saturating_add(STALE_CLAIM_AGE),
                    latest: now,
                });
            }
        }
    }

    /// Returns whether claims are to be released now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        let failures = self.0.lock().ignore_poison();
        failures.is_some_and(|failures| now >= failures.due)
    }

    /// Records that all claims which were stale at `now` are released.
    pub(super) fn record_release(&self, now: Duration) {
        let mut failures = self.0.lock().ignore_poison();
        // The claim of a later failure was too young. It is released when it is stale.
        *failures = failures.and_then(|failures| {
            let due = failures.latest.saturating_add(STALE_CLAIM_AGE);
            (due > now).then_some(Failures { due, ..failures })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_every_failure_are_released_once_they_are_stale() {
        let at = Duration::from_secs;
        let claims = StaleClaims::default();
        assert!(!claims.is_due(at(100)));
        claims.record_failure(at(100));
        claims.record_failure(at(115));
        assert!(!claims.is_due(at(119)));
        assert!(claims.is_due(at(120)));
        claims.record_release(at(120));
        assert!(!claims.is_due(at(134)));
        assert!(claims.is_due(at(135)));
        claims.record_release(at(135));
        assert!(!claims.is_due(at(1000)));
    }
}
