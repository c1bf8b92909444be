//! The `Messages` resource: create, fetch, cancel and list messages.
//!
//! Source: Twilio's `OpenAPI` description, `/2010-04-01/Accounts/{AccountSid}/Messages.json`.

use std::fmt;

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::error::RestError;
use super::http_client::AuthenticatedClient;
use super::new_message::{NewMessage, NewMessageContent};
use super::response::{
    check_next_page, response_date, send_and_parse, send_and_parse_with_headers, with_form,
};
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::message::MessageStatus;
#[cfg(feature = "app")]
use crate::reply::ContentShape;
use crate::sid::{AccountSid, MessageSid, MessagingServiceSid};
use crate::store::OpenWindow;
#[cfg(feature = "app")]
use crate::store::{OutboundMessage, TEMPLATE_NAME, TEMPLATE_SID};

/// The `Messages` resource of one account.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn list(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// use replyhook::twilio::ListMessages;
///
/// let account = "AC00000000000000000000000000000001".parse().expect("a SID");
/// let messages = client.messages(account, &credentials);
/// let mut filter = ListMessages::default();
/// filter.to = Some("whatsapp:+15550001111".into());
/// let mut next = Some(messages.page(&filter).await?);
/// while let Some(page) = next {
///     page.messages.iter().for_each(|message| println!("{} {}", message.sid, message.status.as_str()));
///     next = messages.next_page(&page).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a> {
    client: AuthenticatedClient<'a>,
    account: AccountSid,
}

/// A message at Twilio. Twilio may leave out any optional field. See [`Messages`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// SID of the message.
    pub sid: MessageSid,
    /// Delivery status.
    pub status: MessageStatus,
    /// `inbound`, `outbound-api`, `outbound-reply`, `outbound-call`.
    pub direction: Option<String>,
    /// Sender; `None` until a Messaging Service has chosen one.
    pub from: Option<Address>,
    /// Recipient.
    pub to: Option<Address>,
    /// Text.
    pub body: Option<RedactedText>,
    /// Creation time in RFC 2822 format.
    pub date_created: Option<String>,
    /// Error code of a failed message.
    pub error_code: Option<ErrorCode>,
    /// Messaging Service that sent or received the message.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// Number of media files.
    pub num_media: Option<u32>,
}

/// One page of a list of messages. See [`Messages`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// Messages of the page, newest first.
    pub messages: Vec<Message>,
    /// The time of the response by Twilio's clock, in whole seconds.
    pub answered_at: Option<Timestamp>,
    /// Path and query of the next page; `None` on the last page.
    next: Option<String>,
}

/// A message text that `Debug` hides. Texts can be compared.
///
/// ```
/// use replyhook::twilio::RedactedText;
///
/// let text = RedactedText("for one pair of eyes".to_owned());
/// assert!(!format!("{text:?}").contains("eyes"));
/// assert_eq!(text.0.len(), 20);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedText(pub String);

impl fmt::Debug for RedactedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedactedText({} bytes)", self.0.len())
    }
}

/// Filter and page size for listing messages. See [`Messages`] for an example.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListMessages {
    /// Only messages to this address.
    pub to: Option<Address>,
    /// Only messages from this address.
    pub from: Option<Address>,
    /// Only messages sent on or after this day, `YYYY-MM-DD` in UTC.
    pub sent_from: Option<String>,
    /// Maximum number of messages per page. Twilio allows up to 1000.
    pub page_size: Option<u16>,
}

/// Tolerance when a time of Twilio's clock is compared with one of the local clock.
#[cfg_attr(
    not(feature = "app"),
    expect(dead_code, reason = "used by modules of the feature app")
)]
pub(crate) const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

impl Message {
    /// Returns the creation time, if Twilio's date can be parsed.
    pub fn created_at(&self) -> Option<Timestamp> {
        let date = self.date_created.as_deref()?;
        Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
    }

