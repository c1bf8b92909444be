//! What came: accepted once, claimed, answered once.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::{HandOverChange, NewReply, Outcome};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::TokenSlot;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::store::{ConsentAction, ConsentRecord};
use crate::store::{ConsentHow, ConsentScope};

/// One message of one account, as it arrives. It is kept once, however often it comes.
///
/// Accepted: see [`Journal`].
#[derive(Clone)]
pub struct Arrival {
    /// Whose it is: half of the key.
    pub account: AccountSid,
    /// The other half.
    pub sid: MessageSid,
    /// The sender of ours that was written to.
    pub us: Address,
    /// Who wrote: one address, or a phone number and a business-scoped id of the same person.
    pub user: Vec<Address>,
    /// The Messaging Service that it came through; consent counts for all of it.
    pub service: Option<MessagingServiceSid>,
    /// Which token verified it: REST answers with the same one.
    pub slot: TokenSlot,
    /// All parameters, form-encoded.
    pub params: String,
    /// What it does to consent, if anything.
    pub consent: Option<ArrivalConsent>,
    /// Attempts at handling it before [`last_answer`](Self::last_answer).
    pub attempts: u32,
    /// Whether it may be handled again when a process died over it.
    pub retry_crashed: bool,
    /// What it is answered with once all attempts have failed: TwiML.
    pub last_answer: String,
    /// When it came.
    pub at: Timestamp,
}

/// What an arrival does to consent. The answers are TwiML.
///
/// Part of an [`Arrival`]: a message that says STOP is answered with the text in here, and its handler is not asked.
#[derive(Clone)]
pub enum ArrivalConsent {
    /// The user wants no more messages.
    Stop {
        /// What says so.
        how: ConsentHow,
        /// What the user is told the first time.
        answer: String,
    },
    /// The user wants messages again. Where a word says so, it counts only for somebody opted out.
    Start {
        /// What says so.
        how: ConsentHow,
        /// What the user is told.
        answer: String,
    },
    /// Twilio has answered already.
    Help,
}

/// What a new arrival is, seen by what it and its author say about being written to.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug)]
pub(super) enum Heeded {
    /// It is for the handler.
    Ordinary,
    /// Its author wants nothing from us.
    OptedOut,
    /// It is about that. What changes is to be recorded, and this is its answer.
    Word {
        change: Option<ConsentAction>,
        opted_out: bool,
        answer: String,
    },
}

impl Arrival {
    /// The scopes in which its consent counts: the service's first, if there is one.
    pub fn scopes(&self) -> Vec<ConsentScope> {
        let service = self.service.map(ConsentScope::Service);
        service
            .into_iter()
            .chain([ConsentScope::Sender(self.us.clone())])
            .collect()
    }

    /// Obeys what it says, coming from somebody who has opted out or has not. Whoever has, gets nothing, not even a second
    /// goodbye; and a word that opts in is an ordinary one from anybody else.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn heed(&self, opted_out: bool) -> Heeded {
        match &self.consent {
            Some(ArrivalConsent::Help) => Heeded::Word {
                change: None,
                opted_out,
                answer: String::new(),
            },
            Some(ArrivalConsent::Stop { answer, .. }) if !opted_out => Heeded::Word {
                change: Some(ConsentAction::OptOut),
                opted_out: true,
                answer: answer.clone(),
            },
            Some(ArrivalConsent::Start { how, answer })
                if opted_out || *how != ConsentHow::Keyword =>
            {
                Heeded::Word {
                    change: opted_out.then_some(ConsentAction::Resume),
                    opted_out: false,
                    answer: answer.clone(),
                }
            }
            _ if opted_out => Heeded::OptedOut,
            _ => Heeded::Ordinary,
        }
    }

    /// The lines of the ledger for a change, under all addresses of its author. An opt-out counts for the service, if there
    /// is one, and not for the sender besides; what takes it back counts for both.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn records(&self, user: &[Address], action: ConsentAction) -> Vec<ConsentRecord> {
        let how = match &self.consent {
            Some(ArrivalConsent::Stop { how, .. } | ArrivalConsent::Start { how, .. }) => *how,
            Some(ArrivalConsent::Help) | None => return Vec::new(),
        };
        let mut scopes = self.scopes();
        if action == ConsentAction::OptOut {
            scopes.truncate(1);
        }
        let of = |user: &Address, scope: &ConsentScope| ConsentRecord {
            scope: scope.clone(),
            user: user.clone(),
            action,
            how,
            evidence: Some(self.sid),
            note: None,
            at: self.at,
        };
        user.iter()
            .flat_map(|user| scopes.iter().map(move |scope| of(user, scope)))
            .collect()
    }
}

