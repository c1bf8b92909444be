//! The outbox's worker: what goes by REST is claimed, sent once, and settled; a call whose fate is unknown is looked for
//! in Twilio's list before anything else happens to it.
//!
//! `POST Messages` has no idempotency key. So a call is repeated only where Twilio says that it was not processed (429)
//! or where it never left this machine. Anything else is *unknown*: a status callback, whose URL carries our name for the
//! message, proves that it was taken; else the list does; and if neither has it, it is *held* for the operator, or sent
//! again where `outbound.on_unknown = "resend"` says that twice is better than never.

mod call_back;
mod credentials;
mod health;
mod look;
mod route;
mod send;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use credentials::Keyring;
pub(crate) use health::RestHealth;
use jiff::SignedDuration;
pub(crate) use route::{Route, Routes};
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::store::{OutboundMessage, Settlement, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{StoreReport, Throttle};

/// Calls at once.
const AT_ONCE: usize = 16;
/// How often the store is asked without a reason: another process may have put something in.
const PAUSE: Duration = Duration::from_secs(1);
/// What has not been sent after this long is not sent any more: nobody expects the answer.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// How long a call's status callback gets to prove that it was taken, before the list is searched.
const GRACE: Duration = Duration::from_secs(2);

/// What sends.
pub(crate) struct Delivery {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) routes: Routes,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: DeliveryPolicy,
    pub(crate) tasks: TaskTracker,
    /// There is something to send.
    pub(crate) outbox: Arc<Notify>,
    /// Somebody has opted out.
    pub(crate) opted_out: Arc<Notify>,
    pub(crate) health: Arc<RestHealth>,
    pub(crate) store_report: StoreReport,
    pub(crate) warnings: Throttle,
}

/// What happens to messages that cannot simply be sent.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryPolicy {
    pub(crate) on_unknown: OnUnknown,
    /// The template that takes the place of a reply whose customer service window has closed.
    pub(crate) late_template: Option<String>,
    /// Whether a template needs a recorded opt-in.
    pub(crate) consent_required: bool,
}

/// What happens to a message of which Twilio's list knows nothing.
///
/// Part of [`Settings`](crate::config::Settings), which says how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// It waits for the operator: never twice.
    Hold,
    /// It is sent again: rather twice than never.
    Resend,
}

impl Delivery {
    /// Sends what there is, for as long as it is polled.
    pub(crate) async fn work(self: Arc<Self>) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            // At least one place: claiming for later would hold up other machines.
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            drop(place);
            let more = self.round(&places).await.unwrap_or(false);
            if !more {
                let _ = tokio::time::timeout(PAUSE, self.outbox.notified()).await;
            }
        }
    }

    /// Returns whether something was found, so that there may be more.
    async fn round(self: &Arc<Self>, places: &Arc<Semaphore>) -> Result<bool, ()> {
        let now = self.clock.now();
        let free = places.available_permits();
        let claimed = self.asked("claim", self.store.claim(free, now).await)?;
        let lost = self.asked("unknown", self.store.unknown(AT_ONCE, now).await)?;
        let found = !claimed.is_empty();
        for message in claimed {
            let (delivery, places) = (self.clone(), places.clone());
            self.tasks.spawn(async move {
                let _place = places.acquire_owned().await;
                delivery.send(message).await;
                delivery.outbox.notify_one();
            });
        }
        if !lost.is_empty() {
            let delivery = self.clone();
            // One after the other: two that say the same must not find the same one.
            self.tasks.spawn(async move {
                for message in lost {
                    delivery.look_for(message).await;
                }
            });
        }
        Ok(found)
    }

    /// Writes down what became of a message; for as long as the store is away, again and again.
    async fn settle(&self, message: &OutboundMessage, settlement: Settlement) {
        loop {
            let settled = self
                .store
                .settle(message.id, settlement.clone(), self.clock.now())
                .await;
            if self.asked("settle", settled).is_ok() {
                self.metrics.reply(&settlement);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn asked<T>(&self, step: &'static str, outcome: Result<T, StoreError>) -> Result<T, ()> {
        outcome.map_err(|error| self.store_report.failed(step, &error))
    }
}
