use std::fmt::Write;

use replyhook::Address;
use replyhook::store::{Access, HandoffRow};
use serde_json::json;

use crate::operator::{Opened, address, now, number, user};
use crate::{ExitStatus, SettingsArgs, print};

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
    End(End),
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
struct End {
    /// The user, such as whatsapp:+15550001111
    #[arg(value_name = "ADDRESS", value_parser = address)]
    user: Address,
    /// Only the conversation with this sender
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
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
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        let found = opened.wait(opened.store.active_handoffs(self.limit, now()))?;
        if found.is_empty() && !self.json {
            print("no active handoffs\n")?;
            return Ok(ExitStatus::Yes);
        }
        let mut text = String::new();
        for row in &found {
            let line = if self.json {
                self.object(row)
            } else {
                self.line(row)
            };
            writeln!(text, "{line}")?;
        }
        print(&text)?;
        Ok(ExitStatus::Yes)
    }

    fn users(&self, row: &HandoffRow) -> Vec<String> {
        let users = row.user.iter().map(|address| user(address, self.content));
        users.collect()
    }

    fn line(&self, row: &HandoffRow) -> String {
        let users = self.users(row).join(", ");
        let line = format!("{users}  with {}  until {}", row.sender.as_str(), row.until);
        if self.content {
            format!("{line}  at {}", row.url)
        } else {
            line
        }
    }

    fn object(&self, row: &HandoffRow) -> String {
        let mut object = json!({
            "users": self.users(row),
            "sender": row.sender.as_str(),
            "until": row.until.to_string(),
        });
        if self.content {
            object["url"] = json!(row.url);
        }
        object.to_string()
    }
}

impl End {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        let ending = opened
            .store
            .end_handoff(self.sender.as_ref(), &self.user, now());
        let ended = opened.wait(ending)?;
        let user = user(&self.user, false);
        if ended == 0 {
            print(&format!("{user} is not handed off\n"))?;
            return Ok(ExitStatus::No);
        }
        let conversations = number(ended, "conversation");
        print(&format!(
            "the bot replies to {user} again, in {conversations}\n"
        ))?;
        Ok(ExitStatus::Yes)
    }
}
