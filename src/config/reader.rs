//! Typed access to the layers. A value of the wrong form becomes a problem.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;

use super::layers::{self, Layers, SettingEntry, quoted};
use super::problem::{Problem, Problems, Warning};
use super::sources::display_path;
use crate::sid::AccountSid;
use replyhook_core::Secret;

/// Reads values, and collects problems and warnings.
pub(super) struct SettingsReader<'a> {
    pub(super) layers: &'a Layers,
    problems: Problems,
    warnings: Vec<Warning>,
    /// Secrets that were read, by key.
    secrets: BTreeMap<String, Secret>,
}

impl<'a> SettingsReader<'a> {
    pub(super) fn new(layers: &'a Layers, problems: Problems) -> Self {
        Self {
            layers,
            problems,
            warnings: Vec::new(),
            secrets: BTreeMap::new(),
        }
    }

    pub(super) fn finish(self) -> (Problems, Vec<Warning>) {
        // Report only the unreadable file: it may contain the settings that other problems call missing.
        if let Some(problem) = &self.layers.file_problem {
            return (Problems::only(problem.clone()), Vec::new());
        }
        (self.problems, self.warnings)
    }

    /// Returns the secrets that were read so far, by key.
    pub(super) fn take_secrets(&mut self) -> BTreeMap<String, Secret> {
        std::mem::take(&mut self.secrets)
    }

    /// Records a problem with a key.
    pub(super) fn problem(&mut self, key: &str, text: impl std::fmt::Display) {
        let origin = self.origin(key);
        self.problems.push(key, origin, text);
    }

    /// Records a warning about a key.
    pub(super) fn warn(&mut self, key: &str, text: impl std::fmt::Display) {
        let origin = self.origin(key);
        self.warnings.push(Problem {
            key: key.to_owned(),
            origin,
            text: text.to_string(),
        });
    }

    /// Records a problem with a value that is not in the layers, such as `PORT`.
    pub(super) fn problem_at(&mut self, key: &str, origin: &str, text: impl std::fmt::Display) {
        self.problems.push(key, origin, text);
    }

    /// Returns the number of problems so far.
    pub(super) fn problem_count(&self) -> usize {
        self.problems.iter().count()
    }

    fn origin(&self, key: &str) -> String {
        self.layers
            .get(key)
            .map_or_else(|| "not set".to_owned(), |entry| entry.origin.clone())
    }

