//! The layers of settings, each value with its origin: default < file < `REPLYHOOK__…` < the short names.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::problem::{Problem, Problems};
use super::sources::{DEFAULT_FILE, DEFAULT_TOML, Sources, display_path};
use crate::spelling::nearest;
use replyhook_core::redact::{is_url, redacted_url};

/// Short environment names of keys, in addition to their `REPLYHOOK__` names.
const SHORT_NAMES: [(&str, &str); 8] = [
    ("TWILIO_AUTH_TOKEN", "twilio.auth_token"),
    ("TWILIO_AUTH_TOKEN_FILE", "twilio.auth_token_file"),
    ("TWILIO_AUTH_TOKEN_SECONDARY", "twilio.auth_token_secondary"),
    (
        "TWILIO_AUTH_TOKEN_SECONDARY_FILE",
        "twilio.auth_token_secondary_file",
    ),
    ("TWILIO_ACCOUNT_SID", "twilio.account_sid"),
    ("PUBLIC_URL", "server.public_url"),
    ("DATABASE_URL", "store.url"),
    ("DATABASE_URL_FILE", "store.url_file"),
];
/// Former and current names of keys that were renamed. A problem with an old key names the new one.
const RENAMED: [(&str, &str); 18] = [
    ("guard.loop", "guard.loop_detection"),
    (
        "guard.user_per_minute",
        "guard.messages_per_user_per_minute",
    ),
    ("handler.attempts", "handler.max_attempts"),
    ("handler.max_ms", "handler.timeout_ms"),
    ("handler.max_running", "handler.max_concurrent"),
    ("handover.ttl", "handoff.ttl"),
    ("media.hosts", "media.allowed_redirect_hosts"),
    ("media.quota_mib", "media.save_quota_mib"),
    ("media.save", "media.save_dir"),
    ("reply.apology", "reply.fallback_text"),
    ("reply.late_template", "reply.window_closed_template"),
    ("reply.merge_ms", "reply.debounce_ms"),
    ("reply.on_unknown", "outbound.on_unknown"),
    ("send.per_second", "outbound.rate_per_second"),
    ("server.drain_s", "server.shutdown_timeout_s"),
    ("server.max_head_bytes", "server.max_header_bytes"),
    ("server.max_target_bytes", "server.max_uri_bytes"),
    ("store.keep_bodies", "store.body_retention_days"),
];
const ENV_PREFIX: &str = "REPLYHOOK__";
const DEFAULT_ORIGIN: &str = "default";
/// Prefix of the keys of accounts, such as `<AccountSid>.auth_token`.
pub(super) const ACCOUNTS_PREFIX: &str = "twilio.accounts.";
/// Prefix of the keys `<ID>.secret`, `<ID>.secret_file` and `<ID>.account`.
pub(super) const SHARED_KEYS_PREFIX: &str = "signature.shared_keys.";
/// Sections whose tables have names of the operator: prefix of their keys, the keys of a table, and a hint.
const NAMED_TABLES: [(&str, &[&str], &str); 2] = [
    (
        ACCOUNTS_PREFIX,
        &[
            "auth_token",
            "auth_token_file",
            "api_key_sid",
            "api_key_secret",
            "api_key_secret_file",
        ],
        "; write twilio.accounts.<AccountSid>.auth_token, …auth_token_file, …api_key_sid, …api_key_secret or \
         …api_key_secret_file",
    ),
    (
        SHARED_KEYS_PREFIX,
        &["secret", "secret_file", "account"],
        "; write signature.shared_keys.<ID>.secret, …secret_file or …account",
    ),
];

/// A value and its origin.
#[derive(Debug, Clone)]
pub(super) struct SettingEntry {
    pub(super) value: Value,
    pub(super) origin: String,
    /// Precedence: 0 default, 1 file, 2 `REPLYHOOK__…`, 3 short name, 4 [`Sources::fixed`].
    rank: u8,
}

