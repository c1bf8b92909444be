use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http_body_util::BodyExt;
use replyhook::config::Sources;
use replyhook::internals::MessageFilter;
use replyhook::store::{StoreError, StoreHandle};
use replyhook::{App, AppBuilder, Echo, Handler, OutboundClient};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::{FakeTwilio, HttpResponse, ORIGIN, TOKEN, UNSET, Wait, Webhook};

/// Real router and worker in this process, without the network.
pub struct TestApp {
    pub router: Router,
    pub admin: Router,
    /// Store of the app.
    pub store: StoreHandle,
    pub outbound: OutboundClient,
    stop: Arc<Notify>,
    worker: tokio::task::JoinHandle<Result<bool, replyhook::AppError>>,
}

impl TestApp {
    /// Builds an app with the default settings and handler.
    pub fn echo() -> Self {
        Self::with(Echo)
    }

    pub fn with(handler: impl Handler) -> Self {
        Self::build(&[], |app| app.handler(handler))
    }

    /// Builds an app with further environment variables.
    pub fn build(env: &[(&str, &str)], configure: impl FnOnce(AppBuilder) -> AppBuilder) -> Self {
        let app = configure(App::builder().sources(sources(env)))
            .build()
            .unwrap();
        let admin = app.admin_router();
        let (store, outbound) = (app.store(), app.outbound());
        let (router, worker) = app.into_parts();
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let worker = tokio::spawn(worker.run(async move { stopped.notified().await }));
        Self {
            router,
            admin,
            store,
            outbound,
            stop,
            worker,
        }
    }

    /// Builds an app whose REST calls go to a fake Twilio.
    pub fn with_twilio(
        twilio: &FakeTwilio,
        env: &[(&str, &str)],
        configure: impl FnOnce(AppBuilder) -> AppBuilder,
    ) -> Self {
        let url = twilio.url();
        let base_env = [
            ("REPLYHOOK__TWILIO__API_URL", url.as_str()),
            ("REPLYHOOK__TWILIO__CONTENT_URL", url.as_str()),
        ];
        Self::build(&[&base_env[..], env].concat(), configure)
    }

    pub async fn send(&self, webhook: Webhook) -> HttpResponse {
        self.wait_until_ready().await;
        self.send_without_waiting(webhook).await
    }

    /// Sends a webhook without waiting for readiness.
    pub async fn send_without_waiting(&self, webhook: Webhook) -> HttpResponse {
        call_router(&self.router, webhook.request()).await
    }

    /// Waits until the app is ready, or is draining.
    pub async fn wait_until_ready(&self) {
        let wait = Wait::until("the app is ready or draining");
        loop {
            let request = http::Request::get("/readyz")
                .body(axum::body::Body::empty())
                .unwrap();
            let readiness = call_router(&self.admin, request).await.body;
            if readiness.contains(r#""ready":true"#) || readiness.contains(r#""draining":true"#) {
                return;
            }
            wait.check_found(&readiness);
            tokio::task::yield_now().await;
        }
    }

    /// Sends a text, and returns the TwiML of the response.
    pub async fn says(&self, number: u64, body: &str) -> String {
        self.send(Webhook::message(number, body))
            .await
            .twiml()
            .to_owned()
    }

