//! Consent changes by inbound messages, and the application's hook for them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::message::InboundMessage;
use crate::store::ConsentKeyword;

/// Function that the application registers for consent changes.
pub(crate) type ConsentHook = Arc<dyn Fn(ConsentChange) -> BoxFuture<'static, ()> + Send + Sync>;

/// Consent change, or request for help, by a user's message.
///
/// ```
/// use replyhook::{App, ConsentChange, ConsentKind};
///
/// let builder = App::builder().on_consent(|change: ConsentChange| async move {
///     if change.kind == ConsentKind::OptOut {
///         println!("{} opted out", change.message.message_sid);
///     }
/// });
/// # drop(builder);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsentChange {
    /// The message with the keyword.
    pub message: InboundMessage,
    /// The kind of the keyword.
    pub kind: ConsentKind,
}

/// Kind of a consent keyword. See [`ConsentChange`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsentKind {
    /// The user opted out.
    OptOut,
    /// The user opted in again.
    OptIn,
    /// The user asked for help, and Twilio has replied (`OptOutType=HELP`).
    Help,
}

impl ConsentKind {
    /// Value of the metric's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OptOut => "opt_out",
            Self::OptIn => "opt_in",
            Self::Help => "help",
        }
    }

    pub(super) fn of(consent: &ConsentKeyword) -> Self {
        match consent {
            ConsentKeyword::Stop { .. } => Self::OptOut,
            ConsentKeyword::Start { .. } => Self::OptIn,
            ConsentKeyword::Help => Self::Help,
        }
    }
}

/// Calls the application's hook. A panic of the hook is logged.
pub(super) async fn call_hook(hook: &ConsentHook, change: ConsentChange) {
    let called = AssertUnwindSafe(hook(change)).catch_unwind().await;
    if called.is_err() {
        tracing::error!(hook = "consent", "a hook panicked");
    }
}
