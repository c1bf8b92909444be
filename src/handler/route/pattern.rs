//! Patterns: none is larger or slower than a message can bear, and all that are matched with one are bounded together.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use regex::{Regex, RegexBuilder};

use super::weight::{read, weight};

/// What a pattern may take, compiled: more is a pattern that repeats repetitions.
pub(crate) const PATTERN_BYTES: usize = 3 * 512 * 1024;
/// Of one pattern, for one text: places of the pattern times characters. A step takes some 20 ns.
const MOST_STEPS: u64 = MOST_WEIGHT * CHARACTERS;
/// Places of a pattern that are under way at once.
const MOST_WEIGHT: u64 = 400;
/// Of the longest text that Twilio brings. Several that are merged have more.
const CHARACTERS: u64 = 1600;
/// For all patterns that are matched with one message, once they may take more steps than one may.
const PATIENCE: Duration = Duration::from_millis(25);

/// Why a pattern is none that a route can have.
///
/// ```
/// use replyhook::route::{PatternError, try_regex};
///
/// assert_eq!(try_regex("([ab]{1,5000}){1,2}c").err(), Some(PatternError::TooSlow));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It cannot be read, and why: several lines that draw it.
    #[error("{0}")]
    Syntax(String),
    /// Compiled, it takes over 1.5 MiB.
    #[error("the pattern takes over 1.5 MiB: repeat less, or write [a-z] in place of \\w")]
    TooLarge,
    /// A long text could keep it busy for more than some milliseconds.
    #[error(
        "the pattern takes too long with a long text: begin it with ^, or write + in place of {{1,500}}"
    )]
    TooSlow,
}

/// What was matched with a message has taken too long.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the patterns take too long with this message; the last was {0:?}")]
pub(super) struct TooSlow(String);

/// A pattern, and its weight.
#[derive(Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    weight: u64,
}

impl Pattern {
    /// A pattern without case, of so many bytes at most.
    pub(crate) fn within(pattern: &str, bytes: usize) -> Result<Self, PatternError> {
        let syntax = Self::read(pattern)?;
        let weight = weight(&syntax);
        if weight > MOST_WEIGHT {
            return Err(PatternError::TooSlow);
        }
        let mut builder = RegexBuilder::new(pattern);
        let built = builder.case_insensitive(true).size_limit(bytes).build();
        match built {
            Ok(regex) => Ok(Self { regex, weight }),
            Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::TooLarge),
            Err(error) => Err(PatternError::Syntax(error.to_string())),
        }
    }

    fn read(pattern: &str) -> Result<regex_syntax::hir::Hir, PatternError> {
        read(pattern).map_err(|error| PatternError::Syntax(error.to_string()))
    }

    /// Whether it is a pattern by itself, of any size.
    #[cfg(feature = "rules")]
    pub(crate) fn check_syntax(pattern: &str) -> Result<(), PatternError> {
        Self::read(pattern).map(drop)
    }

    pub(super) fn regex(&self) -> &Regex {
        &self.regex
    }

    /// Whether a text matches it; of one that is too long for it that is not known.
    #[cfg(feature = "rules")]
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.steps(text.chars().count() as u64) <= MOST_STEPS && self.regex.is_match(text)
    }

    fn steps(&self, characters: u64) -> u64 {
        self.weight.saturating_mul(characters)
    }
}

/// What is spent on one message.
#[derive(Default)]
pub(super) struct Effort {
    steps: Cell<u64>,
    since: OnceCell<Instant>,
    too_slow: OnceCell<TooSlow>,
}

impl Effort {
    /// Whether a pattern may be matched with a text of so many characters, too.
    pub(super) fn allows(&self, pattern: &Pattern, characters: u64) -> bool {
        if self.too_slow.get().is_some() {
            return false;
        }
        let since = self.since.get_or_init(Instant::now);
        let own = pattern.steps(characters);
        let all = self.steps.get().saturating_add(own);
        self.steps.set(all);
        // Few steps never fail, however long the machine was busy with something else.
        let is_too_slow = own > MOST_STEPS || all > MOST_STEPS && since.elapsed() > PATIENCE;
        if is_too_slow {
            let name = TooSlow(pattern.regex.as_str().chars().take(60).collect());
            let _ = self.too_slow.set(name);
        }
        !is_too_slow
    }

    /// # Errors
    /// A pattern was not matched.
    pub(super) fn end(&self) -> Result<(), TooSlow> {
        self.too_slow.get().cloned().map_or(Ok(()), Err)
    }
}
