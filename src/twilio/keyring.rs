//! [`Keyring`]: the keys of all configured accounts.

use super::account_keys::AccountKeys;
use super::credentials::Credentials;
use crate::sid::AccountSid;
use crate::signature::AuthTokenKind;

/// The keys of all configured accounts, for REST calls.
///
/// ```
/// use replyhook::signature::AuthTokenKind;
/// use replyhook::twilio::{AccountKeys, ApiKey, Keyring};
/// use replyhook::{AccountSid, Secret};
///
/// let account = AccountSid::parse("AC00000000000000000000000000000001")?;
/// let other = AccountSid::parse("AC00000000000000000000000000000002")?;
/// let key = ApiKey::new("SK00000000000000000000000000000001", Secret::new("s3cret"))?;
/// let keyring = Keyring::new(Some(account), Some(AccountKeys::ApiKey(key)));
/// assert!(keyring.credentials(account, AuthTokenKind::SharedKey).is_some());
/// assert!(keyring.credentials(other, AuthTokenKind::SharedKey).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Keyring {
    main_account: Option<AccountSid>,
    main: Option<AccountKeys>,
    accounts: Vec<(AccountSid, AccountKeys)>,
}

impl Keyring {
    /// Creates a keyring with the keys of the main account; without a main account, they are those of every account.
    pub fn new(main_account: Option<AccountSid>, main: Option<AccountKeys>) -> Self {
        Self {
            main_account,
            main,
            accounts: Vec::new(),
        }
    }

    /// Adds an account with its own keys, or replaces its keys.
    #[must_use]
    pub fn with_account(mut self, account: AccountSid, keys: AccountKeys) -> Self {
        self.accounts.retain(|(known, _)| !known.is_same(account));
        self.accounts.push((account, keys));
        self
    }

    /// Returns the keys of an account; `None` if it is not configured.
    ///
    /// The account's own keys replace those of the main account.
    pub fn keys(&self, account: AccountSid) -> Option<&AccountKeys> {
        let mut own = self.accounts.iter();
        if let Some((_, keys)) = own.find(|(known, _)| known.is_same(account)) {
            return Some(keys);
        }
        let is_main = self.main_account.is_none_or(|main| main.is_same(account));
        self.main.as_ref().filter(|_| is_main)
    }

    /// Returns the credentials of an account's REST calls; `None` if the account is not configured.
    ///
    /// `verified_by` is the key that verified the message of the call. See [`AccountKeys::credentials`].
    pub fn credentials(
        &self,
        account: AccountSid,
        verified_by: AuthTokenKind,
    ) -> Option<Credentials> {
        let keys = self.keys(account)?;
        Some(keys.credentials(account, verified_by))
    }

    /// Returns the accounts that have keys, the main account first.
    pub fn accounts(&self) -> Vec<AccountSid> {
        let main = self
            .main_account
            .filter(|account| self.keys(*account).is_some());
        let others = self.accounts.iter().map(|(account, _)| *account);
        let others = others.filter(|account| main.is_none_or(|main| !main.is_same(*account)));
        main.into_iter().chain(others).collect()
    }
}
