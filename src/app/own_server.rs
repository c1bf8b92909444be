//! Our own server as the emulator sees it: what it knows of a user, and how its handler is disturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::AppBuilder;
use crate::address::{Address, Channel};
use crate::clock::{Advance, Clock};
use crate::emulator::OwnServer;
use crate::handler::{Context, Handler, HandlerError};
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::store::{ConsentScope, MessageFilter, Outcome, ReplyState, Store};

/// A user's messages that are looked at for what is not done.
const RECENT: u32 = 200;

/// What the page shows of our own server.
pub(super) struct OwnState {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) deadline: Duration,
    pub(super) pause: Duration,
    pub(super) handler: &'static str,
    pub(super) store_url: String,
    pub(super) disturbance: Arc<Disturbance>,
}

impl OwnServer for OwnState {
    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn pause(&self) -> Duration {
        self.pause
    }

    fn store(&self) -> &str {
        &self.store_url
    }

    fn state(&self, user: String, sender: String) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let described = self.describe(Address::parse(user), Address::parse(sender));
            described
                .await
                .unwrap_or_else(|error| json!({"error": error.to_string()}))
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let forgotten = self.store.forget_all().await;
            forgotten.map_err(|error| error.to_string())
        })
    }

    fn disturb(&self, handler_ms: u64, handler_fails: bool) {
        self.disturbance
            .handler_ms
            .store(handler_ms, Ordering::Relaxed);
        self.disturbance
            .fails
            .store(handler_fails, Ordering::Relaxed);
    }
}

impl OwnState {
    fn describe(&self, user: Address, sender: Address) -> Outcome<'_, Value> {
        Box::pin(async move {
            let now = self.clock.now();
            let conversation = self.store.conversation(&sender, &user).await?;
            let scope = vec![ConsentScope::Sender(sender.clone())];
            let consent = self.store.consent(scope, &user).await?;
            let (mut dialogue, mut handed_over_to) = (None, None);
            if let Some(conversation) = &conversation {
                dialogue = self.store.dialogue(conversation.id, now).await?;
                handed_over_to = self.store.handed_over(conversation.id, now).await?;
            }
            let window = conversation.filter(|_| *user.channel() == Channel::WhatsApp);
            let window = window.map(|conversation| {
                let open = conversation.window(now);
                let closes_at = open.and_then(|open| open.until());
                json!({"open": open.is_some(), "closes_at": closes_at.map(|at| at.to_string())})
            });
            let filter = MessageFilter {
                user: Some(user),
                limit: RECENT,
                ..MessageFilter::default()
            };
            let messages = self.store.messages(filter).await?;
            let is_open = |state: &str| matches!(state, "received" | "processing" | "deferred");
            let pending = messages.iter().filter(|message| {
                let mut replies = message.replies.iter();
                is_open(message.state) || replies.any(|reply| reply.state == ReplyState::Pending)
            });
            Ok(json!({
                "sender": sender.as_str(),
                "window": window,
                "opted_out": consent.opted_out.is_some(),
                "opted_in": consent.opted_in.is_some(),
                "handler": self.handler,
                "handed_over_to": handed_over_to,
                "pending": pending.count(),
                "dialogue": dialogue.map(|dialogue| dialogue.0),
            }))
        })
    }
}

/// What is done to our own server's handler.
#[derive(Default)]
pub(super) struct Disturbance {
    handler_ms: AtomicU64,
    fails: AtomicBool,
    /// How often it was called.
    pub(super) runs: watch::Sender<u64>,
}

impl Disturbance {
    pub(super) fn put_around(
        self: &Arc<Self>,
        mut builder: AppBuilder,
        clock: Arc<dyn Advance>,
    ) -> AppBuilder {
        let disturbance = self.clone();
        builder.around = Some(Box::new(move |handler| {
            Arc::new(Disturbed {
                handler,
                disturbance,
                clock,
            })
        }));
        builder
    }
}

/// A handler that is slower, or fails, when it is told to.
struct Disturbed {
    handler: Arc<dyn Handler>,
    disturbance: Arc<Disturbance>,
    clock: Arc<dyn Advance>,
}

/// What a handler says that was told to fail.
#[derive(Debug, thiserror::Error)]
#[error("it was told to fail")]
struct ToldToFail;

impl Handler for Disturbed {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        Box::pin(async move {
            let ms = self.disturbance.handler_ms.load(Ordering::Relaxed);
            self.disturbance.runs.send_modify(|runs| *runs += 1);
            if ms > 0 {
                self.clock.sleep(Duration::from_millis(ms)).await;
            }
            if self.disturbance.fails.load(Ordering::Relaxed) {
                return Err(HandlerError::new(ToldToFail));
            }
            self.handler.handle(cx, message).await
        })
    }
}
