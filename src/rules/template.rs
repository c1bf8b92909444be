//! Templates: texts of a rules file that are rendered for each message.
//!
//! They are rendered by minijinja, in the subset of Jinja that [`super::language`] allows. Undefined names are errors.
//! Fuel limits the steps and the bytes of a rendering. Output is not escaped here: the writer of TwiML or of a REST
//! request does.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use minijinja::value::{Rest, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};

use super::language::Checked;
use super::reader::{self, Fields, Located, RulesReader, is_name};
use super::{flow, language};
use crate::address::Channel;
use crate::address_pattern::country_of;
use crate::dialogue::Answers;
use crate::handler::HandlerError;
use crate::message::InboundMessage;
use crate::reply::{convert_markdown, escape_markup};
use crate::route::Extracted;
use crate::spelling::nearest;

/// Maximum cost of one rendering, in steps and in units of 64 bytes of data.
// A long reply takes some hundreds. A template that never ends is stopped within milliseconds.
const MAX_RENDER_FUEL: u64 = 20_000;

/// Names of every template, besides those of `[vars]`, of a pattern's groups and of a form's fields.
pub(super) const BUILT_IN_NAMES: [&str; 20] = [
    "args",
    "body",
    "button",
    "channel",
    "choice",
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

/// All templates of a file, and the variables that they share.
pub(super) struct RulesTemplates {
    env: Environment<'static>,
    zone: TimeZone,
    vars: BTreeMap<String, Value>,
    count: usize,
}

/// One template.
#[derive(Clone)]
pub(super) enum RulesTemplate {
    /// A text without tags, which is not rendered.
    Plain(Arc<str>),
    /// The name of a template in the environment.
    Named {
        name: Arc<str>,
        source: Arc<str>,
        line: usize,
    },
}

/// The reason why a reply could not be rendered.
// Logged, so it names the line of the rules file and never quotes a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuleError {
    #[error("line {line} of the rules cannot be rendered: {reason}")]
    Render { line: usize, reason: &'static str },
    #[error("line {line} of the rules has a media URL that is not an http or https URL")]
    MediaUrl { line: usize },
    #[error("line {line} of the rules renders to over 64 KiB")]
    TooLarge { line: usize },
}

/// The values with which a template is rendered.
pub(super) struct TemplateInput<'a> {
    pub(super) message: &'a InboundMessage,
    /// The values that the rule's condition captured.
    pub(super) captures: Option<&'a Extracted>,
    /// The names that the rule's condition may capture. Those without a value are empty.
    pub(super) names: &'a [String],
    /// The fields of the form. Those without an answer are empty.
    pub(super) fields: &'a [String],
    pub(super) answers: Option<&'a Answers>,
}

impl RulesTemplates {
    pub(super) fn new(zone: &str) -> Self {
        let mut env = Environment::new();
        // Strict: a part of a missing value, such as `location.latitude`, must fail and not send a gap to the user.
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        // A reply is plain text. Escaping for TwiML happens when the reply is written.
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_formatter(|out, state, value| match value.kind() {
            // A missing value is empty: minijinja would print "none".
            ValueKind::None => Ok(()),
            ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain => {
                let reason = "a list is not a text";
                Err(Error::new(ErrorKind::InvalidOperation, reason))
            }
            _ => minijinja::escape_formatter(out, state, value),
        });
        env.set_fuel(Some(MAX_RENDER_FUEL));
        env.add_filter("escape_markup", |text: &str| {
            escape_markup(text).into_owned()
        });
        env.add_filter("markdown", markdown);
        env.add_filter("default", default);
        Self {
            env,
            // Never UTC by mistake: `when::read_times` has checked the zone.
            zone: TimeZone::get(zone).unwrap_or(TimeZone::UTC),
            vars: BTreeMap::new(),
            count: 0,
        }
    }

