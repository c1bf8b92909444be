//! Blocked messages: the guard counts each message, and a blocked one is logged and may get a refusal.

use replyhook_core::address_key::AddressKey;

use super::access_list::REFUSAL_PERIOD;
use super::block_reason::BlockReason;
use super::conversation_store::replies_to;
use super::dispatcher::Dispatcher;
use super::guard::Guard;
use crate::address::Address;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::store::{Claim, Completion};

/// Number of earlier messages among which the refusal of another process is searched.
const MAX_EARLIER: u32 = 500;

/// Counts a message. If the guard blocks it, logs it and returns the reply to it, which is usually empty.
pub(super) async fn apply_guard(
    dispatcher: &Dispatcher,
    claim: Claim,
    message: &InboundMessage,
) -> Option<(Reply, Completion)> {
    let guard = &dispatcher.guard;
    let reason = guard.count_message(claim, message)?;
    dispatcher.metrics.message_blocked(reason.as_str());
    log_blocked(guard, reason, claim, message);
    let reply = match reason {
        // Boxed, to keep the future of every message small.
        BlockReason::Blocked | BlockReason::NotAllowed => {
            Box::pin(refusal(dispatcher, claim, message)).await
        }
        BlockReason::OwnNumber | BlockReason::Loop | BlockReason::Muted | BlockReason::Rate => {
            Reply::none()
        }
    };
    let completion = Completion {
        reason: Some(reason.explanation()),
        ..Completion::default()
    };
    Some((reply, completion))
}

/// Logs why the bot does not get a message: for most reasons once per user and hour, and never with the address.
fn log_blocked(guard: &Guard, reason: BlockReason, claim: Claim, message: &InboundMessage) {
    let message_sid = message.message_sid;
    match reason {
        // An alert, so each loop counts. The mute limits it to one a minute.
        BlockReason::Loop => {
            tracing::error!(%message_sid, "a reply loop: the user seems to be a bot that replies to ours; the conversation is muted for a minute");
            return;
        }
        BlockReason::Muted => {
            tracing::debug!(%message_sid, "a message was not given to the bot: the conversation is muted after a reply loop");
            return;
        }
        _ => {}
    }
    let Some(suppressed) = try_log(guard, reason.as_str(), claim, message) else {
        return;
    };
    match reason {
        BlockReason::Rate => {
            tracing::warn!(%message_sid, suppressed, "a message was not given to the bot: its user has sent more than guard.messages_per_user_per_minute");
        }
        BlockReason::OwnNumber => {
            tracing::warn!(%message_sid, suppressed, "a message was not given to the bot: its author is one of your own senders");
        }
        BlockReason::Blocked => {
            tracing::info!(%message_sid, suppressed, "a message was not given to the bot: its user is in guard.block");
        }
        BlockReason::NotAllowed => {
            tracing::info!(%message_sid, suppressed, "a message was not given to the bot: its user is not in guard.allow");
        }
        BlockReason::Loop | BlockReason::Muted => {}
    }
}

/// Logs that the bot does not get a message of a conversation that is handed off, once per user and hour.
pub(super) fn log_handed_off(guard: &Guard, claim: Claim, message: &InboundMessage) {
    if let Some(suppressed) = try_log(guard, "handed_off", claim, message) {
        let message_sid = message.message_sid;
        tracing::info!(%message_sid, suppressed, "a message was not given to the bot: the conversation is handed off");
    }
}

fn try_log(guard: &Guard, reason: &str, claim: Claim, message: &InboundMessage) -> Option<u64> {
    let user = guard.user_of(claim, message);
    guard.access.try_log(reason, user, message.received_at)
}

/// Returns the refusal for the author of a message, or an empty reply if the author has got one within a day.
async fn refusal(dispatcher: &Dispatcher, claim: Claim, message: &InboundMessage) -> Reply {
    let guard = &dispatcher.guard;
    let text = guard.rules.load().access.refusal.clone();
    let address = AddressKey::of(&message.from);
    if text.is_empty() || !guard.access.take_refusal(&address, message.received_at) {
        return Reply::none();
    }
    // The memory of this process is not enough: it may have just started, or another server may have sent one.
    let earlier = dispatcher.store.earlier(claim.id, MAX_EARLIER);
    let Ok(earlier) = dispatcher.monitor.timed("earlier", earlier).await else {
        // If the store fails, send no refusal: it could be a second one.
        return Reply::none();
    };
    let refusal = Reply::text(text);
    let formatted = dispatcher.limits.formatted(refusal.clone());
    let wire = formatted.wire_messages(message.channel(), 1);
    let text = wire.messages.first().map(|first| &*first.text);
    let spellings: Vec<Address> = address.spellings().into_iter().map(Address::from).collect();
    let is_sent = earlier.iter().any(|earlier| {
        let age = message.received_at.duration_since(earlier.received_at);
        let mut replies = spellings.iter().flat_map(|to| replies_to(earlier, to));
        age < REFUSAL_PERIOD && replies.any(|reply| Some(reply.as_str()) == text)
    });
    if is_sent { Reply::none() } else { refusal }
}
