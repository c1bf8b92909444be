//! Findings, each with its remedy, and their output.

use serde_json::json;

use crate::print::{print, printable};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
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
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    pub(super) found: String,
    /// Remedy; `None` for [`Severity::Ok`].
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            severity: Severity::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    pub(super) fn note(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Severity::Note, found, remedy)
    }

    pub(super) fn warn(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Severity::Warn, found, remedy)
    }

    pub(super) fn fail(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Severity::Fail, found, remedy)
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
pub(super) struct Report {
    json: bool,
    has_problems: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            has_problems: false,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) -> anyhow::Result<()> {
        let Finding {
            check,
            severity,
            found,
            remedy,
        } = finding;
        self.has_problems |= matches!(severity, Severity::Warn | Severity::Fail);
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

    pub(super) fn has_problems(&self) -> bool {
        self.has_problems
    }
}

/// Puts a text on one line, without control characters.
fn one_line(text: &str) -> String {
    // Findings quote responses of unknown servers, which could otherwise forge further findings.
    printable(text).replace(['\n', '\t'], " ")
}
