//! `[[form]]`: forms, which ask several questions one after the other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Number;

use super::pattern::pattern_problem;
use super::reader::{Fields, Located, RulesReader, is_name};
use super::reply::{self, ReplyTemplate};
use super::template::{self, RulesTemplate, RulesTemplates, TemplateInput};
use crate::dialogue::{Answers, Form, Question};
use crate::folding::normalize;
use crate::handler::HandlerError;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::route::Pattern as CompiledPattern;
use crate::spelling::nearest;

/// The definition of a form in the file.
// Not a `Form` yet: a form shares the templates of the whole file, which are complete only after all of it is read.
pub(super) struct FormDef {
    pub(super) name: Located<String>,
    version: u32,
    questions: Vec<QuestionDef>,
    cancel_words: Vec<String>,
    cancel_reply: Vec<ReplyTemplate>,
    ttl: Option<Duration>,
    done_reply: Vec<ReplyTemplate>,
}

struct QuestionDef {
    field: String,
    question: Vec<ReplyTemplate>,
    hint: Vec<ReplyTemplate>,
    only_if: Option<RulesTemplate>,
    answer_type: AnswerType,
}

/// Maximum number of questions of one form.
const MAX_QUESTIONS: usize = 100;

/// The type of an answer.
#[derive(Clone)]
enum AnswerType {
    Text,
    Integer,
    Number,
    YesOrNo,
    Choice(Vec<String>),
    /// One of the choices that the question shows.
    Chosen,
    Pattern(CompiledPattern),
    Media,
    Location,
}

const ANSWER_TYPES: [(&str, AnswerType); 6] = [
    ("text", AnswerType::Text),
    ("integer", AnswerType::Integer),
    ("number", AnswerType::Number),
    ("yes_or_no", AnswerType::YesOrNo),
    ("media", AnswerType::Media),
    ("location", AnswerType::Location),
];

/// Reads one `[[form]]`.
pub(super) fn read(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    mut fields: Fields<'_>,
) -> Option<FormDef> {
    let span = fields.span.clone();
    let name = reader.text(&mut fields, "name");
    if name.is_none() {
        reader.add_problem(&span, "a form needs a name, for ask = \"…\" in a rule");
    }
    let version = reader.count(&mut fields, "version").unwrap_or(1);
    let cancel = fields.take("cancel");
    let cancel_span = cancel.map_or_else(|| span.clone(), toml::Spanned::span);
    let cancel = cancel
        .and_then(|value| reader.filled_texts(value, "cancel"))
        .unwrap_or_default();
    for word in &cancel {
        reader.add_answer(&cancel_span, word);
    }
    let canceled = fields.take("canceled");
    if let (Some(canceled), true) = (canceled, cancel.is_empty()) {
        let text = "canceled is never sent: write cancel, the words that end the form";
        reader.add_problem(&canceled.span(), text);
    }
    let canceled = canceled.map(|value| reply::read(reader, templates, value, &[]));
    let ttl = reader.text(&mut fields, "expires").and_then(|text| {
        let ttl = parse_duration(&text.value);
        if ttl.is_none() {
            let message = "expires is a time, as in \"30m\", \"24h\" or \"7d\"";
            reader.add_problem(&text.span, message);
        }
        ttl
    });
    let mut questions: Vec<QuestionDef> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let tables = reader.tables(&mut fields, "ask", "[[form.ask]] above each question");
    if tables.is_empty() && !fields.has("ask") {
        reader.add_problem(
            &span,
            "a form needs questions: [[form.ask]] with field and question",
        );
    }
    if tables.len() > MAX_QUESTIONS {
        let text = format!("over {MAX_QUESTIONS} questions in one form: write fewer");
        reader.add_problem(&tables[MAX_QUESTIONS].span, text);
    }
    for table in tables.into_iter().take(MAX_QUESTIONS) {
        // Peek: the field of a question with a problem is known too, so that its use is not a second problem.
        let field = table.peek("field").filter(|field| is_name(field));
        let question = read_question(reader, templates, table, &names);
        // After reading it: a question may use the answers of earlier questions only.
        names.extend(field.map(str::to_owned));
        questions.extend(question);
    }
    let done = fields.take("done");
    let done = done.map(|value| reply::read(reader, templates, value, &names));
    if reader.report_unknown_keys(&fields) && done.is_none() {
        reader.add_problem(
            &span,
            "a form needs done: the reply when all questions are answered",
        );
    }
    Some(FormDef {
        name: name?,
        version,
        questions,
        cancel_words: cancel,
        cancel_reply: canceled.unwrap_or_default(),
        ttl,
        done_reply: done?,
    })
}

