//! What a template may be made of: less than Jinja, so that none can run, grow or nest without end.
//!
//! Fuel bounds steps and bytes of a rendering, and not what lists cost that are put into each other or multiplied. So there is
//! nothing here to make or keep a list with: no `set`, no macros, no lists in brackets, no functions, and of the filters those
//! that give texts and numbers. The one list there is, `media`, has ten entries at most, and can be walked, counted and
//! indexed. How long a tag and how many of them there may be is bounded, too: reading them takes stack.

use super::reader::nearest;

/// In one tag.
const MOST_TOKENS: usize = 200;
/// In one template.
const MOST_TAGS: usize = 200;

/// Statements.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];
/// Filters: minijinja's, and `escape_markup`.
pub(super) const FILTERS: [&str; 19] = [
    "abs",
    "capitalize",
    "count",
    "default",
    "escape_markup",
    "first",
    "float",
    "format",
    "int",
    "last",
    "length",
    "lower",
    "replace",
    "round",
    "string",
    "title",
    "trim",
    "upper",
    "urlencode",
];
/// What can stand behind `is`, by minijinja.
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
/// What has parts, and which.
const PARTS: [(&str, &[&str]); 4] = [
    ("media", &["url", "content_type"]),
    ("location", &["latitude", "longitude", "address", "label"]),
    ("button", &["text", "payload"]),
    ("list", &["id", "title", "description"]),
];
/// Names that are none.
const WORDS: [&str; 8] = ["and", "else", "elif", "if", "in", "is", "not", "or"];

/// What a template may not have.
pub(super) struct Wrong {
    /// A byte of the template.
    pub(super) at: usize,
    pub(super) what: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Name(&'t str),
    Number,
    Text,
    Sign(char),
}

/// A token, and the byte it begins at.
type Placed<'t> = (usize, Token<'t>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Output,
    Statement,
}

/// Looks at all tags of a template.
pub(super) fn look(source: &str) -> Result<(), Wrong> {
    let mut rest = 0;
    let mut tags = 0;
    while let Some((at, mark)) = next_mark(source, rest) {
        let inside = at + 2;
        if mark == b'#' {
            let end = source[inside..].find("#}");
            // minijinja says what is wrong with one that does not end.
            rest = end.map_or(source.len(), |end| inside + end + 2);
            continue;
        }
        tags += 1;
        if tags > MOST_TAGS {
            let what = format!("over {MOST_TAGS} tags: a template is shorter");
            return Err(Wrong { at, what });
        }
        let tag = if mark == b'{' {
            Tag::Output
        } else {
            Tag::Statement
        };
        // `{{-` takes the space before it away.
        let signed = source[inside..].starts_with(['-', '+']);
        let (tokens, end) = tokens(source, inside + usize::from(signed), Some(tag))?;
        look_at(tag, at, &tokens)?;
        rest = end;
    }
    Ok(())
}

/// Looks at an expression that stands alone.
pub(super) fn look_at_expression(source: &str) -> Result<(), Wrong> {
    let (tokens, _) = tokens(source, 0, None)?;
    for (number, (at, token)) in tokens.iter().enumerate() {
        let next = tokens.get(number + 1);
        let closes = matches!(
            (token, next),
            (Token::Sign('%' | '}'), Some((next, Token::Sign('}')))) if *next == at + 1
        );
        if closes {
            let what = "write what stands between {% if and %}, and no more".to_owned();
            return Err(Wrong { at: *at, what });
        }
    }
    look_at_tokens(&tokens)
}

/// Where a name stands in a template, or in an expression.
pub(super) fn place_of(source: &str, name: &str) -> usize {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Behind a tag's beginning, where there are tags; in a comment or a text it may stand, too.
    let from = source.find("{{").into_iter().chain(source.find("{%"));
    let from = from.min().unwrap_or(0);
    let places = source[from..].match_indices(name);
    let mut places = places.map(|(at, _)| from + at);
    let found = places.find(|at| {
        let before = source[..*at].chars().next_back();
        let after = source[at + name.len()..].chars().next();
        !before.is_some_and(|c| is_inside(c) || c == '.') && !after.is_some_and(is_inside)
    });
    found.unwrap_or(0)
}

