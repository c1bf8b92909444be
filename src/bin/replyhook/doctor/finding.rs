//! Findings, each with its remedy, and their output.

use serde_json::json;

use crate::{print, printable};

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
    pub(super) ending: Severity,
    pub(super) found: String,
    /// Remedy; `None` for [`Severity::Ok`].
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            ending: Severity::Ok,
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
        ending: Severity,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            ending,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Prints each finding immediately, so that an operator sees at which check a broken deployment hangs.
pub(super) struct Report {
    json: bool,
    found_something: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            found_something: false,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) -> anyhow::Result<()> {
        let Finding {
            check,
            ending,
            found,
            remedy,
        } = finding;
        self.found_something |= matches!(ending, Severity::Warn | Severity::Fail);
        let found = one_line(&found);
        let remedy = remedy.map(|remedy| one_line(&remedy));
        if self.json {
            let result = match ending {
                Severity::Ok => "ok",
                Severity::Note => "note",
                Severity::Warn => "warn",
                Severity::Fail => "fail",
            };
            let line = json!({"check": check, "result": result, "found": found, "remedy": remedy});
            return print(&format!("{line}\n"));
        }
        let word = match ending {
            Severity::Ok => "ok  ",
            Severity::Note => "note",
            Severity::Warn => "warn",
            Severity::Fail => "FAIL",
        };
        let remedy = remedy.map(|remedy| format!("     {remedy}\n"));
        print(&format!(
            "{word} {check}: {found}\n{}",
            remedy.unwrap_or_default()
        ))
    }

    pub(super) fn found_something(&self) -> bool {
        self.found_something
    }
}

/// Puts a text on one line, without control characters.
fn one_line(text: &str) -> String {
    // Findings quote responses of unknown servers, which could otherwise forge further findings.
    printable(text).replace(['\n', '\t'], " ")
}
