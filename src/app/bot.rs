//! The handler of an app: yours or the built-in one of the settings.

use std::sync::Arc;

use super::confirmations::render_document;
use super::rules_file::RulesSource;
use crate::app_error::AppError;
use crate::clock::Clock;
use crate::config::{HandlerKind, ReplyRoute, Settings};
use crate::dispatch::FallbackTexts;
use crate::forward::Forward;
use crate::handler::{Echo, Handler};
#[cfg(feature = "rules")]
use crate::rules::Rules;
use crate::twiml::Document;

/// Name of the echo handler; `App::run` compares with it to warn that the bot only echoes.
pub(super) const ECHO: &str = "echo";

/// A handler with its display name and, if it is a rules file, its rules.
pub(super) struct Bot {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) name: &'static str,
    pub(super) rules: RulesSource,
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
    /// Returns the handler of the program, or else the one that `handler.kind` selects.
    pub(super) fn new(
        custom: Option<Arc<dyn Handler>>,
        settings: &Settings,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, AppError> {
        match custom {
            Some(handler) => Ok(Self::named(handler, "your handler")),
            None => Self::built_in(settings, clock),
        }
    }

    fn named(handler: Arc<dyn Handler>, name: &'static str) -> Self {
        Self {
            handler,
            name,
            rules: RulesSource::default(),
        }
    }

    /// Builds the handler that `handler.kind` selects.
    fn built_in(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, AppError> {
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
                let mut bot = Self::named(rules.clone(), "rules");
                bot.rules.rules = Some(rules);
                Ok(bot)
            }
            HandlerKind::Forward => {
                let forward =
                    forward.ok_or_else(|| AppError::config(&"handler.forward_url is not set"))?;
                Ok(Self::named(forward, "forward"))
            }
            HandlerKind::Echo => Ok(Self::named(Arc::new(Echo), ECHO)),
        }
    }
}