/// All known keys, with their values.
#[derive(Debug)]
pub(super) struct Layers {
    entries: BTreeMap<String, SettingEntry>,
    /// Keys and origins of tables below [`NAMED_TABLES`] that are empty in the file.
    pub(super) empty_tables: BTreeMap<String, String>,
    /// The problem of a file that cannot be read or is not TOML.
    pub(super) file_problem: Option<Problem>,
    /// True if a file was read.
    pub(super) has_file: bool,
    /// Folder of the settings file, which relative paths start from.
    pub(super) directory: PathBuf,
    /// `FLY_APP_NAME`, which Fly sets in its machines.
    pub(super) fly_app: Option<String>,
    /// `PORT`. Kept apart from `server.listen`, of which it replaces only the port.
    pub(super) port: Option<SettingEntry>,
    /// Spelling of each named table, by its prefix and name in lower case. There may be thousands of accounts.
    table_names: HashMap<String, String>,
}

impl Layers {
    pub(super) fn read(sources: &Sources, problems: &mut Problems) -> Self {
        // The defaults come first: they define the known keys and the types that `set` and `convert` check.
        let mut entries = BTreeMap::new();
        let defaults: Table = DEFAULT_TOML
            .parse()
            .expect("the embedded defaults are TOML");
        walk("", &defaults, &mut |key, value| {
            entries.insert(
                key,
                SettingEntry {
                    value: value.clone(),
                    origin: DEFAULT_ORIGIN.to_owned(),
                    rank: 0,
                },
            );
        });
        let mut layers = Self {
            fly_app: None,
            entries,
            empty_tables: BTreeMap::new(),
            file_problem: None,
            has_file: false,
            directory: PathBuf::new(),
            port: None,
            table_names: HashMap::new(),
        };
        for (key, value) in &sources.defaults {
            layers.set_internal(key, value, DEFAULT_ORIGIN, 0, problems);
        }
        layers.read_file(sources, problems);
        layers.read_env(sources, problems);
        for (key, value) in &sources.fixed {
            layers.set_internal(key, value, "this command", 4, problems);
        }
        layers
    }

    pub(super) fn get(&self, key: &str) -> Option<&SettingEntry> {
        self.entries.get(key)
    }

