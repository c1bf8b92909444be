//! [`AddressPattern`]: an entry of a list of users or senders.

mod country;
mod pattern;

pub(crate) use country::country as country_of;
pub(crate) use pattern::matches_author;
pub use pattern::{AddressPattern, AddressPatternError};
