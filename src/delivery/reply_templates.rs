//! Templates of replies, and the check that WhatsApp takes each.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::lock::IgnorePoison;
use crate::sid::AccountSid;
use crate::twilio::{Approval, ApprovalStatus, Contents, RestError, RestErrorKind, Template};

/// Time after which the account's templates are listed again. A new template, or a new approval, is known within it.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// Maximum time of the look-up of a SID. After it, Twilio decides.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of SIDs in the cache: a bot may build them from what users write.
const MAX_SIDS: usize = 1000;

/// Templates of all accounts, by the monotonic time of their look-up.
#[derive(Default)]
pub(super) struct ReplyTemplates {
    lists: Mutex<HashMap<AccountSid, (Duration, Vec<Template>)>>,
    sids: Mutex<HashMap<(AccountSid, String), LookedUp>>,
}

/// Result of the look-up of a SID, and its monotonic time; `None` if Twilio decides.
type LookedUp = (Duration, Option<KnownApproval>);

/// Approval of a template, and the reason why it needs one within the window, if it does.
#[derive(Clone)]
struct KnownApproval {
    approval: Approval,
    needs_approval: Option<&'static str>,
}

/// Result of the look-up of a name.
pub(super) enum NamedTemplate {
    /// Content SID of the template.
    Found(String),
    /// Reason why the message cannot be sent.
    Refused(&'static str),
}

/// The account whose template is looked up, and the time.
#[derive(Clone, Copy)]
pub(super) struct TemplateQuery<'a> {
    pub(super) account: AccountSid,
    pub(super) contents: &'a Contents<'a>,
    /// True if the customer service window is open.
    pub(super) is_window_open: bool,
    /// True on the channel whose templates need approval.
    pub(super) is_whatsapp: bool,
    /// Monotonic time.
    pub(super) now: Duration,
}

impl KnownApproval {
    /// Returns the reason why WhatsApp does not take the template.
    fn refusal(&self, query: &TemplateQuery<'_>) -> Option<&'static str> {
        match self.approval.status {
            _ if !query.is_whatsapp => None,
            ApprovalStatus::Approved => None,
            _ if !query.is_window_open => {
                Some("the customer service window has closed, and the template is not approved")
            }
            _ => self.needs_approval,
        }
    }
}

impl ReplyTemplates {
    /// Finds the template with a name and a language, which may be sent now.
    ///
    /// # Errors
    /// [`RestError`] if the list cannot be read.
    pub(super) async fn find(
        &self,
        (name, language): (&str, &str),
        query: &TemplateQuery<'_>,
    ) -> Result<NamedTemplate, RestError> {
        let cached = {
            let lists = self.lists.lock().ignore_poison();
            let list = lists.get(&query.account);
            let fresh = list.filter(|(at, _)| query.now.saturating_sub(*at) < CACHE_TTL);
            fresh.map(|(_, templates)| choose(templates, name, language, query))
        };
        if let Some(found) = cached {
            return Ok(found);
        }
        let templates = query.contents.list().await?;
        let found = choose(&templates, name, language, query);
        let mut lists = self.lists.lock().ignore_poison();
        lists.insert(query.account, (query.now, templates));
        Ok(found)
    }

    /// Returns the reason why WhatsApp does not take the template with a SID. Without an answer of the Content API, Twilio
    /// decides.
    pub(super) async fn refusal(
        &self,
        sid: &str,
        query: &TemplateQuery<'_>,
    ) -> Option<&'static str> {
        if !query.is_whatsapp {
            return None;
        }
        let key = (query.account, sid.to_owned());
        let cached = {
            let sids = self.sids.lock().ignore_poison();
            let known = sids.get(&key);
            let fresh = known.filter(|(at, _)| query.now.saturating_sub(*at) < CACHE_TTL);
            fresh.map(|(_, state)| state.clone())
        };
        if let Some(state) = cached {
            return state?.refusal(query);
        }
        let state = look_up(sid, query.contents).await;
        let mut sids = self.sids.lock().ignore_poison();
        if sids.len() >= MAX_SIDS {
            sids.clear();
        }
        sids.insert(key, (query.now, state.clone()));
        state?.refusal(query)
    }
}

async fn look_up(sid: &str, contents: &Contents<'_>) -> Option<KnownApproval> {
    let calls =
        async { tokio::try_join!(contents.fetch_approval(sid), contents.fetch_content(sid)) };
    match tokio::time::timeout(LOOKUP_TIMEOUT, calls).await {
        Ok(Ok((approval, content))) => Some(KnownApproval {
            approval,
            needs_approval: content.needs_approval,
        }),
        // Twilio refuses an unknown SID with a code of its own.
        Ok(Err(error)) if matches!(error.kind(), RestErrorKind::Rejected { status: 404, .. }) => {
            None
        }
        // Cached like an answer, so it is logged once a minute.
        Ok(Err(error)) => {
            tracing::warn!(template = sid, %error, "a template could not be checked, so it is sent unchecked");
            None
        }
        Err(_) => {
            tracing::warn!(
                template = sid,
                "a template could not be checked in time, so it is sent unchecked"
            );
            None
        }
    }
}

fn choose(
    templates: &[Template],
    name: &str,
    language: &str,
    query: &TemplateQuery<'_>,
) -> NamedTemplate {
    let named = templates
        .iter()
        .filter(|template| template.name == name && template.language == language);
    let mut candidates: Vec<_> = named.collect();
    // Of several with the same name, an approved one may be sent in any case.
    candidates.sort_by_key(|template| template.approval.status != ApprovalStatus::Approved);
    let mut refusal = "the account has no template of this name and language";
    for template in candidates {
        let state = KnownApproval {
            approval: template.approval.clone(),
            needs_approval: template.needs_approval,
        };
        match state.refusal(query) {
            None => return NamedTemplate::Found(template.sid.clone()),
            Some(reason) => refusal = reason,
        }
    }
    NamedTemplate::Refused(refusal)
}
