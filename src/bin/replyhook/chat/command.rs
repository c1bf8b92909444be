//! Parser for the lines of a chat.

/// A parsed line.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Empty,
    Quit,
    Command(ChatCommand),
    /// An invalid command, with the correct form.
    Invalid(String),
}

#[derive(Debug, PartialEq)]
pub(super) enum ChatCommand {
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
    /// Number or title of an item.
    Tap(String),
    /// Fields of a Flow's form.
    Form(serde_json::Map<String, serde_json::Value>),
    As(String),
    Sms,
    WhatsApp,
    Duplicate,
    /// Delay of the next reply in milliseconds.
    Late(u64),
    Down,
    /// Seconds to advance the clock by.
    Clock(u64),
    State,
    Last,
    /// Name of the file, and the language of its ending.
    Save(String, &'static str),
    Help,
}

pub(super) const HELP: &str = "\
  /photo FILE            send a picture or any other file; text after the name is the caption
  /pin LAT,LON [LABEL]   send a location
  /tap NUMBER|TITLE      tap a button, chip or list row of the last message that has some
  /button TEXT [| ID]    tap any button
  /form NAME=VALUE, …    send the form of a WhatsApp Flow
  /as ADDRESS            become another user: whatsapp:+15550001111, +15550004444, rcs:+15550006666
  /sms  /whatsapp        become a user of that channel
  /dup                   redeliver the last message
  /late 20s              delay the next reply by this time
  /down                  let the next webhook call fail, so that the fallback URL is called
  /clock +25h            advance the clock of the emulator and the bot
  /state                 show the server's state of this user
  /last                  show the last webhook call: parameters and response
  /save FILE             write this conversation as a test: in Rust (order_test.rs), Python (test_order.py) or
                         JavaScript (order.test.mjs)
  /quit                  quit, as Ctrl-D does
  //TEXT                 send /TEXT";

/// Parses a line. A line without a leading slash is a message.
pub(super) fn parse(line: &str) -> Line {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Line::Empty;
    }
    let Some(command) = line.strip_prefix('/') else {
        return Line::Command(ChatCommand::Say(line.to_owned()));
    };
    // `//TEXT` is the message `/TEXT`.
    if command.starts_with('/') {
        return Line::Command(ChatCommand::Say(command.to_owned()));
    }
    let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
    let rest = rest.trim();
    let usage_error = |usage: &str| Line::Invalid(format!("/{name} {usage}"));
    Line::Command(match (name, rest) {
        ("quit" | "exit", _) => return Line::Quit,
        ("help", _) => ChatCommand::Help,
        ("sms", _) => ChatCommand::Sms,
        ("whatsapp", _) => ChatCommand::WhatsApp,
        ("dup", _) => ChatCommand::Duplicate,
        ("down", _) => ChatCommand::Down,
        ("state", _) => ChatCommand::State,
        ("last", _) => ChatCommand::Last,
        ("photo", "") => return usage_error("FILE, as in /photo cat.jpg"),
        ("photo", file) => ChatCommand::Photo(file.to_owned()),
        ("as", "") => return usage_error("ADDRESS, as in /as whatsapp:+15550001111"),
        ("as", address) => ChatCommand::As(address.to_owned()),
        ("tap", "") => return usage_error("NUMBER or TITLE, as in /tap 2 or /tap Tomorrow"),
        ("tap", item) => ChatCommand::Tap(item.to_owned()),
        ("form", rest) => match parse_form(rest) {
            Some(fields) => ChatCommand::Form(fields),
            None => return usage_error("NAME=VALUE, …, as in /form name=Ana, guests=2"),
        },
        ("button", "") => {
            return usage_error("TEXT, as in /button Yes, or /button Yes | confirm:42");
        }
        ("button", rest) => {
            let (text, payload) = match rest.split_once('|') {
                Some((text, payload)) => (text.trim(), Some(payload.trim().to_owned())),
                None => (rest, None),
            };
            ChatCommand::Button {
                text: text.to_owned(),
                payload,
            }
        }
        ("pin", rest) => match parse_pin(rest) {
            Some(pin) => pin,
            None => return usage_error("LAT,LON, as in /pin 52.52,13.405 Office"),
        },
        ("late", rest) => match parse_seconds(rest) {
            Some(time) => ChatCommand::Late(time.saturating_mul(1000)),
            None => return usage_error("TIME, as in /late 20s"),
        },
        ("clock", rest) => match parse_seconds(rest.trim_start_matches('+')) {
            Some(time) => ChatCommand::Clock(time),
            None => return usage_error("TIME, as in /clock +25h"),
        },
        ("save", file) => match test_language(file) {
            Some(language) => ChatCommand::Save(file.to_owned(), language),
            None => {
                return usage_error(
                    "FILE, as in /save order_test.rs, /save test_order.py or /save order.test.mjs",
                );
            }
        },
        _ => {
            return Line::Invalid(format!(
                "unknown command /{name}; /help lists all commands, and //{name} sends it as a message"
            ));
        }
    })
}

