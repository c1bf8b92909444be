//! The section `[store]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::handler::EVENTS_URL;
use super::reader::SettingsReader;
use crate::store::StoreUrl;

/// The settings of the `[store]` section.
///
/// ```
/// use replyhook::config::{Sources, StoreSettings};
///
/// let settings = StoreSettings::load(&Sources::default().with_env([("DATABASE_URL", "sqlite::memory:")]))?;
/// assert_eq!(settings.url.to_string(), "sqlite::memory:");
/// # Ok::<(), replyhook::config::Problems>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreSettings {
    /// Name of the Fly app, in one of whose machines this process runs.
    pub fly_app: Option<String>,
    /// URL of the database.
    pub url: StoreUrl,
    /// Time that content is stored.
    pub retention: Duration,
    /// Time that message texts are stored; at most `retention`.
    pub body_retention: Duration,
    /// True if `handler.events_url` is set, so that changes are recorded as events.
    pub records_events: bool,
}

pub(super) fn store(reader: &mut SettingsReader<'_>) -> Option<StoreSettings> {
    const KEY: &str = "store.url";
    let problems_before = reader.problem_count();
    let url = match reader.secret(KEY) {
        Some(text) => match text.expose().parse() {
            Ok(url) => Some(url),
            Err(error) => {
                // Do not quote the value: it may contain a password.
                reader.problem(
                    KEY,
                    format!("(DATABASE_URL) is not a valid store URL: {error}"),
                );
                None
            }
        },
        None if reader.problem_count() == problems_before => {
            reader.problem(
                KEY,
                "(DATABASE_URL) is empty: leave it out for sqlite:replyhook.db",
            );
            None
        }
        None => None,
    };
    match &url {
        Some(StoreUrl::Postgres(_)) if cfg!(not(feature = "postgres")) => {
            reader.problem(
                KEY,
                "names PostgreSQL, which this build does not support: build with the feature `postgres`",
            );
        }
        Some(StoreUrl::Sqlite(_) | StoreUrl::Memory) if cfg!(not(feature = "sqlite")) => {
            reader.problem(
                KEY,
                "names SQLite, which this build does not support: build with the feature `sqlite`",
            );
        }
        _ => {}
    }
    let records_events = !reader.text(EVENTS_URL).trim().is_empty();
    // Read everything before returning `None`, so that all problems are reported together.
    let retention = days(reader, "store.retention_days", 2..=3650);
    let body_retention_days = reader.number("store.body_retention_days", -1..=3650);
    let (retention, body_retention_days) = (retention?, body_retention_days?);
    // -1 cannot become a `u64`: texts are then stored for as long as other content.
    let body_retention = u64::try_from(body_retention_days).map_or(retention, |number| {
        // At least an hour, so that a redelivery in that time still gets the saved response.
        Duration::from_secs((number * 86_400).max(3600)).min(retention)
    });
    Some(StoreSettings {
        fly_app: reader.layers.fly_app.clone(),
        url: url?,
        retention,
        body_retention,
        records_events,
    })
}

/// Warning for a server with SQLite on Fly.
#[cfg(feature = "server")]
pub(crate) const LOCAL_STORE_ON_FLY: &str = "store.url is SQLite, and this is a machine of Fly: each machine has a volume and a store \
     of its own, so that a second one replies twice and misses opt-outs; run exactly one (`fly scale count 1`, and deploy with \
     --ha=false), or share PostgreSQL";

impl StoreSettings {
    /// Returns whether this is a Fly machine with a store that its other machines do not share.
    pub fn is_local_on_fly(&self) -> bool {
        self.fly_app.is_some() && !matches!(self.url, StoreUrl::Postgres(_))
    }
}

fn days(
    reader: &mut SettingsReader<'_>,
    key: &str,
    range: RangeInclusive<i64>,
) -> Option<Duration> {
    let number = u64::try_from(reader.number(key, range)?).ok()?;
    Some(Duration::from_secs(number * 86_400))
}
