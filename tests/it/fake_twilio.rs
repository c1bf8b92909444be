//! The fake Twilio of these tests: the messages that it accepts and shows on a phone, and its injected faults.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use http::HeaderMap;
use replyhook::twilio::{
    ApiUrl, Client, Credentials, ListMessages, Message, NewMessage, RestError, RestErrorKind,
    RetryAdvice,
};
use replyhook::{AccountSid, ErrorCode, FormParams, MessageStatus, Secret};
use serde_json::Value;

use crate::support::{
    ACCOUNT, Attempt, Delivery, EMPTY, FakeTwilio, Fault, HttpResponse, ORIGIN, OTHER_TOKEN,
    PhoneMessage, Policy, Post, PostOutcome, SentVia, Server, TOKEN, TestApp, Webhook, base64_of,
    open_window, twiml_message, wire,
};

const USER: &str = "whatsapp:+15550001111";
const BOT: &str = "whatsapp:+15550002222";

fn account() -> AccountSid {
    ACCOUNT.parse().unwrap()
}

fn client(twilio: &FakeTwilio) -> Client {
    Client::new(ApiUrl::parse(&twilio.url()).unwrap())
}

fn credentials() -> Credentials {
    Credentials::auth_token(account(), Secret::new(TOKEN))
}

fn text(body: &str) -> NewMessage {
    NewMessage::text(USER, body).from(BOT)
}

async fn send(twilio: &FakeTwilio, message: &NewMessage) -> Result<Message, RestError> {
    let credentials = credentials();
    client(twilio)
        .messages(account(), &credentials)
        .create(message, &open_window())
        .await
}

async fn list(
    twilio: &FakeTwilio,
    configure: impl FnOnce(&mut ListMessages),
) -> Result<Vec<Message>, RestError> {
    let credentials = credentials();
    let mut query = ListMessages::default();
    configure(&mut query);
    client(twilio)
        .messages(account(), &credentials)
        .list(&query)
        .await
}

/// Returns the bytes of a REST call.
fn call(method: &str, resource: &str, login: &str, form: &FormParams) -> Vec<u8> {
    let body = form.encode();
    format!(
        "{method} /2010-04-01/Accounts/{ACCOUNT}/{resource} HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Basic {}\r\nContent-Length: {}\r\n\r\n{body}",
        base64_of(login.as_bytes()),
        body.len()
    )
    .into_bytes()
}

fn post(body: &str) -> Vec<u8> {
    let form = FormParams::from_iter([("To", USER), ("From", BOT), ("Body", body)]);
    call(
        "POST",
        "Messages.json",
        &format!("{ACCOUNT}:{TOKEN}"),
        &form,
    )
}

fn bodies(phone: &[PhoneMessage]) -> Vec<&str> {
    phone.iter().map(|message| message.body.as_str()).collect()
}

fn outcomes(posts: &[Post]) -> Vec<PostOutcome> {
    posts.iter().map(|post| post.outcome).collect()
}

fn attempts(delivery: &Delivery) -> Vec<(&str, Option<u16>, bool)> {
    let of = |attempt: &'_ Attempt| (attempt.status, attempt.usable);
    let targets = delivery.attempts.iter().map(|one| one.target.as_str());
    targets
        .zip(delivery.attempts.iter().map(of))
        .map(|(target, (status, usable))| (target, status, usable))
        .collect()
}

/// Starts a server that sends these responses, one per connection. The thread returns the requests.
fn start_scripted_server(answers: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = std::thread::spawn(move || {
        let answered = answers.into_iter().map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_request(&mut stream);
            stream.write_all(&answer).unwrap();
            request
        });
        answered.collect()
    });
    (address, requests)
}

fn read_request(stream: &mut std::net::TcpStream) -> Vec<u8> {
    use std::io::{BufRead, BufReader, Read};
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    let mut length = 0;
    while !request.ends_with("\r\n\r\n") {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "connection closed");
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        request += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    [request.into_bytes(), body].concat()
}

