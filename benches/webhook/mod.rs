//! Webhooks as Twilio posts them for a WhatsApp text: 20 parameters, about 850 bytes.

use replyhook::signature::sign;
use replyhook::{Form, Secret};

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const PUBLIC_URL: &str = "https://bot.example.com";
pub(crate) const TARGET: &str = "/webhook";
/// Beyond the basic plane, as most messages with an emoji are: their pairs may be signed in two orders.
pub(crate) const TEXT: &str = "Olá! Can I still move my appointment to 3:30 & pay 100% then? 👍";

const METADATA: &str = r#"{"type":"whatsapp","data":{"context":{"ProfileName":"Zoë","WaId":"15550001111","Forwarded":"false","FrequentlyForwarded":"false"}}}"#;

/// Users who write; messages that follow each other are from different ones.
const USERS: u32 = 4096;

/// One request. No two share a `MessageSid`, so none is a repeat. SIDs are spread as Twilio's are: a journal finds no two
/// beside each other.
pub(crate) struct Webhook {
    pub(crate) body: String,
    pub(crate) signature: String,
}

impl Webhook {
    pub(crate) fn numbered(number: u32) -> Self {
        let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let sid = format!("SM{spread:032x}");
        let user = number % USERS;
        // A user who said the same so fast would be taken for a bot.
        let text = format!("{TEXT} {number:08}");
        let (phone, external) = (
            format!("whatsapp:+1555{user:07}"),
            format!("whatsapp:US.1349120865530{user:07}"),
        );
        let form = Form::from_iter([
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
