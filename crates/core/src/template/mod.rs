//! Content templates of Twilio, as a file declares them: their rules and limits, without I/O.
//!
//! [`lint_template`] finds everything that Twilio or WhatsApp would reject, [`lint_channels`] the channels on which a message
//! would fail, and [`DeclaredTemplate`] has the requests that create and submit a template.
//!
//! Sources: twilio.com/docs/content, Meta's pages of template components. Where they differ, the stricter rule.

mod action_rules;
mod body_rules;
mod channel_rules;
mod comparison;
mod content_types;
mod declared;
mod finding;
mod languages;
pub mod limits;
mod lint;
#[cfg(test)]
mod lint_samples;
mod part_rules;
mod placeholders;
mod type_rules;
mod variable_rules;

pub use channel_rules::lint_channels;
pub use comparison::is_same_content;
pub use content_types::{WHATSAPP_TYPES, is_shown_on, type_on};
pub use declared::{DeclaredTemplate, templates_of};
pub use finding::TemplateFinding;
pub use lint::{lint_template, repeated_templates};
pub use placeholders::placeholder_names;
