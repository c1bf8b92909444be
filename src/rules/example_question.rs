//! Questions with choices in an example: the open one, and the tap on one of its choices.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;

use crate::choice::{Choices, OpenQuestion};
use crate::clock::after;
use crate::form::FormParams;
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::reply::Reply;

/// Key of a turn's tap among its parameters. Twilio has none of this name.
pub(super) const TAPS: &str = "example:taps";

/// Settings of the server that examples depend on. The default is that of the settings.
///
/// ```
/// use std::time::Duration;
///
/// use replyhook::Channel;
/// use replyhook::rules::{ExampleSettings, RuleSet};
///
/// let rules = RuleSet::parse("[otherwise]\nreply = 'Hello.'\n[[example]]\nsays = 'hi'\ngets = 'Hello.'")?;
/// let mut settings = ExampleSettings::default();
/// settings.choices_ttl = Duration::from_secs(3600);
/// let results = rules.run_examples_with(&Channel::Sms, &settings);
/// assert_eq!(results[0].failure, None);
/// # Ok::<(), replyhook::rules::RulesError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExampleSettings {
    /// `reply.choices_button`: without it, no question is a list.
    pub choices_button: String,
    /// `reply.choices_ttl`: the time after which a question is over.
    pub choices_ttl: Duration,
}

impl Default for ExampleSettings {
    fn default() -> Self {
        Self {
            choices_button: "☰".to_owned(),
            choices_ttl: Duration::from_hours(24),
        }
    }
}

/// The questions of an example's conversation.
#[derive(Default)]
pub(super) struct ExampleQuestion {
    settings: ExampleSettings,
    state: Mutex<QuestionState>,
}

#[derive(Default)]
struct QuestionState {
    /// The open question, and its end.
    open: Option<(OpenQuestion, Timestamp)>,
    /// The last one on the phone, which may be over.
    shown: Option<ShownQuestion>,
}

struct ShownQuestion {
    choices: Choices,
    /// Payload of a tap on each choice; `None` for a numbered text.
    payloads: Option<Vec<String>>,
}

impl ExampleQuestion {
    pub(super) fn new(settings: ExampleSettings) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    /// Replaces `taps` in a turn's parameters by what the user sends who takes that choice, given its title or ID: the
    /// tap, or the number where the channel shows a text.
    ///
    /// # Errors
    /// A text if the choice is not shown.
    pub(super) fn tap(&self, form: FormParams) -> Result<FormParams, String> {
        let Some(wanted) = form.get(TAPS).map(str::to_owned) else {
            return Ok(form);
        };
        let state = self.state.lock().ignore_poison();
        let shown = state.shown.as_ref().ok_or("no choices were sent yet")?;
        let mut choices = (0..).zip(&shown.choices);
        let found = choices.find(|(_, choice)| choice.title() == wanted || choice.id() == wanted);
        let (index, choice) =
            found.ok_or_else(|| format!("the question has no choice {wanted:?}"))?;
        let number: usize = index + 1;
        let sent = match shown.payloads.as_ref().and_then(|all| all.get(index)) {
            Some(payload) => vec![
                ("Body", choice.title().to_owned()),
                ("ButtonText", choice.title().to_owned()),
                ("ButtonPayload", payload.clone()),
            ],
            None => vec![("Body", number.to_string())],
        };
        let sent = sent.iter().map(|(name, value)| (*name, value.as_str()));
        let others = form
            .iter()
            .filter(|(name, _)| ![TAPS, "Body"].contains(name));
        Ok(others.chain(sent).collect())
    }

    /// Finds the choice of a message, as the server does. Returns whether it answers the open question.
    pub(super) fn resolve(&self, message: &mut InboundMessage) -> bool {
        let state = self.state.lock().ignore_poison();
        let open = state.open.as_ref();
        let open = open.filter(|(_, end)| message.received_at < *end);
        message.resolve_choice(open.map(|(question, _)| question))
    }

    /// Records the question of a reply, or that the open one was answered.
    pub(super) fn record(&self, reply: &mut Reply, message: &InboundMessage, is_answered: bool) {
        reply.set_choice_texts(&self.settings.choices_button, "");
        reply.identify_questions(message.account_sid, message.message_sid);
        let mut messages = reply.messages().iter().rev();
        let asked = messages.find_map(|asked| Some((asked, asked.open_question()?)));
        let mut state = self.state.lock().ignore_poison();
        if let Some((asked, question)) = asked {
            state.shown = Some(ShownQuestion {
                choices: question.choices.clone(),
                payloads: asked.choice_payloads(message.channel()),
            });
            let end = after(message.received_at, self.settings.choices_ttl);
            state.open = Some((question, end));
        } else if is_answered {
            state.open = None;
        }
    }
}