/// What became of an arrival.
///
/// New, and as a repeat: see [`Journal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It is this process's to handle.
    New(Claim),
    /// It is kept, and older messages of its conversation come first.
    Waiting {
        /// Its number.
        id: i64,
        /// Its conversation.
        conversation: i64,
        /// How many are before it.
        ahead: u32,
    },
    /// Somebody handles it, or it waits to be handled.
    InProgress {
        /// Its number.
        id: i64,
    },
    /// It has been answered before.
    Answered(Answered),
    /// Its author wants nothing from us.
    OptedOut,
    /// It was a consent word, and this is its answer, TwiML.
    Consent {
        /// Whether it opted out (true) or in.
        opted_out: bool,
        /// The answer.
        answer: String,
    },
}

/// A saved answer.
///
/// Of a repeat: see [`Journal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Answered {
    /// TwiML; `None` is the empty response.
    pub twiml: Option<String>,
}

/// The right to handle a message, and to write what became of it.
///
/// Handled with: see [`Journal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The message's number.
    pub id: i64,
    /// Its conversation.
    pub conversation: i64,
    /// Which attempt at it this is, from 1.
    pub attempt: u32,
    /// Whether the attempt before ended in a declared failure, so that Twilio has been told.
    pub failed_before: bool,
    /// Whether its conversation is handed over, so that the handler is not asked.
    pub handed_over: bool,
}

/// Whether a message that waited may be handled now.
///
/// Asked by [`Journal::turn`] where [`Acceptance::Waiting`] was the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Yours(Claim),
    /// Older ones are still open.
    Wait,
    /// It was decided meanwhile.
    Decided(Decision),
}

/// The carrier of an undecided message's answer.
///
/// Decided: see [`Journal`].
#[derive(Clone, PartialEq, Eq)]
pub enum Choice {
    /// TwiML, now. Saved, and given to everyone who asks again.
    Twiml(String),
    /// REST, when it is ready; Twilio gets the empty response.
    Rest,
}

/// What a message's answer is, or will be. Decided once.
///
/// Made once: see [`Journal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// TwiML.
    Answered(Answered),
    /// It goes by REST.
    Deferred,
    /// The claim is gone: another process has the message.
    Lost,
}

/// What a handler's dialogue becomes, in the same transaction as the reply it belongs to.
///
/// ```
/// use replyhook::store::{DialogueChange, Ending};
///
/// let over = Ending::from(DialogueChange::End);
/// assert_eq!((over.dialogue, over.hand_over), (Some(DialogueChange::End), None));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum DialogueChange {
    /// This, until then.
    Set {
        /// The state, in the bot's own form.
        data: String,
        /// When it is forgotten.
        expires_at: Option<Timestamp>,
    },
    /// It is over.
    End,
}

/// What else ends with a message that is answered, in the same transaction.
///
/// Of a dialogue: see [`DialogueChange`]; without anything: see [`Journal`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// What its dialogue becomes.
    pub dialogue: Option<DialogueChange>,
    /// What its hand-over becomes.
    pub hand_over: Option<HandOverChange>,
    /// Messages that waited [behind](Journal::behind) it and are answered with it, by number. Those that still wait get
    /// the empty answer; one that was decided otherwise meanwhile keeps that.
    pub merged: Vec<i64>,
    /// The queue whose order the reply keeps in [`Journal::answer`]. `None` for a reply that never waits: an empty one, or
    /// a redirect.
    pub queue: Option<ReplyQueue>,
}

/// All replies from one sender to one user, which reach the user in the order of their creation.
///
/// See [`Journal::answer`] for its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyQueue {
    /// The sender.
    pub sender: Address,
    /// The user.
    pub user: Address,
}

impl From<DialogueChange> for Ending {
    fn from(change: DialogueChange) -> Self {
        Self {
            dialogue: Some(change),
            ..Self::default()
        }
    }
}

/// A message that waits behind another.
///
/// Given by [`Journal::behind`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Behind {
    /// Its number.
    pub id: i64,
    /// Its parameters, form-encoded.
    pub params: TakenParams,
    /// When it came.
    pub received_at: Timestamp,
}

