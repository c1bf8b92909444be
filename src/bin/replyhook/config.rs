use replyhook::config::DEFAULT_TOML;

use crate::{ExitStatus, print};

#[derive(clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Print every setting with its default and its meaning
    #[command(after_help = "Example:\n  replyhook config default > replyhook.toml")]
    Default,
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let What::Default = self.what;
        print(DEFAULT_TOML)?;
        Ok(ExitStatus::Yes)
    }
}
