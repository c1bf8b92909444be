//! A reply and its messages.

use std::fmt;
use std::time::Duration;

use super::media::Media;
use super::rich_content::{ReplyContentError, RichContent};
use super::web_url::is_web_url;
use crate::address::Address;
use crate::choice::{Choice, QuestionId};
use crate::sid::{AccountSid, MessageSid};

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
    pub(super) messages: Vec<ReplyMessage>,
    redirect: Option<Redirect>,
    handoff: Option<HandoffStart>,
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
    pub(crate) markdown: bool,
    // Boxed: most messages have none.
    pub(super) rich: Option<Box<RichContent>>,
}

/// Redirect of the message to another TwiML document.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    missing_debug_implementations,
    reason = "a URL may have secrets in its query"
)]
#[doc(hidden)]
pub struct Redirect {
    pub url: String,
    pub method: CallbackMethod,
}

/// Handoff that a reply starts.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    missing_debug_implementations,
    reason = "a URL may have secrets in its query"
)]
#[doc(hidden)]
pub struct HandoffStart {
    /// URL that later messages are redirected to; `None` for a silent bot.
    pub url: Option<String>,
    /// Time without a message from the user after which it ends; `None` for that of the settings.
    pub ttl: Option<Duration>,
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
    /// when the reply is rendered. The server would recognize the redirected message as a redelivery, and return the
    /// same redirect.
    pub fn redirect(url: impl Into<String>) -> Result<Self, RedirectError> {
        Self::with_redirect(url.into())
    }

