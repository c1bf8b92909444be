//! TwiML as Twilio reads it: the verbs of a messaging document in their order, and what it warns of.
//!
//! Source: twilio.com/docs/messaging/twiml, and the error dictionary for 12100, 12102, 12200 and 14101 to 14110.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::error_code::ErrorCode;

/// A document that can be executed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) verbs: Vec<Verb>,
    /// What is ignored, with its code.
    pub(super) warnings: Vec<(ErrorCode, String)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Message(Said),
    Redirect { url: String, is_get: bool },
}

/// One `<Message>`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) to: Option<String>,
    pub(super) from: Option<String>,
    pub(super) action: Option<String>,
    pub(super) action_is_get: bool,
    pub(super) status_callback: Option<String>,
    pub(super) body: String,
    pub(super) media: Vec<String>,
}

/// Where the parser stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Response,
    Message,
    Body,
    Media,
    Redirect,
    /// Below something that is ignored.
    Ignored,
}

/// Reads a document.
///
/// # Errors
/// 12100 where it is not well-formed XML, 12102 where its root is not `<Response>`.
pub(super) fn parse(body: &[u8]) -> Result<Document, ErrorCode> {
    let malformed = ErrorCode(12100);
    let text = std::str::from_utf8(body).map_err(|_| malformed)?;
    // A byte order mark is no character of the document.
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    if !text.starts_with('<') || !text.chars().all(is_xml) {
        return Err(malformed);
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut parsing = Parsing::default();
    loop {
        let characters = match reader.read_event().map_err(|_| malformed)? {
            Event::Start(start) => {
                parsing.open(&start)?;
                continue;
            }
            Event::End(_) => {
                parsing.close();
                continue;
            }
            Event::Eof => {
                return if parsing.has_root && parsing.places.is_empty() {
                    Ok(parsing.document)
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
                    Some(character) if is_xml(character) => character.to_string(),
                    Some(_) => return Err(malformed),
                    None => quick_xml::escape::resolve_xml_entity(&reference)
                        .ok_or(malformed)?
                        .to_owned(),
                }
            }
            _ => continue,
        };
        parsing.text(&characters)?;
    }
}

#[derive(Default)]
struct Parsing {
    document: Document,
    places: Vec<Place>,
    has_root: bool,
    /// Whether the message that is open has `<Body>` or `<Media>`: what stands between them is not said.
    has_nouns: bool,
}

impl Parsing {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), ErrorCode> {
        let name = start.name().as_ref().to_owned();
        let place = match (self.places.last(), name.as_str()) {
            (None, "Response") if !self.has_root => {
                self.has_root = true;
                Place::Response
            }
            (None, _) if self.has_root => return Err(ErrorCode(12100)),
            (None, _) => return Err(ErrorCode(12102)),
            (Some(Place::Response), "Message" | "Sms") => {
                let said = self.message(start)?;
                self.has_nouns = false;
                self.document.verbs.push(Verb::Message(said));
                Place::Message
            }
            (Some(Place::Response), "Redirect") => {
                let is_get = self.is_get(start)?;
                let url = String::new();
                self.document.verbs.push(Verb::Redirect { url, is_get });
                Place::Redirect
            }
            (Some(Place::Message), "Body" | "Media") => {
                let mut is_lost = false;
                if let Some(Verb::Message(said)) = self.document.verbs.last_mut() {
                    if !std::mem::replace(&mut self.has_nouns, true) {
                        is_lost = !said.body.trim().is_empty();
                        said.body.clear();
                    }
                    if name == "Media" {
                        said.media.push(String::new());
                    }
                }
                if is_lost {
                    self.warn(12200, MIXED.to_owned());
                }
                if name == "Media" {
                    Place::Media
                } else {
                    Place::Body
                }
            }
            (Some(Place::Response), known) if VOICE.contains(&known) => {
                self.warn(14110, format!("<{known}> is no verb of messages"));
                Place::Ignored
            }
            (Some(Place::Ignored), _) => Place::Ignored,
            (Some(_), unknown) => {
                self.warn(12200, format!("<{unknown}> is not known here"));
                Place::Ignored
            }
        };
        self.places.push(place);
        Ok(())
    }

    fn close(&mut self) {
        match self.places.pop() {
            Some(Place::Media) => {
                if let Some(Verb::Message(said)) = self.document.verbs.last_mut()
                    && let Some(url) = said.media.last_mut()
                {
                    *url = url.trim().to_owned();
                }
            }
            Some(Place::Redirect) => {
                if let Some(Verb::Redirect { url, .. }) = self.document.verbs.last_mut() {
                    *url = url.trim().to_owned();
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<(), ErrorCode> {
        let verb = self.document.verbs.last_mut();
        match (self.places.last(), verb) {
            (None, _) if !text.trim().is_empty() => return Err(ErrorCode(12100)),
            (Some(Place::Message), Some(Verb::Message(said))) if !self.has_nouns => {
                said.body += text;
            }
            (Some(Place::Body), Some(Verb::Message(said))) => said.body += text,
            (Some(Place::Media), Some(Verb::Message(said))) => {
                if let Some(url) = said.media.last_mut() {
                    *url += text;
                }
            }
            (Some(Place::Redirect), Some(Verb::Redirect { url, .. })) => *url += text,
            (Some(Place::Message), _) if !text.trim().is_empty() => {
                self.warn(12200, MIXED.to_owned());
            }
            (Some(Place::Response), _) if !text.trim().is_empty() => {
                self.warn(12200, "text that belongs to no verb".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, start: &BytesStart<'_>) -> Result<Said, ErrorCode> {
        let mut said = Said::default();
        for (name, value) in attributes(start)? {
            match name.as_str() {
                "to" => said.to = Some(value),
                "from" => said.from = Some(value),
                "action" => said.action = Some(value),
                "statusCallback" => said.status_callback = Some(value),
                "method" => match value.to_ascii_uppercase().as_str() {
                    "GET" => said.action_is_get = true,
                    "POST" => {}
                    _ => self.warn(14104, "method is GET or POST".to_owned()),
                },
                _ => self.warn(12200, format!("the attribute {name} is not known here")),
            }
        }
        Ok(said)
    }

    fn is_get(&mut self, start: &BytesStart<'_>) -> Result<bool, ErrorCode> {
        let mut is_get = false;
        for (name, value) in attributes(start)? {
            match (name.as_str(), value.to_ascii_uppercase().as_str()) {
                ("method", "GET") => is_get = true,
                ("method", "POST") => {}
                ("method", _) => self.warn(14104, "method is GET or POST".to_owned()),
                _ => self.warn(12200, format!("the attribute {name} is not known here")),
            }
        }
        Ok(is_get)
    }

    fn warn(&mut self, code: u32, detail: String) {
        self.document.warnings.push((ErrorCode(code), detail));
    }
}

const MIXED: &str = "text beside <Body> or <Media> is not sent: put it into a <Body>";

/// Verbs of TwiML that messages have no use for.
const VOICE: [&str; 15] = [
    "Say", "Play", "Dial", "Gather", "Record", "Hangup", "Pause", "Reject", "Enqueue", "Leave",
    "Connect", "Start", "Stop", "Refer", "Pay",
];

fn attributes(start: &BytesStart<'_>) -> Result<Vec<(String, String)>, ErrorCode> {
    let malformed = ErrorCode(12100);
    let mut found = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| malformed)?;
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| malformed)?;
        found.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(found)
}

/// What XML 1.0 can hold.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::address::Channel;
    use crate::reply::Reply;
    use crate::twiml;

    fn read(xml: &str) -> Document {
        parse(xml.as_bytes()).unwrap()
    }

    #[test]
    fn verbs_are_read_in_their_order_with_nouns_and_attributes() {
        let document = read(
            r#"<?xml version="1.0"?><!-- c --><Response><Message>a &amp; <![CDATA[<b>]]>&#33;</Message>
               <Message to="+1" action="/next" method="get" statusCallback="/s">
                 <Body>Look</Body> <Media> https://h/a.png?x=1&amp;y=2 </Media></Message>
               <Redirect method="GET">/two</Redirect></Response>"#,
        );
        let first = Said {
            body: "a & <b>!".to_owned(),
            ..Said::default()
        };
        let second = Said {
            to: Some("+1".to_owned()),
            action: Some("/next".to_owned()),
            action_is_get: true,
            status_callback: Some("/s".to_owned()),
            body: "Look".to_owned(),
            media: vec!["https://h/a.png?x=1&y=2".to_owned()],
            ..Said::default()
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
    fn what_is_not_known_is_a_warning_and_the_rest_runs() {
        let document = read(
            "<Response><message>lost</message><Say>x</Say><Message colour=\"red\">kept</Message></Response>",
        );
        let codes: Vec<_> = document.warnings.iter().map(|(code, _)| code.0).collect();
        assert_eq!(codes, [12200, 14110, 12200]);
        assert_eq!(document.verbs.len(), 1);
    }

    #[test]
    fn what_is_not_well_formed_is_refused_whole() {
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

    proptest! {
        #[test]
        fn whatever_bytes_come_it_is_a_document_or_a_code(bytes in vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn pieces_of_twiml_in_any_order_are_a_document_or_a_code(pieces in vec(select(&PIECES[..]), 0..20)) {
            if let Err(code) = parse(pieces.concat().as_bytes()) {
                prop_assert!(matches!(code.0, 12100..=12102), "{code}");
            }
        }

        #[test]
        fn what_our_server_says_is_read_as_it_was_meant(text in "[^\\x00-\\x1f\\u{fffe}\\u{ffff}]{1,200}") {
            prop_assume!(!text.trim().is_empty());
            let said = Reply::text(text.clone());
            let rendered = twiml::Document::render(&said, &Channel::Sms, None).unwrap();
            let document = parse(rendered.as_str().as_bytes()).unwrap();
            prop_assert_eq!(&document.warnings, &[]);
            let expected = Said { body: text, ..Said::default() };
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
