//! Outcome of a message for its request.

use std::sync::Arc;

use crate::sid::MessageSid;
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

/// Function that gets a message and the reason why the reply of its handler cannot be sent.
pub(crate) type RejectedReplyHook = Arc<dyn Fn(MessageSid, &str) + Send + Sync>;

/// Kind of a handler's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandlerFailure {
    Error,
    Panic,
}
