//! The texts of `[opt_out]` in a rules file.

use super::reader::{Fields, RulesReader};

/// Maximum length of a text of `[opt_out]`, in characters: what Twilio accepts in one message.
const MAX_OPT_OUT_CHARS: usize = 1600;

/// The texts of `[opt_out]` for users who opt out or in; `None` for a text that the file does not set.
///
/// ```
/// use replyhook::rules::RuleSet;
///
/// let rules = RuleSet::parse("[opt_out]\nstop_reply = 'Bye.'\n[otherwise]\nreply = 'Hi.'")?;
/// assert_eq!(rules.opt_out().stop.as_deref(), Some("Bye."));
/// # Ok::<(), replyhook::rules::RulesError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OptOutTexts {
    /// `opt_out.stop_reply`: the confirmation of an opt-out.
    pub stop: Option<String>,
    /// `opt_out.start_reply`: the confirmation of an opt-in.
    pub start: Option<String>,
}

impl std::fmt::Debug for OptOutTexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OptOutTexts").finish_non_exhaustive()
    }
}

/// Reads `[opt_out]`.
pub(super) fn read_opt_out(reader: &mut RulesReader<'_>, fields: &mut Fields<'_>) -> OptOutTexts {
    let Some(mut table) = reader.table(fields, "opt_out") else {
        return OptOutTexts::default();
    };
    let mut text = |key| {
        let text = reader.text(&mut table, key)?;
        // Keywords are handled before the rules, so a template would have no variables.
        if text.value.contains("{{") || text.value.contains("{%") {
            let message = format!("{key} is not a template; write the text as it is sent");
            reader.add_problem(&text.span, message);
        } else if text.value.chars().count() > MAX_OPT_OUT_CHARS {
            let message =
                format!("{key} has over {MAX_OPT_OUT_CHARS} characters: Twilio accepts no more");
            reader.add_problem(&text.span, message);
        }
        Some(text.value)
    };
    let texts = OptOutTexts {
        stop: text("stop_reply"),
        start: text("start_reply"),
    };
    reader.report_unknown_keys(&table);
    texts
}
