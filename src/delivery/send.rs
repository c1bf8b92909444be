//! One REST call for a message, and the outcome that follows from its response.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::health::RestHealth;
use super::parts::DeliveryParts;
use super::policy::DeliveryPolicy;
use super::reply_templates::{
    ReplyTemplates, TemplateQuery, TemplateReference, TemplateVerdict, with_template,
};
use super::rich_message::{RichCall, RichMessages, is_content_gone, is_content_refusal, shape_of};
use super::route::{ApiRoute, ApiRoutes};
use crate::address::{Address, Channel};
use crate::clock::{Clock, after};
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::reloadable::Reloadable;
use crate::retry_delay::retry_delay;
use crate::sid::AccountSid;
use crate::store::{OutboundMessage, PASSING_FAILURES, REJECTED, SendOutcome, Store};
use crate::telemetry::{StoreReport, Throttle};
use crate::twilio::{Credentials, Keyring, RestError, RestErrorKind, RetryAdvice};

/// Age after which a message is not retried: its user does not expect it any more.
const MAX_RETRY_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Pause after the first call that may be repeated.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Time for the status callback of an unknown call to arrive, before Twilio's list is searched.
pub(super) const CALLBACK_GRACE: Duration = Duration::from_secs(2);
/// Pause of an account whose credentials were rejected.
const AUTH_RETRY_DELAY: Duration = Duration::from_mins(1);
/// Maximum `Retry-After` that is honored: one wrong response must not stop an account for long.
// Must be less than the store's `MAX_PAUSE`: the store resets longer pauses as leftovers of a clock that was set back.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(15);
/// Pause of a message of an unknown account, which another server on this store may send in the meantime.
const UNKNOWN_ACCOUNT_RETRY: Duration = Duration::from_mins(1);
/// Twilio's code for a free-form message outside of the customer service window.
const WINDOW_CLOSED: ErrorCode = ErrorCode(63016);
/// Twilio's code for a resource that does not exist.
const NOT_FOUND: ErrorCode = ErrorCode(20404);
/// Pause after such an error, which Twilio sometimes returns for an account that exists.
const NOT_FOUND_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Twilio's code for too many calls, which it leaves out at times.
const RATE_LIMITED: ErrorCode = ErrorCode(20429);
/// Twilio's code for invalid credentials.
const UNAUTHENTICATED: ErrorCode = ErrorCode(20003);

/// Sends messages of the outbox via the REST API.
pub(super) struct RestSender {
    store: Arc<dyn Store>,
    store_report: Arc<StoreReport>,
    routes: Arc<ApiRoutes>,
    keyring: Reloadable<Keyring>,
    health: Arc<RestHealth>,
    clock: Arc<dyn Clock>,
    policy: DeliveryPolicy,
    rich: RichMessages,
    templates: ReplyTemplates,
    warnings: Throttle,
}

/// A message, and the account's API.
struct RestCall<'a> {
    message: &'a OutboundMessage,
    route: &'a ApiRoute,
    credentials: &'a Credentials,
}

impl RestSender {
    pub(super) fn new(parts: &DeliveryParts) -> Self {
        Self {
            store: parts.store.clone(),
            store_report: parts.store_report.clone(),
            routes: parts.routes.clone(),
            keyring: parts.keyring.clone(),
            health: parts.health.clone(),
            clock: parts.clock.clone(),
            policy: parts.policy.clone(),
            rich: RichMessages::new(parts),
            templates: ReplyTemplates::default(),
            warnings: Throttle::new(10),
        }
    }

    /// Ends the pauses of accounts whose rejected keys a reload has replaced, and returns these accounts.
    pub(super) fn end_pauses_of_old_keys(&self) -> Vec<AccountSid> {
        self.health.end_pauses_of_old_keys(&self.keyring.load())
    }

    /// Forgets the content and the failures of an emulator that was reset.
    #[cfg(all(feature = "server", feature = "emulator"))]
    pub(super) fn reset(&self) {
        self.rich.clear();
        self.templates.clear();
        self.health.end_pauses();
    }

