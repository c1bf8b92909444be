//! [`Snapshot`]: the parts of an app that a reload of the settings replaces.

use std::sync::{Arc, RwLock};

use super::parts::{guard_rules, keyring, sending_account, signature_verifier};
use super::tunnel::Tunnel;
use crate::app_error::AppError;
use crate::config::Settings;
use crate::consent::ConsentRules;
use crate::dispatch::GuardRules;
use crate::forward::ForwardTarget;
use crate::lock::IgnorePoison;
use crate::outbound::SendingAccount;
use crate::reloadable::Reloadable;
use crate::signature::SignatureVerifier;
use crate::twilio::Keyring;

/// Everything that a reload of the settings replaces, except log level and rules, which have their own holders.
pub(super) struct Snapshot {
    pub(super) verifier: Arc<SignatureVerifier>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) sending_account: Arc<SendingAccount>,
    pub(super) consent: Arc<ConsentRules>,
    pub(super) guard: Arc<GuardRules>,
    /// The service that gets events.
    pub(super) events: Arc<Option<ForwardTarget>>,
}

impl Snapshot {
    /// # Errors
    /// [`AppError`] if a token is not usable as a signing key.
    pub(super) fn new(
        settings: &Settings,
        tunnel: Option<&Tunnel>,
        consent: ConsentRules,
    ) -> Result<Self, AppError> {
        let keyring = keyring(settings, tunnel);
        Ok(Self {
            verifier: Arc::new(signature_verifier(settings, tunnel)?),
            sending_account: Arc::new(sending_account(settings, &keyring)),
            keyring: Arc::new(keyring),
            consent: Arc::new(consent),
            guard: Arc::new(guard_rules(settings)),
            events: Arc::new(settings.handler.events.clone()),
        })
    }
}

/// The current [`Snapshot`]. Clones share it.
#[derive(Clone)]
pub(super) struct CurrentSnapshot(Arc<RwLock<Snapshot>>);

impl CurrentSnapshot {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(RwLock::new(snapshot)))
    }

    /// Replaces all parts together: no reader gets the old verifier after another has got the new one.
    pub(super) fn replace(&self, snapshot: Snapshot) {
        // Poisoning is harmless, here and below: parts are only ever replaced as a whole.
        let mut current = self.0.write().ignore_poison();
        let replaced = std::mem::replace(&mut *current, snapshot);
        // Unlock before the old snapshot is dropped: erasing thousands of tokens must not delay requests.
        drop(current);
        drop(replaced);
    }

    /// Replaces the consent rules alone, after a reload of the rules file.
    pub(super) fn replace_consent(&self, consent: ConsentRules) {
        self.0.write().ignore_poison().consent = Arc::new(consent);
    }

    /// Returns access to one part. A reader holds the lock for the time of one `Arc::clone`.
    pub(super) fn part<T: Send + Sync + 'static>(
        &self,
        part: fn(&Snapshot) -> &Arc<T>,
    ) -> Reloadable<T> {
        let current = self.0.clone();
        Reloadable::new(move || part(&current.read().ignore_poison()).clone())
    }
}
