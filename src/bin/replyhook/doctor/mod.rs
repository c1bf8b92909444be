//! Trying a deployment from outside and inside. One file per thing that is looked at: [`server`] (the private listener),
//! [`reach`] (the public URL), [`account`] (credentials and clock), [`entered`] (what is entered at Twilio).
#![cfg(feature = "emulator")]

mod account;
mod entered;
mod finding;
mod pointing;
mod reach;
mod remedy;
mod server;

use std::time::Duration;

use replyhook::config::{Loaded, Settings};
use replyhook::twilio::Credentials;
use replyhook::{AccountSid, Secret};

use crate::{Answer, SettingsArgs};
use finding::{Finding, Report};

#[derive(clap::Args)]
#[command(after_help = "\
Run it beside a running `replyhook serve` and with its settings: on its machine, or in its container. It looks at the \
server's private listener (admin.listen), sends signed probes to PUBLIC_URL, which touch no message and no bot, and, where \
TWILIO_ACCOUNT_SID is set, asks Twilio for the account, the clock, and the webhooks of its numbers and WhatsApp senders. \
It changes nothing.

A line begins with ok, note (left out, or a concern of others), warn (works, and is probably not meant) or FAIL (messages \
or replies are lost); the line below says what to do. Trusted are the certificates of this machine, or those in the file \
that SSL_CERT_FILE names.

Exit code 0 if nothing is found, 1 if there is a warn or FAIL, 2 if the settings cannot be used.

Examples:
  replyhook doctor
  replyhook doctor --config bot.toml
  docker exec my-bot replyhook doctor --json")]
pub(crate) struct Doctor {
    #[command(flatten)]
    settings: SettingsArgs,
    /// One JSON object a line: {check, result, found, remedy}
    #[arg(long)]
    json: bool,
    /// How long to wait for the private listener
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

impl Doctor {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let mut sources = self.settings.sources();
        // That is a question of who may reach the server, which this is not.
        sources.allow_public_diagnostics = true;
        let Loaded {
            settings, warnings, ..
        } = Settings::load(&sources)?;
        let mut report = Report::new(self.json);
        for warning in &warnings {
            let found = format!("{} ({})", warning.key, warning.origin);
            report.add(Finding::warn("settings", found, warning.text.clone()))?;
        }
        let patience = Duration::from_millis(self.timeout_ms);
        let here = server::look(&settings, patience, &mut report)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            reach::look(&settings, here, &mut report).await?;
            let callers = callers(&settings);
            let usable = account::look(&settings, &callers, &mut report).await?;
            entered::look(&settings, &usable, &mut report).await
        })?;
        Ok(if report.found_something() {
            Answer::No
        } else {
            Answer::Yes
        })
    }
}

/// An account whose webhooks the server takes.
struct Caller {
    account: AccountSid,
    /// What signs its webhooks.
    token: Secret,
    /// What REST is called with where an API key takes the token's place.
    api_key: Option<Credentials>,
}

impl Caller {
    fn by_token(&self) -> Credentials {
        Credentials::auth_token(self.account, self.token.clone())
    }

    fn by_rest(&self) -> Credentials {
        self.api_key.clone().unwrap_or_else(|| self.by_token())
    }
}

/// The account of the default token, if it is known, and those with tokens of their own.
fn callers(settings: &Settings) -> Vec<Caller> {
    let twilio = &settings.twilio;
    let mut callers: Vec<_> = twilio
        .accounts
        .iter()
        .map(|account| Caller {
            account: account.sid,
            token: account.auth_token.clone(),
            api_key: None,
        })
        .collect();
    let Some(own) = twilio.account_sid else {
        return callers;
    };
    let is_own = |caller: &Caller| caller.account.to_lowercase() == own.to_lowercase();
    if !callers.iter().any(is_own) {
        let key = settings.rest.api_key.clone();
        let caller = Caller {
            account: own,
            token: twilio.auth_token.clone(),
            api_key: key.map(|(sid, secret)| Credentials::api_key(sid, secret)),
        };
        callers.insert(0, caller);
    }
    callers
}
