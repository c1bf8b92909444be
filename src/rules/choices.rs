//! `reply.choices`: the choices of a question.

use minijinja::value::Value;

use super::reader::{Fields, Located, RulesReader, SpannedValue};
use super::template::{RulesTemplate, RulesTemplates};
use crate::choice::{Choice, ChoiceForm, Choices};
use crate::handler::HandlerError;
use crate::reply::ReplyMessage;

/// Choices of a message, with the texts of their question.
#[derive(Clone, Default)]
pub(super) struct ChoiceTemplates {
    choices: Vec<ChoiceTemplate>,
    key: Option<String>,
    button: Option<String>,
    hint: Option<String>,
}

#[derive(Clone)]
struct ChoiceTemplate {
    id: Option<RulesTemplate>,
    title: RulesTemplate,
    description: Option<RulesTemplate>,
}

/// Reads `choices`, `choices_key`, `choices_button` and `choices_hint`; `None` without choices.
pub(super) fn read(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    fields: &mut Fields<'_>,
    names: &[String],
) -> Option<ChoiceTemplates> {
    let plain = |text: Located<String>| text.value;
    let mut text = |key| reader.text(fields, key);
    let (key, button, hint) = (
        text("choices_key"),
        text("choices_button"),
        text("choices_hint"),
    );
    // The limit of `reply.choices_button`: WhatsApp does not show longer labels.
    if let Some(label) = &button
        && !ChoiceForm::fits_label(&label.value)
    {
        let max = ChoiceForm::MAX_LABEL_UNITS;
        let text =
            format!("choices_button has over {max} characters, which WhatsApp does not show");
        reader.add_problem(&label.span, text);
    }
    let (key, button, hint) = (key.map(plain), button.map(plain), hint.map(plain));
    let Some(value) = fields.take("choices") else {
        if key.is_some() || button.is_some() || hint.is_some() {
            let text = "choices_key, choices_button and choices_hint belong to choices: write choices = [\"…\"]";
            reader.add_problem(&fields.span.clone(), text);
        }
        return None;
    };
    let Some(array) = value.get_ref().as_array() else {
        let text = "choices is a list of titles, as in [\"Today\", { id = \"other\", title = \"Another day\" }]";
        reader.add_problem(&value.span(), text);
        return None;
    };
    let problems = reader.problem_count();
    let choices: Vec<_> = array
        .iter()
        .filter_map(|value| read_choice(reader, templates, value, names))
        .collect();
    let found = ChoiceTemplates {
        choices,
        key,
        button,
        hint,
    };
    // Choices with tags are only known when they are rendered.
    if problems == reader.problem_count()
        && let Some(plain) = found.plain_choices()
        && let Err(error) = Choices::new(plain)
    {
        reader.add_problem(&value.span(), error.to_string());
    }
    for title in found.plain_titles() {
        reader.add_answer(&value.span(), title);
    }
    Some(found)
}

fn read_choice(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    value: &SpannedValue<'_>,
    names: &[String],
) -> Option<ChoiceTemplate> {
    if let Some(title) = value.get_ref().as_str() {
        let title = Located {
            value: title.to_owned(),
            span: value.span(),
        };
        return Some(ChoiceTemplate {
            id: None,
            title: templates.add(reader, &title, names)?,
            description: None,
        });
    }
    let mut fields = reader.table_of(value, "choices")?;
    let mut template = |key: &'static str| {
        let text = reader.text(&mut fields, key)?;
        templates.add(reader, &text, names)
    };
    let (id, title, description) = (template("id"), template("title"), template("description"));
    if reader.report_unknown_keys(&fields) && title.is_none() && !fields.has("title") {
        reader.add_problem(&fields.span.clone(), "a choice needs a title");
    }
    Some(ChoiceTemplate {
        id,
        title: title?,
        description,
    })
}

impl ChoiceTemplates {
    /// Returns whether no text has tags.
    pub(super) fn is_plain(&self) -> bool {
        self.plain_choices().is_some()
    }

    fn plain_choices(&self) -> Option<Vec<Choice>> {
        let plain = |template: &RulesTemplate| match template {
            RulesTemplate::Plain(text) => Some(text.to_string()),
            RulesTemplate::Named { .. } => None,
        };
        let choices = self
            .choices
            .iter()
            .map(|choice| choice.make(|template| plain(template).ok_or(())).ok());
        choices.collect()
    }

    /// Returns the titles without tags.
    pub(super) fn plain_titles(&self) -> impl Iterator<Item = &str> {
        self.choices
            .iter()
            .filter_map(|choice| match &choice.title {
                RulesTemplate::Plain(title) => Some(&**title),
                RulesTemplate::Named { .. } => None,
            })
    }

    /// Adds the choices to a message. Returns their size in bytes as well.
    ///
    /// If rendering has made them invalid, such as equal, their titles are added to the text: the user gets the question
    /// in any case.
    ///
    /// # Errors
    /// [`HandlerError`] if a template fails.
    pub(super) fn add_to(
        &self,
        mut message: ReplyMessage,
        templates: &RulesTemplates,
        variables: &Value,
    ) -> Result<(ReplyMessage, usize), HandlerError> {
        let choices = self
            .choices
            .iter()
            .map(|choice| choice.make(|text| templates.render(text, variables)));
        let choices: Vec<Choice> = choices.collect::<Result<_, _>>()?;
        let bytes = choices
            .iter()
            .map(|choice| choice.id().len() + choice.title().len())
            .sum();
        match Choices::new(&choices) {
            Ok(choices) => {
                message = message.choices(choices);
                if let Some(key) = &self.key {
                    message = message.choices_key(key.as_str());
                }
                if let Some(button) = &self.button {
                    message = message.choices_button(button.as_str());
                }
                if let Some(hint) = &self.hint {
                    message = message.choices_hint(hint.as_str());
                }
            }
            Err(error) => {
                tracing::error!(%error, "the choices of a rule are invalid; the user gets the question as a text, and its answer is an ordinary text");
                let titles = choices
                    .iter()
                    .map(Choice::title)
                    .filter(|title| !title.is_empty());
                let lines: Vec<&str> = std::iter::once(message.body()).chain(titles).collect();
                let text = lines.join("\n");
                message.set_text(text);
            }
        }
        Ok((message, bytes))
    }
}

impl ChoiceTemplate {
    fn make<E>(
        &self,
        mut render: impl FnMut(&RulesTemplate) -> Result<String, E>,
    ) -> Result<Choice, E> {
        let title = render(&self.title)?;
        let id = match &self.id {
            Some(id) => render(id)?,
            None => title.clone(),
        };
        let choice = Choice::new(id, title);
        Ok(match &self.description {
            Some(description) => choice.description(render(description)?),
            None => choice,
        })
    }
}
