//! [`StoredContent`]: a Content resource and its approval.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::content_type::parse_type;
use super::variables::samples_problem;
use crate::account::random_hex;
use replyhook_core::template::limits::MAX_NAME;
use replyhook_core::template::lint_template;

/// WhatsApp's most common reason of a rejection.
const REJECTION_REASON: &str = "INVALID_FORMAT";
/// Number of digits of an SID that are derived from the others.
const CHECK_DIGITS: usize = 8;

/// Content resource.
#[derive(Clone)]
pub(crate) struct StoredContent {
    pub(crate) sid: String,
    /// Position in the order of creation, for paging.
    pub(crate) position: u64,
    pub(crate) draft: ContentDraft,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    /// Name and category that it was submitted to WhatsApp with.
    pub(crate) submission: Option<ContentSubmission>,
}

/// Body of a request that creates or changes a Content resource.
#[derive(Clone)]
pub(crate) struct ContentDraft {
    pub(crate) friendly_name: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) variables: Map<String, Value>,
    /// Fields by name of the type. Each was parsed successfully.
    pub(crate) types: Map<String, Value>,
}

#[derive(Clone)]
pub(crate) struct ContentSubmission {
    pub(crate) name: String,
    pub(crate) category: String,
    /// Time from which the template is approved or rejected.
    pub(crate) decided_at: Timestamp,
    /// Reason why it is rejected.
    pub(crate) rejection: Option<String>,
}

/// Conditions of an approval.
#[derive(Clone, Copy)]
pub(crate) struct ReviewState {
    /// The fault `template_state`.
    pub(crate) forced: Option<TemplateState>,
    pub(crate) now: Timestamp,
}

/// State of submitted templates, if the emulator does not approve them: the fault `template_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TemplateState {
    Pending,
    Rejected,
    Paused,
}

/// Approval of a template by WhatsApp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentApproval {
    Unsubmitted,
    Pending,
    Approved,
    Rejected,
    Paused,
}

impl ContentApproval {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unsubmitted => "unsubmitted",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Paused => "paused",
        }
    }
}

impl ContentDraft {
    /// Parses the JSON of a request.
    ///
    /// # Errors
    /// An explanation that names the field.
    pub(crate) fn parse(request: &Value) -> Result<Self, String> {
        let request = without_nulls(request);
        if !request.is_object() {
            return Err("expected a JSON object".to_owned());
        }
        let text = |name: &str| match &request[name] {
            Value::Null => Ok(None),
            Value::String(text) if !text.trim().is_empty() => Ok(Some(text.clone())),
            _ => Err(format!("{name}: expected a text")),
        };
        let object = |name: &str| match &request[name] {
            Value::Null => Ok(Map::new()),
            Value::Object(fields) => Ok(fields.clone()),
            _ => Err(format!("{name}: expected an object")),
        };
        let draft = Self {
            friendly_name: text("friendly_name")?,
            language: text("language")?,
            variables: object("variables")?,
            types: object("types")?,
        };
        if draft.types.is_empty() {
            return Err("types: at least one is required".to_owned());
        }
        let name = draft.friendly_name.as_deref().unwrap_or_default();
        if name.chars().count() > MAX_NAME {
            return Err(format!("friendly_name: at most {MAX_NAME} characters"));
        }
        if let Some(problem) = samples_problem(&draft.variables) {
            return Err(problem);
        }
        for (name, fields) in &draft.types {
            parse_type(name, fields)?;
        }
        Ok(draft)
    }
}

impl StoredContent {
    /// Creates the resource of a template that was not made here: a text without words, which is approved.
    pub(crate) fn unknown(sid: &str, now: Timestamp) -> Self {
        let name = "a template of the emulator".to_owned();
        let text = json!({"body": ""});
        Self {
            sid: sid.to_owned(),
            position: 0,
            draft: ContentDraft {
                friendly_name: Some(name.clone()),
                language: Some("en".to_owned()),
                variables: Map::new(),
                types: Map::from_iter([("twilio/text".to_owned(), text)]),
            },
            created: now,
            updated: now,
            submission: Some(ContentSubmission {
                name,
                category: "UTILITY".to_owned(),
                decided_at: now,
                rejection: None,
            }),
        }
    }

    /// Returns the reason why WhatsApp's review rejects the template.
    pub(crate) fn rejection(&self, name: &str, category: &str) -> Option<String> {
        let template = json!({
            "friendly_name": self.draft.friendly_name, "name": name, "category": category,
            "language": self.draft.language, "variables": self.draft.variables, "types": self.draft.types,
        });
        let mut findings = lint_template(&template, false).into_iter();
        let finding = findings.find(|finding| !finding.is_advice)?;
        let (path, reason, remedy) = (finding.path, finding.reason, finding.remedy);
        Some(format!("{REJECTION_REASON}: {path}: {reason}; {remedy}"))
    }