fn read_question(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    mut fields: Fields<'_>,
    names: &[String],
) -> Option<QuestionDef> {
    let span = fields.span.clone();
    let field = reader.text(&mut fields, "field");
    if let Some(field) = &field {
        if !is_name(&field.value) {
            reader.add_problem(&field.span, "field is a name of letters, digits and _");
        } else if template::BUILT_IN_NAMES.contains(&field.value.as_str())
            || names.contains(&field.value)
        {
            reader.add_problem(
                &field.span,
                format!("there is a {} already: choose another name", field.value),
            );
        }
    }
    let question = fields.take("question");
    let question = question.map(|value| reply::read(reader, templates, value, names));
    let hint = fields.take("hint");
    let hint = hint.map(|value| reply::read(reader, templates, value, names));
    let only_if = reader.text(&mut fields, "if");
    let only_if = only_if.map(|text| templates.add_condition(reader, &text, names));
    let shows_choices = question
        .iter()
        .flatten()
        .any(|message| message.choices().is_some());
    let answer_type = read_answer_type(reader, &mut fields, shows_choices);
    // `has`, and not `is_some`: a value of a wrong type was reported, and is not missing.
    let has_required_keys = fields.has("field") && fields.has("question");
    if reader.report_unknown_keys(&fields) && !has_required_keys {
        reader.add_problem(&span, "a question needs field and question");
    }
    Some(QuestionDef {
        field: field?.value,
        question: question?,
        hint: hint.unwrap_or_default(),
        // A condition with a problem drops the question; without `if` it has no condition.
        only_if: match only_if {
            Some(only_if) => Some(only_if?),
            None => None,
        },
        answer_type: answer_type?,
    })
}

/// Reads the type of an answer: `type`, `choice` or `pattern`.
fn read_answer_type(
    reader: &mut RulesReader<'_>,
    fields: &mut Fields<'_>,
    shows_choices: bool,
) -> Option<AnswerType> {
    let name = reader.text(fields, "type");
    let choice = fields.take("choice");
    let pattern = reader.text(fields, "pattern");
    let keys = [name.is_some(), choice.is_some(), pattern.is_some()];
    if keys.iter().filter(|is_used| **is_used).count() > 1 {
        let text = "an answer is read in one way: by type, choice or pattern";
        reader.add_problem(&fields.span.clone(), text);
    }
    if let Some(choice) = choice {
        let texts = reader.filled_texts(choice, "choice");
        for text in texts.iter().flatten() {
            reader.add_answer(&choice.span(), text);
        }
        return texts.map(AnswerType::Choice);
    }
    if let Some(pattern) = pattern {
        // Check it by itself first: `a)|(b` is invalid, but would be valid within the brackets, and match parts.
        let anchored = format!("^(?:{})$", pattern.value);
        let checked =
            CompiledPattern::check_syntax(&pattern.value).map_err(|error| pattern_problem(&error));
        return match checked.and_then(|()| reader.compile_pattern(&anchored)) {
            Ok(pattern) => Some(AnswerType::Pattern(pattern)),
            Err(text) => {
                reader.add_problem(&pattern.span, text);
                None
            }
        };
    }
    let Some(name) = name else {
        return Some(if shows_choices {
            AnswerType::Chosen
        } else {
            AnswerType::Text
        });
    };
    let known = ANSWER_TYPES.iter().find(|(known, _)| *known == name.value);
    if known.is_none() {
        let names = ANSWER_TYPES.iter().map(|(name, _)| *name);
        let text = match nearest(&name.value, names.clone()) {
            Some(known) => format!("type is {:?}: did you mean {known:?}?", name.value),
            None => format!(
                "type is {:?}: write {}",
                name.value,
                names.collect::<Vec<_>>().join(", ")
            ),
        };
        reader.add_problem(&name.span, text);
    }
    known.map(|(_, answer_type)| answer_type.clone())
}

