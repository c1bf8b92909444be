//! Access of the emulator to the app: its state for one user, and faults injected into its handler.

use std::sync::Arc;
#[cfg(feature = "testing")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::builder::AppBuilder;
use crate::address::{Address, Channel};
use crate::clock::{Advance, Clock};
use crate::delivery::OutboxWorker;
use crate::emulator::AppInspector;
use crate::handler::{Context, Handler, HandlerError};
#[cfg(feature = "testing")]
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::sid::MessageSid;
use crate::store::{ConsentScope, MessageFilter, OutboundState, Store, StoreFuture};

/// Display text for a handoff without a URL.
const SILENT: &str = "people elsewhere: the bot is silent";
/// Number of a user's latest messages among which pending ones are counted.
const MAX_RECENT_MESSAGES: u32 = 200;

/// The parts of the app that the emulator's page shows and controls.
pub(super) struct AppState {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) deadline: Duration,
    pub(super) debounce: Duration,
    pub(super) handler: &'static str,
    pub(super) store_url: String,
    pub(super) outbox: Arc<OutboxWorker>,
    pub(super) fault_injector: Arc<FaultInjector>,
}

impl AppInspector for AppState {
    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn debounce(&self) -> Duration {
        self.debounce
    }

    fn store(&self) -> &str {
        &self.store_url
    }

    fn state(&self, user: String, sender: String) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let state = self.describe(
                Address::parse(user).normalized(),
                Address::parse(sender).normalized(),
            );
            state
                .await
                .unwrap_or_else(|error| json!({"error": error.to_string()}))
        })
    }

    fn is_sending(&self, message_sid: String) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let Ok(sid) = message_sid.parse() else {
                return false;
            };
            let filter = MessageFilter {
                sid: Some(sid),
                limit: 1,
                ..MessageFilter::default()
            };
            let messages = self.store.messages(filter).await.unwrap_or_default();
            let mut replies = messages.iter().flat_map(|message| &message.replies);
            replies
                .any(|reply| matches!(reply.state, OutboundState::Pending | OutboundState::Sending))
        })
    }

    fn message_being_answered(&self, user: Option<String>) -> BoxFuture<'_, Option<String>> {
        Box::pin(async move {
            let filter = MessageFilter {
                user: user.map(|user| Address::parse(user).normalized()),
                limit: MAX_RECENT_MESSAGES,
                ..MessageFilter::default()
            };
            let messages = self.store.messages(filter).await.unwrap_or_default();
            // The outbox sends the replies of a conversation one after another. `Unknown`: it looks for that message.
            let mut answered = messages.iter().filter(|message| {
                let mut replies = message.replies.iter();
                replies.any(|reply| {
                    matches!(reply.state, OutboundState::Sending | OutboundState::Unknown)
                })
            });
            let first = answered.next()?;
            answered.next().is_none().then(|| first.sid.to_string())
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let deleted = self.store.delete_everything().await;
            deleted.map_err(|error| error.to_string())?;
            self.outbox.reset();
            Ok(())
        })
    }

    fn inject_faults(&self, handler_ms: u64, handler_fails: bool) {
        // Relaxed: the two values are independent, and no other memory is published with them.
        self.fault_injector
            .delay_ms
            .store(handler_ms, Ordering::Relaxed);
        self.fault_injector
            .fail
            .store(handler_fails, Ordering::Relaxed);
    }
}

