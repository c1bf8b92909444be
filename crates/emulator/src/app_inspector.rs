//! Interface to the app under test.

use std::time::Duration;

use futures_util::future::BoxFuture;

/// Access to the app under test: the state that the page shows, and fault injection.
///
/// `TestBot` and `DevServer` attach their own implementation. To show another kind of server on the page, implement the
/// trait:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use futures_util::future::{BoxFuture, ready};
/// use replyhook::emulator::{AppInspector, Emulator};
/// use serde_json::{Value, json};
///
/// struct MyServer;
///
/// impl AppInspector for MyServer {
///     fn deadline(&self) -> Duration {
///         Duration::from_secs(10)
///     }
///     fn debounce(&self) -> Duration {
///         Duration::ZERO
///     }
///     fn store(&self) -> &str {
///         "sqlite::memory:"
///     }
///     fn state(&self, _user: String, _sender: String) -> BoxFuture<'_, Value> {
///         Box::pin(ready(json!({})))
///     }
///     fn reset(&self) -> BoxFuture<'_, Result<(), String>> {
///         Box::pin(ready(Ok(())))
///     }
///     fn inject_faults(&self, _handler_ms: u64, _handler_fails: bool) {}
/// }
///
/// fn attach(emulator: &Emulator) {
///     emulator.attach(Arc::new(MyServer));
/// }
/// # drop(attach);
/// ```
pub trait AppInspector: Send + Sync + 'static {
    /// Returns the reply deadline. The page shows it next to Twilio's 15 seconds.
    fn deadline(&self) -> Duration;

    /// Returns the debounce time: the pause to wait for a user's next message.
    fn debounce(&self) -> Duration;

    /// Returns the store's URL or description.
    ///
    /// The page warns before a reset that it deletes the content of this store, unless this is empty or
    /// `sqlite::memory:`.
    fn store(&self) -> &str;

    /// Returns a user's state as JSON, with the keys `window`, `opted_out`, `opt_out`, `opted_in`, `handler`,
    /// `handed_off_to`, `pending`, `dialogue`, `answers` and `reasons`. `opt_out` says since when, in which `scope` and by
    /// which `source`. `answers` has the message that each reply answers, and `reasons` why the bot did not get a message,
    /// or why its reply was not sent, both by SID.
    fn state(&self, user: String, sender: String) -> BoxFuture<'_, serde_json::Value>;

    /// Returns whether the server is sending messages via the REST API in reply to the inbound message with this SID.
    ///
    /// `POST /_emulator/messages` waits for them. False while the handler runs: its reply is a late one.
    fn is_sending(&self, _message_sid: String) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }

    /// Returns the SID of the inbound message, of `user` or of any user, that the server is sending a reply to via the REST
    /// API now; `None` unless there is exactly one.
    ///
    /// The page shows a refused call, which has no message of its own, below this message.
    fn message_being_answered(&self, _user: Option<String>) -> BoxFuture<'_, Option<String>> {
        Box::pin(std::future::ready(None))
    }

    /// Deletes everything in the store.
    fn reset(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Delays the handler by `handler_ms` milliseconds, and makes it fail if `handler_fails`.
    fn inject_faults(&self, handler_ms: u64, handler_fails: bool);
}
