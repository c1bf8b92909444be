//! Content resources at Twilio, one for each shape of a rich message, made on first use.
//!
//! A resource is found by its name, so that all servers of an account use the same one. Nothing here deletes one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lock::IgnorePoison;
use crate::reply::ContentShape;
use crate::sid::AccountSid;
use crate::twilio::{Contents, RestError};

/// Maximum time to find or make a resource. After it, the user gets the text instead.
const FIND_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failure of the Content API, in which rich messages go as texts.
const FAILURE_PAUSE: Duration = Duration::from_mins(1);

/// Known resources of all accounts.
#[derive(Default)]
pub(crate) struct ContentResources {
    accounts: Mutex<HashMap<AccountSid, Arc<AccountContent>>>,
}

/// Known resources of one account.
#[derive(Default)]
struct AccountContent {
    sids: Mutex<HashMap<ContentShape, String>>,
    /// Held while a resource is searched or made, so that concurrent messages make it once.
    lookup: tokio::sync::Mutex<LookupState>,
}

#[derive(Default)]
struct LookupState {
    /// True if the account's resources were listed.
    is_listed: bool,
    /// End of the pause after a failure, by the monotonic clock.
    paused_until: Duration,
}

/// Reason why a resource is not available.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentFailure {
    #[error("the Content API failed less than a minute ago")]
    Paused,
    #[error("the Content API did not respond within {} s", FIND_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Rest(#[from] RestError),
}

impl ContentResources {
    /// Returns the SID of the resource with a shape. Makes the resource if the account has none.
    // A message with a known shape does not wait while another message makes a resource.
    pub(super) async fn sid_of(
        &self,
        shape: ContentShape,
        account: AccountSid,
        contents: &Contents<'_>,
        now: Duration,
    ) -> Result<String, ContentFailure> {
        let content = self.account(account);
        if let Some(sid) = content.known(shape) {
            return Ok(sid);
        }
        let mut state = content.lookup.lock().await;
        // Another message may have made it while this one waited.
        if let Some(sid) = content.known(shape) {
            return Ok(sid);
        }
        if now < state.paused_until {
            return Err(ContentFailure::Paused);
        }
        let found = content.find_or_create(shape, &mut state, contents);
        let found = tokio::time::timeout(FIND_TIMEOUT, found).await;
        let found = match found {
            Ok(found) => found.map_err(ContentFailure::from),
            Err(_) => Err(ContentFailure::Timeout),
        };
        if found.is_err() {
            state.paused_until = now.saturating_add(FAILURE_PAUSE);
        }
        found
    }

    /// Forgets a resource that Twilio does not have any more.
    pub(super) async fn forget(&self, shape: ContentShape, account: AccountSid) {
        let content = self.account(account);
        let mut state = content.lookup.lock().await;
        // List again: other resources may be gone too, or another server may have remade this one.
        state.is_listed = false;
        content.sids.lock().ignore_poison().remove(&shape);
    }

    fn account(&self, account: AccountSid) -> Arc<AccountContent> {
        let mut accounts = self.accounts.lock().ignore_poison();
        accounts.entry(account).or_default().clone()
    }
}

impl AccountContent {
    fn known(&self, shape: ContentShape) -> Option<String> {
        self.sids.lock().ignore_poison().get(&shape).cloned()
    }

    async fn find_or_create(
        &self,
        shape: ContentShape,
        state: &mut LookupState,
        contents: &Contents<'_>,
    ) -> Result<String, RestError> {
        if !state.is_listed {
            let listed = contents.list_names().await?;
            let mut sids = self.sids.lock().ignore_poison();
            for (name, sid) in listed {
                // Two servers may have made the same resource concurrently; use either.
                if let Some(found) = ContentShape::parse(&name) {
                    sids.entry(found).or_insert(sid);
                }
            }
            state.is_listed = true;
        }
        if let Some(sid) = self.known(shape) {
            return Ok(sid);
        }
        let sid = contents.create(&shape.resource()).await?;
        tracing::info!(content_sid = %sid, name = shape.name(), "made a content resource for rich messages");
        self.sids.lock().ignore_poison().insert(shape, sid.clone());
        Ok(sid)
    }
}
