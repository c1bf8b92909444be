//! Connection overrides in the fragment of a webhook URL, such as `https://bot.example.com/webhook#rc=2&rp=ct,5xx`.
//!
//! Source: twilio.com/docs/usage/webhooks/webhooks-connection-overrides.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::http_client::{HttpError, Timeouts};
use replyhook_core::error_code::ErrorCode;

/// Timeouts and retry policy of one URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overrides {
    pub(super) timeouts: Timeouts,
    pub(super) retries: u64,
    retry_on: RetryOn,
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
            timeouts: Timeouts::DEFAULT,
            // Twilio's defaults: one retry, and only after a failed connection.
            retries: 1,
            retry_on: RetryOn {
                connect: true,
                ..RetryOn::default()
            },
        };
        let mut invalid = Vec::new();
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for pair in fragment.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let problem = overrides.set(key, value);
            invalid.extend(
                problem.map(|(code, reason)| (ErrorCode(code), format!("#{pair}: {reason}"))),
            );
        }
        (overrides, invalid)
    }

    /// Replaces the failures to retry after. Returns false, and changes nothing, for an unknown word.
    pub(super) fn set_retry_on(&mut self, words: &str) -> bool {
        let parsed = RetryOn::parse(words);
        self.retry_on = parsed.unwrap_or(self.retry_on);
        parsed.is_some()
    }

    /// Returns whether a response with this status is retried.
    pub(super) fn retries_status(&self, status: u16) -> bool {
        match status {
            400..500 => self.retry_on.client_error,
            500..600 => self.retry_on.server_error,
            _ => false,
        }
    }

    /// Returns whether a failed request is retried.
    pub(super) fn retries_failure(&self, error: &HttpError) -> bool {
        if error.is_connect {
            self.retry_on.connect
        } else {
            // Not after a connection that was closed early: Twilio does not retry once part of a response has arrived.
            error.is_timeout && self.retry_on.read
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Option<(u32, String)> {
        let milliseconds =
            |range: RangeInclusive<u64>| parse_in_range(value, range).map(Duration::from_millis);
        let result = match key {
            "ct" => milliseconds(100..=10_000).map(|time| self.timeouts.connect = time),
            "rt" => milliseconds(100..=15_000).map(|time| self.timeouts.read = time),
            "tt" => milliseconds(100..=15_000).map(|time| {
                self.timeouts.total = time;
                self.timeouts.is_total_reduced = time < Timeouts::DEFAULT.total;
            }),
            "rc" => parse_in_range(value, 0..=5).map(|count| self.retries = count),
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
        result.err().map(|reason| (11243, reason))
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
        let mut retry_on = Self::default();
        for word in words.split(',').map(str::trim) {
            match word {
                "ct" => retry_on.connect = true,
                "rt" => retry_on.read = true,
                "4xx" => retry_on.client_error = true,
                "5xx" => retry_on.server_error = true,
                "all" => {
                    retry_on = Self {
                        connect: true,
                        read: true,
                        client_error: true,
                        server_error: true,
                    };
                }
                _ => return None,
            }
        }
        Some(retry_on)
    }
}

fn parse_in_range(value: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_fragment_overrides_timeouts_and_retries() {
        let (overrides, invalid) =
            Overrides::parse("https://h/p#ct=1000&tt=9000&rc=3&rp=ct,5xx&e=dublin");
        assert_eq!(overrides.timeouts.connect, Duration::from_secs(1));
        assert_eq!(overrides.timeouts.total, Duration::from_secs(9));
        assert_eq!(overrides.retries, 3);
        assert!(overrides.retries_status(503) && !overrides.retries_status(404));
        assert!(invalid.is_empty(), "{invalid:?}");
    }

    #[test]
    fn invalid_override_warns_and_is_ignored() {
        let (overrides, invalid) = Overrides::parse("https://h/p#ct=9&rp=never&e=atlantis&zz=1");
        assert_eq!(overrides, Overrides::parse("https://h/p").0);
        let codes: Vec<_> = invalid.iter().map(|(code, _)| code.0).collect();
        assert_eq!(codes, [11243, 11243, 11240, 11243]);
    }
}
