//! Reconciliation of the journal with Twilio's message list, after an outage or on a restored backup.
//!
//! Twilio drops an inbound message that it cannot deliver to any webhook; only its message list still has it.
//! [`Reconciler::missing`] finds inbound messages that the journal lacks. [`Reconciler::backfill`] adds them as if they
//! had just been accepted: the running server handles them and replies via the REST API. Consent keywords apply as in a
//! webhook. Conversely, [`Reconciler::unsent_replies`] finds TwiML replies that Twilio never sent.
//!
//! A restored journal is older than Twilio's list. It lacks messages that were answered, has others as open that were
//! answered, and its outbox holds replies that were sent. A message counts as answered if Twilio sent its author
//! something afterwards that the journal does not have. A missing one is added as answered.
//! [`Reconciler::mark_answered`] closes an open one, and [`Reconciler::already_sent`] finds the replies. Call both
//! before the server starts.
//!
//! ```no_run
//! use replyhook::reconcile::{Reconciler, list_messages};
//! use replyhook::store::{Access, StoreHandle};
//! use replyhook::twilio::{ApiUrl, Client, Credentials};
//! use replyhook::{Clock, Secret, SystemClock};
//!
//! # async fn run(store: StoreHandle) -> Result<(), Box<dyn std::error::Error>> {
//! store.open(Access::Operator).await?;
//! let account = "AC00000000000000000000000000000001".parse()?;
//! let (client, credentials) = (Client::new(ApiUrl::default()), Credentials::auth_token(account, Secret::new("…")));
//! let since = SystemClock.now() - jiff::SignedDuration::from_hours(24);
//! let listed = list_messages(&client, account, &credentials, since).await?;
//! let reconciler = Reconciler::new(store, &["STOP"], &["START"]);
//! for missing in reconciler.missing(account, &listed, since).await?.messages {
//!     reconciler.backfill(&missing).await?;
//! }
//! # Ok(()) }
//! ```

mod outbox;
mod reconciler;
mod sent;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

pub use self::outbox::AlreadySent;
pub use self::reconciler::Reconciler;
use self::reconciler::{ROWS_PER_QUERY, same_account};
use self::sent::{LastOutbound, Replies, is_inbound, is_sent_outbound};
use crate::address::Address;
use crate::consent::{ConsentReplies, ConsentRules, Keywords};
use crate::form::FormParams;
use crate::message::InboundMessage;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::signature::AuthTokenKind;
use crate::store::{
    ConsentAction, ConsentKeyword, ConsentRecord, ConsentSource, MessageFilter, MessageRow,
    NewInbound, StoreError, StoreHandle,
};
use crate::twilio::{
    CLOCK_SKEW, Client, Credentials, ListMessages, Message, RedactedText, RestError,
};
use crate::twiml::Document;

/// Messages per page. A page of the longest texts must fit the limit of the REST client for one response.
const PAGE_SIZE: u16 = 200;

/// Lists an account's messages in both directions since a time, newest first.
///
/// See [the module](self) for an example.
///
/// # Errors
/// [`RestError`] if a page cannot be read.
pub async fn list_messages(
    client: &Client,
    account: AccountSid,
    credentials: &Credentials,
    since: Timestamp,
) -> Result<Vec<Message>, RestError> {
    let messages = client.messages(account, credentials);
    let filter = ListMessages {
        // Twilio filters by day: earlier messages of that day are dropped below.
        sent_from: Some(since.strftime("%Y-%m-%d").to_string()),
        page_size: Some(PAGE_SIZE),
        ..ListMessages::default()
    };
    let mut page = messages.page(&filter).await?;
    let mut listed = Vec::new();
    loop {
        let next = messages.next_page(&page).await?;
        listed.append(&mut page.messages);
        match next {
            Some(next) => page = next,
            None => break,
        }
    }
    // Keep a message without a readable date: it may be missing, or the proof of a reply.
    listed.retain(|message| message.created_at().is_none_or(|at| at >= since));
    Ok(listed)
}