fn raw_response(status: u16, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Told\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Returns a response with this TwiML document.
fn twiml_response(body: &str) -> HttpResponse {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "text/xml; charset=utf-8".parse().unwrap());
    HttpResponse {
        status: 200,
        headers,
        body: body.to_owned(),
    }
}

// The response has every key of Twilio's.
#[test]
fn rest_message_gets_full_response_and_reaches_phone() {
    let twilio = FakeTwilio::start();
    let answer = wire::exchange(twilio.address(), &post("hello & +1")).unwrap();
    assert_eq!(answer.status, 201);
    let created: Value = serde_json::from_str(&answer.body).unwrap();
    let keys: Vec<_> = created.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "account_sid",
            "api_version",
            "body",
            "date_created",
            "date_sent",
            "date_updated",
            "direction",
            "error_code",
            "error_message",
            "from",
            "messaging_service_sid",
            "num_media",
            "num_segments",
            "price",
            "price_unit",
            "sid",
            "status",
            "subresource_uris",
            "to",
            "uri"
        ]
    );
    assert_eq!(
        (&created["direction"], &created["status"]),
        (&"outbound-api".into(), &"queued".into())
    );
    assert_eq!(
        (&created["num_media"], &created["date_sent"]),
        (&"0".into(), &Value::Null)
    );
    let date = created["date_created"].as_str().unwrap();
    assert_eq!((date.len(), &date[25..]), (31, " +0000"), "{date}");
    let message = PhoneMessage {
        body: "hello & +1".to_owned(),
        media: Vec::new(),
        sid: created["sid"].as_str().unwrap().to_owned(),
        via: SentVia::Rest,
        in_reply_to: None,
        from: BOT.to_owned(),
        content: None,
    };
    assert_eq!(twilio.phone(USER), [message]);
    assert!(twilio.phone(BOT).is_empty());
}

