//! The option that names a rules file, which replaces two settings.

use std::path::{Path, PathBuf};

use clap::Args;
use replyhook::config::Sources;

/// The option that names a rules file.
#[derive(Args)]
pub(crate) struct HandlerArgs {
    /// Reply by the rules of this file, as with handler.kind = "rules"
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
}

impl HandlerArgs {
    /// Sets the handler, over the settings file and the environment.
    pub(crate) fn apply(&self, sources: &mut Sources) {
        if let Some(file) = self.rules.as_deref() {
            sources.fixed.insert("handler.kind", "rules".to_owned());
            sources.fixed.insert("handler.rules", text(file));
        }
    }
}

fn text(file: &Path) -> String {
    file.to_string_lossy().into_owned()
}
