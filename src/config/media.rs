//! `[media]`: files that messages bring.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::layers::{Layers, quoted};
use super::reader::Reader;
use super::{Problems, Sources};
use crate::twilio::media::HostPattern;

/// `[media]`
///
/// Read by itself: as in the example of [`StoreSettings`](super::StoreSettings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MediaSettings {
    /// The folder that files of messages are saved into, if they are.
    pub save: Option<PathBuf>,
    /// Whether a file is deleted at Twilio once it is saved.
    pub delete_after_save: bool,
    /// Bytes that the folder may hold.
    pub quota: u64,
    /// Hosts beside Twilio's that its redirects to files may lead to.
    pub(crate) hosts: Vec<HostPattern>,
}

impl MediaSettings {
    /// Reads only `[media]`, for a command beside a running server.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let layers = Layers::read(sources, &mut problems);
        let mut reader = Reader::new(&layers, problems);
        let media = media(&mut reader);
        let (problems, _) = reader.finish();
        media.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

pub(super) fn media(reader: &mut Reader<'_>) -> Option<MediaSettings> {
    let save = reader.text("media.save_dir").trim();
    let save = (!save.is_empty()).then(|| reader.layers.directory.join(save));
    let delete_after_save = reader.flag("media.delete_after_save")?;
    if delete_after_save && save.is_none() {
        reader.problem(
            "media.delete_after_save",
            "deletes what was saved, and media.save_dir names no folder",
        );
        return None;
    }
    if let Some(folder) = save
        .as_ref()
        .filter(|folder| folder.exists() && !folder.is_dir())
    {
        let shown = super::shown(folder);
        reader.problem(
            "media.save_dir",
            format!("names {shown}, which is no folder"),
        );
        return None;
    }
    if let Some(folder) = &save
        && let Ok(about) = folder.metadata()
        && about.mode() & 0o077 != 0
    {
        let (mode, shown) = (about.mode() & 0o777, super::shown(folder));
        reader.warn(
            "media.save_dir",
            format!("names {shown}, which other users of this machine may enter (mode {mode:o}): chmod 700 {shown}"),
        );
    }
    let quota = reader.number("media.save_quota_mib", 1..=1_048_576);
    let hosts = hosts(reader);
    Some(MediaSettings {
        save,
        delete_after_save,
        quota: u64::try_from(quota?).ok()? * 1024 * 1024,
        hosts: hosts?,
    })
}

fn hosts(reader: &mut Reader<'_>) -> Option<Vec<HostPattern>> {
    const KEY: &str = "media.allowed_redirect_hosts";
    let mut hosts = Vec::new();
    for text in reader.list(KEY) {
        let Some(host) = HostPattern::parse(&text) else {
            reader.problem(
                KEY,
                format!(
                    "has {}, which is no name of a host: write names such as [\"cdn.example.com\", \"*.example.org\"]",
                    quoted(&text)
                ),
            );
            return None;
        };
        hosts.push(host);
    }
    Some(hosts)
}
