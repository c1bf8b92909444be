//! Memory of the server per media file in transit, and the rate of outbound messages. Linux only.
//!
//! A fake Twilio API runs in this process, and the server in its own.
//!
//! `cargo bench --bench outgoing` prints the figures. With `-- --check` it exits with 1 if a limit is missed.
//! `-- --binary PATH` measures another build of the program.

mod figures;
mod running;
mod runtime;
mod webhook;

use std::convert::Infallible;
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use figures::{Figures, Run, median};
use futures_util::stream;
use http::StatusCode;
use replyhook::signature::sign;
use replyhook::{Context, FormParams, InboundMessage, Media, Reply, Secret};
use running::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use webhook::{PUBLIC_URL, TARGET, TOKEN, Webhook};

/// Argument with which this program runs as the bot that replies with a file.
const BOT: &str = "bot";
const ACCOUNT: &str = "AC00000000000000000000000000000001";
/// Size of each file: the maximum that the server accepts from Twilio.
const FILE_BYTES: usize = 16 * 1024 * 1024;
/// Size of the chunks in which the fake Twilio sends a file, and of the buffer for reading one.
const CHUNK_BYTES: usize = 64 * 1024;
/// Limit: growth of resident memory per file in transit.
const MAX_KIB_PER_FILE: f64 = 1024.0;
/// Value of `outbound.rate_per_second`.
const RATE: u32 = 50;
/// Limit: time for all outbound messages, divided by the time that the rate allows.
const MAX_OF_SCHEDULE: f64 = 1.1;
/// Limit: connections to Twilio for all outbound messages of a run.
const MAX_CONNECTIONS: f64 = 16.0;

/// Extent of a run.
struct Plan {
    /// Path of the program to measure.
    binary: String,
    /// Number of concurrent files.
    files: usize,
    messages: u32,
}

impl Plan {
    /// Returns the command of a server with the echo handler.
    fn as_server(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--config", "/dev/null"]);
        command
    }

    /// Returns the command of a server whose bot replies with a file.
    // This program itself, since the measured program has no such handler.
    fn as_bot() -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg(BOT);
        command
    }
}

fn main() -> ExitCode {
    let runtime = runtime::start(2);
    if std::env::args().nth(1).as_deref() == Some(BOT) {
        return runtime.block_on(bot());
    }
    let run = Run::from_args();
    let (files, messages) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (2, 10),
        Run::Measure | Run::Check => (8, 500),
    };
    let binary = std::env::args().skip_while(|arg| arg != "--binary").nth(1);
    let plan = Plan {
        binary: binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_replyhook").to_owned()),
        files,
        messages,
    };
    let mut figures = Figures::new(run);
    runtime.block_on(async {
        receive_files(&plan, &mut figures).await;
        serve_files(&plan, &mut figures).await;
        send_messages(&plan, &mut figures).await;
    });
    figures.end()
}

/// Measures the memory per inbound file while it is saved. Half of each file has arrived when the memory is read.
async fn receive_files(plan: &Plan, figures: &mut Figures) {
    let twilio = Twilio::start().await;
    let server = Server::start(plan.as_server(), &twilio).await;
    // Some files first, so that the server has the connections, threads and buffers that it keeps afterwards.
    let warm_up = plan.files / 2 + 1;
    twilio.release(warm_up);
    for number in 0..warm_up {
        server.post(&picture(number)).await;
    }
    server.wait_for_files(warm_up).await;
    let before = server.process.memory_kib("VmRSS");
    for number in 0..plan.files {
        server.post(&picture(warm_up + number)).await;
    }
    // Each file now waits at `TwilioState::gate`, so that all of them are in transit.
    twilio.wait_for_halves(warm_up + plan.files).await;
    let grown = server.process.memory_kib("VmRSS") - before;
    // Checks that the files then arrive completely, so that what was measured were files in transit.
    twilio.release(plan.files);
    server.wait_for_files(warm_up + plan.files).await;
    figures.limit(
        "memory per 16 MiB file received",
        grown / number_of(plan.files),
        "kB",
        MAX_KIB_PER_FILE,
    );
}

