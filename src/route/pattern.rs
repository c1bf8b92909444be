//! Patterns with limits on their size and matching time, for each pattern and for all patterns of one message.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use regex::{Regex, RegexBuilder};

use super::pattern_cost::{cost, parse};

/// Maximum size of a compiled pattern: 1.5 MiB. Larger ones usually repeat a repetition.
pub(crate) const MAX_PATTERN_BYTES: usize = 3 * 512 * 1024;
/// Maximum number of steps of one pattern for one text: cost of the pattern times characters. A step takes some 20 ns.
const MAX_STEPS: u64 = MAX_COST * MAX_MESSAGE_CHARS;
/// Maximum cost of a pattern: the number of its positions that may be active at the same time.
const MAX_COST: u64 = 400;
/// Characters of the longest text of one message. A text of several debounced messages may be longer.
const MAX_MESSAGE_CHARS: u64 = 1600;
/// Maximum time for all patterns of one message. It applies once their steps exceed [`MAX_STEPS`].
const MATCH_TIMEOUT: Duration = Duration::from_millis(25);

/// Error for a pattern that a route cannot use.
///
/// ```
/// use replyhook::route::{PatternError, try_regex};
///
/// assert_eq!(try_regex("([ab]{1,5000}){1,2}c").err(), Some(PatternError::TooSlow));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The syntax is invalid. The text has several lines that show the pattern and the position of the error.
    #[error("{0}")]
    Syntax(String),
    /// The compiled pattern is larger than 1.5 MiB.
    #[error(
        "the compiled pattern is larger than 1.5 MiB; repeat less, or write [a-z] in place of \\w"
    )]
    TooLarge,
    /// Matching a long text could take more than some milliseconds.
    #[error(
        "the pattern could take too long with a long text; begin it with ^, or write + in place of {{1,500}}"
    )]
    TooSlow,
}

/// Error if the patterns of a router exceed the limits for a message. Omits the text, which a user wrote.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the patterns take too long with this message; the last was {0:?}")]
pub(super) struct TooSlow(String);

/// Compiled pattern with its cost.
#[derive(Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    cost: u64,
}

impl Pattern {
    /// Compiles a case-insensitive pattern whose compiled size is at most [`MAX_PATTERN_BYTES`].
    pub(crate) fn compile(pattern: &str) -> Result<Self, PatternError> {
        let syntax = Self::parse(pattern)?;
        // Before compiling, so that nested repetitions are reported as `TooSlow` without building them.
        let cost = cost(&syntax);
        if cost > MAX_COST {
            return Err(PatternError::TooSlow);
        }
        let mut builder = RegexBuilder::new(pattern);
        builder.case_insensitive(true).size_limit(MAX_PATTERN_BYTES);
        match builder.build() {
            Ok(regex) => Ok(Self { regex, cost }),
            Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::TooLarge),
            Err(error) => Err(PatternError::Syntax(error.to_string())),
        }
    }

    fn parse(pattern: &str) -> Result<regex_syntax::hir::Hir, PatternError> {
        parse(pattern).map_err(|error| PatternError::Syntax(error.to_string()))
    }

    /// Checks the syntax only, not the size and cost.
    #[cfg(feature = "rules")]
    pub(crate) fn check_syntax(pattern: &str) -> Result<(), PatternError> {
        Self::parse(pattern).map(drop)
    }

    /// Estimates the compiled size of a pattern in bytes, without compiling it.
    #[cfg(feature = "rules")]
    pub(crate) fn estimate_size(pattern: &str) -> Result<usize, PatternError> {
        Self::parse(pattern).map(|syntax| super::pattern_cost::estimate_size(&syntax))
    }

    pub(super) fn regex(&self) -> &Regex {
        &self.regex
    }

    /// Returns true if the text matches. A text that would take more than [`MAX_STEPS`] steps is not matched.
    #[cfg(feature = "rules")]
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.steps(text.chars().count() as u64) <= MAX_STEPS && self.regex.is_match(text)
    }

    fn steps(&self, characters: u64) -> u64 {
        self.cost.saturating_mul(characters)
    }
}

/// Matching effort spent on one message.
#[derive(Default)]
pub(super) struct Effort {
    steps: Cell<u64>,
    /// Time of the first call of [`try_spend`](Self::try_spend).
    started_at: OnceCell<Instant>,
    too_slow: OnceCell<TooSlow>,
}

impl Effort {
    /// Records a match of a pattern with a text of `characters` characters. Returns false if the limits forbid the
    /// match.
    pub(super) fn try_spend(&self, pattern: &Pattern, characters: u64) -> bool {
        // The message fails anyway, so that further matches would be wasted.
        if self.too_slow.get().is_some() {
            return false;
        }
        let started_at = self.started_at.get_or_init(Instant::now);
        let steps = pattern.steps(characters);
        let total = self.steps.get().saturating_add(steps);
        self.steps.set(total);
        // Check the time only above `MAX_STEPS` in total, so that a busy machine does not fail a message with few
        // steps. The check precedes the match, which may therefore exceed the time by the steps of one pattern.
        let is_too_slow =
            steps > MAX_STEPS || total > MAX_STEPS && started_at.elapsed() > MATCH_TIMEOUT;
        if is_too_slow {
            let error = TooSlow(pattern.regex.as_str().chars().take(60).collect());
            let _ = self.too_slow.set(error);
        }
        !is_too_slow
    }

    /// Finishes the matching of a message.
    ///
    /// # Errors
    /// [`TooSlow`] if a pattern was skipped, so that the results of the filters are not reliable.
    pub(super) fn finish(&self) -> Result<(), TooSlow> {
        self.too_slow.get().cloned().map_or(Ok(()), Err)
    }
}
