//! `Content`: templates, their variables, and whether WhatsApp has approved them. On another host than messages: [`Client::new`] with
//! `https://content.twilio.com`.
//!
//! Source: twilio.com/docs/content/content-api-resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{List, Meta, answer};
use super::{Client, Credentials, RestError};

const LIST: List<'_> = List {
    path: "/v1/ContentAndApprovals",
    query: "",
    page_size: 100,
    most_pages: 50,
};

/// A template.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn look(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// use replyhook::twilio::ApprovalStatus;
///
/// for template in client.templates(&credentials).await? {
///     if template.approval.status == ApprovalStatus::Approved {
///         println!("{} ({}): {:?}", template.name, template.language, template.variables);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Template {
    /// `HX…`: what a message names.
    pub sid: String,
    /// What it is called at Twilio.
    pub name: String,
    /// Such as `en` or `pt_BR`.
    pub language: String,
    /// Its variables by name, with the samples that it was made with.
    pub variables: BTreeMap<String, String>,
    /// `twilio/text`, `twilio/quick-reply` …
    pub types: Vec<String>,
    /// Whether WhatsApp lets it open a conversation.
    pub approval: Approval,
}

/// The variables of a template.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn look(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// let sid = "HX00000000000000000000000000000001";
/// if let Some(variables) = client.template_variables(sid, &credentials).await? {
///     println!("it needs {:?}", variables.needed);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TemplateVariables {
    /// The names that stand in its texts, buttons and links, in whichever of its types.
    pub needed: BTreeSet<String>,
    /// The names that it was made with samples for. Twilio puts the sample in the place of one that a message leaves out.
    ///
    /// Source: twilio.com/docs/content/using-variables-with-content-api.
    pub samples: BTreeSet<String>,
}

impl TemplateVariables {
    /// `None` where it does not show its texts.
    fn read(wire: WireContent) -> Option<Self> {
        let types = wire.types.unwrap_or_default();
        // The text of this one is WhatsApp's.
        if types.contains_key("whatsapp/authentication") {
            return None;
        }
        let mut texts = Vec::new();
        for value in types.values() {
            collect(value, &mut texts);
        }
        let needed = texts.iter().flat_map(|text| names(text)).collect();
        let samples = wire.variables.unwrap_or_default().into_keys().collect();
        (!texts.is_empty()).then_some(Self { needed, samples })
    }
}

/// All texts in a value that are not empty.
fn collect<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) if !text.is_empty() => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

/// Each `name` of `{{name}}`.
fn names(text: &str) -> impl Iterator<Item = String> {
    let after = text.split("{{").skip(1);
    let names = after.filter_map(|rest| Some(rest.split_once("}}")?.0.trim()));
    names
        .filter(|name| !name.is_empty() && !name.contains(['{', '}', ' ']))
        .map(str::to_owned)
}

/// What WhatsApp says to a template.
///
/// Of each template: see [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Approval {
    /// How far it has come.
    pub status: ApprovalStatus,
    /// `UTILITY`, `MARKETING`, `AUTHENTICATION`; empty where it was not submitted.
    pub category: String,
    /// Why it was rejected, in WhatsApp's words.
    pub reason: Option<String>,
}

/// How far an approval has come.
///
/// Of each template: see [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApprovalStatus {
    /// It was never asked for: such a template may only be sent while the window is open.
    Unsubmitted,
    /// Twilio or WhatsApp looks at it.
    Pending,
    /// It may be sent.
    Approved,
    /// It may not be sent.
    Rejected,
    /// It was used in ways that users did not like, and may not be sent for now.
    Paused,
    /// The same, for good.
    Disabled,
    /// Another word of Twilio's.
    Other(String),
}

impl ApprovalStatus {
    fn parse(text: &str) -> Self {
        match text.to_lowercase().as_str() {
            "" | "unsubmitted" | "draft" => Self::Unsubmitted,
            "received" | "pending" => Self::Pending,
            "approved" => Self::Approved,
            "rejected" => Self::Rejected,
            "paused" => Self::Paused,
            "disabled" => Self::Disabled,
            _ => Self::Other(text.to_owned()),
        }
    }