fn parse_pin(text: &str) -> Option<ChatCommand> {
    let (point, label) = text.split_once(' ').unwrap_or((text, ""));
    let (latitude, longitude) = point.split_once(',')?;
    let (latitude, longitude) = (latitude.parse().ok()?, longitude.parse().ok()?);
    let is_on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    is_on_earth.then(|| ChatCommand::Pin {
        latitude,
        longitude,
        label: Some(label.trim().to_owned()).filter(|label| !label.is_empty()),
    })
}

/// Parses fields such as `name=Ana, guests=2`. Every value is a text.
fn parse_form(text: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let pairs = text.split(',').map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), value.trim().into()))
    });
    pairs.collect()
}

/// Parses a time such as `20`, `20s`, `3m`, `25h` or `2d`.
fn parse_seconds(text: &str) -> Option<u64> {
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

/// Returns the emulator's name for the language of a file; `None` for another ending, or a name that could lead out of the
/// working directory.
fn test_language(file: &str) -> Option<&'static str> {
    let (name, ending) = file.rsplit_once('.')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_valid =
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain);
    let language = match ending {
        "rs" => "rust",
        "py" => "python",
        "mjs" => "node",
        _ => return None,
    };
    is_valid.then_some(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> ChatCommand {
        match parse(line) {
            Line::Command(command) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn chat_line_parses_as_text_or_command() {
        assert_eq!(
            command("hi there "),
            ChatCommand::Say("hi there ".to_owned())
        );
        assert_eq!(command("//help"), ChatCommand::Say("/help".to_owned()));
        assert_eq!(command("/late 20s"), ChatCommand::Late(20_000));
        assert_eq!(command("/clock +25h"), ChatCommand::Clock(90_000));
        assert_eq!(
            command("/pin 52.52,13.405 Head office"),
            ChatCommand::Pin {
                latitude: 52.52,
                longitude: 13.405,
                label: Some("Head office".to_owned())
            }
        );
        assert_eq!(
            command("/button Yes, please | confirm:42"),
            ChatCommand::Button {
                text: "Yes, please".to_owned(),
                payload: Some("confirm:42".to_owned())
            }
        );
        assert_eq!(command("/tap 2"), ChatCommand::Tap("2".to_owned()));
        let fields = serde_json::json!({"name": "Ana", "guests": "2"});
        let fields = fields.as_object().unwrap().clone();
        assert_eq!(
            command("/form name=Ana, guests = 2"),
            ChatCommand::Form(fields)
        );
        assert_eq!(
            command("/save order.test.mjs"),
            ChatCommand::Save("order.test.mjs".to_owned(), "node")
        );
        assert_eq!(parse("  "), Line::Empty);
        assert_eq!(parse("/quit"), Line::Quit);
    }

    // A mistyped command must never reach the bot as a message.
    #[test]
    fn invalid_chat_command_is_reported_not_sent() {
        for line in [
            "/nope",
            "/photo",
            "/pin here",
            "/pin 91,0",
            "/late soon",
            "/clock +5y",
            "/save ../x.rs",
            "/save x/y.rs",
            "/save .rs",
            "/save x",
            "/save x.txt",
            "/save",
            "/tap",
            "/form",
            "/form name",
        ] {
            assert!(matches!(parse(line), Line::Invalid(_)), "{line}");
        }
    }
}
