//! Addresses of users and senders: a channel, and an identity on it.
//!
//! Parsing an [`Address`] never fails. A message that Twilio signed is real traffic; a server that rejects an unknown
//! kind of address loses the message. A message to an address is checked when it is sent.
//!
//! Phone numbers are private. `Debug` shows the channel and at most the last two characters. `Display` is not implemented.
//! [`Address::as_str`] and [`Address::id`] return the text.

use std::fmt;
use std::hash::{Hash, Hasher};

/// The address of a sender or recipient, such as `whatsapp:+15550001111`, `whatsapp:US.13491208655302741918`,
/// `+15550001111` or `12345`. Addresses that differ only in the case of their channel's prefix are equal.
///
/// ```
/// use replyhook::address::{Address, Channel, Identity};
///
/// let user = Address::parse("whatsapp:+15550001111");
/// assert_eq!((user.channel(), user.identity()), (&Channel::WhatsApp, Identity::Phone));
/// assert_eq!(user.id(), "+15550001111");
/// // A log line that contains an address by accident does not identify the user.
/// assert!(!format!("{user:?}").contains("5550001111"));
/// ```
#[derive(Clone)]
pub struct Address {
    text: String,
    channel: Channel,
    identity: Identity,
}

/// The channel of a message. Twilio writes it as a prefix of the address; SMS and MMS have no prefix.
///
/// ```
/// use replyhook::{Address, Channel};
///
/// assert_eq!(Address::parse("+15550001111").channel(), &Channel::Sms);
/// assert_eq!(Address::parse("whatsapp:+15550001111").channel().as_str(), "whatsapp");
/// assert_eq!(Address::parse("viber:42").channel(), &Channel::Other("viber".to_owned()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Channel {
    /// SMS or MMS: no prefix.
    Sms,
    /// `whatsapp:`
    WhatsApp,
    /// `rcs:`
    Rcs,
    /// `messenger:`
    Messenger,
    /// A prefix this version does not know.
    Other(String),
}

/// The kind of an address on its channel, read from the text after the channel's prefix.
///
/// ```
/// use replyhook::address::{Address, Identity};
///
/// let identity = |text| Address::parse(text).identity();
/// assert_eq!(identity("whatsapp:US.13491208655302741918"), Identity::BusinessScopedId);
/// assert_eq!(identity("12345"), Identity::ShortCode);
/// assert_eq!(identity("ACME Shop"), Identity::Alphanumeric);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// An E.164 number: `+` and 1 to 15 digits.
    Phone,
    /// The business-scoped ID of a WhatsApp user: a country, a dot and up to 128 letters and digits. The ID of a parent
    /// portfolio has `ENT.` after the first dot. The ID is opaque: compare and send only the whole text.
    BusinessScopedId,
    /// Three to eight digits.
    ShortCode,
    /// An alphanumeric sender ID, such as `ACME`: at most 11 letters, digits and spaces, at least one of them a letter.
    Alphanumeric,
    /// Any other text, unchanged.
    Other,
}

impl Address {
    /// Parses an address. Never fails, and stores the text unchanged.
    pub fn parse(text: impl Into<String>) -> Self {
        let text = text.into();
        let (channel, rest) = match text.split_once(':') {
            Some((prefix, rest)) => (Channel::of_prefix(prefix), rest),
            None => (Channel::Sms, text.as_str()),
        };
        let identity = Identity::of(rest);
        Self {
            text,
            channel,
            identity,
        }
    }

    /// Parses an address that an operator or a program states; `None` for a text in none of the forms that Twilio writes.
    ///
    /// The address is [normalized](Self::normalized), without white space around it.
    pub fn parse_strict(text: &str) -> Option<Self> {
        let text = text.trim();
        // Lists show a phone number on SMS as `sms:…11`, while Twilio writes it without a channel.
        let address = Self::parse(text.strip_prefix("sms:").unwrap_or(text)).normalized();
        // A phone number without `+` and an empty ID match no user.
        let is_valid = match (&address.channel, address.identity) {
            (Channel::Sms, identity) => identity != Identity::Other,
            (Channel::WhatsApp, identity) => {
                matches!(identity, Identity::Phone | Identity::BusinessScopedId)
            }
            _ => true,
        };
        (is_valid && !address.id().trim().is_empty()).then_some(address)
    }

