//! Splitting of a reply into messages that the channel accepts: texts of at most 1600 units, and as many media files
//! per message as the channel shows.
//!
//! Both reply paths, TwiML and the REST API, send these messages.

use std::borrow::Cow;
use std::ops::ControlFlow;

use unicode_segmentation::UnicodeSegmentation;

use super::markdown::convert_markdown;
use super::media::Media;
use super::messages::{CallbackMethod, Reply, ReplyMessage};
use super::rich_wire::{WireRichContent, render_content};
use super::text_limit::MAX_TEXT_UNITS;
use crate::address::{Address, Channel};

/// Maximum number of media files of one MMS (21623).
const MAX_MMS_MEDIA: usize = 10;

/// Message as it is sent to Twilio.
#[derive(Clone)]
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
pub struct WireMessage<'a> {
    /// With `content`, the text that says the same without it.
    pub text: Cow<'a, str>,
    pub media: &'a [Media],
    /// Rich content, which only the REST API can send.
    pub content: Option<WireRichContent>,
    pub to: Option<&'a Address>,
    pub from: Option<&'a Address>,
    pub status_callback: Option<&'a str>,
    pub action: Option<(&'a str, CallbackMethod)>,
}

/// Messages of a reply as they are sent to Twilio.
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
pub struct WireMessages<'a> {
    /// Messages in order, none of them empty.
    pub messages: Vec<WireMessage<'a>>,
    /// True if the reply was cut at the limit; the last message then ends in "…".
    pub is_cut: bool,
}

/// Appended to the last message of a reply that is cut.
const ELLIPSIS: &str = "…";

impl Reply {
    /// Returns the first `limit` messages for a channel. Reads only as much of a long text as these need.
    #[doc(hidden)]
    pub fn wire_messages(&self, channel: &Channel, limit: usize) -> WireMessages<'_> {
        let mut messages = Vec::with_capacity(self.messages.len().min(limit));
        let mut is_cut = false;
        for message in &self.messages {
            is_cut = push_wire(message, channel, limit, &mut messages);
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
        if !can_caption(channel, self.media) {
            // A file without a caption cannot show the ellipsis, so the ellipsis replaces it.
            self.media = &[];
        }
        let mut text = self.text.trim_end();
        while count_units(text) + count_units(ELLIPSIS) > MAX_TEXT_UNITS {
            let last = text.grapheme_indices(true).next_back();
            text = &text[..last.map_or(0, |(at, _)| at)];
        }
        self.text = Cow::Owned(format!("{text}{ELLIPSIS}"));
    }
}

/// Appends this message's parts to `wire`, up to `limit` messages in total. Returns true if some did not fit.
fn push_wire<'a>(
    message: &'a ReplyMessage,
    channel: &Channel,
    limit: usize,
    wire: &mut Vec<WireMessage<'a>>,
) -> bool {
    let first = wire.len();
    // A blank message sends nothing, so leaving it out does not cut the reply.
    if first >= limit {
        return !message.is_empty();
    }
    let part = |text: Cow<'a, str>, media| WireMessage {
        text,
        media,
        content: None,
        to: message.to.as_ref(),
        from: message.from.as_ref(),
        status_callback: message.status_callback.as_deref(),
        action: None,
    };
    let remaining = limit - first;
    let converted = if message.markdown {
        convert_markdown(&message.text, channel)
    } else {
        Cow::Borrowed(message.text.as_str())
    };
    let rendered = render_content(message, &converted, channel);
    if let Some(content) = rendered
        .as_ref()
        .and_then(|rendered| rendered.content.clone())
    {
        // The files first, so that the buttons are the last that the user sees.
        let files = message.media.chunks(1).map(|files| part("".into(), files));
        wire.extend(files);
        let text = rendered.map(|rendered| rendered.text).unwrap_or_default();
        let mut last = part(text.into(), &[]);
        last.content = Some(content);
        wire.push(last);
        let is_cut = wire.len() > limit;
        wire.truncate(limit);
        return is_cut;
    }
    let mut texts: Vec<Cow<'a, str>> = match (rendered, converted) {
        (None, Cow::Borrowed(text)) => pieces(message, remaining, text_splitter(text)),
        (Some(rendered), _) if !rendered.lines.is_empty() => {
            pieces(message, remaining, |units, limit| {
                first_pieces_of_lines(&rendered.lines, units, limit)
            })
        }
        (rendered, converted) => {
            let text = rendered.map_or_else(|| converted.into_owned(), |rendered| rendered.text);
            let pieces = pieces(message, remaining, text_splitter(&text)).into_iter();
            pieces.map(|piece| Cow::Owned(piece.into_owned())).collect()
        }
    };
    let per_message = if *channel == Channel::Sms {
        MAX_MMS_MEDIA
    } else {
        1
    };
    let mut media = message.media.chunks(per_message);
    // A caption, if the text is a single piece; otherwise all texts precede the media.
    if texts.len() == 1
        && can_caption(channel, &message.media)
        && let Some(files) = media.next()
    {
        wire.extend(texts.drain(..).map(|caption| part(caption, files)));
    }
    wire.extend(texts.into_iter().map(|text| part(text, &[])));
    wire.extend(media.map(|files| part("".into(), files)));
    let is_cut = wire.len() > limit;
    wire.truncate(limit);
    // Twilio continues with the TwiML at `action` and skips the rest, so only the last part may have it.
    if let Some(last) = wire[first..].last_mut() {
        last.action = message
            .action
            .as_ref()
            .map(|(url, method)| (url.as_str(), *method));
    }
    is_cut
}

