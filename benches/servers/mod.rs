//! The server and a bare one beside it, each in a process of its own and on a processor of its own. Linux only.

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
use crate::webhook::{PUBLIC_URL, TARGET, TOKEN};

/// The argument that makes this program the bare server.
const BARE: &str = "bare";
/// Processors.
const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 1;

/// Keeps this process, and the ones it starts from now on, on one processor. Servers have one to themselves and the client
/// another: on the client's, a server would work only while the client does not, and find no more than it left.
pub(crate) fn stay_on(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor);
    sched_setaffinity(None, &one).expect("there are two processors");
}

/// A request with the headers that Twilio sends.
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

/// A server in a process of its own.
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
    /// Where its store is.
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn replyhook(binary: &str, env: &[(&str, &str)]) -> Self {
        let [port, private] = free_ports();
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let store = format!("sqlite:{}", folder.path().join("bench.db").display());
        let mut command = Command::new(binary);
        command
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

    /// One that answers messages with a text of this length, and anything else with 404.
    pub(crate) fn bare(length: usize) -> Self {
        let [port, _] = free_ports();
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([BARE, &port.to_string(), &length.to_string()]);
        let folder = tempfile::tempdir().expect("there is room for a folder");
        Self::start(command, port, folder)
    }

    fn start(mut command: Command, port: u16, folder: tempfile::TempDir) -> Self {
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

    /// Waits until it listens.
    pub(crate) fn connect(&self) -> TcpStream {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < give_up, "no server: {error}"),
            }
            sleep(Duration::from_micros(100));
        }
    }

    /// What 99 of 100 fsyncs of a few bytes take, where the server's store is.
    pub(crate) fn fsync_ms(&self, times: u32) -> f64 {
        let path = self.folder.path().join("fsync");
        let mut file = fs::File::create(path).expect("there is room for a file");
        let mut taken: Vec<f64> = (0..times.max(1))
            .map(|_| {
                let started = Instant::now();
                file.write_all(&[0; 4096]).expect("there is room");
                file.sync_data().expect("the disk takes it");
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        taken.sort_by(f64::total_cmp);
        taken[taken.len() * 99 / 100]
    }
}

/// Whether a program with these arguments is to be the bare server.
pub(crate) fn is_bare(args: &[String]) -> bool {
    args.get(1).is_some_and(|mode| mode == BARE)
}

/// The bare server: what axum itself costs for the same requests.
pub(crate) fn bare(args: &[String]) -> ExitCode {
    let [_, _, port, length] = args else {
        return ExitCode::FAILURE;
    };
    let length = length.parse().expect("the length is a number");
    let answer: &str = "x".repeat(length).leak();
    let router = Router::new()
        .route(TARGET, post(move |_: Bytes| ready(answer)))
        .fallback(|_: Bytes| ready((StatusCode::NOT_FOUND, "not found\n")));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await;
        let listener = listener.expect("the port is free");
        axum::serve(listener, router)
            .await
            .expect("it serves until it is killed");
    });
    ExitCode::SUCCESS
}

fn free_ports() -> [u16; 2] {
    // Both are held before either is let go, so that they differ.
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    listeners.map(|listener| {
        let address = listener.and_then(|listener| listener.local_addr());
        address.expect("some port is free").port()
    })
}
