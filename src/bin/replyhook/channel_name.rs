//! Names of channels in arguments.

use replyhook::Channel;

/// Parses the name of a channel.
pub(crate) fn parse_channel(name: &str) -> Result<Channel, String> {
    let known = [
        Channel::WhatsApp,
        Channel::Sms,
        Channel::Rcs,
        Channel::Messenger,
    ];
    let mut known = known.into_iter();
    known
        .find(|channel| channel.as_str() == name)
        .ok_or_else(|| "expected whatsapp, sms, rcs or messenger".to_owned())
}
