//! Parsing of form parameters into an [`InboundMessage`].

use std::str::FromStr;

use jiff::Timestamp;

use super::inbound_message::InboundMessage;
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
const UNAMBIGUOUS_PARAMS: [&str; 13] = [
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

/// Returns an error if a parameter of [`UNAMBIGUOUS_PARAMS`] has two different values.
pub(super) fn reject_ambiguous(params: &FormParams) -> Result<(), ParseError> {
    // One pass over the parameters instead of a search for each of the names.
    let mut seen: [Option<&str>; UNAMBIGUOUS_PARAMS.len()] = [None; UNAMBIGUOUS_PARAMS.len()];
    for (name, value) in params.iter() {
        if let Some(index) = UNAMBIGUOUS_PARAMS.iter().position(|param| *param == name) {
            match seen[index] {
                Some(first) if first != value => {
                    return Err(AmbiguousParam {
                        name: UNAMBIGUOUS_PARAMS[index],
                    }
                    .into());
                }
                _ => seen[index] = Some(value),
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
pub(super) fn optional_text(params: &FormParams, name: &str) -> Option<String> {
    params
        .get(name)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
}

/// Parses an optional parameter; `None` if it is missing or malformed.
pub(super) fn parse_optional<T: FromStr>(params: &FormParams, name: &str) -> Option<T> {
    params.get(name).and_then(|value| value.trim().parse().ok())
}

pub(super) fn parse_inbound(
    params: FormParams,
    received_at: Timestamp,
) -> Result<InboundMessage, ParseError> {
    // Before anything is read: the reads below take the first value of a name.
    reject_ambiguous(&params)?;
    let message_sid = required_sid(&params, "MessageSid")?;
    let account_sid = required_sid(&params, "AccountSid")?;
    let from =
        Address::parse(optional_text(&params, "From").ok_or_else(|| ParseError::missing("From"))?);
    let to = Address::parse(optional_text(&params, "To").ok_or_else(|| ParseError::missing("To"))?);

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
        location: parse_location(&params),
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
        chosen: None,
        had_payload: false,
        params: FormParams::default(),
    };
    let mut media_parts = Vec::new();
    // Iterate over the parameters instead of looking up each field: a message has fewer parameters than there are
    // fields.
    for (name, value) in params.iter() {
        if let Some(part) = MediaPart::parse(name) {
            media_parts.push((part, value));
        } else if !value.is_empty() {
            message.set_field(name, value);
        }
    }
    message.media = collect_media(message.message_sid, media_parts);
    message.params = params;
    Ok(message)
}

impl InboundMessage {
    /// Parses the parameters of an inbound message.
    ///
    /// # Errors
    /// [`ParseError`] if an identifying parameter is missing or malformed, or if one on which a decision depends has
    /// two different values.
    pub fn parse(params: FormParams, received_at: Timestamp) -> Result<Self, ParseError> {
        parse_inbound(params, received_at)
    }

    /// Sets the field of one non-empty parameter. Of a repeated parameter the first value counts, as in
    /// [`FormParams::get`].
    fn set_field(&mut self, name: &str, value: &str) {
        match name {
            "Body" => set_if_empty(&mut self.body, value),
            "NumMedia" => set_once(&mut self.num_media, value.parse().ok()),
            "NumSegments" => set_once(&mut self.num_segments, value.parse().ok()),
            "MessagingServiceSid" => set_once(&mut self.messaging_service_sid, value.parse().ok()),
            "MessageType" => set_once(&mut self.message_type, Some(MessageType::parse(value))),
            "SmsStatus" => set_once(&mut self.sms_status, Some(MessageStatus::parse(value))),
            "ProfileName" => set_text_once(&mut self.profile_name, value),
            "WaId" => set_text_once(&mut self.wa_id, value),
            "ExternalUserId" => set_once(&mut self.external_user_id, Some(value.into())),
            "ParentExternalUserId" => {
                set_once(&mut self.parent_external_user_id, Some(value.into()));
            }
            "InteractiveData" => set_once(&mut self.interactive_data, Some(JsonText::new(value))),
            "FlowData" => set_once(&mut self.flow_data, Some(JsonText::new(value))),
            "ChannelMetadata" => set_once(&mut self.channel_metadata, Some(JsonText::new(value))),
            "AddOns" => set_once(&mut self.add_ons, Some(JsonText::new(value))),
            "Forwarded" => set_once(&mut self.forwarded, parse_bool(value)),
            "FrequentlyForwarded" => set_once(&mut self.frequently_forwarded, parse_bool(value)),
            "OptOutType" => set_once(&mut self.opt_out_type, Some(OptOutType::parse(value))),
            "ApiVersion" => set_text_once(&mut self.api_version, value),
            "OriginalRepliedMessageSid" => {
                set_if_empty(
                    &mut self
                        .replied_to
                        .get_or_insert_with(RepliedTo::empty)
                        .message_sid,
                    value,
                );
            }
            "OriginalRepliedMessageSender" => {
                set_once(
                    &mut self.replied_to.get_or_insert_with(RepliedTo::empty).from,
                    Some(value.into()),
                );
            }
            _ => self.set_grouped_field(name, value),
        }
    }

    /// Sets a field of a struct whose parameters share a prefix.
    fn set_grouped_field(&mut self, name: &str, value: &str) {
        // `From` and `To` themselves arrive here with an empty rest, which `GeoInfo::set_field` ignores.
        if let Some(part) = name.strip_prefix("Button") {
            let empty = || Button {
                text: None,
                payload: None,
                kind: None,
            };
            match part {
                "Text" => set_text_once(&mut self.button.get_or_insert_with(empty).text, value),
                "Payload" => {
                    set_text_once(&mut self.button.get_or_insert_with(empty).payload, value);
                }
                "Type" => set_text_once(&mut self.button.get_or_insert_with(empty).kind, value),
                _ => {}
            }
        } else if let Some(part) = name.strip_prefix("List") {
            let empty = || ListChoice {
                id: None,
                title: None,
                description: None,
            };
            match part {
                "Id" => set_text_once(&mut self.list.get_or_insert_with(empty).id, value),
                "Title" => set_text_once(&mut self.list.get_or_insert_with(empty).title, value),
                "Description" => {
                    set_text_once(&mut self.list.get_or_insert_with(empty).description, value);
                }
                _ => {}
            }
        } else if let Some(part) = name.strip_prefix("Referral") {
            // Twilio sends `ReferralNumMedia=0` with messages that have no referral.
            if !(part == "NumMedia" && value == "0") {
                self.referral
                    .get_or_insert_with(Referral::default)
                    .set_field(part, value);
            }
        } else if let Some(part) = name.strip_prefix("From") {
            self.from_geo.set_field(part, value);
        } else if let Some(part) = name.strip_prefix("To") {
            self.to_geo.set_field(part, value);
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
    fn set_field(&mut self, part: &str, value: &str) {
        match part {
            "Body" => set_text_once(&mut self.body, value),
            "Headline" => set_text_once(&mut self.headline, value),
            "SourceId" => set_text_once(&mut self.source_id, value),
            "SourceType" => set_once(&mut self.source_type, Some(ReferralSource::parse(value))),
            "SourceUrl" => set_text_once(&mut self.source_url, value),
            "MediaId" => set_text_once(&mut self.media_id, value),
            "MediaContentType" => set_text_once(&mut self.media_content_type, value),
            "MediaUrl" => set_text_once(&mut self.media_url, value),
            "NumMedia" => set_once(&mut self.num_media, value.parse().ok()),
            "CtwaClid" => set_text_once(&mut self.ctwa_clid, value),
            _ => {}
        }
    }
}

impl GeoInfo {
    fn set_field(&mut self, part: &str, value: &str) {
        match part {
            "City" => set_text_once(&mut self.city, value),
            "State" => set_text_once(&mut self.state, value),
            "Zip" => set_text_once(&mut self.zip, value),
            "Country" => set_text_once(&mut self.country, value),
            _ => {}
        }
    }
}

// The setters below keep a field that is set: the first value of a repeated parameter counts.

fn set_once<T>(field: &mut Option<T>, value: Option<T>) {
    if field.is_none() {
        *field = value;
    }
}

/// Same as [`set_once`] for a text, without a copy if the field is set.
fn set_text_once(field: &mut Option<String>, value: &str) {
    if field.is_none() {
        *field = Some(value.to_owned());
    }
}

fn set_if_empty(field: &mut String, value: &str) {
    if field.is_empty() {
        value.clone_into(field);
    }
}

fn parse_bool(value: &str) -> Option<bool> {
    match value {
        _ if value.eq_ignore_ascii_case("true") => Some(true),
        _ if value.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Parses a location. Both coordinates must be valid; otherwise they remain readable in the parameters only.
fn parse_location(params: &FormParams) -> Option<Location> {
    let degrees = |name, max: f64| {
        // The comparison is false for NaN and infinity, which `f64` parses too.
        let value = parse_optional::<f64>(params, name).filter(|value| value.abs() <= max);
        // Adding zero turns -0.0 into 0.0, which is not written as "-0".
        value.map(|value| value + 0.0)
    };
    Some(Location {
        latitude: degrees("Latitude", 90.0)?,
        longitude: degrees("Longitude", 180.0)?,
        address: optional_text(params, "Address"),
        label: optional_text(params, "Label"),
    })
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MediaPart {
    Url(u16),
    ContentType(u16),
}

impl MediaPart {
    fn parse(name: &str) -> Option<Self> {
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
fn collect_media(message_sid: MessageSid, mut parts: Vec<(MediaPart, &str)>) -> Vec<MediaItem> {
    // Numerically, so that `MediaUrl10` follows `MediaUrl2`. The sort is stable: of a repeated index the first
    // non-empty value counts, and the check of `last_index` below skips the others.
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
    let mut last_index = None;
    for (part, value) in &parts {
        let MediaPart::Url(index) = *part else {
            continue;
        };
        if !value.is_empty() && last_index != Some(index) {
            items.push(MediaItem {
                message_sid,
                url: (*value).to_owned(),
                content_type: content_type(index),
            });
            last_index = Some(index);
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
        parse_inbound(
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
            let error = parse_inbound(params, Timestamp::UNIX_EPOCH).unwrap_err();
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
            let _ = parse_inbound(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(), Timestamp::UNIX_EPOCH);
        }

        #[test]
        fn optional_param_with_any_value_parses(name in "(Latitude|MediaUrl[0-9]{1,6}|NumMedia|Forwarded|MessagingServiceSid|Referral[A-Z][a-z]+|ChannelMetadata|SmsStatus)", value in any::<String>()) {
            prop_assert!(message(&[(&name, &value)]).is_ok());
        }
    }
}
