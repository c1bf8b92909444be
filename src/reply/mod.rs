//! What a bot says, free of XML and HTTP: a [`Reply`] of messages, made by [`IntoReply`].
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

/// What a bot says to one message. Empty means: nothing.
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

/// One message of a reply: a text, media, or both.
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

/// A file that Twilio fetches and sends.
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

/// Where a file is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum MediaSource {
    /// Where Twilio can fetch it.
    Url(String),
    /// On this machine.
    File(PathBuf),
    /// Here.
    Bytes(Arc<[u8]>),
}

/// Hands the rest of the reply to another TwiML document.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) url: String,
    pub(crate) method: CallbackMethod,
    /// Whether later messages of the conversation go there too.
    pub(crate) hands_over: bool,
}

/// How Twilio calls a URL that a reply names; see [`ReplyMessage::action`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CallbackMethod {
    /// `POST`
    #[default]
    Post,
    /// `GET`
    Get,
}

/// A URL that a reply cannot redirect to; see [`Reply::redirect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a redirect needs an absolute http or https URL: a relative one leads back to this server, which would answer the \
     same message with the same redirect"
)]
pub struct RedirectError;

impl Reply {
    /// Says nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Says one text. Longer ones than 1600 characters become several messages.
    pub fn text(text: impl Into<String>) -> Self {
        Self::from(ReplyMessage::text(text))
    }

    /// Says one file.
    pub fn media(media: Media) -> Self {
        Self::from(ReplyMessage::default().media(media))
    }

    /// Lets another TwiML document answer this message, such as a Studio flow's. Twilio POSTs the same parameters to it, and
    /// nothing after it runs. The next message comes to your handler again; see [`hand_over`](Self::hand_over).
    ///
    /// # Errors
    /// [`RedirectError`] for a URL that is not absolute. One under the server's own `PUBLIC_URL` is refused as well,
    /// when the reply is rendered: it would be recognised as a repeat and answered with itself.
    pub fn redirect(url: impl Into<String>) -> Result<Self, RedirectError> {
        Self::redirecting(url.into(), false)
    }

    /// Lets somebody else answer this message *and every later one* of the conversation, such as a Studio flow, or people in
    /// Flex behind one: Twilio is redirected to this URL, and your handler is not asked any more, until
    /// [`take_back`](crate::Context::take_back), `replyhook handback`, or a time without a message from the user
    /// (`handoff.ttl`). What is added with [`and`](Self::and) is said before it.
    ///
    /// ```
    /// use replyhook::reply::RedirectError;
    /// use replyhook::{Context, InboundMessage, Reply};
    ///
    /// const AGENTS: &str = "https://webhooks.twilio.com/v1/Accounts/AC…/Flows/FW…";
    ///
    /// async fn bot(_cx: Context, message: InboundMessage) -> Result<Reply, RedirectError> {
    ///     if message.body == "human" {
    ///         return Ok(Reply::hand_over(AGENTS)?.and("A colleague will answer."));
    ///     }
    ///     Ok(Reply::text("Write: human"))
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    ///
    /// It begins with this reply, in one transaction. A reply that goes by REST, since it is late or does not fit into one
    /// answer, cannot redirect its own message: what it says is sent, and the later messages are redirected.
    ///
    /// # Errors
    /// [`RedirectError`], as for [`redirect`](Self::redirect).
    pub fn hand_over(url: impl Into<String>) -> Result<Self, RedirectError> {
        Self::redirecting(url.into(), true)
    }

    fn redirecting(url: String, hands_over: bool) -> Result<Self, RedirectError> {
        if !is_web_url(&url) {
            return Err(RedirectError);
        }
        Ok(Self {
            messages: Vec::new(),
            redirect: Some(Redirect {
                url,
                method: CallbackMethod::Post,
                hands_over,
            }),
        })
    }

    /// Adds a message.
    #[must_use]
    pub fn and(mut self, message: impl Into<ReplyMessage>) -> Self {
        self.messages.push(message.into());
        self
    }

    /// The messages in order.
    pub fn messages(&self) -> &[ReplyMessage] {
        &self.messages
    }

    /// Numbers the parts of each message, as [`ReplyMessage::numbered`] does.
    #[must_use]
    pub fn numbered(mut self) -> Self {
        for message in &mut self.messages {
            message.numbered = true;
        }
        self
    }

    /// Whether the user will see nothing: no message with a text that shows or media, and no redirect.
    pub fn is_empty(&self) -> bool {
        self.redirect.is_none() && self.messages.iter().all(ReplyMessage::is_empty)
    }

    /// Whether there is a file anywhere in it.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "the dispatcher asks")
    )]
    pub(crate) fn has_media(&self) -> bool {
        self.messages
            .iter()
            .any(|message| !message.media.is_empty())
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "who publishes files asks")
    )]
    pub(crate) fn messages_mut(&mut self) -> &mut [ReplyMessage] {
        &mut self.messages
    }

    pub(crate) fn redirect_target(&self) -> Option<&Redirect> {
        self.redirect.as_ref()
    }
}