#[tokio::test]
async fn rest_client_sends_fetches_and_lists_messages() {
    let twilio = FakeTwilio::start();
    let first = send(&twilio, &text("one")).await.unwrap();
    let second = send(&twilio, &text("two").media("https://h/a.png"))
        .await
        .unwrap();
    let other = NewMessage::text("whatsapp:+15550003333", "three").from(BOT);
    let other = send(&twilio, &other).await.unwrap();
    assert!(second.sid.as_str().starts_with("MM"), "{}", second.sid);
    assert_eq!(twilio.phone(USER)[1].media, ["https://h/a.png"]);
    let credentials = credentials();
    let client = client(&twilio);
    let messages = client.messages(account(), &credentials);
    let fetched = messages.fetch(first.sid).await.unwrap();
    assert_eq!(fetched.body.unwrap().0, "one");
    let unknown = "SM00000000000000000000000000000001".parse().unwrap();
    let error = messages.fetch(unknown).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode(20404)));

    let sids = |found: Vec<Message>| found.iter().map(|one| one.sid).collect::<Vec<_>>();
    let all = list(&twilio, |_| {}).await.unwrap();
    assert_eq!(sids(all), [other.sid, second.sid, first.sid]);
    let to_user = list(&twilio, |query| query.to = Some(USER.into())).await;
    assert_eq!(sids(to_user.unwrap()), [second.sid, first.sid]);
    let by_user = list(&twilio, |query| query.from = Some(USER.into())).await;
    assert!(by_user.unwrap().is_empty());
    let page = list(&twilio, |query| query.page_size = Some(1)).await;
    assert_eq!(sids(page.unwrap()), [other.sid]);
    // The day of the first message: midnight may pass during the test.
    let day = jiff::fmt::rfc2822::parse(&first.date_created.unwrap()).unwrap();
    let since = |day: jiff::civil::Date| {
        let twilio = &twilio;
        async move {
            list(twilio, |query| {
                query.sent_from = Some(day.to_string());
            })
            .await
        }
    };
    assert_eq!(since(day.date()).await.unwrap().len(), 3);
    let later = day.date().checked_add(jiff::Span::new().days(2)).unwrap();
    assert!(since(later).await.unwrap().is_empty());
    assert_eq!(twilio.lists()[1].iter().collect::<Vec<_>>(), [("To", USER)]);
    // Another account does not see these messages.
    let other_account: AccountSid = "AC00000000000000000000000000000002".parse().unwrap();
    let login = Credentials::auth_token(other_account, Secret::new(TOKEN));
    let found = client.messages(other_account, &login);
    assert!(
        found
            .list(&ListMessages::default())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn template_and_service_messages_are_shown_on_phone() {
    let twilio = FakeTwilio::start();
    let variables = [("1".to_owned(), "Ana".to_owned())];
    let template =
        NewMessage::template(USER, "HX00000000000000000000000000000001", variables).from(BOT);
    send(&twilio, &template).await.unwrap();
    let service = "MG00000000000000000000000000000001".parse().unwrap();
    let sent = send(&twilio, &NewMessage::text(USER, "hi").service(service))
        .await
        .unwrap();
    assert_eq!((sent.status, sent.from), (MessageStatus::Accepted, None));
    let phone = twilio.phone(USER);
    assert_eq!(
        bodies(&phone),
        [r#"HX00000000000000000000000000000001 {"1":"Ana"}"#, "hi"]
    );
    let listed = list(&twilio, |_| {}).await.unwrap();
    assert_eq!(
        (listed[0].from.clone(), listed[0].messaging_service_sid),
        (Some(phone[1].from.as_str().into()), Some(service))
    );
}

#[test]
fn rest_call_with_unknown_credentials_gets_401() {
    let twilio = FakeTwilio::start();
    let form = FormParams::from_iter([("To", USER), ("From", BOT), ("Body", "hi")]);
    let status = |method: &str, resource: &str, login: &str| {
        wire::exchange(twilio.address(), &call(method, resource, login, &form))
            .unwrap()
            .status
    };
    let wrong = format!("{ACCOUNT}:{OTHER_TOKEN}");
    assert_eq!(status("POST", "Messages.json", &wrong), 401);
    assert_eq!(status("GET", "Messages.json", &wrong), 401);
    let other = format!("AC00000000000000000000000000000002:{TOKEN}");
    assert_eq!(status("POST", "Messages.json", &other), 401);
    twilio.logins(&[("SK1", "secret")]);
    let right = format!("{ACCOUNT}:{TOKEN}");
    assert_eq!(status("POST", "Messages.json", &right), 401);
    assert_eq!(status("POST", "Messages.json", "SK1:secret"), 201);
    assert_eq!(status("GET", "Messages.json", "SK1:secret"), 200);
    assert_eq!(status("GET", "Calls.json", "SK1:secret"), 404);
    let posts = twilio.posts();
    let users: Vec<_> = posts.iter().map(|post| post.user.as_str()).collect();
    assert_eq!(users, [ACCOUNT, &other[..34], ACCOUNT, "SK1"]);
    assert_eq!(
        outcomes(&posts),
        [401, 401, 401, 201].map(PostOutcome::Status)
    );
    assert_eq!(twilio.phone(USER).len(), 1);
}

#[test]
fn invalid_message_is_rejected_without_consuming_fault() {
    let twilio = FakeTwilio::start();
    twilio.fault(Fault::AcceptedThenReset, 1);
    let long = "x".repeat(1601);
    for (pairs, code) in [
        (&[("From", BOT), ("Body", "x")][..], 21604),
        (&[("To", USER), ("Body", "x")], 21603),
        (
            &[("To", USER), ("From", "+15550002222"), ("Body", "x")],
            21910,
        ),
        (&[("To", USER), ("From", BOT), ("Body", "")], 21619),
        (&[("To", USER), ("From", BOT), ("Body", &long)], 21617),
    ] {
        let form = pairs.iter().copied().collect();
        let login = format!("{ACCOUNT}:{TOKEN}");
        let request = call("POST", "Messages.json", &login, &form);
        let answer = wire::exchange(twilio.address(), &request).unwrap();
        let error: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (answer.status, &error["code"], &error["status"]),
            (400, &code.into(), &400.into())
        );
    }
    assert!(twilio.phone(USER).is_empty());
    assert!(wire::exchange(twilio.address(), &post("taken")).is_none());
    assert_eq!(bodies(&twilio.phone(USER)), ["taken"]);
}

// A message reaches the phone only if Twilio accepted it before the fault.
#[tokio::test]
async fn injected_fault_yields_expected_retry_advice() {
    for (fault, repeat, shown) in [
        (
            Fault::Status {
                status: 429,
                code: Some(20429),
                retry_after: Some(7),
            },
            RetryAdvice::Safe(std::time::Duration::from_secs(7)),
            0,
        ),
        (
            Fault::Status {
                status: 400,
                code: Some(21610),
                retry_after: None,
            },
            RetryAdvice::Never,
            0,
        ),
        (
            Fault::Status {
                status: 503,
                code: None,
                retry_after: None,
            },
            RetryAdvice::Ambiguous,
            0,
        ),
        (Fault::ResetBefore, RetryAdvice::Ambiguous, 0),
        (Fault::AcceptedThenReset, RetryAdvice::Ambiguous, 1),
        (Fault::AcceptedThenGarbage, RetryAdvice::Ambiguous, 1),
        (Fault::AcceptedThenStatus(500), RetryAdvice::Ambiguous, 1),
    ] {
        let twilio = FakeTwilio::start();
        twilio.fault(fault, 2);
        for number in 1..=2 {
            let error = send(&twilio, &text("hi")).await.unwrap_err();
            assert_eq!(error.retry_advice(), repeat, "{fault:?}");
            if let Fault::Status {
                status: 400, code, ..
            } = fault
            {
                assert_eq!(error.code(), code.map(ErrorCode));
            }
            assert_eq!(twilio.phone(USER).len(), number * shown, "{fault:?}");
        }
        send(&twilio, &text("after that")).await.unwrap();
        let fault = PostOutcome::Fault(fault);
        let posts = twilio.posts();
        assert_eq!(outcomes(&posts), [fault, fault, PostOutcome::Status(201)]);
        assert_eq!(
            (posts[1].form.get("Body"), posts[1].user.as_str()),
            (Some("hi"), ACCOUNT)
        );
    }
}

#[tokio::test]
async fn list_fault_fails_configured_number_of_calls() {
    let twilio = FakeTwilio::start();
    twilio.list_fault(503, 2);
    for _ in 0..2 {
        let error = list(&twilio, |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), RestErrorKind::Unknown { status: Some(503) });
    }
    assert!(list(&twilio, |_| {}).await.unwrap().is_empty());
    assert_eq!(twilio.lists().len(), 3);
}

