//! Rendering of replies as TwiML.
//!
//! Any Rust string becomes well-formed XML 1.0 with the same text:
//!
//! - The document begins with the XML declaration at byte 0.
//! - `& < > "` are escaped. A carriage return becomes `&#13;`, since a parser would turn it into a line feed.
//! - Characters that XML cannot contain become U+FFFD and are counted.
//! - An empty `<Message>` is never emitted.
//!
//! Source: Twilio's "TwiML for Programmable Messaging", error pages 11750, 12100, 14103, 14109.

#[doc(hidden)]
pub mod interpreter;

use std::borrow::Cow;

use quick_xml::Writer;
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use quick_xml::name::QName;

use crate::address::Channel;
use crate::reply::{Reply, WireMessage, is_web_url};
use crate::signature::PublicUrl;

/// Maximum number of `<Message>` elements in one document (14109).
pub const MAX_MESSAGES: usize = 10;
/// Maximum size of one document in bytes. Error 11750 says 64 kB; this is the smaller reading.
pub const MAX_BYTES: usize = 64_000;
/// Document without messages.
pub const EMPTY: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#;
/// `Content-Type` of every TwiML response.
pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

/// TwiML document that is ready to be sent as a response.
///
/// ```
/// use replyhook::{Channel, Reply, twiml::Document};
///
/// let document = Document::render(&Reply::text("a\u{0}b"), &Channel::Sms, None)?;
/// assert!(document.as_str().contains("<Message>a\u{FFFD}b</Message>"));
/// assert_eq!(document.replaced(), 1);
/// assert!(Document::render(&Reply::none(), &Channel::Sms, None)?.as_str().ends_with("<Response/>"));
/// # Ok::<(), replyhook::twiml::RenderError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    xml: Cow<'static, str>,
    replaced_chars: usize,
}

/// Error for a reply that cannot be rendered as a TwiML document.
///
/// ```
/// use replyhook::twiml::{Document, RenderError};
/// use replyhook::{Channel, Reply, ReplyMessage};
///
/// let eleven = (0..11).fold(Reply::none(), |reply, n| reply.and(ReplyMessage::text(n.to_string())));
/// let error = Document::render(&eleven, &Channel::WhatsApp, None).unwrap_err();
/// assert_eq!(error, RenderError::TooManyMessages { count: 11 });
/// // The server sends such a reply via the REST API.
/// assert!(error.is_overflow());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The reply has too many messages for one document.
    #[error("the reply has {count} messages; one TwiML document may have {MAX_MESSAGES}")]
    TooManyMessages {
        /// Number of messages after splitting long texts.
        count: usize,
    },
    /// The document is larger than Twilio accepts.
    #[error("the reply has {length} bytes of TwiML; Twilio accepts {MAX_BYTES}")]
    TooLong {
        /// Size of the document in bytes.
        length: usize,
    },
    /// The redirect leads back to this server.
    #[error(
        "the reply redirects to this server's own PUBLIC_URL, which would return the same redirect; use another server's URL"
    )]
    RedirectToSelf,
    /// A message with an `action` is followed by another message or a redirect.
    #[error("a message with an action is not the last of the reply; Twilio skips what follows it")]
    ActionNotLast,
    /// A URL of the reply is not an absolute http or https URL. The value names its purpose, such as `media URL`.
    #[error("a {0} of the reply is not an absolute http or https URL")]
    BadUrl(&'static str),
}

impl RenderError {
    /// Returns true if the reply is valid but too large for one document. The REST API can send it.
    pub fn is_overflow(&self) -> bool {
        matches!(self, Self::TooManyMessages { .. } | Self::TooLong { .. })
    }
}

impl Document {
    /// Creates a document without messages.
    pub const fn empty() -> Self {
        Self {
            xml: Cow::Borrowed(EMPTY),
            replaced_chars: 0,
        }
    }

    /// Renders a reply for a channel. `public_url` is the server's own URL, which a redirect must not lead to.
    ///
    /// ```
    /// use replyhook::{Channel, Reply, twiml::Document};
    ///
    /// let document = Document::render(&Reply::text("1 < 2 & so on"), &Channel::WhatsApp, None)?;
    /// assert_eq!(
    ///     document.as_str(),
    ///     r#"<?xml version="1.0" encoding="UTF-8"?><Response><Message>1 &lt; 2 &amp; so on</Message></Response>"#,
    /// );
    /// # Ok::<(), replyhook::twiml::RenderError>(())
    /// ```
    ///
    /// # Errors
    /// [`RenderError`] if the reply does not fit into one document, or if Twilio would not execute it as intended.
    pub fn render(
        reply: &Reply,
        channel: &Channel,
        public_url: Option<&PublicUrl>,
    ) -> Result<Self, RenderError> {
        let wire = reply.wire_messages(channel, usize::MAX);
        Self::from_messages(reply, &wire.messages, public_url)
    }

