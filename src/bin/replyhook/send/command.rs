//! Arguments of `replyhook send`, and sending of one message.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use replyhook::choice::{Choice, ChoiceForm, title_keyword};
use replyhook::config::SendSettings;
use replyhook::outbound::{OutboundClient, OutboundConfig, SendError, SendErrorKind, SendReceipt};
use replyhook::store::{Access, OutboundState};
use replyhook::twilio::{Client, NewMessage};
use replyhook::{Address, Channel, ErrorCode, MessagingServiceSid, SystemClock, Timestamp};
use serde_json::json;

use super::row::{Draft, DraftQuestion};
use crate::exit::{ExitStatus, Failed};
use crate::operator::{OpenedStore, parse_address, parse_user};
use crate::print::print;
use crate::settings_args::SettingsArgs;

/// Interval between two checks of a message with `--wait`.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
#[command(after_help = "\
Needs the DATABASE_URL and TWILIO_ACCOUNT_SID of a running server, which sends each queued message, but never to a
user who has opted out. On WhatsApp, a text needs an open customer service window (the user wrote within 24 hours).
Outside of it, a template needs a recorded opt-in. A text with --choice is a question: buttons, a list or a numbered
text, as the channel has them. With --idempotency-key, a second call sends nothing and shows the
first message.

A CSV file has a header line. Its columns: to; body, or template with a column per variable (1, 2, … or var.NAME);
optionally from, service, media (URLs separated by blanks), at, key. The options apply where a row has an empty field.
A row is sent once, even if the file is sent again: its idempotency key is the column key, or else the content of the
row. --idempotency-key NAME becomes a prefix of these keys.

Exit codes:
  0  queued or sent (with --csv: every row)
  1  rejected or failed, or not sent within --wait
  2  usage or configuration error

Examples:
  replyhook send --to whatsapp:+15550001111 --from whatsapp:+15550002222 --body 'Your order is ready.' --wait
  replyhook send --to whatsapp:+15550001111 --from whatsapp:+15550002222 --template HX… --var 1=Ana --idempotency-key order-42
  replyhook send --to whatsapp:+15550001111 --from whatsapp:+15550002222 --body 'When?' --choice today=Today --choice 'Another day'
  replyhook send --csv customers.csv --service MG… --template HX… --idempotency-key spring --dry-run")]
pub(crate) struct Send {
    /// Recipient, such as whatsapp:+15550001111
    #[arg(long, value_name = "ADDRESS", value_parser = parse_user, required_unless_present = "csv")]
    to: Option<Address>,
    /// Sender
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    from: Option<Address>,
    /// Messaging Service, which chooses the sender unless --from is given
    #[arg(long, value_name = "MG…")]
    service: Option<MessagingServiceSid>,
    /// Text of the message
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["template", "location"])]
    body: Option<String>,
    /// Content SID of a template
    #[arg(long, value_name = "HX…", conflicts_with_all = ["media", "location"])]
    template: Option<String>,
    /// Set a variable of the template; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    var: Vec<(String, String)>,
    /// Name of a template, in place of its Content SID
    #[arg(long, value_name = "NAME", requires = "language", conflicts_with_all = ["template", "body", "media", "location"])]
    template_name: Option<String>,
    /// Language of that template, such as en or es
    #[arg(long, value_name = "LANGUAGE", requires = "template_name")]
    language: Option<String>,
    /// Add a choice to the text, which is the question; may be repeated
    #[arg(long, value_name = "[ID=]TITLE", value_parser = parse_choice, conflicts_with_all = ["template", "template_name", "location"])]
    choice: Vec<Choice>,
    /// Key of the question, which its answer repeats
    #[arg(long, value_name = "KEY", requires = "choice")]
    choices_key: Option<String>,
    /// Label of the button that opens a list, in place of `reply.choices_button`
    #[arg(long, value_name = "LABEL", requires = "choice", value_parser = parse_label)]
    choices_button: Option<String>,
    /// Last line of a numbered text, in place of `reply.choices_hint`
    #[arg(long, value_name = "TEXT", requires = "choice")]
    choices_hint: Option<String>,
    /// Attach the media at this public URL; may be repeated
    #[arg(long, value_name = "URL", conflicts_with = "location")]
    media: Vec<String>,
    /// Send a location, in degrees (WhatsApp)
    #[arg(long, value_name = "LAT,LON[,LABEL]", value_parser = parse_location, allow_hyphen_values = true)]
    location: Option<LocationArg>,
    /// Schedule the message, such as 2026-12-24T18:00:00Z: 5 minutes to 35 days ahead, through a Messaging Service
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Idempotency key: a later message with the same key is not sent
    #[arg(long, value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) idempotency_key: Option<String>,
    /// Wait until the message is sent, and show its SID and status
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60", conflicts_with = "csv")]
    wait: Option<u32>,
    /// Send one message per row of this CSV file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "location"])]
    csv: Option<PathBuf>,
    /// Check the message, or every row, and queue nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A location on the command line: latitude, longitude and label.
