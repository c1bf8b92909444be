//! [`OptOutLog`]: limits the log lines about users who have opted out.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use replyhook_core::address_key::AddressKey;

use crate::address::Address;
use crate::clock::Clock;
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::sid::MessagingServiceSid;
use crate::store::{AddressConsent, AppliedOptOut, ConsentScope, OutboundMessage, Store};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of addresses of users in an hour. Further ones are not logged.
const MAX_USERS: usize = 10_000;

/// Logs why messages from and to users who have opted out are dropped: one line per user and hour, without the address.
pub(crate) struct OptOutLog {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    seen: LoggedUsers,
}

/// Users about whom a line was written within the hour.
#[derive(Default)]
struct LoggedUsers {
    /// Hashes instead of addresses, with keys of this process.
    hasher: RandomState,
    seen: Mutex<SeenUsers>,
}

#[derive(Default)]
struct SeenUsers {
    since: Timestamp,
    users: HashSet<u64>,
}

impl OptOutLog {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            seen: LoggedUsers::default(),
        }
    }

    /// Logs why the bot does not get a message.
    pub(crate) async fn explain_inbound(&self, message: &InboundMessage) {
        let ids = [&message.external_user_id, &message.parent_external_user_id];
        let ids = ids.into_iter().flatten();
        let addresses: Vec<&Address> = std::iter::once(&message.from).chain(ids).collect();
        let Some(consents) = self.consents_of(&addresses).await else {
            return;
        };
        let service = message.messaging_service_sid;
        let service = self.service_of(&message.to, service).await;
        let found = applied_opt_out(&consents, &message.to, service);
        let (scope, since, source) = fields(found);
        tracing::info!(message_sid = %message.message_sid, scope, since, source, "a message was not given to the bot: its user has opted out");
    }

    /// Logs why a message is not sent.
    pub(crate) async fn explain_outbound(&self, message: &OutboundMessage) {
        let Some(consents) = self.consents_of(&[&message.user]).await else {
            return;
        };
        // If a service chooses the sender, an opt-out from any sender counts, and the log line has no scope.
        let service = self.service_of(&message.sender, message.service).await;
        let found = applied_opt_out(&consents, &message.sender, service);
        let (scope, since, source) = fields(found);
        tracing::info!(
            outbound_id = message.id,
            scope,
            since,
            source,
            "a message was not sent: its user has opted out"
        );
    }

    /// Logs that a message is not sent, because its address is of another user now.
    pub(crate) fn explain_new_owner(&self, message: &OutboundMessage) {
        let now = self.clock.now();
        if self.seen.is_due("new owner", &[&message.user], now) {
            tracing::info!(
                outbound_id = message.id,
                "a message was not sent: its address is of another user now"
            );
        }
    }

    /// Returns the Messaging Service of a message: the one that it names, else the one that its sender was last seen in, as the
    /// opt-out was found.
    async fn service_of(
        &self,
        sender: &Address,
        named: Option<MessagingServiceSid>,
    ) -> Option<MessagingServiceSid> {
        match named {
            Some(service) => Some(service),
            None => self.store.service_of_sender(sender).await.ok().flatten(),
        }
    }

    /// Returns the consents of the first of a user's addresses; `None` if no line is due, or the store fails, which other
    /// operations report.
    async fn consents_of(&self, addresses: &[&Address]) -> Option<Vec<AddressConsent>> {
        if !self.seen.is_due("opted out", addresses, self.clock.now()) {
            return None;
        }
        self.store.consents(addresses.first()?).await.ok()
    }
}

/// Returns scope, time and source of an opt-out, for a log line.
fn fields<'a>(
    found: Option<(&'a str, &'a AppliedOptOut)>,
) -> (Option<&'a str>, Option<String>, Option<&'static str>) {
    let (scope, opt_out) = found.unzip();
    let since = opt_out.map(|opt_out| opt_out.at.to_string());
    (scope, since, opt_out.map(|opt_out| opt_out.source.as_str()))
}

impl LoggedUsers {
    /// Returns true if a line for this reason about the user with these addresses may be written now.
    ///
    /// One number counts once, on all channels and in both of its spellings.
    fn is_due(&self, reason: &str, addresses: &[&Address], now: Timestamp) -> bool {
        let hash = |address: &Address| {
            let key = AddressKey::of(address);
            self.hasher.hash_one((reason, key.without_channel()))
        };
        let hashes: Vec<u64> = addresses.iter().map(|address| hash(address)).collect();
        // A panic under the lock leaves at worst a missing user.
        let mut seen = self.seen.lock().ignore_poison();
        let passed = now.duration_since(seen.since);
        if passed >= HOUR || passed.is_negative() {
            seen.users.clear();
            seen.since = now;
        }
        let is_logged = hashes.iter().any(|hash| seen.users.contains(hash));
        if seen.users.len() < MAX_USERS {
            seen.users.extend(hashes);
            !is_logged
        } else {
            false
        }
    }
}

/// Returns the opt-out that applies to messages of this sender and service, with its scope: `sender`, or the SID of the
/// service. A sender can be a phone number, which no log line contains.
fn applied_opt_out<'a>(
    consents: &'a [AddressConsent],
    sender: &Address,
    service: Option<MessagingServiceSid>,
) -> Option<(&'a str, &'a AppliedOptOut)> {
    consents.iter().find_map(|consent| {
        let opt_out = consent.opt_out.as_ref()?;
        match &consent.scope {
            ConsentScope::Sender(of_scope) if of_scope == sender => Some(("sender", opt_out)),
            ConsentScope::Service(of_scope) if Some(*of_scope) == service => {
                Some((of_scope.as_str(), opt_out))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_about_user_is_due_once_an_hour() {
        let log = LoggedUsers::default();
        let at = |minutes: i64| Timestamp::from_second(1_700_000_000 + minutes * 60).unwrap();
        let is_due =
            |address: &str, minutes| log.is_due("opted out", &[&address.into()], at(minutes));
        assert!(is_due("+15550001111", 0));
        assert!(!is_due("+15550001111", 59));
        assert!(is_due("+15550003333", 59));
        assert!(is_due("+15550001111", 60));
        // The same number on another channel, in its other spelling, and its ID.
        let (number, id) = ("whatsapp:+5215512345678".into(), "whatsapp:MX.1349".into());
        assert!(log.is_due("opted out", &[&number, &id], at(61)));
        for address in ["+525512345678", "rcs:+5215512345678", "whatsapp:MX.1349"] {
            assert!(!is_due(address, 62), "{address}");
        }
    }
}
