//! Content: templates with their types, variables and approval, the rules for sending them, and their form on a phone.
//!
//! Source: twilio.com/docs/content, and Twilio's `OpenAPI` description of the Content API.

pub(crate) mod content_kind;
pub(crate) mod content_type;
pub(crate) mod delivery;
pub(crate) mod phone_content;
pub(crate) mod rendering;
pub(crate) mod rules;
pub(crate) mod stored_content;
pub(crate) mod variables;
