//! `[[form]]`: questions in a row.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Number;

use super::pattern::problem;
use super::reader::{At, Fields, Reader, is_name, nearest};
use super::saying::{self, Say};
use super::template::{self, Said, Template, Templates};
use crate::handler::HandlerError;
use crate::handler::dialogue::{Answers, Form, Question};
use crate::handler::folding::normal;
use crate::handler::route::Pattern as Compiled;
use crate::message::InboundMessage;
use crate::reply::Reply;

/// A form as it is read; it is made once all templates are known.
pub(super) struct Asking {
    pub(super) name: At<String>,
    version: u32,
    questions: Vec<Asked>,
    cancel: Vec<String>,
    cancelled: Vec<Say>,
    lasts: Option<Duration>,
    done: Vec<Say>,
}

struct Asked {
    field: String,
    question: Vec<Say>,
    hint: Vec<Say>,
    only_if: Option<Template>,
    kind: Kind,
}

/// Of one form.
const MOST_QUESTIONS: usize = 100;

/// How an answer is read.
#[derive(Clone)]
enum Kind {
    Text,
    Integer,
    Number,
    YesOrNo,
    Choice(Vec<String>),
    Pattern(Compiled),
    Media,
    Location,
}

const KINDS: [(&str, Kind); 6] = [
    ("text", Kind::Text),
    ("integer", Kind::Integer),
    ("number", Kind::Number),
    ("yes_or_no", Kind::YesOrNo),
    ("media", Kind::Media),
    ("location", Kind::Location),
];

/// Reads one `[[form]]`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    templates: &mut Templates,
    mut fields: Fields<'_>,
) -> Option<Asking> {
    let span = fields.span.clone();
    let name = reader.text(&mut fields, "name");
    if name.is_none() {
        reader.problem(&span, "a form needs a name, for ask = \"…\" in a rule");
    }
    let version = reader.count(&mut fields, "version").unwrap_or(1);
    let cancel = fields.take("cancel");
    let cancel = cancel
        .and_then(|value| reader.filled_texts(value, "cancel"))
        .unwrap_or_default();
    let cancelled = fields.take("cancelled");
    if let (Some(cancelled), true) = (cancelled, cancel.is_empty()) {
        let text = "cancelled is never said: write cancel, the words that end the form";
        reader.problem(&cancelled.span(), text);
    }
    let cancelled = cancelled.map(|value| saying::read(reader, templates, value, &[]));
    let lasts = reader.text(&mut fields, "expires").and_then(|text| {
        let lasts = duration(&text.value);
        if lasts.is_none() {
            let what = "expires is a time, as in \"30m\", \"24h\" or \"7d\"";
            reader.problem(&text.span, what);
        }
        lasts
    });
    let mut questions: Vec<Asked> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let tables = reader.tables(&mut fields, "ask", "[[form.ask]] above each question");
    if tables.is_empty() && !fields.has("ask") {
        reader.problem(
            &span,
            "a form needs questions: [[form.ask]] with field and question",
        );
    }
    if tables.len() > MOST_QUESTIONS {
        let text = format!("over {MOST_QUESTIONS} questions: nobody answers as many");
        reader.problem(&tables[MOST_QUESTIONS].span, text);
    }
    for table in tables.into_iter().take(MOST_QUESTIONS) {
        // Also of a question with a problem: that it is not defined is no second one.
        let field = table.peek("field").filter(|field| is_name(field));
        let asked = ask(reader, templates, table, &names);
        names.extend(field.map(str::to_owned));
        questions.extend(asked);
    }
    let done = fields.take("done");
    let done = done.map(|value| saying::read(reader, templates, value, &names));
    if reader.end(&fields) && done.is_none() {
        reader.problem(
            &span,
            "a form needs done: what is said when all has been answered",
        );
    }
    Some(Asking {
        name: name?,
        version,
        questions,
        cancel,
        cancelled: cancelled.unwrap_or_default(),
        lasts,
        done: done?,
    })
}

fn ask(
    reader: &mut Reader<'_>,
    templates: &mut Templates,
    mut fields: Fields<'_>,
    names: &[String],
) -> Option<Asked> {
    let span = fields.span.clone();
    let field = reader.text(&mut fields, "field");
    if let Some(field) = &field {
        if !is_name(&field.value) {
            reader.problem(&field.span, "field is a name of letters, digits and _");
        } else if template::NAMES.contains(&field.value.as_str()) || names.contains(&field.value) {
            reader.problem(
                &field.span,
                format!("there is a {} already: take another name", field.value),
            );
        }
    }
    let question = fields.take("question");
    let question = question.map(|value| saying::read(reader, templates, value, names));
    let hint = fields.take("hint");
    let hint = hint.map(|value| saying::read(reader, templates, value, names));
    let only_if = reader.text(&mut fields, "if");
    let only_if = only_if.map(|text| templates.add_condition(reader, &text, names));
    let kind = kind(reader, &mut fields);
    let is_whole = fields.has("field") && fields.has("question");
    if reader.end(&fields) && !is_whole {
        reader.problem(&span, "a question needs field and question");
    }
    Some(Asked {
        field: field?.value,
        question: question?,
        hint: hint.unwrap_or_default(),
        only_if: match only_if {
            Some(only_if) => Some(only_if?),
            None => None,
        },
        kind: kind?,
    })
}

