//! `[[example]]`: what a rules file says of itself, run as tests.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use super::problem::place;
use super::reader::{Fields, Reader};
use crate::form::Form;
use crate::handler::route::Router;
use crate::handler::{Context, Conversing, Handler, HandlerError, Remember, Said};
use crate::message::InboundMessage;
use crate::reply::Reply;

/// One conversation.
pub(super) struct Example {
    name: String,
    from: String,
    profile_name: Option<String>,
    at: Timestamp,
    turns: Vec<Turn>,
}

struct Turn {
    line: usize,
    params: Vec<(String, String)>,
    expected: Expected,
}

#[derive(Clone, PartialEq, Eq)]
enum Expected {
    /// These texts, one a message; without any nothing.
    Gets(Vec<String>),
    /// It is handed over.
    Forwards,
}

/// How an example went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExampleResult {
    /// Its name, or its number.
    pub name: String,
    /// The first turn that went otherwise, if one did.
    pub failure: Option<ExampleFailure>,
}

/// A turn that went otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExampleFailure {
    /// Where the turn stands in the file.
    pub line: usize,
    /// What the file says.
    pub expected: String,
    /// What happened.
    pub found: String,
}

const FROM: &str = "whatsapp:+15550001111";
/// A Monday morning.
const AT: &str = "2026-01-05T09:00:00Z";

/// Reads one `[[example]]`.
pub(super) fn read(reader: &mut Reader<'_>, mut fields: Fields<'_>) -> Option<Example> {
    let (line, _) = place(reader.source, fields.span.start);
    let name = reader.text(&mut fields, "name").map(|name| name.value);
    let from = reader.text(&mut fields, "from").map(|from| from.value);
    let profile_name = reader
        .text(&mut fields, "profile_name")
        .map(|name| name.value);
    let at = reader.text(&mut fields, "at").and_then(|text| {
        let at: Option<Timestamp> = text.value.parse().ok();
        if at.is_none() {
            let what = "at is a time, as in \"2026-01-05T09:00:00Z\"";
            reader.problem(&text.span, what);
        }
        at
    });
    let tables = reader.tables(&mut fields, "turns");
    let mut turns: Vec<_> = tables
        .into_iter()
        .filter_map(|table| turn_of_table(reader, table))
        .collect();
    // One turn needs no table of its own.
    if turns.is_empty() {
        turns.extend(turn(reader, &mut fields));
    }
    reader.end(&fields);
    if turns.is_empty() {
        return None;
    }
    Some(Example {
        name: name.unwrap_or_else(|| format!("line {line}")),
        from: from.unwrap_or_else(|| FROM.to_owned()),
        profile_name,
        at: at.unwrap_or_else(|| AT.parse().unwrap_or_default()),
        turns,
    })
}

fn turn_of_table(reader: &mut Reader<'_>, mut fields: Fields<'_>) -> Option<Turn> {
    let turn = turn(reader, &mut fields);
    reader.end(&fields);
    turn
}

