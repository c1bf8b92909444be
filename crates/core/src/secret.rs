//! Secret values: redacted in `Debug`, without `Display` and `Serialize`, zeroed on drop.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A token, key or password.
///
/// `Debug` shows nothing of the value. The type implements neither `Display` nor `Serialize`:
///
/// ```compile_fail,E0277
/// fn must_serialize<T: serde::Serialize>(_: T) {}
/// must_serialize(replyhook::Secret::new("token"));
/// ```
///
/// ```
/// use replyhook::Secret;
///
/// let token = Secret::new("0123456789abcdef0123456789abcdef");
/// assert_eq!(format!("{token:?}"), "Secret(…)");
/// assert_eq!(token.expose().len(), 32);
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// Returns the value. The name makes every use easy to find in a review.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A constant: it reveals neither a character nor the length.
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}
