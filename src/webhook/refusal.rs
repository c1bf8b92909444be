//! Refused requests: their label, and the one line that tells the operator why.

use std::sync::{Mutex, TryLockError};

use http::StatusCode;

use super::request_id::RequestId;
use crate::signature::{Refusal, RefusalCause, SignatureErrorKind};
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Outcome;

/// The label of a refusal.
pub(super) fn outcome(cause: RefusalCause) -> Outcome {
    match cause {
        RefusalCause::Method => Outcome::RejectedMethod,
        RefusalCause::Signature(error) => match error.kind() {
            SignatureErrorKind::UnknownAccount => Outcome::RejectedAccount,
            SignatureErrorKind::Form(crate::form::FormError::NotUtf8 { .. })
            | SignatureErrorKind::Reshaped => Outcome::BadForm,
            SignatureErrorKind::Form(_) | SignatureErrorKind::NotAForm => Outcome::RejectedBody,
            _ => Outcome::RejectedSignature,
        },
        RefusalCause::Overloaded => Outcome::Unavailable,
        _ => Outcome::RejectedBody,
    }
}

/// Writes at most a few lines of each kind, and explains only those it writes, one at a time: a flood of forgeries costs
/// no more than that, and noise does not hide a signature that could be explained.
pub(crate) struct RefusalReport {
    mismatches: Throttle,
    unsigned: Throttle,
    /// Only a holder of a valid signature can cause these lines, so strangers must not be able to hide them.
    reshaped: Throttle,
    others: Throttle,
    explaining: Mutex<()>,
    /// `signature.mode = "report"`: the explanation is also the answer's body.
    to_caller: bool,
}

impl RefusalReport {
    pub(crate) fn new(to_caller: bool) -> Self {
        let throttle = || Throttle::new(10);
        Self {
            mismatches: throttle(),
            unsigned: throttle(),
            reshaped: throttle(),
            others: throttle(),
            explaining: Mutex::default(),
            to_caller,
        }
    }

    fn throttle(&self, cause: RefusalCause) -> &Throttle {
        let RefusalCause::Signature(error) = cause else {
            return &self.others;
        };
        match error.kind() {
            SignatureErrorKind::Mismatch
            | SignatureErrorKind::BodyHash
            | SignatureErrorKind::UnknownAccount => &self.mismatches,
            SignatureErrorKind::MissingHeader
            | SignatureErrorKind::RepeatedHeader
            | SignatureErrorKind::MalformedHeader => &self.unsigned,
            SignatureErrorKind::Reshaped => &self.reshaped,
            _ => &self.others,
        }
    }

    /// Reports a refusal, and returns what the caller may know of it.
    pub(crate) fn report(&self, refusal: &Refusal<'_>) -> Option<String> {
        let cause = refusal.cause;
        let pass = self.throttle(cause).pass();
        let to_caller = self.to_caller && cause.status() == StatusCode::FORBIDDEN;
        if pass.is_none() && !to_caller {
            return None;
        }
        let explanation = match self.explaining.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            _ => refusal.explain(),
        };
        let explanation =
            explanation.map_or_else(|| cause.to_string(), |explanation| explanation.to_string());
        if let Some(suppressed) = pass {
            let id = refusal
                .head
                .extensions
                .get::<RequestId>()
                .map(ToString::to_string);
            let outcome = outcome(cause);
            let (status, label) = (cause.status().as_u16(), outcome.as_str());
            if outcome == Outcome::BadForm {
                tracing::error!(request_id = id, status, outcome = label, suppressed, %cause, "refused: {explanation}");
            } else {
                tracing::warn!(request_id = id, status, outcome = label, suppressed, %cause, "refused: {explanation}");
            }
        }
        to_caller.then(|| explanation + "\n")
    }
}