fn turn(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Turn> {
    let span = fields.span.clone();
    let (line, _) = place(reader.source, span.start);
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
    if let Some(mut location) = reader.table(fields, "location") {
        let latitude = reader.number(&mut location, "latitude");
        let longitude = reader.number(&mut location, "longitude");
        reader.end(&location);
        params.push(("Latitude".to_owned(), latitude?.to_string()));
        params.push(("Longitude".to_owned(), longitude?.to_string()));
    }
    if let Some(more) = reader.table(fields, "params") {
        for (name, value) in more.entries() {
            match value.get_ref().as_str() {
                Some(value) => params.push((name.value, value.to_owned())),
                None => reader.problem(&value.span(), "a parameter is a text in quotes"),
            }
        }
    }
    let forwards = reader.flag(fields, "forwards").unwrap_or(false);
    let gets = fields.take("gets");
    if params.len() == 1 && says.is_none() {
        reader.problem(
            &span,
            "an example needs says, media, button, location or params",
        );
        return None;
    }
    let expected = match gets {
        Some(gets)
            if gets
                .get_ref()
                .as_array()
                .is_some_and(|texts| texts.is_empty()) =>
        {
            Expected::Gets(Vec::new())
        }
        Some(gets) => Expected::Gets(reader.texts(gets, "gets")?),
        None if forwards => Expected::Forwards,
        None => {
            reader.problem(
                &span,
                "an example needs gets, or forwards = true (gets = [] is nothing)",
            );
            return None;
        }
    };
    Some(Turn {
        line,
        params,
        expected,
    })
}

/// A stand-in for the service that rules hand over to, and whether it was asked.
pub(super) fn stand_in() -> (Arc<dyn Handler>, Arc<AtomicBool>) {
    let asked = Arc::new(AtomicBool::new(false));
    let is_asked = asked.clone();
    let handler = move |_cx: Context, _message: InboundMessage| {
        is_asked.store(true, Ordering::Relaxed);
        async {}
    };
    (Arc::new(handler), asked)
}

/// An example's conversation, between its turns.
#[derive(Default)]
struct Rehearsal {
    memory: Mutex<Option<String>>,
    has_begun: AtomicBool,
}

impl Conversing for Rehearsal {
    fn remembered(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>> {
        let text = self.lock().clone();
        Box::pin(std::future::ready(Ok(text)))
    }

    // Rules do not ask what was said.
    fn said(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<Said>, HandlerError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>> {
        let has_begun = self.has_begun.load(Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(!has_begun)))
    }
}

impl Rehearsal {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Example {
    pub(super) fn run(&self, router: &Router, has_forwarded: &AtomicBool) -> ExampleResult {
        let rehearsal = Arc::new(Rehearsal::default());
        let mut failure = None;
        for (number, turn) in (0..).zip(&self.turns) {
            has_forwarded.store(false, Ordering::Relaxed);
            let found = self.take_turn(router, &rehearsal, number, turn);
            let found = match found {
                Ok(_) if has_forwarded.load(Ordering::Relaxed) => Ok(Expected::Forwards),
                Ok(reply) => {
                    let messages = reply.messages().iter();
                    Ok(Expected::Gets(
                        messages.map(|message| message.body().to_owned()).collect(),
                    ))
                }
                Err(reason) => Err(reason),
            };
            if found.as_ref().ok() != Some(&turn.expected) {
                failure = Some(ExampleFailure {
                    line: turn.line,
                    expected: turn.expected.to_string(),
                    found: found.map_or_else(|reason| reason, |found| found.to_string()),
                });
                break;
            }
        }
        ExampleResult {
            name: self.name.clone(),
            failure,
        }
    }

    fn take_turn(
        &self,
        router: &Router,
        rehearsal: &Arc<Rehearsal>,
        number: i64,
        turn: &Turn,
    ) -> Result<Reply, String> {
        let at = self.at.checked_add(SignedDuration::from_secs(number));
        let at = at.unwrap_or(self.at);
        let to = if self.from.starts_with("whatsapp:") {
            "whatsapp:+15550002222"
        } else {
            "+15550002222"
        };
        let sid = format!("SM{number:032x}");
        let base = [
            ("MessageSid", sid.as_str()),
            ("AccountSid", "AC00000000000000000000000000000000"),
            ("From", self.from.as_str()),
            ("To", to),
        ];
        let name = self
            .profile_name
            .as_deref()
            .map(|name| ("ProfileName", name));
        let own = turn
            .params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let form: Form = base.into_iter().chain(name).chain(own).collect();
        let message = InboundMessage::parse(form, at).map_err(|error| error.to_string())?;
        let cx = Context::new(1, at).in_conversation(rehearsal.clone(), at);
        let memory = cx.memory();
        // Rules wait for nothing: what they hand over to is a stand-in.
        let reply = router.handle(cx, message).now_or_never();
        let reply = reply
            .ok_or("it does not come to an end")?
            .map_err(|error| error.to_string())?;
        rehearsal.has_begun.store(true, Ordering::Relaxed);
        match memory.change() {
            Some(Remember::This(text, _)) => *rehearsal.lock() = Some(text),
            Some(Remember::Nothing) => *rehearsal.lock() = None,
            None => {}
        }
        Ok(reply)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwards => f.write_str("a hand-over"),
            Self::Gets(texts) if texts.is_empty() => f.write_str("nothing"),
            Self::Gets(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
                f.write_str(&texts.join(", "))
            }
        }
    }
}
