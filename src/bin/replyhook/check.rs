use std::fmt::Write;

use replyhook::config::Settings;

use crate::{Answer, SettingsArgs, print};

#[derive(clap::Args)]
#[command(after_help = "Exit code 2 if there is a problem, else 0.

Example:
  replyhook check --config bot.toml")]
pub(crate) struct Check {
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Check {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let sources = self.settings.sources();
        let mut text = String::new();
        for (key, value, origin) in Settings::effective(&sources) {
            writeln!(text, "{key} = {value}  # {origin}")?;
        }
        print(&text)?;
        let loaded = Settings::load(&sources)?;
        let mut text = String::new();
        for warning in &loaded.warnings {
            writeln!(text, "warning: {warning}")?;
        }
        let url = &loaded.settings.server.public_url;
        writeln!(text, "\nno problem. Enter in Twilio's console:")?;
        for (name, path) in [
            ("primary", "/webhook"),
            ("fallback", "/webhook/fallback"),
            ("status", "/webhook/status"),
        ] {
            writeln!(text, "  {name:9} {}", url.endpoint(path))?;
        }
        print(&text)?;
        Ok(Answer::Yes)
    }
}
