//! The webhooks of WhatsApp senders at Twilio. Numbers are shown whole: they are one's own.

use std::fmt::Write;

use anyhow::bail;
use replyhook::Address;
use replyhook::config::{SigningSettings, WebhookSettings};
use replyhook::twilio::{self, Client, ConfiguredWebhooks, Credentials, WebhookMethods};
use serde_json::json;

use crate::operator::address;
use crate::{Answer, Failed, SettingsArgs, print, printable, runtime};

/// What Twilio is told with a primary URL: two more tries after a connection that failed, and after a 5xx.
const RETRIES: &str = "#rc=2&rp=ct,5xx";

#[derive(clap::Args)]
#[command(after_help = "\
Asks Twilio (twilio.messaging_url) with TWILIO_ACCOUNT_SID and its auth token or API key. What is entered for the sandbox, or for
a Messaging Service, which counts before that of its senders, is not seen here.

Examples:
  replyhook sender show
  replyhook sender set whatsapp:+15550002222 --from-config
  replyhook sender set whatsapp:+15550002222 --webhook https://bot.example.com/webhook --fallback ''")]
pub(crate) struct Sender {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Print the webhooks of one sender, or of all
    #[command(
        after_help = "Exit code 0, also where there is none; 1 if there is no such sender, or Twilio refuses."
    )]
    Show(Show),
    /// Set webhooks of a sender; what is not named stays as it is
    #[command(
        after_help = "Exit code 0 when they are set; 1 if there is no such sender, or Twilio refuses."
    )]
    Set(Set),
}

#[derive(clap::Args)]
struct Show {
    /// Only this one, such as whatsapp:+15550002222, or its SID, XE…
    #[arg(value_name = "SENDER", value_parser = Which::parse)]
    which: Option<Which>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
#[group(id = "wanted", required = true, multiple = true, args = ["from_config", "webhook", "fallback", "status_callback", "method"])]
struct Set {
    /// Which one, such as whatsapp:+15550002222, or its SID, XE…
    #[arg(value_name = "SENDER", value_parser = Which::parse)]
    which: Which,
    /// All three for the server that has these settings, as its public URL makes them
    #[arg(long, conflicts_with_all = ["webhook", "fallback", "status_callback"])]
    from_config: bool,
    /// URL for a message that comes in; '' takes it out
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    webhook: Option<String>,
    /// URL for what the former could not answer; '' takes it out
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    fallback: Option<String>,
    /// URL for what becomes of messages that go out; '' takes it out
    #[arg(long, value_name = "URL", value_parser = url_or_none)]
    status_callback: Option<String>,
    /// How all of them are called
    #[arg(long, value_parser = ["POST", "PUT"])]
    method: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A sender, by one of its names.
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

    fn is(&self, sender: &twilio::Sender) -> bool {
        match self {
            Self::Sid(sid) => *sid == sender.sid,
            Self::Address(address) => *address == sender.address,
        }
    }
}

/// A URL as it is entered, fragment included, or nothing.
fn url_or_none(text: &str) -> Result<String, &'static str> {
    let uri = text.parse::<http::Uri>();
    let is_web = uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if is_web || text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("write a whole URL, such as https://bot.example.com/webhook")
    }
}

/// Where senders are looked at and set.
pub(crate) struct Console {
    client: Client,
    credentials: Credentials,
}

impl Console {
    pub(crate) fn new(settings: WebhookSettings) -> Self {
        Self {
            client: Client::new(settings.messaging_url),
            credentials: settings.credentials,
        }
    }

    async fn senders(&self) -> Result<Vec<twilio::Sender>, Failed> {
        Ok(self.client.whatsapp_senders(&self.credentials).await?)
    }

    /// All of these, in their order.
    pub(crate) async fn find(&self, wanted: &[Which]) -> Result<Vec<twilio::Sender>, Failed> {
        let senders = self.senders().await?;
        let find = |which: &Which| {
            let found = senders.iter().find(|sender| which.is(sender));
            found.cloned().ok_or_else(|| unknown(which, &senders))
        };
        wanted.iter().map(find).collect()
    }

    #[cfg(feature = "emulator")]
    pub(crate) async fn look(&self, sid: &str) -> Result<twilio::Sender, Failed> {
        let looked = self.client.whatsapp_sender(sid, &self.credentials).await;
        Ok(looked?)
    }

    pub(crate) async fn set(
        &self,
        sid: &str,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
    ) -> Result<twilio::Sender, Failed> {
        let (client, credentials) = (&self.client, &self.credentials);
        let set = client.set_webhooks(sid, webhooks, methods, credentials);
        Ok(set.await?)
    }
}

fn unknown(which: &Which, senders: &[twilio::Sender]) -> Failed {
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
        "this account has no WhatsApp sender {which}: it has {known}"
    ))
}

impl Sender {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        match self.what {
            What::Show(show) => show.run(),
            What::Set(set) => set.run(),
        }
    }
}

impl Show {
    fn run(self) -> anyhow::Result<Answer> {
        let console = Console::new(WebhookSettings::load(&self.settings.sources())?);
        let senders = runtime()?.block_on(async {
            match self.which {
                Some(which) => console.find(&[which]).await,
                None => console.senders().await,
            }
        })?;
        for sender in &senders {
            print(&shown(sender, self.json)?)?;
        }
        Ok(Answer::Yes)
    }
}

impl Set {
    fn run(self) -> anyhow::Result<Answer> {
        let sources = self.settings.sources();
        let console = Console::new(WebhookSettings::load(&sources)?);
        let here = if self.from_config {
            let Some(public_url) = SigningSettings::load(&sources)?.public_url else {
                bail!("--from-config needs PUBLIC_URL: set it as the server has it");
            };
            let end = |path| Some(public_url.endpoint(path));
            Some([
                end(&format!("/webhook{RETRIES}")),
                end("/webhook/fallback"),
                end("/webhook/status"),
            ])
        } else {
            None
        };
        let sender = runtime()?.block_on(async {
            let mut found = console.find(std::slice::from_ref(&self.which)).await?;
            let sender = found.remove(0);
            let is = sender.webhooks;
            let [inbound, fallback, status] = here.unwrap_or([
                self.webhook.or(is.inbound),
                self.fallback.or(is.fallback),
                self.status_callback.or(is.status),
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
        Ok(Answer::Yes)
    }
}

fn shown(sender: &twilio::Sender, as_json: bool) -> Result<String, std::fmt::Error> {
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
