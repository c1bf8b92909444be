//! Media of inbound messages: fetched by SID within limits, and saved if `media.save_dir` is set.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use replyhook::clock::{ManualClock, SignedDuration};
use replyhook::{App, Clock, Context, InboundMessage, IncomingMedia, MediaError, SystemClock};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::{
    ACCOUNT, EMPTY, RawServer, ResponseEnd, Server, TOKEN, TempStore, TestApp, Webhook, base64_of,
    json_lines, sources, twiml_message, wire,
};

const ME: &str = "ME00000000000000000000000000000001";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0 and a picture";
const MIB: usize = 1024 * 1024;

/// Message with one picture, whose `MediaUrl0` the server must not call.
fn picture(number: u64) -> Webhook {
    let sid = format!("MM{number:032x}");
    Webhook::message(number, "")
        .with("MessageSid", &sid)
        .with("NumMedia", "1")
        .with("MediaUrl0", &format!("https://evil.example/{ME}?x=1"))
        .with("MediaContentType0", "image/jpeg")
}

/// Request line of the fetch of message `number`'s picture.
fn get(number: u64) -> String {
    format!("GET {}", path(number))
}

fn path(number: u64) -> String {
    format!("/2010-04-01/Accounts/{ACCOUNT}/Messages/MM{number:032x}/Media/{ME}")
}

/// App whose Twilio API is the storage.
fn app<H: replyhook::Handler>(storage: &RawServer, env: &[(&str, &str)], handler: H) -> TestApp {
    let api = [("REPLYHOOK__TWILIO__API_URL", storage.url())];
    TestApp::build(&[&api, env].concat(), |app| app.handler(handler))
}

/// Handler that replies with the outcome of fetching the first file.
async fn fetch_media(cx: Context, _message: InboundMessage) -> String {
    outcome(&cx.media(0)).await
}