impl ReplyMessage {
    /// A text. White space alone is no message: Twilio refuses it (14103).
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Adds a file. Where a channel takes one file a message (all but MMS), each further one becomes a message.
    #[must_use]
    pub fn media(mut self, media: Media) -> Self {
        self.media.push(media);
        self
    }

    /// Numbers the parts of a text that is too long for one message: `(1/3) …`. They may come in another order, above all by
    /// SMS. `reply.numbered` does it for all replies of a server.
    #[must_use]
    pub fn numbered(mut self) -> Self {
        self.numbered = true;
        self
    }

    /// Sends to someone else than the user who wrote; on the same channel as the sender.
    #[must_use]
    pub fn to(mut self, to: impl Into<Address>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// Sends from another sender of yours than the one that was written to.
    #[must_use]
    pub fn from(mut self, from: impl Into<Address>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Where Twilio reports what becomes of this message.
    #[must_use]
    pub fn status_callback(mut self, url: impl Into<String>) -> Self {
        self.status_callback = Some(url.into());
        self
    }

    /// Where Twilio goes on after this message: the TwiML found there *continues* the answer, and what follows this
    /// message in the reply never runs. So only a reply's last message may have one.
    #[must_use]
    pub fn action(mut self, url: impl Into<String>, method: CallbackMethod) -> Self {
        self.action = Some((url.into(), method));
        self
    }

    /// Its text, as it was given; empty for a file alone.
    pub fn body(&self) -> &str {
        &self.text
    }

    /// Who gets it, if it is somebody else than the user who wrote.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "the dispatcher asks")
    )]
    pub(crate) fn recipient(&self) -> Option<&Address> {
        self.to.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.media.is_empty() && self.text.trim().is_empty()
    }
}

impl Media {
    /// A file at a public http or https URL. Twilio fetches it and believes its `Content-Type`.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Url(url.into()),
            content_type: None,
        }
    }

    /// A file of this machine, read when the reply goes out. It is put into the store, and Twilio fetches it from there by a
    /// link under `PUBLIC_URL` that nobody can guess and that ends after three days. Its type is told by its name, else by
    /// its first bytes. What the channel does not take (by type, or over 16 MiB, over 5 MiB by MMS) is a failure of the
    /// handler.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            source: MediaSource::File(path.into()),
            content_type: None,
        }
    }

    /// The same with what is in memory, of a type such as `image/png`.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>, content_type: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Bytes(bytes.into()),
            content_type: Some(content_type.into()),
        }
    }

    /// States the type, for URLs that do not end in a telling extension. Only a JPEG or PNG carries a caption on
    /// WhatsApp; beside anything else the text goes as a message of its own.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Where it can be fetched; none for a file that has no link yet.
    pub(crate) fn link(&self) -> Option<&str> {
        match &self.source {
            MediaSource::Url(url) => Some(url),
            MediaSource::File(_) | MediaSource::Bytes(_) => None,
        }
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "who publishes files asks")
    )]
    pub(crate) fn source(&self) -> &MediaSource {
        &self.source
    }

    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "who publishes files asks")
    )]
    pub(crate) fn stated_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// What a file's name says.
    #[cfg(feature = "app")]
    pub(crate) fn type_by_name(&self) -> Option<&'static str> {
        match &self.source {
            MediaSource::File(path) => names::by_name(path.to_str()?),
            MediaSource::Url(_) | MediaSource::Bytes(_) => None,
        }
    }

    /// Whether every channel shows a text together with this file.
    fn carries_caption(&self) -> bool {
        const CAPTIONED: [(&str, &str); 3] = [
            ("jpg", "image/jpg"),
            ("jpeg", "image/jpeg"),
            ("png", "image/png"),
        ];
        if let Some(content_type) = &self.content_type {
            return CAPTIONED
                .iter()
                .any(|(_, known)| content_type.eq_ignore_ascii_case(known));
        }
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

/// Absolute, http or https, and with a host.
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

/// Shows the shape, not what is said.
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

/// What a handler may return: a text, nothing, an `Option` or `Result` of these, or a [`Reply`].
///
/// A type of yours may be one as well:
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
    /// Makes the reply.
    ///
    /// # Errors
    /// [`HandlerError`] when this is the `Err` of a `Result`.
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
    fn a_redirect_needs_an_absolute_url() {
        assert!(Reply::redirect("https://webhooks.twilio.com/v1/Accounts/AC1/Flows/FW1").is_ok());
        for url in ["/webhook", "webhook", "", "ftp://h/x", "https://", "//h/x"] {
            assert_eq!(Reply::redirect(url), Err(RedirectError), "{url}");
        }
    }

    #[test]
    fn only_jpeg_and_png_carry_a_caption() {
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
