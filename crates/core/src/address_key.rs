//! Keys of users' addresses: two spellings of one number have one key.
//!
//! WhatsApp's ID of a user can differ from the number that is dialed, in three countries:
//!
//! | country | WhatsApp's ID | dialed | the same number? |
//! |---|---|---|---|
//! | Mexico | `+52 1` and ten digits | `+52` and the same ten digits | yes |
//! | Brazil | `+55`, two digits and eight digits, on old accounts | a `9` before the eight digits | yes, if the eight digits begin with 6 to 9. Others are landlines, which have no `9` |
//! | Argentina | `+54 9` and ten digits | sometimes `+54` and the same ten digits | possibly: without the `9` it may be a landline of another user |
//!
//! Sources: Meta, "Business phone numbers" (the prefix "may be modified" for Brazil and Mexico); the number plans of the
//! three countries, ITU-T E.164 national numbering plans.
//!
//! A key only finds stored rows. Calls to Twilio, exports and output use the address as received.

use std::fmt;

use crate::address::{Address, Channel, Identity};

/// Key of an address on its channel. Two spellings of one number in Mexico or Brazil have one key.
///
/// `Debug` shows no more of the number than that of an [`Address`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressKey(String);

/// Key of an address for consents. The keys of one number on SMS, MMS and RCS are equal, because Twilio applies an
/// opt-out to all three.
///
/// `Debug` shows no more of the number than that of an [`Address`].
///
/// Source: Twilio's changelog of 2026-03-15, "unified opt-outs".
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsentKey(String);

/// Channels that share opt-outs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChannelGroup {
    /// SMS, MMS and RCS.
    Phone,
    /// Any other channel has its own opt-outs.
    Own(Channel),
}

impl AddressKey {
    /// Returns the key of an address.
    pub fn of(address: &Address) -> Self {
        let normalized = address.normalized();
        match canonical_number(&normalized) {
            Some(number) => Self(on_channel(normalized.channel(), &number)),
            None => Self(normalized.as_str().to_owned()),
        }
    }

    /// Returns the stored text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the keys of one number on all channels whose addresses are numbers, and `self` in any case.
    pub fn on_all_channels(&self) -> Vec<Self> {
        let address = self.address();
        let mut keys = vec![self.clone()];
        if address.identity() == Identity::Phone {
            let channels = [Channel::Sms, Channel::Rcs, Channel::WhatsApp];
            keys.extend(channels.map(|channel| Self(on_channel(&channel, address.id()))));
            keys.sort_unstable();
            keys.dedup();
        }
        keys
    }

    /// Returns what the keys of one number have in common on all channels: the number. For another address, the whole key.
    pub fn without_channel(&self) -> &str {
        let address = self.address();
        match address.identity() {
            Identity::Phone => &self.0[self.0.len() - address.id().len()..],
            _ => &self.0,
        }
    }

    /// Returns the key that is possibly of the same user: in Argentina the number with the `9`, or without it. It applies
    /// to opt-outs on WhatsApp and to nothing else.
    pub fn possible_alias(&self) -> Option<Self> {
        let address = self.address();
        if *address.channel() != Channel::WhatsApp || address.identity() != Identity::Phone {
            return None;
        }
        let national = address.id().strip_prefix("+54")?;
        let is_subscriber = |digits: &str| {
            // Area codes are 11, and numbers that begin with 2 or 3.
            digits.len() == 10 && digits.starts_with(['1', '2', '3'])
        };
        let number = match national.strip_prefix('9') {
            Some(rest) if is_subscriber(rest) => format!("+54{rest}"),
            _ if is_subscriber(national) => format!("+549{national}"),
            _ => return None,
        };
        Some(Self(on_channel(&Channel::WhatsApp, &number)))
    }

    /// Returns the texts of all addresses with this key.
    pub fn spellings(&self) -> Vec<String> {
        let address = self.address();
        let mut texts = vec![self.0.clone()];
        let number = address.id();
        if address.identity() == Identity::Phone {
            let mexican = number.strip_prefix("+52").map(|rest| format!("+521{rest}"));
            let brazilian = number.strip_prefix("+55").and_then(|rest| {
                let (area, subscriber) = rest.split_at_checked(2)?;
                Some(format!("+55{area}{}", subscriber.strip_prefix('9')?))
            });
            let others = mexican.into_iter().chain(brazilian);
            let others = others.map(|number| on_channel(address.channel(), &number));
            // A number that is not another spelling has a key of its own.
            texts.extend(others.filter(|text| Self::of(&text.as_str().into()) == *self));
        }
        texts
    }