    /// Creates a reply that hands the conversation off to another system, such as a Studio flow or Flex agents behind
    /// one.
    ///
    /// Twilio is redirected to the URL for this message *and every later one* of the conversation, and your handler is
    /// not called. The handoff ends with `Context::end_handoff`, with `replyhook handoff end`, or
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
        let url = url.into();
        let handoff = HandoffStart {
            url: Some(url.clone()),
            ttl: None,
        };
        Ok(Self {
            handoff: Some(handoff),
            ..Self::with_redirect(url)?
        })
    }

    /// Creates a reply that starts a handoff without a URL: the bot is silent while people answer elsewhere.
    ///
    /// Your handler is not called for later messages, and they get no reply. The handoff ends as one with a
    /// [URL](Self::handoff) does. Messages added with [`and`](Self::and) are sent.
    ///
    /// ```
    /// use std::time::Duration;
    /// use replyhook::Reply;
    ///
    /// let reply = Reply::silent_handoff().handoff_ttl(Duration::from_hours(12)).and("A colleague will answer.");
    /// assert_eq!(reply.messages().len(), 1);
    /// ```
    pub fn silent_handoff() -> Self {
        Self {
            handoff: Some(HandoffStart {
                url: None,
                ttl: None,
            }),
            ..Self::default()
        }
    }

    /// Sets the time without a message from the user after which the handoff of this reply ends, in place of
    /// `handoff.ttl`. Without a handoff it has no effect.
    #[must_use]
    pub fn handoff_ttl(mut self, ttl: Duration) -> Self {
        if let Some(handoff) = &mut self.handoff {
            handoff.ttl = Some(ttl);
        }
        self
    }

    /// Returns the handoff that the reply starts.
    #[doc(hidden)]
    pub fn handoff_start(&self) -> Option<&HandoffStart> {
        self.handoff.as_ref()
    }

    fn with_redirect(url: String) -> Result<Self, RedirectError> {
        if !is_web_url(&url) {
            return Err(RedirectError);
        }
        Ok(Self {
            redirect: Some(Redirect {
                url,
                method: CallbackMethod::Post,
            }),
            ..Self::default()
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

    /// Converts the Markdown in each message, like [`ReplyMessage::markdown`].
    ///
    /// ```
    /// use replyhook::{Context, InboundMessage, Reply};
    ///
    /// async fn bot(_cx: Context, message: InboundMessage) -> Reply {
    ///     Reply::text(format!("**You wrote:** {}", message.body)).markdown()
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    #[must_use]
    pub fn markdown(mut self) -> Self {
        for message in &mut self.messages {
            message.markdown = true;
        }
        self
    }

    /// Returns true if the reply has neither media, nor a text other than white space, nor a redirect.
    pub fn is_empty(&self) -> bool {
        self.redirect.is_none() && self.messages.iter().all(ReplyMessage::is_empty)
    }

    /// Adds choices to the last message, like [`ReplyMessage::choices`].
    ///
    /// ```
    /// use replyhook::{Context, InboundMessage, Reply};
    ///
    /// async fn bot(_cx: Context, message: InboundMessage) -> Reply {
    ///     match message.choice() {
    ///         Some(chosen) => Reply::text(format!("{} it is.", chosen.title)),
    ///         None => Reply::text("When shall we deliver?").choices(["Today", "Tomorrow", "Another day"]),
    ///     }
    /// }
    /// # fn is_handler(_: impl replyhook::Handler) {}
    /// # is_handler(bot);
    /// ```
    #[must_use]
    pub fn choices(mut self, choices: impl IntoIterator<Item = impl Into<Choice>>) -> Self {
        let last = self.messages.pop().unwrap_or_default();
        self.messages.push(last.choices(choices));
        self
    }

    /// Checks that each message can be sent.
    ///
    /// # Errors
    /// [`ReplyContentError`] for the first message that cannot be sent.
    pub fn check(&self) -> Result<(), ReplyContentError> {
        let mut contents = self
            .messages
            .iter()
            .filter_map(|message| message.rich.as_deref());
        contents.try_for_each(RichContent::check)
    }

    /// Sets the texts of questions that have none of their own.
    #[doc(hidden)]
    pub fn set_choice_texts(&mut self, button: &str, hint: &str) {
        for message in &mut self.messages {
            if let Some(RichContent::Choices(question)) = message.rich.as_deref_mut() {
                question.button.get_or_insert_with(|| button.to_owned());
                question.hint.get_or_insert_with(|| hint.to_owned());
            }
        }
    }

    /// Gives each question its identity in the reply to a message.
    #[doc(hidden)]
    pub fn identify_questions(&mut self, account: AccountSid, sid: MessageSid) {
        self.identify_questions_by(|ordinal| QuestionId::of_reply(account, sid, ordinal));
    }

    /// Gives each question the identity that `identify` returns for the position of its message.
    #[doc(hidden)]
    pub fn identify_questions_by(&mut self, identify: impl Fn(usize) -> QuestionId) {
        for (ordinal, message) in self.messages.iter_mut().enumerate() {
            if let Some(RichContent::Choices(question)) = message.rich.as_deref_mut() {
                question.id = Some(identify(ordinal));
            }
        }
    }

    /// Returns whether a message has choices, a template, a location or a link.
    #[doc(hidden)]
    pub fn has_rich_content(&self) -> bool {
        self.messages.iter().any(|message| message.rich.is_some())
    }

    /// Returns whether each message is a template, and there is one.
    #[doc(hidden)]
    pub fn is_template(&self) -> bool {
        let is_template = |message: &ReplyMessage| {
            matches!(message.rich.as_deref(), Some(RichContent::Template(_)))
                && message.media.is_empty()
        };
        !self.messages.is_empty() && self.messages.iter().all(is_template)
    }

    #[doc(hidden)]
    pub fn has_media(&self) -> bool {
        self.messages
            .iter()
            .any(|message| !message.media.is_empty())
    }

    #[doc(hidden)]
    pub fn messages_mut(&mut self) -> &mut [ReplyMessage] {
        &mut self.messages
    }

    #[doc(hidden)]
    pub fn redirect_target(&self) -> Option<&Redirect> {
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

    /// Converts the Markdown in the text: into WhatsApp's marks on WhatsApp, into plain text on other channels.
    ///
    /// The text is converted once, when the reply is sent. [`convert_markdown`](super::convert_markdown) has the rules.
    /// The setting `reply.markdown` converts all replies of a server.
    #[must_use]
    pub fn markdown(mut self) -> Self {
        self.markdown = true;
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
    #[doc(hidden)]
    pub fn recipient(&self) -> Option<&Address> {
        self.to.as_ref()
    }

    /// Returns true if the message has another recipient or sender than the rest.
    #[doc(hidden)]
    pub fn has_own_addresses(&self) -> bool {
        self.to.is_some() || self.from.is_some()
    }

    #[doc(hidden)]
    pub fn set_text(&mut self, text: impl Into<String>) {
        self.text = text.into();
    }

    #[doc(hidden)]
    pub fn media_files(&self) -> &[Media] {
        &self.media
    }

    #[doc(hidden)]
    pub fn media_mut(&mut self) -> &mut [Media] {
        &mut self.media
    }

    #[doc(hidden)]
    pub fn is_empty(&self) -> bool {
        self.media.is_empty() && self.text.trim().is_empty() && self.rich.is_none()
    }
}

impl CallbackMethod {
    #[doc(hidden)]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
        }
    }
}

impl From<ReplyMessage> for Reply {
    fn from(message: ReplyMessage) -> Self {
        Self {
            messages: vec![message],
            ..Self::default()
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
            ..Self::default()
        }
    }
}

/// Shows the shape and hides the texts and URLs.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("messages", &self.messages)
            .field("redirect", &self.redirect.is_some())
            .field("handoff", &self.handoff.is_some())
            .finish()
    }
}

impl fmt::Debug for ReplyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyMessage")
            // The length only: texts are private.
            .field("text_len", &self.text.len())
            .field("media", &self.media.len())
            .field("rich", &self.rich.is_some())
            .field("to", &self.to)
            .field("from", &self.from)
            .finish_non_exhaustive()
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
}
