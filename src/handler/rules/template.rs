//! Templates: texts of a rules file that say something else for each message.
//!
//! They are Jinja's, by minijinja, as far as [`super::language`] goes: undefined names are errors, output is not escaped
//! (whatever carries a reply escapes it), and fuel bounds the steps and the bytes of a rendering.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use minijinja::value::{Rest, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::reader::{self, At, Fields, Reader, is_name, nearest};
use super::{flow, language, tags};
use crate::handler::HandlerError;
use crate::handler::dialogue::Answers;
use crate::handler::route::{Taken, country_of};
use crate::message::InboundMessage;
use crate::reply::escape_markup;

/// Steps and 64 bytes of data each: a long reply takes some hundreds, and a bomb ends within milliseconds.
const FUEL: u64 = 20_000;

/// What every template may name, besides `[vars]`, a pattern's groups and a form's fields.
pub(super) const NAMES: [&str; 19] = [
    "args",
    "body",
    "button",
    "channel",
    "date",
    "from",
    "list",
    "location",
    "media",
    "message_sid",
    "profile_name",
    "text",
    "time",
    "to",
    "user",
    "weekday",
    "replied_to",
    "country",
    "flow",
];

/// All templates of a file, while it is read and afterwards.
pub(super) struct Templates {
    env: Environment<'static>,
    zone: TimeZone,
    vars: BTreeMap<String, Value>,
    number: usize,
}

/// One template: a text that says always the same, or the name of one that does not.
#[derive(Clone)]
pub(super) enum Template {
    Plain(Arc<str>),
    Named {
        name: Arc<str>,
        source: Arc<str>,
        line: usize,
    },
}

/// Why a rule says nothing. Never with content.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuleError {
    #[error("line {line} of the rules cannot be said: {reason}")]
    Render { line: usize, reason: &'static str },
    #[error("line {line} of the rules names a file that is no http or https URL")]
    MediaUrl { line: usize },
    #[error("line {line} of the rules says over 64 KiB")]
    TooLarge { line: usize },
}

/// What a template is rendered with.
pub(super) struct Said<'a> {
    pub(super) message: &'a InboundMessage,
    pub(super) taken: Option<&'a Taken>,
    /// Of what a rule may take; some of it may not have been there.
    pub(super) names: &'a [String],
    /// A form's fields, of which some may have no answer yet, or never.
    pub(super) fields: &'a [String],
    pub(super) answers: Option<&'a Answers>,
}

