//! [`ConnectionState`]: the state of one connection, shared by its task, the connection table and the signature layer.
//!
//! hyper does not report the progress of a connection: one with a half-read head counts as idle there. So the parts of
//! the server report it here. The stream reports reads and writes, the exchange reports the begin of a request and of
//! its response, and the signature layer reports a verified request.
//!
//! The methods that report progress run in the connection's task. Only `evict_unverified`, `evict_idle`,
//! `bytes_per_second`, `drop_request` and `shut_down` are called from other tasks.

mod budget;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use replyhook_core::signature::layer::ConnectionHooks;

pub(crate) use self::budget::Budget;
use self::budget::{ChargedConnection, FREE_BYTES};

/// Time for which a newly begun request protects a connection that has never carried a verified request.
// Long enough for a request to arrive and be verified, too short to hold a connection by sending slowly.
const UNVERIFIED_PROTECTION: Duration = Duration::from_secs(1);

/// Flag in addition to the phase: the connection has carried a verified request.
const EVER_VERIFIED: u8 = 0x80;

/// Flag in addition to the phase: the request was dropped because the budget for unverified bytes was exhausted.
const DROPPED: u8 = 0x40;

/// Value of `stalled_since` while no write waits for the peer.
const NOT_STALLED: u64 = u64::MAX;

/// Progress of a connection.
// The values are stored in `ConnectionState::bits`; `ALL` is in the same order, so that `from_bits` can read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted; nothing was read yet, so bytes may be waiting.
    Accepted,
    /// No byte of the next request has arrived.
    Idle,
    /// The head of a request is incomplete.
    Head,
    /// The head is complete, and the request is not verified.
    Unverified,
    /// The request is verified, and has no response yet.
    Verified,
    /// The body of the response is a stream that has not ended.
    Streaming,
    /// The response is complete, and not completely written.
    Responding,
    /// The last response is written. Further bytes of the peer are read and discarded.
    Closing,
    /// The connection was closed for another one.
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

    /// Returns true if closing the connection interrupts no request.
    fn is_idle(self) -> bool {
        matches!(self, Self::Idle | Self::Closing)
    }

    fn from_bits(bits: u8) -> Self {
        Self::ALL[usize::from(bits & !(EVER_VERIFIED | DROPPED))]
    }
}

/// Result of an attempt to evict a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// The connection is evicted and ends.
    Evicted,
    /// A request has just begun. The connection can be evicted from this time on.
    ProtectedUntil(Instant),
    /// The connection has carried a verified request, and has been idle since this time.
    VerifiedIdle(Instant),
    /// The connection has carried a verified request, and is not idle.
    VerifiedBusy,
}

/// Shared state of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    id: u64,
    budget: Option<Arc<Budget>>,
    accepted_at: Instant,
    /// [`Phase`], [`EVER_VERIFIED`] and [`DROPPED`].
    // One word, changed by compare-and-swap: an eviction or a drop never overwrites a phase that it has not checked,
    // such as that of a request that has just begun or was just verified. AcqRel on success, so that the thread that
    // sees a phase also sees the `since` stored before it.
    bits: AtomicU8,
    /// Begin of the request, or of the idle time, in microseconds after `accepted_at`.
    // Stored with Release before the phase changes: another thread may briefly see the new time with the old phase, and
    // then its compare-and-swap of `bits` decides.
    since: AtomicU64,
    /// Time at which a write began to wait for the peer, in microseconds after `accepted_at`, or [`NOT_STALLED`].
    // Relaxed, like the two flags below: only the connection's task uses it. Atomic because the state is shared.
    stalled_since: AtomicU64,
    /// Bytes of the next request arrived before the response to the current one was written.
    has_next_bytes: AtomicBool,
    /// Reason why a head is malformed, for the log.
    head_fault: OnceLock<&'static str>,
    /// The request was rejected, so its response closes the connection.
    is_rejected: AtomicBool,
    /// Number of received bytes that are not verified.
    // Relaxed: written by the connection's task. Other threads read it only to compare rates, which need not be exact.
    received: AtomicUsize,
    /// Part of these bytes that is charged to the budget.
    // Swapped to 0 by the connection's task on release and by another thread on a drop. Each byte is subtracted from
    // the budget by the one that swaps it out, so never twice.
    charged: AtomicUsize,
    /// The connection was added to the budget's list since the last release.
    // Used by the connection's task alone, so any ordering suffices.
    is_listed: AtomicBool,
    // Release and Acquire: stored before the task is woken, and visible to it then.
    shutting_down: AtomicBool,
    /// Waker of the connection's task, for evictions, drops and shutdown.
    waker: AtomicWaker,
}

