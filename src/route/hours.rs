//! Business hours: times of the week in a time zone.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTES_PER_DAY: u32 = 24 * 60;

/// Times of the week, such as `mon-fri 09:00-17:30, sat 10:00-14:00`, in a time zone such as `Europe/Berlin`.
///
/// A day without times is the whole day. Times without a day apply to every day. Times that end before they begin end
/// on the next day.
///
/// ```
/// use replyhook::route::Hours;
///
/// let office = Hours::parse("mon-fri 09:00-17:30, sat 10:00-14:00", "Europe/Berlin")?;
/// assert!(office.contain("2026-11-24T08:00:00Z".parse()?));
/// assert!(!office.contain("2026-11-29T10:00:00Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Hours {
    text: String,
    zone: TimeZone,
    /// Half-open spans in minutes since Monday 00:00. A span that begins on Sunday may end after the end of the week.
    spans: Vec<(u32, u32)>,
}

/// Error for invalid hours or an invalid time zone.
///
/// ```
/// use replyhook::route::{Hours, HoursError};
///
/// let nowhere = Hours::parse("mon-fri", "Europe/Atlantis").unwrap_err();
/// assert_eq!(nowhere, HoursError::Zone("Europe/Atlantis".to_owned()));
/// assert!(nowhere.to_string().contains(r#""Europe/Atlantis" is not a time zone"#));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoursError {
    /// The time zone is unknown.
    #[error("{0:?} is not a time zone; write one such as \"Europe/Berlin\" or \"UTC\"")]
    Zone(String),
    /// The days or times cannot be parsed.
    #[error(
        "invalid hours {0:?}; write days and times such as \"mon-fri 09:00-17:30\" or \"sat 10:00-14:00\""
    )]
    Times(String),
}

impl Hours {
    /// Parses times, separated by commas, in an IANA time zone.
    ///
    /// # Errors
    /// [`HoursError`] if the time zone is unknown, or a part cannot be parsed.
    pub fn parse(times: &str, zone: &str) -> Result<Self, HoursError> {
        let zone = TimeZone::get(zone).map_err(|_| HoursError::Zone(zone.to_owned()))?;
        let mut spans = Vec::new();
        for part in times.split(',') {
            let part_spans =
                parse_part(part).ok_or_else(|| HoursError::Times(part.trim().to_owned()))?;
            spans.extend(part_spans);
        }
        Ok(Self {
            text: times.trim().to_owned(),
            zone,
            spans,
        })
    }

    /// Returns true if the hours contain the instant.
    pub fn contain(&self, at: Timestamp) -> bool {
        // Compare local wall-clock times, so that hours stay the same across changes to daylight saving time.
        let local = at.to_zoned(self.zone.clone());
        let day = u32::from(local.weekday().to_monday_zero_offset().unsigned_abs());
        let (hour, minute) = (local.hour().unsigned_abs(), local.minute().unsigned_abs());
        let minute_of_day = u32::from(hour) * 60 + u32::from(minute);
        let minute_of_week = day * MINUTES_PER_DAY + minute_of_day;
        let mut spans = self.spans.iter();
        // The part of a span after the end of the week continues on Monday: `sun 22:00-02:00`.
        spans.any(|(start, end)| {
            (*start..*end).contains(&minute_of_week) || minute_of_week + 7 * MINUTES_PER_DAY < *end
        })
    }
}

/// Parses one part, such as `mon-fri 09:00-17:30`, into one span per day.
fn parse_part(part: &str) -> Option<Vec<(u32, u32)>> {
    let words: Vec<_> = part.split_whitespace().collect();
    let (days, times) = match words[..] {
        // A single word is times if it begins with a digit, else days.
        [one] if one.starts_with(|c: char| c.is_ascii_digit()) => (None, Some(one)),
        [one] => (Some(one), None),
        [days, times] => (Some(days), Some(times)),
        _ => return None,
    };
    let days = match days {
        Some(days) => parse_weekdays(days)?,
        None => (0..7).collect(),
    };
    let (start, mut end) = match times {
        Some(times) => {
            let (start, end) = times.split_once(['-', '–'])?;
            (parse_time(start)?, parse_time(end)?)
        }
        None => (0, MINUTES_PER_DAY),
    };
    // An empty span would never match, and a day does not have a minute at 24:00: both are mistakes.
    if start == end || start == MINUTES_PER_DAY {
        return None;
    }
    if end < start {
        end += MINUTES_PER_DAY;
    }
    let spans = days
        .into_iter()
        .map(|day| (day * MINUTES_PER_DAY + start, day * MINUTES_PER_DAY + end));
    Some(spans.collect())
}

