//! The rules file of an app, as its reload sees it.

#[cfg(feature = "rules")]
use std::sync::Arc;
#[cfg(feature = "rules")]
use std::time::Duration;

use super::confirmations::ConfirmationTexts;
use crate::app_error::AppError;
use crate::config::Settings;
#[cfg(feature = "rules")]
use crate::rules::{PreparedRules, Rules};

/// Interval between two checks of the rules file for changes.
#[cfg(feature = "rules")]
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The rules of an app whose handler is a rules file; empty for another handler.
#[derive(Default)]
pub(super) struct RulesSource {
    #[cfg(feature = "rules")]
    pub(super) rules: Option<Arc<Rules>>,
}

/// Rules that were read and are not active yet, if they differ from the active ones.
pub(super) struct NewRules {
    /// The texts of the new rules, or else of the active ones.
    pub(super) texts: ConfirmationTexts,
    #[cfg(feature = "rules")]
    prepared: Option<PreparedRules>,
}

#[cfg(feature = "rules")]
impl RulesSource {
    pub(super) fn texts(&self) -> ConfirmationTexts {
        self.rules.as_ref().map_or_else(Default::default, |rules| {
            ConfirmationTexts::of(&rules.opt_out())
        })
    }

    /// Prepares the rules of the file that `settings` have read.
    ///
    /// # Errors
    /// [`AppError`] if a rule forwards and the app has no service to forward to.
    // A changed path in `handler.rules` takes effect after a restart. Until then the active file is still hot reloaded.
    pub(super) fn prepare(&self, settings: &Settings) -> Result<NewRules, AppError> {
        let mut new = NewRules {
            texts: self.texts(),
            prepared: None,
        };
        if let (Some(rules), Some(file)) = (&self.rules, &settings.handler.rules) {
            let prepared = rules.prepare(file).map_err(|error| {
                let file = rules.path().display();
                AppError::config(&format!(
                    "{file}: {error}; handler.forward_url and handler.forward_secret take effect after a restart"
                ))
            })?;
            if let Some(prepared) = &prepared {
                new.texts = ConfirmationTexts::of(prepared.opt_out());
            }
            new.prepared = prepared;
        }
        Ok(new)
    }

    /// Activates prepared rules. Returns whether there were any.
    pub(super) fn activate(&self, new: NewRules) -> bool {
        match (&self.rules, new.prepared) {
            (Some(rules), Some(prepared)) => {
                rules.activate(prepared);
                true
            }
            _ => false,
        }
    }

    /// Waits until [`reload_if_changed`](Self::reload_if_changed) should be called next.
    pub(super) async fn wait_for_poll(&self) {
        match &self.rules {
            Some(_) => tokio::time::sleep(POLL_INTERVAL).await,
            None => std::future::pending().await,
        }
    }

    /// Activates the rules of the file if it has changed. Returns its path, with their texts or the error.
    pub(super) async fn reload_if_changed(
        &self,
    ) -> Option<(String, Result<ConfirmationTexts, String>)> {
        let rules = self.rules.clone()?;
        let file = rules.path().display().to_string();
        // Reading the file blocks.
        let reloaded = tokio::task::spawn_blocking(move || rules.reload_if_changed()).await;
        // `None`: the file has not changed. `Err`: the call panicked; the next round tries again.
        let reloaded = reloaded.ok()??;
        let texts = reloaded.map(|()| self.texts());
        Some((file, texts.map_err(|error| error.to_string())))
    }
}

#[cfg(not(feature = "rules"))]
#[expect(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    clippy::unused_async,
    reason = "the signatures of the variant with rules"
)]
impl RulesSource {
    pub(super) fn texts(&self) -> ConfirmationTexts {
        ConfirmationTexts::default()
    }

    pub(super) fn prepare(&self, _settings: &Settings) -> Result<NewRules, AppError> {
        Ok(NewRules {
            texts: self.texts(),
        })
    }

    pub(super) fn activate(&self, _new: NewRules) -> bool {
        false
    }

    pub(super) async fn wait_for_poll(&self) {
        std::future::pending().await
    }

    pub(super) async fn reload_if_changed(
        &self,
    ) -> Option<(String, Result<ConfirmationTexts, String>)> {
        None
    }
}
