//! The `Content` resource: templates, their variables, and their approval by WhatsApp.
//!
//! The resource is on another host than messages: use [`Client::new`](super::Client::new) with `https://content.twilio.com`.
//!
//! Source: twilio.com/docs/content/content-api-resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use replyhook_core::template::placeholder_names;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[cfg(feature = "app")]
use super::channel_support::ChannelSupport;
use super::error::RestError;
use super::http_client::AuthenticatedClient;
use super::response::{Meta, PagedList, send_and_parse};
use super::session_content::approval_reason;

// Without the approvals, which take Twilio longer.
const LIST_NAMES: PagedList<'_> = PagedList {
    path: "/v1/Content",
    query: "",
    page_size: 500,
    max_pages: 20,
};

// All templates of an account. Of these, only the named ones are kept in memory.
const LIST_ALL: PagedList<'_> = PagedList {
    max_pages: 1000,
    ..LIST
};

// 50 pages bound the time and memory that a large account can take.
const LIST: PagedList<'_> = PagedList {
    path: "/v1/ContentAndApprovals",
    query: "",
    page_size: 100,
    max_pages: 50,
};

/// The `Content` resource: the templates of the account that the credentials belong to.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn list(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// use replyhook::twilio::ApprovalStatus;
///
/// for template in client.contents(&credentials).list().await? {
///     if template.approval.status == ApprovalStatus::Approved {
///         println!("{} ({}): {:?}", template.name, template.language, template.variables);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a>(AuthenticatedClient<'a>);

/// A message template. See [`Contents`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Template {
    /// Content SID, `HX…`, by which a message refers to the template.
    pub sid: String,
    /// Friendly name at Twilio.
    pub name: String,
    /// Language, such as `en` or `pt_BR`.
    pub language: String,
    /// Variables by name, with their samples.
    pub variables: BTreeMap<String, String>,
    /// Content types, such as `twilio/text` or `twilio/quick-reply`.
    pub types: Vec<String>,
    /// Approval by WhatsApp. An approved template may open a conversation.
    pub approval: Approval,
    /// Reason why WhatsApp takes it only after approval, even within the customer service window.
    pub needs_approval: Option<&'static str>,
    /// Channels that can show it.
    #[cfg(feature = "app")]
    pub(crate) channels: ChannelSupport,
}

/// A template with its content, as [`Contents::find_stored`] returns it.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError, StoredTemplate};
/// # async fn find(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// let stored: Vec<StoredTemplate> = client.contents(&credentials).find_stored(&["order_ready"]).await?;
/// let found = stored.iter().find(|template| template.language == "en");
/// println!("it exists: {}", found.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
pub struct StoredTemplate {
    /// Content SID, `HX…`.
    pub sid: String,
    /// Friendly name at Twilio.
    pub name: String,
    /// Language, such as `en` or `pt_BR`.
    pub language: String,
    /// Samples by variable: a JSON object.
    pub variables: Value,
    /// Content by type, such as `twilio/text`: a JSON object.
    pub types: Value,
    /// Approval by WhatsApp.
    pub approval: Approval,
}

/// The variables of a template, and its need of an approval.
pub(crate) struct ContentDetails {
    /// `None` if Twilio's response does not contain the texts.
    pub(crate) variables: Option<TemplateVariables>,
    /// Reason why WhatsApp takes it only after approval, even within the customer service window.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "used by modules of the feature app")
    )]
    pub(crate) needs_approval: Option<&'static str>,
    /// Channels that can show it.
    #[cfg(feature = "app")]
    pub(crate) channels: ChannelSupport,
}

/// The variables of a template.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn fetch(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// let sid = "HX00000000000000000000000000000001";
/// if let Some(variables) = client.contents(&credentials).fetch_variables(sid).await? {
///     println!("it needs {:?}", variables.needed);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TemplateVariables {
    /// Names that occur in texts, buttons and links of any of the template's content types.
    pub needed: BTreeSet<String>,
    /// Names that have a sample. If a message leaves out a variable, Twilio sends the sample in its place.
    ///
    /// Source: twilio.com/docs/content/using-variables-with-content-api.
    pub samples: BTreeSet<String>,
}

