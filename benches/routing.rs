//! What finding the answer among two hundred rules costs, and how soon a bomb among them ends.
//!
//! `cargo bench --bench routing` prints the figures; with `-- --check` it fails where one exceeds its limit.

mod figures;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;

use figures::{Figures, Run, median};
use futures_util::FutureExt;
use replyhook::handler::{RuleSet, Rules, RulesFile};
use replyhook::{Context, Form, Handler, InboundMessage, Timestamp};

/// Of a message among 200 rules.
const MOST_US: f64 = 20.0;
/// Until a bomb is a rule error.
const MOST_BOMB_MS: f64 = 50.0;

/// What runs or grows without end, as far as a template can be made of it.
const BOMBS: [(&str, &str); 4] = [
    ("steps", STEPS),
    ("a text", "{{ body * 100000000 }}"),
    ("a width", "{{ '%999999999d' | format(1) }}"),
    (
        "a replacement",
        "{{ (body * 50000) | replace('x', 'x' * 50000) }}",
    ),
];
/// What would be compiled without end.
const PATTERN_BOMBS: [&str; 3] = [
    "((a{100}){100}){100}",
    r"(\w{500}){500}",
    "[[:^ascii:]]{50000}",
];
/// Ten files, walked through in each other.
const STEPS: &str = concat!(
    "{% for a in media %}{% for b in media %}{% for c in media %}{% for d in media %}{% for e in media %}{% for f in media %}x",
    "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}"
);

fn main() -> ExitCode {
    let run = Run::from_args();
    let rounds = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => 3,
        Run::Measure | Run::Check => 20_000,
    };
    let mut figures = Figures::new(run);
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let read = |text: &str| {
        let path = folder.path().join("bot.toml");
        std::fs::write(&path, text).expect("a file is written");
        let file = RulesFile::read(&path).expect("these are rules");
        Rules::new(&file, None).expect("nothing is handed over")
    };
    let started = Instant::now();
    let bot = read(&two_hundred());
    figures.show(
        "reading 200 rules",
        started.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    for (what, body, answer) in [
        ("the first of 200 rules", "hello 0", Some("text 0")),
        (
            "the last of 200 rules",
            "I want my money 199 back",
            Some("words 199"),
        ),
        (
            "none of 200 rules",
            "Something that nobody thought of, at some length.",
            None,
        ),
    ] {
        let us = measure(&bot, body, answer, rounds);
        figures.limit(what, us, "µs", MOST_US);
    }
    for pattern in PATTERN_BOMBS {
        let rules = format!("[[rule]]\nwhen.regex = '{pattern}'\nreply = \"x\"\n");
        let started = Instant::now();
        let outcome = RuleSet::parse(&rules);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        assert!(outcome.is_err(), "{pattern} is a bomb");
        figures.limit(&format!("a bomb: {pattern}"), ms, "ms", MOST_BOMB_MS);
    }
    for (what, bomb) in BOMBS {
        let bot = read(&format!("[otherwise]\nreply = \"\"\"{bomb}\"\"\"\n"));
        let message = with_files(10);
        let started = Instant::now();
        let outcome = bot.handle(Context::new(1, Timestamp::UNIX_EPOCH), message);
        let outcome = outcome.now_or_never().expect("rules wait for nothing");
        let ms = started.elapsed().as_secs_f64() * 1e3;
        assert!(outcome.is_err(), "{what} is a bomb");
        figures.limit(&format!("a bomb: {what}"), ms, "ms", MOST_BOMB_MS);
    }
    figures.end()
}

/// A quarter each: texts, patterns, commands, words.
fn two_hundred() -> String {
    let mut rules = String::new();
    for at in 0..200 {
        let when = match at % 4 {
            0 => format!("text = [\"hello {at}\", \"hola {at}\"]"),
            1 => format!("regex = '^order {at} (?<id>\\d+)( for (?<name>\\w+))?$'"),
            2 => format!("command = \"command{at}\""),
            _ => {
                format!("words = [\"money {at}\", \"refund {at}\"], not = {{ media = \"image\" }}")
            }
        };
        let kind = ["text", "regex", "command", "words"][at % 4];
        writeln!(
            rules,
            "[[rule]]\nwhen = {{ {when} }}\nreply = \"{kind} {at}\""
        )
        .expect("memory");
    }
    rules
}

/// Microseconds of a message, the making of it not counted: the median of the rounds.
fn measure(bot: &impl Handler, body: &str, answer: Option<&str>, rounds: usize) -> f64 {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let (cx, message) = (Context::new(1, Timestamp::UNIX_EPOCH), message(body));
        let started = Instant::now();
        let reply = bot.handle(cx, message).now_or_never();
        times.push(started.elapsed().as_secs_f64() * 1e6);
        let reply = reply
            .expect("rules wait for nothing")
            .expect("no rule fails");
        assert_eq!(
            reply.messages().first().map(replyhook::ReplyMessage::body),
            answer
        );
    }
    median(times)
}

fn message(body: &str) -> InboundMessage {
    parse(params(body).into())
}

fn with_files(number: usize) -> InboundMessage {
    let files = (0..number).map(|at| {
        (
            format!("MediaUrl{at}"),
            "https://api.twilio.com/media".to_owned(),
        )
    });
    let files: Vec<_> = files.collect();
    let own = files
        .iter()
        .map(|(name, url)| (name.as_str(), url.as_str()));
    let number = number.to_string();
    let mut params = Vec::from(params("x"));
    params.retain(|(name, _)| *name != "NumMedia");
    params.push(("NumMedia", &number));
    params.extend(own);
    parse(params)
}

fn parse(params: Vec<(&str, &str)>) -> InboundMessage {
    let form = Form::from_iter(params);
    InboundMessage::parse(form, Timestamp::UNIX_EPOCH).expect("it has all that it needs")
}

fn params(body: &str) -> [(&str, &str); 15] {
    [
        ("SmsMessageSid", "SM00000000000000000000000000000001"),
        ("NumMedia", "0"),
        ("ProfileName", "Ana"),
        ("MessageType", "text"),
        ("SmsSid", "SM00000000000000000000000000000001"),
        ("WaId", "15550001111"),
        ("SmsStatus", "received"),
        ("Body", body),
        ("To", "whatsapp:+15550002222"),
        ("NumSegments", "1"),
        ("ReferralNumMedia", "0"),
        ("MessageSid", "SM00000000000000000000000000000001"),
        ("AccountSid", "AC00000000000000000000000000000001"),
        ("From", "whatsapp:+15550001111"),
        ("ApiVersion", "2010-04-01"),
    ]
}
