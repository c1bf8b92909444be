//! Patterns of a rules file, with a limit on the size of all of them.
//!
//! A single pattern has the limit of every route. Their sum is limited too, because compiling takes time and compiled
//! patterns take memory.

use super::reader::RulesReader;
use crate::route::{MAX_PATTERN_BYTES, Pattern, PatternError};

/// Sizes in bytes as which a pattern counts: the first of these that it fits.
// The regex crate does not tell the size of a compiled pattern. It only fails beyond a limit.
const SIZE_CLASSES: [usize; 4] = [16 * 1024, 128 * 1024, 512 * 1024, MAX_PATTERN_BYTES];

impl RulesReader<'_> {
    /// Compiles a pattern, with the limits of a route's pattern.
    ///
    /// # Errors
    /// The text of the problem, if the pattern cannot be used or the limit of the file is reached.
    pub(super) fn compile_pattern(&mut self, pattern: &str) -> Result<Pattern, String> {
        for size in SIZE_CLASSES {
            if size > self.pattern_budget {
                return Err(
                    "all patterns together are too large: write fewer, or [a-z] in place of \\w"
                        .to_owned(),
                );
            }
            match Pattern::compile(pattern, size) {
                Ok(pattern) => {
                    self.pattern_budget -= size;
                    return Ok(pattern);
                }
                Err(PatternError::TooLarge) => {}
                Err(error) => return Err(pattern_problem(&error)),
            }
        }
        // A pattern that is too large counts too: the failed attempts to compile it took as long. Cannot underflow,
        // since the loop has checked that this size is left.
        self.pattern_budget -= MAX_PATTERN_BYTES;
        Err(
            "regex is too large: it repeats what is repeated already, or it has \\w or \\d, which cover the letters and digits \
             of all languages; [a-z] and [0-9] are small"
                .to_owned(),
        )
    }
}

/// Returns the problem of a pattern that cannot be used at any size.
pub(super) fn pattern_problem(error: &PatternError) -> String {
    if *error == PatternError::TooSlow {
        return "regex is too large: matching a long text would take too long; start it with ^, write + in place of {1,500}, and do \
                not repeat what is repeated already"
            .to_owned();
    }
    // The regex crate's text has several lines: a drawing of the pattern, and last the error itself.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    format!("invalid regex: {}", last.trim_start_matches("error: "))
}
