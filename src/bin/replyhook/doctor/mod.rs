//! `replyhook doctor`: tests a deployment from the inside and from the outside.
//!
//! One module per subject: [`server`] (the private listener), [`public_url`] (the public URL), [`account`] (credentials
//! and clock), [`console_config`] (the webhooks configured at Twilio).
#![cfg(feature = "emulator")]

mod accepted_account;
mod account;
mod console_config;
mod public_url;
mod remedy;
mod server;
mod webhook_url;

use std::time::Duration;

use replyhook::config::{Loaded, Settings};

use self::accepted_account::accepted_accounts;
use crate::exit::ExitStatus;
use crate::finding::{Finding, Report};
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Run it while `replyhook serve` runs, with the same settings, on its machine or in its container. Checks the server's \
private listener (admin.listen), and sends signed probes to PUBLIC_URL, which reach neither the store nor the bot. \
If TWILIO_ACCOUNT_SID is set, reads the account, the clock, and the webhooks of its numbers and WhatsApp senders \
from Twilio. Changes nothing.

A line begins with ok, note (not checked, or not this server's), warn (works, but is probably not intended) or FAIL \
(messages or replies are lost). The line below it says what to do. Trusts the certificates of this machine, or those \
in the file SSL_CERT_FILE.

Exit codes:
  0  no findings
  1  at least one warn or FAIL
  2  usage or configuration error

Examples:
  replyhook doctor
  replyhook doctor --config bot.toml
  docker exec my-bot replyhook doctor --json")]
pub(crate) struct Doctor {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print one JSON object per line: {check, result, found, remedy}
    #[arg(long)]
    json: bool,
    /// Milliseconds to wait for the private listener
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

impl Doctor {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let mut sources = self.settings.sources();
        // The server's --allow-public-diagnostics is not visible here, and must not make its settings invalid.
        sources.allow_public_diagnostics = true;
        let Loaded {
            settings, warnings, ..
        } = Settings::load(&sources)?;
        let mut report = Report::new(self.json);
        for warning in &warnings {
            let found = format!("{} ({})", warning.key, warning.origin);
            report.add(Finding::warn("settings", found, warning.text.clone()))?;
        }
        let timeout = Duration::from_millis(self.timeout_ms);
        let local_server = server::check(&settings, timeout, &mut report)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            public_url::check(&settings, local_server, &mut report).await?;
            let accepted_accounts = accepted_accounts(&settings);
            let usable = account::check(&settings, &accepted_accounts, &mut report).await?;
            console_config::check(&settings, &usable, &mut report).await
        })?;
        Ok(if report.has_problems() {
            ExitStatus::No
        } else {
            ExitStatus::Yes
        })
    }
}
