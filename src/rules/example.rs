//! `[[example]]`: tests in a rules file, run by `replyhook rules test`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use super::example_question::{ExampleQuestion, ExampleSettings, TAPS};
use super::opt_out::OptOutTexts;
use super::reader::{Fields, RulesReader, SpannedValue};
use crate::address::{Address, Channel};
use crate::consent::{ConsentReplies, ConsentRules, Keywords};
use crate::form::FormParams;
use crate::handler::{
    Context, ConversationAccess, Handler, HandlerError, HistoryEntry, StateChange,
};
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::reply::{Reply, ReplyMessage};
use crate::route::Router;
use crate::store::{ConsentAction, ConsentEffect};
use crate::twiml::Document;

/// One example: a conversation of one or more turns.
pub(super) struct Example {
    name: String,
    /// `None` for the default user of the channel.
    from: Option<String>,
    profile_name: Option<String>,
    at: Timestamp,
    turns: Vec<ExampleTurn>,
}

struct ExampleTurn {
    line: usize,
    at: Option<Timestamp>,
    params: Vec<(String, String)>,
    expected: TurnOutcome,
}

/// The outcome of a turn, expected or found.
enum TurnOutcome {
    /// These messages; without any, no reply is sent.
    Replies(Vec<ExampleMessage>),
    /// The message is forwarded to the service.
    Forwards,
    /// The conversation is handed off, by this turn or an earlier one.
    HandsOff,
}

/// One message of a reply.
struct ExampleMessage {
    text: String,
    /// The URLs of its media. `None` for an expected message whose media are not compared.
    media: Option<Vec<String>>,
}

/// The result of an example.
///
/// See [`RuleSet`](super::RuleSet) for an example that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExampleResult {
    /// The name of the example, or its line.
    pub name: String,
    /// The first turn with another outcome, if there is one.
    pub failure: Option<ExampleFailure>,
}

/// A turn whose outcome is not the expected one.
///
/// See [`RuleSet`](super::RuleSet) for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExampleFailure {
    /// The line of the turn in the file.
    pub line: usize,
    /// The expected outcome.
    pub expected: String,
    /// The outcome that was found, or an error.
    pub found: String,
}

const DEFAULT_PHONE: &str = "+15550001111";
const DEFAULT_SENDER: &str = "+15550002222";
// A fixed time, a Monday morning: examples must not depend on the day on which they run.
const DEFAULT_TIME: &str = "2026-01-05T09:00:00Z";

/// Reads one `[[example]]`.
pub(super) fn read(reader: &mut RulesReader<'_>, mut fields: Fields<'_>) -> Option<Example> {
    let line = reader.line(fields.span.start);
    let name = reader.text(&mut fields, "name").map(|name| name.value);
    let from = reader.text(&mut fields, "from").map(|from| from.value);
    let profile_name = reader
        .text(&mut fields, "profile_name")
        .map(|name| name.value);
    let turns = if fields.has("turns") {
        let syntax = "turns = [{ says = \"…\", gets = \"…\" }]";
        let tables = reader.tables(&mut fields, "turns", syntax).into_iter();
        tables
            .filter_map(|table| read_turn_table(reader, table))
            .collect()
    } else {
        Vec::from_iter(read_turn(reader, &mut fields))
    };
    let at = read_time(reader, &mut fields);
    reader.report_unknown_keys(&fields);
    if turns.is_empty() {
        return None;
    }
    Some(Example {
        name: name.unwrap_or_else(|| format!("line {line}")),
        from,
        profile_name,
        at: at.unwrap_or_else(|| DEFAULT_TIME.parse().unwrap_or_default()),
        turns,
    })
}

fn read_time(reader: &mut RulesReader<'_>, fields: &mut Fields<'_>) -> Option<Timestamp> {
    let text = reader.text(fields, "at")?;
    let at: Option<Timestamp> = text.value.parse().ok();
    if at.is_none() {
        let message = "at is a time, as in \"2026-01-05T09:00:00Z\"";
        reader.add_problem(&text.span, message);
    }
    at
}

fn read_turn_table(reader: &mut RulesReader<'_>, mut fields: Fields<'_>) -> Option<ExampleTurn> {
    let turn = read_turn(reader, &mut fields);
    let at = read_time(reader, &mut fields);
    reader.report_unknown_keys(&fields);
    turn.map(|turn| ExampleTurn { at, ..turn })
}

