//! Replies of a bot, independent of TwiML and the REST API: a [`Reply`] consists of messages, and [`IntoReply`] creates
//! it.
//!
//! ```
//! use replyhook::reply::{Media, Reply, ReplyMessage};
//!
//! let reply = Reply::text("Here it is.")
//!     .and(ReplyMessage::text("Your receipt").media(Media::url("https://cdn.example.com/r.png")));
//! assert!(!reply.is_empty());
//! ```

#[cfg(feature = "app")]
pub(crate) mod kinds;
mod markup;
#[cfg(any(feature = "app", feature = "emulator"))]
pub(crate) mod names;
mod segments;
mod split;

#[cfg(feature = "app")]
pub use kinds::MediaRefusal;
pub use markup::escape_markup;
pub use segments::{Segments, segments};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use split::WireMessage;

use crate::address::Address;
use crate::error::{BoxError, HandlerError};

/// Reply to one inbound message: messages in order, and possibly a redirect. An empty one sends nothing.
///
/// ```
/// use replyhook::Reply;
///
/// assert_eq!(Reply::text("One.").and("Two.").messages().len(), 2);
/// assert!(Reply::none().is_empty());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reply {
    messages: Vec<ReplyMessage>,
    redirect: Option<Redirect>,
}

/// Message of a reply: a text, media, or both.
///
/// ```
/// use replyhook::{Media, ReplyMessage};
///
/// let menu = ReplyMessage::text("Today's menu").media(Media::url("https://cdn.example.com/menu.jpg"));
/// assert_eq!(menu.body(), "Today's menu");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ReplyMessage {
    pub(crate) text: String,
    pub(crate) media: Vec<Media>,
    pub(crate) to: Option<Address>,
    pub(crate) from: Option<Address>,
    pub(crate) status_callback: Option<String>,
    pub(crate) action: Option<(String, CallbackMethod)>,
    pub(crate) numbered: bool,
}

/// Media file that Twilio fetches and sends.
///
/// ```
/// use replyhook::{Media, Reply};
///
/// let elsewhere = Reply::media(Media::url("https://cdn.example.com/menu.pdf"));
/// let on_this_machine = Reply::media(Media::file("menu.pdf"));
/// let made_just_now = Reply::media(Media::bytes(*b"BEGIN:VCARD\r\nEND:VCARD\r\n", "text/vcard"));
/// # drop((elsewhere, on_this_machine, made_just_now));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    source: MediaSource,
    content_type: Option<String>,
}

/// Source of a media file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum MediaSource {
    /// A URL from which Twilio can fetch the file.
    Url(String),
    /// A file on disk.
    File(PathBuf),
    /// The content itself.
    Bytes(Arc<[u8]>),
}

/// Redirect of the message to another TwiML document.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) url: String,
    pub(crate) method: CallbackMethod,
    /// True for a handoff, which redirects later messages of the conversation too.
    pub(crate) is_handoff: bool,
}

/// HTTP method with which Twilio calls a URL of a reply; see [`ReplyMessage::action`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CallbackMethod {
    /// `POST`
    #[default]
    Post,
    /// `GET`
    Get,
}

/// Error for a URL that a reply cannot redirect to; see [`Reply::redirect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the redirect URL is not an absolute http or https URL; a relative one would lead back to this server, which would \
     return the same redirect for the same message"
)]
pub struct RedirectError;

impl Reply {
    /// Creates an empty reply, which sends nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Creates a reply with one text. A text of more than 1600 characters is sent as several messages.
    pub fn text(text: impl Into<String>) -> Self {
        Self::from(ReplyMessage::text(text))
    }

    /// Creates a reply with one media file.
    pub fn media(media: Media) -> Self {
        Self::from(ReplyMessage::default().media(media))
    }