    /// Makes the call for a claimed message, unless it must wait or cannot be sent, and returns the outcome.
    pub(super) async fn send(&self, message: &OutboundMessage) -> SendOutcome {
        crate::crash_point!("P11");
        crate::panic_point!("outbox.send");
        let now = self.clock.now();
        let pause = self
            .health
            .remaining_pause(message.account, self.clock.monotonic());
        if let Some(pause) = pause {
            let not_before = after(now, pause);
            return retry(not_before);
        }
        // Only for retries: a message that an operator has released begins with attempt 1, and gets a
        // call whatever its age.
        if message.attempt > 1 && now.duration_since(message.created_at) > MAX_RETRY_AGE {
            return failed(None, "it could not be sent within 24 hours");
        }
        let params = match self.call_params(message) {
            Ok(params) => params,
            Err(rejection) => return rejection,
        };
        let keyring = self.keyring.load();
        let found = self
            .routes
            .authenticated(&keyring, message.account, message.auth_token);
        let Some((route, credentials)) = found else {
            if self.health.add_unknown_account(message.account) {
                tracing::warn!(
                    account = %message.account,
                    "messages of an account that this server does not send for wait in the outbox; queue messages with the \
                     server's TWILIO_ACCOUNT_SID, or run a server that has their auth token or API key"
                );
            }
            let not_before = after(now, UNKNOWN_ACCOUNT_RETRY);
            return retry(not_before);
        };
        // After 404 Twilio did not accept the message.
        let is_passing = |code: &ErrorCode| PASSING_FAILURES.contains(&code.0);
        if let Some(code) = message.resent_after.filter(is_passing) {
            tracing::info!(
                outbound_id = message.id,
                error_code = code.0,
                attempt = message.attempt,
                "sending a message again that Twilio had accepted and then reported as failed"
            );
        }
        let call = RestCall {
            message,
            route,
            credentials: &credentials,
        };
        match self.template_params(&call, params).await {
            Ok(params) => self.create(&call, &params, &keyring).await,
            Err(outcome) => outcome,
        }
    }

    /// Makes the call of a message whose template is known.
    async fn create(
        &self,
        call: &RestCall<'_>,
        params: &FormParams,
        keyring: &Keyring,
    ) -> SendOutcome {
        let message = call.message;
        let messages = call
            .route
            .client
            .messages(message.account, call.credentials);
        let post = async |params: &FormParams| match &message.window {
            Some(window) => messages.create_form(params, window).await,
            None => messages.create_template_form(params).await,
        };
        // A message outside of the window is replaced by a template, so it has no shape.
        let created = match shape_of(message).filter(|_| message.window.is_some()) {
            None => post(params).await,
            Some(shape) => {
                let rich = RichCall {
                    shape,
                    message,
                    route: call.route,
                    credentials: call.credentials,
                };
                let Some(sent) = self.rich.params(&rich, params) else {
                    return self.prepare(message, self.rich.look_up(&rich)).await;
                };
                self.rich.record_form(message, &sent).await;
                let created = post(&sent.params).await;
                // Twilio has not accepted the message. At most once: the next call uses a resource that was just found or
                // made.
                if let Err(error) = &created
                    && is_content_gone(error)
                    && self.rich.forget(&rich).await
                {
                    return self.prepare(message, self.rich.look_up(&rich)).await;
                }
                created
            }
        };
        self.rich.end_renewal(message.id);
        match created {
            Ok(sent) => {
                crate::crash_point!("P12");
                self.health.set_ok(true);
                SendOutcome::Sent {
                    sid: sent.sid,
                    status: sent.status,
                }
            }
            Err(error) => self.handle_failure(message, &error, keyring),
        }
    }

    /// Looks up, or makes, what the message needs at Twilio. Then the message is claimed again.
    // Under a mark, so that a process that ends here leaves the message pending: a content resource is not the message. The
    // next claim checks consent and window again, since this may take a while.
    async fn prepare(
        &self,
        message: &OutboundMessage,
        look_up: impl Future<Output = ()>,
    ) -> SendOutcome {
        let begun = self.store.begin_preparation(message.id).await;
        match self.store_report.record_error("begin_preparation", begun) {
            Ok(true) => {}
            // Another process has claimed the message, so this outcome has no effect.
            Ok(false) => return SendOutcome::Prepared,
            Err(()) => {
                let not_before = after(self.clock.now(), call_delay(message.attempt));
                return retry(not_before);
            }
        }
        crate::crash_point!("P11.content");
        look_up.await;
        SendOutcome::Prepared
    }

