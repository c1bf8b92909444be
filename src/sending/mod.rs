//! Sending first: a message that answers nothing, from your program or by command.
//!
//! It is looked at before anything is kept: is it something that Twilio takes, may it be said to this user now, is its
//! template approved and are its variables all there. Then it goes into the outbox, in one step with its key, and from there the way of every message that
//! goes by REST: consent and window are looked at once more in the moment it is claimed, and it is never sent twice.
//!
//! ```no_run
//! use replyhook::App;
//! use replyhook::twilio::NewMessage;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = App::builder().build()?;
//! let sender = app.sender();
//! tokio::spawn(app.run());
//! let ready = NewMessage::template("whatsapp:+15550001111", "HX00000000000000000000000000000001", [("1", "42")])
//!     .from("whatsapp:+15550002222");
//! // Asked for again, after a crash or a timeout, this sends nothing and gives the same number.
//! let sent = sender.send_once("order-42-ready", &ready).await?;
//! println!("message {} of the outbox", sent.id);
//! # Ok(()) }
//! ```

mod check;
mod error;
mod templates;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::templates::Templates;
use crate::address::{Address, Channel};
use crate::clock::Clock;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::TokenSlot;
use crate::store::{NewReply, ReplyRow, ReplyState, SendKey, Store, Submission, Submitted};
use crate::twilio::{Client, Content, Credentials, NewMessage};
pub use error::{SendError, SendErrorKind};

/// Sends first. A clone is the same sender.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use replyhook::sending::{SendErrorKind, SendRules, Sender};
/// use replyhook::store::{Access, Store, sqlite::SqliteStore};
/// use replyhook::{SystemClock, twilio::NewMessage};
///
/// let store = Arc::new(SqliteStore::memory());
/// store.open(Access::Owner).await?;
/// let account = Some("AC00000000000000000000000000000001".parse()?);
/// let rules = SendRules { account, consent_required: true, per_second: 10 };
/// let sender = Sender::new(store, Arc::new(SystemClock), rules, None);
///
/// let by_sms = NewMessage::text("+15550001111", "Your order is ready.").from("+15550002222");
/// let sent = sender.send_once("order-42-ready", &by_sms).await?;
/// let again = sender.send_once("order-42-ready", &by_sms).await?;
/// assert_eq!((again.id, again.repeated), (sent.id, true));
/// let unasked = NewMessage::text("whatsapp:+15550001111", "News!").from("whatsapp:+15550002222");
/// assert_eq!(sender.send(&unasked).await.unwrap_err().kind(), SendErrorKind::WindowClosed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Sender {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    rules: SendRules,
    templates: Arc<Templates>,
    /// Woken when there is something to send.
    outbox: Option<Arc<Notify>>,
}

/// As whom is sent, and under which conditions.
///
/// Given: see [`Sender`]; `App::sender` has those of the settings.
#[derive(Debug, Clone)]
pub struct SendRules {
    /// The account that sends; without one nothing is sent.
    pub account: Option<AccountSid>,
    /// Whether a WhatsApp template outside of the window needs a recorded opt-in.
    pub consent_required: bool,
    /// Messages of one of our senders a second; 0 for no limit.
    pub per_second: u32,
}

/// A message that was taken.
///
/// As it comes back: see [`Sender`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing {
    /// Its number in the outbox, for [`Sender::outgoing`].
    pub id: i64,
    /// Whether its key was taken before, so that nothing was added.
    pub repeated: bool,
    /// Whether it says something else than the message that came with its key, or to somebody else: two messages have got
    /// one key, and the second was not sent. Known for as long as its content is kept.
    pub differs: bool,
    /// Where it stands; `None` once it is forgotten, after `store.retention_days`.
    pub state: Option<ReplyState>,
    /// Twilio's SID for it, once it is sent.
    pub sid: Option<MessageSid>,
    /// What became of it after that, in Twilio's word.
    pub status: Option<String>,
    /// Why it failed, as Twilio counts it.
    pub error_code: Option<u32>,
    /// In words, without content.
    pub reason: Option<String>,
}

impl Outgoing {
    fn new(id: i64, repeated: bool, row: Option<ReplyRow>) -> Self {
        let state = row.as_ref().map(|row| row.state);
        let sid = row.as_ref().and_then(|row| row.sid);
        let error_code = row.as_ref().and_then(|row| row.error_code);
        let (status, reason) = row.map_or((None, None), |row| (row.status, row.reason));
        Self {
            id,
            repeated,
            differs: false,
            state,
            sid,
            status,
            error_code,
            reason,
        }
    }
}

