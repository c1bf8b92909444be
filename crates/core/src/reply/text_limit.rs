//! The length of one text.

/// Maximum length of one text in UTF-16 units, the strictest reading of Twilio's "1600 characters" (14103, 21617).
pub const MAX_TEXT_UNITS: usize = 1600;
