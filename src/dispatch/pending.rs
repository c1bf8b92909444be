//! Handshake between the request of a message and the task that processes it.
//!
//! The request must not respond before the message is stored, and the task must know whether a response can still carry
//! its reply. Both ends share one [`HandshakeStage`] under one lock, so they never disagree:
//!
//! ```text
//! Accepting ── the task has stored the message ──> Accepted ── the task has an outcome ──> Resolved
//!     ├──────────── the request ends ─────────────────┴──────────────> Closed <──────────────┘
//!     └──────────── the request responds with 503 ─────────────────> GaveUp
//! ```

use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::deadlines::within;
use super::outcome::{DispatchOutcome, HandlerFailure};
use crate::lock::IgnorePoison;

/// Stage of the handshake.
enum HandshakeStage {
    /// The message is not stored yet. A request that gives up now responds with 503.
    Accepting,
    /// The message is stored, and a request waits for its outcome.
    Accepted(AcceptedMessage),
    /// The task has an outcome, and the request has not seen it yet.
    Resolved(DispatchOutcome),
    /// The request responded with 503 before the message was stored. Nothing leaves this stage.
    GaveUp,
    /// No request waits: it has ended, or there was none. Nothing leaves this stage.
    Closed,
}

/// A stored message, as its request knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AcceptedMessage {
    pub(super) id: i64,
    /// True if an earlier attempt of the handler failed.
    pub(super) failed_before: bool,
}

/// State of a message at the end of [`PendingResponse::accepted`].
pub(super) enum Acceptance {
    Accepted(AcceptedMessage),
    Resolved(DispatchOutcome),
    /// The message was not stored in time. If it is stored later, its task replies via the REST API.
    NotYet,
}

struct Handshake {
    stage: Mutex<HandshakeStage>,
    /// Notified when the handshake is resolved or closed. Either end may wait for it.
    ended: Notify,
    /// Notified when the message is stored, and when `ended` is. Only a request that is past one of its times waits for
    /// it.
    // Not the same as `ended`: the task starts the handler right after the message is stored, on the thread whose next
    // task is then the one just woken. A handler that blocks its thread would keep that request from its deadline.
    stored: Notify,
}

impl Handshake {
    // No code panics while it holds the lock, so the stage is whole even if the lock is poisoned.
    fn lock(&self) -> MutexGuard<'_, HandshakeStage> {
        self.stage.lock().ignore_poison()
    }

    /// Waits until `read` returns a value for the stage, which it reads now and after each notification.
    async fn wait_for<T>(
        &self,
        notify: &Notify,
        mut read: impl FnMut(&mut HandshakeStage) -> Option<T>,
    ) -> T {
        loop {
            // Created before the stage is read: `notify_waiters` also wakes a future that has not been polled yet, so a
            // change between the read and the `await` is not missed.
            let changed = notify.notified();
            if let Some(value) = read(&mut self.lock()) {
                return value;
            }
            changed.await;
        }
    }
}

/// The request's end. Dropping it, for example because the connection was closed, closes the handshake.
pub(super) struct PendingResponse(Arc<Handshake>);

/// The task's end. Dropping it without an outcome, because the task panicked, resolves the handshake as failed.
pub(super) struct Responder(Arc<Handshake>);

impl PendingResponse {
    /// Creates both ends.
    pub(super) fn pair() -> (Self, Responder) {
        let shared = Arc::new(Handshake {
            stage: Mutex::new(HandshakeStage::Accepting),
            ended: Notify::new(),
            stored: Notify::new(),
        });
        (Self(shared.clone()), Responder(shared))
    }

