//! Refused requests: their label, and the one line that tells the operator why.

use std::sync::Arc;

use super::request_id::RequestId;
use crate::signature::{Refusal, RefusalCause, SignatureErrorKind};
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Outcome;

/// The label of a refusal.
pub(super) fn outcome(cause: RefusalCause) -> Outcome {
    match cause {
        RefusalCause::Method => Outcome::RefusedMethod,
        RefusalCause::Signature(error) => match error.kind() {
            SignatureErrorKind::UnknownAccount => Outcome::RefusedAccount,
            SignatureErrorKind::Form(crate::form::FormError::NotUtf8 { .. }) => Outcome::BadForm,
            SignatureErrorKind::Form(_) | SignatureErrorKind::NotAForm => Outcome::RefusedBody,
            _ => Outcome::RefusedSignature,
        },
        _ => Outcome::RefusedBody,
    }
}

/// Writes at most a few lines, and explains only those it writes: a flood of forgeries costs no more than that.
pub(crate) struct RefusalReport {
    throttle: Throttle,
    /// `signature.mode = "report"`: the explanation is also the answer's body.
    to_caller: bool,
}

impl RefusalReport {
    pub(crate) fn new(to_caller: bool) -> Arc<Self> {
        Arc::new(Self {
            throttle: Throttle::new(10),
            to_caller,
        })
    }

    /// Reports a refusal, and returns what the caller may know of it.
    pub(crate) fn report(&self, refusal: &Refusal<'_>) -> Option<String> {
        let pass = self.throttle.pass();
        if pass.is_none() && !self.to_caller {
            return None;
        }
        let cause = refusal.cause;
        let explanation = refusal
            .explain()
            .map_or_else(|| cause.to_string(), |explanation| explanation.to_string());
        if let Some(held) = pass {
            let id = refusal
                .head
                .extensions
                .get::<RequestId>()
                .map(ToString::to_string);
            let outcome = outcome(cause);
            let (status, label) = (cause.status().as_u16(), outcome.as_str());
            if outcome == Outcome::BadForm {
                tracing::error!(request_id = id, status, outcome = label, held, %cause, "refused: {explanation}");
            } else {
                tracing::warn!(request_id = id, status, outcome = label, held, %cause, "refused: {explanation}");
            }
        }
        let signature = cause.status() == http::StatusCode::FORBIDDEN;
        (self.to_caller && signature).then(|| explanation + "\n")
    }
}
