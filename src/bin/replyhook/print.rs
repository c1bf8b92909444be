//! Output to standard output.

use std::io::Write;

/// Writes to standard output. A closed pipe, as with `| head`, is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    try_print(text).map(|_| ())
}

/// Writes to standard output, and returns false if the pipe is closed.
pub(crate) fn try_print(text: &str) -> anyhow::Result<bool> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// Returns a text of a third party with control characters replaced.
pub(crate) fn printable(text: &str) -> String {
    // Escape sequences could change the terminal's state, or hide other output.
    text.trim_end()
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{FFFD}'
            } else {
                c
            }
        })
        .collect()
}
