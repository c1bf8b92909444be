//! Media types and sizes that a channel accepts.
//!
//! Source: Twilio's "Accepted content types for media", "Guidance on WhatsApp media messages", and the pages of errors 63019, 63034 and 11751.

use crate::address::Channel;

/// Maximum size of a file on WhatsApp and RCS: 16 MiB.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of an MMS: 5 MiB. Some of Twilio's pages give this limit for WhatsApp too.
pub const MAX_MMS_BYTES: usize = 5 * 1024 * 1024;

/// Reason why a channel does not accept a file.
///
/// ```
/// use replyhook::reply::MediaRejection;
///
/// let rejection = MediaRejection::Size { max_bytes: 16, length: 17 };
/// assert_eq!(rejection.to_string(), "the file has 17 bytes; the channel accepts at most 16");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MediaRejection {
    /// The channel does not accept the type.
    #[error("the channel does not accept files of this type")]
    Type,
    /// The file is larger than the channel accepts.
    #[error("the file has {length} bytes; the channel accepts at most {max_bytes}")]
    Size {
        /// Maximum size in bytes.
        max_bytes: usize,
        /// Size of the file in bytes.
        length: usize,
    },
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
}

/// Accepted types by group. Each list of subtypes has the channels that accept it: `w`hatsApp, `r`cs, `m`ms.
const ACCEPTED_TYPES: [(&str, &[(&str, &str)]); 5] = [
    (
        "image",
        &[
            ("wrm", "jpeg jpg gif png"),
            ("wm", "heic heif tiff bmp"),
            ("w", "webp"),
        ],
    ),
    (
        "video",
        &[
            ("wrm", "mpeg4 mp4 mpeg webm h263"),
            (
                "wm",
                "quicktime 3gpp 3gpp2 3gpp-tt h261 h263-1998 h263-2000 h264 h265",
            ),
        ],
    ),
    (
        "audio",
        &[
            ("wrm", "ogg mpeg mp4 mp3 3gpp"),
            (
                "wm",
                "3gpp2 basic l24 vnd.rn-realaudio vnd.wave ac3 webm amr-nb amr",
            ),
        ],
    ),
    (
        "text",
        &[("wm", "vcard x-vcard directory csv richtext rtf calendar")],
    ),
    (
        "application",
        &[
            ("wrm", "pdf"),
            ("wm", "vcard"),
            (
                "w",
                "msword vnd.ms-excel vnd.ms-powerpoint vnd.openxmlformats-officedocument.presentationml.presentation \
                 vnd.openxmlformats-officedocument.spreadsheetml.sheet \
                 vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
        ],
    ),
];

/// Returns true if a channel accepts the type. Such a file is shown, played or saved, and does not run code, unlike
/// HTML.
pub fn is_media(content_type: &str) -> bool {
    accepting_channels(content_type).is_some()
}

/// Returns true if the channel accepts the type. Channels without a known list accept every type.
pub fn accepts_type(channel: &Channel, content_type: &str) -> bool {
    let letter = match channel {
        Channel::WhatsApp => 'w',
        Channel::Rcs => 'r',
        Channel::Sms => 'm',
        // `ACCEPTED_TYPES` does not cover these channels.
        Channel::Messenger | Channel::Other(_) => return true,
    };
    accepting_channels(content_type).is_some_and(|channels| channels.contains(letter))
}

/// Returns true if Twilio accepts the type for WhatsApp, but its guidance on WhatsApp does not list it. WhatsApp may
/// reject such a file after Twilio has accepted it (63019, 63021).
pub fn is_uncertain_on_whatsapp(content_type: &str) -> bool {
    const LISTED: [(&str, &str); 3] = [
        ("image", "jpeg jpg gif png webp"),
        ("video", "mp4 mpeg4 3gpp"),
        ("audio", "ogg amr amr-nb 3gpp mpeg mp3 mp4"),
    ];
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let Some((group, subtype)) = essence.split_once('/') else {
        return false;
    };
    // Documents and contact cards are listed as far as Twilio accepts them.
    let listed = LISTED.iter().find(|(known, _)| *known == group);
    let is_listed = listed.is_none_or(|(_, list)| list.split(' ').any(|known| known == subtype));
    accepts_type(&Channel::WhatsApp, content_type) && !is_listed
}

/// Returns true if the name of a file shows that a web server may send it with a type that no channel accepts: `.opus`
/// is `audio/ogg` to Twilio, and `audio/opus` to many servers.
pub fn is_often_mislabeled(name: &str) -> bool {
    let path = name.split(['?', '#']).next().unwrap_or_default();
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("opus"))
}

/// Returns the maximum size of a file on a channel, in bytes.
pub fn max_bytes(channel: &Channel) -> usize {
    // A file on SMS is sent as MMS.
    if *channel == Channel::Sms {
        MAX_MMS_BYTES
    } else {
        MAX_BYTES
    }
}

fn accepting_channels(content_type: &str) -> Option<&'static str> {
    // Without parameters, as in `audio/ogg; codecs=opus`.
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let (group, subtype) = essence.split_once('/')?;
    let (_, lists) = ACCEPTED_TYPES.iter().find(|(known, _)| *known == group)?;
    let mut lists = lists.iter();
    let (channels, _) =
        lists.find(|(_, subtypes)| subtypes.split_whitespace().any(|known| known == subtype))?;
    Some(channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unlisted_accepted_types_are_uncertain() {
        for (content_type, is_uncertain) in [
            ("video/webm", true),
            ("image/HEIC", true),
            ("audio/webm; codecs=opus", true),
            ("video/quicktime", true),
            ("image/webp", false),
            ("audio/ogg; codecs=opus", false),
            ("text/csv", false),
            ("application/pdf", false),
            ("image/svg+xml", false),
            ("", false),
        ] {
            assert_eq!(
                is_uncertain_on_whatsapp(content_type),
                is_uncertain,
                "{content_type}"
            );
        }
        assert!(
            is_often_mislabeled("https://h/a.OPUS?x=1") && !is_often_mislabeled("https://h/opus")
        );
    }

    #[test]
    fn channel_accepts_only_listed_media_types() {
        for (content_type, channels) in [
            ("image/jpeg", "wrm"),
            ("IMAGE/PNG", "wrm"),
            ("image/webp", "w"),
            ("image/heic", "wm"),
            ("image/svg+xml", ""),
            ("video/mp4", "wrm"),
            ("video/H264", "wm"),
            ("audio/ogg; codecs=opus", "wrm"),
            ("audio/L24", "wm"),
            ("text/vcard", "wm"),
            ("text/html", ""),
            ("text/plain", ""),
            ("application/pdf", "wrm"),
            ("application/msword", "w"),
            ("application/zip", ""),
            ("application/javascript", ""),
            ("pdf", ""),
            ("image/", ""),
            ("", ""),
        ] {
            for (letter, channel) in [
                ('w', Channel::WhatsApp),
                ('r', Channel::Rcs),
                ('m', Channel::Sms),
            ] {
                let expected = channels.contains(letter);
                assert_eq!(
                    accepts_type(&channel, content_type),
                    expected,
                    "{content_type} {letter}"
                );
            }
            assert_eq!(
                is_media(content_type),
                !channels.is_empty(),
                "{content_type}"
            );
        }
        assert!(accepts_type(&Channel::Messenger, "application/zip"));
    }
}
