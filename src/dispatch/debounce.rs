//! Debounce: quick messages of one user become one message for the handler (`reply.debounce_ms`).
//!
//! The first message is claimed as usual, and waits for a pause after the last one before its handler runs. The others
//! stay queued behind it in the journal, and are completed in the transaction that saves the reply. If anything fails
//! before that, they are still queued.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::deadlines::Deadlines;
use super::store_monitor::StoreMonitor;
use crate::clock::{Clock, after};
use crate::form::FormParams;
use crate::message::InboundMessage;
use crate::store::{Claim, QueuedMessage, Store};

/// Maximum number of messages that are merged into the first.
const MAX_MERGED: u32 = 100;

/// Merging of quick messages.
pub(super) struct Debounce {
    pub(super) store: Arc<dyn Store>,
    pub(super) monitor: Arc<StoreMonitor>,
    pub(super) clock: Arc<dyn Clock>,
    /// Pause that separates messages of a burst from the next one. Zero: no messages are merged.
    pub(super) pause: Duration,
}

impl Debounce {
    pub(super) fn is_enabled(&self) -> bool {
        !self.pause.is_zero()
    }

    /// Waits for the end of a burst and merges it into `message`, its first message. Returns the ids
    /// of the merged messages.
    pub(super) async fn merge_burst(
        &self,
        claim: Claim,
        message: &mut InboundMessage,
        deadlines: &Deadlines,
    ) -> Vec<i64> {
        let mut merged = Vec::new();
        for behind in self.burst(claim, message.received_at, deadlines).await {
            let params =
                FormParams::parse(behind.params.0.as_bytes(), usize::MAX).unwrap_or_default();
            let next = InboundMessage::parse(params, behind.received_at);
            // A message that cannot be parsed or merged, such as a second tap on a button, ends the burst. It stays
            // queued, and so do all later ones. This preserves their order.
            if !next.is_ok_and(|next| message.absorb(next)) {
                break;
            }
            merged.push(behind.id);
        }
        merged
    }

    /// Waits for a pause of the user, and returns the messages that followed before it.
    async fn burst(
        &self,
        claim: Claim,
        first_at: Timestamp,
        deadlines: &Deadlines,
    ) -> Vec<QueuedMessage> {
        let pause = self.pause;
        let max_length = deadlines.debounce_until.saturating_sub(deadlines.received);
        // Time from the first message to the end of the burst, as far as it is known.
        let mut length = pause.min(max_length);
        loop {
            // A further attempt does not wait: the pause is over since the first one.
            if claim.attempt == 1 {
                // Monotonic: the wall clock may be set while this waits. Its times only compare
                // messages with each other.
                self.clock
                    .sleep_until_monotonic(deadlines.received + length)
                    .await;
            }
            let query = self.store.queued_behind(claim, MAX_MERGED);
            let query = self.monitor.timed("queued_behind", query);
            let Ok(mut behind) = query.await else {
                // The store failed: handle the first message alone. The others stay queued.
                return Vec::new();
            };
            // The burst ends before the first message that came more than a pause after the one before it. `max`, since
            // the wall clock may have been set back between two messages.
            let mut last = first_at;
            let follows = behind.iter().take_while(|next| {
                let follows = next.received_at <= after(last, pause);
                last = last.max(next.received_at);
                follows
            });
            let count = follows.count();
            behind.truncate(count);
            let last = behind.iter().map(|next| next.received_at).max();
            let last = last.unwrap_or(first_at).duration_since(first_at);
            let end = (Duration::try_from(last).unwrap_or_default() + pause).min(max_length);
            // The pause after the last message, or half of the deadline, is over.
            if end <= length || claim.attempt > 1 {
                return behind;
            }
            length = end;
        }
    }
}