// A hanging post ends when the fake Twilio is dropped.
#[test]
fn hanging_post_blocks_no_other_post() {
    let twilio = FakeTwilio::start();
    twilio.fault(Fault::Hang, 1);
    let mut hanging = wire::connect(twilio.address());
    hanging.write_all(&post("never")).unwrap();
    twilio.wait_for_posts(1);
    // A connection without a request ends with it too.
    let mut silent = wire::connect(twilio.address());
    let response = wire::exchange(twilio.address(), &post("taken")).unwrap();
    assert_eq!(response.status, 201);
    assert_eq!(bodies(&twilio.phone(USER)), ["taken"]);
    assert_eq!(
        outcomes(&twilio.posts()),
        [PostOutcome::Fault(Fault::Hang), PostOutcome::Status(201)]
    );
    hanging.set_nonblocking(true).unwrap();
    let pending = hanging.peek(&mut [0]).unwrap_err();
    assert_eq!(pending.kind(), std::io::ErrorKind::WouldBlock);
    hanging.set_nonblocking(false).unwrap();
    drop(twilio);
    assert!(wire::read_response(&mut hanging).is_none());
    assert!(wire::is_closed(&mut silent));
}

#[tokio::test]
async fn outage_refuses_connections_until_up_at_same_address() {
    let twilio = FakeTwilio::start();
    let client = client(&twilio);
    let credentials = credentials();
    let messages = client.messages(account(), &credentials);
    for round in 1..=3 {
        twilio.start_outage();
        twilio.start_outage();
        let error = messages
            .create(&text("lost"), &open_window())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RestErrorKind::Connect);
        let refused = std::net::TcpStream::connect(twilio.address()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        twilio.end_outage();
        twilio.end_outage();
        messages
            .create(&text("taken"), &open_window())
            .await
            .unwrap();
        assert_eq!(bodies(&twilio.phone(USER)), vec!["taken"; round]);
    }
    assert_eq!(twilio.posts().len(), 3);
}

