//! Client of the control API, for an emulator in this process or another one on this machine.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use reqwest::Url;
use serde_json::Value;

use replyhook_core::tls;

/// Client of an emulator's control API.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::testing::TestBot;
/// use replyhook::{App, emulator::EmulatorClient};
///
/// let bot = TestBot::start(App::builder).await;
/// bot.sms("+34600000001").says("hi").await.assert_reply("hi");
/// // `replyhook dev` serves the same API on port 8081.
/// let client = EmulatorClient::new(bot.emulator_client().url())?;
/// let conversations = client.get(&["conversations"]).await?;
/// assert!(conversations.to_string().contains("+34600000001"));
/// # Ok::<(), replyhook::emulator::EmulatorClientError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct EmulatorClient {
    client: reqwest::Client,
    url: String,
}

/// Error of [`EmulatorClient`].
///
/// ```
/// use replyhook::emulator::{EmulatorClient, EmulatorClientError};
///
/// assert!(matches!(EmulatorClient::new("https://api.twilio.com"), Err(EmulatorClientError::Url)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorClientError {
    /// The URL is not http, or not on this machine.
    #[error("invalid emulator address; expected a URL such as http://127.0.0.1:8081")]
    Url,
    /// The request failed.
    #[error("no emulator responds at {url}: {reason}")]
    Unreachable {
        /// Origin of the emulator.
        url: String,
        /// Cause.
        reason: String,
    },
    /// The emulator rejected the request, with this explanation.
    #[error("{0}")]
    Rejected(String),
}

/// Event of the control API, such as a new message.
///
/// See [`EventStream`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EmulatorEvent {
    /// Name, such as `message`, `status`, `exchange` or `debugger`.
    pub name: String,
    /// Content, documented in `docs/src/reference/emulator-api.md`.
    pub data: Value,
}

/// Stream of events from [`EmulatorClient::events`].
///
/// ```no_run
/// use replyhook::emulator::{EmulatorClient, EmulatorClientError};
///
/// # async fn watch() -> Result<(), EmulatorClientError> {
/// let mut events = EmulatorClient::new("http://127.0.0.1:8081")?.events().await?;
/// while let Some(event) = events.next().await {
///     println!("{}: {}", event.name, event.data);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    /// Bytes received and not yet parsed.
    buffer: Vec<u8>,
}

