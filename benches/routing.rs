//! Time to find the reply among two hundred rules, and to stop rules that would take too long.
//!
//! The first is measured in memory, and with a store that a form and `first_contact` query. The others, called bombs
//! here, are patterns and templates that would run or grow almost without end.
//!
//! `cargo bench --bench routing` prints the figures. With `-- --check` it exits with 1 if a limit is missed.

mod figures;
mod journal;
mod runtime;
mod webhook;

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use figures::{Figures, Run, median};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use replyhook::config::Sources;
use replyhook::rules::{RuleSet, Rules, RulesFile};
use replyhook::{
    App, Context, FormParams, Handler, HandlerError, InboundMessage, Reply, Timestamp,
};
use tower::ServiceExt;

/// Limit: time of a message among 200 rules.
const MAX_US: f64 = 20.0;
/// Limit: time of a message with rules that query the journal, for many conversations divided by few.
const MAX_GROWTH: f64 = 2.0;
/// Number of users who send messages while this is measured. Nearly all of them have a conversation in the journal.
// `journal::arrival` chooses users by a hash: 485 of these 500 among 1,000 conversations, all of them among 100,000.
const WRITERS: u32 = 500;
/// Limit: time until a bomb fails.
const MAX_BOMB_MS: f64 = 50.0;

/// Templates that the language accepts, and that would run or grow almost without end.
const BOMBS: [(&str, &str); 4] = [
    ("steps", STEPS),
    ("a text", "{{ body * 100000000 }}"),
    ("a width", "{{ '%999999999d' | format(1) }}"),
    (
        "a replacement",
        "{{ (body * 50000) | replace('x', 'x' * 50000) }}",
    ),
];
/// Patterns whose compilation would take too much time or memory.
const PATTERN_BOMBS: [&str; 4] = [
    "((a{100}){100}){100}",
    r"(\w{500}){500}",
    "[[:^ascii:]]{50000}",
    // This one is within the size limit, but matching it with a long text would take seconds.
    "([ab]{1,5000}){1,2}c",
];
/// Six nested loops over the files of a message: with ten files, a million passes.
const STEPS: &str = concat!(
    "{% for a in media %}{% for b in media %}{% for c in media %}{% for d in media %}{% for e in media %}{% for f in media %}x",
    "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}"
);

fn main() -> ExitCode {
    let run = Run::from_args();
    let (rounds, few, many, messages) = match run {
        Run::List => return ExitCode::SUCCESS,
        // At least `WRITERS` conversations, since the writers are the first of the journal's users.
        Run::Test => (3, WRITERS, WRITERS + 64, 3),
        Run::Measure | Run::Check => (20_000, 1_000, 100_000, 5_000),
    };
    let mut figures = Figures::new(run);
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let read = |text: &str| {
        let path = folder.path().join("bot.toml");
        std::fs::write(&path, text).expect("a file is written");
        let file = RulesFile::read(&path).expect("these are rules");
        Rules::new(&file, None).expect("no rule forwards")
    };
    let started = Instant::now();
    let bot = read(&rules());
    figures.show(
        "reading 200 rules",
        started.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    for (what, body, expected) in [
        ("the first of 200 rules", "hello 0", Some("text 0")),
        (
            "the last of 200 rules",
            "I want my money 199 back",
            Some("words 199"),
        ),
        (
            "none of 200 rules",
            "A question that the bot has no rule for, at some length.",
            None,
        ),
    ] {
        let us = measure(&bot, body, expected, rounds);
        figures.limit(what, us, "µs", MAX_US);
    }
    let with_journal = |conversations| {
        let path = folder.path().join(format!("{conversations}.db"));
        measure_with_journal(
            &path,
            read(&(rules() + QUERYING_RULES)),
            conversations,
            messages,
        )
    };
    let (at_few, at_many) = (with_journal(few), with_journal(many));
    let what = |number| format!("rules that query {number} conversations");
    figures.show(&what(few), at_few, "µs");
    figures.show(&what(many), at_many, "µs");
    figures.limit(
        "many / few conversations",
        at_many / at_few,
        "×",
        MAX_GROWTH,
    );
    for pattern in PATTERN_BOMBS {
        let rules = format!("[[rule]]\nwhen.regex = '{pattern}'\nreply = \"x\"\n");
        let started = Instant::now();
        let outcome = RuleSet::parse(&rules);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        assert!(outcome.is_err(), "{pattern} is rejected");
        figures.limit(&format!("bomb: {pattern}"), ms, "ms", MAX_BOMB_MS);
    }
    // Each of these patterns is accepted, since the limit for one pattern holds. The time limit for all patterns of a
    // message has to stop them.
    let bot = read(&slow_patterns());
    let started = Instant::now();
    let cx = Context::new(1, Timestamp::UNIX_EPOCH);
    let outcome = bot.handle(cx, message(&letters())).now_or_never();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let outcome = outcome.expect("rules do not wait");
    assert!(outcome.is_err(), "the patterns exceed the time limit");
    figures.limit("bomb: 200 of the slowest patterns", ms, "ms", MAX_BOMB_MS);
    for (what, bomb) in BOMBS {
        let bot = read(&format!("[otherwise]\nreply = \"\"\"{bomb}\"\"\"\n"));
        let message = with_files(10);
        let started = Instant::now();
        let outcome = bot.handle(Context::new(1, Timestamp::UNIX_EPOCH), message);
        // Without a runtime: rules that query no store complete at the first poll.
        let outcome = outcome.now_or_never().expect("rules do not wait");
        let ms = started.elapsed().as_secs_f64() * 1e3;
        assert!(outcome.is_err(), "{what} fails");
        figures.limit(&format!("bomb: {what}"), ms, "ms", MAX_BOMB_MS);
    }
    figures.end()
}

/// Returns 200 rules: a quarter each with texts, patterns, commands and words.
fn rules() -> String {
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
        .expect("writing to a String cannot fail");
    }
    rules
}

