//! Journal: inbound messages, each accepted once, claimed by one process, and replied to once.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::future::StoreFuture;
use super::handoff::HandoffChange;
use super::new_inbound::NewInbound;
use super::outbound_message::NewOutbound;
use super::redacted_params::RedactedParams;
use crate::choice::{OpenQuestion, QuestionId};
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;

/// Outcome of [`Journal::accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcceptOutcome {
    /// This process has claimed the message.
    Claimed(Claim),
    /// The message is stored, and older messages of its conversation come first.
    Queued {
        /// ID of the message.
        id: i64,
        /// ID of its conversation.
        conversation: i64,
        /// Number of open messages before it. Always 1 for a redelivery, whose position is not counted.
        ahead: u32,
    },
    /// A running process handles the message, or has queued it.
    InProgress {
        /// ID of the message.
        id: i64,
    },
    /// The message has this response. It is empty if the reply takes the REST API, or if the message is dead.
    AlreadyAnswered(SavedResponse),
    /// The author has opted out and gets no reply.
    OptedOut,
    /// The message is a consent keyword.
    ConsentKeyword {
        /// Opt-out state of the author afterwards.
        opted_out: bool,
        /// TwiML confirmation; empty if Twilio sends it.
        confirmation: String,
    },
}

/// Saved response of a message, which every redelivery gets.
#[derive(Clone, PartialEq, Eq)]
pub struct SavedResponse {
    /// TwiML; `None` is the empty response.
    pub twiml: Option<String>,
}

/// Right of one process to handle a message and to record the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// ID of the message.
    pub id: i64,
    /// ID of its conversation.
    pub conversation: i64,
    /// ID that the conversations of a user with several addresses have in common; `None` if no link ties the author's address
    /// to another.
    pub user: Option<i64>,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// True if an earlier attempt was recorded as failed, so that Twilio got a 500 for it.
    pub failed_before: bool,
    /// True if the conversation is handed off, so that the handler must not run.
    pub handed_off: bool,
    /// True if the conversation has a question with choices, which may have expired.
    pub has_question: bool,
}

/// State of a message that [`Journal::accept`] has queued, as [`Journal::try_claim`] returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnStatus {
    /// This process has claimed the message.
    Claimed(Claim),
    /// Older messages of the conversation are still open.
    Waiting,
    /// The reply path of the message is already decided, or this process has lost its claim.
    Resolved(ReplyDecision),
}

/// Reply path to choose for an undecided message.
#[derive(Clone, PartialEq, Eq)]
pub enum ReplyPath {
    /// This TwiML, as the response of the webhook. It is saved, and every redelivery gets it.
    Twiml(String),
    /// The REST API, once the reply is ready. The webhook gets the empty response.
    Rest,
}

/// Decided reply path of a message. It is decided once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyDecision {
    /// The response of the webhook has the reply.
    Inline(SavedResponse),
    /// The reply takes the REST API, or the message is dead. The webhook gets the empty response.
    ViaRest,
    /// Nothing is decided for the caller: the attempt has failed, or another attempt or process has the claim.
    ClaimLost,
}

/// Result of [`Journal::record_failure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailOutcome {
    /// Recorded. Twilio's next request for this message starts another attempt.
    Retryable,
    /// Recorded. No request will retry it; the message is `dead`.
    Dead,
    /// Not recorded: the message already has this response.
    AlreadyAnswered(SavedResponse),
    /// Not recorded: another attempt or another process holds the claim.
    ClaimLost,
}

/// Change of a conversation's dialogue, committed together with the reply.
#[derive(Clone, PartialEq, Eq)]
pub enum DialogueChange {
    /// Sets the state of the dialogue.
    Set {
        /// State, in the bot's own format.
        data: String,
        /// Time when the state is dropped, if ever.
        expires_at: Option<Timestamp>,
    },
    /// Ends the dialogue.
    End,
}

/// Change of a conversation's open question, committed together with the reply.
#[derive(Clone, PartialEq, Eq)]
pub enum QuestionChange {
    /// Asks a question, which ends the one before.
    Ask {
        /// The question.
        question: Box<OpenQuestion>,
        /// Time when the question ends without an answer.
        expires_at: Timestamp,
    },
    /// Ends this question, which was answered. Another one stays open.
    End(QuestionId),
}

