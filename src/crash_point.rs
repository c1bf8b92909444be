//! Places where tests end the process, as `kill -9` would: named `P0` to `P16`, switched on by `FAILPOINTS=P6=return` in a
//! build with the feature `failpoints`, and nothing at all in any other.

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
    static SCENARIO: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    SCENARIO.get_or_init(|| {
        // Never torn down: the points stay as the environment has them.
        std::mem::forget(fail::FailScenario::setup());
    });
    fail::eval(name, |_| ()).is_some()
}
