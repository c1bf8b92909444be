//! Places where tests end the process, as `kill -9` would: switched on by `FAILPOINTS=P6=return` in a build with the feature
//! `failpoints`, and nothing at all in any other.
//!
//! `P0` the head of a request is read · `P1` it is verified, before it is kept · `P3` it is kept · `P4` before the handler ·
//! `P5` after it, before its answer is kept · `P6` the answer is kept · `P7` part of the response is written · `P8` all of it ·
//! `P9` the answer is to go by REST, while the handler runs · `P9.done` after the handler of such a message · `P10` the reply
//! is in the outbox · `P11` it is claimed · `P12` Twilio has taken it, before that is kept · `P13` a status callback, before it
//! is kept · `P14` a STOP is kept · `P15` in a migration. `P2` and `P16`, in a commit and in a checkpoint, are SQLite's code.

/// Ends the process here if the named point is switched on.
#[cfg(feature = "failpoints")]
#[macro_export]
#[doc(hidden)]
macro_rules! crash_point {
    ($name:literal) => {
        if $crate::crash_point::reached($name) {
            std::process::abort();
        }
    };
}

/// Nothing: this build has no crash points.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
#[doc(hidden)]
macro_rules! crash_point {
    ($name:literal) => {};
}

/// Whether a point is switched on. `FAILPOINTS` is read once.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub fn reached(name: &str) -> bool {
    argument(name).is_some()
}

/// What a point that is switched on is given: the 40 of `P7=return(40)`.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub fn argument(name: &str) -> Option<Option<String>> {
    static SCENARIO: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    SCENARIO.get_or_init(|| {
        // Never torn down: the points stay as the environment has them.
        std::mem::forget(fail::FailScenario::setup());
    });
    fail::eval(name, |argument| argument)
}