/// State changes that are committed together with the reply to a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completion {
    /// Change of the conversation's dialogue.
    pub dialogue: Option<DialogueChange>,
    /// Change of the conversation's handoff.
    pub handoff: Option<HandoffChange>,
    /// Change of the conversation's open question.
    pub question: Option<QuestionChange>,
    /// IDs of messages [queued behind](Journal::queued_behind) this one that the reply covers. They get the empty
    /// response, except those that were decided in another way before.
    pub merged: Vec<i64>,
    /// True if the reply waits in [`Journal::complete_inline`] for older replies of its conversation, while the oldest open
    /// one was created less than a minute ago. False for a reply that never waits: an empty one, or a redirect.
    pub keeps_order: bool,
    /// Reason for which the handler did not get the message. It must not contain message content.
    pub reason: Option<&'static str>,
}

#[cfg(feature = "sqlite")]
impl Completion {
    /// Returns true if only the message's own row changes, which is the usual case.
    pub(super) fn changes_only_message(&self) -> bool {
        self.dialogue.is_none()
            && self.handoff.is_none()
            && self.question.is_none()
            && self.merged.is_empty()
    }
}

impl QuestionChange {
    /// Returns the columns: the question's ID, and for a question that is asked its data and end.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn columns(&self) -> (String, Option<(String, i64)>) {
        match self {
            Self::Ask {
                question,
                expires_at,
            } => {
                // Cannot fail: the question consists of texts.
                let data = serde_json::to_string(question).unwrap_or_default();
                let id = question.id.as_str().to_owned();
                (id, Some((data, expires_at.as_microsecond())))
            }
            Self::End(id) => (id.as_str().to_owned(), None),
        }
    }
}

impl From<DialogueChange> for Completion {
    fn from(change: DialogueChange) -> Self {
        Self {
            dialogue: Some(change),
            ..Self::default()
        }
    }
}

/// Message that is queued behind another one, as [`Journal::queued_behind`] returns it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QueuedMessage {
    /// ID of the message.
    pub id: i64,
    /// Parameters of the webhook, form-encoded.
    pub params: RedactedParams,
    /// Time when the webhook arrived.
    pub received_at: Timestamp,
}

/// Message that no request waits for, claimed by [`Journal::claim_backlog`]. Its reply takes the REST API.
#[derive(Debug, Clone)]
pub struct BacklogMessage {
    /// Claim of this process.
    pub claim: Claim,
    /// Account that received the message.
    pub account: AccountSid,
    /// SID of the message.
    pub sid: MessageSid,
    /// Auth token that verified the webhook.
    pub auth_token: AuthTokenKind,
    /// Parameters of the webhook, form-encoded.
    pub params: RedactedParams,
    /// Time when the webhook arrived.
    pub received_at: Timestamp,
}

/// Outcome of [`Journal::claim_backlog`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ClaimedBacklog {
    /// Claimed messages, to be handled.
    pub messages: Vec<BacklogMessage>,
    /// Messages that this call made dead. No other call of any process returns them.
    pub dead: Vec<DeadMessage>,
}

/// Dead message: no redelivery and no process retries it, only an operator with `messages retry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadMessage {
    /// SID of the message.
    pub sid: MessageSid,
    /// Reason why the message is dead.
    pub reason: DeadReason,
}

/// Reason why a message is dead, and the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadReason {
    /// Processes ended during attempts, as often as [`CrashPolicy`] allows.
    Crashed,
    /// Retention deleted the content before the message was handled.
    Expired,
    /// The handler failed, and no request retries the message.
    HandlerFailed,
    /// The handler panicked, and no request retries the message.
    HandlerPanicked,
    /// The stored parameters are not a message.
    Unreadable,
}

impl DeadReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Crashed,
        Self::Expired,
        Self::HandlerFailed,
        Self::HandlerPanicked,
        Self::Unreadable,
    ];

    /// Returns the value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::Expired => "expired",
            Self::HandlerFailed => "handler_failed",
            Self::HandlerPanicked => "handler_panicked",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Reason of a message whose handler returned an error.
pub const HANDLER_FAILED: &str = "the handler failed";
/// Reason of a message whose handler panicked.
pub const HANDLER_PANICKED: &str = "the handler panicked";

/// Journal of inbound messages.
///
/// A message is *received*, then *processing*, then *answered* with TwiML. If its reply takes the REST API, it is
/// *deferred* while its replies are not ready or pending, and then shown with their state, such as *sent* or *held*. A
/// failed attempt leaves it *failed*, and the next redelivery starts another attempt. A message that no redelivery and
/// no process retries is *dead*.
///
/// # Errors
/// Every method: [`StoreError`](super::error::StoreError). After
/// [`Unavailable`](super::error::StoreErrorKind::Unavailable) the operation may still have taken effect.
pub trait Journal: Send + Sync {
    /// Stores a message, or finds it already stored, and claims it if no older message of its conversation is open.
    ///
    /// A new message opens the customer service window and applies its consent keyword. A redelivery does neither.
    fn accept(&self, message: Arc<NewInbound>) -> StoreFuture<'_, AcceptOutcome>;

