//! The conversation of a message, as its handler's context asks for it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::handler::{Conversing, HandlerError, Memory, Remember};
use crate::store::{DialogueChange, Store};

/// A message's conversation in the store.
pub(super) struct Conversation {
    pub(super) store: Arc<dyn Store>,
    pub(super) id: i64,
    /// When the message came.
    pub(super) at: Timestamp,
}

impl Conversing for Conversation {
    fn remembered(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>> {
        Box::pin(async move {
            let dialogue = self.store.dialogue(self.id, self.at).await;
            let dialogue = dialogue.map_err(HandlerError::new)?;
            Ok(dialogue.map(|dialogue| dialogue.0))
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
