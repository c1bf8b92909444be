//! [`TemplateCache`]: approval and variables of templates, fetched from Twilio and cached for a minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;

use super::error::{SendError, SendErrorKind};
use crate::address::Channel;
use crate::clock::after;
use crate::lock::IgnorePoison;
use crate::twilio::{
    Approval, ApprovalStatus, ChannelSupport, Client, Credentials, RestError, RestErrorKind,
    Template, TemplateVariables,
};

// A bulk send checks thousands of messages with one template. A new approval, or a lost one, is noticed within a
// minute.
const CACHE_TTL: Duration = Duration::from_mins(1);
// Bounds the cache: callers choose the template's name, which need not exist.
const MAX_TEMPLATES: usize = 1000;

/// A cache of templates.
pub(super) struct TemplateCache {
    client: Option<Client>,
    entries: Mutex<HashMap<String, (Timestamp, TemplateInfo)>>,
    /// Templates of the account, and the end of their time in the cache.
    list: Mutex<Option<(Timestamp, Vec<Template>)>>,
}

/// Approval and variables of one template.
#[derive(Clone)]
pub(super) struct TemplateInfo {
    approval: TemplateLookup<Approval>,
    variables: TemplateLookup<TemplateVariables>,
    /// Reason why WhatsApp takes the content only after approval.
    needs_approval: Option<&'static str>,
    /// Channels that can show the content.
    channels: ChannelSupport,
}

#[derive(Clone)]
enum TemplateLookup<T> {
    Found(T),
    Missing,
    /// Twilio's Content API did not respond, is not configured, or does not show the texts. The check passes, and
    /// Twilio decides when the message is sent: an outage of that API must not stop all templates.
    Unavailable,
}

impl TemplateInfo {
    /// A template that cannot be looked up.
    pub(super) const UNAVAILABLE: Self = Self {
        approval: TemplateLookup::Unavailable,
        variables: TemplateLookup::Unavailable,
        needs_approval: None,
        channels: ChannelSupport::ALL,
    };

    /// Checks that the channel can show the template.
    pub(super) fn check_channel(&self, channel: &Channel) -> Result<(), SendError> {
        match self.channels.refusal(channel) {
            None => Ok(()),
            Some(reason) => Err(SendError::invalid(reason)),
        }
    }

    /// Checks that WhatsApp allows sending the template.
    ///
    /// A template that was never submitted may be sent while the customer service window is open. Quick replies and
    /// lists are sent this way.
    pub(super) fn check_approved(&self, window_open: bool) -> Result<(), SendError> {
        match &self.approval {
            TemplateLookup::Unavailable => Ok(()),
            TemplateLookup::Missing => Err(SendError::new(SendErrorKind::NoSuchTemplate)),
            TemplateLookup::Found(approval) => match approval.status {
                ApprovalStatus::Approved => Ok(()),
                ApprovalStatus::Unsubmitted if window_open => match self.needs_approval {
                    None => Ok(()),
                    Some(reason) => Err(SendError::with_detail(
                        SendErrorKind::NotApproved,
                        format!("{approval}, and {reason}"),
                    )),
                },
                _ => Err(SendError::with_detail(
                    SendErrorKind::NotApproved,
                    approval.to_string(),
                )),
            },
        }
    }

    /// Checks that WhatsApp accepts the values of the variables, if the template is approved.
    ///
    /// Other content, which may be sent within the customer service window only, may have any value.
    // Without an answer of the Content API only the window tells whether the template must be an approved one.
    pub(super) fn check_values(
        &self,
        values: &BTreeMap<String, String>,
        window_open: bool,
    ) -> Result<(), SendError> {
        match &self.approval {
            TemplateLookup::Found(approval) if approval.status != ApprovalStatus::Approved => {
                Ok(())
            }
            TemplateLookup::Unavailable | TemplateLookup::Missing if window_open => Ok(()),
            _ => check_approved_values(values),
        }
    }

    /// Checks that `values` has a value for each variable of the template, and no other values.
    // Twilio fills a missing variable with its sample: the user would read a name invented for WhatsApp's reviewers.
    pub(super) fn check_variables(
        &self,
        values: &BTreeMap<String, String>,
    ) -> Result<(), SendError> {
        let TemplateLookup::Found(variables) = &self.variables else {
            return match self.variables {
                TemplateLookup::Missing => Err(SendError::new(SendErrorKind::NoSuchTemplate)),
                _ => Ok(()),
            };
        };
        let missing = variables
            .needed
            .iter()
            .filter(|name| !values.contains_key(*name));
        // A variable that has a sample but occurs in no text is accepted too.
        let unknown = values
            .keys()
            .filter(|name| !variables.needed.contains(*name) && !variables.samples.contains(*name));
        let problems: Vec<String> = [
            name_variables(missing, "it has no value for the template's"),
            name_variables(unknown, "the template has no"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(SendError::with_detail(
            SendErrorKind::WrongVariables,
            problems.join("; "),
        ))
    }
}

/// Checks values against WhatsApp's rules for approved templates.
fn check_approved_values(values: &BTreeMap<String, String>) -> Result<(), SendError> {
    // WhatsApp rejects such values (63013) only after Twilio has accepted the message.
    let invalid = values.iter().find(|(_, value)| {
        value.trim().is_empty()
            || value.contains(['\n', '\r', '\t', '\0'])
            || value.contains("     ")
    });
    match invalid {
        Some((name, _)) => Err(SendError::invalid(format!(
            "variable {name} is empty or contains line breaks, tabs or more than four spaces in a row; WhatsApp rejects \
             such values in approved templates (63013)"
        ))),
        None => Ok(()),
    }
}

/// Formats `{prefix} variable 1` or `{prefix} variables 1, 2`; `None` without names.
fn name_variables<'a>(names: impl Iterator<Item = &'a String>, prefix: &str) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let noun = match names.len() {
        0 => return None,
        1 => "variable",
        _ => "variables",
    };
    Some(format!("{prefix} {noun} {}", names.join(", ")))
}

