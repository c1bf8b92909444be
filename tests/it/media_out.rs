//! Media of replies: checked, stored, and served under unguessable links.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use replyhook::clock::{ManualClock, SignedDuration};
use replyhook::{Clock, Context, Handler, InboundMessage, Media, Reply, ReplyMessage, SystemClock};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::support::{
    ACCOUNT, EMPTY, FakeTwilio, ORIGIN, RawServer, ResponseEnd, ScriptedServer, Server, TestApp,
    Webhook, twiml_message, wire,
};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and a picture";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0 and a picture";
const ME: &str = "ME00000000000000000000000000000001";
const MIB: usize = 1024 * 1024;
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Response to a request for a link.
#[derive(Debug, Clone, PartialEq)]
struct RawResponse {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl RawResponse {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

async fn send_request(app: &TestApp, request: Request<Body>) -> RawResponse {
    let response = app.router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    RawResponse {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    }
}

async fn get(app: &TestApp, path: &str) -> RawResponse {
    send_request(app, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn get_range(app: &TestApp, path: &str, range: &str) -> RawResponse {
    let request = Request::get(path).header("range", range);
    send_request(app, request.body(Body::empty()).unwrap()).await
}

/// Paths of all links to this server in a text, in order.
fn links(text: &str) -> Vec<String> {
    let after = text.split(ORIGIN).skip(1);
    let path = |rest: &str| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_".contains(c)));
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    after.map(path).collect()
}

/// Builds an app with this handler, and returns it with its TwiML for one message.
async fn app_and_twiml<H: Handler>(handler: H) -> (TestApp, String) {
    let app = TestApp::with(handler);
    let twiml = app.says(1, "hi").await;
    (app, twiml)
}

fn picture() -> Media {
    Media::bytes(PNG, "image/png")
}

// A redelivery gets the same link, and another message gets its own.
#[tokio::test]
async fn reply_media_gets_unguessable_link() {
    let (app, twiml) = app_and_twiml(async |_, _| Reply::media(picture())).await;
    let path = links(&twiml).pop().unwrap();
    let media = format!("<Media>{ORIGIN}{path}</Media>");
    assert!(twiml.contains(&media), "{twiml}");
    let token = path.strip_prefix("/media/").unwrap();
    assert_eq!(token.len(), 64, "256 random bits and a tag: {token}");
    let response = get(&app, &path).await;
    assert_eq!((response.status, response.body.as_slice()), (200, PNG));
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-disposition", "inline"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cache-control", "private, no-store"),
        ("accept-ranges", "bytes"),
        ("content-length", &PNG.len().to_string()),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
    let head = Request::head(&path).body(Body::empty()).unwrap();
    let head = send_request(&app, head).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), PNG.len().to_string());
    assert_eq!(head.header("content-type"), "image/png");
    assert_eq!(get(&app, &format!("{path}/")).await.status, 200);
    assert_eq!(app.says(1, "hi").await, twiml);
    assert_ne!(links(&app.says(2, "hi").await).pop().unwrap(), path);
    let ok_series = r#"replyhook_webhooks_total{endpoint="media",outcome="ok"}"#;
    assert_eq!(app.metric(ok_series).await, 3.0);
}

// A range outside the file gets 416, and a request for several ranges gets the whole file.
#[tokio::test]
async fn media_link_serves_single_range_requests() {
    let (app, twiml) = app_and_twiml(async |_, _| Reply::media(picture())).await;
    let path = links(&twiml).pop().unwrap();
    let part = get_range(&app, &path, "bytes=1-3").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &PNG[1..4]));
    assert_eq!(
        part.header("content-range"),
        format!("bytes 1-3/{}", PNG.len())
    );
    assert_eq!(part.header("content-length"), "3");
    assert_eq!(
        get_range(&app, &path, "bytes=-4").await.body,
        &PNG[PNG.len() - 4..]
    );
    assert_eq!(get_range(&app, &path, "bytes=5-").await.body, &PNG[5..]);
    let outside = get_range(&app, &path, "bytes=1000-").await;
    assert_eq!(outside.status, 416);
    assert_eq!(
        outside.header("content-range"),
        format!("bytes */{}", PNG.len())
    );
    let several = get_range(&app, &path, "bytes=0-1,3-4").await;
    assert_eq!((several.status, several.body.as_slice()), (200, PNG));
}

