//! `replyhook send`: it puts the message into the outbox of the running server, which sends it.

mod bulk;
mod row;
mod rows;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use replyhook::config::SenderSettings;
use replyhook::sending::{Outgoing, SendError, SendErrorKind, SendRules, Sender};
use replyhook::store::{Access, ReplyState};
use replyhook::twilio::{Client, NewMessage};
use replyhook::{Address, ErrorCode, MessagingServiceSid, SystemClock, Timestamp};
use serde_json::json;

use self::row::Draft;
use crate::operator::{Opened, address};
use crate::{Answer, Failed, SettingsArgs, print};

/// Between two looks at a message that is waited for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
#[command(after_help = "\
Works beside a running server, with its DATABASE_URL and TWILIO_ACCOUNT_SID: the server sends what is queued here, once, and
not to who has opted out. On WhatsApp a text needs an open window (the user wrote within 24 hours), and outside of it a
template needs a recorded opt-in. With --idempotency-key a second call sends nothing and tells what became of the first.

A CSV file has a heading. Its columns: to; body, or template with a column for each variable (1, 2, … or var.NAME); and where
wanted from, service, media (URLs, separated by blanks), at, key. What a row leaves empty is taken from the options. A row is
sent once, however often the file is: its key is the column key, else what the row says; --idempotency-key NAME stands before it.

Exit code 0 if it is queued or sent (with --csv: every row), 1 if it is refused or failed, 2 for wrong usage.

Examples:
  replyhook send --to whatsapp:+15550001111 --from whatsapp:+15550002222 --body 'Your order is ready.' --wait
  replyhook send --to whatsapp:+15550001111 --from whatsapp:+15550002222 --template HX… --var 1=Ana --idempotency-key order-42
  replyhook send --csv customers.csv --service MG… --template HX… --idempotency-key spring --dry-run")]
pub(crate) struct Send {
    /// Who gets it, such as whatsapp:+15550001111
    #[arg(long, value_name = "ADDRESS", value_parser = address, required_unless_present = "csv")]
    to: Option<Address>,
    /// Your sender
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    from: Option<Address>,
    /// A Messaging Service, which chooses the sender unless one is named as well
    #[arg(long, value_name = "MG…")]
    service: Option<MessagingServiceSid>,
    /// The text
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["template", "location"])]
    body: Option<String>,
    /// A template, by its SID
    #[arg(long, value_name = "HX…", conflicts_with_all = ["media", "location"])]
    template: Option<String>,
    /// A variable of the template
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    var: Vec<(String, String)>,
    /// The public URL of a file
    #[arg(long, value_name = "URL", conflicts_with = "location")]
    media: Vec<String>,
    /// A place, in degrees (WhatsApp)
    #[arg(long, value_name = "LAT,LON[,LABEL]", value_parser = place, allow_hyphen_values = true)]
    location: Option<Place>,
    /// When Twilio sends it, such as 2026-12-24T18:00:00Z: 5 minutes to 35 days ahead, through a Messaging Service
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// What you call it: whatever has the same key later is not sent
    #[arg(long, value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    idempotency_key: Option<String>,
    /// Wait until it is sent, and tell its SID and status
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60", conflicts_with = "csv")]
    wait: Option<u32>,
    /// Send a message for each row of this file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "location"])]
    csv: Option<PathBuf>,
    /// Look at the message, or at every row, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Tell it as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A place as it is written on the command line.
#[derive(Clone)]
struct Place(f64, f64, String);

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as 1=Ana"),
    }
}

fn place(text: &str) -> Result<Place, &'static str> {
    let mut parts = text.splitn(3, ',').map(str::trim);
    let mut degrees = || parts.next()?.parse().ok();
    match (degrees(), degrees()) {
        (Some(latitude), Some(longitude)) => {
            let label = parts.next().unwrap_or_default();
            Ok(Place(latitude, longitude, label.to_owned()))
        }
        _ => {
            Err("write LATITUDE,LONGITUDE and a name if there is one, such as 52.52,13.405,Office")
        }
    }
}

