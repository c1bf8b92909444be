use anyhow::bail;
use http::Method;
use replyhook::config::SigningSettings;
use replyhook::signature::sign;

use crate::request::RequestArgs;
use crate::{Answer, SettingsArgs, print};

#[derive(clap::Args)]
#[command(after_help = "\
The token comes from TWILIO_AUTH_TOKEN or TWILIO_AUTH_TOKEN_FILE, never from the command line.

Example:
  replyhook sign --url https://bot.example.com/webhook --data From=whatsapp:+15550001111 --data Body=hi")]
pub(crate) struct Sign {
    /// The whole URL that Twilio calls, with its query
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Sign {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let settings = SigningSettings::load(&self.settings.sources())?;
        let method = self.request.method()?.unwrap_or(Method::POST);
        let form = self.request.form()?;
        let whole = self.url.starts_with("https://") || self.url.starts_with("http://");
        if !whole || !self.url.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "--url {:?} is no whole URL: write what stands in Twilio's console, such as https://bot.example.com/webhook",
                self.url
            );
        }
        // The parameters of a GET are in its URL already.
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
    form: Option<&replyhook::Form>,
) -> anyhow::Result<Answer> {
    print(&format!(
        "{}\n",
        sign(&settings.twilio.auth_token, url, form)?
    ))?;
    Ok(Answer::Yes)
}
