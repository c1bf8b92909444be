//! Parsing and matching of an [`AddressPattern`].

use std::fmt;

use replyhook_core::address_key::AddressKey;

use super::country;
use crate::address::{Address, Channel};
use crate::message::InboundMessage;

/// Maximum number of digits of a phone number (E.164).
const MAX_DIGITS: usize = 15;
/// Maximum number of digits of a short code.
const MAX_SHORT_CODE: usize = 8;
/// Channels that an entry can name. Addresses of SMS have no prefix; an entry may still name it.
const CHANNELS: [(&str, Channel); 4] = [
    ("whatsapp", Channel::WhatsApp),
    ("sms", Channel::Sms),
    ("rcs", Channel::Rcs),
    ("messenger", Channel::Messenger),
];

/// Entry of a list of users or senders: an address, the beginning of one, or a country.
///
/// An address matches if it begins with the entry. An entry without a channel, such as `+1555`, matches on every channel,
/// and `sms:+1555` on SMS only. Two letters, such as `DE`, are a country.
///
/// A complete number that has two spellings, in Mexico with `+52` and `+521`, in Brazil with and without the 9 of a mobile,
/// matches in both. The beginning of a number does not: `+521` matches only addresses that begin with it.
///
/// ```
/// use replyhook::{Address, AddressPattern};
///
/// let matches = |entry: &str, address: &str| {
///     AddressPattern::parse(entry).map(|entry| entry.matches(&Address::parse(address)))
/// };
/// assert!(matches("+1555", "whatsapp:+15550001111")?);
/// assert!(!matches("whatsapp:+1555", "+15550001111")?);
/// assert!(matches("US", "whatsapp:US.13491208655302741918")?);
/// assert!(matches("+525512345678", "whatsapp:+5215512345678")?);
/// assert!(AddressPattern::parse("1 555").is_err());
/// # Ok::<(), replyhook::AddressPatternError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AddressPattern {
    text: String,
    kind: PatternKind,
}

#[derive(Clone, PartialEq, Eq)]
enum PatternKind {
    /// Two letters in upper case.
    Country(String),
    Prefix {
        /// `None` for every channel.
        channel: Option<Channel>,
        /// Beginning of the text after the channel's prefix; for a complete number each of its spellings.
        ids: Vec<String>,
    },
}

/// Reason why a text is not an [`AddressPattern`]. It does not contain the text, which may be a phone number.
///
/// ```
/// use replyhook::AddressPattern;
///
/// let error = AddressPattern::parse("UK").expect_err("not a country code");
/// assert_eq!(error.to_string(), "the United Kingdom is GB");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressPatternError {
    /// The text is empty.
    Empty,
    /// The text is `UK`.
    Uk,
    /// The text before the colon is not the name of a channel.
    UnknownChannel,
    /// The text contains `*` or another sign for any characters.
    Wildcard,
    /// The text begins with `+`, and other characters than 1 to 15 digits follow.
    Number,
    /// The text is a phone number without `+`.
    NoPlus,
    /// The text contains white space or control characters.
    Space,
    /// The text is none of these.
    Other,
}

impl fmt::Display for AddressPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::Uk => "the United Kingdom is GB",
            Self::UnknownChannel => {
                "the text before the colon is not a channel; write whatsapp, sms, rcs or messenger"
            }
            Self::Wildcard => {
                "an entry has no wildcards; it already matches every address that begins with it, as +1555 does"
            }
            Self::Number => {
                "after the + come 1 to 15 digits without spaces or hyphens, as in +15550001111 or +1555"
            }
            Self::NoPlus => "a phone number begins with +, as in +15550001111 or +1555",
            Self::Space => "an address has no spaces",
            Self::Other => {
                "write an address or its beginning, such as whatsapp:+15550001111 or +1555, or a country, such as DE"
            }
        })
    }
}

impl std::error::Error for AddressPatternError {}

impl AddressPattern {
    /// Parses an entry.
    ///
    /// # Errors
    /// [`AddressPatternError`] for a text that cannot match any address, or is probably a mistake.
    pub fn parse(text: &str) -> Result<Self, AddressPatternError> {
        let kind = PatternKind::parse(text.trim())?;
        Ok(Self {
            text: text.trim().to_owned(),
            kind,
        })
    }