impl ConnectionState {
    pub(crate) fn new(id: u64, budget: Option<Arc<Budget>>) -> Self {
        Self {
            id,
            budget,
            accepted_at: Instant::now(),
            bits: AtomicU8::new(Phase::Accepted as u8),
            since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(NOT_STALLED),
            has_next_bytes: AtomicBool::new(false),
            head_fault: OnceLock::new(),
            is_rejected: AtomicBool::new(false),
            received: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            is_listed: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from_bits(self.bits.load(Ordering::Acquire))
    }

    /// Returns the begin of the request, or of the idle time.
    pub(crate) fn since(&self) -> Instant {
        self.accepted_at + Duration::from_micros(self.since.load(Ordering::Acquire))
    }

    /// Returns the time at which a write began to wait for the peer, if one does.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        let micros = self.stalled_since.load(Ordering::Relaxed);
        (micros != NOT_STALLED).then(|| self.accepted_at + Duration::from_micros(micros))
    }

    // Never `NOT_STALLED`, which has a meaning of its own.
    fn elapsed_micros(&self) -> u64 {
        u64::try_from(self.accepted_at.elapsed().as_micros()).unwrap_or(NOT_STALLED - 1)
    }

    /// Changes the phase to what `next` returns for the current one; false if the connection was evicted.
    // `Evicted` is final: the table has given the capacity to another connection.
    fn change_phase(&self, next: impl Fn(Phase) -> Phase) -> bool {
        let change = |bits| match Phase::from_bits(bits) {
            Phase::Evicted => None,
            phase => Some(next(phase) as u8 | bits & (EVER_VERIFIED | DROPPED)),
        };
        let result = self
            .bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        result.is_ok()
    }

    /// Records that a read found no bytes.
    // Until the first read, bytes of a request may be waiting in the kernel, so `Accepted` is protected like a begun
    // request.
    pub(crate) fn record_empty_read(&self) {
        if self.phase() == Phase::Accepted {
            self.change_phase(|_| Phase::Idle);
        }
    }

    /// Records received bytes; false if the connection was evicted or its request dropped.
    #[must_use]
    pub(crate) fn record_read(self: &Arc<Self>, bytes: usize) -> bool {
        let is_open = match self.phase() {
            // Only the first byte sets the time, so that sending slowly does not prolong protection and timeout.
            Phase::Accepted | Phase::Idle => {
                self.since.store(self.elapsed_micros(), Ordering::Release);
                self.change_phase(|_| Phase::Head)
            }
            Phase::Verified | Phase::Streaming | Phase::Responding | Phase::Closing => {
                // A pipelined request. `record_flush` starts its head.
                self.has_next_bytes.store(true, Ordering::Relaxed);
                true
            }
            Phase::Head | Phase::Unverified => true,
            Phase::Evicted => false,
        };
        self.charge(bytes);
        is_open && !self.is_dropped()
    }

    fn charge(self: &Arc<Self>, bytes: usize) {
        let received = self.received.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(budget) = &self.budget
            && received > FREE_BYTES
        {
            // Only the part of these bytes beyond the free ones.
            let charge = bytes.min(received - FREE_BYTES);
            let is_first = !self.is_listed.swap(true, Ordering::AcqRel);
            budget.add(self, charge, is_first);
        }
    }

    /// Returns a request's bytes to the budget, once it is verified or answered, or its connection ends.
    pub(crate) fn release_charge(&self) {
        self.received.store(0, Ordering::Relaxed);
        if let Some(budget) = &self.budget
            && self.is_listed.swap(false, Ordering::AcqRel)
        {
            budget.subtract(self.charged.swap(0, Ordering::AcqRel));
            budget.remove(self.id);
        }
    }

    /// Records that a head is complete; false if the connection was evicted before.
    #[must_use]
    pub(crate) fn begin_request(&self) -> bool {
        if self.phase() != Phase::Head {
            // The head was read together with the previous request, so no read has set the time.
            self.since.store(self.elapsed_micros(), Ordering::Release);
        }
        self.has_next_bytes.store(false, Ordering::Relaxed);
        self.change_phase(|_| Phase::Unverified)
    }

    /// Records the begin of a response. `is_streaming` is true if its body follows later.
    pub(crate) fn begin_response(&self, is_streaming: bool) {
        // A verified request was released by `record_verified`.
        if self.phase() == Phase::Unverified {
            self.release_charge();
        }
        let next = if is_streaming {
            Phase::Streaming
        } else {
            Phase::Responding
        };
        self.change_phase(|_| next);
    }

