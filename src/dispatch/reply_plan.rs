//! Choice of the path that a reply takes, without effects.

use super::origin::Origin;
use crate::reply::{Reply, WireMessage};
use crate::signature::PublicUrl;
use crate::store::{Completion, NewOutbound};
use crate::twiml::{Document, RenderError};

/// Path of a reply.
pub(super) enum ReplyPlan {
    /// The response to the request carries the whole reply.
    Twiml(Document),
    /// Each message is sent by a call of the REST API.
    Rest(Vec<NewOutbound>),
    /// The reply is a redirect, which only a response can carry, and no request waits.
    RedirectTooLate,
    /// The reply is a redirect, and has messages that must go via the REST API. No response can follow them in order.
    RedirectWithMessages,
    /// No path can carry the reply.
    Invalid(RenderError),
}

/// Chooses the path of a reply, split into `messages`. `is_attended` is true if a request waits for it. With
/// `is_rest_only`, no response has a message.
pub(super) fn reply_plan(
    reply: &Reply,
    messages: &[WireMessage<'_>],
    completion: &Completion,
    origin: &Origin,
    public_url: &PublicUrl,
    is_attended: bool,
    is_rest_only: bool,
) -> ReplyPlan {
    // TwiML has no buttons, lists, templates or locations.
    let is_rich = messages.iter().any(|message| message.content.is_some());
    let may_be_inline = is_attended && !is_rich && (messages.is_empty() || !is_rest_only);
    let via_rest = || {
        // The redirect of a handoff is left out: the conversation is handed off all the same, and its next messages are
        // redirected.
        if reply.redirect_target().is_some() && completion.handoff.is_none() {
            return if is_attended {
                ReplyPlan::RedirectWithMessages
            } else {
                ReplyPlan::RedirectTooLate
            };
        }
        ReplyPlan::Rest(messages.iter().map(|wire| origin.outbound(wire)).collect())
    };
    match Document::from_messages(reply, messages, Some(public_url)) {
        // A message to another user: only the outbox checks the window and the consent of that user.
        Ok(document) if may_be_inline && is_to_author(reply, origin) => ReplyPlan::Twiml(document),
        Ok(_) => via_rest(),
        // Too large for TwiML. The REST API takes each message in a call of its own.
        Err(error) if error.is_overflow() => via_rest(),
        Err(error) => ReplyPlan::Invalid(error),
    }
}

/// Returns whether every message of a reply goes to the author of the inbound message.
fn is_to_author(reply: &Reply, origin: &Origin) -> bool {
    reply
        .messages()
        .iter()
        .all(|message| origin.is_sent_to_author(message))
}