/// Where the next tag or comment begins, and which.
fn next_mark(source: &str, from: usize) -> Option<(usize, u8)> {
    let bytes = source.as_bytes();
    let mut pairs = bytes[from..].windows(2).enumerate();
    pairs.find_map(|(at, pair)| {
        let is_mark = pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#');
        is_mark.then(|| (from + at, pair[1]))
    })
}

/// A tag's tokens, and where it ends. As minijinja has it, brackets that are open hold the end off.
fn tokens(source: &str, from: usize, tag: Option<Tag>) -> Result<(Vec<Placed<'_>>, usize), Wrong> {
    let end = match tag {
        Some(Tag::Output) => Some("}}"),
        Some(Tag::Statement) => Some("%}"),
        None => None,
    };
    let mut found = Vec::new();
    let mut open = 0_usize;
    let mut at = from;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if open == 0 && end.is_some_and(|end| rest.starts_with(end)) {
            // `-}}` takes the space behind it away.
            if let Some((last, Token::Sign('-' | '+'))) = found.last()
                && last + 1 == at
            {
                found.pop();
            }
            return Ok((found, at + 2));
        }
        let length = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
                found.push((at, Token::Name(&rest[..length])));
                length
            }
            '0'..='9' => {
                found.push((at, Token::Number));
                let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
                rest.find(|c| !is_inside(c)).unwrap_or(rest.len())
            }
            '"' | '\'' => {
                found.push((at, Token::Text));
                text_length(rest, c)
            }
            sign => {
                match sign {
                    '(' | '[' | '{' => open += 1,
                    ')' | ']' | '}' => open = open.saturating_sub(1),
                    _ => {}
                }
                found.push((at, Token::Sign(sign)));
                sign.len_utf8()
            }
        };
        if found.len() > MOST_TOKENS {
            let what = format!("over {MOST_TOKENS} words and signs in one tag: take several");
            return Err(Wrong { at, what });
        }
        at += length;
    }
    Ok((found, source.len()))
}

