//! Errors of a forwarded message: the reason why the service gave no reply.

use std::error::Error;
use std::io::ErrorKind;
use std::iter::successors;

/// The reason why the service gave no reply.
// The text is logged. It must contain neither content of a message nor the service's URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("the service cannot be reached: {0}")]
    NotReached(String),
    #[error("the service sent no complete response: {0}")]
    HttpError(String),
    #[error("the service redirects ({0}); set handler.forward_url to the URL it redirects to")]
    Redirect(u16),
    #[cfg(feature = "app")]
    #[error("the service redirects ({0}); set handler.events_url to the URL it redirects to")]
    EventRedirect(u16),
    #[error("the service responded with HTTP status {0}")]
    Status(u16),
    #[error("the service's response is larger than 1 MiB")]
    TooLarge,
    #[error("the service responded with a content type other than text/plain and application/json")]
    ContentType,
    #[error("the service responded with text that is not UTF-8")]
    NotText,
    // Only the position: a message of serde may quote the response.
    #[error("the service responded with invalid JSON (line {line}, column {column})")]
    Json { line: usize, column: usize },
    #[error(
        "the service responded with JSON of an unknown shape; expected {{\"body\": \"…\"}}, {{\"media\": [\"https://…\"]}} or {{\"messages\": […]}}"
    )]
    Shape,
    // Both words are known: `given` is at most two letters away from `meant`, so it is not content. Such are also those of
    // `MisspeltInMessage`.
    #[error("the service responded with JSON that has the key {given}; did you mean {meant}?")]
    Misspelt { given: String, meant: &'static str },
    #[error(
        "message {number} of the service's response has the key {given}; did you mean {meant}?"
    )]
    MisspeltInMessage {
        number: usize,
        given: String,
        meant: &'static str,
    },
    // Names of our keys.
    #[error("the service responded with messages and also with {0}; move this into messages")]
    MessagesAndOther(String),
    #[error(
        "message {0} of the service's response has none of the keys body, media, choices, content and location"
    )]
    EmptyMessage(usize),
    #[error(
        "the service responded with a content or a location that is invalid; expected {{\"sid\": \"HX…\", \"variables\": {{\"1\": \"…\"}}}} or {{\"link\": {{\"title\": \"…\", \"url\": \"https://…\"}}}}, and {{\"latitude\": 40.4, \"longitude\": -3.7}}"
    )]
    Content,
    #[error(
        "the service responded with a handoff that is invalid; expected {{\"url\": null, \"ttl\": \"12h\"}}, where url is null or an http or https URL, and ttl is up to 720h"
    )]
    Handoff,
    #[error("the service responded with media that is not an http or https URL")]
    MediaUrl,
}

impl ForwardError {
    /// Creates the error of a request to which no response has begun.
    pub(super) fn from_send_error(error: &reqwest::Error) -> Self {
        if error.is_connect() {
            Self::NotReached(connect_failure(error))
        } else {
            Self::HttpError(source_chain(error))
        }
    }

    /// Creates the error of a response that broke off.
    pub(super) fn from_read_error(error: &reqwest::Error) -> Self {
        Self::HttpError(source_chain(error))
    }
}

/// Returns the cause of a failed connection, such as `connection refused`.
fn connect_failure(error: &reqwest::Error) -> String {
    let causes = successors(error.source(), |cause| (*cause).source());
    let io_errors = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    // The words of the kind, without those of the operating system. An error without a kind of its own has a text only.
    match io_errors.last().map(std::io::Error::kind) {
        Some(kind) if kind != ErrorKind::Other && kind.to_string() != "uncategorized error" => {
            kind.to_string()
        }
        _ => source_chain(error),
    }
}

/// Returns the sources of a client error, such as `tcp connect error: Connection refused (os error 111)`.
fn source_chain(error: &reqwest::Error) -> String {
    // Start at the source: reqwest's own text, "error sending request for url (…)", names the URL, and not the cause.
    let causes = successors(error.source(), |cause| (*cause).source());
    let causes = causes.map(ToString::to_string);
    // hyper-util's layer, such as "client error (Connect)", only names the step.
    let causes: Vec<_> = causes
        .filter(|cause| !cause.starts_with("client error ("))
        .collect();
    if causes.is_empty() {
        return "unknown cause".to_owned();
    }
    causes.join(": ")
}