impl AppState {
    fn describe(&self, user: Address, sender: Address) -> StoreFuture<'_, Value> {
        Box::pin(async move {
            let now = self.clock.now();
            let conversation = self.store.conversation(&sender, &user).await?;
            let consents = self.store.consents(&user).await?;
            let own_scope = ConsentScope::Sender(sender.clone());
            let opted_in = consents
                .iter()
                .any(|consent| consent.scope == own_scope && consent.opted_in.is_some());
            // An opt-out from a service keeps the bot silent too.
            let opt_out = consents.iter().find_map(|consent| {
                let is_other = matches!(&consent.scope, ConsentScope::Sender(of) if *of != sender);
                let opt_out = consent.opt_out.as_ref().filter(|_| !is_other)?;
                Some(json!({
                    "since": opt_out.at.to_string(),
                    "scope": consent.scope.as_str(),
                    "source": opt_out.source.as_str(),
                    "user": opt_out.address.as_str(),
                    "message_sid": opt_out.evidence.map(|sid| sid.to_string()),
                }))
            });
            let (mut dialogue, mut handed_off_to) = (None, None);
            if let Some(conversation) = &conversation {
                dialogue = self.store.dialogue(conversation.id, now).await?;
                let handoff = self.store.handoff(conversation.id, now).await?;
                handed_off_to =
                    handoff.map(|handoff| handoff.url.unwrap_or_else(|| SILENT.to_owned()));
            }
            // Only WhatsApp has a customer service window.
            let window = conversation.filter(|_| *user.channel() == Channel::WhatsApp);
            let window = window.map(|conversation| {
                let open = conversation.window(now);
                let closes_at = open.and_then(|open| open.until());
                json!({"open": open.is_some(), "closes_at": closes_at.map(|at| at.to_string())})
            });
            let filter = MessageFilter {
                user: Some(user),
                limit: MAX_RECENT_MESSAGES,
                ..MessageFilter::default()
            };
            let messages = self.store.messages(filter).await?;
            // A message is pending until its handler has finished and each of its replies has been sent.
            let is_unfinished =
                |state: &str| matches!(state, "received" | "processing" | "deferred");
            let pending = messages.iter().filter(|message| {
                let mut replies = message.replies.iter();
                is_unfinished(message.state)
                    || replies.any(|reply| {
                        matches!(reply.state, OutboundState::Pending | OutboundState::Sending)
                    })
            });
            // By SID: the message that each reply answers, which may not be the user's last one.
            let answers = messages.iter().flat_map(|message| {
                let sids = message.replies.iter().filter_map(|reply| reply.sid);
                sids.map(|sid| (sid.to_string(), message.sid.to_string().into()))
            });
            let answers: serde_json::Map<String, Value> = answers.collect();
            // Why the bot did not get a message, or why a reply was not sent.
            let reasons = messages.iter().filter_map(|message| {
                let mut of_replies = message
                    .replies
                    .iter()
                    .filter_map(|reply| reply.reason.as_ref());
                let reason = message.reason.as_ref().or_else(|| of_replies.next())?;
                Some((message.sid.to_string(), reason.as_str().into()))
            });
            let reasons: serde_json::Map<String, Value> = reasons.collect();
            Ok(json!({
                "answers": answers,
                "reasons": reasons,
                "sender": sender.as_str(),
                "window": window,
                "opted_out": opt_out.is_some(),
                "opt_out": opt_out,
                "opted_in": opted_in,
                "handler": self.handler,
                "handed_off_to": handed_off_to,
                "pending": pending.count(),
                "dialogue": dialogue.map(|dialogue| dialogue.0),
            }))
        })
    }
}

/// Reports that the handler of a message failed or its reply cannot be sent, with the reason, or that the handler
/// succeeded.
pub(super) type HandlerReport = Arc<dyn Fn(MessageSid, Option<&str>) + Send + Sync>;

/// Faults to inject into the app's handler. Shared with the emulator, and kept across restarts of the app.
#[derive(Default)]
pub(super) struct FaultInjector {
    delay_ms: AtomicU64,
    fail: AtomicBool,
    /// Number of handler calls so far.
    pub(super) calls: watch::Sender<u64>,
    /// Author and messages of each call. Only for the test kit, because it grows with each call.
    #[cfg(feature = "testing")]
    handled: Mutex<Vec<(Address, Vec<MessageSid>)>>,
    /// Words that a user may answer with, by the message whose handler offered them. Only for the test kit.
    #[cfg(feature = "testing")]
    offered_words: Mutex<Vec<(MessageSid, Address, String)>>,
}

impl FaultInjector {
    pub(super) fn wrap(
        self: &Arc<Self>,
        mut builder: AppBuilder,
        clock: Arc<dyn Advance>,
        report: HandlerReport,
    ) -> AppBuilder {
        let injector = self.clone();
        let report_rejection = report.clone();
        builder.on_rejected_reply = Some(Arc::new(move |sid, reason| {
            report_rejection(sid, Some(reason));
        }));
        builder.wrap_handler = Some(Box::new(move |handler| {
            Arc::new(FaultyHandler {
                inner: handler,
                injector,
                clock,
                report,
            })
        }));
        builder
    }

    /// Records author and messages of a call.
    #[cfg(feature = "testing")]
    fn record_call(&self, message: &InboundMessage) {
        let merged = message.merged.iter().copied();
        let sids = std::iter::once(message.message_sid).chain(merged);
        let mut handled = self.handled.lock().ignore_poison();
        handled.push((message.from.clone(), sids.collect()));
    }

