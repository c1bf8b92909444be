//! Exit codes of commands.

/// The result of a command that worked: exit code 0 or 1.
pub(crate) enum ExitStatus {
    Yes,
    No,
}

/// Returns the exit code of a command that failed.
// `is` and `downcast_ref` look through `anyhow` contexts, so adding one keeps the exit code.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<replyhook::AppError>() {
        return error.exit_code();
    }
    if error.is::<Failed>() { 1 } else { 2 }
}

/// A failure of a command that was used correctly: exit code 1. Other errors exit with 2.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}