    /// Returns true if this may be Twilio's copy of the message `outbound` of the outbox.
    ///
    /// Direction, sender, recipient and text must match. This message must not be older than the call for `outbound`,
    /// or than `outbound` itself if no call was recorded.
    #[cfg(feature = "app")]
    pub(crate) fn may_match(&self, outbound: &OutboundMessage) -> bool {
        // Twilio may leave out direction, sender and date. A missing one must not exclude the message: a sent message
        // that is overlooked may be sent again.
        let is_rest_message = self
            .direction
            .as_deref()
            .is_none_or(|direction| direction == "outbound-api");
        let service = outbound.service.as_ref();
        // A service chooses the sender, so the outbox does not know it: there, `outbound.sender` is the service's SID.
        let sender_matches = self
            .from
            .as_ref()
            .is_none_or(|from| *from == outbound.sender)
            || service.is_some_and(|service| service.as_str() == outbound.sender.as_str());
        let recipient_matches = self.to.as_ref() == Some(&outbound.user);
        let text = self.body.as_ref().map_or("", |body| body.0.as_str());
        // Twilio renders a template's text, so there is nothing to compare. With the window closed, the worker sends a
        // template in place of the text.
        let text_matches = outbound.params.get("ContentSid").is_some()
            || outbound.params.get(ContentShape::PARAM).is_some()
            || outbound.params.get(TEMPLATE_NAME).is_some()
            || outbound.params.get(TEMPLATE_SID).is_some()
            || outbound.window.is_none()
            || text.trim() == outbound.params.get("Body").unwrap_or_default().trim();
        // Twilio's clock may be behind the local one.
        let earliest = outbound.sent_at.unwrap_or(outbound.created_at);
        let earliest = earliest.checked_sub(CLOCK_SKEW).unwrap_or(earliest);
        is_rest_message
            && sender_matches
            && recipient_matches
            && text_matches
            && self
                .created_at()
                .is_none_or(|created_at| created_at >= earliest)
    }
}

impl<'a> Messages<'a> {
    pub(super) fn new(client: AuthenticatedClient<'a>, account: AccountSid) -> Self {
        Self { client, account }
    }

    /// Sends a message. Success means that Twilio accepted the message, not that it was delivered.
    ///
    /// `window` proves that free-form messages to the user are allowed. Outside the customer service window, WhatsApp
    /// rejects them only after Twilio has accepted them (63016). A call without the proof does not compile:
    ///
    /// ```compile_fail,E0061
    /// # use replyhook::twilio::{Messages, NewMessage, RestError};
    /// # async fn send(messages: Messages<'_>, message: NewMessage) -> Result<(), RestError> {
    /// messages.create(&message).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// With the proof:
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
    /// [`RestError`]. If [`RestError::retry_advice`] is [`Ambiguous`](super::RetryAdvice::Ambiguous), the message may
    /// have been sent: check [`Messages::list`] before you send it again.
    pub async fn create(
        &self,
        message: &NewMessage,
        window: &OpenWindow,
    ) -> Result<Message, RestError> {
        if matches!(message.content, NewMessageContent::Reply(_)) {
            return Err(RestError::outbound_only());
        }
        self.create_form(&message.form(), window).await
    }

    /// Sends a template. Templates do not need an open window.
    ///
    /// # Errors
    /// As [`Messages::create`], and [`RestErrorKind::TemplateRequired`](super::RestErrorKind::TemplateRequired) for
    /// any other message.
    pub async fn create_template(&self, template: &NewMessage) -> Result<Message, RestError> {
        self.create_template_form(&template.form()).await
    }

    /// Sends a message from its parameters of `POST Messages`.
    ///
    /// # Errors
    /// As [`Messages::create`].
    pub async fn create_form(
        &self,
        params: &FormParams,
        _window: &OpenWindow,
    ) -> Result<Message, RestError> {
        self.post(params).await
    }

    /// Sends a template from its parameters of `POST Messages`, which must contain `ContentSid`.
    ///
    /// # Errors
    /// As [`Messages::create_template`].
    pub async fn create_template_form(&self, params: &FormParams) -> Result<Message, RestError> {
        if params.get("ContentSid").is_none() {
            return Err(RestError::template_required());
        }
        self.post(params).await
    }