    /// Records the end of a streaming body.
    pub(crate) fn end_stream(&self) {
        // Another phase stays: the body is also dropped when the connection closes or is evicted.
        self.change_phase(|phase| match phase {
            Phase::Streaming => Phase::Responding,
            other => other,
        });
    }

    /// Records that all bytes so far are written. `is_in_head` is true if a part of the next head has arrived.
    pub(crate) fn record_flush(&self, is_in_head: bool) {
        // hyper also flushes between the parts of a streaming body, which must not count as the end of the response.
        if self.phase() != Phase::Responding {
            return;
        }
        // Begin of the idle time, or of the head that was pipelined.
        self.since.store(self.elapsed_micros(), Ordering::Release);
        let next = if is_in_head || self.has_next_bytes.load(Ordering::Relaxed) {
            Phase::Head
        } else {
            Phase::Idle
        };
        self.change_phase(|_| next);
    }

    /// Records why a head is malformed.
    pub(crate) fn record_head_fault(&self, fault: &'static str) {
        // The first one counts: with it, the connection ends.
        let _ = self.head_fault.set(fault);
    }

    /// Returns why a head is malformed, if that is known.
    pub(crate) fn head_fault(&self) -> Option<&'static str> {
        self.head_fault.get().copied()
    }

    /// Records that the request was rejected, so its response closes the connection.
    pub(crate) fn record_rejection(&self) {
        self.is_rejected.store(true, Ordering::Relaxed);
    }

    /// Records that nothing more is written; true if the peer may still be sending a rejected request.
    ///
    /// Then the connection must stay open for a while: closing it while bytes arrive could destroy the response.
    pub(crate) fn begin_closing(&self) -> bool {
        // `poll_shutdown` calls this on each poll; only the first begins the time for lingering.
        if self.phase() == Phase::Closing {
            return true;
        }
        // Phase `Head`: hyper itself has rejected the head, for example one over the limit, and `record_rejection`
        // was not called.
        let must_linger = self.phase() == Phase::Head || self.is_rejected.load(Ordering::Relaxed);
        if must_linger {
            self.since.store(self.elapsed_micros(), Ordering::Release);
            self.change_phase(|_| Phase::Closing);
        }
        must_linger
    }

    /// Records that a write waits for the peer, or no longer does.
    pub(crate) fn set_write_stalled(&self, is_stalled: bool) {
        // Only the first stalled write sets the time, so that the timeout counts from the last progress.
        let before = self.stalled_since.load(Ordering::Relaxed);
        if is_stalled && before == NOT_STALLED {
            self.stalled_since
                .store(self.elapsed_micros(), Ordering::Relaxed);
        } else if !is_stalled && before != NOT_STALLED {
            self.stalled_since.store(NOT_STALLED, Ordering::Relaxed);
        }
    }

    /// Evicts a connection that has not carried a verified request, unless a request has just begun.
    pub(crate) fn evict_unverified(&self, now: Instant) -> Eviction {
        // Repeats if the phase changes between reading `bits` and swapping them.
        loop {
            let bits = self.bits.load(Ordering::Acquire);
            let (phase, since) = (Phase::from_bits(bits), self.since());
            if bits & EVER_VERIFIED != 0 {
                return match phase {
                    phase if phase.is_idle() => Eviction::VerifiedIdle(since),
                    _ => Eviction::VerifiedBusy,
                };
            }
            let protected_until = since + UNVERIFIED_PROTECTION;
            if !phase.is_idle() && now < protected_until {
                return Eviction::ProtectedUntil(protected_until);
            }
            if self.evict(bits) {
                return Eviction::Evicted;
            }
        }
    }

    /// Evicts a connection that has carried a verified request, if it has been idle since `since`.
    pub(crate) fn evict_idle(&self, since: Instant) -> Eviction {
        // Repeats if the phase changes between reading `bits` and swapping them.
        loop {
            let bits = self.bits.load(Ordering::Acquire);
            if !Phase::from_bits(bits).is_idle() {
                return Eviction::VerifiedBusy;
            }
            // Another time means that a request was handled since the table recorded `since`: others are idle for
            // longer.
            let idle_since = self.since();
            if idle_since != since {
                return Eviction::VerifiedIdle(idle_since);
            }
            if self.evict(bits) {
                return Eviction::Evicted;
            }
        }
    }

    /// Evicts the connection if `bits` are still its current ones.
    fn evict(&self, bits: u8) -> bool {
        let evicted = Phase::Evicted as u8;
        let change = self
            .bits
            .compare_exchange(bits, evicted, Ordering::AcqRel, Ordering::Acquire);
        // The task may be waiting for the peer. It ends when it reads the phase.
        if change.is_ok() {
            self.waker.wake();
        }
        change.is_ok()
    }

    /// Asks the connection's task to end after its request in flight.
    pub(crate) fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// Sets the waker for changes by other tasks. Call it before reading the state, so that no change is missed.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