    /// Creates a reply that redirects this message to another TwiML document, such as a Studio flow's.
    ///
    /// Twilio POSTs the same parameters to the URL and executes the TwiML from there instead. Your handler gets the
    /// user's next message again. To redirect later messages too, use [`handoff`](Self::handoff).
    ///
    /// # Errors
    /// [`RedirectError`] for a URL that is not absolute. A URL under the server's own `PUBLIC_URL` is rejected later,
    /// when the reply is rendered. The server would recognise the redirected message as a redelivery, and return the
    /// same redirect.
    pub fn redirect(url: impl Into<String>) -> Result<Self, RedirectError> {
        Self::redirecting(url.into(), false)
    }

    /// Creates a reply that hands the conversation off to another system, such as a Studio flow or Flex agents behind
    /// one.
    ///
    /// Twilio is redirected to the URL for this message *and every later one* of the conversation, and your handler is
    /// not called. The handoff ends with [`end_handoff`](crate::Context::end_handoff), with `replyhook handoff end`, or
    /// after a time without a message from the user (`handoff.ttl`). Messages added with [`and`](Self::and) are sent
    /// before the redirect.
    ///
    /// ```
    /// use replyhook::reply::RedirectError;
    /// use replyhook::{Context, InboundMessage, Reply};
    ///
    /// const AGENTS: &str = "https://webhooks.twilio.com/v1/Accounts/AC…/Flows/FW…";
    ///
    /// async fn bot(_cx: Context, message: InboundMessage) -> Result<Reply, RedirectError> {
    ///     if message.body == "human" {
    ///         return Ok(Reply::handoff(AGENTS)?.and("A colleague will answer."));
    ///     }
    ///     Ok(Reply::text("Write: human"))
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    ///
    /// The handoff is stored in the same transaction as this reply. A reply that is sent via the REST API, because it
    /// is late or does not fit into TwiML, cannot redirect its own message. Its messages are sent, and later ones from
    /// the user are redirected.
    ///
    /// # Errors
    /// [`RedirectError`], as for [`redirect`](Self::redirect).
    pub fn handoff(url: impl Into<String>) -> Result<Self, RedirectError> {
        Self::redirecting(url.into(), true)
    }

    fn redirecting(url: String, is_handoff: bool) -> Result<Self, RedirectError> {
        if !is_web_url(&url) {
            return Err(RedirectError);
        }
        Ok(Self {
            messages: Vec::new(),
            redirect: Some(Redirect {
                url,
                method: CallbackMethod::Post,
                is_handoff,
            }),
        })
    }

    /// Adds a message.
    #[must_use]
    pub fn and(mut self, message: impl Into<ReplyMessage>) -> Self {
        self.messages.push(message.into());
        self
    }

    /// Returns the messages in order.
    pub fn messages(&self) -> &[ReplyMessage] {
        &self.messages
    }

    /// Numbers the parts of each message, like [`ReplyMessage::numbered`].
    #[must_use]
    pub fn numbered(mut self) -> Self {
        for message in &mut self.messages {
            message.numbered = true;
        }
        self
    }

    /// Returns true if the reply has neither media, nor a text other than white space, nor a redirect.
    pub fn is_empty(&self) -> bool {
        self.redirect.is_none() && self.messages.iter().all(ReplyMessage::is_empty)
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher uses it")
    )]
    pub(crate) fn has_media(&self) -> bool {
        self.messages
            .iter()
            .any(|message| !message.media.is_empty())
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only publishing of media uses it")
    )]
    pub(crate) fn messages_mut(&mut self) -> &mut [ReplyMessage] {
        &mut self.messages
    }

    pub(crate) fn redirect_target(&self) -> Option<&Redirect> {
        self.redirect.as_ref()
    }
}

impl ReplyMessage {
    /// Creates a message with a text. Twilio rejects white space alone (14103), so such a message is not sent.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Adds a media file. All channels but MMS send one file per message; further files become messages of their own.
    #[must_use]
    pub fn media(mut self, media: Media) -> Self {
        self.media.push(media);
        self
    }

