//! The URL that Twilio calls, as configured: an origin and, behind a proxy, a path prefix.

use std::fmt;
use std::net::IpAddr;

/// `https://example.com` or `https://example.com/bots/a`, without a slash at its end.
///
/// String surgery only: a URL parser would lower-case, decode or add what Twilio then has not signed.
///
/// ```
/// use replyhook::signature::PublicUrl;
///
/// let (url, _) = PublicUrl::parse("https://bot.example.com/bots/a")?;
/// assert_eq!(url.endpoint("/webhook"), "https://bot.example.com/bots/a/webhook");
/// assert_eq!((url.scheme(), url.prefix(), url.is_loopback()), ("https", "/bots/a", false));
/// # Ok::<(), replyhook::signature::PublicUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl {
    https: bool,
    /// Host and, if configured, port.
    authority: String,
    /// Empty, or begins with a slash and does not end in one.
    prefix: String,
}

/// Why a text is no public URL, with what to write instead.
///
/// ```
/// use replyhook::signature::PublicUrl;
///
/// let error = PublicUrl::parse("https://bot.example.com/webhook").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "must not end in the endpoint's path, which the server adds: write https://bot.example.com"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicUrlError {
    /// Neither `http://` nor `https://`.
    #[error("must begin with https://, as in https://bot.example.com")]
    Scheme,
    /// No host, or characters that no host has.
    #[error("has no usable host: write https://HOST or https://HOST/PREFIX")]
    Host,
    /// The port is no number.
    #[error("has a port that is no number from 1 to 65535")]
    Port,
    /// White space, control or non-ASCII characters.
    #[error(
        "holds a character that no URL has: percent-encode the path and use the punycode form of the host"
    )]
    Character,
    /// A query.
    #[error("must not have a query: write {0}")]
    Query(PublicUrl),
    /// The path of an endpoint: the server adds it.
    #[error("must not end in the endpoint's path, which the server adds: write {0}")]
    Endpoint(PublicUrl),
}

/// What was cut from a public URL, or is odd about it.
///
/// ```
/// use replyhook::signature::{PublicUrl, PublicUrlNote};
///
/// let (_, notes) = PublicUrl::parse("https://bot.example.com/")?;
/// assert_eq!(notes, [PublicUrlNote::TrailingSlash]);
/// # Ok::<(), replyhook::signature::PublicUrlError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicUrlNote {
    /// A slash at the end.
    #[error("the slash at its end is not part of it and was cut")]
    TrailingSlash,
    /// `user:password@`.
    #[error("user and password are not signed by Twilio and were cut: leave them out")]
    Userinfo,
    /// `#rc=2`.
    #[error(
        "the fragment is never sent by Twilio and was cut: it belongs into Twilio's console only"
    )]
    Fragment,
    /// `http` to a host other than this machine.
    #[error("uses http: anyone on the way can read and replay messages; use https")]
    PlainHttp,
    /// Capitals in the host.
    #[error(
        "has capitals in its host: write it here exactly as in Twilio's console, best in lower case"
    )]
    UpperCaseHost,
    /// An underscore in the host.
    #[error("has an underscore in its host, which Twilio refuses")]
    Underscore,
}

/// The paths that the server adds.
const ENDPOINTS: [&str; 3] = ["/webhook", "/webhook/fallback", "/webhook/status"];

