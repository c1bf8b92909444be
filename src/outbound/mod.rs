//! Outbound messages: messages that do not reply to a user, sent by your program or by the command `replyhook send`.
//!
//! [`OutboundClient`] checks a message before it queues it: Twilio's formal rules, consent and customer service
//! window, and a template's approval and variables. One transaction stores the message and its idempotency key in the
//! outbox. The outbox worker delivers it like a late reply: it checks consent and window again when it claims the
//! message. A message is sent at most once, or at least once with `outbound.on_unknown = "resend"`.
//!
//! ```no_run
//! use replyhook::App;
//! use replyhook::twilio::NewMessage;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = App::builder().build()?;
//! let outbound = app.outbound();
//! tokio::spawn(app.run());
//! let ready = NewMessage::template("whatsapp:+15550001111", "HX00000000000000000000000000000001", [("1", "42")])
//!     .from("whatsapp:+15550002222");
//! // Repeating this after a crash or a timeout sends nothing and returns the same ID.
//! let queued = outbound.send_once("order-42-ready", &ready).await?;
//! println!("queued as outbound message {}", queued.id);
//! # Ok(()) }
//! ```

mod check;
mod error;
mod reply_parts;
mod templates;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::reply_parts::{QuestionDefaults, ReplyPart, ReplyParts};
use self::templates::{TemplateCache, TemplateInfo};
use crate::address::{Address, Channel};
use crate::clock::{Clock, after};
use crate::reloadable::Reloadable;
use crate::reply::{TemplateContent, TemplateKey};
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;
use crate::store::{
    IdempotencyKey, KeyedMessage, NewOutbound, OutboundRow, OutboundState, QuestionChange, Store,
    StoreHandle, Submission, SubmitOutcome,
};
use crate::twilio::{Client, Credentials, NewMessage, NewMessageContent};
pub use error::{SendError, SendErrorKind};

/// Client that queues outbound messages. Clones share the same store and template cache.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use replyhook::outbound::{OutboundClient, OutboundConfig, SendErrorKind};
/// use replyhook::store::{Access, StoreHandle, sqlite::SqliteStore};
/// use replyhook::{SystemClock, twilio::NewMessage};
///
/// let store = StoreHandle::from(SqliteStore::memory());
/// store.open(Access::Owner).await?;
/// let account = Some("AC00000000000000000000000000000001".parse()?);
/// let config = OutboundConfig { account, consent_required: true, rate_per_second: 10 };
/// let outbound = OutboundClient::new(store, Arc::new(SystemClock), config, None);
///
/// let sms = NewMessage::text("+15550001111", "Your order is ready.").from("+15550002222");
/// let first = outbound.send_once("order-42-ready", &sms).await?;
/// let again = outbound.send_once("order-42-ready", &sms).await?;
/// assert_eq!((again.id, again.is_duplicate), (first.id, true));
/// let news = NewMessage::text("whatsapp:+15550001111", "News!").from("whatsapp:+15550002222");
/// assert_eq!(outbound.send(&news).await.unwrap_err().kind(), SendErrorKind::WindowClosed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct OutboundClient {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: OutboundConfig,
    account: Reloadable<SendingAccount>,
    templates: Arc<TemplateCache>,
    /// Wakes the outbox worker of this process. Without it, a worker finds the message when it next polls the store.
    outbox_notify: Option<Arc<Notify>>,
    questions: QuestionDefaults,
}

/// Account, consent rule and rate limit of outbound messages.
///
/// [`App::outbound`](crate::App::outbound) takes them from the settings. See [`OutboundClient`] for an example.
#[derive(Debug, Clone)]
pub struct OutboundConfig {
    /// Account that sends. Without it every message is rejected.
    pub account: Option<AccountSid>,
    /// Requires a recorded opt-in for a WhatsApp template outside the customer service window.
    pub consent_required: bool,
    /// Maximum number of messages per second and sender; 0 means no limit.
    pub rate_per_second: u32,
}

/// The account that sends outbound messages, with the credentials for the API of its templates.
pub(crate) struct SendingAccount {
    pub(crate) sid: Option<AccountSid>,
    /// Without them, templates are not checked.
    pub(crate) credentials: Option<Credentials>,
}

