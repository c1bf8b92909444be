//! Access of a handler's context to the stored conversation of its message.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::typing::{TypingIndicators, TypingTarget};
use crate::address::Address;
use crate::form::FormParams;
use crate::handler::{
    ConversationAccess, HandlerError, HistoryEntry, Role, StateChange, StateStore, describe_content,
};
use crate::message::InboundMessage;
use crate::store::{DialogueChange, EarlierMessage, RedactedParams, Store};
use crate::twiml::interpreter::rendered_messages;

/// Conversation of a message in the store.
pub(super) struct ConversationStore {
    pub(super) store: Arc<dyn Store>,
    pub(super) id: i64,
    /// Id of the message.
    pub(super) message: i64,
    /// Time of receipt of the message.
    pub(super) at: Timestamp,
    /// The sender that the message was sent to.
    pub(super) sender: Address,
    /// Typing indicators, on channels that have them.
    pub(super) typing: Option<(Arc<TypingIndicators>, TypingTarget)>,
}

impl ConversationAccess for ConversationStore {
    fn load_state(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>> {
        Box::pin(async move {
            let dialogue = self.store.dialogue(self.id, self.at).await;
            let dialogue = dialogue.map_err(HandlerError::new)?;
            Ok(dialogue.map(|dialogue| dialogue.0))
        })
    }

    fn history(&self, limit: usize) -> BoxFuture<'_, Result<Vec<HistoryEntry>, HandlerError>> {
        Box::pin(async move {
            let earlier = self.earlier(limit).await?;
            let mut said = Vec::new();
            // Index of the replies to the current burst. A merged message belongs before them: the bot replied to the
            // whole burst at its first message.
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
            // `limit` messages can have more than `limit` texts. Keep the newest.
            let beyond = said.len().saturating_sub(limit);
            said.drain(..beyond);
            Ok(said)
        })
    }

    fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>> {
        Box::pin(async move { Ok(self.earlier(1).await?.is_empty()) })
    }

    fn end_handoff(&self, user: Address) -> BoxFuture<'_, Result<bool, HandlerError>> {
        Box::pin(async move {
            let ended = self
                .store
                .end_handoff(Some(&self.sender.normalized()), &user.normalized(), self.at)
                .await;
            Ok(ended.map_err(HandlerError::new)? > 0)
        })
    }

    fn typing(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some((indicators, target)) = &self.typing {
                indicators.send(target.clone()).await;
            }
        })
    }
}

impl ConversationStore {
    /// Loads the last `limit` messages before this one, oldest first.
    async fn earlier(&self, limit: usize) -> Result<Vec<EarlierMessage>, HandlerError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let earlier = self.store.earlier(self.message, limit).await;
        earlier.map_err(HandlerError::new)
    }
}

/// Texts of an earlier message and of the replies to it.
fn exchange(earlier: &EarlierMessage) -> (Option<HistoryEntry>, Vec<HistoryEntry>) {
    let form = |params: &RedactedParams| FormParams::parse(params.0.as_bytes(), usize::MAX).ok();
    let params = earlier.params.as_ref().and_then(form);
    let message = params.and_then(|params| InboundMessage::parse(params, earlier.received_at).ok());
    // The content has expired. A reply without its message is left out as well.
    let Some(message) = message else {
        return (None, Vec::new());
    };
    let text = message.text().map(str::to_owned);
    let question = text
        .or_else(|| describe_content(&message))
        .map(|text| HistoryEntry {
            role: Role::User,
            text,
            at: earlier.received_at,
        });
    let answers = replies_to(earlier, &message.from).into_iter();
    let answers = answers.map(|text| HistoryEntry {
        role: Role::Bot,
        text,
        at: earlier.answered_at,
    });
    (question, answers.collect())
}

/// Texts of the replies to an earlier message, without those to other users, which are not part of the conversation.
pub(super) fn replies_to(earlier: &EarlierMessage, user: &Address) -> Vec<String> {
    let form = |params: &RedactedParams| FormParams::parse(params.0.as_bytes(), usize::MAX).ok();
    let user = user.as_str();
    let by_twiml = rendered_messages(earlier.response.as_ref().map_or("", |answer| &answer.0));
    let by_twiml = by_twiml
        .into_iter()
        .filter(|message| message.to.as_deref().is_none_or(|to| to == user))
        .map(|message| message.body);
    let by_rest = earlier.replies.iter().filter_map(form);
    let by_rest = by_rest
        .filter(|reply| reply.get("To") == Some(user))
        .filter_map(|reply| reply.get("Body").map(str::to_owned));
    let answers = by_twiml.chain(by_rest).filter(|text| !text.is_empty());
    answers.collect()
}

/// Change of the conversation's state by its handler, to be saved with the reply.
pub(super) fn state_change(state: &StateStore) -> Option<DialogueChange> {
    Some(match state.change()? {
        StateChange::Set(data, expires_at) => DialogueChange::Set { data, expires_at },
        StateChange::Clear => DialogueChange::End,
    })
}
