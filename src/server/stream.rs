//! The stream of a connection, which reports to [`ConnectionState`] what it reads and writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::TcpStream;

use crate::connection::ConnectionState;

/// Most bytes of one read: hyper's buffers begin with 8 KiB and double whenever one is filled.
const MAX_READ: u64 = 8191;

/// Most bytes that are read after the last response; the connection's task bounds the time.
const MAX_LINGERING_BYTES: usize = 1024 * 1024;

/// Stream of one connection.
pub(super) struct TrackedStream {
    stream: Take<TcpStream>,
    lingering_bytes: usize,
    state: Arc<ConnectionState>,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, state: Arc<ConnectionState>) -> Self {
        // Responses are small and whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        Self {
            stream: stream.take(MAX_READ),
            lingering_bytes: MAX_LINGERING_BYTES,
            state,
        }
    }

    fn written<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.state.write_stalls(outcome.is_pending());
        outcome
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.state.is_dropped() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        self.stream.set_limit(MAX_READ);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if outcome.is_pending() {
            self.state.nothing_to_read();
            return outcome;
        }
        let bytes = buf.filled().len() - before;
        if bytes > 0 && !self.state.bytes_read(bytes) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        outcome
    }
}

impl Drop for TrackedStream {
    fn drop(&mut self) {
        self.state.release();
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(self.stream.get_mut()).poll_write(cx, buf);
        self.written(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(self.stream.get_mut()).poll_write_vectored(cx, bufs);
        self.written(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(self.stream.get_mut()).poll_flush(cx);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.state.flushed();
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(self.stream.get_mut()).poll_shutdown(cx))?;
        if !self.state.closes() {
            return Poll::Ready(Ok(()));
        }
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