    /// Returns the approval.
    pub(crate) fn approval(&self, review: ReviewState) -> ContentApproval {
        let Some(submission) = &self.submission else {
            return ContentApproval::Unsubmitted;
        };
        match review.forced {
            None if review.now < submission.decided_at => ContentApproval::Pending,
            None if submission.rejection.is_some() => ContentApproval::Rejected,
            None => ContentApproval::Approved,
            Some(TemplateState::Pending) => ContentApproval::Pending,
            Some(TemplateState::Rejected) => ContentApproval::Rejected,
            Some(TemplateState::Paused) => ContentApproval::Paused,
        }
    }

    /// Returns the resource of `Content/{sid}`.
    pub(crate) fn resource(&self, account: &str) -> Value {
        let url = format!("https://content.twilio.com/v1/Content/{}", self.sid);
        let at = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({
            "sid": self.sid,
            "account_sid": account,
            "friendly_name": self.draft.friendly_name,
            "language": self.draft.language,
            "variables": self.draft.variables,
            "types": self.draft.types,
            "date_created": at(self.created),
            "date_updated": at(self.updated),
            "url": url,
            "links": {
                "approval_create": format!("{url}/ApprovalRequests/whatsapp"),
                "approval_fetch": format!("{url}/ApprovalRequests"),
            },
        })
    }

    /// Returns the approval's JSON, which is an object of its own in Twilio's API.
    pub(crate) fn approval_json(&self, review: ReviewState) -> Value {
        let approval = self.approval(review);
        let submission = self.submission.as_ref();
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        let content_type = submission.and_then(|_| self.draft.types.keys().next_back());
        let rejection = submission.and_then(|submission| submission.rejection.as_deref());
        let reason = if approval == ContentApproval::Rejected {
            rejection.unwrap_or(REJECTION_REASON)
        } else {
            ""
        };
        json!({
            "type": "whatsapp",
            "name": text(submission.map(|submission| &submission.name)),
            "category": text(submission.map(|submission| &submission.category)),
            "content_type": text(content_type),
            "status": approval.as_str(),
            "rejection_reason": reason,
            "allow_category_change": true,
        })
    }
}

/// Removes null fields: Twilio's libraries send one for every type and field that is not set.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(name, value)| (name.clone(), without_nulls(value)));
            Value::Object(fields.collect())
        }
        Value::Array(values) => values.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Returns a new SID. Its last digits are derived from the others, for [`is_own_sid`].
pub(crate) fn new_content_sid() -> String {
    let random = random_hex(32 - CHECK_DIGITS);
    let check = check_digits(&random);
    format!("HX{random}{check}")
}

/// Returns whether an emulator has made this SID.
///
/// The emulator accepts any other well-formed SID, since a real account may have it. Its own SIDs must exist: a server
/// with a store on disk may name a template of an earlier run, which is gone.
pub(crate) fn is_own_sid(sid: &str) -> bool {
    let parts = sid
        .strip_prefix("HX")
        .and_then(|hex| hex.split_at_checked(32 - CHECK_DIGITS));
    parts.is_some_and(|(random, check)| check == check_digits(random))
}

fn check_digits(random: &str) -> String {
    let hash = Sha256::digest(random.as_bytes());
    let check = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    format!("{check:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sids_are_recognized() {
        for _ in 0..50 {
            let sid = new_content_sid();
            assert_eq!(sid.len(), 34);
            assert!(is_own_sid(&sid), "{sid}");
        }
        for sid in ["HX00000000000000000000000000000001", "HX", "HXé", ""] {
            assert!(!is_own_sid(sid), "{sid}");
        }
    }

    #[test]
    fn invalid_content_is_explained() {
        let text = json!({"twilio/text": {"body": "hi"}});
        for (request, part) in [
            (json!([]), "JSON object"),
            (json!({"language": "en"}), "types: at least one"),
            (
                json!({"language": "en", "types": {"twilio/text": null}}),
                "types: at least one",
            ),
            (json!({"language": 1, "types": text}), "language"),
            (json!({"language": " ", "types": text}), "language"),
            (
                json!({"types": text, "variables": ["1"]}),
                "variables: expected an object",
            ),
            (
                json!({"types": {"twilio/tex": {"body": "hi"}}}),
                "unknown content type",
            ),
            (
                json!({"types": text, "friendly_name": "n".repeat(513)}),
                "friendly_name",
            ),
        ] {
            let problem = ContentDraft::parse(&request).err().unwrap_or_default();
            assert!(problem.contains(part), "{request}: {problem}");
        }
        let nulls = json!({"types": {"twilio/text": {"body": "hi"}, "twilio/card": null}, "variables": null});
        assert_eq!(ContentDraft::parse(&nulls).ok().unwrap().types.len(), 1);
    }
}
