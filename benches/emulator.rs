//! How soon a bot's reply is a bubble: from the moment a user's message is sent to the event that the page draws by, less
//! the time that the bot itself took.
//!
//! `cargo bench --bench emulator` prints the figures; with `-- --check` it fails where one exceeds its limit.

mod figures;

use std::process::ExitCode;
use std::time::Instant;

use figures::{Figures, Run, median};
use replyhook::config::Sources;
use replyhook::emulator::Remote;
use replyhook::{App, Desk, DeskOptions};
use serde_json::{Value, json};

/// Less than anybody sees.
const MOST_MS: f64 = 50.0;

fn main() -> ExitCode {
    let run = Run::from_args();
    let messages = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => 3,
        Run::Measure | Run::Check => 300,
    };
    let mut figures = Figures::new(run);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let (page, bubbles) = runtime.block_on(measure(messages));
    let mut sorted = bubbles.clone();
    sorted.sort_by(f64::total_cmp);
    figures.show("the list of conversations, first asked", page, "ms");
    figures.limit("message to bubble, median", median(bubbles), "ms", MOST_MS);
    let late = sorted[sorted.len() * 99 / 100];
    figures.limit("message to bubble, 99 of 100", late, "ms", MOST_MS);
    figures.end()
}

/// Milliseconds: of the conversation's first answer, and of each bubble.
async fn measure(messages: usize) -> (f64, Vec<f64>) {
    let mut options = DeskOptions::default();
    options.emulator_port = Some(0);
    options.port = Some(0);
    let desk = Desk::start(App::builder(), Sources::default(), options).await;
    let desk = desk.expect("a desk needs nothing");
    let remote = Remote::new(desk.emulator().url()).expect("it is on this machine");
    let started = Instant::now();
    remote.get(&["conversations"]).await.expect("it answers");
    let page = ms(started);
    let mut events = remote.events().await.expect("it tells what happens");
    let mut bubbles = Vec::with_capacity(messages);
    for number in 0..messages {
        // Users of their own: a conversation of hundreds is another question.
        let message = json!({"from": format!("whatsapp:+1555{number:07}"), "body": "hello"});
        let started = Instant::now();
        let sending = remote.clone();
        let answer = tokio::spawn(async move { sending.post(&["messages"], &message).await });
        let bubble = loop {
            let event = events.next().await.expect("the emulator is there");
            if event.name == "message" && event.data["direction"] == "out" {
                break ms(started);
            }
        };
        let answer = answer.await.expect("it is asked").expect("it answers");
        let bot: u64 = answer["attempts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|attempt: &Value| attempt["ms"].as_u64())
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
        bubbles.push((bubble - bot as f64).max(0.0));
    }
    desk.stop().await;
    (page, bubbles)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
