//! Templates that a reply names, and the SID of each in the account that sends it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::lock::IgnorePoison;
use crate::sid::AccountSid;
use crate::twilio::{ApprovalStatus, Contents, RestError, Template};

/// Time after which the account's templates are listed again. A new template, or a new approval, is known within it.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// Content types that WhatsApp takes only after approval.
const NEEDS_APPROVAL: [&str; 4] = [
    "twilio/carousel",
    "twilio/flows",
    "whatsapp/flows",
    "whatsapp/authentication",
];

/// Templates of all accounts, by the monotonic time of their list.
#[derive(Default)]
pub(super) struct NamedTemplates(Mutex<HashMap<AccountSid, (Duration, Vec<Template>)>>);

/// Result of the look-up of a name.
pub(super) enum NamedTemplate {
    /// Content SID of the template.
    Found(String),
    /// Reason why the message cannot be sent.
    Refused(&'static str),
}

impl NamedTemplates {
    /// Finds the template with a name and a language, which may be sent if the customer service window is open.
    ///
    /// # Errors
    /// [`RestError`] if the list cannot be read.
    pub(super) async fn find(
        &self,
        (name, language): (&str, &str),
        is_window_open: bool,
        account: AccountSid,
        contents: &Contents<'_>,
        now: Duration,
    ) -> Result<NamedTemplate, RestError> {
        let cached = {
            let lists = self.0.lock().ignore_poison();
            let list = lists.get(&account);
            let fresh = list.filter(|(at, _)| now.saturating_sub(*at) < CACHE_TTL);
            fresh.map(|(_, templates)| choose(templates, name, language, is_window_open))
        };
        if let Some(found) = cached {
            return Ok(found);
        }
        let templates = contents.list().await?;
        let found = choose(&templates, name, language, is_window_open);
        let mut lists = self.0.lock().ignore_poison();
        lists.insert(account, (now, templates));
        Ok(found)
    }
}

fn choose(
    templates: &[Template],
    name: &str,
    language: &str,
    is_window_open: bool,
) -> NamedTemplate {
    let named = templates
        .iter()
        .filter(|template| template.name == name && template.language == language);
    let is_approved = |template: &&Template| template.approval.status == ApprovalStatus::Approved;
    let mut named = named.peekable();
    if named.peek().is_none() {
        return NamedTemplate::Refused("the account has no template of this name and language");
    }
    let candidates: Vec<&Template> = named.collect();
    // Of several with the same name, an approved one may be sent in any case.
    if let Some(approved) = candidates.iter().copied().find(is_approved) {
        return NamedTemplate::Found(approved.sid.clone());
    }
    if !is_window_open {
        return NamedTemplate::Refused(
            "the customer service window has closed, and the template is not approved",
        );
    }
    let needs_approval = |template: &&Template| {
        let mut types = template.types.iter();
        types.any(|name| NEEDS_APPROVAL.contains(&name.as_str()))
    };
    match candidates
        .into_iter()
        .find(|template| !needs_approval(template))
    {
        Some(template) => NamedTemplate::Found(template.sid.clone()),
        None => NamedTemplate::Refused("the template's content type needs WhatsApp's approval"),
    }
}
