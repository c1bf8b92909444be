//! Outcome of a message for its request.

use crate::twiml::Document;

/// Outcome of a message for its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DispatchOutcome {
    Reply(Document),
    /// A redelivery, with the saved response.
    Duplicate(Document),
    /// The user has opted out, and gets nothing.
    OptedOut,
    /// A consent keyword, with its confirmation.
    ConsentConfirmation(Document),
    /// The reply is not ready and goes via the REST API.
    Late,
    /// The reply is ready and goes via the REST API: TwiML cannot carry it, or an older reply has to be sent first.
    ByRest,
    /// The handler failed. The failure is logged.
    Failed(HandlerFailure),
    /// No handler was started, since too many are running.
    Overloaded,
    /// The store is unavailable.
    Unavailable,
}

/// Kind of a handler's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandlerFailure {
    Error,
    Panic,
}