    /// Returns every key with its value.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// Returns whether the key has a text that is not blank.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.get(key)
            .and_then(|entry| entry.value.as_str())
            .is_some_and(|text| !text.trim().is_empty())
    }

    /// Returns the account SIDs below `twilio.accounts`, sorted.
    pub(super) fn accounts(&self) -> Vec<String> {
        self.names_below(ACCOUNTS_PREFIX)
    }

    /// Returns the names of the tables below a prefix, sorted.
    pub(super) fn names_below(&self, prefix: &str) -> Vec<String> {
        let keys = self.entries.keys().chain(self.empty_tables.keys());
        let mut names: Vec<_> = keys
            .filter_map(|key| key.strip_prefix(prefix)?.split('.').next())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Returns the first key below a prefix.
    pub(super) fn first_key_below(&self, prefix: &str) -> Option<String> {
        let mut keys = self.entries.keys();
        keys.find(|key| key.starts_with(prefix)).cloned()
    }

    /// Returns key, masked value and origin of every setting.
    pub(super) fn effective(&self) -> Vec<(String, String, String)> {
        let describe = |(key, entry): (&String, &SettingEntry)| {
            let (mut value, mut origin) = (entry.value.clone(), entry.origin.clone());
            // Show the address that the server will listen on, not the one whose port `PORT` replaces.
            if key == "server.listen"
                && let (Some(text), Some(port)) = (value.as_str(), &self.port)
                && let Some((host, _)) = text.rsplit_once(':')
            {
                value = Value::String(format!(
                    "{host}:{}",
                    port.value.as_str().unwrap_or_default()
                ));
                origin = format!("{origin}, {}", port.origin);
            }
            (key.clone(), display_value(key, &value), origin)
        };
        self.entries.iter().map(describe).collect()
    }

    fn read_file(&mut self, sources: &Sources, problems: &mut Problems) {
        let (path, is_explicit) = match &sources.file {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_FILE), false),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            // The default file is optional; a file that was named must exist.
            Err(error) if !is_explicit && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                self.file_problem = Some(Problem {
                    key: "--config".to_owned(),
                    origin: display_path(path),
                    text: format!("cannot be read: {error}"),
                });
                return;
            }
        };
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                self.file_problem = Some(Problem {
                    key: "(file)".to_owned(),
                    origin: error_position(path, &text, &error),
                    text: format!("is not TOML: {}", syntax_error_message(&text, &error)),
                });
                return;
            }
        };
        self.has_file = true;
        self.directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let origin = display_path(path);
        self.add_empty_tables(&table, sources, &origin);
        walk("", &table, &mut |key, value| {
            if !sources.ignores(&key) {
                self.set(key, value.clone(), &origin, 1, problems);
            }
        });
    }

    /// Remembers empty tables of named sections, which have no key that could be reported.
    fn add_empty_tables(&mut self, file: &Table, sources: &Sources, origin: &str) {
        for (prefix, ..) in NAMED_TABLES {
            let mut path = prefix.trim_end_matches('.').split('.');
            let section = path.try_fold(file, |table, name| table.get(name)?.as_table());
            for (name, value) in section.into_iter().flatten() {
                let key = format!("{prefix}{name}");
                if value.as_table().is_some_and(Table::is_empty) && !sources.ignores(&key) {
                    self.empty_tables.insert(key, origin.to_owned());
                }
            }
        }
    }

    fn read_env(&mut self, sources: &Sources, problems: &mut Problems) {
        // In the order of precedence and not of names: `replace` clears a counterpart only if its rank is lower, so the
        // higher rank must come last. `DATABASE_URL` is before `REPLYHOOK__STORE__URL_FILE` in the alphabet.
        let (prefixed, short): (Vec<_>, Vec<_>) = sources
            .env
            .iter()
            .partition(|(name, _)| name.starts_with(ENV_PREFIX));
        for (name, value) in prefixed.into_iter().chain(short) {
            let origin = format!("environment variable {name}");
            if let Some((_, key)) = SHORT_NAMES.iter().find(|(known, _)| known == name) {
                if sources.ignores(key) {
                    continue;
                }
                self.set(
                    (*key).to_owned(),
                    Value::String(value.clone()),
                    &origin,
                    3,
                    problems,
                );
            } else if name == "FLY_APP_NAME" {
                self.fly_app = Some(value.clone()).filter(|name| !name.is_empty());
            } else if name == "PORT" && !sources.ignores("server.listen") {
                self.port = Some(SettingEntry {
                    value: Value::String(value.clone()),
                    origin,
                    rank: 3,
                });
            } else if let Some(rest) = name.strip_prefix(ENV_PREFIX) {
                let mut key = rest.to_lowercase().replace("__", ".");
                // `to_lowercase` above has changed the `AC` of an account SID as well: restore it.
                if let Some(account) = key
                    .strip_prefix(ACCOUNTS_PREFIX)
                    .and_then(|rest| rest.strip_prefix("ac"))
                {
                    key = format!("{ACCOUNTS_PREFIX}AC{account}");
                }
                // Before `convert`: a variable that is ignored must not cause a problem either.
                if sources.ignores(&key) {
                    continue;
                }
                match self.convert(&key, value) {
                    Ok(value) => self.set(key, value, &origin, 2, problems),
                    Err(expected) => problems.push(key, origin, format!("is not {expected}")),
                }
            }
        }
    }

    /// Sets a value of the program itself. Unlike [`set`](Self::set), does not check that the key is known.
    fn set_internal(
        &mut self,
        key: &str,
        text: &str,
        origin: &str,
        rank: u8,
        problems: &mut Problems,
    ) {
        match self.convert(key, text) {
            Ok(value) => self.replace(key.to_owned(), value, origin, rank),
            Err(expected) => problems.push(key, origin, format!("is not {expected}")),
        }
    }

    /// Converts a text to the type of its key's default. For a key without a default it stays a text.
    fn convert(&self, key: &str, text: &str) -> Result<Value, &'static str> {
        match self.entries.get(key).map(|entry| &entry.value) {
            Some(Value::Integer(_)) => text
                .trim()
                .parse()
                .map(Value::Integer)
                .map_err(|_| "a whole number"),
            Some(Value::Boolean(_)) => text
                .trim()
                .parse()
                .map(Value::Boolean)
                .map_err(|_| "true or false"),
            // An environment variable holds a single text, so commas separate the items of a list.
            Some(Value::Array(_)) => {
                let items = text.split(',').map(|item| item.trim().to_owned());
                let items = items.filter(|item| !item.is_empty());
                Ok(Value::Array(items.map(Value::String).collect()))
            }
            _ => Ok(Value::String(text.to_owned())),
        }
    }

    fn set(&mut self, key: String, value: Value, origin: &str, rank: u8, problems: &mut Problems) {
        let named_table = NAMED_TABLES
            .iter()
            .find(|(prefix, ..)| key.starts_with(prefix));
        if let Some((prefix, fields, _)) = named_table
            && let Some((name, field)) = key[prefix.len()..].split_once('.')
            && fields.contains(&field)
        {
            // Names are compared without case: environment keys have arrived here in lower case. Compare the name
            // alone: with another spelling, `replace` would not find the counterpart of this field.
            let table = format!("{prefix}{name}").to_ascii_lowercase();
            let name = self
                .table_names
                .entry(table)
                .or_insert_with(|| name.to_owned());
            let key = format!("{prefix}{name}.{field}");
            if !value.is_str() {
                return problems.push(key, origin, "is not a text in quotes");
            }
            self.replace(key, value, origin, rank);
            return;
        }
        let Some(known) = self.entries.get(&key) else {
            if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == key) {
                return problems.push(&key, origin, format!("is now called {new}"));
            }
            let hint = match (named_table, self.most_similar_key(&key)) {
                (Some((.., hint)), _) => (*hint).to_owned(),
                (None, Some(similar)) => format!("; did you mean {similar}?"),
                (None, None) => String::new(),
            };
            return problems.push(&key, origin, format!("is not a known key{hint}"));
        };
        if known.value.type_str() != value.type_str() {
            let expected = match known.value {
                Value::Integer(_) => "a whole number without quotes",
                Value::Boolean(_) => "true or false without quotes",
                Value::Array(_) => "a list in brackets, such as [\"a\", \"b\"]",
                _ => "a text in quotes",
            };
            let found = match value {
                Value::String(_) => "a text",
                Value::Integer(_) => "a number",
                Value::Boolean(_) => "true or false",
                Value::Array(_) => "a list",
                _ => "something else",
            };
            return problems.push(&key, origin, format!("is {found}, expected {expected}"));
        }
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        if !items.iter().all(Value::is_str) {
            let text = "has an item that is not a text in quotes";
            return problems.push(&key, origin, text);
        }
        self.replace(key, value, origin, rank);
    }

    fn replace(&mut self, key: String, value: Value, origin: &str, rank: u8) {
        // Equal rank replaces too: `Sources::defaults` have the rank of the embedded defaults.
        if self
            .entries
            .get(&key)
            .is_none_or(|entry| entry.rank <= rank)
        {
            // A secret and its `_file` are one setting: set in a higher layer, one clears the other of a lower layer.
            // Within one layer both stay, and `SettingsReader::secret` reports that.
            let counterpart = key
                .strip_suffix("_file")
                .map_or_else(|| format!("{key}_file"), str::to_owned);
            if let Some(counterpart) = self.entries.get_mut(&counterpart)
                && counterpart.rank < rank
                && value.as_str().is_some_and(|text| !text.is_empty())
            {
                counterpart.value = Value::String(String::new());
            }
            self.entries.insert(
                key,
                SettingEntry {
                    value,
                    origin: origin.to_owned(),
                    rank,
                },
            );
        }
    }

    /// Returns the known key that is most similar to a misspelled one.
    fn most_similar_key(&self, key: &str) -> Option<&str> {
        let known = || self.entries.keys().map(String::as_str);
        // For a value in place of a section: its shortest key.
        let of_section = || {
            let keys = known().filter(|known| {
                let rest = known.strip_prefix(key);
                rest.is_some_and(|rest| rest.starts_with('.'))
            });
            keys.min_by_key(|known| known.len())
        };
        // For a key in a wrong section.
        let of_other_section = || {
            let name = nearest(last_part(key), known().map(last_part))?;
            known().find(|known| last_part(known) == name)
        };
        nearest(key, known())
            .or_else(of_section)
            .or_else(of_other_section)
    }
}

