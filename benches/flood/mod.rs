//! A flood: many clients without a valid signature, which send requests or hold connections.
//!
//! They run on one thread, so that they take little processor time from the clients with signed messages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Maximum time for a response; then the client closes its connection and starts again.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay between a failed request and the next one.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Delay until a client reopens a connection that the server has closed.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// Behavior of each client of a flood.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Each client sends one request after the other; all together start at most `per_second`.
    // The limit makes floods comparable: a server that responds faster does not get a larger one.
    ClosedLoop {
        requests: Arc<[Vec<u8>]>,
        per_second: u32,
    },
    /// Each client sends one request per period, on a connection that it keeps open.
    KeepAlive { request: Arc<[u8]>, every: Duration },
    /// Each client sends one incomplete request per period, piece by piece, on a new connection.
    // The period makes floods comparable: a server that gives up early does not get a larger one.
    Unfinished {
        requests: Arc<[Vec<u8>]>,
        pieces: usize,
        every: Duration,
        period: Duration,
    },
}

impl Manner {
    /// Returns the time within which the clients begin.
    fn begin_within(&self) -> Duration {
        match self {
            // The whole period: some clients send while others hold what they have sent.
            Self::Unfinished { period, .. } => *period,
            Self::ClosedLoop { .. } | Self::KeepAlive { .. } => Duration::from_millis(500),
        }
    }
}

/// A running flood.
pub(crate) struct Flood {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    counts: Arc<Counts>,
    started: Instant,
}

// Relaxed suffices for both counters: no other data is published with them, and `slots` only needs distinct values.
#[derive(Default)]
struct Counts {
    /// Requests that the server responded to or gave up, or that a client held for their period.
    ended: AtomicU64,
    /// Requests of a closed loop that have got a start time.
    slots: AtomicU32,
}

impl Flood {
    /// Starts `clients` clients against the server at `address`.
    pub(crate) fn start(clients: u32, manner: &Manner, address: SocketAddr) -> Self {
        let (stop, stopped) = oneshot::channel();
        let counts = Arc::<Counts>::default();
        let (manner, counting, started) = (manner.clone(), counts.clone(), Instant::now());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime starts");
            runtime.block_on(async {
                for number in 0..clients {
                    let client = Client {
                        address,
                        number,
                        // Spread out, so that the clients do not connect at the same moment.
                        begin: started + manner.begin_within() * number / clients,
                        started,
                        counts: counting.clone(),
                        stream: None,
                    };
                    tokio::spawn(client.run(manner.clone()));
                }
                let _ = stopped.await;
            });
        });
        Self {
            stop,
            thread,
            counts,
            started,
        }
    }

    /// Ends the flood. Returns the number of requests per second that have ended.
    pub(crate) fn end(self) -> f64 {
        // Read before the clients stop, so that count and time cover the same period.
        let ended = self.counts.ended.load(Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs_f64();
        // Fails only if the thread has panicked, which `join` reports. When the thread ends, it drops its runtime, and
        // so the clients and their connections.
        let _ = self.stop.send(());
        self.thread.join().expect("the flood does not panic");
        f64::from(u32::try_from(ended).unwrap_or(u32::MAX)) / seconds
    }
}

struct Client {
    address: SocketAddr,
    number: u32,
    begin: Instant,
    started: Instant,
    counts: Arc<Counts>,
    stream: Option<TcpStream>,
}

impl Client {
    async fn run(mut self, manner: Manner) {
        sleep_until(self.begin).await;
        let number = self.number as usize;
        match manner {
            Manner::ClosedLoop {
                requests,
                per_second,
            } => loop {
                let slot = self.counts.slots.fetch_add(1, Ordering::Relaxed);
                // A fixed schedule: a slot that no client had time for is sent late, and not left out.
                let due = self.started + Duration::from_secs(1) * slot / per_second;
                sleep_until(due).await;
                self.ask(&requests[slot as usize % requests.len()]).await;
            },
            Manner::KeepAlive { request, every } => loop {
                // Measured from the start of the request, so that its duration does not lengthen the period.
                let next = Instant::now() + every;
                self.ask(&request).await;
                self.stay_open(next).await;
            },
            Manner::Unfinished {
                requests,
                pieces,
                every,
                period,
            } => loop {
                let next = Instant::now() + period;
                let request = &requests[number % requests.len()];
                // It ends early if the server responds or closes. Later than `next` it ends only on a server that does
                // not read.
                let sent = timeout(RESPONSE_TIMEOUT, self.trickle(request, pieces, every, next));
                if matches!(sent.await, Ok(Ok(()))) {
                    self.counts.ended.fetch_add(1, Ordering::Relaxed);
                }
                self.stream = None;
                sleep_until(next).await;
            },
        }
    }

    async fn ask(&mut self, request: &[u8]) {
        let outcome = timeout(RESPONSE_TIMEOUT, self.exchange(request)).await;
        let Ok(Ok(stays_open)) = outcome else {
            self.stream = None;
            // Without a pause, clients of a server that refuses connections would only spin.
            sleep(RETRY_DELAY).await;
            return;
        };
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
        if !stays_open {
            self.stream = None;
        }
    }

    /// Sends a request and reads its response. Returns true if the connection stays open.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<bool> {
        let stream = self.connected().await?;
        stream.write_all(request).await?;
        let mut received = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(stays_open) = parse_response(&received) {
                return Ok(stays_open);
            }
        }
    }

    async fn connected(&mut self) -> io::Result<&mut TcpStream> {
        if self.stream.is_none() {
            self.stream = Some(TcpStream::connect(self.address).await?);
        }
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Holds a connection open until the given time.
    // A real attacker also notices a closed connection and opens another one. Otherwise the server could end the flood
    // by closing its connections.
    async fn stay_open(&mut self, until: Instant) {
        while Instant::now() < until {
            let Some(stream) = &mut self.stream else {
                sleep_until(until.min(Instant::now() + REOPEN_DELAY)).await;
                // If it fails, the next pass tries again.
                let _ = self.connected().await;
                continue;
            };
            tokio::select! {
                // An error means that the server has closed. A byte belongs to a response that this client has not
                // requested, so the connection is not usable either.
                _ = stream.read_u8() => self.stream = None,
                () = sleep_until(until) => {}
            }
        }
    }

    /// Sends a request in pieces, and holds it until the server responds or closes, or until the given time.
    async fn trickle(
        &mut self,
        request: &[u8],
        pieces: usize,
        every: Duration,
        until: Instant,
    ) -> io::Result<()> {
        let stream = self.connected().await?;
        for piece in request.chunks(request.len().div_ceil(pieces)) {
            let (mut read, mut write) = stream.split();
            tokio::select! {
                // A response such as 408, or the end of the connection: the server has given up this request.
                _ = read.read_u8() => return Ok(()),
                written = async {
                    write.write_all(piece).await?;
                    sleep(every).await;
                    Ok::<_, io::Error>(())
                } => written?,
            }
        }
        // Everything but the missing end is sent: wait for the server's own timeout.
        let _ = timeout_at(until, stream.read_u8()).await;
        Ok(())
    }
}

/// Returns `Some` once a whole response has arrived: true if the connection stays open.
// Both servers send a `Content-Length` with each response, so chunked bodies need no code here.
fn parse_response(received: &[u8]) -> Option<bool> {
    let end = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    // Lower case, because header names may be in any case.
    let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
    let value = |name: &str| {
        let mut lines = head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let length: usize = value("content-length")?.parse().ok()?;
    (received.len() >= end + 4 + length).then(|| value("connection") != Some("close"))
}
