//! Checks of one tag's expression, for the limits of [`super::language`].

use super::reader::nearest;
use super::tags::{PlacedToken, TagToken, TemplateProblem};

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
const VALUE_PARTS: [(&str, &[&str]); 6] = [
    ("media", MEDIA_PARTS),
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
const MEDIA_PARTS: &[&str] = &["url", "content_type"];
/// Values that are texts, and have no parts.
const TEXT_VALUES: [&str; 14] = [
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
const KEYWORDS: [&str; 8] = ["and", "else", "elif", "if", "in", "is", "not", "or"];

/// Returns the names of a value's parts, if it has any. `loop_vars` are the variables of the loops around.
pub(super) fn find_parts(name: &str, loop_vars: &[&str]) -> Option<&'static [&'static str]> {
    if loop_vars.contains(&name) {
        return Some(MEDIA_PARTS);
    }
    let known = VALUE_PARTS.iter().find(|(known, _)| *known == name);
    known.map(|(_, parts)| *parts)
}

/// Checks the tokens of one tag.
///
/// # Errors
/// [`TemplateProblem`] of the first token that is not allowed.
pub(super) fn check_tokens(
    tokens: &[PlacedToken<'_>],
    loop_vars: &[&str],
) -> Result<(), TemplateProblem> {
    // Without a parser it is unknown what `*` multiplies. So `media` is rejected anywhere in a tag that has one.
    let multiplies = tokens
        .iter()
        .any(|(_, token)| *token == TagToken::Sign('*'));
    // For each open bracket: true if it holds the arguments of a filter or a test. A comma is allowed only there;
    // elsewhere it makes a list.
    let mut holds_arguments: Vec<bool> = Vec::new();
    for (number, (at, token)) in tokens.iter().enumerate() {
        let cursor = TokenCursor {
            tokens,
            number,
            loop_vars,
        };
        let problem = match token {
            TagToken::Name(name) => cursor
                .check_filter_name(name)
                .or_else(|| cursor.check_argument_count(name))
                .or_else(|| cursor.check_part(name))
                .or_else(|| cursor.check_multiplication(name).filter(|_| multiplies)),
            TagToken::Sign('(') => {
                holds_arguments.push(cursor.follows_filter_or_test());
                cursor.check_call()
            }
            TagToken::Sign('[') => {
                holds_arguments.push(false);
                cursor.check_list()
            }
            TagToken::Sign(')' | ']') => {
                holds_arguments.pop();
                None
            }
            TagToken::Sign(',') if holds_arguments.last() != Some(&true) => {
                Some(NO_LISTS.to_owned())
            }
            TagToken::Sign('{') => Some("objects in { } are not supported".to_owned()),
            // Not among arguments: `=` names one there, as in `round(precision=2)`.
            TagToken::Sign(sign) if holds_arguments.last() != Some(&true) => {
                cursor.check_operator(*sign)
            }
            TagToken::Sign(_) | TagToken::Number | TagToken::Text => None,
        };
        if let Some(message) = problem {
            return Err(TemplateProblem { at: *at, message });
        }
    }
    Ok(())
}

const NO_LISTS: &str = "lists are not supported: compare with one value after the other, with or";

/// A token with its neighbours. Each check returns the text of a problem, if there is one.
#[derive(Clone, Copy)]
struct TokenCursor<'t> {
    tokens: &'t [PlacedToken<'t>],
    number: usize,
    loop_vars: &'t [&'t str],
}

