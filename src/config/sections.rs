//! The types of the settings, one struct per section.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::choices::{self, ChoicesSettings};
use super::layers::quoted;
use super::paths;
use super::reader::SettingsReader;
use crate::signature::{PublicUrl, RoutePath};
use crate::twilio::ApiUrl;
use replyhook_core::redact::redacted_url;

/// The settings of the `[server]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The URL that Twilio calls, with the paths of the webhooks.
    pub public_url: PublicUrl,
    /// Path of the health check on the public listener, if there is one.
    pub health_path: Option<RoutePath>,
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Name of the setting that its port comes from: `server.listen`, or `PORT`, which `--port` replaces.
    pub port_setting: &'static str,
    /// Time that requests and handlers in progress get after SIGTERM or SIGINT.
    pub shutdown_timeout: Duration,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of verified webhook requests in flight.
    pub max_in_flight: usize,
    /// Time for the head of a request, from its first byte.
    pub header_timeout: Duration,
    /// Time that a connection may be idle.
    pub idle_timeout: Duration,
    /// Time for the body of a request.
    pub body_timeout: Duration,
    /// Time in which a client must read some part of a response.
    pub write_timeout: Duration,
    /// Maximum bytes of a request body.
    pub max_body_bytes: usize,
    /// Maximum bytes of path and query.
    pub max_uri_bytes: usize,
    /// Maximum bytes of all unverified requests together, without the first 8 KiB of each; `None` is a quarter of the
    /// available memory, between 16 and 256 MiB.
    pub unverified_bytes: Option<usize>,
    /// Maximum number of headers of a request.
    pub max_headers: usize,
    /// Maximum bytes of the head of a request.
    pub max_header_bytes: usize,
    /// Maximum number of parameters of a request.
    pub max_params: usize,
    /// Allows core dumps, which contain the memory of the process.
    pub core_dumps: bool,
}

/// The settings of the `[signature]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignatureSettings {
    /// Detail of the response to a rejected request.
    pub mode: SignatureMode,
}

/// Detail of the response to a request whose signature does not verify. Both modes reject the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureMode {
    /// The response only rejects the request.
    Enforce,
    /// The response also explains why the signature does not match.
    Report,
}

/// The settings of the `[reply]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReplySettings {
    /// Time until the server responds to Twilio, even if the handler is still running.
    pub deadline: Duration,
    /// The path of replies that are ready in time.
    pub path: ReplyRoute,
    /// Pause that ends a burst of messages, which the handler gets as one; zero handles each message by itself.
    pub debounce: Duration,
    /// Starts each part of a split text with its number.
    pub numbered: bool,
    /// Converts Markdown in the texts of replies into the marks of the channel.
    pub markdown: bool,
    /// Maximum number of messages of one reply, after long texts are split.
    pub max_messages: usize,
    /// Time that the next message of a REST reply waits for the delivery of the one before; zero for no wait.
    pub wait_for_delivery: Duration,
    /// Time from the start of a handler to a typing indicator for the user; zero for none.
    pub typing_after: Duration,
    /// Texts and lifetime of questions with choices.
    pub choices: ChoicesSettings,
    /// Response to a fallback call when the handler fails again; empty for none.
    pub fallback_text: String,
    /// The template (`HX…`) that replaces a reply when the customer service window has closed.
    pub window_closed_template: Option<String>,
}

/// The path of replies that are ready in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyRoute {
    /// In the response, if TwiML can carry the reply.
    Auto,
    /// Via the REST API. No response has a `<Message>`.
    Rest,
}

/// The settings of the `[twilio]` section for the REST API; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestSettings {
    /// Base URL of the REST API.
    pub api_url: ApiUrl,
    /// Base URL of the API of WhatsApp senders.
    pub messaging_url: ApiUrl,
    /// Base URL of the API of templates.
    pub content_url: ApiUrl,
}

/// The settings of the `[log]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogSettings {
    /// Format of log lines.
    pub format: LogFormat,
    /// A level, or directives for single targets.
    pub level: String,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, otherwise `Json`.
    Auto,
    /// Text for people.
    Pretty,
    /// JSON, one object per line.
    Json,
}

/// The settings of the `[telemetry]` section; part of [`Settings`](super::Settings).
#[derive(Clone)]
#[non_exhaustive]
pub struct TelemetrySettings {
    /// URL of an OTLP receiver for traces.
    pub otlp_endpoint: Option<String>,
}

impl fmt::Debug for TelemetrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.otlp_endpoint.as_deref().map(redacted_url);
        f.debug_struct("TelemetrySettings")
            .field("otlp_endpoint", &endpoint)
            .finish()
    }
}