/// Returns the pieces of a text for `limit` messages, and one more if it is cut. `split` returns the first pieces of the
/// text, given the maximum number of units of a piece and the maximum number of pieces.
fn pieces<'t>(
    message: &ReplyMessage,
    limit: usize,
    split: impl Fn(usize, usize) -> Vec<Cow<'t, str>>,
) -> Vec<Cow<'t, str>> {
    if message.numbered {
        return numbered_pieces(limit, split);
    }
    // One more than fits shows that the text is cut.
    split(MAX_TEXT_UNITS, limit.saturating_add(1))
}

fn text_splitter<'t>(text: &'t str) -> impl Fn(usize, usize) -> Vec<Cow<'t, str>> {
    move |units, limit| {
        let pieces = first_pieces(text, units, limit).into_iter();
        pieces.map(Cow::Borrowed).collect()
    }
}

/// Returns true if a text and these files may share a message: always on SMS, elsewhere only if the first file is a
/// JPEG or PNG. WhatsApp drops the text of other files.
fn can_caption(channel: &Channel, media: &[Media]) -> bool {
    *channel == Channel::Sms || media.first().is_some_and(Media::carries_caption)
}

/// Returns the first `limit` pieces of a text, without blank ones.
fn first_pieces(text: &str, units: usize, limit: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    for_each_piece(text, units, |piece| {
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

/// Returns the first `limit` pieces of a text that is split between its lines. Only a line that is too long for a message
/// is split itself.
fn first_pieces_of_lines<'t>(lines: &[String], units: usize, limit: usize) -> Vec<Cow<'t, str>> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    for line in lines {
        if !piece.is_empty() {
            if count_units(&piece) + 1 + count_units(line) <= units {
                piece.push('\n');
                piece.push_str(line);
                continue;
            }
            pieces.push(Cow::Owned(std::mem::take(&mut piece)));
        }
        let mut parts = pieces_of_line(line, units);
        // The next line may follow the last part.
        piece.push_str(&parts.pop().unwrap_or_default());
        pieces.extend(parts.into_iter().map(Cow::Owned));
    }
    if !piece.is_empty() {
        pieces.push(Cow::Owned(piece));
    }
    pieces.truncate(limit);
    pieces
}

/// Returns the pieces of a line, the first of which has more than the number of a choice.
fn pieces_of_line(line: &str, units: usize) -> Vec<String> {
    let number = line.bytes().take_while(u8::is_ascii_digit).count();
    let space = number + 1;
    let is_choice = number > 0 && line[number..].starts_with(". ");
    // A long title without a space would otherwise be cut after its number, where the only space is.
    let mut masked = line.to_owned();
    if is_choice {
        masked.replace_range(space..=space, "_");
    }
    let mut parts: Vec<String> = first_pieces(&masked, units, usize::MAX)
        .into_iter()
        .map(str::to_owned)
        .collect();
    if is_choice && let Some(first) = parts.first_mut() {
        first.replace_range(space..=space, " ");
    }
    parts
}

/// Returns the pieces that `split` returns, each with a number in front if there are several: `(1/3) …`.
///
/// If there are more than `limit`, the total is `limit`, and one more piece shows that the text is cut.
fn numbered_pieces<'t>(
    limit: usize,
    split: impl Fn(usize, usize) -> Vec<Cow<'t, str>>,
) -> Vec<Cow<'t, str>> {
    let limit_plus_one = limit.saturating_add(1);
    // Two pieces are enough to decide whether numbers are needed.
    let first_two = split(MAX_TEXT_UNITS, limit_plus_one.min(2));
    if first_two.len() <= 1 || limit <= 1 {
        return first_two;
    }
    // Longer numbers leave less space for text, which may need more pieces: try again with one more digit until the
    // total fits.
    let mut digits = 1;
    loop {
        let max_units = MAX_TEXT_UNITS - "(/) ".len() - 2 * digits;
        let pieces = split(max_units, limit_plus_one);
        let total = pieces.len().min(limit);
        if total.to_string().len() <= digits {
            let pieces = (1..).zip(pieces);
            return pieces
                .map(|(number, piece)| Cow::Owned(format!("({number}/{total}) {piece}")))
                .collect();
        }
        digits += 1;
    }
}

