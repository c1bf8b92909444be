//! Labels of the requests to the public endpoints.

/// The public endpoints, a label of `replyhook_webhooks_total`.
///
/// ```
/// use replyhook::telemetry::metrics::{Endpoint, Outcome};
///
/// assert_eq!((Endpoint::Primary.as_str(), Outcome::Late.as_str()), ("primary", "late"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/webhook`
    Primary,
    /// `/webhook/fallback`
    Fallback,
    /// `/webhook/status`
    Status,
    /// `/media/{token}`
    Media,
}

impl Endpoint {
    pub(super) const ALL: [Self; 4] = [Self::Primary, Self::Fallback, Self::Status, Self::Media];

    /// Returns the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Fallback => "fallback",
            Self::Status => "status",
            Self::Media => "media",
        }
    }
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// The outcome of a request, a label of `replyhook_webhooks_total`. See [`Endpoint`] for an example.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Outcome { $($(#[$doc])* $variant),+ }

        impl Outcome {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the label's value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

outcomes! {
    /// The reply was sent in time, or a status callback was accepted.
    Ok = "ok",
    /// No signature, an invalid one, or more than one.
    RejectedSignature = "rejected_signature",
    /// The account is not configured.
    RejectedAccount = "rejected_account",
    /// The body is too large, too slow, or not a form.
    RejectedBody = "rejected_body",
    /// The endpoint does not accept the method.
    RejectedMethod = "rejected_method",
    /// The request is verified, but not a message.
    BadForm = "bad_form",
    /// The handler returned an error.
    HandlerError = "handler_error",
    /// The handler, or the server itself, panicked.
    Panic = "panic",
    /// The handler missed the deadline.
    Late = "late",
    /// The reply cannot be one TwiML document, or has another recipient. All of it is sent via the REST API.
    ByRest = "by_rest",
    /// A redelivery. The response is the saved one.
    Duplicate = "duplicate",
    /// The user has opted out.
    OptedOut = "opted_out",
    /// An opt-out or opt-in keyword.
    Consent = "consent",
    /// A webhook of Twilio Conversations.
    ConversationEvent = "conversation_event",
    /// Overloaded, shutting down, not started, or the store is unavailable.
    Unavailable = "unavailable",
    /// A verified fallback call that got its response.
    Fallback = "fallback",
    /// A signed test request of `replyhook doctor`, which is not a message.
    Probe = "probe",
    /// The media link is unknown or has expired.
    NotFound = "not_found",
    /// The client disconnected before its response.
    Disconnected = "disconnected",
}