async fn outcome(media: &IncomingMedia) -> String {
    match media.bytes().await {
        Ok(file) => format!(
            "{} bytes, said {}, is {}",
            file.bytes.len(),
            file.file_type.declared.unwrap_or_default(),
            file.file_type.sniffed.unwrap_or("unknown")
        ),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Makes the storage redirect from the API to `/cdn`, as Twilio does.
fn queue_redirect(storage: &RawServer, number: u64) {
    let to = format!("{}/cdn?signature=1", storage.url());
    storage.queue_response(&get(number), 307, &[("location", &to)], b"");
}

// The request is built from SIDs, and the CDN gets neither credentials nor cookies.
#[tokio::test]
async fn media_fetch_sends_credentials_only_to_api() {
    let storage = RawServer::start().await;
    queue_redirect(&storage, 1);
    storage.queue_response(
        "GET /cdn?signature=1",
        200,
        &[("content-type", "image/jpeg")],
        JPEG,
    );
    let app = app(&storage, &[], fetch_media);
    let answer = app.send(picture(1)).await;
    let outcome_text = format!("{} bytes, said image/jpeg, is image/jpeg", JPEG.len());
    assert_eq!(answer.twiml(), twiml_message(&outcome_text));
    let [api, cdn] = &storage.requests()[..] else {
        panic!("{:?}", storage.request_lines());
    };
    assert!(api.starts_with(&get(1)), "{api}");
    let login = base64_of(format!("{ACCOUNT}:{TOKEN}").as_bytes());
    assert!(api.contains(&format!("Basic {login}")), "{api}");
    assert!(!cdn.to_ascii_lowercase().contains("authorization"), "{cdn}");
    assert!(!cdn.to_ascii_lowercase().contains("cookie"), "{cdn}");
}

#[tokio::test]
async fn threat_33_media_url_of_message_is_never_called() {
    let storage = RawServer::start().await;
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let at_trap = format!("http://{}", trap.local_addr().unwrap());
    storage.queue_response(&get(1), 200, &[], JPEG);
    let app = app(&storage, &[], fetch_media);
    let outcome_text = format!("{} bytes, said image/jpeg, is image/jpeg", JPEG.len());
    let message = picture(1).with("MediaUrl0", &format!("{at_trap}/{ME}"));
    assert_eq!(
        app.send(message).await.twiml(),
        twiml_message(&outcome_text)
    );
    // A URL that does not end in a media SID causes no request at all.
    for (number, url) in [
        (2, at_trap.clone()),
        (
            3,
            format!("{at_trap}/{ME}/../../../Accounts/{ACCOUNT}.json"),
        ),
        (4, format!("{at_trap}/{ME}%2f..")),
        (5, format!("{at_trap}/x?{ME}")),
        (6, String::new()),
    ] {
        let message = picture(number).with("MediaUrl0", &url);
        assert_eq!(
            app.send(message).await.twiml(),
            twiml_message("NoSuchFile"),
            "{url}"
        );
    }
    assert_eq!(storage.request_lines(), [get(1)]);
    assert!(trap.accept().is_err(), "the server called the trap");
}

// The server does not connect to an allowed redirect host whose name resolves to this machine.
#[tokio::test]
async fn threat_33_redirect_to_loopback_host_is_not_followed() {
    let storage = RawServer::start().await;
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let to = format!("https://localhost:{}/x", trap.local_addr().unwrap().port());
    storage.queue_response(&get(1), 307, &[("location", &to)], b"");
    let app = app(
        &storage,
        &[("REPLYHOOK__MEDIA__ALLOWED_REDIRECT_HOSTS", "localhost")],
        fetch_media,
    );
    assert_eq!(
        app.send(picture(1)).await.twiml(),
        twiml_message("ForeignHost")
    );
    assert!(trap.accept().is_err(), "the server called the trap");
}

#[tokio::test]
async fn threat_34_redirect_to_foreign_host_is_not_followed() {
    let storage = RawServer::start().await;
    let other = RawServer::start().await;
    let app = app(&storage, &[], fetch_media);
    for (number, to) in [
        (1, format!("{}/x", other.url())),
        (2, "https://evil.example/x".to_owned()),
        (3, "https://169.254.169.254/latest/meta-data".to_owned()),
        (4, "http://mms.twiliocdn.com/x".to_owned()),
        (5, "https://mms.twiliocdn.com@evil.example/x".to_owned()),
        (6, "file:///etc/passwd".to_owned()),
        (7, String::new()),
    ] {
        let headers = [("location", to.as_str())];
        let headers = if to.is_empty() { &[][..] } else { &headers[..] };
        storage.queue_response(&get(number), 307, headers, b"");
        let answer = app.send(picture(number)).await;
        assert_eq!(answer.twiml(), twiml_message("ForeignHost"), "{to}");
    }
    assert!(other.requests().is_empty());
    // The server stops following a redirect loop.
    let around = format!("{}/around", storage.url());
    storage.queue_response(&get(8), 307, &[("location", &around)], b"");
    storage.queue_response("GET /around", 302, &[("location", &around)], b"");
    assert_eq!(
        app.send(picture(8)).await.twiml(),
        twiml_message("ForeignHost")
    );
    assert_eq!(
        storage
            .request_lines()
            .iter()
            .filter(|line| *line == "GET /around")
            .count(),
        3
    );
}

// The limit holds without a Content-Length and with a false one.
#[tokio::test]
async fn threat_35_endless_media_file_ends_at_16_mib() {
    let storage = RawServer::start().await;
    let app = app(&storage, &[], fetch_media);
    storage.queue_bytes(&get(1), "HTTP/1.1 200 x\r\n\r\n", ResponseEnd::Forever);
    let huge = "HTTP/1.1 200 x\r\ncontent-length: 1073741824\r\n\r\n";
    storage.queue_bytes(&get(2), huge, ResponseEnd::Forever);
    for number in [1, 2] {
        assert_eq!(
            app.send(picture(number)).await.twiml(),
            twiml_message("TooLarge")
        );
    }
    // The server reads no more than Content-Length, and fails if the file is shorter.
    let short = "HTTP/1.1 200 x\r\ncontent-length: 3\r\n\r\n";
    storage.queue_bytes(
        &get(3),
        [short.as_bytes(), JPEG].concat(),
        ResponseEnd::Forever,
    );
    assert_eq!(
        app.send(picture(3)).await.twiml(),
        twiml_message("3 bytes, said image/jpeg, is image/jpeg")
    );
    let long = "HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n";
    storage.queue_bytes(
        &get(4),
        [long.as_bytes(), JPEG].concat(),
        ResponseEnd::Close,
    );
    assert_eq!(
        app.send(picture(4)).await.twiml(),
        twiml_message("Unreachable")
    );
    storage.queue_response(&get(5), 200, &[], &vec![0; 16 * MIB]);
    let whole = format!("{} bytes, said image/jpeg, is unknown", 16 * MIB);
    assert_eq!(app.send(picture(5)).await.twiml(), twiml_message(&whole));
}

#[tokio::test]
async fn threat_35_false_media_type_is_detected_without_decompression() {
    let storage = RawServer::start().await;
    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = seen.clone();
    let app = app(&storage, &[], move |cx: Context, _: InboundMessage| {
        let kept = kept.clone();
        async move {
            let file = cx.media(0).bytes().await?;
            let is = file.file_type.sniffed.unwrap_or("unknown");
            kept.lock().unwrap().push(file.bytes);
            Ok::<_, MediaError>(is.to_owned())
        }
    });
    let bomb = [b"\x1f\x8b\x08\0".as_slice(), &[0; 64]].concat();
    let zip = [b"PK\x03\x04\x14\0\0\0\x08\0".as_slice(), &[0; 64]].concat();
    for (number, bytes, is) in [
        (1, bomb, "application/gzip"),
        (2, zip, "application/zip"),
        (
            3,
            b"MZ\x90\0 a program".to_vec(),
            "application/vnd.microsoft.portable-executable",
        ),
        (4, b"<!DOCTYPE html><script>".to_vec(), "text/html"),
    ] {
        let headers = [("content-type", "image/jpeg"), ("content-encoding", "gzip")];
        storage.queue_response(&get(number), 200, &headers, &bytes);
        assert_eq!(app.send(picture(number)).await.twiml(), twiml_message(is));
        assert_eq!(seen.lock().unwrap().pop(), Some(bytes), "bytes unchanged");
    }
    for head in storage.requests() {
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("accept-encoding"), "{head}");
    }
}

/// App that fetches the first file of each message. Returns its clock and the outcomes of the fetches, too.
fn build_fetching_app(
    storage: &RawServer,
) -> (TestApp, Arc<ManualClock>, mpsc::UnboundedReceiver<String>) {
    let (outcome_sender, outcomes) = mpsc::unbounded_channel();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let api = [("REPLYHOOK__TWILIO__API_URL", storage.url())];
    let app = TestApp::build(&api, |app| {
        let handler = move |cx: Context, _: InboundMessage| {
            let outcome_sender = outcome_sender.clone();
            async move {
                outcome_sender.send(outcome(&cx.media(0)).await).unwrap();
            }
        };
        app.clock(clock.clone()).handler(handler)
    });
    (app, clock, outcomes)
}

#[tokio::test]
async fn threat_35_stalled_media_fetch_fails_after_30_seconds() {
    let storage = RawServer::start().await;
    let partial_response = [b"HTTP/1.1 200 x\r\n\r\n".as_slice(), JPEG].concat();
    storage.queue_bytes(&get(1), partial_response, ResponseEnd::Silence);
    storage.queue_bytes(&get(2), "", ResponseEnd::Silence);
    let (app, clock, mut outcomes) = build_fetching_app(&storage);
    for number in [1, 2] {
        let answered = app.send(picture(number));
        let passing = async {
            storage.wait_for(usize::try_from(number).unwrap()).await;
            clock.advance(SignedDuration::from_secs(31));
        };
        let (answer, ()) = tokio::join!(answered, passing);
        assert_eq!(answer.twiml(), EMPTY, "Twilio does not wait for it");
        assert_eq!(outcomes.recv().await.as_deref(), Some("TooSlow"));
    }
}

// The limit applies to the whole file. No pause between two bytes comes near it.
#[tokio::test]
async fn threat_35_trickling_media_fetch_fails_after_30_seconds() {
    let storage = RawServer::start().await;
    let begin = [b"HTTP/1.1 200 x\r\n\r\n".as_slice(), JPEG].concat();
    storage.queue_bytes(&get(1), begin, ResponseEnd::Trickle);
    let (app, clock, mut outcomes) = build_fetching_app(&storage);
    let answered = app.send(picture(1));
    let passing = async {
        storage.wait_for(1).await;
        // At least one byte arrives in each step of five seconds. 50 seconds pass at most.
        for _ in 0..10 {
            clock.advance(SignedDuration::from_secs(5));
            let step = 2 * wire::TRICKLE_INTERVAL;
            if let Ok(outcome) = tokio::time::timeout(step, outcomes.recv()).await {
                return outcome;
            }
        }
        None
    };
    let (answer, outcome) = tokio::join!(answered, passing);
    assert_eq!(answer.twiml(), EMPTY, "Twilio does not wait for it");
    assert_eq!(outcome.as_deref(), Some("TooSlow"));
}

// Twilio may call the webhook before the file is available.
#[tokio::test]
async fn media_fetch_after_404_is_retried() {
    let storage = RawServer::start().await;
    storage.queue_response(&get(1), 404, &[], b"");
    storage.queue_response(&get(1), 200, &[], JPEG);
    let app = app(&storage, &[], fetch_media);
    let outcome_text = format!("{} bytes, said image/jpeg, is image/jpeg", JPEG.len());
    assert_eq!(
        app.send(picture(1)).await.twiml(),
        twiml_message(&outcome_text)
    );
    assert_eq!(storage.request_lines(), [get(1), get(1)]);
    storage.queue_response(&get(2), 401, &[], b"");
    assert_eq!(
        app.send(picture(2)).await.twiml(),
        twiml_message("Rejected(401)")
    );
}

#[tokio::test]
async fn threat_36_expired_media_redirect_is_renewed_via_api() {
    let storage = RawServer::start().await;
    queue_redirect(&storage, 1);
    storage.queue_response("GET /cdn?signature=1", 403, &[], b"expired");
    storage.queue_response("GET /cdn?signature=1", 200, &[], JPEG);
    let app = app(&storage, &[], fetch_media);
    let outcome_text = format!("{} bytes, said image/jpeg, is image/jpeg", JPEG.len());
    assert_eq!(
        app.send(picture(1)).await.twiml(),
        twiml_message(&outcome_text)
    );
    let cdn = "GET /cdn?signature=1".to_owned();
    assert_eq!(storage.request_lines(), [get(1), cdn.clone(), get(1), cdn]);
}

#[tokio::test]
async fn media_save_writes_whole_file_or_nothing() {
    let storage = RawServer::start().await;
    let folder = TempDir::new().unwrap();
    let at = folder.path().join("a.jpg");
    std::fs::write(&at, "before").unwrap();
    let big = [JPEG, &vec![7; 3 * MIB]].concat();
    storage.queue_response(&get(1), 200, &[], &big);
    let long = "HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n";
    storage.queue_bytes(
        &get(2),
        [long.as_bytes(), JPEG].concat(),
        ResponseEnd::Close,
    );
    let path = at.clone();
    let app = app(&storage, &[], move |cx: Context, _: InboundMessage| {
        let path = path.clone();
        async move {
            let mut stream = cx.media(0).stream().await?;
            let sniffed = stream.file_type().sniffed;
            let mut streamed = Vec::new();
            while let Some(chunk) = stream.chunk().await? {
                streamed.extend_from_slice(&chunk);
            }
            let saved = cx.media(0).save(&path).await?;
            assert_eq!(saved.path, path);
            assert_eq!(usize::try_from(saved.length).unwrap(), streamed.len());
            assert_eq!(saved.file_type.sniffed, sniffed);
            Ok::<_, MediaError>(saved.file_type.extension)
        }
    });
    let failed = app.send(picture(2)).await;
    failed.assert_rejected(500);
    assert_eq!(std::fs::read(&at).unwrap(), b"before");
    assert_eq!(app.send(picture(1)).await.twiml(), twiml_message("jpg"));
    assert_eq!(std::fs::read(&at).unwrap(), big);
    assert_eq!(files(folder.path()), ["a.jpg"]);
    let mode = std::fs::metadata(&at).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Polls until a condition holds that gives no notification.
async fn wait_until(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !holds() {
        assert!(
            std::time::Instant::now() < deadline,
            "the condition did not become true"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Names of the entries of a folder, sorted; empty if it does not exist.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).map(|entries| {
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    });
    entries.unwrap_or_default()
}

fn saved_name(number: u64, extension: &str) -> String {
    format!("MM{number:032x}-{ME}.{extension}")
}

// Files are saved concurrently with the handler, shutdown waits for them, and a failed one does not fail its message.
#[tokio::test]
async fn saved_media_files_are_named_by_sids() {
    let storage = RawServer::start().await;
    let folder = TempDir::new().unwrap();
    let inside = folder.path().join("files");
    storage.queue_response(
        &get(1),
        200,
        &[("content-type", "../../etc/passwd")],
        b"%PDF-1.7 x",
    );
    storage.queue_response(&get(2), 500, &[], b"");
    storage.queue_response(&get(3), 200, &[], b"#!/bin/sh");
    let save = [("REPLYHOOK__MEDIA__SAVE_DIR", inside.to_str().unwrap())];
    let app = app(&storage, &save, async |_, _| "thanks");
    let hostile = picture(1)
        .with("MediaContentType0", "../../evil.sh")
        .with("MediaUrl0", &format!("https://evil.example/../../../{ME}"));
    assert_eq!(app.send(hostile).await.twiml(), twiml_message("thanks"));
    // A failed fetch does not fail the message, and a redelivery does not save the file again.
    assert_eq!(app.send(picture(2)).await.twiml(), twiml_message("thanks"));
    assert_eq!(app.send(picture(3)).await.twiml(), twiml_message("thanks"));
    assert_eq!(app.send(picture(3)).await.twiml(), twiml_message("thanks"));
    app.shut_down().await;
    assert_eq!(files(&inside), [saved_name(1, "pdf"), saved_name(3, "bin")]);
    let pdf = inside.join(saved_name(1, "pdf"));
    assert_eq!(std::fs::read(&pdf).unwrap(), b"%PDF-1.7 x");
    let mode = std::fs::metadata(&pdf).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(files(folder.path()), ["files"]);
    // Only the server's user may enter the created folder.
    let mode = std::fs::metadata(&inside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn save_dir_with_open_permissions_causes_warning_only() {
    let folder = TempDir::new().unwrap();
    let settings = [(
        "REPLYHOOK__MEDIA__SAVE_DIR",
        folder.path().to_str().unwrap(),
    )];
    for (mode, warnings) in [(0o700, 0), (0o755, 1), (0o770, 1)] {
        std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let app = App::builder().sources(sources(&settings)).build().unwrap();
        let texts: Vec<_> = app.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), warnings, "{texts:?}");
        assert!(
            texts.iter().all(|text| text.contains("chmod 700")),
            "{texts:?}"
        );
        let kept = std::fs::metadata(folder.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(kept & 0o777, mode);
    }
}

#[tokio::test]
async fn response_does_not_wait_for_media_save() {
    for end in [ResponseEnd::Silence, ResponseEnd::Forever] {
        let storage = RawServer::start().await;
        let folder = TempDir::new().unwrap();
        let head = b"HTTP/1.1 200 x\r\n\r\n".as_slice();
        storage.queue_bytes(&get(1), [head, JPEG].concat(), end);
        let save = [(
            "REPLYHOOK__MEDIA__SAVE_DIR",
            folder.path().to_str().unwrap(),
        )];
        let app = app(&storage, &save, async |_, _| "thanks");
        // At the deadline, the response would be empty.
        assert_eq!(app.send(picture(1)).await.twiml(), twiml_message("thanks"));
        storage.wait_for(1).await;
        assert!(!files(folder.path()).contains(&saved_name(1, "jpg")));
        if end == ResponseEnd::Forever {
            app.shut_down().await;
            assert_eq!(
                files(folder.path()),
                [] as [String; 0],
                "a file over 16 MiB is not saved"
            );
        }
    }
}

// The warning explains why a file declared as a picture has the extension .bin.
#[tokio::test(flavor = "multi_thread")]
async fn mistyped_media_saved_as_bin_is_logged() {
    let storage = RawServer::start().await;
    let folder = TempDir::new().unwrap();
    storage.queue_response(&get(1), 200, &[], b"#!/bin/sh");
    storage.queue_response(&get(2), 200, &[], b"a,b");
    let settings = [
        ("REPLYHOOK__TWILIO__API_URL", storage.url()),
        (
            "REPLYHOOK__MEDIA__SAVE_DIR",
            folder.path().to_str().unwrap(),
        ),
    ];
    tokio::task::block_in_place(|| {
        let server = Server::start(&settings);
        // CSV has no magic bytes, so its declared type cannot be checked and causes no warning.
        let text = picture(2).with("MediaContentType0", "text/csv");
        server.send(&text).twiml();
        server.send(&picture(1)).twiml();
        let line = server.wait_for("saved as .bin");
        for part in [
            "WARN",
            "image/jpeg",
            "text/x-shellscript",
            &format!("MM{:032x}", 1),
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        server.signal(rustix::process::Signal::TERM);
        let (_, log) = server.wait();
        assert_eq!(log.matches("saved as .bin").count(), 1, "{log}");
    });
    assert_eq!(
        files(folder.path()),
        [saved_name(1, "bin"), saved_name(2, "bin")]
    );
}

/// Sizes of the unfinished files (`.part`) in a folder.
fn partial_file_sizes(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let parts = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
    parts
        .filter_map(|part| Some(part.metadata().ok()?.len()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn media_save_uses_bounded_memory() {
    const FILES: u64 = 8;
    /// Bytes that the storage sends of each file, out of 16 MiB.
    const SO_FAR: usize = 4 * MIB;
    let storage = RawServer::start().await;
    let folder = TempDir::new().unwrap();
    let head = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", 16 * MIB);
    let settings = [
        ("REPLYHOOK__TWILIO__API_URL", storage.url()),
        (
            "REPLYHOOK__MEDIA__SAVE_DIR",
            folder.path().to_str().unwrap(),
        ),
    ];
    let server = tokio::task::block_in_place(|| Server::start(&settings));
    let send = |number| {
        tokio::task::block_in_place(|| server.send(&picture(number)).twiml().to_owned());
    };
    // Warm up, so that `before` includes the memory that every save needs.
    for number in 1..=FILES {
        storage.queue_response(&get(number), 200, &[], JPEG);
        send(number);
    }
    let is_saved = |number| files(folder.path()).contains(&saved_name(number, "jpg"));
    wait_until(|| (1..=FILES).all(is_saved)).await;
    let before = server.resident();
    for number in FILES + 1..=2 * FILES {
        storage.queue_bytes(&get(number), head.as_str(), ResponseEnd::Stuck(SO_FAR));
        send(number);
    }
    // Less than 1 MiB of what has arrived is not on the disk yet.
    let has_arrived = |length: &&u64| **length > (SO_FAR - MIB) as u64;
    wait_until(|| {
        partial_file_sizes(folder.path())
            .iter()
            .filter(has_arrived)
            .count() as u64
            == FILES
    })
    .await;
    let growth = server.resident().saturating_sub(before);
    // In KiB, for a build without optimization. With whole files in memory it would be twice as much.
    assert!(growth < FILES * 2048, "{growth} KiB");
}

#[tokio::test]
async fn threat_35_media_file_over_quota_is_not_saved() {
    let storage = RawServer::start().await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("old"), vec![0; MIB / 2]).unwrap();
    storage.queue_response(&get(1), 200, &[], &vec![0; MIB / 2 + 1]);
    storage.queue_response(&get(2), 200, &[], &vec![0; MIB / 2]);
    let save = [
        (
            "REPLYHOOK__MEDIA__SAVE_DIR",
            folder.path().to_str().unwrap(),
        ),
        ("REPLYHOOK__MEDIA__SAVE_QUOTA_MIB", "1"),
    ];
    // One message per app: an unfinished file counts towards the quota, even if it will not fit.
    for number in [1, 2] {
        let app = app(&storage, &save, async |_, _| "thanks");
        app.send(picture(number)).await.twiml();
        app.shut_down().await;
    }
    assert_eq!(
        files(folder.path()),
        [saved_name(2, "bin"), "old".to_owned()]
    );
}

#[tokio::test]
async fn saved_media_is_deleted_at_twilio_after_handling() {
    let storage = RawServer::start().await;
    let folder = TempDir::new().unwrap();
    storage.queue_response(&get(1), 200, &[], JPEG);
    storage.queue_response(&get(2), 403, &[], b"");
    let delete = |number| format!("DELETE {}.json", path(number));
    storage.queue_response(&delete(1), 204, &[], b"");
    let save = [
        (
            "REPLYHOOK__MEDIA__SAVE_DIR",
            folder.path().to_str().unwrap(),
        ),
        ("REPLYHOOK__MEDIA__DELETE_AFTER_SAVE", "true"),
    ];
    let bot = app(&storage, &save, fetch_media);
    let outcome_text = format!("{} bytes, said image/jpeg, is image/jpeg", JPEG.len());
    assert_eq!(
        bot.send(picture(1)).await.twiml(),
        twiml_message(&outcome_text)
    );
    assert_eq!(
        bot.send(picture(2)).await.twiml(),
        twiml_message("Rejected(403)")
    );
    bot.shut_down().await;
    // A later fetch gets the saved file.
    storage.queue_response(&get(1), 404, &[], b"");
    let later = app(&storage, &save, fetch_media);
    assert_eq!(
        later.send(picture(1)).await.twiml(),
        twiml_message(&outcome_text)
    );
    later.shut_down().await;
    let lines = storage.request_lines();
    assert!(lines.contains(&delete(1)), "{lines:?}");
    assert!(!lines.contains(&delete(2)), "it was not saved: {lines:?}");
    assert_eq!(files(folder.path()), [saved_name(1, "jpg")]);
}

#[test]
fn messages_show_lists_and_purge_deletes_saved_files() {
    let folder = TempDir::new().unwrap();
    let save = [(
        "REPLYHOOK__MEDIA__SAVE_DIR",
        folder.path().to_str().unwrap(),
    )];
    let store = TempStore::new();
    store.app(
        |app| app,
        async |app| {
            app.send(Webhook::message(1, "hi")).await.twiml();
        },
    );
    let sid = format!("SM{:032x}", 1);
    let name = format!("{sid}-{ME}.jpg");
    std::fs::write(folder.path().join(&name), JPEG).unwrap();
    std::fs::write(folder.path().join(format!("SM{:032x}-{ME}.jpg", 2)), JPEG).unwrap();
    let (code, out, _) = store.run_with(&["messages", "show", &sid], &save);
    let file = folder.path().join(&name).display().to_string();
    assert_eq!(code, 0);
    let line = format!("file      {file} ({} bytes)", JPEG.len());
    assert!(out.contains(&line), "{out}");
    let (_, out, _) = store.run_with(&["messages", "show", "--json", &sid], &save);
    assert_eq!(json_lines(&out)[0]["files"], serde_json::json!([file]));
    let purge = ["purge", "--user", "whatsapp:+15550001111", "--yes"];
    let (code, out, err) = store.run_with(&purge, &save);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("1 saved file"), "{out}");
    assert_eq!(files(folder.path()), [format!("SM{:032x}-{ME}.jpg", 2)]);
}
