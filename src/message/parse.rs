//! Parsing of form parameters into an [`InboundMessage`].

use std::str::FromStr;

use jiff::Timestamp;

use super::InboundMessage;
use super::message_status::MessageStatus;
use super::parts::{
    Button, GeoInfo, JsonText, ListChoice, Location, MediaItem, MessageType, OptOutType, Referral,
    ReferralSource, RepliedTo,
};
use crate::address::Address;
use crate::form::{AmbiguousParam, FormParams};
use crate::sid::{MessageSid, SidError};

/// Error of parameters that are not a message. It names the parameter, but never contains its value.
///
/// ```
/// use replyhook::message::{InboundMessage, ParseErrorKind};
/// use replyhook::{FormParams, Timestamp};
///
/// let form = FormParams::from_iter([("Body", "hi")]);
/// let error = InboundMessage::parse(form, Timestamp::UNIX_EPOCH).unwrap_err();
/// assert!(matches!(error.kind(), ParseErrorKind::Missing(_)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ParseError {
    kind: ParseErrorKind,
}

/// Kind of a [`ParseError`].
///
/// See [`ParseError`] for an example.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// A parameter that every message has is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A SID is malformed.
    #[error("{name} is {error}")]
    Malformed {
        /// Name of the parameter.
        name: &'static str,
        /// Error with the expected format.
        error: SidError,
    },
    /// A parameter on which a decision depends has two different values.
    #[error(transparent)]
    Ambiguous(AmbiguousParam),
}

impl ParseError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> &ParseErrorKind {
        &self.kind
    }

    pub(super) fn missing(name: &'static str) -> Self {
        Self {
            kind: ParseErrorKind::Missing(name),
        }
    }
}

impl From<AmbiguousParam> for ParseError {
    fn from(error: AmbiguousParam) -> Self {
        Self {
            kind: ParseErrorKind::Ambiguous(error),
        }
    }
}

/// Parameters that must not have two different values in a message, a fallback call or a status callback.
// They decide which message, user and sender a request is about, or what happens with it. The signed string contains
// both values, so a reader of the first and a reader of the last one would each see a verified value.
const DECIDING: [&str; 13] = [
    "From",
    "To",
    "Body",
    "MessageSid",
    "AccountSid",
    "MessagingServiceSid",
    "ExternalUserId",
    "ParentExternalUserId",
    "NumMedia",
    "MessageStatus",
    "ErrorCode",
    "ErrorUrl",
    "OptOutType",
];

/// Returns an error if a parameter of [`DECIDING`] has two different values.
pub(super) fn reject_ambiguous(params: &FormParams) -> Result<(), ParseError> {
    // One pass over the parameters instead of a search for each of the names.
    let mut seen: [Option<&str>; DECIDING.len()] = [None; DECIDING.len()];
    for (name, value) in params.iter() {
        if let Some(at) = DECIDING.iter().position(|deciding| *deciding == name) {
            match seen[at] {
                Some(first) if first != value => {
                    return Err(AmbiguousParam { name: DECIDING[at] }.into());
                }
                _ => seen[at] = Some(value),
            }
        }
    }
    Ok(())
}

/// Parses a required SID.
pub(super) fn required_sid<S: FromStr<Err = SidError>>(
    params: &FormParams,
    name: &'static str,
) -> Result<S, ParseError> {
    let text = params.get(name).ok_or_else(|| ParseError::missing(name))?;
    text.parse().map_err(|error| ParseError {
        kind: ParseErrorKind::Malformed { name, error },
    })
}

/// Returns a parameter, unless it is missing or empty.
pub(super) fn text(params: &FormParams, name: &str) -> Option<String> {
    params
        .get(name)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
}

/// Parses an optional parameter; `None` if it is missing or malformed.
pub(super) fn parsed<T: FromStr>(params: &FormParams, name: &str) -> Option<T> {
    params.get(name).and_then(|value| value.trim().parse().ok())
}

