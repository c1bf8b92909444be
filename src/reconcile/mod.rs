//! After an outage, or on a restored backup: Twilio's list against the journal.
//!
//! What Twilio could deliver nowhere it drops; only its list still has it. [`Reconciler::missing`] finds the inbound
//! messages that the journal lacks, and [`Reconciler::enter`] enters them as if they had just been accepted: the running
//! server takes them up and answers by REST. Their consent words count as a webhook's do. The other way round,
//! [`Reconciler::unsaid`] finds answers that Twilio never sent.
//!
//! A journal that is older than what happened lacks messages that were answered, and has replies waiting that were sent.
//! The former are told by what Twilio sent to their author afterwards and the journal knows nothing of, and entered as
//! answered; the latter are found by [`Reconciler::sent_before`], which is for the time before the server starts.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use replyhook::reconcile::{Reconciler, list};
//! use replyhook::store::{Access, Store};
//! use replyhook::twilio::{ApiUrl, Client, Credentials};
//! use replyhook::{Clock, Secret, SystemClock};
//!
//! # async fn run(store: Arc<dyn Store>) -> Result<(), Box<dyn std::error::Error>> {
//! store.open(Access::Operator).await?;
//! let account = "AC00000000000000000000000000000001".parse()?;
//! let (client, credentials) = (Client::new(ApiUrl::default()), Credentials::auth_token(account, Secret::new("…")));
//! let since = SystemClock.now() - jiff::SignedDuration::from_hours(24);
//! let listed = list(&client, account, &credentials, since).await?;
//! let reconciler = Reconciler::new(store, &["STOP"], &["START"]);
//! for missing in reconciler.missing(account, &listed, since).await?.messages {
//!     reconciler.enter(&missing).await?;
//! }
//! # Ok(()) }
//! ```

mod outbox;
mod sent;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

pub use self::outbox::SentBefore;
use self::sent::{LastSent, Replies, is_inbound, went_out};
use crate::address::Address;
use crate::consent::{ConsentReplies, ConsentRules, Words};
use crate::form::Form;
use crate::message::InboundMessage;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::TokenSlot;
use crate::store::{
    Arrival, ArrivalConsent, ConsentAction, ConsentHow, ConsentRecord, MessageFilter, MessageRow,
    ReplyState, Store, StoreError,
};
use crate::twilio::{CLOCK_SKEW, Client, Credentials, ListMessages, Message, RestError, Text};
use crate::twiml::Document;

/// Of a page, so that the longest texts still fit what is read of an answer.
const PAGE_SIZE: u16 = 200;
/// Rows of the journal at once.
const ROWS: u32 = 500;

/// Lists an account's messages in both directions since a time, newest first.
///
/// Compared with the journal: see [the module](self).
///
/// # Errors
/// [`RestError`]; it changes nothing.
pub async fn list(
    client: &Client,
    account: AccountSid,
    credentials: &Credentials,
    since: Timestamp,
) -> Result<Vec<Message>, RestError> {
    let messages = client.messages(account, credentials);
    let which = ListMessages {
        // Twilio takes a day; the rest of that is left out below.
        sent_from: Some(since.strftime("%Y-%m-%d").to_string()),
        page_size: Some(PAGE_SIZE),
        ..ListMessages::default()
    };
    let mut page = messages.page(&which).await?;
    let mut listed = Vec::new();
    loop {
        let next = messages.next_page(&page).await?;
        listed.append(&mut page.messages);
        match next {
            Some(next) => page = next,
            None => break,
        }
    }
    listed.retain(|message| message.made_at().is_none_or(|made| made >= since));
    Ok(listed)
}

/// Compares Twilio's list with the journal.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use replyhook::Timestamp;
/// use replyhook::reconcile::Reconciler;
/// use replyhook::store::{Access, Store, sqlite::SqliteStore};
///
/// let store = Arc::new(SqliteStore::memory());
/// store.open(Access::Owner).await?;
/// let reconciler = Reconciler::new(store, &["STOP"], &["START"]);
/// let account = "AC00000000000000000000000000000001".parse()?;
/// // Of an empty list nothing is missing; `list` asks Twilio for a real one.
/// let inbound = reconciler.missing(account, &[], Timestamp::UNIX_EPOCH).await?;
/// assert!(inbound.messages.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Reconciler {
    store: Arc<dyn Store>,
    rules: Arc<ConsentRules>,
}

