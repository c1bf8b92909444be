//! Content of an outbound message: `ContentSid` and `ContentVariables` of `POST Messages.json`.

use std::collections::BTreeMap;

use super::content::{find_content, review};
use super::response::TwilioError;
use crate::content::content_kind::{ContentKind, type_for};
use crate::content::content_type::parse_fields;
use crate::content::delivery::ContentDelivery;
use crate::content::phone_content::{PhoneContent, PhoneLayout};
use crate::content::rendering::render;
use crate::content::rules::{ContentRefusal, refusal, value_refusal};
use crate::content::stored_content::{ContentApproval, StoredContent};
use crate::content::variables::{ContentValues, parse_values};
use crate::engine::Engine;
use replyhook_core::address::Channel;
use replyhook_core::error_code::ErrorCode;

/// Returns the content that a recipient on this channel gets, and the conditions for its delivery.
///
/// # Errors
/// 21655 without such a template, and 21656 for invalid variables. Everything else fails by status callback.
pub(super) fn content_for(
    engine: &Engine,
    sid: &str,
    variables: Option<&str>,
    channel: &Channel,
) -> Result<(PhoneContent, ContentDelivery), TwilioError> {
    let given = match variables {
        Some(text) => parse_values(text).ok_or_else(|| {
            TwilioError::bad_request(21656, "The ContentVariables Parameter is invalid.")
        })?,
        None => BTreeMap::new(),
    };
    let template = find_content(engine, sid);
    let template =
        template.ok_or_else(|| TwilioError::bad_request(21655, "The ContentSid is Invalid"))?;
    let approval = template.approval(review(engine, &engine.state()));
    let is_approved = approval == ContentApproval::Approved;
    let mut filled = fill(&template, &given, channel, is_approved);
    filled.content.is_approved = is_approved;
    let delivery = ContentDelivery {
        sid: sid.to_owned(),
        approval,
        opens_conversation: filled.kind.is_some_and(ContentKind::opens_conversation),
        refusal: filled.refusal,
    };
    Ok((filled.content, delivery))
}

/// Content of one message.
struct FilledContent {
    /// Type for the channel, if the template has one.
    kind: Option<ContentKind>,
    content: PhoneContent,
    refusal: Option<ContentRefusal>,
}

impl FilledContent {
    fn refused(kind: Option<ContentKind>, code: u32, problem: String) -> Self {
        Self {
            kind,
            content: PhoneContent::new(PhoneLayout::Text, String::new()),
            refusal: Some((ErrorCode(code), problem)),
        }
    }
}

/// Fills the type for the channel with the values, and checks the result.
fn fill(
    template: &StoredContent,
    given: &BTreeMap<String, String>,
    channel: &Channel,
    is_approved: bool,
) -> FilledContent {
    let Some((kind, fields)) = type_for(&template.draft.types, channel) else {
        let problem = format!("the template has no type for {}", channel.as_str());
        return FilledContent::refused(None, 63021, problem);
    };
    let is_foreign = kind == ContentKind::Text && fields["body"] == "";
    if is_foreign {
        return FilledContent {
            kind: Some(kind),
            content: without_text(template, given),
            refusal: None,
        };
    }
    let mut values = ContentValues::new(given, &template.draft.variables);
    let filled = values.fill(fields);
    let content = match parse_fields(kind, &filled) {
        Ok(content) => content,
        // Valid with placeholders, and not with these values, such as an empty title.
        Err(problem) => return FilledContent::refused(Some(kind), 63005, problem),
    };
    let missing: Vec<_> = values.missing.into_iter().collect();
    let missing = (!missing.is_empty()).then(|| {
        let problem = format!("no value and no sample for {}", missing.join(", "));
        (ErrorCode(63028), problem)
    });
    let is_checked = is_approved && *channel == Channel::WhatsApp;
    let invalid_value = || is_checked.then(|| value_refusal(given)).flatten();
    FilledContent {
        kind: Some(kind),
        refusal: missing
            .or_else(invalid_value)
            .or_else(|| refusal(kind, &content, channel, is_approved)),
        content: render(content, channel),
    }
}

/// Returns the content of a template that was not made here: its SID and variables in place of its text.
fn without_text(template: &StoredContent, given: &BTreeMap<String, String>) -> PhoneContent {
    let pairs: Vec<_> = given
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let text = format!("[template {}] {}", template.sid, pairs.join(", "));
    PhoneContent::new(PhoneLayout::Text, text.trim_end().to_owned())
}
