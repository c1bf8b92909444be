//! Splitting of a shell command into words, for captured curl commands.

/// A quote of the command is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnclosedQuote;

/// Splits a command like a POSIX shell, including bash's `$'…'`. Expands no variables and no globs.
pub(super) fn shell_words(text: &str) -> Result<Vec<String>, UnclosedQuote> {
    let mut words = Vec::new();
    // `Some("")` is an empty quoted word and counts; `None` means that no word has begun.
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(UnclosedQuote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(UnclosedQuote)? {
                        '"' => break,
                        // Within double quotes a backslash escapes these characters only, and stays before all others.
                        '\\' => match chars.next().ok_or(UnclosedQuote)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '$' if chars.peek() == Some(&'\'') => {
                chars.next();
                ansi_quoted(&mut chars, word.get_or_insert_default())?;
            }
            // A backslash at the end of a line continues it. Files from Windows end their lines with CR LF.
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some('\r') if chars.peek() == Some(&'\n') => drop(chars.next()),
                Some(c) => word.get_or_insert_default().push(c),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Reads the rest of a `$'…'` into `word`. Browsers use this quoting when they copy a request as cURL.
fn ansi_quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> Result<(), UnclosedQuote> {
    loop {
        match chars.next().ok_or(UnclosedQuote)? {
            '\'' => return Ok(()),
            '\\' => match chars.next().ok_or(UnclosedQuote)? {
                'n' => word.push('\n'),
                'r' => word.push('\r'),
                't' => word.push('\t'),
                kind @ ('u' | 'x') => {
                    // Up to this many digits: bash ends the escape at the first character that is not one.
                    let max_digits = if kind == 'u' { 4 } else { 2 };
                    let mut code = 0;
                    for _ in 0..max_digits {
                        let Some(digit) = chars.peek().and_then(|c| c.to_digit(16)) else {
                            break;
                        };
                        code = code * 16 + digit;
                        chars.next();
                    }
                    // Half of a surrogate pair has no character of its own.
                    word.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                c => word.push(c),
            },
            c => word.push(c),
        }
    }
}
