//! Differences between two readings of the settings, and the keys that a reload applies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toml::Value;

use super::handler::EVENTS_URL;
use super::layers::{ACCOUNTS_PREFIX, Layers, SHARED_KEYS_PREFIX};
use replyhook_core::Secret;

/// Keys that a reload applies, in addition to those that begin with one of [`RELOADED_PREFIXES`], and [`EVENTS_URL`].
// The counterpart of `Settings::with_reloaded`, which takes their values over.
const RELOADED: [&str; 16] = [
    "twilio.auth_token",
    "twilio.auth_token_secondary",
    "twilio.account_sid",
    "twilio.api_key_sid",
    "twilio.api_key_secret",
    "consent.stop_words",
    "consent.start_words",
    "consent.stop_reply",
    "consent.start_reply",
    "guard.loop_detection",
    "guard.messages_per_user_per_minute",
    "guard.own_numbers",
    "guard.allow",
    "guard.block",
    "guard.refusal",
    LOG_LEVEL,
];
const RELOADED_PREFIXES: [&str; 2] = [ACCOUNTS_PREFIX, SHARED_KEYS_PREFIX];
/// The key of [`LogSettings::level`](super::LogSettings::level).
pub(crate) const LOG_LEVEL: &str = "log.level";

/// Value of every key, with secrets as they were read from their files.
#[derive(Clone)]
pub(crate) struct SettingValues(BTreeMap<String, SettingValue>);

#[derive(Clone)]
enum SettingValue {
    Plain(Value),
    Hidden(Secret),
}

/// Keys that differ between two readings, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangedKeys {
    /// Keys that a reload applies.
    pub(crate) reloaded: Vec<String>,
    /// Keys that take effect after a restart.
    pub(crate) after_restart: Vec<String>,
}

/// Hides all values, which may be secrets.
impl fmt::Debug for SettingValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl SettingValues {
    /// Collects the values of all layers. `secrets` are those that were read, by key, and stand for the key with and
    /// without `_file`.
    // The secrets as the reader got them: reading a file again could return a token that this process does not use.
    pub(super) fn new(layers: &Layers, secrets: BTreeMap<String, Secret>) -> Self {
        let is_read = |key: &str| {
            let name = key.strip_suffix("_file").unwrap_or(key);
            secrets.contains_key(key) || secrets.contains_key(name)
        };
        let plain = layers.entries().filter(|(key, _)| !is_read(key));
        let plain = plain.map(|(key, value)| (key.clone(), SettingValue::Plain(value.clone())));
        let mut values: BTreeMap<_, _> = plain.collect();
        let hidden = secrets.into_iter();
        values.extend(hidden.map(|(key, secret)| (key, SettingValue::Hidden(secret))));
        // A key that is missing equals one that is empty.
        values.retain(|_, value| !value.is_empty());
        Self(values)
    }

    /// Returns the keys whose values differ from those of `new`.
    pub(crate) fn changes(&self, new: &Self) -> ChangedKeys {
        let mut changed = ChangedKeys::default();
        let removed = self.0.keys().filter(|key| !new.0.contains_key(*key));
        let differing = new
            .0
            .iter()
            .filter(|(key, value)| self.0.get(*key).is_none_or(|known| !known.is_same(value)));
        let mut keys: Vec<_> = removed.chain(differing.map(|(key, _)| key)).collect();
        keys.sort();
        for key in keys {
            let list = if self.is_reloaded(new, key) {
                &mut changed.reloaded
            } else {
                &mut changed.after_restart
            };
            list.push(key.clone());
        }
        changed
    }

    /// Takes over the values of `new` that a reload applies.
    pub(crate) fn apply_reloaded(&mut self, new: &Self) {
        let keys = self.0.keys().chain(new.0.keys());
        let keys = keys.filter(|key| self.is_reloaded(new, key));
        let keys: BTreeSet<_> = keys.cloned().collect();
        for key in keys {
            match new.0.get(&key) {
                Some(value) => self.0.insert(key, value.clone()),
                None => self.0.remove(&key),
            };
        }
    }

    /// Returns whether a reload with the values of `new` applies a key.
    fn is_reloaded(&self, new: &Self, key: &str) -> bool {
        // The store records events, or not, from its opening on.
        let has_events = self.0.contains_key(EVENTS_URL) && new.0.contains_key(EVENTS_URL);
        is_reloaded(key) || (key == EVENTS_URL && has_events)
    }
}

impl SettingValue {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Plain(Value::String(text)) if text.is_empty())
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(value), Self::Plain(other)) => value == other,
            (Self::Hidden(secret), Self::Hidden(other)) => secret.expose() == other.expose(),
            _ => false,
        }
    }
}

fn is_reloaded(key: &str) -> bool {
    RELOADED.contains(&key)
        || RELOADED_PREFIXES
            .iter()
            .any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DEFAULT_TOML, Loaded, Settings, Sources};

    const ACCOUNT: &str = "AC00000000000000000000000000000001";

    fn load(file: &str) -> Loaded {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let sources = Sources::default()
            .with_file(path.path())
            .with_env([("PUBLIC_URL", "https://bot.example.com")]);
        Settings::load(&sources).unwrap()
    }

    fn token(digit: char) -> String {
        digit.to_string().repeat(32)
    }

    #[test]
    fn changed_keys_are_those_whose_effective_value_differs() {
        let folder = tempfile::tempdir().unwrap();
        let secret_file = folder.path().join("token");
        std::fs::write(&secret_file, token('a')).unwrap();
        let by_file = format!("[twilio]\nauth_token_file = {secret_file:?}\n");
        let old = load(&by_file);
        // The same token, from another place.
        let same = load(&format!("[twilio]\nauth_token = \"{}\"\n", token('a')));
        assert_eq!(old.values.changes(&same.values), ChangedKeys::default());
        std::fs::write(&secret_file, token('b')).unwrap();
        let text = format!(
            "{by_file}[twilio.accounts.{ACCOUNT}]\nauth_token = \"{}\"\n[server]\nmax_params = 33\n\
             [handler]\nforward_secret = \"secret one\"\n",
            token('c')
        );
        let new = load(&text);
        let changed = old.values.changes(&new.values);
        let account_key = format!("twilio.accounts.{ACCOUNT}.auth_token");
        assert_eq!(
            changed.reloaded,
            [account_key.as_str(), "twilio.auth_token"]
        );
        assert_eq!(
            changed.after_restart,
            ["handler.forward_secret", "server.max_params"]
        );
        let other = load(&text.replace("secret one", "secret two"));
        assert_eq!(
            new.values.changes(&other.values).after_restart,
            ["handler.forward_secret"]
        );
        let removed = new.values.changes(&old.values);
        assert_eq!(
            removed.reloaded,
            [account_key.as_str(), "twilio.auth_token"]
        );
        let mut applied = old.values.clone();
        applied.apply_reloaded(&new.values);
        let left = applied.changes(&new.values);
        assert!(left.reloaded.is_empty());
        assert_eq!(
            left.after_restart,
            ["handler.forward_secret", "server.max_params"]
        );
        assert!(!format!("{:?}", new.values).contains("secret one"));
    }

    #[test]
    fn reloaded_keys_exist() {
        let defaults: toml::Table = DEFAULT_TOML.parse().unwrap();
        for key in RELOADED {
            let (section, name) = key.split_once('.').unwrap();
            assert!(defaults[section].get(name).is_some(), "{key}");
        }
    }
}
