//! What finding the answer among two hundred rules costs, also where a form and `first_contact` ask the journal, and how soon a
//! bomb among them ends.
//!
//! `cargo bench --bench routing` prints the figures; with `-- --check` it fails where one exceeds its limit.

mod figures;
mod journal;
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
use replyhook::handler::{RuleSet, Rules, RulesFile};
use replyhook::{App, Context, Form, Handler, HandlerError, InboundMessage, Reply, Timestamp};
use tower::ServiceExt;

/// Of a message among 200 rules.
const MOST_US: f64 = 20.0;
/// Of a message among many conversations by one among few, where the journal is asked.
const MOST_GROWTH: f64 = 2.0;
/// Users who write while that is measured: the journal knows them all.
const WRITERS: u32 = 500;
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
const PATTERN_BOMBS: [&str; 4] = [
    "((a{100}){100}){100}",
    r"(\w{500}){500}",
    "[[:^ascii:]]{50000}",
    // Or matched, with a long text.
    "([ab]{1,5000}){1,2}c",
];
/// Ten files, walked through in each other.
const STEPS: &str = concat!(
    "{% for a in media %}{% for b in media %}{% for c in media %}{% for d in media %}{% for e in media %}{% for f in media %}x",
    "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}"
);

fn main() -> ExitCode {
    let run = Run::from_args();
    let (rounds, few, many, messages) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (3, WRITERS, WRITERS + 64, 3),
        Run::Measure | Run::Check => (20_000, 1_000, 100_000, 5_000),
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
    let asking = |conversations| {
        let path = folder.path().join(format!("{conversations}.db"));
        among_conversations(
            &path,
            read(&(two_hundred() + ASKING)),
            conversations,
            messages,
        )
    };
    let (at_few, at_many) = (asking(few), asking(many));
    let what = |number| format!("the journal asked, {number} conversations");
    figures.show(&what(few), at_few, "µs");
    figures.show(&what(many), at_many, "µs");
    figures.limit(
        "many / few conversations",
        at_many / at_few,
        "×",
        MOST_GROWTH,
    );
    for pattern in PATTERN_BOMBS {
        let rules = format!("[[rule]]\nwhen.regex = '{pattern}'\nreply = \"x\"\n");
        let started = Instant::now();
        let outcome = RuleSet::parse(&rules);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        assert!(outcome.is_err(), "{pattern} is a bomb");
        figures.limit(&format!("a bomb: {pattern}"), ms, "ms", MOST_BOMB_MS);
    }
    let bot = read(&slow_patterns());
    let started = Instant::now();
    let cx = Context::new(1, Timestamp::UNIX_EPOCH);
    let outcome = bot.handle(cx, message(&letters())).now_or_never();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let outcome = outcome.expect("rules wait for nothing");
    assert!(outcome.is_err(), "all of these are a bomb");
    figures.limit(
        "a bomb: 200 patterns of the slowest",
        ms,
        "ms",
        MOST_BOMB_MS,
    );
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

/// What the journal is asked for.
const ASKING: &str = r#"
[[rule]]
when = { first_contact = true, text = "nobody writes this" }
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

/// Each as slow with a long text as a pattern may be. No letter has to be at its end, which would be looked for first.
fn slow_patterns() -> String {
    let rules = (0..200).map(|at| {
        format!("[[rule]]\nwhen.regex = '[ab]*a[ab]{{380}}(?<x{at}>[c-z])'\nreply = \"x\"\n")
    });
    rules.collect::<Vec<_>>().concat()
}

/// As long as a message is, and never the same for long.
fn letters() -> String {
    let numbers = std::iter::successors(Some(1_u32), |number| {
        Some(number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    });
    let letters = numbers.map(|number| if (number >> 16) & 1 == 0 { 'a' } else { 'b' });
    letters.take(1600).collect()
}

/// Notes how long the rules take, with the store that they ask.
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

/// Microseconds of a message that no rule matches, in a journal of so many conversations: the median.
fn among_conversations(path: &Path, bot: Rules, conversations: u32, messages: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let times = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let store = journal::open(path).await;
        let next = Arc::new(AtomicU32::new(0));
        journal::keep(&store, &next, conversations * 2, conversations).await;
        drop(store);
        let url = format!("sqlite:{}", path.display());
        let env = [
            ("TWILIO_AUTH_TOKEN", webhook::TOKEN),
            ("PUBLIC_URL", webhook::PUBLIC_URL),
            ("DATABASE_URL", &url),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let app = App::builder().sources(Sources::default().with_env(env));
        let bot = Timed {
            bot,
            times: times.clone(),
        };
        let app = app.handler(bot).build().expect("an app is put together");
        let (router, worker) = app.into_parts();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let worker = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        for number in 0..messages {
            // Numbers that the journal has none of, and users that it has.
            let webhook = || {
                webhook::Webhook::numbered((4096 * (1000 + number / WRITERS)) + number % WRITERS)
            };
            // Until the store is open it is answered 503.
            while router
                .clone()
                .oneshot(request(webhook()))
                .await
                .expect("it answers")
                .status()
                != 200
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let _ = stop.send(());
        let ended = worker.await.expect("no worker panics");
        ended.expect("the worker ends");
    });
    let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    median(times)
}

fn request(webhook: webhook::Webhook) -> http::Request<axum::body::Body> {
    http::Request::post(webhook::TARGET)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Twilio-Signature", webhook.signature)
        .body(webhook.body.into())
        .expect("a request")
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
