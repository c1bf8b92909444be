//! Checks an outbound message against Twilio's rules before it is queued.
//!
//! Twilio reports most of these mistakes only when the message is sent, and as a bare error code.

use jiff::{SignedDuration, Timestamp};

use super::error::SendError;
use crate::address::{Channel, Identity};
use crate::reply::names::media_type_by_extension;
use crate::reply::{MAX_TEXT_UNITS, is_web_url, kinds};
use crate::twilio::{NewMessage, NewMessageContent, PinnedLocation};

// Twilio's limit (21623). WhatsApp allows one file: see `check_media`.
const MAX_FILES: usize = 10;
// Source: twilio.com/docs/messaging/features/message-scheduling.
const MIN_SCHEDULE_AHEAD: SignedDuration = SignedDuration::from_mins(5);
const MAX_SCHEDULE_AHEAD: SignedDuration = SignedDuration::from_hours(35 * 24);

/// Checks addresses, content, media and schedule of a message.
///
/// # Errors
/// [`SendError`] with the first problem. Its text contains no address and no content.
pub(super) fn check(message: &NewMessage, now: Timestamp) -> Result<(), SendError> {
    check_addresses(message)?;
    check_content(message)?;
    check_media(message)?;
    check_schedule(message, now)
}

fn fail<T>(problem: impl Into<String>) -> Result<T, SendError> {
    Err(SendError::invalid(problem))
}

fn check_addresses(message: &NewMessage) -> Result<(), SendError> {
    let to = &message.to;
    if !to.can_receive() {
        return fail(
            "invalid recipient address; expected a form such as +15550001111 or whatsapp:+15550001111",
        );
    }
    let is_whatsapp = *to.channel() == Channel::WhatsApp;
    let is_template = match &message.content {
        NewMessageContent::Template { .. } => true,
        NewMessageContent::Reply(reply) => reply.is_template(),
        NewMessageContent::Text(_) | NewMessageContent::Location(_) => false,
    };
    // Without a sender the window cannot be checked, since each sender has its own. A template needs no open window.
    let Some(from) = &message.from else {
        return match message.messaging_service_sid {
            None => fail("missing sender; set one of your senders or a Messaging Service"),
            Some(_) if is_whatsapp && !is_template => fail(
                "a message other than a template needs its sender on WhatsApp, in addition to the Messaging Service, because \
                 each sender has its own customer service window",
            ),
            Some(_) => Ok(()),
        };
    };
    if from.channel() != to.channel() {
        return fail(format!(
            "sender and recipient are on different channels, {} and {}",
            from.channel().as_str(),
            to.channel().as_str()
        ));
    }
    // Alphanumeric IDs and short codes are valid SMS senders. `Identity::Other` is a text in none of the known forms.
    let is_phone_channel = matches!(to.channel(), Channel::Sms | Channel::WhatsApp);
    if from.id().is_empty() || (is_phone_channel && from.identity() == Identity::Other) {
        return fail(
            "invalid sender address; expected a form such as +15550002222 or whatsapp:+15550002222",
        );
    }
    if from == to {
        return fail("sender and recipient are the same");
    }
    Ok(())
}

fn check_content(message: &NewMessage) -> Result<(), SendError> {
    match &message.content {
        NewMessageContent::Text(text) => {
            let units = text.encode_utf16().count();
            if text.trim().is_empty() && message.media.is_empty() {
                return fail("nothing to send; set a text or media");
            }
            if units > MAX_TEXT_UNITS {
                return fail(format!(
                    "the text has {units} characters; Twilio accepts at most {MAX_TEXT_UNITS}"
                ));
            }
            Ok(())
        }
        NewMessageContent::Location(location) => check_location(location, message),
        // Its variables are checked once its approval is known.
        NewMessageContent::Template { sid, .. } => {
            if sid.len() != 34
                || !sid.starts_with("HX")
                || !sid.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit())
            {
                return fail(
                    "invalid template; expected a ContentSid: HX and 32 hexadecimal digits",
                );
            }
            Ok(())
        }
        // Its parts are checked when they are rendered.
        NewMessageContent::Reply(_) => Ok(()),
    }
}

fn check_location(location: &PinnedLocation, message: &NewMessage) -> Result<(), SendError> {
    if *message.to.channel() != Channel::WhatsApp {
        return fail("only WhatsApp supports locations");
    }
    // NaN is in no range, so it is rejected too.
    if !(-90.0..=90.0).contains(&location.latitude)
        || !(-180.0..=180.0).contains(&location.longitude)
    {
        return fail(
            "invalid location; the latitude must be -90 to 90 degrees, the longitude -180 to 180",
        );
    }
    Ok(())
}

fn check_media(message: &NewMessage) -> Result<(), SendError> {
    let files = &message.media;
    if files.is_empty() {
        return Ok(());
    }
    if !matches!(message.content, NewMessageContent::Text(_)) {
        return fail(
            "media can be sent with a text or alone; a template brings its own media, a location has none, and a reply has \
             its files in its messages",
        );
    }
    let max_files = match message.to.channel() {
        Channel::WhatsApp => 1,
        _ => MAX_FILES,
    };
    if files.len() > max_files {
        return fail(format!(
            "the message has {} files; this channel accepts at most {max_files} per message",
            files.len()
        ));
    }
    check_files(message.to.channel(), files)
}

