//! The section `[guard]`: loop detection and rate limits.

use super::reader::SettingsReader;
use crate::address::{Address, Channel, Identity};

/// The settings of the `[guard]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GuardSettings {
    /// Detects and stops reply loops with another bot.
    pub loop_detection: bool,
    /// Maximum number of messages of one conversation per minute; 0 for no limit.
    pub messages_per_user_per_minute: u32,
    /// Your addresses whose messages get no reply, in addition to senders that have received a message.
    pub own_numbers: Vec<Address>,
}

pub(super) fn guard(reader: &mut SettingsReader<'_>) -> Option<GuardSettings> {
    let loop_detection = reader.flag("guard.loop_detection");
    let messages_per_user_per_minute =
        reader.number("guard.messages_per_user_per_minute", 0..=1_000_000);
    let own_numbers = own_numbers(reader);
    Some(GuardSettings {
        loop_detection: loop_detection?,
        messages_per_user_per_minute: u32::try_from(messages_per_user_per_minute?).ok()?,
        own_numbers: own_numbers?,
    })
}

fn own_numbers(reader: &mut SettingsReader<'_>) -> Option<Vec<Address>> {
    const KEY: &str = "guard.own_numbers";
    let texts = reader.list(KEY);
    let addresses: Vec<_> = texts.into_iter().map(Address::parse).collect();
    // Only phone numbers have a known format. On other channels any text may be an address.
    let has_phone_numbers =
        |address: &Address| matches!(address.channel(), Channel::Sms | Channel::WhatsApp);
    let mut phone_addresses = addresses
        .iter()
        .filter(|address| has_phone_numbers(address));
    if let Some(invalid) = phone_addresses.find(|address| address.identity() == Identity::Other) {
        let invalid = invalid.as_str();
        reader.problem(
            KEY,
            format!("has {invalid:?}, which is not an address: write addresses as Twilio does, such as [\"+15550002222\", \"whatsapp:+15550002222\"]"),
        );
        return None;
    }
    Some(addresses)
}
