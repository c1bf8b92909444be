//! State of one connection of the accept loop, shared by its task, the table of connections and the layers that its
//! requests pass.
//!
//! hyper cannot say what a connection is doing: it counts one with a half-read head as idle. The stream reports what it
//! reads and writes, the accept loop when a request begins and is answered, the signature layer when one is verified.

mod budget;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

pub(crate) use self::budget::Budget;
use self::budget::FREE_BYTES;

/// Time for which a request that has begun protects a connection without a verified one.
const UNVERIFIED_PROTECTION: Duration = Duration::from_secs(1);

/// Flag beside the phase: the connection has carried a verified request.
const EVER_VERIFIED: u8 = 0x80;

/// Flag beside the phase: the request was dropped because the budget for unverified bytes was exhausted.
const DROPPED: u8 = 0x40;

/// No write is waiting for its peer.
const NOT_STALLED: u64 = u64::MAX;

/// Progress of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted, and not read from yet.
    Accepted,
    /// Nothing of a request has arrived.
    Idle,
    /// The first byte of a head has arrived, and its last has not.
    Head,
    /// The head is complete, the request is not verified.
    Unverified,
    /// A verified request is being answered.
    Verified,
    /// The response's body comes from elsewhere and has not ended.
    Streaming,
    /// The response is complete, and not yet written.
    Responding,
    /// The last response is written; what the peer still sends is read and thrown away.
    Closing,
    /// The connection gave up its place to another one.
    Evicted,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Idle,
        Self::Head,
        Self::Unverified,
        Self::Verified,
        Self::Streaming,
        Self::Responding,
        Self::Closing,
        Self::Evicted,
    ];

    /// Nothing is lost when the connection is closed.
    fn is_idle(self) -> bool {
        matches!(self, Self::Idle | Self::Closing)
    }

    fn of(bits: u8) -> Self {
        Self::ALL[usize::from(bits & !(EVER_VERIFIED | DROPPED))]
    }
}

/// Result of asking a connection for its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// It has given up its place and ends.
    Evicted,
    /// It may be asked again then.
    ProtectedUntil(Instant),
    /// It has carried a verified request and is idle since then.
    VerifiedIdle(Instant),
    /// It has carried a verified request and a request has begun.
    VerifiedBusy,
}

/// Shared state of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    id: u64,
    budget: Option<Arc<Budget>>,
    accepted: Instant,
    /// [`Phase`], [`EVER_VERIFIED`] and [`DROPPED`] in one word, so that an eviction cannot miss a request that has just begun.
    bits: AtomicU8,
    /// When the request began, or the connection became idle, in microseconds after `accepted`.
    since: AtomicU64,
    /// When a write began to wait for the peer; only the connection's task uses it.
    stalled_since: AtomicU64,
    /// Bytes of the next request arrived while one was being answered.
    has_next_bytes: AtomicBool,
    /// The response closes the connection, whatever the peer still sends.
    is_refused: AtomicBool,
    /// Bytes of the request that are not verified.
    received: AtomicUsize,
    /// Of these, what the budget was charged.
    charged: AtomicUsize,
    /// The budget knows the connection.
    is_listed: AtomicBool,
    shutting_down: AtomicBool,
    task: AtomicWaker,
}