    /// Returns the parameters with the SID of the message's template, or as they are if it has none.
    async fn template_params(
        &self,
        call: &RestCall<'_>,
        params: FormParams,
    ) -> Result<FormParams, SendOutcome> {
        let message = call.message;
        let Some(template) = TemplateReference::of(&params) else {
            return Ok(params);
        };
        let query = TemplateQuery {
            account: message.account,
            contents: &call.route.content.contents(call.credentials),
            channel: message.user.channel(),
            is_window_open: message.window.is_some(),
            now: self.clock.monotonic(),
        };
        match self.templates.verdict(template, &query) {
            Some(TemplateVerdict::Send(sid)) => return Ok(with_template(&params, &sid)),
            Some(TemplateVerdict::Refused(reason)) => return Err(failed(None, reason)),
            None => {}
        }
        let mut looked_up = Ok(());
        let prepared = self.prepare(message, async {
            looked_up = self.templates.look_up(template, &query).await;
        });
        let prepared = prepared.await;
        let Err(error) = looked_up else {
            return Err(prepared);
        };
        let problem = "the account's templates could not be listed";
        self.log_failed_call(message.id, problem, &error);
        // A missing permission is a fault of the configuration, and does not pass by itself.
        if error.is_missing_permission() {
            let reason = with_detail("the templates of the account cannot be listed", &error);
            return Err(failed(error.code(), reason));
        }
        // Nothing was sent, so the send is retried.
        let not_before = after(self.clock.now(), call_delay(message.attempt));
        Err(SendOutcome::Retry {
            not_before,
            code: error.code(),
        })
    }

    /// Returns the parameters of the call: the message, or the template that replaces it, and the status callback.
    // The window was read when the message was claimed: it may have closed since the message was queued.
    fn call_params(&self, message: &OutboundMessage) -> Result<FormParams, SendOutcome> {
        let mut params = match (message.window, message.template) {
            (None, false) => self.replacement_params(message)?,
            (None, true) => {
                self.check_opt_in(message)?;
                message.params.clone()
            }
            (Some(_), _) => message.params.clone(),
        };
        // Twilio rejects a send time in the past, which a message that is sent again may have.
        let send_at = params.get("SendAt").map(str::parse::<Timestamp>);
        if matches!(send_at, Some(Ok(at)) if at <= self.clock.now()) {
            params = params
                .iter()
                .filter(|(name, _)| !["SendAt", "ScheduleType"].contains(name))
                .collect();
        }
        // The bot's own callback, if it has set one, stays. `r` is the message's name, by which a
        // callback proves the call.
        let route = self.routes.route_for(message.account);
        if let Some(url) = route.and_then(|route| route.status_callback.as_ref())
            && params.get("StatusCallback").is_none()
        {
            let url = url.endpoint(url.paths().status());
            let url = format!("{url}?r={}", message.name());
            params = params
                .iter()
                .chain([("StatusCallback", url.as_str())])
                .collect();
        }
        Ok(params)
    }

    /// Returns the parameters of the template that replaces a message after the window has closed.
    fn replacement_params(&self, message: &OutboundMessage) -> Result<FormParams, SendOutcome> {
        let window_closed = || {
            failed(
                Some(WINDOW_CLOSED),
                "the customer service window has closed",
            )
        };
        let template = self
            .policy
            .window_closed_template
            .as_deref()
            .ok_or_else(window_closed)?;
        self.check_opt_in(message)?;
        // A variable must not contain line breaks or tabs (63013).
        let text = message.params.get("Body").unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let variables = serde_json::json!({ "1": text }).to_string();
        // As the replaced message has them: those of the store are normalized.
        let address = |name, stored| message.params.get(name).unwrap_or(Address::as_str(stored));
        let pairs = [
            ("To", Some(address("To", &message.user))),
            ("From", Some(address("From", &message.sender))),
            (
                "MessagingServiceSid",
                message.params.get("MessagingServiceSid"),
            ),
            ("ContentSid", Some(template)),
            ("ContentVariables", Some(variables.as_str())),
        ];
        let pairs = pairs.into_iter();
        Ok(pairs
            .filter_map(|(name, value)| Some((name, value?)))
            .collect())
    }

    /// Returns an error if a template needs an opt-in that its user has not given.
    fn check_opt_in(&self, message: &OutboundMessage) -> Result<(), SendOutcome> {
        if self.policy.consent_required
            && !message.opted_in
            && *message.user.channel() == Channel::WhatsApp
        {
            return Err(failed(
                None,
                "the customer service window has closed, and a template needs a recorded opt-in",
            ));
        }
        Ok(())
    }

