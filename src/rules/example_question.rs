//! Questions with choices in an example: the open one, and the tap on one of its choices.

use std::sync::Mutex;

use crate::choice::{ChoiceVia, OpenQuestion, TapPayload};
use crate::form::FormParams;
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::reply::{Reply, ReplyMessage};

/// Key of a turn's tap among its parameters. Twilio has none of this name.
pub(super) const TAPS: &str = "example:taps";

/// The open question of an example's conversation.
#[derive(Default)]
pub(super) struct ExampleQuestion(Mutex<Option<OpenQuestion>>);

impl ExampleQuestion {
    /// Replaces `taps` in a turn's parameters by the tap on that choice, given its title or ID.
    ///
    /// # Errors
    /// A text if the choice is not shown.
    pub(super) fn tap(&self, form: FormParams) -> Result<FormParams, String> {
        let Some(wanted) = form.get(TAPS).map(str::to_owned) else {
            return Ok(form);
        };
        let open = self.0.lock().ignore_poison();
        let open = open.as_ref().ok_or("no question with choices is open")?;
        let mut choices = open.choices.iter();
        let choice = choices.find(|choice| choice.title() == wanted || choice.id() == wanted);
        let choice = choice.ok_or_else(|| format!("the question has no choice {wanted:?}"))?;
        let payload = TapPayload {
            via: ChoiceVia::Button,
            question: open.id.clone(),
            key: open.key.clone(),
            id: choice.id().to_owned(),
        };
        let payload = payload.encode().unwrap_or_default();
        let tap = [
            ("Body", choice.title()),
            ("ButtonText", choice.title()),
            ("ButtonPayload", payload.as_str()),
        ];
        let others = form
            .iter()
            .filter(|(name, _)| ![TAPS, "Body"].contains(name));
        Ok(others.chain(tap).collect())
    }

    /// Finds the choice of a message, as the server does. Returns whether it answers the open question.
    pub(super) fn resolve(&self, message: &mut InboundMessage) -> bool {
        message.resolve_choice(self.0.lock().ignore_poison().as_ref())
    }

    /// Records the question of a reply, or that the open one was answered.
    pub(super) fn record(&self, reply: &mut Reply, message: &InboundMessage, is_answered: bool) {
        reply.identify_questions(message.account_sid, message.message_sid);
        let asked = reply
            .messages()
            .iter()
            .rev()
            .find_map(ReplyMessage::open_question);
        if asked.is_some() || is_answered {
            *self.0.lock().ignore_poison() = asked;
        }
    }
}