#[derive(Clone)]
struct LocationArg(f64, f64, String);

fn parse_variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as 1=Ana"),
    }
}

fn parse_choice(text: &str) -> Result<Choice, &'static str> {
    let (id, title) = text.split_once('=').unwrap_or((text, text));
    if id.trim().is_empty() || title.trim().is_empty() {
        return Err("write TITLE or ID=TITLE, such as other='Another day'");
    }
    Ok(Choice::new(id, title))
}

fn parse_label(text: &str) -> Result<String, &'static str> {
    if ChoiceForm::fits_label(text) {
        Ok(text.to_owned())
    } else {
        Err("WhatsApp shows labels of at most 20 characters")
    }
}

fn parse_location(text: &str) -> Result<LocationArg, &'static str> {
    let mut parts = text.splitn(3, ',').map(str::trim);
    let mut degrees = || parts.next()?.parse().ok();
    match (degrees(), degrees()) {
        (Some(latitude), Some(longitude)) => {
            let label = parts.next().unwrap_or_default();
            Ok(LocationArg(latitude, longitude, label.to_owned()))
        }
        _ => {
            Err("write LATITUDE,LONGITUDE and a name if there is one, such as 52.52,13.405,Office")
        }
    }
}

impl Send {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let settings = SendSettings::load(&self.settings.sources())?;
        match &self.csv {
            Some(file) => self.send_csv(file, settings),
            None => self.send_one(settings),
        }
    }

    fn send_one(self, settings: SendSettings) -> anyhow::Result<ExitStatus> {
        let message = self.message()?;
        if let Some(to) = &self.to {
            self.warn_of_keywords(to.channel());
        }
        let account = settings.account;
        let (opened, client) = open_outbox(settings)?;
        if self.dry_run {
            let existing = opened.run(client.check(self.idempotency_key.as_deref(), &message));
            return match existing.map_err(|error| to_exit_error(&error))? {
                Some(existing) => print(&self.format_receipt(&existing)),
                None => print("would be queued\n"),
            }
            .map(|()| ExitStatus::Yes);
        }
        let queued = match &self.idempotency_key {
            Some(key) => opened.run(client.send_once(key, &message)),
            None => opened.run(client.send(&message)),
        };
        let queued = queued.map_err(|error| to_exit_error(&error))?;
        let (receipt, is_final) = match self.wait {
            Some(seconds) => opened.run(wait_for(&client, queued, seconds))?,
            None => (queued, true),
        };
        print(&self.format_receipt(&receipt))?;
        if !is_final {
            return Err(anyhow!(Failed(format!(
                "message {} is not sent yet and stays queued; check that a server runs on this store and sends for {account}, \
                 and that Twilio accepts its credentials and messages (`replyhook doctor`, and the log of the server)",
                receipt.id
            ))));
        }
        // `differs`: the key is that of another message, so this one was not sent and will not be.
        Ok(if receipt.differs || has_failed(&receipt) {
            ExitStatus::No
        } else {
            ExitStatus::Yes
        })
    }

    /// Warns of choices that Twilio takes for a keyword on the channel of the recipient.
    ///
    /// Returns whether the channel is one with such keywords.
    pub(super) fn warn_of_keywords(&self, channel: &Channel) -> bool {
        if !matches!(channel, Channel::Sms | Channel::Rcs) {
            return false;
        }
        for choice in &self.choice {
            if let Some(keyword) = title_keyword(choice.title()) {
                // To standard error, so that each line of --json stays an object. Nothing is lost if it is closed.
                let _ = writeln!(
                    std::io::stderr(),
                    "warning: {keyword} is a keyword that Twilio handles itself on SMS and RCS: a user who types it unsubscribes, \
                     subscribes or gets help; use another title"
                );
            }
        }
        true
    }

    fn message(&self) -> anyhow::Result<NewMessage> {
        let to = self.to.clone().ok_or_else(|| anyhow!("--to is missing"))?;
        if let Some(LocationArg(latitude, longitude, label)) = &self.location {
            let message = NewMessage::location(to, *latitude, *longitude, label);
            return Ok(self.with_sender_and_time(message));
        }
        self.draft().message(to)
    }

    /// Returns the message of the options, which are also the defaults for rows of a CSV file.
    pub(super) fn draft(&self) -> Draft {
        Draft {
            from: self.from.clone(),
            service: self.service,
            body: self.body.clone(),
            template: self.template.clone(),
            template_name: self.template_name.clone().zip(self.language.clone()),
            question: (!self.choice.is_empty()).then(|| DraftQuestion {
                choices: self.choice.clone(),
                key: self.choices_key.clone(),
                button: self.choices_button.clone(),
                hint: self.choices_hint.clone(),
            }),
            variables: self.var.iter().cloned().collect(),
            media: self.media.clone(),
            at: self.at,
        }
    }

    fn with_sender_and_time(&self, message: NewMessage) -> NewMessage {
        self.draft().with_sender_and_time(message)
    }

    fn format_receipt(&self, receipt: &SendReceipt) -> String {
        let state = receipt.state.map_or("deleted", OutboundState::as_str);
        let sid = receipt.sid.map(|sid| sid.to_string());
        if self.json {
            let line = json!({"id": receipt.id, "duplicate": receipt.is_duplicate, "differs": receipt.differs, "state": state,
                "message_sid": sid, "status": receipt.status, "error_code": receipt.error_code, "reason": receipt.reason});
            return format!("{line}\n");
        }
        let prefix = match (receipt.is_duplicate, receipt.differs) {
            (false, _) => "",
            (true, false) => "already queued as ",
            (true, true) => "not queued, because another message has its key: ",
        };
        let mut line = format!("{prefix}message {}: {state}", receipt.id);
        let failure = failure_reason(receipt);
        for part in [sid, receipt.status.clone(), failure].into_iter().flatten() {
            line.push(' ');
            line.push_str(&part);
        }
        line + "\n"
    }
}