    /// Returns the outcome of a failed call, and pauses the account if all its calls would fail.
    fn handle_failure(
        &self,
        message: &OutboundMessage,
        error: &RestError,
        keyring: &Keyring,
    ) -> SendOutcome {
        let now = self.clock.now();
        let id = message.id;
        match error.retry_advice() {
            RetryAdvice::Safe(min_delay) => {
                // A rate limit is a response, so the REST API works. A failed connection shows the opposite.
                let rate_limited = matches!(error.kind(), RestErrorKind::RateLimited { .. });
                self.health.set_ok(rate_limited);
                let delay = call_delay(message.attempt).max(min_delay.min(MAX_RETRY_AFTER));
                let not_before = after(now, delay);
                if rate_limited {
                    let until = self.clock.monotonic().saturating_add(delay);
                    self.health.pause_account(message.account, until, None);
                }
                self.log_failed_call(id, "a message was not sent and will be retried", error);
                SendOutcome::Retry {
                    not_before,
                    code: rate_limited.then(|| error.code().unwrap_or(RATE_LIMITED)),
                }
            }
            RetryAdvice::Ambiguous => {
                self.health.set_ok(false);
                self.log_failed_call(
                    id,
                    "result of a send is unknown; waiting for a status callback, then searching Twilio's message list",
                    error,
                );
                SendOutcome::Unknown {
                    lookup_at: after(now, CALLBACK_GRACE),
                    looked_up: false,
                }
            }
            RetryAdvice::Never
                if let Some(code) = error.code()
                    && is_content_refusal(code)
                    && shape_of(message).is_some()
                    && message.text_after.is_none() =>
            {
                self.health.set_ok(true);
                self.log_failed_call(id, "Twilio refused a message with choices or a link", error);
                SendOutcome::RetryAsText {
                    not_before: now,
                    code,
                }
            }
            RetryAdvice::Never if is_not_found(error) && message.resent_after.is_none() => {
                self.health.set_ok(true);
                self.log_failed_call(id, "a message was not sent and will be retried once", error);
                SendOutcome::RetryOnce {
                    not_before: after(now, NOT_FOUND_RETRY_DELAY),
                    // A proxy's response has no code of Twilio's.
                    code: error.code().unwrap_or(NOT_FOUND),
                }
            }
            RetryAdvice::Never => {
                // Invalid credentials, or an API key that may not send, affect all messages of the account, which wait. Any
                // other error, also another missing permission, is treated as specific to this message.
                let unauthenticated = error.code() == Some(UNAUTHENTICATED)
                    || error.is_sending_denied()
                    || matches!(error.kind(), RestErrorKind::Rejected { status: 401, .. });
                self.health.set_ok(!unauthenticated);
                if unauthenticated {
                    let until = self.clock.monotonic() + AUTH_RETRY_DELAY;
                    let rejected = keyring.keys(message.account).cloned();
                    self.health.pause_account(message.account, until, rejected);
                }
                self.log_failed_call(id, "Twilio rejected a message", error);
                failed(error.code(), with_detail(REJECTED, error))
            }
        }
    }

    fn log_failed_call(&self, id: i64, problem: &str, error: &RestError) {
        if let Some(suppressed) = self.warnings.try_log() {
            tracing::warn!(outbound_id = id, suppressed, %error, "{problem}");
        }
    }
}

fn is_not_found(error: &RestError) -> bool {
    error.code() == Some(NOT_FOUND)
        || matches!(error.kind(), RestErrorKind::Rejected { status: 404, .. })
}

fn failed(code: Option<ErrorCode>, reason: impl Into<Cow<'static, str>>) -> SendOutcome {
    SendOutcome::Failed {
        code,
        reason: reason.into(),
    }
}

fn retry(not_before: Timestamp) -> SendOutcome {
    SendOutcome::Retry {
        not_before,
        code: None,
    }
}

/// Returns a reason with Twilio's own text, if the error has one.
fn with_detail(reason: &'static str, error: &RestError) -> Cow<'static, str> {
    match error.detail() {
        Some(detail) => format!("{reason} with the text \"{detail}\"").into(),
        None => reason.into(),
    }
}

/// Pause before the next call for a message.
pub(super) fn call_delay(attempt: u32) -> Duration {
    retry_delay(attempt, FIRST_RETRY_DELAY)
}