/// The difference between Twilio's inbound messages and the journal.
///
/// See [`Reconciler`] for an example.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct InboundDiff {
    /// Messages that the journal lacks, oldest first.
    pub messages: Vec<MissingMessage>,
    /// Messages without a reply in the journal, although Twilio sent their author something afterwards that the journal
    /// does not have. Oldest first.
    ///
    /// On a restored journal, their replies were sent after the backup. While a server runs, a handler may still be
    /// about to reply to them.
    pub answered_open: Vec<AnsweredOpen>,
    /// Number of messages that the journal has.
    pub known: u64,
    /// Number of list entries that cannot be parsed as an inbound message.
    pub unreadable: u64,
}

/// An inbound message that the journal lacks.
///
/// See [the module](self) for an example.
#[derive(Clone)]
#[non_exhaustive]
pub struct MissingMessage {
    /// The message, as far as the REST API describes it: it has the number of media, but not their URLs.
    pub message: InboundMessage,
    /// Effect of a consent keyword: [`OptOut`](ConsentAction::OptOut) or [`Resume`](ConsentAction::Resume).
    pub consent: Option<ConsentAction>,
    /// True if Twilio sent its author something afterwards that the journal does not have, such as a lost reply.
    ///
    /// [`Reconciler::backfill`] then adds the message as answered. Set this to false to have it handled.
    pub already_answered: bool,
    /// A later consent keyword of the same user that the journal has, and that overrides this one.
    superseded_by: Option<(MessageSid, ConsentAction, Timestamp)>,
}

/// A message that a restored journal would have handled again, although it was answered after the backup.
///
/// See [`Reconciler::mark_answered`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AnsweredOpen {
    /// Account that received the message.
    pub account: AccountSid,
    /// SID of the message.
    pub message_sid: MessageSid,
    /// Author of the message.
    pub user: Address,
    /// Time when the message arrived.
    pub received_at: Timestamp,
}

/// The difference between the journal's TwiML replies and Twilio's sent messages.
///
/// ```no_run
/// use replyhook::reconcile::Reconciler;
/// use replyhook::{AccountSid, Timestamp, store::StoreError, twilio::Message};
///
/// # async fn run(reconciler: Reconciler, account: AccountSid, listed: Vec<Message>, since: Timestamp, now: Timestamp)
/// # -> Result<(), StoreError> {
/// let replies = reconciler.unsent_replies(account, &listed, since, now).await?;
/// for unsent in &replies.unsent {
///     println!("the reply to {} was not sent", unsent.message_sid);
/// }
/// println!("{} compared, {} without a stored text", replies.compared, replies.expired);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReplyDiff {
    /// Number of TwiML messages that were looked up in Twilio's list.
    pub compared: u64,
    /// Number of replies whose text has expired.
    pub expired: u64,
    /// Messages that Twilio does not have, oldest first.
    pub unsent: Vec<UnsentReply>,
}

/// A message of a TwiML reply that Twilio does not have.
///
/// See [`ReplyDiff`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnsentReply {
    /// SID of the inbound message that the reply belongs to.
    pub message_sid: MessageSid,
    /// Recipient of the reply.
    pub user: Address,
    /// Time when the inbound message arrived.
    pub received_at: Timestamp,
    /// Text of the reply.
    pub text: RedactedText,
}

impl Reconciler {
    /// Creates a reconciler with the opt-out and opt-in keywords for channels where Twilio has none of its own.
    pub fn new<S: AsRef<str>>(
        store: impl Into<StoreHandle>,
        stop_words: &[S],
        start_words: &[S],
    ) -> Self {
        let keywords = Keywords::new(stop_words, start_words);
        Self {
            store: store.into().0,
            rules: Arc::new(silent_rules(keywords)),
        }
    }

    /// Replaces Twilio's keywords on SMS, MMS and RCS, as the setting `consent.sms = "own"` does.
    #[must_use]
    pub fn with_own_sms_keywords<S: AsRef<str>>(self, stop_words: &[S], start_words: &[S]) -> Self {
        let keywords = self.rules.keywords().clone();
        let keywords = keywords.with_own_sms(stop_words, start_words);
        Self {
            rules: Arc::new(silent_rules(keywords)),
            ..self
        }
    }

