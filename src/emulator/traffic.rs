//! The form that Twilio posts for a user's message, with the parameters that real traffic carries.
//!
//! Source: twilio.com/docs/messaging/guides/webhook-request, and captures for what that leaves out.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde_json::json;

use jiff::Timestamp;

use super::account::sid;
use super::record::{Button, Location, MediaRecord, Record};
use crate::address::{Address, Channel, Identity};
use crate::form::Form;
use crate::reply::segments;
use crate::sid::AccountSid;

/// What a user sends, for a webhook that is made by hand.
///
/// ```
/// use replyhook::emulator::UserSends;
///
/// let mut sends = UserSends::default();
/// sends.from = "whatsapp:+15550001111".to_owned();
/// sends.to = "whatsapp:+15550002222".to_owned();
/// sends.button = Some(("Yes".to_owned(), "confirm:42".to_owned()));
/// let form = sends.form("AC00000000000000000000000000000001".parse()?);
/// assert_eq!(form.get("ButtonPayload"), Some("confirm:42"));
/// assert_eq!(form.get("Body"), Some("Yes"));
/// # Ok::<(), replyhook::sid::SidError>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct UserSends {
    /// The user's address, as in `whatsapp:+15550001111`.
    pub from: String,
    /// The bot's.
    pub to: String,
    /// The text; without one, that of the button.
    pub body: Option<String>,
    /// URL and type of each file.
    pub media: Vec<(String, String)>,
    /// Degrees north and east, and what is there.
    pub location: Option<(f64, f64, Option<String>)>,
    /// What is written on a button, and what it carries.
    pub button: Option<(String, String)>,
    /// The profile's name (WhatsApp).
    pub profile_name: Option<String>,
}

impl UserSends {
    /// The form that Twilio would post, with a `MessageSid` of its own.
    pub fn form(&self, account: AccountSid) -> Form {
        let at = Timestamp::UNIX_EPOCH;
        let has_media = !self.media.is_empty();
        let text_of_button = self.button.as_ref().map(|(text, _)| text.clone());
        let media = self.media.iter().map(|(url, content_type)| MediaRecord {
            sid: String::new(),
            url: url.clone(),
            content_type: content_type.clone(),
            filename: None,
            is_here: false,
            at,
        });
        let message = Record {
            media: media.collect(),
            location: self
                .location
                .clone()
                .map(|(latitude, longitude, label)| Location {
                    latitude,
                    longitude,
                    address: None,
                    label,
                }),
            button: self
                .button
                .clone()
                .map(|(text, payload)| Button { text, payload }),
            profile_name: self.profile_name.clone(),
            ..Record::inbound(
                sid(if has_media { "MM" } else { "SM" }),
                self.from.clone(),
                self.to.clone(),
                self.body.clone().or(text_of_button).unwrap_or_default(),
                at,
            )
        };
        inbound(account.as_str(), &message)
    }
}

impl std::fmt::Debug for UserSends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserSends").finish_non_exhaustive()
    }
}

/// The parameters of an inbound message's webhook.
pub(super) fn inbound(account: &str, message: &Record) -> Form {
    let user = Address::parse(message.user.as_str());
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(32);
    let mut put = |name: &str, value: &str| pairs.push((name.to_owned(), value.to_owned()));
    for (index, media) in message.media.iter().enumerate() {
        put(&format!("MediaContentType{index}"), &media.content_type);
        put(&format!("MediaUrl{index}"), &media.url);
    }
    if let Some(place) = &message.location {
        put("Latitude", &place.latitude.to_string());
        put("Longitude", &place.longitude.to_string());
        if let Some(address) = &place.address {
            put("Address", address);
        }
        if let Some(label) = &place.label {
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
        Channel::WhatsApp => whatsapp(message, &user, &mut put),
        Channel::Rcs => rcs(message, &user, &mut put),
        _ => {}
    }
    pairs.into_iter().collect()
}

/// As numbers of the United States have it; much of it comes empty.
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

fn whatsapp(message: &Record, user: &Address, put: &mut impl FnMut(&str, &str)) {
    let name = message.profile_name.as_deref().unwrap_or("Ana");
    put("ProfileName", name);
    put("MessageType", message_type(message));
    put("ExternalUserId", &external_user_id(user));
    let mut context = json!({"ProfileName": name});
    if user.identity() == Identity::Phone {
        let digits = user.id().trim_start_matches('+');
        put("WaId", digits);
        context["WaId"] = digits.into();
    }
    if let Some(button) = &message.button {
        put("ButtonType", "REPLY");
        context["ButtonText"] = button.text.as_str().into();
    }
    let metadata = json!({"type": "whatsapp", "data": {"context": context}});
    put("ChannelMetadata", &metadata.to_string());
}

fn rcs(message: &Record, user: &Address, put: &mut impl FnMut(&str, &str)) {
    let mut context = json!({
        "agentId": message.sender.trim_start_matches("rcs:"),
        "channelPayload": {"senderPhoneNumber": user.id(), "messageId": message.sid},
    });
    if let Some(button) = &message.button {
        put("ButtonType", "REPLY");
        context["buttonType"] = "REPLY".into();
        context["buttonPayload"] = button.payload.as_str().into();
    }
    let metadata = json!({"type": "rcs", "data": {"context": context}});
    put("ChannelMetadata", &metadata.to_string());
}

fn message_type(message: &Record) -> &'static str {
    if message.button.is_some() {
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

/// A user's business-scoped id: it stays the same whichever way they write.
pub(super) fn external_user_id(user: &Address) -> String {
    if user.identity() == Identity::BusinessScopedId {
        return user.as_str().to_owned();
    }
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(user.id());
    format!("whatsapp:US.{hash:020}")
}
