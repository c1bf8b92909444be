//! Many clients that a server owes nothing: on one thread, so that the processor is left to those it owes something.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A client that waits longer for an answer starts again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between a failed attempt and the next one.
const PAUSE: Duration = Duration::from_millis(100);
/// Until a kept connection that was closed is opened again.
const REOPENED: Duration = Duration::from_secs(1);

/// How each client behaves.
#[derive(Clone)]
pub(crate) enum Manner {
    /// One request after the other, all clients together at most so many a second: a faster server gets no larger flood.
    ClosedLoop {
        requests: Arc<[Vec<u8>]>,
        per_second: u32,
    },
    /// One request each period on a connection that is kept open.
    KeepAlive { request: Arc<[u8]>, every: Duration },
    /// A request that never ends, piece by piece. The next one begins when the server gives up.
    Unfinished {
        requests: Arc<[Vec<u8>]>,
        pieces: usize,
        every: Duration,
    },
}

/// A flood under way.
pub(crate) struct Flood {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    counts: Arc<Counts>,
    started: Instant,
}

#[derive(Default)]
struct Counts {
    /// Requests that the server answered, or gave up.
    ended: AtomicU64,
    /// Requests of a closed loop that were begun.
    slots: AtomicU32,
}

impl Flood {
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
                        // Not all at the same moment.
                        begin: started + Duration::from_millis(500) * number / clients,
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

    /// Ends it and returns how many requests a second the server answered or gave up.
    pub(crate) fn end(self) -> f64 {
        let ended = self.counts.ended.load(Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs_f64();
        // Fails only when the thread has ended already.
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
                let due = self.started + Duration::from_secs(1) * slot / per_second;
                sleep_until(due).await;
                self.ask(&requests[slot as usize % requests.len()]).await;
            },
            Manner::KeepAlive { request, every } => loop {
                let next = Instant::now() + every;
                self.ask(&request).await;
                self.stay_open(next).await;
            },
            Manner::Unfinished {
                requests,
                pieces,
                every,
            } => loop {
                let request = &requests[number % requests.len()];
                if self.trickle(request, pieces, every).await.is_ok() {
                    self.counts.ended.fetch_add(1, Ordering::Relaxed);
                }
                self.stream = None;
                sleep(PAUSE).await;
            },
        }
    }

    async fn ask(&mut self, request: &[u8]) {
        let answered = timeout(PATIENCE, self.exchange(request)).await;
        let Ok(Ok(kept)) = answered else {
            self.stream = None;
            sleep(PAUSE).await;
            return;
        };
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
        if !kept {
            self.stream = None;
        }
    }

    /// Returns whether the connection stays open.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<bool> {
        let stream = self.connected().await?;
        stream.write_all(request).await?;
        let mut received = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(kept) = answered(&received) {
                return Ok(kept);
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

    /// Waits on an open connection. An attacker notices that it was closed, and opens another one.
    async fn stay_open(&mut self, until: Instant) {
        while Instant::now() < until {
            let Some(stream) = &mut self.stream else {
                sleep_until(until.min(Instant::now() + REOPENED)).await;
                let _ = self.connected().await;
                continue;
            };
            tokio::select! {
                _ = stream.read_u8() => self.stream = None,
                () = sleep_until(until) => {}
            }
        }
    }

    async fn trickle(&mut self, request: &[u8], pieces: usize, every: Duration) -> io::Result<()> {
        let stream = self.connected().await?;
        for piece in request.chunks(request.len().div_ceil(pieces)) {
            let (mut read, mut write) = stream.split();
            tokio::select! {
                _ = read.read_u8() => return Ok(()),
                written = async {
                    write.write_all(piece).await?;
                    sleep(every).await;
                    Ok::<_, io::Error>(())
                } => written?,
            }
        }
        let _ = timeout(PATIENCE, stream.read_u8()).await;
        Ok(())
    }
}

/// Returns `Some` once a whole response has arrived: true if the connection stays open.
fn answered(received: &[u8]) -> Option<bool> {
    let end = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
    let value = |name: &str| {
        let mut lines = head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let length: usize = value("content-length")?.parse().ok()?;
    (received.len() >= end + 4 + length).then(|| value("connection") != Some("close"))
}
