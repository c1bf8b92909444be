//! The REST client against a scripted server: the requests that it sends, and its reading of each response or fault.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use replyhook::twilio::{
    ApiUrl, Client, Credentials, ListMessages, Message, NewMessage, RestError, RestErrorKind,
    RetryAdvice,
};
use replyhook::{AccountSid, ErrorCode, FormParams, MessageStatus, Secret};

use crate::support::proxy::{ProxyAction, TlsProxy};
use crate::support::{ACCOUNT, TOKEN, open_window, silent_port};

const CREATED: &str = r#"{"sid":"SM00000000000000000000000000000001","status":"queued","direction":"outbound-api",
    "from":"whatsapp:+15550002222","to":"whatsapp:+15550001111","body":"canary-text","error_code":null,
    "messaging_service_sid":null,"date_created":"Thu, 24 Aug 2023 05:01:45 +0000","num_media":"0","price":null}"#;

/// Starts a server that responds to one request with these bytes. Its thread returns the request.
fn start_scripted_server(answer: impl Into<Vec<u8>>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.into();
    let request = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream);
        stream.write_all(&answer).unwrap();
        request
    });
    (address, request)
}

fn read_request(stream: &mut TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            });
            let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if bytes.len() >= head + 4 + length {
                return text;
            }
        }
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the request is incomplete");
        bytes.extend_from_slice(&buffer[..read]);
    }
}

fn json_response(status: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn account() -> AccountSid {
    ACCOUNT.parse().unwrap()
}

fn client(address: SocketAddr) -> Client {
    Client::new(ApiUrl::parse(&format!("http://{address}")).unwrap())
}

fn text() -> NewMessage {
    NewMessage::text("whatsapp:+15550001111", "canary-text & +1").from("whatsapp:+15550002222")
}

async fn create(address: SocketAddr, message: &NewMessage) -> Result<Message, RestError> {
    let credentials = Credentials::auth_token(account(), Secret::new(TOKEN));
    client(address)
        .messages(account(), &credentials)
        .create(message, &open_window())
        .await
}

#[tokio::test]
async fn message_create_sends_twilio_params_and_parses_response() {
    let (address, request) = start_scripted_server(json_response("201 Created", "", CREATED));
    let sent = create(
        address,
        &text()
            .media("https://h/a.png")
            .status_callback("https://h/status?r=1"),
    )
    .await
    .unwrap();
    assert_eq!(
        (sent.sid.as_str(), sent.status),
        ("SM00000000000000000000000000000001", MessageStatus::Queued)
    );
    assert_eq!(
        (sent.error_code, sent.body.unwrap().0.as_str()),
        (None, "canary-text")
    );
    let request = request.join().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with(&format!(
            "POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1\r\n"
        )),
        "{head}"
    );
    assert!(head.contains(&format!(
        "authorization: Basic {}",
        crate::support::base64_of(format!("{ACCOUNT}:{TOKEN}").as_bytes())
    )));
    let form = FormParams::parse(body.as_bytes(), 512).unwrap();
    let pairs: Vec<_> = form.iter().collect();
    assert_eq!(
        pairs,
        [
            ("To", "whatsapp:+15550001111"),
            ("From", "whatsapp:+15550002222"),
            ("Body", "canary-text & +1"),
            ("StatusCallback", "https://h/status?r=1"),
            ("MediaUrl", "https://h/a.png"),
        ]
    );
}

