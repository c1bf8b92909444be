//! Who talks with whom: the customer service window, consent, and the state of a dialogue.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{Outcome, TakenParams};
use crate::address::{Address, Channel};
use crate::sid::{MessageSid, MessagingServiceSid};

/// How long after a user's last message anything may be said to them on WhatsApp: 24 hours, less two minutes for clocks
/// and queues, since inbound webhooks carry no time of their own.
///
/// Source: Twilio's error 63016, WhatsApp Business Platform "customer service windows".
pub const WINDOW: SignedDuration = SignedDuration::from_secs(24 * 3600 - 120);

/// One of our senders and one user, however many addresses that user has.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use replyhook::clock::SignedDuration;
/// use replyhook::signature::TokenSlot;
/// use replyhook::store::{Access, Arrival, Conversations, Journal, Store, sqlite::SqliteStore};
/// use replyhook::{Address, Timestamp};
///
/// let (us, user): (Address, Address) = ("whatsapp:+15550002222".into(), "whatsapp:+15550001111".into());
/// let arrival = Arrival {
///     account: "AC00000000000000000000000000000001".parse()?,
///     sid: "SM00000000000000000000000000000001".parse()?,
///     us: us.clone(),
///     user: vec![user.clone()],
///     # service: None, slot: TokenSlot::Primary, consent: None, attempts: 2, retry_crashed: true,
///     # last_answer: String::new(),
///     params: "Body=hi".to_owned(),
///     at: Timestamp::UNIX_EPOCH,
/// };
/// let store = SqliteStore::memory();
/// store.open(Access::Owner).await?;
/// store.accept(Arc::new(arrival)).await?;
/// let conversation = store.conversation(&us, &user).await?.expect("they talked");
/// let later = |hours| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
/// assert!(conversation.window(later(23)).is_some());
/// assert!(conversation.window(later(24)).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Conversation {
    /// Its number.
    pub id: i64,
    /// Our sender.
    pub us: Address,
    /// The user, under the address that was asked for.
    pub user: Address,
    /// When the user last wrote.
    pub last_inbound: Option<Timestamp>,
}

/// Proof that somebody has looked whether a user may be written to freely, and found that they may: only
/// [`Conversation::window`] and [`OpenWindow::of`] make one. `twilio::Messages::create` and `create_form`, which send
/// anything at once, take one, so that forgetting to look does not compile; a template goes without. `Sender::send` takes
/// none: it looks for itself, in the transaction that takes the message, and once more when that is sent.
///
/// ```
/// use replyhook::clock::SignedDuration;
/// use replyhook::store::OpenWindow;
/// use replyhook::{Address, Timestamp};
///
/// let (user, wrote) = (Address::from("whatsapp:+15550001111"), Timestamp::UNIX_EPOCH);
/// let later = |hours| wrote + SignedDuration::from_hours(hours);
/// let window = OpenWindow::of(&user, Some(wrote), later(1)).expect("an hour ago");
/// assert_eq!(window.until(), Some(wrote + replyhook::store::WINDOW));
/// assert_eq!(OpenWindow::of(&user, Some(wrote), later(24)), None);
/// assert_eq!(OpenWindow::of(&user, None, later(1)), None, "who never wrote is not written to");
/// // SMS has no such rule.
/// assert!(OpenWindow::of(&"+15550001111".into(), None, later(99)).is_some());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWindow {
    until: Option<Timestamp>,
}

impl Conversation {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn new(
        id: i64,
        us: Address,
        user: Address,
        last_inbound: Option<Timestamp>,
    ) -> Self {
        Self {
            id,
            us,
            user,
            last_inbound,
        }
    }

    /// The customer service window, if it is open. Channels other than WhatsApp have none: there it is always open.
    pub fn window(&self, now: Timestamp) -> Option<OpenWindow> {
        OpenWindow::of(&self.user, self.last_inbound, now)
    }
}

impl OpenWindow {
    /// Looks, where there is no [`Conversation`] to ask: at when the user last wrote, if ever. Channels other than WhatsApp
    /// have no window: there it is always open.
    pub fn of(user: &Address, last_inbound: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        if *user.channel() != Channel::WhatsApp {
            return Some(Self { until: None });
        }
        let until = last_inbound?.checked_add(WINDOW).ok()?;
        (now < until).then_some(Self { until: Some(until) })
    }

    /// When it closes, if ever.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }
}

/// For what a consent counts: one sender, or every sender of a service.
///
/// ```
/// use replyhook::store::ConsentScope;
///
/// let service = ConsentScope::parse("MG00000000000000000000000000000001");
/// assert!(matches!(service, ConsentScope::Service(_)));
/// assert_eq!(ConsentScope::parse("whatsapp:+15550002222"), ConsentScope::Sender("whatsapp:+15550002222".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsentScope {
    /// One sender of ours.
    Sender(Address),
    /// All senders of a Messaging Service.
    Service(MessagingServiceSid),
}

impl ConsentScope {
    /// As it is stored and shown to the operator.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sender(address) => address.as_str(),
            Self::Service(sid) => sid.as_str(),
        }
    }

    /// From the text that [`ConsentScope::as_str`] gives.
    pub fn parse(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Sender(text.into()), Self::Service)
    }
}

/// What happened to a consent.
///
/// ```
/// use replyhook::store::ConsentAction;
///
/// assert_eq!(ConsentAction::OptOut.as_str(), "opt_out");
/// assert_eq!(ConsentAction::parse("resume"), Some(ConsentAction::Resume));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentAction {
    /// The user wants no more messages.
    OptOut,
    /// The user wants them again; what was recorded before counts again.
    Resume,
    /// The user has agreed, somewhere, to be written to first.
    OptIn,
}

