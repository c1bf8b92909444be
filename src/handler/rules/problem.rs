//! What is wrong with a rules file, and where.

use std::fmt;

/// One problem: its place in the file, and what to write.
///
/// All of a file: see [`RulesError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RulesProblem {
    /// From 1; 0 where it has no place, as when the file cannot be read.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and what is expected.
    pub text: String,
}

/// All problems of a rules file, in the order of their places.
///
/// ```
/// use replyhook::handler::RuleSet;
///
/// let error = RuleSet::parse("[[rule]]\nwhen.text = 'hi'\nreplay = 'Hello!'").err().expect("a typo");
/// assert_eq!(error.problems()[0].line, 3);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct RulesError(Vec<RulesProblem>);

impl RulesError {
    pub(super) fn new(mut problems: Vec<RulesProblem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        Self(problems)
    }

    /// One problem with a place.
    pub(super) fn at((line, column): (usize, usize), text: impl fmt::Display) -> Self {
        Self(vec![RulesProblem {
            line,
            column,
            text: text.to_string(),
        }])
    }

    /// The file as a whole.
    pub(super) fn whole(text: impl fmt::Display) -> Self {
        Self::at((0, 0), text)
    }

    /// Each of them.
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
        let mut between = "";
        self.0.iter().try_for_each(|problem| {
            write!(f, "{between}{problem}")?;
            between = "\n";
            Ok(())
        })
    }
}

/// Where lines of a text begin.
pub(super) struct Lines<'s> {
    source: &'s str,
    begin: Vec<usize>,
}

impl<'s> Lines<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        let ends = source.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            source,
            begin: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// A byte's line, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.begin.partition_point(|begin| *begin <= at)
    }

    /// A byte's line and column, from 1.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.source.len());
        while !self.source.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.line(at);
        let before = &self.source[self.begin[line - 1]..at];
        (line, before.chars().count() + 1)
    }
}
