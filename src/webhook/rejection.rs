//! Requests that the signature layer rejects: their outcome in the metrics, and the log line with the explanation.

use std::sync::{Mutex, TryLockError};

use http::StatusCode;

use super::request_id::RequestId;
use crate::signature::{Rejection, RejectionReason, SignatureErrorKind};
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Outcome;

/// Returns the outcome of a rejection in the metrics.
pub(super) fn metrics_outcome(reason: RejectionReason) -> Outcome {
    match reason {
        RejectionReason::Method => Outcome::RejectedMethod,
        RejectionReason::Signature(error) => match error.kind() {
            SignatureErrorKind::UnknownAccount => Outcome::RejectedAccount,
            // As in `Webhooks::require_parsed`: parameters that Twilio does not send. `Reshaped` has a valid signature;
            // `NotUtf8` is found before the signature is checked.
            SignatureErrorKind::Form(crate::form::FormError::NotUtf8 { .. })
            | SignatureErrorKind::Reshaped => Outcome::BadForm,
            SignatureErrorKind::Form(_) | SignatureErrorKind::NotAForm => Outcome::RejectedBody,
            _ => Outcome::RejectedSignature,
        },
        RejectionReason::Overloaded => Outcome::Unavailable,
        _ => Outcome::RejectedBody,
    }
}

/// Describes a rejection without an explanation of its signature, with the remedy if there is one.
fn describe(reason: RejectionReason) -> String {
    match reason {
        RejectionReason::UriTooLong => format!(
            "{reason}: path and query exceed server.max_uri_bytes; choose POST for this webhook in Twilio's console, or \
             raise the setting"
        ),
        _ => reason.to_string(),
    }
}

/// The log of rejections.
// An explanation costs up to some thousand HMACs. So only rejections that are logged are explained, one at a time, and
// each kind has a throttle of its own: a flood of forged requests stays cheap, and does not suppress the explanation of
// a real one.
pub(crate) struct RejectionLog {
    mismatches: Throttle,
    unsigned: Throttle,
    // Separate: only a holder of a valid signature can cause these, and others must not be able to suppress them.
    reshaped: Throttle,
    others: Throttle,
    explaining: Mutex<()>,
    /// `signature.mode = "report"`: the explanation is also the body of the response.
    explains_to_client: bool,
}

impl RejectionLog {
    pub(crate) fn new(explains_to_client: bool) -> Self {
        let throttle = || Throttle::new(10);
        Self {
            mismatches: throttle(),
            unsigned: throttle(),
            reshaped: throttle(),
            others: throttle(),
            explaining: Mutex::default(),
            explains_to_client,
        }
    }

    fn throttle(&self, reason: RejectionReason) -> &Throttle {
        let RejectionReason::Signature(error) = reason else {
            return &self.others;
        };
        match error.kind() {
            SignatureErrorKind::Mismatch
            | SignatureErrorKind::BodyHash
            | SignatureErrorKind::UnknownSharedKey
            | SignatureErrorKind::UnknownAccount => &self.mismatches,
            SignatureErrorKind::MissingHeader
            | SignatureErrorKind::RepeatedHeader
            | SignatureErrorKind::MalformedHeader
            | SignatureErrorKind::SettingsHeader(_) => &self.unsigned,
            SignatureErrorKind::Reshaped => &self.reshaped,
            _ => &self.others,
        }
    }

    /// Logs a rejection. Returns the body of the response, if the explanation may be sent to the client.
    pub(crate) fn report(&self, rejection: &Rejection<'_>) -> Option<String> {
        let reason = rejection.reason;
        let suppressed = self.throttle(reason).try_log();
        // Only for signatures (403). Other rejections, such as a body that is too large, need no explanation.
        let sends_explanation = self.explains_to_client && reason.status() == StatusCode::FORBIDDEN;
        if suppressed.is_none() && !sends_explanation {
            return None;
        }
        // `try_lock`, so that no worker thread blocks: a second rejection gets its reason without explanation. The lock
        // guard is a temporary of the `match`, held until `explain` returns. A poisoned lock protects no data and may
        // be used.
        let explanation = match self.explaining.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            _ => rejection.explain(),
        };
        let explanation =
            explanation.map_or_else(|| describe(reason), |explanation| explanation.to_string());
        if let Some(suppressed) = suppressed {
            let id = rejection
                .head
                .extensions
                .get::<RequestId>()
                .map(ToString::to_string);
            let outcome = metrics_outcome(reason);
            let (status, label) = (reason.status().as_u16(), outcome.as_str());
            // An error, as in `Webhooks::require_parsed`: Twilio's parameters have changed, or this is an attack.
            if outcome == Outcome::BadForm {
                tracing::error!(request_id = id, status, outcome = label, suppressed, %reason, "rejected: {explanation}");
            } else {
                tracing::warn!(request_id = id, status, outcome = label, suppressed, %reason, "rejected: {explanation}");
            }
        }
        sends_explanation.then(|| explanation + "\n")
    }
}
