//! `replyhook messages`: lists, shows and exports inbound and outbound messages; retries and releases them.

mod format;
mod outbound;
mod query;
mod release;
mod retry;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use replyhook::config::{MediaSettings, Sources};
use replyhook::internals::{MessageFilter, OutboundDetails};
use replyhook::saved_files;
use replyhook::store::Access;
use replyhook::{Address, MessageSid};
use serde_json::json;

use self::format::{format_details, format_line, message_json};
pub(crate) use self::format::{format_texts as message_texts, summary_json};
use self::query::{PAGE_SIZE, find_inbound, is_kept_by_consent, print_unknown};
use self::release::Release;
use self::retry::Retry;
use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, now, parse_user};
use crate::opt_out::{consent_json, describe_opt_out};
use crate::print::{print, try_print};
use crate::settings_args::SettingsArgs;

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
    /// Send the held or failed messages of a reply again, or held or failed outbound messages
    #[command(after_help = "\
Named by SID or number, a message is also sent again if Twilio accepted it and did not deliver it.
The command asks first; without a terminal, --yes is required. Nothing is sent to a user who has opted out.

Exit codes:
  0  at least one message was released
  1  none was held or failed, its user has opted out, the operator declined, or the store cannot be used
  2  usage or configuration error

Examples:
  replyhook messages release SM00000000000000000000000000000001
  replyhook messages release 42 --yes")]
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
    #[arg(long, value_name = "ADDRESS", value_parser = parse_user)]
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
        let consents = match &row.user {
            Some(user) if is_kept_by_consent(&row) => opened.wait(opened.store.consents(user))?,
            _ => Vec::new(),
        };
        let opt_outs = consents.iter().filter(|consent| consent.opt_out.is_some());
        if self.json {
            let mut message = message_json(&row, self.content);
            message["files"] = json!(files);
            message["opt_outs"] = json!(opt_outs.map(consent_json).collect::<Vec<_>>());
            print(&format!("{message}\n"))?;
        } else {
            let mut text = format_details(&row, &files, self.content)?;
            for consent in opt_outs {
                if let Some(described) = describe_opt_out(consent, now()) {
                    writeln!(text, "consent   {described}")?;
                }
            }
            print(&text)?;
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
