//! Queries of messages.

use replyhook::internals::{MessageFilter, MessageRow, OutboundRow};
use replyhook::store::OutboundState;
use replyhook::{MessageSid, MessageStatus};

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

/// Returns all messages in a state, newest first.
pub(super) fn list_in_state(opened: &OpenedStore, state: &str) -> anyhow::Result<Vec<MessageRow>> {
    let mut messages = Vec::new();
    let mut filter = MessageFilter {
        state: Some(state.to_owned()),
        limit: PAGE_SIZE,
        ..MessageFilter::default()
    };
    loop {
        let rows = opened.wait(opened.store.messages(filter.clone()))?;
        let Some(last) = rows.last() else {
            return Ok(messages);
        };
        filter.before_id = Some(last.id);
        messages.extend(rows);
    }
}

/// Returns true if consent kept the message from the bot, or its reply from the user.
pub(super) fn is_kept_by_consent(row: &MessageRow) -> bool {
    let by_consent = |reason: &Option<String>| {
        let reason = reason.as_deref().unwrap_or_default();
        reason.contains("has opted out")
    };
    by_consent(&row.reason) || row.replies.iter().any(|reply| by_consent(&reply.reason))
}

/// Returns true if `release` sends this message.
pub(super) fn is_releasable(message: &OutboundRow) -> bool {
    // Without content there is nothing to send.
    message.params.is_some() && message.refusal.is_none() && is_failed(message)
}

/// Returns the reason why `release` does not send this message, although it is held or has failed.
pub(super) fn refusal(message: &OutboundRow) -> Option<&'static str> {
    message.refusal.filter(|_| is_failed(message))
}

fn is_failed(message: &OutboundRow) -> bool {
    let is_unsent = matches!(message.state, OutboundState::Held | OutboundState::Failed);
    is_unsent || is_undelivered(message)
}

/// Returns true if Twilio accepted this message and then reported that it was not delivered.
pub(super) fn is_undelivered(message: &OutboundRow) -> bool {
    let status = message.status.as_deref().map(MessageStatus::parse);
    message.state == OutboundState::Sent && status.is_some_and(|status| status.is_failure())
}
