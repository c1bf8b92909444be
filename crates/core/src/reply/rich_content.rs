//! Contents of a message that TwiML cannot carry.

use std::collections::BTreeMap;

use super::web_url::is_web_url;
use crate::choice::{Choices, ChoicesError, QuestionId};

/// Content of a message in addition to its text and media.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum RichContent {
    Choices(ChoiceQuestion),
    Template(TemplateContent),
    Location(Place),
    Link { title: String, url: String },
}

/// Template at Twilio and the values of its variables.
#[derive(Clone, PartialEq, Eq)]
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
pub struct TemplateContent {
    pub key: TemplateKey,
    pub variables: BTreeMap<String, String>,
}

/// SID of a template at Twilio, or its name and language.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub enum TemplateKey {
    Sid(String),
    Name { name: String, language: String },
}

/// Question with its choices and texts.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ChoiceQuestion {
    /// An error is reported when the handler returns the reply.
    pub(super) choices: Result<Choices, ChoicesError>,
    pub(super) key: Option<String>,
    /// Label of the button that opens a list.
    pub(super) button: Option<String>,
    /// Last line of a numbered text.
    pub(super) hint: Option<String>,
    /// Identity of the question, once the message that it replies to is known.
    pub(super) id: Option<QuestionId>,
}

/// A location. The coordinates are texts, as they are sent.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) coordinates: Option<(String, String)>,
    pub(super) label: String,
}

/// Error of a message that cannot be sent. The handler that returns it fails.
///
/// ```
/// use replyhook::reply::ReplyContentError;
/// use replyhook::{IntoReply, Reply};
///
/// let error = Reply::text("When?").choices(["Today", "today"]).into_reply().unwrap_err();
/// assert!(error.to_string().contains("choices 1 and 2 have the same title"));
/// # drop(ReplyContentError::Coordinates);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyContentError {
    /// The choices are invalid.
    #[error(transparent)]
    Choices(#[from] ChoicesError),
    /// The SID of a template is not one.
    #[error("not a content SID: expected HX and 32 hexadecimal digits, 34 characters")]
    ContentSid,
    /// A location is not on the globe.
    #[error("not a location: the latitude is from -90 to 90, and the longitude from -180 to 180")]
    Coordinates,
    /// The URL of a link button is not one.
    #[error("the link's URL is not an absolute http or https URL")]
    LinkUrl,
}

impl RichContent {
    /// Checks the content.
    ///
    /// # Errors
    /// [`ReplyContentError`] if it cannot be sent.
    pub(super) fn check(&self) -> Result<(), ReplyContentError> {
        match self {
            Self::Choices(question) => match question.choices {
                Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Self::Template(TemplateContent {
                key: TemplateKey::Sid(sid),
                ..
            }) if !is_content_sid(sid) => Err(ReplyContentError::ContentSid),
            Self::Location(place) if place.coordinates.is_none() => {
                Err(ReplyContentError::Coordinates)
            }
            Self::Link { url, .. } if !is_web_url(url) => Err(ReplyContentError::LinkUrl),
            _ => Ok(()),
        }
    }
}

impl ChoiceQuestion {
    pub(super) fn new() -> Self {
        Self {
            choices: Err(ChoicesError::None),
            key: None,
            button: None,
            hint: None,
            id: None,
        }
    }
}

fn is_content_sid(sid: &str) -> bool {
    let digits = sid.strip_prefix("HX");
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