    /// Waits until the message is stored or resolved, at most until `accept_by`.
    ///
    /// [`Acceptance::NotYet`] means that the handshake is at [`HandshakeStage::GaveUp`]. It is moved there under the lock,
    /// so a task that stores the message later sees it: [`Responder::accepted`] returns false.
    pub(super) async fn accepted(&self, accept_by: Instant) -> Acceptance {
        let stored = self.0.wait_for(&self.0.stored, |stage| match stage {
            HandshakeStage::Accepting => None,
            HandshakeStage::Accepted(message) => Some(Acceptance::Accepted(*message)),
            _ => Some(take_outcome(stage).map_or(Acceptance::NotYet, Acceptance::Resolved)),
        });
        if let Ok(acceptance) = tokio::time::timeout_at(accept_by, stored).await {
            return acceptance;
        }
        let mut stage = self.0.lock();
        // The task may have stored the message since the timeout.
        if let HandshakeStage::Accepted(message) = *stage {
            return Acceptance::Accepted(message);
        }
        if let Some(outcome) = take_outcome(&mut stage) {
            return Acceptance::Resolved(outcome);
        }
        *stage = HandshakeStage::GaveUp;
        Acceptance::NotYet
    }

    /// Waits for the outcome until the timer that `timer` starts completes.
    pub(super) async fn resolved(
        &self,
        timer: impl FnOnce() -> BoxFuture<'static, ()>,
    ) -> Option<DispatchOutcome> {
        let outcome = self.0.wait_for(&self.0.ended, |stage| match stage {
            HandshakeStage::Accepting | HandshakeStage::Accepted(_) => None,
            _ => Some(take_outcome(stage)),
        });
        within(outcome, timer).await.flatten()
    }
}

/// Takes the outcome and closes the handshake. Returns `None`, and changes nothing, in any other stage.
fn take_outcome(stage: &mut HandshakeStage) -> Option<DispatchOutcome> {
    match std::mem::replace(stage, HandshakeStage::Closed) {
        HandshakeStage::Resolved(outcome) => Some(outcome),
        other => {
            *stage = other;
            None
        }
    }
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        {
            let mut stage = self.0.lock();
            if !matches!(*stage, HandshakeStage::GaveUp) {
                *stage = HandshakeStage::Closed;
            }
        }
        self.0.ended.notify_waiters();
    }
}

impl Responder {
    /// Creates the end of a task that no request waits for.
    pub(super) fn unattended() -> Self {
        Self(Arc::new(Handshake {
            stage: Mutex::new(HandshakeStage::Closed),
            ended: Notify::new(),
            stored: Notify::new(),
        }))
    }

    /// Publishes that the message is stored. Returns false if the request has given up and responded with 503.
    pub(super) fn accepted(&self, message: AcceptedMessage) -> bool {
        {
            let mut stage = self.0.lock();
            match *stage {
                // `Accepted` again: a redelivery that waited for another task's message has claimed it itself.
                HandshakeStage::Accepting | HandshakeStage::Accepted(_) => {
                    *stage = HandshakeStage::Accepted(message);
                }
                HandshakeStage::Resolved(_) | HandshakeStage::Closed => return true,
                HandshakeStage::GaveUp => return false,
            }
        }
        self.0.stored.notify_waiters();
        true
    }

    /// Sends the outcome to the request. Returns false if no request waits, or if an outcome was sent before.
    pub(super) fn resolve(&self, outcome: DispatchOutcome) -> bool {
        {
            let mut stage = self.0.lock();
            match *stage {
                HandshakeStage::Accepting | HandshakeStage::Accepted(_) => {
                    *stage = HandshakeStage::Resolved(outcome);
                }
                _ => return false,
            }
        }
        self.0.ended.notify_waiters();
        self.0.stored.notify_waiters();
        true
    }

    /// Returns whether a request waits for the outcome.
    pub(super) fn is_attended(&self) -> bool {
        matches!(
            *self.0.lock(),
            HandshakeStage::Accepting | HandshakeStage::Accepted(_)
        )
    }

    /// Waits until no request waits for the outcome.
    pub(super) async fn request_ended(&self) {
        let ended = |stage: &mut HandshakeStage| {
            matches!(stage, HandshakeStage::Closed | HandshakeStage::GaveUp).then_some(())
        };
        self.0.wait_for(&self.0.ended, ended).await;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.resolve(DispatchOutcome::Failed(HandlerFailure::Panic));
    }
}
