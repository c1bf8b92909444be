//! What answers: yours, or the built-in one that the settings name, with what has to run beside it.

use std::sync::Arc;
#[cfg(feature = "rules")]
use std::time::Duration;

use crate::address::Channel;
use crate::clock::Clock;
use crate::config::{HandlerKind, Settings};
use crate::consent::{ConsentReplies, ConsentRules, Words};
use crate::dispatch::Dispatcher;
use crate::handler::{Echo, Forward, Handler};
#[cfg(feature = "rules")]
use crate::handler::{OptOutTexts, Rules};
use crate::reply::Reply;
use crate::start_error::StartError;
use crate::twiml::Document;
use crate::worker::Watch;

/// Between two looks at a file of rules.
#[cfg(feature = "rules")]
const LOOK: Duration = Duration::from_millis(500);

/// The label of the handler that sends users their own words back.
pub(super) const ECHO: &str = "echo";

/// Is told whether changed rules are obeyed, or what is wrong with them.
pub(super) type ReloadHook = Arc<dyn Fn(Result<(), &str>) + Send + Sync>;

/// What answers.
pub(super) struct Bot {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) name: &'static str,
    #[cfg(feature = "rules")]
    rules: Option<Arc<Rules>>,
}

/// A text of the settings as it is answered.
pub(super) fn document(text: &str) -> Result<Document, StartError> {
    Document::render(&Reply::text(text), &Channel::WhatsApp, None)
        .map_err(|error| StartError::config(&error))
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

    pub(super) fn yours(handler: Arc<dyn Handler>) -> Self {
        Self::new(handler, "your handler")
    }

    /// The one that the settings name.
    pub(super) fn built_in(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let forward: Option<Arc<dyn Handler>> = match &settings.handler.forward {
            Some(target) => {
                let forward = Forward::new(target.clone(), clock.clone());
                Some(Arc::new(
                    forward.map_err(|error| StartError::config(&error))?,
                ))
            }
            None => None,
        };
        match settings.handler.kind {
            #[cfg(feature = "rules")]
            HandlerKind::Rules => {
                let file = settings.handler.rules.as_ref();
                let file = file.ok_or_else(|| StartError::config(&"handler.rules is not set"))?;
                let rules = Rules::new(file, forward);
                let rules = Arc::new(rules.map_err(|error| StartError::config(&error))?);
                let mut bot = Self::new(rules.clone(), "rules");
                bot.rules = Some(rules);
                Ok(bot)
            }
            HandlerKind::Forward => {
                let forward =
                    forward.ok_or_else(|| StartError::config(&"handler.forward_url is not set"))?;
                Ok(Self::new(forward, "forward"))
            }
            HandlerKind::Echo => Ok(Self::new(Arc::new(Echo), ECHO)),
        }
    }

    /// Which words opt out and in, and what is answered to them: by the rules, where those say so.
    pub(super) fn consent_rules(&self, settings: &Settings) -> Result<ConsentRules, StartError> {
        let consent = &settings.consent;
        let words = Words::new(&consent.stop_words, &consent.start_words);
        #[cfg_attr(
            not(feature = "rules"),
            expect(unused_mut, reason = "rules change them")
        )]
        let mut replies = replies(settings)?;
        #[cfg(feature = "rules")]
        if let Some(rules) = &self.rules {
            replies = said_by_rules(&replies, &rules.opt_out())?;
        }
        Ok(ConsentRules::new(words, replies))
    }

    /// What looks after the rules, if they are what answers.
    #[cfg(feature = "rules")]
    pub(super) fn watch(
        &self,
        settings: &Settings,
        dispatcher: &Arc<Dispatcher>,
        on_reload: Option<ReloadHook>,
    ) -> Result<Option<Watch>, StartError> {
        let Some(rules) = self.rules.clone() else {
            return Ok(None);
        };
        let (dispatcher, replies) = (dispatcher.clone(), replies(settings)?);
        Ok(Some(Arc::new(move || {
            let watched = Watched {
                rules: rules.clone(),
                dispatcher: dispatcher.clone(),
                replies: replies.clone(),
                on_reload: on_reload.clone(),
            };
            Box::pin(watched.look())
        })))
    }

    #[cfg(not(feature = "rules"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "there are no rules"
    )]
    pub(super) fn watch(
        &self,
        _settings: &Settings,
        _dispatcher: &Arc<Dispatcher>,
        _on_reload: Option<ReloadHook>,
    ) -> Result<Option<Watch>, StartError> {
        Ok(None)
    }
}

fn replies(settings: &Settings) -> Result<ConsentReplies, StartError> {
    Ok(ConsentReplies {
        stop: document(&settings.consent.stop_reply)?,
        start: document(&settings.consent.start_reply)?,
    })
}

#[cfg(feature = "rules")]
fn said_by_rules(
    settings: &ConsentReplies,
    texts: &OptOutTexts,
) -> Result<ConsentReplies, StartError> {
    let said = |text: &Option<String>, otherwise: &Document| match text {
        Some(text) => document(text),
        None => Ok(otherwise.clone()),
    };
    Ok(ConsentReplies {
        stop: said(&texts.stop, &settings.stop)?,
        start: said(&texts.start, &settings.start)?,
    })
}

/// Rules that are read anew when their file changes.
#[cfg(feature = "rules")]
struct Watched {
    rules: Arc<Rules>,
    dispatcher: Arc<Dispatcher>,
    /// The settings', for what the rules do not say.
    replies: ConsentReplies,
    on_reload: Option<ReloadHook>,
}

#[cfg(feature = "rules")]
impl Watched {
    async fn look(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let rules = self.rules.clone();
            let looked = tokio::task::spawn_blocking(move || rules.look()).await;
            let Ok(Some(looked)) = looked else {
                continue;
            };
            let obeyed = looked.map_err(|error| error.to_string());
            let obeyed = obeyed.and_then(|()| {
                let replies = said_by_rules(&self.replies, &self.rules.opt_out());
                replies.map_err(|error| error.to_string())
            });
            let file = self.rules.path().display();
            let outcome = match obeyed {
                Ok(replies) => {
                    self.dispatcher.consent.set_replies(replies);
                    tracing::info!(%file, "the rules have changed and are obeyed");
                    Ok(())
                }
                Err(error) => {
                    tracing::error!(%file, %error, "the rules have changed and are wrong: the old ones stay");
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
