//! What a sender had at Twilio before it was pointed at a tunnel, in a file for as long as it is: so that the next `dev` can
//! put it back where this one is killed.
#![cfg(feature = "emulator")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use replyhook::twilio::{ConfiguredWebhooks, Sender, WebhookMethods};
use serde::{Deserialize, Serialize};

/// The file's content: primary, fallback, status.
#[derive(Deserialize, Serialize)]
struct Kept {
    /// What was entered then. Where the sender has something else by now, somebody else has entered it.
    tunnel: [Option<String>; 3],
    before: [Option<String>; 3],
    methods: [String; 3],
}

/// The file of one sender, where `dev` is run: a URL may hold a password, so it is nobody else's to read.
pub(crate) struct Before(PathBuf);

impl Before {
    pub(crate) fn of(sender: &Sender) -> Self {
        let sid = sender.sid.chars().filter(char::is_ascii_alphanumeric);
        Self(format!("replyhook-dev-{}.json", sid.collect::<String>()).into())
    }

    /// Gives the sender back in memory what it had, if it still has what was entered instead.
    pub(crate) fn recall(&self, sender: &mut Sender) -> bool {
        // What cannot be read, or is no such file, tells nothing.
        let kept = fs::read(&self.0).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let Some(kept) = kept.filter(|kept| webhooks(kept.tunnel.clone()) == sender.webhooks)
        else {
            return false;
        };
        sender.webhooks = webhooks(kept.before);
        let mut methods = WebhookMethods::default();
        [methods.inbound, methods.fallback, methods.status] = kept.methods;
        sender.methods = methods;
        true
    }

    /// Keeps what a sender has, before the tunnel's URLs are entered.
    ///
    /// # Errors
    /// When it cannot be written, named with its file.
    pub(crate) fn keep(&self, sender: &Sender, tunnel: &ConfiguredWebhooks) -> io::Result<()> {
        let methods = sender.methods.clone();
        let kept = Kept {
            tunnel: urls(tunnel),
            before: urls(&sender.webhooks),
            methods: [methods.inbound, methods.fallback, methods.status],
        };
        let written = self.write(&serde_json::to_vec(&kept)?);
        written.map_err(|error| {
            let file = self.0.display();
            io::Error::new(error.kind(), format!("{file} cannot be written: {error}"))
        })
    }

    /// Whole or not at all.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let part = self
            .0
            .with_extension(format!("{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(part, &self.0)
    }

    /// It has what it had. A file that stays is not believed: the sender has not what it says was entered.
    pub(crate) fn forget(&self) {
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