pub(super) fn inbound(
    params: FormParams,
    received_at: Timestamp,
) -> Result<InboundMessage, ParseError> {
    // Before anything is read: the reads below take the first value of a name.
    reject_ambiguous(&params)?;
    let message_sid = required_sid(&params, "MessageSid")?;
    let account_sid = required_sid(&params, "AccountSid")?;
    let from = Address::parse(text(&params, "From").ok_or_else(|| ParseError::missing("From"))?);
    let to = Address::parse(text(&params, "To").ok_or_else(|| ParseError::missing("To"))?);

    let mut message = InboundMessage {
        message_sid,
        account_sid,
        messaging_service_sid: None,
        from,
        to,
        body: String::new(),
        media: Vec::new(),
        num_media: None,
        num_segments: None,
        message_type: None,
        sms_status: None,
        profile_name: None,
        wa_id: None,
        external_user_id: None,
        parent_external_user_id: None,
        // Not in the loop below: a location needs two parameters, both valid.
        location: location(&params),
        button: None,
        list: None,
        interactive_data: None,
        flow_data: None,
        channel_metadata: None,
        add_ons: None,
        forwarded: None,
        frequently_forwarded: None,
        replied_to: None,
        referral: None,
        opt_out_type: None,
        from_geo: GeoInfo::default(),
        to_geo: GeoInfo::default(),
        api_version: None,
        received_at,
        merged: Vec::new(),
        params: FormParams::default(),
    };
    let mut media_parts = Vec::new();
    // Iterate over the parameters instead of looking up each field: a message has fewer parameters than there are
    // fields.
    for (name, value) in params.iter() {
        if let Some(part) = MediaPart::of(name) {
            media_parts.push((part, value));
        } else if !value.is_empty() {
            message.take(name, value);
        }
    }
    message.media = media(message.message_sid, media_parts);
    message.params = params;
    Ok(message)
}

impl InboundMessage {
    /// Sets the field of one non-empty parameter. Of a repeated parameter the first value counts, as in
    /// [`FormParams::get`].
    fn take(&mut self, name: &str, value: &str) {
        match name {
            "Body" => first_text(&mut self.body, value),
            "NumMedia" => first(&mut self.num_media, value.parse().ok()),
            "NumSegments" => first(&mut self.num_segments, value.parse().ok()),
            "MessagingServiceSid" => first(&mut self.messaging_service_sid, value.parse().ok()),
            "MessageType" => first(&mut self.message_type, Some(MessageType::parse(value))),
            "SmsStatus" => first(&mut self.sms_status, Some(MessageStatus::parse(value))),
            "ProfileName" => owned(&mut self.profile_name, value),
            "WaId" => owned(&mut self.wa_id, value),
            "ExternalUserId" => first(&mut self.external_user_id, Some(value.into())),
            "ParentExternalUserId" => first(&mut self.parent_external_user_id, Some(value.into())),
            "InteractiveData" => first(&mut self.interactive_data, Some(JsonText::new(value))),
            "FlowData" => first(&mut self.flow_data, Some(JsonText::new(value))),
            "ChannelMetadata" => first(&mut self.channel_metadata, Some(JsonText::new(value))),
            "AddOns" => first(&mut self.add_ons, Some(JsonText::new(value))),
            "Forwarded" => first(&mut self.forwarded, boolean(value)),
            "FrequentlyForwarded" => first(&mut self.frequently_forwarded, boolean(value)),
            "OptOutType" => first(&mut self.opt_out_type, Some(OptOutType::parse(value))),
            "ApiVersion" => owned(&mut self.api_version, value),
            "OriginalRepliedMessageSid" => {
                first_text(
                    &mut self
                        .replied_to
                        .get_or_insert_with(RepliedTo::empty)
                        .message_sid,
                    value,
                );
            }
            "OriginalRepliedMessageSender" => {
                first(
                    &mut self.replied_to.get_or_insert_with(RepliedTo::empty).from,
                    Some(value.into()),
                );
            }
            _ => self.take_grouped(name, value),
        }
    }