    /// As it is shown.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unsubmitted => "unsubmitted",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Other(text) => text,
        }
    }
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.as_str())?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct WirePage {
    contents: Vec<WireContent>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct WireContent {
    sid: Option<String>,
    friendly_name: Option<String>,
    language: Option<String>,
    // Twilio keeps numbers among the samples as they were given.
    variables: Option<BTreeMap<String, Value>>,
    types: Option<BTreeMap<String, Value>>,
    approval_requests: Option<WireApproval>,
}

#[derive(Deserialize)]
struct WireApprovals {
    whatsapp: Option<WireApproval>,
}

#[derive(Default, Deserialize)]
struct WireApproval {
    status: Option<String>,
    category: Option<String>,
    rejection_reason: Option<String>,
}

impl From<WireApproval> for Approval {
    fn from(wire: WireApproval) -> Self {
        Self {
            status: ApprovalStatus::parse(wire.status.as_deref().unwrap_or_default()),
            category: wire.category.unwrap_or_default(),
            reason: wire.rejection_reason.filter(|reason| !reason.is_empty()),
        }
    }
}

impl From<WireContent> for Template {
    fn from(wire: WireContent) -> Self {
        let sample = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let variables = wire.variables.unwrap_or_default().into_iter();
        Self {
            sid: wire.sid.unwrap_or_default(),
            name: wire.friendly_name.unwrap_or_default(),
            language: wire.language.unwrap_or_default(),
            variables: variables
                .map(|(name, value)| (name, sample(value)))
                .collect(),
            types: wire.types.unwrap_or_default().into_keys().collect(),
            approval: wire.approval_requests.unwrap_or_default().into(),
        }
    }
}

impl Client {
    /// Lists the templates of the account that calls, the first 5000 of them.
    ///
    /// # Errors
    /// [`RestError`]; it changes nothing, so any may be repeated that is not refused.
    pub async fn templates(&self, credentials: &Credentials) -> Result<Vec<Template>, RestError> {
        let mut templates = Vec::new();
        self.pages(&LIST, credentials, |page: WirePage| {
            templates.extend(page.contents.into_iter().map(Into::into));
            page.meta?.next_page_url
        })
        .await?;
        Ok(templates)
    }

    /// What WhatsApp says to a template, `HX…`.
    ///
    /// # Errors
    /// [`RestError`]; HTTP 404 where there is no such template.
    pub async fn approval(
        &self,
        content_sid: &str,
        credentials: &Credentials,
    ) -> Result<Approval, RestError> {
        let path = format!("/v1/Content/{content_sid}/ApprovalRequests");
        let wire: WireApprovals = answer(self.request(Method::GET, &path, credentials)?).await?;
        Ok(wire.whatsapp.unwrap_or_default().into())
    }

    /// The variables of a template, `HX…`; `None` where Twilio does not show its texts.
    ///
    /// # Errors
    /// [`RestError`]; HTTP 404 where there is no such template.
    pub async fn template_variables(
        &self,
        content_sid: &str,
        credentials: &Credentials,
    ) -> Result<Option<TemplateVariables>, RestError> {
        let path = format!("/v1/Content/{content_sid}");
        let wire: WireContent = answer(self.request(Method::GET, &path, credentials)?).await?;
        Ok(TemplateVariables::read(wire))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(content: Value) -> Option<TemplateVariables> {
        TemplateVariables::read(serde_json::from_value(content).unwrap())
    }

    #[test]
    fn a_templates_variables_are_those_of_its_texts_buttons_and_links() {
        let card = json!({"variables": {"1": "Ana", "4": 7}, "types": {
            "twilio/text": {"body": "Hi {{1}}, {{ name }} {{}} {{a b}} {{"},
            "twilio/card": {"title": "Hi {{1}}", "media": ["https://h/{{2}}.png"],
                "actions": [{"type": "URL", "url": "https://h/{{3}}", "title": "Look"}]},
        }});
        let found = read(card).unwrap();
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(list(&found.needed), "1 2 3 name");
        assert_eq!(list(&found.samples), "1 4");
        let fixed = read(json!({"types": {"twilio/text": {"body": "Hello"}}})).unwrap();
        assert!(fixed.needed.is_empty() && fixed.samples.is_empty());
        for unseen in [
            json!({"variables": {"1": "x"}, "types": {}}),
            json!({"types": {"twilio/text": {"body": ""}}}),
            json!({"types": {"whatsapp/authentication": {"body": "Your code"}}}),
        ] {
            assert_eq!(read(unseen), None);
        }
    }
}
