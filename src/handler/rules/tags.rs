//! A template's tags, cut into words and signs as minijinja cuts them.

/// In one tag.
const MOST_TOKENS: usize = 200;
/// Brackets in each other: each takes minijinja's parser some 20 KiB of stack.
const MOST_OPEN: usize = 20;

/// What a template may not have.
pub(super) struct Wrong {
    /// A byte of the template.
    pub(super) at: usize,
    pub(super) what: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Name(&'t str),
    Number,
    Text,
    Sign(char),
}

/// A token, and the byte it begins at.
pub(super) type Placed<'t> = (usize, Token<'t>);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Output,
    Statement,
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
pub(super) fn next_mark(source: &str, from: usize) -> Option<(usize, u8)> {
    let bytes = source.as_bytes();
    let mut pairs = bytes[from..].windows(2).enumerate();
    pairs.find_map(|(at, pair)| {
        let is_mark = pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#');
        is_mark.then(|| (from + at, pair[1]))
    })
}

/// A tag's tokens, and where it ends. As minijinja has it, brackets that are open hold the end off.
pub(super) fn tokens(
    source: &str,
    from: usize,
    tag: Option<Tag>,
) -> Result<(Vec<Placed<'_>>, usize), Wrong> {
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
        if open > MOST_OPEN {
            let what = format!("over {MOST_OPEN} brackets in each other: take several tags");
            return Err(Wrong { at, what });
        }
        at += length;
    }
    match tag {
        Some(tag) => Err(Wrong {
            at: from.saturating_sub(2),
            what: match tag {
                Tag::Output => "this tag has no end: write }}".to_owned(),
                Tag::Statement => "this tag has no end: write %}".to_owned(),
            },
        }),
        None => Ok((found, source.len())),
    }
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
