//! Messages that nobody waits for: deferred before their turn came, or left behind by a process that ended. They are
//! handled as any other, in the order of their conversation, and answered by REST.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Arrived, Course, Dispatcher, Slot};
use crate::clock::after;
use crate::form::Form;
use crate::message::InboundMessage;
use crate::sid::MessageSid;
use crate::store::{DeadMessage, DeadReason, Decision, Taken};
use crate::twiml::Document;

/// How often the store is asked without a reason: another process may have ended.
const PAUSE: Duration = Duration::from_secs(1);
/// How soon the store is asked again whether all that other machines told is entered.
const LOOK: Duration = Duration::from_millis(500);
/// Messages that are taken up at once.
const MOST: usize = 64;
/// What was claimed longer ago, and is in nobody's hands here, was lost on the way from the store.
const FORGOTTEN: Duration = Duration::from_secs(20);

impl Dispatcher {
    /// Takes up what is left behind, for as long as it is polled.
    pub(crate) async fn work_off(self: Arc<Self>) {
        loop {
            let more = self.take_up().await.unwrap_or(false);
            if !more {
                let _ = tokio::time::timeout(PAUSE, self.state.backlog.notified()).await;
            }
        }
    }

    /// Returns whether there may be more.
    async fn take_up(self: &Arc<Self>) -> Result<bool, ()> {
        let now = self.clock.now();
        self.enter().await?;
        if !self.is_over_elsewhere().await {
            return Ok(false);
        }
        if self.state.store_failed.swap(false, Ordering::Relaxed) {
            let before = now.checked_sub(FORGOTTEN).unwrap_or(now);
            let held = self.state.held.ids();
            if let Err(error) = self.store.let_go(held, before).await {
                self.store_failed("let_go", &error);
                return Err(());
            }
        }
        let free = self
            .limits
            .running
            .saturating_sub(self.state.running.load(Ordering::Relaxed));
        let limit = free.min(MOST);
        if limit == 0 {
            return Ok(false);
        }
        let taken_up = match self.store.take_up(limit, self.limits.crashes, now).await {
            Ok(taken_up) => taken_up,
            Err(error) => {
                self.store_failed("take_up", &error);
                return Err(());
            }
        };
        let more = taken_up.taken.len() + taken_up.dead.len() == limit;
        for message in taken_up.dead {
            self.report_dead(message);
        }
        for taken in taken_up.taken {
            // The slots are counted above; one more or less does no harm.
            let place = Slot::take(self);
            self.metrics.taken_up.increment(1);
            let claim = &taken.claim;
            self.state.deferred.remove(claim.conversation, claim.id);
            self.tasks.spawn(self.clone().handle_taken(taken, place));
        }
        Ok(more)
    }

    /// Enters what fallback calls were told from memory.
    async fn enter(&self) -> Result<(), ()> {
        let entered = self.state.outage.enter(&*self.store).await;
        self.metrics.outage_answers(self.state.outage.number());
        entered.map_err(|error| self.store_failed("enter", &error))
    }

    /// The same for as long as it is polled, where nothing else is taken up any more.
    pub(crate) async fn keep_entering(&self) {
        loop {
            self.enter_all().await;
            let _ = tokio::time::timeout(PAUSE, self.state.backlog.notified()).await;
        }
    }

    /// The same until nothing is left, however long the store stays away.
    pub(crate) async fn enter_all(&self) {
        while self.enter().await.is_err() || self.state.outage.number() > 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How many messages were answered from memory, and are not in the journal.
    pub(crate) fn outage_answers(&self) -> usize {
        self.state.outage.number()
    }

    /// Says which these are, at the end of the process. Returns whether there are any.
    pub(crate) fn forget_outage_answers(&self) -> bool {
        let sids = self.state.outage.sids();
        if sids.is_empty() {
            return false;
        }
        let names: Vec<_> = sids.iter().map(MessageSid::as_str).collect();
        let number = names.len();
        tracing::error!(
            number,
            message_sids = names.join(" "),
            "the store is still away: the journal does not have what these fallback calls were answered. `replyhook reconcile` enters such messages, and they are then answered by REST"
        );
        true
    }

    /// Waits until no other machine can have told something that the journal does not have.
    pub(super) async fn outage_over_elsewhere(&self) {
        while !self.is_over_elsewhere().await {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn is_over_elsewhere(&self) -> bool {
        // Without an apology nothing is told.
        if self.apology == Document::empty() {
            return true;
        }
        match self.state.outage.is_over_elsewhere(&*self.store).await {
            Ok(is_over) => is_over,
            Err(error) => {
                self.store_failed("others_entered", &error);
                false
            }
        }
    }

    async fn handle_taken(self: Arc<Self>, taken: Taken, place: Option<Slot>) {
        let now = self.clock.now();
        let params = Form::parse(taken.params.0.as_bytes(), usize::MAX).unwrap_or_default();
        let waited = Duration::try_from(now.duration_since(taken.received_at)).unwrap_or_default();
        let arrived = Arrived {
            monotonic: self.clock.monotonic().saturating_sub(waited),
            deadline: after(now, self.limits.handler),
        };
        let course = Course::unattended(self.clone(), arrived);
        match InboundMessage::parse(params, taken.received_at) {
            Ok(message) => course.take_over(Box::new(message), taken, place).await,
            Err(error) => {
                tracing::error!(message_sid = %taken.sid, %error, "a kept message cannot be read");
                let failed = self
                    .store
                    .fail(taken.claim, "it cannot be read", true)
                    .await;
                match failed {
                    Ok(Decision::Deferred) => self.report_dead(DeadMessage {
                        sid: taken.sid,
                        reason: DeadReason::Unreadable,
                    }),
                    Ok(_) => {}
                    Err(error) => self.store_failed("fail", &error),
                }
            }
        }
    }
}
