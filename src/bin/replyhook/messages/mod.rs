//! `replyhook messages`: lists, shows and exports inbound and outbound messages; retries and releases them.

mod outbound;
mod retry;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use replyhook::config::{MediaSettings, Sources};
use replyhook::saved_files;
use replyhook::store::{
    Access, MessageFilter, MessageRow, OutboundDetails, OutboundRow, OutboundState, RedactedParams,
};
use replyhook::{Address, ErrorCode, FormParams, MessageSid};
use serde_json::{Value, json};

use self::retry::{Release, Retry};
use crate::operator::{OpenedStore, format_age, format_user, now, parse_address};
use crate::{ExitStatus, SettingsArgs, print, printable, try_print};

/// Messages per query of the store.
const PAGE_SIZE: u32 = 500;

#[derive(clap::Args)]
#[command(after_help = "\
Works on the store of a running server. Addresses are masked, and texts are shown only with --content. Outbound
messages, sent with `replyhook send` or by a program, are listed with --outbound. They have a number in place of a
SID.

Examples:
  replyhook messages list --state held
  replyhook messages list --user whatsapp:+15550001111 --json
  replyhook messages show SM00000000000000000000000000000001
  replyhook messages list --outbound --state failed
  replyhook messages release --all
  replyhook messages release --failed-with 20003")]
pub(crate) struct MessagesArgs {
    #[command(subcommand)]
    command: MessagesCommand,
}

#[derive(clap::Subcommand)]
enum MessagesCommand {
    /// List messages, newest first: SID, state, user, age, and the reason of the state
    #[command(after_help = "\
Exit codes:
  0  listed, even if none was found
  1  the store cannot be used
  2  usage or configuration error")]
    List(ListMessagesArgs),
    /// Show one message with its replies
    #[command(after_help = "\
Exit codes:
  0  shown
  1  not found, or the store cannot be used
  2  usage or configuration error")]
    Show(ShowMessageArgs),
    /// Let the handler run again for failed or dead messages; the reply is sent via the REST API
    #[command(after_help = "\
Exit codes:
  0  at least one message will be handled again
  1  none will, or the store cannot be used
  2  usage or configuration error

Example, after a bot was fixed:
  replyhook messages retry --state dead --since 6")]
    Retry(Retry),
    /// Send the held or failed messages of a reply, or held or failed outbound messages
    #[command(after_help = "\
Exit codes:
  0  at least one message was released
  1  none was held or failed, or the store cannot be used
  2  usage or configuration error")]
    Release(Release),
    /// Export all messages, newest first, as one JSON object per line
    #[command(after_help = "Example:\n  replyhook messages export --content > messages.jsonl")]
    Export(ExportMessagesArgs),
}

#[derive(clap::Args)]
struct ListMessagesArgs {
    /// Only messages in this state
    #[arg(long, value_parser = ["received", "processing", "answered", "deferred", "sent", "failed", "held", "unknown", "dead",
        "pending", "sending", "suppressed"])]
    state: Option<String>,
    /// Only messages of this user, such as whatsapp:+15550001111
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    user: Option<Address>,
    /// List outbound messages instead; states: pending, sending, unknown, held, sent, failed, suppressed
    #[arg(long)]
    outbound: bool,
    /// Maximum number of messages to list
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Show addresses and texts
    #[arg(long)]
    content: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct ShowMessageArgs {
    /// SID of the message
    #[arg(required_unless_present = "outbound", conflicts_with = "outbound")]
    sid: Option<MessageSid>,
    /// Show the outbound message with this number, which `replyhook send` prints
    #[arg(long, value_name = "NUMBER")]
    outbound: Option<i64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show address and texts
    #[arg(long)]
    content: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct ExportMessagesArgs {
    /// Export outbound messages instead of inbound ones
    #[arg(long)]
    outbound: bool,
    /// Include addresses and texts
    #[arg(long)]
    content: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl MessagesArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match self.command {
            MessagesCommand::List(list) => list.run(),
            MessagesCommand::Show(show) => show.run(),
            MessagesCommand::Retry(retry) => retry.run(),
            MessagesCommand::Release(release) => release.run(),
            MessagesCommand::Export(export) => export.run(),
        }
    }
}

impl ListMessagesArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let now = now();
        let mut filter = MessageFilter {
            user: self.user,
            state: self.state,
            ..MessageFilter::default()
        };
        if self.outbound {
            outbound::list(&opened, filter, self.limit, self.json, self.content)?;
            return Ok(ExitStatus::Yes);
        }
        // Page by page: a long list must not fill the memory, and stops when the reader of a pipe does.
        let mut remaining = self.limit;
        while remaining > 0 {
            filter.limit = remaining.min(PAGE_SIZE);
            let rows = opened.wait(opened.store.messages(filter.clone()))?;
            let Some(last) = rows.last() else { break };
            filter.before_id = Some(last.id);
            remaining -= u32::try_from(rows.len())
                .unwrap_or(remaining)
                .min(remaining);
            let lines = rows.iter().map(|row| {
                if self.json {
                    format!("{}\n", summary_json(row, self.content))
                } else {
                    format_line(row, now, self.content)
                }
            });
            if !try_print(&lines.collect::<String>())? {
                break;
            }
        }
        Ok(ExitStatus::Yes)
    }
}

