//! Whom the emulator plays: an account with a token that no real account has, and its senders.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::address::Address;
use crate::secret::Secret;
use crate::sid::AccountSid;

/// The sandbox's number, and Twilio's magic number that may send.
pub const SENDERS: [&str; 2] = ["whatsapp:+14155238886", "+15005550006"];

/// The account's sender on a user's channel, where it has one.
///
/// ```
/// use replyhook::Address;
/// use replyhook::emulator::{SENDERS, sender_for};
///
/// assert_eq!(sender_for(&Address::parse("whatsapp:+34600000001")), Some(SENDERS[0]));
/// assert_eq!(sender_for(&Address::parse("messenger:42")), None);
/// ```
pub fn sender_for(user: &Address) -> Option<&'static str> {
    let mut senders = SENDERS.into_iter();
    senders.find(|sender| Address::parse(*sender).channel() == user.channel())
}

/// An account that exists nowhere else.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) sid: AccountSid,
    pub(super) token: Secret,
}

impl Account {
    /// A new one. Its token is made here and never taken from anywhere, so that no page can have a request signed that a
    /// real server would believe.
    pub(super) fn generate() -> Self {
        let sid = sid("AC");
        Self {
            sid: AccountSid::parse(&sid).expect("it was made in an account's shape"),
            token: Secret::new(hex(32)),
        }
    }

    /// As `GET Accounts/{sid}.json` shows it.
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

/// A new identifier.
pub(super) fn sid(prefix: &str) -> String {
    format!("{prefix}{}", hex(32))
}

/// A UUID's shape, as idempotency tokens have it.
pub(super) fn uuid() -> String {
    let hex = hex(32);
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

/// Random hexadecimal digits.
pub(super) fn hex(digits: usize) -> String {
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    let mut text = String::with_capacity(digits + 1);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a text takes everything");
    }
    text.truncate(digits);
    text
}