/// `type`, `choice` or `pattern`.
fn kind(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Kind> {
    let name = reader.text(fields, "type");
    let choice = fields.take("choice");
    let pattern = reader.text(fields, "pattern");
    let ways = [name.is_some(), choice.is_some(), pattern.is_some()];
    if ways.iter().filter(|is_used| **is_used).count() > 1 {
        let text = "an answer is read in one way: by type, choice or pattern";
        reader.problem(&fields.span.clone(), text);
    }
    if let Some(choice) = choice {
        return reader.filled_texts(choice, "choice").map(Kind::Choice);
    }
    if let Some(pattern) = pattern {
        // By itself first: what it lacks, the brackets around it could lend it.
        let whole = format!("^(?:{})$", pattern.value);
        let alone = Compiled::check_syntax(&pattern.value).map_err(|error| problem(&error));
        return match alone.and_then(|()| reader.pattern(&whole)) {
            Ok(pattern) => Some(Kind::Pattern(pattern)),
            Err(text) => {
                reader.problem(&pattern.span, text);
                None
            }
        };
    }
    let Some(name) = name else {
        return Some(Kind::Text);
    };
    let known = KINDS.iter().find(|(known, _)| *known == name.value);
    if known.is_none() {
        let names = KINDS.iter().map(|(name, _)| *name);
        let text = match nearest(&name.value, names.clone()) {
            Some(known) => format!("type is {:?}: did you mean {known:?}?", name.value),
            None => format!(
                "type is {:?}: write {}",
                name.value,
                names.collect::<Vec<_>>().join(", ")
            ),
        };
        reader.problem(&name.span, text);
    }
    known.map(|(_, kind)| kind.clone())
}

/// A number, whole where it is. People write 3,5 where others write 3.5; what 1,000 is nobody knows.
fn number(text: &str) -> Option<Number> {
    let text = normal(text).replace(',', ".");
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if let Some((before, after)) = text.split_once('.') {
        let is_thousand = after.len() == 3 && !matches!(before.trim_matches(['-', '+', '0']), "");
        if is_thousand {
            return None;
        }
    }
    let number: f64 = text.parse().ok()?;
    if number.fract() == 0.0 && number.abs() < 1e15 {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small")]
        return Some((number as i64).into());
    }
    Number::from_f64(number)
}

/// `90s`, `30m`, `24h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .trim_end()
        .parse()
        .ok()
        .filter(|number| *number > 0)?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = number
        .checked_mul(unit)
        .filter(|seconds| *seconds <= 365 * 86_400)?;
    Some(Duration::from_secs(seconds))
}

impl Asking {
    /// The form, with the templates of the whole file.
    pub(super) fn form(self, templates: &Arc<Templates>) -> Form {
        let fields = self.questions.iter().map(|asked| asked.field.clone());
        let saying = Saying {
            templates: templates.clone(),
            fields: fields.collect(),
        };
        let mut form = Form::new(self.name.value).version(self.version);
        for asked in self.questions {
            form = form.ask(asked.field.clone(), asked.question(&saying));
        }
        if let Some(lasts) = self.lasts {
            form = form.expires_in(lasts);
        }
        let (cancelled, of_cancelled) = (self.cancelled, saying.clone());
        form = form.cancel_with(self.cancel, move |message| {
            of_cancelled.reply(&cancelled, &Answers::default(), message)
        });
        let done = self.done;
        form.done_with(move |_cx, message, answers| {
            let reply = saying.reply(&done, &answers, message);
            Box::pin(std::future::ready(reply))
        })
    }
}

/// What a form says things with.
#[derive(Clone)]
struct Saying {
    templates: Arc<Templates>,
    fields: Arc<[String]>,
}

impl Saying {
    fn said<'a>(&'a self, answers: &'a Answers, message: &'a InboundMessage) -> Said<'a> {
        Said {
            message,
            taken: None,
            names: &[],
            fields: &self.fields,
            answers: Some(answers),
        }
    }

    fn reply(
        &self,
        says: &[Say],
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        self.templates.reply(says, &self.said(answers, message))
    }
}

impl Asked {
    fn question(self, saying: &Saying) -> Question {
        let (says, of_question) = (self.question, saying.clone());
        let mut question =
            Question::try_with(move |answers, message| of_question.reply(&says, answers, message));
        question = match self.kind {
            Kind::Text => question,
            Kind::Integer => question.parse::<i64>(),
            Kind::Number => question.parse_with(|message| number(&message.body).ok_or(None)),
            Kind::YesOrNo => question.yes_or_no(),
            Kind::Choice(choices) => question.choice(choices),
            Kind::Pattern(pattern) => question.parse_with(move |message| {
                let text = message.body.trim();
                pattern.is_match(text).then(|| text.to_owned()).ok_or(None)
            }),
            Kind::Media => question.media(),
            Kind::Location => question.location(),
        };
        if !self.hint.is_empty() {
            let (says, of_hint) = (self.hint, saying.clone());
            question =
                question.try_or(move |answers, message| of_hint.reply(&says, answers, message));
        }
        if let Some(condition) = self.only_if {
            let saying = saying.clone();
            question = question.try_only_if(move |answers, message| {
                saying
                    .templates
                    .holds(&condition, &saying.said(answers, message))
            });
        }
        question
    }
}
