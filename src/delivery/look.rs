//! Looking in Twilio's list for a message whose call has no known end.

use std::time::Duration;

use super::send::pause;
use super::{Delivery, OnUnknown};
use crate::clock::after;
use crate::sid::MessagingServiceSid;
use crate::store::{OutboundMessage, Settlement};
use crate::twilio::{ListMessages, Message};

/// Between two looks. A message is in the list as soon as its call is processed, which takes half a minute at most.
const AGAIN: Duration = Duration::from_secs(8);
/// Looks that find nothing before it counts as not there.
const LOOKS: u32 = 2;

impl Delivery {
    pub(super) async fn look_for(&self, message: OutboundMessage) {
        let now = self.clock.now();
        let settlement = match self.found(&message).await {
            Ok(Some(found)) => {
                tracing::info!(reply = message.id, sid = %found.sid, "a message of unknown fate was found: Twilio has taken it");
                Settlement::Sent {
                    sid: found.sid,
                    status: found.status,
                }
            }
            Ok(None) if message.looks + 1 < LOOKS => Settlement::Unknown {
                look_at: after(now, AGAIN),
                looked: true,
            },
            Ok(None) if self.policy.on_unknown == OnUnknown::Resend => {
                tracing::warn!(
                    reply = message.id,
                    "a message of unknown fate is not in Twilio's list: it is sent again"
                );
                Settlement::Again { not_before: now }
            }
            Ok(None) => {
                tracing::error!(
                    reply = message.id,
                    "a message of unknown fate is not in Twilio's list: it is suppressed, and `replyhook messages release` sends it"
                );
                Settlement::Held
            }
            Err(()) => Settlement::Unknown {
                look_at: after(now, pause(message.attempt)),
                looked: false,
            },
        };
        self.settle(&message, settlement).await;
        self.outbox.notify_one();
    }

    /// The oldest message of the list that says the same, is not older than the call, and is nobody else's.
    async fn found(&self, message: &OutboundMessage) -> Result<Option<Message>, ()> {
        let credentials = self.keyring.credentials(message.account, message.slot);
        let service = message.service.as_ref();
        let service = service.map_or("", MessagingServiceSid::as_str);
        let which = ListMessages {
            to: Some(message.user.clone()),
            // A service chooses its sender, which is not known.
            from: Some(message.us.clone()).filter(|us| us.as_str() != service),
            page_size: Some(200),
            ..ListMessages::default()
        };
        let route = self.routes.of(message.account).ok_or(())?;
        let listed = route
            .client
            .messages(message.account, &credentials)
            .list(&which)
            .await;
        let listed = listed.map_err(|error| {
            self.health.set(false);
            tracing::warn!(
                reply = message.id,
                "Twilio's list could not be read: {error}"
            );
        })?;
        let mut alike: Vec<Message> = listed
            .into_iter()
            .filter(|found| found.may_be(message))
            .collect();
        // Newest first, as Twilio lists them.
        alike.reverse();
        let sids = alike.iter().map(|found| found.sid).collect();
        let free = self.store.unclaimed_sids(message.account, sids).await;
        let free = self.asked("unclaimed_sids", free)?;
        Ok(alike.into_iter().find(|found| free.contains(&found.sid)))
    }
}
