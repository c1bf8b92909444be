//! Findings, each with its remedy, and their output.
#![cfg(feature = "emulator")]

use serde_json::json;

use crate::print::{print, printable};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Correct.
    Ok,
    /// Not checked, or not this server's.
    Note,
    /// Works, but is probably not intended.
    Warn,
    /// Messages or replies are lost.
    Fail,
}

/// The result of a check, with a remedy unless it is correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) severity: Severity,
    pub(crate) found: String,
    /// Remedy; `None` for [`Severity::Ok`].
    pub(crate) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            severity: Severity::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    pub(crate) fn note(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Severity::Note, found, remedy)
    }

    pub(crate) fn warn(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Severity::Warn, found, remedy)
    }

    pub(crate) fn fail(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Severity::Fail, found, remedy)
    }

    /// Creates a finding that is correct, or one that fails with this text and remedy.
    pub(crate) fn from_result(
        check: &'static str,
        result: Result<String, (String, &'static str)>,
    ) -> Self {
        match result {
            Ok(found) => Self::ok(check, found),
            Err((found, remedy)) => Self::fail(check, found, remedy),
        }
    }

    fn new(
        check: &'static str,
        severity: Severity,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            severity,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Prints each finding immediately, so that an operator sees at which check a broken deployment hangs.
pub(crate) struct Report {
    json: bool,
    /// Number of findings, by [`Severity`].
    counts: [usize; 4],
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            counts: [0; 4],
        }
    }

    pub(crate) fn add(&mut self, finding: Finding) -> anyhow::Result<()> {
        let Finding {
            check,
            severity,
            found,
            remedy,
        } = finding;
        self.counts[severity as usize] += 1;
        let found = one_line(&found);
        let remedy = remedy.map(|remedy| one_line(&remedy));
        if self.json {
            let result = match severity {
                Severity::Ok => "ok",
                Severity::Note => "note",
                Severity::Warn => "warn",
                Severity::Fail => "fail",
            };
            let line = json!({"check": check, "result": result, "found": found, "remedy": remedy});
            return print(&format!("{line}\n"));
        }
        let label = match severity {
            Severity::Ok => "ok  ",
            Severity::Note => "note",
            Severity::Warn => "warn",
            Severity::Fail => "FAIL",
        };
        let remedy = remedy.map(|remedy| format!("     {remedy}\n"));
        print(&format!(
            "{label} {check}: {found}\n{}",
            remedy.unwrap_or_default()
        ))
    }

    pub(crate) fn has_problems(&self) -> bool {
        self.count(Severity::Warn) + self.count(Severity::Fail) > 0
    }

    /// Returns the number of findings with this severity.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.counts[severity as usize]
    }
}

/// Puts a text on one line, without control characters.
fn one_line(text: &str) -> String {
    // Findings quote responses of unknown servers, which could otherwise forge further findings.
    printable(text).replace(['\n', '\t'], " ")
}

/// Returns the question about a status with which a server rejects a signed webhook of the emulator.
#[cfg(feature = "emulator")]
pub(crate) fn rejection_question(status: Option<u64>) -> Option<&'static str> {
    match status? {
        401 | 403 => Some(
            "does the server verify with the TWILIO_AUTH_TOKEN of `replyhook dev`, and with the URL that was called?",
        ),
        404 | 405 => Some("does the server have a POST route with the path of this URL?"),
        _ => None,
    }
}