/// Opens the store, and creates a client that queues messages in it.
pub(super) fn open_outbox(settings: SendSettings) -> anyhow::Result<(OpenedStore, OutboundClient)> {
    let config = OutboundConfig {
        account: Some(settings.account),
        consent_required: settings.consent.required,
        rate_per_second: settings.outbound.rate_per_second,
    };
    let (url, choices) = (settings.content_url, settings.choices);
    let templates = settings
        .credentials
        .map(|credentials| (Client::new(url), credentials));
    let opened = OpenedStore::open(settings.store, Access::Operator)?;
    let client = OutboundClient::new(
        opened.store.clone(),
        Arc::new(SystemClock),
        config,
        templates,
    )
    .with_choices(choices.button, choices.hint, choices.ttl);
    Ok((opened, client))
}

/// Converts an error: an invalid message or a missing account exits with 2, any other rejection with 1.
pub(super) fn to_exit_error(error: &SendError) -> anyhow::Error {
    match error.kind() {
        SendErrorKind::Invalid | SendErrorKind::NoAccount => anyhow!("{error}"),
        _ => anyhow!(Failed(error.to_string())),
    }
}

/// Waits until a message is sent or has failed. Returns its receipt, and false if the time was not enough.
async fn wait_for(
    client: &OutboundClient,
    mut receipt: SendReceipt,
    seconds: u32,
) -> anyhow::Result<(SendReceipt, bool)> {
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    let (is_duplicate, differs) = (receipt.is_duplicate, receipt.differs);
    loop {
        let is_pending = matches!(
            receipt.state,
            Some(OutboundState::Pending | OutboundState::Sending | OutboundState::Unknown)
        );
        if !is_pending || Instant::now() >= deadline {
            return Ok((receipt, !is_pending));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        let Some(current) = client
            .receipt(receipt.id)
            .await
            .map_err(|error| to_exit_error(&error))?
        else {
            bail!(Failed(
                "the message was deleted while this command waited for it".to_owned()
            ));
        };
        receipt = current;
        // Only the receipt of the call that queued the message has these two.
        (receipt.is_duplicate, receipt.differs) = (is_duplicate, differs);
    }
}

/// Returns true for a message that did not reach the user, or will not without the operator.
pub(super) fn has_failed(receipt: &SendReceipt) -> bool {
    let not_sent = matches!(
        receipt.state,
        Some(OutboundState::Failed | OutboundState::Suppressed | OutboundState::Held)
    );
    // The state says that Twilio accepted the message, the status whether the carrier delivered it.
    not_sent
        || matches!(
            receipt.status.as_deref(),
            Some("failed" | "undelivered" | "canceled")
        )
}

/// Formats the reason of a failure, with the meaning of Twilio's error code.
pub(super) fn failure_reason(receipt: &SendReceipt) -> Option<String> {
    let code = receipt.error_code.map(ErrorCode);
    let meaning = code.map(|code| format!("{} ({code})", code.meaning_or_link()));
    match (&receipt.reason, meaning) {
        (Some(reason), Some(meaning)) => Some(format!("{reason}: {meaning}")),
        (reason, meaning) => meaning.or_else(|| reason.clone()),
    }
}