impl TemplateVariables {
    /// Collects the variables; `None` if the response does not contain the template's texts.
    fn from_wire(wire: WireContent) -> Option<Self> {
        let types = wire.types.unwrap_or_default();
        // WhatsApp supplies the text of this type, so the variables cannot be read from it.
        if types.contains_key("whatsapp/authentication") {
            return None;
        }
        let mut texts = Vec::new();
        for value in types.values() {
            collect_strings(value, &mut texts);
        }
        // Search every type: Twilio chooses the type to send by the recipient's channel.
        let needed = texts
            .iter()
            .flat_map(|text| placeholder_names(text))
            .map(str::to_owned)
            .collect();
        let samples = wire.variables.unwrap_or_default().into_keys().collect();
        (!texts.is_empty()).then_some(Self { needed, samples })
    }
}

/// Collects all non-empty strings in a value.
// Every field, because each content type has others: bodies, titles, buttons, URLs, media.
fn collect_strings<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) if !text.is_empty() => texts.push(text),
        Value::Array(values) => values
            .iter()
            .for_each(|value| collect_strings(value, texts)),
        Value::Object(fields) => fields
            .values()
            .for_each(|value| collect_strings(value, texts)),
        _ => {}
    }
}

/// Approval of a template by WhatsApp. See [`Contents`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Approval {
    /// Status of the approval.
    pub status: ApprovalStatus,
    /// `UTILITY`, `MARKETING` or `AUTHENTICATION`; empty if the template was not submitted.
    pub category: String,
    /// Reason of a rejection, as WhatsApp states it.
    pub reason: Option<String>,
}

/// Status of a template's approval. See [`Contents`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApprovalStatus {
    /// Not submitted. The template may only be sent while the customer service window is open.
    Unsubmitted,
    /// Under review by Twilio or WhatsApp.
    Pending,
    /// Approved for sending.
    Approved,
    /// Rejected. The template may not be sent.
    Rejected,
    /// Paused because of negative feedback of users. The template may not be sent for now.
    Paused,
    /// Disabled permanently because of negative feedback of users.
    Disabled,
    /// Any other status, as Twilio names it.
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

    /// Returns the status in lower case, and an unknown one as Twilio names it.
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
struct ContentsPage {
    contents: Vec<WireContent>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct CreatedContent {
    sid: String,
}

#[derive(Deserialize)]
struct WireContent {
    sid: Option<String>,
    friendly_name: Option<String>,
    language: Option<String>,
    // Samples may be numbers: Twilio stores the JSON values that the template was created with.
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
        let sample_text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let variables = wire.variables.unwrap_or_default().into_iter();
        let types = wire.types.unwrap_or_default();
        Self {
            needs_approval: approval_reason(&types),
            #[cfg(feature = "app")]
            channels: ChannelSupport::of(&types),
            sid: wire.sid.unwrap_or_default(),
            name: wire.friendly_name.unwrap_or_default(),
            language: wire.language.unwrap_or_default(),
            variables: variables
                .map(|(name, value)| (name, sample_text(value)))
                .collect(),
            types: types.into_keys().collect(),
            approval: wire.approval_requests.unwrap_or_default().into(),
        }
    }
}

impl From<WireContent> for StoredTemplate {
    fn from(wire: WireContent) -> Self {
        Self {
            sid: wire.sid.unwrap_or_default(),
            name: wire.friendly_name.unwrap_or_default(),
            language: wire.language.unwrap_or_default(),
            variables: Value::Object(wire.variables.unwrap_or_default().into_iter().collect()),
            types: Value::Object(wire.types.unwrap_or_default().into_iter().collect()),
            approval: wire.approval_requests.unwrap_or_default().into(),
        }
    }
}

impl<'a> Contents<'a> {
    pub(super) fn new(client: AuthenticatedClient<'a>) -> Self {
        Self(client)
    }

    /// Finds the templates with one of these friendly names, with their contents and approvals. Reads all pages.
    ///
    /// # Errors
    /// As [`Contents::list`], and for an account with more than 100,000 templates.
    pub async fn find_stored(&self, names: &[&str]) -> Result<Vec<StoredTemplate>, RestError> {
        let mut found = Vec::new();
        let is_named = |content: &WireContent| {
            let name = content.friendly_name.as_deref();
            name.is_some_and(|name| names.contains(&name))
        };
        let is_complete = LIST_ALL
            .for_each_page(self.0, |page: ContentsPage| {
                let matching = page.contents.into_iter().filter(is_named);
                found.extend(matching.map(Into::into));
                page.meta?.next_page_url
            })
            .await?;
        if !is_complete {
            let problem = "the account has more than 100,000 templates; not all were read";
            return Err(RestError::unreadable(StatusCode::OK, problem));
        }
        Ok(found)
    }

