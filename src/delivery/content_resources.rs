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
pub(super) struct ContentResources {
    accounts: Mutex<HashMap<AccountSid, Arc<AccountContent>>>,
}

/// Known resources of one account.
#[derive(Default)]
struct AccountContent {
    state: Mutex<KnownContent>,
    /// Held while a resource is searched or made, so that concurrent messages make it once. The value is true if the
    /// account's resources were listed.
    lookup: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
struct KnownContent {
    sids: HashMap<ContentShape, String>,
    pause: Option<FailurePause>,
}

/// Pause after a failure.
#[derive(Clone)]
struct FailurePause {
    /// End by the monotonic clock.
    until: Duration,
    failure: String,
}

/// Reason why a resource is not available.
#[derive(Debug, thiserror::Error)]
enum ContentFailure {
    #[error("the Content API did not respond within {} s", FIND_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Rest(#[from] RestError),
}

/// Resource of a shape, as far as it is known without a call.
pub(super) enum KnownResource {
    /// Content SID.
    Found(String),
    /// The Content API failed less than a minute ago, for this reason.
    Failed(String),
}

impl ContentResources {
    /// Returns the resource with a shape; `None` if it must be looked up first.
    pub(super) fn known(
        &self,
        shape: ContentShape,
        account: AccountSid,
        now: Duration,
    ) -> Option<KnownResource> {
        self.account(account).known(shape, now)
    }

    /// Finds the resource with a shape, and makes it if the account has none. Then it is [known](Self::known), or the failure
    /// is.
    pub(super) async fn look_up(
        &self,
        shape: ContentShape,
        account: AccountSid,
        contents: &Contents<'_>,
        now: Duration,
    ) {
        let content = self.account(account);
        let mut is_listed = content.lookup.lock().await;
        // Another message may have made it while this one waited.
        if content.known(shape, now).is_some() {
            return;
        }
        let found = content.find_or_create(shape, &mut is_listed, contents);
        let failure = match tokio::time::timeout(FIND_TIMEOUT, found).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => ContentFailure::from(error),
            Err(_) => ContentFailure::Timeout,
        };
        content.lock().pause = Some(FailurePause {
            until: now.saturating_add(FAILURE_PAUSE),
            failure: failure.to_string(),
        });
    }

    /// Forgets a resource that Twilio does not have any more.
    pub(super) async fn forget(&self, shape: ContentShape, account: AccountSid) {
        let content = self.account(account);
        let mut is_listed = content.lookup.lock().await;
        // List again: other resources may be gone too, or another server may have remade this one.
        *is_listed = false;
        content.lock().sids.remove(&shape);
    }

    /// Forgets all resources and failures.
    #[cfg(all(feature = "server", feature = "emulator"))]
    pub(super) fn clear(&self) {
        self.accounts.lock().ignore_poison().clear();
    }

    fn account(&self, account: AccountSid) -> Arc<AccountContent> {
        let mut accounts = self.accounts.lock().ignore_poison();
        accounts.entry(account).or_default().clone()
    }
}

impl AccountContent {
    fn known(&self, shape: ContentShape, now: Duration) -> Option<KnownResource> {
        let state = self.lock();
        if let Some(sid) = state.sids.get(&shape) {
            return Some(KnownResource::Found(sid.clone()));
        }
        let pause = state.pause.as_ref().filter(|pause| now < pause.until)?;
        Some(KnownResource::Failed(pause.failure.clone()))
    }

    async fn find_or_create(
        &self,
        shape: ContentShape,
        is_listed: &mut bool,
        contents: &Contents<'_>,
    ) -> Result<(), RestError> {
        if !*is_listed {
            let listed = contents.list_names().await?;
            let mut state = self.lock();
            for (name, sid) in listed {
                // Two servers may have made the same resource concurrently; use either.
                if let Some(found) = ContentShape::parse(&name) {
                    state.sids.entry(found).or_insert(sid);
                }
            }
            *is_listed = true;
        }
        if self.lock().sids.contains_key(&shape) {
            return Ok(());
        }
        let sid = contents.create(&shape.resource()).await?;
        tracing::info!(content_sid = %sid, name = shape.name(), "made a content resource for rich messages");
        self.lock().sids.insert(shape, sid);
        Ok(())
    }

    // A poisoned lock is usable: each change is a single insertion or removal.
    fn lock(&self) -> std::sync::MutexGuard<'_, KnownContent> {
        self.state.lock().ignore_poison()
    }
}