pub(super) fn server(reader: &mut SettingsReader<'_>) -> Option<ServerSettings> {
    let public_url = public_url(reader);
    let health_path = paths::health_path(reader);
    if let Some(public_url) = &public_url {
        paths::check_routes(reader, public_url, health_path.as_ref());
    }
    let listen = listen(reader);
    let shutdown_timeout = reader.number("server.shutdown_timeout_s", 0..=3600);
    let max_connections = reader.count("server.max_connections", 1..=1_000_000);
    let max_in_flight = reader.count("server.max_in_flight", 1..=1_000_000);
    let header_timeout = reader.millis("server.header_timeout_ms", 10..=60_000);
    let idle_timeout = reader.number("server.idle_timeout_s", 5..=900);
    let body_timeout = reader.millis("server.body_timeout_ms", 10..=60_000);
    let write_timeout = reader.millis("server.write_timeout_ms", 10..=60_000);
    let max_body_bytes = reader.count("server.max_body_bytes", 1024..=16_777_216);
    // The `http` crate parses URIs of at most 65534 bytes.
    let max_uri_bytes = reader.count("server.max_uri_bytes", 64..=65_534);
    let unverified_bytes = reader.count("server.unverified_bytes", 0..=1_099_511_627_776);
    let max_headers = reader.count("server.max_headers", 16..=1024);
    // hyper panics for a buffer below 8192 bytes.
    let max_header_bytes = reader.count("server.max_header_bytes", 8192..=1_048_576);
    let max_params = reader.count("server.max_params", 32..=65_536);
    let core_dumps = reader.flag("server.core_dumps");
    Some(ServerSettings {
        public_url: public_url?,
        health_path,
        listen: listen?,
        port_setting: if reader.layers.port.is_some() {
            "PORT or --port"
        } else {
            "server.listen"
        },
        shutdown_timeout: Duration::from_secs(u64::try_from(shutdown_timeout?).ok()?),
        max_connections: max_connections?,
        max_in_flight: max_in_flight?,
        header_timeout: header_timeout?,
        idle_timeout: Duration::from_secs(u64::try_from(idle_timeout?).ok()?),
        body_timeout: body_timeout?,
        write_timeout: write_timeout?,
        max_body_bytes: max_body_bytes?,
        max_uri_bytes: max_uri_bytes?,
        unverified_bytes: unverified_bytes.map(|bytes| (bytes > 0).then_some(bytes))?,
        max_headers: max_headers?,
        max_header_bytes: max_header_bytes?,
        max_params: max_params?,
        core_dumps: core_dumps?,
    })
}

/// Returns whether a text is a log level or a list of log directives.
#[cfg(feature = "server")]
fn is_filter(level: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A single word must be a level: `EnvFilter` takes a misspelled one for a target, and silences all others.
    let is_valid = |directive: &str| {
        let word = directive.trim();
        // `EnvFilter` takes an empty level for a level.
        if word.ends_with('=') {
            return false;
        }
        word.contains(['=', '[']) || LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level))
    };
    level.split(',').all(is_valid)
        && tracing_subscriber::EnvFilter::builder()
            .parse(level)
            .is_ok()
}

pub(super) fn public_url(reader: &mut SettingsReader<'_>) -> Option<PublicUrl> {
    const KEY: &str = "server.public_url";
    let paths = paths::webhook_paths(reader);
    let text = reader.text(KEY);
    if text.trim().is_empty() {
        reader.problem(
            KEY,
            "is missing: set PUBLIC_URL to what Twilio calls, such as https://bot.example.com; its signatures are made \
             for that URL",
        );
        return None;
    }
    // With invalid paths the URL is still checked, so that its problems are reported too.
    let valid_paths = paths.is_some();
    match PublicUrl::parse_with_paths(text, paths.unwrap_or_default()) {
        Ok((url, warnings)) => {
            for warning in &warnings {
                reader.warn(KEY, warning);
            }
            valid_paths.then_some(url)
        }
        Err(error) => {
            reader.problem(KEY, error);
            None
        }
    }
}

fn listen(reader: &mut SettingsReader<'_>) -> Option<SocketAddr> {
    let mut address = reader.address("server.listen");
    if let Some(port) = &reader.layers.port {
        let text = port.value.as_str().unwrap_or_default();
        if let Ok(port) = text.trim().parse() {
            if let Some(address) = &mut address {
                address.set_port(port);
            }
        } else {
            reader.problem_at(
                "PORT",
                &port.origin,
                format!("is {}: write a port from 0 to 65535", quoted(text)),
            );
            return None;
        }
    }
    address
}

pub(super) fn signature(
    reader: &mut SettingsReader<'_>,
    server: Option<&ServerSettings>,
    allow_public_diagnostics: bool,
) -> Option<SignatureSettings> {
    const KEY: &str = "signature.mode";
    let modes = [
        ("enforce", SignatureMode::Enforce),
        ("report", SignatureMode::Report),
    ];
    let mode = reader.choice(KEY, &modes)?;
    // The explanation must not help an attacker, so only loopback clients may get it.
    let is_reachable = server.is_some_and(|server| !server.listen.ip().is_loopback());
    if mode == SignatureMode::Report && is_reachable && !allow_public_diagnostics {
        reader.problem(
            KEY,
            "is report, which explains to every client why its signature does not match: set server.listen to a loopback \
             address, or start with --allow-public-diagnostics",
        );
        return None;
    }
    Some(SignatureSettings { mode })
}

