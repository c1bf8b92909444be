//! What is sent first, answering nothing: taken once under its key, and only if it may be said.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::NewReply;

/// What a caller calls a message, so that it is sent once however often it is asked for.
///
/// Only its digest is kept: a key may be made of a number, or of a text.
///
/// ```
/// use replyhook::store::SendKey;
///
/// assert_eq!(SendKey::new("order-42-ready"), SendKey::new("order-42-ready"));
/// assert_eq!(format!("{:?}", SendKey::new("+15550001111")), "SendKey(…)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendKey([u8; 32]);

impl SendKey {
    /// The key of this text; any length, any characters.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message that answers nothing, to be taken into the outbox.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use replyhook::signature::TokenSlot;
/// use replyhook::store::{Access, NewReply, Outbox, Refusal, Store, Submission, Submitted, sqlite::SqliteStore};
/// use replyhook::{Form, Timestamp};
///
/// let store = SqliteStore::memory();
/// store.open(Access::Owner).await?;
/// let news = Submission {
///     message: NewReply {
///         account: "AC00000000000000000000000000000001".parse()?,
///         us: "whatsapp:+15550002222".into(),
///         user: "whatsapp:+15550001111".into(),
///         params: Form::from_iter([("Body", "News!")]),
///         template: false,
///         # slot: TokenSlot::Primary, service: None,
///     },
///     key: None,
///     due: Timestamp::UNIX_EPOCH,
///     pace: Duration::ZERO,
///     consent_required: true,
/// };
/// let submitted = store.submit(news, Timestamp::UNIX_EPOCH).await?;
/// assert_eq!(submitted, Submitted::Refused(Refusal::WindowClosed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Submission {
    /// The message. One that a Messaging Service chooses the sender for has the service's SID in place of the sender.
    pub message: NewReply,
    /// Its key; without one every submission is another message.
    pub key: Option<SendKey>,
    /// When the user gets it: then the window must be open.
    pub due: Timestamp,
    /// Between two messages of one sender; zero for none.
    pub pace: Duration,
    /// Whether a template outside of the window needs a recorded opt-in.
    pub consent_required: bool,
}

/// What became of a [`Submission`].
///
/// Of a message that may not be said: see [`Submission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It is in the outbox, under this number.
    New(i64),
    /// Its key was taken before, by the message of this number; nothing was added.
    Known(i64),
    /// It may not be said; nothing was added, and its key is free.
    Refused(Refusal),
}

/// Why a message may not be said to a user.
///
/// Follows from: see [`Standing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The user wants nothing from us.
    OptedOut,
    /// It is no template, and the customer service window is closed.
    WindowClosed,
    /// It is a template, the window is closed, and there is no recorded opt-in.
    NoOptIn,
}

/// What may be said to a user.
///
/// ```
/// use replyhook::store::{Refusal, Standing};
///
/// let silent = Standing { opted_out: false, opted_in: true, window_open: false };
/// assert_eq!(silent.refusal(false, true), Some(Refusal::WindowClosed));
/// assert_eq!(silent.refusal(true, true), None, "a template, to somebody who has agreed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the user wants nothing from us, under whatever address.
    pub opted_out: bool,
    /// Whether the user is known to have agreed to be written to.
    pub opted_in: bool,
    /// Whether the customer service window is open at the time that was asked about.
    pub window_open: bool,
}

impl Standing {
    /// Why a message may not be said, if so.
    pub fn refusal(self, template: bool, consent_required: bool) -> Option<Refusal> {
        match (self.opted_out, self.window_open, template) {
            (true, ..) => Some(Refusal::OptedOut),
            (false, true, _) => None,
            (false, false, false) => Some(Refusal::WindowClosed),
            (false, false, true) => {
                (consent_required && !self.opted_in).then_some(Refusal::NoOptIn)
            }
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Submission {
    pub(super) fn refusal(&self, standing: Standing) -> Option<Refusal> {
        standing.refusal(self.message.template, self.consent_required)
    }

    /// In microseconds.
    pub(super) fn pace_micros(&self) -> i64 {
        i64::try_from(self.pace.as_micros()).unwrap_or(i64::MAX / 4)
    }
}

impl fmt::Debug for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_said_follows_from_consent_and_window() {
        use Refusal::{NoOptIn, OptedOut, WindowClosed};
        for (opted_out, opted_in, window_open, template, required, refusal) in [
            (true, true, true, true, false, Some(OptedOut)),
            (false, false, true, false, true, None),
            (false, false, true, true, true, None),
            (false, true, false, false, false, Some(WindowClosed)),
            (false, false, false, true, true, Some(NoOptIn)),
            (false, true, false, true, true, None),
            (false, false, false, true, false, None),
        ] {
            let standing = Standing {
                opted_out,
                opted_in,
                window_open,
            };
            assert_eq!(
                standing.refusal(template, required),
                refusal,
                "{standing:?}"
            );
        }
    }
}
