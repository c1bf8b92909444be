//! A lexer of a template's tags, which splits them into the same tokens as minijinja.
//!
//! The tokens must agree with minijinja's: text that only one of them takes for a tag would not be checked.

/// Maximum number of tokens in one tag.
const MAX_TOKENS: usize = 200;
/// Maximum depth of brackets in one tag.
// minijinja's parser is recursive, and takes some 20 KiB of stack for each bracket.
const MAX_OPEN_BRACKETS: usize = 20;

/// A problem of a template.
pub(super) struct TemplateProblem {
    /// The byte of the template at which it is.
    pub(super) at: usize,
    pub(super) message: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TagToken<'t> {
    Name(&'t str),
    Number,
    Text,
    Sign(char),
}

/// A token, with the byte at which it begins.
pub(super) type PlacedToken<'t> = (usize, TagToken<'t>);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Output,
    Statement,
}

/// Returns the byte at which a name occurs in a template or an expression; 0 if it cannot be found.
// minijinja reports undefined names without a position. This is a guess for the problem's column: the name may also
// occur in a comment or in text between tags.
pub(super) fn find_name(source: &str, name: &str) -> usize {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Search from the first tag. An expression has no tags, and is searched from its start.
    let from = source.find("{{").into_iter().chain(source.find("{%"));
    let from = from.min().unwrap_or(0);
    let offsets = source[from..].match_indices(name);
    let mut offsets = offsets.map(|(at, _)| from + at);
    let found = offsets.find(|at| {
        let before = source[..*at].chars().next_back();
        let after = source[at + name.len()..].chars().next();
        // A whole word, and not a part of another value such as `location.name`.
        !before.is_some_and(|c| is_inside(c) || c == '.') && !after.is_some_and(is_inside)
    });
    found.unwrap_or(0)
}

/// Returns the start of the next tag or comment, and its second character: `{`, `%` or `#`.
pub(super) fn next_mark(source: &str, from: usize) -> Option<(usize, u8)> {
    let bytes = source.as_bytes();
    let mut pairs = bytes[from..].windows(2).enumerate();
    pairs.find_map(|(at, pair)| {
        let is_mark = pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#');
        is_mark.then(|| (from + at, pair[1]))
    })
}

/// Returns the tokens of a tag, and the byte after its end. Without `tag`, all of `source` is one expression.
///
/// # Errors
/// [`TemplateProblem`] if the tag has no end or exceeds a limit.
pub(super) fn tokenize(
    source: &str,
    from: usize,
    tag: Option<Tag>,
) -> Result<(Vec<PlacedToken<'_>>, usize), TemplateProblem> {
    let end = match tag {
        Some(Tag::Output) => Some("}}"),
        Some(Tag::Statement) => Some("%}"),
        None => None,
    };
    let mut tokens = Vec::new();
    let mut open_brackets = 0_usize;
    let mut at = from;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        // As in minijinja, a tag does not end while a bracket is open: `}}` then closes two brackets.
        if open_brackets == 0 && end.is_some_and(|end| rest.starts_with(end)) {
            // In `-}}` and `+}}` the sign belongs to the end of the tag: it controls the white space after it.
            if let Some((last, TagToken::Sign('-' | '+'))) = tokens.last()
                && last + 1 == at
            {
                tokens.pop();
            }
            return Ok((tokens, at + 2));
        }
        let length = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
                tokens.push((at, TagToken::Name(&rest[..length])));
                length
            }
            '0'..='9' => {
                tokens.push((at, TagToken::Number));
                let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
                rest.find(|c| !is_inside(c)).unwrap_or(rest.len())
            }
            '"' | '\'' => {
                tokens.push((at, TagToken::Text));
                quoted_length(rest, c)
            }
            sign => {
                match sign {
                    '(' | '[' | '{' => open_brackets += 1,
                    ')' | ']' | '}' => open_brackets = open_brackets.saturating_sub(1),
                    _ => {}
                }
                tokens.push((at, TagToken::Sign(sign)));
                sign.len_utf8()
            }
        };
        if tokens.len() > MAX_TOKENS {
            let message = format!("over {MAX_TOKENS} words and signs in one tag: use several tags");
            return Err(TemplateProblem { at, message });
        }
        if open_brackets > MAX_OPEN_BRACKETS {
            let message = format!("over {MAX_OPEN_BRACKETS} nested brackets: use several tags");
            return Err(TemplateProblem { at, message });
        }
        at += length;
    }
    match tag {
        Some(tag) => Err(TemplateProblem {
            at: from.saturating_sub(2),
            message: match tag {
                Tag::Output => "this tag has no end: write }}".to_owned(),
                Tag::Statement => "this tag has no end: write %}".to_owned(),
            },
        }),
        None => Ok((tokens, source.len())),
    }
}

/// Returns the length of a quoted text, with its quotes.
// A text without an end takes the rest of the source. minijinja then reports the missing quote.
fn quoted_length(rest: &str, quote: char) -> usize {
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
