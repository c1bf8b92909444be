//! `replyhook sender`: shows and sets the webhooks of WhatsApp senders, numbers and Messaging Services at Twilio. Shows
//! their addresses in full.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::bail;
use replyhook::config::{SenderWebhookSettings, SigningSettings};
use replyhook::twilio::ConfiguredWebhooks;
use serde_json::json;

use crate::configured_sender::{ConfiguredSender, SenderId, SenderKind, SendersClient};
use crate::exit::{ExitStatus, Failed};
use crate::print::{print, printable};
use crate::runtime::runtime;
use crate::settings_args::SettingsArgs;

/// Connection overrides for the primary URL: two retries after a failed connection or a 5xx response.
const CONNECTION_OVERRIDES: &str = "#rc=2&rp=ct,5xx";

#[derive(clap::Args)]
#[command(after_help = "\
Calls Twilio's API with TWILIO_ACCOUNT_SID and its auth token or API key. A SENDER is a WhatsApp sender
(whatsapp:+15550002222 or XE…), a phone number (+15550002222 or PN…) or a Messaging Service (MG…). The webhooks of a
Messaging Service override those of its senders, and `sender set` lets the service use its own. The webhooks of the
sandbox, and those of RCS and Messenger senders, are set in Twilio's console only.

Examples:
  replyhook sender show
  replyhook sender set whatsapp:+15550002222 --from-config
  replyhook sender set +15550002222 --from-config
  replyhook sender set MG00000000000000000000000000000001 --from-config
  replyhook sender set whatsapp:+15550002222 --webhook https://bot.example.com/webhook --fallback ''")]
pub(crate) struct Sender {
    #[command(subcommand)]
    command: SenderCommand,
}

#[derive(clap::Subcommand)]
enum SenderCommand {
    /// Show one sender or all senders: status, reasons if it is offline, quality, limit and webhooks
    #[command(after_help = "\
Exit codes:
  0  shown, even if the account has none
  1  the sender was not found, or Twilio rejected the request or did not respond
  2  usage or configuration error")]
    Show(ShowSenderArgs),
    /// Set webhooks of a sender; those without an option stay as they are
    #[command(after_help = "\
Exit codes:
  0  set
  1  the sender was not found, or Twilio rejected the request or did not respond
  2  usage or configuration error")]
    Set(SetSenderArgs),
}

#[derive(clap::Args)]
struct ShowSenderArgs {
    /// Only this sender: an address, or a SID
    #[arg(value_name = "SENDER", value_parser = SenderId::parse)]
    sender: Option<SenderId>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
#[group(id = "wanted", required = true, multiple = true, args = ["from_config", "webhook", "fallback", "status_callback", "method"])]
struct SetSenderArgs {
    /// Sender: an address, or a SID
    #[arg(value_name = "SENDER", value_parser = SenderId::parse)]
    sender: SenderId,
    /// Set the URLs for the server with these settings, from its public URL
    #[arg(long, conflicts_with_all = ["webhook", "fallback", "status_callback"])]
    from_config: bool,
    /// Set the URL for inbound messages; '' removes it
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    webhook: Option<String>,
    /// Set the fallback URL; '' removes it
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    fallback: Option<String>,
    /// Set the status callback URL, which numbers do not have; '' removes it
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    status_callback: Option<String>,
    /// Set the HTTP method of all of them
    #[arg(long, value_parser = ["GET", "POST", "PUT"])]
    method: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Parses a webhook URL, with its fragment, or an empty text.
fn url_or_none(text: &str) -> Result<String, &'static str> {
    // Parse only to check: Twilio signs the text of the URL as it is configured, and reads overrides from the fragment.
    let uri = text.parse::<http::Uri>();
    let is_web = uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if is_web || text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("write a complete URL, such as https://bot.example.com/webhook")
    }
}

impl Sender {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match self.command {
            SenderCommand::Show(show) => show.run(),
            SenderCommand::Set(set) => set.run(),
        }
    }
}

impl ShowSenderArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let client = SendersClient::new(SenderWebhookSettings::load(&self.settings.sources())?);
        let (senders, unreadable) = runtime()?.block_on(async {
            match self.sender {
                Some(id) => Ok((client.find(&[id]).await?, Vec::new())),
                None => client.list_all().await,
            }
        })?;
        for note in unreadable {
            // If standard error is closed, the list itself still counts.
            let _ = writeln!(std::io::stderr(), "replyhook: {note}");
        }
        for sender in &senders {
            print(&format_sender(sender, self.json)?)?;
        }
        Ok(ExitStatus::Yes)
    }
}