impl TemplateCache {
    pub(super) fn new(client: Option<Client>) -> Self {
        Self {
            client,
            entries: Mutex::default(),
            list: Mutex::default(),
        }
    }

    /// Returns approval and variables of a template, from the cache if they are at most [`CACHE_TTL`] old.
    ///
    /// Without `credentials` nothing is looked up.
    pub(super) async fn look_up(
        &self,
        template: &str,
        credentials: Option<&Credentials>,
        now: Timestamp,
    ) -> TemplateInfo {
        let (Some(client), Some(credentials)) = (&self.client, credentials) else {
            return TemplateInfo::UNAVAILABLE;
        };
        let cached = self.lock().get(template).cloned();
        if let Some((expires_at, info)) = cached
            && now < expires_at
            // False for an entry from before the clock was set back, which would otherwise live too long.
            && expires_at <= after(now, CACHE_TTL)
        {
            return info;
        }
        // The lock is not held here, so lookups of other templates proceed. Concurrent lookups of the same template
        // each call Twilio, and the last result is stored.
        let contents = client.contents(credentials);
        let (approval, content) = tokio::join!(
            contents.fetch_approval(template),
            contents.fetch_content(template)
        );
        let known = content.as_ref().ok();
        let fetched = TemplateInfo {
            approval: to_lookup(template, approval.map(Some)),
            needs_approval: known.and_then(|content| content.needs_approval),
            channels: known.map(|content| content.channels).unwrap_or_default(),
            variables: to_lookup(template, content.map(|content| content.variables)),
        };
        let mut entries = self.lock();
        // Clearing everything costs at most two calls per template in use.
        if entries.len() >= MAX_TEMPLATES {
            entries.clear();
        }
        entries.insert(
            template.to_owned(),
            (after(now, CACHE_TTL), fetched.clone()),
        );
        fetched
    }

    /// Returns the SID of the template with a name and a language; `None` if the list of templates is not available. Of
    /// several, returns an approved one.
    ///
    /// # Errors
    /// [`SendErrorKind::NoSuchTemplate`].
    pub(super) async fn find(
        &self,
        name: &str,
        language: &str,
        credentials: Option<&Credentials>,
        now: Timestamp,
    ) -> Result<Option<String>, SendError> {
        let (Some(client), Some(credentials)) = (&self.client, credentials) else {
            return Ok(None);
        };
        let cached = self.list.lock().ignore_poison().clone();
        let cached = cached
            .filter(|(expires_at, _)| now < *expires_at && *expires_at <= after(now, CACHE_TTL));
        let templates = match cached {
            Some((_, templates)) => templates,
            None => match client.contents(credentials).list().await {
                Ok(templates) => {
                    let cached = (after(now, CACHE_TTL), templates.clone());
                    *self.list.lock().ignore_poison() = Some(cached);
                    templates
                }
                Err(error) => {
                    tracing::warn!(%error, "the account's templates could not be listed, so a template is queued unchecked");
                    return Ok(None);
                }
            },
        };
        let mut named: Vec<_> = templates
            .iter()
            .filter(|template| template.name == name && template.language == language)
            .collect();
        named.sort_by_key(|template| template.approval.status != ApprovalStatus::Approved);
        match named.first() {
            Some(template) => Ok(Some(template.sid.clone())),
            None => Err(SendError::with_detail(
                SendErrorKind::NoSuchTemplate,
                "this name and language",
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Timestamp, TemplateInfo)>> {
        // A poisoned lock is usable: the map is only read, cleared or inserted into.
        self.entries.lock().ignore_poison()
    }
}

fn to_lookup<T>(template: &str, response: Result<Option<T>, RestError>) -> TemplateLookup<T> {
    match response {
        Ok(Some(found)) => TemplateLookup::Found(found),
        Ok(None) => TemplateLookup::Unavailable,
        Err(error) if matches!(error.kind(), RestErrorKind::Rejected { status: 404, .. }) => {
            TemplateLookup::Missing
        }
        // The result is cached like any other, so a failing API is called, and logged, once a minute per template.
        Err(error) => {
            tracing::warn!(
                template,
                %error,
                "template could not be checked, so it is queued unchecked"
            );
            TemplateLookup::Unavailable
        }
    }
}
