//! Values out of a rules file: each is read as what it must be, and what it is not is a problem with a place.

use std::borrow::Cow;
use std::ops::Range;

use strsim::damerau_levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::pattern::ALL_BYTES;
use super::problem::{Lines, RulesProblem};

/// Who sees so many has enough to do.
const MOST_PROBLEMS: usize = 100;
const LAST_PROBLEM: usize = MOST_PROBLEMS - 1;
/// Of a problem's text, in characters: what it quotes may be of any length.
const MOST_TEXT: usize = 400;

/// Keys of `when`, which may stand in a rule by mistake.
const WHEN: [&str; 18] = [
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
    "reply_to_us",
    "channel",
    "country",
    "hours",
    "not",
    "any",
    "all",
];

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
    source: &'s str,
    lines: Lines<'s>,
    problems: Vec<RulesProblem>,
    /// Bytes that further patterns may take.
    pub(super) pattern_room: usize,
}

/// A table of the file, of which keys are taken one after the other.
pub(super) struct Fields<'t> {
    table: &'t DeTable<'t>,
    pub(super) span: Span,
    known: Vec<&'static str>,
}

pub(super) type Value<'t> = Spanned<DeValue<'t>>;

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self {
            source,
            lines: Lines::new(source),
            problems: Vec::new(),
            pattern_room: ALL_BYTES,
        }
    }

    /// The line of a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.line(at)
    }

    /// How many problems there are so far.
    pub(super) fn problem_count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn finish(self) -> Vec<RulesProblem> {
        self.problems
    }

    pub(super) fn problem(&mut self, span: &Span, text: impl Into<String>) {
        let mut text = match self.problems.len() {
            MOST_PROBLEMS.. => return,
            LAST_PROBLEM => "there are more problems: mend these first".to_owned(),
            _ => text.into(),
        };
        let (line, column) = self.lines.place(span.start);
        if let Some((end, _)) = text.char_indices().nth(MOST_TEXT) {
            text.truncate(end);
            text.push('…');
        }
        self.problems.push(RulesProblem { line, column, text });
    }

    /// A problem within a text of the file, at a byte of what the text says.
    pub(super) fn problem_within(&mut self, text: &At<String>, at: usize, what: impl Into<String>) {
        let written = &self.source[text.span.clone()];
        let start = text.span.start + place_in(written, at);
        self.problem(&(start..start), what);
    }

    /// Line and column of a byte.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        self.lines.place(at)
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

    /// One text or several, of which none is blank.
    pub(super) fn filled_texts(&mut self, value: &Value<'_>, key: &str) -> Option<Vec<String>> {
        let texts = self.texts(value, key)?;
        if texts.iter().any(|text| text.trim().is_empty()) {
            self.problem(&value.span(), format!("{key} has an empty text"));
            return None;
        }
        Some(texts)
    }

    pub(super) fn flag_of(&mut self, value: &Value<'_>, key: &str) -> Option<bool> {
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
        let number = number(value);
        if number.is_none() {
            self.expected(value, key, "a number, as in 5 or 2.5");
        }
        number
    }

    pub(super) fn number(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<f64> {
        let value = fields.take(key)?;
        self.number_of(value, key)
    }

    /// A whole number from 1 to 4294967295.
    pub(super) fn count(&mut self, fields: &mut Fields<'_>, key: &'static str) -> Option<u32> {
        let value = fields.take(key)?;
        let number = integer(value).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| *number > 0);
        if number.is_none() {
            let text = format!("{key} is none: write a whole number from 1 to {}", u32::MAX);
            self.problem(&value.span(), text);
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
        if value.get_ref().as_array().is_some() {
            let written = format!("[{key}], in single brackets, or {key} = {{ … }}");
            self.expected(value, key, &written);
        } else if table.is_none() {
            self.expected(value, key, "a table");
        }
        table.map(|table| Fields::new(table, value.span()))
    }

    /// Tables in a row, and how they are written.
    pub(super) fn tables<'t>(
        &mut self,
        fields: &mut Fields<'t>,
        key: &'static str,
        written: &str,
    ) -> Vec<Fields<'t>> {
        let Some(value) = fields.take(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.expected(value, key, written);
            return Vec::new();
        };
        if array.is_empty() {
            self.problem(&value.span(), format!("{key} is empty: write {written}"));
        }
        array
            .iter()
            .filter_map(|table| self.table_of(table, key))
            .collect()
    }

    /// Every key that nobody asked for is a problem. Returns whether there was none: what lacks beside one is probably it.
    pub(super) fn end(&mut self, fields: &Fields<'_>) -> bool {
        let keys = fields.table.iter().map(|(key, _)| key);
        let mut unknown: Vec<_> = keys
            .filter(|key| !fields.known.contains(&&**key.get_ref()))
            .collect();
        unknown.sort_by_key(|key| key.span().start);
        for key in unknown.iter().take(MOST_PROBLEMS) {
            let name: &str = key.get_ref();
            let known = || fields.known.iter().copied();
            let text = if name == "timezone" && !known().any(|known| known == name) {
                "timezone stands above the first [table]".to_owned()
            } else if known().any(|known| known == "when") && WHEN.contains(&name) {
                format!("{name} is not known here: did you mean when.{name}?")
            } else if let Some(nearest) = nearest(name, known()) {
                format!("{name} is not known here: did you mean {nearest}?")
            } else {
                format!("{name} is not known here: {}", fields.known.join(", "))
            };
            self.problem(&key.span(), text);
        }
        unknown.is_empty()
    }
}

