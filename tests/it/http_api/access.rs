//! The token, the limits, and the form of requests.

use axum::body::Body;
use http::Request;
use replyhook::config::Settings;
use serde_json::json;

use super::{ANA, Answer, Client, SENDER, encoded};
use crate::support::app::call_router;
use crate::support::{API_TOKEN, TempStore, TestApp, Webhook, sources, wire};

const JSON: &str = "application/json; charset=utf-8";
const KEY: &str = "REPLYHOOK__ADMIN__TOKEN";
const LISTEN: &str = "REPLYHOOK__ADMIN__LISTEN";
const ALLOW: &str = "REPLYHOOK__ADMIN__ALLOW_REMOTE";
const SENDERS: &str = "REPLYHOOK__OUTBOUND__SENDERS";

fn app() -> TestApp {
    TestApp::build(&[("REPLYHOOK__ADMIN__TOKEN", API_TOKEN)], |app| app)
}

async fn raw(
    app: &TestApp,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    Answer::of(call_router(&app.admin, request).await)
}

#[tokio::test]
async fn api_without_token_setting_does_not_exist() {
    let app = TestApp::echo();
    let authorization = format!("Bearer {API_TOKEN}");
    for path in [
        "/v1/messages",
        "/v1/messages/1",
        "/v1/openapi.json",
        "/v1/consents/x",
        "/v1",
    ] {
        for headers in [&[][..], &[("Authorization", authorization.as_str())]] {
            let response = raw(&app, "GET", path, headers, "").await;
            assert_eq!(response.status(), 404, "{path}");
            let response = raw(&app, "POST", path, headers, "{}").await;
            assert_eq!(response.status(), 404, "{path}");
        }
    }
}

#[tokio::test]
async fn wrong_or_missing_token_gets_401_and_no_hint() {
    let app = app();
    app.wait_until_ready().await;
    let almost = &API_TOKEN[..API_TOKEN.len() - 1];
    let with_scheme = |scheme: &str, token: &str| format!("{scheme} {token}");
    for value in [
        None,
        Some(String::new()),
        Some(with_scheme("Bearer", "")),
        Some(with_scheme("Bearer", almost)),
        Some(with_scheme("Bearer", &format!("{API_TOKEN}x"))),
        Some(with_scheme("Bearer", &API_TOKEN.to_uppercase())),
        Some(with_scheme("Basic", API_TOKEN)),
        Some(API_TOKEN.to_owned()),
    ] {
        let headers: Vec<_> = value
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        for (method, path) in [
            ("GET", "/v1/openapi.json"),
            ("POST", "/v1/messages"),
            ("DELETE", "/v1/handoffs/x"),
            ("GET", "/v1/no-such-path"),
            ("OPTIONS", "/v1/messages"),
        ] {
            let response = raw(&app, method, path, &headers, "").await;
            response.assert_problem(401, "unauthorized");
            let scheme = response.http.header("www-authenticate");
            assert_eq!(scheme, Some("Bearer realm=\"replyhook\""));
        }
    }
    // Two headers: a proxy may have checked the other one.
    let right = format!("Bearer {API_TOKEN}");
    let twice = [
        ("Authorization", right.as_str()),
        ("Authorization", right.as_str()),
    ];
    let response = raw(&app, "GET", "/v1/openapi.json", &twice, "").await;
    response.assert_problem(401, "unauthorized");
    // The scheme has no case. The endpoints of the private listener need no token.
    let lower = format!("bearer {API_TOKEN}");
    let response = raw(
        &app,
        "GET",
        "/v1/openapi.json",
        &[("Authorization", &lower)],
        "",
    )
    .await;
    assert_eq!(response.status(), 200);
    assert_eq!(raw(&app, "GET", "/livez", &[], "").await.status(), 200);
}