/// A queued message and its current state. See [`OutboundClient`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// ID in the outbox, for [`OutboundClient::receipt`].
    pub id: i64,
    /// True if the idempotency key was used before, so nothing was queued.
    pub is_duplicate: bool,
    /// True if the key was used for a message with other parameters in any of its parts, which means that this message
    /// was not sent.
    pub differs: bool,
    /// State in the outbox; `None` once the message is deleted, after `store.retention_days`.
    pub state: Option<OutboundState>,
    /// Twilio's SID of the message, once it is sent.
    pub sid: Option<MessageSid>,
    /// Latest delivery status from Twilio.
    pub status: Option<String>,
    /// Twilio's error code of a failed message.
    pub error_code: Option<u32>,
    /// Reason of a failure, without message content.
    pub reason: Option<String>,
}

impl SendReceipt {
    fn new(id: i64, is_duplicate: bool, row: Option<OutboundRow>) -> Self {
        let state = row.as_ref().map(|row| row.state);
        let sid = row.as_ref().and_then(|row| row.sid);
        let error_code = row.as_ref().and_then(|row| row.error_code);
        let (status, reason) = row.map_or((None, None), |row| (row.status, row.reason));
        Self {
            id,
            is_duplicate,
            differs: false,
            state,
            sid,
            status,
            error_code,
            reason,
        }
    }
}

impl OutboundClient {
    /// Creates a client that queues messages in `store`. A server on the same store delivers them.
    ///
    /// [`App::outbound`](crate::App::outbound) returns the client of an app. `templates` is a client of
    /// `https://content.twilio.com` with its credentials, to check approval and variables of templates. Without it,
    /// templates are not checked, and Twilio decides when they are sent.
    pub fn new(
        store: impl Into<StoreHandle>,
        clock: Arc<dyn Clock>,
        config: OutboundConfig,
        templates: Option<(Client, Credentials)>,
    ) -> Self {
        let (client, credentials) = templates.unzip();
        Self {
            store: store.into().0,
            clock,
            account: Reloadable::fixed(SendingAccount {
                sid: config.account,
                credentials,
            }),
            config,
            templates: Arc::new(TemplateCache::new(client)),
            outbox_notify: None,
            questions: QuestionDefaults::default(),
        }
    }

    /// Sets the texts of questions with choices that have none of their own, and the time after which a question is over:
    /// `reply.choices_button`, `reply.choices_hint` and `reply.choices_ttl`.
    ///
    /// [`App::outbound`](crate::App::outbound) takes them from the settings.
    #[must_use]
    pub fn with_choices(
        mut self,
        button: impl Into<String>,
        hint: impl Into<String>,
        ttl: Duration,
    ) -> Self {
        self.questions = QuestionDefaults {
            button: button.into(),
            hint: hint.into(),
            ttl,
        };
        self
    }

    /// Replaces account and credentials by those of each call, which a reload of the settings may change. `templates`
    /// is the client of the API of templates.
    pub(crate) fn following(
        mut self,
        account: Reloadable<SendingAccount>,
        templates: Client,
    ) -> Self {
        self.account = account;
        self.templates = Arc::new(TemplateCache::new(Some(templates)));
        self
    }

    /// Sets the notification that wakes the outbox worker.
    pub(crate) fn waking(mut self, outbox: Arc<Notify>) -> Self {
        self.outbox_notify = Some(outbox);
        self
    }

    /// Returns the account that sends.
    pub(crate) fn account(&self) -> Option<AccountSid> {
        self.account.load().sid
    }

    /// Returns a client that sends for another account.
    pub(crate) fn for_account(
        &self,
        account: AccountSid,
        credentials: Option<Credentials>,
    ) -> Self {
        Self {
            account: Reloadable::fixed(SendingAccount {
                sid: Some(account),
                credentials,
            }),
            ..self.clone()
        }
    }

    /// Queues a message, which a running server then sends.
    ///
    /// Customer service window and consent are checked in the transaction that queues the message, and again when it is
    /// sent.
    ///
    /// # Errors
    /// [`SendError`] if the message is not allowed or invalid, or if the store is unavailable. Then nothing was
    /// queued, unless the connection to the store broke during the transaction. Use [`OutboundClient::send_once`] to
    /// repeat safely.
    pub async fn send(&self, message: &NewMessage) -> Result<SendReceipt, SendError> {
        self.submit(None, message).await
    }

