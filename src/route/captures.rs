//! [`Captures`]: typed values captured from a text by a pattern or a command.

use std::fmt;

use serde::de::DeserializeOwned;

use super::request::{FromMessage, RouteRequest};

/// Values that the route's pattern or command captured from the text, as your own type.
///
/// - A struct takes named groups by name. Without names its fields are filled by position.
/// - A tuple takes the groups of a pattern, or the words after a command, by position. The last field of a command's
///   tuple takes the rest of the text.
/// - A single value takes the only group of a pattern, or all of the text after a command. A pattern without groups, or
///   with several, gives its whole match.
/// - An `Option` takes a value that may be missing.
///
/// If the captured text does not fit the type, the route does not match, and the router tries the next one. If several
/// patterns or commands of a filter match, names are looked up in all of them, and positions in the first.
///
/// ```
/// use replyhook::route::{Captures, Router, command, regex};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Order {
///     id: u32,
///     size: Option<String>,
/// }
///
/// async fn order(Captures(order): Captures<Order>) -> String {
///     format!("Order {} ({})", order.id, order.size.unwrap_or_default())
/// }
///
/// async fn remind(Captures((minutes, what)): Captures<(u32, String)>) -> String {
///     format!("In {minutes} minutes: {what}")
/// }
///
/// let bot = Router::new()
///     .on(regex(r"^order (?<id>\d+)( (?<size>small|large))?$"), order)
///     .on(command("remind"), remind)
///     .otherwise("Write: order 42, or /remind 5 tea");
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Captures<T>(pub T);

impl<T: DeserializeOwned + Send, S> FromMessage<S> for Captures<T> {
    fn from_message(call: &RouteRequest<'_, S>) -> Option<Self> {
        // Text that does not fit `T` is not an error: `None` makes the router try the next route.
        T::deserialize(call.captures).ok().map(Self)
    }
}

/// Hides the captured text, which users wrote.
impl<T> fmt::Debug for Captures<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Captures(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_debug_shows_no_text() {
        assert_eq!(format!("{:?}", Captures("+15550001111")), "Captures(…)");
    }
}
