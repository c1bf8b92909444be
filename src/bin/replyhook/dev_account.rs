//! Account SID, auth token and forward secret of `replyhook dev`, kept in a file so that a bot's settings stay valid.
//!
//! The file is in the user's state folder and not in the working directory: there it would reach version control, a
//! container image or an archive of the bot.
#![cfg(feature = "emulator")]

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use replyhook::Secret;
use replyhook::emulator::Emulator;
use replyhook::sid::AccountSid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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

/// The file for the working directory of `dev`; `None` if the user has no state folder.
pub(crate) struct DevAccount(Option<PathBuf>);

impl DevAccount {
    /// Returns the file in `$XDG_STATE_HOME/replyhook/dev`, or in `~/.local/state/replyhook/dev`.
    ///
    /// # Errors
    /// The working directory does not exist.
    pub(crate) fn new(env: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let folder = |name| {
            let path = env.get(name).map(PathBuf::from);
            // As the XDG specification has it: a relative path is ignored.
            path.filter(|path| path.is_absolute())
        };
        let state = folder("XDG_STATE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/state")));
        let directory = fs::canonicalize(".").context("the working directory cannot be read")?;
        // A hash, because a path may be too long for a file name.
        let hash = Sha256::digest(directory.as_os_str().as_bytes());
        let number = hash[..8]
            .iter()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let name = format!("{number:016x}");
        Ok(Self(state.map(|state| {
            state.join(format!("replyhook/dev/{name}.json"))
        })))
    }

    /// Reads the credentials, which are empty without a file.
    ///
    /// # Errors
    /// The file is not one that [`save`](Self::save) has written, or belongs to another user.
    pub(crate) fn load(&self) -> anyhow::Result<DevCredentials> {
        let Some(file) = &self.0 else {
            return Ok(DevCredentials::default());
        };
        let advice = || {
            format!(
                "{} cannot be used; delete it, or start with --new-credentials",
                file.display()
            )
        };
        let metadata = match fs::symlink_metadata(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(DevCredentials::default());
            }
            metadata => metadata.with_context(advice)?,
        };
        // A user who made the file knows the token, and can sign requests to the bot.
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        ensure!(metadata.is_file() && is_own, "{}: not your file", advice());
        let others = metadata.mode() & 0o077;
        let is_private = others == 0;
        ensure!(
            is_private,
            "{}: other users may read or change it",
            advice()
        );
        let bytes = fs::read(file).with_context(advice)?;
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
        let Some(file) = &self.0 else {
            return Some(
                "the next start has other credentials: neither HOME nor XDG_STATE_HOME is set"
                    .to_owned(),
            );
        };
        let error = write(file, emulator, forward_secret).err()?;
        Some(format!(
            "the next start has other credentials: {}: {error}",
            file.display()
        ))
    }
}

/// Writes the file atomically: another `dev` may read it at the same time.
fn write(file: &Path, emulator: &Emulator, forward_secret: Option<&Secret>) -> io::Result<()> {
    let saved = SavedCredentials {
        account_sid: emulator.account_sid().to_string(),
        auth_token: emulator.auth_token().expose().to_owned(),
        forward_secret: forward_secret.map(|secret| secret.expose().to_owned()),
    };
    if let Some(folder) = file.parent() {
        // Only for their owner, like the file.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let temp_file = file.with_extension(format!("{}.part", std::process::id()));
    // Of a process with the same ID that was killed.
    let _ = fs::remove_file(&temp_file);
    let mut options = OpenOptions::new();
    let mut part = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temp_file)?;
    let renamed = part
        .write_all(&serde_json::to_vec(&saved)?)
        .and_then(|()| fs::rename(&temp_file, file));
    if renamed.is_err() {
        let _ = fs::remove_file(&temp_file);
    }
    renamed
}