    /// Queues a message under an idempotency key that you choose, such as `order-42-ready`.
    ///
    /// A further call with the same key, concurrent or after a restart, queues nothing and returns the first message,
    /// even if the parameters differ ([`SendReceipt::differs`]). Keys are stored for `store.retention_days` plus 400
    /// days.
    ///
    /// # Errors
    /// As [`OutboundClient::send`]. A rejected message does not use up its key.
    pub async fn send_once(
        &self,
        key: &str,
        message: &NewMessage,
    ) -> Result<SendReceipt, SendError> {
        self.submit(Some(IdempotencyKey::new(key)), message).await
    }

    /// Checks a message as [`OutboundClient::send_once`] does, without queueing it. Returns the message that has the
    /// key.
    ///
    /// # Errors
    /// As [`OutboundClient::send`].
    pub async fn check(
        &self,
        key: Option<&str>,
        message: &NewMessage,
    ) -> Result<Option<SendReceipt>, SendError> {
        let key = key.map(IdempotencyKey::new);
        let existing = self.find_by_key(key, message).await?;
        if existing.is_none() {
            self.check_submission(key, message).await?;
        }
        Ok(existing)
    }

    /// Returns the current state of a message; `None` if the outbox has no message with this ID.
    ///
    /// # Errors
    /// [`SendErrorKind::Store`].
    pub async fn receipt(&self, id: i64) -> Result<Option<SendReceipt>, SendError> {
        let row = self.store.outbound(id).await?;
        Ok(row.map(|row| SendReceipt::new(id, false, Some(row))))
    }

    async fn submit(
        &self,
        key: Option<IdempotencyKey>,
        message: &NewMessage,
    ) -> Result<SendReceipt, SendError> {
        // Look up the key before any check: the window of a message that was sent may have closed in the meantime, and
        // the caller still has to get the first message.
        if let Some(existing) = self.find_by_key(key, message).await? {
            return Ok(existing);
        }
        let submission = self.check_submission(key, message).await?;
        // `submit` checks key, consent and window again in its transaction. A concurrent call may have used the key
        // since `find_by_key`, and the user may have opted out since `check_submission`.
        let outcome = self.store.submit(submission, self.clock.now()).await?;
        match outcome {
            // A concurrent call has used the key.
            SubmitOutcome::Duplicate(id) => {
                let first = self.find_by_key(key, message).await?;
                Ok(first.unwrap_or_else(|| SendReceipt::new(id, true, None)))
            }
            SubmitOutcome::Ineligible(rejection) => Err(rejection.into()),
            SubmitOutcome::Queued(id) => {
                // After the commit: a worker that is woken earlier would not find the message.
                if let Some(outbox) = &self.outbox_notify {
                    outbox.notify_one();
                }
                Ok(SendReceipt {
                    state: Some(OutboundState::Pending),
                    ..SendReceipt::new(id, false, None)
                })
            }
        }
    }

    /// Returns the message that has the key.
    async fn find_by_key(
        &self,
        key: Option<IdempotencyKey>,
        message: &NewMessage,
    ) -> Result<Option<SendReceipt>, SendError> {
        let Some(key) = key else { return Ok(None) };
        match self.store.find_by_key(key).await? {
            Some(first) => self.duplicate_receipt(first, key, message).await.map(Some),
            None => Ok(None),
        }
    }

    async fn duplicate_receipt(
        &self,
        first: KeyedMessage,
        key: IdempotencyKey,
        message: &NewMessage,
    ) -> Result<SendReceipt, SendError> {
        let row = self.store.outbound(first.id).await?;
        // An invalid message was never sent, so it differs from any.
        let parts = self.parts(message, Some(key)).ok();
        let given = parts.map(|parts| key.fingerprint(parts.parts.iter().map(|part| &part.params)));
        Ok(SendReceipt {
            differs: given != Some(first.fingerprint),
            ..SendReceipt::new(first.id, true, row)
        })
    }

