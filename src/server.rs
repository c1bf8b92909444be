//! The accept loop: HTTP/1.1 with a timer on everything a peer can be slow at.
//!
//! `axum::serve` has no header timeout, so a connection that says nothing would stay for ever. HTTP/2 is not spoken:
//! neither Twilio nor a proxy needs it towards a server, and what is not there cannot be reset or flooded.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;

/// After running out of file descriptors, this long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) connections: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) headers: usize,
    pub(crate) head_bytes: usize,
}

/// Serves until `stop`, then lets what is under way finish; whoever awaits this bounds how long.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let errors = Throttle::new(3);
    let malformed = Arc::new(Throttle::new(10));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes);
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                metrics.accept_errors.increment(1);
                if let Some(held) = errors.pass() {
                    tracing::error!(%error, held, "a connection cannot be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let stream = timed(stream, limits.write_timeout);
        #[cfg(feature = "failpoints")]
        let stream = cut::Cut::new(stream);
        let io = TokioIo::new(stream);
        let router = router.clone();
        let (report, counted) = (malformed.clone(), metrics.clone());
        let service = service_fn(move |request| answer(router.clone(), request, &report, &counted));
        let connection = graceful.watch(builder.serve_connection(io, service));
        let open = Open::new(metrics.clone());
        let (report, counted) = (malformed.clone(), metrics.clone());
        tokio::spawn(async move {
            // Errors are the peer's: it went away, was too slow, or spoke no HTTP.
            if let Err(error) = connection.await {
                if error.is_parse() {
                    refused(&error, &report, &counted);
                } else {
                    tracing::debug!(%error, "a connection broke off");
                }
            }
            drop((open, permit));
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// A stream whose peer must take what it is sent.
fn timed(
    stream: TcpStream,
    write_timeout: Duration,
) -> std::pin::Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are small and whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_timeout));
    Box::pin(stream)
}

/// One request on its way to the router. Two `Host`s are one too many: proxies disagree on which of them counts.
fn answer(
    mut router: Router,
    request: Request<Incoming>,
    report: &Throttle,
    metrics: &Metrics,
) -> impl Future<Output = Result<Response, std::convert::Infallible>> + use<> {
    let hosts = request.headers().get_all(HOST).iter().take(2).count();
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        let reason = "not exactly one Host\n";
        refused(&reason.trim_end(), report, metrics);
        let response = (StatusCode::BAD_REQUEST, [(CONNECTION, "close")], reason);
        return Either::Left(std::future::ready(Ok(response.into_response())));
    }
    Either::Right(router.call(request.map(Body::new)))
}

/// A request that reaches no endpoint. If it was Twilio's, a message is lost: it must not go unseen.
fn refused(reason: &dyn Display, report: &Throttle, metrics: &Metrics) {
    metrics.malformed_requests.increment(1);
    if let Some(held) = report.pass() {
        tracing::warn!(%reason, held, "refused: the request is malformed");
    }
}

/// Counts an open connection.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections.increment(1.0);
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.decrement(1.0);
    }
}

#[cfg(feature = "failpoints")]
mod cut {
    //! The crash points of a response that is on its way: `P7=return(40)` ends the process when 40 bytes are written, `P8`
    //! when all are.

    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use crate::crash_point;

    /// A stream that knows how much was written to it.
    pub(super) struct Cut<S> {
        stream: S,
        written: usize,
        most: Option<usize>,
    }

    impl<S> Cut<S> {
        pub(super) fn new(stream: S) -> Self {
            let most = crash_point::argument("P7")
                .map(|bytes| bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(1));
            Self {
                stream,
                written: 0,
                most,
            }
        }
    }

    impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let left = self.most.map_or(usize::MAX, |most| most - self.written);
            let buf = &buf[..buf.len().min(left)];
            let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
            if let Poll::Ready(Ok(written)) = outcome {
                self.written += written;
                if written == left {
                    std::process::abort();
                }
            }
            outcome
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.written > 0 && crash_point::reached("P8") {
                std::process::abort();
            }
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}
