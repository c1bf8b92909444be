//! One call, and what its answer means for the message.

use std::time::Duration;

use backon::BackoffBuilder;

use super::{Delivery, GRACE, LONGEST};
use crate::address::Channel;
use crate::clock::after;
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::store::{OutboundMessage, Settlement};
use crate::twilio::{Repeat, RestError, RestErrorKind};

/// How long an account with bad credentials is left alone.
const AUTH_PAUSE: Duration = Duration::from_mins(1);
/// The longest that `Retry-After` is obeyed: one odd answer must not keep an account silent.
const LONGEST_PAUSE: Duration = Duration::from_mins(15);
/// What belongs to another account is left to whoever serves that, for so long at a time.
const NOT_OURS: Duration = Duration::from_mins(1);
/// Free-form messages outside of the customer service window.
const WINDOW_CLOSED: ErrorCode = ErrorCode(63016);
/// Wrong credentials.
const UNAUTHENTICATED: ErrorCode = ErrorCode(20003);

impl Delivery {
    pub(super) async fn send(&self, message: OutboundMessage) {
        crate::crash_point!("P11");
        let settlement = self.call(&message).await;
        self.settle(&message, settlement).await;
    }

    async fn call(&self, message: &OutboundMessage) -> Settlement {
        let now = self.clock.now();
        let pause = self.health.closed(message.account, self.clock.monotonic());
        if let Some(pause) = pause {
            let not_before = after(now, pause);
            return Settlement::Again { not_before };
        }
        // One that the operator has released gets a call whatever its age.
        if message.attempt > 1 && now.duration_since(message.created_at) > LONGEST {
            return failed(None, "it could not be sent for too long");
        }
        let params = match self.params(message) {
            Ok(params) => params,
            Err(refusal) => return refusal,
        };
        let Some(route) = self.routes.of(message.account) else {
            if self.health.is_new_stranger(message.account) {
                tracing::warn!(
                    account = %message.account,
                    "messages of an account that this server does not send for wait in the outbox: whoever queued them has \
                     another TWILIO_ACCOUNT_SID than the server"
                );
            }
            let not_before = after(now, NOT_OURS);
            return Settlement::Again { not_before };
        };
        let credentials = self.keyring.credentials(message.account, message.slot);
        let messages = route.client.messages(message.account, &credentials);
        let created = match &message.window {
            Some(window) => messages.create_form(&params, window).await,
            None => messages.create_template_form(&params).await,
        };
        match created {
            Ok(sent) => {
                crate::crash_point!("P12");
                self.health.set(true);
                Settlement::Sent {
                    sid: sent.sid,
                    status: sent.status,
                }
            }
            Err(error) => self.failure(message, &error),
        }
    }

    /// What is posted: the message, or the template that takes its place, and where its status is reported.
    fn params(&self, message: &OutboundMessage) -> Result<Form, Settlement> {
        let mut params = match (message.window, message.template) {
            (None, false) => self.template(message)?,
            (None, true) => {
                self.agreed(message)?;
                message.params.clone()
            }
            (Some(_), _) => message.params.clone(),
        };
        let route = self.routes.of(message.account);
        if let Some(url) = route.and_then(|route| route.status_callback.as_ref())
            && params.get("StatusCallback").is_none()
        {
            let url = format!("{}?r={}", url.endpoint("/webhook/status"), message.name());
            params = params
                .iter()
                .chain([("StatusCallback", url.as_str())])
                .collect();
        }
        Ok(params)
    }

    fn template(&self, message: &OutboundMessage) -> Result<Form, Settlement> {
        let closed = || {
            failed(
                Some(WINDOW_CLOSED),
                "the customer service window has closed",
            )
        };
        let template = self.policy.late_template.as_deref().ok_or_else(closed)?;
        self.agreed(message)?;
        // A variable holds no line breaks or tabs (63013).
        let text = message.params.get("Body").unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let variables = serde_json::json!({ "1": text }).to_string();
        let pairs = [
            ("To", message.user.as_str()),
            ("From", message.us.as_str()),
            ("ContentSid", template),
            ("ContentVariables", variables.as_str()),
        ];
        Ok(pairs.into_iter().collect())
    }

    /// Whether a template may be sent although the window has closed.
    fn agreed(&self, message: &OutboundMessage) -> Result<(), Settlement> {
        if self.policy.consent_required
            && !message.opted_in
            && *message.user.channel() == Channel::WhatsApp
        {
            return Err(failed(
                None,
                "the window has closed, and a template needs a recorded opt-in",
            ));
        }
        Ok(())
    }

    fn failure(&self, message: &OutboundMessage, error: &RestError) -> Settlement {
        let now = self.clock.now();
        let id = message.id;
        match error.repeat() {
            Repeat::Safe(at_least) => {
                let rate_limited = matches!(error.kind(), RestErrorKind::RateLimited { .. });
                self.health.set(rate_limited);
                let wait = pause(message.attempt).max(at_least.min(LONGEST_PAUSE));
                let not_before = after(now, wait);
                if rate_limited {
                    let until = self.clock.monotonic().saturating_add(wait);
                    self.health.close(message.account, until);
                }
                self.warn(id, "a message was not sent and will be sent again", error);
                Settlement::Again { not_before }
            }
            Repeat::Ambiguous => {
                self.health.set(false);
                self.warn(
                    id,
                    "whether a message was sent is not known: Twilio's list will tell",
                    error,
                );
                Settlement::Unknown {
                    look_at: after(now, GRACE),
                    looked: false,
                }
            }
            Repeat::Never => {
                let unauthenticated = error.code() == Some(UNAUTHENTICATED)
                    || matches!(error.kind(), RestErrorKind::Refused { status: 401, .. });
                self.health.set(!unauthenticated);
                if unauthenticated {
                    let until = self.clock.monotonic() + AUTH_PAUSE;
                    self.health.close(message.account, until);
                }
                self.warn(id, "a message was refused", error);
                failed(error.code(), "Twilio refused it")
            }
        }
    }

    fn warn(&self, id: i64, what: &str, error: &RestError) {
        if let Some(suppressed) = self.warnings.pass() {
            tracing::warn!(outbound_id = id, suppressed, "{what}: {error}");
        }
    }
}

fn failed(code: Option<ErrorCode>, reason: &'static str) -> Settlement {
    Settlement::Failed { code, reason }
}

/// Before the next call for a message: doubling from a second to five minutes, and never the same twice.
pub(super) fn pause(attempt: u32) -> Duration {
    let calls = usize::try_from(attempt.clamp(1, 12)).unwrap_or(12);
    backon::ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_mins(5))
        .without_max_times()
        .with_jitter()
        .build()
        .nth(calls - 1)
        .unwrap_or(Duration::from_mins(5))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        for (attempt, least, most) in [
            (1, 1, 2),
            (2, 2, 4),
            (5, 16, 32),
            (12, 300, 600),
            (99, 300, 600),
        ] {
            let pause = pause(attempt).as_secs_f64();
            assert!(
                (f64::from(least)..=f64::from(most)).contains(&pause),
                "{attempt}: {pause}"
            );
        }
        assert!(LONGEST > SignedDuration::from_secs(600));
    }
}
