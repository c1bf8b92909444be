//! Content API `/v1/Content`: create and list resources, and the content that a phone shows of one.

use std::collections::VecDeque;

use replyhook::FormParams;
use serde_json::{Value, json};

use super::rest::{error, http};
use super::{FakeTwilio, State};

/// Fault of the next call of the Content API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFault {
    Status(u16),
    /// No response until this fake is dropped.
    Hang,
}

#[derive(Default)]
pub(super) struct ContentState {
    /// Resources: account, SID and JSON.
    resources: Vec<(String, String, Value)>,
    pub(super) faults: VecDeque<ContentFault>,
    calls: Vec<String>,
}

impl FakeTwilio {
    /// Applies a fault to the next calls of the Content API.
    pub fn content_fault(&self, fault: ContentFault, times: usize) {
        let faults = std::iter::repeat_n(fault, times);
        self.inner.lock().content.faults.extend(faults);
    }

    /// Waits until a call of the Content API has met the last fault.
    pub fn wait_for_content_fault(&self) {
        let is_met = |state: &State| state.content.faults.is_empty();
        drop(self.inner.wait_for("call with a fault", is_met));
    }

    /// Calls of the Content API so far: `GET`, or `POST` and the name of the resource.
    pub fn content_calls(&self) -> Vec<String> {
        self.inner.lock().content.calls.clone()
    }

    /// Adds a template with one content type and the status of its approval. Returns its SID.
    pub fn add_template(&self, name: &str, language: &str, kind: &str, status: &str) -> String {
        let mut state = self.inner.lock();
        let sid = format!("HX{:032x}", state.number());
        let template = json!({
            "sid": sid, "friendly_name": name, "language": language, "variables": {"1": "Jane"},
            "types": {kind: {"body": "Hi {{1}}"}}, "approval_requests": {"status": status},
        });
        let account = crate::support::ACCOUNT.to_owned();
        state
            .content
            .resources
            .push((account, sid.clone(), template));
        sid
    }

    /// Deletes all content resources, as another program of the account could.
    pub fn delete_content(&self) {
        self.inner.lock().content.resources.clear();
    }
}

impl State {
    /// Returns the response to a call of the Content API.
    pub(super) fn content_call(&mut self, account: &str, method: &str, body: &[u8]) -> String {
        match method {
            "GET" => {
                self.content.calls.push("GET".to_owned());
                let own = self
                    .content
                    .resources
                    .iter()
                    .filter(|(owner, ..)| owner == account);
                let contents: Vec<&Value> = own.map(|(.., content)| content).collect();
                http(
                    200,
                    None,
                    &json!({"contents": contents, "meta": {"next_page_url": null}}).to_string(),
                )
            }
            "POST" => {
                let mut content: Value = serde_json::from_slice(body).unwrap_or_default();
                let name = content["friendly_name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                self.content.calls.push(format!("POST {name}"));
                let is_complete = content["types"].is_object() && content["language"].is_string();
                if !is_complete {
                    return error(400, Some(20001), None);
                }
                let sid = format!("HX{:032x}", self.number());
                content["sid"] = sid.as_str().into();
                content["account_sid"] = account.into();
                let created = content.to_string();
                self.content
                    .resources
                    .push((account.to_owned(), sid, content));
                http(201, None, &created)
            }
            _ => error(404, Some(20404), None),
        }
    }

    /// Returns the response to a call for one resource, or for its approval. Such calls are not counted.
    pub(super) fn content_details(&self, path: &str) -> String {
        let (sid, is_approval) = match path.split_once('/') {
            Some((sid, _)) => (sid, true),
            None => (path, false),
        };
        let Some(content) = self.find_content(sid) else {
            return error(404, Some(20404), None);
        };
        let details = if is_approval {
            json!({"sid": sid, "whatsapp": content["approval_requests"]})
        } else {
            content.clone()
        };
        http(200, None, &details.to_string())
    }

    /// Returns whether Twilio has the content of a message. Before the first call of the Content API, any SID counts.
    pub(super) fn has_content(&self, form: &FormParams) -> bool {
        let Some(sid) = form.get("ContentSid") else {
            return true;
        };
        self.content.calls.is_empty() || self.find_content(sid).is_some()
    }

    fn find_content(&self, sid: &str) -> Option<&Value> {
        let mut resources = self.content.resources.iter();
        resources
            .find(|(_, known, _)| known == sid)
            .map(|(.., content)| content)
    }

    /// Returns what a phone shows of a message's content, with its variables filled in: the type and its fields.
    pub(super) fn shown_content(&self, form: &FormParams) -> Option<Value> {
        let content = self.find_content(form.get("ContentSid")?)?;
        let types = content["types"].as_object()?;
        let (name, fields) = types.iter().find(|(name, _)| *name != "twilio/text")?;
        let variables: Value = serde_json::from_str(form.get("ContentVariables")?).ok()?;
        let mut text = json!({"type": name, "fields": fields}).to_string();
        for (name, value) in variables.as_object()? {
            let escaped = json!(value.as_str()?).to_string();
            let escaped = &escaped[1..escaped.len() - 1];
            text = text.replace(&format!("{{{{{name}}}}}"), escaped);
        }
        serde_json::from_str(&text).ok()
    }
}