/// Rules that query the store for each message: `first_contact` the journal, and a form the conversation's state.
const QUERYING_RULES: &str = r#"
[[rule]]
when = { first_contact = true, text = "no user writes this" }
reply = "Welcome!"
[[rule]]
when.text = "book a table"
ask = "booking"
[[form]]
name = "booking"
done = "Booked for {{ name }}."
[[form.ask]]
field = "name"
question = "What is your name?"
"#;

/// Returns 200 rules whose patterns are almost as slow with a long text as a pattern may be.
// Each ends in a class of letters. The regex engine would search for a single letter first, and find none.
fn slow_patterns() -> String {
    let rules = (0..200).map(|at| {
        format!("[[rule]]\nwhen.regex = '[ab]*a[ab]{{380}}(?<x{at}>[c-z])'\nreply = \"x\"\n")
    });
    rules.collect::<Vec<_>>().concat()
}

/// Returns a text of 1,600 characters, the maximum of a message, with the letters `a` and `b`.
// Pseudo-random, so that the text has no long repetitions.
fn letters() -> String {
    let numbers = std::iter::successors(Some(1_u32), |number| {
        Some(number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    });
    let letters = numbers.map(|number| if (number >> 16) & 1 == 0 { 'a' } else { 'b' });
    letters.take(1600).collect()
}

/// Handler that records how long the rules take, including their queries.
struct Timed {
    bot: Rules,
    times: Arc<Mutex<Vec<f64>>>,
}

impl Handler for Timed {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        Box::pin(async move {
            let started = Instant::now();
            let reply = self.bot.handle(cx, message).await;
            let us = started.elapsed().as_secs_f64() * 1e6;
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.push(us);
            reply
        })
    }
}

/// Returns the median time in µs of a message that no rule matches, in a journal of `conversations` conversations.
fn measure_with_journal(path: &Path, bot: Rules, conversations: u32, messages: u32) -> f64 {
    let runtime = runtime::start(2);
    let times = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let store = journal::open(path).await;
        let next = Arc::new(AtomicU32::new(0));
        journal::keep(&store, &next, conversations * 2, conversations).await;
        // A second store could not open the file while this one owns it.
        drop(store);
        let url = format!("sqlite:{}", path.display());
        let env = [
            ("TWILIO_AUTH_TOKEN", webhook::TOKEN),
            ("PUBLIC_URL", webhook::PUBLIC_URL),
            ("DATABASE_URL", &url),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let app = App::builder().sources(Sources::default().with_env(env));
        // Measured inside the handler, so that storing the message and its response do not count.
        let bot = Timed {
            bot,
            times: times.clone(),
        };
        let app = app.handler(bot).build().expect("the settings are complete");
        let (router, worker) = app.into_parts();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let worker = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        for number in 0..messages {
            // New `MessageSid`s from the first `WRITERS` users: a webhook's user is its number modulo 4,096.
            let webhook = || {
                webhook::Webhook::numbered((4096 * (1000 + number / WRITERS)) + number % WRITERS)
            };
            // Until the worker has opened the store, the response is 503, and the handler does not run.
            while router
                .clone()
                .oneshot(request(webhook()))
                .await
                .expect("the router cannot fail")
                .status()
                != 200
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let _ = stop.send(());
        let ended = worker.await.expect("the worker does not panic");
        ended.expect("the store can be opened");
    });
    let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    median(times)
}

fn request(webhook: webhook::Webhook) -> http::Request<axum::body::Body> {
    http::Request::post(webhook::TARGET)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Twilio-Signature", webhook.signature)
        .body(webhook.body.into())
        .expect("the request is valid")
}

/// Returns the median time in µs in which the rules handle a message, without creating it.
fn measure(bot: &impl Handler, body: &str, expected: Option<&str>, rounds: usize) -> f64 {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let (cx, message) = (Context::new(1, Timestamp::UNIX_EPOCH), message(body));
        let started = Instant::now();
        let reply = bot.handle(cx, message).now_or_never();
        times.push(started.elapsed().as_secs_f64() * 1e6);
        let reply = reply.expect("rules do not wait").expect("no rule fails");
        assert_eq!(
            reply.messages().first().map(replyhook::ReplyMessage::body),
            expected
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
    let form = FormParams::from_iter(params);
    InboundMessage::parse(form, Timestamp::UNIX_EPOCH).expect("the parameters are complete")
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
