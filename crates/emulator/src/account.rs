//! Account of the emulator: a SID and auth token that exist nowhere else, and the default senders.

use std::fmt::Write;

use serde_json::{Value, json};

use replyhook_core::Secret;
use replyhook_core::address::{Address, Channel, Identity};
use replyhook_core::sid::AccountSid;

/// Default senders: the number of Twilio's WhatsApp sandbox, the valid `From` of Twilio's test credentials, and an
/// invented sender for each of RCS and Messenger.
pub const SENDERS: [&str; 4] = [
    "whatsapp:+14155238886",
    "+15005550006",
    "rcs:replyhook_agent",
    "messenger:104000000000001",
];

/// Returns the default sender on a user's channel, if there is one.
///
/// ```
/// use replyhook::Address;
/// use replyhook::emulator::{SENDERS, sender_for};
///
/// assert_eq!(sender_for(&Address::parse("whatsapp:+34600000001")), Some(SENDERS[0]));
/// assert_eq!(sender_for(&Address::parse("messenger:42")), Some(SENDERS[3]));
/// assert_eq!(sender_for(&Address::parse("viber:42")), None);
/// ```
pub fn sender_for(user: &Address) -> Option<&'static str> {
    // An RCS user has a number; any other ID is one of a business.
    if *user.channel() == Channel::Rcs && user.identity() != Identity::Phone {
        return None;
    }
    let mut senders = SENDERS.into_iter();
    senders.find(|sender| Address::parse(*sender).channel() == user.channel())
}

/// SID and auth token.
#[derive(Debug, Clone)]
pub(super) struct EmulatedAccount {
    pub(super) sid: AccountSid,
    pub(super) token: Secret,
}

impl EmulatedAccount {
    /// Generates an account.
    pub(super) fn generate() -> Self {
        let sid = random_sid("AC");
        Self {
            sid: AccountSid::parse(&sid).expect("AC and 32 hexadecimal digits are an account SID"),
            // Never a configured token: any local page could then have requests signed that a real server accepts.
            token: Secret::new(random_hex(32)),
        }
    }

    /// Returns the resource of `GET Accounts/{sid}.json`.
    pub(super) fn json(&self) -> Value {
        json!({
            "auth_token": self.token.expose(),
            "date_created": null,
            "date_updated": null,
            "friendly_name": "replyhook emulator",
            "owner_account_sid": self.sid.as_str(),
            "sid": self.sid.as_str(),
            "status": "active",
            "subresource_uris": {},
            "type": "Full",
            "uri": format!("/2010-04-01/Accounts/{}.json", self.sid),
        })
    }
}

/// Returns a random SID with this prefix.
pub(super) fn random_sid(prefix: &str) -> String {
    format!("{prefix}{}", random_hex(32))
}

/// Returns a random UUID, the format of `I-Twilio-Idempotency-Token`.
pub(super) fn random_uuid() -> String {
    let hex = random_hex(32);
    // The fixed digits are version 4 and variant 8 (RFC 9562).
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

/// Returns random hexadecimal digits.
pub(super) fn random_hex(digits: usize) -> String {
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
    // Room for one more digit: an odd number of digits needs a whole byte, and is truncated below.
    let mut text = String::with_capacity(digits + 1);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text.truncate(digits);
    text
}
