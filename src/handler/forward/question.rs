//! What a service is asked: the message as JSON.

use serde::Serialize;

use crate::address::Address;
use crate::handler::Context;
use crate::message::{InboundMessage, ReferralSource};
use crate::sid::{MessageSid, MessagingServiceSid};

/// A link to each file, where one can be made.
pub(super) async fn links(cx: &Context, message: &InboundMessage) -> Vec<Option<String>> {
    let mut links = Vec::with_capacity(message.media.len());
    for index in 0..message.media.len() {
        let link = cx.media(index).link().await;
        if let Err(error) = &link {
            tracing::warn!(message_sid = %message.message_sid, index, %error, "a file has no link");
        }
        links.push(link.ok());
    }
    links
}

/// What a service is told. Its fields, their names and their order are a promise.
#[derive(Serialize)]
pub(super) struct Question<'a> {
    message_sid: &'a str,
    account_sid: &'a str,
    messaging_service_sid: Option<&'a str>,
    from: &'a str,
    to: &'a str,
    channel: &'a str,
    profile_name: Option<&'a str>,
    external_user_id: Option<&'a str>,
    body: &'a str,
    media: Vec<AskedMedia<'a>>,
    location: Option<AskedLocation<'a>>,
    button: Option<AskedButton<'a>>,
    referral: Option<AskedReferral<'a>>,
    replied_to: Option<AskedRepliedTo<'a>>,
    /// Consent words go to the consent hook, and reach no handler.
    opt_out: Option<()>,
    received_at: String,
    attempt: u32,
    params: Vec<(&'a str, &'a str)>,
    /// Only with `reply.debounce_ms`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    merged: Vec<&'a str>,
}

#[derive(Serialize)]
struct AskedMedia<'a> {
    url: &'a str,
    content_type: Option<&'a str>,
    /// Where it can be had for an hour without Twilio's credentials; none where no link can be made.
    link: Option<&'a str>,
}

#[derive(Serialize)]
struct AskedLocation<'a> {
    latitude: f64,
    longitude: f64,
    address: Option<&'a str>,
    label: Option<&'a str>,
}

#[derive(Serialize)]
struct AskedButton<'a> {
    text: Option<&'a str>,
    payload: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
}

#[derive(Serialize)]
struct AskedReferral<'a> {
    headline: Option<&'a str>,
    body: Option<&'a str>,
    source_id: Option<&'a str>,
    source_type: Option<&'a str>,
    source_url: Option<&'a str>,
    media_url: Option<&'a str>,
    ctwa_clid: Option<&'a str>,
}

#[derive(Serialize)]
struct AskedRepliedTo<'a> {
    message_sid: &'a str,
    from: Option<&'a str>,
}

impl<'a> Question<'a> {
    pub(super) fn new(
        cx: &Context,
        message: &'a InboundMessage,
        links: &'a [Option<String>],
    ) -> Self {
        let service = message.messaging_service_sid.as_ref();
        let external = message.external_user_id.as_ref();
        Self {
            message_sid: message.message_sid.as_str(),
            account_sid: message.account_sid.as_str(),
            messaging_service_sid: service.map(MessagingServiceSid::as_str),
            from: message.from.as_str(),
            to: message.to.as_str(),
            channel: message.channel().as_str(),
            profile_name: message.profile_name.as_deref(),
            external_user_id: external.map(Address::as_str),
            body: &message.body,
            media: message
                .media
                .iter()
                .zip(links)
                .map(|(media, link)| AskedMedia {
                    url: &media.url,
                    content_type: media.content_type.as_deref(),
                    link: link.as_deref(),
                })
                .collect(),
            location: message.location.as_ref().map(|place| AskedLocation {
                latitude: place.latitude,
                longitude: place.longitude,
                address: place.address.as_deref(),
                label: place.label.as_deref(),
            }),
            button: message.button.as_ref().map(|button| AskedButton {
                text: button.text.as_deref(),
                payload: button.payload.as_deref(),
                kind: button.kind.as_deref(),
            }),
            referral: message.referral.as_ref().map(|referral| AskedReferral {
                headline: referral.headline.as_deref(),
                body: referral.body.as_deref(),
                source_id: referral.source_id.as_deref(),
                source_type: referral.source_type.as_ref().map(ReferralSource::as_str),
                source_url: referral.source_url.as_deref(),
                media_url: referral.media_url.as_deref(),
                ctwa_clid: referral.ctwa_clid.as_deref(),
            }),
            replied_to: message.replied_to.as_ref().map(|quoted| AskedRepliedTo {
                message_sid: &quoted.message_sid,
                from: quoted.from.as_ref().map(Address::as_str),
            }),
            opt_out: None,
            received_at: message
                .received_at
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            attempt: cx.attempt(),
            params: message.params.iter().collect(),
            merged: message.merged.iter().map(MessageSid::as_str).collect(),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("these fields are JSON")
    }
}
