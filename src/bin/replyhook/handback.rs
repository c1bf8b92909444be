use replyhook::Address;
use replyhook::store::Access;

use crate::operator::{Opened, address, now, number, user};
use crate::{Answer, SettingsArgs, print};

#[derive(clap::Args)]
#[command(after_help = "\
Works beside a running server, and counts from the user's next message on.
Exit code 0 if the user was handed over, 1 if not.

Example:
  replyhook handback whatsapp:+15550001111")]
pub(crate) struct Handback {
    /// The user, such as whatsapp:+15550001111
    #[arg(value_name = "ADDRESS", value_parser = address)]
    user: Address,
    /// Only in the conversation with this sender of ours
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    sender: Option<Address>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Handback {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        let taking = opened
            .store
            .take_back(self.sender.as_ref(), &self.user, now());
        let ended = opened.wait(taking)?;
        let who = user(&self.user, false);
        if ended == 0 {
            print(&format!("{who} is not handed over\n"))?;
            return Ok(Answer::No);
        }
        let conversations = number(ended, "conversation");
        print(&format!(
            "the bot answers {who} again, in {conversations}\n"
        ))?;
        Ok(Answer::Yes)
    }
}
