//! What goes to Twilio, and comes from there when it is asked: memory for files on their way, and the pace of messages that
//! are sent first. A stand-in for Twilio runs here, the server in a process of its own. Linux only.
//!
//! `cargo bench --bench outgoing` prints the figures; with `-- --check` it fails where one exceeds its limit. `-- --binary PATH`
//! measures another program.

mod figures;
mod running;
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
use replyhook::{Context, Form, InboundMessage, Media, Reply, Secret};
use running::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use webhook::{PUBLIC_URL, TARGET, TOKEN, Webhook};

/// The argument that makes this program the bot with a file.
const BOT: &str = "bot";
const ACCOUNT: &str = "AC00000000000000000000000000000001";
const FILE_BYTES: usize = 16 * 1024 * 1024;
const PIECE_BYTES: usize = 64 * 1024;
/// Growth of resident memory for each file that is under way.
const MOST_KIB_A_FILE: f64 = 1024.0;
/// Messages a second that one sender sends.
const PACE: u32 = 50;
/// Of the time that the pace allows for.
const MOST_OF_PACE: f64 = 1.1;
/// For all messages of a run.
const MOST_CONNECTIONS: f64 = 16.0;

/// How much is measured.
struct Plan {
    binary: String,
    /// At once; half as many again come before, so that the server has all it needs for its work.
    files: usize,
    messages: u32,
}

impl Plan {
    fn as_server(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--config", "/dev/null"]);
        command
    }

    fn as_bot() -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg(BOT);
        command
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
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
        files_that_come(&plan, &mut figures).await;
        files_that_go(&plan, &mut figures).await;
        messages_that_go(&plan, &mut figures).await;
    });
    figures.end()
}

/// Files of messages, saved: each stands at its half when memory is looked at.
async fn files_that_come(plan: &Plan, figures: &mut Figures) {
    let twilio = Twilio::start().await;
    let server = Server::start(plan.as_server(), &twilio).await;
    let warm = plan.files / 2 + 1;
    twilio.let_through(warm);
    for number in 0..warm {
        server.tell(&picture(number)).await;
    }
    server.wait_for_files(warm).await;
    let before = server.process.memory_kib("VmRSS");
    for number in 0..plan.files {
        server.tell(&picture(warm + number)).await;
    }
    twilio.wait_for_halves(warm + plan.files).await;
    let grown = server.process.memory_kib("VmRSS") - before;
    twilio.let_through(plan.files);
    server.wait_for_files(warm + plan.files).await;
    figures.limit(
        "memory for each 16 MiB file that comes",
        grown / number_of(plan.files),
        "kB",
        MOST_KIB_A_FILE,
    );
}

/// A file of our own, fetched by several at once: each has its half when memory is looked at.
async fn files_that_go(plan: &Plan, figures: &mut Figures) {
    let twilio = Twilio::start().await;
    let server = Server::start(Plan::as_bot(), &twilio).await;
    let answer = server.tell(&Webhook::numbered(1)).await;
    let link = answer
        .split("<Media>")
        .nth(1)
        .and_then(|rest| rest.split("</Media>").next())
        .and_then(|link| link.strip_prefix(PUBLIC_URL));
    let link = link.expect("the bot says a file of ours");
    server.fetch(link).await.read(FILE_BYTES).await;
    let mut grown = Vec::new();
    for _ in 0..3 {
        let before = server.process.memory_kib("VmRSS");
        let mut fetched = Vec::new();
        for _ in 0..plan.files {
            let mut download = server.fetch(link).await;
            download.read(FILE_BYTES / 2).await;
            fetched.push(download);
        }
        grown.push(server.process.memory_kib("VmRSS") - before);
        for mut download in fetched {
            download.read(FILE_BYTES - FILE_BYTES / 2).await;
        }
    }
    figures.limit(
        "memory for each 16 MiB file that goes",
        median(grown) / number_of(plan.files),
        "kB",
        MOST_KIB_A_FILE,
    );
}

/// Messages that `replyhook send` gives to the server all at once.
async fn messages_that_go(plan: &Plan, figures: &mut Figures) {
    let twilio = Twilio::start().await;
    let server = Server::start(plan.as_server(), &twilio).await;
    let rows = server.place.folder.path().join("rows.csv");
    let mut csv = "to,body\n".to_owned();
    for number in 0..plan.messages {
        writeln!(csv, "+1555{number:07},row {number}").expect("memory");
    }
    fs::write(&rows, csv).expect("there is room for a file");
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
    let queued = tokio::task::spawn_blocking(move || send.status()).await;
    let queued = queued
        .expect("it is waited for")
        .expect("the program starts");
    assert!(queued.success(), "all rows can be sent");
    let all = plan.messages as usize;
    until(|| twilio.sent().len() == all).await;
    let times = twilio.sent();
    let taken = times[all - 1].duration_since(times[0]).as_secs_f64();
    let allowed = f64::from(plan.messages - 1) / f64::from(PACE);
    let connections = twilio.0.connections.load(Ordering::Relaxed);
    figures.show(
        "messages a second",
        f64::from(plan.messages - 1) / taken,
        "",
    );
    figures.limit(
        "time for them / what the pace allows",
        taken / allowed,
        "×",
        MOST_OF_PACE,
    );
    figures.limit(
        "connections for them",
        number_of(connections),
        "",
        MOST_CONNECTIONS,
    );
}

