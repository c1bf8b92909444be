//! [`TrackedStream`]: the byte stream of a connection, which reports reads and writes to [`ConnectionState`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::TcpStream;

use replyhook_core::signature::layer::ConnectionHooks;

use super::head_scanner::HeadScanner;
use super::parser_response::ParserResponse;
use crate::connection::{ConnectionState, Phase};

// Maximum size of one read. hyper's read buffer begins with 8 KiB and doubles after a read that fills it. One byte less
// never fills it, so no client can make the buffers of its connection grow this way.
const MAX_READ: u64 = 8191;

// Maximum number of bytes that are read and discarded after the last response. `task::Deadline` limits the time.
const MAX_LINGERING_BYTES: usize = 1024 * 1024;

/// The stream of one connection.
pub(super) struct TrackedStream {
    stream: Take<TcpStream>,
    lingering_bytes: usize,
    scanner: HeadScanner,
    /// Response to a head that hyper has rejected, while it is written.
    parser_response: Option<ParserResponse>,
    state: Arc<ConnectionState>,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, state: Arc<ConnectionState>) -> Self {
        // Responses are small and complete: Nagle's algorithm would only delay them. A failure costs time, nothing
        // else.
        let _ = stream.set_nodelay(true);
        Self {
            stream: stream.take(MAX_READ),
            lingering_bytes: MAX_LINGERING_BYTES,
            scanner: HeadScanner::new(),
            parser_response: None,
            state,
        }
    }

    /// Writes the response to a head that hyper has rejected in place of hyper's; `None` if the bytes are not that.
    fn poll_parser_response(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        // No request has begun, so hyper writes the response by itself.
        if self.parser_response.is_none() && self.state.phase() == Phase::Head {
            self.parser_response = ParserResponse::new(bytes, self.scanner.fault());
        }
        let response = self.parser_response.as_mut()?;
        loop {
            let written = match Pin::new(self.stream.get_mut()).poll_write(cx, response.remaining())
            {
                Poll::Ready(Ok(0)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(written)) => written,
                outcome => return Some(outcome),
            };
            if let Some(replaced) = response.advance(written) {
                self.parser_response = None;
                return Some(Poll::Ready(Ok(replaced)));
            }
        }
    }

    fn record_write<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.state.set_write_stalled(outcome.is_pending());
        outcome
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Another connection's read may have dropped this request. The error ends the body, or the connection if the
        // head is still incomplete.
        if self.state.is_dropped() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        // `Take` counts down over all reads, so set the limit again for each.
        let before = buf.filled().len();
        self.stream.set_limit(MAX_READ);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if outcome.is_pending() {
            self.state.record_empty_read();
            return outcome;
        }
        // Bytes of an evicted connection or a dropped request must not reach hyper. Zero bytes mean the end of the
        // stream.
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            // Before `record_read`, which ends the idle phase.
            let is_idle = matches!(self.state.phase(), Phase::Accepted | Phase::Idle);
            if !self.state.record_read(bytes) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let this = &mut *self;
            this.scanner.scan(&mut buf.filled_mut()[before..], is_idle);
            if let Some(fault) = this.scanner.fault() {
                this.state.record_head_fault(fault);
            }
        }
        outcome
    }
}

impl Drop for TrackedStream {
    fn drop(&mut self) {
        // A connection that ends in the middle of a request still has bytes charged to the budget.
        self.state.release_charge();
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = match self.poll_parser_response(cx, buf) {
            Some(outcome) => outcome,
            None => Pin::new(self.stream.get_mut()).poll_write(cx, buf),
        };
        self.record_write(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper writes a head alone in one piece.
        let first = bufs.iter().find(|buf| !buf.is_empty());
        let outcome = match first.and_then(|first| self.poll_parser_response(cx, first)) {
            Some(outcome) => outcome,
            None => Pin::new(self.stream.get_mut()).poll_write_vectored(cx, bufs),
        };
        self.record_write(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(self.stream.get_mut()).poll_flush(cx);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            // A part of the next head may have come in the same read as this request.
            self.state.record_flush(self.scanner.is_in_head());
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Send FIN first: the peer learns that the response is complete while its own bytes are still read.
        ready!(Pin::new(self.stream.get_mut()).poll_shutdown(cx))?;
        if !self.state.begin_closing() {
            return Poll::Ready(Ok(()));
        }
        // Closing a socket with unread bytes sends RST, which can destroy the response before the peer has read it.
        let mut unread = [0; 4096];
        while self.lingering_bytes > 0 {
            let mut unread = ReadBuf::new(&mut unread);
            ready!(Pin::new(self.stream.get_mut()).poll_read(cx, &mut unread))?;
            match unread.filled().len() {
                0 => break,
                bytes => self.lingering_bytes = self.lingering_bytes.saturating_sub(bytes),
            }
        }
        Poll::Ready(Ok(()))
    }
}
