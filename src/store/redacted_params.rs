//! Form-encoded parameters that logs do not show.

use std::fmt;

/// Form-encoded parameters that `Debug` does not show.
///
/// ```
/// use replyhook::FormParams;
/// use replyhook::store::RedactedParams;
///
/// let params = RedactedParams("Body=two+words".to_owned());
/// assert_eq!(format!("{params:?}"), "RedactedParams(14 bytes)");
/// assert_eq!(FormParams::parse(params.0.as_bytes(), 512)?.get("Body"), Some("two words"));
/// # Ok::<(), replyhook::form::FormError>(())
/// ```
#[derive(Clone)]
pub struct RedactedParams(pub String);

impl fmt::Debug for RedactedParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedactedParams({} bytes)", self.0.len())
    }
}
