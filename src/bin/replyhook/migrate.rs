use replyhook::store::{Access, SCHEMA};

use crate::operator::Opened;
use crate::{Answer, SettingsArgs, print};

#[derive(clap::Args)]
#[command(after_help = "\
A server does this itself when it starts; this is for deployments that want it done before. An SQLite file that is not
there is made. Exit code 0 when the schema is up to date, 1 when the store cannot be used, 2 while a server owns it.

Example:
  DATABASE_URL=sqlite:/data/replyhook.db replyhook migrate")]
pub(crate) struct Migrate {
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Migrate {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let opened = Opened::by(&self.settings.sources(), Access::Migrate)?;
        print(&format!(
            "{} has schema number {SCHEMA}, the newest that this version knows\n",
            opened.settings.url
        ))?;
        Ok(Answer::Yes)
    }
}
