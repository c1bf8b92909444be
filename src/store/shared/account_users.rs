//! A user's addresses within each account, for commands. Links of one account say nothing about another.

use std::collections::BTreeSet;

use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::database::{Database, params};
use super::identity_graph::{links_of, lock_graph};
use crate::address::Address;
use crate::sid::AccountSid;
use crate::store::error::StoreError;
use crate::store::packing;

/// User within one account.
#[derive(Clone)]
pub(in crate::store) struct AccountUser {
    /// Account, packed; `None` if no account knows the address.
    pub(in crate::store) account: Option<Vec<u8>>,
    pub(in crate::store) keys: Vec<AddressKey>,
}

impl AccountUser {
    /// Returns the SID of the account.
    pub(in crate::store) fn account_sid(&self) -> Result<Option<AccountSid>, StoreError> {
        let account = self.account.as_deref();
        account.map(packing::account_sid).transpose()
    }
}

/// Returns the keys of an address: its own, and with `all_channels` those of the same number on other channels.
fn expand(key: &AddressKey, all_channels: bool) -> Vec<AddressKey> {
    if all_channels {
        key.on_all_channels()
    } else {
        vec![key.clone()]
    }
}

/// Returns the user with this address in one account, or in each that knows the address. Without such an account it
/// returns the address itself.
pub(in crate::store) async fn users_of<D: Database>(
    db: &mut D,
    user: &Address,
    account: Option<AccountSid>,
    all_channels: bool,
) -> Result<Vec<AccountUser>, D::Error> {
    let own = expand(&AddressKey::of(user), all_channels);
    let accounts = match account {
        Some(account) => vec![packing::sid_bytes(account.as_str())],
        None => accounts_with(db, &own).await?,
    };
    if accounts.is_empty() {
        return Ok(vec![AccountUser {
            account: None,
            keys: own,
        }]);
    }
    let mut users = Vec::new();
    for account in accounts {
        let keys = connected_keys(db, &own, &account, all_channels).await?;
        users.push(AccountUser {
            account: Some(account),
            keys,
        });
    }
    Ok(users)
}

/// Returns the keys `own`, and those that links of the account connect with them. With `all_channels` a number stands for
/// itself on all channels.
pub(in crate::store) async fn connected_keys<D: Database>(
    db: &mut D,
    own: &[AddressKey],
    account: &[u8],
    all_channels: bool,
) -> Result<Vec<AddressKey>, D::Error> {
    let mut found: BTreeSet<AddressKey> = BTreeSet::new();
    let mut open = own.to_vec();
    while let Some(key) = open.pop() {
        if !found.insert(key.clone()) {
            continue;
        }
        for link in links_of(db, &key).await? {
            if link.account == account
                && let Some(other) = link.other(&key)
            {
                open.extend(expand(&other.key, all_channels));
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Locks all addresses of a user, also on other channels, and returns them for each account.
pub(in crate::store) async fn lock_users<D: Database>(
    db: &mut D,
    user: &Address,
    account: Option<AccountSid>,
) -> Result<Vec<AccountUser>, D::Error> {
    let users = users_of(db, user, account, true).await?;
    let keys = users.iter().flat_map(|user| user.keys.clone());
    // Once for all accounts: a transaction locks addresses in one order.
    lock_graph(db, &keys.collect::<Vec<_>>()).await?;
    Ok(users)
}

/// Returns the accounts that know one of these addresses, by a link, a conversation, a consent or a message of the outbox.
async fn accounts_with<D: Database>(
    db: &mut D,
    keys: &[AddressKey],
) -> Result<Vec<Vec<u8>>, D::Error> {
    let consent_keys: Vec<String> = keys
        .iter()
        .map(|key| ConsentKey::from(key).as_str().to_owned())
        .collect();
    let rows = db
        .rows(
            "SELECT account FROM identity_link WHERE a = ANY ($1) UNION SELECT account FROM identity_link WHERE b = ANY ($1) \
             UNION SELECT s.account FROM conversation_address n JOIN scope_account s ON s.scope = n.sender \
               WHERE n.address_key = ANY ($1) \
             UNION SELECT s.account FROM consent c JOIN scope_account s ON s.scope = c.scope WHERE c.consent_key = ANY ($2) \
             UNION SELECT account FROM outbound WHERE address_key = ANY ($1) ORDER BY 1",
            params![&address_texts(keys)[..], &consent_keys[..]],
        )
        .await?;
    let accounts: Result<_, StoreError> = rows.into_iter().map(|mut row| row.take(0)).collect();
    Ok(accounts?)
}

/// Returns the accounts that know a user.
pub(in crate::store) async fn accounts_of<D: Database>(
    db: &mut D,
    user: &Address,
) -> Result<Vec<AccountSid>, D::Error> {
    let own = AddressKey::of(user).on_all_channels();
    unpack(&accounts_with(db, &own).await?).map_err(D::Error::from)
}

/// Returns the accounts that the store has messages of.
pub(in crate::store) async fn known_accounts<D: Database>(
    db: &mut D,
) -> Result<Vec<AccountSid>, D::Error> {
    let rows = db
        .rows(
            "SELECT account FROM scope_account UNION SELECT account FROM identity_link \
             UNION SELECT account FROM outbound ORDER BY 1",
            params![],
        )
        .await?;
    let accounts: Result<Vec<Vec<u8>>, StoreError> =
        rows.into_iter().map(|mut row| row.take(0)).collect();
    unpack(&accounts?).map_err(D::Error::from)
}

fn unpack(accounts: &[Vec<u8>]) -> Result<Vec<AccountSid>, StoreError> {
    let sids = accounts.iter().map(|account| packing::account_sid(account));
    sids.collect()
}

/// Returns the texts of keys, for a parameter that is a list.
pub(in crate::store) fn address_texts(addresses: &[AddressKey]) -> Vec<String> {
    addresses
        .iter()
        .map(|address| address.as_str().to_owned())
        .collect()
}
