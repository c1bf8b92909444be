//! Latency of the emulator's page: time from a user's message to the event with which the page shows the bot's reply.
//!
//! The time of the webhook call is subtracted.
//!
//! `cargo bench --bench emulator` prints the figures. With `-- --check` it exits with 1 if a limit is missed.

mod figures;
mod runtime;

use std::process::ExitCode;
use std::time::Instant;

use figures::{Figures, Run, median};
use replyhook::config::Sources;
use replyhook::emulator::EmulatorClient;
use replyhook::{App, DevServer, DevServerOptions};
use serde_json::{Value, json};

/// Limit of the latency: a delay that a person does not notice.
const MAX_MS: f64 = 50.0;

fn main() -> ExitCode {
    let run = Run::from_args();
    let messages = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => 3,
        Run::Measure | Run::Check => 300,
    };
    let mut figures = Figures::new(run);
    let runtime = runtime::start(2);
    let (page, bubbles) = runtime.block_on(measure(messages));
    let mut sorted = bubbles.clone();
    sorted.sort_by(f64::total_cmp);
    figures.show("first request for the list of conversations", page, "ms");
    figures.limit(
        "median latency of a reply on the page",
        median(bubbles),
        "ms",
        MAX_MS,
    );
    let late = sorted[sorted.len() * 99 / 100];
    figures.limit("p99 latency of a reply on the page", late, "ms", MAX_MS);
    figures.end()
}

/// Returns the time of the first request for the list of conversations, and the latency of each reply, in milliseconds.
async fn measure(messages: usize) -> (f64, Vec<f64>) {
    let mut options = DevServerOptions::default();
    // Any free ports: a dev server of the user may use the default ones.
    options.emulator_port = Some(0);
    options.port = Some(0);
    let dev_server = DevServer::start(App::builder(), Sources::default(), options).await;
    let dev_server = dev_server.expect("a dev server needs no settings");
    let client = EmulatorClient::new(dev_server.emulator().url()).expect("the URL is on loopback");
    let started = Instant::now();
    let conversations = client.get(&["conversations"]).await;
    conversations.expect("the emulator responds");
    let page = ms(started);
    // Opened before the first message: the stream has no earlier events.
    let events = client.events().await;
    let mut events = events.expect("the event stream opens");
    let mut bubbles = Vec::with_capacity(messages);
    for number in 0..messages {
        // Each message from a new user, so that the length of a conversation has no influence.
        let message = json!({"from": format!("whatsapp:+1555{number:07}"), "body": "hello"});
        let started = Instant::now();
        let sending_client = client.clone();
        // In a task: the call returns after the webhook's response, and the event may come earlier.
        let sending =
            tokio::spawn(async move { sending_client.post(&["messages"], &message).await });
        let bubble = loop {
            let event = events.next().await.expect("the event stream stays open");
            if event.name == "message" && event.data["direction"] == "out" {
                break ms(started);
            }
        };
        let sent = sending.await.expect("the task does not panic");
        let sent = sent.expect("the emulator responds");
        let webhook_ms: u64 = sent["attempts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|attempt: &Value| attempt["ms"].as_u64())
            .sum();
        // Not below 0: the webhook's time is in whole milliseconds.
        #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
        bubbles.push((bubble - webhook_ms as f64).max(0.0));
    }
    dev_server.stop().await;
    (page, bubbles)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
