//! Senders of the real account that are pointed at a tunnel for as long as the desk stands.
#![cfg(feature = "emulator")]

use std::fmt::Write;

use replyhook::config::WebhookSettings;
use replyhook::twilio::{ConfiguredWebhooks, Sender, WebhookMethods};

use crate::Failed;
use crate::sender::{Console, Which};

/// What Twilio calls the tunnel for, and what it called before.
pub(crate) struct Pointed {
    console: Console,
    /// As they were.
    senders: Vec<Sender>,
    tunnel: ConfiguredWebhooks,
}

impl Pointed {
    /// Points all of these at the tunnel's URLs: primary, fallback, status. Where one cannot be, those before it are put
    /// back.
    pub(crate) async fn at(
        urls: [String; 3],
        wanted: &[Which],
        settings: WebhookSettings,
    ) -> anyhow::Result<Self> {
        let console = Console::new(settings);
        let senders = console.find(wanted).await?;
        let [inbound, fallback, status] = urls.map(Some);
        let mut pointed = Self {
            console,
            senders: Vec::new(),
            tunnel: ConfiguredWebhooks::new(inbound, fallback, status),
        };
        for sender in senders {
            let set = pointed.set(&sender).await;
            // Also where that failed: it may have been done all the same.
            pointed.senders.push(sender);
            if let Err(error) = set {
                pointed.restore().await?;
                return Err(error.into());
            }
        }
        Ok(pointed)
    }

    async fn set(&self, sender: &Sender) -> Result<(), Failed> {
        // As a sender is called when nothing else is said.
        let methods = WebhookMethods::default();
        let set = self.console.set(&sender.sid, &self.tunnel, &methods).await;
        set.map(|_| ())
    }

    /// What is said while they are.
    pub(crate) fn shown(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "  Until this ends Twilio calls the tunnel for:\n")?;
        for sender in &self.senders {
            writeln!(text, "    {}", sender.address.as_str())?;
        }
        writeln!(
            text,
            "\n  Should it end without a word, as by kill -9, this puts back what was there:\n"
        )?;
        for sender in &self.senders {
            writeln!(text, "    {}", way_back(sender))?;
        }
        Ok(text)
    }

    /// Puts back what was there, unless somebody has entered something else meanwhile.
    pub(crate) async fn restore(&self) -> Result<(), Failed> {
        let mut left = Vec::new();
        for sender in &self.senders {
            if let Err(error) = self.put_back(sender).await {
                left.push((sender, error));
            }
        }
        let Some((_, error)) = left.first() else {
            return Ok(());
        };
        let commands = left.iter().map(|(sender, _)| way_back(sender));
        Err(Failed(format!(
            "Twilio still calls the tunnel: {error}. This puts back what was there:\n{}",
            commands.collect::<Vec<_>>().join("\n")
        )))
    }

    async fn put_back(&self, sender: &Sender) -> Result<(), Failed> {
        let now = self.console.look(&sender.sid).await?;
        if now.webhooks != self.tunnel {
            return Ok(());
        }
        let (webhooks, methods) = (&sender.webhooks, &sender.methods);
        let set = self.console.set(&sender.sid, webhooks, methods).await;
        set.map(|_| ())
    }

    /// Nobody waits for it any more.
    pub(crate) fn given_up(&self) -> Failed {
        let commands = self.senders.iter().map(way_back);
        Failed(format!(
            "Twilio may still call the tunnel. This puts back what was there:\n{}",
            commands.collect::<Vec<_>>().join("\n")
        ))
    }
}

/// The command that puts back what was there.
fn way_back(sender: &Sender) -> String {
    let quoted = |url: &Option<String>| {
        let url = url.as_deref().unwrap_or_default();
        format!("'{}'", url.replace('\'', "'\\''"))
    };
    let webhooks = &sender.webhooks;
    format!(
        "replyhook sender set {} --webhook {} --fallback {} --status-callback {}",
        sender.address.as_str(),
        quoted(&webhooks.inbound),
        quoted(&webhooks.fallback),
        quoted(&webhooks.status)
    )
}
