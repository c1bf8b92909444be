//! Webhooks of the real account's senders, which point at a tunnel while `replyhook dev` runs.
#![cfg(feature = "emulator")]

use std::fmt::Write;

use replyhook::config::SenderWebhookSettings;
use replyhook::twilio::{ConfiguredWebhooks, WebhookMethods};

use crate::configured_sender::{ConfiguredSender, SenderId, SenderKind, SendersClient};
use crate::exit::Failed;
use crate::webhook_backup::WebhookBackup;

/// Senders whose webhooks point at the tunnel, with their previous webhooks.
pub(crate) struct TunnelWebhooks {
    client: SendersClient,
    senders: Vec<PreviousWebhooks>,
    tunnel: ConfiguredWebhooks,
}

struct PreviousWebhooks {
    /// The sender with its previous webhooks.
    sender: ConfiguredSender,
    /// False if the sender already had the tunnel's URLs and an earlier `dev` left no backup: there is nothing to
    /// restore.
    is_known: bool,
}

impl TunnelWebhooks {
    /// Points all senders at the tunnel's primary, fallback and status URL.
    ///
    /// If one fails, restores the webhooks of those before it.
    pub(crate) async fn point_senders(
        urls: [String; 3],
        ids: &[SenderId],
        settings: SenderWebhookSettings,
    ) -> anyhow::Result<Self> {
        let client = SendersClient::new(settings);
        // Find all senders before changing one, so that a misspelled sender changes nothing.
        let senders = client.find(ids).await?;
        let [inbound, fallback, status] = urls.map(Some);
        let mut tunnel = Self {
            client,
            senders: Vec::new(),
            tunnel: ConfiguredWebhooks::new(inbound, fallback, status),
        };
        for sender in senders {
            let previous = tunnel.load_previous(sender);
            let set = tunnel.set(&previous).await;
            // Even if `set` failed: Twilio may have changed the webhooks although its response was lost.
            tunnel.senders.push(previous);
            if let Err(error) = set {
                tunnel.restore().await?;
                return Err(error);
            }
        }
        Ok(tunnel)
    }

    fn load_previous(&self, mut sender: ConfiguredSender) -> PreviousWebhooks {
        // After an earlier `dev` was killed, the sender still has tunnel URLs, and the backup has the previous ones.
        let has_backup = WebhookBackup::for_sender(&sender).load(&mut sender);
        let is_known = has_backup || !self.is_at_tunnel(&sender);
        PreviousWebhooks { sender, is_known }
    }

    async fn set(
        &self,
        PreviousWebhooks { sender, is_known }: &PreviousWebhooks,
    ) -> anyhow::Result<()> {
        // Write the backup before the change: if this process is killed in between, the next run can restore.
        if *is_known {
            WebhookBackup::for_sender(sender).save(sender, &self.tunnel)?;
        }
        // Twilio's default methods, which the server accepts.
        let methods = WebhookMethods::default();
        let webhooks = sender.applicable(&self.tunnel);
        // A service must use its own webhooks, or Twilio would not call the tunnel.
        self.client.set(sender, &webhooks, &methods, false).await?;
        Ok(())
    }

    /// Returns whether Twilio calls the tunnel for a sender.
    fn is_at_tunnel(&self, sender: &ConfiguredSender) -> bool {
        sender.webhooks == sender.applicable(&self.tunnel) && !sender.uses_number_webhooks
    }

