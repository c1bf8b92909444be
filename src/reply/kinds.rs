//! Which files a channel takes: types by Twilio's table, sizes by what it refuses.
//!
//! Source: Twilio's "Accepted content types for media", errors 63019, 63034, 11751.

use crate::address::Channel;

/// The largest file that WhatsApp and RCS take.
pub(crate) const MOST_BYTES: usize = 16 * 1024 * 1024;
/// And MMS; other texts of Twilio's say the same of WhatsApp.
pub(crate) const MOST_MMS_BYTES: usize = 5 * 1024 * 1024;

/// Why a channel does not take a file.
///
/// ```
/// use replyhook::reply::MediaRefusal;
///
/// let refusal = MediaRefusal::Size { most: 16, length: 17 };
/// assert_eq!(refusal.to_string(), "the channel takes files of at most 16 bytes, and this one has 17");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MediaRefusal {
    /// Its type is not on the channel's list.
    #[error("the channel takes no file of this type")]
    Type,
    /// It is larger than the channel takes.
    #[error("the channel takes files of at most {most} bytes, and this one has {length}")]
    Size {
        /// Bytes that it takes.
        most: usize,
        /// Bytes of the file.
        length: usize,
    },
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
}

/// Of each group: the type, and who takes it: `w`hatsApp, `r`cs, `m`ms.
const ACCEPTED: [(&str, &[(&str, &str)]); 5] = [
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

/// Whether any channel takes files of a type: such a file shows, sounds, or is saved, and runs nothing.
pub(crate) fn is_media(content_type: &str) -> bool {
    takers(content_type).is_some()
}

/// Whether a channel takes files of a type. Of channels that are not known nothing is refused.
pub(crate) fn takes_type(channel: &Channel, content_type: &str) -> bool {
    let letter = match channel {
        Channel::WhatsApp => 'w',
        Channel::Rcs => 'r',
        Channel::Sms => 'm',
        Channel::Messenger | Channel::Other(_) => return true,
    };
    takers(content_type).is_some_and(|takers| takers.contains(letter))
}

/// Bytes that one file may have on a channel.
pub(crate) fn most_bytes(channel: &Channel) -> usize {
    if *channel == Channel::Sms {
        MOST_MMS_BYTES
    } else {
        MOST_BYTES
    }
}

fn takers(content_type: &str) -> Option<&'static str> {
    let plain = content_type.split(';').next().unwrap_or_default().trim();
    let plain = plain.to_ascii_lowercase();
    let (group, kind) = plain.split_once('/')?;
    let (_, lists) = ACCEPTED.iter().find(|(known, _)| *known == group)?;
    let mut lists = lists.iter();
    let (takers, _) =
        lists.find(|(_, kinds)| kinds.split_whitespace().any(|known| known == kind))?;
    Some(takers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_takes_what_is_on_its_list() {
        for (content_type, takers) in [
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
                let expected = takers.contains(letter);
                assert_eq!(
                    takes_type(&channel, content_type),
                    expected,
                    "{content_type} {letter}"
                );
            }
            assert_eq!(is_media(content_type), !takers.is_empty(), "{content_type}");
        }
        assert!(takes_type(&Channel::Messenger, "application/zip"));
    }
}
