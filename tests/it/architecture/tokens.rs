//! Tokens of Rust code, without comments and without items that are only compiled for tests.

/// Attribute of items that are only compiled for tests.
const ONLY_FOR_TESTS: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// Returns the names and punctuation of a file. A literal becomes `"`.
pub(super) fn tokens(source: &str) -> Vec<String> {
    let mut rest = source;
    let mut found = Vec::new();
    while let Some(c) = rest.chars().next() {
        let (length, token) = next_token(rest, c);
        if let Some(token) = token {
            found.push(token.to_owned());
        }
        rest = &rest[length..];
    }
    without_tests(&found)
}

/// Returns the length of the next token, comment or space, and the token.
fn next_token(rest: &str, c: char) -> (usize, Option<&str>) {
    const LITERAL: Option<&str> = Some("\"");
    let is_in_name = |c: char| c.is_alphanumeric() || c == '_';
    if c.is_whitespace() {
        return (c.len_utf8(), None);
    }
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (comment_length(rest), None);
    }
    // `b"…"`, `r#"…"#` and so on.
    let quoted = rest.trim_start_matches(['b', 'c', 'r']);
    let prefix = rest.len() - quoted.len();
    let hashes = quoted.len() - quoted.trim_start_matches('#').len();
    if prefix <= 2 && quoted[hashes..].starts_with('"') {
        if rest[..prefix].contains('r') {
            let end = format!("\"{}", "#".repeat(hashes));
            let text = &quoted[hashes + 1..];
            let length = text.find(&end).map_or(text.len(), |at| at + end.len());
            return (prefix + hashes + 1 + length, LITERAL);
        }
        if hashes == 0 {
            return (prefix + literal_length(quoted, '"'), LITERAL);
        }
    }
    if prefix <= 1 && quoted.starts_with('\'') {
        let mut after = quoted[1..].chars();
        let first = after.next();
        // A lifetime has no second quote.
        if first == Some('\\') || after.next() == Some('\'') {
            return (prefix + literal_length(quoted, '\''), LITERAL);
        }
    }
    if is_in_name(c) {
        let length = rest.find(|c| !is_in_name(c)).unwrap_or(rest.len());
        // `r#type` is a name too.
        return (length, Some(&rest[..length]));
    }
    if rest.starts_with("::") {
        return (2, Some("::"));
    }
    (c.len_utf8(), Some(&rest[..c.len_utf8()]))
}

/// Returns the length of a literal that begins and ends with `quote`.
fn literal_length(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if !is_escaped && c == quote {
            return at + 1;
        }
        is_escaped = !is_escaped && c == '\\';
    }
    rest.len()
}

/// Returns the length of a comment, which may contain others.
fn comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&ONLY_FOR_TESTS.map(str::to_owned)) {
            at = end_of_item(tokens, at + ONLY_FOR_TESTS.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Returns the position after an item, field or variant that begins at a position, with further attributes.
fn end_of_item(tokens: &[String], mut at: usize) -> usize {
    const FIELD_ENDS: [&str; 2] = [",", ";"];
    let mut depth = 0;
    let mut ends = &FIELD_ENDS[..];
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" if depth == 0 => return at,
            closing @ ("}" | ")" | "]") => {
                depth -= 1;
                if depth == 0 && closing == "}" {
                    return at + 1;
                }
            }
            // Its commas are between generic parameters.
            "fn" | "impl" | "struct" | "enum" | "trait" if depth == 0 => ends = &FIELD_ENDS[1..],
            other if depth == 0 && ends.contains(&other) => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}
