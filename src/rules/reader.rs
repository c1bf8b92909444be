//! Reading of typed values from a rules file: a value of a wrong type becomes a problem with its position.
//!
//! Reading goes on after a problem, so that all problems of a file are reported together.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keyword_warnings::AnswerWord;
use super::problem::{LineStarts, RulesProblem};
use crate::spelling::nearest;

/// Maximum size of all patterns of a file, in bytes.
const MAX_ALL_PATTERN_BYTES: usize = 64 * 1024 * 1024;
/// Maximum number of problems that are reported.
const MAX_PROBLEMS: usize = 100;
const LAST_PROBLEM: usize = MAX_PROBLEMS - 1;
/// Maximum length of a problem's text, in characters.
// A problem quotes the file, where a key or a text may have any length.
const MAX_TEXT_CHARS: usize = 400;

/// Keys of a message of `reply`, also to recognize them in a rule.
const MESSAGE_KEYS: [&str; 9] = [
    "text",
    "media",
    "content_type",
    "choices",
    "choices_key",
    "choices_button",
    "choices_hint",
    "content",
    "location",
];
/// Usual words for keys of a message, each with the key.
const SYNONYMS: [(&str, &str); 8] = [
    ("buttons", "choices"),
    ("quick_replies", "choices"),
    ("options", "choices"),
    ("body", "text"),
    ("image", "media"),
    ("picture", "media"),
    ("photo", "media"),
    ("file", "media"),
];
/// Keys of `when`.
// Listed here to recognize them in a rule, where they are a common mistake: `words = …` instead of `when.words = …`.
const WHEN_KEYS: [&str; 21] = [
    "choice",
    "text",
    "words",
    "command",
    "regex",
    "media",
    "location",
    "button",
    "list",
    "flow",
    "first_contact",
    "forwarded",
    "quotes_our_message",
    "channel",
    "country",
    "from",
    "to",
    "hours",
    "not",
    "any",
    "all",
];

/// A range of bytes of the file.
pub(super) type Span = Range<usize>;

/// A value and its position.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A reader of typed values, which collects problems.
pub(super) struct RulesReader<'s> {
    source: &'s str,
    lines: LineStarts<'s>,
    problems: Vec<RulesProblem>,
    /// Findings that do not make the file unusable.
    /// Words that a user is meant to write.
    answers: Vec<AnswerWord>,
    /// Bytes that are left for further patterns.
    pub(super) pattern_budget: usize,
}

/// A table of the file, whose keys are taken one after the other.
pub(super) struct Fields<'t> {
    table: &'t DeTable<'t>,
    pub(super) span: Span,
    // Every key that was taken. `report_unknown_keys` reports all others as unknown, and suggests from these.
    known_keys: Vec<&'static str>,
}

pub(super) type SpannedValue<'t> = Spanned<DeValue<'t>>;