fn read_turn(reader: &mut RulesReader<'_>, fields: &mut Fields<'_>) -> Option<ExampleTurn> {
    let span = fields.span.clone();
    let line = reader.line(span.start);
    let mut params: Vec<(String, String)> = Vec::new();
    let says = reader.text(fields, "says");
    params.push((
        "Body".to_owned(),
        says.as_ref()
            .map(|says| says.value.clone())
            .unwrap_or_default(),
    ));
    if let Some(kind) = reader.text(fields, "media") {
        params.push((
            "MediaUrl0".to_owned(),
            "https://api.twilio.com/example".to_owned(),
        ));
        params.push(("MediaContentType0".to_owned(), kind.value));
    }
    if let Some(payload) = reader.text(fields, "button") {
        params.push(("ButtonPayload".to_owned(), payload.value));
    }
    if let Some(choice) = reader.text(fields, "taps") {
        params.push((TAPS.to_owned(), choice.value));
    }
    if let Some(mut location) = reader.table(fields, "location") {
        let latitude = reader.number(&mut location, "latitude");
        let longitude = reader.number(&mut location, "longitude");
        reader.report_unknown_keys(&location);
        for (name, degrees) in [("Latitude", latitude), ("Longitude", longitude)] {
            // A value that is not a number was reported, so the example will not run.
            params.push((name.to_owned(), degrees.unwrap_or_default().to_string()));
        }
    }
    if let Some(more) = reader.table(fields, "params") {
        for (name, value) in more.entries() {
            match value.get_ref().as_str() {
                Some(value) => params.push((name.value, value.to_owned())),
                None => reader.add_problem(&value.span(), "a parameter is a text in quotes"),
            }
        }
    }
    let forwards = reader.flag(fields, "forwards").unwrap_or(false);
    let handoff = reader.flag(fields, "handoff").unwrap_or(false);
    let gets = fields.take("gets");
    let expectations = [gets.is_some(), forwards, handoff];
    if expectations.iter().filter(|is_used| **is_used).count() > 1 {
        let text = "an example expects one thing: gets, forwards = true or handoff = true";
        reader.add_problem(&span, text);
        return None;
    }
    let sources = ["says", "taps", "media", "button", "location", "params"];
    if !sources.iter().any(|key| fields.has(key)) {
        reader.add_problem(
            &span,
            "an example needs says, taps, media, button, location or params",
        );
        return None;
    }
    let expected = match gets {
        Some(value) => TurnOutcome::Replies(read_gets(reader, value)?),
        None if forwards => TurnOutcome::Forwards,
        None if handoff => TurnOutcome::HandsOff,
        None => {
            reader.add_problem(
                &span,
                "an example needs gets, forwards = true or handoff = true (gets = [] expects no reply)",
            );
            return None;
        }
    };
    Some(ExampleTurn {
        line,
        at: None,
        params,
        expected,
    })
}

/// Reads `gets`: a text, `{ text, media }`, or a list of these.
fn read_gets(
    reader: &mut RulesReader<'_>,
    value: &SpannedValue<'_>,
) -> Option<Vec<ExampleMessage>> {
    match value.get_ref().as_array() {
        Some(all) => {
            let all: Vec<_> = all
                .iter()
                .map(|value| read_expected_message(reader, value))
                .collect();
            all.into_iter().collect()
        }
        None => Some(vec![read_expected_message(reader, value)?]),
    }
}

fn read_expected_message(
    reader: &mut RulesReader<'_>,
    value: &SpannedValue<'_>,
) -> Option<ExampleMessage> {
    if let Some(text) = value.get_ref().as_str() {
        let text = text.to_owned();
        return Some(ExampleMessage { text, media: None });
    }
    let mut fields = reader.table_of(value, "gets")?;
    let text = reader.text(&mut fields, "text");
    let media = fields.take("media").map(|media| {
        // An empty list expects a message without media. `RulesReader::texts` would reject it.
        let is_none = media.get_ref().as_array().is_some_and(|all| all.is_empty());
        let none = is_none.then(Vec::new);
        none.or_else(|| reader.texts(media, "media"))
    });
    reader.report_unknown_keys(&fields);
    Some(ExampleMessage {
        text: text.map(|text| text.value).unwrap_or_default(),
        media: match media {
            Some(media) => Some(media?),
            None => None,
        },
    })
}

/// Returns a stand-in for the service that rules forward to, and a flag that it sets when it gets a message.
pub(super) fn stub_service() -> (Arc<dyn Handler>, Arc<AtomicBool>) {
    let called = Arc::new(AtomicBool::new(false));
    let called_flag = called.clone();
    let handler = move |_cx: Context, _message: InboundMessage| {
        // Relaxed here and below: an example runs on one thread. The atomics only make the types `Sync`.
        called_flag.store(true, Ordering::Relaxed);
        async {}
    };
    (Arc::new(handler), called)
}

