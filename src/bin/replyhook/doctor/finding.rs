//! What was looked at, what was found, and what to do about it.

use serde_json::json;

use crate::{print, printable};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// As it should be.
    Ok,
    /// Was left out, or concerns others.
    Note,
    /// Works, and is probably not meant.
    Warn,
    /// Messages or replies are lost.
    Fail,
}

/// One line and the one below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) ending: Ending,
    pub(super) found: String,
    /// What to do; nothing where all is well.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            ending: Ending::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    pub(super) fn note(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Ending::Note, found, remedy)
    }

    pub(super) fn warn(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Ending::Warn, found, remedy)
    }

    pub(super) fn fail(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Ending::Fail, found, remedy)
    }

    fn new(
        check: &'static str,
        ending: Ending,
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

/// Prints each finding as soon as it is there: a deployment that hangs is watched.
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
        self.found_something |= matches!(ending, Ending::Warn | Ending::Fail);
        let found = one_line(&found);
        let remedy = remedy.map(|remedy| one_line(&remedy));
        if self.json {
            let result = match ending {
                Ending::Ok => "ok",
                Ending::Note => "note",
                Ending::Warn => "warn",
                Ending::Fail => "fail",
            };
            let line = json!({"check": check, "result": result, "found": found, "remedy": remedy});
            return print(&format!("{line}\n"));
        }
        let word = match ending {
            Ending::Ok => "ok  ",
            Ending::Note => "note",
            Ending::Warn => "warn",
            Ending::Fail => "FAIL",
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

/// Some of what is quoted comes from strangers.
fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}
