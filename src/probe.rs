//! What tells one server from all others: the id of its start, and the signed request that asks a public URL for it.
//!
//! A probe is a webhook request with [`PARAMETER`] among its pairs, signed like any other. A server answers it with
//! `<Response/>` and the headers named here, and neither keeps nor handles it. Without a valid signature it is refused like
//! any other. `replyhook doctor` compares its answer with that of the private listener: does `PUBLIC_URL` lead here?

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use http::HeaderValue;

/// The parameter that makes a signed request a probe; its value is of no account. Twilio sends none of this name.
pub const PARAMETER: &str = "ReplyhookProbe";
/// The header with the [`Instance`] that answers.
pub const INSTANCE_HEADER: &str = "replyhook-instance";
/// The header with the endpoint that answers: `primary`, `fallback` or `status`.
pub const ENDPOINT_HEADER: &str = "replyhook-endpoint";

/// One start of one server. Not secret, and good for nothing but comparing.
///
/// ```
/// use replyhook::probe::{INSTANCE_HEADER, Instance};
///
/// let this = Instance::random();
/// let mut answer = http::HeaderMap::new();
/// answer.insert(INSTANCE_HEADER, this.header());
/// let heard = answer[INSTANCE_HEADER].to_str()?;
/// assert_eq!(Instance::parse(heard), Some(this));
/// # Ok::<(), http::header::ToStrError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance(u64);

impl Instance {
    /// A new one, at random.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok()?;
        well_formed.then_some(Self(number))
    }

    /// The value of [`INSTANCE_HEADER`].
    pub fn header(self) -> HeaderValue {
        HeaderValue::from_str(&self.to_string()).expect("hexadecimal digits are a header's value")
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
    fn an_instance_is_read_as_it_is_written_and_nothing_else_is_one() {
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
