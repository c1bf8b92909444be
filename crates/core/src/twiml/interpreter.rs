//! TwiML parser that accepts and warns as Twilio does, for the emulator. The server reads its own documents with it.
//!
//! Source: twilio.com/docs/messaging/twiml, and the error dictionary for 12100, 12102, 12200 and 14101 to 14110.

use std::fmt;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::error_code::ErrorCode;

/// Verbs of a valid document in order, with warnings about ignored parts.
#[derive(Default, PartialEq, Eq)]
pub struct TwimlVerdict {
    /// `<Message>` and `<Redirect>`, in order.
    pub verbs: Vec<Verb>,
    /// Code and explanation of each ignored part.
    pub warnings: Vec<(ErrorCode, String)>,
}

/// Instruction of a document.
#[derive(PartialEq, Eq)]
pub enum Verb {
    /// `<Message>`
    Message(TwimlMessage),
    /// `<Redirect>`
    Redirect {
        /// Absolute, or relative to the document.
        url: String,
        /// The method is GET instead of POST.
        is_get: bool,
    },
}

/// `<Message>` with its attributes and content.
#[derive(Default, PartialEq, Eq)]
pub struct TwimlMessage {
    /// Recipient, if the message is not for the user who wrote.
    pub to: Option<String>,
    /// Sender, if it is not the one that the user wrote to.
    pub from: Option<String>,
    /// URL whose TwiML is executed after this message.
    pub action: Option<String>,
    /// `action` is called with GET instead of POST.
    pub action_is_get: bool,
    /// URL for the status of this message.
    pub status_callback: Option<String>,
    /// Text; empty for a message with media only.
    pub body: String,
    /// URLs of the media.
    pub media: Vec<String>,
}

// Without texts and addresses, which never reach a log.
impl fmt::Debug for TwimlVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwimlVerdict")
            .field("verbs", &self.verbs)
            .field("warnings", &self.warnings)
            .finish()
    }
}

impl fmt::Debug for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => message.fmt(f),
            Self::Redirect { .. } => f.write_str("Redirect"),
        }
    }
}

impl fmt::Debug for TwimlMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwimlMessage")
            .field("media", &self.media.len())
            .finish_non_exhaustive()
    }
}

/// Kind of an open element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenElement {
    Response,
    Message,
    Body,
    Media,
    Redirect,
    /// Unknown element, or one inside it.
    Ignored,
}

/// Parses a document.
///
/// # Errors
/// 12100 if the XML is not well-formed, 12101 for an unknown XML version, 12102 if the root is not `<Response>`.
pub fn parse(body: &[u8]) -> Result<TwimlVerdict, ErrorCode> {
    let malformed = ErrorCode(12100);
    let text = std::str::from_utf8(body).map_err(|_| malformed)?;
    // A byte order mark is not part of the document.
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    // quick-xml accepts leading text and characters that XML 1.0 forbids; Twilio does not.
    if !text.starts_with('<') || !text.chars().all(is_xml_char) {
        return Err(malformed);
    }
    let mut reader = Reader::from_str(text);
    // `<Message/>` then closes like `<Message></Message>`.
    reader.config_mut().expand_empty_elements = true;
    let mut parser = TwimlParser::default();
    loop {
        let characters = match reader.read_event().map_err(|_| malformed)? {
            Event::Start(start) => {
                parser.open_element(&start)?;
                continue;
            }
            Event::End(_) => {
                parser.close_element();
                continue;
            }
            Event::Eof => {
                return if parser.has_root && parser.open_elements.is_empty() {
                    Ok(parser.document)
                } else {
                    Err(malformed)
                };
            }
            Event::Decl(declaration) => {
                let version = declaration.version().map_err(|_| ErrorCode(12101))?;
                if !matches!(version.as_ref(), "1.0" | "1.1") {
                    return Err(ErrorCode(12101));
                }
                continue;
            }
            Event::Text(text) => text.xml10_content().into_owned(),
            Event::CData(text) => text.xml10_content().into_owned(),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|_| malformed)?;
                match character {
                    Some(character) if is_xml_char(character) => character.to_string(),
                    // Such as `&#0;`, which the check of all characters above cannot see.
                    Some(_) => return Err(malformed),
                    // Only the five entities of XML, so `&nbsp;` is an error.
                    None => quick_xml::escape::resolve_xml_entity(&reference)
                        .ok_or(malformed)?
                        .to_owned(),
                }
            }
            // Comments, processing instructions and document types.
            _ => continue,
        };
        parser.add_text(&characters)?;
    }
}