fn parse_weekdays(days: &str) -> Option<Vec<u32>> {
    let weekday_index = |day: &str| {
        let day = day.to_lowercase();
        let index = WEEKDAYS.iter().position(|name| *name == day)?;
        u32::try_from(index).ok()
    };
    let (first, last) = match days.split_once(['-', '–']) {
        Some((first, last)) => (weekday_index(first)?, weekday_index(last)?),
        None => (weekday_index(days)?, weekday_index(days)?),
    };
    // A range may continue after the end of the week: `fri-mon`.
    let last = if last < first { last + 7 } else { last };
    Some((first..=last).map(|day| day % 7).collect())
}

/// Parses a time such as `09:30`, up to `24:00`, into minutes of the day.
fn parse_time(time: &str) -> Option<u32> {
    let (hour, minute) = time.split_once(':')?;
    // `parse` alone would also accept a sign, as in `+9:00`.
    let is_number =
        |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hour) || !is_number(minute) || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    let minute_of_day = hour * 60 + minute;
    (minute < 60 && minute_of_day <= MINUTES_PER_DAY).then_some(minute_of_day)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{} {zone}", self.text)
    }
}

impl fmt::Debug for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hours({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(times: &str, zone: &str, at: &str) -> bool {
        Hours::parse(times, zone)
            .unwrap()
            .contain(at.parse().unwrap())
    }

    #[test]
    fn hours_follow_time_zone_and_daylight_saving() {
        let office = "mon-fri 09:00-17:30, sat 10:00-14:00";
        // Tuesday: 08:00 UTC is 09:00 in Berlin in winter, and 07:00 UTC is 09:00 in summer.
        assert!(open(office, "Europe/Berlin", "2026-11-24T08:00:00Z"));
        assert!(!open(office, "Europe/Berlin", "2026-11-24T07:59:59Z"));
        assert!(open(office, "Europe/Berlin", "2026-07-21T07:00:00Z"));
        assert!(!open(office, "Europe/Berlin", "2026-07-21T15:30:00Z"));
        // Saturday until 14:00, Sunday closed.
        assert!(open(office, "Europe/Berlin", "2026-11-28T12:59:00Z"));
        assert!(!open(office, "Europe/Berlin", "2026-11-28T13:00:00Z"));
        assert!(!open(office, "Europe/Berlin", "2026-11-29T10:00:00Z"));
    }

    // Hours and ranges of days continue from Sunday to Monday.
    #[test]
    fn overnight_hours_end_on_next_day() {
        assert!(open("sun 22:00-02:00", "UTC", "2026-11-29T23:00:00Z"));
        assert!(open("sun 22:00-02:00", "UTC", "2026-11-30T01:59:00Z"));
        assert!(!open("sun 22:00-02:00", "UTC", "2026-11-30T02:00:00Z"));
        assert!(!open("sun 22:00-02:00", "UTC", "2026-11-29T01:00:00Z"));
        assert!(open("fri-mon", "UTC", "2026-11-29T12:00:00Z"));
        assert!(!open("fri-mon", "UTC", "2026-11-24T12:00:00Z"));
        assert!(open("00:00-24:00", "UTC", "2026-11-24T23:59:59Z"));
    }

    #[test]
    fn invalid_hours_are_rejected() {
        for times in [
            "",
            "always",
            "mon-",
            "monday",
            "9-17",
            "09:00-09:00",
            "24:00-25:00",
            "09:60-10:00",
            "mon 09:00",
            "mon 9:00-",
            "mon fri 09:00-10:00",
            "24:00-01:00",
            "+9:00-10:00",
        ] {
            assert!(Hours::parse(times, "UTC").is_err(), "{times:?}");
        }
        let nowhere = Hours::parse("mon", "Europe/Atlantis").unwrap_err();
        assert_eq!(nowhere, HoursError::Zone("Europe/Atlantis".to_owned()));
    }
}
