//! Consent rules of an app: the keywords of the settings, with their confirmations as TwiML.

use crate::address::Channel;
use crate::app_error::AppError;
use crate::config::Settings;
use crate::consent::{ConsentReplies, ConsentRules, Keywords, SmsKeywords};
use crate::reply::Reply;
#[cfg(feature = "rules")]
use crate::rules::OptOutTexts;
use crate::twiml::Document;

/// Renders a text from the settings as a TwiML response.
pub(super) fn render_document(text: &str) -> Result<Document, AppError> {
    // Rendered before the channel of any message is known, so WhatsApp's limits apply on every channel.
    Document::render(&Reply::text(text), &Channel::WhatsApp, None)
        .map_err(|error| AppError::config(&error))
}

/// Confirmations of consent keywords. A text replaces that of the settings; `None` keeps it.
#[derive(Default)]
pub(super) struct ConfirmationTexts {
    stop: Option<String>,
    start: Option<String>,
}

impl ConfirmationTexts {
    #[cfg(feature = "rules")]
    pub(super) fn of(texts: &OptOutTexts) -> Self {
        Self {
            stop: texts.stop.clone(),
            start: texts.start.clone(),
        }
    }
}

/// Builds the consent keywords and their confirmations. Texts in the rules file override those of the settings.
pub(super) fn consent_rules(
    settings: &Settings,
    overrides: &ConfirmationTexts,
) -> Result<ConsentRules, AppError> {
    let consent = &settings.consent;
    let mut keywords = Keywords::new(&consent.stop_words, &consent.start_words);
    if consent.sms == SmsKeywords::Own {
        keywords = keywords.with_own_sms(&consent.sms_stop_words, &consent.sms_start_words);
    }
    let text =
        |text: &Option<String>, default: &str| render_document(text.as_deref().unwrap_or(default));
    let replies = ConsentReplies {
        stop: text(&overrides.stop, &consent.stop_reply)?,
        start: text(&overrides.start, &consent.start_reply)?,
    };
    Ok(ConsentRules::new(keywords, replies))
}
