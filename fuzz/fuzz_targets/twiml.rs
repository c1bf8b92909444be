//! Whatever a bot says on whatever channel, the document is one that an XML parser reads, and no message in it is empty.
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
    let Ok(document) = Document::render(&reply, Address::parse(from).channel(), None) else {
        return;
    };
    assert!(document.as_str().starts_with("<?xml"));
    let mut reader = Reader::from_str(document.as_str());
    let (mut depth, mut says_something) = (0, true);
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                depth += 1;
                says_something = tag.name().as_ref() != "Message";
            }
            Event::Text(text) => says_something |= !text.trim().is_empty(),
            Event::GeneralRef(reference) => says_something |= &*reference != "#13",
            Event::End(_) => {
                assert!(says_something, "an empty message");
                depth -= 1;
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0);
});