impl Sources {
    /// Returns the names of environment variables that are set but match [`Sources::ignored`].
    pub fn ignored_env(&self) -> Vec<&str> {
        // An empty value means "not set".
        let names = self.env.iter().filter(|(_, value)| !value.is_empty());
        names
            .map(|(name, _)| name.as_str())
            .filter(|name| key_of_env_var(name).is_some_and(|key| self.ignores(&key)))
            .collect()
    }
}

/// Returns a key without its section.
fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Returns the key of an environment variable's short or `REPLYHOOK__` name.
fn key_of_env_var(name: &str) -> Option<String> {
    let known = SHORT_NAMES.iter().find(|(known, _)| *known == name);
    let prefixed = || {
        Some(
            name.strip_prefix(ENV_PREFIX)?
                .to_lowercase()
                .replace("__", "."),
        )
    };
    known.map(|(_, key)| (*key).to_owned()).or_else(prefixed)
}

/// Replacement for a secret. Its length does not depend on the secret's.
const MASK: &str = "********";

/// Formats a value for display. Masks secrets, and texts of other keys that look like an auth token.
fn display_value(key: &str, value: &Value) -> String {
    let is_secret = ["token", "auth_token_secondary", "_secret", ".secret"]
        .iter()
        .any(|name| key.ends_with(name));
    match value {
        Value::String(text) if text.is_empty() => "(not set)".to_owned(),
        Value::String(text) if is_secret || is_token(text) => MASK.to_owned(),
        Value::String(text) if may_be_url(key, text) => format!("{:?}", redacted_url(text)),
        value => value.to_string(),
    }
}