    /// Returns whether a message can be sent to the address.
    pub fn can_receive(&self) -> bool {
        match (&self.channel, self.identity) {
            // An alphanumeric sender ID cannot receive messages.
            (Channel::Sms, identity) => matches!(identity, Identity::Phone | Identity::ShortCode),
            (Channel::WhatsApp, identity) => {
                matches!(identity, Identity::Phone | Identity::BusinessScopedId)
            }
            // `rcs:brand` is a sender.
            (Channel::Rcs, identity) => identity == Identity::Phone,
            // The form of addresses on other channels is not checked.
            _ => !self.id().is_empty(),
        }
    }

    /// Returns whether the address can be that of a user. The name of a sender, such as `ACME` or `rcs:brand`, cannot.
    pub fn can_be_user(&self) -> bool {
        self.identity != Identity::Alphanumeric && self.can_receive()
    }

    /// Returns the whole text as Twilio wrote it, including the channel's prefix.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Returns the address with the channel's prefix as Twilio writes it: `RCS:+1555` becomes `rcs:+1555`.
    ///
    /// Equal addresses have the same normalized text. The text of others is stored, and sent to Twilio, as received.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let mut address = self.clone();
        if !matches!(self.channel, Channel::Sms | Channel::Other(_)) {
            // As many bytes: the prefix differs at most in the case of its ASCII letters.
            let prefix = self.channel.as_str();
            // Nearly always as Twilio writes it already.
            if !address.text.starts_with(prefix) {
                address.text.replace_range(..prefix.len(), prefix);
            }
        }
        address
    }

    /// Returns the kind of the identity.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns the text after the channel's prefix: `+15550001111`, `US.1349…`, `12345`.
    pub fn id(&self) -> &str {
        match &self.channel {
            Channel::Sms => &self.text,
            // As many bytes as in `text`: the prefix differs at most in the case of its ASCII letters.
            prefixed => {
                let id = self.text.get(prefixed.as_str().len() + 1..);
                id.unwrap_or_default()
            }
        }
    }
}

impl Channel {
    /// Returns the channel of a prefix. Letters in another case are the same channel.
    fn of_prefix(prefix: &str) -> Self {
        let known = [Self::WhatsApp, Self::Rcs, Self::Messenger];
        let mut known = known.into_iter();
        let channel = known.find(|channel| prefix.eq_ignore_ascii_case(channel.as_str()));
        channel.unwrap_or_else(|| Self::Other(prefix.to_owned()))
    }

    /// Returns the channel's name: `sms`, `whatsapp`, `rcs`, `messenger`, or the unknown prefix as received.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sms => "sms",
            Self::WhatsApp => "whatsapp",
            Self::Rcs => "rcs",
            Self::Messenger => "messenger",
            Self::Other(name) => name,
        }
    }
}

impl Identity {
    fn of(id: &str) -> Self {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if let Some(number) = id.strip_prefix('+')
            && digits(number)
            // E.164 allows at most 15 digits.
            && number.len() <= 15
        {
            return Self::Phone;
        }
        if digits(id) && (3..=8).contains(&id.len()) {
            return Self::ShortCode;
        }
        if is_business_scoped(id) {
            return Self::BusinessScopedId;
        }
        let name = |b: u8| b.is_ascii_alphanumeric() || b == b' ';
        if id.len() <= 11 && id.bytes().all(name) && id.bytes().any(|b| b.is_ascii_alphabetic()) {
            return Self::Alphanumeric;
        }
        Self::Other
    }
}

/// Matches `^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$`.
fn is_business_scoped(id: &str) -> bool {
    let Some((country, rest)) = id.split_once('.') else {
        return false;
    };
    let rest = rest.strip_prefix("ENT.").unwrap_or(rest);
    country.len() == 2
        && country.bytes().all(|b| b.is_ascii_uppercase())
        && (1..=128).contains(&rest.len())
        && rest.bytes().all(|b| b.is_ascii_alphanumeric())
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id();
        // Two characters are enough to tell test users apart and too few to identify a user. A text of up to five
        // characters, such as a short code, shows none: two of them would reveal too much of it.
        let tail = match id.char_indices().rev().nth(1) {
            Some((at, _)) if id.chars().count() > 5 => &id[at..],
            _ => "",
        };
        match &self.channel {
            // Omit an unknown prefix: all text before the first colon counts as one, and may be a phone number.
            Channel::Other(_) => write!(f, "other:…{tail}"),
            channel => write!(f, "{}:…{tail}", channel.as_str()),
        }
    }
}

