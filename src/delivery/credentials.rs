//! Who calls REST for an account.

use std::collections::HashMap;

use crate::secret::Secret;
use crate::sid::AccountSid;
use crate::signature::TokenSlot;
use crate::twilio::Credentials;

/// Everything that REST can be called with.
pub(crate) struct Keyring {
    /// The account of the API key and the default tokens, where it is configured.
    pub(crate) account: Option<AccountSid>,
    pub(crate) api_key: Option<(String, Secret)>,
    pub(crate) primary: Secret,
    pub(crate) secondary: Option<Secret>,
    pub(crate) accounts: HashMap<AccountSid, Secret>,
}

impl Keyring {
    /// What is configured for the account, else the token that verified the message.
    pub(crate) fn credentials(&self, account: AccountSid, slot: TokenSlot) -> Credentials {
        if let Some(token) = self.accounts.get(&account.to_lowercase()) {
            return Credentials::auth_token(account, token.clone());
        }
        let own = self
            .account
            .is_none_or(|own| own.to_lowercase() == account.to_lowercase());
        if let Some((sid, secret)) = &self.api_key
            && own
        {
            return Credentials::api_key(sid.clone(), secret.clone());
        }
        let token = match (slot, &self.secondary) {
            (TokenSlot::Secondary, Some(secondary)) => secondary,
            _ => &self.primary,
        };
        Credentials::auth_token(account, token.clone())
    }
}
