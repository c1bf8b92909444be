use std::fmt::Write;

use replyhook::Address;
use replyhook::internals::HandoffRow;
use replyhook::store::Access;
use serde_json::json;

use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, format_count, format_user, now, parse_address, parse_user};
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Works on the store of a running server. Addresses are masked unless --content is given.

Examples:
  replyhook handoff list
  replyhook handoff end whatsapp:+15550001111")]
pub(crate) struct HandoffArgs {
    #[command(subcommand)]
    command: HandoffCommand,
}

#[derive(clap::Subcommand)]
enum HandoffCommand {
    /// List active handoffs, those that end first at the top
    #[command(
        after_help = "Exit codes:\n  0  listed, also if there are none\n  1  the store cannot be used\n  2  usage or configuration error"
    )]
    List(ListHandoffsArgs),
    /// End the handoff of a user: the bot replies again from the next message on
    #[command(
        after_help = "Exit codes:\n  0  ended\n  1  the user was not handed off, or the store cannot be used\n  2  usage or configuration error\n\nExample:\n  replyhook handoff end whatsapp:+15550001111"
    )]
    End(EndHandoffArgs),
}

#[derive(clap::Args)]
struct ListHandoffsArgs {
    /// Maximum number of handoffs to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show whole addresses and the URL of each handoff
    #[arg(long)]
    content: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct EndHandoffArgs {
    /// The user, such as whatsapp:+15550001111
    #[arg(value_name = "ADDRESS", value_parser = parse_user)]
    user: Address,
    /// Only the conversation with this sender
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    sender: Option<Address>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl HandoffArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match self.command {
            HandoffCommand::List(list) => list.run(),
            HandoffCommand::End(end) => end.run(),
        }
    }
}

impl ListHandoffsArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let handoffs = opened.wait(opened.store.active_handoffs(self.limit, now()))?;
        if handoffs.is_empty() && !self.json {
            print("no active handoffs\n")?;
            return Ok(ExitStatus::Yes);
        }
        let mut text = String::new();
        for row in &handoffs {
            let line = if self.json {
                self.format_json(row)
            } else {
                self.format_line(row)
            };
            writeln!(text, "{line}")?;
        }
        print(&text)?;
        Ok(ExitStatus::Yes)
    }

    fn users(&self, row: &HandoffRow) -> Vec<String> {
        let users = row
            .user
            .iter()
            .map(|address| format_user(address, self.content));
        users.collect()
    }

    fn format_line(&self, row: &HandoffRow) -> String {
        let users = self.users(row).join(", ");
        let line = format!("{users}  with {}  until {}", row.sender.as_str(), row.until);
        if self.content {
            match &row.handoff.url {
                Some(url) => format!("{line}  at {url}"),
                None => format!("{line}  without a URL: the bot is silent"),
            }
        } else {
            line
        }
    }

    fn format_json(&self, row: &HandoffRow) -> String {
        let mut object = json!({
            "users": self.users(row),
            "sender": row.sender.as_str(),
            "until": row.until.to_string(),
        });
        if self.content {
            object["url"] = json!(row.handoff.url);
        }
        object.to_string()
    }
}

impl EndHandoffArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let operation = opened
            .store
            .end_handoff(self.sender.as_ref(), &self.user, now());
        let ended = opened.wait(operation)?;
        let user = format_user(&self.user, false);
        if ended == 0 {
            print(&format!("{user} is not handed off\n"))?;
            return Ok(ExitStatus::No);
        }
        let conversations = format_count(ended, "conversation");
        print(&format!(
            "the bot replies to {user} again, in {conversations}\n"
        ))?;
        Ok(ExitStatus::Yes)
    }
}
