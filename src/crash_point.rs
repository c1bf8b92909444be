//! Crash points, at which tests abort the process as `kill -9` would.
//!
//! `FAILPOINTS=P6=return` enables a point in a build with the feature `failpoints`. In other builds the macro is empty.
//!
//! | point | the process ends |
//! |---|---|
//! | `P0` | after the head of a request is read |
//! | `P1` | after the request is verified, before the message is stored |
//! | `P3` | after the message is stored |
//! | `P4` | before the handler runs |
//! | `P5` | after the handler, before the reply is saved |
//! | `P6` | after the reply is saved |
//! | `P7`, `P8` | after part of the response is written; after all of it |
//! | `P9` | after the message is deferred to the REST API, while the handler runs |
//! | `P9.done` | after the handler of such a message |
//! | `P10` | after the reply is queued in the outbox |
//! | `P11` | after the outbox worker claimed the reply |
//! | `P11.content` | while the content of such a reply is looked up or made, before its call |
//! | `P12` | after Twilio accepted the reply, before that is recorded |
//! | `P13` | before a status callback is recorded |
//! | `P14` | after a STOP is stored |
//! | `P15` | in a migration |
//!
//! `P2` and `P16`, in a commit and in a checkpoint, would lie in SQLite's code; the tests in `kill_loop.rs` hit them at
//! random.

/// Aborts the process if the named crash point is enabled.
#[cfg(feature = "failpoints")]
#[macro_export]
#[doc(hidden)]
macro_rules! crash_point {
    ($name:literal) => {
        // `abort` runs no destructors, so nothing is flushed or released, as with a kill.
        if $crate::crash_point::reached($name) {
            std::process::abort();
        }
    };
}

/// Expands to nothing: this build has no crash points.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
#[doc(hidden)]
macro_rules! crash_point {
    ($name:literal) => {};
}

/// Panics if the named point is enabled: `FAILPOINTS=outbox.send=1*return` panics once.
///
/// `outbox.poll` is in the loop of the outbox worker, `outbox.send` in the call for one message, and `message.process`
/// after a message is claimed.
#[cfg(feature = "failpoints")]
#[macro_export]
#[doc(hidden)]
macro_rules! panic_point {
    ($name:literal) => {
        assert!(
            !$crate::crash_point::reached($name),
            "panic point {}",
            $name
        );
    };
}

/// Expands to nothing: this build has no panic points.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
#[doc(hidden)]
macro_rules! panic_point {
    ($name:literal) => {};
}

/// Returns whether a crash point is enabled. `FAILPOINTS` is read once.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub fn reached(name: &str) -> bool {
    argument(name).is_some()
}

/// Returns the argument of an enabled crash point, such as the 40 of `P7=return(40)`.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub fn argument(name: &str) -> Option<Option<String>> {
    static SCENARIO: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    SCENARIO.get_or_init(|| {
        // Leak the scenario: dropping it would disable all points.
        std::mem::forget(fail::FailScenario::setup());
    });
    fail::eval(name, |argument| argument)
}
