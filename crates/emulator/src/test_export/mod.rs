//! Export of a conversation as a test in Rust, Python or JavaScript.

mod javascript;
mod literals;
mod python;
mod rust;
mod script_calls;

use super::scripted_conversation::ScriptedConversation;
use serde::Deserialize;

/// Language of a test.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TestLanguage {
    #[default]
    Rust,
    Python,
    Node,
}

/// Returns the source of a test that repeats a conversation and expects the same replies. `webhook` is the URL of a bot
/// that is a server of its own.
pub(super) fn export_test(
    script: &ScriptedConversation,
    language: TestLanguage,
    webhook: Option<&str>,
) -> String {
    match language {
        TestLanguage::Rust => rust::export(script),
        TestLanguage::Python => python::export(script, webhook),
        TestLanguage::Node => javascript::export(script, webhook),
    }
}
