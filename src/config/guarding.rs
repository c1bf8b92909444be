//! `[guard]`: what is kept from the handler.

use super::reader::Reader;
use crate::address::{Address, Channel, Identity};

/// `[guard]`
///
/// Part of [`Settings`](super::Settings), which says how it is read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GuardSettings {
    /// Whether a reply loop with another bot is stopped.
    pub loops: bool,
    /// Messages of one conversation in a minute; 0 for no limit.
    pub messages_per_user_per_minute: u32,
    /// Addresses of ours that are not answered, beside those that messages have come to.
    pub own_numbers: Vec<Address>,
}

pub(super) fn guard(reader: &mut Reader<'_>) -> Option<GuardSettings> {
    let loops = reader.flag("guard.loop_detection");
    let messages_per_user_per_minute =
        reader.number("guard.messages_per_user_per_minute", 0..=1_000_000);
    let own_numbers = own_numbers(reader);
    Some(GuardSettings {
        loops: loops?,
        messages_per_user_per_minute: u32::try_from(messages_per_user_per_minute?).ok()?,
        own_numbers: own_numbers?,
    })
}

fn own_numbers(reader: &mut Reader<'_>) -> Option<Vec<Address>> {
    const KEY: &str = "guard.own_numbers";
    let texts = reader.list(KEY);
    let addresses: Vec<_> = texts.iter().map(|text| Address::parse(text)).collect();
    // On other channels anything may be one.
    let is_phones =
        |address: &Address| matches!(address.channel(), Channel::Sms | Channel::WhatsApp);
    let mut addresses_of_phones = addresses.iter().filter(|address| is_phones(address));
    if let Some(odd) = addresses_of_phones.find(|address| address.identity() == Identity::Other) {
        let odd = odd.as_str();
        reader.problem(
            KEY,
            format!("has {odd:?}, which no sender is called: write addresses as Twilio does, such as [\"+15550002222\", \"whatsapp:+15550002222\"]"),
        );
        return None;
    }
    Some(addresses)
}
