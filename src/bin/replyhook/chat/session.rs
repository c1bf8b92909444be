//! The conversation: sends messages, collects replies, and controls the emulator.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use replyhook::Address;
use replyhook::emulator::{EmulatorClient, EmulatorClientError, EmulatorEvent, EventStream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinSet;

use super::bubble::Bubble;
use super::command::{ChatCommand, HELP};
use super::delivery::{ChatDelivery, deliver, failure_reason, restore_faults};
use crate::exit::Failed;
use crate::operator::parse_address;
use crate::print::printable;

pub(super) const WHATSAPP_USER: &str = "whatsapp:+15550001111";
const SMS_USER: &str = "+15550004444";
/// Interval between two checks whether the server is still handling messages.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Time to wait for REST messages of another server, whose pending work the emulator does not know.
const LATE_REPLY_GRACE: Duration = Duration::from_secs(1);

pub(super) struct ChatSession {
    emulator: EmulatorClient,
    user: String,
    sender: String,
    senders: Vec<String>,
    is_app_attached: bool,
    /// SIDs of the messages that were shown.
    shown_sids: HashSet<String>,
    /// Failures of the bot that were shown: the SID of the user's message, and the reason.
    shown_failures: HashSet<(String, String)>,
    /// SID of the last message, except those of `pending_sids`.
    last_sid: Option<String>,
    /// SIDs of later messages, oldest first. Each arrives after the webhook has responded.
    pending_sids: Vec<oneshot::Receiver<String>>,
    /// Messages from [`ChatSession::run_in_background`].
    deliveries: JoinSet<()>,
    /// Faults to inject for the next message only.
    next_faults: Option<Value>,
    /// Failures of messages from [`ChatSession::run_in_background`].
    failures: mpsc::Receiver<String>,
    failure_tx: mpsc::Sender<String>,
}

/// The result of a line.
pub(super) enum MessageOutcome {
    Answered(Vec<Bubble>),
    /// Twilio could use neither the response of the webhook nor that of the fallback, or a fault was not restored.
    Failed {
        bubbles: Vec<Bubble>,
        reason: String,
    },
    Note(String),
}

impl MessageOutcome {
    pub(super) fn has_succeeded(&self) -> bool {
        match self {
            Self::Answered(bubbles) => bubbles.iter().all(Bubble::has_succeeded),
            Self::Failed { .. } => false,
            Self::Note(_) => true,
        }
    }
}

impl ChatSession {
    pub(super) async fn open(emulator: EmulatorClient, user: &str) -> anyhow::Result<Self> {
        let config = emulator.get(&["config"]).await?;
        let senders = config["senders"].as_array().cloned().unwrap_or_default();
        let senders = senders
            .iter()
            .filter_map(|sender| sender.as_str().map(str::to_owned))
            .collect();
        let (failure_tx, failures) = mpsc::channel(16);
        let mut session = Self {
            emulator,
            user: String::new(),
            sender: String::new(),
            senders,
            is_app_attached: config["app_attached"].as_bool().unwrap_or_default(),
            shown_sids: HashSet::new(),
            shown_failures: HashSet::new(),
            last_sid: None,
            pending_sids: Vec::new(),
            deliveries: JoinSet::new(),
            next_faults: None,
            failures,
            failure_tx,
        };
        session.switch_user(user).await?;
        Ok(session)
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

    pub(super) async fn events(&self) -> Result<EventStream, EmulatorClientError> {
        self.emulator.events().await
    }

    /// Runs a command, and returns its result when Twilio's part is over.
    pub(super) async fn run(&mut self, command: ChatCommand) -> anyhow::Result<MessageOutcome> {
        match self.build_message(&command).await? {
            Some(message) => self.send(message).await,
            None => self.run_control(command).await,
        }
    }

    /// Runs a command without waiting for the replies to a message.
    ///
    /// Replies arrive as events, and failures with [`ChatSession::next_failure`].
    pub(super) async fn run_in_background(
        &mut self,
        command: ChatCommand,
    ) -> anyhow::Result<Option<MessageOutcome>> {
        let Some(message) = self.build_message(&command).await? else {
            return self.run_control(command).await.map(Some);
        };
        let faults = self.next_faults.take();
        let emulator = self.emulator.clone();
        let failure_tx = self.failure_tx.clone();
        let (sid_tx, pending_sid) = oneshot::channel();
        // Remove those that have ended, so that a long session does not collect them.
        while self.deliveries.try_join_next().is_some() {}
        self.deliveries.spawn(async move {
            let problem = match deliver(&emulator, faults, &message).await {
                Ok(ChatDelivery { report, problem }) => {
                    if let Some(sid) = report["message_sid"].as_str() {
                        let _ = sid_tx.send(sid.to_owned());
                    }
                    problem
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = problem {
                let _ = failure_tx.send(problem).await;
            }
        });
        // Do not wait for the SID, which arrives with the webhook's response: the user wants to type the next line.
        self.collect_sids();
        self.pending_sids.push(pending_sid);
        Ok(None)
    }

    /// Sets the last SID to the newest one that has arrived. Returns true if a later message has no response yet.
    fn collect_sids(&mut self) -> bool {
        while let Some(pending_sid) = self.pending_sids.last_mut() {
            match pending_sid.try_recv() {
                Ok(sid) => {
                    self.last_sid = Some(sid);
                    self.pending_sids.clear();
                }
                Err(TryRecvError::Empty) => return true,
                // The emulator has rejected this message, so the last one is the one before it.
                Err(TryRecvError::Closed) => {
                    self.pending_sids.pop();
                }
            }
        }
        false
    }

    /// Returns the SID of the last message, for the command with this name.
    fn find_last_sid(&mut self, command: &str) -> anyhow::Result<String> {
        if self.collect_sids() {
            bail!("{command}: the last message has no response yet; repeat {command} after it");
        }
        let sid = self.last_sid.clone();
        sid.with_context(|| format!("{command}: no message was sent yet"))
    }

    /// Ends the deliveries in progress, and restores the emulator's faults.
    pub(super) async fn close(mut self) -> Result<(), Failed> {
        // Before the restore, so that no delivery injects faults after it. Another emulator outlives this process.
        self.deliveries.shutdown().await;
        let restored = restore_faults(&self.emulator).await;
        restored.map_err(|error| Failed(error.to_string()))
    }

    /// Waits for a failure of a message from [`ChatSession::run_in_background`].
    pub(super) async fn next_failure(&mut self) -> String {
        // Never `None`: `self.failure_tx` keeps the channel open.
        self.failures.recv().await.unwrap_or_default()
    }

    /// Returns the message of an event to this user, unless it was shown before, or a note that a message failed.
    pub(super) fn bubble(&mut self, event: &EmulatorEvent) -> Option<Bubble> {
        let data = &event.data;
        if data["user"].as_str() != Some(self.user.as_str()) {
            return None;
        }
        let is_failure = event.name == "status" && data["status"] == "failed";
        if is_failure {
            let code = data["error_code"].as_u64().unwrap_or_default();
            return Some(Bubble::failed(code));
        }
        if event.name == "status" {
            return self.bot_failure(data);
        }
        let message = (event.name == "message").then_some(data)?;
        let sid = message["sid"].as_str()?;
        let is_out = message["direction"] == "out";
        (is_out && self.shown_sids.insert(sid.to_owned())).then(|| Bubble::new(message))
    }

    /// Returns a note that the bot failed at this message of the user, unless it did not or the note was shown before.
    fn bot_failure(&mut self, message: &Value) -> Option<Bubble> {
        let (sid, reason) = (message["sid"].as_str()?, message["failure"].as_str()?);
        let is_new = self
            .shown_failures
            .insert((sid.to_owned(), reason.to_owned()));
        is_new.then(|| Bubble::bot_failed(reason))
    }

    /// Waits until the server has handled all messages of this user, and returns the messages that were not shown.
    pub(super) async fn wait_for_replies(&mut self) -> anyhow::Result<Vec<Bubble>> {
        if !self.is_app_attached {
            tokio::time::sleep(LATE_REPLY_GRACE).await;
            return self.new_messages().await;
        }
        loop {
            let state = self.emulator.get(&["state", &self.user]).await?;
            if state["pending"].as_u64().unwrap_or_default() == 0 {
                return self.new_messages().await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the messages to this user that were not shown yet.
    async fn new_messages(&mut self) -> anyhow::Result<Vec<Bubble>> {
        let conversation = self.emulator.get(&["conversations", &self.user]).await?;
        let mut bubbles = Vec::new();
        for message in conversation.as_array().into_iter().flatten() {
            let sid = message["sid"].as_str().unwrap_or_default();
            if message["direction"] == "out" && self.shown_sids.insert(sid.to_owned()) {
                bubbles.push(Bubble::new(message));
            }
            bubbles.extend(self.bot_failure(message));
        }
        Ok(bubbles)
    }

    /// Returns the message of a command, or `None` if the command sends none.
    async fn build_message(&self, command: &ChatCommand) -> anyhow::Result<Option<Value>> {
        let mut message = json!({"from": self.user, "to": self.sender});
        match command {
            ChatCommand::Say(text) => message["body"] = text.as_str().into(),
            ChatCommand::Photo(line) => {
                let (file, caption) = split_file(line);
                message["media"] =
                    json!([read_media(file).with_context(|| format!("/photo {file}"))?]);
                if !caption.is_empty() {
                    message["body"] = caption.into();
                }
            }
            ChatCommand::Pin {
                latitude,
                longitude,
                label,
            } => {
                message["location"] =
                    json!({"latitude": latitude, "longitude": longitude, "label": label});
            }
            ChatCommand::Button { text, payload } => {
                let payload = payload.as_ref().unwrap_or(text);
                message["button"] = json!({"text": text, "payload": payload});
            }
            ChatCommand::Tap(item) => message["choice"] = self.find_item(item).await?,
            ChatCommand::Form(fields) => message["flow"] = fields.clone().into(),
            _ => return Ok(None),
        }
        Ok(Some(message))
    }

    /// Finds an item of the last message that has some, by number or title.
    async fn find_item(&self, name: &str) -> anyhow::Result<Value> {
        let conversation = self.emulator.get(&["conversations", &self.user]).await?;
        let messages = conversation.as_array().into_iter().flatten().rev();
        let mut with_items = messages.filter_map(|message| {
            let items = message["content"]["items"].as_array()?;
            let is_shown = !matches!(message["status"].as_str(), Some("failed" | "undelivered"));
            let is_own = message["sender"] == self.sender.as_str() && is_shown;
            (is_own && !items.is_empty()).then_some((message, items))
        });
        let (message, items) = with_items.next().context(
            "/tap: no message has buttons or a list; type the number or the title as a message",
        )?;
        // The number first: it is printed before each title.
        let by_number = name.parse::<usize>().ok();
        let by_number = by_number.and_then(|number| items.get(number.checked_sub(1)?));
        let title = name.to_lowercase();
        let is_title = |item: &&Value| {
            let text = item["title"].as_str().unwrap_or_default();
            text.to_lowercase() == title
        };
        let item = by_number.or_else(|| items.iter().find(is_title));
        let item = item.with_context(|| {
            let titles = items.iter().filter_map(|item| item["title"].as_str());
            let titles = titles.zip(1..).map(|(title, n)| format!("{n} {title}"));
            let titles: Vec<_> = titles.collect();
            format!("/tap {name}: no such item; there are {}", titles.join(", "))
        })?;
        Ok(json!({"id": item["id"], "message_sid": message["sid"]}))
    }

    async fn send(&mut self, message: Value) -> anyhow::Result<MessageOutcome> {
        let faults = self.next_faults.take();
        let delivery = deliver(&self.emulator, faults, &message).await?;
        self.last_sid = delivery.report["message_sid"].as_str().map(str::to_owned);
        let bubbles = self.new_messages().await?;
        Ok(match delivery.problem {
            Some(reason) => MessageOutcome::Failed { bubbles, reason },
            None => MessageOutcome::Answered(bubbles),
        })
    }

    /// Runs a command that sends no message.
    async fn run_control(&mut self, command: ChatCommand) -> anyhow::Result<MessageOutcome> {
        let note = |text: String| Ok(MessageOutcome::Note(text));
        match command {
            ChatCommand::Help => note(HELP.to_owned()),
            ChatCommand::As(address) => {
                self.switch_user(&address).await?;
                note(format!(
                    "You are {}, writing to {}.",
                    self.user, self.sender
                ))
            }
            ChatCommand::Sms | ChatCommand::WhatsApp => {
                let user = if command == ChatCommand::Sms {
                    SMS_USER
                } else {
                    WHATSAPP_USER
                };
                self.switch_user(user).await?;
                note(format!(
                    "You are {}, writing to {}.",
                    self.user, self.sender
                ))
            }
            ChatCommand::Duplicate => {
                let sid = self.find_last_sid("/dup")?;
                let delivery = self
                    .emulator
                    .post(&["messages", &sid, "redeliver"], &json!({}))
                    .await?;
                let attempts = delivery["attempts"].as_array().map_or(0, Vec::len);
                let bubbles = self.new_messages().await?;
                // A redelivery gets the saved response, so usually nothing new is shown: say so.
                if bubbles.is_empty() && failure_reason(&delivery).is_none() {
                    return note(format!("Redelivered ({attempts} call); no new messages."));
                }
                Ok(match failure_reason(&delivery) {
                    Some(reason) => MessageOutcome::Failed { bubbles, reason },
                    None => MessageOutcome::Answered(bubbles),
                })
            }
            ChatCommand::Late(ms) => {
                // Another server's handler is out of reach, but the emulator can delay its calls.
                let fault = if self.is_app_attached {
                    "handler_ms"
                } else {
                    "delay_ms"
                };
                self.next_faults = Some(json!({fault: ms}));
                note("The next reply will be late.".to_owned())
            }
            ChatCommand::Down => {
                self.next_faults = Some(json!({"drop_connection": true}));
                note("The next webhook call will fail.".to_owned())
            }
            ChatCommand::Clock(seconds) => {
                let body = json!({"advance_seconds": seconds});
                let clock = self.emulator.post(&["clock"], &body).await?;
                let now = clock["now"].as_str().unwrap_or_default().to_owned();
                note(format!("It is {now}."))
            }
            ChatCommand::State => {
                let state = self.emulator.get(&["state", &self.user]).await?;
                if state.is_null() {
                    return note(
                        "The bot runs in another server, whose state is unknown.".to_owned(),
                    );
                }
                note(serde_json::to_string_pretty(&state)?)
            }
            ChatCommand::Last => self.describe_last().await.map(MessageOutcome::Note),
            ChatCommand::Save(file, language) => {
                let path = ["conversations", &self.user, "test"];
                let query = [("language", language)];
                let test = self.emulator.text_of(&path, &query).await?;
                // `create_new`: never overwrite a file.
                let mut options = std::fs::OpenOptions::new();
                let created = options.write(true).create_new(true).open(&file);
                let mut created = created.with_context(|| format!("/save {file}"))?;
                std::io::Write::write_all(&mut created, test.as_bytes())?;
                note(format!("Written to {file}."))
            }
            // Unreachable: `build_message` returns a message for these.
            ChatCommand::Say(_)
            | ChatCommand::Photo(_)
            | ChatCommand::Pin { .. }
            | ChatCommand::Tap(_)
            | ChatCommand::Form(_)
            | ChatCommand::Button { .. } => note(String::new()),
        }
    }

    async fn describe_last(&mut self) -> anyhow::Result<String> {
        let sid = self.find_last_sid("/last")?;
        let exchanges = self.emulator.get(&["exchanges"]).await?;
        let mut text = String::new();
        for exchange in exchanges.as_array().into_iter().flatten() {
            if exchange["message_sid"].as_str() != Some(sid.as_str()) {
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
                let text_at = |index: usize| pair[index].as_str().unwrap_or_default();
                writeln!(text, "  {} = {}", text_at(0), printable(text_at(1)))?;
            }
            let body = exchange["response"]["body"].as_str().unwrap_or_default();
            writeln!(text, "{}", printable(body))?;
        }
        Ok(text)
    }

    async fn switch_user(&mut self, user: &str) -> anyhow::Result<()> {
        let address = parse_address(user).map_err(|problem| anyhow!("{user}: {problem}"))?;
        let user = address.as_str();
        let is_on_channel =
            |sender: &&String| Address::parse(sender.as_str()).channel() == address.channel();
        let sender = self.senders.iter().find(is_on_channel);
        let sender =
            sender.with_context(|| format!("{user}: the bot has no sender on this channel"))?;
        self.sender.clone_from(sender);
        user.clone_into(&mut self.user);
        // Marks earlier messages of this user as shown.
        self.new_messages().await.map(|_| ())
    }
}

/// Reads a file as media of a message.
fn read_media(file: &str) -> anyhow::Result<Value> {
    // Read it here and send its bytes: the emulator reads only files of its media folder.
    let path = std::path::Path::new(file);
    // Reading a pipe or a device may never end.
    if !path.metadata()?.is_file() {
        anyhow::bail!("not a file");
    }
    let data = STANDARD.encode(std::fs::read(path)?);
    let name = path.file_name().map(|name| name.to_string_lossy());
    Ok(json!({"data": data, "filename": name}))
}

/// Splits the argument of /photo into file name and caption. A name with spaces is in quotes.
fn split_file(line: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(rest) = line.strip_prefix(quote)
            && let Some((file, caption)) = rest.split_once(quote)
        {
            return (file, caption.trim());
        }
    }
    // An unquoted name with spaces works if the file exists and has no caption.
    if std::path::Path::new(line).exists() {
        return (line, "");
    }
    line.split_once(' ')
        .map_or((line, ""), |(file, caption)| (file, caption.trim()))
}

#[cfg(test)]
mod tests {
    use replyhook::clock::SignedDuration;
    use replyhook::config::Sources;
    use replyhook::{App, DevServer, DevServerOptions};

    use super::*;

    // Until then, /last and /dup must not use the message before.
    #[tokio::test]
    async fn background_message_sid_is_set_after_response() {
        let mut options = DevServerOptions::default();
        options.emulator_port = Some(0);
        options.port = Some(0);
        let started = DevServer::start(App::builder(), Sources::default(), options);
        let dev_server = started.await.unwrap();
        let emulator = EmulatorClient::new(dev_server.emulator().url()).unwrap();
        let mut session = ChatSession::open(emulator, WHATSAPP_USER).await.unwrap();
        let first = ChatCommand::Say("first".to_owned());
        assert!(session.run(first).await.unwrap().has_succeeded());
        session.run(ChatCommand::Late(20_000)).await.unwrap();
        let second = ChatCommand::Say("second".to_owned());
        session.run_in_background(second).await.unwrap();
        dev_server.wait_for_handler_call(1).await;
        for command in [ChatCommand::Last, ChatCommand::Duplicate] {
            let early = session.run(command).await.err().unwrap().to_string();
            assert!(early.contains("has no response yet"), "{early}");
        }
        // Beyond the deadline, at which the webhook responds.
        dev_server.clock().advance(SignedDuration::from_secs(10));
        let last = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                if let Ok(MessageOutcome::Note(text)) = session.run(ChatCommand::Last).await {
                    break text;
                }
                tokio::task::yield_now().await;
            }
        });
        let last = last.await.unwrap();
        assert!(last.contains("Body = second"), "{last}");
        assert!(!last.contains("Body = first"), "{last}");
        // The handler has ended, so `stop` does not wait for it.
        dev_server.clock().advance(SignedDuration::from_secs(10));
        session.close().await.unwrap();
        dev_server.stop().await;
    }
}
