//! Whatever the pairs are, they are a message or not, a status or not, and never a panic; and nothing of them is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyhook::{Form, InboundMessage, StatusUpdate, Timestamp};

/// What every message and status carries, so that what follows it is looked at.
const BASE: &str = "MessageSid=SM00000000000000000000000000000001&AccountSid=AC00000000000000000000000000000001\
                    &From=whatsapp%3A%2B15550001111&To=whatsapp%3A%2B15550002222&MessageStatus=sent&";

fuzz_target!(|input: (bool, &[u8])| {
    let (complete, pairs) = input;
    let base = if complete { BASE } else { "" };
    let Ok(form) = Form::parse(&[base.as_bytes(), pairs].concat(), 512) else {
        return;
    };
    let _ = StatusUpdate::parse(form.clone());
    if let Ok(message) = InboundMessage::parse(form.clone(), Timestamp::UNIX_EPOCH) {
        assert_eq!(message.params, form);
        let _ = format!("{message:?}");
    }
});
