//! Crash points while a response is written: `P7=return(40)` aborts the process after 40 bytes, `P8` after all bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::crash_point;

/// A stream that counts written bytes and aborts the process at the crash points.
pub(super) struct AbortingStream<S> {
    stream: S,
    written: usize,
    abort_after: Option<usize>,
}

impl<S> AbortingStream<S> {
    pub(super) fn new(stream: S) -> Self {
        // Without a valid argument P7 aborts after the first byte.
        let abort_after = crash_point::argument("P7")
            .map(|bytes| bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(1));
        Self {
            stream,
            written: 0,
            abort_after,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AbortingStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AbortingStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Cannot underflow: the process ends when `written` reaches `abort_after`. Only `poll_write` is overridden, so
        // vectored writes arrive here too.
        let remaining = self
            .abort_after
            .map_or(usize::MAX, |abort_after| abort_after - self.written);
        let buf = &buf[..buf.len().min(remaining)];
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = outcome {
            self.written += written;
            if written == remaining {
                // Abort, not exit: no destructor may run, as after `kill -9`.
                std::process::abort();
            }
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once the whole response is written.
        if self.written > 0 && crash_point::reached("P8") {
            std::process::abort();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
