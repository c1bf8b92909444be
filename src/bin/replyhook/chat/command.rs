//! What a line asks for.

/// A line that was typed.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Nothing,
    Quit,
    Command(Command),
    /// Not understood, with what to write.
    Wrong(String),
}

#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Say(String),
    Photo(String),
    Pin {
        latitude: f64,
        longitude: f64,
        label: Option<String>,
    },
    Button {
        text: String,
        payload: Option<String>,
    },
    As(String),
    Sms,
    WhatsApp,
    Duplicate,
    /// Milliseconds that the next answer takes longer.
    Late(u64),
    Down,
    /// Seconds by which the clock is moved on.
    Clock(u64),
    State,
    Last,
    Save(String),
    Help,
}

pub(super) const HELP: &str = "\
  /photo FILE            send a picture, or any other file; what follows the name is said with it
  /pin LAT,LON [LABEL]   send a place
  /button TEXT [| ID]    press a button
  /as ADDRESS            be another user: whatsapp:+15550001111, +15550004444, whatsapp:US.1349…
  /sms  /whatsapp        be a user of that channel
  /dup                   Twilio delivers the last message once more
  /late 20s              the next answer takes that much longer
  /down                  the next message finds the webhook broken: the fallback URL is called
  /clock +25h            let time pass, for the bot as well
  /state                 what the server knows of this user
  /last                  the last call: parameters and answer
  /save NAME             write this conversation as a Rust test to NAME.rs
  /quit                  end, as Ctrl-D does
  //TEXT                 say /TEXT";

/// Reads a line. What does not begin with a slash is said as it is.
pub(super) fn parse(line: &str) -> Line {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Line::Nothing;
    }
    let Some(command) = line.strip_prefix('/') else {
        return Line::Command(Command::Say(line.to_owned()));
    };
    if command.starts_with('/') {
        return Line::Command(Command::Say(command.to_owned()));
    }
    let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
    let rest = rest.trim();
    let needs = |what: &str| Line::Wrong(format!("/{name} {what}"));
    Line::Command(match (name, rest) {
        ("quit" | "exit", _) => return Line::Quit,
        ("help", _) => Command::Help,
        ("sms", _) => Command::Sms,
        ("whatsapp", _) => Command::WhatsApp,
        ("dup", _) => Command::Duplicate,
        ("down", _) => Command::Down,
        ("state", _) => Command::State,
        ("last", _) => Command::Last,
        ("photo", "") => return needs("FILE, as in /photo cat.jpg"),
        ("photo", file) => Command::Photo(file.to_owned()),
        ("as", "") => return needs("ADDRESS, as in /as whatsapp:+15550001111"),
        ("as", address) => Command::As(address.to_owned()),
        ("button", "") => return needs("TEXT, as in /button Yes, or /button Yes | confirm:42"),
        ("button", rest) => {
            let (text, payload) = match rest.split_once('|') {
                Some((text, payload)) => (text.trim(), Some(payload.trim().to_owned())),
                None => (rest, None),
            };
            Command::Button {
                text: text.to_owned(),
                payload,
            }
        }
        ("pin", rest) => match pin(rest) {
            Some(pin) => pin,
            None => return needs("LAT,LON, as in /pin 52.52,13.405 Office"),
        },
        ("late", rest) => match seconds(rest) {
            Some(time) => Command::Late(time.saturating_mul(1000)),
            None => return needs("TIME, as in /late 20s"),
        },
        ("clock", rest) => match seconds(rest.trim_start_matches('+')) {
            Some(time) => Command::Clock(time),
            None => return needs("TIME, as in /clock +25h"),
        },
        ("save", name) if is_name(name) => Command::Save(name.to_owned()),
        ("save", _) => return needs("NAME, of letters, digits, - and _"),
        _ => {
            return Line::Wrong(format!(
                "/{name} is not known: /help shows what is, and //{name} says it"
            ));
        }
    })
}

fn pin(text: &str) -> Option<Command> {
    let (point, label) = text.split_once(' ').unwrap_or((text, ""));
    let (latitude, longitude) = point.split_once(',')?;
    let (latitude, longitude) = (latitude.parse().ok()?, longitude.parse().ok()?);
    let is_on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    is_on_earth.then(|| Command::Pin {
        latitude,
        longitude,
        label: Some(label.trim().to_owned()).filter(|label| !label.is_empty()),
    })
}

/// `20`, `20s`, `3m`, `25h`, `2d`.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Nothing that leads out of this folder.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        match parse(line) {
            Line::Command(command) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_said_and_commands_are_done() {
        assert_eq!(command("hi there "), Command::Say("hi there ".to_owned()));
        assert_eq!(command("//help"), Command::Say("/help".to_owned()));
        assert_eq!(command("/late 20s"), Command::Late(20_000));
        assert_eq!(command("/clock +25h"), Command::Clock(90_000));
        assert_eq!(
            command("/pin 52.52,13.405 Head office"),
            Command::Pin {
                latitude: 52.52,
                longitude: 13.405,
                label: Some("Head office".to_owned())
            }
        );
        assert_eq!(
            command("/button Yes, please | confirm:42"),
            Command::Button {
                text: "Yes, please".to_owned(),
                payload: Some("confirm:42".to_owned())
            }
        );
        assert_eq!(parse("  "), Line::Nothing);
        assert_eq!(parse("/quit"), Line::Quit);
    }

    #[test]
    fn what_is_not_understood_is_told_and_not_said() {
        for line in [
            "/nope",
            "/photo",
            "/pin here",
            "/pin 91,0",
            "/late soon",
            "/clock +5y",
            "/save ../x",
            "/save",
        ] {
            assert!(matches!(parse(line), Line::Wrong(_)), "{line}");
        }
    }
}
