//! Conversations: customer service window, consent, dialogue state and history.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::future::StoreFuture;
use super::redacted_params::RedactedParams;
use crate::address::{Address, Channel};
use crate::choice::{OpenQuestion, QuestionId};
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};

/// Length of WhatsApp's customer service window: 24 hours after the user's last message, less two minutes.
///
/// The two minutes allow for clock differences and queues, because an inbound webhook does not contain the message's
/// time.
///
/// Source: Twilio's error 63016, WhatsApp Business Platform "customer service windows".
pub const WINDOW: SignedDuration = SignedDuration::from_secs(24 * 3600 - 120);

/// Conversation of one of your senders and one user, who may have several addresses.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Conversation {
    /// ID of the conversation.
    pub id: i64,
    /// Your sender.
    pub sender: Address,
    /// Address of the user with which the conversation was looked up.
    pub user: Address,
    /// Time of the user's last message.
    pub last_inbound: Option<Timestamp>,
}

/// Proof that the customer service window of a user was checked and is open.
///
/// Only [`StoreHandle::window`](super::handle::StoreHandle::window) and [`OpenWindow::of`] create one.
/// `twilio::Messages::create` and `create_form`, which send a message immediately, require one for free-form text, so
/// that code without the check does not compile. `OutboundClient::send` does not: it checks the window when it queues
/// the message, and the server checks again before it sends the message.
///
/// ```
/// use replyhook::clock::SignedDuration;
/// use replyhook::store::OpenWindow;
/// use replyhook::{Address, Timestamp};
///
/// let (user, wrote) = (Address::from("whatsapp:+15550001111"), Timestamp::UNIX_EPOCH);
/// let later = |hours| wrote + SignedDuration::from_hours(hours);
/// let window = OpenWindow::of(&user, Some(wrote), later(1)).expect("written an hour ago");
/// assert_eq!(window.until(), Some(wrote + replyhook::store::WINDOW));
/// assert_eq!(OpenWindow::of(&user, Some(wrote), later(24)), None);
/// assert_eq!(OpenWindow::of(&user, None, later(1)), None, "a user who has never written");
/// // SMS has no customer service window.
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
        sender: Address,
        user: Address,
        last_inbound: Option<Timestamp>,
    ) -> Self {
        Self {
            id,
            sender,
            user,
            last_inbound,
        }
    }

    /// Returns the customer service window, if it is open. On channels other than WhatsApp it is always open.
    pub fn window(&self, now: Timestamp) -> Option<OpenWindow> {
        OpenWindow::of(&self.user, self.last_inbound, now)
    }
}

impl OpenWindow {
    /// Returns the window of a user whose last message came at `last_inbound`, if it is open at `now`.
    ///
    /// On channels other than WhatsApp it is always open.
    pub fn of(user: &Address, last_inbound: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        // Only WhatsApp restricts free-form messages to a window.
        if *user.channel() != Channel::WhatsApp {
            return Some(Self { until: None });
        }
        let until = last_inbound?.checked_add(WINDOW).ok()?;
        (now < until).then_some(Self { until: Some(until) })
    }

    /// Returns the time when the window closes, if it ever does.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }
}

/// Scope of a consent: one sender, or every sender of a Messaging Service.
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
    /// One sender.
    Sender(Address),
    /// All senders of a Messaging Service.
    Service(MessagingServiceSid),
    /// All senders of an account. Only merges and splits of users have this scope.
    Account(AccountSid),
}

impl ConsentScope {
    /// Returns the scope as text, as stored and shown to operators.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sender(address) => address.as_str(),
            Self::Service(sid) => sid.as_str(),
            Self::Account(sid) => sid.as_str(),
        }
    }

    /// Parses the text that [`ConsentScope::as_str`] returns.
    pub fn parse(text: &str) -> Self {
        if let Ok(service) = text.parse() {
            return Self::Service(service);
        }
        match text.parse() {
            Ok(account) => Self::Account(account),
            Err(_) => Self::Sender(Address::parse(text).normalized()),
        }
    }
}