impl PublicUrl {
    /// Reads a configured URL, and tells what was cut.
    ///
    /// ```
    /// use replyhook::signature::PublicUrl;
    ///
    /// let (url, notes) = PublicUrl::parse("https://example.com/bots/a/#rc=2")?;
    /// assert_eq!(url.to_string(), "https://example.com/bots/a");
    /// assert_eq!(notes.len(), 2);
    /// # Ok::<(), replyhook::signature::PublicUrlError>(())
    /// ```
    ///
    /// # Errors
    /// [`PublicUrlError`], whose text says what to write.
    pub fn parse(text: &str) -> Result<(Self, Vec<PublicUrlNote>), PublicUrlError> {
        let mut notes = Vec::new();
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .ok_or(PublicUrlError::Scheme)?;
        let https = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err(PublicUrlError::Scheme),
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(PublicUrlError::Character);
        }
        let rest = match rest.split_once('#') {
            Some((rest, _)) => {
                notes.push(PublicUrlNote::Fragment);
                rest
            }
            None => rest,
        };
        let (rest, query) = rest
            .split_once('?')
            .map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest
            .find('/')
            .map_or((rest, ""), |slash| rest.split_at(slash));
        let authority = match authority.rsplit_once('@') {
            Some((_, authority)) => {
                notes.push(PublicUrlNote::Userinfo);
                authority
            }
            None => authority,
        };
        let prefix = path.trim_end_matches('/');
        if prefix.len() < path.len() {
            notes.push(PublicUrlNote::TrailingSlash);
        }
        let mut url = Self {
            https,
            authority: authority.to_owned(),
            prefix: prefix.to_owned(),
        };
        url.check_authority(&mut notes)?;
        let endpoint = ENDPOINTS
            .iter()
            .find_map(|endpoint| prefix.strip_suffix(endpoint));
        if let Some(prefix) = endpoint {
            prefix.clone_into(&mut url.prefix);
            return Err(PublicUrlError::Endpoint(url));
        }
        match query {
            Some(_) => Err(PublicUrlError::Query(url)),
            None => Ok((url, notes)),
        }
    }

    fn check_authority(&self, notes: &mut Vec<PublicUrlNote>) -> Result<(), PublicUrlError> {
        let (host, port) = split_port(&self.authority);
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err(PublicUrlError::Port);
        }
        if !is_host(host) {
            return Err(PublicUrlError::Host);
        }
        if !self.https && !is_loopback(host) {
            notes.push(PublicUrlNote::PlainHttp);
        }
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            notes.push(PublicUrlNote::UpperCaseHost);
        }
        if host.contains('_') {
            notes.push(PublicUrlNote::Underscore);
        }
        Ok(())
    }

    /// The URL of an endpoint, such as `/webhook`: what to enter in Twilio's console.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// The path prefix: empty, or with a slash before and none after it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(split_port(&self.authority).0)
    }

    /// Whether an absolute URL lies at or below this one.
    pub(crate) fn covers(&self, url: &str) -> bool {
        let Ok(uri) = url.parse::<http::Uri>() else {
            return false;
        };
        let (host, port) = split_port(&self.authority);
        let default_port = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let own_port = port
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| default_port(self.scheme()));
        let scheme = uri.scheme_str().unwrap_or_default();
        let below = uri
            .path()
            .strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        uri.host()
            .is_some_and(|other| other.eq_ignore_ascii_case(host))
            && uri.port_u16().unwrap_or_else(|| default_port(scheme)) == own_port
            && below
    }

    /// Scheme and authority in every spelling of the port that Twilio is known to sign.
    pub(super) fn origins(&self) -> Vec<String> {
        let scheme = self.scheme();
        let (host, port) = split_port(&self.authority);
        let other = match port {
            Some(_) => format!("{scheme}://{host}"),
            None => format!("{scheme}://{host}:{}", if self.https { 443 } else { 80 }),
        };
        vec![format!("{scheme}://{}", self.authority), other]
    }

    /// The target with the prefix, whether a proxy stripped it or not.
    pub(super) fn missing_prefix<'a>(&'a self, target: &str) -> &'a str {
        let kept = target
            .strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        if kept { "" } else { &self.prefix }
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.prefix)
    }
}

impl fmt::Debug for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Host and port; the colons of `[::1]` are no port.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Characters that a host has; `[…]` for IPv6.
pub(super) fn is_host(host: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => !host.is_empty() && host.bytes().all(name),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_belong_is_cut_with_a_note_or_refused_with_the_right_value() {
        let parse = |text| PublicUrl::parse(text).map(|(url, notes)| (url.to_string(), notes));
        let cut = |url: &str, notes: &[PublicUrlNote]| Ok((url.to_owned(), notes.to_vec()));
        assert_eq!(parse("https://h.test"), cut("https://h.test", &[]));
        assert_eq!(
            parse("HTTPS://h.test/"),
            cut("https://h.test", &[PublicUrlNote::TrailingSlash])
        );
        assert_eq!(
            parse("https://u:p@h.test:8443/a//#rc=2"),
            cut(
                "https://h.test:8443/a",
                &[
                    PublicUrlNote::Fragment,
                    PublicUrlNote::Userinfo,
                    PublicUrlNote::TrailingSlash
                ]
            )
        );
        assert_eq!(parse("http://[::1]:8080"), cut("http://[::1]:8080", &[]));
        assert_eq!(
            parse("http://h.test"),
            cut("http://h.test", &[PublicUrlNote::PlainHttp])
        );
        for (text, message) in [
            (
                "h.test",
                "must begin with https://, as in https://bot.example.com",
            ),
            (
                "https://",
                "has no usable host: write https://HOST or https://HOST/PREFIX",
            ),
            (
                "https://h.test:0",
                "has a port that is no number from 1 to 65535",
            ),
            (
                "https://h.test:http",
                "has a port that is no number from 1 to 65535",
            ),
            (
                "https://bücher.example",
                "holds a character that no URL has: percent-encode the path and use the punycode form of the host",
            ),
            (
                "https://h.test/a?x=1",
                "must not have a query: write https://h.test/a",
            ),
            (
                "https://h.test/webhook",
                "must not end in the endpoint's path, which the server adds: write https://h.test",
            ),
            (
                "https://h.test/a/webhook/status/",
                "must not end in the endpoint's path, which the server adds: write https://h.test/a",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn the_port_candidates_leave_the_colons_of_ipv6_alone() {
        let origins = |text| PublicUrl::parse(text).unwrap().0.origins();
        assert_eq!(
            origins("https://h.test"),
            ["https://h.test", "https://h.test:443"]
        );
        assert_eq!(
            origins("https://h.test:8443"),
            ["https://h.test:8443", "https://h.test"]
        );
        assert_eq!(origins("http://[::1]"), ["http://[::1]", "http://[::1]:80"]);
        assert_eq!(
            origins("http://[::1]:8080"),
            ["http://[::1]:8080", "http://[::1]"]
        );
    }

    #[test]
    fn the_prefix_is_added_only_where_it_was_stripped() {
        let url = PublicUrl::parse("https://h.test/bots/a").unwrap().0;
        assert_eq!(url.missing_prefix("/webhook"), "/bots/a");
        assert_eq!(url.missing_prefix("/bots/a/webhook"), "");
        assert_eq!(url.missing_prefix("/bots/a?x=1"), "");
        assert_eq!(url.missing_prefix("/bots/ab/webhook"), "/bots/a");
    }
}