    /// Sets a field of a struct whose parameters share a prefix.
    fn take_grouped(&mut self, name: &str, value: &str) {
        // `From` and `To` themselves arrive here with an empty rest, which `GeoInfo::take` ignores.
        if let Some(part) = name.strip_prefix("Button") {
            let empty = || Button {
                text: None,
                payload: None,
                kind: None,
            };
            match part {
                "Text" => owned(&mut self.button.get_or_insert_with(empty).text, value),
                "Payload" => owned(&mut self.button.get_or_insert_with(empty).payload, value),
                "Type" => owned(&mut self.button.get_or_insert_with(empty).kind, value),
                _ => {}
            }
        } else if let Some(part) = name.strip_prefix("List") {
            let empty = || ListChoice {
                id: None,
                title: None,
                description: None,
            };
            match part {
                "Id" => owned(&mut self.list.get_or_insert_with(empty).id, value),
                "Title" => owned(&mut self.list.get_or_insert_with(empty).title, value),
                "Description" => owned(&mut self.list.get_or_insert_with(empty).description, value),
                _ => {}
            }
        } else if let Some(part) = name.strip_prefix("Referral") {
            // Twilio sends `ReferralNumMedia=0` with messages that have no referral.
            if !(part == "NumMedia" && value == "0") {
                self.referral
                    .get_or_insert_with(Referral::default)
                    .take(part, value);
            }
        } else if let Some(part) = name.strip_prefix("From") {
            self.from_geo.take(part, value);
        } else if let Some(part) = name.strip_prefix("To") {
            self.to_geo.take(part, value);
        }
    }
}

impl RepliedTo {
    fn empty() -> Self {
        Self {
            message_sid: String::new(),
            from: None,
        }
    }
}

impl Referral {
    fn take(&mut self, part: &str, value: &str) {
        match part {
            "Body" => owned(&mut self.body, value),
            "Headline" => owned(&mut self.headline, value),
            "SourceId" => owned(&mut self.source_id, value),
            "SourceType" => first(&mut self.source_type, Some(ReferralSource::parse(value))),
            "SourceUrl" => owned(&mut self.source_url, value),
            "MediaId" => owned(&mut self.media_id, value),
            "MediaContentType" => owned(&mut self.media_content_type, value),
            "MediaUrl" => owned(&mut self.media_url, value),
            "NumMedia" => first(&mut self.num_media, value.parse().ok()),
            "CtwaClid" => owned(&mut self.ctwa_clid, value),
            _ => {}
        }
    }
}

impl GeoInfo {
    fn take(&mut self, part: &str, value: &str) {
        match part {
            "City" => owned(&mut self.city, value),
            "State" => owned(&mut self.state, value),
            "Zip" => owned(&mut self.zip, value),
            "Country" => owned(&mut self.country, value),
            _ => {}
        }
    }
}

// The setters below keep a field that is set: the first value of a repeated parameter counts.

fn first<T>(field: &mut Option<T>, value: Option<T>) {
    if field.is_none() {
        *field = value;
    }
}

/// Same as [`first`] for a text, without a copy if the field is set.
fn owned(field: &mut Option<String>, value: &str) {
    if field.is_none() {
        *field = Some(value.to_owned());
    }
}