/// Measures the memory per download of a reply's file. Each client has read half of the file when the memory is read.
async fn serve_files(plan: &Plan, figures: &mut Figures) {
    let twilio = Twilio::start().await;
    let server = Server::start(Plan::as_bot(), &twilio).await;
    let response = server.post(&Webhook::numbered(1)).await;
    let link = response
        .split("<Media>")
        .nth(1)
        .and_then(|rest| rest.split("</Media>").next())
        .and_then(|link| link.strip_prefix(PUBLIC_URL));
    let link = link.expect("the bot replies with a file of the server");
    // One whole download first, so that the server has what it keeps afterwards.
    server.fetch(link).await.read(FILE_BYTES).await;
    // The growth varies between rounds, so the median of three counts.
    let mut grown = Vec::new();
    for _ in 0..3 {
        let before = server.process.memory_kib("VmRSS");
        // Collected, so that all downloads are open when the memory is read.
        let mut downloads = Vec::new();
        for _ in 0..plan.files {
            let mut download = server.fetch(link).await;
            download.read(FILE_BYTES / 2).await;
            downloads.push(download);
        }
        grown.push(server.process.memory_kib("VmRSS") - before);
        for mut download in downloads {
            download.read(FILE_BYTES - FILE_BYTES / 2).await;
        }
    }
    figures.limit(
        "memory per 16 MiB file served",
        median(grown) / number_of(plan.files),
        "kB",
        MAX_KIB_PER_FILE,
    );
}

/// Measures the rate at which the server sends outbound messages, all of which `replyhook send --csv` has queued.
async fn send_messages(plan: &Plan, figures: &mut Figures) {
    let twilio = Twilio::start().await;
    let server = Server::start(plan.as_server(), &twilio).await;
    let rows = server.place.folder.path().join("rows.csv");
    let mut csv = "to,body\n".to_owned();
    for number in 0..plan.messages {
        writeln!(csv, "+1555{number:07},row {number}").expect("writing to a String cannot fail");
    }
    fs::write(&rows, csv).expect("the file can be written");
    let mut send = Command::new(&plan.binary);
    send.args([
        "send",
        "--config",
        "/dev/null",
        "--from",
        "+15550006666",
        "--csv",
    ])
    .arg(&rows)
    .stdout(Stdio::null());
    server.place.environment(&mut send);
    // Not on a worker of the runtime: the fake Twilio must respond while the command runs.
    let queued = tokio::task::spawn_blocking(move || send.status()).await;
    let queued = queued
        .expect("the task does not panic")
        .expect("the program starts");
    assert!(queued.success(), "all rows can be sent");
    let all = plan.messages as usize;
    wait_until(|| twilio.sent().len() == all).await;
    let times = twilio.sent();
    // From the first message to the last, so one interval less than messages. The time to queue them does not count.
    let taken = times[all - 1].duration_since(times[0]).as_secs_f64();
    let allowed = f64::from(plan.messages - 1) / f64::from(RATE);
    // Relaxed: all requests have been handled, as `sent` showed under its lock.
    let connections = twilio.0.connections.load(Ordering::Relaxed);
    figures.show(
        "outbound messages per second",
        f64::from(plan.messages - 1) / taken,
        "",
    );
    figures.limit(
        "their time / time that the rate allows",
        taken / allowed,
        "×",
        MAX_OF_SCHEDULE,
    );
    figures.limit(
        "connections for all of them",
        number_of(connections),
        "",
        MAX_CONNECTIONS,
    );
}

/// Returns the webhook of a message with a picture.
fn picture(number: usize) -> Webhook {
    // The server builds the file's address from these SIDs, at the `twilio.api_url` of its settings.
    let sid = format!("MM{number:032x}");
    let url = format!(
        "https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}/Media/ME{number:032x}"
    );
    let from = format!("whatsapp:+1555{number:07}");
    let form = FormParams::from_iter([
        ("MessageSid", sid.as_str()),
        ("AccountSid", ACCOUNT),
        ("From", &from),
        ("To", "whatsapp:+15550002222"),
        ("Body", ""),
        ("NumMedia", "1"),
        ("MediaContentType0", "image/png"),
        ("MediaUrl0", &url),
    ]);
    let url = format!("{PUBLIC_URL}{TARGET}");
    let signature = sign(&Secret::new(TOKEN), &url, Some(&form));
    Webhook {
        body: form.encode(),
        signature: signature.expect("the token is not blank"),
    }
}

