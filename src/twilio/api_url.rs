//! [`ApiUrl`]: the base URL of the REST API.

use std::fmt;

/// Base URL of the REST API: Twilio's, that of a region and edge, or a stand-in on this machine.
///
/// ```
/// use replyhook::twilio::ApiUrl;
///
/// assert_eq!(ApiUrl::default().to_string(), "https://api.twilio.com");
/// assert_eq!(ApiUrl::regional("ie1", "dublin")?.to_string(), "https://api.dublin.ie1.twilio.com");
/// assert!(ApiUrl::parse("http://127.0.0.1:8081")?.is_loopback());
/// assert!(ApiUrl::parse("http://api.example.com").is_err());
/// # Ok::<(), replyhook::twilio::ApiUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ApiUrl {
    origin: String,
    loopback: bool,
}

/// The error for a URL that must not receive credentials. See [`ApiUrl`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be https://HOST without a path; http is allowed for this machine only")]
pub struct ApiUrlError;

impl ApiUrl {
    /// Parses an origin: `https://host[:port]`, or `http://host[:port]` of a loopback host.
    ///
    /// # Errors
    /// [`ApiUrlError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, ApiUrlError> {
        let origin = text.trim_end_matches('/');
        let uri: http::Uri = origin.parse().map_err(|_| ApiUrlError)?;
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or(ApiUrlError)?;
        // Credentials in the URL are not allowed, and `http::Uri` silently drops a fragment, so look for both here.
        let is_bare_origin =
            uri.path() == "/" && uri.query().is_none() && !origin.contains(['@', '#']);
        let loopback = host == "localhost" || host == "[::1]" || is_loopback_v4(host);
        match uri.scheme_str() {
            Some("https") if is_bare_origin => Ok(Self {
                origin: origin.to_owned(),
                loopback: false,
            }),
            Some("http") if is_bare_origin && loopback => Ok(Self {
                origin: origin.to_owned(),
                loopback,
            }),
            _ => Err(ApiUrlError),
        }
    }

    /// Returns the URL of a region, such as `ie1`, and an edge, such as `dublin`.
    ///
    /// # Errors
    /// [`ApiUrlError`] if one of them is not a name of letters, digits and `-`.
    pub fn regional(region: &str, edge: &str) -> Result<Self, ApiUrlError> {
        // A dot or slash would let a setting move the host away from twilio.com.
        let is_name = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !is_name(region) || !is_name(edge) {
            return Err(ApiUrlError);
        }
        Self::parse(&format!("https://api.{edge}.{region}.twilio.com"))
    }

    /// Returns `https://content.twilio.com`, the host of the `Content` resource.
    pub fn content() -> Self {
        Self {
            origin: "https://content.twilio.com".to_owned(),
            loopback: false,
        }
    }

    /// Returns `https://messaging.twilio.com`, the host of the `Channels/Senders` and `Indicators` resources.
    pub fn messaging() -> Self {
        Self {
            origin: "https://messaging.twilio.com".to_owned(),
            loopback: false,
        }
    }

    /// Returns true for a stand-in on this machine, reached over plain HTTP.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }
}

fn is_loopback_v4(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>()
        .is_ok_and(|address| address.is_loopback())
}

impl Default for ApiUrl {
    fn default() -> Self {
        Self {
            origin: "https://api.twilio.com".to_owned(),
            loopback: false,
        }
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

impl fmt::Debug for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // This URL receives the account's credentials.
    #[test]
    fn api_url_requires_https_except_on_localhost() {
        for (text, expected) in [
            ("https://api.twilio.com", "https://api.twilio.com"),
            (
                "https://api.dublin.ie1.twilio.com/",
                "https://api.dublin.ie1.twilio.com",
            ),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("http://localhost:8081", "http://localhost:8081"),
            ("http://[::1]:8081", "http://[::1]:8081"),
        ] {
            assert_eq!(ApiUrl::parse(text).unwrap().to_string(), expected);
        }
        for text in [
            "http://api.twilio.com",
            "https://",
            "https://u:p@h",
            "https://h/x",
            "https://h?x",
            "ftp://h",
            "h",
            "",
        ] {
            assert_eq!(ApiUrl::parse(text), Err(ApiUrlError), "{text}");
        }
        assert_eq!(
            ApiUrl::regional("ie1", "dublin").unwrap().to_string(),
            "https://api.dublin.ie1.twilio.com"
        );
        assert_eq!(ApiUrl::regional("ie1", "evil.example/"), Err(ApiUrlError));
    }
}
