//! The accounts of the `[twilio]` section with their auth tokens and API keys, and the keys that each use needs.

use super::layers::{ACCOUNTS_PREFIX, SHARED_KEYS_PREFIX};
use super::reader::SettingsReader;
use super::shared_keys::{self, SharedKeySettings};
use crate::sid::AccountSid;
use crate::signature::{SignatureAlgorithm, SigningKey};
use crate::twilio::{AccountKeys, ApiKey, AuthTokens, Keyring};
use replyhook_core::Secret;

/// The accounts of the `[twilio]` section with their auth tokens and API keys, and the shared keys.
///
/// See [`TwilioSettings::signature_verifier`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TwilioSettings {
    /// The account of `main`. If set, only this account and `accounts` are accepted.
    pub account_sid: Option<AccountSid>,
    /// Keys of the main account, or of every account if `account_sid` is not set; `None` if only `accounts` have keys.
    pub main: Option<AccountKeys>,
    /// Accounts with their own keys.
    pub accounts: Vec<AccountSettings>,
    /// Shared keys, of `[signature.shared_keys]`.
    pub shared_keys: Vec<SharedKeySettings>,
}

/// The settings of a section `[twilio.accounts.<AccountSid>]`; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccountSettings {
    /// The account.
    pub sid: AccountSid,
    /// Its keys.
    pub keys: AccountKeys,
}

/// The use of the settings, which decides what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccountUse {
    /// A server: something verifies webhooks, and each account has credentials for REST calls.
    Serve,
    /// A server of `replyhook dev`: its own account has an auth token, and shared keys may belong to other accounts.
    ServeEmulator,
    /// Signing and verifying: something verifies webhooks.
    Sign,
    /// REST calls of a command, which checks the keys of its accounts and does not read shared keys.
    Call,
}

impl TwilioSettings {
    /// Returns the keys of all accounts, for REST calls.
    pub fn keyring(&self) -> Keyring {
        let keyring = Keyring::new(self.account_sid, self.main.clone());
        self.accounts.iter().fold(keyring, |keyring, account| {
            keyring.with_account(account.sid, account.keys.clone())
        })
    }

    /// Returns the auth tokens that sign the webhooks of an account: its own, or else those of the main account.
    pub fn auth_tokens(&self, account: AccountSid) -> Option<&AuthTokens> {
        let own = self.find_account(account);
        let own = own.and_then(|account| account.keys.tokens());
        let is_main = self.account_sid.is_none_or(|main| main.is_same(account));
        own.or_else(|| self.main.as_ref().filter(|_| is_main)?.tokens())
    }

    /// Returns the first shared key that signs the webhooks of an account.
    pub fn shared_key(&self, account: AccountSid) -> Option<&SharedKeySettings> {
        let mut keys = self.shared_keys.iter();
        keys.find(|key| key.account.is_same(account))
    }

    /// Returns a key with which Twilio may sign requests, and its account, if it has one.
    ///
    /// This is the auth token of the main account, or else one of its shared keys. Without a main account, it is the main
    /// auth token, or else any shared key, or the token of any account.
    pub fn signing_key(&self) -> Option<(SigningKey, Option<AccountSid>)> {
        let with_token = |tokens: &AuthTokens, account| {
            let token = SigningKey::AuthToken(tokens.primary.clone());
            Some((token, account))
        };
        if let Some(account) = self.account_sid {
            if let Some(tokens) = self.auth_tokens(account) {
                return with_token(tokens, Some(account));
            }
            return Some((self.shared_key(account)?.signing_key(), Some(account)));
        }
        if let Some(tokens) = self.main.as_ref().and_then(AccountKeys::tokens) {
            return with_token(tokens, None);
        }
        if let Some(key) = self.shared_keys.first() {
            return Some((key.signing_key(), Some(key.account)));
        }
        let mut accounts = self.accounts.iter();
        accounts.find_map(|account| with_token(account.keys.tokens()?, Some(account.sid)))
    }

    pub(crate) fn find_account(&self, account: AccountSid) -> Option<&AccountSettings> {
        let mut accounts = self.accounts.iter();
        accounts.find(|known| known.sid.is_same(account))
    }

    /// Returns whether an account has keys for REST calls.
    fn is_configured(&self, account: AccountSid) -> bool {
        let is_main = self.account_sid.is_none_or(|main| main.is_same(account));
        is_main && self.main.is_some() || self.find_account(account).is_some()
    }
}

impl SharedKeySettings {
    /// Returns the key for signing, with HMAC-SHA256.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::SharedKey {
            id: self.id,
            secret: self.secret.clone(),
            algorithm: SignatureAlgorithm::HmacSha256,
        }
    }
}

