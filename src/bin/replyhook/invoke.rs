//! One signed webhook.
#![cfg(feature = "emulator")]

use std::fmt::Write;
use std::hash::{BuildHasher, Hasher, RandomState};

use http::{HeaderMap, Method};
use replyhook::Form;
use replyhook::config::SigningSettings;
use replyhook::emulator::{Call, call};

use crate::request::RequestArgs;
use crate::{Answer, SettingsArgs, print, printable};

#[derive(clap::Args)]
#[command(after_help = "\
Without --data it sends a WhatsApp message that says \"hi\"; --data replaces and adds parameters. The token comes from
TWILIO_AUTH_TOKEN. Exit code 0 if Twilio could use the answer, 1 if not.

Examples:
  replyhook invoke http://127.0.0.1:8080/webhook --url https://bot.example.com/webhook
  replyhook invoke http://localhost:3000/sms --data From=+15550001111 --data 'Body=hello there'")]
pub(crate) struct Invoke {
    /// Where the request is sent
    target: String,
    /// What it is signed for, if that differs from where it is sent
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Invoke {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let settings = SigningSettings::load(&self.settings.sources())?;
        let given = self.request.form()?;
        let defaults = inbound(&settings);
        let kept = defaults
            .iter()
            .filter(|(name, _)| given.get(name).is_none())
            .map(|(n, v)| (n.as_str(), v.as_str()));
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

/// What a WhatsApp message carries, with a `MessageSid` of its own.
fn inbound(settings: &SigningSettings) -> Vec<(String, String)> {
    let random = || RandomState::new().build_hasher().finish();
    let sid = format!("SM{:016x}{:016x}", random(), random());
    let account = settings
        .twilio
        .account_sid
        .map_or_else(|| format!("AC{}", "0".repeat(32)), |sid| sid.to_string());
    let pairs = [
        ("MessageSid", sid.as_str()),
        ("SmsSid", &sid),
        ("SmsMessageSid", &sid),
        ("AccountSid", &account),
        ("From", "whatsapp:+15550001111"),
        ("To", "whatsapp:+15550002222"),
        ("Body", "hi"),
        ("NumMedia", "0"),
        ("NumSegments", "1"),
        ("SmsStatus", "received"),
        ("MessageType", "text"),
        ("ProfileName", "Ana"),
        ("WaId", "15550001111"),
        ("ReferralNumMedia", "0"),
        ("ApiVersion", "2010-04-01"),
    ];
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
