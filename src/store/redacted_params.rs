//! Form-encoded parameters that logs do not show.

use std::fmt;

/// Form-encoded parameters that `Debug` does not show.
#[derive(Clone)]
pub struct RedactedParams(pub String);

impl fmt::Debug for RedactedParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedactedParams({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_length_only() {
        let params = RedactedParams("Body=two+words".to_owned());
        assert_eq!(format!("{params:?}"), "RedactedParams(14 bytes)");
    }
}
