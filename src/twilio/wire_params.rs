//! Parameters of `POST Messages` for a message of a reply.

use std::collections::BTreeMap;

use crate::address::Address;
use crate::form::FormParams;
use crate::reply::{ContentShape, TemplateContent, TemplateKey, WireMessage, WireRichContent};
use crate::sid::MessagingServiceSid;
use crate::store::{TEMPLATE_LANGUAGE, TEMPLATE_NAME, TEMPLATE_SID};
use crate::twiml::replace_invalid_chars;

/// Recipient, sender and Messaging Service of a message. At least one of the last two is set.
pub(crate) struct WireAddresses<'a> {
    pub(crate) to: &'a Address,
    pub(crate) from: Option<&'a Address>,
    pub(crate) service: Option<MessagingServiceSid>,
}

/// Returns the parameters of a message as they are stored: a content resource of ours has its shape in place of its SID.
pub(crate) fn wire_params(wire: &WireMessage<'_>, addresses: &WireAddresses<'_>) -> FormParams {
    // A message with media alone has no `Body`.
    let text = replace_invalid_chars(&wire.text);
    let text = Some(&*text).filter(|text| !text.is_empty());
    let service = addresses.service.as_ref();
    let single = [
        ("To", Some(addresses.to.as_str())),
        ("From", addresses.from.map(Address::as_str)),
        (
            "MessagingServiceSid",
            service.map(MessagingServiceSid::as_str),
        ),
        ("Body", text),
        ("StatusCallback", wire.status_callback),
    ];
    let single = single
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let media = wire
        .media
        .iter()
        .filter_map(|media| Some(("MediaUrl", media.link()?)));
    let params: FormParams = single.chain(media).collect();
    let content = wire
        .content
        .as_ref()
        .map(content_params)
        .unwrap_or_default();
    content.iter().fold(params, |params, (name, value)| {
        params.iter().chain([(*name, value.as_str())]).collect()
    })
}

/// Returns the parameters of a rich content, besides the text that replaces it.
fn content_params(content: &WireRichContent) -> Vec<(&'static str, String)> {
    let json = |variables: &BTreeMap<String, String>| {
        let clean = |text: &String| replace_invalid_chars(text).into_owned();
        let variables = variables
            .iter()
            .map(|(name, value)| (name.clone(), clean(value).into()));
        serde_json::Value::Object(variables.collect()).to_string()
    };
    match content {
        WireRichContent::Shape { shape, variables } => vec![
            (ContentShape::PARAM, shape.name()),
            ("ContentVariables", json(variables)),
        ],
        WireRichContent::Template(TemplateContent { key, variables }) => {
            let mut params = match key {
                TemplateKey::Sid(sid) => vec![(TEMPLATE_SID, sid.clone())],
                TemplateKey::Name { name, language } => vec![
                    (TEMPLATE_NAME, name.clone()),
                    (TEMPLATE_LANGUAGE, language.clone()),
                ],
            };
            if !variables.is_empty() {
                params.push(("ContentVariables", json(variables)));
            }
            params
        }
        WireRichContent::Location(action) => vec![("PersistentAction", action.clone())],
    }
}
