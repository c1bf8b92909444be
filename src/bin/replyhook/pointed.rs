//! Senders of the real account that are pointed at a tunnel for as long as the desk stands.
#![cfg(feature = "emulator")]

use std::fmt::Write;

use replyhook::config::WebhookSettings;
use replyhook::twilio::{ConfiguredWebhooks, Sender, WebhookMethods};

use crate::Failed;
use crate::before::Before;
use crate::sender::{Console, Which};

/// What Twilio calls the tunnel for, and what it called before.
pub(crate) struct Pointed {
    console: Console,
    senders: Vec<Was>,
    tunnel: ConfiguredWebhooks,
}

struct Was {
    /// As it was.
    sender: Sender,
    /// Whether that can be put back. It cannot where the sender had the tunnel's URLs already, and no file of an earlier
    /// `dev` tells what it had before.
    is_known: bool,
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
            let was = pointed.look_back(sender);
            let set = pointed.set(&was).await;
            // Also where that failed: it may have been done all the same.
            pointed.senders.push(was);
            if let Err(error) = set {
                pointed.restore().await?;
                return Err(error);
            }
        }
        Ok(pointed)
    }

    fn look_back(&self, mut sender: Sender) -> Was {
        let is_told = Before::of(&sender).recall(&mut sender);
        let is_known = is_told || sender.webhooks != self.tunnel;
        Was { sender, is_known }
    }

    async fn set(&self, Was { sender, is_known }: &Was) -> anyhow::Result<()> {
        if *is_known {
            Before::of(sender).keep(sender, &self.tunnel)?;
        }
        // As a sender is called when nothing else is said.
        let methods = WebhookMethods::default();
        let set = self.console.set(&sender.sid, &self.tunnel, &methods);
        set.await?;
        Ok(())
    }

    /// What is said while they are.
    pub(crate) fn shown(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "  Until this ends Twilio calls the tunnel for:\n")?;
        for Was { sender, .. } in &self.senders {
            writeln!(text, "    {}", sender.address.as_str())?;
        }
        let unknown = self.senders.iter().filter(|was| !was.is_known);
        for Was { sender, .. } in unknown {
            let name = sender.address.as_str();
            writeln!(
                text,
                "\n  {name} had the tunnel's URLs already. What it had before is not known here, so they stay when this\n  \
                 ends: enter others with `replyhook sender set {name}`."
            )?;
        }
        let mut ways_back = self.ways_back().peekable();
        if ways_back.peek().is_some() {
            writeln!(
                text,
                "\n  Should it end without a word, as by kill -9: the next one in this folder puts back what was there, or\n"
            )?;
        }
        for way_back in ways_back {
            writeln!(text, "    {way_back}")?;
        }
        Ok(text)
    }

    /// The commands that put back what was there.
    fn ways_back(&self) -> impl Iterator<Item = String> {
        let known = self.senders.iter().filter(|was| was.is_known);
        known.map(|was| way_back(&was.sender))
    }

    /// Puts back what was there, unless somebody has entered something else meanwhile.
    pub(crate) async fn restore(&self) -> Result<(), Failed> {
        let mut left = Vec::new();
        for Was { sender, .. } in self.senders.iter().filter(|was| was.is_known) {
            match self.put_back(sender).await {
                Ok(()) => Before::of(sender).forget(),
                Err(error) => left.push((sender, error)),
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
        Failed(format!(
            "Twilio may still call the tunnel. This puts back what was there:\n{}",
            self.ways_back().collect::<Vec<_>>().join("\n")
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