/// Returns the messages of a document that this server rendered and stored. Empty for an empty document.
pub fn rendered_messages(twiml: &str) -> Vec<TwimlMessage> {
    let verbs = parse(twiml.as_bytes()).unwrap_or_default().verbs;
    let messages = verbs.into_iter().filter_map(|verb| match verb {
        Verb::Message(message) => Some(message),
        Verb::Redirect { .. } => None,
    });
    messages.collect()
}

#[derive(Default)]
struct TwimlParser {
    document: TwimlVerdict,
    open_elements: Vec<OpenElement>,
    has_root: bool,
    /// Text of the open `<Message>` outside of its `<Body>` and `<Media>`.
    direct_text: String,
    /// True if the open `<Message>` has a `<Body>`. Text next to it is then not sent.
    has_body: bool,
}

impl TwimlParser {
    fn open_element(&mut self, start: &BytesStart<'_>) -> Result<(), ErrorCode> {
        let name = start.name().as_ref().to_owned();
        let element = match (self.open_elements.last(), name.as_str()) {
            (None, "Response") if !self.has_root => {
                self.has_root = true;
                for (name, _) in parse_attributes(start)? {
                    // Namespaces and `xsi:…` belong to XML Schema, not to TwiML.
                    if !name.contains(':') {
                        self.warn(12200, format!("<Response> has no attribute `{name}`"));
                    }
                }
                OpenElement::Response
            }
            (None, _) if self.has_root => return Err(ErrorCode(12100)),
            (None, _) => return Err(ErrorCode(12102)),
            (Some(OpenElement::Response), "Message" | "Sms") => {
                let message = self.parse_message(start)?;
                self.direct_text.clear();
                self.has_body = false;
                self.document.verbs.push(Verb::Message(message));
                OpenElement::Message
            }
            (Some(OpenElement::Response), "Redirect") => {
                let is_get = self.parse_method(start)?;
                let url = String::new();
                self.document.verbs.push(Verb::Redirect { url, is_get });
                OpenElement::Redirect
            }
            (Some(OpenElement::Message), "Body") => {
                self.has_body = true;
                OpenElement::Body
            }
            (Some(OpenElement::Message), "Media") => {
                if let Some(Verb::Message(message)) = self.document.verbs.last_mut() {
                    message.media.push(String::new());
                }
                OpenElement::Media
            }
            (Some(OpenElement::Response), verb) if VOICE_VERBS.contains(&verb) => {
                self.warn(14110, format!("<{verb}> is not a messaging verb"));
                OpenElement::Ignored
            }
            (Some(OpenElement::Ignored), _) => OpenElement::Ignored,
            (Some(_), element) => {
                self.warn(12200, format!("<{element}> is not allowed here"));
                OpenElement::Ignored
            }
        };
        self.open_elements.push(element);
        Ok(())
    }

    fn close_element(&mut self) {
        match self.open_elements.pop() {
            Some(OpenElement::Message) => self.take_direct_text(),
            Some(OpenElement::Media) => {
                if let Some(Verb::Message(message)) = self.document.verbs.last_mut()
                    && let Some(url) = message.media.last_mut()
                {
                    *url = url.trim().to_owned();
                }
            }
            Some(OpenElement::Redirect) => {
                if let Some(Verb::Redirect { url, .. }) = self.document.verbs.last_mut() {
                    *url = url.trim().to_owned();
                }
            }
            _ => {}
        }
    }

    /// Uses the text directly in the `<Message>` that ends as its body, unless it has a `<Body>`.
    fn take_direct_text(&mut self) {
        let text = std::mem::take(&mut self.direct_text);
        let has_body = self.has_body;
        let Some(Verb::Message(message)) = self.document.verbs.last_mut() else {
            return;
        };
        if !has_body && message.media.is_empty() {
            message.body = text;
            return;
        }
        // White space between the elements is not text.
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let warning = if has_body {
            "text next to <Body> is not sent; put it into the <Body>"
        } else {
            text.clone_into(&mut message.body);
            "text next to <Media>; put it into a <Body>"
        };
        self.warn(12200, warning.to_owned());
    }