impl Send {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let settings = SenderSettings::load(&self.settings.sources())?;
        match &self.csv {
            Some(file) => self.bulk(file, settings),
            None => self.one(settings),
        }
    }

    fn one(self, settings: SenderSettings) -> anyhow::Result<Answer> {
        let message = self.message()?;
        let account = settings.account;
        let (opened, sender) = open(settings)?;
        if self.dry_run {
            let known = opened.run(sender.check(self.idempotency_key.as_deref(), &message));
            return match known.map_err(|error| refused(&error))? {
                Some(known) => print(&self.shown(&known)),
                None => print("it would be queued\n"),
            }
            .map(|()| Answer::Yes);
        }
        let taken = match &self.idempotency_key {
            Some(key) => opened.run(sender.send_once(key, &message)),
            None => opened.run(sender.send(&message)),
        };
        let taken = taken.map_err(|error| refused(&error))?;
        let (outgoing, in_time) = match self.wait {
            Some(seconds) => opened.run(wait_for(&sender, taken, seconds))?,
            None => (taken, true),
        };
        print(&self.shown(&outgoing))?;
        if !in_time {
            return Err(anyhow!(Failed(format!(
                "message {} is not sent yet and stays queued: is a server running on this store, and does it send for {account}?",
                outgoing.id
            ))));
        }
        // Under its key something else was said: this was not sent, and will not be.
        Ok(if outgoing.differs || has_failed(&outgoing) {
            Answer::No
        } else {
            Answer::Yes
        })
    }

    fn message(&self) -> anyhow::Result<NewMessage> {
        let to = self.to.clone().ok_or_else(|| anyhow!("--to is missing"))?;
        if let Some(Place(latitude, longitude, label)) = &self.location {
            let message = NewMessage::location(to, *latitude, *longitude, label);
            return Ok(self.sent_by(message));
        }
        self.draft().message(to)
    }

    /// What the options say, for one message or for what a row leaves open.
    fn draft(&self) -> Draft {
        Draft {
            from: self.from.clone(),
            service: self.service,
            body: self.body.clone(),
            template: self.template.clone(),
            variables: self.var.iter().cloned().collect(),
            media: self.media.clone(),
            at: self.at,
        }
    }

    fn sent_by(&self, message: NewMessage) -> NewMessage {
        self.draft().addressed(message)
    }

    fn shown(&self, outgoing: &Outgoing) -> String {
        let state = outgoing.state.map_or("forgotten", ReplyState::as_str);
        let sid = outgoing.sid.map(|sid| sid.to_string());
        if self.json {
            let line = json!({"id": outgoing.id, "repeated": outgoing.repeated, "differs": outgoing.differs, "state": state,
                "message_sid": sid, "status": outgoing.status, "error_code": outgoing.error_code, "reason": outgoing.reason});
            return format!("{line}\n");
        }
        let known = match (outgoing.repeated, outgoing.differs) {
            (false, _) => "",
            (true, false) => "known as ",
            (true, true) => "not this one, but its key is that of ",
        };
        let mut line = format!("{known}message {}: {state}", outgoing.id);
        for part in [sid, outgoing.status.clone(), why(outgoing)]
            .into_iter()
            .flatten()
        {
            line.push(' ');
            line.push_str(&part);
        }
        line + "\n"
    }
}

/// The store, opened beside the server, and a sender into it.
fn open(settings: SenderSettings) -> anyhow::Result<(Opened, Sender)> {
    let rules = SendRules {
        account: Some(settings.account),
        consent_required: settings.consent.required,
        per_second: settings.outbound.rate_per_second,
    };
    let url = settings.content_url;
    let templates = settings.credentials.map(|own| (Client::new(url), own));
    let opened = Opened::at(settings.store, Access::Operator)?;
    let sender = Sender::new(
        opened.store.clone(),
        Arc::new(SystemClock),
        rules,
        templates,
    );
    Ok((opened, sender))
}

/// What cannot be sent at all was asked for wrongly; the rest was refused.
fn refused(error: &SendError) -> anyhow::Error {
    match error.kind() {
        SendErrorKind::Invalid | SendErrorKind::NoAccount => anyhow!("{error}"),
        _ => anyhow!(Failed(error.to_string())),
    }
}

/// Waits until it is known what becomes of a message; returns it, and whether that was in time.
async fn wait_for(
    sender: &Sender,
    mut outgoing: Outgoing,
    seconds: u32,
) -> anyhow::Result<(Outgoing, bool)> {
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let (repeated, differs) = (outgoing.repeated, outgoing.differs);
    loop {
        let open = matches!(
            outgoing.state,
            Some(ReplyState::Pending | ReplyState::Sending | ReplyState::Unknown)
        );
        if !open || Instant::now() >= until {
            return Ok((outgoing, !open));
        }
        tokio::time::sleep(LOOK).await;
        let Some(now) = sender
            .outgoing(outgoing.id)
            .await
            .map_err(|error| refused(&error))?
        else {
            bail!(Failed("it was deleted".to_owned()));
        };
        outgoing = now;
        (outgoing.repeated, outgoing.differs) = (repeated, differs);
    }
}

/// Whether it did not reach the user, or will not.
fn has_failed(outgoing: &Outgoing) -> bool {
    let not_sent = matches!(
        outgoing.state,
        Some(ReplyState::Failed | ReplyState::Suppressed | ReplyState::Held)
    );
    not_sent
        || matches!(
            outgoing.status.as_deref(),
            Some("failed" | "undelivered" | "canceled")
        )
}

/// Why it failed, with what Twilio's code means.
fn why(outgoing: &Outgoing) -> Option<String> {
    let code = outgoing.error_code.map(ErrorCode);
    let meaning = code.map(|code| match code.meaning() {
        Some(meaning) => format!("{meaning} ({code})"),
        None => format!("error {code}"),
    });
    match (&outgoing.reason, meaning) {
        (Some(reason), Some(meaning)) => Some(format!("{reason}: {meaning}")),
        (reason, meaning) => meaning.or_else(|| reason.clone()),
    }
}