impl<'s> RulesReader<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self {
            source,
            lines: LineStarts::new(source),
            problems: Vec::new(),
            answers: Vec::new(),
            pattern_budget: MAX_ALL_PATTERN_BYTES,
        }
    }

    /// Returns the line of a byte of the file.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.line(at)
    }

    /// Returns the number of problems so far.
    pub(super) fn problem_count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn into_problems(self) -> Vec<RulesProblem> {
        self.problems
    }

    pub(super) fn take_answers(&mut self) -> Vec<AnswerWord> {
        std::mem::take(&mut self.answers)
    }

    /// Records a word that a user is meant to write, for the warnings about keywords.
    pub(super) fn add_answer(&mut self, span: &Span, word: &str) {
        let (line, column) = self.position(span.start);
        let word = word.to_owned();
        self.answers.push(AnswerWord { line, column, word });
    }

    pub(super) fn add_problem(&mut self, span: &Span, text: impl Into<String>) {
        let mut text = match self.problems.len() {
            MAX_PROBLEMS.. => return,
            LAST_PROBLEM => "there are more problems; fix these first".to_owned(),
            _ => text.into(),
        };
        let (line, column) = self.lines.position(span.start);
        if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
            text.truncate(end);
            text.push('…');
        }
        self.problems.push(RulesProblem { line, column, text });
    }

    /// Adds a problem within a text of the file, at a byte of the text's value.
    pub(super) fn add_problem_within(
        &mut self,
        text: &Located<String>,
        at: usize,
        message: impl Into<String>,
    ) {
        let written = &self.source[text.span.clone()];
        let start = text.span.start + source_offset(written, at);
        self.add_problem(&(start..start), message);
    }

    /// Returns line and column of a byte of the file.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        self.lines.position(at)
    }

    fn add_type_problem(&mut self, value: &SpannedValue<'_>, key: &str, expected: &str) {
        let found = value.get_ref().type_str();
        self.add_problem(
            &value.span(),
            format!("{key} is of type {found}: write {expected}"),
        );
    }

    /// Reads a text.
    pub(super) fn text(
        &mut self,
        fields: &mut Fields<'_>,
        key: &'static str,
    ) -> Option<Located<String>> {
        let value = fields.take(key)?;
        self.text_of(value, key)
    }

    fn text_of(&mut self, value: &SpannedValue<'_>, key: &str) -> Option<Located<String>> {
        if let Some(text) = value.get_ref().as_str() {
            return Some(Located {
                value: text.to_owned(),
                span: value.span(),
            });
        }
        self.add_type_problem(value, key, "a text in quotes");
        None
    }

    /// Reads a text, or a list of at least one text.
    pub(super) fn texts(&mut self, value: &SpannedValue<'_>, key: &str) -> Option<Vec<String>> {
        if let Some(text) = value.get_ref().as_str() {
            return Some(vec![text.to_owned()]);
        }
        let Some(texts) = value.get_ref().as_array() else {
            self.add_type_problem(value, key, "a text in quotes, or several in brackets");
            return None;
        };
        if texts.is_empty() {
            self.add_problem(
                &value.span(),
                format!("{key} is empty: write at least one text"),
            );
            return None;
        }
        // In two steps, so that every wrong element is reported and not only the first one.
        let texts: Vec<_> = texts.iter().map(|text| self.text_of(text, key)).collect();
        texts.into_iter().map(|text| Some(text?.value)).collect()
    }

    /// Reads a text or a list of texts, none of which may be blank.
    pub(super) fn filled_texts(
        &mut self,
        value: &SpannedValue<'_>,
        key: &str,
    ) -> Option<Vec<String>> {
        let texts = self.texts(value, key)?;
        if texts.iter().any(|text| text.trim().is_empty()) {
            self.add_problem(&value.span(), format!("{key} has an empty text"));
            return None;
        }
        Some(texts)
    }

    pub(super) fn flag_of(&mut self, value: &SpannedValue<'_>, key: &str) -> Option<bool> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.add_type_problem(value, key, "true or false");
        }
        flag
    }

    pub(super) fn flag(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<bool> {
        let value = fields.take(key)?;
        self.flag_of(value, key)
    }

    fn number_of(&mut self, value: &SpannedValue<'_>, key: &str) -> Option<f64> {
        let number = number(value);
        if number.is_none() {
            self.add_type_problem(value, key, "a number, as in 5 or 2.5");
        }
        number
    }

    pub(super) fn number(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<f64> {
        let value = fields.take(key)?;
        self.number_of(value, key)
    }

    /// Reads a whole number from 1 to 4294967295.
    pub(super) fn count(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<u32> {
        let value = fields.take(key)?;
        let number = integer(value).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| *number > 0);
        if number.is_none() {
            let text = format!("invalid {key}: write a whole number from 1 to {}", u32::MAX);
            self.add_problem(&value.span(), text);
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

    pub(super) fn table_of<'t>(
        &mut self,
        value: &'t SpannedValue<'t>,
        key: &str,
    ) -> Option<Fields<'t>> {
        let table = value.get_ref().as_table();
        if value.get_ref().as_array().is_some() {
            let written = format!("[{key}], in single brackets, or {key} = {{ … }}");
            self.add_type_problem(value, key, &written);
        } else if table.is_none() {
            self.add_type_problem(value, key, "a table");
        }
        table.map(|table| Fields::new(table, value.span()))
    }

    /// Reads an array of tables. `syntax` is what problems suggest to write.
    pub(super) fn tables<'t>(
        &mut self,
        fields: &mut Fields<'t>,
        key: &'static str,
        syntax: &str,
    ) -> Vec<Fields<'t>> {
        let Some(value) = fields.take(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.add_type_problem(value, key, syntax);
            return Vec::new();
        };
        if array.is_empty() {
            self.add_problem(&value.span(), format!("{key} is empty: write {syntax}"));
        }
        array
            .iter()
            .filter_map(|table| self.table_of(table, key))
            .collect()
    }

    /// Adds a problem for every key that was not taken. Returns whether all keys are known.
    ///
    /// If not, callers do not report a missing key as well: the unknown key is probably the misspelt one.
    pub(super) fn report_unknown_keys(&mut self, fields: &Fields<'_>) -> bool {
        let keys = fields.table.iter().map(|(key, _)| key);
        let mut unknown: Vec<_> = keys
            .filter(|key| !fields.known_keys.contains(&&**key.get_ref()))
            .collect();
        unknown.sort_by_key(|key| key.span().start);
        // Bounded here too: finding the nearest known key takes time for each.
        for key in unknown.iter().take(MAX_PROBLEMS) {
            let name: &str = key.get_ref();
            let known = || fields.known_keys.iter().copied();
            // A key after a table header belongs to that table, which is surprising for a setting of the whole file.
            let text = if name == "timezone" && !known().any(|known| known == name) {
                "timezone stands above the first [table]".to_owned()
            } else if let Some(places) = places_of(name, &fields.known_keys) {
                format!("{name} is not known here: did you mean {places}?")
            } else if let Some(nearest) = nearest(name, known()) {
                format!("{name} is not known here: did you mean {nearest}?")
            } else {
                format!("{name} is not known here: {}", fields.known_keys.join(", "))
            };
            self.add_problem(&key.span(), text);
        }
        unknown.is_empty()
    }
}