/// With its quotes. One that does not end takes the rest; minijinja says so.
fn text_length(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let inside = rest.char_indices().skip(1);
    for (at, c) in inside {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn look_at(tag: Tag, at: usize, tokens: &[Placed<'_>]) -> Result<(), Wrong> {
    if tag == Tag::Output {
        if let [(at, Token::Name(name))] = tokens
            && let Some((_, parts)) = PARTS.iter().find(|(known, _)| known == name)
        {
            let index = if *name == "media" { "[0]" } else { "" };
            let what = format!("{name} is no text: write {name}{index}.{}", parts[0]);
            return Err(Wrong { at: *at, what });
        }
        return look_at_tokens(tokens);
    }
    let Some((at, Token::Name(statement))) = tokens.first().copied() else {
        let what = format!("a statement is one of {}", STATEMENTS.join(", "));
        return Err(Wrong { at, what });
    };
    if !STATEMENTS.contains(&statement) {
        let what = match nearest(statement, STATEMENTS.into_iter()) {
            Some(known) => format!("there is no {statement}: did you mean {known}?"),
            None => format!("there is no {statement} here: {}", STATEMENTS.join(", ")),
        };
        return Err(Wrong { at, what });
    }
    if statement != "for" {
        return look_at_tokens(&tokens[1..]);
    }
    let walks = matches!(
        tokens[1..],
        [
            (_, Token::Name(_)),
            (_, Token::Name("in")),
            (_, Token::Name("media"))
        ]
    );
    if !walks {
        let what = "for walks through the files: {% for file in media %}".to_owned();
        return Err(Wrong { at, what });
    }
    Ok(())
}

fn look_at_tokens(tokens: &[Placed<'_>]) -> Result<(), Wrong> {
    let multiplies = tokens.iter().any(|(_, token)| *token == Token::Sign('*'));
    // Of each bracket that is open: whether a filter or a test takes what is in it, which may be several things.
    let mut open: Vec<bool> = Vec::new();
    for (number, (at, token)) in tokens.iter().enumerate() {
        let here = Here { tokens, number };
        let is_wrong = match token {
            Token::Name(name) => here
                .unknown_filter(name)
                .or_else(|| here.unknown_part(name))
                .or_else(|| here.multiplied(name).filter(|_| multiplies)),
            Token::Sign('(') => {
                open.push(here.is_behind_filter());
                here.called()
            }
            Token::Sign('[') => {
                open.push(false);
                here.list()
            }
            Token::Sign(')' | ']') => {
                open.pop();
                None
            }
            Token::Sign(',') if open.last() != Some(&true) => Some(NO_LISTS.to_owned()),
            Token::Sign('{') => Some("there is nothing in { } here".to_owned()),
            Token::Sign(_) | Token::Number | Token::Text => None,
        };
        if let Some(what) = is_wrong {
            return Err(Wrong { at: *at, what });
        }
    }
    Ok(())
}

const NO_LISTS: &str = "there are no lists to write here: compare one after the other, with or";

/// A token among the others. What is wrong with it is said, or nothing.
#[derive(Clone, Copy)]
struct Here<'t> {
    tokens: &'t [Placed<'t>],
    number: usize,
}

impl<'t> Here<'t> {
    fn before(self, back: usize) -> Option<Token<'t>> {
        let earlier = self.number.checked_sub(back)?;
        Some(self.tokens[earlier].1)
    }

    /// Whether this, or what a bracket belongs to, is what the name of a filter or a test stands behind.
    fn names_filter(self, name_back: usize) -> Option<(&'static str, &'static [&'static str])> {
        match (self.before(name_back + 1)?, self.before(name_back + 2)) {
            (Token::Sign('|'), _) => Some(("filter", &FILTERS)),
            (Token::Name("not"), Some(Token::Name("is"))) => Some(("test", &TESTS)),
            (Token::Name("is"), before) if before != Some(Token::Sign('.')) => {
                Some(("test", &TESTS))
            }
            _ => None,
        }
    }

    fn is_behind_filter(self) -> bool {
        matches!(self.before(1), Some(Token::Name(_))) && self.names_filter(1).is_some()
    }

    fn unknown_filter(self, name: &str) -> Option<String> {
        let (kind, known) = self.names_filter(0).filter(|_| name != "not")?;
        if known.contains(&name) {
            return None;
        }
        Some(match nearest(name, known.iter().copied()) {
            Some(known) => format!("there is no {kind} {name}: did you mean {known}?"),
            None => format!("there is no {kind} {name}: {}", known.join(", ")),
        })
    }

    fn unknown_part(self, name: &str) -> Option<String> {
        if self.before(1) != Some(Token::Sign('.')) {
            return None;
        }
        let whole = match self.before(2)? {
            Token::Name("media") => {
                return Some(format!("media is a list: write media[0].{name}"));
            }
            Token::Name(whole) => whole,
            Token::Sign(']') if self.before(5) == Some(Token::Name("media")) => "media",
            _ => return None,
        };
        let (_, parts) = PARTS.iter().find(|(known, _)| *known == whole)?;
        let is_known = parts.contains(&name);
        (!is_known).then(|| format!("{whole} has no {name}: it has {}", parts.join(", ")))
    }

    fn multiplied(self, name: &str) -> Option<String> {
        let next = self.tokens.get(self.number + 1..self.number + 3);
        let is_counted = matches!(
            next,
            Some([(_, Token::Sign('|')), (_, Token::Name("length" | "count"))])
        );
        let what = "media cannot be multiplied: count it, as in {{ media | length }}";
        (name == "media" && !is_counted).then(|| what.to_owned())
    }

    fn called(self) -> Option<String> {
        let groups = match self.before(1) {
            None => true,
            Some(Token::Name(word)) => WORDS.contains(&word) || self.is_behind_filter(),
            Some(Token::Sign(sign)) => !matches!(sign, ')' | ']' | '}'),
            Some(Token::Number | Token::Text) => false,
        };
        let what = "there are no functions here: write a filter, as in {{ name | upper }}";
        (!groups).then(|| what.to_owned())
    }

    fn list(self) -> Option<String> {
        let indexes = match self.before(1) {
            Some(Token::Name(word)) => !WORDS.contains(&word),
            Some(Token::Sign(sign)) => matches!(sign, ')' | ']'),
            Some(Token::Text) => true,
            Some(Token::Number) | None => false,
        };
        (!indexes).then(|| NO_LISTS.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, ErrorKind};

    use super::*;

    fn wrong(source: &str) -> Option<(usize, String)> {
        look(source).err().map(|wrong| (wrong.at, wrong.what))
    }

    #[test]
    fn what_people_write_is_taken() {
        for source in [
            "*bold* 2+2 {} { } [x] (y)",
            "Hello {{ profile_name or 'there' }}!",
            "{{ number | int * price }} {{- '}}' ~ \"%}\" }}",
            "{% if args %}a{% elif media | length > 1 and not (a or b) %}b{% else %}c{% endif %}",
            "{%- for file in media -%} {{ loop.index }}: {{ file.url }} {% endfor %}",
            "{{ media[0].url }} {{ text[:20] }} {{ 'it' if media | length == 1 else 'them' }}",
            "{{ price | round(2) | default('?', true) }} {{ '%.2f' | format(price, 3) }}",
            "{{ x is defined }} {{ x is not none }} {{ x is divisibleby(3) }} {{ x is divisibleby 3 }}",
            "{{ media | count * 5 }} {{ -x }} {{ 'a' in text }} {{ 'abc'[0] }}",
            "{# a comment with {{ and {% set x %} in it #}",
            "{{ location.latitude }} {{ button.payload }}",
        ] {
            assert_eq!(wrong(source), None, "{source}");
        }
        assert!(look_at_expression("guests | int > 2 and name != '%}'").is_ok());
    }

    #[test]
    fn what_could_run_or_grow_without_end_is_refused_where_it_stands() {
        for (source, at, what) in [
            ("a {% set x = 1 %}", 5, "there is no set here"),
            ("{% macro m() %}", 3, "there is no macro here"),
            ("{%- raw %}", 4, "there is no raw here"),
            ("{% fro x in media %}", 3, "did you mean for?"),
            ("{% for x in text %}", 3, "for walks through the files"),
            ("{% for x in media recursive %}", 3, "for walks"),
            ("{{ [1, 2] }}", 3, "no lists"),
            ("{{ x in (1, 2) }}", 10, "no lists"),
            ("{{ x or [1] }}", 8, "no lists"),
            ("{{ ([x] | length)[[1]] }}", 4, "no lists"),
            ("{{ {'a': 1} }}", 3, "nothing in { }"),
            ("{{ range(9) }}", 8, "no functions"),
            ("{{ x.upper() }}", 10, "no functions"),
            ("{{ x | join }}", 7, "no filter join"),
            ("{{ x | uper }}", 7, "did you mean upper?"),
            ("{{ x is not sequence }}", 12, "no test sequence"),
            ("{{ media * 9 }}", 3, "cannot be multiplied"),
            ("{{ (media or x) * 9 }}", 4, "cannot be multiplied"),
            ("{{ media[:] * 9 }}", 3, "cannot be multiplied"),
            ("{{ media }}", 3, "write media[0].url"),
            ("{{ location }}", 3, "write location.latitude"),
            ("{{ media.url }}", 9, "write media[0].url"),
            (
                "{{ media[0].ur }}",
                12,
                "media has no ur: it has url, content_type",
            ),
            (
                "{{ button.id }}",
                10,
                "button has no id: it has text, payload",
            ),
            ("{{ ( }} [1] ) }}", 8, "no lists"),
        ] {
            let (found, said) = wrong(source).unwrap_or_else(|| panic!("{source} is taken"));
            assert!(said.contains(what), "{source}: {said}");
            assert_eq!(found, at, "{source}: {said}");
        }
        for source in ["1 %}{% endif %}{% if 1", "x }}{{ x"] {
            assert!(look_at_expression(source).is_err(), "{source}");
        }
        let long = |part: &str, times| format!("{{{{ x {} }}}}", part.repeat(times));
        assert!(wrong(&long("| upper ", 90)).is_none());
        assert!(wrong(&long("| upper ", 110)).is_some());
        assert!(wrong(&"{{ x }}".repeat(201)).is_some());
    }

    #[test]
    fn minijinja_has_every_filter_and_test() {
        let mut env = Environment::new();
        // Rules' own.
        env.add_filter("escape_markup", |text: &str| text.to_owned());
        let render = |source: &str| env.render_str(source, minijinja::context! { x => "1" });
        for filter in FILTERS {
            let error = render(&format!("{{{{ x | {filter} }}}}")).err();
            let kind = error.map(|error| error.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownFilter), "{filter}");
        }
        for test in TESTS {
            let error = render(&format!("{{{{ x is {test} }}}}")).err();
            let kind = error.map(|error| error.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownTest), "{test}");
        }
    }
}
