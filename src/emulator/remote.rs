//! The control interface from the other side: for a terminal or a test that drives an emulator, in this process or not.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use reqwest::Url;
use serde_json::Value;

use crate::tls;

/// An emulator that answers somewhere on this machine.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::testing::TestBot;
/// use replyhook::{App, emulator::Remote};
///
/// let bot = TestBot::start(App::builder).await;
/// bot.sms("+34600000001").says("hi").await.assert_reply("hi");
/// // The same that `replyhook dev` has on port 8081.
/// let remote = Remote::new(bot.remote().url())?;
/// let conversations = remote.get(&["conversations"]).await?;
/// assert!(conversations.to_string().contains("+34600000001"));
/// # Ok::<(), replyhook::emulator::RemoteError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Remote {
    client: reqwest::Client,
    url: String,
}

/// Why an emulator did not do what it was asked.
///
/// ```
/// use replyhook::emulator::{Remote, RemoteError};
///
/// assert!(matches!(Remote::new("https://api.twilio.com"), Err(RemoteError::Url)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Not the address of one.
    #[error("not an emulator's address: it is as in http://127.0.0.1:8081")]
    Url,
    /// Nobody answers.
    #[error("no emulator answers at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It says what was wrong.
    #[error("{0}")]
    Refused(String),
}

/// Something that happened, by [`Remote::events`].
///
/// As they come: see [`RemoteEvents`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemoteEvent {
    /// `message`, `status`, `exchange`, `debugger` and so on.
    pub name: String,
    /// As the control interface describes it.
    pub data: Value,
}

/// Events as they come.
///
/// ```no_run
/// use replyhook::emulator::{Remote, RemoteError};
///
/// # async fn watch() -> Result<(), RemoteError> {
/// let mut events = Remote::new("http://127.0.0.1:8081")?.events().await?;
/// while let Some(event) = events.next().await {
///     println!("{}: {}", event.name, event.data);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RemoteEvents {
    response: reqwest::Response,
    text: Vec<u8>,
}

impl Remote {
    /// The emulator at `url`, which may be the page's, with the key of a run that is protected.
    ///
    /// # Errors
    /// [`RemoteError::Url`] for what is no address on this machine.
    pub fn new(url: &str) -> Result<Self, RemoteError> {
        let parsed = Url::parse(url).map_err(|_| RemoteError::Url)?;
        let host = parsed.host_str().unwrap_or_default();
        if parsed.scheme() != "http" || !["127.0.0.1", "localhost", "[::1]"].contains(&host) {
            return Err(RemoteError::Url);
        }
        let mut headers = HeaderMap::new();
        if let Some((_, key)) = parsed.query_pairs().find(|(name, _)| name == "key") {
            let bearer = HeaderValue::try_from(format!("Bearer {key}"));
            let mut bearer = bearer.map_err(|_| RemoteError::Url)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        tls::install_provider();
        let client = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(|_| RemoteError::Url)?;
        Ok(Self {
            client,
            url: parsed.origin().ascii_serialization(),
        })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for what is below `/_emulator/`, as in `conversations`.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn get(&self, path: &[&str]) -> Result<Value, RemoteError> {
        self.ask(Method::GET, path, None).await
    }

    /// The same where the answer is a text.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn text_of(&self, path: &[&str]) -> Result<String, RemoteError> {
        let request = self.client.get(self.below(path));
        self.text(request).await
    }

    /// Posts to what is below `/_emulator/`, as in `messages`.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value, RemoteError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Replaces what is below `/_emulator/`, as in `faults`.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn put(&self, path: &[&str], body: &Value) -> Result<Value, RemoteError> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// Listens.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn events(&self) -> Result<RemoteEvents, RemoteError> {
        let response = self.send(self.client.get(self.below(&["events"]))).await?;
        Ok(RemoteEvents {
            response,
            text: Vec::new(),
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, RemoteError> {
        let mut request = self.client.request(method, self.below(path));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let text = self.text(request).await?;
        serde_json::from_str(&text)
            .map_err(|_| RemoteError::Refused("the answer is not an emulator's".to_owned()))
    }

    async fn text(&self, request: reqwest::RequestBuilder) -> Result<String, RemoteError> {
        let text = self.send(request).await?.text().await;
        text.map_err(|error| self.unreachable(&error))
    }

    /// The response, if it is a success.
    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, RemoteError> {
        let response = request.send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await;
        let text = text.map_err(|error| self.unreachable(&error))?;
        let told: Option<Value> = serde_json::from_str(&text).ok();
        let told = told.and_then(|told| told["error"].as_str().map(str::to_owned));
        Err(RemoteError::Refused(told.unwrap_or_else(|| {
            format!("{status}: {}", text.lines().next().unwrap_or_default())
        })))
    }

    fn below(&self, path: &[&str]) -> Url {
        let mut url = Url::parse(&self.url).expect("it was parsed before");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push("_emulator").extend(path);
        }
        url
    }

    fn unreachable(&self, error: &reqwest::Error) -> RemoteError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        RemoteError::Unreachable {
            url: self.url.clone(),
            reason: cause.to_string(),
        }
    }
}

impl RemoteEvents {
    /// The next event; `None` once the emulator is gone.
    pub async fn next(&mut self) -> Option<RemoteEvent> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                if let Some(event) = parse(&String::from_utf8_lossy(&block)) {
                    return Some(event);
                }
                continue;
            }
            let chunk = self.response.chunk().await.ok()??;
            self.text.extend_from_slice(&chunk);
        }
    }
}

/// One block of a stream of events. Comments keep the connection open and say nothing.
fn parse(block: &str) -> Option<RemoteEvent> {
    let field = |name: &str| {
        let lines = block.lines();
        let values = lines.filter_map(|line| Some(line.strip_prefix(name)?.trim_start()));
        values.collect::<Vec<_>>().join("\n")
    };
    Some(RemoteEvent {
        name: field("event:"),
        data: serde_json::from_str(&field("data:")).ok()?,
    })
}
