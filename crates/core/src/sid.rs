//! Twilio's identifiers: two letters and 32 hexadecimal digits, validated once and then passed by value.
//!
//! Source: the patterns of Twilio's `OpenAPI` description, such as `^SM|MM[0-9a-fA-F]{32}$`.

use std::fmt;
use std::str::FromStr;

/// Length of every SID in bytes.
const LEN: usize = 34;

/// Error of a text that is not the expected kind of SID. It does not contain the text, which is untrusted.
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
        // An array instead of a `String`, so that SIDs are `Copy`: they are map keys and move into tasks.
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; LEN]);

        impl $name {
            /// Parses a SID.
            ///
            /// # Errors
            /// [`SidError`] if the prefix, the length or a hexadecimal digit is wrong.
            pub fn parse(text: &str) -> Result<Self, SidError> {
                let error = SidError { what: $what, shape: $shape };
                let bytes: [u8; LEN] = text.as_bytes().try_into().map_err(|_| error)?;
                // Prefixes are upper case; digits may have either case, and are kept as received.
                let prefixed = [$($prefix),+].iter().any(|prefix: &&str| bytes.starts_with(prefix.as_bytes()));
                if prefixed && bytes[2..].iter().all(u8::is_ascii_hexdigit) {
                    Ok(Self(bytes))
                } else {
                    Err(error)
                }
            }

            /// Returns the 34 characters as received.
            pub fn as_str(&self) -> &str {
                // Cannot fail: `parse` accepts ASCII only.
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
    /// SID of a message: `SM…`, or `MM…` with media. Redeliveries of a message have the same SID.
    ///
    /// See [`SidError`] for an example.
    MessageSid, "a message SID", "SM or MM and 32 hexadecimal digits", ["SM", "MM"]
);
sid!(
    /// SID of an account or subaccount, `AC…`.
    ///
    /// See [`SidError`] for an example.
    AccountSid, "an account SID", "AC and 32 hexadecimal digits", ["AC"]
);
sid!(
    /// SID of a Messaging Service, `MG…`.
    ///
    /// See [`SidError`] for an example of another SID.
    MessagingServiceSid, "a Messaging Service SID", "MG and 32 hexadecimal digits", ["MG"]
);
sid!(
    /// SID of a media file of a message, `ME…`.
    ///
    /// See [`MediaItem`](crate::message::MediaItem) for an example.
    MediaSid, "a media SID", "ME and 32 hexadecimal digits", ["ME"]
);
sid!(
    /// SID of the channel's sender in a status callback, `XE…`.
    ///
    /// See [`SidError`] for an example of another SID.
    ChannelInstallSid, "a channel sender SID", "XE and 32 hexadecimal digits", ["XE"]
);

sid!(
    /// SID of a conversation of Twilio Conversations, `CH…`.
    ///
    /// See [`ConversationEvent`](crate::message::ConversationEvent) for an example.
    ConversationSid, "a conversation SID", "CH and 32 hexadecimal digits", ["CH"]
);
sid!(
    /// SID of a service of Twilio Conversations, `IS…`.
    ///
    /// See [`ConversationEvent`](crate::message::ConversationEvent) for an event that has one.
    ChatServiceSid, "a Conversations service SID", "IS and 32 hexadecimal digits", ["IS"]
);

impl AccountSid {
    /// Returns the same account with lower-case digits. SIDs that come from environment keys lose their case, so
    /// accounts are compared in this form.
    #[must_use]
    pub fn to_lowercase(mut self) -> Self {
        // The prefix stays `AC`: `parse` accepts nothing else.
        self.0[2..].make_ascii_lowercase();
        self
    }

    /// Returns whether both are the same account, without regard to the case of the digits.
    #[must_use]
    pub fn is_same(self, other: Self) -> bool {
        self.to_lowercase() == other.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sid_requires_prefix_and_32_hex_digits() {
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
