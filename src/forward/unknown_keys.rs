//! Log of unknown keys in JSON from a service or a client.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::lock::IgnorePoison;

/// Maximum number of unknown keys to log. The set of logged keys cannot grow beyond it.
const MAX_LOGGED_KEYS: usize = 32;
/// Maximum number of keys of a shape that are logged.
const MAX_SHAPE_KEYS: usize = 10;
/// Maximum length in bytes of a key that is logged by its name.
const MAX_KEY_BYTES: usize = 40;

/// The unknown keys and shapes that were logged, so that each is logged once.
#[derive(Default)]
pub(crate) struct UnknownKeyLog(Mutex<BTreeSet<String>>);

impl UnknownKeyLog {
    /// Returns the keys that were not logged before, and records them.
    pub(crate) fn record_new(&self, keys: BTreeSet<String>) -> Vec<String> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mut logged = self.0.lock().ignore_poison();
        let is_new = |key: &String| logged.len() < MAX_LOGGED_KEYS && logged.insert(key.clone());
        keys.into_iter().map(loggable).filter(is_new).collect()
    }

    /// Returns the parts that were not logged before, and records them.
    // Needs no maximum: the names are few and fixed.
    pub(super) fn record_new_parts(&self, parts: BTreeSet<&'static str>) -> Vec<&'static str> {
        if parts.is_empty() {
            return Vec::new();
        }
        let mut logged = self.0.lock().ignore_poison();
        let is_new = |part: &&str| logged.insert(format!("left out: {part}"));
        parts.into_iter().filter(is_new).collect()
    }

    /// Returns the names of a response's keys as one text, unless a response with the same keys was logged before.
    pub(super) fn record_new_shape(&self, keys: BTreeSet<String>) -> Option<String> {
        let keys: BTreeSet<_> = keys
            .into_iter()
            .take(MAX_SHAPE_KEYS)
            .map(loggable)
            .collect();
        let shape = Vec::from_iter(keys).join(", ");
        let mut logged = self.0.lock().ignore_poison();
        // In braces, which no key has here: a shape of one key is not the key itself.
        let is_new = logged.len() < MAX_LOGGED_KEYS && logged.insert(format!("{{{shape}}}"));
        is_new.then_some(shape)
    }
}

/// Returns a key that looks like a program's, and a text in place of any other one, which may be content, such as a
/// phone number.
pub(super) fn loggable(key: String) -> String {
    if is_plain_name(&key) {
        key
    } else {
        "(not a plain name)".to_owned()
    }
}

fn is_plain_name(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES
        && key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}