    /// Renders a reply that has been split into messages.
    #[doc(hidden)]
    pub fn from_messages(
        reply: &Reply,
        messages: &[WireMessage<'_>],
        public_url: Option<&PublicUrl>,
    ) -> Result<Self, RenderError> {
        if messages.is_empty() && reply.redirect_target().is_none() {
            return Ok(Self::empty());
        }
        validate(reply, messages, public_url)?;
        let mut escaper = Escaper::default();
        let mut xml = Xml::new();
        for message in messages {
            // A template, which TwiML cannot carry and no text replaces.
            if message.content.is_some() && message.text.is_empty() {
                continue;
            }
            let mut start = BytesStart::new("Message");
            for (name, value) in attributes(message) {
                // An `Attribute` is written as is, whereas the tuple form would escape the value a second time.
                start.push_attribute(Attribute {
                    key: QName(name),
                    value: escaper.attribute(value),
                });
            }
            xml.write(Event::Start(start));
            // Without media the text may be directly in `<Message>`; with media it needs a `<Body>`.
            if message.media.is_empty() {
                xml.text(escaper.text(&message.text));
            } else {
                if !message.text.is_empty() {
                    xml.element(BytesStart::new("Body"), escaper.text(&message.text));
                }
                for media in message.media {
                    let url = media.link().unwrap_or_default();
                    xml.element(BytesStart::new("Media"), escaper.text(url));
                }
            }
            xml.write(Event::End(BytesEnd::new("Message")));
        }
        if let Some(redirect) = reply.redirect_target() {
            let mut start = BytesStart::new("Redirect");
            start.push_attribute(("method", redirect.method.as_str()));
            xml.element(start, escaper.text(&redirect.url));
        }
        let xml = xml.end();
        if xml.len() > MAX_BYTES {
            return Err(RenderError::TooLong { length: xml.len() });
        }
        Ok(Self {
            xml: Cow::Owned(xml),
            replaced_chars: escaper.replaced,
        })
    }

    /// Restores a document from the value of [`Document::to_stored`].
    #[doc(hidden)]
    pub fn from_stored(twiml: Option<String>) -> Self {
        twiml.map_or_else(Self::empty, |xml| Self {
            xml: Cow::Owned(xml),
            // Not stored: the characters were counted when the document was rendered.
            replaced_chars: 0,
        })
    }

    /// Returns the XML to store, or `None` for the empty document.
    #[doc(hidden)]
    pub fn to_stored(&self) -> Option<String> {
        (self.xml != EMPTY).then(|| self.xml.clone().into_owned())
    }

    /// Returns the XML.
    pub fn as_str(&self) -> &str {
        &self.xml
    }

    /// Converts the document into its XML.
    pub fn into_xml(self) -> Cow<'static, str> {
        self.xml
    }

    /// Returns the number of characters that were replaced because XML 1.0 cannot contain them.
    pub fn replaced(&self) -> usize {
        self.replaced_chars
    }
}

