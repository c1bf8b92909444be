use std::time::Duration;

use anyhow::bail;
use replyhook::admin::health_check;
use replyhook::config::AdminSettings;

use crate::exit::ExitStatus;
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Requests /readyz of the private listener at admin.listen.

Exit codes:
  0  ready
  1  not ready, or no response
  2  usage or configuration error, such as an empty admin.listen")]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Milliseconds to wait for the response
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

impl HealthArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let Some(listen) = AdminSettings::load(&self.settings.sources())?.listen else {
            bail!("admin.listen is empty, so the server has no private listener; set it for both");
        };
        match health_check(listen, Duration::from_millis(self.timeout_ms)) {
            Ok(()) => {
                print("ready\n")?;
                Ok(ExitStatus::Yes)
            }
            Err(reason) => {
                print(&format!("{reason}\n"))?;
                Ok(ExitStatus::No)
            }
        }
    }
}
