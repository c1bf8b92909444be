//! A reply as the channel takes it: texts of at most 1600 units, as many files a message as the channel shows.
//!
//! Both carriers, TwiML and REST, send what comes out of here.

use std::borrow::Cow;
use std::ops::ControlFlow;

use unicode_segmentation::UnicodeSegmentation;

use super::{CallbackMethod, Media, Reply, ReplyMessage};
use crate::address::{Address, Channel};

/// Most characters of one text, counted in UTF-16 units, the strictest reading of Twilio's "1600 characters" (14103).
const TEXT_UNITS: usize = 1600;
/// Most files of one MMS (21623).
const MMS_MEDIA: usize = 10;

/// One message as it goes out.
#[derive(Clone)]
pub(crate) struct WireMessage<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) media: &'a [Media],
    pub(crate) to: Option<&'a Address>,
    pub(crate) from: Option<&'a Address>,
    pub(crate) status_callback: Option<&'a str>,
    pub(crate) action: Option<(&'a str, CallbackMethod)>,
}

/// The messages of a reply as they go out.
pub(crate) struct WireMessages<'a> {
    /// In order; none of them is empty.
    pub(crate) messages: Vec<WireMessage<'a>>,
    /// True if the reply was cut at the limit; the last message then ends in "…".
    #[cfg_attr(
        not(any(feature = "app", test)),
        expect(dead_code, reason = "the dispatcher asks")
    )]
    pub(crate) is_cut: bool,
}

/// Appended to the last message of a reply that is cut.
const ELLIPSIS: &str = "…";

impl Reply {
    /// The first `limit` messages that go out on a channel. Reads no further into a long text than these need.
    pub(crate) fn wire_messages(&self, channel: &Channel, limit: usize) -> WireMessages<'_> {
        let mut messages = Vec::with_capacity(self.messages.len().min(limit));
        let mut is_cut = false;
        for message in &self.messages {
            is_cut = message.push_wire(channel, limit, &mut messages);
            if is_cut {
                break;
            }
        }
        if is_cut && let Some(last) = messages.last_mut() {
            last.end_in_ellipsis(channel);
        }
        WireMessages { messages, is_cut }
    }
}

impl WireMessage<'_> {
    fn end_in_ellipsis(&mut self, channel: &Channel) {
        if !captions(channel, self.media) {
            // A file without a caption cannot say that something is missing.
            self.media = &[];
        }
        let mut kept = self.text.trim_end();
        while units_of(kept) + units_of(ELLIPSIS) > TEXT_UNITS {
            let last = kept.grapheme_indices(true).next_back();
            kept = &kept[..last.map_or(0, |(at, _)| at)];
        }
        self.text = Cow::Owned(format!("{kept}{ELLIPSIS}"));
    }
}

impl ReplyMessage {
    /// Adds its messages up to `limit` in all. Returns whether there are more.
    fn push_wire<'a>(
        &'a self,
        channel: &Channel,
        limit: usize,
        wire: &mut Vec<WireMessage<'a>>,
    ) -> bool {
        let first = wire.len();
        if first >= limit {
            return !self.is_empty();
        }
        let part = |text: Cow<'a, str>, media| WireMessage {
            text,
            media,
            to: self.to.as_ref(),
            from: self.from.as_ref(),
            status_callback: self.status_callback.as_deref(),
            action: None,
        };
        let left = limit - first;
        let mut texts = if self.numbered {
            numbered(&self.text, left)
        } else {
            let pieces = filled(&self.text, TEXT_UNITS, left.saturating_add(1));
            pieces.into_iter().map(Cow::Borrowed).collect()
        };
        let per_message = if *channel == Channel::Sms {
            MMS_MEDIA
        } else {
            1
        };
        let mut media = self.media.chunks(per_message);
        if texts.len() == 1
            && captions(channel, &self.media)
            && let Some(files) = media.next()
        {
            wire.extend(texts.drain(..).map(|caption| part(caption, files)));
        }
        wire.extend(texts.into_iter().map(|text| part(text, &[])));
        wire.extend(media.map(|files| part("".into(), files)));
        let is_cut = wire.len() > limit;
        wire.truncate(limit);
        // The TwiML at `action` takes over, so it may only stand on the last part.
        if let Some(last) = wire[first..].last_mut() {
            last.action = self
                .action
                .as_ref()
                .map(|(url, method)| (url.as_str(), *method));
        }
        is_cut
    }
}

/// Whether a text goes along with these files. Only where the channel shows it: elsewhere WhatsApp drops the text beside a
/// file.
fn captions(channel: &Channel, media: &[Media]) -> bool {
    *channel == Channel::Sms || media.first().is_some_and(Media::carries_caption)
}

