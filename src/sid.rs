//! Twilio's identifiers: two letters and 32 hexadecimal digits, checked once and then carried by value.
//!
//! Shapes are those of Twilio's `OpenAPI` description (`^SM|MM[0-9a-fA-F]{32}$` and so on).

use std::fmt;
use std::str::FromStr;

/// Length of every SID in bytes.
const LEN: usize = 34;

/// A text that is not the SID it should be. It does not repeat the text: that came from outside.
///
/// ```
/// use replyhook::{AccountSid, MessageSid};
///
/// let error = AccountSid::parse("SM00000000000000000000000000000001").unwrap_err();
/// assert_eq!(error.to_string(), "not an account SID: expected AC and 32 hexadecimal digits, 34 characters");
/// let sid: MessageSid = "SM00000000000000000000000000000001".parse()?;
/// assert_eq!(sid.as_str(), "SM00000000000000000000000000000001");
/// # Ok::<(), replyhook::sid::SidError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected {shape}, 34 characters")]
pub struct SidError {
    what: &'static str,
    shape: &'static str,
}

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident, $what:literal, $shape:literal, [$($prefix:literal),+]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; LEN]);

        impl $name {
            /// Checks the shape.
            ///
            /// # Errors
            /// When the text has another prefix, another length, or something that is no hexadecimal digit.
            pub fn parse(text: &str) -> Result<Self, SidError> {
                let error = SidError { what: $what, shape: $shape };
                let bytes: [u8; LEN] = text.as_bytes().try_into().map_err(|_| error)?;
                let prefixed = [$($prefix),+].iter().any(|prefix: &&str| bytes.starts_with(prefix.as_bytes()));
                if prefixed && bytes[2..].iter().all(u8::is_ascii_hexdigit) {
                    Ok(Self(bytes))
                } else {
                    Err(error)
                }
            }

            /// The 34 characters as Twilio wrote them.
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = SidError;

            fn from_str(text: &str) -> Result<Self, SidError> {
                Self::parse(text)
            }
        }
    };
}

sid!(
    /// A message, `SM…` or `MM…` (with media): the key by which a delivery is recognised as a repeat.
    ///
    /// How SIDs are read, and what is refused: see [`SidError`].
    MessageSid, "a message SID", "SM or MM and 32 hexadecimal digits", ["SM", "MM"]
);
sid!(
    /// An account or subaccount, `AC…`.
    ///
    /// How SIDs are read, and what is refused: see [`SidError`].
    AccountSid, "an account SID", "AC and 32 hexadecimal digits", ["AC"]
);
sid!(
    /// A Messaging Service, `MG…`.
    ///
    /// How SIDs are read, and what is refused: see [`SidError`].
    MessagingServiceSid, "a Messaging Service SID", "MG and 32 hexadecimal digits", ["MG"]
);
sid!(
    /// A file of a message, `ME…`.
    ///
    /// In the URL of a file: see [`MediaItem`](crate::message::MediaItem).
    MediaSid, "a media SID", "ME and 32 hexadecimal digits", ["ME"]
);
sid!(
    /// The channel's sender of a status callback, `XE…`.
    ///
    /// How SIDs are read, and what is refused: see [`SidError`].
    ChannelInstallSid, "a channel sender SID", "XE and 32 hexadecimal digits", ["XE"]
);

sid!(
    /// A conversation of Twilio Conversations, `CH…`.
    ///
    /// In an event: see [`ConversationEvent`](crate::message::ConversationEvent).
    ConversationSid, "a conversation SID", "CH and 32 hexadecimal digits", ["CH"]
);
sid!(
    /// A service of Twilio Conversations, `IS…`.
    ///
    /// In an event: see [`ConversationEvent`](crate::message::ConversationEvent).
    ChatServiceSid, "a Conversations service SID", "IS and 32 hexadecimal digits", ["IS"]
);

impl AccountSid {
    /// The same account with lower-case digits: environment keys lose their case, and hexadecimal digits have none.
    #[must_use]
    pub fn to_lowercase(mut self) -> Self {
        self.0[2..].make_ascii_lowercase();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_has_its_prefix_and_32_hexadecimal_digits_and_nothing_else() {
        let good = "SM00000000000000000000000000000aBc";
        assert_eq!(
            MessageSid::parse(good).map(|sid| sid.to_string()),
            Ok(good.to_owned())
        );
        assert!(MessageSid::parse("MM00000000000000000000000000000abc").is_ok());
        for bad in [
            "",
            "SM",
            "SM0000000000000000000000000000000",
            "SM000000000000000000000000000000000",
            "SM0000000000000000000000000000000g",
            "AC00000000000000000000000000000000",
            "sm00000000000000000000000000000000",
            "SM000000000000000000000000000000é",
        ] {
            assert!(MessageSid::parse(bad).is_err(), "{bad}");
        }
    }
}