/// Checks the URLs of files, and the types that they show.
pub(super) fn check_files<T: AsRef<str>>(channel: &Channel, files: &[T]) -> Result<(), SendError> {
    let files = files.iter().map(AsRef::as_ref);
    let mut urls = files.clone();
    if urls.any(|url| !is_web_url(url)) {
        return fail("invalid media URL; expected one such as https://cdn.example.com/a.png");
    }
    // A type that only the web server knows is left to Twilio.
    for content_type in files.filter_map(media_type_by_extension) {
        if !kinds::accepts_type(channel, content_type) {
            return fail(format!(
                "{} does not accept files of the type {content_type}",
                channel.as_str()
            ));
        }
        if *channel == Channel::WhatsApp && kinds::is_uncertain_on_whatsapp(content_type) {
            tracing::warn!(
                content_type,
                "WhatsApp may reject a file of an outbound message after Twilio has accepted it (63019, 63021): Twilio does not list its type for WhatsApp"
            );
        }
    }
    Ok(())
}

fn check_schedule(message: &NewMessage, now: Timestamp) -> Result<(), SendError> {
    let Some(send_at) = message.send_at else {
        return Ok(());
    };
    if message.messaging_service_sid.is_none() {
        return fail("only a Messaging Service can schedule a message; set one");
    }
    let ahead = send_at.duration_since(now);
    if ahead < MIN_SCHEDULE_AHEAD || ahead > MAX_SCHEDULE_AHEAD {
        return fail("invalid send time; Twilio accepts times 5 minutes to 35 days ahead");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: &str = "whatsapp:+15550417263";
    const SENDER: &str = "whatsapp:+15550002222";
    const TEMPLATE: &str = "HX00000000000000000000000000000001";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn text(body: &str) -> NewMessage {
        NewMessage::text(ANA, body).from(SENDER)
    }

    fn template(variables: &[(&str, &str)]) -> NewMessage {
        NewMessage::template(ANA, TEMPLATE, variables.iter().copied()).from(SENDER)
    }

    fn service(message: NewMessage) -> NewMessage {
        message.service("MG00000000000000000000000000000001".parse().unwrap())
    }

    fn later(minutes: i64) -> Timestamp {
        now() + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn valid_outbound_message_passes_check() {
        let sms = NewMessage::text("+15550417263", "").from("ACME");
        for message in [
            text("hi"),
            text("hi").media("https://cdn.example.com/a.png"),
            text("hi").media("https://cdn.example.com/a.webm?x=.txt"),
            text(&"é".repeat(1600)),
            template(&[("1", "Ana"), ("2", "12:00")]),
            NewMessage::location(ANA, 52.52, 13.405, "").from(SENDER),
            NewMessage::text("whatsapp:US.13491208655302741918", "hi").from(SENDER),
            service(NewMessage::text("+15550417263", "hi")).send_at(later(5)),
            service(template(&[])).send_at(later(35 * 24 * 60)),
            service(NewMessage::template(ANA, TEMPLATE, [("1", "a")])),
            service(NewMessage::template(
                "+15550417263",
                TEMPLATE,
                [("1", "a\nb"), ("2", "")],
            )),
            NewMessage::template("rcs:+15550417263", TEMPLATE, [("1", "a\n\tb")])
                .from("rcs:brand_agent"),
            (0..10).fold(sms, |sms, _| sms.media("https://h/a.png")),
        ] {
            let checked = check(&message, now());
            assert!(checked.is_ok(), "{message:?}: {checked:?}");
        }
    }

    // The error never contains the recipient's number.
    #[test]
    fn invalid_outbound_message_is_rejected_with_reason() {
        let sms = || NewMessage::text("+15550417263", "hi");
        for (message, part) in [
            (
                NewMessage::text("15550417263", "hi").from("ACME"),
                "invalid recipient",
            ),
            (
                NewMessage::text("whatsapp:+1555x", "hi").from(SENDER),
                "invalid recipient",
            ),
            (
                NewMessage::text("ACME", "hi").from("+15550002222"),
                "invalid recipient",
            ),
            (NewMessage::text(ANA, "hi"), "missing sender"),
            (
                service(NewMessage::text(ANA, "hi")),
                "needs its sender on WhatsApp",
            ),
            (sms().from(SENDER), "different channels, whatsapp and sms"),
            (
                NewMessage::text(ANA, "hi").from("whatsapp:1"),
                "invalid sender",
            ),
            (text("hi").from(ANA), "the same"),
            (text(" \n"), "nothing to send"),
            (text(&"x".repeat(1601)), "1601 characters"),
            (
                NewMessage::template(ANA, "HX1", [("1", "a")]).from(SENDER),
                "invalid template",
            ),
            (template(&[]).media("https://h/a.png"), "brings its own"),
            (
                NewMessage::location("+15550417263", 1.0, 1.0, "x").from("ACME"),
                "only WhatsApp",
            ),
            (
                NewMessage::location(ANA, 91.0, 1.0, "x").from(SENDER),
                "invalid location",
            ),
            (
                NewMessage::location(ANA, f64::NAN, 1.0, "x").from(SENDER),
                "invalid location",
            ),
            (
                text("").media("https://h/a").media("https://h/b"),
                "2 files",
            ),
            (text("").media("/a.png"), "invalid media URL"),
            (text("").media("https://h/a.txt"), "type text/plain"),
            (
                sms().from("ACME").media("https://h/a.webp"),
                "sms does not accept",
            ),
            (text("hi").send_at(later(60)), "Messaging Service"),
            (
                service(text("hi")).send_at(later(5) - SignedDuration::from_secs(1)),
                "35 days",
            ),
            (
                service(text("hi")).send_at(later(35 * 24 * 60 + 1)),
                "35 days",
            ),
            (service(text("hi")).send_at(later(-10)), "35 days"),
        ] {
            let error = check(&message, now()).unwrap_err().to_string();
            assert!(error.contains(part), "{message:?}: {error}");
            assert!(!error.contains("5550417263"), "{error}");
        }
    }
}
