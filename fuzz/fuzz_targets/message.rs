//! Parsing of a message and of a status callback.
//!
//! Parsing never panics, whatever the parameters are. A parsed message contains all of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyhook::{FormParams, InboundMessage, StatusUpdate, Timestamp};

/// Parameters that every message and status callback has.
// Without them most inputs would be rejected for a missing SID, and the other parameters would not be parsed.
const BASE: &str = "MessageSid=SM00000000000000000000000000000001&AccountSid=AC00000000000000000000000000000001\
                    &From=whatsapp%3A%2B15550001111&To=whatsapp%3A%2B15550002222&MessageStatus=sent&";

fuzz_target!(|input: (bool, &[u8])| {
    let (complete, pairs) = input;
    let base = if complete { BASE } else { "" };
    let Ok(form) = FormParams::parse(&[base.as_bytes(), pairs].concat(), 512) else {
        return;
    };
    let _ = StatusUpdate::parse(form.clone());
    if let Ok(message) = InboundMessage::parse(form.clone(), Timestamp::UNIX_EPOCH) {
        assert_eq!(message.params, form);
        // `Debug` masks addresses and texts, and must not panic while it does.
        let _ = format!("{message:?}");
    }
});