/// Reads the accounts and the shared keys, or records the problems that hinder their use.
pub(super) fn twilio(
    reader: &mut SettingsReader<'_>,
    account_use: AccountUse,
) -> Option<TwilioSettings> {
    let problems_before = reader.problem_count();
    let primary = token(reader, "twilio.auth_token");
    let secondary = token(reader, "twilio.auth_token_secondary");
    let has_token_problem = reader.problem_count() > problems_before;
    let account_sid = match reader.text("twilio.account_sid") {
        "" => None,
        text => reader.account_sid("twilio.account_sid", text),
    };
    let needs_verification = account_use != AccountUse::Call;
    if primary.is_none() && !has_token_problem && needs_verification {
        report_missing_token(reader, account_sid);
    }
    let tokens = auth_tokens(reader, primary, secondary);
    let main = AccountKeys::new(tokens, api_key(reader, "twilio."));
    let names = reader.layers.accounts();
    let accounts = names.iter().filter_map(|name| account(reader, name));
    let accounts = accounts.collect();
    if let Some(account) = account_sid.filter(|_| main.is_some()) {
        report_second_main_keys(reader, account, &names);
    }
    // A command that only calls Twilio needs no access to the secrets that verify webhooks.
    let shared_keys = if needs_verification {
        shared_keys::shared_keys(reader, account_sid)
    } else {
        Vec::new()
    };
    let settings = TwilioSettings {
        account_sid,
        main,
        accounts,
        shared_keys,
    };
    // An invalid key is not stored in `settings`, and would be reported as missing too.
    if reader.problem_count() == problems_before {
        if needs_verification {
            check_verification(reader, &settings);
        }
        if account_use == AccountUse::Serve {
            check_rest_calls(reader, &settings);
        }
    }
    (reader.problem_count() == problems_before).then_some(settings)
}

const MISSING_TOKEN: &str = "is missing: set TWILIO_AUTH_TOKEN (or TWILIO_AUTH_TOKEN_FILE) to the auth token in Twilio's \
     console, or configure a key in signature.shared_keys; without either nothing can be verified. To try a bot without \
     an account, run `replyhook dev`, or in Rust a DevServer";

/// Records a missing auth token if no other key can take its place.
fn report_missing_token(reader: &mut SettingsReader<'_>, account_sid: Option<AccountSid>) {
    let accounts = reader.layers.accounts();
    let has_account = match account_sid {
        Some(main) => accounts
            .iter()
            .any(|name| AccountSid::parse(name).is_ok_and(|account| account.is_same(main))),
        None => !accounts.is_empty(),
    };
    if !has_account && reader.layers.names_below(SHARED_KEYS_PREFIX).is_empty() {
        reader.problem("twilio.auth_token", MISSING_TOKEN);
    }
}

/// Records a table of the main account below `twilio.accounts`, whose keys would replace those of `[twilio]`.
fn report_second_main_keys(reader: &mut SettingsReader<'_>, main: AccountSid, names: &[String]) {
    let is_main = |name: &&String| AccountSid::parse(name).is_ok_and(|sid| sid.is_same(main));
    for name in names.iter().filter(is_main) {
        let table = format!("{ACCOUNTS_PREFIX}{name}");
        let first_key = reader.layers.first_key_below(&format!("{table}."));
        reader.problem(
            &first_key.unwrap_or(table),
            "is a key of the main account, twilio.account_sid, whose keys are in [twilio]: move auth_token, api_key_sid and \
             api_key_secret to [twilio], and leave this table out",
        );
    }
}

/// Returns the auth tokens, or records a second one without the first.
fn auth_tokens(
    reader: &mut SettingsReader<'_>,
    primary: Option<Secret>,
    secondary: Option<Secret>,
) -> Option<AuthTokens> {
    const KEY: &str = "twilio.auth_token_secondary";
    let Some(primary) = primary else {
        if secondary.is_some() {
            reader.problem(
                KEY,
                "is set without twilio.auth_token: set TWILIO_AUTH_TOKEN to it, and leave this one out",
            );
        }
        return None;
    };
    Some(AuthTokens { primary, secondary })
}

/// Checks that the webhooks of each account can be verified.
fn check_verification(reader: &mut SettingsReader<'_>, settings: &TwilioSettings) {
    if settings.signing_key().is_none() {
        let text = settings.account_sid.map_or_else(
            || MISSING_TOKEN.to_owned(),
            |account| {
                format!(
                    "is missing, and no key in signature.shared_keys has the account {account}: set TWILIO_AUTH_TOKEN, or \
                     the account of a shared key; without either nothing of the account can be verified"
                )
            },
        );
        reader.problem("twilio.auth_token", text);
    }
    for account in &settings.accounts {
        let sid = account.sid;
        if settings.auth_tokens(sid).is_none() && settings.shared_key(sid).is_none() {
            reader.warn(
                &format!("{ACCOUNTS_PREFIX}{sid}.api_key_sid"),
                "is set, but the account has neither an auth token nor a shared key, so its webhooks are rejected: set its \
                 auth_token, or the account of a key in signature.shared_keys",
            );
        }
    }
}