// The signature layer belongs to another package, which knows a connection by this trait only.
impl ConnectionHooks for ConnectionState {
    fn record_verified(&self) -> bool {
        // One swap decides between this request and a concurrent eviction or drop: a request that is not recorded here
        // must not reach its handler.
        let verified = Phase::Verified as u8 | EVER_VERIFIED;
        let change = |bits| {
            let is_open = Phase::from_bits(bits) != Phase::Evicted && bits & DROPPED == 0;
            is_open.then_some(verified)
        };
        let result = self
            .bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        self.release_charge();
        result.is_ok()
    }

    fn discard(&self, bytes: usize) {
        // Saturating: the first bytes were free, so fewer may be charged than are discarded, and another thread may
        // have dropped the request and set `charged` to 0.
        let subtract = |count: usize| Some(count.saturating_sub(bytes));
        let _ = self
            .received
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        let charged = self
            .charged
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, subtract);
        // `fetch_update` returns the value before: what was charged of these bytes is subtracted.
        if let (Some(budget), Ok(charged)) = (&self.budget, charged) {
            budget.subtract(charged.min(bytes));
        }
    }

    fn is_dropped(&self) -> bool {
        self.bits.load(Ordering::Acquire) & DROPPED != 0
    }
}

impl ChargedConnection for ConnectionState {
    fn id(&self) -> u64 {
        self.id
    }

    fn add_charge(&self, bytes: usize) {
        self.charged.fetch_add(bytes, Ordering::AcqRel);
    }

    fn bytes_per_second(&self, now: Instant) -> u64 {
        let time = now.duration_since(self.since()).as_micros().max(1);
        // 128 bits: the product with a million may exceed 64.
        let received = self.received.load(Ordering::Relaxed) as u128;
        u64::try_from(received * 1_000_000 / time).unwrap_or(u64::MAX)
    }

    fn drop_request(&self) -> Option<usize> {
        let change = |bits| match Phase::from_bits(bits) {
            Phase::Head | Phase::Unverified => Some(bits | DROPPED),
            _ => None,
        };
        // If the request is verified between the caller's choice and this line, the compare-and-swap sees the new
        // phase.
        self.bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .ok()?;
        // The task may be waiting for the peer's next bytes. It reads the flag in `TrackedStream::poll_read`.
        self.waker.wake();
        Some(self.charged.swap(0, Ordering::AcqRel))
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
    fn unread_connection_is_protected_for_one_second() {
        let state = new();
        let until = later(&state, UNVERIFIED_PROTECTION);
        let now = Instant::now();
        assert_eq!(state.evict_unverified(now), Eviction::ProtectedUntil(until));
        state.record_empty_read();
        assert_eq!(state.evict_unverified(now), Eviction::Evicted);
        assert!(!state.record_read(1));
        assert!(!state.begin_request());
        assert!(!state.record_verified());
    }

    #[test]
    fn partial_head_protects_unverified_connection_for_one_second() {
        let state = new();
        assert!(state.record_read(1));
        let until = later(&state, UNVERIFIED_PROTECTION);
        let just_before = later(&state, Duration::from_micros(999_999));
        // Further bytes do not prolong the protection.
        assert!(state.record_read(1));
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
        assert!(state.record_read(1) && state.begin_request() && state.record_verified());
        assert_eq!(state.evict_unverified(far), Eviction::VerifiedBusy);
        assert_eq!(state.evict_idle(far), Eviction::VerifiedBusy);
        state.begin_response(false);
        assert_eq!(state.evict_idle(far), Eviction::VerifiedBusy);
        state.record_flush(false);
        let idle_since = state.since();
        assert_eq!(
            state.evict_unverified(far),
            Eviction::VerifiedIdle(idle_since)
        );
        // A partial head protects a verified connection without a time limit.
        assert!(state.record_read(1));
        assert_eq!(state.evict_unverified(far), Eviction::VerifiedBusy);
        assert!(state.begin_request() && state.record_verified());
        state.begin_response(false);
        state.record_flush(false);
        let idle_since = state.since();
        assert_eq!(state.evict_idle(far), Eviction::VerifiedIdle(idle_since));
        assert_eq!(state.evict_idle(idle_since), Eviction::Evicted);
    }

    #[test]
    fn pipelined_bytes_begin_next_head() {
        let state = new();
        assert!(state.record_read(1) && state.begin_request() && state.record_verified());
        assert!(state.record_read(1));
        state.begin_response(false);
        state.record_flush(false);
        assert_eq!(state.phase(), Phase::Head);
    }
}