/// Twilio's inbound messages, as the journal knows them.
///
/// Asked for: see [`Reconciler`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Inbound {
    /// Those that it lacks, oldest first.
    pub messages: Vec<Missing>,
    /// How many it has.
    pub known: u64,
    /// How many of Twilio's list cannot be read as a message.
    pub unreadable: u64,
}

/// A message that the journal lacks.
///
/// Entered: see [the module](self).
#[derive(Clone)]
#[non_exhaustive]
pub struct Missing {
    /// What REST tells of it. Media has a number and no addresses.
    pub message: InboundMessage,
    /// What its text does to consent: [`OptOut`](ConsentAction::OptOut) or [`Resume`](ConsentAction::Resume).
    pub consent: Option<ConsentAction>,
    /// Whether its author was written to afterwards, by somebody of whom the journal knows nothing: it was answered, and
    /// the journal has lost that. Set it to false to have the message handled all the same.
    pub answered_before: bool,
    /// A later word of the same user, which the journal has and which counts instead.
    overtaken_by: Option<(MessageSid, ConsentAction, Timestamp)>,
}

/// The journal's answers, as Twilio knows them.
///
/// ```no_run
/// use replyhook::reconcile::Reconciler;
/// use replyhook::{AccountSid, Timestamp, store::StoreError, twilio::Message};
///
/// # async fn tell(reconciler: Reconciler, account: AccountSid, listed: Vec<Message>, since: Timestamp, now: Timestamp)
/// # -> Result<(), StoreError> {
/// let answers = reconciler.unsaid(account, &listed, since, now).await?;
/// for unsaid in &answers.unsaid {
///     println!("the answer to {} was not sent", unsaid.message_sid);
/// }
/// println!("{} compared, {} too old to tell", answers.compared, answers.expired);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Answers {
    /// How many messages by TwiML were looked for.
    pub compared: u64,
    /// Answers whose text has expired.
    pub expired: u64,
    /// Those that Twilio does not have, oldest first.
    pub unsaid: Vec<Unsaid>,
}

/// A message of an answer by TwiML that Twilio does not have.
///
/// Found: see [`Answers`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unsaid {
    /// What it answers.
    pub message_sid: MessageSid,
    /// Who should have got it.
    pub user: Address,
    /// When the message came that it answers.
    pub received_at: Timestamp,
    /// What it says.
    pub text: Text,
}

impl Reconciler {
    /// With the words that opt out and in, where Twilio has none of its own.
    pub fn new<S: AsRef<str>>(store: Arc<dyn Store>, stop_words: &[S], start_words: &[S]) -> Self {
        // Nobody waits for an answer: what is saved must not claim that one was given.
        let replies = ConsentReplies {
            stop: Document::empty(),
            start: Document::empty(),
        };
        let rules = ConsentRules::new(Words::new(stop_words, start_words), replies);
        Self {
            store,
            rules: Arc::new(rules),
        }
    }