/// A message that nobody waits for any more, taken up to be answered by REST.
///
/// Given by [`Journal::take_up`]: see [`Journal`].
#[derive(Debug, Clone)]
pub struct Taken {
    /// The right to handle it.
    pub claim: Claim,
    /// Whose it is.
    pub account: AccountSid,
    /// Its SID.
    pub sid: MessageSid,
    /// The token that verified it.
    pub slot: TokenSlot,
    /// Its parameters, form-encoded.
    pub params: TakenParams,
    /// When it came.
    pub received_at: Timestamp,
}

/// The outcome of [`Journal::take_up`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TakenUp {
    /// Claimed messages, to be handled.
    pub taken: Vec<Taken>,
    /// Messages that this call made dead. No other call, of whichever process, returns them.
    pub dead: Vec<DeadMessage>,
}

/// A message that became dead: no request and no process answers it any more, only an operator's `messages retry`.
///
/// ```
/// use replyhook::store::{DeadMessage, DeadReason};
///
/// fn report(message: &DeadMessage) -> String {
///     format!("{} is dead: {}", message.sid, message.reason.as_str())
/// }
/// let sid = "SM00000000000000000000000000000001".parse()?;
/// assert!(report(&DeadMessage { sid, reason: DeadReason::Crashed }).ends_with("dead: crashed"));
/// # Ok::<(), replyhook::sid::SidError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadMessage {
    /// Its SID.
    pub sid: MessageSid,
    /// Why it is dead.
    pub reason: DeadReason,
}

/// The reason why a message is dead, also the label of its metric. See [`DeadMessage`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadReason {
    /// Processes ended while it was handled, as often as [`CrashPolicy`] allows.
    Crashed,
    /// Its content was deleted by age before it was answered, so it cannot be handled.
    Expired,
    /// Its handler failed when no request waited any more.
    HandlerFailed,
    /// Its handler panicked when no request waited any more.
    HandlerPanicked,
    /// Its kept parameters are not a message.
    Unreadable,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Crashed,
        Self::Expired,
        Self::HandlerFailed,
        Self::HandlerPanicked,
        Self::Unreadable,
    ];

    /// The label's value.
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

/// Parameters that `Debug` does not show.
///
/// ```
/// use replyhook::Form;
/// use replyhook::store::TakenParams;
///
/// let params = TakenParams("Body=two+words".to_owned());
/// assert_eq!(format!("{params:?}"), "TakenParams(14 bytes)");
/// assert_eq!(Form::parse(params.0.as_bytes(), 512)?.get("Body"), Some("two words"));
/// # Ok::<(), replyhook::form::FormError>(())
/// ```
#[derive(Clone)]
pub struct TakenParams(pub String);

impl fmt::Debug for TakenParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TakenParams({} bytes)", self.0.len())
    }
}

/// What came, and what became of it.
///
/// A message is *received*, then *handling*, then *answered* by TwiML, or *deferred* and then *done*: its answer goes by
/// REST. A handler that fails leaves it *failed* (the next request with its key handles it again), and one that is beyond
/// help *dead*.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use replyhook::Timestamp;
/// use replyhook::signature::TokenSlot;
/// use replyhook::store::{Acceptance, Access, Answered, Arrival, Choice, CrashPolicy, Decision, Ending, Journal, Store};
/// use replyhook::store::sqlite::SqliteStore;
///
/// let (store, now) = (SqliteStore::memory(), Timestamp::UNIX_EPOCH);
/// store.open(Access::Owner).await?;
/// let arrival = Arc::new(Arrival {
///     account: "AC00000000000000000000000000000001".parse()?,
///     sid: "SM00000000000000000000000000000001".parse()?,
///     us: "whatsapp:+15550002222".into(),
///     user: vec!["whatsapp:+15550001111".into()],
///     params: "Body=hi".to_owned(),
///     # service: None, slot: TokenSlot::Primary, consent: None, attempts: 2, retry_crashed: true,
///     # last_answer: String::new(),
///     at: now,
/// });
/// let Acceptance::New(claim) = store.accept(arrival.clone()).await? else { panic!("it came before") };
/// let said = Answered { twiml: Some("<Response><Message>hello</Message></Response>".to_owned()) };
/// let decision = store.answer(claim, said.twiml.clone(), Ending::default(), now).await?;
/// assert_eq!(decision, Decision::Answered(said.clone()));
/// // Whoever comes later gets what was decided.
/// assert_eq!(store.decide(claim.id, Choice::Rest, now).await?, Decision::Answered(said.clone()));
/// assert_eq!(store.accept(arrival).await?, Acceptance::Answered(said));
/// let policy = CrashPolicy { retry: true, attempts: 2 };
/// let left = store.take_up(10, policy, now).await?;
/// assert!(left.taken.is_empty() && left.dead.is_empty(), "nothing is left behind");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Every method: [`StoreError`](super::StoreError). Where that is
/// [`Unavailable`](super::StoreErrorKind::Unavailable) the step may have been taken.
pub trait Journal: Send + Sync {
    /// Keeps a message, or finds that it is kept; opens the window and moves consent with it, and never for a repeat;
    /// claims it if its turn has come.
    fn accept(&self, arrival: Arc<Arrival>) -> Outcome<'_, Acceptance>;

