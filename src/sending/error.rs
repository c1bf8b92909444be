//! Why a message was not taken.

use std::fmt;

use crate::error::BoxError;
use crate::store::{Refusal, StoreError};

/// Why a message was not taken. Holds neither texts nor addresses.
///
/// ```
/// use replyhook::sending::SendErrorKind;
/// use replyhook::twilio::NewMessage;
/// use replyhook::Sender;
///
/// /// Whether somebody was reminded; whoever wants nothing is left alone.
/// async fn remind(sender: &Sender, reminder: &NewMessage) -> Result<bool, replyhook::sending::SendError> {
///     match sender.send_once("reminder-42", reminder).await {
///         Ok(_) => Ok(true),
///         Err(error) if error.kind() == SendErrorKind::OptedOut => Ok(false),
///         Err(error) => Err(error),
///     }
/// }
/// # let _ = remind;
/// ```
#[derive(Debug)]
pub struct SendError {
    kind: SendErrorKind,
    detail: Option<String>,
    source: Option<BoxError>,
}

/// What a [`SendError`] is about.
///
/// Told apart: see [`SendError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The user wants nothing from this sender, or from this service.
    OptedOut,
    /// It is no template, and the customer service window is closed.
    WindowClosed,
    /// It is a template, the window is closed, and no opt-in is recorded.
    NoOptIn,
    /// WhatsApp has not approved the template, or approves it no more.
    NotApproved,
    /// Twilio has no such template.
    NoSuchTemplate,
    /// A variable of the template has no value, or there is a value for one that it does not have.
    WrongVariables,
    /// Twilio would not take it: an address, a text, a time that cannot be.
    Invalid,
    /// It is not known whose account sends.
    NoAccount,
    /// The store is away.
    Store,
}

impl SendError {
    pub(super) fn new(kind: SendErrorKind) -> Self {
        Self {
            kind,
            detail: None,
            source: None,
        }
    }

    /// `detail` ends the sentence that the kind begins, and holds no content.
    pub(super) fn with(kind: SendErrorKind, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(kind)
        }
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::with(SendErrorKind::Invalid, what)
    }

    /// What it is about.
    pub fn kind(&self) -> SendErrorKind {
        self.kind
    }
}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        Self::new(match refusal {
            Refusal::OptedOut => SendErrorKind::OptedOut,
            Refusal::WindowClosed => SendErrorKind::WindowClosed,
            Refusal::NoOptIn => SendErrorKind::NoOptIn,
        })
    }
}

impl From<StoreError> for SendError {
    fn from(error: StoreError) -> Self {
        Self {
            source: Some(error.into()),
            ..Self::new(SendErrorKind::Store)
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail.as_deref().unwrap_or_default();
        match self.kind {
            SendErrorKind::OptedOut => f.write_str("the user has opted out"),
            SendErrorKind::WindowClosed => f.write_str(
                "the customer service window is closed: the user has not written to this sender within 24 hours, and only \
                 a template may be sent",
            ),
            SendErrorKind::NoOptIn => f.write_str(
                "no opt-in is recorded, and the customer service window is closed: record where the user agreed \
                 (`replyhook consent opt-in`), or set consent.required = false",
            ),
            SendErrorKind::NotApproved => write!(f, "WhatsApp has not approved the template: it is {detail}"),
            SendErrorKind::NoSuchTemplate => f.write_str("Twilio has no such template in this account"),
            SendErrorKind::Invalid | SendErrorKind::WrongVariables => f.write_str(detail),
            SendErrorKind::NoAccount => f.write_str("it is not known whose account sends: set TWILIO_ACCOUNT_SID"),
            SendErrorKind::Store => match &self.source {
                Some(source) => write!(f, "{source}"),
                None => f.write_str("the store failed"),
            },
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // It is in the text already; what lies below it is not.
        self.source.as_deref().and_then(std::error::Error::source)
    }
}
