//! The conversation of a message, as its handler's context asks for it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::handler::{Conversing, HandlerError, Memory, Remember};
use crate::sid::{AccountSid, MessageSid};
use crate::signature::TokenSlot;
use crate::store::{DialogueChange, Store};
use crate::twilio::RestError;

/// A message's conversation in the store.
pub(super) struct Conversation {
    pub(super) store: Arc<dyn Store>,
    pub(super) id: i64,
    /// When the message came.
    pub(super) at: Timestamp,
    /// What is shown to be answered, where that can be shown.
    pub(super) typing: Option<(TypingHook, Inbound)>,
}

/// Shows the author of a message that somebody types.
pub(crate) type TypingHook =
    Arc<dyn Fn(Inbound) -> BoxFuture<'static, Result<(), RestError>> + Send + Sync>;

/// A message, and with what its account is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inbound {
    pub(crate) account: AccountSid,
    pub(crate) slot: TokenSlot,
    pub(crate) sid: MessageSid,
}

impl Conversing for Conversation {
    fn remembered(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>> {
        Box::pin(async move {
            let dialogue = self.store.dialogue(self.id, self.at).await;
            let dialogue = dialogue.map_err(HandlerError::new)?;
            Ok(dialogue.map(|dialogue| dialogue.0))
        })
    }

    fn typing(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some((hook, inbound)) = &self.typing else {
                return;
            };
            // The answer counts, and not that it was announced.
            if let Err(error) = hook(*inbound).await {
                tracing::debug!(sid = %inbound.sid, "that somebody types was not shown: {error}");
            }
        })
    }
}

/// What a handler has made of its conversation's memory, as it is saved with the answer.
pub(super) fn change(memory: &Memory) -> Option<DialogueChange> {
    Some(match memory.change()? {
        Remember::This(data, expires_at) => DialogueChange::Set { data, expires_at },
        Remember::Nothing => DialogueChange::End,
    })
}