    /// Records the choices of a reply, and the words that a form takes as an answer.
    #[cfg(feature = "testing")]
    fn record_words(&self, sid: MessageSid, sender: &Address, reply: &Reply, words: Vec<String>) {
        let messages = reply.messages().iter();
        let titles = messages.flat_map(crate::reply::ReplyMessage::choice_titles);
        let words = titles.map(str::to_owned).chain(words);
        let offered = words.map(|word| (sid, sender.clone(), word));
        self.offered_words.lock().ignore_poison().extend(offered);
    }

    /// Returns sender and word of everything that the replies to these messages offered as an answer.
    #[cfg(feature = "testing")]
    pub(super) fn words_offered_for(&self, sids: &[MessageSid]) -> Vec<(Address, String)> {
        let offered = self.offered_words.lock().ignore_poison();
        let offered = offered.iter().filter(|(sid, ..)| sids.contains(sid));
        let offered = offered.map(|(_, sender, word)| (sender.clone(), word.clone()));
        offered.collect()
    }

    /// Returns the number of calls whose author and messages fulfil a condition.
    #[cfg(feature = "testing")]
    pub(super) fn count_calls(&self, is_counted: impl Fn(&Address, &[MessageSid]) -> bool) -> u64 {
        let handled = self.handled.lock().ignore_poison();
        let counted = handled.iter().filter(|(user, sids)| is_counted(user, sids));
        counted.count() as u64
    }
}

/// A handler that is delayed, or fails, as its [`FaultInjector`] requires.
struct FaultyHandler {
    inner: Arc<dyn Handler>,
    injector: Arc<FaultInjector>,
    clock: Arc<dyn Advance>,
    report: HandlerReport,
}

/// Reports the result of a call. One that is dropped without a result was stopped, or has panicked.
struct CallReport {
    report: HandlerReport,
    sids: Vec<MessageSid>,
    is_done: bool,
}

impl CallReport {
    fn new(report: &HandlerReport, message: &InboundMessage) -> Self {
        let merged = message.merged.iter().copied();
        Self {
            report: report.clone(),
            sids: std::iter::once(message.message_sid).chain(merged).collect(),
            is_done: false,
        }
    }

    fn end(&mut self, failure: Option<&str>) {
        self.is_done = true;
        for sid in &self.sids {
            (self.report)(*sid, failure);
        }
    }
}

impl Drop for CallReport {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // Not the text of the panic: the panic hook reports it.
        let failure = if std::thread::panicking() {
            "the handler panicked; the bot's log has the line"
        } else {
            "the handler was stopped: it ran longer than handler.timeout_ms"
        };
        self.end(Some(failure));
    }
}

#[derive(Debug, thiserror::Error)]
#[error("failure injected by the emulator")]
struct InjectedFailure;

impl Handler for FaultyHandler {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        Box::pin(async move {
            let ms = self.injector.delay_ms.load(Ordering::Relaxed);
            // Count before the delay: `DevServer::wait_for_handler_call` returns while the handler still runs.
            #[cfg(feature = "testing")]
            self.injector.record_call(&message);
            self.injector.calls.send_modify(|calls| *calls += 1);
            let mut call = CallReport::new(&self.report, &message);
            if ms > 0 {
                // The emulator's clock, so that advancing it ends the delay.
                self.clock.sleep(Duration::from_millis(ms)).await;
            }
            #[cfg(feature = "testing")]
            let (cx, words) = cx.with_answer_words();
            #[cfg(feature = "testing")]
            let (sid, sender) = (message.message_sid, message.to.clone());
            let result = if self.injector.fail.load(Ordering::Relaxed) {
                Err(HandlerError::new(InjectedFailure))
            } else {
                self.inner.handle(cx, message).await
            };
            // The dispatcher rejects an invalid reply as well, and logs why.
            let result = result.and_then(|reply| {
                let checked = reply.check().map_err(HandlerError::new);
                checked.map(|()| reply)
            });
            #[cfg(feature = "testing")]
            if let Ok(reply) = &result {
                let words = std::mem::take(&mut *words.lock().ignore_poison());
                self.injector.record_words(sid, &sender, reply, words);
            }
            let failure = result.as_ref().err().map(HandlerError::to_string);
            call.end(failure.as_deref());
            result
        })
    }
}