// Twilio accepts a request that it has received, even if the client is gone by then.
#[test]
fn held_posts_are_accepted_in_order_after_disconnect() {
    let twilio = FakeTwilio::start();
    twilio.hold_posts();
    let mut open = Vec::new();
    for number in 1..=5 {
        let mut stream = wire::connect(twilio.address());
        stream.write_all(&post(&number.to_string())).unwrap();
        open.push(stream);
        let posts = twilio.wait_for_posts(number);
        assert_eq!(posts[number - 1].outcome, PostOutcome::Waiting);
    }
    // Close all connections except the last.
    let mut last = open.pop().unwrap();
    drop(open);
    assert!(twilio.phone(USER).is_empty());
    twilio.release_posts();
    assert_eq!(bodies(&twilio.phone(USER)), ["1", "2", "3", "4", "5"]);
    assert_eq!(wire::read_response(&mut last).unwrap().status, 201);
    twilio.hold_posts();
    let mut stream = wire::connect(twilio.address());
    stream.write_all(&post("6")).unwrap();
    twilio.wait_for_posts(6);
    // A held request ends when the fake Twilio is dropped.
    drop(twilio);
    assert!(wire::read_response(&mut stream).is_none());
}

#[test]
fn wait_for_phone_returns_expected_messages() {
    let twilio = FakeTwilio::start();
    let phone = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| twilio.wait_for_phone(USER, 2));
        for body in ["1", "2"] {
            wire::exchange(twilio.address(), &post(body)).unwrap();
        }
        waiting.join().unwrap()
    });
    assert_eq!(bodies(&phone), ["1", "2"]);
}

// A second delivery shows the reply again but lists the inbound message once.
#[tokio::test]
async fn delivered_message_is_shown_and_listed_with_reply() {
    let twilio = FakeTwilio::start();
    let server = Server::start(&[]);
    let webhook = Webhook::message(1, "hi & <you>");
    let delivery = twilio.deliver(|| Some(server.public), &webhook, Policy::BOTH);
    assert_eq!(attempts(&delivery), [("/webhook", Some(200), true)]);
    assert!(delivery.acknowledged());
    let phone = twilio.phone(USER);
    assert_eq!(
        phone,
        [PhoneMessage {
            body: "hi & <you>".to_owned(),
            media: Vec::new(),
            sid: phone[0].sid.clone(),
            via: SentVia::Twiml,
            in_reply_to: Some("SM00000000000000000000000000000001".to_owned()),
            from: BOT.to_owned(),
            content: None,
        }]
    );
    let listed = list(&twilio, |_| {}).await.unwrap();
    let of = |message: &Message| (message.sid.to_string(), message.direction.clone().unwrap());
    assert_eq!(
        listed.iter().map(of).collect::<Vec<_>>(),
        [
            (phone[0].sid.clone(), "outbound-reply".to_owned()),
            (
                "SM00000000000000000000000000000001".to_owned(),
                "inbound".to_owned()
            )
        ]
    );
    twilio.deliver(|| Some(server.public), &webhook, Policy::BOTH);
    assert_eq!(twilio.phone(USER).len(), 2);
    let from_user = list(&twilio, |query| query.from = Some(USER.into())).await;
    assert_eq!(from_user.unwrap().len(), 1);
}