impl ShowMessageArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let sources = self.settings.sources();
        let opened = OpenedStore::from_sources(&sources, Access::Operator)?;
        let Some(sid) = self.sid else {
            let id = self.outbound.unwrap_or_default();
            let Some(row) = outbound::find_by_id(&opened, id)? else {
                return outbound::print_unknown(id);
            };
            return self.print_outbound(&row);
        };
        let Some(row) = find_inbound(&opened, sid)? else {
            // It may be the SID that Twilio gave to an outbound message.
            return match outbound::find_by_sid(&opened, sid)? {
                Some(row) => self.print_outbound(&row),
                None => print_unknown(sid),
            };
        };
        let files = list_saved_files(&sources, sid)?;
        if self.json {
            let mut message = message_json(&row, self.content);
            message["files"] = json!(files);
            print(&format!("{message}\n"))?;
        } else {
            print(&format_details(&row, &files, self.content)?)?;
        }
        Ok(ExitStatus::Yes)
    }

    fn print_outbound(&self, row: &OutboundDetails) -> anyhow::Result<ExitStatus> {
        if self.json {
            print(&format!("{}\n", outbound::message_json(row, self.content)))?;
        } else {
            print(&outbound::format_details(row, self.content)?)?;
        }
        Ok(ExitStatus::Yes)
    }
}

impl ExportMessagesArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let mut filter = MessageFilter {
            limit: PAGE_SIZE,
            ..MessageFilter::default()
        };
        if self.outbound {
            outbound::list(&opened, filter, u32::MAX, true, self.content)?;
            return Ok(ExitStatus::Yes);
        }
        loop {
            let rows = opened.wait(opened.store.messages(filter.clone()))?;
            let Some(last) = rows.last() else { break };
            filter.before_id = Some(last.id);
            let mut text = String::new();
            for row in &rows {
                writeln!(text, "{}", message_json(row, self.content))?;
            }
            if !try_print(&text)? {
                break;
            }
        }
        Ok(ExitStatus::Yes)
    }
}

/// Returns the files of a message that were saved in `media.save_dir` on this machine.
pub(crate) fn list_saved_files(sources: &Sources, sid: MessageSid) -> anyhow::Result<Vec<PathBuf>> {
    let Some(folder) = MediaSettings::load(sources)?.save_dir else {
        return Ok(Vec::new());
    };
    let files = saved_files(&folder, sid);
    files.with_context(|| format!("media.save_dir names {}", folder.display()))
}

fn find_inbound(opened: &OpenedStore, sid: MessageSid) -> anyhow::Result<Option<MessageRow>> {
    let filter = MessageFilter {
        sid: Some(sid),
        limit: 1,
        ..MessageFilter::default()
    };
    Ok(opened.wait(opened.store.messages(filter))?.pop())
}

fn print_unknown(sid: MessageSid) -> anyhow::Result<ExitStatus> {
    print(&format!(
        "message {sid} is not in the journal; `replyhook reconcile` adds messages that Twilio has and the journal lacks\n"
    ))?;
    Ok(ExitStatus::No)
}

fn format_line(row: &MessageRow, now: replyhook::Timestamp, content: bool) -> String {
    let user_text = row
        .user
        .as_ref()
        .map_or_else(|| "-".to_owned(), |address| format_user(address, content));
    let reason = reason(row).or_else(|| {
        row.handed_off_until
            .filter(|until| *until > now)
            .map(|_| "the conversation is handed off".to_owned())
    });
    let (age, reason) = (format_age(row.received_at, now), reason.unwrap_or_default());
    let line = format!(
        "{} {:<8} {user_text:<12} {age:>4} {reason}",
        row.sid, row.state
    );
    let mut text = format!("{}\n", printable(&line));
    if content {
        for line in format_texts(row) {
            text += "  ";
            text += &line;
            text.push('\n');
        }
    }
    text
}

/// Returns the reason of a message's state: its own, or that of the first reply that has one.
fn reason(row: &MessageRow) -> Option<String> {
    row.reason
        .clone()
        .or_else(|| row.replies.iter().find_map(failure_reason))
}

fn failure_reason(reply: &OutboundRow) -> Option<String> {
    let code = reply.error_code.map(meaning);
    match (&reply.reason, code) {
        (Some(reason), Some(code)) => Some(format!("{reason}: {code}")),
        (reason, code) => reason.clone().or(code),
    }
}

/// Formats an error code with its meaning.
fn meaning(code: u32) -> String {
    let meaning = ErrorCode(code)
        .meaning()
        .unwrap_or("not known to this version");
    format!("{meaning} ({code})")
}