/// Checks that each account whose webhooks are verified has keys for REST calls.
fn check_rest_calls(reader: &mut SettingsReader<'_>, settings: &TwilioSettings) {
    if let Some(account) = settings.account_sid
        && !settings.is_configured(account)
    {
        reader.problem(
            "twilio.api_key_sid",
            "is missing: without an auth token, calls of Twilio's API (late replies, media) need an API key; set \
             twilio.api_key_sid and twilio.api_key_secret",
        );
    }
    for key in &settings.shared_keys {
        let account = key.account;
        let is_main = settings
            .account_sid
            .is_some_and(|main| main.is_same(account));
        if !is_main && !settings.is_configured(account) {
            reader.problem(
                &format!("{SHARED_KEYS_PREFIX}{}.account", key.id),
                format!(
                    "is an account that is not configured: set TWILIO_ACCOUNT_SID to it, or {ACCOUNTS_PREFIX}{account} \
                     with an auth_token, or with api_key_sid and api_key_secret; replies via the REST API need them"
                ),
            );
        }
    }
}

/// Returns an account below `twilio.accounts`, or records a problem.
fn account(reader: &mut SettingsReader<'_>, name: &str) -> Option<AccountSettings> {
    let prefix = format!("{ACCOUNTS_PREFIX}{name}.");
    let token_key = format!("{prefix}auth_token");
    let problems_before = reader.problem_count();
    // Read all before the first `?`, so that the problems of all are reported.
    let primary = token(reader, &token_key);
    let api_key = api_key(reader, &prefix);
    let first_key = reader.layers.first_key_below(&prefix);
    let sid_key = first_key.as_deref().unwrap_or(&token_key);
    let sid = reader.account_sid(sid_key, name);
    let tokens = primary.map(|primary| AuthTokens {
        primary,
        secondary: None,
    });
    let keys = AccountKeys::new(tokens, api_key);
    if keys.is_none() && reader.problem_count() == problems_before {
        match reader.layers.empty_tables.get(prefix.trim_end_matches('.')) {
            Some(origin) if first_key.is_none() => reader.problem_at(
                prefix.trim_end_matches('.'),
                origin,
                "is empty: set auth_token, or api_key_sid and api_key_secret, or leave the account out",
            ),
            // One of its keys is set to an empty text.
            _ => reader.problem(sid_key, "is empty: set it or leave the account out"),
        }
    }
    Some(AccountSettings {
        sid: sid?,
        keys: keys?,
    })
}

/// Returns the API key whose keys begin with a prefix, or records a problem.
fn api_key(reader: &mut SettingsReader<'_>, prefix: &str) -> Option<ApiKey> {
    let (sid_key, secret_key) = (
        format!("{prefix}api_key_sid"),
        format!("{prefix}api_key_secret"),
    );
    let problems_before = reader.problem_count();
    let secret = reader.secret(&secret_key);
    let is_unusable = reader.problem_count() > problems_before;
    match (reader.text(&sid_key).trim(), secret) {
        ("", None) => None,
        ("", Some(_)) => {
            let text = format!("is missing: {secret_key} is set, and needs its SK…");
            reader.problem(&sid_key, text);
            None
        }
        (_, None) if is_unusable => None,
        (_, None) => {
            let text = format!("is missing: {sid_key} is set, and needs its secret");
            reader.problem(&secret_key, text);
            None
        }
        (sid, Some(secret)) => ApiKey::new(sid, secret)
            .map_err(|error| reader.problem(&sid_key, format!("is {error}")))
            .ok(),
    }
}

/// Returns the auth token of a key, if it is set, or records a problem.
fn token(reader: &mut SettingsReader<'_>, key: &str) -> Option<Secret> {
    let token = reader.secret(key)?;
    let text = token.expose();
    let is_quote = |character: char| matches!(character, '"' | '\'' | '“' | '”' | '‘' | '’' | '`');
    // A problem, because no token of Twilio's has a quotation mark: nothing could be verified.
    if text.starts_with(is_quote) || text.ends_with(is_quote) {
        reader.problem(
            key,
            "begins or ends with a quotation mark, which is not part of the token: remove the marks. Docker's --env-file and \
             systemd's unit files pass some of them on",
        );
        return None;
    }
    // Only a warning: a token of another form can still verify signatures.
    if let Some(warning) = token_warning(text) {
        reader.warn(key, warning);
    }
    Some(token)
}

/// Returns a warning about a text that cannot be an auth token of Twilio's.
fn token_warning(text: &str) -> Option<&'static str> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.len() == 32 && is_digits {
        let first = text.as_bytes()[0];
        let is_repeated = text.bytes().all(|byte| byte == first);
        return is_repeated.then_some(
            "is a placeholder, one digit 32 times: set it to the auth token in Twilio's console",
        );
    }
    let lower = text.to_ascii_lowercase();
    let placeholders = [
        "your", "token", "secret", "changeme", "example", "xxx", "…", "...", "<", "${",
    ];
    Some(if text.starts_with("SK") {
        "is the SID of an API key, and an API key never signs webhooks: set it to the auth token in Twilio's console, and the \
         API key in twilio.api_key_sid"
    } else if text.starts_with("AC") && text.len() == 34 {
        "is the SID of an account, not its auth token: set it to the auth token in Twilio's console"
    } else if placeholders.iter().any(|part| lower.contains(part)) {
        "is a placeholder: set it to the auth token in Twilio's console"
    } else {
        "is not 32 hexadecimal digits, as Twilio's auth tokens are"
    })
}