    /// Returns the key as an address. Two addresses with one key have one such address, which may be neither of them.
    pub fn address(&self) -> Address {
        Address::parse(self.0.as_str())
    }
}

/// Reads a key that [`AddressKey::as_str`] returned.
impl From<String> for AddressKey {
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl ConsentKey {
    /// Returns the consent key of an address.
    pub fn of(address: &Address) -> Self {
        Self::from(&AddressKey::of(address))
    }

    /// Returns the stored text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the channels for which a consent under this key counts.
    pub fn group(&self) -> ChannelGroup {
        match Address::parse(self.0.as_str()).channel() {
            Channel::Sms | Channel::Rcs => ChannelGroup::Phone,
            other => ChannelGroup::Own(other.clone()),
        }
    }

    /// Returns the keys of addresses to which a consent under this key applies.
    pub fn address_keys(&self) -> Vec<AddressKey> {
        let address = Address::parse(self.0.as_str());
        let own = AddressKey(self.0.clone());
        if *address.channel() == Channel::Sms && address.identity() == Identity::Phone {
            return vec![own, AddressKey(on_channel(&Channel::Rcs, address.id()))];
        }
        vec![own]
    }
}

impl From<&AddressKey> for ConsentKey {
    fn from(key: &AddressKey) -> Self {
        let address = key.address();
        // Only a number is the same user on both channels.
        if *address.channel() == Channel::Rcs && address.identity() == Identity::Phone {
            return Self(address.id().to_owned());
        }
        Self(key.0.clone())
    }
}

/// Reads a key that [`ConsentKey::as_str`] returned.
impl From<String> for ConsentKey {
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressKey({:?})", self.address())
    }
}

impl fmt::Debug for ConsentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsentKey({:?})", Address::parse(self.0.as_str()))
    }
}

fn on_channel(channel: &Channel, number: &str) -> String {
    match channel {
        Channel::Sms => number.to_owned(),
        other => format!("{}:{number}", other.as_str()),
    }
}

