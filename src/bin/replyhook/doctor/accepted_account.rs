//! Accounts whose webhooks the server accepts.

use replyhook::AccountSid;
use replyhook::config::Settings;
use replyhook::signature::AuthTokenKind;
use replyhook::twilio::{AccountKeys, ApiKey, Credentials};

/// An account whose webhooks the server accepts.
pub(super) struct AcceptedAccount {
    pub(super) account: AccountSid,
    /// Auth tokens that sign its webhooks, and the API key of its REST calls.
    pub(super) keys: AccountKeys,
}

impl AcceptedAccount {
    /// Returns the credentials that the server uses for REST calls.
    pub(super) fn rest_credentials(&self) -> Credentials {
        self.keys.credentials(self.account, AuthTokenKind::Primary)
    }
}

/// Returns the main account, if it is configured, the accounts with their own keys, and those of shared keys.
pub(super) fn accepted_accounts(settings: &Settings) -> Vec<AcceptedAccount> {
    let twilio = &settings.twilio;
    let keyring = twilio.keyring();
    let mut accounts = keyring.accounts();
    for key in &twilio.shared_keys {
        if !accounts.iter().any(|known| known.is_same(key.account)) {
            accounts.push(key.account);
        }
    }
    let accepted = |account| {
        // The key that the server uses: an account's own keys replace the main API key.
        let api_key: Option<ApiKey> = keyring.keys(account)?.api_key().cloned();
        let keys = AccountKeys::new(twilio.auth_tokens(account).cloned(), api_key)?;
        Some(AcceptedAccount { account, keys })
    };
    accounts.into_iter().filter_map(accepted).collect()
}