#[tokio::test]
async fn malformed_request_gets_its_own_status() {
    let app = app();
    app.wait_until_ready().await;
    let authorization = format!("Bearer {API_TOKEN}");
    let send = async |method: &str, path: &str, content_type: &str, body: &str| {
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", content_type),
            ("Origin", "https://elsewhere.example"),
        ];
        let headers = if content_type.is_empty() {
            &headers[..1]
        } else {
            &headers
        };
        let response = raw(&app, method, path, headers, body).await;
        // No page of another origin may call the API.
        assert_eq!(response.http.header("access-control-allow-origin"), None);
        response
    };
    let message = json!({"to": ANA, "from": SENDER, "body": "secret text"}).to_string();
    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    ] {
        let response = send("POST", "/v1/messages", content_type, &message).await;
        response.assert_problem(415, "not_json");
    }
    for body in [
        "",
        "{",
        "secret text",
        "{\"body\":\"secret text\"",
        "[]",
        "null",
        "\"x\"",
        "{} {}",
        "\u{feff}{}",
    ] {
        let response = send("POST", "/v1/messages", JSON, body).await;
        response.assert_problem(400, "malformed_json");
    }
    let big = json!({"to": ANA, "from": SENDER, "body": "x".repeat(70_000)}).to_string();
    let response = send("POST", "/v1/messages", JSON, &big).await;
    response.assert_problem(413, "body_too_large");
    for (method, path) in [
        ("GET", "/v1/messages"),
        ("DELETE", "/v1/messages/1"),
        ("POST", "/v1/consents/x"),
        ("DELETE", "/v1/consents/x"),
        ("POST", "/v1/handoffs/x"),
        ("PUT", "/v1/openapi.json"),
    ] {
        let response = send(method, path, JSON, "{}").await;
        assert_eq!(response.status(), 405, "{method} {path}");
        assert!(response.http.header("allow").is_some(), "{method} {path}");
    }
    let response = send("GET", "/v1/nothing", "", "").await;
    response.assert_problem(404, "unknown_path");
    assert_eq!(app.outbox().await["pending"], 0);
}

#[tokio::test]
async fn wrong_address_gets_422_in_each_place() {
    let app = app();
    app.wait_until_ready().await;
    let api = Client::of(&app);
    for address in [
        "15550001111",
        "whatsapp:15550001111",
        "whatsapp:",
        "ACME",
        "+1555x",
        "%20",
        "whatsapp:+",
    ] {
        let path = address.replace(':', "%3A").replace('+', "%2B");
        for kind in ["consents", "handoffs"] {
            let response = api.get(&format!("/v1/{kind}/{path}")).await;
            response.assert_problem(422, "invalid_address");
        }
        let response = api
            .post(json!({"to": address, "from": SENDER, "body": "hi"}))
            .await;
        response.assert_problem(422, "invalid_address");
    }
    let response = api.get("/v1/consents/%ff").await;
    response.assert_problem(422, "invalid_address");
    let sms_sender = "/v1/handoffs/whatsapp%3A%2B15550001111?sender=%2B15550002222";
    let response = api.get(sms_sender).await;
    let message = response.assert_problem(422, "invalid_address");
    assert!(message.contains("whatsapp and sms"), "{message}");
    let both = format!("/v1/consents/{}?sender=x&service=y", encoded(ANA));
    api.get(&both).await.assert_problem(422, "invalid_scope");
}

#[test]
fn token_and_senders_are_checked_at_start() {
    let problems = |env: &[(&str, &str)]| match Settings::load(&sources(env)) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    };
    let short = problems(&[(KEY, "0123456789012345678901234567890")]);
    assert!(
        short.contains("admin.token")
            && short.contains("has 31 characters")
            && short.contains("openssl rand"),
        "{short}"
    );
    assert!(
        !short.contains("0123456789012345678901234567890"),
        "{short}"
    );
    let blank = problems(&[(KEY, "0123456789 0123456789 0123456789 0123456789")]);
    assert!(blank.contains("has a blank"), "{blank}");
    let remote = problems(&[(KEY, API_TOKEN), (LISTEN, "0.0.0.0:9090")]);
    assert!(
        remote.contains("admin.allow_remote") && remote.contains("set admin.allow_remote = true"),
        "{remote}"
    );
    assert_eq!(
        problems(&[(KEY, API_TOKEN), (LISTEN, "0.0.0.0:9090"), (ALLOW, "true")]),
        ""
    );
    assert_eq!(problems(&[(LISTEN, "0.0.0.0:9090")]), "");
    assert_eq!(problems(&[(KEY, API_TOKEN), (LISTEN, "[::1]:9090")]), "");
    for wrong in [
        "15550002222",
        "whatsapp:",
        "AC00000000000000000000000000000001",
    ] {
        let shown = problems(&[(SENDERS, wrong)]);
        assert!(
            shown.contains("outbound.senders") && shown.contains(wrong),
            "{shown}"
        );
    }
    assert_eq!(
        problems(&[(
            SENDERS,
            "whatsapp:+15550002222,ACME,MG00000000000000000000000000000001"
        )]),
        ""
    );
    let loaded = Settings::load(&sources(&[(KEY, API_TOKEN)])).unwrap();
    assert!(!format!("{loaded:?}").contains(API_TOKEN));
}