// The retry repeats the same request with the same idempotency token. The fallback call has another token.
#[test]
fn broken_connection_is_retried_at_current_server_address() {
    let twilio = FakeTwilio::start();
    let server = Server::start(&[]);
    let (broken, requests) = start_scripted_server(vec![Vec::new()]);
    let servers = [broken, server.public];
    let next = AtomicUsize::new(0);
    let next_server = || servers.get(next.fetch_add(1, Ordering::Relaxed)).copied();
    let delivery = twilio.deliver(next_server, &Webhook::message(1, "hi"), Policy::BOTH);
    assert_eq!(
        attempts(&delivery),
        [("/webhook", None, false), ("/webhook", Some(200), true)]
    );
    assert_eq!(bodies(&twilio.phone(USER)), ["hi"]);
    assert_eq!(requests.join().unwrap().len(), 1);

    let nothing = vec![Vec::new(); 3];
    let (broken, requests) = start_scripted_server(nothing);
    let delivery = twilio.deliver(|| Some(broken), &Webhook::message(2, "hi"), Policy::BOTH);
    assert!(!delivery.acknowledged());
    let requests = requests.join().unwrap();
    assert_eq!(requests[0], requests[1]);
    let token = |request: &[u8]| {
        let request = String::from_utf8(request.to_vec()).unwrap();
        let (_, rest) = request.split_once("I-Twilio-Idempotency-Token: ").unwrap();
        rest.lines().next().unwrap().to_owned()
    };
    assert_eq!(token(&requests[0]).len(), 36);
    assert_ne!(token(&requests[0]), token(&requests[2]));
}

// The fallback call is signed for its own URL and names the error and the failed URL.
#[test]
fn failed_webhook_is_followed_by_signed_fallback_call() {
    let twilio = FakeTwilio::start();
    let server = Server::start(&[]);
    let (failing, asked) = start_scripted_server(vec![raw_response(
        500,
        "text/xml",
        &twiml_message("an error"),
    )]);
    let servers = [failing, server.public];
    let next = AtomicUsize::new(0);
    let next_server = || servers.get(next.fetch_add(1, Ordering::Relaxed)).copied();
    let delivery = twilio.deliver(next_server, &Webhook::message(1, "hi"), Policy::FALLBACK);
    assert_eq!(
        attempts(&delivery),
        [
            ("/webhook", Some(500), false),
            ("/webhook/fallback", Some(200), true)
        ]
    );
    assert_eq!(bodies(&twilio.phone(USER)), ["hi"]);
    asked.join().unwrap();

    // The parameters of the fallback call.
    let (failing, asked) = start_scripted_server(vec![raw_response(500, "text/xml", EMPTY); 2]);
    twilio.deliver(
        || Some(failing),
        &Webhook::message(2, "hi"),
        Policy::FALLBACK,
    );
    let request = String::from_utf8(asked.join().unwrap().remove(1)).unwrap();
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let form = FormParams::parse(body.as_bytes(), 512).unwrap();
    let failed = format!("{ORIGIN}/webhook");
    let expected = Webhook::message(2, "hi")
        .with("ErrorCode", "11200")
        .with("ErrorUrl", &failed);
    assert!(form == expected.form, "{body}");
}

#[test]
fn delivery_attempts_without_listener_follow_policy() {
    let twilio = FakeTwilio::start();
    // Its address is reserved: no other process can listen there.
    let unreachable = FakeTwilio::start();
    unreachable.start_outage();
    let once = ("/webhook", None, false);
    let fallback = ("/webhook/fallback", None, false);
    for (policy, expected) in [
        (Policy::NEITHER, &[once][..]),
        (Policy::RETRY, &[once, once]),
        (Policy::FALLBACK, &[once, fallback]),
        (Policy::BOTH, &[once, once, fallback]),
    ] {
        for place in [None, Some(unreachable.address())] {
            let delivery = twilio.deliver(|| place, &Webhook::message(1, "hi"), policy);
            assert_eq!(attempts(&delivery), expected);
            assert!(!delivery.acknowledged());
        }
    }
    assert!(twilio.phone(USER).is_empty());
}

