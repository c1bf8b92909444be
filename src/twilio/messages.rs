//! `Messages`: create, fetch, list.
//!
//! Source: Twilio's `OpenAPI` description, `/2010-04-01/Accounts/{AccountSid}/Messages.json`.

use std::fmt;

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::answer::{answer, next_page, with_form};
use super::{Client, Credentials, NewMessage, RestError};
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::Form;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::OpenWindow;
#[cfg(feature = "app")]
use crate::store::OutboundMessage;

/// The messages of one account.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn look(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// use replyhook::twilio::ListMessages;
///
/// let account = "AC00000000000000000000000000000001".parse().expect("a SID");
/// let messages = client.messages(account, &credentials);
/// let mut which = ListMessages::default();
/// which.to = Some("whatsapp:+15550001111".into());
/// let mut page = Some(messages.page(&which).await?);
/// while let Some(now) = page {
///     now.messages.iter().for_each(|message| println!("{} {}", message.sid, message.status.as_str()));
///     page = messages.next_page(&now).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a> {
    client: &'a Client,
    account: AccountSid,
    credentials: &'a Credentials,
}

/// A message as Twilio has it. Twilio may leave out any field.
///
/// Listed: see [`Messages`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// Its SID.
    pub sid: MessageSid,
    /// How far it has come.
    pub status: MessageStatus,
    /// `inbound`, `outbound-api`, `outbound-reply`, `outbound-call`.
    pub direction: Option<String>,
    /// Who sent it; missing as long as a Messaging Service has not chosen.
    pub from: Option<Address>,
    /// Who gets it.
    pub to: Option<Address>,
    /// Its text.
    pub body: Option<Text>,
    /// When it was made, RFC 2822.
    pub date_created: Option<String>,
    /// Why it failed.
    pub error_code: Option<ErrorCode>,
    /// The service that it was sent by, or came through.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// How many files belong to it.
    pub num_media: Option<u32>,
}

/// A page of a list.
///
/// One after the other: see [`Messages`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// Its messages, newest first.
    pub messages: Vec<Message>,
    /// Path and query of the next page.
    next: Option<String>,
}

/// A text of a message: comparable, and not shown by `Debug`.
///
/// ```
/// use replyhook::twilio::Text;
///
/// let text = Text("for one pair of eyes".to_owned());
/// assert!(!format!("{text:?}").contains("eyes"));
/// assert_eq!(text.0.len(), 20);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

/// Which messages to list, newest first.
///
/// Asked for: see [`Messages`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListMessages {
    /// Only those to this address.
    pub to: Option<Address>,
    /// Only those from this address.
    pub from: Option<Address>,
    /// Only those sent on or after this day, `YYYY-MM-DD` in UTC.
    pub sent_from: Option<String>,
    /// Most messages of the page; Twilio's own limit is 1000.
    pub page_size: Option<u16>,
}

/// How far Twilio's clock and ours may differ where a time of theirs is compared with one of ours.
#[cfg_attr(
    not(feature = "app"),
    expect(dead_code, reason = "who compares with the journal asks")
)]
pub(crate) const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

impl Message {
    /// When it was made, if Twilio says so in a way that can be read.
    pub fn made_at(&self) -> Option<Timestamp> {
        let date = self.date_created.as_deref()?;
        Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
    }

    /// Whether it may be what the outbox has: it goes the same way, says the same, and is not older than the call, or than
    /// what was to be sent.
    #[cfg(feature = "app")]
    pub(crate) fn may_be(&self, ours: &OutboundMessage) -> bool {
        let by_rest = self
            .direction
            .as_deref()
            .is_none_or(|direction| direction == "outbound-api");
        let service = ours.service.as_ref();
        // A service chooses its sender, which is not known.
        let by_us = self.from.as_ref().is_none_or(|from| *from == ours.us)
            || service.is_some_and(|service| service.as_str() == ours.us.as_str());
        let to_user = self.to.as_ref() == Some(&ours.user);
        let said = self.body.as_ref().map_or("", |body| body.0.as_str());
        // A template's text is Twilio's.
        let alike = ours.params.get("ContentSid").is_some()
            || ours.window.is_none()
            || said.trim() == ours.params.get("Body").unwrap_or_default().trim();
        let since = ours.sent_at.unwrap_or(ours.created_at);
        let since = since.checked_sub(CLOCK_SKEW).unwrap_or(since);
        by_rest && by_us && to_user && alike && self.made_at().is_none_or(|made| made >= since)
    }
}

impl<'a> Messages<'a> {
    pub(super) fn new(
        client: &'a Client,
        account: AccountSid,
        credentials: &'a Credentials,
    ) -> Self {
        Self {
            client,
            account,
            credentials,
        }
    }

    /// Sends a message. What comes back says that Twilio has taken it, not that it arrives.
    ///
    /// It takes proof that the user may be written to freely, since WhatsApp refuses a text outside of the customer service
    /// window only after Twilio has taken it (63016). Without, it does not compile:
    ///
    /// ```compile_fail,E0061
    /// # use replyhook::twilio::{Messages, NewMessage, RestError};
    /// # async fn send(messages: Messages<'_>, message: NewMessage) -> Result<(), RestError> {
    /// messages.create(&message).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// With it, it does:
    ///
    /// ```no_run
    /// # use replyhook::twilio::{Messages, NewMessage, RestError};
    /// # use replyhook::store::OpenWindow;
    /// # async fn send(messages: Messages<'_>, message: NewMessage, window: OpenWindow) -> Result<(), RestError> {
    /// messages.create(&message, &window).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RestError`]. Where [`RestError::repeat`] is [`Ambiguous`](super::Repeat::Ambiguous) the message may have been
    /// sent: look with [`Messages::list`] before sending it again.
    pub async fn create(
        &self,
        message: &NewMessage,
        window: &OpenWindow,
    ) -> Result<Message, RestError> {
        self.create_form(&message.form(), window).await
    }

