//! Queries of inbound messages.

use replyhook::MessageSid;
use replyhook::internals::{MessageFilter, MessageRow};

use crate::exit::ExitStatus;
use crate::operator::OpenedStore;
use crate::print::print;

/// Messages per query of the store.
pub(super) const PAGE_SIZE: u32 = 500;

pub(super) fn find_inbound(
    opened: &OpenedStore,
    sid: MessageSid,
) -> anyhow::Result<Option<MessageRow>> {
    let filter = MessageFilter {
        sid: Some(sid),
        limit: 1,
        ..MessageFilter::default()
    };
    Ok(opened.wait(opened.store.messages(filter))?.pop())
}

pub(super) fn print_unknown(sid: MessageSid) -> anyhow::Result<ExitStatus> {
    print(&format!(
        "message {sid} is not in the journal; `replyhook reconcile` adds messages that Twilio has and the journal lacks\n"
    ))?;
    Ok(ExitStatus::No)
}
