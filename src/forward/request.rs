//! The request to the service: the message as JSON.

use serde::Serialize;

use crate::address::Address;
use crate::handler::Context;
use crate::message::{InboundMessage, MessageType, ReferralSource};
use crate::sid::{MessageSid, MessagingServiceSid};

/// Creates a link to each file of the message; `None` for a file to which none can be created.
pub(super) async fn create_links(cx: &Context, message: &InboundMessage) -> Vec<Option<String>> {
    let mut links = Vec::with_capacity(message.media.len());
    for index in 0..message.media.len() {
        let link = cx.media(index).link().await;
        // Not a failure of the message: the service still gets its text and Twilio's URL of the file.
        if let Err(error) = &link {
            tracing::warn!(message_sid = %message.message_sid, index, %error, "could not create a link to a file; the service gets its URL at Twilio only");
        }
        links.push(link.ok());
    }
    links
}

/// The body of the request.
// A public format, documented in docs/src/reference/forward-protocol.md: do not rename, reorder or remove fields.
#[derive(Serialize)]
pub(super) struct ForwardedMessage<'a> {
    message_sid: &'a str,
    account_sid: &'a str,
    messaging_service_sid: Option<&'a str>,
    from: &'a str,
    to: &'a str,
    channel: &'a str,
    profile_name: Option<&'a str>,
    external_user_id: Option<&'a str>,
    parent_external_user_id: Option<&'a str>,
    message_type: Option<&'a str>,
    body: &'a str,
    media: Vec<ForwardedMedia<'a>>,
    location: Option<ForwardedLocation<'a>>,
    button: Option<ForwardedButton<'a>>,
    choice: Option<ForwardedChoice>,
    flow: Option<serde_json::Map<String, serde_json::Value>>,
    referral: Option<ForwardedReferral<'a>>,
    replied_to: Option<ForwardedQuote<'a>>,
    // Always null: opt-out and opt-in keywords reach no handler.
    opt_out: Option<()>,
    received_at: String,
    attempt: u32,
    params: Vec<(&'a str, &'a str)>,
    // SIDs of the messages that `reply.debounce_ms` merged into this one; without any, the key is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    merged: Vec<&'a str>,
}

#[derive(Serialize)]
struct ForwardedMedia<'a> {
    url: &'a str,
    content_type: Option<&'a str>,
    /// A URL that serves the file for one hour without Twilio's credentials; `None` if it could not be created.
    link: Option<&'a str>,
}

#[derive(Serialize)]
struct ForwardedLocation<'a> {
    latitude: f64,
    longitude: f64,
    address: Option<&'a str>,
    label: Option<&'a str>,
}

#[derive(Serialize)]
struct ForwardedButton<'a> {
    text: Option<&'a str>,
    payload: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
}

/// The choice that the user has taken.
#[derive(Serialize)]
struct ForwardedChoice {
    id: String,
    title: String,
    via: &'static str,
    key: Option<String>,
    current: bool,
}

impl ForwardedChoice {
    fn of(message: &InboundMessage) -> Option<Self> {
        let chosen = message.choice()?;
        Some(Self {
            id: chosen.id,
            title: chosen.title,
            via: chosen.via.as_str(),
            key: chosen.key,
            current: chosen.current,
        })
    }
}

#[derive(Serialize)]
struct ForwardedReferral<'a> {
    headline: Option<&'a str>,
    body: Option<&'a str>,
    source_id: Option<&'a str>,
    source_type: Option<&'a str>,
    source_url: Option<&'a str>,
    media_url: Option<&'a str>,
    ctwa_clid: Option<&'a str>,
}

#[derive(Serialize)]
struct ForwardedQuote<'a> {
    message_sid: &'a str,
    from: Option<&'a str>,
}

impl<'a> ForwardedMessage<'a> {
    pub(super) fn new(
        attempt: u32,
        message: &'a InboundMessage,
        links: &'a [Option<String>],
    ) -> Self {
        let service = message.messaging_service_sid.as_ref();
        let external = message.external_user_id.as_ref();
        let parent = message.parent_external_user_id.as_ref();
        Self {
            message_sid: message.message_sid.as_str(),
            account_sid: message.account_sid.as_str(),
            messaging_service_sid: service.map(MessagingServiceSid::as_str),
            from: message.from.as_str(),
            to: message.to.as_str(),
            channel: message.channel().as_str(),
            profile_name: message.profile_name.as_deref(),
            external_user_id: external.map(Address::as_str),
            parent_external_user_id: parent.map(Address::as_str),
            message_type: message.message_type.as_ref().map(MessageType::as_str),
            body: &message.body,
            media: message
                .media
                .iter()
                .zip(links)
                .map(|(media, link)| ForwardedMedia {
                    url: &media.url,
                    content_type: media.content_type.as_deref(),
                    link: link.as_deref(),
                })
                .collect(),
            location: message.location.as_ref().map(|location| ForwardedLocation {
                latitude: location.latitude,
                longitude: location.longitude,
                address: location.address.as_deref(),
                label: location.label.as_deref(),
            }),
            button: message.button.as_ref().map(|button| ForwardedButton {
                text: button.text.as_deref(),
                payload: button.payload.as_deref(),
                kind: button.kind.as_deref(),
            }),
            choice: ForwardedChoice::of(message),
            flow: message.flow_fields(),
            referral: message.referral.as_ref().map(|referral| ForwardedReferral {
                headline: referral.headline.as_deref(),
                body: referral.body.as_deref(),
                source_id: referral.source_id.as_deref(),
                source_type: referral.source_type.as_ref().map(ReferralSource::as_str),
                source_url: referral.source_url.as_deref(),
                media_url: referral.media_url.as_deref(),
                ctwa_clid: referral.ctwa_clid.as_deref(),
            }),
            replied_to: message.replied_to.as_ref().map(|quoted| ForwardedQuote {
                message_sid: &quoted.message_sid,
                from: quoted.from.as_ref().map(Address::as_str),
            }),
            opt_out: None,
            received_at: message
                .received_at
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            attempt,
            params: message.params.iter().collect(),
            merged: message.merged.iter().map(MessageSid::as_str).collect(),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        // Cannot fail: the fields are strings, numbers and lists. serde_json writes a number that is not finite as
        // null.
        serde_json::to_vec(self).expect("these fields are JSON")
    }
}