    /// Describes the changed webhooks for the welcome text of `dev`.
    pub(crate) fn describe(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "  Until you end this, Twilio calls the tunnel for:\n")?;
        for PreviousWebhooks { sender, .. } in &self.senders {
            writeln!(text, "    {}", sender.name())?;
        }
        let unknown = self.senders.iter().filter(|previous| !previous.is_known);
        for PreviousWebhooks { sender, .. } in unknown {
            let name = sender.name();
            writeln!(
                text,
                "\n  {name} had the tunnel's URLs already. Its previous ones are unknown, so they stay when this ends.\n  \
                 Set others with `replyhook sender set {name}`."
            )?;
        }
        let mut commands = self.restore_commands().peekable();
        if commands.peek().is_some() {
            writeln!(
                text,
                "\n  If this is killed, as by kill -9, the next `replyhook dev` in this folder restores the webhooks. To restore\n  \
                 them yourself:\n"
            )?;
        }
        for command in commands {
            writeln!(text, "    {}", command.replace('\n', "\n    "))?;
        }
        Ok(text)
    }

    /// Returns the commands that restore the previous webhooks.
    fn restore_commands(&self) -> impl Iterator<Item = String> {
        let known = self.senders.iter().filter(|previous| previous.is_known);
        known.map(|previous| restore_command(&previous.sender))
    }

    /// Restores the previous webhooks, except those that were changed elsewhere during the run.
    pub(crate) async fn restore(&self) -> Result<(), Failed> {
        let mut failed = Vec::new();
        let known = self.senders.iter().filter(|previous| previous.is_known);
        for PreviousWebhooks { sender, .. } in known {
            match self.restore_one(sender).await {
                Ok(()) => WebhookBackup::for_sender(sender).delete(),
                // Continue with the other senders, and report all at the end. The backup stays for the next run.
                Err(error) => failed.push((sender, error)),
            }
        }
        let Some((_, error)) = failed.first() else {
            return Ok(());
        };
        let commands = failed.iter().map(|(sender, _)| restore_command(sender));
        Err(Failed(format!(
            "Twilio still calls the tunnel: {error}; to restore the webhooks, run:\n{}",
            commands.collect::<Vec<_>>().join("\n")
        )))
    }

    async fn restore_one(&self, sender: &ConfiguredSender) -> Result<(), Failed> {
        let current = self.client.fetch(sender).await?;
        // Changed elsewhere in the meantime: do not overwrite that.
        if !self.is_at_tunnel(&current) {
            return Ok(());
        }
        let (webhooks, methods) = (&sender.webhooks, &sender.methods);
        let uses_number_webhooks = sender.uses_number_webhooks;
        let set = self
            .client
            .set(sender, webhooks, methods, uses_number_webhooks);
        set.await.map(|_| ())
    }

    /// Returns the error for a second signal during [`restore`](Self::restore).
    pub(crate) fn interrupted_restore(&self) -> Failed {
        Failed(format!(
            "Twilio may still call the tunnel; to restore the webhooks, run:\n{}",
            self.restore_commands().collect::<Vec<_>>().join("\n")
        ))
    }
}

/// Returns the command that restores a sender's previous webhooks, with a comment if it cannot restore all methods.
fn restore_command(sender: &ConfiguredSender) -> String {
    // Quoted for a POSIX shell. An empty URL removes the webhook.
    let quoted = |url: &Option<String>| {
        let url = url.as_deref().unwrap_or_default();
        format!("'{}'", url.replace('\'', "'\\''"))
    };
    let webhooks = &sender.webhooks;
    let status_callback = match sender.kind {
        SenderKind::Number => String::new(),
        _ => format!(" --status-callback {}", quoted(&webhooks.status)),
    };
    let note = if sender.uses_number_webhooks {
        "\n# then let the service use the webhooks of its numbers in Twilio's console"
    } else {
        ""
    };
    format!(
        "replyhook sender set {} --webhook {} --fallback {}{status_callback}{}{note}",
        sender.name(),
        quoted(&webhooks.inbound),
        quoted(&webhooks.fallback),
        method_option(sender)
    )
}

/// Returns the option that restores the HTTP methods, or an empty text if Twilio has stated none.
fn method_option(sender: &ConfiguredSender) -> String {
    // The method of a URL that is not set does not matter. `--method` accepts no other words.
    let used: Vec<_> = sender
        .endpoints()
        .into_iter()
        .filter(|(_, url, method)| url.is_some() && sender.kind.methods().contains(method))
        .collect();
    let Some((_, _, first)) = used.first() else {
        return String::new();
    };
    // `sender set` has one method for all three URLs.
    let others = used.iter().filter(|(_, _, method)| method != first);
    let notes = others.map(|(name, _, method)| {
        format!("\n# then set the method of the {name} to {method} in Twilio's console")
    });
    format!(" --method {first}{}", notes.collect::<Vec<_>>().concat())
}
