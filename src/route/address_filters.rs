//! Functions that create filters of users and senders.

use super::filter::{Filter, FilterKind};
use crate::address_pattern::AddressPattern;
use crate::folding::IntoTexts;

/// Matches messages of these users, given as addresses, beginnings of addresses, or countries.
///
/// An entry without a channel, such as `+1555`, matches on every channel. See [`AddressPattern`].
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, from};
/// use replyhook::{App, testing::TestBot};
///
/// let staff = || Router::new().on(from(["+34600", "whatsapp:+4915112345678"]), "Hello, colleague!");
/// let bot = TestBot::start(move || App::builder().handler(staff())).await;
/// bot.sms("+34600000001").says("hi").await.assert_reply("Hello, colleague!");
/// bot.sms("+4915112345678").says("hi").await.assert_no_reply();
/// # });
/// ```
///
/// # Panics
/// If an entry is malformed. The panic occurs when the router is built, not when a message arrives. [`sent_by`] takes
/// entries that are parsed already.
#[track_caller]
pub fn from(entries: impl IntoTexts) -> Filter {
    sent_by(parse_patterns(entries))
}

/// Matches messages of users whose addresses match one of these entries.
///
/// ```
/// use replyhook::AddressPattern;
/// use replyhook::route::sent_by;
///
/// let filter = sent_by(vec![AddressPattern::parse("+1555")?, AddressPattern::parse("DE")?]);
/// assert_eq!(filter.to_string(), "from +1555, DE");
/// # Ok::<(), replyhook::AddressPatternError>(())
/// ```
pub fn sent_by(patterns: Vec<AddressPattern>) -> Filter {
    Filter(FilterKind::From(patterns))
}

/// Matches messages to any of these senders. The arguments are those of [`from`].
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::route::{Router, to};
/// use replyhook::{App, testing::TestBot};
///
/// let shop = || Router::new().on(to("whatsapp:+14155238886"), "The shop.").otherwise("The office.");
/// let bot = TestBot::start(move || App::builder().handler(shop())).await;
/// bot.whatsapp("+34600000001").says("hi").await.assert_reply("The shop.");
/// bot.sms("+34600000001").says("hi").await.assert_reply("The office.");
/// # });
/// ```
///
/// # Panics
/// As [`from`].
#[track_caller]
pub fn to(entries: impl IntoTexts) -> Filter {
    sent_to(parse_patterns(entries))
}

/// Matches messages to senders whose addresses match one of these entries.
///
/// See [`sent_by`] for an example.
pub fn sent_to(patterns: Vec<AddressPattern>) -> Filter {
    Filter(FilterKind::To(patterns))
}

#[track_caller]
fn parse_patterns(entries: impl IntoTexts) -> Vec<AddressPattern> {
    let entries = entries.texts();
    let mut patterns = Vec::with_capacity(entries.len());
    // A loop instead of a closure, so that the panic names the caller's line.
    for (number, entry) in (1..).zip(entries) {
        match AddressPattern::parse(&entry) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => panic!("entry {number} is not an address or country: {error}"),
        }
    }
    patterns
}
