//! [`TemplateFinding`]: a problem of a template.

/// A problem of a template, with its place and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFinding {
    /// Place in the template, such as `types.twilio/text.body`.
    pub path: String,
    /// The problem. It quotes no text of the template other than variables, names and keywords.
    pub reason: String,
    /// The change that solves it.
    pub remedy: String,
    /// True if Twilio and WhatsApp take the template anyway.
    pub is_advice: bool,
}

impl TemplateFinding {
    pub(super) fn new(
        path: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
            remedy: remedy.into(),
            is_advice: false,
        }
    }
}