    /// Returns the text of the entry.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether an address matches. The country is that of its number or business-scoped ID.
    pub fn matches(&self, address: &Address) -> bool {
        match &self.kind {
            PatternKind::Country(country) => {
                country::country_of_address(address) == Some(country.as_str())
            }
            PatternKind::Prefix { .. } => self.is_prefix_of(address),
        }
    }

    /// Returns whether the sender that a message was sent to matches. Twilio's `ToCountry` precedes the number.
    pub(crate) fn matches_sender(&self, message: &InboundMessage) -> bool {
        match (&self.kind, &message.to_geo.country) {
            (PatternKind::Country(country), Some(stated)) => country.eq_ignore_ascii_case(stated),
            _ => self.matches(&message.to),
        }
    }

    /// Returns whether the author of a message matches, given the author's country.
    fn matches_author_of(&self, message: &InboundMessage, author_country: Option<&str>) -> bool {
        match &self.kind {
            PatternKind::Country(country) => {
                author_country.is_some_and(|known| country.eq_ignore_ascii_case(known))
            }
            // Compare the IDs too: the entry may be an ID while `From` is the number.
            PatternKind::Prefix { .. } => {
                let ids = [&message.external_user_id, &message.parent_external_user_id];
                let ids = ids.into_iter().flatten();
                std::iter::once(&message.from)
                    .chain(ids)
                    .any(|address| self.is_prefix_of(address))
            }
        }
    }

    fn is_prefix_of(&self, address: &Address) -> bool {
        let PatternKind::Prefix { channel, ids } = &self.kind else {
            return false;
        };
        let is_on_channel = channel
            .as_ref()
            .is_none_or(|channel| channel == address.channel());
        is_on_channel && ids.iter().any(|id| address.id().starts_with(id.as_str()))
    }
}

/// Returns whether the author of a message matches any of the entries.
pub(crate) fn matches_author(patterns: &[AddressPattern], message: &InboundMessage) -> bool {
    if patterns.is_empty() {
        return false;
    }
    let author_country = country::country(message);
    patterns
        .iter()
        .any(|pattern| pattern.matches_author_of(message, author_country))
}

impl PatternKind {
    fn parse(text: &str) -> Result<Self, AddressPatternError> {
        if text.is_empty() {
            return Err(AddressPatternError::Empty);
        }
        if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            let country = text.to_ascii_uppercase();
            return match country.as_str() {
                "UK" => Err(AddressPatternError::Uk),
                _ => Ok(Self::Country(country)),
            };
        }
        let (channel, id) = match text.split_once(':') {
            Some((prefix, id)) => {
                let known = CHANNELS
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(prefix));
                let (_, channel) = known.ok_or(AddressPatternError::UnknownChannel)?;
                (Some(channel.clone()), id)
            }
            None => (None, text),
        };
        check_id(channel.as_ref(), id)?;
        Ok(Self::Prefix {
            ids: spellings(channel.as_ref(), id),
            channel,
        })
    }
}

/// Returns all spellings of a complete number, without the channel's prefix, and any other text as it is.
fn spellings(channel: Option<&Channel>, id: &str) -> Vec<String> {
    // Only numbers on these channels have two spellings.
    let is_number = !matches!(channel, Some(Channel::Messenger | Channel::Other(_)));
    if is_number && id.starts_with('+') {
        // As on SMS, where an address is the number.
        return AddressKey::of(&Address::parse(id)).spellings();
    }
    vec![id.to_owned()]
}

/// Checks the beginning of an address, without the channel's prefix.
fn check_id(channel: Option<&Channel>, id: &str) -> Result<(), AddressPatternError> {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if id.contains(['*', '?', '%']) {
        return Err(AddressPatternError::Wildcard);
    }
    if let Some(digits) = id.strip_prefix('+') {
        let is_number = (1..=MAX_DIGITS).contains(&digits.len()) && is_digits(digits);
        return is_number.then_some(()).ok_or(AddressPatternError::Number);
    }
    // An alphanumeric sender ID on SMS may contain spaces.
    let has_space = id.contains(char::is_whitespace) && channel != Some(&Channel::Sms);
    if has_space || id.contains(char::is_control) {
        return Err(AddressPatternError::Space);
    }
    match channel {
        // An entry that is only a channel matches all of its users.
        Some(_) if id.is_empty() => Ok(()),
        // Messenger IDs and RCS senders have other formats.
        Some(Channel::Messenger | Channel::Rcs) => Ok(()),
        _ if is_digits(id) && id.len() > MAX_SHORT_CODE => Err(AddressPatternError::NoPlus),
        Some(Channel::WhatsApp) if is_digits(id) => Err(AddressPatternError::NoPlus),
        Some(Channel::Sms) => Ok(()),
        _ if is_digits(id) || is_business_scoped(id) => Ok(()),
        _ => Err(AddressPatternError::Other),
    }
}

