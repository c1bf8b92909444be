//! The sections about what is kept: where and how long, and what users say about being written to.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::reader::Reader;
use crate::store::StoreUrl;

/// `[store]`
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
    /// Where it is.
    pub url: StoreUrl,
    /// Content is kept so long.
    pub retention: Duration,
    /// Texts are kept so long; never longer than other content.
    pub body_retention: Duration,
}

/// `[consent]`
///
/// Part of [`Settings`](super::Settings), which says how it is read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsentSettings {
    /// Whether a template outside of the window needs a recorded opt-in.
    pub required: bool,
    /// Words that opt out, on channels where Twilio has none of its own.
    pub stop_words: Vec<String>,
    /// Words that opt in again.
    pub start_words: Vec<String>,
    /// What somebody who opts out is told.
    pub stop_reply: String,
    /// What somebody who opts in again is told.
    pub start_reply: String,
}

pub(super) fn store(reader: &mut Reader<'_>) -> Option<StoreSettings> {
    const KEY: &str = "store.url";
    let before = reader.problem_count();
    let url = match reader.secret(KEY) {
        Some(text) => match text.expose().parse() {
            Ok(url) => Some(url),
            Err(error) => {
                // Not quoted: it may hold a password.
                reader.problem(
                    KEY,
                    format!("(DATABASE_URL) is no address of a store: {error}"),
                );
                None
            }
        },
        None if reader.problem_count() == before => {
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
                "names PostgreSQL, which this build has not: build with the feature `postgres`",
            );
        }
        Some(StoreUrl::Sqlite(_) | StoreUrl::Memory) if cfg!(not(feature = "sqlite")) => {
            reader.problem(
                KEY,
                "names SQLite, which this build has not: build with the feature `sqlite`",
            );
        }
        _ => {}
    }
    let retention = days(reader, "store.retention_days", 2..=3650);
    let body_retention_days = reader.number("store.body_retention_days", -1..=3650);
    let (retention, body_retention_days) = (retention?, body_retention_days?);
    let bodies = u64::try_from(body_retention_days).map_or(retention, |number| {
        // A repeat within the hour still gets its saved answer.
        Duration::from_secs((number * 86_400).max(3600)).min(retention)
    });
    Some(StoreSettings {
        url: url?,
        retention,
        body_retention: bodies,
    })
}

fn days(reader: &mut Reader<'_>, key: &str, range: RangeInclusive<i64>) -> Option<Duration> {
    let number = u64::try_from(reader.number(key, range)?).ok()?;
    Some(Duration::from_secs(number * 86_400))
}

pub(super) fn consent(reader: &mut Reader<'_>) -> Option<ConsentSettings> {
    let text = |reader: &Reader<'_>, key: &str| reader.text(key).to_owned();
    Some(ConsentSettings {
        required: reader.flag("consent.required")?,
        stop_words: reader.list("consent.stop_words"),
        start_words: reader.list("consent.start_words"),
        stop_reply: text(reader, "consent.stop_reply"),
        start_reply: text(reader, "consent.start_reply"),
    })
}