    /// Which of the listed inbound messages the journal lacks. `since` stands for the time of one that has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn missing(
        &self,
        account: AccountSid,
        listed: &[Message],
        since: Timestamp,
    ) -> Result<Inbound, StoreError> {
        let mut inbound = Inbound::default();
        let mut words: Vec<(InboundMessage, ConsentAction, bool)> = Vec::new();
        let mut found: Vec<(Timestamp, &Message)> = listed
            .iter()
            .map(|message| (message.made_at().unwrap_or(since), message))
            .rev()
            .collect();
        // Twilio's times are whole seconds: those of one second stay in the list's order.
        found.sort_by_key(|(at, _)| *at);
        let mut known = HashSet::new();
        for listed in listed.iter().filter(|one| is_inbound(one)) {
            if self.knows(account, listed.sid).await? {
                known.insert(listed.sid);
            }
        }
        let strange = self.strange(account, listed, since).await?;
        let last_sent = LastSent::of(&found, &known, &strange);
        for (place, (at, listed)) in found.into_iter().enumerate() {
            if !is_inbound(listed) {
                continue;
            }
            let Some(message) = rebuilt(account, listed, at) else {
                inbound.unreadable += 1;
                continue;
            };
            let consent = self.rules.meaning(&message).as_ref().and_then(action);
            let known = known.contains(&message.message_sid);
            if let Some(consent) = consent {
                words.push((message.clone(), consent, known));
            }
            if known {
                inbound.known += 1;
            } else {
                inbound.messages.push(Missing {
                    answered_before: last_sent.is_after(&message, place),
                    message,
                    consent,
                    overtaken_by: None,
                });
            }
        }
        for missing in &mut inbound.messages {
            let last = words
                .iter()
                .rfind(|(word, ..)| same_conversation(word, &missing.message));
            // One that is missing too is entered after it, and so counts in its turn.
            missing.overtaken_by = last
                .filter(|(_, said, known)| *known && Some(*said) != missing.consent)
                .filter(|(word, ..)| word.received_at >= missing.message.received_at)
                .map(|(word, said, _)| (word.message_sid, *said, word.received_at));
        }
        Ok(inbound)
    }

    /// Enters a message in the journal, to be handled by the running server and answered by REST; or as answered, if it
    /// [was](Missing::answered_before). A consent word counts, unless its user has said the opposite since; it is not
    /// confirmed to them. One that has come meanwhile is left as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn enter(&self, missing: &Missing) -> Result<(), StoreError> {
        let message = &missing.message;
        let mut arrival = Arrival {
            account: message.account_sid,
            sid: message.message_sid,
            us: message.to.clone(),
            user: vec![message.from.clone()],
            service: message.messaging_service_sid,
            slot: TokenSlot::Primary,
            params: message.params.encode(),
            consent: self.rules.meaning(message),
            // What follows counts for repeats only, and a repeat of this one changes nothing.
            attempts: 1,
            retry_crashed: false,
            last_answer: String::new(),
            at: message.received_at,
        };
        let scopes = arrival.scopes();
        let state = self.store.consent(scopes.clone(), &message.from).await?;
        let opted_out_since = state
            .opted_out
            .is_some_and(|opted_out| opted_out > arrival.at);
        match (missing.consent, missing.overtaken_by) {
            (Some(ConsentAction::Resume), Some((_, ConsentAction::OptOut, _))) => {
                arrival.consent = None;
            }
            (Some(ConsentAction::Resume), _) if opted_out_since => arrival.consent = None,
            // The opt-out is written down, and taken back by what the user said after it.
            (Some(ConsentAction::OptOut), Some((sid, ConsentAction::Resume, at)))
                if state.opted_out.is_none() =>
            {
                self.keep(arrival, missing).await?;
                for scope in scopes {
                    let record = ConsentRecord {
                        scope,
                        user: message.from.clone(),
                        action: ConsentAction::Resume,
                        how: ConsentHow::Keyword,
                        evidence: Some(sid),
                        note: None,
                        at,
                    };
                    self.store.record_consent(record).await?;
                }
                return Ok(());
            }
            _ => {}
        }
        self.keep(arrival, missing).await
    }

    async fn keep(&self, arrival: Arrival, missing: &Missing) -> Result<(), StoreError> {
        let arrival = Arc::new(arrival);
        if missing.answered_before {
            self.store.enter_answered(arrival).await
        } else {
            self.store.enter(arrival, None).await
        }
    }

    /// What Twilio has sent, and the journal knows nothing of.
    async fn strange(
        &self,
        account: AccountSid,
        listed: &[Message],
        since: Timestamp,
    ) -> Result<HashSet<MessageSid>, StoreError> {
        let mut replies = Replies::of(listed, since);
        // Of one that came just before, the answer may be just after.
        let earlier = since.checked_sub(CLOCK_SKEW).unwrap_or(since);
        for row in self.answered(account, earlier).await? {
            replies.take(&row);
        }
        let under_way = [ReplyState::Sending, ReplyState::Unknown];
        let under_way = self.sent_of(account, listed, &under_way, since).await?;
        let mut strange: HashSet<_> = replies.left().collect();
        strange.extend(self.unclaimed(account, listed).await?);
        for ours in under_way {
            strange.remove(&ours.sid);
        }
        let gone = listed.iter().filter(|message| !went_out(message));
        for message in gone {
            strange.remove(&message.sid);
        }
        Ok(strange)
    }

    /// Which texts of the journal's TwiML answers Twilio has not sent. Only messages that came since `since` and before
    /// `until` are looked at: leave Twilio a minute between its webhook and the list. Sends nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unsaid(
        &self,
        account: AccountSid,
        listed: &[Message],
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Answers, StoreError> {
        let mut answers = Answers::default();
        let mut sent = Replies::of(listed, since);
        let mut rows = self.answered(account, since).await?;
        rows.retain(|row| (since..until).contains(&row.received_at));
        for row in rows {
            let Some(said) = sent.take(&row) else {
                answers.expired += 1;
                continue;
            };
            answers.compared += said.len() as u64;
            let unsaid = said.into_iter().filter(|said| !said.found);
            answers.unsaid.extend(unsaid.map(|said| Unsaid {
                message_sid: row.sid,
                user: said.to,
                received_at: row.received_at,
                text: Text(said.text),
            }));
        }
        answers.unsaid.reverse();
        Ok(answers)
    }

    /// The journal's answered messages of an account, down to a time; the newest first, each of which takes the earliest
    /// of Twilio's that may be its own: where the same was said before and is missing, it is the older message that has none.
    async fn answered(
        &self,
        account: AccountSid,
        since: Timestamp,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let mut found: Vec<MessageRow> = Vec::new();
        let mut before = None;
        loop {
            let filter = MessageFilter {
                state: Some("answered".to_owned()),
                before,
                limit: ROWS,
                ..MessageFilter::default()
            };
            let rows = self.store.messages(filter).await?;
            // A single old one may have been entered late.
            let over = rows.iter().all(|row| row.received_at < since);
            before = rows.last().map(|last| last.id);
            found.extend(rows.into_iter().filter(|row| same(row.account, account)));
            if over {
                found.sort_by_key(|row| std::cmp::Reverse((row.received_at, row.id)));
                return Ok(found);
            }
        }
    }

    async fn knows(&self, account: AccountSid, sid: MessageSid) -> Result<bool, StoreError> {
        let filter = MessageFilter {
            sid: Some(sid),
            limit: ROWS,
            ..MessageFilter::default()
        };
        let rows = self.store.messages(filter).await?;
        Ok(rows.iter().any(|row| same(row.account, account)))
    }
}