impl SetSenderArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let sources = self.settings.sources();
        let client = SendersClient::new(SenderWebhookSettings::load(&sources)?);
        let configured = if self.from_config {
            let Some(public_url) = SigningSettings::load(&sources)?.public_url else {
                bail!("--from-config needs PUBLIC_URL; set it to the same value as for the server");
            };
            let paths = public_url.paths();
            let endpoint = |path| Some(public_url.endpoint(path));
            Some([
                endpoint(&format!("{}{CONNECTION_OVERRIDES}", paths.primary())),
                endpoint(paths.fallback()),
                endpoint(paths.status()),
            ])
        } else {
            None
        };
        let sender = runtime()?.block_on(async {
            let mut senders = client.find(std::slice::from_ref(&self.sender)).await?;
            let sender = senders.remove(0);
            self.check(&sender)?;
            let current = sender.webhooks.clone();
            // `set` replaces all URLs, so pass the current ones on.
            let [inbound, fallback, status] = configured.unwrap_or([
                self.webhook.clone().or(current.inbound),
                self.fallback.clone().or(current.fallback),
                self.status_callback.clone().or(current.status),
            ]);
            let webhooks = ConfiguredWebhooks::new(inbound, fallback, status);
            let webhooks = sender.applicable(&webhooks);
            let mut methods = sender.methods.clone();
            if let Some(method) = &self.method {
                for webhook_method in [
                    &mut methods.inbound,
                    &mut methods.fallback,
                    &mut methods.status,
                ] {
                    webhook_method.clone_from(method);
                }
            }
            // A service calls its own webhooks from now on, or else the new ones would have no effect. Without one for
            // inbound messages it would receive none, so then it stays as it is.
            let uses_number_webhooks = sender.uses_number_webhooks && webhooks.inbound.is_none();
            let set = client.set(&sender, &webhooks, &methods, uses_number_webhooks);
            set.await
        })?;
        print(&format_sender(&sender, self.json)?)?;
        Ok(ExitStatus::Yes)
    }

    /// Checks the options that only some kinds of senders have.
    fn check(&self, sender: &ConfiguredSender) -> Result<(), Failed> {
        if self.status_callback.is_some() && sender.kind == SenderKind::Number {
            return Err(Failed(format!(
                "{} has no status callback for messages: the one of a number is for calls; the server names its own in each \
                 message that it sends",
                sender.name()
            )));
        }
        match &self.method {
            Some(method) if !sender.kind.methods().contains(&method.as_str()) => {
                Err(Failed(format!(
                    "--method {method}: the webhooks of {} have {}",
                    sender.name(),
                    sender.kind.methods().join(" or ")
                )))
            }
            _ => Ok(()),
        }
    }
}

fn format_sender(sender: &ConfiguredSender, as_json: bool) -> Result<String, std::fmt::Error> {
    let (webhooks, methods) = (&sender.webhooks, &sender.methods);
    let mut text = String::new();
    if as_json {
        let line = json!({
            "address": sender.address.as_ref().map(replyhook::Address::as_str), "sid": sender.sid,
            "status": sender.status, "details": sender.details,
            "webhook": webhooks.inbound, "webhook_method": methods.inbound,
            "fallback": webhooks.fallback, "fallback_method": methods.fallback,
            "status_callback": webhooks.status, "status_callback_method": methods.status,
        });
        writeln!(text, "{line}")?;
        return Ok(text);
    }
    let address = sender.address.as_ref().map(replyhook::Address::as_str);
    let first_line = [address.unwrap_or_default(), &sender.sid, &sender.status].join(" ");
    writeln!(text, "{}", first_line.trim())?;
    for detail in &sender.details {
        // One line each, although the text is Twilio's.
        writeln!(text, "  {}", detail.replace(['\n', '\r'], " "))?;
    }
    for (name, url, method) in sender.endpoints() {
        match url {
            Some(url) => writeln!(text, "  {name:<15} {method:<4} {url}")?,
            None => writeln!(text, "  {name:<15} none")?,
        }
    }
    Ok(printable(&text) + "\n")
}
