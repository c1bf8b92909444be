//! Connection overrides in the fragment of a webhook URL, such as `https://bot.example.com/webhook#rc=2&rp=ct,5xx`.
//!
//! Source: twilio.com/docs/usage/webhooks/webhooks-connection-overrides.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::http_client::{HttpError, Timeouts};
use crate::error_code::ErrorCode;

/// Timeouts and retry policy of one URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overrides {
    pub(super) times: Timeouts,
    pub(super) retries: u64,
    on: RetryOn,
}

/// Failures to retry after (`rp`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a word of Twilio's list"
)]
struct RetryOn {
    connect: bool,
    read: bool,
    client_error: bool,
    server_error: bool,
}

impl Overrides {
    /// Parses a URL's fragment. Returns invalid overrides with Twilio's error code, and keeps the defaults for them.
    pub(super) fn parse(url: &str) -> (Self, Vec<(ErrorCode, String)>) {
        let mut overrides = Self {
            times: Timeouts::DEFAULT,
            // Twilio's defaults: one retry, and only after a failed connection.
            retries: 1,
            on: RetryOn {
                connect: true,
                ..RetryOn::default()
            },
        };
        let mut wrong = Vec::new();
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for pair in fragment.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let problem = overrides.set(key, value);
            wrong.extend(problem.map(|(code, what)| (ErrorCode(code), format!("#{pair}: {what}"))));
        }
        (overrides, wrong)
    }

    /// Replaces the failures to retry after. Returns false, and changes nothing, for an unknown word.
    pub(super) fn set_retry_on(&mut self, words: &str) -> bool {
        let read = RetryOn::parse(words);
        self.on = read.unwrap_or(self.on);
        read.is_some()
    }

    /// Returns whether a response with this status is retried.
    pub(super) fn retries_status(&self, status: u16) -> bool {
        match status {
            400..500 => self.on.client_error,
            500..600 => self.on.server_error,
            _ => false,
        }
    }

    /// Returns whether a failed request is retried.
    pub(super) fn retries_failure(&self, failed: &HttpError) -> bool {
        if failed.is_connect {
            self.on.connect
        } else {
            // Not after a connection that broke off: Twilio does not retry once part of a response has arrived.
            failed.is_timeout && self.on.read
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Option<(u32, String)> {
        let milliseconds = |range: RangeInclusive<u64>| number(value, range);
        let outcome = match key {
            "ct" => milliseconds(100..=10_000).map(|ms| self.times.connect = ms_of(ms)),
            "rt" => milliseconds(100..=15_000).map(|ms| self.times.read = ms_of(ms)),
            "tt" => milliseconds(100..=15_000).map(|ms| self.times.total = ms_of(ms)),
            "rc" => number(value, 0..=5).map(|count| self.retries = count),
            "rp" if self.set_retry_on(value) => Ok(()),
            "rp" => return Some((11243, "4xx, 5xx, ct, rt or all".to_owned())),
            // `sni` and `e` are only checked: all calls come from this machine.
            "sni" if matches!(value, "y" | "n") => Ok(()),
            "sni" => Err("y or n".to_owned()),
            "e" => match value.split(',').find(|edge| !EDGES.contains(edge)) {
                None => Ok(()),
                Some(_) => return Some((11240, "unknown edge".to_owned())),
            },
            _ => Err("unknown override".to_owned()),
        };
        outcome.err().map(|what| (11243, what))
    }
}

/// Twilio's edge locations, public and private (`-ix`).
const EDGES: [&str; 13] = [
    "ashburn",
    "dublin",
    "frankfurt",
    "sao-paulo",
    "singapore",
    "sydney",
    "tokyo",
    "umatilla",
    "ashburn-ix",
    "frankfurt-ix",
    "london-ix",
    "san-jose-ix",
    "singapore-ix",
];

impl RetryOn {
    fn parse(words: &str) -> Option<Self> {
        let mut on = Self::default();
        for word in words.split(',').map(str::trim) {
            match word {
                "ct" => on.connect = true,
                "rt" => on.read = true,
                "4xx" => on.client_error = true,
                "5xx" => on.server_error = true,
                "all" => {
                    on = Self {
                        connect: true,
                        read: true,
                        client_error: true,
                        server_error: true,
                    };
                }
                _ => return None,
            }
        }
        Some(on)
    }
}

fn ms_of(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn number(value: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let inside = value.parse().ok().filter(|number| range.contains(number));
    inside.ok_or_else(|| format!("{} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_fragment_overrides_timeouts_and_retries() {
        let (overrides, wrong) =
            Overrides::parse("https://h/p#ct=1000&tt=9000&rc=3&rp=ct,5xx&e=dublin");
        assert_eq!(overrides.times.connect, Duration::from_secs(1));
        assert_eq!(overrides.times.total, Duration::from_secs(9));
        assert_eq!(overrides.retries, 3);
        assert!(overrides.retries_status(503) && !overrides.retries_status(404));
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn invalid_override_warns_and_is_ignored() {
        let (overrides, wrong) = Overrides::parse("https://h/p#ct=9&rp=never&e=atlantis&zz=1");
        assert_eq!(overrides, Overrides::parse("https://h/p").0);
        let codes: Vec<_> = wrong.iter().map(|(code, _)| code.0).collect();
        assert_eq!(codes, [11243, 11243, 11240, 11243]);
    }
}
