//! Rules for the buttons of a template.

use super::finding::TemplateFinding;
use super::limits::{
    MAX_BUTTON_ID, MAX_BUTTON_TITLE, MAX_CODE, MAX_LINK_TITLE, MAX_PHONE, MAX_URL_BUTTONS,
};
use super::part_rules::{TemplatePart, TypeLint};
use crate::choice::title_keyword;
use crate::sms_keywords::STOP;

/// Types of buttons that each content type takes.
pub(super) const QUICK_REPLIES: [&str; 1] = ["QUICK_REPLY"];
pub(super) const CALLS_TO_ACTION: [&str; 6] = [
    "URL",
    "PHONE_NUMBER",
    "COPY_CODE",
    "VOICE_CALL",
    "VOICE_CALL_REQUEST",
    "REQUEST_CONTACT_INFO",
];
pub(super) const PAYMENTS: [&str; 5] = ["PIX", "BOLETO", "PAYMENT_LINK", "COPY_CODE", "URL"];
pub(super) const CARD_BUTTONS: [&str; 9] = [
    "QUICK_REPLY",
    "URL",
    "PHONE_NUMBER",
    "COPY_CODE",
    "VOICE_CALL",
    "VOICE_CALL_REQUEST",
    "PIX",
    "BOLETO",
    "PAYMENT_LINK",
];
pub(super) const CAROUSEL_BUTTONS: [&str; 3] = ["URL", "PHONE_NUMBER", "QUICK_REPLY"];

/// Maximum lifetime of a button in minutes: 30 days.
const MAX_TTL_MINUTES: u64 = 43_200;

impl TypeLint<'_> {
    /// Checks the buttons of a part, and returns their types.
    pub(super) fn actions<'v>(
        &mut self,
        of: &TemplatePart<'v>,
        allowed: &[&str],
        max: usize,
    ) -> Vec<&'v str> {
        let actions = self.list(of, "actions", max);
        let mut kinds = Vec::new();
        for action in &actions {
            // Only a quick reply may leave out its type.
            let kind = match action.field("type") {
                Some(kind) => kind.text().unwrap_or(""),
                None if allowed == QUICK_REPLIES => "QUICK_REPLY",
                None => "",
            };
            if !allowed.contains(&kind) {
                let known = allowed.join(", ");
                self.add(
                    action.path_of("type"),
                    "the type of the button is missing, unknown or not allowed here",
                    format!("use {known}"),
                );
            }
            self.action(action, kind);
            kinds.push(kind);
        }
        let path = of.path_of("actions");
        let texts = |name: &str| -> Vec<&'v str> {
            let fields = actions.iter().filter_map(|action| action.field(name));
            fields.filter_map(|field| field.text()).collect()
        };
        self.distinct(&path, "title", texts("title").into_iter());
        self.distinct(&path, "id", texts("id").into_iter());
        if self.is_approved_type {
            self.kinds_on_whatsapp(&path, &kinds);
        }
        kinds
    }

    fn action(&mut self, action: &TemplatePart<'_>, kind: &str) {
        let max = if kind == "QUICK_REPLY" {
            MAX_BUTTON_TITLE
        } else {
            MAX_LINK_TITLE
        };
        let title = self.required_text(action, "title", max);
        if kind == "QUICK_REPLY" {
            self.keyword(&action.path_of("title"), title);
        }
        self.optional_text(action, "id", MAX_BUTTON_ID);
        match kind {
            "URL" => self.button_url(action, "url"),
            "PHONE_NUMBER" => self.phone(action),
            "COPY_CODE" => {
                self.required_text(action, "code", MAX_CODE);
            }
            _ => {}
        }
        if let Some(minutes) = action.field("ttl_minutes")
            && !(minutes.value.as_u64())
                .is_some_and(|minutes| (1..=MAX_TTL_MINUTES).contains(&minutes))
        {
            self.add(minutes.path, "it is not from 1 to 43200", "change it");
        }
    }

    /// Checks that a title is not an opt-out keyword of SMS.
    pub(super) fn keyword(&mut self, path: &str, title: Option<&str>) {
        let keyword = title.and_then(title_keyword);
        if let Some(keyword) = keyword.filter(|keyword| STOP.contains(keyword)) {
            let reason = format!(
                "on SMS, {keyword} is an opt-out keyword: Twilio blocks a user who types this title"
            );
            let remedy = "choose another title, such as two words";
            self.findings.push(TemplateFinding {
                is_advice: true,
                ..TemplateFinding::new(path, reason, remedy)
            });
        }
    }

    fn phone(&mut self, action: &TemplatePart<'_>) {
        let Some(phone) = self.required_text(action, "phone", MAX_PHONE) else {
            return;
        };
        let digits = phone.strip_prefix('+').unwrap_or_default();
        let is_e164 =
            (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_e164 && !phone.contains("{{") {
            self.add(
                action.path_of("phone"),
                "it is not a number in E.164",
                "write + and the digits, such as +15550001111",
            );
        }
    }

    /// Checks number and order of the types. Source: Meta's page of template components.
    fn kinds_on_whatsapp(&mut self, path: &str, kinds: &[&str]) {
        for (kind, max) in [
            ("URL", MAX_URL_BUTTONS),
            ("PHONE_NUMBER", 1),
            ("COPY_CODE", 1),
        ] {
            let number = kinds.iter().filter(|found| **found == kind).count();
            if number > max {
                let reason =
                    format!("it has {number} buttons of type {kind}; WhatsApp takes {max}");
                self.add(path, reason, "remove some");
            }
        }
        // True where the group changes from quick replies to others or back.
        let is_quick = |kind: &&str| *kind == "QUICK_REPLY";
        let changes = kinds
            .windows(2)
            .filter(|pair| is_quick(&pair[0]) != is_quick(&pair[1]));
        if changes.count() > 1 {
            self.add(
                path,
                "quick replies are mixed with other buttons",
                "put all quick replies before or after the others",
            );
        }
    }
}
