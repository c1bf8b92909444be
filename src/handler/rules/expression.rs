//! Checks of one tag's expression, for the limits of [`super::language`].

use super::reader::nearest;
use super::tags::{Placed, TagToken, TemplateProblem};

/// The filters, minijinja's and our own, with their minimum and maximum number of arguments.
// None of them returns a list, as `list`, `split` or `map` would.
pub(super) const FILTERS: [(&str, usize, usize); 19] = [
    ("abs", 0, 0),
    ("capitalize", 0, 0),
    ("count", 0, 0),
    ("default", 0, 2),
    ("escape_markup", 0, 0),
    ("first", 0, 0),
    ("float", 0, 1),
    ("format", 0, usize::MAX),
    ("int", 0, 2),
    ("last", 0, 0),
    ("length", 0, 0),
    ("lower", 0, 0),
    ("replace", 2, 3),
    ("round", 0, 2),
    ("string", 0, 0),
    ("title", 0, 0),
    ("trim", 0, 1),
    ("upper", 0, 0),
    ("urlencode", 0, 0),
];
/// The tests after `is`, all of them minijinja's.
pub(super) const TESTS: [&str; 14] = [
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "false",
    "float",
    "in",
    "integer",
    "none",
    "number",
    "odd",
    "startingwith",
    "string",
    "true",
];
/// Values that have parts, with the names of their parts.
const PARTS: [(&str, &[&str]); 6] = [
    ("media", FILE),
    ("location", &["latitude", "longitude", "address", "label"]),
    ("button", &["text", "payload"]),
    ("list", &["id", "title", "description"]),
    // Any: the Flow's author chooses the names of its fields.
    ("flow", &[]),
    (
        "loop",
        &[
            "index",
            "index0",
            "first",
            "last",
            "length",
            "revindex",
            "revindex0",
        ],
    ),
];
const FILE: &[&str] = &["url", "content_type"];
/// Values that are texts, and have no parts.
const TEXTS: [&str; 14] = [
    "args",
    "body",
    "channel",
    "country",
    "date",
    "from",
    "message_sid",
    "profile_name",
    "replied_to",
    "text",
    "time",
    "to",
    "user",
    "weekday",
];
/// Keywords, which are not names of values.
const WORDS: [&str; 8] = ["and", "else", "elif", "if", "in", "is", "not", "or"];

/// Returns the names of a value's parts, if it has any. `files` are the variables of the loops around.
pub(super) fn parts(name: &str, files: &[&str]) -> Option<&'static [&'static str]> {
    if files.contains(&name) {
        return Some(FILE);
    }
    let known = PARTS.iter().find(|(known, _)| *known == name);
    known.map(|(_, parts)| *parts)
}

/// Checks the tokens of one tag.
///
/// # Errors
/// [`TemplateProblem`] of the first token that is not allowed.
pub(super) fn look_at_tokens(tokens: &[Placed<'_>], files: &[&str]) -> Result<(), TemplateProblem> {
    // Without a parser it is unknown what `*` multiplies. So `media` is rejected anywhere in a tag that has one.
    let multiplies = tokens
        .iter()
        .any(|(_, token)| *token == TagToken::Sign('*'));
    // For each open bracket: whether it holds the arguments of a filter or a test. Only there may commas stand;
    // elsewhere they make a list.
    let mut open: Vec<bool> = Vec::new();
    for (number, (at, token)) in tokens.iter().enumerate() {
        let here = Here {
            tokens,
            number,
            files,
        };
        let is_wrong = match token {
            TagToken::Name(name) => here
                .unknown_filter(name)
                .or_else(|| here.miscounted(name))
                .or_else(|| here.unknown_part(name))
                .or_else(|| here.multiplied(name).filter(|_| multiplies)),
            TagToken::Sign('(') => {
                open.push(here.is_behind_filter());
                here.called()
            }
            TagToken::Sign('[') => {
                open.push(false);
                here.list()
            }
            TagToken::Sign(')' | ']') => {
                open.pop();
                None
            }
            TagToken::Sign(',') if open.last() != Some(&true) => Some(NO_LISTS.to_owned()),
            TagToken::Sign('{') => Some("objects in { } are not supported".to_owned()),
            // Not among arguments: `=` names one there, as in `round(precision=2)`.
            TagToken::Sign(sign) if open.last() != Some(&true) => here.foreign(*sign),
            TagToken::Sign(_) | TagToken::Number | TagToken::Text => None,
        };
        if let Some(what) = is_wrong {
            return Err(TemplateProblem { at: *at, what });
        }
    }
    Ok(())
}

const NO_LISTS: &str = "lists are not supported: compare with one value after the other, with or";

/// A token with its neighbours. Each check returns the text of a problem, if there is one.
#[derive(Clone, Copy)]
struct Here<'t> {
    tokens: &'t [Placed<'t>],
    number: usize,
    files: &'t [&'t str],
}

