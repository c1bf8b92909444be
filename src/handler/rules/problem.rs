//! What is wrong with a rules file, and where.

use std::fmt;

/// One problem: its place in the file, and what to write.
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
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct RulesError(Vec<RulesProblem>);

impl RulesError {
    pub(super) fn new(mut problems: Vec<RulesProblem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        Self(problems)
    }

    /// The file as a whole.
    pub(super) fn whole(text: impl fmt::Display) -> Self {
        Self(vec![RulesProblem {
            line: 0,
            column: 0,
            text: text.to_string(),
        }])
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

/// Line and column of a byte.
pub(super) fn place(source: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let begins = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[begins..].chars().count() + 1)
}
