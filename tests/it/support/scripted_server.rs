//! Scripted HTTP server: it sends the responses that a test queues, and records the requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method};
use replyhook::FormParams;
use tokio::net::TcpListener;

/// Response: status, headers, body.
type Script = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// Recorded request.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub form: FormParams,
    pub body: Bytes,
}

#[derive(Default)]
struct Inner {
    /// Queued responses of each path. The last one is repeated.
    scripts: HashMap<String, VecDeque<Script>>,
    requests: Vec<RecordedRequest>,
}

#[derive(Clone)]
pub struct ScriptedServer {
    url: String,
    inner: Arc<Mutex<Inner>>,
}

impl ScriptedServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scripted = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::default(),
        };
        let router = Router::new().fallback(answer).with_state(scripted.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        scripted
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Queues a TwiML response for a path.
    pub fn queue_twiml(&self, path: &str, verbs: &str) {
        let document = format!("<Response>{verbs}</Response>");
        self.queue_response(path, 200, "text/xml", &document);
    }

    pub fn queue_response(&self, path: &str, status: u16, content_type: &str, body: &str) {
        let headers = if content_type.is_empty() {
            Vec::new()
        } else {
            vec![("content-type", content_type.to_owned())]
        };
        self.script(path, (status, headers, body.into()));
    }

    /// Removes the queued responses of a path.
    pub fn clear_responses(&self, path: &str) {
        self.inner.lock().unwrap().scripts.remove(path);
    }

    /// Queues a response for a path. The last one is repeated.
    pub fn script(&self, path: &str, script: Script) {
        let mut inner = self.inner.lock().unwrap();
        inner
            .scripts
            .entry(path.to_owned())
            .or_default()
            .push_back(script);
    }

    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.inner.lock().unwrap().requests.clone()
    }

    pub fn requests_to(&self, path: &str) -> Vec<RecordedRequest> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }
}

async fn answer(State(scripted): State<ScriptedServer>, parts: Parts, body: Bytes) -> Response {
    let query = parts.uri.query().unwrap_or_default();
    let text = if parts.method == Method::GET {
        query.as_bytes()
    } else {
        &body
    };
    let request = RecordedRequest {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        headers: parts.headers.clone(),
        form: FormParams::parse(text, 1000).unwrap_or_default(),
        body: body.clone(),
    };
    let mut inner = scripted.inner.lock().unwrap();
    let path = request.path.clone();
    inner.requests.push(request);
    let scripts = inner.scripts.entry(path).or_default();
    let script = if scripts.len() > 1 {
        scripts.pop_front()
    } else {
        scripts.front().cloned()
    };
    let (status, headers, body) = script.unwrap_or((404, Vec::new(), Vec::new()));
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body.into()).unwrap()
}
