//! The server and a bare axum server to compare with. Linux only.
//!
//! Each runs in its own process. They share one processor, and the client has another.

use std::fs;
use std::future::ready;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::StatusCode;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::running::Running;
use crate::runtime;
use crate::webhook::{PUBLIC_URL, TARGET, TOKEN};

/// Argument with which this program runs as the bare server.
const BARE: &str = "bare";
/// Numbers of the processors for the servers and for the client.
const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 1;

/// Pins the calling thread to one processor. Threads and processes that it starts from now on inherit this.
///
/// # Panics
/// If the machine does not have that processor.
// Servers and client are on different processors: on the same one, a server would run only while the client does not.
pub(crate) fn stay_on(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor);
    sched_setaffinity(None, &one).expect("there are two processors");
}

/// Returns a request with the headers that Twilio sends.
pub(crate) fn http(body: &str, signature: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {TARGET} HTTP/1.1\r\n\
         Host: bot.example.com\r\n\
         User-Agent: TwilioProxy/1.1\r\n\
         Accept: */*\r\n\
         Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n\
         Content-Length: {length}\r\n\
         I-Twilio-Idempotency-Token: 00000000-0000-4000-8000-000000000001\r\n\
         X-Twilio-Signature: {signature}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A server in its own process.
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
    /// Folder of its store. Deleted on drop, after the process: fields are dropped in this order.
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts replyhook with the echo handler and an SQLite store in a new folder.
    pub(crate) fn replyhook(binary: &str, env: &[(&str, &str)]) -> Self {
        let [port, private] = free_ports();
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let store = format!("sqlite:{}", folder.path().join("bench.db").display());
        let mut command = Command::new(binary);
        command
            // Neither a settings file nor the environment of this machine must change what is measured.
            .args(["serve", "--config", "/dev/null"])
            .env_clear()
            .env("PORT", port.to_string())
            .env("REPLYHOOK__ADMIN__LISTEN", format!("127.0.0.1:{private}"))
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("PUBLIC_URL", PUBLIC_URL)
            .env("DATABASE_URL", store)
            .envs(env.iter().copied());
        Self::start(command, port, folder)
    }

    /// Starts a bare server that responds to messages with a text of this length, and to other requests with 404.
    pub(crate) fn bare(length: usize) -> Self {
        let [port, _] = free_ports();
        // This program itself: a further executable would have to be built and found.
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([BARE, &port.to_string(), &length.to_string()]);
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        Self::start(command, port, folder)
    }

    /// Starts a server that listens on `port`.
    pub(crate) fn start(mut command: Command, port: u16, folder: tempfile::TempDir) -> Self {
        // The child inherits the processor of the thread that starts it.
        stay_on(SERVER);
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        stay_on(CLIENT);
        Self {
            process: Running(process),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            folder,
        }
    }

    /// Connects to the server, once it listens.
    ///
    /// # Panics
    /// If it does not listen within 10 s.
    pub(crate) fn connect(&self) -> TcpStream {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => return stream,
                Err(error) => assert!(
                    Instant::now() < give_up,
                    "the server does not listen: {error}"
                ),
            }
            // Short, because the time until the first connection is part of the measured start.
            sleep(Duration::from_micros(100));
        }
    }

    /// Returns p99 of an fsync after a write of 4 KiB, in milliseconds, on the disk of the server's store.
    // Shown next to the server's times: a message includes two commits, each with an fsync.
    pub(crate) fn fsync_ms(&self, times: u32) -> f64 {
        let path = self.folder.path().join("fsync");
        let mut file = fs::File::create(path).expect("the file can be written");
        let mut taken: Vec<f64> = (0..times.max(1))
            .map(|_| {
                let started = Instant::now();
                file.write_all(&[0; 4096]).expect("the file can be written");
                file.sync_data().expect("the file can be synced");
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        taken.sort_by(f64::total_cmp);
        taken[taken.len() * 99 / 100]
    }
}

/// Returns true if the arguments make this program the bare server.
pub(crate) fn is_bare(args: &[String]) -> bool {
    args.get(1).is_some_and(|mode| mode == BARE)
}

/// Runs the bare server, whose cost is that of hyper and axum for the same requests.
pub(crate) fn bare(args: &[String]) -> ExitCode {
    let [_, _, port, length] = args else {
        return ExitCode::FAILURE;
    };
    let length = length.parse().expect("the length is a number");
    // Leaked once: `post` needs a `'static` body that costs nothing to clone.
    let text: &str = "x".repeat(length).leak();
    let router = Router::new()
        // `Bytes` makes axum read the body, as replyhook has to.
        .route(TARGET, post(move |_: Bytes| ready(text)))
        .fallback(|_: Bytes| ready((StatusCode::NOT_FOUND, "not found\n")));
    let runtime = runtime::start(2);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await;
        let listener = listener.expect("the port is free");
        axum::serve(listener, router)
            .await
            .expect("it serves until it is killed");
    });
    ExitCode::SUCCESS
}

/// Returns two free ports.
// Another process may take a port before the server binds it. The benchmark then fails, and can be repeated.
pub(crate) fn free_ports() -> [u16; 2] {
    // Both are bound before either is released, so that they differ.
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    listeners.map(|listener| {
        let address = listener.and_then(|listener| listener.local_addr());
        address.expect("some port is free").port()
    })
}
