use anyhow::{Context, bail};
use http::Method;
use replyhook::FormParams;
use replyhook::config::{SigningSettings, TwilioSettings};
use replyhook::signature::{SharedKeyId, SignatureAlgorithm, SigningKey};

use crate::exit::ExitStatus;
use crate::print::print;
use crate::request::RequestArgs;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Reads the token from TWILIO_AUTH_TOKEN or TWILIO_AUTH_TOKEN_FILE, never from the command line, which other users of the
machine can read. With --shared-key, reads the secret from signature.shared_keys. The request then
needs a second header, X-Twilio-Webhooks-Signature-Settings: key=ID,algorithm=NAME.

Exit codes:
  0  the signature was printed
  2  usage or configuration error

Examples:
  replyhook sign --url https://bot.example.com/webhook --data From=whatsapp:+15550001111 --data Body=hi
  replyhook sign --shared-key webhooks_sharedkey_… --url https://bot.example.com/webhook --data Body=hi")]
pub(crate) struct Sign {
    /// Complete URL that Twilio calls, with its query
    #[arg(long, value_name = "URL")]
    url: String,
    /// Sign with the shared key of this ID instead of the auth token
    #[arg(long, value_name = "ID")]
    shared_key: Option<SharedKeyId>,
    #[arg(
        long,
        value_name = "NAME",
        requires = "shared_key",
        default_value_t = SignatureAlgorithm::HmacSha256,
        help = "Algorithm of the shared key: HMAC_SHA1 or HMAC_SHA256"
    )]
    algorithm: SignatureAlgorithm,
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
        let key = match self.shared_key {
            None => auth_token_of(&settings.twilio)?,
            Some(id) => {
                let mut keys = settings.twilio.shared_keys.into_iter();
                let key = keys.find(|key| key.id.is_same(&id)).with_context(|| {
                    format!(
                        "--shared-key {id} is not configured; set signature.shared_keys.{id}.secret"
                    )
                })?;
                SigningKey::SharedKey {
                    id: key.id,
                    secret: key.secret,
                    algorithm: self.algorithm,
                }
            }
        };
        let print_signature = |url: &str, form: Option<&FormParams>| {
            print(&format!("{}\n", key.sign(url, form)?))?;
            Ok(ExitStatus::Yes)
        };
        // Twilio puts the parameters of a GET into the query, and signs the URL alone.
        if method == Method::GET && !form.is_empty() {
            let separator = if self.url.contains('?') { '&' } else { '?' };
            let url = format!("{}{separator}{}", self.url, form.encode());
            return print_signature(&url, None);
        }
        print_signature(&self.url, (method != Method::GET).then_some(&form))
    }
}

/// Returns the auth token of the main account.
fn auth_token_of(settings: &TwilioSettings) -> anyhow::Result<SigningKey> {
    match settings.signing_key() {
        Some((key @ SigningKey::AuthToken(_), _)) => Ok(key),
        _ => bail!(
            "no auth token is configured; set TWILIO_AUTH_TOKEN, or name a key with --shared-key"
        ),
    }
}
