//! Markdown within one line: bold, italic, strikethrough, links, code and escapes.

use super::markup::WORD_JOINER;

/// Maximum depth of links whose texts contain links.
// Each level reads its text again, and takes stack.
const MAX_DEPTH: usize = 3;
/// Maximum length in bytes of a link's URL and title.
// Nested parentheses would make each of them as long as the text.
const MAX_TARGET_BYTES: usize = 4096;
/// Characters that a backslash makes literal.
const ESCAPABLE: [char; 8] = ['*', '_', '~', '`', '#', '[', ']', '\\'];

/// Converter for a kind of channel.
pub(super) struct InlineMarkdown {
    /// True for WhatsApp's marks, false for plain text.
    pub(super) has_marks: bool,
}

/// A kind of marks. Each ends with the marks that it began with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MarkKind {
    BoldStars,
    BoldLines,
    ItalicStar,
    ItalicLine,
    Strike,
}

const MARK_COUNT: usize = 5;

/// A part of a line.
enum MarkdownToken<'t> {
    Text(&'t str),
    /// Converted text, such as a link.
    Converted(String),
    /// Marks with their place in the line. `role` is decided when the line has been read up to their end.
    Marks {
        kind: MarkKind,
        source: &'t str,
        role: MarkRole,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MarkRole {
    Literal,
    Begin,
    End,
}

/// Marks that have begun and not ended.
#[derive(Default)]
struct OpenMarks {
    /// Positions in the list of tokens.
    stack: Vec<usize>,
    /// Number of open marks of each kind, so that marks without a beginning are found without a search.
    counts: [usize; MARK_COUNT],
}

impl MarkKind {
    /// Returns the kinds of a run of marks, the outer one first, with their lengths; none if it is only text.
    fn of_run(mark: char, length: usize) -> &'static [(Self, usize)] {
        match (mark, length) {
            ('*', 1) => &[(Self::ItalicStar, 1)],
            ('*', 2) => &[(Self::BoldStars, 2)],
            ('*', 3) => &[(Self::BoldStars, 2), (Self::ItalicStar, 1)],
            ('_', 1) => &[(Self::ItalicLine, 1)],
            ('_', 2) => &[(Self::BoldLines, 2)],
            ('_', 3) => &[(Self::BoldLines, 2), (Self::ItalicLine, 1)],
            ('~', 2) => &[(Self::Strike, 2)],
            _ => &[],
        }
    }

    fn is_bold(self) -> bool {
        matches!(self, Self::BoldStars | Self::BoldLines)
    }

    /// Returns WhatsApp's mark.
    fn on_whatsapp(self) -> char {
        match self {
            Self::BoldStars | Self::BoldLines => '*',
            Self::ItalicStar | Self::ItalicLine => '_',
            Self::Strike => '~',
        }
    }

    /// Returns true if marks of this kind may touch a character on their outer side: `2*3*4` and `snake_case` are text.
    fn may_touch(self, outside: Option<char>) -> bool {
        outside.is_none_or(|c| match self {
            Self::BoldStars | Self::Strike => !c.is_ascii_digit(),
            Self::ItalicStar => !c.is_ascii_alphanumeric(),
            Self::BoldLines | Self::ItalicLine => !c.is_alphanumeric(),
        })
    }
}

impl InlineMarkdown {
    /// Appends the converted line.
    pub(super) fn convert(&self, line: &str, converted: &mut String) {
        self.append(line, converted, 0, false);
    }

    /// Appends the converted line, which is bold as a whole.
    pub(super) fn convert_bold(&self, line: &str, converted: &mut String) {
        let mark = if self.has_marks { "*" } else { "" };
        converted.push_str(mark);
        self.append(line, converted, 0, true);
        converted.push_str(mark);
    }

    fn append(&self, line: &str, converted: &mut String, depth: usize, is_bold: bool) {
        let tokens = self.tokens(line, depth, is_bold);
        let mut bold_depth = usize::from(is_bold);
        for token in tokens {
            match token {
                MarkdownToken::Text(text) => converted.push_str(text),
                MarkdownToken::Converted(text) => converted.push_str(&text),
                MarkdownToken::Marks {
                    source,
                    role: MarkRole::Literal,
                    ..
                } => converted.push_str(source),
                MarkdownToken::Marks { kind, role, .. } => {
                    let is_begin = role == MarkRole::Begin;
                    // Bold text within bold text has no marks of its own.
                    let is_outer = bold_depth == usize::from(!is_begin);
                    if kind.is_bold() {
                        bold_depth = if is_begin {
                            bold_depth + 1
                        } else {
                            bold_depth - 1
                        };
                    }
                    if self.has_marks && (is_outer || !kind.is_bold()) {
                        converted.push(kind.on_whatsapp());
                    }
                }
            }
        }
    }

    fn tokens<'t>(&self, line: &'t str, depth: usize, is_bold: bool) -> Vec<MarkdownToken<'t>> {
        let brackets = Brackets::of(line);
        let mut code = CodeSpans::default();
        let mut tokens = Vec::new();
        let mut open = OpenMarks::default();
        // Beginning of the text that is not in `tokens` yet.
        let mut text_start = 0;
        let mut at = 0;
        while let Some(c) = line[at..].chars().next() {
            let found = match c {
                '\\' => escape(line, at),
                '`' => code.find(line, at, self.has_marks),
                '[' | '!' if depth < MAX_DEPTH => self.link(line, at, &brackets, depth, is_bold),
                'h' => url(line, at),
                _ => None,
            };
            if let Some((token, end)) = found {
                tokens.push(MarkdownToken::Text(&line[text_start..at]));
                tokens.push(token);
                (at, text_start) = (end, end);
                continue;
            }
            let run = match c {
                '*' | '_' | '~' => line[at..].len() - line[at..].trim_start_matches(c).len(),
                // A run of backticks that does not begin code is text as a whole.
                '`' => line[at..].len() - line[at..].trim_start_matches('`').len(),
                _ => c.len_utf8(),
            };
            let kinds = MarkKind::of_run(c, run);
            if !kinds.is_empty() {
                tokens.push(MarkdownToken::Text(&line[text_start..at]));
                text_start = at + run;
                open.push_run(line, at, kinds, &mut tokens);
            }
            at += run;
        }
        tokens.push(MarkdownToken::Text(&line[text_start..]));
        tokens
    }

    /// Returns the link or picture that begins at a byte, and its end.
    fn link<'t>(
        &self,
        line: &'t str,
        at: usize,
        brackets: &Brackets,
        depth: usize,
        is_bold: bool,
    ) -> Option<(MarkdownToken<'t>, usize)> {
        let open = at + usize::from(line[at..].starts_with('!'));
        let label_end = brackets
            .end_of(open)
            .filter(|_| line[open..].starts_with('['))?;
        let target_start = label_end + 1;
        let target_end = brackets
            .end_of(target_start)
            .filter(|_| line[target_start..].starts_with('('))?;
        if target_end - target_start > MAX_TARGET_BYTES {
            return None;
        }
        let label = line[open + 1..label_end].trim();
        let target = line[target_start + 1..target_end].trim();
        let url = target.split_whitespace().next().unwrap_or_default();
        let title = target[url.len()..].trim_start();
        // Other text in brackets is not the title of a link.
        if !title.is_empty() && !title.starts_with(['"', '\'', '(']) {
            return None;
        }
        let target = match url.strip_prefix('<').and_then(|url| url.strip_suffix('>')) {
            Some(url) if title.is_empty() => url,
            _ => target,
        };
        let mut converted = String::new();
        if label != target {
            self.append(label, &mut converted, depth + 1, is_bold);
        }
        match (converted.is_empty(), target.is_empty()) {
            (_, true) => {}
            (true, false) => converted.push_str(target),
            (false, false) => {
                converted.push_str(" (");
                converted.push_str(target);
                converted.push(')');
            }
        }
        Some((MarkdownToken::Converted(converted), target_end + 1))
    }
}