/// Runs the bot that replies with a file.
async fn bot() -> ExitCode {
    let mut picture = PNG.to_vec();
    picture.resize(FILE_BYTES, 7);
    let picture: Arc<[u8]> = picture.into();
    let handler = move |_: Context, _: InboundMessage| {
        let media = Media::bytes(picture.clone(), "image/png");
        async move { Reply::media(media) }
    };
    let app = replyhook::App::builder().handler(handler).build();
    let ended = app.expect("the settings are complete").run().await;
    ExitCode::from(u8::from(ended.is_err()))
}

/// First bytes of a PNG. The server saves a file with the extension of the type that it finds in the bytes.
const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// A fake Twilio API.
#[derive(Clone)]
struct Twilio(Arc<TwilioState>);

// Relaxed suffices for both counters: they are polled or read at the end, and no other data is published with them.
struct TwilioState {
    address: SocketAddr,
    /// Number of accepted connections.
    connections: AtomicUsize,
    /// Number of files of which half has been sent.
    halves: AtomicUsize,
    /// Holds each file at its half. A permit releases one file.
    gate: Semaphore,
    /// Times at which messages were created.
    sent: Mutex<Vec<Instant>>,
}

impl Twilio {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("some port is free");
        let twilio = Self(Arc::new(TwilioState {
            address: listener.local_addr().expect("it has a port"),
            connections: AtomicUsize::new(0),
            halves: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            sent: Mutex::default(),
        }));
        let router = Router::new()
            .route(
                "/2010-04-01/Accounts/{account}/Messages.json",
                post(create_message),
            )
            .route(
                "/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}",
                get(send_file),
            )
            .with_state(twilio.clone());
        let counted = twilio.clone();
        let listener = listener.tap_io(move |_| {
            counted.0.connections.fetch_add(1, Ordering::Relaxed);
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        twilio
    }

    /// Lets `files` files pass their half.
    fn release(&self, files: usize) {
        self.0.gate.add_permits(files);
    }

    async fn wait_for_halves(&self, files: usize) {
        wait_until(|| self.0.halves.load(Ordering::Relaxed) == files).await;
    }

    fn sent(&self) -> Vec<Instant> {
        let sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
    }
}

/// `POST Messages.json`.
async fn create_message(State(twilio): State<Twilio>, _: Bytes) -> Response {
    let mut sent = twilio.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
    sent.push(Instant::now());
    let sid = format!("SM{:032x}", sent.len());
    let body = format!(
        r#"{{"sid":"{sid}","status":"queued","account_sid":"{ACCOUNT}","error_code":null}}"#
    );
    let json = [("content-type", "application/json")];
    (StatusCode::CREATED, json, body).into_response()
}

/// `GET …/Media/{media}`: a file that stops at its half until it is released.
async fn send_file(State(twilio): State<Twilio>) -> Response {
    let chunks = FILE_BYTES / CHUNK_BYTES;
    let body = stream::unfold((0, twilio), move |(chunk, twilio)| async move {
        if chunk == chunks {
            return None;
        }
        if chunk == chunks / 2 {
            twilio.0.halves.fetch_add(1, Ordering::Relaxed);
            let permit = twilio.0.gate.acquire().await;
            // Forgotten, so that a permit releases one file and does not return for the next.
            permit.expect("the semaphore is never closed").forget();
        }
        let mut bytes = vec![7; CHUNK_BYTES];
        if chunk == 0 {
            bytes[..PNG.len()].copy_from_slice(&PNG);
        }
        Some((Ok::<_, Infallible>(bytes), (chunk + 1, twilio)))
    });
    let head = [
        ("content-type", "image/png".to_owned()),
        ("content-length", FILE_BYTES.to_string()),
    ];
    (head, Body::from_stream(body)).into_response()
}

/// A server in its own process.
struct Server {
    process: Running,
    place: Place,
}

/// Settings of a server.
struct Place {
    port: u16,
    twilio: SocketAddr,
    folder: tempfile::TempDir,
}

impl Place {
    /// Sets the environment of the server, or of a command that uses its store.
    fn environment(&self, command: &mut Command) {
        let folder = self.folder.path();
        command
            // The environment of this machine may have settings of its own.
            .env_clear()
            .env("PORT", self.port.to_string())
            .env("REPLYHOOK__ADMIN__LISTEN", "")
            .env("TWILIO_ACCOUNT_SID", ACCOUNT)
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env(
                "REPLYHOOK__TWILIO__API_URL",
                format!("http://{}", self.twilio),
            )
            .env("PUBLIC_URL", PUBLIC_URL)
            .env("REPLYHOOK__OUTBOUND__RATE_PER_SECOND", RATE.to_string())
            .env("REPLYHOOK__MEDIA__SAVE_DIR", self.saved())
            .env(
                "DATABASE_URL",
                format!("sqlite:{}", folder.join("bench.db").display()),
            );
    }

