//! Patterns of a rules file, with a limit on the size of all of them.
//!
//! A single pattern has the limits of every route. The sum of their estimated sizes is limited too, because compiling
//! takes time and compiled patterns take memory.

use super::reader::RulesReader;
use crate::route::{MAX_PATTERN_BYTES, Pattern, PatternError};

impl RulesReader<'_> {
    /// Compiles a pattern, with the limits of a route's pattern.
    ///
    /// # Errors
    /// The text of the problem, if the pattern cannot be used or the limit of the file is reached.
    pub(super) fn compile_pattern(&mut self, pattern: &str) -> Result<Pattern, String> {
        let size = Pattern::estimate_size(pattern).map_err(|error| pattern_problem(&error))?;
        // A larger one cannot be compiled. It counts too: the failed attempt takes as long.
        let size = size.min(MAX_PATTERN_BYTES);
        let Some(left) = self.pattern_budget.checked_sub(size) else {
            return Err(
                "all patterns together are too large: write fewer, or [a-z] in place of \\w"
                    .to_owned(),
            );
        };
        self.pattern_budget = left;
        Pattern::compile(pattern).map_err(|error| pattern_problem(&error))
    }
}

/// Returns the problem of a pattern that cannot be used.
pub(super) fn pattern_problem(error: &PatternError) -> String {
    match error {
        PatternError::TooLarge => {
            "regex is too large: it repeats what is repeated already, or it has \\w or \\d, which cover the letters and digits \
             of all languages; [a-z] and [0-9] are small"
                .to_owned()
        }
        PatternError::TooSlow => {
            "regex is too large: matching a long text would take too long; start it with ^, write + in place of {1,500}, and do \
             not repeat what is repeated already"
                .to_owned()
        }
        // The regex crate's text has several lines: a drawing of the pattern, and last the error itself.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            format!("invalid regex: {}", last.trim_start_matches("error: "))
        }
    }
}
