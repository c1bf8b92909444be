//! The option for the settings file.

use std::path::PathBuf;

use clap::Args;
use replyhook::config::Sources;

/// The option for the settings file.
#[derive(Args)]
pub(crate) struct SettingsArgs {
    /// Settings file [default: replyhook.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl SettingsArgs {
    /// Returns the path of the settings file, which need not exist.
    #[cfg(feature = "emulator")]
    pub(crate) fn file(&self) -> PathBuf {
        let file = self.config.as_deref();
        file.unwrap_or(std::path::Path::new("replyhook.toml"))
            .to_owned()
    }

    pub(crate) fn sources(&self) -> Sources {
        let sources = Sources::from_env();
        match &self.config {
            Some(file) => sources.with_file(file),
            None => sources,
        }
    }
}