impl OpenMarks {
    /// Appends a run of marks, and decides which marks it ends and begins.
    fn push_run<'t>(
        &mut self,
        line: &'t str,
        at: usize,
        kinds: &[(MarkKind, usize)],
        tokens: &mut Vec<MarkdownToken<'t>>,
    ) {
        let length: usize = kinds.iter().map(|(_, length)| length).sum();
        let before = line[..at].chars().next_back();
        let after = line[at + length..].chars().next();
        // A mark next to a word joiner is one that `escape_markup` has made literal.
        let is_text = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace() && c != WORD_JOINER);
        let mut rest = at;
        let mut push = |length: usize, kind, role, tokens: &mut Vec<MarkdownToken<'t>>| {
            let source = &line[rest..rest + length];
            rest += length;
            tokens.push(MarkdownToken::Marks { kind, source, role });
        };
        // The last mark that began ends first.
        let mut ends: Vec<_> = kinds.to_vec();
        let mut begins = Vec::new();
        if is_text(before) {
            ends.sort_by_key(|(kind, _)| std::cmp::Reverse(self.position(*kind, tokens)));
            for (kind, length) in ends {
                if kind.may_touch(after) && self.end(kind, tokens) {
                    push(length, kind, MarkRole::End, tokens);
                } else {
                    begins.push((kind, length));
                }
            }
        } else {
            begins = ends;
        }
        for (kind, length) in begins {
            if is_text(after) && kind.may_touch(before) {
                self.stack.push(tokens.len());
                self.counts[kind as usize] += 1;
            }
            // Literal until their end is found.
            push(length, kind, MarkRole::Literal, tokens);
        }
    }

    /// Returns the position of the last open marks of a kind, if they are among the last few.
    fn position(&self, kind: MarkKind, tokens: &[MarkdownToken<'_>]) -> Option<usize> {
        let last = self.stack.iter().rev().take(2);
        last.copied().find(
            |at| matches!(&tokens[*at], MarkdownToken::Marks { kind: open, .. } if *open == kind),
        )
    }

    /// Ends the last open marks of a kind. Those that began after them stay text. Returns false if there are none.
    fn end(&mut self, kind: MarkKind, tokens: &mut [MarkdownToken<'_>]) -> bool {
        if self.counts[kind as usize] == 0 {
            return false;
        }
        while let Some(at) = self.stack.pop() {
            let MarkdownToken::Marks {
                kind: open, role, ..
            } = &mut tokens[at]
            else {
                continue;
            };
            self.counts[*open as usize] -= 1;
            if *open == kind {
                *role = MarkRole::Begin;
                break;
            }
        }
        true
    }
}

/// Pairs of brackets and parentheses in a line, found in one pass.
struct Brackets {
    /// Byte of the end of the pair that begins at a byte. Sorted by the beginning.
    pairs: Vec<(usize, usize)>,
}

impl Brackets {
    fn of(line: &str) -> Self {
        let mut pairs = Vec::new();
        // Most lines have no links.
        if !line.contains("](") {
            return Self { pairs };
        }
        let (mut square, mut round) = (Vec::new(), Vec::new());
        let mut is_escaped = false;
        for (at, c) in line.char_indices() {
            let was_escaped = std::mem::take(&mut is_escaped);
            match c {
                _ if was_escaped => {}
                '\\' => is_escaped = true,
                '[' => square.push(at),
                '(' => round.push(at),
                ']' => pairs.extend(square.pop().map(|begin| (begin, at))),
                ')' => pairs.extend(round.pop().map(|begin| (begin, at))),
                _ => {}
            }
        }
        pairs.sort_unstable();
        Self { pairs }
    }

    fn end_of(&self, begin: usize) -> Option<usize> {
        let found = self.pairs.binary_search_by_key(&begin, |(begin, _)| *begin);
        found.ok().map(|at| self.pairs[at].1)
    }
}

/// Lengths of runs of backticks that do not occur in the rest of the line.
#[derive(Default)]
struct CodeSpans {
    missing: Vec<usize>,
}

impl CodeSpans {
    /// Returns the inline code that begins at a byte, and its end. It ends with as many backticks as it began with.
    fn find<'t>(
        &mut self,
        line: &'t str,
        at: usize,
        has_marks: bool,
    ) -> Option<(MarkdownToken<'t>, usize)> {
        let rest = line[at..].trim_start_matches('`');
        let length = line.len() - at - rest.len();
        if self.missing.contains(&length) {
            return None;
        }
        let start = at + length;
        let mut from = start;
        while let Some(found) = line[from..].find('`') {
            let run_start = from + found;
            let run = line[run_start..].len() - line[run_start..].trim_start_matches('`').len();
            if run == length {
                let end = run_start + run;
                let source = if has_marks { at..end } else { start..run_start };
                return Some((MarkdownToken::Text(&line[source]), end));
            }
            from = run_start + run;
        }
        self.missing.push(length);
        None
    }
}

/// Returns the character after a backslash that makes it literal, and its end.
fn escape(line: &str, at: usize) -> Option<(MarkdownToken<'_>, usize)> {
    let start = at + 1;
    let next = line[start..].chars().next()?;
    let end = start + next.len_utf8();
    ESCAPABLE
        .contains(&next)
        .then(|| (MarkdownToken::Text(&line[start..end]), end))
}

/// Returns the URL that begins at a byte, and its end: marks within it are not Markdown.
fn url(line: &str, at: usize) -> Option<(MarkdownToken<'_>, usize)> {
    let rest = &line[at..];
    if !rest.starts_with("http://") && !rest.starts_with("https://") {
        return None;
    }
    let is_end =
        |c: char| c.is_whitespace() || matches!(c, '*' | '`' | '~' | '[' | ']' | ')' | '>' | '\\');
    let url = &rest[..rest.find(is_end).unwrap_or(rest.len())];
    // Marks at the end are around the URL.
    let url = url.trim_end_matches('_');
    Some((MarkdownToken::Text(url), at + url.len()))
}
