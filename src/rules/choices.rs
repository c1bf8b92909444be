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
    key: Option<RulesTemplate>,
    button: Option<RulesTemplate>,
    hint: Option<RulesTemplate>,
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
    let mut text = |key| reader.text(fields, key);
    let (key, button, hint) = (
        text("choices_key"),
        text("choices_button"),
        text("choices_hint"),
    );
    let button_span = button.as_ref().map(|label| label.span.clone());
    let mut template = |text: Option<Located<String>>| templates.add(reader, &text?, names);
    let (key, button, hint) = (template(key), template(button), template(hint));
    // The limit of `reply.choices_button`: WhatsApp does not show longer labels. A label with tags is only known when it is
    // rendered.
    if let (Some(RulesTemplate::Plain(label)), Some(span)) = (&button, button_span)
        && !ChoiceForm::fits_label(label)
    {
        let max = ChoiceForm::MAX_LABEL_UNITS;
        let text =
            format!("choices_button has over {max} characters, which WhatsApp does not show");
        reader.add_problem(&span, text);
    }
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
        let mut texts = [&self.key, &self.button, &self.hint].into_iter().flatten();
        texts.all(|text| matches!(text, RulesTemplate::Plain(_))) && self.plain_choices().is_some()
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
        let mut bytes: usize = choices
            .iter()
            .map(|choice| choice.id().len() + choice.title().len())
            .sum();
        match Choices::new(&choices) {
            Ok(choices) => {
                message = message.choices(choices);
                let render = |text: &Option<RulesTemplate>| {
                    let text = text.as_ref();
                    text.map(|text| templates.render(text, variables))
                        .transpose()
                };
                if let Some(key) = render(&self.key)? {
                    bytes += key.len();
                    message = message.choices_key(key);
                }
                if let Some(button) = render(&self.button)? {
                    bytes += button.len();
                    // The setting's label instead, since without a label that fits there would be no list.
                    if ChoiceForm::fits_label(&button) {
                        message = message.choices_button(button);
                    } else {
                        tracing::warn!(
                            "choices_button of a rule has over 20 characters; the list has the label of reply.choices_button"
                        );
                    }
                }
                if let Some(hint) = render(&self.hint)? {
                    bytes += hint.len();
                    message = message.choices_hint(hint);
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
