//! What Twilio takes: said here, in words, instead of by a code when it is too late.

use jiff::{SignedDuration, Timestamp};

use super::SendError;
use crate::address::{Address, Channel, Identity};
use crate::reply::is_web_url;
use crate::twilio::{Content, NewMessage, Place};

/// Most characters of a text, in UTF-16 units, the strictest reading of Twilio's (21617).
const TEXT_UNITS: usize = 1600;
/// Most files of a message (21623), and of one on WhatsApp.
const FILES: usize = 10;
/// How far ahead a time must be, and may be.
///
/// Source: twilio.com/docs/messaging/features/message-scheduling.
const SOONEST: SignedDuration = SignedDuration::from_mins(5);
const LATEST: SignedDuration = SignedDuration::from_hours(35 * 24);

/// # Errors
/// What is wrong with it first.
pub(super) fn check(message: &NewMessage, now: Timestamp) -> Result<(), SendError> {
    ends(message)?;
    content(message)?;
    files(message)?;
    schedule(message, now)
}

fn fail<T>(what: impl Into<String>) -> Result<T, SendError> {
    Err(SendError::invalid(what))
}

fn ends(message: &NewMessage) -> Result<(), SendError> {
    let to = &message.to;
    if !can_receive(to) {
        return fail(
            "the recipient is no address: write it as Twilio does, +15550001111 or whatsapp:+15550001111",
        );
    }
    let is_whatsapp = *to.channel() == Channel::WhatsApp;
    let is_template = matches!(message.content, Content::Template { .. });
    let Some(from) = &message.from else {
        return match message.messaging_service_sid {
            None => fail("there is no sender: name one of your senders, or a Messaging Service"),
            Some(_) if is_whatsapp && !is_template => fail(
                "what is no template needs its sender on WhatsApp, besides the Messaging Service: the customer service \
                 window is that sender's",
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
    let numbered = matches!(to.channel(), Channel::Sms | Channel::WhatsApp);
    if from.id().is_empty() || (numbered && from.identity() == Identity::Other) {
        return fail(
            "the sender is no address: write it as Twilio does, +15550002222 or whatsapp:+15550002222",
        );
    }
    if from == to {
        return fail("sender and recipient are the same");
    }
    Ok(())
}

fn can_receive(to: &Address) -> bool {
    match (to.channel(), to.identity()) {
        (Channel::Sms, identity) => matches!(identity, Identity::Phone | Identity::ShortCode),
        (Channel::WhatsApp, identity) => {
            matches!(identity, Identity::Phone | Identity::BusinessScopedId)
        }
        _ => !to.id().is_empty(),
    }
}

fn content(message: &NewMessage) -> Result<(), SendError> {
    match &message.content {
        Content::Text(text) => {
            let units = text.encode_utf16().count();
            if text.trim().is_empty() && message.media.is_empty() {
                return fail("there is nothing to send: it has neither a text nor a file");
            }
            if units > TEXT_UNITS {
                return fail(format!(
                    "the text has {units} characters, and Twilio takes {TEXT_UNITS}"
                ));
            }
            Ok(())
        }
        Content::Place(place) => self::place(place, message),
        Content::Template { sid, variables } => {
            if sid.len() != 34
                || !sid.starts_with("HX")
                || !sid.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit())
            {
                return fail(
                    "it is no template: write its ContentSid, HX and 32 hexadecimal digits",
                );
            }
            let odd = variables.iter().find(|(_, value)| {
                value.trim().is_empty()
                    || value.contains(['\n', '\r', '\t', '\0'])
                    || value.contains("     ")
            });
            match odd {
                Some((name, _)) => fail(format!(
                    "variable {name} is empty, or has line breaks, tabs or more than four spaces in a row, which WhatsApp \
                     refuses (63013)"
                )),
                None => Ok(()),
            }
        }
    }
}

fn place(place: &Place, message: &NewMessage) -> Result<(), SendError> {
    if *message.to.channel() != Channel::WhatsApp {
        return fail("only WhatsApp takes a place");
    }
    // What is no number is in no range.
    if !(-90.0..=90.0).contains(&place.latitude) || !(-180.0..=180.0).contains(&place.longitude) {
        return fail(
            "there is no such place: the latitude is -90 to 90 degrees, the longitude -180 to 180",
        );
    }
    Ok(())
}

fn files(message: &NewMessage) -> Result<(), SendError> {
    let files = &message.media;
    if files.is_empty() {
        return Ok(());
    }
    if !matches!(message.content, Content::Text(_)) {
        return fail(
            "files go with a text or alone: a template brings its own, and a place has none",
        );
    }
    let most = match message.to.channel() {
        Channel::WhatsApp => 1,
        _ => FILES,
    };
    if files.len() > most {
        return fail(format!(
            "it has {} files, and a message of this channel takes {most}",
            files.len()
        ));
    }
    match files.iter().find(|url| !is_web_url(url)) {
        Some(_) => fail("a file is no URL: write one such as https://cdn.example.com/a.png"),
        None => Ok(()),
    }
}

fn schedule(message: &NewMessage, now: Timestamp) -> Result<(), SendError> {
    let Some(at) = message.send_at else {
        return Ok(());
    };
    if message.messaging_service_sid.is_none() {
        return fail("only a Messaging Service sends at a time: name one");
    }
    let ahead = at.duration_since(now);
    if ahead < SOONEST || ahead > LATEST {
        return fail("the time is not 5 minutes to 35 days ahead, which is what Twilio takes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: &str = "whatsapp:+15550417263";
    const US: &str = "whatsapp:+15550002222";
    const TEMPLATE: &str = "HX00000000000000000000000000000001";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn text(body: &str) -> NewMessage {
        NewMessage::text(ANA, body).from(US)
    }

    fn template(variables: &[(&str, &str)]) -> NewMessage {
        NewMessage::template(ANA, TEMPLATE, variables.iter().copied()).from(US)
    }

    fn service(message: NewMessage) -> NewMessage {
        message.service("MG00000000000000000000000000000001".parse().unwrap())
    }

    fn later(minutes: i64) -> Timestamp {
        now() + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn what_twilio_takes_passes() {
        let sms = NewMessage::text("+15550417263", "").from("ACME");
        for message in [
            text("hi"),
            text("hi").media("https://cdn.example.com/a.png"),
            text(&"é".repeat(1600)),
            template(&[("1", "Ana"), ("2", "12:00")]),
            NewMessage::location(ANA, 52.52, 13.405, "").from(US),
            NewMessage::text("whatsapp:US.13491208655302741918", "hi").from(US),
            service(NewMessage::text("+15550417263", "hi")).send_at(later(5)),
            service(template(&[])).send_at(later(35 * 24 * 60)),
            service(NewMessage::template(ANA, TEMPLATE, [("1", "a")])),
            (0..10).fold(sms, |sms, _| sms.media("https://h/a.png")),
        ] {
            let checked = check(&message, now());
            assert!(checked.is_ok(), "{message:?}: {checked:?}");
        }
    }

    #[test]
    fn what_twilio_refuses_is_refused_in_words() {
        let sms = || NewMessage::text("+15550417263", "hi");
        for (message, part) in [
            (
                NewMessage::text("15550417263", "hi").from("ACME"),
                "recipient is no address",
            ),
            (
                NewMessage::text("whatsapp:+1555x", "hi").from(US),
                "recipient is no address",
            ),
            (
                NewMessage::text("ACME", "hi").from("+15550002222"),
                "recipient is no address",
            ),
            (NewMessage::text(ANA, "hi"), "no sender"),
            (
                service(NewMessage::text(ANA, "hi")),
                "needs its sender on WhatsApp",
            ),
            (sms().from(US), "different channels, whatsapp and sms"),
            (
                NewMessage::text(ANA, "hi").from("whatsapp:1"),
                "sender is no address",
            ),
            (text("hi").from(ANA), "the same"),
            (text(" \n"), "nothing to send"),
            (text(&"x".repeat(1601)), "1601 characters"),
            (
                NewMessage::template(ANA, "HX1", [("1", "a")]).from(US),
                "no template",
            ),
            (template(&[("1", "a\nb")]), "variable 1"),
            (template(&[("1", "a"), ("name", " ")]), "variable name"),
            (template(&[("1", "a     b")]), "four spaces"),
            (template(&[]).media("https://h/a.png"), "brings its own"),
            (
                NewMessage::location("+15550417263", 1.0, 1.0, "x").from("ACME"),
                "only WhatsApp",
            ),
            (
                NewMessage::location(ANA, 91.0, 1.0, "x").from(US),
                "no such place",
            ),
            (
                NewMessage::location(ANA, f64::NAN, 1.0, "x").from(US),
                "no such place",
            ),
            (
                text("").media("https://h/a").media("https://h/b"),
                "2 files",
            ),
            (text("").media("/a.png"), "no URL"),
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