    /// Lists the first 5,000 templates, with their approvals.
    ///
    /// # Errors
    /// [`RestError`]. The call changes nothing and may be repeated unless Twilio rejected it.
    pub async fn list(&self) -> Result<Vec<Template>, RestError> {
        let mut templates = Vec::new();
        LIST.for_each_page(self.0, |page: ContentsPage| {
            templates.extend(page.contents.into_iter().map(Template::from));
            page.meta?.next_page_url
        })
        .await?;
        Ok(templates)
    }

    /// Lists friendly name and SID of the first 10,000 resources of the account.
    ///
    /// # Errors
    /// As [`Contents::list`].
    pub(crate) async fn list_names(&self) -> Result<Vec<(String, String)>, RestError> {
        let mut names = Vec::new();
        LIST_NAMES
            .for_each_page(self.0, |page: ContentsPage| {
                let contents = page.contents.into_iter();
                names.extend(
                    contents.filter_map(|content| Some((content.friendly_name?, content.sid?))),
                );
                page.meta?.next_page_url
            })
            .await?;
        Ok(names)
    }

    /// Creates a template from the JSON of the Content API, and returns its SID, `HX…`.
    ///
    /// # Errors
    /// [`RestError`]. After an unknown result, the template may exist.
    pub async fn create(&self, content: &Value) -> Result<String, RestError> {
        let wire: CreatedContent = self.post("/v1/Content", content).await?;
        Ok(wire.sid)
    }

    /// Submits a template, `HX…`, to WhatsApp for approval with a name and a category, such as `UTILITY`.
    ///
    /// # Errors
    /// [`RestError`]. Twilio rejects a second submission with code 92009.
    pub async fn submit(
        &self,
        content_sid: &str,
        name: &str,
        category: &str,
    ) -> Result<Approval, RestError> {
        let path = format!("/v1/Content/{content_sid}/ApprovalRequests/whatsapp");
        let submission = json!({"name": name, "category": category});
        let wire: WireApproval = self.post(&path, &submission).await?;
        Ok(wire.into())
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, RestError> {
        let request = self.0.request(Method::POST, path)?;
        let request = request
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body.to_string());
        send_and_parse(request).await
    }

    /// Fetches WhatsApp's approval of a template, `HX…`.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the template does not exist.
    pub async fn fetch_approval(&self, content_sid: &str) -> Result<Approval, RestError> {
        let path = format!("/v1/Content/{content_sid}/ApprovalRequests");
        let wire: WireApprovals = send_and_parse(self.0.request(Method::GET, &path)?).await?;
        // A template that was never submitted has no approval object. The default's empty status is `Unsubmitted`.
        Ok(wire.whatsapp.unwrap_or_default().into())
    }

    /// Fetches the variables of a template, `HX…`; `None` if Twilio's response does not contain its texts.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the template does not exist.
    pub async fn fetch_variables(
        &self,
        content_sid: &str,
    ) -> Result<Option<TemplateVariables>, RestError> {
        Ok(self.fetch_content(content_sid).await?.variables)
    }

    /// Fetches the variables of a template, `HX…`, and its need of an approval.
    ///
    /// # Errors
    /// As [`Contents::fetch_variables`].
    pub(crate) async fn fetch_content(
        &self,
        content_sid: &str,
    ) -> Result<ContentDetails, RestError> {
        let path = format!("/v1/Content/{content_sid}");
        let wire: WireContent = send_and_parse(self.0.request(Method::GET, &path)?).await?;
        Ok(ContentDetails {
            needs_approval: wire.types.as_ref().and_then(approval_reason),
            #[cfg(feature = "app")]
            channels: wire
                .types
                .as_ref()
                .map(ChannelSupport::of)
                .unwrap_or_default(),
            variables: TemplateVariables::from_wire(wire),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: Value) -> Option<TemplateVariables> {
        TemplateVariables::from_wire(serde_json::from_value(content).unwrap())
    }

    #[test]
    fn template_variables_are_collected_from_all_parts() {
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
        for unreadable in [
            json!({"variables": {"1": "x"}, "types": {}}),
            json!({"types": {"twilio/text": {"body": ""}}}),
            json!({"types": {"whatsapp/authentication": {"body": "Your code"}}}),
        ] {
            assert_eq!(read(unreadable), None);
        }
    }
}
