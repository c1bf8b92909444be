//! The section `[media]`: storage of received media.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::layers::{Layers, quoted};
use super::problem::Problems;
use super::reader::SettingsReader;
use super::sources::Sources;
use crate::twilio::media::HostPattern;

/// The settings of the `[media]` section.
///
/// Loaded in the same way as [`StoreSettings`](super::StoreSettings), which has an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MediaSettings {
    /// Folder that received media are saved in; `None` saves nothing.
    pub save_dir: Option<PathBuf>,
    /// Deletes a file at Twilio after it has been saved.
    pub delete_after_save: bool,
    /// Maximum size of the folder in bytes.
    pub save_quota: u64,
    /// Hosts that Twilio's media redirects may lead to, in addition to Twilio's own.
    pub(crate) allowed_redirect_hosts: Vec<HostPattern>,
}

impl MediaSettings {
    /// Reads only `[media]`, for a command that works on the saved media of a running server.
    ///
    /// # Errors
    /// All [`Problems`] together.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = SettingsReader::new(&layers, problems);
        let media = media(&mut reader);
        let (problems, _) = reader.finish();
        media.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

pub(super) fn media(reader: &mut SettingsReader<'_>) -> Option<MediaSettings> {
    let save_dir = reader.text("media.save_dir").trim();
    let save_dir = (!save_dir.is_empty()).then(|| reader.layers.directory.join(save_dir));
    let delete_after_save = reader.flag("media.delete_after_save")?;
    if delete_after_save && save_dir.is_none() {
        reader.problem(
            "media.delete_after_save",
            "deletes only saved media, and media.save_dir is not set: set it, or leave this key out",
        );
        return None;
    }
    // A folder that does not exist yet is valid.
    if let Some(folder) = save_dir
        .as_ref()
        .filter(|folder| folder.exists() && !folder.is_dir())
    {
        let path = super::sources::display_path(folder);
        reader.problem(
            "media.save_dir",
            format!("names {path}, which is not a folder"),
        );
        return None;
    }
    if let Some(folder) = &save_dir
        && let Ok(metadata) = folder.metadata()
        && metadata.mode() & 0o077 != 0
    {
        // Users' files: a folder with permissions for group or others is suspicious, but may be intended.
        let (mode, path) = (
            metadata.mode() & 0o777,
            super::sources::display_path(folder),
        );
        reader.warn(
            "media.save_dir",
            format!("names {path}, which other users of this machine may enter (mode {mode:o}): chmod 700 {path}"),
        );
    }
    let quota = reader.number("media.save_quota_mib", 1..=1_048_576);
    let hosts = hosts(reader);
    Some(MediaSettings {
        save_dir,
        delete_after_save,
        save_quota: u64::try_from(quota?).ok()? * 1024 * 1024,
        allowed_redirect_hosts: hosts?,
    })
}

fn hosts(reader: &mut SettingsReader<'_>) -> Option<Vec<HostPattern>> {
    const KEY: &str = "media.allowed_redirect_hosts";
    let mut hosts = Vec::new();
    for text in reader.list(KEY) {
        let Some(host) = HostPattern::parse(&text) else {
            reader.problem(
                KEY,
                format!(
                    "has {}, which is not a host name: write names such as [\"cdn.example.com\", \"*.example.org\"]",
                    quoted(&text)
                ),
            );
            return None;
        };
        hosts.push(host);
    }
    Some(hosts)
}
