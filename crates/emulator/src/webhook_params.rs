//! Parameters of the webhook for an inbound message, including those that only real traffic shows.
//!
//! Source: twilio.com/docs/messaging/guides/webhook-request, and captures of real requests for undocumented parameters.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde_json::json;

use jiff::Timestamp;

use super::account::random_sid;
use super::record::{MediaRecord, QuickReply, Record};
use super::shared_location::SharedLocation;
use replyhook_core::address::{Address, Channel, Identity};
use replyhook_core::address_key::AddressKey;
use replyhook_core::form::FormParams;
use replyhook_core::reply::segments;
use replyhook_core::sid::AccountSid;

/// Inbound message of a simulated user, to build the parameters of a webhook from.
///
/// ```
/// use replyhook::emulator::SimulatedMessage;
///
/// let mut message = SimulatedMessage::default();
/// message.from = "whatsapp:+15550001111".to_owned();
/// message.to = "whatsapp:+15550002222".to_owned();
/// message.button = Some(("Yes".to_owned(), "confirm:42".to_owned()));
/// let form = message.form("AC00000000000000000000000000000001".parse()?);
/// assert_eq!(form.get("ButtonPayload"), Some("confirm:42"));
/// assert_eq!(form.get("Body"), Some("Yes"));
/// # Ok::<(), replyhook::sid::SidError>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SimulatedMessage {
    /// Address of the user, as in `whatsapp:+15550001111`.
    pub from: String,
    /// Address of the sender that the user writes to.
    pub to: String,
    /// Text. Default, also if it is empty: the text of the button.
    pub body: Option<String>,
    /// URL and content type of each media file.
    pub media: Vec<(String, String)>,
    /// Latitude and longitude in degrees, and an optional label.
    pub location: Option<(f64, f64, Option<String>)>,
    /// Text and payload of the tapped button.
    pub button: Option<(String, String)>,
    /// Profile name (WhatsApp).
    pub profile_name: Option<String>,
}

impl SimulatedMessage {
    /// Returns the parameters that Twilio would post, with a new `MessageSid`.
    pub fn form(&self, account: AccountSid) -> FormParams {
        // Any time will do: no parameter depends on it.
        let at = Timestamp::UNIX_EPOCH;
        let has_media = !self.media.is_empty();
        let button_text = self.button.as_ref().map(|(text, _)| text.clone());
        let body = self.body.clone().filter(|body| !body.is_empty());
        let media = self.media.iter().map(|(url, content_type)| MediaRecord {
            sid: String::new(),
            url: url.clone(),
            content_type: content_type.clone(),
            filename: None,
            has_content: false,
            at,
        });
        let message = Record {
            media: media.collect(),
            location: self
                .location
                .clone()
                .map(|(latitude, longitude, label)| SharedLocation {
                    latitude,
                    longitude,
                    address: None,
                    label,
                }),
            button: self
                .button
                .clone()
                .map(|(text, payload)| QuickReply { text, payload }),
            profile_name: self.profile_name.clone(),
            ..Record::inbound(
                random_sid(if has_media { "MM" } else { "SM" }),
                self.from.clone(),
                self.to.clone(),
                body.or(button_text).unwrap_or_default(),
                at,
            )
        };
        inbound(account.as_str(), &message)
    }
}

/// Hides the content, which is private.
impl std::fmt::Debug for SimulatedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedMessage").finish_non_exhaustive()
    }
}

/// Returns the parameters of the webhook for an inbound message.
pub(super) fn inbound(account: &str, message: &Record) -> FormParams {
    let user = Address::parse(message.user.as_str());
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(32);
    let mut put = |name: &str, value: &str| pairs.push((name.to_owned(), value.to_owned()));
    for (index, media) in message.media.iter().enumerate() {
        put(&format!("MediaContentType{index}"), &media.content_type);
        put(&format!("MediaUrl{index}"), &media.url);
    }
    if let Some(location) = &message.location {
        put("Latitude", &location.latitude.to_string());
        put("Longitude", &location.longitude.to_string());
        if let Some(address) = &location.address {
            put("Address", address);
        }
        if let Some(label) = &location.label {
            put("Label", label);
        }
    }
    put("SmsMessageSid", &message.sid);
    put("NumMedia", &message.media.len().to_string());
    put("SmsSid", &message.sid);
    put("SmsStatus", "received");
    put("Body", &message.body);
    put("To", &message.sender);
    put("MessageSid", &message.sid);
    put("AccountSid", account);
    put("From", &message.user);
    put("ApiVersion", "2010-04-01");
    put("ReferralNumMedia", "0");
    if let Some(service) = &message.service {
        put("MessagingServiceSid", service);
    }
    if let Some(button) = &message.button {
        put("ButtonText", &button.text);
        if !button.payload.is_empty() {
            put("ButtonPayload", &button.payload);
        }
    }
    if *user.channel() == Channel::Sms {
        put("NumSegments", &segments(&message.body).count.to_string());
        for (name, value) in GEOGRAPHY {
            put(name, value);
        }
    } else {
        put("NumSegments", "1");
    }
    match user.channel() {
        Channel::WhatsApp => put_whatsapp_params(message, &user, &mut put),
        Channel::Rcs => put_rcs_params(message, &user, &mut put),
        _ => {}
    }
    pairs.into_iter().collect()
}

