//! Parts of a message with a reply: what the channel shows of it, as parameters of `POST Messages`.

use std::time::Duration;

use replyhook_core::sms_keywords::has_sms_keywords;

use super::check::check_files;
use super::error::SendError;
use crate::choice::{OpenQuestion, QuestionId, title_keyword};
use crate::form::FormParams;
use crate::reply::{Reply, ReplyMessage, TemplateContent, WireMessage, WireRichContent};
use crate::sid::AccountSid;
use crate::store::IdempotencyKey;
use crate::twilio::{NewMessage, WireAddresses, wire_params};

/// Maximum number of messages that one call queues, as many as a reply has by default.
const MAX_PARTS: usize = 20;

/// Texts and lifetime of questions that have none of their own.
#[derive(Debug, Clone)]
pub(super) struct QuestionDefaults {
    pub(super) button: String,
    pub(super) hint: String,
    pub(super) ttl: Duration,
}

impl Default for QuestionDefaults {
    // The defaults of `reply.choices_button`, `reply.choices_hint` and `reply.choices_ttl`.
    fn default() -> Self {
        Self {
            button: "☰".to_owned(),
            hint: String::new(),
            ttl: Duration::from_hours(24),
        }
    }
}

/// Messages that are sent for one message with a reply.
pub(super) struct ReplyParts {
    /// Parts in order, at least one.
    pub(super) parts: Vec<ReplyPart>,
    pub(super) question: Option<OpenQuestion>,
}

pub(super) struct ReplyPart {
    pub(super) params: FormParams,
    /// Template that the part is, which may be sent outside of the customer service window.
    pub(super) template: Option<TemplateContent>,
}

impl ReplyParts {
    pub(super) fn single(params: FormParams, template: Option<TemplateContent>) -> Self {
        Self {
            parts: vec![ReplyPart { params, template }],
            question: None,
        }
    }

    pub(super) fn templates(&self) -> Vec<TemplateContent> {
        let parts = self.parts.iter();
        parts.filter_map(|part| part.template.clone()).collect()
    }

    /// Renders a reply for the channel of the recipient, and checks each part.
    ///
    /// # Errors
    /// [`SendError`] with the first problem. Its text contains no address and no content.
    pub(super) fn render(
        message: &NewMessage,
        reply: &Reply,
        account: Option<AccountSid>,
        key: Option<IdempotencyKey>,
        defaults: &QuestionDefaults,
    ) -> Result<Self, SendError> {
        check_reply(message, reply)?;
        let mut reply = reply.clone();
        reply.set_choice_texts(&defaults.button, &defaults.hint);
        identify_questions(message, &mut reply, account, key)?;
        // The last question is the open one, as in a reply.
        let mut messages = reply.messages().iter().rev();
        let question = messages.find_map(ReplyMessage::open_question);
        if let Some(question) = &question {
            check_question(message, question)?;
        }
        let wire = reply.wire_messages(message.to.channel(), MAX_PARTS);
        if wire.is_cut {
            return Err(SendError::invalid(format!(
                "the message is longer than {MAX_PARTS} messages; send less"
            )));
        }
        let parts = wire
            .messages
            .iter()
            .map(|part| ReplyPart::of(message, part));
        let parts: Vec<_> = parts.collect();
        if parts.is_empty() {
            return Err(SendError::invalid(
                "nothing to send; set a text, media, choices, a template or a location",
            ));
        }
        Ok(Self { parts, question })
    }
}

impl ReplyPart {
    fn of(message: &NewMessage, wire: &WireMessage<'_>) -> Self {
        let template = match &wire.content {
            Some(WireRichContent::Template(template)) => Some(template.clone()),
            _ => None,
        };
        let addresses = WireAddresses {
            to: &message.to,
            from: message.from.as_ref(),
            service: message.messaging_service_sid,
        };
        let params = wire_params(wire, &addresses);
        let further = message.further_params();
        let further = further.iter().map(|(name, value)| (*name, value.as_str()));
        // The message's own status callback before that of the whole.
        let further = further.filter(|(name, _)| params.get(name).is_none());
        Self {
            params: params.iter().chain(further).collect(),
            template,
        }
    }
}

fn check_reply(message: &NewMessage, reply: &Reply) -> Result<(), SendError> {
    if let Err(error) = reply.check() {
        return Err(SendError::invalid(error.to_string()));
    }
    if reply.redirect_target().is_some() {
        return Err(SendError::invalid(
            "a redirect or handoff only replies to a message; send a text",
        ));
    }
    for part in reply.messages() {
        if part.has_own_addresses() {
            return Err(SendError::invalid(
                "a message of the reply has a recipient or sender of its own; set them for the whole message",
            ));
        }
        let files = part.media_files().iter().map(|file| {
            file.link().ok_or_else(|| {
                SendError::invalid("a file is not at a public URL; publish it, and give its URL")
            })
        });
        let files: Vec<&str> = files.collect::<Result<_, _>>()?;
        check_files(message.to.channel(), &files)?;
    }
    Ok(())
}

/// Checks that the answer to a question can be told from others.
fn check_question(message: &NewMessage, question: &OpenQuestion) -> Result<(), SendError> {
    if message.from.is_none() {
        return Err(SendError::invalid(
            "a question with choices needs its sender, in addition to the Messaging Service, because the answer belongs to \
             the conversation with one sender",
        ));
    }
    // It would be open from now on: a number that the user types before would answer it.
    if message.send_at.is_some() {
        return Err(SendError::invalid(
            "a question with choices cannot be scheduled; send it at its time",
        ));
    }
    if has_sms_keywords(message.to.channel()) {
        for (number, choice) in (1..).zip(&question.choices) {
            if let Some(keyword) = title_keyword(choice.title()) {
                tracing::warn!(
                    choice = number,
                    keyword,
                    "a choice of an outbound message is a keyword that Twilio handles itself on SMS and RCS: a user who types it unsubscribes, subscribes or gets help; use another title"
                );
            }
        }
    }
    Ok(())
}

/// Gives each question its identity: the same for the same key, so that a repeated message is recognized.
fn identify_questions(
    message: &NewMessage,
    reply: &mut Reply,
    account: Option<AccountSid>,
    key: Option<IdempotencyKey>,
) -> Result<(), SendError> {
    let mut random = [0; 16];
    let key = if let Some(key) = &key {
        key.as_bytes()
    } else {
        getrandom::fill(&mut random).map_err(|_| {
            SendError::invalid("the operating system has no random numbers; try again")
        })?;
        &random[..]
    };
    let key = format!("{key:x?}");
    let from = message.from.as_ref().map_or("", |from| from.as_str());
    let account = account.map_or_else(String::new, |account| account.to_string());
    reply.identify_questions_by(|ordinal| {
        let ordinal = ordinal.to_string();
        QuestionId::of_outbound(&[&account, &key, message.to.as_str(), from, &ordinal])
    });
    Ok(())
}
