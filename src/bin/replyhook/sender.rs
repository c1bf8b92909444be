//! `replyhook sender`: shows and sets the webhooks of WhatsApp senders at Twilio. Shows their addresses in full.

use std::fmt::Write;

use anyhow::bail;
use replyhook::Address;
use replyhook::config::{SenderWebhookSettings, SigningSettings};
use replyhook::twilio::{self, Client, ConfiguredWebhooks, Credentials, WebhookMethods};
use serde_json::json;

use crate::exit::{ExitStatus, Failed};
use crate::operator::parse_address;
use crate::print::{print, printable};
use crate::runtime::runtime;
use crate::settings_args::SettingsArgs;

/// Connection overrides for the primary URL: two retries after a failed connection or a 5xx response.
const CONNECTION_OVERRIDES: &str = "#rc=2&rp=ct,5xx";

#[derive(clap::Args)]
#[command(after_help = "\
Calls Twilio's API of senders (twilio.messaging_url) with TWILIO_ACCOUNT_SID and its auth token or API key. It does
not cover the webhooks of the sandbox, nor those of a Messaging Service, which override the webhooks of its senders.

Examples:
  replyhook sender show
  replyhook sender set whatsapp:+15550002222 --from-config
  replyhook sender set whatsapp:+15550002222 --webhook https://bot.example.com/webhook --fallback ''")]
pub(crate) struct Sender {
    #[command(subcommand)]
    command: SenderCommand,
}

#[derive(clap::Subcommand)]
enum SenderCommand {
    /// Show the webhooks of one sender, or of all senders
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
    /// Only this sender, such as whatsapp:+15550002222, or its SID, XE…
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
    /// Sender, such as whatsapp:+15550002222, or its SID, XE…
    #[arg(value_name = "SENDER", value_parser = SenderId::parse)]
    sender: SenderId,
    /// Set all three URLs for the server with these settings, from its public URL
    #[arg(long, conflicts_with_all = ["webhook", "fallback", "status_callback"])]
    from_config: bool,
    /// Set the URL for inbound messages; '' removes it
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    webhook: Option<String>,
    /// Set the fallback URL; '' removes it
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    fallback: Option<String>,
    /// Set the status callback URL; '' removes it
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    status_callback: Option<String>,
    /// Set the HTTP method of all three
    #[arg(long, value_parser = ["POST", "PUT"])]
    method: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A sender, by its SID or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SenderId {
    Sid(String),
    Address(Address),
}

impl SenderId {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let is_sid = text.len() == 34
            && text.starts_with("XE")
            && text.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit());
        if is_sid {
            return Ok(Self::Sid(text.to_owned()));
        }
        parse_address(text).map(Self::Address)
    }

    fn matches(&self, sender: &twilio::WhatsAppSender) -> bool {
        match self {
            Self::Sid(sid) => *sid == sender.sid,
            Self::Address(address) => *address == sender.address,
        }
    }
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

/// Client for Twilio's API of senders.
pub(crate) struct SendersClient {
    client: Client,
    credentials: Credentials,
}

impl SendersClient {
    pub(crate) fn new(settings: SenderWebhookSettings) -> Self {
        Self {
            client: Client::new(settings.messaging_url),
            credentials: settings.credentials,
        }
    }

    async fn senders(&self) -> Result<Vec<twilio::WhatsAppSender>, Failed> {
        Ok(self.resource().list().await?)
    }

    /// Returns the senders with these ids, in the same order.
    ///
    /// # Errors
    /// If Twilio's list cannot be read, or lacks one of them.
    pub(crate) async fn find(
        &self,
        ids: &[SenderId],
    ) -> Result<Vec<twilio::WhatsAppSender>, Failed> {
        let senders = self.senders().await?;
        let find = |id: &SenderId| {
            let sender = senders.iter().find(|sender| id.matches(sender));
            sender.cloned().ok_or_else(|| unknown_sender(id, &senders))
        };
        ids.iter().map(find).collect()
    }

    /// Fetches a sender's current state from Twilio.
    #[cfg(feature = "emulator")]
    pub(crate) async fn fetch(&self, sid: &str) -> Result<twilio::WhatsAppSender, Failed> {
        Ok(self.resource().fetch(sid).await?)
    }

    /// Replaces the webhooks of a sender, and returns the sender as Twilio then has it.
    pub(crate) async fn set(
        &self,
        sid: &str,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
    ) -> Result<twilio::WhatsAppSender, Failed> {
        Ok(self.resource().update(sid, webhooks, methods).await?)
    }

    fn resource(&self) -> twilio::ChannelsSenders<'_> {
        self.client.channels_senders(&self.credentials)
    }
}

/// Returns the error for a sender that the account does not have. It lists those that it has.
fn unknown_sender(id: &SenderId, senders: &[twilio::WhatsAppSender]) -> Failed {
    let id = match id {
        SenderId::Sid(sid) => sid,
        SenderId::Address(address) => address.as_str(),
    };
    let known: Vec<_> = senders
        .iter()
        .map(|sender| sender.address.as_str())
        .collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Failed(format!(
        "this account has no WhatsApp sender {id}; it has: {known}"
    ))
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
        let senders = runtime()?.block_on(async {
            match self.sender {
                Some(id) => client.find(&[id]).await,
                None => client.senders().await,
            }
        })?;
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
            let current = sender.webhooks;
            // `update` replaces all three URLs, so pass the current ones on.
            let [inbound, fallback, status] = configured.unwrap_or([
                self.webhook.or(current.inbound),
                self.fallback.or(current.fallback),
                self.status_callback.or(current.status),
            ]);
            let webhooks = ConfiguredWebhooks::new(inbound, fallback, status);
            let mut methods = sender.methods;
            if let Some(method) = self.method {
                for webhook_method in [
                    &mut methods.inbound,
                    &mut methods.fallback,
                    &mut methods.status,
                ] {
                    webhook_method.clone_from(&method);
                }
            }
            client.set(&sender.sid, &webhooks, &methods).await
        })?;
        print(&format_sender(&sender, self.json)?)?;
        Ok(ExitStatus::Yes)
    }
}

fn format_sender(
    sender: &twilio::WhatsAppSender,
    as_json: bool,
) -> Result<String, std::fmt::Error> {
    let (webhooks, methods) = (&sender.webhooks, &sender.methods);
    let mut text = String::new();
    if as_json {
        let line = json!({
            "address": sender.address.as_str(), "sid": sender.sid, "status": sender.status,
            "webhook": webhooks.inbound, "webhook_method": methods.inbound,
            "fallback": webhooks.fallback, "fallback_method": methods.fallback,
            "status_callback": webhooks.status, "status_callback_method": methods.status,
        });
        writeln!(text, "{line}")?;
        return Ok(text);
    }
    writeln!(
        text,
        "{} {} {}",
        sender.address.as_str(),
        sender.sid,
        sender.status
    )?;
    for (name, url, method) in [
        ("webhook", &webhooks.inbound, &methods.inbound),
        ("fallback", &webhooks.fallback, &methods.fallback),
        ("status callback", &webhooks.status, &methods.status),
    ] {
        match url {
            Some(url) => writeln!(text, "  {name:<15} {method:<4} {url}")?,
            None => writeln!(text, "  {name:<15} none")?,
        }
    }
    Ok(printable(&text) + "\n")
}
