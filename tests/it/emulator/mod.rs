//! The emulator, tested through its control interface, with a scripted webhook server or `DevServer`.

mod codes;
mod content;
mod control;
mod dev_server;
mod phone;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use replyhook::clock::ShiftedClock;
use replyhook::config::Sources;
use replyhook::emulator::{Emulator, EmulatorClient, EmulatorOptions};
use replyhook::{App, DevServer, DevServerOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::ScriptedServer;

const ANA: &str = "whatsapp:+15550001111";
const BEN: &str = "+15550004444";
const WHATSAPP: &str = "whatsapp:+14155238886";
const SMS: &str = "+15005550006";

/// Emulator that calls a server with scripted responses.
struct Bench {
    remote: EmulatorClient,
    emulator: Emulator,
    server: ScriptedServer,
}

impl Bench {
    /// Starts an emulator that calls `/sms`, and `/fallback` if that fails.
    async fn new() -> Self {
        Self::with("", |_| {}).await
    }

    /// Like [`new`](Self::new), with a fragment of the webhook URL and changed options.
    async fn with(fragment: &str, change: impl FnOnce(&mut EmulatorOptions)) -> Self {
        let server = ScriptedServer::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = EmulatorOptions::new(format!("{}/sms{fragment}", server.url()));
        options.fallback = Some(format!("{}/fallback", server.url()));
        change(&mut options);
        let clock = Arc::new(ShiftedClock::default());
        let emulator = Emulator::new(options, clock, &listener).unwrap();
        let twilio = emulator.clone();
        tokio::spawn(async move { twilio.serve(listener, std::future::pending()).await });
        Self {
            remote: EmulatorClient::new(emulator.url()).unwrap(),
            emulator,
            server,
        }
    }

    async fn says(&self, body: &str) -> Value {
        self.send_message(json!({"from": ANA, "to": WHATSAPP, "body": body}))
            .await
    }

    async fn send_message(&self, message: Value) -> Value {
        self.remote.post(&["messages"], &message).await.unwrap()
    }

    async fn set_faults(&self, faults: Value) {
        self.remote.put(&["faults"], &faults).await.unwrap();
    }

    async fn debugger_codes(&self) -> Vec<u64> {
        let entries = self.remote.get(&["debugger"]).await.unwrap();
        let entries = entries.as_array().unwrap().iter();
        entries
            .map(|entry| entry["code"].as_u64().unwrap())
            .collect()
    }

    async fn conversation(&self, user: &str) -> Vec<Value> {
        let shown = self.remote.get(&["conversations", user]).await.unwrap();
        shown.as_array().unwrap().clone()
    }

    /// Waits until a message of the user's conversation fulfills the condition, and returns it.
    async fn wait_for_message(&self, user: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_for_message(&self.remote, user, holds).await
    }
}

async fn wait_for_message(
    remote: &EmulatorClient,
    user: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let shown = remote.get(&["conversations", user]).await.unwrap();
            if let Some(message) = shown.as_array().unwrap().iter().find(|m| holds(m)) {
                return message.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.expect("no message fulfilled the condition")
}

/// Starts a dev server with its emulator.
async fn start_dev_server(builder: replyhook::AppBuilder) -> (DevServer, EmulatorClient) {
    let mut options = DevServerOptions::default();
    options.emulator_port = Some(0);
    options.port = Some(0);
    let dev_server = DevServer::start(builder, Sources::default(), options)
        .await
        .unwrap();
    let remote = EmulatorClient::new(dev_server.emulator().url()).unwrap();
    (dev_server, remote)
}

async fn start_echo_server() -> (DevServer, EmulatorClient) {
    start_dev_server(App::builder()).await
}

/// Path, status and Twilio error code of each attempt.
fn attempts(answer: &Value) -> Vec<(String, Option<u64>, Option<u64>)> {
    let attempts = answer["attempts"].as_array().unwrap().iter();
    let row = |row: &Value| {
        let url = row["url"].as_str().unwrap();
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        (
            path.to_owned(),
            row["status"].as_u64(),
            row["error_code"].as_u64(),
        )
    };
    attempts.map(row).collect()
}

/// Texts of the messages on the phone.
fn bodies(answer: &Value) -> Vec<&str> {
    let messages = answer["messages"].as_array().unwrap().iter();
    messages
        .map(|message| message["body"].as_str().unwrap())
        .collect()
}