#[test]
fn unusable_response_fails_and_shows_nothing() {
    let short = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 999\r\n\r\n{body}")
            .into_bytes()
    };
    let xml = |body: &str| raw_response(200, "text/xml", body);
    for (what, answer, status) in [
        ("nothing", Vec::new(), None),
        ("half an answer", short(&twiml_message("x")), None),
        (
            "a 500",
            raw_response(500, "text/xml", &twiml_message("x")),
            Some(500),
        ),
        ("a 204", raw_response(204, "text/xml", ""), Some(204)),
        (
            "JSON",
            raw_response(200, "application/json", "{}"),
            Some(200),
        ),
        (
            "no type",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
            Some(200),
        ),
        ("an empty document", xml(""), Some(200)),
        (
            "a blank before it",
            xml(&format!(" {}", twiml_message("x"))),
            Some(200),
        ),
        ("an open tag", xml("<Response><Message>x"), Some(200)),
        (
            "a wrong end",
            xml("<Response><Message>x</Response>"),
            Some(200),
        ),
        (
            "another root",
            xml("<Reply><Message>x</Message></Reply>"),
            Some(200),
        ),
        (
            "two roots",
            xml("<Response><Message>x</Message></Response><Response/>"),
            Some(200),
        ),
        ("text after it", xml("<Response/>x"), Some(200)),
        (
            "a bare ampersand",
            xml("<Response><Message>x & y</Message></Response>"),
            Some(200),
        ),
        (
            "an unknown entity",
            xml("<Response><Message>x&nbsp;y</Message></Response>"),
            Some(200),
        ),
        (
            "a character that XML cannot hold",
            xml(&twiml_message("x\u{1}")),
            Some(200),
        ),
        (
            "a reference to one",
            xml(&twiml_message("x&#1;")),
            Some(200),
        ),
        (
            "an attribute twice",
            xml(r#"<Response><Message to="a" to="b">x</Message></Response>"#),
            Some(200),
        ),
        (
            "too much",
            xml(&twiml_message(&"x".repeat(64_000))),
            Some(200),
        ),
    ] {
        let twilio = FakeTwilio::start();
        let (server, requests) = start_scripted_server(vec![answer]);
        let delivery = twilio.deliver(|| Some(server), &Webhook::message(1, "hi"), Policy::NEITHER);
        assert_eq!(attempts(&delivery), [("/webhook", status, false)], "{what}");
        assert!(twilio.phone(USER).is_empty(), "{what}");
        requests.join().unwrap();
    }
    // A plain-text response is a common mistake, but not a failure: the user gets the text.
    let twilio = FakeTwilio::start();
    let (server, _) = start_scripted_server(vec![raw_response(200, "text/plain", "OK")]);
    let delivery = twilio.deliver(|| Some(server), &Webhook::message(1, "hi"), Policy::NEITHER);
    assert!(delivery.acknowledged());
    assert_eq!(bodies(&twilio.phone(USER)), ["OK"]);
}

#[test]
fn twiml_is_executed_as_it_is_written() {
    let twilio = FakeTwilio::start();
    let webhook = Webhook::message(1, "hi");
    let executed = twilio.execute(
        &webhook,
        &twiml_response(
            r#"<?xml version="1.0" encoding="UTF-8"?><!-- two --><Response>
            <Message>a &amp; b&#13;<![CDATA[<c>]]></Message>
            <Message to="whatsapp:+15550003333" from="whatsapp:+15550004444" statusCallback="https://hooks.example.test/s?a=1&amp;b=2">
                <Body>Look</Body> between <Body> here</Body>
                <Media>https://h/a.png?x=1&amp;y=2</Media><Media>https://h/b.png</Media>
            </Message>
            <Message/><Message></Message>
            <Unknown><Message>no</Message></Unknown>
            </Response>"#,
        ),
    );
    assert!(executed);
    assert_eq!(bodies(&twilio.phone(USER)), ["a & b\r<c>"]);
    let other = twilio.phone("whatsapp:+15550003333");
    assert_eq!(
        (bodies(&other), other[0].from.as_str()),
        (vec!["Look here"], "whatsapp:+15550004444")
    );
    assert_eq!(
        other[0].media,
        ["https://h/a.png?x=1&y=2", "https://h/b.png"]
    );
    assert!(other[0].sid.starts_with("MM"));
    let callback = twilio.status_webhook(&other[0].sid, "sent", None);
    assert_eq!(callback.target, "/s?a=1&b=2");

    // Twilio sends at most ten messages of a document, and none that is too long.
    let twilio = FakeTwilio::start();
    let long = format!("<Message>{}</Message>", "x".repeat(1601));
    let many: String = (1..=11)
        .map(|n| format!("<Message>{n}</Message>"))
        .collect();
    assert!(twilio.execute(
        &webhook,
        &twiml_response(&format!("<Response>{long}</Response>"))
    ));
    assert!(twilio.phone(USER).is_empty());
    assert!(twilio.execute(
        &webhook,
        &twiml_response(&format!("<Response>{many}</Response>"))
    ));
    assert_eq!(twilio.phone(USER).len(), 10);
    assert!(twilio.execute(&webhook, &twiml_response(EMPTY)));
    assert_eq!(twilio.phone(USER).len(), 10);
}

