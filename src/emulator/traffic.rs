//! The form that Twilio posts for a user's message, with the parameters that real traffic carries.
//!
//! Source: twilio.com/docs/messaging/guides/webhook-request, and captures for what that leaves out.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde_json::json;

use super::record::Record;
use crate::address::{Address, Channel, Identity};
use crate::form::Form;
use crate::reply::segments;

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
    if *user.channel() == Channel::WhatsApp {
        whatsapp(message, &user, &mut put);
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
