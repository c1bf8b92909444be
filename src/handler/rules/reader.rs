//! Values out of a rules file: each is read as what it must be, and what it is not is a problem with a place.

use std::borrow::Cow;
use std::ops::Range;

use strsim::damerau_levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{RulesProblem, place};

/// Bytes of the file.
pub(super) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// Collects what is wrong.
pub(super) struct Reader<'s> {
    pub(super) source: &'s str,
    problems: Vec<RulesProblem>,
}

/// A table of the file, of which keys are taken one after the other.
pub(super) struct Fields<'t> {
    table: &'t DeTable<'t>,
    pub(super) span: Span,
    known: Vec<&'static str>,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self {
            source,
            problems: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Vec<RulesProblem> {
        self.problems
    }

    pub(super) fn problem(&mut self, span: &Span, text: impl Into<String>) {
        let (line, column) = place(self.source, span.start);
        self.problems.push(RulesProblem {
            line,
            column,
            text: text.into(),
        });
    }

    /// A problem within a text of the file, at a byte of what the text says.
    pub(super) fn problem_within(&mut self, text: &At<String>, at: usize, what: impl Into<String>) {
        let written = &self.source[text.span.clone()];
        // Where the text has escapes, its beginning has to do.
        let start = written.find(&text.value).map_or(0, |start| start + at);
        let start = text.span.start + start;
        self.problem(&(start..start), what);
    }

    fn expected(&mut self, value: &Value<'_>, key: &str, expected: &str) {
        let found = value.get_ref().type_str();
        self.problem(
            &value.span(),
            format!("{key} is of type {found}: write {expected}"),
        );
    }

    /// A text.
    pub(super) fn text(
        &mut self,
        fields: &mut Fields<'_>,
        key: &'static str,
    ) -> Option<At<String>> {
        let value = fields.take(key)?;
        self.text_of(value, key)
    }

    fn text_of(&mut self, value: &Value<'_>, key: &str) -> Option<At<String>> {
        if let Some(text) = value.get_ref().as_str() {
            return Some(At {
                value: text.to_owned(),
                span: value.span(),
            });
        }
        self.expected(value, key, "a text in quotes");
        None
    }

    /// One text or several.
    pub(super) fn texts(&mut self, value: &Value<'_>, key: &str) -> Option<Vec<String>> {
        if let Some(text) = value.get_ref().as_str() {
            return Some(vec![text.to_owned()]);
        }
        let Some(texts) = value.get_ref().as_array() else {
            self.expected(value, key, "a text in quotes, or several in brackets");
            return None;
        };
        if texts.is_empty() {
            self.problem(
                &value.span(),
                format!("{key} is empty: write one text at least"),
            );
            return None;
        }
        let texts: Vec<_> = texts.iter().map(|text| self.text_of(text, key)).collect();
        texts.into_iter().map(|text| Some(text?.value)).collect()
    }

    fn flag_of(&mut self, value: &Value<'_>, key: &str) -> Option<bool> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.expected(value, key, "true or false");
        }
        flag
    }

    pub(super) fn flag(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<bool> {
        let value = fields.take(key)?;
        self.flag_of(value, key)
    }

    fn number_of(&mut self, value: &Value<'_>, key: &str) -> Option<f64> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite());
        if number.is_none() {
            self.expected(value, key, "a number");
        }
        number
    }

    pub(super) fn number(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<f64> {
        let value = fields.take(key)?;
        self.number_of(value, key)
    }

    /// A whole number from 1.
    pub(super) fn count(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<u32> {
        let value = fields.take(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| *number > 0);
        if number.is_none() {
            self.problem(&value.span(), format!("{key} is no whole number above 0"));
        }
        number
    }

    pub(super) fn table<'t>(
        &mut self,
        fields: &mut Fields<'t>,
        key: &'static str,
    ) -> Option<Fields<'t>> {
        let value = fields.take(key)?;
        self.table_of(value, key)
    }

    pub(super) fn table_of<'t>(&mut self, value: &'t Value<'t>, key: &str) -> Option<Fields<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.expected(value, key, "a table");
        }
        table.map(|table| Fields::new(table, value.span()))
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables<'t>(
        &mut self,
        fields: &mut Fields<'t>,
        key: &'static str,
    ) -> Vec<Fields<'t>> {
        let Some(value) = fields.take(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.expected(value, key, &format!("[[{key}]] above each one"));
            return Vec::new();
        };
        array
            .iter()
            .filter_map(|table| self.table_of(table, key))
            .collect()
    }

    /// Every key that nobody asked for is a problem.
    pub(super) fn end(&mut self, fields: &Fields<'_>) {
        for (key, _) in fields.table {
            let name: &str = key.get_ref();
            if fields.known.contains(&name) {
                continue;
            }
            let nearest = nearest(name, fields.known.iter().copied());
            let text = match nearest {
                Some(nearest) => format!("{name} is not known here: did you mean {nearest}?"),
                None => format!("{name} is not known here: {}", fields.known.join(", ")),
            };
            self.problem(&key.span(), text);
        }
    }
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|known| (damerau_levenshtein(word, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}

impl<'t> Fields<'t> {
    pub(super) fn new(table: &'t DeTable<'t>, span: Span) -> Self {
        Self {
            table,
            span,
            known: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t Value<'t>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Keys that the file's author names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (At<String>, &'t Value<'t>)> {
        self.table.iter().map(|(key, value)| {
            let name: &Cow<'_, str> = key.get_ref();
            let key = At {
                value: name.clone().into_owned(),
                span: key.span(),
            };
            (key, value)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