/// Change of a consent.
///
/// ```
/// use replyhook::store::ConsentAction;
///
/// assert_eq!(ConsentAction::OptOut.as_str(), "opt_out");
/// assert_eq!(ConsentAction::parse("resume"), Some(ConsentAction::Resume));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentAction {
    /// The user opts out of all messages.
    OptOut,
    /// The user takes back the opt-out. An opt-in that was recorded before is valid again.
    Resume,
    /// The user agrees to receive outbound messages. It ends an opt-out.
    OptIn,
    /// An operator recorded that two addresses are of one user. This alone changes no consent.
    Merge,
    /// An operator recorded that an address is of another user, or a webhook showed that a number has a new owner. This
    /// alone changes no consent.
    Split,
}

/// Source of a consent change. See [`ConsentRecord`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentSource {
    /// Keyword in a message from the user.
    Keyword,
    /// Twilio's parameter `OptOutType`.
    OptOutType,
    /// Twilio's error 21610 or 63014 for a message to the user.
    Refusal,
    /// Command of an operator.
    Operator,
    /// Program, through the API.
    Api,
    /// Webhook from Twilio, which shows that a number has a new owner.
    Webhook,
}

macro_rules! named {
    ($type:ident { $($variant:ident = $text:literal),+ }) => {
        impl $type {
            /// Returns the name, as stored and exported.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Parses the name that [`as_str`](Self::as_str) returns.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

named!(ConsentAction { OptOut = "opt_out", Resume = "resume", OptIn = "opt_in", Merge = "merge", Split = "split" });
named!(ConsentSource { Keyword = "keyword", OptOutType = "opt_out_type", Refusal = "refusal", Operator = "operator", Api = "api", Webhook = "webhook" });

/// Record for the consent ledger.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::store::{Access, ConsentAction, ConsentSource, ConsentRecord, ConsentScope, StoreHandle};
/// use replyhook::{Timestamp, store::sqlite::SqliteStore};
///
/// let store = StoreHandle::from(SqliteStore::memory());
/// store.open(Access::Owner).await?;
/// let opt_in = ConsentRecord {
///     scope: ConsentScope::Sender("whatsapp:+15550002222".into()),
///     user: "whatsapp:+15550001111".into(),
///     action: ConsentAction::OptIn,
///     source: ConsentSource::Api,
///     evidence: None,
///     note: Some("the form on the website".to_owned()),
///     at: Timestamp::UNIX_EPOCH,
/// };
/// store.record_consent(opt_in).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ConsentRecord {
    /// Scope of the consent.
    pub scope: ConsentScope,
    /// Address of the user.
    pub user: Address,
    /// Change of the consent.
    pub action: ConsentAction,
    /// Source of the change.
    pub source: ConsentSource,
    /// Message that proves the change.
    pub evidence: Option<MessageSid>,
    /// Note of an operator or program, such as the place where the user agreed.
    pub note: Option<String>,
    /// Time of the change.
    pub at: Timestamp,
}

impl ConsentRecord {
    /// Creates the opt-out that follows from an error code: Twilio does not deliver to this user in this scope.
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
            source: ConsentSource::Refusal,
            evidence,
            note: None,
            at,
        }
    }
}

/// Entry of the consent ledger.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsentEntry {
    /// ID of the entry. Later entries have higher ones.
    pub id: i64,
    /// Recorded change.
    pub record: ConsentRecord,
    /// Facts that a program or a file has given for the change.
    pub stated: StatedFacts,
}

/// Facts that a program or a file gives for a change of a consent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatedFacts {
    /// Place where the user agreed or refused, such as `order form`.
    pub origin: Option<String>,
    /// Proof other than a message, such as the URL of a signed form.
    pub proof: Option<String>,
}

/// Change of a consent that a program or a file states, possibly some time after the fact and more than once.
#[derive(Debug, Clone)]
pub struct ConsentStatement {
    /// The change. Without a stated time, `at` is the present.
    pub record: ConsentRecord,
    /// Facts in addition to the record.
    pub stated: StatedFacts,
    /// Kind of the time in `at`.
    pub time: StatedTime,
    /// True if nothing is recorded, and only the outcome is returned.
    pub dry_run: bool,
}