fn validate(
    reply: &Reply,
    messages: &[WireMessage<'_>],
    public_url: Option<&PublicUrl>,
) -> Result<(), RenderError> {
    if messages.len() > MAX_MESSAGES {
        return Err(RenderError::TooManyMessages {
            count: messages.len(),
        });
    }
    if let Some(redirect) = reply.redirect_target()
        && public_url.is_some_and(|public| public.covers(&redirect.url))
    {
        return Err(RenderError::RedirectToSelf);
    }
    for (index, message) in messages.iter().enumerate() {
        // A redirect follows all messages, so that no message is the last.
        let is_last = index + 1 == messages.len() && reply.redirect_target().is_none();
        if message.action.is_some() && !is_last {
            return Err(RenderError::ActionNotLast);
        }
        let urls = message
            .media
            .iter()
            // A file without a link was not published, and is reported like an invalid URL.
            .map(|media| ("media URL", media.link().unwrap_or_default()));
        let urls = urls.chain(message.status_callback.map(|url| ("status callback", url)));
        for (purpose, url) in urls.chain(message.action.map(|(url, _)| ("action", url))) {
            if !is_web_url(url) {
                return Err(RenderError::BadUrl(purpose));
            }
        }
    }
    Ok(())
}

fn attributes<'a>(message: &WireMessage<'a>) -> impl Iterator<Item = (&'static str, &'a str)> {
    let pairs = [
        ("to", message.to.map(super::address::Address::as_str)),
        ("from", message.from.map(super::address::Address::as_str)),
        ("action", message.action.map(|(url, _)| url)),
        ("method", message.action.map(|(_, method)| method.as_str())),
        ("statusCallback", message.status_callback),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
}

/// Writer of a document.
struct Xml(Writer<Vec<u8>>);

impl Xml {
    fn new() -> Self {
        let mut xml = Self(Writer::new(Vec::with_capacity(256)));
        xml.write(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        xml.write(Event::Start(BytesStart::new("Response")));
        xml
    }

    fn write(&mut self, event: Event<'_>) {
        self.0.write_event(event).expect("a Vec takes every byte");
    }

    fn text(&mut self, escaped: Cow<'_, str>) {
        self.write(Event::Text(BytesText::from_escaped(escaped)));
    }

    fn element(&mut self, start: BytesStart<'_>, escaped: Cow<'_, str>) {
        let end = start.to_end().into_owned();
        self.write(Event::Start(start));
        self.text(escaped);
        self.write(Event::End(end));
    }

    fn end(mut self) -> String {
        self.write(Event::End(BytesEnd::new("Response")));
        String::from_utf8(self.0.into_inner()).expect("only text was written")
    }
}

/// Escapes texts and counts replaced characters.
#[derive(Default)]
struct Escaper {
    replaced: usize,
}

impl Escaper {
    fn text<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        self.escape(text, false)
    }

    fn attribute<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        self.escape(text, true)
    }

    fn escape<'a>(&mut self, text: &'a str, is_attribute: bool) -> Cow<'a, str> {
        let needs_escape = |c: char| match c {
            // Attribute values are in double quotes, so `'` needs no escape.
            '&' | '<' | '>' | '"' | '\r' => true,
            '\t' | '\n' => is_attribute,
            c => !is_xml_char(c),
        };
        let Some(first) = text.find(needs_escape) else {
            return Cow::Borrowed(text);
        };
        let mut out = String::with_capacity(text.len() + 32);
        out.push_str(&text[..first]);
        for c in text[first..].chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                // A parser turns a raw carriage return into a line feed.
                '\r' => out.push_str("&#13;"),
                // A parser turns raw tabs and line feeds of an attribute into spaces.
                '\t' if is_attribute => out.push_str("&#9;"),
                '\n' if is_attribute => out.push_str("&#10;"),
                c if is_xml_char(c) => out.push(c),
                _ => {
                    self.replaced += 1;
                    out.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        Cow::Owned(out)
    }
}

