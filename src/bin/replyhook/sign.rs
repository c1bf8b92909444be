use anyhow::bail;
use http::Method;
use replyhook::config::SigningSettings;
use replyhook::signature::sign;

use crate::exit::ExitStatus;
use crate::print::print;
use crate::request::RequestArgs;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Reads the token from TWILIO_AUTH_TOKEN or TWILIO_AUTH_TOKEN_FILE, never from the command line, which other users of the
machine can read.

Exit codes:
  0  the signature was printed
  2  usage or configuration error

Example:
  replyhook sign --url https://bot.example.com/webhook --data From=whatsapp:+15550001111 --data Body=hi")]
pub(crate) struct Sign {
    /// Complete URL that Twilio calls, with its query
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Sign {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let settings = SigningSettings::load(&self.settings.sources())?;
        let method = self.request.method()?.unwrap_or(Method::POST);
        let form = self.request.form()?;
        // Twilio signs the text of the URL as it is configured, so do not parse and rebuild it.
        let is_complete = self.url.starts_with("https://") || self.url.starts_with("http://");
        if !is_complete || !self.url.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "--url {:?} is not a complete URL; write it as in Twilio's console, such as https://bot.example.com/webhook",
                self.url
            );
        }
        // Twilio puts the parameters of a GET into the query, and signs the URL alone.
        if method == Method::GET && !form.is_empty() {
            let separator = if self.url.contains('?') { '&' } else { '?' };
            let url = format!("{}{separator}{}", self.url, form.encode());
            return print_signature(&settings, &url, None);
        }
        print_signature(
            &settings,
            &self.url,
            (method != Method::GET).then_some(&form),
        )
    }
}

fn print_signature(
    settings: &SigningSettings,
    url: &str,
    form: Option<&replyhook::FormParams>,
) -> anyhow::Result<ExitStatus> {
    print(&format!(
        "{}\n",
        sign(&settings.twilio.auth_token, url, form)?
    ))?;
    Ok(ExitStatus::Yes)
}