    /// Claims a message that waited, once nothing of its conversation is before it.
    fn turn(&self, id: i64, now: Timestamp) -> Outcome<'_, Turn>;

    /// Up to `limit` messages that wait behind a claimed one in its conversation, and are in nobody's hands; oldest first.
    fn behind(&self, claim: Claim, limit: u32) -> Outcome<'_, Vec<Behind>>;

    /// Decides by which carrier a message is answered, unless that is decided. Needs no claim: whoever's time is up calls it.
    fn decide(&self, id: i64, choice: Choice, now: Timestamp) -> Outcome<'_, Decision>;

    /// Saves the answer of a claimed message, if its carrier is still open, and what ends with it. An author who has opted out meanwhile gets
    /// the empty one.
    ///
    /// Decides [`Decision::Deferred`] instead, and saves nothing else, while an older reply in
    /// [`Ending::queue`] is pending, being sent, or looked up after a call of unknown outcome, and the oldest of these was
    /// created less than a minute ago. The reply then belongs behind it, by [`finish`](Self::finish). A reply that an
    /// operator has released, or that belongs to a message that an operator has retried, does not count.
    fn answer(
        &self,
        claim: Claim,
        twiml: Option<String>,
        ending: Ending,
        now: Timestamp,
    ) -> Outcome<'_, Decision>;

    /// Ends a claimed message whose answer goes by REST, and puts that into the outbox, all of it or nothing. Where its
    /// conversation is handed over, its reason is that it was not redirected. Returns whether the claim held.
    fn finish(
        &self,
        claim: Claim,
        replies: Vec<NewReply>,
        ending: Ending,
        now: Timestamp,
    ) -> Outcome<'_, bool>;

    /// Writes down that the handler failed, and why (no content). With `for_good` no request will come that could try
    /// again. A message whose carrier is REST already fails for good.
    ///
    /// Returns [`Decision::Lost`] where nothing is decided: the next request may try again, or another process has it;
    /// [`Decision::Deferred`] where this made it *dead*; or the answer that it was given meanwhile.
    fn fail(&self, claim: Claim, reason: &'static str, for_good: bool) -> Outcome<'_, Decision>;

    /// Takes up, as [`Choice::Rest`], up to `limit` messages that nobody handles: deferred before their turn came, left
    /// behind by a dead process, or let go. Of one conversation only the oldest.
    /// One that `policy` or its expired content rules out becomes *dead* instead.
    fn take_up(&self, limit: usize, policy: CrashPolicy, now: Timestamp) -> Outcome<'_, TakenUp>;

    /// Lets go what this process holds and does not know of: claimed before `before`, and not among `running`.
    fn let_go(&self, running: Vec<i64>, before: Timestamp) -> Outcome<'_, u64>;

    /// Writes down what was said during an outage: an arrival that was answered from memory. Already decided ones stay.
    /// Without an answer it is left to be handled.
    fn enter(&self, arrival: Arc<Arrival>, twiml: Option<String>) -> Outcome<'_, ()>;
}

/// What becomes of a message over which a process died.
///
/// Given to [`Journal::take_up`]: see [`Journal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPolicy {
    /// Whether its handler runs again.
    pub retry: bool,
    /// Attempts at most.
    pub attempts: u32,
}

impl Answered {
    /// Nothing to say.
    pub const EMPTY: Self = Self { twiml: None };
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.twiml {
            Some(twiml) => write!(f, "Answered({} bytes)", twiml.len()),
            None => f.write_str("Answered(empty)"),
        }
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Twiml(_) => "Twiml(…)",
            Self::Rest => "Rest",
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

impl fmt::Debug for ArrivalConsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop { .. } => "Stop",
            Self::Start { .. } => "Start",
            Self::Help => "Help",
        })
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival")
            .field("account", &self.account)
            .field("sid", &self.sid)
            .field("us", &self.us)
            .field("user", &self.user)
            .field("consent", &self.consent)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