/// Kind of the time of a [`ConsentStatement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatedTime {
    /// Time of the change.
    Given,
    /// The change happens now.
    Now,
    /// The time of the change is unknown, so the change never replaces a recorded one.
    Unknown,
}

/// Outcome of a [`ConsentStatement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementOutcome {
    /// The change is recorded.
    Recorded,
    /// The ledger has this change already.
    Unchanged,
    /// The user has opted out, or in, after the stated change, at this time. Nothing is recorded.
    Superseded(Timestamp),
}

/// Present consent of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsentState {
    /// Time of the opt-out that is in force.
    pub opted_out: Option<Timestamp>,
    /// Time of the recorded opt-in.
    pub opted_in: Option<Timestamp>,
}

/// Conversations with their windows, consents and dialogues. See [`Conversation`] and [`ConsentRecord`] for examples.
///
/// # Errors
/// Every method: [`StoreError`](super::error::StoreError).
pub trait Conversations: Send + Sync {
    /// Returns the conversation of a sender and a user, if the user has ever written.
    fn conversation(
        &self,
        sender: &Address,
        user: &Address,
    ) -> StoreFuture<'_, Option<Conversation>>;

    /// Returns the current consent of a user, under any of their addresses. An opt-out in one of the scopes suffices.
    fn consent(&self, scopes: Vec<ConsentScope>, user: &Address) -> StoreFuture<'_, ConsentState>;

    /// Changes a consent and adds the record to the ledger.
    fn record_consent(&self, record: ConsentRecord) -> StoreFuture<'_, ()>;

    /// Changes a consent as stated, unless the ledger has the same change, or a newer one replaces it.
    fn state_consent(&self, statement: ConsentStatement) -> StoreFuture<'_, StatementOutcome>;

    /// Lists up to `limit` entries of the ledger with an ID above `after`, oldest first.
    fn consent_ledger(&self, after: i64, limit: u32) -> StoreFuture<'_, Vec<ConsentEntry>>;

    /// Returns the dialogue state of a conversation, unless it has expired.
    fn dialogue(&self, conversation: i64, now: Timestamp) -> StoreFuture<'_, Option<Dialogue>>;

    /// Returns the question with choices that waits for its answer, unless it has expired.
    fn open_question(
        &self,
        conversation: i64,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<OpenQuestion>>;

    /// Records that an open question is shown as a numbered text, or in the form that its channel has for it. Without effect
    /// on another question.
    fn set_question_numbered(
        &self,
        sender: &Address,
        user: &Address,
        id: QuestionId,
        is_numbered: bool,
    ) -> StoreFuture<'_, ()>;

    /// Lists the last `limit` messages of the same user and sender before a message, oldest first.
    ///
    /// Messages whose content has expired are included.
    fn earlier(&self, message: i64, limit: u32) -> StoreFuture<'_, Vec<EarlierMessage>>;
}

/// Earlier message of a conversation, with its replies. [`Context::history`](crate::Context::history) has the texts for
/// a handler.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EarlierMessage {
    /// Time when the message arrived.
    pub received_at: Timestamp,
    /// Parameters of the webhook, form-encoded, unless they have expired.
    pub params: Option<RedactedParams>,
    /// TwiML response.
    pub response: Option<RedactedParams>,
    /// Replies via the REST API, in order: the form-encoded parameters of each `POST Messages`. Replies that failed or
    /// were suppressed are left out.
    pub replies: Vec<RedactedParams>,
    /// Time when the reply was ready.
    pub answered_at: Timestamp,
    /// True if the message was merged into the one before it, whose reply covers both.
    pub is_merged: bool,
}

/// Dialogue state, in the bot's own format. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialogue(pub String);

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialogue({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialogue_debug_hides_state() {
        let dialogue = Dialogue(r#"{"name":"Ana"}"#.to_owned());
        assert_eq!(format!("{dialogue:?}"), "Dialogue(14 bytes)");
    }
}