impl<'t> Here<'t> {
    fn before(self, back: usize) -> Option<TagToken<'t>> {
        let earlier = self.number.checked_sub(back)?;
        Some(self.tokens[earlier].1)
    }

    /// Returns `filter` or `test` if the token `name_back` tokens before this one is in the place of such a name.
    fn names_filter(self, name_back: usize) -> Option<&'static str> {
        match (self.before(name_back + 1)?, self.before(name_back + 2)) {
            (TagToken::Sign('|'), _) => Some("filter"),
            (TagToken::Name("not"), Some(TagToken::Name("is"))) => Some("test"),
            // Not in `x.is`, where `is` is the name of a part.
            (TagToken::Name("is"), before) if before != Some(TagToken::Sign('.')) => Some("test"),
            _ => None,
        }
    }

    fn is_behind_filter(self) -> bool {
        matches!(self.before(1), Some(TagToken::Name(_))) && self.names_filter(1).is_some()
    }

    fn unknown_filter(self, name: &str) -> Option<String> {
        // `not` after `is` is not the test: the test follows it.
        let kind = self.names_filter(0).filter(|_| name != "not")?;
        let known: Vec<_> = match kind {
            "filter" => FILTERS.iter().map(|(name, ..)| *name).collect(),
            _ => TESTS.into(),
        };
        if known.contains(&name) {
            return None;
        }
        Some(match nearest(name, known.iter().copied()) {
            Some(known) => format!("unknown {kind} {name}: did you mean {known}?"),
            None => format!("unknown {kind} {name}: write one of {}", known.join(", ")),
        })
    }

    /// Checks the number of a filter's arguments.
    // Only filters: minijinja checks the arguments of a test when it is rendered.
    fn miscounted(self, name: &str) -> Option<String> {
        self.names_filter(0).filter(|kind| *kind == "filter")?;
        let (_, least, most) = FILTERS.iter().find(|(known, ..)| *known == name)?;
        let found = self.arguments();
        if (*least..=*most).contains(&found) {
            return None;
        }
        let takes = match (least, most) {
            (_, 0) => "nothing".to_owned(),
            (0, most) => format!("{most} at most"),
            (least, most) => format!("{least} to {most}"),
        };
        Some(format!("{name} takes {takes} in its brackets, not {found}"))
    }

    /// Counts the arguments in the brackets after this token.
    fn arguments(self) -> usize {
        let behind = &self.tokens[self.number + 1..];
        let Some(((_, TagToken::Sign('(')), inside)) = behind.split_first() else {
            return 0;
        };
        let (mut depth, mut commas, mut is_empty) = (0_usize, 0, true);
        for (_, token) in inside {
            match token {
                TagToken::Sign('(' | '[') => depth += 1,
                TagToken::Sign(')') if depth == 0 => break,
                TagToken::Sign(')' | ']') => depth = depth.saturating_sub(1),
                TagToken::Sign(',') if depth == 0 => commas += 1,
                _ => {}
            }
            is_empty = false;
        }
        if is_empty { 0 } else { commas + 1 }
    }

    fn unknown_part(self, name: &str) -> Option<String> {
        if self.before(1) != Some(TagToken::Sign('.')) {
            return None;
        }
        let whole = match self.before(2)? {
            TagToken::Name("media") => {
                return Some(format!("media is a list: write media[0].{name}"));
            }
            TagToken::Name(whole) => whole,
            // `media[0].url`: the name is five tokens before the part. Longer indexes are not checked.
            TagToken::Sign(']') if self.before(5) == Some(TagToken::Name("media")) => "media",
            _ => return None,
        };
        // A loop variable may have the name of a text, and hides it.
        if TEXTS.contains(&whole) && !self.files.contains(&whole) {
            return Some(format!("{whole} is a text, and has no parts"));
        }
        let parts = parts(whole, self.files)?;
        let is_known = parts.is_empty() || parts.contains(&name);
        (!is_known).then(|| format!("{whole} has no {name}: it has {}", parts.join(", ")))
    }

    fn multiplied(self, name: &str) -> Option<String> {
        let next = self.tokens.get(self.number + 1..self.number + 3);
        let is_counted = matches!(
            next,
            Some([
                (_, TagToken::Sign('|')),
                (_, TagToken::Name("length" | "count"))
            ])
        );
        let what = "media cannot be multiplied: count it, as in {{ media | length }}";
        (name == "media" && !is_counted).then(|| what.to_owned())
    }

    /// Checks for operators of other languages.
    // minijinja would reject them too, but without naming the operator that is meant.
    fn foreign(self, sign: char) -> Option<String> {
        // Tokens have one character each, so `==` is two adjacent ones.
        let (at, _) = self.tokens[self.number];
        let is_beside = |other: &Placed<'_>, signs: &[char]| {
            matches!(other.1, TagToken::Sign(sign) if signs.contains(&sign))
                && other.0.abs_diff(at) == 1
        };
        let before = self
            .number
            .checked_sub(1)
            .map(|before| &self.tokens[before]);
        let after = self.tokens.get(self.number + 1);
        let follows = |signs: &[char]| before.is_some_and(|before| is_beside(before, signs));
        let leads = |signs: &[char]| after.is_some_and(|after| is_beside(after, signs));
        let meant = match sign {
            '=' if !follows(&['=', '!', '<', '>']) && !leads(&['=']) => "==",
            '&' => "and",
            '|' if leads(&['|']) => "or",
            '!' if !leads(&['=']) => "not",
            '?' => "a if b else c",
            '}' => "}}",
            _ => return None,
        };
        Some(format!("{sign} is not supported: write {meant}"))
    }

    /// Checks that an opening bracket groups, or holds arguments of a filter, and does not call a function.
    fn called(self) -> Option<String> {
        let groups = match self.before(1) {
            None => true,
            Some(TagToken::Name(word)) => WORDS.contains(&word) || self.is_behind_filter(),
            Some(TagToken::Sign(sign)) => !matches!(sign, ')' | ']' | '}'),
            Some(TagToken::Number | TagToken::Text) => false,
        };
        let what = "functions are not supported: write a filter, as in {{ name | upper }}";
        (!groups).then(|| what.to_owned())
    }

    /// Checks that a square bracket indexes a value, and does not begin a list.
    fn list(self) -> Option<String> {
        let indexes = match self.before(1) {
            Some(TagToken::Name(word)) => !WORDS.contains(&word),
            Some(TagToken::Sign(sign)) => matches!(sign, ')' | ']'),
            Some(TagToken::Text) => true,
            Some(TagToken::Number) | None => false,
        };
        (!indexes).then(|| NO_LISTS.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, ErrorKind};

    use super::*;

    #[test]
    fn minijinja_has_every_filter_and_test() {
        let mut env = Environment::new();
        // The only filter that minijinja does not have.
        env.add_filter("escape_markup", |text: &str| text.to_owned());
        let render = |source: &str| env.render_str(source, minijinja::context! { x => "1" });
        for (filter, ..) in FILTERS {
            let error = render(&format!("{{{{ x | {filter} }}}}")).err();
            let kind = error.map(|error| error.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownFilter), "{filter}");
        }
        // One argument more than the maximum must fail. `format` takes any number, and is left out.
        for (filter, _, most) in FILTERS.iter().filter(|(.., most)| *most < 5) {
            let things = vec!["1"; most + 1].join(", ");
            let error = render(&format!("{{{{ x | {filter}({things}) }}}}")).unwrap_err();
            let kinds = [ErrorKind::TooManyArguments, ErrorKind::InvalidOperation];
            assert!(
                kinds.contains(&error.kind()),
                "{filter} takes more than {most}: {error}"
            );
        }
        for test in TESTS {
            let error = render(&format!("{{{{ x is {test} }}}}")).err();
            let kind = error.map(|error| error.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownTest), "{test}");
        }
    }
}