/// Returns whether a text is the beginning of a business-scoped user ID: at least the country and the dot.
fn is_business_scoped(id: &str) -> bool {
    let country = id.split_once('.').map_or("", |(country, _)| country);
    let is_country = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
    is_country && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

/// Shows a country or a channel, and no more of an address.
impl fmt::Debug for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            PatternKind::Country(country) => write!(f, "AddressPattern({country})"),
            PatternKind::Prefix { channel, .. } => {
                let channel = channel.as_ref().map_or("any", Channel::as_str);
                write!(f, "AddressPattern({channel}:…)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_match_addresses_that_begin_with_them() {
        for (entry, address, expected) in [
            ("+1555", "+15550001111", true),
            ("+1555", "whatsapp:+15550001111", true),
            ("+1555", "rcs:+15550001111", true),
            ("+1555", "+15560001111", false),
            ("+15550001111", "+1555000111", false),
            ("whatsapp:+1555", "WhatsApp:+15550001111", true),
            ("whatsapp:+1555", "+15550001111", false),
            ("sms:+1555", "+15550001111", true),
            ("sms:+1555", "rcs:+15550001111", false),
            ("sms:ACME Shop", "ACME Shop", true),
            ("12345", "12345", true),
            ("messenger:", "messenger:4242", true),
            ("messenger:42", "messenger:4242", true),
            ("US.1349", "whatsapp:US.13491208655302741918", true),
            ("whatsapp:US.", "whatsapp:US.ENT.118157", true),
            ("us", "whatsapp:US.ENT.118157", true),
            ("US", "+15550001111", true),
            ("CA", "+15550001111", false),
            ("DE", "rcs:+4915112345678", true),
            ("US", "12345", false),
            // Two spellings of a number.
            ("+5215512345678", "whatsapp:+525512345678", true),
            ("+525512345678", "+5215512345678", true),
            ("whatsapp:+525512345678", "whatsapp:+5215512345678", true),
            ("whatsapp:+525512345678", "+5215512345678", false),
            ("+5561999887766", "whatsapp:+556199887766", true),
            ("+556199887766", "rcs:+5561999887766", true),
            // A landline, and possibly another user.
            ("+556133445566", "whatsapp:+5561933445566", false),
            ("+5491123456789", "whatsapp:+541123456789", false),
            // The beginning of a number is compared as it is written.
            ("+521", "whatsapp:+5215512345678", true),
            ("+521", "+525512345678", false),
            ("+5255", "whatsapp:+5215512345678", false),
        ] {
            let pattern = AddressPattern::parse(entry).unwrap();
            assert_eq!(pattern.as_str(), entry);
            let address = Address::parse(address);
            assert_eq!(pattern.matches(&address), expected, "{entry} {address:?}");
        }
    }

    #[test]
    fn malformed_entries_are_rejected() {
        use AddressPatternError as E;
        for (entry, expected) in [
            ("", E::Empty),
            ("  ", E::Empty),
            ("uk", E::Uk),
            ("watsapp:+1555", E::UnknownChannel),
            ("https://example.com", E::UnknownChannel),
            ("+1555*", E::Wildcard),
            ("whatsapp:*", E::Wildcard),
            ("+", E::Number),
            ("+1 555", E::Number),
            ("whatsapp:+1-555", E::Number),
            ("+1234567890123456", E::Number),
            ("15550001111", E::NoPlus),
            ("whatsapp:1555", E::NoPlus),
            ("sms:15550001111", E::NoPlus),
            ("1 555", E::Space),
            ("Germany", E::Other),
            ("us.1349", E::Other),
            ("-", E::Other),
        ] {
            assert_eq!(AddressPattern::parse(entry), Err(expected), "{entry:?}");
        }
    }

    #[test]
    fn debug_hides_numbers() {
        for entry in ["+15550001111", "whatsapp:+15550001111"] {
            let pattern = AddressPattern::parse(entry).unwrap();
            assert!(!format!("{pattern:?}").contains("555"));
        }
    }
}
