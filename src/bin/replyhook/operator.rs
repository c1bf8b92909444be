//! What the operator's commands share: the store beside a running server, and how users and times are shown.

use std::sync::Arc;

use anyhow::bail;
use replyhook::address::Identity;
use replyhook::config::{Sources, StoreSettings};
use replyhook::store::{Access, Store, StoreError, StoreErrorKind, StoreUrl};
use replyhook::twilio::RestError;
use replyhook::{Address, Channel, Clock, SystemClock, Timestamp};
use tokio::runtime::Runtime;

use crate::Failed;

/// The store that the server has, opened beside it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: StoreSettings,
    runtime: Runtime,
}

impl Opened {
    pub(crate) fn by(sources: &Sources, access: Access) -> anyhow::Result<Self> {
        Self::at(StoreSettings::load(sources)?, access)
    }

    pub(crate) fn at(settings: StoreSettings, access: Access) -> anyhow::Result<Self> {
        if matches!(settings.url, StoreUrl::Memory) {
            bail!(
                "DATABASE_URL is sqlite::memory:, which no other process can see: set it as the server has it"
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let store = replyhook::open_later(&settings.url)?;
        match runtime.block_on(store.open(access)) {
            Err(error) if error.kind() == StoreErrorKind::Owned => bail!(
                "a running server owns {}: stop it first. Its schema it brings up to date by itself when it starts",
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

    /// Waits for anything.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Waits for the store.
    pub(crate) fn wait<T>(
        &self,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(step).map_err(Failed::from)?)
    }

    /// Waits for Twilio.
    pub(crate) fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, RestError>>,
    ) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(call).map_err(Failed::from)?)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<RestError> for Failed {
    fn from(error: RestError) -> Self {
        Self(format!("{:#}", anyhow::Error::new(error)))
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// An address as Twilio writes it. A number without its `+`, or an address without its channel, would name nobody.
pub(crate) fn address(text: &str) -> Result<Address, &'static str> {
    let address = Address::parse(text.trim());
    let has_form = !matches!(address.channel(), Channel::Sms | Channel::WhatsApp)
        || address.identity() != Identity::Other;
    if has_form && !address.id().is_empty() {
        Ok(address)
    } else {
        Err("write it as Twilio does: +15550001111, or whatsapp:+15550001111")
    }
}

/// The address as it is, or so that it names nobody.
pub(crate) fn user(address: &Address, content: bool) -> String {
    if content {
        address.as_str().to_owned()
    } else {
        format!("{address:?}")
    }
}

/// How long ago: 12s, 3m, 2h, 5d.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `1 message`, `2 messages`.
pub(crate) fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