/// How we know.
///
/// In the ledger: see [`ConsentRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentHow {
    /// A word of the user's.
    Keyword,
    /// Twilio's `OptOutType`.
    OptOutType,
    /// Twilio refused to send: 21610, 63014.
    Refusal,
    /// The operator, by command.
    Operator,
    /// The program, by its API.
    Api,
}

macro_rules! named {
    ($type:ident { $($variant:ident = $text:literal),+ }) => {
        impl $type {
            /// As it is stored and exported.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// From the text that [`as_str`](Self::as_str) gives.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

named!(ConsentAction { OptOut = "opt_out", Resume = "resume", OptIn = "opt_in" });
named!(ConsentHow { Keyword = "keyword", OptOutType = "opt_out_type", Refusal = "refusal", Operator = "operator", Api = "api" });

/// A line to be added to the consent ledger.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::{Access, ConsentAction, ConsentHow, ConsentRecord, ConsentScope, Conversations, Store};
/// use replyhook::{Timestamp, store::sqlite::SqliteStore};
///
/// let store = SqliteStore::memory();
/// store.open(Access::Owner).await?;
/// let scope = ConsentScope::Sender("whatsapp:+15550002222".into());
/// let agreed = ConsentRecord {
///     scope: scope.clone(),
///     user: "whatsapp:+15550001111".into(),
///     action: ConsentAction::OptIn,
///     how: ConsentHow::Api,
///     evidence: None,
///     note: Some("the form on the website".to_owned()),
///     at: Timestamp::UNIX_EPOCH,
/// };
/// store.record_consent(agreed).await?;
/// let state = store.consent(vec![scope], &"whatsapp:+15550001111".into()).await?;
/// assert_eq!((state.opted_in, state.opted_out), (Some(Timestamp::UNIX_EPOCH), None));
/// let ledger = store.consent_ledger(0, 10).await?;
/// assert_eq!(ledger[0].record.action, ConsentAction::OptIn);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ConsentRecord {
    /// For what.
    pub scope: ConsentScope,
    /// Whose.
    pub user: Address,
    /// What happened.
    pub action: ConsentAction,
    /// How we know.
    pub how: ConsentHow,
    /// The message that shows it.
    pub evidence: Option<MessageSid>,
    /// In the operator's words, such as where the user agreed.
    pub note: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl ConsentRecord {
    /// Twilio will not deliver to this user from this sender, or by this service.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn refusal(
        scope: &str,
        user: impl Into<Address>,
        evidence: Option<MessageSid>,
        at: Timestamp,
    ) -> Self {
        Self {
            scope: ConsentScope::parse(scope),
            user: user.into(),
            action: ConsentAction::OptOut,
            how: ConsentHow::Refusal,
            evidence,
            note: None,
            at,
        }
    }
}

/// A line of the consent ledger.
///
/// Read back: see [`ConsentRecord`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsentEntry {
    /// Its number, rising.
    pub id: i64,
    /// What it says.
    pub record: ConsentRecord,
}

/// What counts now.
///
/// Asked for: see [`ConsentRecord`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsentState {
    /// Since when the user wants nothing.
    pub opted_out: Option<Timestamp>,
    /// Since when the user is known to agree.
    pub opted_in: Option<Timestamp>,
}

/// Windows, consents and dialogues.
///
/// Used: see [`Conversation`], and [`ConsentRecord`].
///
/// # Errors
/// Every method: [`StoreError`](super::StoreError).
pub trait Conversations: Send + Sync {
    /// The conversation of a sender and a user, if they ever talked.
    fn conversation(&self, us: &Address, user: &Address) -> Outcome<'_, Option<Conversation>>;

    /// What counts for a user: opted out if any of the scopes says so.
    fn consent(&self, scopes: Vec<ConsentScope>, user: &Address) -> Outcome<'_, ConsentState>;

    /// Changes a consent and adds the line that says why.
    fn record_consent(&self, record: ConsentRecord) -> Outcome<'_, ()>;

    /// Up to `limit` lines of the ledger, oldest first, beginning after number `after`.
    fn consent_ledger(&self, after: i64, limit: u32) -> Outcome<'_, Vec<ConsentEntry>>;

    /// The state of a conversation's dialogue.
    fn dialogue(&self, conversation: i64, now: Timestamp) -> Outcome<'_, Option<Dialogue>>;

    /// The last `limit` messages before this one, of its number, with the same person; oldest first. Those whose content has
    /// expired are among them.
    fn earlier(&self, message: i64, limit: u32) -> Outcome<'_, Vec<EarlierMessage>>;
}

/// A message that came before another, and what it was answered with.
///
/// A handler has the same, as texts: see [`Context::history`](crate::Context::history).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EarlierMessage {
    /// When it came.
    pub received_at: Timestamp,
    /// Its parameters, form-encoded, unless they have expired.
    pub params: Option<TakenParams>,
    /// What it was answered with: TwiML.
    pub answer: Option<TakenParams>,
    /// What it was answered with by REST: the parameters of each `POST Messages`, form-encoded, in order. What was not sent
    /// and will not be is not among them.
    pub replies: Vec<TakenParams>,
    /// When that was ready.
    pub answered_at: Timestamp,
    /// Whether it was answered with the one before it.
    pub is_merged: bool,
}

/// A dialogue's state, in the bot's own form.
///
/// ```
/// use replyhook::store::Dialogue;
///
/// let kept = Dialogue(r#"{"name":"Ana"}"#.to_owned());
/// assert_eq!(format!("{kept:?}"), "Dialogue(14 bytes)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Dialogue(pub String);

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialogue({} bytes)", self.0.len())
    }
}
