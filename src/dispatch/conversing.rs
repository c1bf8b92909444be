//! The conversation of a message, as its handler's context asks for it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::address::Address;
use crate::form::Form;
use crate::handler::{Conversing, HandlerError, Memory, Remember, Said, Speaker, named};
use crate::message::InboundMessage;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::TokenSlot;
use crate::store::{DialogueChange, EarlierMessage, Store, TakenParams};
use crate::twilio::RestError;
use crate::twiml::spoken;

/// A message's conversation in the store.
pub(super) struct Conversation {
    pub(super) store: Arc<dyn Store>,
    pub(super) id: i64,
    /// The message's number.
    pub(super) message: i64,
    /// When the message came.
    pub(super) at: Timestamp,
    /// The sender that it came to.
    pub(super) us: Address,
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

    fn said(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Said>, HandlerError>> {
        Box::pin(async move {
            let earlier = self.earlier(limit).await?;
            let mut said = Vec::new();
            // Where the answer to what may be continued stands.
            let mut answer = 0;
            for earlier in earlier {
                let (question, answers) = exchange(&earlier);
                if !earlier.is_merged {
                    answer = said.len();
                }
                let asked = question.is_some();
                said.splice(answer..answer, question);
                answer += usize::from(asked);
                said.extend(answers);
            }
            let beyond = said.len().saturating_sub(limit);
            said.drain(..beyond);
            Ok(said)
        })
    }

    fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>> {
        Box::pin(async move { Ok(self.earlier(1).await?.is_empty()) })
    }

    fn take_back(&self, user: Address) -> BoxFuture<'_, Result<bool, HandlerError>> {
        Box::pin(async move {
            let ended = self.store.take_back(Some(&self.us), &user, self.at).await;
            Ok(ended.map_err(HandlerError::new)? > 0)
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

impl Conversation {
    async fn earlier(&self, limit: usize) -> Result<Vec<EarlierMessage>, HandlerError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let earlier = self.store.earlier(self.message, limit).await;
        earlier.map_err(HandlerError::new)
    }
}

/// What a message said, and what was said to it.
fn exchange(earlier: &EarlierMessage) -> (Option<Said>, Vec<Said>) {
    let form = |params: &TakenParams| Form::parse(params.0.as_bytes(), usize::MAX).ok();
    let params = earlier.params.as_ref().and_then(form);
    let message = params.and_then(|params| InboundMessage::parse(params, earlier.received_at).ok());
    // Expired: an answer is not kept longer than its question.
    let Some(message) = message else {
        return (None, Vec::new());
    };
    let text = message.text().map(str::to_owned);
    let question = text.or_else(|| named(&message)).map(|text| Said {
        by: Speaker::User,
        text,
        at: earlier.received_at,
    });
    let user = message.from.as_str();
    let by_twiml = spoken(earlier.answer.as_ref().map_or("", |answer| &answer.0));
    let by_twiml = by_twiml
        .into_iter()
        .filter(|spoken| spoken.to.as_deref().is_none_or(|to| to == user))
        .map(|spoken| spoken.text);
    let by_rest = earlier.replies.iter().filter_map(form);
    let by_rest = by_rest
        .filter(|reply| reply.get("To") == Some(user))
        .filter_map(|reply| reply.get("Body").map(str::to_owned));
    let answers = by_twiml.chain(by_rest).filter(|text| !text.is_empty());
    let answers = answers.map(|text| Said {
        by: Speaker::Bot,
        text,
        at: earlier.answered_at,
    });
    (question, answers.collect())
}

/// What a handler has made of its conversation's memory, as it is saved with the answer.
pub(super) fn change(memory: &Memory) -> Option<DialogueChange> {
    Some(match memory.change()? {
        Remember::This(data, expires_at) => DialogueChange::Set { data, expires_at },
        Remember::Nothing => DialogueChange::End,
    })
}