impl Sender {
    /// A sender that puts what it takes into this store; a server on the same store delivers it. [`App::sender`] gives
    /// the one of a running app.
    ///
    /// `templates` is where templates are looked at, `https://content.twilio.com`, and as whom: their approval and their
    /// variables. Without it nobody asks, and Twilio decides.
    ///
    /// [`App::sender`]: crate::App::sender
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        rules: SendRules,
        templates: Option<(Client, Credentials)>,
    ) -> Self {
        Self {
            store,
            clock,
            rules,
            templates: Arc::new(Templates::new(templates)),
            outbox: None,
        }
    }

    /// The same, which wakes who delivers.
    pub(crate) fn waking(mut self, outbox: Arc<Notify>) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// Takes a message: what comes back is in the outbox, and will be sent once. Window and consent are looked at in the
    /// transaction that takes it, and once more when it is sent.
    ///
    /// # Errors
    /// [`SendError`]: it may not be said, or is nothing that Twilio takes, or the store is away. Nothing was taken, unless
    /// the store broke off in the middle; where that matters, use [`Sender::send_once`].
    pub async fn send(&self, message: &NewMessage) -> Result<Outgoing, SendError> {
        self.take(None, message).await
    }

    /// Takes a message under a key of yours, such as `order-42-ready`: whatever comes a second time with this key, at once
    /// or after a restart, gets the first message's number and SID, and sends nothing, also where it says something else
    /// ([`Outgoing::differs`]). Keys are kept for `store.retention_days` and 400 days more.
    ///
    /// # Errors
    /// As [`Sender::send`]. A message that was refused has not used up its key.
    pub async fn send_once(&self, key: &str, message: &NewMessage) -> Result<Outgoing, SendError> {
        self.take(Some(SendKey::new(key)), message).await
    }

    /// Looks at a message as [`Sender::send_once`] does and takes nothing. Returns the message that has the key.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn check(
        &self,
        key: Option<&str>,
        message: &NewMessage,
    ) -> Result<Option<Outgoing>, SendError> {
        let key = key.map(SendKey::new);
        let known = self.known(key, message).await?;
        if known.is_none() {
            self.checked(key, message).await?;
        }
        Ok(known)
    }

    /// Where a message stands; `None` once it is forgotten.
    ///
    /// # Errors
    /// [`SendErrorKind::Store`].
    pub async fn outgoing(&self, id: i64) -> Result<Option<Outgoing>, SendError> {
        let row = self.store.outgoing(id).await?;
        Ok(row.map(|row| Outgoing::new(id, false, Some(row))))
    }

    async fn take(
        &self,
        key: Option<SendKey>,
        message: &NewMessage,
    ) -> Result<Outgoing, SendError> {
        // First: what was sent once may not be sayable any more.
        if let Some(known) = self.known(key, message).await? {
            return Ok(known);
        }
        let submission = self.checked(key, message).await?;
        let submitted = self.store.submit(submission, self.clock.now()).await?;
        match submitted {
            Submitted::Known(id) => self.repeated(id, message).await,
            Submitted::Refused(refusal) => Err(refusal.into()),
            Submitted::New(id) => {
                if let Some(outbox) = &self.outbox {
                    outbox.notify_one();
                }
                Ok(Outgoing {
                    state: Some(ReplyState::Pending),
                    ..Outgoing::new(id, false, None)
                })
            }
        }
    }

    /// The message that has the key.
    async fn known(
        &self,
        key: Option<SendKey>,
        message: &NewMessage,
    ) -> Result<Option<Outgoing>, SendError> {
        let Some(key) = key else { return Ok(None) };
        match self.store.keyed(key).await? {
            Some(id) => self.repeated(id, message).await.map(Some),
            None => Ok(None),
        }
    }

    async fn repeated(&self, id: i64, message: &NewMessage) -> Result<Outgoing, SendError> {
        let row = self.store.outgoing(id).await?;
        let kept = row.as_ref().and_then(|row| row.params.as_ref());
        let differs = kept.is_some_and(|kept| kept.0 != message.form().encode());
        Ok(Outgoing {
            differs,
            ..Outgoing::new(id, true, row)
        })
    }

    /// What may be taken, as far as can be told before it is.
    async fn checked(
        &self,
        key: Option<SendKey>,
        message: &NewMessage,
    ) -> Result<Submission, SendError> {
        let now = self.clock.now();
        check::check(message, now)?;
        let submission = self.submission(key, message, now)?;
        let new = &submission.message;
        let standing = self
            .store
            .standing(&new.us, new.service, &new.user, submission.due)
            .await?;
        if let Some(refusal) = standing.refusal(new.template, submission.consent_required) {
            return Err(refusal.into());
        }
        if let Content::Template { sid, variables } = &message.content {
            let template = self.templates.of(sid, now).await;
            if *message.to.channel() == Channel::WhatsApp {
                template.is_approved(standing.window_open)?;
            }
            template.takes(variables)?;
        }
        Ok(submission)
    }

    fn submission(
        &self,
        key: Option<SendKey>,
        message: &NewMessage,
        now: crate::clock::Timestamp,
    ) -> Result<Submission, SendError> {
        let account = self.rules.account;
        let account = account.ok_or_else(|| SendError::new(SendErrorKind::NoAccount))?;
        let service = message.messaging_service_sid;
        // Where a service chooses the sender, it stands for all of its senders.
        let us = match (&message.from, &service) {
            (Some(from), _) => from.clone(),
            (None, service) => Address::parse(service.map_or_else(String::new, |s| s.to_string())),
        };
        Ok(Submission {
            message: NewReply {
                account,
                slot: TokenSlot::Primary,
                us,
                user: message.to.clone(),
                service,
                params: message.form(),
                template: matches!(message.content, Content::Template { .. }),
            },
            key,
            due: message.send_at.unwrap_or(now),
            pace: self.rules.pace(),
            consent_required: self.rules.consent_required,
        })
    }
}

impl SendRules {
    /// Between two messages of one sender.
    fn pace(&self) -> Duration {
        Duration::from_secs(1)
            .checked_div(self.per_second)
            .unwrap_or_default()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