/// The conversation of an example, in memory.
#[derive(Default)]
struct ExampleConversation {
    state: Mutex<Option<String>>,
    has_begun: AtomicBool,
    has_opted_out: AtomicBool,
    is_handed_off: AtomicBool,
    question: ExampleQuestion,
}

impl ConversationAccess for ExampleConversation {
    fn load_state(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>> {
        let text = self.lock().clone();
        Box::pin(std::future::ready(Ok(text)))
    }

    // Always empty: no rule uses the history.
    fn history(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<HistoryEntry>, HandlerError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>> {
        let has_begun = self.has_begun.load(Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(!has_begun)))
    }
}

impl ExampleConversation {
    /// Returns the outcome of a message that does not reach the rules: a keyword, or a message of a user who opted out.
    // By the code that accepts a message in the server, so that an example cannot differ from it.
    fn consent_outcome(
        &self,
        message: &InboundMessage,
        texts: &OptOutTexts,
    ) -> Option<Result<TurnOutcome, String>> {
        let keyword = keyword_rules().meaning(message);
        let has_opted_out = self.has_opted_out.load(Ordering::Relaxed);
        let (change, confirmation) = match ConsentEffect::of(keyword.as_ref(), has_opted_out) {
            ConsentEffect::Ordinary => return None,
            ConsentEffect::OptedOut => (None, String::new()),
            ConsentEffect::Keyword {
                change,
                opted_out,
                confirmation,
            } => {
                self.has_opted_out.store(opted_out, Ordering::Relaxed);
                (change, confirmation)
            }
        };
        // No reply of the server: the user has opted out, or Twilio confirms the keyword itself.
        if confirmation.is_empty() {
            return Some(Ok(TurnOutcome::Replies(Vec::new())));
        }
        let (text, key) = if change == Some(ConsentAction::OptOut) {
            (&texts.stop, "stop_reply")
        } else {
            (&texts.start, "start_reply")
        };
        Some(match text {
            // As in the settings, an empty text means no confirmation.
            Some(text) if text.is_empty() => Ok(TurnOutcome::Replies(Vec::new())),
            Some(text) => Ok(TurnOutcome::Replies(vec![ExampleMessage {
                text: text.clone(),
                media: Some(Vec::new()),
            }])),
            // The settings are not known here, so an example cannot expect their texts.
            None => Err(format!(
                "the text of the setting consent.{key}, and not the reply of a rule: write opt_out.{key} to set it here"
            )),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.state.lock().ignore_poison()
    }
}

/// Returns the consent rules of the default settings.
fn keyword_rules() -> ConsentRules {
    // Any text: the outcome of a turn has the text of the rules file instead, if a confirmation is sent at all.
    let confirmation = Document::from_stored(Some("confirmation".to_owned()));
    let replies = ConsentReplies {
        stop: confirmation.clone(),
        start: confirmation,
    };
    ConsentRules::new(Keywords::usual(), replies)
}

impl Example {
    pub(super) fn run(
        &self,
        router: &Router,
        opt_out: &OptOutTexts,
        has_forwarded: &AtomicBool,
        channel: &Channel,
        settings: &ExampleSettings,
    ) -> ExampleResult {
        let conversation = Arc::new(ExampleConversation {
            question: ExampleQuestion::new(settings.clone()),
            ..ExampleConversation::default()
        });
        let mut failure = None;
        let mut next_at = self.at;
        for (number, turn) in (0..).zip(&self.turns) {
            has_forwarded.store(false, Ordering::Relaxed);
            // By default one second after the previous turn, also if that one has a time of its own.
            let at = turn.at.unwrap_or(next_at);
            next_at = at.checked_add(SignedDuration::from_secs(1)).unwrap_or(at);
            let message = self.message(number, at, turn, channel, &conversation.question);
            let found = message.and_then(|message| {
                if let Some(outcome) = conversation.consent_outcome(&message, opt_out) {
                    return outcome;
                }
                if conversation.is_handed_off.load(Ordering::Relaxed) {
                    return Ok(TurnOutcome::HandsOff);
                }
                let reply = Self::run_turn(router, &conversation, message)?;
                if reply.redirect_target().is_some() || reply.handoff_start().is_some() {
                    conversation.is_handed_off.store(true, Ordering::Relaxed);
                    return Ok(TurnOutcome::HandsOff);
                }
                if has_forwarded.load(Ordering::Relaxed) {
                    return Ok(TurnOutcome::Forwards);
                }
                let messages = reply.messages().iter();
                Ok(TurnOutcome::Replies(
                    messages.map(ExampleMessage::from_message).collect(),
                ))
            });
            // Also after a keyword or a handoff: the server stores every message, and the first contact is the first one.
            conversation.has_begun.store(true, Ordering::Relaxed);
            if !found
                .as_ref()
                .is_ok_and(|found| turn.expected.matches(found))
            {
                failure = Some(ExampleFailure {
                    line: turn.line,
                    expected: turn.expected.to_string(),
                    found: found.map_or_else(|reason| reason, |found| found.to_string()),
                });
                // Later turns depend on this one, and their failures would only distract.
                break;
            }
        }
        ExampleResult {
            name: self.name.clone(),
            failure,
        }
    }

    fn message(
        &self,
        number: u32,
        at: Timestamp,
        turn: &ExampleTurn,
        channel: &Channel,
        question: &ExampleQuestion,
    ) -> Result<InboundMessage, String> {
        let address = |channel: &Channel, id: &str| match channel {
            Channel::Sms => id.to_owned(),
            channel => format!("{}:{id}", channel.as_str()),
        };
        let own_channel = self
            .from
            .as_deref()
            .map(|from| Address::parse(from).channel().clone());
        let to = address(own_channel.as_ref().unwrap_or(channel), DEFAULT_SENDER);
        let from = self
            .from
            .clone()
            .unwrap_or_else(|| address(channel, DEFAULT_PHONE));
        let sid = format!("SM{number:032x}");
        let base = [
            ("MessageSid", sid.as_str()),
            ("AccountSid", "AC00000000000000000000000000000000"),
            ("From", from.as_str()),
            ("To", to.as_str()),
        ];
        let name = self
            .profile_name
            .as_deref()
            .map(|name| ("ProfileName", name));
        let turn_params = turn
            .params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        // Parsed like a webhook, so that the rules get the same message as in the server.
        let form: FormParams = base.into_iter().chain(name).chain(turn_params).collect();
        let form = question.tap(form)?;
        InboundMessage::parse(form, at).map_err(|error| error.to_string())
    }

    fn run_turn(
        router: &Router,
        conversation: &Arc<ExampleConversation>,
        mut message: InboundMessage,
    ) -> Result<Reply, String> {
        let at = message.received_at;
        let is_answered = conversation.question.resolve(&mut message);
        let answered = message.clone();
        let cx = Context::new(1, at).in_conversation(conversation.clone(), at);
        let state_store = cx.state_store();
        // One poll suffices without a runtime: no part of the rules waits, and the service is a stand-in.
        let reply = router.handle(cx, message).now_or_never();
        let mut reply = reply
            .ok_or("the rules did not finish")?
            .map_err(|error| error.to_string())?;
        // Only now, because a handler that fails changes no state in the server either.
        match state_store.change() {
            // The expiry is in the entries too, and is checked when the next turn loads them.
            Some(StateChange::Set(text, _)) => *conversation.lock() = Some(text),
            Some(StateChange::Clear) => *conversation.lock() = None,
            None => {}
        }
        conversation
            .question
            .record(&mut reply, &answered, is_answered);
        Ok(reply)
    }
}

impl TurnOutcome {
    fn matches(&self, found: &Self) -> bool {
        match (self, found) {
            (Self::Forwards, Self::Forwards) | (Self::HandsOff, Self::HandsOff) => true,
            (Self::Replies(expected), Self::Replies(found)) => {
                expected.len() == found.len()
                    && expected.iter().zip(found).all(|(expected, found)| {
                        expected.text == found.text
                            && (expected.media.is_none() || expected.media == found.media)
                    })
            }
            _ => false,
        }
    }
}

impl ExampleMessage {
    fn from_message(message: &ReplyMessage) -> Self {
        let media = message.media_files().iter();
        let media = media.filter_map(|media| media.link().map(str::to_owned));
        Self {
            text: message.body().to_owned(),
            media: Some(media.collect()),
        }
    }
}

impl fmt::Display for ExampleMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)?;
        match self.media.as_deref() {
            None | Some([]) => Ok(()),
            Some(media) => write!(f, " with {}", media.join(", ")),
        }
    }
}

impl fmt::Display for TurnOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwards => f.write_str("a call of the service"),
            Self::HandsOff => f.write_str("a handoff"),
            Self::Replies(texts) if texts.is_empty() => f.write_str("no reply"),
            Self::Replies(texts) => {
                let texts: Vec<_> = texts.iter().map(ExampleMessage::to_string).collect();
                f.write_str(&texts.join(", "))
            }
        }
    }
}
