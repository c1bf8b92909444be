//! What plays Twilio's part on this machine. For now one call: [`call`] signs a webhook and judges the answer as Twilio
//! would.

mod call;

pub use call::{Call, CallError, CallResult, call};