    /// Sends a template, which needs no open window.
    ///
    /// # Errors
    /// As [`Messages::create`]; [`RestErrorKind::NoTemplate`](super::RestErrorKind::NoTemplate) for anything else.
    pub async fn create_template(&self, template: &NewMessage) -> Result<Message, RestError> {
        self.create_template_form(&template.form()).await
    }

    /// Sends what these parameters of `POST Messages` say.
    ///
    /// # Errors
    /// As [`Messages::create`].
    pub async fn create_form(
        &self,
        params: &Form,
        _window: &OpenWindow,
    ) -> Result<Message, RestError> {
        self.post(params).await
    }

    /// Sends the template (`ContentSid`) that these parameters of `POST Messages` name.
    ///
    /// # Errors
    /// As [`Messages::create_template`].
    pub async fn create_template_form(&self, params: &Form) -> Result<Message, RestError> {
        if params.get("ContentSid").is_none() {
            return Err(RestError::no_template());
        }
        self.post(params).await
    }

    async fn post(&self, params: &Form) -> Result<Message, RestError> {
        let request = self.request(Method::POST, "Messages.json")?;
        let wire: WireMessage = answer(with_form(request, params)).await?;
        wire.typed(StatusCode::CREATED)
    }

    /// Looks at one message.
    ///
    /// # Errors
    /// [`RestError`]; it changes nothing, so any may be repeated that is not refused.
    pub async fn fetch(&self, sid: MessageSid) -> Result<Message, RestError> {
        let request = self.request(Method::GET, &format!("Messages/{sid}.json"))?;
        let wire: WireMessage = answer(request).await?;
        wire.typed(StatusCode::OK)
    }

    /// Calls back a message that waits for its time.
    ///
    /// # Errors
    /// [`RestError`]: with code 30409 when it has left already. To call back twice does no harm, so any may be repeated
    /// that is not refused.
    pub async fn cancel(&self, sid: MessageSid) -> Result<Message, RestError> {
        let request = self.request(Method::POST, &format!("Messages/{sid}.json"))?;
        let canceled = MessageStatus::Canceled;
        let params = [("Status", canceled.as_str())].into_iter().collect();
        let wire: WireMessage = answer(with_form(request, &params)).await?;
        wire.typed(StatusCode::OK)
    }

    /// Lists one page of messages, newest first.
    ///
    /// # Errors
    /// [`RestError`]; it changes nothing, so any may be repeated that is not refused.
    pub async fn list(&self, which: &ListMessages) -> Result<Vec<Message>, RestError> {
        Ok(self.page(which).await?.messages)
    }

    /// The first page of a list; [`Messages::next_page`] gives those after it.
    ///
    /// # Errors
    /// As [`Messages::list`].
    pub async fn page(&self, which: &ListMessages) -> Result<Page, RestError> {
        let page_size = which.page_size.map(|size| size.to_string());
        let query = [
            ("To", which.to.as_ref().map(Address::as_str)),
            ("From", which.from.as_ref().map(Address::as_str)),
            ("DateSent>", which.sent_from.as_deref()),
            ("PageSize", page_size.as_deref()),
        ];
        let query: Form = query
            .iter()
            .filter_map(|(name, value)| Some((*name, (*value)?)))
            .collect();
        let account = self.account;
        let query = query.encode();
        self.read_page(&format!(
            "/2010-04-01/Accounts/{account}/Messages.json?{query}"
        ))
        .await
    }

    /// The page after a page; `None` after the last.
    ///
    /// # Errors
    /// As [`Messages::list`].
    pub async fn next_page(&self, page: &Page) -> Result<Option<Page>, RestError> {
        match &page.next {
            Some(next) => self.read_page(next).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read_page(&self, path: &str) -> Result<Page, RestError> {
        let request = self.client.request(Method::GET, path, self.credentials)?;
        let page: WirePage = answer(request).await?;
        let list = format!("/2010-04-01/Accounts/{}/Messages.json", self.account);
        let next = next_page(page.next_page_uri.as_deref(), &list)?;
        let messages = page
            .messages
            .into_iter()
            .map(|wire| wire.typed(StatusCode::OK))
            .collect::<Result<_, _>>()?;
        Ok(Page { messages, next })
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, RestError> {
        let account = self.account;
        let path = format!("/2010-04-01/Accounts/{account}/{path}");
        self.client.request(method, &path, self.credentials)
    }
}

#[derive(Deserialize)]
struct WirePage {
    messages: Vec<WireMessage>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct WireMessage {
    sid: Option<String>,
    status: Option<String>,
    direction: Option<String>,
    from: Option<String>,
    to: Option<String>,
    body: Option<String>,
    date_created: Option<String>,
    error_code: Option<u32>,
    messaging_service_sid: Option<String>,
    num_media: Option<String>,
}

impl WireMessage {
    fn typed(self, status: StatusCode) -> Result<Message, RestError> {
        let sid = self.sid.as_deref().unwrap_or_default();
        Ok(Message {
            sid: sid
                .parse()
                .map_err(|error| RestError::unreadable(status, error))?,
            status: MessageStatus::parse(self.status.as_deref().unwrap_or_default()),
            direction: self.direction,
            from: self.from.map(Address::from),
            to: self.to.map(Address::from),
            body: self.body.map(Text),
            date_created: self.date_created,
            error_code: self.error_code.map(ErrorCode),
            messaging_service_sid: self.messaging_service_sid.and_then(|sid| sid.parse().ok()),
            num_media: self.num_media.and_then(|number| number.parse().ok()),
        })
    }
}
