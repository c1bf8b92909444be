//! [`OptOutLog`]: limits the log lines about users who have opted out.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};

use crate::address::Address;
use crate::clock::Clock;
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::sid::MessagingServiceSid;
use crate::store::{AddressConsent, AppliedOptOut, ConsentScope, OutboundMessage, Store};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of users in an hour. Further ones are not logged.
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
        let Some(consents) = self.consents_of(&message.from).await else {
            return;
        };
        let found = applied_opt_out(&consents, &message.to, message.messaging_service_sid);
        let (scope, since, source) = fields(found);
        tracing::info!(message_sid = %message.message_sid, scope, since, source, "a message was not given to the bot: its user has opted out");
    }

    /// Logs why a message is not sent.
    pub(crate) async fn explain_outbound(&self, message: &OutboundMessage) {
        let Some(consents) = self.consents_of(&message.user).await else {
            return;
        };
        // If a service chooses the sender, an opt-out from any sender counts, and the log line has no scope.
        let found = applied_opt_out(&consents, &message.sender, message.service);
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
        if self
            .seen
            .is_due(&("new owner", &message.user), self.clock.now())
        {
            tracing::info!(
                outbound_id = message.id,
                "a message was not sent: its address is of another user now"
            );
        }
    }

    /// Returns the consents of a user; `None` if no line is due, or the store fails, which other operations report.
    async fn consents_of(&self, user: &Address) -> Option<Vec<AddressConsent>> {
        if !self.seen.is_due(user, self.clock.now()) {
            return None;
        }
        self.store.consents(user).await.ok()
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
    /// Returns true if a line about this user may be written now.
    fn is_due(&self, user: &impl Hash, now: Timestamp) -> bool {
        let hash = self.hasher.hash_one(user);
        // A panic under the lock leaves at worst a missing user.
        let mut seen = self.seen.lock().ignore_poison();
        let passed = now.duration_since(seen.since);
        if passed >= HOUR || passed.is_negative() {
            seen.users.clear();
            seen.since = now;
        }
        seen.users.len() < MAX_USERS && seen.users.insert(hash)
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
        let (ana, ben) = (Address::from("+15550001111"), Address::from("+15550003333"));
        assert!(log.is_due(&ana, at(0)));
        assert!(!log.is_due(&ana, at(59)));
        assert!(log.is_due(&ben, at(59)));
        assert!(log.is_due(&ana, at(60)));
    }
}
