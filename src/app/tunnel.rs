//! A real Twilio account next to the emulated one.

use crate::sid::AccountSid;
use crate::signature::PublicUrl;
use crate::twilio::AccountKeys;

/// A real Twilio account whose webhooks arrive through a tunnel, in addition to the emulator's account.
#[derive(Clone)]
pub(super) struct Tunnel {
    pub(super) public_url: PublicUrl,
    pub(super) account: AccountSid,
    pub(super) keys: AccountKeys,
}
