//! The task of one connection: serves HTTP, and closes the connection on timeout, eviction or shutdown.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Sleep;

#[cfg(feature = "failpoints")]
use super::aborting_stream::AbortingStream;
use super::exchange;
use super::limits::ConnectionLimits;
use super::listener_state::ListenerState;
use super::stream::TrackedStream;
use super::table::ConnectionPermit;
use crate::connection::{ConnectionState, Phase};

// After a rejected request the peer may still be sending. It gets this time to read the response and close.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves a connection until it ends, is evicted, or exceeds a timeout.
pub(super) async fn run(stream: TcpStream, permit: ConnectionPermit, listener: Arc<ListenerState>) {
    let state = permit.state().clone();
    let mut deadline = Deadline::new(&state, listener.limits);
    // Wait for the first bytes before hyper allocates its buffers of 16 KiB, so that silent connections stay cheap.
    let has_bytes = poll_fn(|cx| {
        // Register the waker before reading the state: an eviction or shutdown after the check then wakes this task.
        state.set_waker(cx.waker());
        if state.phase() == Phase::Evicted {
            return Poll::Ready(false);
        }
        // Checked before the shutdown: a request that has already arrived still gets a response. A closed or broken
        // connection counts as readable too; hyper handles it.
        if stream.poll_read_ready(cx).is_ready() {
            return Poll::Ready(true);
        }
        state.record_empty_read();
        if state.is_shutting_down() {
            return Poll::Ready(false);
        }
        deadline.poll_passed(cx).map(|()| false)
    });
    if !has_bytes.await {
        return;
    }
    let stream = TrackedStream::new(stream, state.clone());
    // Below hyper, so that the crash point counts bytes of the whole response.
    #[cfg(feature = "failpoints")]
    let stream = AbortingStream::new(stream);
    let (shared, connection_state) = (listener.clone(), state.clone());
    let service =
        service_fn(move |request| exchange::serve_request(&shared, &connection_state, request));
    let connection = listener
        .builder
        .serve_connection(TokioIo::new(stream), service);
    // Locals drop before the parameter `permit`: the socket, now inside `connection`, is closed before `ConnectionPermit::drop`
    // frees the capacity for another connection.
    let mut connection = Box::pin(connection);
    let mut is_shutting_down = false;
    let finished = poll_fn(|cx| {
        // Register the waker first, as above.
        state.set_waker(cx.waker());
        if state.phase() == Phase::Evicted {
            return Poll::Ready(Ok(()));
        }
        // Poll before `graceful_shutdown`, so that a request that has already arrived still gets a response.
        let mut polled = connection.as_mut().poll(cx);
        if polled.is_pending() && !is_shutting_down && state.is_shutting_down() {
            is_shutting_down = true;
            connection.as_mut().graceful_shutdown();
            // Poll again: an idle connection closes only when it is polled after `graceful_shutdown`.
            polled = connection.as_mut().poll(cx);
        }
        // Last, so that a request or response that has made progress in this poll is not cut off by an old deadline.
        if polled.is_ready() {
            return polled;
        }
        deadline.poll_passed(cx).map(Ok)
    });
    // Usually the client's fault: it closed the connection, sent invalid HTTP or exceeded a limit, or a response body
    // failed while streaming. Only malformed requests are counted and logged as such.
    match (finished.await, state.head_fault()) {
        (Err(error), _) if error.is_parse_too_large() => listener.report_too_large(&error),
        (Err(error), Some(fault)) if error.is_parse() => {
            listener.report_malformed(&format_args!("{error}: {fault}"));
        }
        (Err(error), None) if error.is_parse() => listener.report_malformed(&error),
        (Err(error), _) => tracing::debug!(%error, "connection ended with an error"),
        // The peer did not close the connection after the response, and hyper's error is lost.
        (Ok(()), Some(fault)) => listener.report_malformed(&fault),
        (Ok(()), None) => {}
    }
}

/// Timer of one connection.
// `sleep` is moved only to an earlier deadline. A later deadline leaves it in place, and `poll_passed` corrects it
// when it fires. So a request that arrives whole and quickly does not touch the timer.
struct Deadline {
    state: Arc<ConnectionState>,
    limits: ConnectionLimits,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(state: &Arc<ConnectionState>, limits: ConnectionLimits) -> Self {
        let first = state.since() + limits.idle_timeout;
        Self {
            state: state.clone(),
            limits,
            sleep: Box::pin(tokio::time::sleep_until(first.into())),
        }
    }

    /// Returns when the current phase times out; `None` while the server, not the peer, has to act.
    fn next_timeout(&self) -> Option<Instant> {
        let state = &self.state;
        if let Some(since) = state.stalled_since() {
            return Some(since + self.limits.write_timeout);
        }
        match state.phase() {
            Phase::Accepted | Phase::Idle => Some(state.since() + self.limits.idle_timeout),
            Phase::Head => Some(state.since() + self.limits.header_timeout),
            Phase::Closing => Some(state.since() + LINGERING_TIMEOUT),
            // The signature layer limits the time for a body, and the dispatcher the time until a response.
            _ => None,
        }
    }

    fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(next) = self.next_timeout() else {
                return Poll::Pending;
            };
            if self.sleep.deadline() > next.into() {
                self.sleep.as_mut().reset(next.into());
            }
            // Also registers this task to be woken at the deadline.
            ready!(self.sleep.as_mut().poll(cx));
            if next <= Instant::now() {
                return Poll::Ready(());
            }
            // The timer fired for an earlier deadline that no longer applies. Set it for the current one and poll it.
            self.sleep.as_mut().reset(next.into());
        }
    }
}