// Twilio derives these from the numbers, here of the United States. Some are empty in real requests too.
const GEOGRAPHY: [(&str, &str); 8] = [
    ("ToCountry", "US"),
    ("ToState", "CA"),
    ("ToCity", ""),
    ("ToZip", ""),
    ("FromCountry", "US"),
    ("FromState", "NY"),
    ("FromCity", "NEW YORK"),
    ("FromZip", "10001"),
];

fn put_whatsapp_params(message: &Record, user: &Address, put: &mut impl FnMut(&str, &str)) {
    let name = message.profile_name.as_deref().unwrap_or("Ana");
    put("ProfileName", name);
    put("MessageType", message_type(message));
    put("ExternalUserId", &external_user_id(user));
    let mut context = json!({"ProfileName": name});
    // A user with a hidden number has no WaId.
    if user.identity() == Identity::Phone {
        let digits = user.id().trim_start_matches('+');
        put("WaId", digits);
        context["WaId"] = digits.into();
    }
    if let Some(button) = &message.button {
        put("ButtonType", button_type(message));
        context["ButtonText"] = button.text.as_str().into();
    }
    if let Some(tap) = &message.tap {
        put("OriginalRepliedMessageSid", &tap.message_sid);
        put("OriginalRepliedMessageSender", &tap.sender);
        put("Forwarded", "false");
        put("FrequentlyForwarded", "false");
    }
    if let Some(fields) = &message.flow {
        let fields = serde_json::Value::Object(fields.clone()).to_string();
        put("InteractiveData", &fields);
        let flow = json!({"name": "flow", "body": "Sent", "response_json": fields});
        put("FlowData", &flow.to_string());
    }
    let metadata = json!({"type": "whatsapp", "data": {"context": context}});
    put("ChannelMetadata", &metadata.to_string());
}

fn put_rcs_params(message: &Record, user: &Address, put: &mut impl FnMut(&str, &str)) {
    let mut context = json!({
        "agentId": message.sender.trim_start_matches("rcs:"),
        "channelPayload": {"senderPhoneNumber": user.id(), "messageId": message.sid},
    });
    if let Some(button) = &message.button {
        put("ButtonType", button_type(message));
        context["buttonType"] = button_type(message).into();
        context["buttonPayload"] = button.payload.as_str().into();
    }
    let metadata = json!({"type": "rcs", "data": {"context": context}});
    put("ChannelMetadata", &metadata.to_string());
}

fn button_type(message: &Record) -> &'static str {
    let tap = message.tap.as_ref();
    tap.map_or("REPLY", |tap| tap.button_type)
}

fn message_type(message: &Record) -> &'static str {
    if let Some(tap) = &message.tap {
        return tap.message_type;
    }
    if message.button.is_some() || message.flow.is_some() {
        return "interactive";
    }
    if message.location.is_some() {
        return "location";
    }
    let Some(media) = message.media.first() else {
        return "text";
    };
    match media.content_type.split('/').next() {
        Some("image") if media.content_type == "image/webp" => "sticker",
        Some("image") => "image",
        Some("audio") => "audio",
        Some("video") => "video",
        _ if media.content_type.contains("vcard") => "contacts",
        _ => "document",
    }
}

/// Returns a user's business-scoped user ID: the address itself, or one derived from the number. Two spellings of a number
/// are one user.
pub(super) fn external_user_id(user: &Address) -> String {
    if user.identity() == Identity::BusinessScopedId {
        return user.as_str().to_owned();
    }
    let number = AddressKey::of(user).address();
    // `DefaultHasher` with its default keys: the same number always has the same ID.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(number.id());
    format!("whatsapp:US.{hash:020}")
}