pub(super) fn reply(reader: &mut SettingsReader<'_>) -> Option<ReplySettings> {
    // Twilio's timeout of 15 s includes sending the request's body and the way of the response back.
    let deadline = reader.millis("reply.deadline_ms", 1..=13_000);
    let paths = [("auto", ReplyRoute::Auto), ("rest", ReplyRoute::Rest)];
    let path = reader.choice("reply.path", &paths);
    let region = reader.text("twilio.region").trim();
    if path == Some(ReplyRoute::Auto) && !["", "us1"].contains(&region) {
        reader.warn(
            "reply.path",
            "is auto: in regions other than us1, Twilio does not send a <Message> of a response (error 13803); set it to rest",
        );
    }
    let debounce = reader.millis("reply.debounce_ms", 0..=10_000);
    let numbered = reader.flag("reply.numbered");
    let markdown = reader.choice("reply.markdown", &[("keep", false), ("convert", true)]);
    let max_messages = reader.count("reply.max_messages", 1..=1000);
    let wait_for_delivery = reader.millis("reply.wait_for_delivery_ms", 0..=60_000);
    let typing_after = reader.millis("reply.typing_after_ms", 0..=60_000);
    let choices = choices::read(reader);
    let fallback_text = reader.text("reply.fallback_text").to_owned();
    let template = reader.text("reply.window_closed_template").trim();
    let is_well_formed = template.len() == 34
        && template.starts_with("HX")
        && template
            .bytes()
            .skip(2)
            .all(|byte| byte.is_ascii_hexdigit());
    if !template.is_empty() && !is_well_formed {
        reader.problem(
            "reply.window_closed_template",
            "is not a ContentSid: write HX and 32 hexadecimal digits",
        );
        return None;
    }
    Some(ReplySettings {
        deadline: deadline?,
        path: path?,
        debounce: debounce?,
        numbered: numbered?,
        markdown: markdown?,
        max_messages: max_messages?,
        choices: choices?,
        wait_for_delivery: wait_for_delivery?,
        typing_after: typing_after?,
        fallback_text,
        window_closed_template: (!template.is_empty()).then(|| template.to_owned()),
    })
}

pub(super) fn rest(reader: &mut SettingsReader<'_>) -> Option<RestSettings> {
    let api_url = api_url(reader);
    let messaging_url = rest_url(reader, "twilio.messaging_url");
    let content_url = rest_url(reader, "twilio.content_url");
    Some(RestSettings {
        api_url: api_url?,
        messaging_url: messaging_url?,
        content_url: content_url?,
    })
}

fn api_url(reader: &mut SettingsReader<'_>) -> Option<ApiUrl> {
    const KEY: &str = "twilio.api_url";
    let (region, edge) = (
        reader.text("twilio.region").trim().to_owned(),
        reader.text("twilio.edge").trim().to_owned(),
    );
    let url = match (region.is_empty(), edge.is_empty()) {
        (true, true) => ApiUrl::parse(reader.text(KEY)),
        (false, false) => ApiUrl::regional(&region, &edge),
        _ => {
            reader.problem(
                "twilio.region",
                "and twilio.edge belong together, such as ie1 and dublin: set both or neither",
            );
            return None;
        }
    };
    url.map_err(|error| reader.problem(KEY, error)).ok()
}

fn rest_url(reader: &mut SettingsReader<'_>, key: &str) -> Option<ApiUrl> {
    let url = ApiUrl::parse(reader.text(key));
    url.map_err(|error| reader.problem(key, error)).ok()
}

pub(super) fn log(reader: &mut SettingsReader<'_>) -> Option<LogSettings> {
    let formats = [
        ("auto", LogFormat::Auto),
        ("pretty", LogFormat::Pretty),
        ("json", LogFormat::Json),
    ];
    let format = reader.choice("log.format", &formats);
    let level = reader.text("log.level").to_owned();
    #[cfg(feature = "server")]
    if !is_filter(&level) {
        reader.problem(
            "log.level",
            format!("is {}: write error, warn, info, debug or trace, or directives such as \"info,replyhook=debug\"", quoted(&level)),
        );
        return None;
    }
    Some(LogSettings {
        format: format?,
        level,
    })
}

pub(super) fn telemetry(reader: &mut SettingsReader<'_>) -> Option<TelemetrySettings> {
    const KEY: &str = "telemetry.otlp_endpoint";
    let text = reader.text(KEY);
    if text.is_empty() {
        return Some(TelemetrySettings {
            otlp_endpoint: None,
        });
    }
    if !crate::reply::is_web_url(text) {
        reader.problem(
            KEY,
            "is not a URL: write one such as http://127.0.0.1:4318/v1/traces",
        );
        return None;
    }
    if !cfg!(feature = "otel") {
        reader.problem(
            KEY,
            "needs a build with the feature `otel`: cargo install replyhook --features otel",
        );
        return None;
    }
    Some(TelemetrySettings {
        otlp_endpoint: Some(text.to_owned()),
    })
}