/// A message with a picture.
fn picture(number: usize) -> Webhook {
    let sid = format!("MM{number:032x}");
    let url = format!(
        "https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}/Media/ME{number:032x}"
    );
    let from = format!("whatsapp:+1555{number:07}");
    let form = Form::from_iter([
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

/// The bot whose answer is a file: this program, started anew.
async fn bot() -> ExitCode {
    let mut picture = PNG.to_vec();
    picture.resize(FILE_BYTES, 7);
    let picture: Arc<[u8]> = picture.into();
    let handler = move |_: Context, _: InboundMessage| {
        let media = Media::bytes(picture.clone(), "image/png");
        async move { Reply::media(media) }
    };
    let app = replyhook::App::builder().handler(handler).build();
    let ended = app.expect("the environment has what it needs").run().await;
    ExitCode::from(u8::from(ended.is_err()))
}

/// What a PNG begins with.
const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// A stand-in for Twilio's API.
#[derive(Clone)]
struct Twilio(Arc<Standing>);

struct Standing {
    address: SocketAddr,
    connections: AtomicUsize,
    /// Files of which half has been given.
    halves: AtomicUsize,
    /// Files that may be given whole.
    gate: Semaphore,
    sent: Mutex<Vec<Instant>>,
}

impl Twilio {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("some port is free");
        let twilio = Self(Arc::new(Standing {
            address: listener.local_addr().expect("it has a port"),
            connections: AtomicUsize::new(0),
            halves: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            sent: Mutex::default(),
        }));
        let router = Router::new()
            .route(
                "/2010-04-01/Accounts/{account}/Messages.json",
                post(take_message),
            )
            .route(
                "/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}",
                get(give_file),
            )
            .with_state(twilio.clone());
        let counted = twilio.clone();
        let listener = listener.tap_io(move |_| {
            counted.0.connections.fetch_add(1, Ordering::Relaxed);
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        twilio
    }

    fn let_through(&self, files: usize) {
        self.0.gate.add_permits(files);
    }

    async fn wait_for_halves(&self, files: usize) {
        until(|| self.0.halves.load(Ordering::Relaxed) == files).await;
    }

    fn sent(&self) -> Vec<Instant> {
        let sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
    }
}

async fn take_message(State(twilio): State<Twilio>, _: Bytes) -> Response {
    let mut sent = twilio.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
    sent.push(Instant::now());
    let sid = format!("SM{:032x}", sent.len());
    let body = format!(
        r#"{{"sid":"{sid}","status":"queued","account_sid":"{ACCOUNT}","error_code":null}}"#
    );
    let json = [("content-type", "application/json")];
    (StatusCode::CREATED, json, body).into_response()
}

async fn give_file(State(twilio): State<Twilio>) -> Response {
    let pieces = FILE_BYTES / PIECE_BYTES;
    let body = stream::unfold((0, twilio), move |(piece, twilio)| async move {
        if piece == pieces {
            return None;
        }
        if piece == pieces / 2 {
            twilio.0.halves.fetch_add(1, Ordering::Relaxed);
            twilio.0.gate.acquire().await.expect("it stays").forget();
        }
        let mut bytes = vec![7; PIECE_BYTES];
        if piece == 0 {
            bytes[..PNG.len()].copy_from_slice(&PNG);
        }
        Some((Ok::<_, Infallible>(bytes), (piece + 1, twilio)))
    });
    let head = [
        ("content-type", "image/png".to_owned()),
        ("content-length", FILE_BYTES.to_string()),
    ];
    (head, Body::from_stream(body)).into_response()
}

/// A server in a process of its own.
struct Server {
    process: Running,
    place: Place,
}

/// Where it is, and what it knows.
struct Place {
    port: u16,
    twilio: SocketAddr,
    folder: tempfile::TempDir,
}

impl Place {
    /// What the server and its commands are told.
    fn environment(&self, command: &mut Command) {
        let folder = self.folder.path();
        command
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
            .env("REPLYHOOK__OUTBOUND__RATE_PER_SECOND", PACE.to_string())
            .env("REPLYHOOK__MEDIA__SAVE_DIR", self.saved())
            .env(
                "DATABASE_URL",
                format!("sqlite:{}", folder.join("bench.db").display()),
            );
    }

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
            folder: tempfile::tempdir().expect("there is room for a folder"),
        };
        place.environment(&mut command);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Running(command.spawn().expect("the server starts"));
        let server = Self { process, place };
        server.connect().await;
        server
    }

    /// Once it listens.
    async fn connect(&self) -> TcpStream {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.place.port)).await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < give_up, "no server: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A webhook, and what it is answered.
    async fn tell(&self, webhook: &Webhook) -> String {
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
            .expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    /// Begins to fetch a file.
    async fn fetch(&self, target: &str) -> Download {
        let mut stream = self.connect().await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: bot.example.com\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("it answers"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "the file is there");
        Download(stream)
    }

    async fn wait_for_files(&self, number: usize) {
        until(|| whole_files(&self.place.saved()) == number).await;
    }
}

/// The body of a file, as far as it was read.
struct Download(TcpStream);

impl Download {
    async fn read(&mut self, bytes: usize) {
        let mut left = bytes;
        let mut buffer = vec![0; PIECE_BYTES];
        while left > 0 {
            let most = left.min(buffer.len());
            let read = self.0.read(&mut buffer[..most]).await.expect("it comes");
            assert!(read > 0, "{left} bytes are missing");
            left -= read;
        }
    }
}

/// Files that are there whole.
fn whole_files(folder: &FilePath) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let lengths = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let is_part = entry.file_name().to_string_lossy().starts_with('.');
        let length = entry.metadata().ok()?.len();
        (!is_part).then_some(length)
    });
    lengths
        .filter(|length| *length == FILE_BYTES as u64)
        .count()
}

async fn until(mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_mins(2);
    while !holds() {
        assert!(Instant::now() < give_up, "it takes too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "no figure is as large as 2^52")]
fn number_of(count: usize) -> f64 {
    count as f64
}
