//! The conversation: what is sent, what comes back, and what else the emulator is asked to do.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::time::Duration;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use replyhook::Address;
use replyhook::emulator::{Remote, RemoteError, RemoteEvent, RemoteEvents};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::command::{Command, HELP};
use crate::printable;

pub(super) const WHATSAPP_USER: &str = "whatsapp:+15550001111";
const SMS_USER: &str = "+15550004444";
/// Between two looks at what is not done yet.
const LOOK: Duration = Duration::from_millis(50);
/// Of another server nobody knows whether it is done: what it sends by REST so soon after its answer is still waited for.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Talk {
    remote: Remote,
    user: String,
    sender: String,
    senders: Vec<String>,
    knows_its_server: bool,
    /// What was shown.
    seen: HashSet<String>,
    last: Option<String>,
    /// What is wrong with the next message only.
    next_faults: Option<Value>,
    failures: (mpsc::Sender<String>, mpsc::Receiver<String>),
}

/// A message on the phone.
pub(super) struct Bubble {
    pub(super) by: String,
    body: String,
    extras: Vec<String>,
    failed: Option<String>,
}

/// What a line led to.
pub(super) enum Outcome {
    Answered(Vec<Bubble>),
    /// Nobody could use what the server said.
    Failed {
        bubbles: Vec<Bubble>,
        reason: String,
    },
    Told(String),
}

impl Outcome {
    pub(super) fn is_well(&self) -> bool {
        match self {
            Self::Answered(bubbles) => bubbles.iter().all(Bubble::is_well),
            Self::Failed { .. } => false,
            Self::Told(_) => true,
        }
    }
}

impl Bubble {
    fn new(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut extras = Vec::new();
        for media in message["media"].as_array().into_iter().flatten() {
            extras.push(format!(
                "[{} {}]",
                text(&media["content_type"]),
                text(&media["url"])
            ));
        }
        if let Some(place) = message["location"].as_object() {
            let label = place
                .get("label")
                .and_then(Value::as_str)
                .unwrap_or_default();
            extras.push(format!(
                "[place {},{} {label}]",
                place["latitude"], place["longitude"]
            ));
        }
        for button in message["buttons"].as_array().into_iter().flatten() {
            extras.push(format!("[button {}]", text(&button["text"])));
        }
        let status = message["status"].as_str().unwrap_or_default();
        let failed = matches!(status, "failed" | "undelivered").then(|| {
            let code = message["error_code"].as_u64();
            format!("[{status} {}]", code.unwrap_or_default())
        });
        let by = message["by"].as_str().unwrap_or("bot");
        Self {
            by: by.to_owned(),
            body: text(&message["body"]),
            extras,
            failed,
        }
    }

    pub(super) fn is_well(&self) -> bool {
        self.failed.is_none()
    }
}

impl fmt::Display for Bubble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<&str> = Vec::new();
        if !self.body.is_empty() {
            parts.push(&self.body);
        }
        parts.extend(self.extras.iter().map(String::as_str));
        parts.extend(self.failed.as_deref());
        f.write_str(&parts.join(" "))
    }
}