#[tokio::test]
async fn template_location_and_service_use_own_params() {
    let sent = |message: NewMessage| async move {
        let (address, request) = start_scripted_server(json_response("201 Created", "", CREATED));
        create(address, &message).await.unwrap();
        let request = request.join().unwrap();
        FormParams::parse(request.split_once("\r\n\r\n").unwrap().1.as_bytes(), 512).unwrap()
    };
    let variables = [
        ("2".to_owned(), "12:00 \"sharp\"".to_owned()),
        ("1".to_owned(), "Ana".to_owned()),
    ];
    let service = "MG00000000000000000000000000000001".parse().unwrap();
    let template = NewMessage::template(
        "whatsapp:US.1349",
        "HX00000000000000000000000000000001",
        variables,
    )
    .service(service);
    let form = sent(template).await;
    assert_eq!(
        form.get("ContentVariables"),
        Some(r#"{"1":"Ana","2":"12:00 \"sharp\""}"#)
    );
    assert_eq!(
        (
            form.get("Body"),
            form.get("From"),
            form.get("MessagingServiceSid")
        ),
        (None, None, Some("MG00000000000000000000000000000001"))
    );
    let form = sent(NewMessage::location("whatsapp:+1", 52.52, 13.405, "Office")).await;
    assert_eq!(
        (form.get("PersistentAction"), form.get("Body")),
        (Some("geo:52.52,13.405|Office"), Some("Office"))
    );
}

#[tokio::test]
async fn message_without_open_window_must_be_template() {
    let (address, request) = start_scripted_server(json_response("201 Created", "", CREATED));
    let credentials = Credentials::auth_token(account(), Secret::new(TOKEN));
    let client = client(address);
    let messages = client.messages(account(), &credentials);
    let error = messages.create_template(&text()).await.unwrap_err();
    assert_eq!(error.kind(), RestErrorKind::TemplateRequired);
    assert_eq!(error.retry_advice(), RetryAdvice::Never);
    let template = NewMessage::template("whatsapp:+1", "HX1", [("1", "Ana")]);
    messages.create_template(&template).await.unwrap();
    assert!(request.join().unwrap().contains("ContentSid=HX1"));
}

#[tokio::test]
async fn api_key_login_keeps_account_in_path() {
    let (address, request) = start_scripted_server(json_response("200 OK", "", CREATED));
    let credentials = Credentials::api_key("SK1", Secret::new("secret"));
    let client = client(address);
    let sid = "SM00000000000000000000000000000001".parse().unwrap();
    client
        .messages(account(), &credentials)
        .fetch(sid)
        .await
        .unwrap();
    let request = request.join().unwrap();
    assert!(
        request.starts_with(&format!(
            "GET /2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json "
        )),
        "{request}"
    );
    assert!(request.contains(&crate::support::base64_of(b"SK1:secret")));
}

// Only the text of 70051 is shown, and not if it may hold a phone number.
#[tokio::test]
async fn missing_permission_shows_twilios_text_without_numbers() {
    let no_text = "Twilio rejected the call: the API key lacks a permission (70051, HTTP 403)";
    for (message, shown) in [
        (
            "Permission\\n denied:  /twilio/messaging/messages/create",
            format!("{no_text}: Permission denied: /twilio/messaging/messages/create"),
        ),
        ("may not send to +15550001111", no_text.to_owned()),
        ("may not send to ana@example.com", no_text.to_owned()),
        ("", no_text.to_owned()),
    ] {
        let body = format!(r#"{{"code":70051,"message":"{message}","status":403}}"#);
        let (address, _request) = start_scripted_server(json_response("403 Forbidden", "", &body));
        let error = create(address, &text()).await.unwrap_err();
        assert!(error.is_missing_permission());
        assert_eq!(error.to_string(), shown);
    }
    let body = r#"{"code":21211,"message":"The number +15550001111 is not valid","status":400}"#;
    let (address, _request) = start_scripted_server(json_response("400 Bad Request", "", body));
    let error = create(address, &text()).await.unwrap_err();
    assert!(!error.is_missing_permission());
    assert!(!error.to_string().contains("not valid"), "{error}");
}

#[tokio::test]
async fn message_list_filters_by_address_and_day() {
    let (address, request) = start_scripted_server(json_response(
        "200 OK",
        "",
        &format!(r#"{{"messages":[{CREATED}],"next_page_uri":null}}"#),
    ));
    let credentials = Credentials::auth_token(account(), Secret::new(TOKEN));
    let mut query = ListMessages::default();
    query.to = Some("whatsapp:+15550001111".into());
    query.sent_from = Some("2026-11-24".to_owned());
    query.page_size = Some(50);
    let found = client(address)
        .messages(account(), &credentials)
        .list(&query)
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    let request = request.join().unwrap();
    let query = request
        .split(' ')
        .nth(1)
        .unwrap()
        .split_once('?')
        .unwrap()
        .1
        .to_owned();
    let query = FormParams::parse(query.as_bytes(), 10).unwrap();
    let pairs: Vec<_> = query.iter().collect();
    assert_eq!(
        pairs,
        [
            ("To", "whatsapp:+15550001111"),
            ("DateSent>", "2026-11-24"),
            ("PageSize", "50")
        ]
    );
}

#[tokio::test]
async fn next_page_outside_account_or_host_is_rejected() {
    for elsewhere in [
        "https://evil.example/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages.json?Page=1",
        "//evil.example/Messages.json?Page=1",
        "@evil.example/Messages.json?Page=1",
        "/2010-04-01/Accounts/AC00000000000000000000000000000002/Messages.json?Page=1",
        "/2010-04-01/Accounts/AC00000000000000000000000000000001/../Messages.json?Page=1",
        "/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages.json?Page=1 HTTP/1.1",
    ] {
        let page = format!(r#"{{"messages":[],"next_page_uri":"{elsewhere}"}}"#);
        let (address, _) = start_scripted_server(json_response("200 OK", "", &page));
        let credentials = Credentials::auth_token(account(), Secret::new(TOKEN));
        let client = client(address);
        let messages = client.messages(account(), &credentials);
        let rejected = messages.page(&ListMessages::default()).await;
        assert!(rejected.is_err(), "{elsewhere}");
    }
}

#[tokio::test]
async fn threat_65_rate_limit_response_allows_retry_after_delay() {
    let (address, _) = start_scripted_server(json_response(
        "429 Too Many Requests",
        "Retry-After: 7\r\n",
        r#"{"code":20429,"status":429}"#,
    ));
    let error = create(address, &text()).await.unwrap_err();
    assert_eq!(
        error.retry_advice(),
        RetryAdvice::Safe(Duration::from_secs(7))
    );
    let (address, _) = start_scripted_server(json_response("429 Too Many Requests", "", ""));
    assert_eq!(
        create(address, &text()).await.unwrap_err().retry_advice(),
        RetryAdvice::Safe(Duration::ZERO)
    );
}

// Twilio may have processed the call although the response is an error, invalid or incomplete.
#[tokio::test]
async fn threat_66_unclear_response_is_never_safe_to_retry() {
    for (what, answer) in [
        (
            "a 500",
            json_response(
                "500 Internal Server Error",
                "",
                r#"{"code":20500,"status":500}"#,
            ),
        ),
        (
            "a 503",
            json_response("503 Service Unavailable", "", "<html>"),
        ),
        (
            "a redirect",
            json_response("302 Found", "Location: https://evil.example/\r\n", ""),
        ),
        (
            "garbage for JSON",
            json_response("201 Created", "", "{\"sid\":"),
        ),
        (
            "an invalid SID",
            json_response(
                "201 Created",
                "",
                r#"{"sid":"+15550001111","status":"queued"}"#,
            ),
        ),
        ("no SID", json_response("201 Created", "", "{}")),
        ("garbage for HTTP", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
        ("nothing", String::new()),
        (
            "half an answer",
            "HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{".to_owned(),
        ),
        (
            "an endless answer",
            json_response("201 Created", "", &" ".repeat(5 * 1024 * 1024)),
        ),
    ] {
        let (address, _) = start_scripted_server(answer);
        let error = create(address, &text()).await.unwrap_err();
        assert_eq!(
            error.retry_advice(),
            RetryAdvice::Ambiguous,
            "{what}: {error:?}"
        );
    }
}

#[tokio::test]
async fn threat_67_rejection_is_final_and_keeps_error_code() {
    for (status, body, code) in [
        (
            "400 Bad Request",
            r#"{"code":21610,"message":"x","more_info":"y","status":400}"#,
            Some(21610),
        ),
        (
            "400 Bad Request",
            r#"{"type":"x","title":"y","status":400,"code":"21211"}"#,
            Some(21211),
        ),
        (
            "401 Unauthorized",
            r#"{"code":20003,"status":401}"#,
            Some(20003),
        ),
        ("404 Not Found", "not JSON", None),
        ("403 Forbidden", "", None),
    ] {
        let (address, _) = start_scripted_server(json_response(status, "", body));
        let error = create(address, &text()).await.unwrap_err();
        assert_eq!(
            (error.retry_advice(), error.code()),
            (RetryAdvice::Never, code.map(ErrorCode)),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn threat_68_unsent_request_is_safe_to_retry() {
    let silent = silent_port();
    let silent_address = silent.local_addr().unwrap();
    let error = create(silent_address, &text()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_advice()),
        (RestErrorKind::Connect, RetryAdvice::Safe(Duration::ZERO))
    );
    // The server answers the first message of TLS with one that is not TLS.
    let (port, first_byte) = start_server_without_tls();
    let error = create_over_tls(port).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_advice()),
        (RestErrorKind::Connect, RetryAdvice::Safe(Duration::ZERO))
    );
    assert_eq!(
        first_byte.join().unwrap(),
        22,
        "the handshake had not begun"
    );
    // A certificate that is not trusted: the request, which has the auth token, is not sent.
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let proxy = TlsProxy::start(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        ProxyAction::Respond(json_response("201 Created", "", CREATED).into_bytes())
    });
    let error = create_over_tls(proxy.port()).await.unwrap_err();
    assert_eq!(error.kind(), RestErrorKind::Connect);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

/// Starts a server that answers the first bytes with plain HTTP. Its thread returns the first byte, 22 for a handshake.
fn start_server_without_tls() -> (u16, JoinHandle<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let first_byte = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 4096];
        assert_ne!(stream.read(&mut hello).unwrap(), 0, "nothing was sent");
        // The client may have closed the connection.
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        hello[0]
    });
    (port, first_byte)
}

async fn create_over_tls(port: u16) -> Result<Message, RestError> {
    let url = ApiUrl::parse(&format!("https://localhost:{port}")).unwrap();
    let credentials = Credentials::auth_token(account(), Secret::new(TOKEN));
    Client::new(url)
        .messages(account(), &credentials)
        .create(&text(), &open_window())
        .await
}

#[tokio::test]
async fn errors_and_debug_hide_content_address_and_token() {
    let credentials = Credentials::auth_token(account(), Secret::new(TOKEN));
    let mut output = format!("{:?} {credentials:?}", text());
    for answer in [
        json_response(
            "400 Bad Request",
            "",
            r#"{"code":21211,"message":"+15550001111 is not"}"#,
        ),
        json_response("201 Created", "", r#"{"sid":"+15550001111"}"#),
        json_response("201 Created", "", "\"+15550001111 canary-text\""),
    ] {
        let (address, _) = start_scripted_server(answer);
        let error = create(address, &text()).await.unwrap_err();
        output += &format!("{error} {error:?}");
    }
    let (address, _) = start_scripted_server(json_response("201 Created", "", CREATED));
    output += &format!("{:?}", create(address, &text()).await.unwrap());
    for canary in ["15550001111", "canary-text", TOKEN] {
        assert!(!output.contains(canary), "{canary} is in {output}");
    }
}
