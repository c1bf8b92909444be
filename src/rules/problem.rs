//! Problems of a rules file, with their positions.

use std::fmt;

/// One problem of a rules file: its position and its text, which contains the fix.
///
/// See [`RulesError`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RulesProblem {
    /// The line, counted from 1; 0 for a problem of the whole file, such as a file that cannot be read.
    pub line: usize,
    /// The column in characters, counted from 1; 0 for a problem of the whole file.
    pub column: usize,
    /// The problem, and the expected content.
    pub text: String,
}

/// All problems of a rules file, in the order of their positions.
///
/// ```
/// use replyhook::rules::RuleSet;
///
/// let error = RuleSet::parse("[[rule]]\nwhen.text = 'hi'\nreplay = 'Hello!'").err().expect("a typo");
/// assert_eq!(error.problems()[0].line, 3);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct RulesError(Vec<RulesProblem>);

impl RulesError {
    pub(super) fn new(mut problems: Vec<RulesProblem>) -> Self {
        // They are found in the order in which keys are read, which is not that of the file.
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        Self(problems)
    }

    /// Creates an error of one problem at a line and column.
    pub(super) fn at((line, column): (usize, usize), text: impl fmt::Display) -> Self {
        Self(vec![RulesProblem {
            line,
            column,
            text: text.to_string(),
        }])
    }

    /// Creates an error of one problem of the whole file.
    pub(super) fn whole_file(text: impl fmt::Display) -> Self {
        Self::at((0, 0), text)
    }

    /// Returns all problems.
    pub fn problems(&self) -> &[RulesProblem] {
        &self.0
    }
}

impl fmt::Display for RulesProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.text);
        }
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.text
        )
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        self.0.iter().try_for_each(|problem| {
            write!(f, "{separator}{problem}")?;
            separator = "\n";
            Ok(())
        })
    }
}

/// The starts of a text's lines.
// Built once per file: each look-up is a binary search, and not a scan of the file.
pub(super) struct LineStarts<'s> {
    source: &'s str,
    starts: Vec<usize>,
}

impl<'s> LineStarts<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        let ends = source.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            source,
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// Returns the line of a byte, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Returns the line and column of a byte, counted from 1.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.source.len());
        // An offset within a character would make the slice below panic.
        while !self.source.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.line(at);
        let before = &self.source[self.starts[line - 1]..at];
        (line, before.chars().count() + 1)
    }
}
