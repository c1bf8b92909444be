//! Patterns of a rules file: none is larger than a bot's may be, and all together are bounded, too, since reading them takes
//! time and keeping them takes memory.

use super::reader::Reader;
use crate::handler::route::{PATTERN_BYTES, Pattern, PatternError};

/// What a pattern is counted as, in bytes: the first of these that it fits.
const SIZES: [usize; 4] = [16 * 1024, 128 * 1024, 512 * 1024, PATTERN_BYTES];
/// Of all patterns of a file.
pub(super) const ALL_BYTES: usize = 64 * 1024 * 1024;

impl Reader<'_> {
    /// Reads a pattern, as routes have it.
    ///
    /// # Errors
    /// What is wrong with it, or with there being so many.
    pub(super) fn pattern(&mut self, pattern: &str) -> Result<Pattern, String> {
        for size in SIZES {
            if size > self.pattern_room {
                return Err(
                    "all patterns together are too large: write fewer, or [a-z] in place of \\w"
                        .to_owned(),
                );
            }
            match Pattern::within(pattern, size) {
                Ok(pattern) => {
                    self.pattern_room -= size;
                    return Ok(pattern);
                }
                Err(PatternError::TooLarge) => {}
                Err(error) => return Err(problem(&error)),
            }
        }
        self.pattern_room -= PATTERN_BYTES;
        Err(
            "regex is too large: it repeats what is repeated already, or \\w and \\d, which are the letters and digits of all \
             languages: [a-z] and [0-9] are small"
                .to_owned(),
        )
    }
}

/// Of one that cannot be used, whatever room there is.
pub(super) fn problem(error: &PatternError) -> String {
    if *error == PatternError::TooSlow {
        return "regex is too large: a long text would keep it busy. Begin it with ^, write + in place of {1,500}, and repeat nothing \
                that is repeated already"
            .to_owned();
    }
    // Of several lines the last says what is wrong; the others draw it.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    format!("regex is none: {}", last.trim_start_matches("error: "))
}