/// Returns the canonical spelling of a number that has two; `None` if the address is the canonical one.
fn canonical_number(address: &Address) -> Option<String> {
    let is_spelled = matches!(
        address.channel(),
        Channel::Sms | Channel::Rcs | Channel::WhatsApp
    );
    if !is_spelled || address.identity() != Identity::Phone {
        return None;
    }
    let number = address.id();
    // Mexico: ten digits, of which the first is 2 to 9.
    if let Some(rest) = number.strip_prefix("+521")
        && rest.len() == 10
        && !rest.starts_with(['0', '1'])
    {
        return Some(format!("+52{rest}"));
    }
    // Brazil: an area code of two digits without a zero, and eight digits of a mobile.
    let (area, subscriber) = number.strip_prefix("+55")?.split_at_checked(2)?;
    let is_mobile = subscriber.len() == 8 && subscriber.starts_with(['6', '7', '8', '9']);
    (is_mobile && !area.contains('0')).then(|| format!("+55{area}9{subscriber}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(address: &str) -> String {
        AddressKey::of(&address.into()).as_str().to_owned()
    }

    #[test]
    fn debug_of_keys_hides_the_number() {
        let key = AddressKey::of(&"whatsapp:+5215512345678".into());
        assert_eq!(format!("{key:?}"), "AddressKey(whatsapp:…78)");
        let key = ConsentKey::of(&"rcs:+15550001111".into());
        assert_eq!(format!("{key:?}"), "ConsentKey(sms:…11)");
    }

    /// Addresses, with many in the three countries, and numbers one digit too long or too short.
    fn addresses() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            "\\+52(1)?[0-9]{9,11}",
            "\\+55[0-9]{2}9?[0-9]{7,9}",
            "\\+549?[0-9]{9,11}",
            "\\+[1-9][0-9]{5,14}",
        ];
        ("(whatsapp:|rcs:|messenger:|)", number).prop_map(|(prefix, number)| prefix + &number)
    }

    /// Spellings of one number, by the table, for a text comparison that is independent of the code above.
    fn spelled(address: &str) -> Option<String> {
        let (prefix, number) = address.split_at(address.find('+').unwrap_or(0));
        if prefix == "messenger:" {
            return None;
        }
        let digits: Vec<u32> = number
            .chars()
            .skip(1)
            .filter_map(|c| c.to_digit(10))
            .collect();
        match digits[..] {
            [5, 2, 1, first, ..] if digits.len() == 13 && first > 1 => {
                Some(format!("{prefix}+52{}", &number[4..]))
            }
            [5, 5, a, b, first, ..] if digits.len() == 12 && first > 5 && a > 0 && b > 0 => {
                Some(format!("{prefix}+55{a}{b}9{}", &number[5..]))
            }
            _ => None,
        }
    }

    proptest! {
        // The relation "has the same key" is an equivalence, since it compares values of a function. So these suffice:
        // the function is idempotent, and maps exactly the spellings of the table to another text.
        #[test]
        fn key_is_idempotent_and_changes_only_the_table(address in addresses()) {
            let canonical = key(&address);
            prop_assert_eq!(&key(&canonical), &canonical);
            prop_assert_eq!(spelled(&address).unwrap_or_else(|| address.clone()), canonical.clone());
            if canonical != address {
                prop_assert!(address.contains("+52") || address.contains("+55"));
            }
        }

        #[test]
        fn spellings_are_all_addresses_with_the_key(address in addresses()) {
            let own = AddressKey::of(&address.as_str().into());
            prop_assert!(own.spellings().contains(&address));
            for text in own.spellings() {
                prop_assert_eq!(AddressKey::of(&text.as_str().into()), own.clone());
            }
        }

        #[test]
        fn same_key_is_an_equivalence(a in addresses(), b in addresses(), c in addresses()) {
            let same = |x: &str, y: &str| key(x) == key(y);
            prop_assert!(same(&a, &a));
            prop_assert_eq!(same(&a, &b), same(&b, &a));
            prop_assert!(!(same(&a, &b) && same(&b, &c)) || same(&a, &c));
        }

        #[test]
        fn consent_key_joins_sms_and_rcs_only(address in addresses()) {
            let number = &address[address.find('+').unwrap_or(0)..];
            let consent = |prefix: &str| ConsentKey::of(&format!("{prefix}{number}").as_str().into());
            prop_assert_eq!(consent(""), consent("rcs:"));
            prop_assert_ne!(consent(""), consent("whatsapp:"));
            prop_assert_ne!(consent("whatsapp:"), consent("messenger:"));
            for of_address in consent("").address_keys() {
                prop_assert_eq!(ConsentKey::from(&of_address), consent(""));
            }
        }

        #[test]
        fn possible_alias_is_symmetric_and_argentine(address in addresses()) {
            let own = AddressKey::of(&address.as_str().into());
            if let Some(alias) = own.possible_alias() {
                prop_assert!(own.as_str().starts_with("whatsapp:+54"));
                prop_assert_ne!(&alias, &own);
                prop_assert_eq!(alias.possible_alias(), Some(own));
            }
        }
    }

    #[test]
    fn spellings_of_one_number_have_one_key() {
        for (address, other, is_same) in [
            ("whatsapp:+5215512345678", "whatsapp:+525512345678", true),
            ("+5215512345678", "+525512345678", true),
            ("whatsapp:+556199887766", "whatsapp:+5561999887766", true),
            // A landline in Brazil has no other spelling.
            ("whatsapp:+556133445566", "whatsapp:+5561933445566", false),
            // Argentina: possibly the same.
            ("whatsapp:+5491123456789", "whatsapp:+541123456789", false),
            ("whatsapp:+5215512345678", "+525512345678", false),
            ("whatsapp:+15512345678", "whatsapp:+15512345679", false),
        ] {
            assert_eq!(key(address) == key(other), is_same, "{address} {other}");
        }
    }

    #[test]
    fn keys_of_a_number_are_found_on_all_channels() {
        let keys = AddressKey::of(&"rcs:+5215512345678".into()).on_all_channels();
        let texts: Vec<&str> = keys.iter().map(AddressKey::as_str).collect();
        assert_eq!(
            texts,
            [
                "+525512345678",
                "rcs:+525512345678",
                "whatsapp:+525512345678"
            ]
        );
        for key in &keys {
            assert_eq!(key.without_channel(), "+525512345678");
        }
        let id = AddressKey::of(&"whatsapp:US.1349".into());
        assert_eq!(id.on_all_channels(), std::slice::from_ref(&id));
        assert_eq!(id.without_channel(), id.as_str());
    }

    #[test]
    fn possible_alias_needs_an_area_code() {
        let alias = |text: &str| AddressKey::of(&text.into()).possible_alias();
        let some = |text: &str| Some(AddressKey::of(&text.into()));
        assert_eq!(
            alias("whatsapp:+5491123456789"),
            some("whatsapp:+541123456789")
        );
        assert_eq!(
            alias("whatsapp:+541123456789"),
            some("whatsapp:+5491123456789")
        );
        assert_eq!(alias("+5491123456789"), None);
        assert_eq!(alias("whatsapp:+5498123456789"), None);
        assert_eq!(alias("whatsapp:+54112345678"), None);
    }
}