    /// Returns the folder of saved media.
    fn saved(&self) -> PathBuf {
        self.folder.path().join("saved")
    }
}

impl Server {
    async fn start(mut command: Command, twilio: &Twilio) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let free = free.and_then(|free| free.local_addr());
        let place = Place {
            port: free.expect("some port is free").port(),
            twilio: twilio.0.address,
            folder: tempfile::tempdir().expect("a temporary folder can be created"),
        };
        place.environment(&mut command);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Running(command.spawn().expect("the server starts"));
        let server = Self { process, place };
        // Waits until it listens.
        server.connect().await;
        server
    }

    /// Connects to the server, once it listens.
    ///
    /// # Panics
    /// If it does not listen within 30 s.
    async fn connect(&self) -> TcpStream {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.place.port)).await {
                Ok(stream) => return stream,
                Err(error) => assert!(
                    Instant::now() < give_up,
                    "the server does not listen: {error}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a webhook, and returns the whole response.
    ///
    /// # Panics
    /// If its status is not 200.
    async fn post(&self, webhook: &Webhook) -> String {
        let Webhook { body, signature } = webhook;
        let length = body.len();
        let request = format!(
            "POST {TARGET} HTTP/1.1\r\nHost: bot.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\nX-Twilio-Signature: {signature}\r\nConnection: close\r\n\r\n{body}"
        );
        let mut stream = self.connect().await;
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the server accepts the request");
        let mut response = String::new();
        // `Connection: close` in the request: the end of the connection is the end of the response.
        stream
            .read_to_string(&mut response)
            .await
            .expect("the server responds");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        response
    }

    /// Requests a file, and reads the head of the response.
    async fn fetch(&self, target: &str) -> Download {
        let mut stream = self.connect().await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: bot.example.com\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the server accepts the request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // Byte by byte, so that no part of the body is read. What is not read stays at the server.
            head.push(stream.read_u8().await.expect("the server responds"));
        }
        assert!(
            head.starts_with(b"HTTP/1.1 200 "),
            "the link leads to a file"
        );
        Download(stream)
    }

    /// Waits until the server has saved this number of files.
    async fn wait_for_files(&self, number: usize) {
        wait_until(|| count_whole_files(&self.place.saved()) == number).await;
    }
}

/// A download in progress, after the head of its response.
struct Download(TcpStream);

impl Download {
    /// Reads the next `bytes` bytes, and discards them.
    async fn read(&mut self, bytes: usize) {
        let mut missing = bytes;
        let mut buffer = vec![0; CHUNK_BYTES];
        while missing > 0 {
            let limit = missing.min(buffer.len());
            let read = self.0.read(&mut buffer[..limit]).await;
            let read = read.expect("the server sends the file");
            assert!(read > 0, "{missing} bytes are missing");
            missing -= read;
        }
    }
}

/// Returns the number of completely saved files.
fn count_whole_files(folder: &FilePath) -> usize {
    // The server creates the folder with the first file.
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let lengths = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        // The name of an unfinished file begins with a dot.
        let is_part = entry.file_name().to_string_lossy().starts_with('.');
        let length = entry.metadata().ok()?.len();
        (!is_part).then_some(length)
    });
    lengths
        .filter(|length| *length == FILE_BYTES as u64)
        .count()
}

/// Waits until the condition holds.
///
/// # Panics
/// If that takes more than two minutes.
async fn wait_until(mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_mins(2);
    while !holds() {
        assert!(
            Instant::now() < give_up,
            "the condition did not hold within two minutes"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "no figure is as large as 2^52")]
fn number_of(count: usize) -> f64 {
    count as f64
}
