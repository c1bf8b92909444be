//! Questions with choices: the open one that a message may answer, and the one that a reply asks.

use std::sync::Arc;
use std::time::Duration;

use super::origin::Origin;
use super::outcome::HandlerFailure;
use super::store_monitor::StoreMonitor;
use crate::choice::{OpenQuestion, QuestionId};
use crate::clock::{Clock, after};
use crate::consent::{AnswerKeyword, ConsentRules};
use crate::message::InboundMessage;
use crate::reloadable::Reloadable;
use crate::reply::Reply;
use crate::store::{Claim, QuestionChange, Store};

/// Texts and lifetime of questions.
#[derive(Clone)]
pub(crate) struct ChoiceSettings {
    /// Label of the button that opens a list.
    pub(crate) button: String,
    /// Last line of a numbered text.
    pub(crate) hint: String,
    /// Time after which a question is over without an answer.
    pub(crate) ttl: Duration,
}

/// Questions of all conversations.
pub(super) struct Questions {
    pub(super) store: Arc<dyn Store>,
    pub(super) monitor: Arc<StoreMonitor>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: ChoiceSettings,
    /// Keywords that a choice must not be.
    pub(super) consent: Reloadable<ConsentRules>,
}

impl Questions {
    /// Finds the choice that a message takes. Returns the open question that it answers, if any.
    // A claim says whether its conversation has a question, so other messages cost no query.
    pub(super) async fn resolve(
        &self,
        claim: Claim,
        message: &mut InboundMessage,
    ) -> Result<Option<QuestionId>, HandlerFailure> {
        let open = if claim.has_question {
            self.open_question(claim, message).await?
        } else {
            None
        };
        let is_answered = message.resolve_choice(open.as_ref());
        Ok(open.filter(|_| is_answered).map(|open| open.id))
    }

    async fn open_question(
        &self,
        claim: Claim,
        message: &InboundMessage,
    ) -> Result<Option<OpenQuestion>, HandlerFailure> {
        // Relative to the message's arrival: an answer counts by the time when the user sent it, however late it is handled.
        let at = message.received_at;
        let query = self.store.open_question(claim.conversation, at);
        let open = self.monitor.timed("open_question", query).await;
        open.map_err(|()| HandlerFailure::Error)
    }

    /// Completes the questions of a reply. Returns the change of the open question: the last one that the reply asks, or the
    /// end of the one that the message has answered.
    pub(super) fn ask(
        &self,
        reply: &mut Reply,
        origin: &Origin,
        answered: Option<QuestionId>,
    ) -> Option<QuestionChange> {
        if !reply.has_rich_content() {
            return answered.map(QuestionChange::End);
        }
        reply.set_choice_texts(&self.settings.button, &self.settings.hint);
        reply.identify_questions(origin.account, origin.sid);
        let mut messages = reply.messages().iter().rev();
        let asked = messages.find_map(|message| {
            // A question to another user is not part of this conversation.
            let is_asked = origin.is_sent_to_author(message);
            message.open_question().filter(|_| is_asked)
        });
        match asked {
            Some(question) => {
                self.warn_about_keywords(&question, origin);
                Some(QuestionChange::Ask {
                    question: Box::new(question),
                    expires_at: after(self.clock.now(), self.settings.ttl),
                })
            }
            None => answered.map(QuestionChange::End),
        }
    }
    /// Warns about choices that are consent keywords, so that the bot gets no answer from a user who types one.
    // Names Twilio's keyword and not the title, which may be content.
    fn warn_about_keywords(&self, question: &OpenQuestion, origin: &Origin) {
        let consent = self.consent.load();
        for (number, choice) in (1..).zip(&question.choices) {
            match consent.answer_keyword(&origin.sender, choice.title()) {
                Some(AnswerKeyword::Twilios(keyword)) => {
                    tracing::warn!(message_sid = %origin.sid, choice = number, keyword, "a choice is a keyword that Twilio handles itself on SMS and RCS: a user who types it unsubscribes, subscribes or gets help; use another title");
                }
                Some(AnswerKeyword::Own) => {
                    tracing::warn!(message_sid = %origin.sid, choice = number, channel = origin.user.channel().as_str(), "a choice is one of the opt-out and opt-in words of this server: a user who types it, as on WhatsApp and Messenger, unsubscribes or subscribes; use another title");
                }
                None => {}
            }
        }
    }
}
