//! Warnings about choices and words of a form that are consent keywords, so that a user cannot answer with them.

use super::problem::RulesProblem;
use crate::choice::title_keyword;
use crate::consent::Keywords;

/// A word that a user is meant to write, and its position.
pub(super) struct AnswerWord {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) word: String,
}

impl AnswerWord {
    /// Returns the warning, if the word is a keyword on any channel.
    pub(super) fn warning(&self, keywords: &Keywords) -> Option<RulesProblem> {
        let word = &self.word;
        let is_own = keywords.has_on_other_channels(word);
        let text = match title_keyword(word) {
            Some(keyword) if is_own => format!(
                "{keyword} is a keyword that Twilio handles itself on SMS and RCS, and this server on WhatsApp and Messenger: a \
                 user who writes it unsubscribes, subscribes or gets help; use another word"
            ),
            Some(keyword) => format!(
                "{keyword} is a keyword that Twilio handles itself on SMS and RCS: a user who writes it unsubscribes, subscribes \
                 or gets help; use another word"
            ),
            None if is_own => format!(
                "{word:?} is one of consent.stop_words or consent.start_words: a user who writes it on WhatsApp or Messenger \
                 unsubscribes or subscribes; use another word"
            ),
            None => return None,
        };
        let (line, column) = (self.line, self.column);
        Some(RulesProblem { line, column, text })
    }
}
