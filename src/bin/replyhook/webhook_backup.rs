//! Backup of a sender's webhooks while they point at a tunnel, so that the next `dev` can restore them after a kill.
#![cfg(feature = "emulator")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use replyhook::twilio::{ConfiguredWebhooks, WebhookMethods};
use serde::{Deserialize, Serialize};

use crate::configured_sender::ConfiguredSender;

/// The content of the file. Each array is in the order primary, fallback, status.
#[derive(Deserialize, Serialize)]
struct BackupFile {
    /// The webhooks that replaced `before`. If the sender has others now, they were changed elsewhere.
    tunnel: [Option<String>; 3],
    before: [Option<String>; 3],
    methods: [String; 3],
    /// True if a Messaging Service used the webhooks of its numbers before.
    #[serde(default)]
    uses_number_webhooks: bool,
}

/// The backup file of one sender, in the working directory of `dev`.
pub(crate) struct WebhookBackup(PathBuf);

impl WebhookBackup {
    pub(crate) fn for_sender(sender: &ConfiguredSender) -> Self {
        // Only letters and digits: the SID comes from the network, and must not lead to a file in another folder.
        let sid = sender.sid.chars().filter(char::is_ascii_alphanumeric);
        Self(format!("replyhook-dev-{}.json", sid.collect::<String>()).into())
    }

    /// Replaces the webhooks of `sender` in memory by those of the backup, and returns true.
    ///
    /// Returns false without a valid backup, or if the sender's webhooks have been changed since.
    pub(crate) fn load(&self, sender: &mut ConfiguredSender) -> bool {
        // A missing, unreadable or foreign file is not an error: it only means that the previous webhooks are unknown.
        let backup = fs::read(&self.0).ok();
        let backup = backup.and_then(|bytes| serde_json::from_slice::<BackupFile>(&bytes).ok());
        let is_current = |backup: &BackupFile| webhooks(backup.tunnel.clone()) == sender.webhooks;
        let Some(backup) = backup.filter(is_current) else {
            return false;
        };
        sender.webhooks = webhooks(backup.before);
        let mut methods = WebhookMethods::default();
        [methods.inbound, methods.fallback, methods.status] = backup.methods;
        sender.methods = methods;
        sender.uses_number_webhooks = backup.uses_number_webhooks;
        true
    }

    /// Writes a backup of the sender's webhooks, before `tunnel` replaces them.
    ///
    /// # Errors
    /// An I/O error that names the file.
    pub(crate) fn save(
        &self,
        sender: &ConfiguredSender,
        tunnel: &ConfiguredWebhooks,
    ) -> io::Result<()> {
        let methods = sender.methods.clone();
        let backup = BackupFile {
            tunnel: urls(&sender.applicable(tunnel)),
            before: urls(&sender.webhooks),
            methods: [methods.inbound, methods.fallback, methods.status],
            uses_number_webhooks: sender.uses_number_webhooks,
        };
        let result = self.write(&serde_json::to_vec(&backup)?);
        result.map_err(|error| {
            let file = self.0.display();
            io::Error::new(error.kind(), format!("could not write {file}: {error}"))
        })
    }

    /// Writes the file atomically.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let temp_file = self
            .0
            .with_extension(format!("{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        // Readable for this user only: a webhook URL may contain a password.
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&temp_file)?;
        file.write_all(bytes)?;
        // Before the rename: a crash must not leave a renamed but empty file.
        file.sync_all()?;
        fs::rename(temp_file, &self.0)
    }

    /// Deletes the file, after the webhooks have been restored.
    pub(crate) fn delete(&self) {
        // A file that cannot be deleted does no harm: `load` ignores it, because the sender's webhooks differ.
        let _ = fs::remove_file(&self.0);
    }
}

fn urls(webhooks: &ConfiguredWebhooks) -> [Option<String>; 3] {
    let ConfiguredWebhooks {
        inbound,
        fallback,
        status,
        ..
    } = webhooks.clone();
    [inbound, fallback, status]
}

fn webhooks([inbound, fallback, status]: [Option<String>; 3]) -> ConfiguredWebhooks {
    ConfiguredWebhooks::new(inbound, fallback, status)
}
