//! The course of one message, in a task of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::conversing::{Conversation, Inbound, change};
use super::origin::Origin;
use super::waiting::Event;
use super::{
    Arrived, ConsentChange, ConsentKind, Dispatched, Dispatcher, Failure, Progress, Road, Slot,
    WAITING_IN_LINE, within,
};
use crate::address::Channel;
use crate::handler::{Context, HandlerError};
use crate::message::InboundMessage;
use crate::reply::{Reply, WireMessage};
use crate::signature::TokenSlot;
use crate::store::{
    Acceptance, Answered, Arrival, Choice, Claim, DeadMessage, DeadReason, Decision, Ending,
    NewReply, Taken, Turn,
};
use crate::twiml::Document;

/// Between tries to save what a handler has said, while the store is away.
const RETRY: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

pub(super) struct Course {
    dispatcher: Arc<Dispatcher>,
    progress: Arc<Progress>,
    /// Where the request waits; nobody does for a message of the backlog.
    decided: Option<oneshot::Sender<Dispatched>>,
    arrived: Arrived,
    fallback: bool,
}

impl Course {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        progress: Arc<Progress>,
        decided: oneshot::Sender<Dispatched>,
        arrived: Arrived,
    ) -> Self {
        Self {
            dispatcher,
            progress,
            decided: Some(decided),
            arrived,
            fallback: false,
        }
    }

    /// A course that no request waits for.
    pub(super) fn unattended(dispatcher: Arc<Dispatcher>, arrived: Arrived) -> Self {
        Self {
            dispatcher,
            progress: Arc::default(),
            decided: None,
            arrived,
            fallback: false,
        }
    }

    /// Tells the request. Only the first word counts.
    fn tell(&mut self, dispatched: Dispatched) {
        if let Some(decided) = self.decided.take() {
            // A request that is gone has been told, or does not ask any more.
            let _ = decided.send(dispatched);
        }
    }

    /// Whether nobody reads an answer any more.
    fn is_unattended(&self) -> bool {
        self.decided.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// What is rare is in boxes of its own: the whole is moved about for every message.
    pub(super) async fn run(
        mut self,
        message: Box<InboundMessage>,
        slot: TokenSlot,
        road: Road,
        place: Slot,
    ) {
        self.fallback = matches!(road, Road::Fallback(_));
        let arrival = self.dispatcher.arrival(&message, slot);
        let (account, sid) = (arrival.account, arrival.sid);
        let dispatcher = self.dispatcher.clone();
        let is_told = || dispatcher.state.outage.has_answered(account, sid);
        // Asked before and after: what was told may be entered between the store's answer and its being read here.
        let was_told = is_told();
        crate::crash_point!("P1");
        let mut acceptance = self.accept(&arrival).await;
        crate::crash_point!("P3");
        if let Some(Acceptance::InProgress { id }) = acceptance {
            acceptance = Box::pin(self.wait_for_decision(id, &arrival)).await;
        }
        match acceptance {
            None => {}
            // The store took it after its fallback call was answered from memory: that is entered, or about to be.
            Some(Acceptance::New(_) | Acceptance::Waiting { .. }) if was_told || is_told() => {
                self.tell(Dispatched::Unavailable);
                self.dispatcher.state.backlog.notify_one();
            }
            Some(Acceptance::New(claim)) => {
                self.began(claim.id, claim.failed_before).await;
                self.attempt(claim, message, slot, road, Some(place)).await;
            }
            Some(Acceptance::Waiting {
                id,
                conversation,
                ahead,
            }) => {
                self.began(id, false).await;
                drop(place);
                let turn = Box::pin(self.wait_for_turn(id, conversation, ahead));
                if let Some(claim) = turn.await {
                    let place = Slot::take(&self.dispatcher);
                    self.attempt(claim, message, slot, road, place).await;
                }
            }
            // It never ends otherwise.
            Some(Acceptance::InProgress { .. }) => self.tell(Dispatched::Unavailable),
            Some(Acceptance::Answered(answered)) => {
                self.tell(Dispatched::Duplicate(Document::saved(answered.twiml)));
            }
            Some(Acceptance::OptedOut) => self.tell(Dispatched::OptedOut),
            Some(Acceptance::Consent { answer, .. }) => {
                crate::crash_point!("P14");
                let answer = Some(answer).filter(|answer| !answer.is_empty());
                self.tell(Dispatched::Consent(Document::saved(answer)));
                if let Some(consent) = &arrival.consent {
                    let kind = ConsentKind::of(consent);
                    self.dispatcher.metrics.consent(kind.as_str());
                    if kind == ConsentKind::OptOut {
                        self.dispatcher.opted_out.notify_one();
                    }
                }
                Box::pin(self.tell_consent(*message, &arrival)).await;
            }
        }
    }

    /// A message of the backlog.
    pub(super) async fn take_over(
        self,
        message: Box<InboundMessage>,
        taken: Taken,
        place: Option<Slot>,
    ) {
        self.attempt(taken.claim, message, taken.slot, Road::Primary, place)
            .await;
    }

    async fn accept(&mut self, arrival: &Arc<Arrival>) -> Option<Acceptance> {
        match self.dispatcher.store.accept(arrival.clone()).await {
            Ok(acceptance) => {
                // Too late for its request, it went no better than one that failed.
                if !self.is_unattended() {
                    self.dispatcher.store_report.health.kept();
                }
                Some(acceptance)
            }
            Err(error) => {
                self.dispatcher.store_failed("accept", &error);
                self.dispatcher.store_report.health.refused(arrival.sid);
                self.tell(Dispatched::Unavailable);
                None
            }
        }
    }

    /// From here on the message is kept. If its request gave up before that, it was told to come again, and the answer
    /// goes by REST.
    async fn began(&mut self, id: i64, failed_before: bool) {
        if self.progress.accepted(id, failed_before) {
            return;
        }
        self.decided = None;
        let now = self.dispatcher.clock.now();
        if let Err(error) = self.dispatcher.store.decide(id, Choice::Rest, now).await {
            self.dispatcher.store_failed("decide", &error);
        }
    }

    /// A repeat of a message that is being handled waits for what becomes of that.
    async fn wait_for_decision(&mut self, id: i64, arrival: &Arc<Arrival>) -> Option<Acceptance> {
        if !self.progress.accepted(id, false) {
            return None;
        }
        let dispatcher = self.dispatcher.clone();
        let mut ticket = dispatcher.state.waiting.join(Event::Decision(id));
        let gone = self.decided.as_mut()?;
        let store = &dispatcher.store;
        let look = ticket.look(|| async {
            match store.accept(arrival.clone()).await {
                Ok(Acceptance::InProgress { .. }) => None,
                other => Some(other),
            }
        });
        // A request that is gone has decided itself, at its deadline.
        let seen = tokio::select! {
            seen = look => seen,
            () = gone.closed() => return None,
        };
        match seen {
            Ok(acceptance) => Some(acceptance),
            Err(error) => {
                dispatcher.store_failed("accept", &error);
                self.tell(Dispatched::Unavailable);
                None
            }
        }
    }

    /// Waits until nothing of the conversation is before the message.
    async fn wait_for_turn(&mut self, id: i64, conversation: i64, ahead: u32) -> Option<Claim> {
        let dispatcher = self.dispatcher.clone();
        let _held = dispatcher.state.held.hold(id);
        if ahead < WAITING_IN_LINE
            && let Some(gone) = self.decided.as_mut()
        {
            let mut ticket = dispatcher.state.waiting.join(Event::Turn(conversation));
            let (store, clock) = (&dispatcher.store, &dispatcher.clock);
            let look = ticket.look(|| async {
                match store.turn(id, clock.now()).await {
                    Ok(Turn::Wait) => None,
                    other => Some(other),
                }
            });
            let seen = tokio::select! {
                seen = look => Some(seen),
                () = gone.closed() => None,
            };
            match seen {
                Some(Ok(Turn::Yours(claim))) => return Some(claim),
                Some(Ok(Turn::Decided(Decision::Answered(answered)))) => {
                    self.tell(Dispatched::Duplicate(Document::saved(answered.twiml)));
                    return None;
                }
                Some(Ok(Turn::Decided(Decision::Lost))) => {
                    self.tell(Dispatched::Late);
                    return None;
                }
                Some(Err(error)) => {
                    dispatcher.store_failed("turn", &error);
                    self.tell(Dispatched::Unavailable);
                }
                // The request has decided, at its deadline, or is gone.
                Some(Ok(Turn::Decided(Decision::Deferred) | Turn::Wait)) | None => {}
            }
        }
        // Too many before it, nobody waits any more, or the store failed: it is handled when its turn comes.
        let decided = dispatcher
            .store
            .decide(id, Choice::Rest, dispatcher.clock.now())
            .await;
        match decided {
            Ok(_) => self.tell(Dispatched::Late),
            Err(error) => {
                dispatcher.store_failed("decide", &error);
                self.tell(Dispatched::Unavailable);
            }
        }
        dispatcher.state.deferred.add(conversation, id);
        dispatcher.state.backlog.notify_one();
        None
    }

    async fn tell_consent(&self, message: InboundMessage, arrival: &Arrival) {
        let (Some(hook), Some(consent)) = (&self.dispatcher.on_consent, &arrival.consent) else {
            return;
        };
        let kind = ConsentKind::of(consent);
        let told = AssertUnwindSafe(hook(ConsentChange { message, kind }));
        if told.catch_unwind().await.is_err() {
            tracing::error!(hook = "consent", "a hook panicked");
        }
    }

    /// Runs the handler to its end, unless the guard stops the message, and saves what becomes of it.
    async fn attempt(
        mut self,
        claim: Claim,
        mut message: Box<InboundMessage>,
        slot: TokenSlot,
        road: Road,
        place: Option<Slot>,
    ) {
        let dispatcher = self.dispatcher.clone();
        let _held = dispatcher.state.held.hold(claim.id);
        let of_backlog = self.decided.is_none();
        let origin = Origin::of(&message, slot);
        let mut merged = Vec::new();
        let outcome = if dispatcher.stops(claim, &message) {
            Ok((Reply::none(), Ending::default()))
        } else if let Some(passed_on) = dispatcher.pass_on(claim).await {
            passed_on
        } else {
            if !dispatcher.limits.merge.is_zero() {
                let arrived = self.arrived.monotonic;
                let deadline = dispatcher.limits.deadline_on(self.fallback);
                merged = Box::pin(dispatcher.gather(claim, &mut message, arrived, deadline)).await;
            }
            self.handle(claim, message, slot, road).await
        };
        drop(place);
        match outcome {
            Ok((reply, mut ending)) => {
                let mut heard = reply.messages().iter();
                if heard.any(|said| !said.is_empty() && origin.hears(said)) {
                    let now = dispatcher.clock.now();
                    dispatcher.guard.said(claim.conversation, now);
                }
                ending.merged.clone_from(&merged);
                self.say(claim, &origin, reply, ending).await;
            }
            Err(failure) => Box::pin(self.give_up(claim, &origin, failure)).await,
        }
        for id in merged {
            dispatcher.state.deferred.remove(claim.conversation, id);
            dispatcher.state.waiting.wake(Event::Decision(id));
        }
        dispatcher.state.waiting.wake(Event::Decision(claim.id));
        dispatcher
            .state
            .waiting
            .wake(Event::Turn(claim.conversation));
        if of_backlog || dispatcher.state.deferred.contains(claim.conversation) {
            dispatcher.state.backlog.notify_one();
        }
    }

    async fn handle(
        &self,
        claim: Claim,
        message: Box<InboundMessage>,
        slot: TokenSlot,
        road: Road,
    ) -> Result<(Reply, Ending), Failure> {
        let dispatcher = &self.dispatcher;
        let sid = message.message_sid;
        let inbound = Inbound {
            account: message.account_sid,
            slot,
            sid,
        };
        let shows_typing = *message.from.channel() == Channel::WhatsApp;
        let conversation = Conversation {
            store: dispatcher.store.clone(),
            id: claim.conversation,
            message: claim.id,
            at: message.received_at,
            us: message.to.clone(),
            typing: shows_typing.then(|| (dispatcher.typing.clone(), inbound)),
        };
        let mut cx = Context::new(claim.attempt, self.arrived.deadline)
            .in_conversation(Arc::new(conversation), message.received_at);
        let memory = cx.memory();
        let _keeping = dispatcher.files.keep(&message, slot);
        if !message.media.is_empty() {
            cx = cx.with_attachments(dispatcher.files.attachments(&message, slot));
        }
        if let Road::Fallback(cause) = road {
            cx = cx.with_fallback(cause);
        }
        crate::crash_point!("P4");
        let started = Instant::now();
        let clock = &dispatcher.clock;
        let give_up = clock.monotonic().saturating_add(dispatcher.limits.handler);
        // Within the net also where a handler panics before it returns its future.
        let handler = async { dispatcher.handler.handle(cx, *message).await };
        let guarded = AssertUnwindSafe(within(handler, || clock.sleep_until_monotonic(give_up)));
        let outcome: Result<Option<Result<Reply, HandlerError>>, _> = guarded.catch_unwind().await;
        dispatcher.metrics.handler_seconds.record(started.elapsed());
        match outcome {
            Ok(Some(Ok(reply))) => {
                let ending = Ending {
                    dialogue: change(&memory),
                    hand_over: dispatcher.begins(&reply),
                    ..Ending::default()
                };
                Ok((reply, ending))
            }
            Ok(Some(Err(error))) => {
                tracing::error!(message_sid = %sid, %error, "the handler failed");
                Err(Failure::Error)
            }
            Ok(None) => {
                tracing::error!(message_sid = %sid, "the handler was given up: it ran longer than handler.timeout_ms");
                Err(Failure::Error)
            }
            Err(_) => {
                tracing::error!(message_sid = %sid, "the handler panicked");
                Err(Failure::Panic)
            }
        }
    }

    /// Saves a reply and gives it, by TwiML if that can still be, else by REST.
    async fn say(&mut self, claim: Claim, origin: &Origin, reply: Reply, ending: Ending) {
        let dispatcher = self.dispatcher.clone();
        let channel = origin.user.channel();
        let reply = if dispatcher.limits.numbered {
            reply.numbered()
        } else {
            reply
        };
        let reply = if reply.has_media() {
            let to = (origin.account, origin.sid);
            match dispatcher.files.publish(reply, channel, to).await {
                Ok(reply) => reply,
                Err(error) => return Box::pin(self.unsayable(claim, origin, error)).await,
            }
        } else {
            reply
        };
        // To somebody else: REST looks at that one's window and consent.
        let to_others = !reply.messages().iter().all(|said| origin.hears(said));
        let messages = dispatcher.wire_messages(&reply, origin);
        let document = Document::of(&reply, &messages, Some(&dispatcher.public_url));
        let document = match document {
            Ok(document) => Some(document),
            Err(error) if error.is_overflow() => None,
            Err(error) => return Box::pin(self.unsayable(claim, origin, error)).await,
        };
        // Nobody reads TwiML any more where the request is gone.
        if let Some(document) = document.filter(|_| !to_others && !self.is_unattended()) {
            dispatcher
                .metrics
                .characters_replaced
                .increment(document.replaced() as u64);
            crate::crash_point!("P5");
            let now = dispatcher.clock.now();
            // An empty reply does not overtake any, and a redirect cannot go via the REST API.
            let keeps_order = document != Document::empty() && reply.redirect_target().is_none();
            let completed = Ending {
                queue: keeps_order.then(|| origin.queue()),
                ..ending.clone()
            };
            let saved = dispatcher
                .store
                .answer(claim, document.to_saved(), completed, now)
                .await;
            match saved {
                Ok(Decision::Answered(Answered { twiml })) => {
                    if twiml.is_none() && document != Document::empty() {
                        dispatcher.metrics.suppressed.increment(1);
                    }
                    crate::crash_point!("P6");
                    self.tell(Dispatched::Answered(Document::saved(twiml)));
                    return;
                }
                Ok(Decision::Deferred) => {}
                Ok(Decision::Lost) => return self.lost(origin),
                Err(error) => {
                    // Twilio is told to come again; if it does not, the reply goes by REST.
                    dispatcher.store_failed("answer", &error);
                    self.tell(Dispatched::Unavailable);
                }
            }
        }
        crate::crash_point!("P9.done");
        if ending.hand_over.is_some() {
            tracing::warn!(message_sid = %origin.sid, "the conversation is handed over, but this message is answered by REST and cannot be redirected: later ones are");
        } else if reply.redirect_target().is_some() {
            tracing::error!(message_sid = %origin.sid, "the reply redirects, and came too late for that");
            return Box::pin(self.give_up(claim, origin, Failure::Error)).await;
        }
        Box::pin(self.send_later(claim, origin, &messages, ending)).await;
    }

    /// Puts a reply into the outbox, as often as the store has to be asked.
    async fn send_later(
        &mut self,
        claim: Claim,
        origin: &Origin,
        messages: &[WireMessage<'_>],
        ending: Ending,
    ) {
        let dispatcher = self.dispatcher.clone();
        let replies: Vec<NewReply> = messages.iter().map(|wire| origin.reply(wire)).collect();
        let mut pauses = RETRY.into_iter();
        loop {
            // Twilio may have been told to ask elsewhere.
            dispatcher.outage_over_elsewhere().await;
            if dispatcher
                .state
                .outage
                .has_answered(origin.account, origin.sid)
            {
                return self.lost(origin);
            }
            let now = dispatcher.clock.now();
            let finished = dispatcher
                .store
                .finish(claim, replies.clone(), ending.clone(), now)
                .await;
            match finished {
                Ok(true) => {
                    crate::crash_point!("P10");
                    dispatcher.outbox.notify_one();
                    self.tell(Dispatched::ByRest);
                    return;
                }
                Ok(false) => return self.lost(origin),
                Err(error) => dispatcher.store_failed("finish", &error),
            }
            self.tell(Dispatched::Unavailable);
            tokio::time::sleep(pauses.next().unwrap_or(RETRY[RETRY.len() - 1])).await;
        }
    }

    /// Somebody else has answered, or will.
    fn lost(&mut self, origin: &Origin) {
        self.dispatcher.metrics.replies_lost.increment(1);
        tracing::warn!(message_sid = %origin.sid, "a reply is not given: the message was answered elsewhere meanwhile");
        self.tell(Dispatched::Duplicate(Document::empty()));
    }

    async fn unsayable(&mut self, claim: Claim, origin: &Origin, error: impl std::error::Error) {
        tracing::error!(message_sid = %origin.sid, %error, "the reply cannot be given");
        self.give_up(claim, origin, Failure::Error).await;
    }

    /// Writes a failure down. On the fallback's road nobody comes again: the apology is the answer.
    async fn give_up(&mut self, claim: Claim, origin: &Origin, failure: Failure) {
        let dispatcher = self.dispatcher.clone();
        let now = dispatcher.clock.now();
        let (reason, dead) = match failure {
            Failure::Error => ("the handler failed", DeadReason::HandlerFailed),
            Failure::Panic => ("the handler panicked", DeadReason::HandlerPanicked),
        };
        let apology = dispatcher.apology_text();
        let for_good = self.fallback && apology.is_empty();
        let unattended = self.is_unattended();
        let written = dispatcher.store.fail(claim, reason, for_good).await;
        if matches!(written, Ok(Decision::Deferred)) {
            dispatcher.report_dead(DeadMessage {
                sid: origin.sid,
                reason: dead,
            });
        }
        let decision = match written {
            Ok(Decision::Lost) if self.fallback => {
                let choice = Choice::Twiml(apology);
                dispatcher.store.decide(claim.id, choice, now).await
            }
            other => other,
        };
        if unattended {
            dispatcher.metrics.late_failures.increment(1);
        }
        match decision {
            Ok(Decision::Answered(answered)) => {
                self.tell(Dispatched::Answered(Document::saved(answered.twiml)));
            }
            Ok(Decision::Deferred) if self.fallback => {
                self.tell(Dispatched::Answered(Document::empty()));
            }
            Ok(Decision::Lost | Decision::Deferred) => self.tell(Dispatched::Failed(failure)),
            Err(error) => {
                dispatcher.store_failed("fail", &error);
                self.tell(Dispatched::Failed(failure));
            }
        }
    }
}