    /// Returns a text, which is empty if the key is not set.
    pub(super) fn text(&self, key: &str) -> &'a str {
        self.layers
            .get(key)
            .and_then(|entry| entry.value.as_str())
            .unwrap_or_default()
    }

    /// Returns the trimmed texts of a list, without empty ones.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let mut items = self.items(key);
        items.retain(|text| !text.is_empty());
        items
    }

    /// Returns the trimmed texts of a list. Those of an environment variable are never empty.
    pub(super) fn items(&self, key: &str) -> Vec<String> {
        let values = self
            .layers
            .get(key)
            .and_then(|entry| entry.value.as_array());
        values
            .into_iter()
            .flatten()
            .filter_map(|value| value.as_str())
            .map(|text| text.trim().to_owned())
            .collect()
    }

    /// Returns true if neither the operator nor the program's options have set the key.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.layers
            .get(key)
            .is_none_or(|entry| entry.origin == "default")
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.layers.get(key)?.value.as_bool()
    }

    /// Returns a whole number, or records a problem if it is out of range.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.layers.get(key)?.value.as_integer()?;
        if range.contains(&value) {
            return Some(value);
        }
        self.problem(
            key,
            format!(
                "is {value}: write a number from {} to {}",
                range.start(),
                range.end()
            ),
        );
        None
    }

    /// Returns a [`number`](Self::number) as a count.
    pub(super) fn count(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<usize> {
        self.number(key, range)
            .and_then(|value| usize::try_from(value).ok())
    }

    /// Returns a [`number`](Self::number) of milliseconds.
    pub(super) fn millis(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<Duration> {
        self.number(key, range)
            .and_then(|value| u64::try_from(value).ok())
            .map(Duration::from_millis)
    }

    /// Reads a time of up to 30 days, such as `24h`.
    pub(super) fn time(&mut self, key: &str) -> Option<Duration> {
        const MAX: Duration = Duration::from_hours(720);
        let text = self.text(key);
        let time: Option<SignedDuration> = text.parse().ok();
        // A negative time does not convert.
        let time = time.and_then(|time| Duration::try_from(time).ok());
        let time = time.filter(|time| (Duration::from_secs(1)..=MAX).contains(time));
        if time.is_none() {
            self.problem(
                key,
                format!(
                    "is {}: write a time up to \"720h\", as in \"24h\" or \"90m\"",
                    quoted(text)
                ),
            );
        }
        time
    }

    /// Returns the value of the word that is set, or records a problem that lists all words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key);
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        let choices = match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        self.problem(key, format!("is {}: write {choices}", quoted(text)));
        None
    }

    /// Returns an `ADDRESS:PORT`, or records a problem.
    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let text = self.text(key);
        let address = text.parse().ok();
        if address.is_none() {
            self.problem(
                key,
                format!(
                    "is {}: write ADDRESS:PORT, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
                    quoted(text)
                ),
            );
        }
        address
    }

    /// Returns the account SID that is the text of a key, or records a problem.
    pub(super) fn account_sid(&mut self, key: &str, text: &str) -> Option<AccountSid> {
        let sid = AccountSid::parse(text.trim());
        if let Err(error) = sid {
            // Do not quote the value: it may be an auth token in the wrong place.
            self.problem(key, format!("is {error}"));
        }
        sid.ok()
    }

    /// Returns a secret from its key, or from the file that `<key>_file` names.
    ///
    /// Returns `None` without a problem if neither is set, and `None` with a problem if the secret is unusable.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let secret = self.read_secret(key)?;
        self.secrets.insert(key.to_owned(), secret.clone());
        Some(secret)
    }

    fn read_secret(&mut self, key: &str) -> Option<Secret> {
        let file_key = format!("{key}_file");
        // Set by the operator, even if to an empty text.
        let find_configured = |key: &str| {
            self.layers
                .get(key)
                .filter(|entry| entry.origin != "default")
        };
        let text = self.text(key).to_owned();
        let file = self.text(&file_key).to_owned();
        // A file takes the place of a default, as that of `replyhook dev`.
        if !text.is_empty() && !file.is_empty() && find_configured(key).is_some() {
            self.problem(
                key,
                format!("and {file_key} are both set: keep one of them"),
            );
            return None;
        }
        if file.is_empty() {
            // Set but empty is a deployment mistake, such as a variable that did not expand. Not set is valid here.
            if let Some(SettingEntry { origin, .. }) = find_configured(key)
                .filter(|_| text.trim().is_empty())
                .filter(|_| find_configured(&file_key).is_none())
            {
                let text = if key.ends_with("auth_token") || key.contains("auth_token_") {
                    "is empty: with an empty token anyone could sign; set it or leave it out"
                } else {
                    "is empty: set it or leave it out"
                };
                self.problems.push(key, origin, text);
                return None;
            }
            return (!text.is_empty()).then(|| self.trim_secret(key, &text));
        }
        // `join` keeps an absolute path as it is.
        let path = self.layers.directory.join(&file);
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.problem(
                    &file_key,
                    format!("names {}, which is empty", display_path(&path)),
                );
                None
            }
            // Editors end files with a line feed: do not warn about it.
            Ok(text) => Some(self.trim_secret(&file_key, text.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                self.report_unreadable(&file_key, &path, &error);
                None
            }
        }
    }

    fn trim_secret(&mut self, key: &str, text: &str) -> Secret {
        if text.trim().len() < text.len() {
            self.warn(key, "has white space around it, which was cut");
        }
        Secret::new(text.trim())
    }

    fn report_unreadable(&mut self, key: &str, path: &Path, error: &std::io::Error) {
        // The value may be the token itself, so the problem must not quote it.
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(layers::is_token)
        {
            return self.problem(
                key,
                "needs the name of a file, but its value looks like the token itself",
            );
        }
        self.problem(
            key,
            format!(
                "names {}, which cannot be read: {error}",
                display_path(path)
            ),
        );
    }
}
