//! [`SendError`]: the reason why an outbound message was not queued.

use std::fmt;

use crate::store::{Ineligible, StoreError};
use replyhook_core::BoxError;

/// The error of an outbound message that was not queued. It contains neither texts nor addresses.
///
/// ```
/// use replyhook::OutboundClient;
/// use replyhook::outbound::{SendError, SendErrorKind};
/// use replyhook::twilio::NewMessage;
///
/// /// Sends a reminder. Returns false for a user who has opted out.
/// async fn remind(outbound: &OutboundClient, reminder: &NewMessage) -> Result<bool, SendError> {
///     match outbound.send_once("reminder-42", reminder).await {
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

/// The kind of a [`SendError`]. See [`SendError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The user has opted out of this sender or Messaging Service.
    OptedOut,
    /// The customer service window is closed, and the message is not a template.
    WindowClosed,
    /// The message is a template, the window is closed, and no opt-in is recorded.
    NoOptIn,
    /// WhatsApp has not approved the template, or has withdrawn its approval.
    NotApproved,
    /// The account has no template with this `ContentSid`, or with this name and language.
    NoSuchTemplate,
    /// A variable of the template has no value, or a value belongs to no variable.
    WrongVariables,
    /// Twilio would reject the message, for example for an address, text or send time.
    Invalid,
    /// The account that sends is not configured.
    NoAccount,
    /// The store is unavailable.
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

    /// Adds a detail to the kind's text: a problem, or a template's status. It must not contain message content.
    pub(super) fn with_detail(kind: SendErrorKind, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(kind)
        }
    }

    pub(super) fn invalid(problem: impl Into<String>) -> Self {
        Self::with_detail(SendErrorKind::Invalid, problem)
    }

    /// Returns the kind.
    pub fn kind(&self) -> SendErrorKind {
        self.kind
    }
}

impl From<Ineligible> for SendError {
    fn from(rejection: Ineligible) -> Self {
        Self::new(match rejection {
            Ineligible::OptedOut => SendErrorKind::OptedOut,
            Ineligible::WindowClosed => SendErrorKind::WindowClosed,
            Ineligible::NoOptIn => SendErrorKind::NoOptIn,
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
            SendErrorKind::NoSuchTemplate => {
                let key = self.detail.as_deref().unwrap_or("this ContentSid");
                write!(f, "Twilio has no template with {key} in this account")
            }
            SendErrorKind::Invalid | SendErrorKind::WrongVariables => f.write_str(detail),
            SendErrorKind::NoAccount => f.write_str("the sending account is not configured; set TWILIO_ACCOUNT_SID"),
            SendErrorKind::Store => match &self.source {
                Some(source) => write!(f, "{source}"),
                None => f.write_str("the store failed"),
            },
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `Display` contains the text of the source already, so the chain continues below it.
        self.source.as_deref().and_then(std::error::Error::source)
    }
}
