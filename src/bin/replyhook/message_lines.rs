//! [`MessageLines`]: the line that `replyhook dev` prints for each message on a terminal.
#![cfg(feature = "emulator")]

use std::io::IsTerminal;

use replyhook::DevServer;
use replyhook::emulator::{EmulatorClient, EmulatorEvent, EventStream};
use serde_json::Value;

use crate::finding::rejection_question;
use crate::print::printable;

/// Lines about the emulator's messages; none if the output is not a terminal.
pub(crate) struct MessageLines(Option<EventStream>);

impl MessageLines {
    pub(crate) async fn start(dev_server: &DevServer) -> anyhow::Result<Self> {
        if !std::io::stdout().is_terminal() {
            return Ok(Self(None));
        }
        let client = EmulatorClient::new(&dev_server.emulator().page_url())?;
        Ok(Self(Some(client.events().await?)))
    }

    /// Waits for the next line.
    pub(crate) async fn next(&mut self) -> String {
        while let Some(events) = &mut self.0 {
            match events.next().await {
                Some(event) => {
                    if let Some(line) = describe(&event) {
                        return format!("  {}\n", printable(&line));
                    }
                }
                // The emulator drops a subscriber that is too slow.
                None => self.0 = None,
            }
        }
        std::future::pending().await
    }
}

/// Returns the line about a webhook call, a refused REST call or a handler that failed.
fn describe(event: &EmulatorEvent) -> Option<String> {
    let data = &event.data;
    let user = data["user"].as_str().unwrap_or_default();
    match event.name.as_str() {
        "status" => {
            let failure = data["failure"].as_str()?;
            Some(format!("          {user}  bot failed: {failure}"))
        }
        "exchange" => {
            let time = data["at"].as_str().and_then(|at| at.get(11..19));
            let time = time.unwrap_or_default();
            let result = describe_result(data);
            match data["kind"].as_str()? {
                "webhook" => {
                    let attempt = data["attempt"].as_str().unwrap_or("webhook");
                    let ms = &data["ms"];
                    let line = format!("{time}  {user}  {attempt} -> {result}, {ms} ms");
                    Some(
                        match rejection_question(data["response"]["status"].as_u64()) {
                            Some(question) => format!("{line}; {question}"),
                            None => line,
                        },
                    )
                }
                "rest" if data["error_code"].is_number() => {
                    Some(format!("{time}  {user}  REST call refused <- {result}"))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns status and error code of a call.
fn describe_result(exchange: &Value) -> String {
    let status = exchange["response"]["status"].as_u64();
    let status = status.map_or_else(|| "no response".to_owned(), |status| status.to_string());
    match exchange["error_code"].as_u64() {
        Some(code) => format!("{status} ({code})"),
        None => status,
    }
}
