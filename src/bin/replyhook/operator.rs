//! Common parts of the operator's commands: access to a running server's store, and formatting of users and times.

use anyhow::bail;
use replyhook::config::{Sources, StoreSettings};
use replyhook::store::{Access, StoreError, StoreErrorKind, StoreHandle, StoreUrl};
use replyhook::twilio::RestError;
use replyhook::{AccountSid, Address, Clock, SystemClock, Timestamp};
use tokio::runtime::Runtime;

use crate::exit::Failed;

/// Error of an address on the command line.
const INVALID_ADDRESS: &str =
    "not an address: write it as Twilio does: +15550001111, or whatsapp:+15550001111";

/// The opened store, which a running server may use at the same time.
pub(crate) struct OpenedStore {
    pub(crate) store: StoreHandle,
    pub(crate) settings: StoreSettings,
    runtime: Runtime,
}

impl OpenedStore {
    /// Opens the store that `sources` configure.
    pub(crate) fn from_sources(sources: &Sources, access: Access) -> anyhow::Result<Self> {
        Self::open(StoreSettings::load(sources)?, access)
    }

    /// Opens a store. Rejects one in memory, which would be empty.
    pub(crate) fn open(settings: StoreSettings, access: Access) -> anyhow::Result<Self> {
        if matches!(settings.url, StoreUrl::Memory) {
            bail!(
                "DATABASE_URL is sqlite::memory:, which other processes cannot read; set it to the server's store"
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let store = replyhook::store_from_url(&settings.url)?;
        // Changes by a command are events too; the server delivers them.
        store.record_events(settings.records_events);
        match runtime.block_on(store.open(access)) {
            Err(error) if error.kind() == StoreErrorKind::Owned => bail!(
                "a running server owns {}; stop it first (a server migrates its store itself when it starts)",
                settings.url
            ),
            opened => opened.map_err(Failed::from)?,
        }
        Ok(Self {
            store,
            settings,
            runtime,
        })
    }

    /// Runs a future to completion.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs a store operation. Its errors exit with 1.
    pub(crate) fn wait<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(operation).map_err(Failed::from)?)
    }

    /// Runs a call of Twilio's API. Its errors exit with 1.
    pub(crate) fn call_twilio<T>(
        &self,
        call: impl Future<Output = Result<T, RestError>>,
    ) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(call).map_err(Failed::from)?)
    }
}

impl OpenedStore {
    /// Checks that the store has messages of an account that an operator names.
    pub(crate) fn check_account(&self, account: Option<AccountSid>) -> anyhow::Result<()> {
        let Some(account) = account else {
            return Ok(());
        };
        let known = self.wait(self.store.known_accounts())?;
        // A new store has no messages yet.
        if known.is_empty() || known.contains(&account) {
            return Ok(());
        }
        let known: Vec<&str> = known.iter().map(AccountSid::as_str).collect();
        bail!(
            "the store has no messages of account {account}; it has messages of {}",
            known.join(", ")
        );
    }

    /// Returns the accounts that know a user, each of which has its own view of the addresses: the one that an operator
    /// names, or all; `None` if no account knows the user.
    pub(crate) fn accounts_of(
        &self,
        user: &Address,
        account: Option<AccountSid>,
    ) -> anyhow::Result<Vec<Option<AccountSid>>> {
        self.check_account(account)?;
        if account.is_some() {
            return Ok(vec![account]);
        }
        let accounts = self.wait(self.store.accounts_of(user))?;
        if accounts.is_empty() {
            return Ok(vec![None]);
        }
        Ok(accounts.into_iter().map(Some).collect())
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<RestError> for Failed {
    fn from(error: RestError) -> Self {
        // `{:#}` adds the sources, such as the reason why a connection failed.
        Self(format!("{:#}", anyhow::Error::new(error)))
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// Parses an address as Twilio writes it.
pub(crate) fn parse_address(text: &str) -> Result<Address, &'static str> {
    Address::parse_strict(text).ok_or(INVALID_ADDRESS)
}

/// Parses the address of a user, which cannot be a sender's name, like ACME Shop or `rcs:brand`.
pub(crate) fn parse_user(text: &str) -> Result<Address, &'static str> {
    let address = parse_address(text)?;
    let is_valid = address.can_be_user();
    is_valid.then_some(address).ok_or(INVALID_ADDRESS)
}

/// Formats an address: in full with `content`, otherwise masked.
pub(crate) fn format_user(address: &Address, content: bool) -> String {
    // The `Debug` format of an address masks it.
    if content {
        address.as_str().to_owned()
    } else {
        format!("{address:?}")
    }
}

/// Formats the time since `at`: 12s, 3m, 2h, 5d.
pub(crate) fn format_age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats a count with its noun: `1 message`, `2 messages`.
pub(crate) fn format_count(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