/// Replaces characters that XML cannot contain by U+FFFD, for the REST API: a text must not depend on the way it is
/// sent.
#[doc(hidden)]
pub fn replace_invalid_chars(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_xml_char) {
        return Cow::Borrowed(text);
    }
    let replace = |c| {
        if is_xml_char(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    Cow::Owned(text.chars().map(replace).collect())
}

/// Returns the number of characters of a text that XML cannot contain.
#[doc(hidden)]
pub fn count_invalid_chars(text: &str) -> usize {
    text.chars().filter(|c| !is_xml_char(*c)).count()
}

/// Returns true for a `Char` of XML 1.0, section 2.2. A Rust `char` is never a surrogate.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{CallbackMethod, Media, ReplyMessage};
    use proptest::prelude::*;
    use quick_xml::Reader;

    /// Parses the texts of the messages.
    fn texts(xml: &str) -> Vec<String> {
        let mut reader = Reader::from_str(xml);
        let mut texts: Vec<String> = Vec::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) if start.name().as_ref() == "Message" => {
                    texts.push(String::new());
                }
                Event::Text(text) => {
                    let text = text.xml10_content();
                    texts.last_mut().unwrap().push_str(&text);
                }
                Event::GeneralRef(entity) => {
                    let last = texts.last_mut().unwrap();
                    match entity.resolve_char_ref().unwrap() {
                        Some(c) => last.push(c),
                        None => {
                            last.push_str(quick_xml::escape::resolve_xml_entity(&entity).unwrap());
                        }
                    }
                }
                Event::Eof => return texts,
                _ => {}
            }
        }
    }

    fn whatsapp(reply: &Reply) -> Result<Document, RenderError> {
        Document::render(
            reply,
            &Channel::WhatsApp,
            Some(&PublicUrl::parse("https://bot.example.com/a").unwrap().0),
        )
    }

    #[test]
    fn twiml_message_renders_attributes_media_and_body() {
        let message = ReplyMessage::text("Look")
            .media(Media::url("https://cdn.example.com/a.png?x=1&y=2"))
            .to("whatsapp:+15550001111")
            .from("whatsapp:+15550002222")
            .status_callback("https://bot.example.com/a/webhook/status")
            .action("https://bot.example.com/next", CallbackMethod::Get);
        assert_eq!(
            whatsapp(&message.into()).unwrap().as_str(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Message to=\"whatsapp:+15550001111\" \
             from=\"whatsapp:+15550002222\" action=\"https://bot.example.com/next\" method=\"GET\" \
             statusCallback=\"https://bot.example.com/a/webhook/status\"><Body>Look</Body>\
             <Media>https://cdn.example.com/a.png?x=1&amp;y=2</Media></Message></Response>"
        );
    }

    // Twilio rejects an empty Message element (14103).
    #[test]
    fn blank_reply_renders_empty_response() {
        for reply in [
            Reply::none(),
            Reply::text(""),
            Reply::text(" \n\t"),
            Reply::text("").and(""),
        ] {
            assert_eq!(whatsapp(&reply).unwrap().as_str(), EMPTY);
        }
        assert_eq!(
            texts(whatsapp(&Reply::text("").and("x")).unwrap().as_str()),
            ["x"]
        );
    }

    #[test]
    fn redirect_follows_messages_and_rejects_own_url() {
        let away = Reply::redirect("https://webhooks.twilio.com/v1/Flows/FW1?a=1&b=2")
            .unwrap()
            .and("one moment");
        assert!(whatsapp(&away).unwrap().as_str().ends_with(
            "<Message>one moment</Message><Redirect method=\"POST\">\
             https://webhooks.twilio.com/v1/Flows/FW1?a=1&amp;b=2</Redirect></Response>"
        ));
        for url in [
            "https://bot.example.com/a/webhook",
            "https://BOT.example.com:443/a",
        ] {
            assert_eq!(
                whatsapp(&Reply::redirect(url).unwrap()),
                Err(RenderError::RedirectToSelf),
                "{url}"
            );
        }
    }

    #[test]
    fn reply_with_misplaced_action_or_bad_url_fails() {
        let action = ReplyMessage::text("a").action("https://h/x", CallbackMethod::Post);
        assert_eq!(
            whatsapp(&Reply::from(action).and("b")),
            Err(RenderError::ActionNotLast)
        );
        for url in ["cat.png", "/cat.png", "javascript:alert(1)"] {
            assert_eq!(
                whatsapp(&Reply::media(Media::url(url))),
                Err(RenderError::BadUrl("media URL"))
            );
        }
    }

    #[test]
    fn oversized_reply_gives_overflow_error() {
        let eleven: Reply = (0..11).map(|n| ReplyMessage::text(n.to_string())).collect();
        assert_eq!(
            whatsapp(&eleven),
            Err(RenderError::TooManyMessages { count: 11 })
        );
        let long: Reply = (0..10)
            .map(|_| ReplyMessage::text("\r".repeat(1599) + "x"))
            .collect();
        let error = whatsapp(&long).unwrap_err();
        assert!(
            matches!(error, RenderError::TooLong { length } if length > MAX_BYTES)
                && error.is_overflow()
        );
    }

    proptest! {
        // Characters that XML cannot contain are replaced by U+FFFD and counted.
        #[test]
        fn rendered_text_parses_back_unchanged(text in any::<String>()) {
            let document = whatsapp(&Reply::text(text.clone())).unwrap();
            let illegal = count_invalid_chars(&text);
            prop_assert_eq!(document.replaced(), if text.trim().is_empty() { 0 } else { illegal });
            let kept: String = text.chars().map(|c| if is_xml_char(c) { c } else { '\u{FFFD}' }).collect();
            prop_assert_eq!(replace_invalid_chars(&text), kept.as_str());
            let read = texts(document.as_str()).concat();
            if text.trim().is_empty() {
                prop_assert_eq!(read, "");
            } else {
                prop_assert_eq!(read, kept);
            }
        }
    }
}
