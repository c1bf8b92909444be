//! `replyhook audit`: checks a bot behind any Twilio webhook from the outside.
//!
//! One module per subject: [`signatures`], [`messages`], [`consent`], [`endpoints`] (fallback URL and status callbacks),
//! [`responses`] (what all responses have in common). [`bot`] sends the requests.
#![cfg(feature = "emulator")]

mod bot;
mod consent;
mod endpoints;
mod messages;
mod responses;
mod signatures;

use anyhow::Context;
use replyhook::config::SigningSettings;
use replyhook::{AccountSid, Address};
use serde_json::json;

use self::bot::{AuditedBot, AuditedUrl};
use crate::exit::ExitStatus;
use crate::finding::{Report, Severity};
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Sends some 30 requests as Twilio would, signed with TWILIO_AUTH_TOKEN or a key of signature.shared_keys, and checks the \
responses as Twilio would. Works with any bot, in any language. The bot handles the messages as real ones: it may store \
them, and send replies to the invented users, whose numbers Twilio rejects. For a bot that does not verify signatures \
any token will do.

A line begins with ok, note (not checked), warn (works, but loses or repeats something) or FAIL (messages or replies \
are lost, or anybody can send messages). The line below it says what to do.

Exit codes:
  0  no findings
  1  at least one warn or FAIL
  2  usage or configuration error

Examples:
  TWILIO_AUTH_TOKEN=… replyhook audit http://localhost:3000/sms
  replyhook audit http://localhost:3000/sms --url https://bot.example.com/sms
  replyhook audit https://bot.example.com/webhook --fallback https://bot.example.com/webhook/fallback
  replyhook audit https://bot.example.com/webhook --to whatsapp:+15550002222 --json")]
pub(crate) struct Audit {
    /// URL of the webhook
    webhook: String,
    /// URL to sign the requests for [default: the URL that they are sent to]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Fallback URL of the bot
    #[arg(long, value_name = "URL")]
    fallback: Option<String>,
    /// Status callback URL of the bot
    #[arg(long, value_name = "URL")]
    status_callback: Option<String>,
    /// Address of the user in all checks [default: another invented user in each check]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Address of the bot [default: one on the user's channel]
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Print one JSON object per line: {check, result, found, remedy}, and at the end the counts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Account of the webhooks if none is configured.
const NO_ACCOUNT: &str = "AC00000000000000000000000000000000";

impl Audit {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let webhook = AuditedUrl::parse(&self.webhook, self.url.clone())?;
        let fallback = parse_optional(self.fallback.as_deref(), "--fallback")?;
        let status_callback = parse_optional(self.status_callback.as_deref(), "--status-callback")?;
        // Always the operator's own key: without it, an audit of a public URL tests a stranger's server.
        let settings = SigningSettings::load(&self.settings.sources())?;
        let signing_key = settings.twilio.signing_key();
        let (key, account) = signing_key.context("no key is configured; set TWILIO_AUTH_TOKEN")?;
        let account = match account {
            Some(account) => account,
            None => AccountSid::parse(NO_ACCOUNT)?,
        };
        let mut report = Report::new(self.json);
        let user = self.from.as_deref().map(Address::parse);
        let mut bot = AuditedBot::new(key, account, webhook, user, self.to.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            // Nothing else can be checked if the bot rejects Twilio's messages.
            if !signatures::check(&mut bot, &mut report).await? {
                return Ok(());
            }
            messages::check(&mut bot, &mut report).await?;
            endpoints::check_status_callback(&mut bot, status_callback, &mut report).await?;
            endpoints::check_fallback(&mut bot, fallback, &mut report).await?;
            consent::check(&mut bot, &mut report).await?;
            responses::check(&bot, &mut report)
        })?;
        self.print_score(&report)?;
        Ok(if report.has_problems() {
            ExitStatus::No
        } else {
            ExitStatus::Yes
        })
    }

    fn print_score(&self, report: &Report) -> anyhow::Result<()> {
        let [ok, notes, warnings, failures] =
            [Severity::Ok, Severity::Note, Severity::Warn, Severity::Fail]
                .map(|severity| report.count(severity));
        if self.json {
            let line = json!({"ok": ok, "note": notes, "warn": warnings, "fail": failures});
            return print(&format!("{line}\n"));
        }
        let checked = ok + warnings + failures;
        print(&format!(
            "\n{ok} of {checked} checks passed; {failures} failed, {warnings} warned, {notes} not checked\n"
        ))
    }
}

fn parse_optional(url: Option<&str>, option: &str) -> anyhow::Result<Option<AuditedUrl>> {
    url.map(|url| AuditedUrl::parse(url, None).context(option.to_owned()))
        .transpose()
}