/// Cuts a text into pieces of at most `max_units` units, whose concatenation is the text.
///
/// A piece ends after white space if it has any, else between words, else between graphemes. Only a grapheme that is
/// too long for a message is cut itself. A piece does not depend on text after the next piece, so that a caller may
/// stop early.
fn for_each_piece<'a>(
    text: &'a str,
    max_units: usize,
    mut on_piece: impl FnMut(&'a str) -> ControlFlow<()>,
) {
    // Each UTF-16 unit takes at least one byte of UTF-8, so a text of `max_units` bytes fits without counting.
    if text.len() <= max_units {
        let _ = on_piece(text);
        return;
    }
    let mut start = 0;
    let mut units = 0;
    let mut after_space = None;
    let cuts = text.grapheme_indices(true).flat_map(|(at, grapheme)| {
        let fits = count_units(grapheme) <= max_units;
        let chars = grapheme
            .char_indices()
            .map(move |(offset, c)| (at + offset, &grapheme[offset..offset + c.len_utf8()]));
        let (one, many) = if fits {
            (Some((at, grapheme)), None)
        } else {
            (None, Some(chars))
        };
        one.into_iter().chain(many.into_iter().flatten())
    });
    for (at, cut) in cuts {
        let cut_units = count_units(cut);
        // A loop, because cutting after white space may leave a rest to which `cut` still cannot be added.
        while units > 0 && units + cut_units > max_units {
            let end = after_space
                .take()
                .unwrap_or_else(|| word_boundary(&text[..at + cut.len()], start, at));
            if on_piece(&text[start..end]).is_break() {
                return;
            }
            // The rest after the cut begins the next piece.
            units = count_units(&text[end..at]);
            start = end;
        }
        units += cut_units;
        if cut.ends_with(char::is_whitespace) {
            after_space = Some(at + cut.len());
        }
    }
    let _ = on_piece(&text[start..]);
}

/// Returns the last boundary between words up to `at`, or `at` itself if the piece would lose half of its length or
/// more.
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