    /// Value of a metric's series, such as `replyhook_late_failures_total`.
    pub async fn metric(&self, series: &str) -> f64 {
        let request = http::Request::get("/metrics")
            .body(axum::body::Body::empty())
            .unwrap();
        let text = call_router(&self.admin, request).await.body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Yields to other tasks until a gauge has a value.
    pub async fn wait_for(&self, gauge: &str, value: f64) {
        let wait = Wait::until(format!("{gauge} is {value}"));
        while self.metric(gauge).await != value {
            wait.pause().await;
        }
    }

    /// Response of `/readyz`.
    pub async fn readiness(&self) -> serde_json::Value {
        let request = http::Request::get("/readyz")
            .body(axum::body::Body::empty())
            .unwrap();
        let readiness = call_router(&self.admin, request).await.body;
        serde_json::from_str(&readiness).unwrap()
    }

    /// Returns `checks.outbox` of `/readyz`, once the check of the store succeeds.
    pub async fn outbox(&self) -> serde_json::Value {
        let wait = Wait::until("the check of the store succeeds");
        loop {
            let readiness = self.readiness().await;
            if readiness["checks"]["store"]["ok"] == true {
                return readiness["checks"]["outbox"].clone();
            }
            wait.check_found(&readiness);
        }
    }

    /// Yields to other tasks until a condition holds.
    pub async fn wait_until(&self, holds: impl Fn() -> bool) {
        let wait = Wait::until("the condition of the test holds");
        while !holds() {
            wait.check();
            self.readiness().await;
        }
    }

    /// Waits until the outbox worker, which wakes once a second, has woken `number` times.
    pub async fn wait_for_worker_rounds(&self, number: u32) {
        tokio::time::sleep(Duration::from_millis(1100) * number).await;
    }

    /// Yields to other tasks until a number of the outbox has a value.
    ///
    /// Reads the store itself, because `/readyz` reports an empty outbox if the store responds too late.
    pub async fn wait_for_outbox(&self, part: &str, value: u64) {
        let wait = Wait::until(format!("{part} of the outbox is {value}"));
        loop {
            let outbox = self.store.outbox_stats().await;
            let number = outbox.as_ref().map(|outbox| match part {
                "pending" => outbox.pending + outbox.unknown,
                "held" => outbox.held,
                part => panic!("{part} is not a number of the outbox"),
            });
            if number.is_ok_and(|number| number == value) {
                return;
            }
            wait.check_found(&outbox);
            tokio::task::yield_now().await;
        }
    }

    /// Starts draining, and waits until `/readyz` reports it.
    pub async fn start_draining(&self) {
        self.stop();
        let wait = Wait::until("/readyz reports draining");
        loop {
            let request = http::Request::get("/readyz")
                .body(axum::body::Body::empty())
                .unwrap();
            if call_router(&self.admin, request)
                .await
                .body
                .contains(r#""draining":true"#)
            {
                return;
            }
            wait.pause().await;
        }
    }

    /// Number of stored messages, at most 1000. Panics if the store fails, which does not mean that it is empty.
    pub async fn message_count(&self) -> usize {
        self.read_message_count().await.unwrap()
    }

    /// Waits until this number of messages is stored, also while the store is not open yet or fails.
    pub async fn wait_for_messages(&self, number: usize) {
        let wait = Wait::until(format!("{number} messages are stored"));
        loop {
            let count = self.read_message_count().await;
            if count.as_ref().is_ok_and(|count| *count >= number) {
                return;
            }
            wait.check_found(&count);
            tokio::task::yield_now().await;
        }
    }

    async fn read_message_count(&self) -> Result<usize, StoreError> {
        let filter = MessageFilter {
            limit: 1000,
            ..MessageFilter::default()
        };
        let rows = self.store.messages(filter).await?;
        Ok(rows.len())
    }

    /// Drains the app, and waits until its store is closed.
    pub async fn shut_down(self) {
        self.stop();
        self.worker.await.unwrap().unwrap();
    }

    /// Starts draining.
    fn stop(&self) {
        self.stop.notify_one();
    }
}

pub fn sources(env: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default()
        .with_env([
            ("TWILIO_AUTH_TOKEN", TOKEN),
            ("PUBLIC_URL", ORIGIN),
            ("DATABASE_URL", "sqlite::memory:"),
            // Nothing listens there, so messages for the REST API stay in the outbox.
            ("REPLYHOOK__TWILIO__API_URL", "http://127.0.0.1:9"),
            ("REPLYHOOK__TWILIO__CONTENT_URL", "http://127.0.0.1:9"),
        ])
        .with_env(env.iter().copied());
    sources.env.retain(|_, value| value != UNSET);
    sources
}

pub async fn call_router(
    router: &Router,
    request: http::Request<axum::body::Body>,
) -> HttpResponse {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    HttpResponse {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}