// The real binary: the token comes from a file, and neither it nor a text is logged.
#[test]
fn unknown_field_is_ignored_and_logged_once_without_content() {
    let store = TempStore::new();
    let file = store.path().with_file_name("token");
    std::fs::write(&file, format!("{API_TOKEN}\n")).unwrap();
    let server = store.server_with(&[
        ("REPLYHOOK__ADMIN__TOKEN_FILE", file.to_str().unwrap()),
        ("TWILIO_ACCOUNT_SID", crate::support::ACCOUNT),
    ]);
    server.send(&Webhook::message(1, "hi")).twiml();
    let post = |token: &str| {
        let body =
            json!({"to": ANA, "from": SENDER, "body": "secret text", "bdy": 1, "+15550001111": 2})
                .to_string();
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        wire::exchange(server.private, request.as_bytes()).unwrap()
    };
    assert_eq!(post("wrong").status, 401);
    for _ in 0..3 {
        let response = post(API_TOKEN);
        assert_eq!(response.status, 202, "{}", response.body);
    }
    let log = server.log();
    assert_eq!(log.matches("\"bdy\"").count(), 1, "{log}");
    assert_eq!(log.matches("unknown field").count(), 2, "{log}");
    for private in [API_TOKEN, "secret text", "5550001111"] {
        assert!(!log.contains(private), "{log}");
    }
}

