//! The handler of an app: yours or the built-in one of the settings, with the task for hot reload of its rules file.

use std::sync::Arc;
#[cfg(feature = "rules")]
use std::time::Duration;

use crate::address::Channel;
use crate::app_error::AppError;
use crate::clock::Clock;
use crate::config::{HandlerKind, ReplyRoute, Settings};
use crate::consent::{ConsentReplies, ConsentRules, Keywords};
use crate::dispatch::{Dispatcher, FallbackTexts};
use crate::forward::Forward;
use crate::handler::{Echo, Handler};
use crate::reply::Reply;
#[cfg(feature = "rules")]
use crate::rules::{OptOutTexts, Rules};
use crate::twiml::Document;
use crate::worker::BackgroundTask;

/// Interval between two checks of the rules file for changes.
#[cfg(feature = "rules")]
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Name of the echo handler; `App::run` compares with it to warn that the bot only echoes.
pub(super) const ECHO: &str = "echo";

/// A callback for each reload of the rules file, with the error if the new rules are rejected.
pub(super) type ReloadHook = Arc<dyn Fn(Result<(), &str>) + Send + Sync>;

/// A handler with its display name and, if it is a rules file, its rules.
pub(super) struct Bot {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) name: &'static str,
    #[cfg(feature = "rules")]
    rules: Option<Arc<Rules>>,
}

/// Renders a text from the settings as a TwiML response.
fn render_document(text: &str) -> Result<Document, AppError> {
    // Rendered before the channel of any message is known, so WhatsApp's limits apply on every channel.
    Document::render(&Reply::text(text), &Channel::WhatsApp, None)
        .map_err(|error| AppError::config(&error))
}

/// Renders `reply.fallback_text` for the path that replies take.
pub(super) fn fallback_texts(settings: &Settings) -> Result<FallbackTexts, AppError> {
    let text = &settings.reply.fallback_text;
    Ok(match settings.reply.path {
        ReplyRoute::Auto => FallbackTexts {
            twiml: render_document(text)?,
            rest: None,
        },
        ReplyRoute::Rest => FallbackTexts {
            twiml: Document::empty(),
            rest: Some(text.clone()).filter(|text| !text.is_empty()),
        },
    })
}

impl Bot {
    fn new(handler: Arc<dyn Handler>, name: &'static str) -> Self {
        Self {
            handler,
            name,
            #[cfg(feature = "rules")]
            rules: None,
        }
    }

    pub(super) fn custom(handler: Arc<dyn Handler>) -> Self {
        Self::new(handler, "your handler")
    }

