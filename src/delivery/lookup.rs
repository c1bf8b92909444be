//! Look-up of messages of unknown result in Twilio's message list.

use std::sync::Arc;
use std::time::Duration;

use super::health::RestHealth;
use super::parts::DeliveryParts;
use super::policy::OnUnknown;
use super::route::ApiRoutes;
use super::send::call_delay;
use crate::clock::{Clock, after};
use crate::reloadable::Reloadable;
use crate::sid::MessagingServiceSid;
use crate::store::{OutboundMessage, SendOutcome, Store};
use crate::telemetry::StoreReport;
use crate::twilio::{Keyring, ListMessages, Message};

/// Pause between two look-ups.
// A message is in the list as soon as its call is processed, which takes half a minute at most.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(8);
/// Number of look-ups without a result after which a message counts as not sent.
const MAX_LOOKUPS: u32 = 2;

/// Searches Twilio's message list.
pub(super) struct MessageLookup {
    store: Arc<dyn Store>,
    store_report: Arc<StoreReport>,
    routes: Arc<ApiRoutes>,
    keyring: Reloadable<Keyring>,
    health: Arc<RestHealth>,
    clock: Arc<dyn Clock>,
    on_unknown: OnUnknown,
}

impl MessageLookup {
    pub(super) fn new(parts: &DeliveryParts) -> Self {
        Self {
            store: parts.store.clone(),
            store_report: parts.store_report.clone(),
            routes: parts.routes.clone(),
            keyring: parts.keyring.clone(),
            health: parts.health.clone(),
            clock: parts.clock.clone(),
            on_unknown: parts.policy.on_unknown,
        }
    }

    /// Looks up a message and returns the outcome of its call.
    pub(super) async fn look_up(&self, message: &OutboundMessage) -> SendOutcome {
        let now = self.clock.now();
        match self.find_sent(message).await {
            Ok(Some(found)) => {
                tracing::info!(outbound_id = message.id, message_sid = %found.sid, "a message of unknown result is in Twilio's message list, so it was sent");
                SendOutcome::Sent {
                    sid: found.sid,
                    status: found.status,
                }
            }
            Ok(None) if message.lookups + 1 < MAX_LOOKUPS => SendOutcome::Unknown {
                lookup_at: after(now, LOOKUP_INTERVAL),
                looked_up: true,
            },
            Ok(None) if self.on_unknown == OnUnknown::Resend => {
                tracing::warn!(
                    outbound_id = message.id,
                    "a message of unknown result is not in Twilio's message list; it is sent again"
                );
                SendOutcome::Retry {
                    not_before: now,
                    code: None,
                }
            }
            Ok(None) => {
                tracing::error!(
                    outbound_id = message.id,
                    "a message of unknown result is not in Twilio's message list; it is held until you run `replyhook messages release`"
                );
                SendOutcome::Held
            }
            // The list could not be read, so this does not count as a look-up.
            Err(()) => SendOutcome::Unknown {
                lookup_at: after(now, call_delay(message.attempt)),
                looked_up: false,
            },
        }
    }

    /// Returns the oldest listed message that matches: same text, not older than the call, not
    /// matched with another message.
    async fn find_sent(&self, message: &OutboundMessage) -> Result<Option<Message>, ()> {
        let found =
            self.routes
                .authenticated(&self.keyring.load(), message.account, message.auth_token);
        let (route, credentials) = found.ok_or(())?;
        let service = message.service.as_ref();
        let service = service.map_or("", MessagingServiceSid::as_str);
        let filter = ListMessages {
            to: Some(message.user.clone()),
            // A message through a service has the service's SID as its sender. Its real sender is not known.
            from: Some(message.sender.clone()).filter(|sender| sender.as_str() != service),
            page_size: Some(200),
            ..ListMessages::default()
        };
        let listed = route
            .client
            .messages(message.account, &credentials)
            .list(&filter)
            .await;
        let listed = listed.map_err(|error| {
            self.health.set_ok(false);
            tracing::warn!(
                outbound_id = message.id,
                %error,
                "could not read Twilio's message list"
            );
        })?;
        let mut candidates: Vec<Message> = listed
            .into_iter()
            .filter(|candidate| candidate.may_match(message))
            .collect();
        // Twilio lists the newest first. Unknown messages are looked up oldest first, so each takes the oldest match.
        candidates.reverse();
        let sids = candidates.iter().map(|candidate| candidate.sid).collect();
        let unmatched = self.store.unmatched_sids(message.account, sids).await;
        let unmatched = self
            .store_report
            .record_error("unmatched_sids", unmatched)?;
        Ok(candidates
            .into_iter()
            .find(|candidate| unmatched.contains(&candidate.sid)))
    }
}
