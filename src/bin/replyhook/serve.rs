use replyhook::App;

use crate::{Answer, SettingsArgs, runtime};

#[derive(clap::Args)]
#[command(after_help = "\
Needs TWILIO_AUTH_TOKEN and PUBLIC_URL, and says what else is wrong.

Examples:
  TWILIO_AUTH_TOKEN=… PUBLIC_URL=https://bot.example.com replyhook serve
  PORT=3000 replyhook serve --config bot.toml")]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Allow signature.mode = "report" on a listener that others can reach
    #[arg(long)]
    allow_public_diagnostics: bool,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let mut sources = self.settings.sources();
        sources.allow_public_diagnostics = self.allow_public_diagnostics;
        let app = App::builder().sources(sources).build()?;
        runtime()?.block_on(app.run())?;
        Ok(Answer::Yes)
    }
}
