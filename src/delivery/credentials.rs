//! Credentials for REST calls.

use std::collections::HashMap;

use crate::sid::AccountSid;
use crate::signature::AuthTokenKind;
use crate::twilio::Credentials;
use replyhook_core::Secret;

/// All configured credentials.
pub(crate) struct Keyring {
    /// Account of the API key and the default tokens, if configured.
    pub(crate) account: Option<AccountSid>,
    pub(crate) api_key: Option<(String, Secret)>,
    pub(crate) primary: Secret,
    pub(crate) secondary: Option<Secret>,
    pub(crate) accounts: HashMap<AccountSid, Secret>,
}

impl Keyring {
    /// Returns the credentials configured for an account, or else the auth token that verified the message.
    pub(crate) fn credentials(
        &self,
        account: AccountSid,
        auth_token: AuthTokenKind,
    ) -> Credentials {
        if let Some(token) = self.accounts.get(&account.to_lowercase()) {
            return Credentials::auth_token(account, token.clone());
        }
        // An API key is valid for its own account only. Without a configured account, every account counts as that one.
        let is_configured_account = self
            .account
            .is_none_or(|configured| configured.to_lowercase() == account.to_lowercase());
        if let Some((sid, secret)) = &self.api_key
            && is_configured_account
        {
            return Credentials::api_key(sid.clone(), secret.clone());
        }
        // The token that verified the message is one that Twilio currently accepts, even during a rotation of tokens.
        let token = match (auth_token, &self.secondary) {
            (AuthTokenKind::Secondary, Some(secondary)) => secondary,
            _ => &self.primary,
        };
        Credentials::auth_token(account, token.clone())
    }
}