    // Not repeated here on any error: `POST Messages` has no idempotency key.
    async fn post(&self, params: &FormParams) -> Result<Message, RestError> {
        let request = self.request(Method::POST, "Messages.json")?;
        let wire: MessageResource = send_and_parse(with_form(request, params)).await?;
        wire.into_message(StatusCode::CREATED)
    }

    /// Fetches one message.
    ///
    /// # Errors
    /// [`RestError`]. The call changes nothing and may be repeated unless Twilio rejected it.
    pub async fn fetch(&self, sid: MessageSid) -> Result<Message, RestError> {
        let request = self.request(Method::GET, &format!("Messages/{sid}.json"))?;
        let wire: MessageResource = send_and_parse(request).await?;
        wire.into_message(StatusCode::OK)
    }

    /// Cancels a scheduled message.
    ///
    /// # Errors
    /// [`RestError`], with code 30409 if the message has already been sent. Canceling twice is harmless, so the call
    /// may be repeated unless Twilio rejected it.
    pub async fn cancel(&self, sid: MessageSid) -> Result<Message, RestError> {
        let request = self.request(Method::POST, &format!("Messages/{sid}.json"))?;
        let canceled = MessageStatus::Canceled;
        let params = [("Status", canceled.as_str())].into_iter().collect();
        let wire: MessageResource = send_and_parse(with_form(request, &params)).await?;
        wire.into_message(StatusCode::OK)
    }

    /// Lists one page of messages, newest first.
    ///
    /// # Errors
    /// [`RestError`]. The call changes nothing and may be repeated unless Twilio rejected it.
    pub async fn list(&self, filter: &ListMessages) -> Result<Vec<Message>, RestError> {
        Ok(self.page(filter).await?.messages)
    }

    /// Returns the first page of a list. [`Messages::next_page`] returns the following pages.
    ///
    /// # Errors
    /// As [`Messages::list`].
    pub async fn page(&self, filter: &ListMessages) -> Result<Page, RestError> {
        let page_size = filter.page_size.map(|size| size.to_string());
        let query = [
            ("To", filter.to.as_ref().map(Address::as_str)),
            ("From", filter.from.as_ref().map(Address::as_str)),
            ("DateSent>", filter.sent_from.as_deref()),
            ("PageSize", page_size.as_deref()),
        ];
        let query: FormParams = query
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

    /// Returns the page after `page`, or `None` after the last.
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
        let request = self.client.request(Method::GET, path)?;
        let (headers, page): (_, MessagesPage) = send_and_parse_with_headers(request).await?;
        // `check_next_page` rejects a URL outside of this account's list: the next call sends the credentials there.
        let list = format!("/2010-04-01/Accounts/{}/Messages.json", self.account);
        let next = check_next_page(page.next_page_uri.as_deref(), &list)?;
        let messages = page
            .messages
            .into_iter()
            .map(|wire| wire.into_message(StatusCode::OK))
            .collect::<Result<_, _>>()?;
        Ok(Page {
            messages,
            answered_at: response_date(&headers),
            next,
        })
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, RestError> {
        let account = self.account;
        let path = format!("/2010-04-01/Accounts/{account}/{path}");
        self.client.request(method, &path)
    }
}

#[derive(Deserialize)]
struct MessagesPage {
    messages: Vec<MessageResource>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct MessageResource {
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

impl MessageResource {
    fn into_message(self, status: StatusCode) -> Result<Message, RestError> {
        // Only the SID is required; a missing or unexpected other field does not make the message unreadable.
        let sid = self.sid.as_deref().unwrap_or_default();
        Ok(Message {
            sid: sid
                .parse()
                .map_err(|error| RestError::unreadable(status, error))?,
            status: MessageStatus::parse(self.status.as_deref().unwrap_or_default()),
            direction: self.direction,
            from: self.from.map(Address::from),
            to: self.to.map(Address::from),
            body: self.body.map(RedactedText),
            date_created: self.date_created,
            error_code: self.error_code.map(ErrorCode),
            messaging_service_sid: self.messaging_service_sid.and_then(|sid| sid.parse().ok()),
            num_media: self.num_media.and_then(|number| number.parse().ok()),
        })
    }
}
