use replyhook::config::DEFAULT_TOML;

use crate::exit::ExitStatus;
use crate::print::print;

#[derive(clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(clap::Subcommand)]
enum ConfigCommand {
    /// Print every setting with its default and its meaning
    #[command(after_help = "Example:\n  replyhook config default > replyhook.toml")]
    Default,
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let ConfigCommand::Default = self.command;
        print(DEFAULT_TOML)?;
        Ok(ExitStatus::Yes)
    }
}