    /// Numbers the parts of a text that is too long for one message: `(1/3) …`.
    ///
    /// Parts may arrive in another order, especially on SMS. The setting `reply.numbered` numbers all replies of a
    /// server.
    #[must_use]
    pub fn numbered(mut self) -> Self {
        self.numbered = true;
        self
    }

    /// Sets another recipient than the user who wrote, on the same channel as the sender.
    #[must_use]
    pub fn to(mut self, to: impl Into<Address>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// Sets another of your senders than the one that the user wrote to.
    #[must_use]
    pub fn from(mut self, from: impl Into<Address>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Sets the status callback URL, to which Twilio reports the status of this message.
    #[must_use]
    pub fn status_callback(mut self, url: impl Into<String>) -> Self {
        self.status_callback = Some(url.into());
        self
    }

    /// Sets the URL whose TwiML Twilio executes after this message.
    ///
    /// That TwiML replaces the rest of the reply. So only the last message of a reply may have an action. It has no
    /// effect if the reply is sent via the REST API.
    #[must_use]
    pub fn action(mut self, url: impl Into<String>, method: CallbackMethod) -> Self {
        self.action = Some((url.into(), method));
        self
    }

    /// Returns the text as given; empty for a message with media only.
    pub fn body(&self) -> &str {
        &self.text
    }

    /// Returns the recipient set by [`to`](Self::to), if any.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher uses it")
    )]
    pub(crate) fn recipient(&self) -> Option<&Address> {
        self.to.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.media.is_empty() && self.text.trim().is_empty()
    }
}

impl Media {
    /// Creates media from a public http or https URL. Twilio fetches the file, and uses the `Content-Type` of the
    /// response.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Url(url.into()),
            content_type: None,
        }
    }

    /// Creates media from a file on disk, which is read when the reply is sent.
    ///
    /// The file is copied to the store. Twilio fetches it with an unguessable link under `PUBLIC_URL`, which expires
    /// after three days. The extension determines the type, or else the first bytes. The handler fails if the channel
    /// does not accept the type, or the size: at most 16 MiB, and 5 MiB for all files of an MMS together.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            source: MediaSource::File(path.into()),
            content_type: None,
        }
    }

    /// Creates media from bytes in memory, of a type such as `image/png`. They are published like a
    /// [`file`](Self::file).
    pub fn bytes(bytes: impl Into<Arc<[u8]>>, content_type: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Bytes(bytes.into()),
            content_type: Some(content_type.into()),
        }
    }

    /// Sets the type, for URLs without an extension that shows it.
    ///
    /// On WhatsApp only a JPEG or PNG has a caption. With other media the text is sent as a separate message.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Returns the URL, or `None` for a file that has not been published.
    pub(crate) fn link(&self) -> Option<&str> {
        match &self.source {
            MediaSource::Url(url) => Some(url),
            MediaSource::File(_) | MediaSource::Bytes(_) => None,
        }
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only publishing of media uses it")
    )]
    pub(crate) fn source(&self) -> &MediaSource {
        &self.source
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only publishing of media uses it")
    )]
    pub(crate) fn stated_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Returns the type for the extension of a file on disk.
    #[cfg(feature = "app")]
    pub(crate) fn type_by_name(&self) -> Option<&'static str> {
        match &self.source {
            MediaSource::File(path) => names::by_name(path.to_str()?),
            MediaSource::Url(_) | MediaSource::Bytes(_) => None,
        }
    }

    /// Returns true if every channel shows a text together with this file.
    fn carries_caption(&self) -> bool {
        const CAPTIONED: [(&str, &str); 3] = [
            ("jpg", "image/jpg"),
            ("jpeg", "image/jpeg"),
            ("png", "image/png"),
        ];
        // A type that was set takes precedence over the extension.
        if let Some(content_type) = &self.content_type {
            return CAPTIONED
                .iter()
                .any(|(_, known)| content_type.eq_ignore_ascii_case(known));
        }
        // Files and bytes are `Url`s with a type by the time a reply is split; the dispatcher publishes them first.
        let MediaSource::Url(url) = &self.source else {
            return false;
        };
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let extension = path
            .rsplit('/')
            .next()
            .and_then(|file| file.rsplit_once('.'))
            .map(|(_, extension)| extension);
        extension.is_some_and(|extension| {
            CAPTIONED
                .iter()
                .any(|(known, _)| extension.eq_ignore_ascii_case(known))
        })
    }
}