    /// Reads `[vars]`: texts, numbers and booleans.
    pub(super) fn read_vars(&mut self, reader: &mut RulesReader<'_>, fields: &Fields<'_>) {
        for (name, value) in fields.entries() {
            if BUILT_IN_NAMES.contains(&name.value.as_str()) {
                let text = format!(
                    "{} is a name that every template has: choose another name",
                    name.value
                );
                reader.add_problem(&name.span, text);
                continue;
            }
            if !is_name(&name.value) {
                let text = format!(
                    "{:?} cannot be named in a template: write letters, digits and _",
                    name.value
                );
                reader.add_problem(&name.span, text);
                continue;
            }
            let toml_value = value.get_ref();
            let found = if let Some(text) = toml_value.as_str() {
                Some(Value::from(text))
            } else if let Some(flag) = toml_value.as_bool() {
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
                None => {
                    reader.add_problem(&value.span(), "write a text, a number, or true or false");
                }
            }
        }
    }

    /// Adds a template, which may use `names` besides the names of every template.
    ///
    /// Returns `None` if it has problems.
    pub(super) fn add(
        &mut self,
        reader: &mut RulesReader<'_>,
        text: &Located<String>,
        names: &[String],
    ) -> Option<RulesTemplate> {
        let source = text.value.clone();
        self.add_source(reader, text, names, source, language::check_template)
    }

    /// Adds a condition, as it is written in `{% if … %}`.
    ///
    /// Returns `None` if it has problems.
    pub(super) fn add_condition(
        &mut self,
        reader: &mut RulesReader<'_>,
        text: &Located<String>,
        names: &[String],
    ) -> Option<RulesTemplate> {
        // Wrap the expression in a template that renders to "yes" or nothing; see `holds`.
        let source = format!("{{% if {} %}}yes{{% endif %}}", text.value);
        self.add_source(reader, text, names, source, language::check_expression)
    }