impl Talk {
    pub(super) async fn open(remote: Remote, user: &str) -> anyhow::Result<Self> {
        let config = remote.get(&["config"]).await?;
        let senders = config["senders"].as_array().cloned().unwrap_or_default();
        let senders = senders
            .iter()
            .filter_map(|sender| sender.as_str().map(str::to_owned))
            .collect();
        let mut talk = Self {
            remote,
            user: String::new(),
            sender: String::new(),
            senders,
            knows_its_server: config["own_server"].as_bool().unwrap_or_default(),
            seen: HashSet::new(),
            last: None,
            next_faults: None,
            failures: mpsc::channel(16),
        };
        talk.become_user(user).await?;
        Ok(talk)
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn sender(&self) -> &str {
        &self.sender
    }

    pub(super) fn prompt(&self) -> String {
        format!("{}> ", Address::parse(self.user.as_str()).id())
    }

    pub(super) async fn events(&self) -> Result<RemoteEvents, RemoteError> {
        self.remote.events().await
    }

    /// Does what a line asks for, to its end.
    pub(super) async fn run(&mut self, command: Command) -> anyhow::Result<Outcome> {
        match self.message(&command)? {
            Some(message) => self.send(message).await,
            None => self.order(command).await,
        }
    }

    /// The same while other lines are typed: answers come as events, and failures by [`Talk::failed`].
    pub(super) async fn run_beside(&mut self, command: Command) -> anyhow::Result<Option<Outcome>> {
        let Some(message) = self.message(&command)? else {
            return self.order(command).await.map(Some);
        };
        let faults = self.next_faults.take();
        let remote = self.remote.clone();
        let failures = self.failures.0.clone();
        let (sid, last) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let answer = deliver(&remote, faults, &["messages"], &message).await;
            let problem = match answer {
                Ok(answer) => {
                    let _ = sid.send(answer["message_sid"].as_str().map(str::to_owned));
                    failure(&answer)
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = problem {
                let _ = failures.send(problem).await;
            }
        });
        // For /dup and /last, if it is there by then.
        if let Ok(Ok(Some(sid))) = tokio::time::timeout(GRACE, last).await {
            self.last = Some(sid);
        }
        Ok(None)
    }

    /// What went wrong beside.
    pub(super) async fn failed(&mut self) -> String {
        self.failures.1.recv().await.unwrap_or_default()
    }

    /// A message of the bot, if an event brings one that was not shown.
    pub(super) fn bubble(&mut self, event: &RemoteEvent) -> Option<Bubble> {
        let data = &event.data;
        if data["user"].as_str() != Some(self.user.as_str()) {
            return None;
        }
        let is_failure = event.name == "status" && data["status"] == "failed";
        if is_failure {
            let code = data["error_code"].as_u64().unwrap_or_default();
            return Some(Bubble {
                by: "bot".to_owned(),
                body: "(the message above)".to_owned(),
                extras: Vec::new(),
                failed: Some(format!("[failed {code}]")),
            });
        }
        let message = (event.name == "message").then_some(data)?;
        let sid = message["sid"].as_str()?;
        let is_out = message["direction"] == "out";
        (is_out && self.seen.insert(sid.to_owned())).then(|| Bubble::new(message))
    }

    /// Waits until the server is done with this user, and returns what came meanwhile.
    pub(super) async fn wait_for_answers(&mut self) -> anyhow::Result<Vec<Bubble>> {
        if !self.knows_its_server {
            tokio::time::sleep(GRACE).await;
            return self.news().await;
        }
        loop {
            let state = self.remote.get(&["state", &self.user]).await?;
            if state["pending"].as_u64().unwrap_or_default() == 0 {
                return self.news().await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What was not shown yet.
    async fn news(&mut self) -> anyhow::Result<Vec<Bubble>> {
        let conversation = self.remote.get(&["conversations", &self.user]).await?;
        let mut bubbles = Vec::new();
        for message in conversation.as_array().into_iter().flatten() {
            let sid = message["sid"].as_str().unwrap_or_default();
            if message["direction"] == "out" && self.seen.insert(sid.to_owned()) {
                bubbles.push(Bubble::new(message));
            }
        }
        Ok(bubbles)
    }

    /// The message that a line is, if it is one.
    fn message(&self, command: &Command) -> anyhow::Result<Option<Value>> {
        let mut message = json!({"from": self.user, "to": self.sender});
        match command {
            Command::Say(text) => message["body"] = text.as_str().into(),
            Command::Photo(line) => {
                let (file, caption) = split_file(line);
                message["media"] = json!([photo(file).with_context(|| format!("/photo {file}"))?]);
                if !caption.is_empty() {
                    message["body"] = caption.into();
                }
            }
            Command::Pin {
                latitude,
                longitude,
                label,
            } => {
                message["location"] =
                    json!({"latitude": latitude, "longitude": longitude, "label": label});
            }
            Command::Button { text, payload } => {
                let payload = payload.as_ref().unwrap_or(text);
                message["button"] = json!({"text": text, "payload": payload});
            }
            _ => return Ok(None),
        }
        Ok(Some(message))
    }

    async fn send(&mut self, message: Value) -> anyhow::Result<Outcome> {
        let faults = self.next_faults.take();
        let answer = deliver(&self.remote, faults, &["messages"], &message).await?;
        self.last = answer["message_sid"].as_str().map(str::to_owned);
        self.outcome(&answer).await
    }

    async fn outcome(&mut self, answer: &Value) -> anyhow::Result<Outcome> {
        let bubbles = self.news().await?;
        Ok(match failure(answer) {
            Some(reason) => Outcome::Failed { bubbles, reason },
            None => Outcome::Answered(bubbles),
        })
    }

    /// Everything that is no message.
    async fn order(&mut self, command: Command) -> anyhow::Result<Outcome> {
        let told = |text: String| Ok(Outcome::Told(text));
        match command {
            Command::Help => told(HELP.to_owned()),
            Command::As(address) => {
                self.become_user(&address).await?;
                told(format!(
                    "You are {}, writing to {}.",
                    self.user, self.sender
                ))
            }
            Command::Sms | Command::WhatsApp => {
                let user = if command == Command::Sms {
                    SMS_USER
                } else {
                    WHATSAPP_USER
                };
                self.become_user(user).await?;
                told(format!(
                    "You are {}, writing to {}.",
                    self.user, self.sender
                ))
            }
            Command::Duplicate => {
                let sid = self.last.clone().context("/dup: nothing was sent yet")?;
                let answer = self
                    .remote
                    .post(&["messages", &sid, "redeliver"], &json!({}))
                    .await?;
                let attempts = answer["attempts"].as_array().map_or(0, Vec::len);
                let bubbles = self.news().await?;
                if bubbles.is_empty() && failure(&answer).is_none() {
                    return told(format!(
                        "Delivered again ({attempts} call): nothing new was said."
                    ));
                }
                Ok(match failure(&answer) {
                    Some(reason) => Outcome::Failed { bubbles, reason },
                    None => Outcome::Answered(bubbles),
                })
            }
            Command::Late(ms) => {
                let fault = if self.knows_its_server {
                    "handler_ms"
                } else {
                    "delay_ms"
                };
                self.next_faults = Some(json!({fault: ms}));
                told("The next answer is late.".to_owned())
            }
            Command::Down => {
                self.next_faults = Some(json!({"drop_connection": true}));
                told("The next message finds the webhook broken.".to_owned())
            }
            Command::Clock(seconds) => {
                let body = json!({"advance_seconds": seconds});
                let answer = self.remote.post(&["clock"], &body).await?;
                let now = answer["now"].as_str().unwrap_or_default().to_owned();
                told(format!("It is {now}."))
            }
            Command::State => {
                let state = self.remote.get(&["state", &self.user]).await?;
                if state.is_null() {
                    return told("The server is not replyhook's: only it knows.".to_owned());
                }
                told(serde_json::to_string_pretty(&state)?)
            }
            Command::Last => self.describe_last().await.map(Outcome::Told),
            Command::Save(name) => {
                let test = self
                    .remote
                    .text_of(&["conversations", &self.user, "test"])
                    .await?;
                let file = format!("{name}.rs");
                let mut options = std::fs::OpenOptions::new();
                let created = options.write(true).create_new(true).open(&file);
                let mut created = created.with_context(|| format!("/save {file}"))?;
                std::io::Write::write_all(&mut created, test.as_bytes())?;
                told(format!("Written to {file}."))
            }
            Command::Say(_) | Command::Photo(_) | Command::Pin { .. } | Command::Button { .. } => {
                told(String::new())
            }
        }
    }

    async fn describe_last(&self) -> anyhow::Result<String> {
        let sid = self
            .last
            .as_deref()
            .context("/last: nothing was sent yet")?;
        let exchanges = self.remote.get(&["exchanges"]).await?;
        let mut text = String::new();
        for exchange in exchanges.as_array().into_iter().flatten() {
            if exchange["message_sid"].as_str() != Some(sid) {
                continue;
            }
            let request = &exchange["request"];
            writeln!(
                text,
                "{} {} → {} in {} ms",
                request["method"].as_str().unwrap_or_default(),
                request["url"].as_str().unwrap_or_default(),
                exchange["response"]["status"],
                exchange["ms"]
            )?;
            for pair in exchange["params"].as_array().into_iter().flatten() {
                let of = |index: usize| pair[index].as_str().unwrap_or_default();
                writeln!(text, "  {} = {}", of(0), printable(of(1)))?;
            }
            let body = exchange["response"]["body"].as_str().unwrap_or_default();
            writeln!(text, "{}", printable(body))?;
        }
        Ok(text)
    }

    async fn become_user(&mut self, user: &str) -> anyhow::Result<()> {
        let user = user.trim();
        let address = Address::parse(user);
        let on_channel =
            |sender: &&String| Address::parse(sender.as_str()).channel() == address.channel();
        let sender = self.senders.iter().find(on_channel);
        let sender =
            sender.with_context(|| format!("{user}: the bot has no number on this channel"))?;
        self.sender.clone_from(sender);
        user.clone_into(&mut self.user);
        // What was said before is not said again.
        self.news().await.map(|_| ())
    }
}

static FAULTY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Sends, with what is wrong for this once.
async fn deliver(
    remote: &Remote,
    faults: Option<Value>,
    path: &[&str],
    message: &Value,
) -> Result<Value, RemoteError> {
    let Some(faults) = faults else {
        return remote.post(path, message).await;
    };
    // One at a time: each puts back what it found.
    let _turn = FAULTY.lock().await;
    let before = remote.get(&["faults"]).await?;
    let mut with = before.clone();
    for (name, value) in faults.as_object().into_iter().flatten() {
        with[name] = value.clone();
    }
    remote.put(&["faults"], &with).await?;
    let answer = remote.post(path, message).await;
    remote.put(&["faults"], &before).await?;
    answer
}

/// Why Twilio could use no answer.
fn failure(answer: &Value) -> Option<String> {
    let last = answer["attempts"].as_array()?.last()?;
    let code = last["error_code"].as_u64()?;
    let meaning = u32::try_from(code)
        .ok()
        .and_then(|code| replyhook::ErrorCode(code).meaning());
    let status = last["status"].as_u64();
    let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    Some(format!(
        "{}: {status}: {} ({code})",
        last["url"].as_str().unwrap_or_default(),
        meaning.unwrap_or_default()
    ))
}

/// A file of the user who types: read here, since the emulator reads no file outside of its own folder.
fn photo(file: &str) -> anyhow::Result<Value> {
    let path = std::path::Path::new(file);
    // A pipe or a device might never end.
    if !path.metadata()?.is_file() {
        anyhow::bail!("not a file");
    }
    let data = STANDARD.encode(std::fs::read(path)?);
    let name = path.file_name().map(|name| name.to_string_lossy());
    Ok(json!({"data": data, "filename": name}))
}

/// A file's name, in quotes if it has spaces, and what is said with it.
fn split_file(line: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(rest) = line.strip_prefix(quote)
            && let Some((file, caption)) = rest.split_once(quote)
        {
            return (file, caption.trim());
        }
    }
    if std::path::Path::new(line).exists() {
        return (line, "");
    }
    line.split_once(' ')
        .map_or((line, ""), |(file, caption)| (file, caption.trim()))
}
