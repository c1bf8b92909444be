//! Settings of delivery.

use std::time::Duration;

/// Settings for messages that cannot be sent as they are.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryPolicy {
    pub(crate) on_unknown: OnUnknown,
    /// Maximum time that a part of a reply waits for the delivery of the part before.
    pub(crate) wait_for_delivery: Duration,
    /// Content SID of the template that replaces a message after the customer service window has closed.
    pub(crate) window_closed_template: Option<String>,
    /// True if a template needs a recorded opt-in.
    pub(crate) consent_required: bool,
}

/// Handling of a message of unknown result that Twilio's list does not have.
///
/// Part of [`Settings`](crate::config::Settings), which documents how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// The message waits for the operator: at-most-once.
    Hold,
    /// The message is sent again: at-least-once.
    Resend,
}