    /// Checks a message, and returns its submission.
    async fn check_submission(
        &self,
        key: Option<IdempotencyKey>,
        message: &NewMessage,
    ) -> Result<Submission, SendError> {
        let now = self.clock.now();
        check::check(message, now)?;
        let parts = self.parts(message, key)?;
        let templates = parts.templates();
        let submission = self.build_submission(key, message, parts, now)?;
        let outbound = &submission.message;
        let eligibility = self
            .store
            .eligibility(
                &outbound.sender,
                outbound.service,
                &outbound.user,
                submission.due,
            )
            .await?;
        // Checked before the template lookup, which may call Twilio.
        if let Some(rejection) =
            eligibility.ineligible(submission.is_template(), submission.consent_required)
        {
            return Err(rejection.into());
        }
        self.check_templates(message.to.channel(), &templates, eligibility.window_open)
            .await?;
        Ok(submission)
    }

    /// Checks the templates of a message: their approval by WhatsApp, and their variables.
    async fn check_templates(
        &self,
        channel: &Channel,
        templates: &[TemplateContent],
        is_window_open: bool,
    ) -> Result<(), SendError> {
        let account = self.account.load();
        let (credentials, now) = (account.credentials.as_ref(), self.clock.now());
        for TemplateContent { key, variables } in templates {
            let sid = match key {
                TemplateKey::Sid(sid) => Some(sid.clone()),
                TemplateKey::Name { name, language } => {
                    let find = self.templates.find(name, language, credentials, now);
                    find.await?
                }
            };
            let template = match sid {
                Some(sid) => self.templates.look_up(&sid, credentials, now).await,
                None => TemplateInfo::UNAVAILABLE,
            };
            template.check_channel(channel)?;
            // Only WhatsApp requires approval; on other channels a template is plain content.
            if *channel == Channel::WhatsApp {
                template.check_approved(is_window_open)?;
                template.check_values(variables, is_window_open)?;
            }
            template.check_variables(variables)?;
        }
        Ok(())
    }

    /// Returns the parts of a message, which are one unless it has a reply.
    fn parts(
        &self,
        message: &NewMessage,
        key: Option<IdempotencyKey>,
    ) -> Result<ReplyParts, SendError> {
        let template = match &message.content {
            NewMessageContent::Reply(reply) => {
                let account = self.account.load().sid;
                return ReplyParts::render(message, reply, account, key, &self.questions);
            }
            NewMessageContent::Template { sid, variables } => Some(TemplateContent {
                key: TemplateKey::Sid(sid.clone()),
                variables: variables.clone(),
            }),
            NewMessageContent::Text(_) | NewMessageContent::Location(_) => None,
        };
        Ok(ReplyParts::single(message.form(), template))
    }

    fn build_submission(
        &self,
        key: Option<IdempotencyKey>,
        message: &NewMessage,
        parts: ReplyParts,
        now: crate::clock::Timestamp,
    ) -> Result<Submission, SendError> {
        let account = self.account.load().sid;
        let account = account.ok_or_else(|| SendError::new(SendErrorKind::NoAccount))?;
        let service = message.messaging_service_sid;
        // If the Messaging Service chooses the sender, the service's SID stands for all of its senders: an opt-out
        // from any sender counts.
        let sender = match (&message.from, &service) {
            (Some(from), _) => from.normalized(),
            (None, service) => Address::parse(service.map_or_else(String::new, |s| s.to_string())),
        };
        let outbound = |part: ReplyPart| NewOutbound {
            account,
            auth_token: AuthTokenKind::Primary,
            sender: sender.clone(),
            user: message.to.normalized(),
            service,
            params: part.params,
            template: part.template.is_some(),
        };
        let question = parts.question.map(|question| QuestionChange::Ask {
            question: Box::new(question),
            expires_at: after(now, self.questions.ttl),
        });
        let mut earlier_parts: Vec<_> = parts.parts.into_iter().map(outbound).collect();
        // `render` returns an error for a reply without parts.
        let last = earlier_parts.pop();
        Ok(Submission {
            message: last.ok_or_else(|| SendError::invalid("nothing to send"))?,
            earlier_parts,
            question,
            key,
            // The window must be open when the user gets the message, not when it is queued.
            due: message.send_at.unwrap_or(now),
            min_interval: self.config.min_interval(),
            consent_required: self.config.consent_required,
        })
    }
}

impl OutboundConfig {
    /// Returns the interval between two messages of one sender; zero without a limit.
    // `checked_div` returns `None` for a rate of 0.
    fn min_interval(&self) -> Duration {
        Duration::from_secs(1)
            .checked_div(self.rate_per_second)
            .unwrap_or_default()
    }
}

impl fmt::Debug for OutboundClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundClient")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
