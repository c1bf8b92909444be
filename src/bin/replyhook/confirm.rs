//! Confirmation of an operation that cannot be undone.

use std::io::{IsTerminal, Write};

use anyhow::bail;

/// Asks a question on the terminal, and returns true for yes. `operation` completes "this …", for the error.
///
/// # Errors
/// Without a terminal: a script must not do this by accident.
pub(crate) fn confirm(question: &str, operation: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("this {operation}, and standard input is not a terminal to confirm on; use --yes");
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