    /// Finds the listed inbound messages that the journal lacks.
    ///
    /// `since` replaces the time of a message without one.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn missing(
        &self,
        account: AccountSid,
        listed: &[Message],
        since: Timestamp,
    ) -> Result<InboundDiff, StoreError> {
        let mut inbound = InboundDiff::default();
        let mut keywords: Vec<(InboundMessage, ConsentAction, bool)> = Vec::new();
        let mut by_time: Vec<(Timestamp, &Message)> = listed
            .iter()
            .map(|message| (message.created_at().unwrap_or(since), message))
            .rev()
            .collect();
        // Twilio's times are whole seconds. The stable sort leaves messages of one second in the list's order.
        by_time.sort_by_key(|(at, _)| *at);
        let (mut known, mut open) = (HashSet::new(), HashSet::new());
        for listed in listed.iter().filter(|message| is_inbound(message)) {
            let Some(row) = self.find_row(account, listed.sid).await? else {
                continue;
            };
            known.insert(listed.sid);
            // A message whose replies are queued is shown as deferred too. `already_sent` finds these replies.
            if matches!(row.state, "received" | "processing" | "deferred") && row.replies.is_empty()
            {
                open.insert(listed.sid);
            }
        }
        let unrecognized = self.unrecognized_outbound(account, listed, since).await?;
        // Without the open messages, because this journal does not have the TwiML replies to them.
        let closed = &known - &open;
        let last_sent = LastOutbound::new(&by_time, &closed, &unrecognized);
        for (index, (at, listed)) in by_time.into_iter().enumerate() {
            if !is_inbound(listed) {
                continue;
            }
            let Some(message) = message_from_rest(account, listed, at) else {
                inbound.unreadable += 1;
                continue;
            };
            let consent = self.rules.meaning(&message).as_ref().and_then(action);
            let known = known.contains(&message.message_sid);
            if let Some(consent) = consent {
                keywords.push((message.clone(), consent, known));
            }
            if known {
                inbound.known += 1;
                if open.contains(&message.message_sid) && last_sent.is_after(&message, index) {
                    inbound.answered_open.push(AnsweredOpen {
                        account,
                        message_sid: message.message_sid,
                        user: message.from,
                        received_at: message.received_at,
                    });
                }
            } else {
                inbound.messages.push(MissingMessage {
                    already_answered: last_sent.is_after(&message, index),
                    message,
                    consent,
                    superseded_by: None,
                });
            }
        }
        for missing in &mut inbound.messages {
            let last_keyword = keywords
                .iter()
                .rfind(|(keyword, ..)| same_conversation(keyword, &missing.message));
            // Only a known keyword: a missing one is backfilled later than this message, and then overrides it.
            missing.superseded_by = last_keyword
                .filter(|(_, action, known)| *known && Some(*action) != missing.consent)
                .filter(|(keyword, ..)| keyword.received_at >= missing.message.received_at)
                .map(|(keyword, action, _)| (keyword.message_sid, *action, keyword.received_at));
        }
        Ok(inbound)
    }

    /// Adds a missing message to the journal, so that the running server handles it and replies via the REST API.
    ///
    /// A message that was [already answered](MissingMessage::already_answered) is added as answered. A consent keyword
    /// applies unless its user has sent the opposite one since; no confirmation is sent. A message that has arrived by
    /// webhook in the meantime stays as it is.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn backfill(&self, missing: &MissingMessage) -> Result<(), StoreError> {
        let message = &missing.message;
        let mut inbound = NewInbound {
            account: message.account_sid,
            sid: message.message_sid,
            sender: message.to.normalized(),
            user: vec![message.from.normalized()],
            service: message.messaging_service_sid,
            // The token that would have verified the webhook is unknown.
            auth_token: AuthTokenKind::Primary,
            params: message.params.encode(),
            consent: self.rules.meaning(message),
            // The next three fields matter only for a redelivery: backfilling a known message changes nothing.
            max_attempts: 1,
            retry_after_crash: false,
            final_response: String::new(),
            received_at: message.received_at,
        };
        let scopes = inbound.scopes();
        let state = self.store.consent(scopes.clone(), &message.from).await?;
        let opted_out_since = state
            .opted_out
            .is_some_and(|opted_out| opted_out > inbound.received_at);
        match (missing.consent, missing.superseded_by) {
            // An old opt-in must not undo a later opt-out.
            (Some(ConsentAction::Resume), Some((_, ConsentAction::OptOut, _))) => {
                inbound.consent = None;
            }
            // The later opt-out need not be a keyword in the list: it may come from an operator or a program.
            (Some(ConsentAction::Resume), _) if opted_out_since => inbound.consent = None,
            // Record the opt-out for the ledger, then the opt-in that followed it. If the user is opted out now,
            // something later than that opt-in did it, and the opt-out must stay.
            (Some(ConsentAction::OptOut), Some((sid, ConsentAction::Resume, at)))
                if state.opted_out.is_none() =>
            {
                self.save(inbound, missing).await?;
                for scope in scopes {
                    let record = ConsentRecord {
                        scope,
                        user: message.from.normalized(),
                        action: ConsentAction::Resume,
                        source: ConsentSource::Keyword,
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
        self.save(inbound, missing).await
    }

    /// Records an open message of a restored journal as answered, so that the server does not handle it again.
    ///
    /// Stop every server before the call, because a running handler would lose its claim.
    ///
    /// ```no_run
    /// use replyhook::reconcile::Reconciler;
    /// use replyhook::{AccountSid, Timestamp, store::StoreError, twilio::Message};
    ///
    /// # async fn mark(reconciler: Reconciler, account: AccountSid, listed: Vec<Message>, since: Timestamp)
    /// # -> Result<(), StoreError> {
    /// for answered in reconciler.missing(account, &listed, since).await?.answered_open {
    ///     reconciler.mark_answered(&answered).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn mark_answered(&self, answered: &AnsweredOpen) -> Result<(), StoreError> {
        // False means that the message is not open any more, so there is nothing to mark.
        let _ = self
            .store
            .mark_answered(answered.account, answered.message_sid)
            .await?;
        Ok(())
    }

    async fn save(&self, inbound: NewInbound, missing: &MissingMessage) -> Result<(), StoreError> {
        let inbound = Arc::new(inbound);
        if missing.already_answered {
            self.store.backfill_answered(inbound).await
        } else {
            self.store.backfill(inbound, None).await
        }
    }

    /// Returns the listed messages that Twilio has sent and that neither the journal nor the outbox has.
    async fn unrecognized_outbound(
        &self,
        account: AccountSid,
        listed: &[Message],
        since: Timestamp,
    ) -> Result<HashSet<MessageSid>, StoreError> {
        let mut replies = Replies::new(listed, since);
        // The reply to a message from just before `since` may be in the list.
        let earlier = since.checked_sub(CLOCK_SKEW).unwrap_or(since);
        for row in self.answered_rows(account, earlier).await? {
            replies.match_row(&row);
        }
        // Before `unmatched_rest_messages`: a send that is recorded in between is known to one of the two queries.
        let in_flight = self.match_in_flight(account, listed, since).await?;
        let mut unrecognized: HashSet<_> = replies.unmatched().collect();
        unrecognized.extend(self.unmatched_rest_messages(account, listed).await?);
        for sent in in_flight {
            unrecognized.remove(&sent.sid);
        }
        // A message that was not delivered proves no reply. `Replies` does not exclude such messages.
        let failed = listed.iter().filter(|message| !is_sent_outbound(message));
        for message in failed {
            unrecognized.remove(&message.sid);
        }
        Ok(unrecognized)
    }

    /// Finds the texts of the journal's TwiML replies that Twilio has not sent.
    ///
    /// Considers messages received since `since` and before `until`. Set `until` a minute before the time of the list:
    /// Twilio needs some time to send a reply. Sends nothing.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn unsent_replies(
        &self,
        account: AccountSid,
        listed: &[Message],
        since: Timestamp,
        until: Timestamp,
    ) -> Result<ReplyDiff, StoreError> {
        let mut diff = ReplyDiff::default();
        let mut sent = Replies::new(listed, since);
        let mut rows = self.answered_rows(account, since).await?;
        rows.retain(|row| (since..until).contains(&row.received_at));
        for row in rows {
            let Some(matches) = sent.match_row(&row) else {
                diff.expired += 1;
                continue;
            };
            diff.compared += matches.len() as u64;
            let unsent = matches.into_iter().filter(|reply| !reply.is_listed);
            diff.unsent.extend(unsent.map(|reply| UnsentReply {
                message_sid: row.sid,
                user: reply.to,
                received_at: row.received_at,
                text: RedactedText(reply.text),
            }));
        }
        diff.unsent.reverse();
        Ok(diff)
    }

    /// Returns the answered messages of an account since about `since`, newest first.
    ///
    /// [`Replies::match_row`] relies on the order: with equal texts, each message takes the earliest one sent after it,
    /// and the oldest message is left without one.
    async fn answered_rows(
        &self,
        account: AccountSid,
        since: Timestamp,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let mut answered: Vec<MessageRow> = Vec::new();
        let mut before_id = None;
        loop {
            let filter = MessageFilter {
                state: Some("answered".to_owned()),
                before_id,
                limit: ROWS_PER_QUERY,
                ..MessageFilter::default()
            };
            let rows = self.store.messages(filter).await?;
            // Stop only if the whole page is older: a backfilled message has a new id and an old time.
            let is_last = rows.iter().all(|row| row.received_at < since);
            before_id = rows.last().map(|last| last.id);
            answered.extend(
                rows.into_iter()
                    .filter(|row| same_account(row.account, account)),
            );
            if is_last {
                answered.sort_by_key(|row| std::cmp::Reverse((row.received_at, row.id)));
                return Ok(answered);
            }
        }
    }

    /// Returns a message of the journal; `None` if the journal does not have it.
    async fn find_row(
        &self,
        account: AccountSid,
        sid: MessageSid,
    ) -> Result<Option<MessageRow>, StoreError> {
        // `MessageFilter` has no account, but the journal's key is account and SID.
        let filter = MessageFilter {
            sid: Some(sid),
            limit: ROWS_PER_QUERY,
            ..MessageFilter::default()
        };
        let rows = self.store.messages(filter).await?;
        let mut rows = rows.into_iter();
        Ok(rows.find(|row| same_account(row.account, account)))
    }
}

