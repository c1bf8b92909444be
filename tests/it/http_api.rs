//! The HTTP API on the private listener. Each exchange is checked against the description that the server returns.

mod access;
mod consents;
mod content;
mod description;
mod events;
mod handoffs;
mod messages;
mod program;

use axum::Router;
use axum::body::Body;
use http::Request;
use replyhook::{AppBuilder, Echo};
use serde_json::Value;

use crate::support::app::call_router;
#[cfg(feature = "postgres")]
use crate::support::postgres::TestDatabase;
use crate::support::{
    ACCOUNT, API_TOKEN, Description, FakeTwilio, HttpResponse, TestApp, report_skipped,
};

const ANA: &str = "whatsapp:+15550001111";
const BEN: &str = "whatsapp:+15550009999";
const SENDER: &str = "whatsapp:+15550002222";
const SERVICE: &str = "MG00000000000000000000000000000001";
const TEMPLATE: &str = "HX00000000000000000000000000000001";

const CONTENT_URL: &str = "REPLYHOOK__TWILIO__CONTENT_URL";
/// Setting with which content and templates are those of the fake Twilio.
const WITH_CONTENT: (&str, &str) = (CONTENT_URL, "the fake Twilio's");

/// Client of the API of an app in this process.
struct Client {
    router: Router,
}

/// Response of the API.
struct Answer {
    http: HttpResponse,
    json: Value,
}

impl Client {
    fn of(app: &TestApp) -> Self {
        Self {
            router: app.admin.clone(),
        }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, &[], body).await
    }

    async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Authorization", format!("Bearer {API_TOKEN}"));
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = body.as_ref().map_or_else(String::new, Value::to_string);
        let response = call_router(&self.router, request.body(Body::from(bytes)).unwrap()).await;
        let description = Description::current();
        description.check(method, path, body.as_ref(), response.status, &response.body);
        Answer::of(response)
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    async fn post(&self, body: Value) -> Answer {
        self.call("POST", "/v1/messages", Some(body)).await
    }

    /// Posts a message whose JSON is not that of a [`Value`], so its request is not checked.
    async fn post_raw(&self, body: &str) -> Answer {
        let request = Request::post("/v1/messages")
            .header("Authorization", format!("Bearer {API_TOKEN}"))
            .header("Content-Type", "application/json");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = call_router(&self.router, request).await;
        let (status, text) = (response.status, &response.body);
        Description::current().check("POST", "/v1/messages", None, status, text);
        Answer::of(response)
    }

    async fn post_with_key(&self, key: &str, body: Value) -> Answer {
        let headers = [("Idempotency-Key", key)];
        self.call_with("POST", "/v1/messages", &headers, Some(body))
            .await
    }
}

impl Answer {
    fn of(http: HttpResponse) -> Self {
        let json = serde_json::from_str(&http.body).unwrap_or(Value::Null);
        Self { http, json }
    }

    fn status(&self) -> u16 {
        self.http.status
    }

    /// Asserts status and reason, and that cause and remedy name neither user nor text.
    #[track_caller]
    fn assert_problem(&self, status: u16, reason: &str) -> &str {
        assert_eq!(self.http.status, status, "{}", self.http.body);
        assert_eq!(self.json["reason"], reason, "{}", self.http.body);
        for private in ["5550001111", "5550009999", "secret text"] {
            assert!(!self.http.body.contains(private), "{}", self.http.body);
        }
        assert_ne!(self.json["remedy"], "");
        self.json["message"].as_str().unwrap()
    }
}

/// Percent-encodes an address for a path.
fn encoded(address: &str) -> String {
    address.replace(':', "%3A").replace('+', "%2B")
}

/// Runs a test with an app on SQLite, and one on PostgreSQL if there is a server.
async fn on_both_stores(
    env: &[(&str, &str)],
    configure: impl Fn(AppBuilder) -> AppBuilder,
    test: impl AsyncFn(&TestApp, &Client, &FakeTwilio),
) {
    let base_env = [
        ("REPLYHOOK__ADMIN__TOKEN", API_TOKEN),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        // Templates are not checked then.
        (CONTENT_URL, "http://127.0.0.1:9"),
    ];
    let mut env = [&base_env[..], env].concat();
    if env.contains(&WITH_CONTENT) {
        env.retain(|(name, _)| *name != CONTENT_URL);
    }
    let run = async |env: &[(&str, &str)]| {
        let twilio = FakeTwilio::start();
        let app = TestApp::with_twilio(&twilio, env, |app| configure(app.handler(Echo)));
        app.wait_until_ready().await;
        test(&app, &Client::of(&app), &twilio).await;
        app.shut_down().await;
    };
    run(&env).await;
    #[cfg(feature = "postgres")]
    if let Some(database) = TestDatabase::create().await {
        let url = database.url();
        run(&[&env[..], &[("DATABASE_URL", url.expose())]].concat()).await;
        database.remove().await;
        return;
    }
    report_skipped("the HTTP API on PostgreSQL");
}