// Requests that never end: their bodies do not arrive.
#[tokio::test]
async fn request_beyond_limit_gets_503_and_token_comes_first() {
    let app = app();
    app.wait_until_ready().await;
    let authorization = format!("Bearer {API_TOKEN}");
    let endless = |number: usize| {
        let body = Body::from_stream(futures_util::stream::pending::<
            Result<String, std::io::Error>,
        >());
        let request = Request::put(format!("/v1/consents/%2B155500{number:05}"))
            .header("Authorization", &authorization)
            .header("Content-Type", "application/json")
            .body(body)
            .unwrap();
        let router = app.admin.clone();
        tokio::spawn(async move { call_router(&router, request).await })
    };
    let held: Vec<_> = (0..32).map(endless).collect();
    let right = [("Authorization", authorization.as_str())];
    let wait = crate::support::Wait::until("32 requests are in progress");
    loop {
        let response = raw(&app, "GET", "/v1/openapi.json", &right, "").await;
        if response.status() == 503 {
            response.assert_problem(503, "overloaded");
            assert_eq!(response.http.header("retry-after"), Some("2"));
            break;
        }
        wait.check();
        tokio::task::yield_now().await;
    }
    let response = raw(&app, "GET", "/v1/openapi.json", &[], "").await;
    response.assert_problem(401, "unauthorized");
    assert_eq!(raw(&app, "GET", "/livez", &[], "").await.status(), 200);
    for request in &held {
        request.abort();
    }
    for request in held {
        assert!(request.await.is_err());
    }
    let response = raw(&app, "GET", "/v1/openapi.json", &right, "").await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn wrong_method_is_named_with_those_allowed() {
    let app = app();
    app.wait_until_ready().await;
    let authorization = format!("Bearer {API_TOKEN}");
    let headers = [("Authorization", authorization.as_str())];
    for (method, path, allowed) in [
        ("GET", "/v1/messages", "POST"),
        ("PATCH", "/v1/messages", "POST"),
        ("DELETE", "/v1/consents/x", "GET,HEAD,PUT"),
        ("POST", "/v1/openapi.json", "GET,HEAD"),
    ] {
        let response = raw(&app, method, path, &headers, "").await;
        response.assert_problem(405, "wrong_method");
        assert_eq!(response.http.header("allow"), Some(allowed), "{path}");
    }
}

// On every route, and none is recorded: a mistyped number would silently be without an opt-in.
#[tokio::test]
async fn addresses_in_wrong_forms_get_422() {
    let app = app();
    app.wait_until_ready().await;
    let api = Client::of(&app);
    for address in [
        "",
        " ",
        "ana",
        "+",
        "++15550001111",
        "+1 555 000 1111",
        "+1(555)0001111",
        "0015550001111",
        "15550001111",
        "+1555000111122223333",
        "+\u{661}\u{662}\u{663}",
        "ACME Shop",
        "whatsapp:",
        "whatsapp:+",
        "whatsapp:1555",
        "whatsapp:15550001111",
        "whatsapp:ana",
        "whatsapp:ACME",
        "whatsapp:whatsapp:+15550001111",
        "rcs:",
        "tel:",
    ] {
        let message = json!({"to": address, "from": SENDER, "body": "secret text"});
        api.post(message)
            .await
            .assert_problem(422, "invalid_address");
        let path: String = form_urlencoded::byte_serialize(address.as_bytes()).collect();
        let path = path.replace('+', "%20");
        // Without an address, it is another path.
        if path.is_empty() {
            continue;
        }
        let consent = format!("/v1/consents/{path}");
        let opt_in = json!({"sender": SENDER, "status": "opted_in"});
        let recorded = api.put(&consent, opt_in).await;
        recorded.assert_problem(422, "invalid_address");
        api.get(&consent)
            .await
            .assert_problem(422, "invalid_address");
        let handoff = format!("/v1/handoffs/{path}");
        let begun = api.put(&handoff, json!({"url": null})).await;
        begun.assert_problem(422, "invalid_address");
        for method in ["GET", "DELETE"] {
            let response = api.call(method, &handoff, None).await;
            response.assert_problem(422, "invalid_address");
        }
    }
    assert!(app.store.consent_ledger(0, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn requests_are_counted_by_route_without_addresses() {
    let app = app();
    app.wait_until_ready().await;
    let api = Client::of(&app);
    let series = |route: &str, status: &str| {
        format!(r#"replyhook_api_requests_total{{route="{route}",status="{status}"}}"#)
    };
    // The series of every described path exist from the start.
    let described = crate::support::Description::current().json()["paths"].clone();
    let paths = described.as_object().unwrap().keys().map(String::as_str);
    for route in paths.chain(["other"]) {
        for status in ["2xx", "4xx", "5xx"] {
            assert_eq!(app.metric(&series(route, status)).await, 0.0);
        }
    }
    let consent = format!("/v1/consents/{}", encoded(ANA));
    let opt_in = json!({"sender": SENDER, "status": "opted_in"});
    assert_eq!(api.put(&consent, opt_in).await.status(), 200);
    assert_eq!(api.get(&consent).await.status(), 200);
    assert_eq!(api.get("/v1/messages/7").await.status(), 404);
    raw(&app, "GET", &consent, &[], "")
        .await
        .assert_problem(401, "unauthorized");
    raw(&app, "GET", "/v1/ana", &[], "")
        .await
        .assert_problem(401, "unauthorized");
    for (route, status, count) in [
        ("/v1/consents/{address}", "2xx", 2.0),
        ("/v1/consents/{address}", "4xx", 1.0),
        ("/v1/messages/{id}", "4xx", 1.0),
        ("other", "4xx", 1.0),
        ("/v1/handoffs/{address}", "4xx", 0.0),
    ] {
        assert_eq!(app.metric(&series(route, status)).await, count, "{route}");
    }
    let metrics = raw(&app, "GET", "/metrics", &[], "").await;
    assert!(
        !metrics.http.body.contains("5550001111"),
        "{}",
        metrics.http.body
    );
}
