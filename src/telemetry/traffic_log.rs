//! [`TrafficLog`]: one log line for each minute that had messages.

use super::metrics::{Endpoint, Metrics, Outcome};

/// Number of messages by outcome.
type Counts = Vec<(Outcome, u64)>;

/// Logs the number of messages by outcome.
pub(crate) struct TrafficLog<'a> {
    metrics: &'a Metrics,
    before: Counts,
}

impl<'a> TrafficLog<'a> {
    pub(crate) fn new(metrics: &'a Metrics) -> Self {
        let before = counts(metrics);
        Self { metrics, before }
    }

    /// Logs the messages since the last call, if there were any. Call it once a minute.
    pub(crate) fn log_minute(&mut self) {
        let now = counts(self.metrics);
        if let Some((messages, outcomes)) = describe(&self.before, &now) {
            tracing::info!(messages, outcomes, "messages of the last minute");
        }
        self.before = now;
    }
}

/// Returns the requests that were messages. The others, such as those with a wrong signature, have log lines of their own.
fn counts(metrics: &Metrics) -> Counts {
    let is_message = |outcome: Outcome| {
        !matches!(
            outcome,
            Outcome::RejectedSignature
                | Outcome::RejectedAccount
                | Outcome::RejectedBody
                | Outcome::RejectedMethod
                | Outcome::BadForm
                | Outcome::ConversationEvent
                | Outcome::Disconnected
        )
    };
    let primary = metrics.outcomes(Endpoint::Primary);
    let fallback = metrics.outcomes(Endpoint::Fallback);
    let all = primary.chain(fallback.filter(|(outcome, _)| *outcome == Outcome::Fallback));
    all.filter(|(outcome, _)| is_message(*outcome)).collect()
}

/// Returns the number of messages between two counts, and the outcomes with their numbers; `None` without messages.
fn describe(before: &Counts, now: &Counts) -> Option<(u64, String)> {
    let new = before.iter().zip(now);
    let new = new.map(|((_, before), (outcome, now))| (*outcome, now.saturating_sub(*before)));
    let new: Counts = new.filter(|(_, number)| *number > 0).collect();
    // A fallback call is about a message that the primary call has counted.
    let primary = new
        .iter()
        .filter(|(outcome, _)| *outcome != Outcome::Fallback);
    let messages = primary.map(|(_, number)| number).sum();
    let outcomes = new
        .iter()
        .map(|(outcome, number)| format!("{} {number}", outcome.as_str()));
    let outcomes: Vec<_> = outcomes.collect();
    (!outcomes.is_empty()).then(|| (messages, outcomes.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_counts_messages_of_the_interval_by_outcome() {
        let metrics = Metrics::new();
        let count = |endpoint, outcome| metrics.webhook(endpoint, outcome, 0.1);
        count(Endpoint::Primary, Outcome::Ok);
        let before = counts(&metrics);
        assert_eq!(describe(&before, &before), None);
        count(Endpoint::Primary, Outcome::RejectedSignature);
        count(Endpoint::Status, Outcome::Ok);
        assert_eq!(describe(&before, &counts(&metrics)), None);
        count(Endpoint::Primary, Outcome::Ok);
        count(Endpoint::Primary, Outcome::Ok);
        count(Endpoint::Primary, Outcome::HandlerError);
        count(Endpoint::Fallback, Outcome::Fallback);
        let line = describe(&before, &counts(&metrics));
        let outcomes = "ok 2, handler_error 1, fallback 1".to_owned();
        assert_eq!(line, Some((3, outcomes)));
    }
}