// Equality and hash use channel and text after it: a prefix in another case is the same channel.
impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        // Equal texts first: they are the usual case of equal addresses.
        self.text == other.text || (self.channel == other.channel && self.id() == other.id())
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.channel.hash(state);
        self.id().hash(state);
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        // The case of the channel's prefix makes no difference, and the text stays as received.
        #[test]
        fn prefix_in_any_case_is_the_same_channel(
            prefix in "(?i)(whatsapp|rcs|messenger|sip|viber|[a-z]{0,9})",
            id in "(\\+[0-9]{1,15}|[A-Z]{2}\\.[0-9]{1,9}|\\PC{0,9})",
        ) {
            let text = format!("{prefix}:{id}");
            let address = Address::parse(text.as_str());
            prop_assert_eq!(address.as_str(), text.as_str());
            prop_assert_eq!(address.id(), id.as_str());
            let lower = Address::parse(format!("{}:{id}", prefix.to_ascii_lowercase()));
            let is_known = ["whatsapp", "rcs", "messenger"].contains(&lower.channel().as_str());
            let is_equal = is_known || prefix == prefix.to_ascii_lowercase();
            prop_assert_eq!(address == lower, is_equal);
            prop_assert_eq!(HashSet::from([address.clone()]).contains(&lower), is_equal);
            prop_assert_eq!(address.normalized().as_str() == lower.as_str(), is_equal);
            prop_assert_eq!(address.normalized(), address);
        }
    }

    // Parsing never fails and keeps the text unchanged; channel and identity are derived from it.
    #[test]
    fn address_parse_accepts_any_text() {
        for (text, channel, identity, id) in [
            (
                "whatsapp:+15550001111",
                Channel::WhatsApp,
                Identity::Phone,
                "+15550001111",
            ),
            (
                "whatsapp:US.13491208655302741918",
                Channel::WhatsApp,
                Identity::BusinessScopedId,
                "US.13491208655302741918",
            ),
            (
                "whatsapp:US.ENT.118157",
                Channel::WhatsApp,
                Identity::BusinessScopedId,
                "US.ENT.118157",
            ),
            (
                "+15550001111",
                Channel::Sms,
                Identity::Phone,
                "+15550001111",
            ),
            ("12345", Channel::Sms, Identity::ShortCode, "12345"),
            (
                "ACME Shop",
                Channel::Sms,
                Identity::Alphanumeric,
                "ACME Shop",
            ),
            (
                "rcs:brand_agent",
                Channel::Rcs,
                Identity::Other,
                "brand_agent",
            ),
            (
                "messenger:1234567890123",
                Channel::Messenger,
                Identity::Other,
                "1234567890123",
            ),
            (
                "sip:bob@example.com",
                Channel::Other("sip".into()),
                Identity::Other,
                "bob@example.com",
            ),
            (
                "RCS:+15550001111",
                Channel::Rcs,
                Identity::Phone,
                "+15550001111",
            ),
            (
                "WhatsApp:+15550001111",
                Channel::WhatsApp,
                Identity::Phone,
                "+15550001111",
            ),
            ("", Channel::Sms, Identity::Other, ""),
            ("+", Channel::Sms, Identity::Other, "+"),
        ] {
            let address = Address::parse(text);
            assert_eq!(address.as_str(), text);
            assert_eq!(address.channel(), &channel, "{text}");
            assert_eq!(address.identity(), identity, "{text}");
            assert_eq!(address.id(), id, "{text}");
        }
    }

    #[test]
    fn address_debug_masks_identity() {
        assert_eq!(
            format!("{:?}", Address::parse("whatsapp:+15550001111")),
            "whatsapp:…11"
        );
        assert_eq!(format!("{:?}", Address::parse("12345")), "sms:…");
        assert_eq!(format!("{:?}", Address::parse("+15550001111:7")), "other:…");
    }
}