fn count_units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split_text(text: &str, max_units: usize) -> Vec<&str> {
        let mut pieces = Vec::new();
        for_each_piece(text, max_units, |piece| {
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
        assert!(texts[2].0.ends_with("word…") && count_units(&texts[2].0) <= MAX_TEXT_UNITS);
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
    fn number_of_a_long_title_stays_with_its_beginning() {
        let question = ReplyMessage::text("Which?").choices(["x".repeat(2000), "B".to_owned()]);
        let texts = shape(&Reply::from(question), &Channel::Sms);
        let texts: Vec<_> = texts.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts[0], "Which?");
        assert_eq!(texts[1], format!("1. {}", "x".repeat(1597)));
        assert_eq!(texts[2], format!("{}\n2. B", "x".repeat(403)));
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
    fn long_text_is_split_after_white_space() {
        let text = "word ".repeat(400);
        let pieces = split_text(&text, MAX_TEXT_UNITS);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0].len(), 1600);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.starts_with("word") && piece.ends_with(' '))
        );
    }

    #[test]
    fn text_without_spaces_is_split_between_graphemes() {
        let family = "👨‍👩‍👧‍👦".repeat(200);
        for piece in split_text(&family, MAX_TEXT_UNITS) {
            assert_eq!(piece.len() % "👨‍👩‍👧‍👦".len(), 0);
        }
        let url = "https://example.com/".to_owned() + &"a".repeat(1580) + "/tail";
        assert_eq!(split_text(&url, MAX_TEXT_UNITS)[1], "/tail");
        let cjk = "漢字".repeat(900);
        assert!(
            split_text(&cjk, MAX_TEXT_UNITS)
                .iter()
                .all(|piece| piece.chars().count() <= 1600)
        );
    }

    // A caption goes only with an image; an SMS takes up to ten files.
    #[test]
    fn whatsapp_message_takes_one_file() {
        let photo = || Media::url("https://h/a.jpg");
        let pdf = || Media::url("https://h/a.pdf");
        let reply = |message: ReplyMessage| Reply::from(message);
        let text = |text: &str, files| (text.to_owned(), files);
        let two = reply(ReplyMessage::text("look").media(photo()).media(pdf()));
        assert_eq!(
            shape(&two, &Channel::WhatsApp),
            [text("look", 1), text("", 1)]
        );
        assert_eq!(shape(&two, &Channel::Sms), [text("look", 2)]);
        let document = reply(ReplyMessage::text("look").media(pdf()));
        assert_eq!(
            shape(&document, &Channel::WhatsApp),
            [text("look", 0), text("", 1)]
        );
        let eleven =
            reply((0..11).fold(ReplyMessage::text("x"), |message, _| message.media(photo())));
        assert_eq!(shape(&eleven, &Channel::Sms), [text("x", 10), text("", 1)]);
        assert_eq!(
            shape(&reply(ReplyMessage::text(" \n")), &Channel::WhatsApp),
            []
        );
    }

    #[test]
    fn numbered_reply_numbers_parts_if_several() {
        let texts = |reply: Reply| {
            let shape = shape(&reply.numbered(), &Channel::WhatsApp);
            shape.into_iter().map(|(text, _)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(Reply::text("x".repeat(1600))), ["x".repeat(1600)]);
        let long = "word ".repeat(400);
        let parts = texts(Reply::text(long.clone()));
        assert_eq!(parts.len(), 2);
        assert!(parts[0].starts_with("(1/2) word ") && parts[1].starts_with("(2/2) word "));
        let joined: String = parts.iter().map(|part| &part[6..]).collect();
        assert_eq!(joined, long);
        // The text fits nine messages without numbers. With numbers it needs ten, whose numbers have one more digit.
        let parts = texts(Reply::text("x".repeat(9 * 1600)));
        assert_eq!(parts.len(), 10);
        assert!(parts[9].starts_with("(10/10) x"));
        assert!(parts.iter().all(|part| count_units(part) <= MAX_TEXT_UNITS));
    }

    #[test]
    fn action_url_is_on_last_part_only() {
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
        fn split_pieces_join_to_text_within_limit(parts in proptest::collection::vec("[a-zé ]{0,300}|(\\PC){0,300}|(e\u{0301}){0,900}|👍🏽{0,500}|a(\u{0301}){0,3000}", 0..8)) {
            let text = parts.concat();
            let pieces = split_text(&text, MAX_TEXT_UNITS);
            prop_assert_eq!(pieces.concat(), text.as_str());
            for piece in pieces {
                prop_assert!(count_units(piece) <= MAX_TEXT_UNITS);
            }
        }

        // The question may be split anywhere, a choice and the hint nowhere.
        #[test]
        fn long_question_is_split_between_choices(
            question in "[a-z ]{0,2000}",
            titles in proptest::collection::vec("[A-Za-z][A-Za-z é👍]{0,200}", 1..60),
            hint in "[a-z ]{0,80}",
            numbered: bool,
        ) {
            let titles = titles.iter().enumerate().map(|(at, title)| format!("{at} {title}"));
            let Ok(choices) = crate::choice::Choices::new(titles) else { return Ok(()) };
            let message = ReplyMessage::text(question).choices(&choices).choices_hint(hint.as_str());
            let message = if numbered { message.numbered() } else { message };
            let reply = Reply::from(message);
            let wire = reply.wire_messages(&Channel::Sms, usize::MAX);
            let mut lines = choices.numbered_lines("", Some(&hint)).into_iter().peekable();
            for message in &wire.messages {
                prop_assert!(count_units(&message.text) <= MAX_TEXT_UNITS);
                let prefix = if numbered && wire.messages.len() > 1 { message.text.find(") ").unwrap() + 2 } else { 0 };
                for line in message.text[prefix..].split('\n') {
                    lines.next_if(|expected| expected.as_str() == line);
                }
            }
            prop_assert_eq!(lines.next(), None);
        }
    }
}