/// The parameters that a webhook would have had, as far as REST tells.
fn rebuilt(account: AccountSid, listed: &Message, at: Timestamp) -> Option<InboundMessage> {
    let media = listed.num_media.unwrap_or(0).to_string();
    let pairs = [
        ("MessageSid", Some(listed.sid.as_str())),
        ("AccountSid", Some(account.as_str())),
        ("From", listed.from.as_ref().map(Address::as_str)),
        ("To", listed.to.as_ref().map(Address::as_str)),
        (
            "Body",
            Some(listed.body.as_ref().map_or("", |body| body.0.as_str())),
        ),
        ("NumMedia", Some(media.as_str())),
        (
            "MessagingServiceSid",
            listed
                .messaging_service_sid
                .as_ref()
                .map(MessagingServiceSid::as_str),
        ),
    ];
    let params: Form = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    InboundMessage::parse(params, at).ok()
}

fn action(consent: &ArrivalConsent) -> Option<ConsentAction> {
    match consent {
        ArrivalConsent::Stop { .. } => Some(ConsentAction::OptOut),
        ArrivalConsent::Start { .. } => Some(ConsentAction::Resume),
        ArrivalConsent::Help => None,
    }
}

fn same_conversation(one: &InboundMessage, other: &InboundMessage) -> bool {
    let service = one.messaging_service_sid.is_some()
        && one.messaging_service_sid == other.messaging_service_sid;
    one.from == other.from && (one.to == other.to || service)
}

fn same(one: AccountSid, other: AccountSid) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").finish_non_exhaustive()
    }
}

impl fmt::Debug for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Missing")
            .field("message_sid", &self.message.message_sid)
            .field("from", &self.message.from)
            .field("consent", &self.consent)
            .finish_non_exhaustive()
    }
}
