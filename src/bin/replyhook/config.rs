use replyhook::config::DEFAULT_TOML;

use crate::{Answer, print};

#[derive(clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Every setting with its default and what it means
    #[command(after_help = "Example:\n  replyhook config default > replyhook.toml")]
    Default,
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let What::Default = self.what;
        print(DEFAULT_TOML)?;
        Ok(Answer::Yes)
    }
}
