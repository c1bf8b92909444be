//! Account SID, auth token and forward secret of `replyhook dev`, kept in a file so that a bot's settings stay valid.
#![cfg(feature = "emulator")]

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use replyhook::Secret;
use replyhook::emulator::Emulator;
use replyhook::sid::AccountSid;
use serde::{Deserialize, Serialize};

/// The content of the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SavedCredentials {
    account_sid: String,
    auth_token: String,
    /// The secret of `dev --forward`; `None` before its first use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward_secret: Option<String>,
}

/// The credentials of an earlier start in this folder.
#[derive(Default)]
pub(crate) struct DevCredentials {
    pub(crate) account: Option<(AccountSid, Secret)>,
    pub(crate) forward_secret: Option<Secret>,
}

/// The file in the working directory of `dev`.
pub(crate) struct DevAccount(PathBuf);

impl DevAccount {
    pub(crate) fn new() -> Self {
        Self("replyhook-dev-account.json".into())
    }

    /// Reads the credentials, which are empty without a file.
    ///
    /// # Errors
    /// The file is not one that [`save`](Self::save) has written, or belongs to another user.
    pub(crate) fn load(&self) -> anyhow::Result<DevCredentials> {
        let advice = || {
            format!(
                "{} cannot be used; delete it, or start with --new-credentials",
                self.0.display()
            )
        };
        let metadata = match fs::symlink_metadata(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(DevCredentials::default());
            }
            metadata => metadata.with_context(advice)?,
        };
        // A user who made the file knows the token, and can sign requests to the bot.
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        ensure!(metadata.is_file() && is_own, "{}: not your file", advice());
        let bytes = fs::read(&self.0).with_context(advice)?;
        let saved: SavedCredentials = serde_json::from_slice(&bytes).with_context(advice)?;
        let account = AccountSid::parse(&saved.account_sid).with_context(advice)?;
        let is_token =
            saved.auth_token.len() == 32 && saved.auth_token.bytes().all(|b| b.is_ascii_hexdigit());
        ensure!(is_token, "{}: invalid auth_token", advice());
        // `save` writes valid secrets only. The start reports a secret that was edited and is invalid.
        Ok(DevCredentials {
            account: Some((account, Secret::new(saved.auth_token))),
            forward_secret: saved.forward_secret.map(Secret::new),
        })
    }

    /// Saves the emulator's credentials and the forward secret, if there is one. Returns an explanation if the folder
    /// cannot be written to.
    pub(crate) fn save(
        &self,
        emulator: &Emulator,
        forward_secret: Option<&Secret>,
    ) -> Option<String> {
        let error = self.write(emulator, forward_secret).err()?;
        Some(format!(
            "the next start has other credentials: {}: {error}",
            self.0.display()
        ))
    }

    /// Writes the file atomically: another `dev` may read it at the same time.
    fn write(&self, emulator: &Emulator, forward_secret: Option<&Secret>) -> io::Result<()> {
        let saved = SavedCredentials {
            account_sid: emulator.account_sid().to_string(),
            auth_token: emulator.auth_token().expose().to_owned(),
            forward_secret: forward_secret.map(|secret| secret.expose().to_owned()),
        };
        let temp_file = self
            .0
            .with_extension(format!("{}.part", std::process::id()));
        // Of a process with the same ID that was killed.
        let _ = fs::remove_file(&temp_file);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp_file)?;
        let renamed = file
            .write_all(&serde_json::to_vec(&saved)?)
            .and_then(|()| fs::rename(&temp_file, &self.0));
        if renamed.is_err() {
            let _ = fs::remove_file(&temp_file);
        }
        renamed
    }
}
