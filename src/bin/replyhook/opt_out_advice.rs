//! Advice where Twilio's handling of opt-out keywords differs from the settings, for `check` and `doctor`.

use replyhook::Address;
use replyhook::config::{Settings, SmsKeywords, is_toll_free};

/// A difference, and what to do about it.
pub(crate) struct OptOutAdvice {
    pub(crate) found: String,
    pub(crate) remedy: &'static str,
}

/// Returns the advice for these settings and the known senders.
// Leaves out Messaging Services: Twilio's API does not tell whether one has Advanced Opt-Out.
pub(crate) fn opt_out_advice<'a>(
    settings: &Settings,
    senders: impl Iterator<Item = &'a Address>,
) -> Vec<OptOutAdvice> {
    let toll_free = senders.filter(|sender| is_toll_free(sender)).count();
    let mut advice = Vec::new();
    if settings.consent.sms == SmsKeywords::Own {
        advice.push(OptOutAdvice {
            found: "consent.sms is own; Twilio's API does not tell whether Twilio handles opt-out keywords too"
                .to_owned(),
            remedy: "if it does, users get Twilio's confirmation, and replyhook's fails with 21610: have Twilio switch off its \
                     handling of keywords, or set consent.sms = \"twilio\". With Advanced Opt-Out, OptOutType decides",
        });
    }
    if toll_free > 0 {
        let found = format!(
            "toll-free numbers ({toll_free}): their carriers handle STOP, START and UNSTOP alone, whatever is set at Twilio"
        );
        let remedy = match settings.consent.sms {
            SmsKeywords::Twilio => {
                "nothing to set: replyhook confirms other opt-out keywords itself, and YES does not end an opt-out there"
            }
            SmsKeywords::Own => {
                "keep these three words in consent.sms_stop_words and consent.sms_start_words; the carrier confirms them, \
                 and blocks replyhook's confirmation of STOP"
            }
        };
        advice.push(OptOutAdvice { found, remedy });
    }
    advice
}
