//! Typing indicators: sent while a handler runs (`reply.typing_after_ms`), or when a handler asks for one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{Address, Channel};
use crate::clock::Clock;
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;
use crate::twilio::RestError;

/// Interval of warnings about failed indicators.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);
/// Number of messages whose indicator is remembered.
// A second attempt follows within seconds, so that few are enough.
const MAX_REMEMBERED: usize = 512;

/// Function that sends a typing indicator via the REST API.
pub(crate) type TypingHook =
    Arc<dyn Fn(TypingTarget) -> BoxFuture<'static, Result<(), RestError>> + Send + Sync>;

/// A message whose author is to see a typing indicator, and the account and token for the call.
#[derive(Debug, Clone)]
pub(crate) struct TypingTarget {
    pub(crate) account: AccountSid,
    pub(crate) auth_token: AuthTokenKind,
    pub(crate) message: MessageSid,
    /// On RCS, the sender and the user. On WhatsApp, the message is enough.
    pub(crate) rcs: Option<(Address, Address)>,
}

impl TypingTarget {
    /// Returns `None` on channels without typing indicators.
    pub(super) fn of(message: &InboundMessage, auth_token: AuthTokenKind) -> Option<Self> {
        let rcs = match message.from.channel() {
            Channel::WhatsApp => None,
            Channel::Rcs => Some((message.to.clone(), message.from.clone())),
            _ => return None,
        };
        Some(Self {
            account: message.account_sid,
            auth_token,
            message: message.message_sid,
            rcs,
        })
    }
}

/// Sends typing indicators. A failure is counted and has no other effect.
pub(crate) struct TypingIndicators {
    hook: TypingHook,
    metrics: Arc<Metrics>,
    warnings: Throttle,
    /// Messages that had an indicator, the newest last.
    sent: Mutex<VecDeque<(AccountSid, MessageSid)>>,
}

impl TypingIndicators {
    pub(crate) fn new(hook: TypingHook, metrics: Arc<Metrics>) -> Self {
        Self {
            hook,
            metrics,
            warnings: Throttle::every(WARNING_INTERVAL),
            sent: Mutex::default(),
        }
    }

    /// Sends an indicator, and waits for Twilio's response.
    pub(super) async fn send(&self, target: TypingTarget) {
        self.remember(&target);
        let message_sid = target.message;
        let outcome = (self.hook)(target).await;
        self.metrics.typing_indicator(outcome.is_ok());
        // Not the failure of the message: its reply does not need the indicator.
        if let Err(error) = outcome
            && let Some(suppressed) = self.warnings.try_log()
        {
            tracing::warn!(%message_sid, %error, suppressed, "could not send a typing indicator; the reply is not affected");
        }
    }

    /// Sends an indicator at `at`, a time of [`Clock::monotonic`], unless the returned handle is dropped before or the message
    /// has had one.
    // In a task of its own: a handler that blocks its thread must not block the indicator, and a slow response of Twilio
    // must not delay the reply. Dropping the handle also cancels a call in progress.
    pub(super) fn send_at(
        self: &Arc<Self>,
        at: Duration,
        target: TypingTarget,
        clock: Arc<dyn Clock>,
    ) -> AbortOnDropHandle<()> {
        let indicators = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            clock.sleep_until_monotonic(at).await;
            if !indicators.has_sent(&target) {
                indicators.send(target).await;
            }
        }))
    }

    fn has_sent(&self, target: &TypingTarget) -> bool {
        let sent = self.sent.lock().ignore_poison();
        sent.contains(&(target.account, target.message))
    }

    fn remember(&self, target: &TypingTarget) {
        let mut sent = self.sent.lock().ignore_poison();
        if sent.len() == MAX_REMEMBERED {
            sent.pop_front();
        }
        sent.push_back((target.account, target.message));
    }
}
