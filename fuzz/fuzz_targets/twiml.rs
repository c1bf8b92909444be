//! Rendering of a reply as TwiML.
//!
//! For any texts, media and channel, an XML parser accepts the document, and no message in it is empty.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quick_xml::Reader;
use quick_xml::events::Event;
use replyhook::twiml::Document;
use replyhook::{Address, Media, Reply, ReplyMessage};

fuzz_target!(|input: (&str, Vec<(&str, Option<&str>)>)| {
    let (from, messages) = input;
    let messages = messages.into_iter().map(|(text, media)| {
        let message = ReplyMessage::text(text);
        match media {
            Some(name) => message.media(Media::url(format!("https://cdn.example.com/{name}"))),
            None => message,
        }
    });
    let reply: Reply = messages.collect();
    // An error is allowed: the reply is too long, or a media URL is invalid.
    let Ok(document) = Document::render(&reply, Address::parse(from).channel(), None) else {
        return;
    };
    assert!(document.as_str().starts_with("<?xml"));
    let mut reader = Reader::from_str(document.as_str());
    // Only a `<Message>` needs content: the start of any other element, in it or around it, sets `has_content` to true.
    let (mut depth, mut has_content) = (0, true);
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                depth += 1;
                has_content = tag.name().as_ref() != "Message";
            }
            Event::Text(text) => has_content |= !text.trim().is_empty(),
            // Character references are separate events. A carriage return is white space.
            Event::GeneralRef(reference) => has_content |= &*reference != "#13",
            Event::End(_) => {
                assert!(has_content, "an empty message");
                depth -= 1;
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0);
});