impl EmulatorClient {
    /// Creates a client of the emulator at `url`. For a protected emulator, pass the page's URL with its key.
    ///
    /// # Errors
    /// [`EmulatorClientError::Url`] if the URL is not http, or not on this machine.
    pub fn new(url: &str) -> Result<Self, EmulatorClientError> {
        let parsed = Url::parse(url).map_err(|_| EmulatorClientError::Url)?;
        let host = parsed.host_str().unwrap_or_default();
        if parsed.scheme() != "http" || !["127.0.0.1", "localhost", "[::1]"].contains(&host) {
            return Err(EmulatorClientError::Url);
        }
        let mut headers = HeaderMap::new();
        if let Some((_, key)) = parsed.query_pairs().find(|(name, _)| name == "key") {
            let bearer = HeaderValue::try_from(format!("Bearer {key}"));
            let mut bearer = bearer.map_err(|_| EmulatorClientError::Url)?;
            // Hides the key from `Debug`.
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        tls::install_provider();
        // No overall timeout: `POST messages` takes as long as the webhook calls, and event streams do not end.
        let client = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(|_| EmulatorClientError::Url)?;
        Ok(Self {
            client,
            url: parsed.origin().ascii_serialization(),
        })
    }

    /// Returns the emulator's origin.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a GET request for a path below `/_emulator/`, such as `&["conversations"]`.
    ///
    /// # Errors
    /// [`EmulatorClientError`] if the emulator cannot be reached or rejects the request.
    pub async fn get(&self, path: &[&str]) -> Result<Value, EmulatorClientError> {
        self.send_json(Method::GET, path, None).await
    }

    /// Sends a GET request for a path whose response is text, with the names and values of a query.
    ///
    /// # Errors
    /// [`EmulatorClientError`] if the emulator cannot be reached or rejects the request.
    pub async fn text_of(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<String, EmulatorClientError> {
        let mut url = self.endpoint_url(path);
        url.query_pairs_mut().extend_pairs(query);
        let request = self.client.get(url);
        self.send_for_text(request).await
    }

    /// Sends a POST request to a path below `/_emulator/`, such as `&["messages"]`.
    ///
    /// # Errors
    /// [`EmulatorClientError`] if the emulator cannot be reached or rejects the request.
    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value, EmulatorClientError> {
        self.send_json(Method::POST, path, Some(body)).await
    }

    /// Sends a PUT request to a path below `/_emulator/`, such as `&["faults"]`.
    ///
    /// # Errors
    /// [`EmulatorClientError`] if the emulator cannot be reached or rejects the request.
    pub async fn put(&self, path: &[&str], body: &Value) -> Result<Value, EmulatorClientError> {
        self.send_json(Method::PUT, path, Some(body)).await
    }

    /// Opens the event stream.
    ///
    /// # Errors
    /// [`EmulatorClientError`] if the emulator cannot be reached or rejects the request.
    pub async fn events(&self) -> Result<EventStream, EmulatorClientError> {
        let response = self
            .send(self.client.get(self.endpoint_url(&["events"])))
            .await?;
        Ok(EventStream {
            response,
            buffer: Vec::new(),
        })
    }

    async fn send_json(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, EmulatorClientError> {
        let mut request = self.client.request(method, self.endpoint_url(path));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let text = self.send_for_text(request).await?;
        serde_json::from_str(&text).map_err(|_| {
            EmulatorClientError::Rejected(self.not_emulator("did not respond with JSON"))
        })
    }

    async fn send_for_text(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<String, EmulatorClientError> {
        let text = self.send(request).await?.text().await;
        text.map_err(|error| self.unreachable(&error))
    }

    /// Sends a request, and turns an error status into [`EmulatorClientError::Rejected`].
    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, EmulatorClientError> {
        let response = request.send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await;
        let text = text.map_err(|error| self.unreachable(&error))?;
        // The control API explains errors in JSON. Another server at this address may not.
        let body: Option<Value> = serde_json::from_str(&text).ok();
        let reason = body.and_then(|body| body["error"].as_str().map(str::to_owned));
        Err(EmulatorClientError::Rejected(reason.unwrap_or_else(|| {
            let first_line = text.lines().next().unwrap_or_default();
            self.not_emulator(&format!("responded {status}: {first_line}"))
        })))
    }

    fn endpoint_url(&self, path: &[&str]) -> Url {
        let mut url = Url::parse(&self.url).expect("the origin of a parsed URL is a URL");
        // `path_segments_mut` encodes each segment: addresses contain `:` and `+`, and could contain `/`.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push("_emulator").extend(path);
        }
        url
    }

    /// Explains a response that no emulator sends, such as one of the bot.
    fn not_emulator(&self, response: &str) -> String {
        format!(
            "{} {response}; pass the address of the page that `replyhook dev` prints",
            self.url
        )
    }

    fn unreachable(&self, error: &reqwest::Error) -> EmulatorClientError {
        // The innermost cause is the useful one, such as "Connection refused"; the outer ones repeat the URL.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        EmulatorClientError::Unreachable {
            url: self.url.clone(),
            reason: cause.to_string(),
        }
    }
}

impl EventStream {
    /// Waits for the next event. Returns `None` when the connection ends.
    pub async fn next(&mut self) -> Option<EmulatorEvent> {
        loop {
            // Keep the rest in `buffer`: chunks do not end where events do. Dropping this future loses no event.
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse_event(&String::from_utf8_lossy(&block)) {
                    return Some(event);
                }
                continue;
            }
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

/// Parses one block of an event stream. Returns `None` for a comment, which only keeps the connection open.
fn parse_event(block: &str) -> Option<EmulatorEvent> {
    let field = |name: &str| {
        let lines = block.lines();
        let values = lines.filter_map(|line| Some(line.strip_prefix(name)?.trim_start()));
        values.collect::<Vec<_>>().join("\n")
    };
    Some(EmulatorEvent {
        name: field("event:"),
        data: serde_json::from_str(&field("data:")).ok()?,
    })
}
