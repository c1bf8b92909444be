//! The section `[guard]`: loop detection, rate limits, and the users who may write to the bot.

use super::reader::SettingsReader;
use crate::address::{Address, Channel, Identity};
use crate::address_pattern::AddressPattern;

/// Maximum number of characters of a refusal: what Twilio accepts in one message.
const MAX_REFUSAL_CHARS: usize = 1600;

/// The settings of the `[guard]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GuardSettings {
    /// Detects and stops reply loops with another bot.
    pub loop_detection: bool,
    /// Maximum number of messages of one user per minute; 0 for no limit.
    pub messages_per_user_per_minute: u32,
    /// Your addresses whose messages get no reply, in addition to senders that have received a message.
    pub own_numbers: Vec<Address>,
    /// Users whose messages the bot gets; empty for all users.
    pub allow: Vec<AddressPattern>,
    /// Users whose messages the bot does not get, even if `allow` has them.
    pub block: Vec<AddressPattern>,
    /// Reply to a user whose messages the bot does not get, at most once a day; empty for none.
    pub refusal: String,
}

pub(super) fn guard(reader: &mut SettingsReader<'_>) -> Option<GuardSettings> {
    let loop_detection = reader.flag("guard.loop_detection");
    let messages_per_user_per_minute =
        reader.number("guard.messages_per_user_per_minute", 0..=1_000_000);
    let own_numbers = own_numbers(reader);
    let allow = patterns(reader, "guard.allow");
    let block = patterns(reader, "guard.block");
    let refusal = refusal(reader);
    let settings = GuardSettings {
        loop_detection: loop_detection?,
        messages_per_user_per_minute: u32::try_from(messages_per_user_per_minute?).ok()?,
        own_numbers: own_numbers?,
        allow: allow?,
        block: block?,
        refusal: refusal?,
    };
    if !settings.refusal.is_empty() && settings.allow.is_empty() && settings.block.is_empty() {
        reader.warn(
            "guard.refusal",
            "has no effect: guard.allow and guard.block are empty, so every user may write to the bot",
        );
    }
    Some(settings)
}

/// Reads a list of users.
fn patterns(reader: &mut SettingsReader<'_>, key: &str) -> Option<Vec<AddressPattern>> {
    let mut patterns = Vec::new();
    let mut is_valid = true;
    for (number, text) in (1..).zip(reader.items(key)) {
        match AddressPattern::parse(&text) {
            Ok(pattern) => patterns.push(pattern),
            // Without the text, which may be a phone number of a user.
            Err(error) => {
                reader.problem(key, format!("entry {number}: {error}"));
                is_valid = false;
            }
        }
    }
    is_valid.then_some(patterns)
}

fn refusal(reader: &mut SettingsReader<'_>) -> Option<String> {
    const KEY: &str = "guard.refusal";
    let text = reader.text(KEY).trim().to_owned();
    if text.chars().count() > MAX_REFUSAL_CHARS {
        reader.problem(
            KEY,
            format!("has over {MAX_REFUSAL_CHARS} characters: Twilio accepts no more"),
        );
        return None;
    }
    Some(text)
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
