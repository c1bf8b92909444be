//! Templates of replies, and the check that the channel takes each.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::address::Channel;
use crate::form::FormParams;
use crate::lock::IgnorePoison;
use crate::sid::AccountSid;
use crate::store::{TEMPLATE_LANGUAGE, TEMPLATE_NAME, TEMPLATE_SID};
use crate::twilio::{
    Approval, ApprovalStatus, ChannelSupport, Contents, RestError, RestErrorKind, Template,
};

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
type LookedUp = (Duration, Option<KnownTemplate>);

/// Facts that decide whether a channel takes a template.
#[derive(Clone)]
struct KnownTemplate {
    approval: Approval,
    /// Reason why WhatsApp takes it only after approval, even within the window.
    needs_approval: Option<&'static str>,
    channels: ChannelSupport,
}

/// Template that a message names.
#[derive(Clone, Copy)]
pub(super) enum TemplateReference<'a> {
    /// Content SID.
    Sid(&'a str),
    /// Name and language.
    Name(&'a str, &'a str),
}

/// Decision about a template.
pub(super) enum TemplateVerdict {
    /// Content SID to send.
    Send(String),
    /// Reason why the message cannot be sent.
    Refused(&'static str),
}

/// The account whose template is looked up, and the time.
#[derive(Clone, Copy)]
pub(super) struct TemplateQuery<'a> {
    pub(super) account: AccountSid,
    pub(super) contents: &'a Contents<'a>,
    pub(super) channel: &'a Channel,
    /// True if the customer service window is open.
    pub(super) is_window_open: bool,
    /// Monotonic time.
    pub(super) now: Duration,
}

impl KnownTemplate {
    /// Returns the reason why the channel does not take the template.
    fn refusal(&self, query: &TemplateQuery<'_>) -> Option<&'static str> {
        if let Some(reason) = self.channels.refusal(query.channel) {
            return Some(reason);
        }
        match self.approval.status {
            // Other channels know no approval.
            _ if *query.channel != Channel::WhatsApp => None,
            ApprovalStatus::Approved => None,
            _ if !query.is_window_open => {
                Some("the customer service window has closed, and the template is not approved")
            }
            _ => self.needs_approval,
        }
    }
}

impl<'a> TemplateReference<'a> {
    /// Returns the template of a stored message; `None` if it has none.
    pub(super) fn of(params: &'a FormParams) -> Option<Self> {
        if let Some(sid) = params.get(TEMPLATE_SID) {
            return Some(Self::Sid(sid));
        }
        let language = params.get(TEMPLATE_LANGUAGE)?;
        Some(Self::Name(params.get(TEMPLATE_NAME)?, language))
    }
}

/// Returns the parameters with the SID in place of the name of the template.
pub(super) fn with_template(params: &FormParams, sid: &str) -> FormParams {
    const KEYS: [&str; 3] = [TEMPLATE_SID, TEMPLATE_NAME, TEMPLATE_LANGUAGE];
    let others = params.iter().filter(|(name, _)| !KEYS.contains(name));
    std::iter::once(("ContentSid", sid)).chain(others).collect()
}

impl ReplyTemplates {
    /// Returns the decision about a template; `None` if it must be [looked up](Self::look_up) first.
    pub(super) fn verdict(
        &self,
        template: TemplateReference<'_>,
        query: &TemplateQuery<'_>,
    ) -> Option<TemplateVerdict> {
        let is_fresh = |at: Duration| query.now.saturating_sub(at) < CACHE_TTL;
        match template {
            TemplateReference::Sid(sid) => {
                let sids = self.sids.lock().ignore_poison();
                let (at, known) = sids.get(&(query.account, sid.to_owned()))?;
                let refusal = known.as_ref().and_then(|known| known.refusal(query));
                is_fresh(*at).then(|| match refusal {
                    None => TemplateVerdict::Send(sid.to_owned()),
                    Some(reason) => TemplateVerdict::Refused(reason),
                })
            }
            TemplateReference::Name(name, language) => {
                let lists = self.lists.lock().ignore_poison();
                let (at, templates) = lists.get(&query.account)?;
                is_fresh(*at).then(|| choose(templates, name, language, query))
            }
        }
    }

    /// Looks up a template. Then there is a [verdict](Self::verdict): about a SID, also without an answer of the Content API.
    ///
    /// # Errors
    /// [`RestError`] if the list cannot be read.
    pub(super) async fn look_up(
        &self,
        template: TemplateReference<'_>,
        query: &TemplateQuery<'_>,
    ) -> Result<(), RestError> {
        match template {
            TemplateReference::Sid(sid) => {
                let known = look_up(sid, query.contents).await;
                let mut sids = self.sids.lock().ignore_poison();
                if sids.len() >= MAX_SIDS {
                    sids.clear();
                }
                sids.insert((query.account, sid.to_owned()), (query.now, known));
            }
            TemplateReference::Name(..) => {
                let templates = query.contents.list().await?;
                let mut lists = self.lists.lock().ignore_poison();
                lists.insert(query.account, (query.now, templates));
            }
        }
        Ok(())
    }

    /// Forgets all templates.
    #[cfg(all(feature = "server", feature = "emulator"))]
    pub(super) fn clear(&self) {
        self.lists.lock().ignore_poison().clear();
        self.sids.lock().ignore_poison().clear();
    }
}

async fn look_up(sid: &str, contents: &Contents<'_>) -> Option<KnownTemplate> {
    let calls =
        async { tokio::try_join!(contents.fetch_approval(sid), contents.fetch_content(sid)) };
    match tokio::time::timeout(LOOKUP_TIMEOUT, calls).await {
        Ok(Ok((approval, content))) => Some(KnownTemplate {
            approval,
            needs_approval: content.needs_approval,
            channels: content.channels,
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
) -> TemplateVerdict {
    let named = templates
        .iter()
        .filter(|template| template.name == name && template.language == language);
    let mut candidates: Vec<_> = named.collect();
    // Of several with the same name, an approved one may be sent in any case.
    candidates.sort_by_key(|template| template.approval.status != ApprovalStatus::Approved);
    let mut refusal = "the account has no template of this name and language";
    for template in candidates {
        let state = KnownTemplate {
            approval: template.approval.clone(),
            needs_approval: template.needs_approval,
            channels: template.channels,
        };
        match state.refusal(query) {
            None => return TemplateVerdict::Send(template.sid.clone()),
            Some(reason) => refusal = reason,
        }
    }
    TemplateVerdict::Refused(refusal)
}