impl ConnectionState {
    pub(crate) fn new(id: u64, budget: Option<Arc<Budget>>) -> Self {
        Self {
            id,
            budget,
            accepted: Instant::now(),
            bits: AtomicU8::new(Phase::Accepted as u8),
            since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(NOT_STALLED),
            has_next_bytes: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            received: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            is_listed: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::of(self.bits.load(Ordering::Acquire))
    }

    /// When the request began, or the connection became idle.
    pub(crate) fn since(&self) -> Instant {
        self.accepted + Duration::from_micros(self.since.load(Ordering::Acquire))
    }

    /// When a write began to wait for the peer, if one does.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        let micros = self.stalled_since.load(Ordering::Relaxed);
        (micros != NOT_STALLED).then(|| self.accepted + Duration::from_micros(micros))
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_micros()).unwrap_or(NOT_STALLED - 1)
    }

    /// Enters the phase that `next` returns for the present one; false if the connection was evicted.
    fn enter(&self, next: impl Fn(Phase) -> Phase) -> bool {
        let change = |bits| match Phase::of(bits) {
            Phase::Evicted => None,
            phase => Some(next(phase) as u8 | bits & (EVER_VERIFIED | DROPPED)),
        };
        let entered = self
            .bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        entered.is_ok()
    }

    /// Notes that a read found nothing.
    pub(crate) fn nothing_to_read(&self) {
        if self.phase() == Phase::Accepted {
            self.enter(|_| Phase::Idle);
        }
    }

    /// Notes bytes that were read; false if the connection was evicted or its request dropped.
    #[must_use]
    pub(crate) fn bytes_read(self: &Arc<Self>, bytes: usize) -> bool {
        let is_open = match self.phase() {
            Phase::Accepted | Phase::Idle => {
                self.since.store(self.micros(), Ordering::Release);
                self.enter(|_| Phase::Head)
            }
            Phase::Verified | Phase::Streaming | Phase::Responding | Phase::Closing => {
                self.has_next_bytes.store(true, Ordering::Relaxed);
                true
            }
            Phase::Head | Phase::Unverified => true,
            Phase::Evicted => false,
        };
        self.count(bytes);
        is_open && !self.is_dropped()
    }

    fn count(self: &Arc<Self>, bytes: usize) {
        let received = self.received.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(budget) = &self.budget
            && received > FREE_BYTES
        {
            let charge = bytes.min(received - FREE_BYTES);
            let is_first = !self.is_listed.swap(true, Ordering::AcqRel);
            budget.add(self, charge, is_first);
        }
    }

    /// Takes bytes that are not kept off the account.
    pub(crate) fn discard(&self, bytes: usize) {
        let lower = |count: usize| Some(count.saturating_sub(bytes));
        let _ = self
            .received
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
        let charged = self
            .charged
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, lower);
        if let (Some(budget), Ok(charged)) = (&self.budget, charged) {
            budget.subtract(charged.min(bytes));
        }
    }

    /// Closes the account of a request: it is verified, answered, or gone with its connection.
    pub(crate) fn release(&self) {
        self.received.store(0, Ordering::Relaxed);
        if let Some(budget) = &self.budget
            && self.is_listed.swap(false, Ordering::AcqRel)
        {
            budget.subtract(self.charged.swap(0, Ordering::AcqRel));
            budget.forget(self);
        }
    }

    /// Bytes a second since the request began.
    fn rate(&self, now: Instant) -> u64 {
        let time = now.duration_since(self.since()).as_micros().max(1);
        let received = self.received.load(Ordering::Relaxed) as u128;
        u64::try_from(received * 1_000_000 / time).unwrap_or(u64::MAX)
    }

    /// Drops the request if it is not verified, and returns what it was charged.
    fn drop_request(&self) -> Option<usize> {
        let change = |bits| match Phase::of(bits) {
            Phase::Head | Phase::Unverified => Some(bits | DROPPED),
            _ => None,
        };
        self.bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .ok()?;
        self.task.wake();
        Some(self.charged.swap(0, Ordering::AcqRel))
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.bits.load(Ordering::Acquire) & DROPPED != 0
    }

    /// Notes that a head is complete; false if the connection was evicted before.
    #[must_use]
    pub(crate) fn request_begins(&self) -> bool {
        if self.phase() != Phase::Head {
            // Its first byte was read together with the request before it.
            self.since.store(self.micros(), Ordering::Release);
        }
        self.has_next_bytes.store(false, Ordering::Relaxed);
        self.enter(|_| Phase::Unverified)
    }

    /// Notes that the request is verified; false if the connection was evicted, or the request dropped, before.
    #[must_use]
    pub(crate) fn verified(&self) -> bool {
        let verified = Phase::Verified as u8 | EVER_VERIFIED;
        let change = |bits| {
            let is_open = Phase::of(bits) != Phase::Evicted && bits & DROPPED == 0;
            is_open.then_some(verified)
        };
        let entered = self
            .bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        self.release();
        entered.is_ok()
    }

    /// Notes that the response is known, and whether its body is still to come.
    pub(crate) fn responds(&self, is_streaming: bool) {
        if self.phase() == Phase::Unverified {
            self.release();
        }
        let next = if is_streaming {
            Phase::Streaming
        } else {
            Phase::Responding
        };
        self.enter(|_| next);
    }

    /// Notes that the body of a response has ended.
    pub(crate) fn stream_ended(&self) {
        self.enter(|phase| match phase {
            Phase::Streaming => Phase::Responding,
            other => other,
        });
    }

    /// Notes that everything is written.
    pub(crate) fn flushed(&self) {
        if self.phase() != Phase::Responding {
            return;
        }
        self.since.store(self.micros(), Ordering::Release);
        let next = if self.has_next_bytes.load(Ordering::Relaxed) {
            Phase::Head
        } else {
            Phase::Idle
        };
        self.enter(|_| next);
    }

    /// Notes that the response to a request closes the connection.
    pub(crate) fn refused(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// Notes that nothing more is written; true if the peer may still be sending what was refused. To close while its bytes
    /// arrive would take the response from it.
    pub(crate) fn closes(&self) -> bool {
        if self.phase() == Phase::Closing {
            return true;
        }
        let lingers = self.phase() == Phase::Head || self.is_refused.load(Ordering::Relaxed);
        if lingers {
            self.since.store(self.micros(), Ordering::Release);
            self.enter(|_| Phase::Closing);
        }
        lingers
    }

    /// Notes whether a write waits for the peer.
    pub(crate) fn write_stalls(&self, stalls: bool) {
        let before = self.stalled_since.load(Ordering::Relaxed);
        if stalls && before == NOT_STALLED {
            self.stalled_since.store(self.micros(), Ordering::Relaxed);
        } else if !stalls && before != NOT_STALLED {
            self.stalled_since.store(NOT_STALLED, Ordering::Relaxed);
        }
    }

    /// Takes the place of a connection that has not carried a verified request, unless a request has just begun on it.
    pub(crate) fn evict_unverified(&self, now: Instant) -> Eviction {
        loop {
            let bits = self.bits.load(Ordering::Acquire);
            let (phase, since) = (Phase::of(bits), self.since());
            if bits & EVER_VERIFIED != 0 {
                return match phase {
                    phase if phase.is_idle() => Eviction::VerifiedIdle(since),
                    _ => Eviction::VerifiedBusy,
                };
            }
            let protected = since + UNVERIFIED_PROTECTION;
            if !phase.is_idle() && now < protected {
                return Eviction::ProtectedUntil(protected);
            }
            if self.evict(bits) {
                return Eviction::Evicted;
            }
        }
    }

    /// Takes the place of an idle connection that has carried a verified request, if it is idle since `since`.
    pub(crate) fn evict_idle(&self, since: Instant) -> Eviction {
        loop {
            let bits = self.bits.load(Ordering::Acquire);
            if !Phase::of(bits).is_idle() {
                return Eviction::VerifiedBusy;
            }
            let idle_since = self.since();
            if idle_since != since {
                return Eviction::VerifiedIdle(idle_since);
            }
            if self.evict(bits) {
                return Eviction::Evicted;
            }
        }
    }

    /// Evicts the connection if it is still in the phase that was looked at.
    fn evict(&self, bits: u8) -> bool {
        let evicted = Phase::Evicted as u8;
        let change = self
            .bits
            .compare_exchange(bits, evicted, Ordering::AcqRel, Ordering::Acquire);
        if change.is_ok() {
            self.task.wake();
        }
        change.is_ok()
    }

    /// Tells the connection's task that the server stops.
    pub(crate) fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// Names the task that is woken when something happens to the connection from outside.
    pub(crate) fn set_task(&self, waker: &Waker) {
        self.task.register(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Arc<ConnectionState> {
        Arc::new(ConnectionState::new(0, None))
    }

    fn later(state: &ConnectionState, time: Duration) -> Instant {
        state.since() + time
    }

    #[test]
    fn unread_connection_is_protected_for_a_second() {
        let state = new();
        let until = later(&state, UNVERIFIED_PROTECTION);
        let now = Instant::now();
        assert_eq!(state.evict_unverified(now), Eviction::ProtectedUntil(until));
        state.nothing_to_read();
        assert_eq!(state.evict_unverified(now), Eviction::Evicted);
        assert!(!state.bytes_read(1));
        assert!(!state.request_begins());
        assert!(!state.verified());
    }

    #[test]
    fn half_read_head_protects_an_unverified_connection_for_a_second() {
        let state = new();
        assert!(state.bytes_read(1));
        let until = later(&state, UNVERIFIED_PROTECTION);
        let just_before = later(&state, Duration::from_micros(999_999));
        // Further bytes do not prolong it.
        assert!(state.bytes_read(1));
        assert_eq!(
            state.evict_unverified(just_before),
            Eviction::ProtectedUntil(until)
        );
        assert_eq!(state.evict_unverified(until), Eviction::Evicted);
    }

    #[test]
    fn verified_connection_is_evicted_only_while_idle() {
        let state = new();
        let far = Instant::now() + Duration::from_hours(1);
        assert!(state.bytes_read(1) && state.request_begins() && state.verified());
        assert_eq!(state.evict_unverified(far), Eviction::VerifiedBusy);
        assert_eq!(state.evict_idle(far), Eviction::VerifiedBusy);
        state.responds(false);
        assert_eq!(state.evict_idle(far), Eviction::VerifiedBusy);
        state.flushed();
        let idle_since = state.since();
        assert_eq!(
            state.evict_unverified(far),
            Eviction::VerifiedIdle(idle_since)
        );
        // Half a head protects it, however old it is.
        assert!(state.bytes_read(1));
        assert_eq!(state.evict_unverified(far), Eviction::VerifiedBusy);
        assert!(state.request_begins() && state.verified());
        state.responds(false);
        state.flushed();
        let idle_since = state.since();
        assert_eq!(state.evict_idle(far), Eviction::VerifiedIdle(idle_since));
        assert_eq!(state.evict_idle(idle_since), Eviction::Evicted);
    }

    #[test]
    fn pipelined_bytes_begin_the_next_head() {
        let state = new();
        assert!(state.bytes_read(1) && state.request_begins() && state.verified());
        assert!(state.bytes_read(1));
        state.responds(false);
        state.flushed();
        assert_eq!(state.phase(), Phase::Head);
    }
}