    /// Adds `source` as a template. `check` checks the written text.
    fn add_source(
        &mut self,
        reader: &mut RulesReader<'_>,
        text: &Located<String>,
        names: &[String],
        source: String,
        check: fn(&str) -> Checked<'_>,
    ) -> Option<RulesTemplate> {
        if source.len() > language::MAX_BYTES {
            let message = format!(
                "over {} KiB: ten messages of 1600 characters hold no more",
                language::MAX_BYTES / 1024
            );
            reader.add_problem(&text.span, message);
            return None;
        }
        if !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark)) {
            return Some(RulesTemplate::Plain(source.into()));
        }
        // Before minijinja compiles it: a template that is nested too deeply would overflow its stack.
        let used = match check(&text.value) {
            Ok(used) => used,
            Err(problems) => {
                for problem in problems {
                    let message = format!("invalid template: {}", problem.message);
                    reader.add_problem_within(text, problem.at, message);
                }
                return None;
            }
        };
        self.count += 1;
        let name = self.count.to_string();
        if let Err(error) = self.env.add_template_owned(name.clone(), source) {
            let message = error.detail().unwrap_or("it cannot be read");
            reader.add_problem_within(text, 0, format!("invalid template: {message}"));
            return None;
        }
        // Report unknown names when the file is read, and not when the first message needs the template.
        let mut is_known = true;
        let known = || {
            let own = self.vars.keys().chain(names).map(String::as_str);
            own.chain(BUILT_IN_NAMES)
        };
        let mut unknown: Vec<_> = used
            .into_iter()
            .filter(|(used, _)| !known().any(|known| known == *used))
            .collect();
        // Each name once, where it is used first.
        unknown.sort_unstable();
        unknown.dedup_by_key(|(used, _)| *used);
        for (used, at) in unknown {
            is_known = false;
            let message = if let Some(nearest) = nearest(used, known()) {
                format!("{used} is not defined here: did you mean {nearest}?")
            } else {
                let all: Vec<_> = known().collect();
                format!(
                    "{used} is not defined here: write one of {}",
                    all.join(", ")
                )
            };
            reader.add_problem_within(text, at, message);
        }
        let line = reader.line(text.span.start);
        is_known.then(|| RulesTemplate::Named {
            name: name.into(),
            source: text.value.as_str().into(),
            line,
        })
    }

    pub(super) fn render(
        &self,
        template: &RulesTemplate,
        variables: &Value,
    ) -> Result<String, HandlerError> {
        let (name, line) = match template {
            RulesTemplate::Plain(text) => return Ok(text.to_string()),
            RulesTemplate::Named { name, line, .. } => (name, *line),
        };
        let template = self.env.get_template(name);
        let rendered = template.and_then(|template| template.render(variables));
        // Not minijinja's own text: it may quote what a user wrote, and this is logged.
        rendered.map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::OutOfFuel => "it takes too long or gets too large",
                ErrorKind::UndefinedError => "it uses a value that this message does not have",
                ErrorKind::InvalidOperation => {
                    "it calculates with a text, divides by 0, converts a text that is not a number (int(0) makes it 0), \
                     or prints a list or an object"
                }
                ErrorKind::MissingArgument | ErrorKind::TooManyArguments => {
                    "a filter or a test has too few or too many arguments"
                }
                _ => "its template fails",
            };
            HandlerError::new(RuleError::Render { line, reason })
        })
    }

    /// Returns whether a condition of [`add_condition`](Self::add_condition) holds.
    pub(super) fn holds(
        &self,
        condition: &RulesTemplate,
        input: &TemplateInput<'_>,
    ) -> Result<bool, HandlerError> {
        let rendered = self.render(condition, &self.variables(input))?;
        Ok(rendered == "yes")
    }

    /// Returns the variables of a rendering.
    pub(super) fn variables(&self, input: &TemplateInput<'_>) -> Value {
        let message = input.message;
        // A missing text is empty and not undefined, so that `{{ profile_name or 'friend' }}` works.
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
        let choice = message.choice().map(|chosen| {
            Value::from_pairs([
                ("id", Value::from(chosen.id)),
                ("title", Value::from(chosen.title)),
                ("via", Value::from(chosen.via.as_str())),
                ("key", Value::from(chosen.key.unwrap_or_default())),
                ("current", Value::from(chosen.current)),
            ])
        });
        let country = country_of(message);
        let replied_to = message
            .replied_to
            .as_ref()
            .map(|quoted| quoted.message_sid.as_str());
        let args = input.captures.and_then(Extracted::command_args);
        // A missing object is none: it prints nothing and is false, but using a part of it fails.
        let none = || Value::from(());
        let built_in = [
            ("args", text(args)),
            ("body", Value::from(message.body.as_str())),
            ("button", button.unwrap_or_else(none)),
            ("channel", Value::from(message.channel().as_str())),
            ("choice", choice.unwrap_or_else(none)),
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
        let names = input.names.iter().map(|name| (name.as_str(), text(None)));
        let captures = input.captures.into_iter().flat_map(Extracted::named_groups);
        let captures = captures.map(|(name, value)| (name, text(value)));
        let fields = input.fields.iter().map(|field| (field.as_str(), none()));
        let answers = input.answers.into_iter().flat_map(Answers::values);
        let answers = answers.map(|(field, value)| (field.as_str(), Value::from(Serde(value))));
        // The last of equal names wins: captured values replace the empty ones, and answers the missing ones. The names
        // of `built_in` cannot be redefined, which is checked when the file is read.
        Value::from_pairs(
            built_in
                .into_iter()
                .chain(vars)
                .chain(names)
                .chain(captures)
                .chain(fields)
                .chain(answers),
        )
    }
}

/// The filter `markdown`: converts Markdown for the channel of the message.
fn markdown(state: &State<'_, '_>, text: &str) -> String {
    let channel = state.lookup("channel");
    let is_whatsapp = channel.is_some_and(|name| name.as_str() == Some(Channel::WhatsApp.as_str()));
    // All other channels get plain text.
    let channel = if is_whatsapp {
        Channel::WhatsApp
    } else {
        Channel::Sms
    };
    convert_markdown(text, &channel).into_owned()
}

/// The filter `default`: replaces a missing or empty value. With `true` as second argument, 0 and false too.
// Jinja's own filter replaces undefined values. Here every known name is defined, and a missing value is empty or none.
fn default(value: &Value, Rest(others): Rest<Value>) -> Value {
    let mut others = others.into_iter();
    let other = others.next().unwrap_or_else(|| Value::from(""));
    let is_strict = !others.next().is_some_and(|lax| lax.is_true());
    let has_value = match value.kind() {
        ValueKind::Bool | ValueKind::Number if is_strict => true,
        _ => value.is_true(),
    };
    if has_value { value.clone() } else { other }
}

impl RulesTemplate {
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