#[tokio::test]
async fn guessed_and_expired_media_links_get_same_404() {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = TestApp::build(&[], |app| {
        app.clock(clock.clone())
            .handler(async |_, _| Reply::media(picture()))
    });
    let path = links(&app.says(1, "hi").await).pop().unwrap();
    clock.advance(HOUR * 71);
    assert_eq!(get(&app, &path).await.status, 200);
    clock.advance(HOUR);
    let mut ended = get(&app, &path).await;
    assert_eq!(
        (ended.status, ended.body.as_slice()),
        (404, b"not found\n".as_slice())
    );
    ended.headers.remove("x-request-id");
    let guessed = "A".repeat(64);
    let long = "A".repeat(4000);
    for path in [
        format!("/media/{guessed}"),
        format!("/media/{guessed}A"),
        format!("/media/{}", &guessed[..43]),
        format!("/media/{long}"),
        format!("{path}A"),
        "/media/..%2f..%2fetc%2fpasswd".to_owned(),
        "/media/%2e%2e".to_owned(),
        "/media/%00".to_owned(),
        "/media/*".to_owned(),
        "/media/%ff".to_owned(),
    ] {
        let mut response = get(&app, &path).await;
        response.headers.remove("x-request-id");
        assert_eq!(response, ended, "{path}");
    }
    for path in ["/media", "/media/", "/media/a/b", "/media/../webhook"] {
        assert_eq!(get(&app, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn media_link_accepts_get_and_head_only() {
    let (app, twiml) = app_and_twiml(async |_, _| Reply::media(picture())).await;
    let path = links(&twiml).pop().unwrap();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request = Request::builder().method(method).uri(&path);
        let response = send_request(&app, request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (response.status, response.header("allow")),
            (405, "GET, HEAD"),
            "{method}"
        );
    }
}

#[tokio::test]
async fn local_file_type_comes_from_name_or_content() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let files = [
        (Media::file(write("card.vcf", b"BEGIN:VCARD")), "text/vcard"),
        (Media::file(write("a picture", PNG)), "image/png"),
        (
            Media::file(write("x.bin", b"a,b")).content_type("text/csv"),
            "text/csv",
        ),
    ];
    for (file, content_type) in files {
        let (app, twiml) = app_and_twiml(move |_: Context, _: InboundMessage| {
            let file = file.clone();
            async move { Reply::media(file) }
        })
        .await;
        let response = get(&app, &links(&twiml).pop().unwrap()).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (200, content_type)
        );
    }
}

// Type and size limits depend on the channel, and all files of an MMS count together.
#[tokio::test]
async fn unsupported_media_fails_before_reaching_twilio() {
    const WHATSAPP: &str = "whatsapp:+15550001111";
    const SMS: &str = "+15550001111";
    let of = |size: usize, content_type: &str| Media::bytes(vec![7; size], content_type);
    let folder = TempDir::new().unwrap();
    let huge = folder.path().join("huge.png");
    let file = std::fs::File::create(&huge).unwrap();
    file.set_len(1 << 40).unwrap();
    for (user, media, is_taken) in [
        (WHATSAPP, of(16 * MIB, "video/mp4"), true),
        (WHATSAPP, of(16 * MIB + 1, "video/mp4"), false),
        (WHATSAPP, of(9, "image/webp"), true),
        (WHATSAPP, of(9, "application/zip"), false),
        (WHATSAPP, of(9, "text/html"), false),
        (WHATSAPP, of(0, "image/png"), false),
        (SMS, of(5 * MIB, "image/png"), true),
        (SMS, of(5 * MIB + 1, "image/png"), false),
        (SMS, of(9, "image/webp"), false),
        (SMS, of(9, "application/msword"), false),
        (
            WHATSAPP,
            Media::url("https://h/x").content_type("text/html"),
            false,
        ),
        (
            WHATSAPP,
            Media::url("https://h/x").content_type("image/png"),
            true,
        ),
        // The extension decides as for files, unless the type is set.
        (WHATSAPP, Media::url("https://h/a.txt?x=.png"), false),
        (SMS, Media::url("https://h/a.webp"), false),
        (WHATSAPP, Media::url("https://h/a.webp"), true),
        (WHATSAPP, Media::url("https://h/a.webm"), true),
        (
            SMS,
            Media::url("https://h/a.webp").content_type("image/png"),
            true,
        ),
        (
            WHATSAPP,
            Media::file(folder.path().join("missing.png")),
            false,
        ),
        (WHATSAPP, Media::file(folder.path()), false),
        (WHATSAPP, Media::file(&huge), false),
    ] {
        let text = format!("{media:?}");
        let app = TestApp::with(move |_: Context, _: InboundMessage| {
            let media = media.clone();
            async move { Reply::media(media) }
        });
        let to = user.replace("1111", "2222");
        let webhook = Webhook::message(1, "hi").with("From", user).with("To", &to);
        let answer = app.send(webhook).await;
        assert_eq!(
            answer.status,
            if is_taken { 200 } else { 500 },
            "{user} {text}"
        );
    }
    // The size limit applies to all files of an MMS together, but to each WhatsApp file alone.
    let app = TestApp::with(async |_, _| {
        let half = || Media::bytes(vec![7; 3 * MIB], "image/png");
        ReplyMessage::default().media(half()).media(half())
    });
    let sms = Webhook::message(1, "hi")
        .with("From", SMS)
        .with("To", "+15550002222");
    app.send(sms).await.assert_rejected(500);
    app.send(Webhook::message(2, "hi")).await.twiml();
}

// The text is the first image's caption, or a message of its own before a file that cannot have a caption.
#[tokio::test]
async fn multiple_media_become_messages_in_order() {
    async fn album(_cx: Context, _message: InboundMessage) -> ReplyMessage {
        ["1", "2", "3"]
            .into_iter()
            .fold(ReplyMessage::text("look"), |said, number| {
                said.media(Media::bytes(number.as_bytes(), "image/png"))
            })
    }
    let (app, twiml) = app_and_twiml(album).await;
    let messages: Vec<_> = twiml.split("<Message>").skip(1).collect();
    assert_eq!(messages.len(), 3, "{twiml}");
    assert!(
        messages[0].starts_with("<Body>look</Body><Media>"),
        "{twiml}"
    );
    for (path, number) in links(&twiml).iter().zip(["1", "2", "3"]) {
        assert_eq!(get(&app, path).await.body, number.as_bytes());
    }
    let pdf = async |_, _| {
        ReplyMessage::text("read").media(Media::bytes(*b"%PDF-1.7", "application/pdf"))
    };
    let (_, twiml) = app_and_twiml(pdf).await;
    assert!(
        twiml.contains("<Message>read</Message><Message><Media>"),
        "{twiml}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn late_reply_sends_media_via_rest_api() {
    let twilio = FakeTwilio::start();
    let env = [
        ("REPLYHOOK__TWILIO__API_URL", twilio.url()),
        ("REPLYHOOK__REPLY__DEADLINE_MS", "1".to_owned()),
    ];
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let (open, opened) = tokio::sync::watch::channel(false);
    let app = TestApp::build(&env, |app| {
        app.handler(move |_: Context, _: InboundMessage| {
            let mut opened = opened.clone();
            async move {
                opened.wait_for(|open| *open).await.unwrap();
                Reply::media(picture())
            }
        })
    });
    assert_eq!(app.says(1, "hi").await, EMPTY);
    open.send(true).unwrap();
    let post = twilio.wait_for_posts(1).remove(0);
    let path = links(post.form.get("MediaUrl").unwrap()).pop().unwrap();
    assert_eq!(get(&app, &path).await.body, PNG);
}

/// Message with one file of this declared type.
fn incoming(number: u64, content_type: &str) -> Webhook {
    Webhook::message(number, "")
        .with("MessageSid", &format!("MM{number:032x}"))
        .with("NumMedia", "1")
        .with("MediaUrl0", &format!("https://api.twilio.com/{ME}"))
        .with("MediaContentType0", content_type)
}

fn twilio_media_request(number: u64) -> String {
    format!("GET /2010-04-01/Accounts/{ACCOUNT}/Messages/MM{number:032x}/Media/{ME}")
}

/// Settings of a server that forwards messages to a service at `url`.
fn forward_env<'a>(storage: &'a RawServer, url: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("REPLYHOOK__TWILIO__API_URL", storage.url()),
        ("REPLYHOOK__HANDLER__KIND", "forward"),
        ("REPLYHOOK__HANDLER__FORWARD_URL", url),
        (
            "REPLYHOOK__HANDLER__FORWARD_SECRET",
            "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ),
    ]
}

fn first_link(request: &crate::support::RecordedRequest) -> String {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let link = body["media"][0]["link"].as_str().unwrap();
    link.strip_prefix(ORIGIN).unwrap().to_owned()
}

// The service needs no credentials; the file is fetched from Twilio on demand, with its real content type.
#[tokio::test]
async fn forwarded_media_link_serves_file_for_one_hour() {
    let (storage, service) = (RawServer::start().await, ScriptedServer::start().await);
    service.queue_response("/message", 204, "", "");
    storage.queue_response(
        &twilio_media_request(1),
        200,
        &[("content-type", "image/jpeg")],
        JPEG,
    );
    storage.queue_response(
        &twilio_media_request(2),
        200,
        &[("content-type", "image/jpeg")],
        b"<html><script>",
    );
    let url = format!("{}/message", service.url());
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = TestApp::build(&forward_env(&storage, &url), |app| app.clock(clock.clone()));
    app.send(incoming(1, "text/html")).await.twiml();
    let path = first_link(&service.requests()[0]);
    assert!(
        storage.requests().is_empty(),
        "the file is fetched on demand only"
    );
    let response = get(&app, &path).await;
    assert_eq!((response.status, response.body.as_slice()), (200, JPEG));
    assert_eq!(
        response.header("content-type"),
        "image/jpeg",
        "the declared type is ignored"
    );
    assert_eq!(response.header("content-length"), JPEG.len().to_string());
    let head = Request::head(&path).body(Body::empty()).unwrap();
    let head = send_request(&app, head).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), JPEG.len().to_string());
    // A user's HTML file must not run as a page of this server.
    app.send(incoming(2, "text/html")).await.twiml();
    let page = get(&app, &first_link(&service.requests()[1])).await;
    assert_eq!(page.header("content-type"), "application/octet-stream");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(
        page.header("content-security-policy"),
        "default-src 'none'; sandbox"
    );
    // An error of Twilio becomes a 502 without Twilio's body.
    storage.queue_response(&twilio_media_request(3), 401, &[], b"secret");
    app.send(incoming(3, "image/jpeg")).await.twiml();
    let rejected = get(&app, &first_link(&service.requests()[2])).await;
    assert_eq!(rejected.status, 502);
    assert!(!String::from_utf8_lossy(&rejected.body).contains("secret"));
    clock.advance(HOUR);
    assert_eq!(get(&app, &path).await.status, 404);
}

