//! One signed webhook.
#![cfg(feature = "emulator")]

use std::fmt::Write;

use anyhow::Context;
use http::{HeaderMap, Method};
use replyhook::Form;
use replyhook::config::SigningSettings;
use replyhook::emulator::{Call, UserSends, call, sender_for};
use replyhook::{AccountSid, Address};

use crate::request::RequestArgs;
use crate::{Answer, SettingsArgs, print, printable};

#[derive(clap::Args)]
#[command(after_help = "\
It sends a WhatsApp message that says \"hi\", or what --body, --media, --pin and --button say; --data replaces and adds
parameters. The token comes from TWILIO_AUTH_TOKEN. Exit code 0 if Twilio could use the answer, 1 if not.

Examples:
  replyhook invoke http://127.0.0.1:8080/webhook --url https://bot.example.com/webhook
  replyhook invoke http://localhost:3000/sms --from +15550004444 --body 'hello there'
  replyhook invoke http://localhost:3000/sms --pin '52.52,13.405 Office'
  replyhook invoke http://localhost:3000/sms --data From=+15550001111 --data 'Body=hello there'")]
pub(crate) struct Invoke {
    /// Where the request is sent
    target: String,
    /// What it is signed for, if that differs from where it is sent
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The user's address [default: whatsapp:+15550001111]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// The bot's address [default: one on the same channel]
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// The text
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// A file by its URL, with its type before a space: 'image/png https://…'; may be repeated
    #[arg(long, value_name = "TYPE URL")]
    media: Vec<String>,
    /// A place: LAT,LON and what is there
    #[arg(long, value_name = "LAT,LON LABEL", allow_hyphen_values = true)]
    pin: Option<String>,
    /// A tap on a button: TEXT, or 'TEXT | PAYLOAD'
    #[arg(long, value_name = "TEXT")]
    button: Option<String>,
    /// The profile's name (WhatsApp)
    #[arg(long, value_name = "NAME")]
    profile_name: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Of a webhook that belongs to no account that is known.
const NO_ACCOUNT: &str = "AC00000000000000000000000000000000";

impl Invoke {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let settings = SigningSettings::load(&self.settings.sources())?;
        let given = self.request.form()?;
        let account = match settings.twilio.account_sid {
            Some(account) => account,
            None => AccountSid::parse(NO_ACCOUNT)?,
        };
        let sent = self.sends()?.form(account);
        let kept = sent.iter().filter(|(name, _)| given.get(name).is_none());
        let form: Form = kept.chain(given.iter()).collect();
        let mut headers = replyhook::signature::CapturedRequest {
            method: Method::POST,
            url: String::new(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        };
        self.request.add_to(&mut headers)?;
        let webhook = Call {
            url: self.target,
            signed_url: self.url,
            method: self.request.method()?.unwrap_or(Method::POST),
            form,
            headers: headers.headers,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = match runtime.block_on(call(&settings.twilio.auth_token, &webhook)) {
            Ok(result) => result,
            Err(error @ replyhook::emulator::CallError::Failed { .. }) => {
                print(&format!("{error}\n"))?;
                return Ok(Answer::No);
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
                "Twilio could not use this: {} ({code})",
                code.meaning().unwrap_or_default()
            )?;
        }
        print(&text)?;
        Ok(if result.error_code.is_none() {
            Answer::Yes
        } else {
            Answer::No
        })
    }
}

impl Invoke {
    fn sends(&self) -> anyhow::Result<UserSends> {
        let from = self.from.as_deref().unwrap_or("whatsapp:+15550001111");
        let user = Address::parse(from);
        let to = match &self.to {
            Some(to) => to.as_str(),
            None => sender_for(&user).context("--to: needed on this channel")?,
        };
        let mut sends = UserSends::default();
        from.clone_into(&mut sends.from);
        to.clone_into(&mut sends.to);
        sends.profile_name.clone_from(&self.profile_name);
        for media in &self.media {
            let (kind, url) = media.split_once(' ').context(
                "--media: a type and a URL, as in 'image/png https://example.com/a.png'",
            )?;
            sends.media.push((url.trim().to_owned(), kind.to_owned()));
        }
        if let Some(pin) = &self.pin {
            sends.location = Some(place(pin).context("--pin: as in '52.52,13.405 Office'")?);
        }
        sends.button = self.button.as_ref().map(|button| {
            let (text, payload) = button.split_once('|').unwrap_or((button, button));
            (text.trim().to_owned(), payload.trim().to_owned())
        });
        let is_bare = sends.media.is_empty() && sends.location.is_none() && sends.button.is_none();
        sends.body = self.body.clone().or(is_bare.then(|| "hi".to_owned()));
        Ok(sends)
    }
}

fn place(text: &str) -> Option<(f64, f64, Option<String>)> {
    let (point, label) = text.split_once(' ').unwrap_or((text, ""));
    let (latitude, longitude) = point.split_once(',')?;
    let label = Some(label.trim().to_owned()).filter(|label| !label.is_empty());
    Some((latitude.parse().ok()?, longitude.parse().ok()?, label))
}
