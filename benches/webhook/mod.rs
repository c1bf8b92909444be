//! Webhook requests as Twilio sends them for a WhatsApp text: 20 parameters, about 870 bytes.

use replyhook::signature::sign;
use replyhook::{FormParams, Secret};

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const PUBLIC_URL: &str = "https://bot.example.com";
pub(crate) const TARGET: &str = "/webhook";
// With accents, characters that the form escapes, and an emoji, as users write. An emoji is outside of Unicode's basic
// plane, so form-encoding it takes twelve bytes.
pub(crate) const TEXT: &str = "Olá! Can I still move my appointment to 3:30 & pay 100% then? 👍";

// Encoded, a quarter of the body.
const METADATA: &str = r#"{"type":"whatsapp","data":{"context":{"ProfileName":"Zoë","WaId":"15550001111","Forwarded":"false","FrequentlyForwarded":"false"}}}"#;

/// Number of users. Consecutive messages come from different ones.
// Messages of one conversation are handled one after the other, and would measure the wait for the message before.
const USERS: u32 = 4096;

/// Body and signature of one request.
pub(crate) struct Webhook {
    pub(crate) body: String,
    pub(crate) signature: String,
}

impl Webhook {
    /// Creates the request with this number. Different numbers have different `MessageSid`s.
    pub(crate) fn numbered(number: u32) -> Self {
        // A multiplication by an odd number, so the SIDs are unique and none is a redelivery. Like Twilio's, they are
        // spread over the index of the journal: ascending ones would all go to its last page, which is cheaper.
        let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let sid = format!("SM{spread:032x}");
        let user = number % USERS;
        // The number makes each text different: a user who repeats a text within seconds is taken for a bot, and gets
        // no more replies (`guard.loop_detection`).
        let text = format!("{TEXT} {number:08}");
        let (phone, external) = (
            format!("whatsapp:+1555{user:07}"),
            format!("whatsapp:US.1349120865530{user:07}"),
        );
        let form = FormParams::from_iter([
            ("SmsMessageSid", sid.as_str()),
            ("NumMedia", "0"),
            ("ProfileName", "Zoë"),
            ("MessageType", "text"),
            ("SmsSid", &sid),
            ("WaId", &phone[10..]),
            ("SmsStatus", "received"),
            ("Body", &text),
            ("Forwarded", "false"),
            ("FrequentlyForwarded", "false"),
            ("To", "whatsapp:+15550002222"),
            ("MessagingServiceSid", "MG00000000000000000000000000000001"),
            ("NumSegments", "1"),
            ("ReferralNumMedia", "0"),
            ("MessageSid", &sid),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("ExternalUserId", &external),
            ("ChannelMetadata", METADATA),
            ("From", &phone),
            ("ApiVersion", "2010-04-01"),
        ]);
        let url = format!("{PUBLIC_URL}{TARGET}");
        Self {
            body: form.encode(),
            signature: sign(&Secret::new(TOKEN), &url, Some(&form))
                .expect("the token is not blank"),
        }
    }
}