/// Returns the right place of a key that is in the wrong table of a rule, or the key that a common word stands for.
fn places_of(name: &str, known_keys: &[&str]) -> Option<String> {
    let meant = SYNONYMS.iter().find(|(word, _)| *word == name);
    let meant = meant.map_or(name, |(_, key)| key);
    let has = |key: &str| known_keys.contains(&key);
    let of_reply = MESSAGE_KEYS.contains(&meant);
    let mut places = Vec::new();
    if has("when") && WHEN_KEYS.contains(&name) {
        places.push(format!("when.{name}"));
    }
    if has("reply") && of_reply {
        places.push(format!("reply.{meant}"));
    }
    if meant != name && has(meant) {
        places.push(meant.to_owned());
    }
    (!places.is_empty()).then(|| places.join(" or "))
}

/// Reads a whole number, in any of TOML's radixes.
pub(super) fn integer(value: &SpannedValue<'_>) -> Option<i64> {
    let written = value.get_ref().as_integer()?;
    i64::from_str_radix(written.as_str(), written.radix()).ok()
}

/// Reads a finite number: TOML also has `nan` and `inf`.
pub(super) fn number(value: &SpannedValue<'_>) -> Option<f64> {
    let number = match value.get_ref() {
        DeValue::Float(written) => written.as_str().parse().ok(),
        #[expect(clippy::cast_precision_loss, reason = "a number of kilometres")]
        _ => integer(value).map(|whole| whole as f64),
    };
    number.filter(|number: &f64| number.is_finite())
}

/// Returns whether a word can be a name in a template.
pub(super) fn is_name(word: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = |c: char| is_inside(c) && !c.is_ascii_digit();
    word.starts_with(begins) && word.chars().all(is_inside)
}

/// Returns the offset in a quoted TOML text, with quotes and escapes, of the byte `at` of its value.
fn source_offset(written: &str, at: usize) -> usize {
    let quotes = if written.starts_with("\"\"\"") || written.starts_with("'''") {
        3
    } else {
        1
    };
    let has_escapes = written.starts_with('"');
    let mut offset = quotes.min(written.len());
    if quotes == 3 {
        // A line break directly after the opening quotes is not part of the value.
        let rest = &written[offset..];
        offset += rest.len()
            - rest
                .strip_prefix("\r\n")
                .or(rest.strip_prefix('\n'))
                .unwrap_or(rest)
                .len();
    }
    let mut value_bytes = 0;
    while value_bytes < at {
        let rest = &written[offset..];
        let Some(c) = rest.chars().next() else { break };
        if c != '\\' || !has_escapes {
            value_bytes += c.len_utf8();
            offset += c.len_utf8();
            continue;
        }
        let (length, escaped) = parse_escape(rest);
        value_bytes += escaped;
        offset += length;
    }
    offset
}

/// Returns the written length of an escape, and the number of bytes it stands for. Source: TOML 1.1, strings.
fn parse_escape(rest: &str) -> (usize, usize) {
    let digits = match rest.chars().nth(1) {
        Some('x') => 2,
        Some('u') => 4,
        Some('U') => 8,
        // A backslash at the end of a line, which stands for nothing: all white space after it is skipped.
        Some(c) if c.is_whitespace() => {
            let inside = rest[1..].trim_start();
            return (rest.len() - inside.len(), 0);
        }
        other => return (1 + other.map_or(0, char::len_utf8), 1),
    };
    let code = rest.get(2..2 + digits).unwrap_or_default();
    let character = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
    (2 + code.len(), character.map_or(1, char::len_utf8))
}

impl<'t> Fields<'t> {
    pub(super) fn new(table: &'t DeTable<'t>, span: Span) -> Self {
        Self {
            table,
            span,
            known_keys: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t SpannedValue<'t>> {
        // Also for a missing key: problems list all keys that are possible.
        self.known_keys.push(key);
        self.table.get(key)
    }

    /// Returns a text without taking its key, to read it before the rest of the table.
    pub(super) fn peek(&self, key: &str) -> Option<&'t str> {
        self.table.get(key)?.get_ref().as_str()
    }

    /// Returns all entries of a table whose keys the file's author chooses.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Located<String>, &'t SpannedValue<'t>)> {
        self.table.iter().map(|(key, value)| {
            let name: &Cow<'_, str> = key.get_ref();
            let key = Located {
                value: name.clone().into_owned(),
                span: key.span(),
            };
            (key, value)
        })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
