//! Quick messages of one user as one turn (`reply.debounce_ms`).
//!
//! The first of them is claimed as any other, and waits for the pause after the last before its handler runs. The others
//! wait behind it in the journal all the time, and are answered with it in one transaction; until then each is a message of
//! its own. So whatever fails or ends meanwhile, they are still in line.

use std::time::Duration;

use jiff::Timestamp;

use super::Dispatcher;
use crate::clock::after;
use crate::form::Form;
use crate::message::InboundMessage;
use crate::store::{Behind, Claim};

/// Messages of a turn beside the first.
const MOST: u32 = 100;

impl Dispatcher {
    /// Waits for the end of what a message may be the beginning of, and takes the rest of that into it. Returns the numbers
    /// of what it took. `arrived` is when it came, by
    /// [`Clock::monotonic`](crate::clock::Clock::monotonic), and `deadline` how long Twilio waits for its answer.
    pub(super) async fn gather(
        &self,
        claim: Claim,
        message: &mut InboundMessage,
        arrived: Duration,
        deadline: Duration,
    ) -> Vec<i64> {
        let (mut taken, came_at) = (Vec::new(), message.received_at);
        for behind in self.burst(claim, came_at, arrived, deadline).await {
            let params = Form::parse(behind.params.0.as_bytes(), usize::MAX).unwrap_or_default();
            let next = InboundMessage::parse(params, behind.received_at);
            // What cannot be read, or not be held by one message, is left in line with all that follows it.
            if !next.is_ok_and(|next| message.absorb(next)) {
                break;
            }
            taken.push(behind.id);
        }
        taken
    }

    /// What follows a message without a pause, once there is one.
    async fn burst(
        &self,
        claim: Claim,
        came_at: Timestamp,
        arrived: Duration,
        deadline: Duration,
    ) -> Vec<Behind> {
        let pause = self.limits.merge;
        // The handler keeps at least the other half of the time.
        let most = deadline / 2;
        // From the first message to the end of the turn.
        let mut length = pause.min(most);
        loop {
            // A second attempt is at something that was whole before.
            if claim.attempt == 1 {
                // The wall clock may have been set since: it compares messages, and does not time the pause.
                self.clock.sleep_until_monotonic(arrived + length).await;
            }
            let asked = self.patient("behind", self.store.behind(claim, MOST));
            let Ok(mut behind) = asked.await else {
                return Vec::new();
            };
            let mut last = came_at;
            let follows = behind.iter().take_while(|next| {
                let follows = next.received_at <= after(last, pause);
                last = last.max(next.received_at);
                follows
            });
            let number = follows.count();
            behind.truncate(number);
            let last = behind.iter().map(|next| next.received_at).max();
            let last = last.unwrap_or(came_at).duration_since(came_at);
            let end = (Duration::try_from(last).unwrap_or_default() + pause).min(most);
            if end <= length || claim.attempt > 1 {
                return behind;
            }
            length = end;
        }
    }
}