    /// Claims a queued message once no older message of its conversation is open.
    fn try_claim(&self, id: i64, now: Timestamp) -> StoreFuture<'_, TurnStatus>;

    /// Lists up to `limit` messages behind a claimed one in its conversation that no process handles, oldest first.
    fn queued_behind(&self, claim: Claim, limit: u32) -> StoreFuture<'_, Vec<QueuedMessage>>;

    /// Decides the reply path of a message, unless it is decided, and returns the decision that stands.
    ///
    /// It needs no claim: the request that reaches its deadline decides, while another task may hold the claim.
    fn decide(&self, id: i64, path: ReplyPath, now: Timestamp) -> StoreFuture<'_, ReplyDecision>;

    /// Saves the response of a claimed message and its [`Completion`], if the reply path is undecided. The response is
    /// empty if the author has opted out since the message was accepted.
    ///
    /// If the reply [keeps the order](Completion::keeps_order), decides [`ReplyDecision::ViaRest`] instead, and saves nothing
    /// else, while an older reply of the conversation is open: pending, being sent, or being looked up. The caller then
    /// queues the reply behind it with [`complete_via_rest`](Self::complete_via_rest). Later replies wait only while the oldest open one was
    /// created less than a minute ago. A reply that an operator has released, or whose message an operator has retried,
    /// does not count.
    fn complete_inline(
        &self,
        claim: Claim,
        twiml: Option<String>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, ReplyDecision>;

    /// Completes a claimed message and queues its replies in the outbox, all or none. Returns whether the claim was
    /// valid.
    ///
    /// If the completion changes a handoff, the message records that it was not redirected, because only TwiML can
    /// redirect.
    fn complete_via_rest(
        &self,
        claim: Claim,
        replies: Vec<NewOutbound>,
        completion: Completion,
        now: Timestamp,
    ) -> StoreFuture<'_, bool>;

    /// Records a failed attempt and its reason, which must not contain message content.
    ///
    /// `last_attempt` is true if no further request can retry the message. It has no effect if the reply takes the REST
    /// API: Twilio has its response then, so the message is dead after any failure.
    fn record_failure(
        &self,
        claim: Claim,
        reason: &'static str,
        last_attempt: bool,
        now: Timestamp,
    ) -> StoreFuture<'_, FailOutcome>;

    /// Claims up to `limit` messages that no process handles, to reply to them via the REST API.
    ///
    /// They were deferred while queued, orphaned by a dead process, released, or retried by an operator. Of each
    /// conversation only the oldest open message is claimed. A message becomes *dead* instead if `policy` allows no
    /// other attempt, or if its content has expired.
    fn claim_backlog(
        &self,
        limit: usize,
        policy: CrashPolicy,
        now: Timestamp,
    ) -> StoreFuture<'_, ClaimedBacklog>;

    /// Releases the claims of this process that are older than `before` and not in `running`, and returns their number.
    ///
    /// Such a claim comes from an operation that was committed after its caller had stopped waiting.
    fn release_stale_claims(&self, running: Vec<i64>, before: Timestamp) -> StoreFuture<'_, u64>;

    /// Records a message that was received during a store outage, with the fallback reply that was sent, if any.
    ///
    /// A saved response of the message stays. A new message without a reply joins the backlog.
    fn backfill(&self, message: Arc<NewInbound>, twiml: Option<String>) -> StoreFuture<'_, ()>;
}

/// Policy for messages whose process died during an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPolicy {
    /// True if the handler runs again.
    pub retry: bool,
    /// Maximum number of attempts.
    pub max_attempts: u32,
}

impl SavedResponse {
    /// Empty response.
    pub const EMPTY: Self = Self { twiml: None };
}

// `Debug` output ends up in logs and panics, so these implementations show no message content.

impl fmt::Debug for SavedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.twiml {
            Some(twiml) => write!(f, "SavedResponse({} bytes)", twiml.len()),
            None => f.write_str("SavedResponse(empty)"),
        }
    }
}

impl fmt::Debug for ReplyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Twiml(_) => "Twiml(…)",
            Self::Rest => "Rest",
        })
    }
}

impl fmt::Debug for QuestionChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask { .. } => "Ask(…)",
            Self::End(_) => "End(…)",
        })
    }
}

impl fmt::Debug for DialogueChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set { .. } => "Set(…)",
            Self::End => "End",
        })
    }
}