fn first_text(field: &mut String, value: &str) {
    if field.is_empty() {
        value.clone_into(field);
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value {
        _ if value.eq_ignore_ascii_case("true") => Some(true),
        _ if value.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Parses a location. Both coordinates must be valid; otherwise they remain readable in the parameters only.
fn location(params: &FormParams) -> Option<Location> {
    let degrees = |name, max: f64| {
        // The comparison is false for NaN and infinity, which `f64` parses too.
        let value = parsed::<f64>(params, name).filter(|value| value.abs() <= max);
        // Adding zero turns -0.0 into 0.0, which is not written as "-0".
        value.map(|value| value + 0.0)
    };
    Some(Location {
        latitude: degrees("Latitude", 90.0)?,
        longitude: degrees("Longitude", 180.0)?,
        address: text(params, "Address"),
        label: text(params, "Label"),
    })
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MediaPart {
    Url(u16),
    ContentType(u16),
}

impl MediaPart {
    fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("Media")?;
        if let Some(index) = rest.strip_prefix("Url") {
            index.parse().ok().map(Self::Url)
        } else {
            rest.strip_prefix("ContentType")?
                .parse()
                .ok()
                .map(Self::ContentType)
        }
    }
}

/// Collects the media of a message in the order of their index. `NumMedia` is not used, since it may be wrong.
fn media(message_sid: MessageSid, mut parts: Vec<(MediaPart, &str)>) -> Vec<MediaItem> {
    // Numerically, so that `MediaUrl10` follows `MediaUrl2`. The sort is stable: of a repeated index the first
    // non-empty value counts, and the check of `last` below skips the others.
    parts.sort_by_key(|(part, _)| *part);
    let content_type = |index| {
        let found = parts
            .iter()
            .find(|(part, _)| *part == MediaPart::ContentType(index));
        found
            .map(|(_, value)| (*value).to_owned())
            .filter(|value| !value.is_empty())
    };
    let mut items = Vec::new();
    let mut last = None;
    for (part, value) in &parts {
        let MediaPart::Url(index) = *part else {
            continue;
        };
        if !value.is_empty() && last != Some(index) {
            items.push(MediaItem {
                message_sid,
                url: (*value).to_owned(),
                content_type: content_type(index),
            });
            last = Some(index);
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: [(&str, &str); 4] = [
        ("MessageSid", "SM00000000000000000000000000000001"),
        ("AccountSid", "AC00000000000000000000000000000001"),
        ("From", "whatsapp:+15550001111"),
        ("To", "whatsapp:+15550002222"),
    ];

    fn message(more: &[(&str, &str)]) -> Result<InboundMessage, ParseError> {
        inbound(
            BASE.iter().chain(more).copied().collect(),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn media_list_ignores_wrong_num_media() {
        let two = [
            ("MediaUrl10", "https://m/10"),
            ("MediaUrl2", "https://m/2"),
            ("MediaContentType2", "image/png"),
        ];
        for count in ["0", "1", "11", "-1", "x", ""] {
            let message = message(&[&two[..], &[("NumMedia", count)]].concat()).unwrap();
            let urls: Vec<_> = message.media.iter().map(|item| item.url.as_str()).collect();
            assert_eq!(urls, ["https://m/2", "https://m/10"], "{count}");
            assert_eq!(message.media[0].content_type.as_deref(), Some("image/png"));
            assert_eq!(message.media[1].content_type, None);
        }
        assert!(message(&[("NumMedia", "3")]).unwrap().media.is_empty());
    }

    #[test]
    fn message_without_identifying_param_is_rejected() {
        for missing in ["MessageSid", "AccountSid", "From", "To"] {
            let params = BASE
                .iter()
                .filter(|(name, _)| *name != missing)
                .copied()
                .collect();
            let error = inbound(params, Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(error, ParseError::missing(missing));
        }
    }

    #[test]
    fn unknown_enum_value_is_kept() {
        let message = message(&[("MessageType", "hologram"), ("OptOutType", "stop")]).unwrap();
        assert_eq!(
            message.message_type,
            Some(MessageType::Other("hologram".into()))
        );
        assert_eq!(message.opt_out_type, Some(OptOutType::Stop));
    }

    // Invalid coordinates are ignored; the message itself stays valid.
    #[test]
    fn message_with_invalid_coordinates_has_no_location() {
        for latitude in ["NaN", "91", "north", "1e999"] {
            assert!(
                message(&[("Latitude", latitude), ("Longitude", "0")])
                    .unwrap()
                    .location
                    .is_none(),
                "{latitude}"
            );
        }
    }

    // Twilio sends ReferralNumMedia=0 with messages that have no referral.
    #[test]
    fn referral_num_media_alone_gives_no_referral() {
        assert!(
            message(&[("ReferralNumMedia", "0")])
                .unwrap()
                .referral
                .is_none()
        );
        let message = message(&[("ReferralNumMedia", "0"), ("ReferralCtwaClid", "x")]).unwrap();
        assert_eq!(message.referral.unwrap().ctwa_clid.as_deref(), Some("x"));
    }

    proptest! {
        #[test]
        fn message_parse_never_panics(pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..20)) {
            let _ = inbound(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(), Timestamp::UNIX_EPOCH);
        }

        #[test]
        fn optional_param_with_any_value_parses(name in "(Latitude|MediaUrl[0-9]{1,6}|NumMedia|Forwarded|MessagingServiceSid|Referral[A-Z][a-z]+|ChannelMetadata|SmsStatus)", value in any::<String>()) {
            prop_assert!(message(&[(&name, &value)]).is_ok());
        }
    }
}