/// Rebuilds the parameters of a message's webhook, as far as the REST API has them.
fn message_from_rest(
    account: AccountSid,
    listed: &Message,
    at: Timestamp,
) -> Option<InboundMessage> {
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
    let params: FormParams = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    InboundMessage::parse(params, at).ok()
}

/// Returns consent rules without confirmations.
// Backfilling sends no confirmation, so the journal must not record one.
fn silent_rules(keywords: Keywords) -> ConsentRules {
    let replies = ConsentReplies {
        stop: Document::empty(),
        start: Document::empty(),
    };
    ConsentRules::new(keywords, replies)
}

fn action(consent: &ConsentKeyword) -> Option<ConsentAction> {
    match consent {
        ConsentKeyword::Stop { .. } => Some(ConsentAction::OptOut),
        ConsentKeyword::Start { .. } => Some(ConsentAction::Resume),
        ConsentKeyword::Help => None,
    }
}

fn same_conversation(one: &InboundMessage, other: &InboundMessage) -> bool {
    // Senders of one Messaging Service share the user's consent.
    let same_service = one.messaging_service_sid.is_some()
        && one.messaging_service_sid == other.messaging_service_sid;
    one.from == other.from && (one.to == other.to || same_service)
}

impl fmt::Debug for MissingMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MissingMessage")
            .field("message_sid", &self.message.message_sid)
            .field("from", &self.message.from)
            .field("consent", &self.consent)
            .finish_non_exhaustive()
    }
}