impl Templates {
    pub(super) fn new(zone: &str) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_formatter(|out, state, value| match value.kind() {
            // What is not there is not said.
            ValueKind::None => Ok(()),
            ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain => {
                let reason = "a list is no text";
                Err(Error::new(ErrorKind::InvalidOperation, reason))
            }
            _ => minijinja::escape_formatter(out, state, value),
        });
        env.set_fuel(Some(FUEL));
        env.add_filter("escape_markup", |text: &str| {
            escape_markup(text).into_owned()
        });
        env.add_filter("default", default);
        Self {
            env,
            zone: TimeZone::get(zone).unwrap_or(TimeZone::UTC),
            vars: BTreeMap::new(),
            number: 0,
        }
    }

    /// `[vars]`: texts, numbers, and true or false.
    pub(super) fn read_vars(&mut self, reader: &mut Reader<'_>, fields: &Fields<'_>) {
        for (name, value) in fields.entries() {
            if NAMES.contains(&name.value.as_str()) {
                let text = format!(
                    "{} is the name of something that every message has: take another",
                    name.value
                );
                reader.problem(&name.span, text);
                continue;
            }
            if !is_name(&name.value) {
                let text = format!(
                    "{:?} cannot be named in a template: write letters, digits and _",
                    name.value
                );
                reader.problem(&name.span, text);
                continue;
            }
            let value_of = value.get_ref();
            let found = if let Some(text) = value_of.as_str() {
                Some(Value::from(text))
            } else if let Some(flag) = value_of.as_bool() {
                Some(Value::from(flag))
            } else if let Some(whole) = reader::integer(value) {
                Some(Value::from(whole))
            } else {
                reader::number(value).map(Value::from)
            };
            match found {
                Some(value) => {
                    self.vars.insert(name.value, value);
                }
                None => reader.problem(&value.span(), "write a text, a number, or true or false"),
            }
        }
    }

    /// Reads a template that may use these names besides those that all may.
    pub(super) fn add(
        &mut self,
        reader: &mut Reader<'_>,
        text: &At<String>,
        names: &[String],
    ) -> Option<Template> {
        self.add_as(reader, text, names, text.value.clone(), 0)
    }

    /// A condition, as it stands in `{% if … %}`.
    pub(super) fn add_condition(
        &mut self,
        reader: &mut Reader<'_>,
        text: &At<String>,
        names: &[String],
    ) -> Option<Template> {
        const BEFORE: &str = "{% if ";
        let source = format!("{BEFORE}{} %}}yes{{% endif %}}", text.value);
        self.add_as(reader, text, names, source, BEFORE.len())
    }

    fn add_as(
        &mut self,
        reader: &mut Reader<'_>,
        text: &At<String>,
        names: &[String],
        source: String,
        before: usize,
    ) -> Option<Template> {
        if source.len() > language::MOST_BYTES {
            let what = format!(
                "over {} KiB: ten messages of 1600 characters hold no more",
                language::MOST_BYTES / 1024
            );
            reader.problem(&text.span, what);
            return None;
        }
        if !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark)) {
            return Some(Template::Plain(source.into()));
        }
        self.number += 1;
        let looked_at = match before {
            0 => language::look(&source),
            _ => language::look_at_expression(&text.value).map_err(|wrong| vec![wrong]),
        };
        if let Err(wrongs) = looked_at {
            for wrong in wrongs {
                reader.problem_within(text, wrong.at, format!("no template: {}", wrong.what));
            }
            return None;
        }
        let name = self.number.to_string();
        if let Err(error) = self.env.add_template_owned(name.clone(), source.clone()) {
            let at = error
                .range()
                .map_or(0, |range| range.start.saturating_sub(before));
            let what = error.detail().unwrap_or("it cannot be read");
            reader.problem_within(text, at, format!("no template: {what}"));
            return None;
        }
        let template = self.env.get_template(&name).ok()?;
        let mut is_known = true;
        let used = template.undeclared_variables(false);
        let known = || {
            let own = self.vars.keys().chain(names).map(String::as_str);
            own.chain(NAMES)
        };
        let mut unknown: Vec<_> = used
            .iter()
            .filter(|used| !known().any(|known| known == used.as_str()))
            .collect();
        unknown.sort();
        for used in unknown {
            is_known = false;
            let what = if let Some(nearest) = nearest(used, known()) {
                format!("{used} is not defined here: did you mean {nearest}?")
            } else {
                let own = self.vars.keys().chain(names).map(String::as_str);
                let all: Vec<_> = own.chain(NAMES).collect();
                format!("{used} is not defined here: there are {}", all.join(", "))
            };
            reader.problem_within(text, tags::place_of(&text.value, used), what);
        }
        let line = reader.line(text.span.start);
        is_known.then(|| Template::Named {
            name: name.into(),
            source: text.value.as_str().into(),
            line,
        })
    }

    pub(super) fn render(
        &self,
        template: &Template,
        variables: &Value,
    ) -> Result<String, HandlerError> {
        let (name, line) = match template {
            Template::Plain(text) => return Ok(text.to_string()),
            Template::Named { name, line, .. } => (name, *line),
        };
        let template = self.env.get_template(name);
        let rendered = template.and_then(|template| template.render(variables));
        // minijinja's text may quote a message.
        rendered.map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::OutOfFuel => "it takes too long or gets too large",
                ErrorKind::UndefinedError => "it uses what this message does not have",
                ErrorKind::InvalidOperation => {
                    "it calculates with a text, divides by 0, makes a number of what is none (int(0) then is 0), \
                     or says what is no text"
                }
                ErrorKind::MissingArgument | ErrorKind::TooManyArguments => {
                    "a filter or a test has too few things in its brackets, or too many"
                }
                _ => "its template fails",
            };
            HandlerError::new(RuleError::Render { line, reason })
        })
    }

    /// Whether a condition holds.
    pub(super) fn holds(
        &self,
        condition: &Template,
        said: &Said<'_>,
    ) -> Result<bool, HandlerError> {
        let rendered = self.render(condition, &self.variables(said))?;
        Ok(rendered == "yes")
    }

    pub(super) fn variables(&self, said: &Said<'_>) -> Value {
        let message = said.message;
        let text = |text: Option<&str>| Value::from(text.unwrap_or_default());
        let local = message.received_at.to_zoned(self.zone.clone());
        let media = message.media.iter().map(|media| {
            Value::from_pairs([
                ("url", Value::from(media.url.as_str())),
                ("content_type", text(media.content_type.as_deref())),
            ])
        });
        let location = message.location.as_ref().map(|at| {
            Value::from_pairs([
                ("latitude", Value::from(at.latitude)),
                ("longitude", Value::from(at.longitude)),
                ("address", text(at.address.as_deref())),
                ("label", text(at.label.as_deref())),
            ])
        });
        let button = message.button.as_ref().map(|button| {
            Value::from_pairs([
                ("text", text(button.text.as_deref())),
                ("payload", text(button.payload.as_deref())),
            ])
        });
        let list = message.list.as_ref().map(|list| {
            Value::from_pairs([
                ("id", text(list.id.as_deref())),
                ("title", text(list.title.as_deref())),
                ("description", text(list.description.as_deref())),
            ])
        });
        let country = country_of(message);
        let replied_to = message
            .replied_to
            .as_ref()
            .map(|quoted| quoted.message_sid.as_str());
        let args = said.taken.and_then(Taken::rest);
        let none = || Value::from(());
        let own = [
            ("args", text(args)),
            ("body", Value::from(message.body.as_str())),
            ("button", button.unwrap_or_else(none)),
            ("channel", Value::from(message.channel().as_str())),
            ("country", text(country)),
            ("date", Value::from(local.date().to_string())),
            ("flow", flow::value(message)),
            ("from", Value::from(message.from.as_str())),
            ("list", list.unwrap_or_else(none)),
            ("location", location.unwrap_or_else(none)),
            ("media", media.collect()),
            ("message_sid", Value::from(message.message_sid.as_str())),
            ("profile_name", text(message.profile_name.as_deref())),
            ("replied_to", text(replied_to)),
            ("text", Value::from(message.body.trim())),
            ("time", Value::from(local.strftime("%H:%M").to_string())),
            ("to", Value::from(message.to.as_str())),
            ("user", Value::from(message.from.id())),
            ("weekday", Value::from(local.strftime("%A").to_string())),
        ];
        let vars = self
            .vars
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        let names = said.names.iter().map(|name| (name.as_str(), text(None)));
        let taken = said.taken.into_iter().flat_map(Taken::named);
        let taken = taken.map(|(name, value)| (name, text(value)));
        let fields = said.fields.iter().map(|field| (field.as_str(), none()));
        let answers = said.answers.into_iter().flat_map(Answers::values);
        let answers = answers.map(|(field, value)| (field.as_str(), Value::from(Serde(value))));
        Value::from_pairs(
            own.into_iter()
                .chain(vars)
                .chain(names)
                .chain(taken)
                .chain(fields)
                .chain(answers),
        )
    }
}

/// Jinja's is for what is not defined, which nothing is here: what is not there is empty. `true` behind it takes 0 and false for
/// empty, too.
fn default(value: &Value, Rest(others): Rest<Value>) -> Value {
    let mut others = others.into_iter();
    let other = others.next().unwrap_or_else(|| Value::from(""));
    let is_strict = !others.next().is_some_and(|lax| lax.is_true());
    let is_there = match value.kind() {
        ValueKind::Bool | ValueKind::Number if is_strict => true,
        _ => value.is_true(),
    };
    if is_there { value.clone() } else { other }
}

impl Template {
    pub(super) fn source(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Named { source, .. } => source,
        }
    }

    pub(super) fn line(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Named { line, .. } => *line,
        }
    }
}