impl CallbackMethod {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
        }
    }
}

/// Returns true for an absolute http or https URL with a host.
pub(crate) fn is_web_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|h| !h.is_empty())
    })
}

impl From<ReplyMessage> for Reply {
    fn from(message: ReplyMessage) -> Self {
        Self {
            messages: vec![message],
            redirect: None,
        }
    }
}

impl From<&str> for ReplyMessage {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for ReplyMessage {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl FromIterator<ReplyMessage> for Reply {
    fn from_iter<I: IntoIterator<Item = ReplyMessage>>(messages: I) -> Self {
        Self {
            messages: messages.into_iter().collect(),
            redirect: None,
        }
    }
}

/// Shows the shape and hides the texts and URLs.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("messages", &self.messages)
            .field("redirect", &self.redirect.is_some())
            .finish()
    }
}

impl fmt::Debug for ReplyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyMessage")
            // The length only: texts are private.
            .field("text_len", &self.text.len())
            .field("media", &self.media.len())
            .field("to", &self.to)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// Return type of a handler: a text, `()`, a [`Reply`], a [`ReplyMessage`], or an `Option` or `Result` of these.
///
/// Your own types can implement it:
///
/// ```
/// use replyhook::{Context, HandlerError, InboundMessage, IntoReply, Reply};
///
/// struct Price { cents: u64 }
///
/// impl IntoReply for Price {
///     fn into_reply(self) -> Result<Reply, HandlerError> {
///         Ok(Reply::text(format!("{}.{:02} €", self.cents / 100, self.cents % 100)))
///     }
/// }
///
/// async fn price(_cx: Context, _message: InboundMessage) -> Option<Price> {
///     Some(Price { cents: 250 })
/// }
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(price);
/// # assert_eq!(Price { cents: 250 }.into_reply().unwrap(), Reply::text("2.50 €"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not something a bot can say",
    label = "a handler returns a text (`&str`, `String`), nothing (`()`), a `Reply`, or an `Option` or `Result` of these",
    note = "turn it into a text with `.to_string()`, or build a `replyhook::Reply`"
)]
pub trait IntoReply {
    /// Converts the value into a reply.
    ///
    /// # Errors
    /// [`HandlerError`] if the value is the `Err` of a `Result`, or if your own type's conversion fails.
    fn into_reply(self) -> Result<Reply, HandlerError>;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(self)
    }
}

impl IntoReply for ReplyMessage {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(self.into())
    }
}

impl IntoReply for &str {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::text(self))
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::text(self))
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::none())
    }
}

impl<T: IntoReply> IntoReply for Option<T> {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        self.map_or_else(|| Ok(Reply::none()), T::into_reply)
    }
}

impl<T: IntoReply, E: Into<BoxError>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        self.map_err(HandlerError::new)?.into_reply()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_requires_absolute_url() {
        assert!(Reply::redirect("https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1").is_ok());
        for url in ["/webhook", "webhook", "", "ftp://h/x", "https://", "//h/x"] {
            assert_eq!(Reply::redirect(url), Err(RedirectError), "{url}");
        }
    }

    #[test]
    fn caption_requires_jpeg_or_png() {
        assert!(Media::url("https://h/a.JPG?x=.pdf").carries_caption());
        assert!(
            Media::url("https://h/a")
                .content_type("image/png")
                .carries_caption()
        );
        for url in [
            "https://h/a.webp",
            "https://h/a.pdf",
            "https://h/png",
            "https://h/a.jpg/b",
        ] {
            assert!(!Media::url(url).carries_caption(), "{url}");
        }
    }
}