/// A whole number, of any radix that TOML has.
pub(super) fn integer(value: &Value<'_>) -> Option<i64> {
    let written = value.get_ref().as_integer()?;
    i64::from_str_radix(written.as_str(), written.radix()).ok()
}

/// A number that is one.
pub(super) fn number(value: &Value<'_>) -> Option<f64> {
    let number = match value.get_ref() {
        DeValue::Float(written) => written.as_str().parse().ok(),
        #[expect(clippy::cast_precision_loss, reason = "a number of kilometres")]
        _ => integer(value).map(|whole| whole as f64),
    };
    number.filter(|number: &f64| number.is_finite())
}

/// Whether templates can name it.
pub(super) fn is_name(word: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = |c: char| is_inside(c) && !c.is_ascii_digit();
    word.starts_with(begins) && word.chars().all(is_inside)
}

/// Where in a text as the file writes it, with its quotes, a byte stands of what it says.
fn place_in(written: &str, at: usize) -> usize {
    let quotes = if written.starts_with("\"\"\"") || written.starts_with("'''") {
        3
    } else {
        1
    };
    let has_escapes = written.starts_with('"');
    let mut place = quotes.min(written.len());
    if quotes == 3 {
        // The line break behind the quotes is not said.
        let rest = &written[place..];
        place += rest.len()
            - rest
                .strip_prefix("\r\n")
                .or(rest.strip_prefix('\n'))
                .unwrap_or(rest)
                .len();
    }
    let mut said = 0;
    while said < at {
        let rest = &written[place..];
        let Some(c) = rest.chars().next() else { break };
        if c != '\\' || !has_escapes {
            said += c.len_utf8();
            place += c.len_utf8();
            continue;
        }
        let (length, says) = escape(rest);
        said += says;
        place += length;
    }
    place
}

/// How long an escape is as it is written, and how many bytes it says. Source: TOML 1.1, strings.
fn escape(rest: &str) -> (usize, usize) {
    let digits = match rest.chars().nth(1) {
        Some('x') => 2,
        Some('u') => 4,
        Some('U') => 8,
        Some(c) if c.is_whitespace() => {
            let inside = rest[1..].trim_start();
            return (rest.len() - inside.len(), 0);
        }
        other => return (1 + other.map_or(0, char::len_utf8), 1),
    };
    let code = rest.get(2..2 + digits).unwrap_or_default();
    let said = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
    (2 + code.len(), said.map_or(1, char::len_utf8))
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    /// Nobody mistypes a word of that length into a key.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    known
        .map(|known| {
            let is_same = known.eq_ignore_ascii_case(word);
            let distance = if is_same {
                0
            } else {
                damerau_levenshtein(word, known)
            };
            (distance, known)
        })
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

    /// A text that is looked at before its table is read.
    pub(super) fn peek(&self, key: &str) -> Option<&'t str> {
        self.table.get(key)?.get_ref().as_str()
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

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
