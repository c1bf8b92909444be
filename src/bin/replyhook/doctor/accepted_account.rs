//! Accounts whose webhooks the server accepts.

use replyhook::config::Settings;
use replyhook::twilio::Credentials;
use replyhook::{AccountSid, Secret};

/// An account whose webhooks the server accepts.
pub(super) struct AcceptedAccount {
    pub(super) account: AccountSid,
    /// Auth token that signs its webhooks.
    pub(super) token: Secret,
    /// API key that REST calls use in place of the token.
    pub(super) api_key: Option<Credentials>,
}

impl AcceptedAccount {
    /// Returns the credentials with the auth token, which can read the account even if a standard API key cannot.
    pub(super) fn token_credentials(&self) -> Credentials {
        Credentials::auth_token(self.account, self.token.clone())
    }

    /// Returns the credentials that the server uses for REST calls.
    pub(super) fn rest_credentials(&self) -> Credentials {
        self.api_key
            .clone()
            .unwrap_or_else(|| self.token_credentials())
    }
}

/// Returns the account of the default token, if it is configured, and the accounts with their own tokens.
pub(super) fn accepted_accounts(settings: &Settings) -> Vec<AcceptedAccount> {
    let twilio = &settings.twilio;
    let mut accepted_accounts: Vec<_> = twilio
        .accounts
        .iter()
        .map(|account| AcceptedAccount {
            account: account.sid,
            token: account.auth_token.clone(),
            api_key: None,
        })
        .collect();
    let Some(main_account) = twilio.account_sid else {
        return accepted_accounts;
    };
    // An entry below `twilio.accounts` wins over the default token and the API key, as in the server.
    let is_own =
        |accepted: &AcceptedAccount| accepted.account.to_lowercase() == main_account.to_lowercase();
    if !accepted_accounts.iter().any(is_own) {
        let key = settings.rest.api_key.clone();
        let accepted = AcceptedAccount {
            account: main_account,
            token: twilio.auth_token.clone(),
            api_key: key.map(|(sid, secret)| Credentials::api_key(sid, secret)),
        };
        accepted_accounts.insert(0, accepted);
    }
    accepted_accounts
}
