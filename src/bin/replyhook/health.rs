use std::time::Duration;

use anyhow::bail;
use replyhook::admin::probe;
use replyhook::config::AdminSettings;

use crate::{Answer, SettingsArgs, print};

#[derive(clap::Args)]
#[command(
    after_help = "Asks /readyz at admin.listen. Exit code 0 if ready, 1 if not, 2 if there is no private listener."
)]
pub(crate) struct Health {
    #[command(flatten)]
    settings: SettingsArgs,
    /// How long to wait for the answer
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

impl Health {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let Some(listen) = AdminSettings::load(&self.settings.sources())?.listen else {
            bail!("admin.listen is empty: there is no private listener to ask");
        };
        match probe(listen, Duration::from_millis(self.timeout_ms)) {
            Ok(()) => {
                print("ready\n")?;
                Ok(Answer::Yes)
            }
            Err(reason) => {
                print(&format!("{reason}\n"))?;
                Ok(Answer::No)
            }
        }
    }
}