#[tokio::test]
async fn media_link_of_unknown_length_omits_content_length() {
    let (storage, service) = (RawServer::start().await, ScriptedServer::start().await);
    service.queue_response("/message", 204, "", "");
    let without_length = b"HTTP/1.1 200 x\r\ncontent-type: image/jpeg\r\n\r\n";
    storage.queue_bytes(
        &twilio_media_request(1),
        [&without_length[..], JPEG].concat(),
        ResponseEnd::Close,
    );
    let url = format!("{}/message", service.url());
    let app = TestApp::build(&forward_env(&storage, &url), |app| app);
    app.send(incoming(1, "image/jpeg")).await.twiml();
    let path = first_link(&service.requests()[0]);
    let head = Request::head(&path).body(Body::empty()).unwrap();
    let head = send_request(&app, head).await;
    assert_eq!((head.status, head.header("content-length")), (200, ""));
    let response = get(&app, &path).await;
    assert_eq!((response.status, response.body.as_slice()), (200, JPEG));
    assert_eq!(response.header("content-length"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_link_is_never_logged() {
    let (storage, service) = (RawServer::start().await, ScriptedServer::start().await);
    service.queue_response("/message", 200, "text/plain", "thanks");
    storage.queue_response(&twilio_media_request(1), 200, &[], JPEG);
    let url = format!("{}/message", service.url());
    let settings = forward_env(&storage, &url);
    let log = [("REPLYHOOK__LOG__LEVEL", "trace")];
    let server = tokio::task::block_in_place(|| {
        let server = Server::start(&[&settings[..], &log].concat());
        assert_eq!(
            server.send(&incoming(1, "image/jpeg")).twiml(),
            twiml_message("thanks")
        );
        server
    });
    let path = first_link(&service.requests()[0]);
    let token = path.rsplit('/').next().unwrap().to_owned();
    tokio::task::block_in_place(|| {
        for path in [path.clone(), format!("{path}A")] {
            let request = format!("HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            server.exchange(request.as_bytes());
        }
        let log = server.log();
        assert!(log.contains("webhook"), "nothing was logged");
        assert!(!log.contains(&token), "{log}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_link_keeps_its_connection() {
    let (storage, service) = (RawServer::start().await, ScriptedServer::start().await);
    service.queue_response("/message", 200, "text/plain", "thanks");
    storage.queue_response(&twilio_media_request(1), 200, &[], JPEG);
    let url = format!("{}/message", service.url());
    let settings = forward_env(&storage, &url);
    let server = tokio::task::block_in_place(|| {
        let server = Server::start(&settings);
        server.send(&incoming(1, "image/jpeg")).twiml();
        server
    });
    let path = first_link(&service.requests()[0]);
    tokio::task::block_in_place(|| {
        let mut stream = wire::connect(server.public);
        for method in ["GET", "HEAD", "GET"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            if method == "HEAD" {
                // Content-Length is that of the body that a HEAD response omits.
                let head = wire::read_head(&mut stream).unwrap();
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            } else {
                assert_eq!(wire::read_response(&mut stream).unwrap().status, 200);
            }
        }
    });
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn test_kit_fetches_reply_media() {
    use replyhook::App;
    use replyhook::testing::TestBot;

    async fn bot(cx: Context, message: InboundMessage) -> Result<Reply, replyhook::MediaError> {
        if message.media.is_empty() {
            return Ok(Reply::media(picture()).and("and a text"));
        }
        let file = cx.media(0).bytes().await?;
        let content_type = file.file_type.sniffed.unwrap_or_default();
        Ok(Reply::media(Media::bytes(file.bytes, content_type)))
    }
    let bot = TestBot::start(|| App::builder().handler(bot)).await;
    let ana = bot.whatsapp("+34600000001");
    let answer = ana.says("picture").await;
    answer.assert_media(1).assert_replied_inline();
    let shown = bot
        .emulator_client()
        .get(&["conversations", "whatsapp:+34600000001"])
        .await;
    let shown = shown.unwrap();
    let file = &shown[1]["media"][0];
    assert_eq!(file["content_type"], "image/png");
    assert!(file["src"].is_string(), "the page shows it: {file}");
    // The bot replies to a picture with one picture.
    let sent = serde_json::json!({
        "from": "whatsapp:+34600000001", "body": "",
        "media": [{"data": crate::support::base64_of(JPEG), "content_type": "image/jpeg"}],
    });
    let answered = bot
        .emulator_client()
        .post(&["messages"], &sent)
        .await
        .unwrap();
    assert_eq!(
        answered["messages"][0]["media"].as_array().unwrap().len(),
        1,
        "{answered}"
    );
    bot.set_handler_latency(std::time::Duration::from_secs(20))
        .await;
    ana.says("picture").await.assert_media(1);
}
