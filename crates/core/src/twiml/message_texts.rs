//! Parsing of the messages in a rendered document.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// Recipient and text of one `<Message>`.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
#[doc(hidden)]
pub struct MessageText {
    /// Recipient, if the message is not for the user who wrote.
    pub to: Option<String>,
    pub text: String,
}

/// Returns the messages of a stored document. Stops at a parse error; an empty document has none.
pub fn parse_message_texts(twiml: &str) -> Vec<MessageText> {
    let mut reader = Reader::from_str(twiml);
    let mut messages: Vec<MessageText> = Vec::new();
    // Names of the open elements.
    let mut open: Vec<String> = Vec::new();
    loop {
        let text = match reader.read_event() {
            Ok(Event::Start(start)) => {
                if start.name().as_ref() == "Message" {
                    messages.push(start_message(&start));
                }
                open.push(start.name().as_ref().to_owned());
                continue;
            }
            Ok(Event::End(_)) => {
                open.pop();
                continue;
            }
            Ok(Event::Text(text)) => text.xml10_content().into_owned(),
            // quick-xml reports each reference as an event of its own, between the texts around it.
            Ok(Event::GeneralRef(reference)) => match reference.resolve_char_ref() {
                Ok(Some(c)) => c.to_string(),
                _ => quick_xml::escape::resolve_xml_entity(&reference)
                    .unwrap_or_default()
                    .to_owned(),
            },
            Ok(Event::Eof) | Err(_) => return messages,
            Ok(_) => continue,
        };
        // The text is directly in `<Message>`, or in `<Body>` next to media. `<Media>` and `<Redirect>` contain URLs.
        let is_text = matches!(open.last().map(String::as_str), Some("Message" | "Body"));
        if let Some(last) = messages.last_mut().filter(|_| is_text) {
            last.text.push_str(&text);
        }
    }
}

/// Starts a message with the recipient of its start tag.
fn start_message(start: &BytesStart<'_>) -> MessageText {
    let to = start
        .attributes()
        .flatten()
        .find(|attribute| attribute.key.as_ref() == "to");
    let to = to.and_then(|to| to.normalized_value(XmlVersion::Implicit1_0).ok());
    MessageText {
        to: to.map(std::borrow::Cow::into_owned),
        text: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Channel;
    use crate::reply::{Media, Reply, ReplyMessage};
    use crate::twiml::Document;

    #[test]
    fn texts_read_from_twiml_match_reply() {
        let reply = Reply::text("1 < 2 & \"so\" on\r\nend")
            .and(
                ReplyMessage::text("Your receipt")
                    .media(Media::url("https://cdn.example.com/r.png")),
            )
            .and(ReplyMessage::text("To you").to("whatsapp:+15550003333"));
        let document = Document::render(&reply, &Channel::WhatsApp, None).unwrap();
        let messages = parse_message_texts(document.as_str());
        let read: Vec<_> = messages
            .iter()
            .map(|message| (message.to.as_deref(), message.text.as_str()))
            .collect();
        assert_eq!(
            read,
            [
                (None, "1 < 2 & \"so\" on\r\nend"),
                (None, "Your receipt"),
                (Some("whatsapp:+15550003333"), "To you"),
            ]
        );
        assert!(parse_message_texts("").is_empty());
    }
}