    /// Builds the handler that `handler.kind` selects.
    pub(super) fn built_in(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, AppError> {
        let forward: Option<Arc<dyn Handler>> = match &settings.handler.forward {
            Some(target) => {
                let forward = Forward::new(target.clone(), clock.clone());
                Some(Arc::new(forward.map_err(|error| AppError::config(&error))?))
            }
            None => None,
        };
        match settings.handler.kind {
            #[cfg(feature = "rules")]
            HandlerKind::Rules => {
                // Rules may pass single messages to the forwarded service, so they get `forward` as well.
                let file = settings.handler.rules.as_ref();
                let file = file.ok_or_else(|| AppError::config(&"handler.rules is not set"))?;
                let rules = Rules::new(file, forward);
                let rules = Arc::new(rules.map_err(|error| AppError::config(&error))?);
                let mut bot = Self::new(rules.clone(), "rules");
                bot.rules = Some(rules);
                Ok(bot)
            }
            HandlerKind::Forward => {
                let forward =
                    forward.ok_or_else(|| AppError::config(&"handler.forward_url is not set"))?;
                Ok(Self::new(forward, "forward"))
            }
            HandlerKind::Echo => Ok(Self::new(Arc::new(Echo), ECHO)),
        }
    }

    /// Builds the consent keywords and their confirmations. Texts in the rules file override those of the settings.
    pub(super) fn consent_rules(&self, settings: &Settings) -> Result<ConsentRules, AppError> {
        let consent = &settings.consent;
        let keywords = Keywords::new(&consent.stop_words, &consent.start_words);
        #[cfg_attr(
            not(feature = "rules"),
            expect(unused_mut, reason = "only a rules file replaces them")
        )]
        let mut replies = confirmations(settings)?;
        #[cfg(feature = "rules")]
        if let Some(rules) = &self.rules {
            replies = override_replies(&replies, &rules.opt_out())?;
        }
        Ok(ConsentRules::new(keywords, replies))
    }

    /// Returns the task that reloads the rules file, if the handler is a rules file.
    #[cfg(feature = "rules")]
    pub(super) fn rules_reload_task(
        &self,
        settings: &Settings,
        dispatcher: &Arc<Dispatcher>,
        on_reload: Option<ReloadHook>,
    ) -> Result<Option<BackgroundTask>, AppError> {
        let Some(rules) = self.rules.clone() else {
            return Ok(None);
        };
        let (dispatcher, replies) = (dispatcher.clone(), confirmations(settings)?);
        Ok(Some(Arc::new(move || {
            let reloader = RulesReloader {
                rules: rules.clone(),
                dispatcher: dispatcher.clone(),
                replies: replies.clone(),
                on_reload: on_reload.clone(),
            };
            Box::pin(reloader.poll())
        })))
    }

    #[cfg(not(feature = "rules"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the signature of the variant with rules"
    )]
    pub(super) fn rules_reload_task(
        &self,
        _settings: &Settings,
        _dispatcher: &Arc<Dispatcher>,
        _on_reload: Option<ReloadHook>,
    ) -> Result<Option<BackgroundTask>, AppError> {
        Ok(None)
    }
}

/// Renders the confirmations of opt-out and opt-in keywords in the settings.
fn confirmations(settings: &Settings) -> Result<ConsentReplies, AppError> {
    Ok(ConsentReplies {
        stop: render_document(&settings.consent.stop_reply)?,
        start: render_document(&settings.consent.start_reply)?,
    })
}

#[cfg(feature = "rules")]
fn override_replies(
    settings: &ConsentReplies,
    texts: &OptOutTexts,
) -> Result<ConsentReplies, AppError> {
    let reply = |text: &Option<String>, default: &Document| match text {
        Some(text) => render_document(text),
        None => Ok(default.clone()),
    };
    Ok(ConsentReplies {
        stop: reply(&texts.stop, &settings.stop)?,
        start: reply(&texts.start, &settings.start)?,
    })
}

/// Reloads rules when their file changes.
#[cfg(feature = "rules")]
struct RulesReloader {
    rules: Arc<Rules>,
    dispatcher: Arc<Dispatcher>,
    /// Confirmations of the settings, for texts that the rules file does not set.
    replies: ConsentReplies,
    on_reload: Option<ReloadHook>,
}

#[cfg(feature = "rules")]
impl RulesReloader {
    async fn poll(self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let rules = self.rules.clone();
            // Reading the file blocks.
            let reloaded = tokio::task::spawn_blocking(move || rules.reload_if_changed()).await;
            // `None`: the file has not changed. `Err`: the call panicked; the next round tries again.
            let Ok(Some(reloaded)) = reloaded else {
                continue;
            };
            let reloaded = reloaded.map_err(|error| error.to_string());
            let reloaded = reloaded.and_then(|()| {
                // The dispatcher sends the confirmations, not the handler, so a reload must replace them as well.
                let replies = override_replies(&self.replies, &self.rules.opt_out());
                replies.map_err(|error| error.to_string())
            });
            let file = self.rules.path().display();
            let outcome = match reloaded {
                Ok(replies) => {
                    self.dispatcher.consent.rules.set_replies(replies);
                    tracing::info!(%file, "reloaded rules");
                    Ok(())
                }
                Err(error) => {
                    tracing::error!(%file, %error, "could not reload rules; the previous rules stay in use");
                    Err(error)
                }
            };
            if let Some(on_reload) = &self.on_reload {
                match &outcome {
                    Ok(()) => on_reload(Ok(())),
                    Err(error) => on_reload(Err(error)),
                }
            }
        }
    }
}