// The REST API lists the message with its new status.
#[tokio::test]
async fn status_callback_uses_message_url_and_updates_message() {
    let twilio = FakeTwilio::start();
    let server = Server::start(&[]);
    let reported = format!("{ORIGIN}/webhook/status?r=1-2");
    let sent = send(&twilio, &text("hi").status_callback(&reported))
        .await
        .unwrap();
    let sid = sent.sid.to_string();
    let answer = twilio.status(server.public, &sid, "delivered", None);
    assert_eq!(answer.unwrap().twiml(), EMPTY);
    assert_eq!(
        server.metric(r#"replyhook_status_updates_total{status="delivered"}"#),
        1.0
    );
    let listed = list(&twilio, |_| {}).await.unwrap();
    assert_eq!(listed[0].status, MessageStatus::Delivered);

    let app = TestApp::echo();
    let failed = twilio.status_webhook(&sid, "undelivered", Some(63016));
    let value = |name| failed.form.get(name);
    assert_eq!(
        (failed.target.as_str(), value("ErrorCode"), value("To")),
        ("/webhook/status?r=1-2", Some("63016"), Some(USER))
    );
    assert_eq!(
        (value("ChannelPrefix"), value("MessagingServiceSid")),
        (Some("whatsapp"), None)
    );
    assert_eq!(app.send(failed).await.twiml(), EMPTY);
    let listed = list(&twilio, |_| {}).await.unwrap();
    assert_eq!(listed[0].error_code, Some(ErrorCode(63016)));

    twilio.start_outage();
    assert!(
        twilio
            .status(twilio.address(), &sid, "read", None)
            .is_none()
    );
}

#[test]
fn concurrent_deliveries_answer_each_message_once() {
    let twilio = FakeTwilio::start();
    let server = Server::start(&[]);
    std::thread::scope(|scope| {
        for user in 0..8 {
            let (twilio, server) = (&twilio, &server);
            scope.spawn(move || {
                for number in 0..10 {
                    let text = format!("{user}-{number}");
                    let webhook = Webhook::message(user * 100 + number, &text)
                        .with("From", &format!("whatsapp:+1555000{user:04}"));
                    let delivery = twilio.deliver(|| Some(server.public), &webhook, Policy::BOTH);
                    assert!(delivery.acknowledged());
                    wire::exchange(twilio.address(), &post(&text)).unwrap();
                }
            });
        }
    });
    for user in 0..8 {
        let phone = twilio.phone(&format!("whatsapp:+1555000{user:04}"));
        let expected: Vec<_> = (0..10).map(|number| format!("{user}-{number}")).collect();
        assert_eq!(bodies(&phone), expected);
    }
    assert_eq!(twilio.phone(USER).len(), 80);
    let mut sids: Vec<_> = twilio.phone(USER).into_iter().map(|one| one.sid).collect();
    sids.sort();
    sids.dedup();
    assert_eq!(sids.len(), 80);
}
