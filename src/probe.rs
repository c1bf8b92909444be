//! Probes: signed test requests that show which server process a public URL leads to.
//!
//! A probe is a signed webhook request with the parameter [`PARAMETER`]. The server responds with `<Response/>` and the
//! headers below; it neither stores nor handles the request. A probe without a valid signature is rejected like any
//! other request. `replyhook doctor` compares the [`Instance`] in the response with the one that the private listener
//! reports, to find out whether `PUBLIC_URL` leads to this server.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use http::HeaderValue;

/// Parameter that marks a signed request as a probe. Its value does not matter. Twilio has no parameter of this name.
pub const PARAMETER: &str = "ReplyhookProbe";
/// Response header with the [`Instance`] of the server.
pub const INSTANCE_HEADER: &str = "replyhook-instance";
/// Response header with the endpoint: `primary`, `fallback` or `status`.
pub const ENDPOINT_HEADER: &str = "replyhook-endpoint";

/// Random ID of one server process, made at its start. It is not secret and serves only for comparison.
///
/// ```
/// use replyhook::probe::{INSTANCE_HEADER, Instance};
///
/// let this = Instance::random();
/// let mut headers = http::HeaderMap::new();
/// headers.insert(INSTANCE_HEADER, this.header());
/// let received = headers[INSTANCE_HEADER].to_str()?;
/// assert_eq!(Instance::parse(received), Some(this));
/// # Ok::<(), http::header::ToStrError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance(u64);

impl Instance {
    /// Creates a random ID.
    pub fn random() -> Self {
        // The keys of `RandomState` are random per process and differ between calls. That is enough for an ID that only
        // has to be unique among a few servers, and needs no dependency.
        Self(RandomState::new().build_hasher().finish())
    }

    /// Parses 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        // Checked apart from the conversion, which accepts a sign and fewer digits.
        let is_well_formed = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok()?;
        is_well_formed.then_some(Self(number))
    }

    /// Returns the value of [`INSTANCE_HEADER`].
    pub fn header(self) -> HeaderValue {
        HeaderValue::from_str(&self.to_string()).expect("hexadecimal digits are valid in a header")
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_id_parse_accepts_only_own_format() {
        let instance = Instance::random();
        assert_eq!(Instance::parse(&instance.to_string()), Some(instance));
        assert_eq!(Instance::parse("00000000000000ff"), Some(Instance(255)));
        assert_ne!(instance, Instance::random());
        for text in [
            "",
            "ff",
            "+0000000000000ff",
            "00000000000000ff0",
            "00000000000000fg",
        ] {
            assert_eq!(Instance::parse(text), None, "{text}");
        }
    }
}
