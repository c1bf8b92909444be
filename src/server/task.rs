//! The task of one connection: HTTP, deadlines, eviction, shutdown.

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
use super::cut;
use super::stream::TrackedStream;
use super::table::Place;
use super::{ConnectionLimits, Listening, exchange};
use crate::connection::{ConnectionState, Phase};

/// Time for a peer to notice that its connection is closed.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves a connection until it ends, is evicted, or its peer is too slow.
pub(super) async fn run(stream: TcpStream, place: Place, listening: Arc<Listening>) {
    let state = place.state().clone();
    let mut deadline = Deadline::new(&state, listening.limits);
    // hyper's buffers take 16 KiB: a connection on which nothing arrives does without them.
    let has_bytes = poll_fn(|cx| {
        state.set_task(cx.waker());
        if state.phase() == Phase::Evicted {
            return Poll::Ready(false);
        }
        if stream.poll_read_ready(cx).is_ready() {
            return Poll::Ready(true);
        }
        state.nothing_to_read();
        if state.is_shutting_down() {
            return Poll::Ready(false);
        }
        deadline.poll_passed(cx).map(|()| false)
    });
    if !has_bytes.await {
        return;
    }
    let stream = TrackedStream::new(stream, state.clone());
    #[cfg(feature = "failpoints")]
    let stream = cut::Cut::new(stream);
    let (shared, connection_state) = (listening.clone(), state.clone());
    let service = service_fn(move |request| exchange::answer(&shared, &connection_state, request));
    let connection = listening
        .builder
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::pin(connection);
    let mut is_told = false;
    let ended = poll_fn(|cx| {
        state.set_task(cx.waker());
        if state.phase() == Phase::Evicted {
            return Poll::Ready(Ok(()));
        }
        // Read first, so that a request that has arrived is answered.
        let mut polled = connection.as_mut().poll(cx);
        if polled.is_pending() && !is_told && state.is_shutting_down() {
            is_told = true;
            connection.as_mut().graceful_shutdown();
            polled = connection.as_mut().poll(cx);
        }
        if polled.is_ready() {
            return polled;
        }
        deadline.poll_passed(cx).map(Ok)
    });
    // Errors are the peer's: it went away, was too slow, or spoke no HTTP.
    if let Err(error) = ended.await {
        if error.is_parse() {
            listening.refused(&error);
        } else {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}

/// Timer of a connection. It is reset only for an earlier deadline: a request that arrives whole needs none.
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

    /// When the peer is too slow, if it is its turn.
    fn next(&self) -> Option<Instant> {
        let state = &self.state;
        if let Some(since) = state.stalled_since() {
            return Some(since + self.limits.write_timeout);
        }
        match state.phase() {
            Phase::Accepted | Phase::Idle => Some(state.since() + self.limits.idle_timeout),
            Phase::Head => Some(state.since() + self.limits.header_timeout),
            Phase::Closing => Some(state.since() + LINGERING_TIMEOUT),
            // Bodies have a timeout in the signature layer, handlers one of their own.
            _ => None,
        }
    }

    fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(next) = self.next() else {
                return Poll::Pending;
            };
            if self.sleep.deadline() > next.into() {
                self.sleep.as_mut().reset(next.into());
            }
            ready!(self.sleep.as_mut().poll(cx));
            if next <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(next.into());
        }
    }
}
