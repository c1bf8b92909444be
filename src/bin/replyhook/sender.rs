//! `replyhook sender`: shows and sets the webhooks of WhatsApp senders at Twilio. Shows their addresses in full.

use std::fmt::Write;

use anyhow::bail;
use replyhook::Address;
use replyhook::config::{SenderWebhookSettings, SigningSettings};
use replyhook::twilio::{self, Client, ConfiguredWebhooks, Credentials, WebhookMethods};
use serde_json::json;

use crate::operator::address;
use crate::{ExitStatus, Failed, SettingsArgs, print, printable, runtime};

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
    what: SenderCommand,
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
    Set(Set),
}

#[derive(clap::Args)]
struct ShowSenderArgs {
    /// Only this sender, such as whatsapp:+15550002222, or its SID, XE…
    #[arg(value_name = "SENDER", value_parser = Which::parse)]
    which: Option<Which>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
#[group(id = "wanted", required = true, multiple = true, args = ["from_config", "webhook", "fallback", "status_callback", "method"])]
struct Set {
    /// Sender, such as whatsapp:+15550002222, or its SID, XE…
    #[arg(value_name = "SENDER", value_parser = Which::parse)]
    which: Which,
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
pub(crate) enum Which {
    Sid(String),
    Address(Address),
}

impl Which {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let is_sid = text.len() == 34
            && text.starts_with("XE")
            && text.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit());
        if is_sid {
            return Ok(Self::Sid(text.to_owned()));
        }
        address(text).map(Self::Address)
    }

    fn is(&self, sender: &twilio::WhatsAppSender) -> bool {
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
pub(crate) struct Console {
    client: Client,
    credentials: Credentials,
}

impl Console {
    pub(crate) fn new(settings: SenderWebhookSettings) -> Self {
        Self {
            client: Client::new(settings.messaging_url),
            credentials: settings.credentials,
        }
    }

    async fn senders(&self) -> Result<Vec<twilio::WhatsAppSender>, Failed> {
        Ok(self.client.whatsapp_senders(&self.credentials).await?)
    }

    /// Returns the wanted senders, in the same order.
    ///
    /// # Errors
    /// If Twilio's list cannot be read, or lacks one of them.
    pub(crate) async fn find(
        &self,
        wanted: &[Which],
    ) -> Result<Vec<twilio::WhatsAppSender>, Failed> {
        let senders = self.senders().await?;
        let find = |which: &Which| {
            let found = senders.iter().find(|sender| which.is(sender));
            found.cloned().ok_or_else(|| unknown(which, &senders))
        };
        wanted.iter().map(find).collect()
    }

    #[cfg(feature = "emulator")]
    pub(crate) async fn look(&self, sid: &str) -> Result<twilio::WhatsAppSender, Failed> {
        let looked = self.client.whatsapp_sender(sid, &self.credentials).await;
        Ok(looked?)
    }

    pub(crate) async fn set(
        &self,
        sid: &str,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
    ) -> Result<twilio::WhatsAppSender, Failed> {
        let (client, credentials) = (&self.client, &self.credentials);
        let set = client.set_webhooks(sid, webhooks, methods, credentials);
        Ok(set.await?)
    }
}

fn unknown(which: &Which, senders: &[twilio::WhatsAppSender]) -> Failed {
    let which = match which {
        Which::Sid(sid) => sid,
        Which::Address(address) => address.as_str(),
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
        "this account has no WhatsApp sender {which}; it has: {known}"
    ))
}

impl Sender {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match self.what {
            SenderCommand::Show(show) => show.run(),
            SenderCommand::Set(set) => set.run(),
        }
    }
}

impl ShowSenderArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let console = Console::new(SenderWebhookSettings::load(&self.settings.sources())?);
        let senders = runtime()?.block_on(async {
            match self.which {
                Some(which) => console.find(&[which]).await,
                None => console.senders().await,
            }
        })?;
        for sender in &senders {
            print(&shown(sender, self.json)?)?;
        }
        Ok(ExitStatus::Yes)
    }
}

impl Set {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let sources = self.settings.sources();
        let console = Console::new(SenderWebhookSettings::load(&sources)?);
        let configured = if self.from_config {
            let Some(public_url) = SigningSettings::load(&sources)?.public_url else {
                bail!("--from-config needs PUBLIC_URL; set it to the same value as for the server");
            };
            let endpoint = |path| Some(public_url.endpoint(path));
            Some([
                endpoint(&format!("/webhook{CONNECTION_OVERRIDES}")),
                endpoint("/webhook/fallback"),
                endpoint("/webhook/status"),
            ])
        } else {
            None
        };
        let sender = runtime()?.block_on(async {
            let mut found = console.find(std::slice::from_ref(&self.which)).await?;
            let sender = found.remove(0);
            let current = sender.webhooks;
            // `set_webhooks` replaces all three URLs, so pass the current ones on.
            let [inbound, fallback, status] = configured.unwrap_or([
                self.webhook.or(current.inbound),
                self.fallback.or(current.fallback),
                self.status_callback.or(current.status),
            ]);
            let webhooks = ConfiguredWebhooks::new(inbound, fallback, status);
            let mut methods = sender.methods;
            if let Some(method) = self.method {
                for named in [
                    &mut methods.inbound,
                    &mut methods.fallback,
                    &mut methods.status,
                ] {
                    named.clone_from(&method);
                }
            }
            console.set(&sender.sid, &webhooks, &methods).await
        })?;
        print(&shown(&sender, self.json)?)?;
        Ok(ExitStatus::Yes)
    }
}

fn shown(sender: &twilio::WhatsAppSender, as_json: bool) -> Result<String, std::fmt::Error> {
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
