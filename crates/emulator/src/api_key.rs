//! An API key of the emulated account, and the calls that it allows.

use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};

/// An API key: a standard one, or a restricted one with a list of permissions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmulatedApiKey {
    pub(super) sid: String,
    /// Never in a response. A client that changes another fault may leave it out.
    #[serde(default, skip_serializing)]
    pub(super) secret: String,
    /// Permissions of a restricted key. Default: a standard key, which may do all but read the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) allow: Option<Vec<String>>,
}

impl EmulatedApiKey {
    /// Returns an explanation of the first invalid value.
    pub(super) fn problem(&self) -> Option<String> {
        let is_sid = self.sid.len() == 34
            && self.sid.starts_with("SK")
            && self.sid[2..].bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_sid {
            return Some("api_key.sid: SK and 32 hexadecimal digits".to_owned());
        }
        if self.secret.trim().is_empty() {
            return Some("api_key.secret: missing or empty".to_owned());
        }
        let mut allowed = self.allow.iter().flatten();
        let wrong = allowed.find(|name| !is_permission(name))?;
        Some(format!(
            "api_key.allow: {wrong:?} is not a permission, such as \"/twilio/messaging/messages/create\" (70002)"
        ))
    }

    /// Returns the permission that a call needs and the key does not have.
    pub(super) fn missing_permission(&self, method: &Method, path: &str) -> Option<String> {
        let allowed = self.allow.as_ref()?;
        let needed = permission(method, path);
        (!allowed.contains(&needed)).then_some(needed)
    }
}

/// Hides the secret.
impl fmt::Debug for EmulatedApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedApiKey")
            .field("sid", &self.sid)
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

fn is_permission(name: &str) -> bool {
    let parts: Vec<_> = name.split('/').collect();
    matches!(
        parts.as_slice(),
        ["", "twilio", product, resource, "create" | "read" | "list" | "update" | "delete"]
            if !product.is_empty() && !resource.is_empty()
    )
}

/// Returns the permission that a call needs.
// Twilio documents the names for messages and services only; the others follow their pattern. Media need the
// permissions of their message.
fn permission(method: &Method, path: &str) -> String {
    let parts: Vec<_> = path.split('/').collect();
    let (resource, is_item) = match parts.as_slice() {
        [_, "Accounts", _, "Messages.json"] => ("messaging/messages", false),
        [_, "Accounts", _, "Messages", ..] => ("messaging/messages", true),
        [_, "Accounts", _, "IncomingPhoneNumbers.json"] => ("phone-numbers/numbers", false),
        [_, "Accounts", _, "IncomingPhoneNumbers", ..] => ("phone-numbers/numbers", true),
        [_, "Channels", "Senders"] => ("messaging/senders", false),
        [_, "Channels", "Senders", ..] => ("messaging/senders", true),
        [_, "Services"] => ("messaging/services", false),
        [_, "Services", ..] => ("messaging/services", true),
        [_, "Indicators", ..] => ("messaging/indicators", false),
        [_, "Content" | "ContentAndApprovals"] => ("content/templates", false),
        _ => ("content/templates", true),
    };
    let verb = match (method, is_item) {
        (&Method::GET, false) => "list",
        (&Method::GET, true) => "read",
        (&Method::DELETE, _) => "delete",
        (_, false) => "create",
        (_, true) => "update",
    };
    format!("/twilio/{resource}/{verb}")
}