/// The first `limit` pieces of a text that show something.
fn filled(text: &str, units: usize, limit: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    each_piece(text, units, |piece| {
        if !piece.trim().is_empty() {
            pieces.push(piece);
        }
        if pieces.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    pieces
}

/// The same, each with its number before it: `(1/3) …`. One piece needs none. Where there are more than `limit`, the numbers
/// count those that are left, and one more piece shows that there are more.
fn numbered(text: &str, limit: usize) -> Vec<Cow<'_, str>> {
    let beyond = limit.saturating_add(1);
    let whole = filled(text, TEXT_UNITS, beyond.min(2));
    if whole.len() <= 1 || limit <= 1 {
        return whole.into_iter().map(Cow::Borrowed).collect();
    }
    let mut digits = 1;
    loop {
        let room = TEXT_UNITS - "(/) ".len() - 2 * digits;
        let pieces = filled(text, room, beyond);
        let all = pieces.len().min(limit);
        if all.to_string().len() <= digits {
            let pieces = (1..).zip(pieces);
            return pieces
                .map(|(number, piece)| Cow::Owned(format!("({number}/{all}) {piece}")))
                .collect();
        }
        digits += 1;
    }
}

/// Cuts a text into pieces that say the same when read one after the other: after white space if there is any in a
/// piece, else between words, else between graphemes, and only within one that is too long for any message. A piece depends
/// on nothing that comes after the one that follows it.
fn each_piece<'a>(text: &'a str, most: usize, mut take: impl FnMut(&'a str) -> ControlFlow<()>) {
    // A UTF-16 unit takes at least a byte of UTF-8.
    if text.len() <= most {
        let _ = take(text);
        return;
    }
    let mut start = 0;
    let mut units = 0;
    let mut after_space = None;
    let cuts = text.grapheme_indices(true).flat_map(|(at, grapheme)| {
        let whole = units_of(grapheme) <= most;
        let chars = grapheme
            .char_indices()
            .map(move |(offset, c)| (at + offset, &grapheme[offset..offset + c.len_utf8()]));
        let (one, many) = if whole {
            (Some((at, grapheme)), None)
        } else {
            (None, Some(chars))
        };
        one.into_iter().chain(many.into_iter().flatten())
    });
    for (at, cut) in cuts {
        let more = units_of(cut);
        // More than once where a short piece is followed by a grapheme that fills a message.
        while units > 0 && units + more > most {
            let end = after_space
                .take()
                .unwrap_or_else(|| word_boundary(&text[..at + cut.len()], start, at));
            if take(&text[start..end]).is_break() {
                return;
            }
            units = units_of(&text[end..at]);
            start = end;
        }
        units += more;
        if cut.ends_with(char::is_whitespace) {
            after_space = Some(at + cut.len());
        }
    }
    let _ = take(&text[start..]);
}

/// The last boundary between words up to `at`, or `at` where that would leave a piece of less than half its size.
fn word_boundary(text: &str, start: usize, at: usize) -> usize {
    let boundaries = text[start..]
        .split_word_bound_indices()
        .map(|(boundary, _)| start + boundary);
    let last = boundaries
        .take_while(|boundary| *boundary <= at)
        .last()
        .unwrap_or(at);
    if last - start > (at - start) / 2 {
        last
    } else {
        at
    }
}

fn units_of(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split_text(text: &str, most: usize) -> Vec<&str> {
        let mut pieces = Vec::new();
        each_piece(text, most, |piece| {
            pieces.push(piece);
            ControlFlow::Continue(())
        });
        pieces
    }

    fn shape(reply: &Reply, channel: &Channel) -> Vec<(String, usize)> {
        reply
            .wire_messages(channel, usize::MAX)
            .messages
            .iter()
            .map(|wire| (wire.text.to_string(), wire.media.len()))
            .collect()
    }

    fn cut(reply: &Reply, channel: &Channel, limit: usize) -> Vec<(String, usize)> {
        let wire = reply.wire_messages(channel, limit);
        assert!(wire.is_cut);
        assert_eq!(wire.messages.len(), limit);
        let shape = |wire: &WireMessage<'_>| (wire.text.to_string(), wire.media.len());
        wire.messages.iter().map(shape).collect()
    }

    #[test]
    fn cut_reply_ends_in_ellipsis_within_limit() {
        let long = "word ".repeat(2000);
        let texts = cut(&Reply::text(long.clone()), &Channel::Sms, 3);
        assert_eq!(texts[1], ("word ".repeat(320), 0));
        assert_eq!(
            texts[2],
            ("word ".repeat(320).trim_end().to_owned() + "…", 0)
        );
        let texts = cut(&Reply::text(long.clone()).numbered(), &Channel::Sms, 3);
        assert!(texts[0].0.starts_with("(1/3) word ") && texts[2].0.starts_with("(3/3) word "));
        assert!(texts[2].0.ends_with("word…") && units_of(&texts[2].0) <= TEXT_UNITS);
        let unbroken = cut(&Reply::text("x".repeat(3201)), &Channel::Sms, 2);
        assert_eq!(unbroken[1].0, "x".repeat(1599) + "…");
        let families = cut(&Reply::text("👨‍👩‍👧‍👦".repeat(300)), &Channel::Sms, 1);
        assert_eq!(families[0].0, "👨‍👩‍👧‍👦".repeat(145) + "…");
        let several = Reply::text("one").and("two").and(" ").and("three");
        assert_eq!(cut(&several, &Channel::Sms, 2)[1].0, "two…");
        assert!(!several.wire_messages(&Channel::Sms, 3).is_cut);
        let blank_end = Reply::text("one").and(" ");
        assert!(!blank_end.wire_messages(&Channel::Sms, 1).is_cut);
    }

    #[test]
    fn cut_files_end_in_ellipsis() {
        let files = |name: &str| {
            let media = std::iter::repeat_n(Media::url(format!("https://h/{name}")), 12);
            Reply::from(media.fold(ReplyMessage::text("look"), ReplyMessage::media))
        };
        let photos = cut(&files("a.jpg"), &Channel::WhatsApp, 2);
        assert_eq!(photos, [("look".to_owned(), 1), ("…".to_owned(), 1)]);
        let documents = cut(&files("a.pdf"), &Channel::WhatsApp, 3);
        assert_eq!(documents[1..], [(String::new(), 1), ("…".to_owned(), 0)]);
        assert_eq!(
            cut(&files("a.pdf"), &Channel::Sms, 1),
            [("look…".to_owned(), 10)]
        );
    }

    #[test]
    fn a_long_text_is_cut_after_white_space() {
        let text = "word ".repeat(400);
        let pieces = split_text(&text, TEXT_UNITS);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0].len(), 1600);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.starts_with("word") && piece.ends_with(' '))
        );
    }

    #[test]
    fn a_text_without_spaces_is_cut_between_words_and_graphemes() {
        let family = "👨‍👩‍👧‍👦".repeat(200);
        for piece in split_text(&family, TEXT_UNITS) {
            assert_eq!(piece.len() % "👨‍👩‍👧‍👦".len(), 0);
        }
        let url = "https://example.com/".to_owned() + &"a".repeat(1580) + "/tail";
        assert_eq!(split_text(&url, TEXT_UNITS)[1], "/tail");
        let cjk = "漢字".repeat(900);
        assert!(
            split_text(&cjk, TEXT_UNITS)
                .iter()
                .all(|piece| piece.chars().count() <= 1600)
        );
    }

    #[test]
    fn whatsapp_takes_one_file_a_message_and_a_caption_only_on_an_image() {
        let photo = || Media::url("https://h/a.jpg");
        let pdf = || Media::url("https://h/a.pdf");
        let of = |message: ReplyMessage| Reply::from(message);
        let text = |text: &str, files| (text.to_owned(), files);
        let two = of(ReplyMessage::text("look").media(photo()).media(pdf()));
        assert_eq!(
            shape(&two, &Channel::WhatsApp),
            [text("look", 1), text("", 1)]
        );
        assert_eq!(shape(&two, &Channel::Sms), [text("look", 2)]);
        let document = of(ReplyMessage::text("look").media(pdf()));
        assert_eq!(
            shape(&document, &Channel::WhatsApp),
            [text("look", 0), text("", 1)]
        );
        let eleven = of((0..11).fold(ReplyMessage::text("x"), |message, _| message.media(photo())));
        assert_eq!(shape(&eleven, &Channel::Sms), [text("x", 10), text("", 1)]);
        assert_eq!(
            shape(&of(ReplyMessage::text(" \n")), &Channel::WhatsApp),
            []
        );
    }

    #[test]
    fn parts_are_numbered_where_that_is_wanted_and_there_are_several() {
        let texts = |reply: Reply| {
            let shape = shape(&reply.numbered(), &Channel::WhatsApp);
            shape.into_iter().map(|(text, _)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(Reply::text("x".repeat(1600))), ["x".repeat(1600)]);
        let long = "word ".repeat(400);
        let parts = texts(Reply::text(long.clone()));
        assert_eq!(parts.len(), 2);
        assert!(parts[0].starts_with("(1/2) word ") && parts[1].starts_with("(2/2) word "));
        let said: String = parts.iter().map(|part| &part[6..]).collect();
        assert_eq!(said, long);
        // Nine parts would do without numbers; with them there are ten, whose numbers are longer.
        let parts = texts(Reply::text("x".repeat(9 * 1600)));
        assert_eq!(parts.len(), 10);
        assert!(parts[9].starts_with("(10/10) x"));
        assert!(parts.iter().all(|part| units_of(part) <= TEXT_UNITS));
    }

    #[test]
    fn action_stands_on_the_last_part_only() {
        let message = ReplyMessage::text("x")
            .media(Media::url("https://h/a.pdf"))
            .action("https://h/next", CallbackMethod::Get);
        let reply = Reply::from(message);
        let actions: Vec<_> = reply
            .wire_messages(&Channel::WhatsApp, usize::MAX)
            .messages
            .iter()
            .map(|wire| wire.action.is_some())
            .collect();
        assert_eq!(actions, [false, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_join_to_the_text_and_none_is_too_long(parts in proptest::collection::vec("[a-zé ]{0,300}|(\\PC){0,300}|(e\u{0301}){0,900}|👍🏽{0,500}|a(\u{0301}){0,3000}", 0..8)) {
            let text = parts.concat();
            let pieces = split_text(&text, TEXT_UNITS);
            prop_assert_eq!(pieces.concat(), text.as_str());
            for piece in pieces {
                prop_assert!(units_of(piece) <= TEXT_UNITS);
            }
        }
    }
}
