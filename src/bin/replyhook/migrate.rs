use replyhook::internals::SCHEMA;
use replyhook::store::Access;

use crate::exit::ExitStatus;
use crate::operator::OpenedStore;
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
A server does this itself when it starts; use this command in deployments that migrate before. Creates a missing SQLite
file.

Exit codes:
  0  the schema is up to date
  1  the store cannot be used
  2  a running server owns the store, or usage or configuration error

Example:
  DATABASE_URL=sqlite:/data/replyhook.db replyhook migrate")]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

impl MigrateArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Migrate)?;
        print(&format!(
            "{} has schema number {SCHEMA}, the newest that this version supports\n",
            opened.settings.url
        ))?;
        Ok(ExitStatus::Yes)
    }
}
