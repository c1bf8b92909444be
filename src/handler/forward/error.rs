//! Why a service gave no reply, and what is behind it.

use std::error::Error;
use std::iter::successors;

/// Why a service gave no reply. Nothing of it says what anybody wrote, nor where the service is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("the service cannot be reached: {0}")]
    NotReached(String),
    #[error("the service did not answer: {0}")]
    NoAnswer(String),
    #[error("the service redirects ({0}): set handler.forward_url to where it is")]
    Redirect(u16),
    #[error("the service answered {0}")]
    Status(u16),
    #[error("the service answered over 1 MiB")]
    TooLarge,
    #[error(
        "the service answered with a content type that is none of text/plain and application/json"
    )]
    ContentType,
    #[error("the service answered with text that is not UTF-8")]
    NotText,
    #[error("the service answered with what is no JSON (line {line}, column {column})")]
    Json { line: usize, column: usize },
    #[error(
        "the service answered with JSON that is none of {{\"body\": \"…\"}}, {{\"media\": [\"https://…\"]}} and {{\"messages\": […]}}"
    )]
    Shape,
    #[error("the service answered with messages and, beside them, a body or media")]
    Both,
    #[error("message {0} of the service's answer has neither body nor media")]
    Nothing(usize),
    #[error("the service named a file that is no http or https URL")]
    MediaUrl,
}

impl ForwardError {
    /// No answer has begun.
    pub(super) fn of_sending(error: &reqwest::Error) -> Self {
        let cause = cause(error);
        if error.is_connect() {
            Self::NotReached(cause)
        } else {
            Self::NoAnswer(cause)
        }
    }

    /// An answer has no end.
    pub(super) fn of_reading(error: &reqwest::Error) -> Self {
        Self::NoAnswer(cause(error))
    }
}

/// What is behind an error of the client, such as `tcp connect error: Connection refused (os error 111)`. The client's own
/// words, "error sending request", say nothing, and may have the URL, which may have a password.
fn cause(error: &reqwest::Error) -> String {
    let causes = successors(error.source(), |cause| (*cause).source());
    let causes = causes.map(ToString::to_string);
    // A layer that only names the step.
    let causes: Vec<_> = causes
        .filter(|cause| !cause.starts_with("client error ("))
        .collect();
    if causes.is_empty() {
        return "for no reason that is told".to_owned();
    }
    causes.join(": ")
}