/// Formats a text of a message with its author.
fn format_text(author: &str, text: &str) -> String {
    // The `Debug` format escapes control characters, which could change the terminal's state.
    format!("{author}: {text:?}")
}

/// Returns the texts of a message, its response and its replies, one per line.
fn format_texts(row: &MessageRow) -> Vec<String> {
    let body = row
        .params
        .as_ref()
        .map(|params| format_text("user", &body(params)));
    let response = row
        .response
        .as_ref()
        .map(|response| format_text("response", &response.0));
    let replies = row.replies.iter().filter_map(|reply| reply.params.as_ref());
    body.into_iter()
        .chain(response)
        .chain(replies.map(|params| format_text("reply", &reply_body(params))))
        .collect()
}

fn parse_form(params: &RedactedParams) -> FormParams {
    FormParams::parse(params.0.as_bytes(), usize::MAX).unwrap_or_default()
}

fn body(params: &RedactedParams) -> String {
    parse_form(params)
        .get("Body")
        .unwrap_or_default()
        .to_owned()
}

/// Returns the text of a reply, or the Content SID of a template.
fn reply_body(params: &RedactedParams) -> String {
    let form = parse_form(params);
    // Twilio renders a template's text, so the store does not have it.
    let text = form.get("Body").or_else(|| form.get("ContentSid"));
    text.unwrap_or_default().to_owned()
}

/// Returns the object for a line of `list --json`.
fn summary_json(row: &MessageRow, content: bool) -> Value {
    let replies = row.replies.iter().map(|reply| {
        let sid = reply.sid.as_ref().map(MessageSid::as_str);
        let mut line = json!({"id": reply.id, "state": reply.state.as_str(), "sid": sid, "error_code": reply.error_code});
        if content {
            line["body"] = json!(reply.params.as_ref().map(reply_body));
        }
        line
    });
    let mut line = json!({
        "message_sid": row.sid.as_str(),
        "state": row.state,
        "attempt": row.attempt,
        "user": row.user.as_ref().map(|address| format_user(address, content)),
        "received_at": row.received_at.to_string(),
        "replies": replies.collect::<Vec<_>>(),
    });
    if content {
        line["body"] = json!(row.params.as_ref().map(body));
        line["response"] = json!(row.response.as_ref().map(|response| &response.0));
    }
    line
}

/// Returns the object for `show --json` and `export`: [`summary_json`] with all other fields.
fn message_json(row: &MessageRow, content: bool) -> Value {
    let mut line = summary_json(row, content);
    line["account_sid"] = json!(row.account.as_str());
    line["reason"] = json!(row.reason);
    line["handed_off_until"] = json!(row.handed_off_until.map(|until| until.to_string()));
    for (reply, line) in row
        .replies
        .iter()
        .zip(line["replies"].as_array_mut().into_iter().flatten())
    {
        line["status"] = json!(reply.status);
        line["reason"] = json!(reply.reason);
    }
    if content {
        let params = row.params.as_ref().map(parse_form);
        let pairs = params.as_ref().map(|form| form.iter().collect::<Vec<_>>());
        line["params"] = json!(pairs);
    }
    line
}

fn format_details(
    row: &MessageRow,
    files: &[PathBuf],
    content: bool,
) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let user_text = row.user.as_ref().map_or_else(
        || "deleted".to_owned(),
        |address| format_user(address, content),
    );
    writeln!(text, "message   {}", row.sid)?;
    writeln!(text, "account   {}", row.account)?;
    writeln!(text, "user      {user_text}")?;
    writeln!(
        text,
        "received  {:.0}, {} ago",
        row.received_at,
        format_age(row.received_at, now())
    )?;
    writeln!(text, "state     {}", row.state)?;
    writeln!(text, "attempt   {}", row.attempt)?;
    if let Some(reason) = &row.reason {
        writeln!(text, "reason    {reason}")?;
    }
    if let Some(until) = row.handed_off_until {
        writeln!(text, "handoff   until {until:.0}")?;
    }
    for file in files {
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        writeln!(text, "file      {} ({bytes} bytes)", file.display())?;
    }
    for (ordinal, reply) in row.replies.iter().enumerate() {
        writeln!(text, "reply {:<3} {}", ordinal + 1, reply.state.as_str())?;
        if let Some(sid) = &reply.sid {
            writeln!(text, "          SID {sid}")?;
        }
        if let Some(status) = &reply.status {
            writeln!(text, "          status: {status}")?;
        }
        if let Some(code) = reply.error_code {
            writeln!(text, "          error: {}", meaning(code))?;
        }
        if let Some(reason) = &reply.reason {
            writeln!(text, "          reason: {reason}")?;
        }
        if reply.state == OutboundState::Held {
            writeln!(
                text,
                "          `replyhook messages release {}` sends it",
                row.sid
            )?;
        }
    }
    let mut text = format!("{}\n", printable(&text));
    if content {
        for line in format_texts(row) {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}
