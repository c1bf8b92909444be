//! `replyhook invoke`: sends one signed webhook.
#![cfg(feature = "emulator")]

use std::fmt::Write;

use anyhow::Context;
use http::{HeaderMap, Method};
use replyhook::FormParams;
use replyhook::config::SigningSettings;
use replyhook::emulator::{SignedRequest, SimulatedMessage, send_signed, sender_for};
use replyhook::{AccountSid, Address};

use crate::exit::ExitStatus;
use crate::print::{print, printable};
use crate::request::RequestArgs;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Sends a WhatsApp message with the text \"hi\", unless --body, --media, --pin or --button are given. --data replaces
and adds parameters. Signs the request with TWILIO_AUTH_TOKEN; without it, with a key of signature.shared_keys.

Exit codes:
  0  Twilio could use the response
  1  Twilio could not use the response, or there was none
  2  usage or configuration error

Examples:
  replyhook invoke http://127.0.0.1:8080/webhook --url https://bot.example.com/webhook
  replyhook invoke http://localhost:3000/sms --from +15550004444 --body 'hello there'
  replyhook invoke http://localhost:3000/sms --pin '52.52,13.405 Office'
  replyhook invoke http://localhost:3000/sms --data From=+15550001111 --data 'Body=hello there'")]
pub(crate) struct Invoke {
    /// URL to send the request to
    target: String,
    /// URL to sign the request for [default: the URL that it is sent to]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Address of the user [default: whatsapp:+15550001111]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Address of the bot [default: one on the same channel]
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Text of the message
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Attach media by its content type and URL: 'image/png https://…'; may be repeated
    #[arg(long, value_name = "TYPE URL")]
    media: Vec<String>,
    /// Send a location: LAT,LON and a label
    #[arg(long, value_name = "LAT,LON LABEL", allow_hyphen_values = true)]
    pin: Option<String>,
    /// Tap a button: TEXT, or 'TEXT | PAYLOAD'
    #[arg(long, value_name = "TEXT")]
    button: Option<String>,
    /// Profile name of the user (WhatsApp)
    #[arg(long, value_name = "NAME")]
    profile_name: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The responses that Twilio can use.
const EXPECTED: &str =
    "200 text/xml with TwiML, 200 text/plain with a text, or an empty 200 or 204";

/// Advice for a server that may have rejected the signature.
const SIGNATURE_ADVICE: &str = "\
If it is the signature: does the server use the same auth token, and does it verify the URL that was signed? Sign another
one with --url, such as the server's PUBLIC_URL and path.
";

/// Account of the webhook if the key has none.
const NO_ACCOUNT: &str = "AC00000000000000000000000000000000";

impl Invoke {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let settings = SigningSettings::load(&self.settings.sources())?;
        let overrides = self.request.form()?;
        let signing_key = settings.twilio.signing_key();
        let (key, account) = signing_key.context("no key is configured; set TWILIO_AUTH_TOKEN")?;
        let account = match account {
            Some(account) => account,
            None => AccountSid::parse(NO_ACCOUNT)?,
        };
        let generated = self.build_message()?.form(account);
        let defaults = generated
            .iter()
            .filter(|(name, _)| overrides.get(name).is_none());
        let form: FormParams = defaults.chain(overrides.iter()).collect();
        // Only to parse the --header options, with the same checks as `explain`.
        let mut header_request = replyhook::signature::CapturedRequest {
            method: Method::POST,
            url: String::new(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        };
        self.request.add_headers_to(&mut header_request)?;
        let webhook = SignedRequest {
            url: self.target,
            signed_url: self.url,
            method: self.request.method()?.unwrap_or(Method::POST),
            form,
            headers: header_request.headers,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = match runtime.block_on(send_signed(&key, &webhook)) {
            Ok(result) => result,
            // A failed call is a result of this command. Other errors, such as an invalid URL, are usage errors.
            Err(error @ replyhook::emulator::SignedRequestError::Failed { .. }) => {
                print(&format!("{error}\n"))?;
                return Ok(ExitStatus::No);
            }
            Err(error) => return Err(error.into()),
        };
        let content_type = result.content_type.as_deref().unwrap_or("no content type");
        let mut text = format!(
            "{} {content_type} {} ms\n{}\n",
            result.status,
            result.time.as_millis(),
            printable(&result.body)
        );
        if let Some(code) = result.error_code {
            writeln!(
                text,
                "Twilio could not use this: {} ({code})\nexpected: {EXPECTED}\ngot:      {} {content_type}, {} bytes",
                code.meaning_or_link(),
                result.status,
                result.body.len()
            )?;
            if matches!(result.status, 401 | 403) {
                text.push_str(SIGNATURE_ADVICE);
            }
        }
        print(&text)?;
        Ok(if result.error_code.is_none() {
            ExitStatus::Yes
        } else {
            ExitStatus::No
        })
    }
}

impl Invoke {
    fn build_message(&self) -> anyhow::Result<SimulatedMessage> {
        let from = self.from.as_deref().unwrap_or("whatsapp:+15550001111");
        let user = Address::parse(from);
        let to = match &self.to {
            Some(to) => to.as_str(),
            None => sender_for(&user).context("--to is required on this channel")?,
        };
        let mut message = SimulatedMessage::default();
        from.clone_into(&mut message.from);
        to.clone_into(&mut message.to);
        message.profile_name.clone_from(&self.profile_name);
        for media in &self.media {
            let (kind, url) = media.split_once(' ').context(
                "invalid --media; write a content type and a URL, as in 'image/png https://example.com/a.png'",
            )?;
            message.media.push((url.trim().to_owned(), kind.to_owned()));
        }
        if let Some(pin) = &self.pin {
            let location = parse_location(pin)
                .context("invalid --pin; write it as in '52.52,13.405 Office'")?;
            message.location = Some(location);
        }
        message.button = self.button.as_ref().map(|button| {
            let (text, payload) = button.split_once('|').unwrap_or((button, button));
            (text.trim().to_owned(), payload.trim().to_owned())
        });
        // The default text is only for a message that has nothing else.
        let is_empty =
            message.media.is_empty() && message.location.is_none() && message.button.is_none();
        message.body = self.body.clone().or(is_empty.then(|| "hi".to_owned()));
        Ok(message)
    }
}

fn parse_location(text: &str) -> Option<(f64, f64, Option<String>)> {
    let (point, label) = text.split_once(' ').unwrap_or((text, ""));
    let (latitude, longitude) = point.split_once(',')?;
    let label = Some(label.trim().to_owned()).filter(|label| !label.is_empty());
    Some((latitude.parse().ok()?, longitude.parse().ok()?, label))
}