    fn add_text(&mut self, text: &str) -> Result<(), ErrorCode> {
        let verb = self.document.verbs.last_mut();
        match (self.open_elements.last(), verb) {
            // Text outside the root element.
            (None, _) if !text.trim().is_empty() => return Err(ErrorCode(12100)),
            // Text can come in several events, split at entities and CDATA sections.
            (Some(OpenElement::Message), _) => self.direct_text += text,
            (Some(OpenElement::Body), Some(Verb::Message(message))) => message.body += text,
            (Some(OpenElement::Media), Some(Verb::Message(message))) => {
                if let Some(url) = message.media.last_mut() {
                    *url += text;
                }
            }
            (Some(OpenElement::Redirect), Some(Verb::Redirect { url, .. })) => *url += text,
            (Some(OpenElement::Response), _) if !text.trim().is_empty() => {
                self.warn(12200, "text outside of a verb".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn parse_message(&mut self, start: &BytesStart<'_>) -> Result<TwimlMessage, ErrorCode> {
        let mut message = TwimlMessage::default();
        for (name, value) in parse_attributes(start)? {
            match name.as_str() {
                "to" => message.to = Some(value),
                "from" => message.from = Some(value),
                "action" => message.action = Some(value),
                "statusCallback" => message.status_callback = Some(value),
                "method" => match value.to_ascii_uppercase().as_str() {
                    "GET" => message.action_is_get = true,
                    "POST" => {}
                    _ => self.warn(14104, "method must be GET or POST".to_owned()),
                },
                _ => self.warn(12200, format!("unknown attribute `{name}`")),
            }
        }
        Ok(message)
    }

    fn parse_method(&mut self, start: &BytesStart<'_>) -> Result<bool, ErrorCode> {
        let mut is_get = false;
        for (name, value) in parse_attributes(start)? {
            match (name.as_str(), value.to_ascii_uppercase().as_str()) {
                ("method", "GET") => is_get = true,
                ("method", "POST") => {}
                ("method", _) => self.warn(14104, "method must be GET or POST".to_owned()),
                _ => self.warn(12200, format!("unknown attribute `{name}`")),
            }
        }
        Ok(is_get)
    }

    fn warn(&mut self, code: u32, detail: String) {
        self.document.warnings.push((ErrorCode(code), detail));
    }
}

/// Verbs of voice TwiML.
const VOICE_VERBS: [&str; 15] = [
    "Say", "Play", "Dial", "Gather", "Record", "Hangup", "Pause", "Reject", "Enqueue", "Leave",
    "Connect", "Start", "Stop", "Refer", "Pay",
];

fn parse_attributes(start: &BytesStart<'_>) -> Result<Vec<(String, String)>, ErrorCode> {
    let malformed = ErrorCode(12100);
    let mut pairs = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| malformed)?;
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| malformed)?;
        pairs.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(pairs)
}

/// Returns whether XML 1.0 allows the character.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::address::Channel;
    use crate::reply::{Media, Reply, ReplyMessage};
    use crate::twiml;

    fn read(xml: &str) -> TwimlVerdict {
        parse(xml.as_bytes()).unwrap()
    }

    #[test]
    fn twiml_parse_keeps_verb_order_and_attributes() {
        let document = read(
            r#"<?xml version="1.0"?><!-- c --><Response><Message>a &amp; <![CDATA[<b>]]>&#33;</Message>
               <Message to="+1" action="/next" method="get" statusCallback="/s">
                 <Body>Look</Body> <Media> https://h/a.png?x=1&amp;y=2 </Media></Message>
               <Redirect method="GET">/two</Redirect></Response>"#,
        );
        let first = TwimlMessage {
            body: "a & <b>!".to_owned(),
            ..TwimlMessage::default()
        };
        let second = TwimlMessage {
            to: Some("+1".to_owned()),
            action: Some("/next".to_owned()),
            action_is_get: true,
            status_callback: Some("/s".to_owned()),
            body: "Look".to_owned(),
            media: vec!["https://h/a.png?x=1&y=2".to_owned()],
            ..TwimlMessage::default()
        };
        let redirect = Verb::Redirect {
            url: "/two".to_owned(),
            is_get: true,
        };
        assert_eq!(
            document.verbs,
            [Verb::Message(first), Verb::Message(second), redirect]
        );
        assert_eq!(document.warnings, []);
    }

    #[test]
    fn unknown_twiml_element_warns_and_rest_runs() {
        let document = read(
            "<Response><message>lost</message><Say>x</Say><Message color=\"red\">kept</Message></Response>",
        );
        let codes: Vec<_> = document.warnings.iter().map(|(code, _)| code.0).collect();
        assert_eq!(codes, [12200, 14110, 12200]);
        assert_eq!(document.verbs.len(), 1);
    }

    #[test]
    fn twiml_response_attribute_warns() {
        let document = read(
            r#"<Response version="1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><Message>kept</Message></Response>"#,
        );
        let warning = "<Response> has no attribute `version`".to_owned();
        assert_eq!(document.warnings, [(ErrorCode(12200), warning)]);
        assert_eq!(document.verbs.len(), 1);
    }

    // Twilio's tutorials have text next to <Media>.
    #[test]
    fn twiml_text_next_to_media_is_sent_and_next_to_body_not() {
        for (content, body) in [
            ("\n Look <Media>/a.png</Media>\n", "Look"),
            ("<Media>/a.png</Media>one &amp; two", "one & two"),
            ("lost<Body>kept</Body><Media>/a.png</Media>", "kept"),
            ("<Media>/a.png</Media>lost<Body>kept</Body>", "kept"),
        ] {
            let mut document = read(&format!(
                "<Response><Message>{content}</Message></Response>"
            ));
            let expected = TwimlMessage {
                body: body.to_owned(),
                media: vec!["/a.png".to_owned()],
                ..TwimlMessage::default()
            };
            assert_eq!(document.verbs.pop(), Some(Verb::Message(expected)));
            let codes: Vec<_> = document.warnings.iter().map(|(code, _)| code.0).collect();
            assert_eq!(codes, [12200], "{content}");
        }
    }

    #[test]
    fn malformed_twiml_is_rejected_whole() {
        for xml in [
            "",
            " <Response/>",
            "<Response>",
            "<Response><Message>a & b</Message></Response>",
            "<Response></Message></Response>",
            "<Response/><Response/>",
            "<Response/>x",
            "<Response>&#0;</Response>",
            "<Response>&nbsp;</Response>",
        ] {
            assert_eq!(parse(xml.as_bytes()), Err(ErrorCode(12100)), "{xml}");
        }
        assert_eq!(parse(b"<html></html>"), Err(ErrorCode(12102)));
    }

    #[test]
    fn rendered_messages_match_reply() {
        let reply = Reply::text("1 < 2 & \"so\" on\r\nend")
            .and(
                ReplyMessage::text("Your receipt")
                    .media(Media::url("https://cdn.example.com/r.png")),
            )
            .and(ReplyMessage::text("To you").to("whatsapp:+15550003333"));
        let document = twiml::Document::render(&reply, &Channel::WhatsApp, None).unwrap();
        let messages = rendered_messages(document.as_str());
        let read: Vec<_> = messages
            .iter()
            .map(|message| (message.to.as_deref(), message.body.as_str()))
            .collect();
        assert_eq!(
            read,
            [
                (None, "1 < 2 & \"so\" on\r\nend"),
                (None, "Your receipt"),
                (Some("whatsapp:+15550003333"), "To you"),
            ]
        );
        assert!(rendered_messages("").is_empty());
    }

    proptest! {
        #[test]
        fn twiml_parse_of_random_bytes_never_panics(bytes in vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn shuffled_twiml_parses_or_gives_error_code(pieces in vec(select(&PIECES[..]), 0..20)) {
            if let Err(code) = parse(pieces.concat().as_bytes()) {
                prop_assert!(matches!(code.0, 12100..=12102), "{code}");
            }
        }

        #[test]
        fn rendered_reply_parses_back_unchanged(text in "[^\\x00-\\x1f\\u{fffe}\\u{ffff}]{1,200}") {
            prop_assume!(!text.trim().is_empty());
            let reply = Reply::text(text.clone());
            let rendered = twiml::Document::render(&reply, &Channel::Sms, None).unwrap();
            let document = parse(rendered.as_str().as_bytes()).unwrap();
            prop_assert_eq!(&document.warnings, &[]);
            let expected = TwimlMessage { body: text, ..TwimlMessage::default() };
            prop_assert_eq!(document.verbs, [Verb::Message(expected)]);
        }
    }

    const PIECES: [&str; 14] = [
        "<?xml version=\"1.0\"?>",
        "<Response>",
        "</Response>",
        "<Message>",
        "</Message>",
        "<Body>",
        "</Body>",
        "<Media>/a</Media>",
        "<Redirect>",
        "</Redirect>",
        "text",
        "&amp;",
        "<![CDATA[x]]>",
        "<Say/>",
    ];
}