impl<'t> TokenCursor<'t> {
    fn token_before(self, distance: usize) -> Option<TagToken<'t>> {
        let earlier = self.number.checked_sub(distance)?;
        Some(self.tokens[earlier].1)
    }

    /// Returns `filter` or `test` if the token `distance` tokens before this one is in the place of such a name.
    fn kind_of_name(self, distance: usize) -> Option<&'static str> {
        match (
            self.token_before(distance + 1)?,
            self.token_before(distance + 2),
        ) {
            (TagToken::Sign('|'), _) => Some("filter"),
            (TagToken::Name("not"), Some(TagToken::Name("is"))) => Some("test"),
            // Not in `x.is`, where `is` is the name of a part.
            (TagToken::Name("is"), before) if before != Some(TagToken::Sign('.')) => Some("test"),
            _ => None,
        }
    }

    fn follows_filter_or_test(self) -> bool {
        matches!(self.token_before(1), Some(TagToken::Name(_))) && self.kind_of_name(1).is_some()
    }

    fn check_filter_name(self, name: &str) -> Option<String> {
        // `not` after `is` is not the test: the test follows it.
        let kind = self.kind_of_name(0).filter(|_| name != "not")?;
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
    fn check_argument_count(self, name: &str) -> Option<String> {
        self.kind_of_name(0).filter(|kind| *kind == "filter")?;
        let (_, min, max) = FILTERS.iter().find(|(known, ..)| *known == name)?;
        let found = self.count_arguments();
        if (*min..=*max).contains(&found) {
            return None;
        }
        let accepted = match (min, max) {
            (_, 0) => "nothing".to_owned(),
            (0, max) => format!("{max} at most"),
            (min, max) => format!("{min} to {max}"),
        };
        Some(format!(
            "{name} takes {accepted} in its brackets, not {found}"
        ))
    }

    /// Counts the arguments in the brackets after this token.
    fn count_arguments(self) -> usize {
        let following = &self.tokens[self.number + 1..];
        let Some(((_, TagToken::Sign('(')), inside)) = following.split_first() else {
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

    fn check_part(self, name: &str) -> Option<String> {
        if self.token_before(1) != Some(TagToken::Sign('.')) {
            return None;
        }
        let value = match self.token_before(2)? {
            TagToken::Name("media") => {
                return Some(format!("media is a list: write media[0].{name}"));
            }
            TagToken::Name(value) => value,
            // `media[0].url`: the name is five tokens before the part. Longer indexes are not checked.
            TagToken::Sign(']') if self.token_before(5) == Some(TagToken::Name("media")) => "media",
            _ => return None,
        };
        // A loop variable may have the name of a text, and hides it.
        if TEXT_VALUES.contains(&value) && !self.loop_vars.contains(&value) {
            return Some(format!("{value} is a text, and has no parts"));
        }
        let parts = find_parts(value, self.loop_vars)?;
        let is_known = parts.is_empty() || parts.contains(&name);
        (!is_known).then(|| format!("{value} has no {name}: it has {}", parts.join(", ")))
    }

    fn check_multiplication(self, name: &str) -> Option<String> {
        let next = self.tokens.get(self.number + 1..self.number + 3);
        let is_counted = matches!(
            next,
            Some([
                (_, TagToken::Sign('|')),
                (_, TagToken::Name("length" | "count"))
            ])
        );
        let message = "media cannot be multiplied: count it, as in {{ media | length }}";
        (name == "media" && !is_counted).then(|| message.to_owned())
    }

    /// Checks for operators of other languages.
    // minijinja would reject them too, but without naming the operator that is meant.
    fn check_operator(self, sign: char) -> Option<String> {
        // Tokens have one character each, so `==` is two adjacent ones.
        let (at, _) = self.tokens[self.number];
        let is_adjacent = |other: &PlacedToken<'_>, signs: &[char]| {
            matches!(other.1, TagToken::Sign(sign) if signs.contains(&sign))
                && other.0.abs_diff(at) == 1
        };
        let before = self
            .number
            .checked_sub(1)
            .map(|before| &self.tokens[before]);
        let after = self.tokens.get(self.number + 1);
        let follows = |signs: &[char]| before.is_some_and(|before| is_adjacent(before, signs));
        let leads = |signs: &[char]| after.is_some_and(|after| is_adjacent(after, signs));
        let replacement = match sign {
            '=' if !follows(&['=', '!', '<', '>']) && !leads(&['=']) => "==",
            '&' => "and",
            '|' if leads(&['|']) => "or",
            '!' if !leads(&['=']) => "not",
            '?' => "a if b else c",
            '}' => "}}",
            _ => return None,
        };
        Some(format!("{sign} is not supported: write {replacement}"))
    }

    /// Checks that an opening bracket groups, or holds arguments of a filter, and does not call a function.
    fn check_call(self) -> Option<String> {
        let is_grouping = match self.token_before(1) {
            None => true,
            Some(TagToken::Name(word)) => KEYWORDS.contains(&word) || self.follows_filter_or_test(),
            Some(TagToken::Sign(sign)) => !matches!(sign, ')' | ']' | '}'),
            Some(TagToken::Number | TagToken::Text) => false,
        };
        let message = "functions are not supported: write a filter, as in {{ name | upper }}";
        (!is_grouping).then(|| message.to_owned())
    }

    /// Checks that a square bracket indexes a value, and does not begin a list.
    fn check_list(self) -> Option<String> {
        let is_index = match self.token_before(1) {
            Some(TagToken::Name(word)) => !KEYWORDS.contains(&word),
            Some(TagToken::Sign(sign)) => matches!(sign, ')' | ']'),
            Some(TagToken::Text) => true,
            Some(TagToken::Number) | None => false,
        };
        (!is_index).then(|| NO_LISTS.to_owned())
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
        for (filter, _, max) in FILTERS.iter().filter(|(.., max)| *max < 5) {
            let things = vec!["1"; max + 1].join(", ");
            let error = render(&format!("{{{{ x | {filter}({things}) }}}}")).unwrap_err();
            let kinds = [ErrorKind::TooManyArguments, ErrorKind::InvalidOperation];
            assert!(
                kinds.contains(&error.kind()),
                "{filter} takes more than {max}: {error}"
            );
        }
        for test in TESTS {
            let error = render(&format!("{{{{ x is {test} }}}}")).err();
            let kind = error.map(|error| error.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownTest), "{test}");
        }
    }
}