/// Returns whether a value may contain the password of a URL.
fn may_be_url(key: &str, text: &str) -> bool {
    // The key decides as well: a URL whose scheme is missing does not look like one, but may still have a password.
    let is_file = text.starts_with("sqlite:");
    is_url(text) || (!is_file && (key.ends_with("url") || key.ends_with("endpoint")))
}

/// Quotes a value for a problem's text. Masks auth tokens and passwords in URLs.
pub(super) fn quoted(text: &str) -> String {
    let text = text.trim();
    if is_token(text) {
        return MASK.to_owned();
    }
    if is_url(text) {
        return format!("{:?}", redacted_url(text));
    }
    format!("{text:?}")
}

/// Returns whether a text has the format of an auth token: 32 hexadecimal digits.
pub(super) fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn walk(prefix: &str, table: &Table, visit: &mut impl FnMut(String, &Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Table(table) => walk(&key, table, visit),
            value => visit(key, value),
        }
    }
}

/// Returns the message of a TOML error, or a general one for a line that may hold a secret.
fn syntax_error_message(text: &str, error: &toml::de::Error) -> String {
    // The parser's messages may quote the value.
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .get(..start)
        .map_or(0, |before| before.matches('\n').count());
    let line = text.lines().nth(line).unwrap_or_default();
    if ["token", "secret", "key"]
        .iter()
        .any(|word| line.contains(word))
    {
        return "a text must be in quotes, as in auth_token = \"…\"".to_owned();
    }
    error.message().trim_end().to_owned()
}

fn error_position(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else {
        return display_path(path);
    };
    let before = text.get(..span.start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |line| line.chars().count())
        + 1;
    format!("{} line {line}, column {column}", display_path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_keys_lead_to_known_keys() {
        let mut keys = Vec::new();
        let defaults: Table = DEFAULT_TOML.parse().unwrap();
        walk("", &defaults, &mut |key, _| keys.push(key));
        for (old, new) in RENAMED {
            assert!(keys.iter().any(|key| key == new), "{new} is not a key");
            assert!(!keys.iter().any(|key| key == old), "{old} is still a key");
        }
    }
}