/// Reads a number of a user; whole numbers become integers.
fn parse_number(text: &str) -> Option<Number> {
    // Some languages write 3,5 for 3.5.
    let text = normalize(text).replace(',', ".");
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if let Some((before, after)) = text.split_once('.') {
        // 1,000 is one or a thousand, depending on the language: ask again. 0.125 is not ambiguous.
        let is_thousand = after.len() == 3 && !matches!(before.trim_matches(['-', '+', '0']), "");
        if is_thousand {
            return None;
        }
    }
    // 3.0 becomes 3, as templates should print it. Below 1e15 every whole `f64` is exact and fits an `i64`.
    let number: f64 = text.parse().ok()?;
    if number.fract() == 0.0 && number.abs() < 1e15 {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small")]
        return Some((number as i64).into());
    }
    // `None` for infinity and NaN, which `parse` accepts.
    Number::from_f64(number)
}

/// Reads a duration such as `90s`, `30m`, `24h` or `7d`, up to 365 days.
fn parse_duration(text: &str) -> Option<Duration> {
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

impl FormDef {
    /// Builds the form, with the templates of the whole file.
    pub(super) fn build(self, templates: &Arc<RulesTemplates>) -> Form {
        let fields = self.questions.iter().map(|question| question.field.clone());
        let texts = FormTexts {
            templates: templates.clone(),
            fields: fields.collect(),
        };
        let mut form = Form::new(self.name.value).version(self.version);
        for question in self.questions {
            form = form.ask(question.field.clone(), question.build(&texts));
        }
        if let Some(ttl) = self.ttl {
            form = form.expires_in(ttl);
        }
        let (cancel_reply, cancel_texts) = (self.cancel_reply, texts.clone());
        // Without answers: `cancel_reply` was read without the names of fields.
        form = form.cancel_with(self.cancel_words, move |message| {
            cancel_texts.reply(&cancel_reply, &Answers::default(), message)
        });
        let done_reply = self.done_reply;
        form.done_with(move |_cx, message, answers| {
            let reply = texts.reply(&done_reply, &answers, message);
            Box::pin(std::future::ready(reply))
        })
    }
}

/// The templates of a form's texts, with the names of its fields.
#[derive(Clone)]
struct FormTexts {
    templates: Arc<RulesTemplates>,
    fields: Arc<[String]>,
}

impl FormTexts {
    fn input<'a>(&'a self, answers: &'a Answers, message: &'a InboundMessage) -> TemplateInput<'a> {
        TemplateInput {
            message,
            captures: None,
            names: &[],
            fields: &self.fields,
            answers: Some(answers),
        }
    }

    fn reply(
        &self,
        messages: &[ReplyTemplate],
        answers: &Answers,
        message: &InboundMessage,
    ) -> Result<Reply, HandlerError> {
        self.templates
            .reply(messages, &self.input(answers, message))
    }
}

impl QuestionDef {
    fn build(self, texts: &FormTexts) -> Question {
        let (messages, question_texts) = (self.question, texts.clone());
        let mut question = Question::try_with(move |answers, message| {
            question_texts.reply(&messages, answers, message)
        });
        question = match self.answer_type {
            AnswerType::Text => question,
            AnswerType::Integer => question.parse::<i64>(),
            AnswerType::Number => {
                question.parse_with(|message| parse_number(&message.body).ok_or(None))
            }
            AnswerType::YesOrNo => question.yes_or_no(),
            AnswerType::Choice(choices) => question.choice(choices),
            AnswerType::Chosen => question.parse_with(|message| {
                let chosen = message.choice().filter(|chosen| chosen.current);
                chosen.map(|chosen| chosen.id).ok_or(None)
            }),
            AnswerType::Pattern(pattern) => question.parse_with(move |message| {
                let text = message.body.trim();
                pattern.is_match(text).then(|| text.to_owned()).ok_or(None)
            }),
            AnswerType::Media => question.media(),
            AnswerType::Location => question.location(),
        };
        if !self.hint.is_empty() {
            let (messages, hint_texts) = (self.hint, texts.clone());
            question = question
                .try_hint(move |answers, message| hint_texts.reply(&messages, answers, message));
        }
        if let Some(condition) = self.only_if {
            let texts = texts.clone();
            question = question.try_only_if(move |answers, message| {
                texts
                    .templates
                    .holds(&condition, &texts.input(answers, message))
            });
        }
        question
    }
}
