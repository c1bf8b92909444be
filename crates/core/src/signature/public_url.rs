//! The configured public URL that Twilio calls: an origin, and a path prefix if there is one.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::webhook_paths::WebhookPaths;

/// A public URL, such as `https://example.com` or `https://example.com/bots/a`, without a slash at its end.
///
/// The text is never normalized. A URL parser would change its case, decode it or add to it, and Twilio signs the URL
/// as configured.
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
    is_https: bool,
    /// Host, and the port if it is configured.
    authority: String,
    /// Path prefix: empty, or with a slash at its start and none at its end.
    prefix: String,
    /// Paths of the webhooks, below the prefix.
    // Shared, so that the URL stays small within `PublicUrlError`.
    paths: Arc<WebhookPaths>,
}

/// Error of a text that is not a public URL. `Display` includes the fix.
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
    /// The text begins with neither `http://` nor `https://`.
    #[error("must begin with https://, as in https://bot.example.com")]
    Scheme,
    /// The host is missing or has invalid characters.
    #[error("has no usable host: write https://HOST or https://HOST/PREFIX")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("has an invalid port: write a number from 1 to 65535")]
    Port,
    /// The text has white space, control or non-ASCII characters.
    #[error(
        "has a character that is invalid in a URL: percent-encode the path and use the punycode form of the host"
    )]
    Character,
    /// The URL has a query. The error contains the URL without it.
    #[error("must not have a query: write {0}")]
    Query(PublicUrl),
    /// The URL ends in the path of an endpoint. The error contains the URL without it.
    #[error("must not end in the endpoint's path, which the server adds: write {0}")]
    Endpoint(PublicUrl),
}

/// Warning about a part that was removed from a public URL, or about an unusual value.
///
/// ```
/// use replyhook::signature::{PublicUrl, PublicUrlWarning};
///
/// let (_, warnings) = PublicUrl::parse("https://bot.example.com/")?;
/// assert_eq!(warnings, [PublicUrlWarning::TrailingSlash]);
/// # Ok::<(), replyhook::signature::PublicUrlError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicUrlWarning {
    /// A slash at the end.
    #[error("the slash at its end is not part of the public URL and was removed")]
    TrailingSlash,
    /// `user:password@`.
    #[error("user and password are not signed by Twilio and were removed: leave them out")]
    Userinfo,
    /// `#rc=2`.
    #[error(
        "the fragment is never sent by Twilio and was removed: write it in Twilio's console only"
    )]
    Fragment,
    /// `http` with a host other than this machine.
    #[error("uses http: anyone on the network path can read and replay messages; use https")]
    PlainHttp,
    /// Upper-case letters in the host.
    #[error(
        "has upper-case letters in its host: write the host as in Twilio's console, preferably in lower case"
    )]
    UpperCaseHost,
    /// An underscore in the host.
    #[error("has an underscore in its host, which Twilio rejects: use another host name")]
    Underscore,
}

impl PublicUrl {
    /// Parses a configured URL. The warnings name the parts that were removed.
    ///
    /// ```
    /// use replyhook::signature::PublicUrl;
    ///
    /// let (url, warnings) = PublicUrl::parse("https://example.com/bots/a/#rc=2")?;
    /// assert_eq!(url.to_string(), "https://example.com/bots/a");
    /// assert_eq!(warnings.len(), 2);
    /// # Ok::<(), replyhook::signature::PublicUrlError>(())
    /// ```
    ///
    /// # Errors
    /// [`PublicUrlError`], whose text includes the fix.
    pub fn parse(text: &str) -> Result<(Self, Vec<PublicUrlWarning>), PublicUrlError> {
        Self::parse_with_paths(text, WebhookPaths::default())
    }

    /// Parses a configured URL of a server whose webhooks have these paths. See [`PublicUrl::parse`].
    ///
    /// # Errors
    /// [`PublicUrlError`], whose text includes the fix.
    pub fn parse_with_paths(
        text: &str,
        paths: WebhookPaths,
    ) -> Result<(Self, Vec<PublicUrlWarning>), PublicUrlError> {
        // The order of the cuts matters: a fragment may contain `?`, and a query may contain `/` and `@`.
        let mut warnings = Vec::new();
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .ok_or(PublicUrlError::Scheme)?;
        let is_https = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err(PublicUrlError::Scheme),
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(PublicUrlError::Character);
        }
        let rest = match rest.split_once('#') {
            Some((rest, _)) => {
                warnings.push(PublicUrlWarning::Fragment);
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
                warnings.push(PublicUrlWarning::Userinfo);
                authority
            }
            None => authority,
        };
        let prefix = path.trim_end_matches('/');
        if prefix.len() < path.len() {
            warnings.push(PublicUrlWarning::TrailingSlash);
        }
        let mut url = Self {
            is_https,
            authority: authority.to_owned(),
            prefix: prefix.to_owned(),
            paths: Arc::new(paths),
        };
        url.check_authority(&mut warnings)?;
        let endpoints = url.paths.named();
        let endpoint = endpoints
            .iter()
            .find_map(|(_, endpoint)| prefix.strip_suffix(endpoint));
        // Errors carry the cleaned URL, so that their text shows exactly what to write.
        if let Some(prefix) = endpoint {
            prefix.clone_into(&mut url.prefix);
            return Err(PublicUrlError::Endpoint(url));
        }
        match query {
            Some(_) => Err(PublicUrlError::Query(url)),
            None => Ok((url, warnings)),
        }
    }

    fn check_authority(&self, warnings: &mut Vec<PublicUrlWarning>) -> Result<(), PublicUrlError> {
        let (host, port) = split_port(&self.authority);
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err(PublicUrlError::Port);
        }
        if !is_host(host) {
            return Err(PublicUrlError::Host);
        }
        if !self.is_https && !is_loopback(host) {
            warnings.push(PublicUrlWarning::PlainHttp);
        }
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            warnings.push(PublicUrlWarning::UpperCaseHost);
        }
        if host.contains('_') {
            warnings.push(PublicUrlWarning::Underscore);
        }
        Ok(())
    }

    /// Returns the URL of an endpoint, such as `/webhook`, as it is entered in Twilio's console.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Returns the path prefix: empty, or with a slash at its start and none at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the paths of the webhooks, which [`endpoint`](Self::endpoint) takes.
    pub fn paths(&self) -> &WebhookPaths {
        &self.paths
    }

    /// Returns the paths at which requests for an endpoint arrive: with and without the prefix, which a proxy may keep or
    /// strip, and with and without a slash at the end.
    ///
    /// ```
    /// use replyhook::signature::PublicUrl;
    ///
    /// let (url, _) = PublicUrl::parse("https://example.com/a")?;
    /// assert_eq!(url.routes("/webhook"), ["/a/webhook", "/a/webhook/", "/webhook", "/webhook/"]);
    /// assert_eq!(url.routes("/"), ["/a", "/a/", "/"]);
    /// # Ok::<(), replyhook::signature::PublicUrlError>(())
    /// ```
    pub fn routes(&self, path: &str) -> Vec<String> {
        let path = path.trim_end_matches('/');
        // Without a prefix both are equal.
        let mut prefixes = vec![self.prefix.as_str(), ""];
        prefixes.dedup();
        let routes = prefixes
            .into_iter()
            .flat_map(|prefix| ["", "/"].map(|slash| format!("{prefix}{path}{slash}")));
        // The root has no spelling without its slash.
        routes.filter(|route| !route.is_empty()).collect()
    }

    /// Returns `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// Returns whether the host is `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(split_port(&self.authority).0)
    }

    /// Returns whether an absolute URL is this one or below it. Compares host, port and path.
    #[doc(hidden)]
    pub fn covers(&self, url: &str) -> bool {
        // Unlike for signatures, equivalent spellings count here: a parser, any case of the host, and default ports.
        let Ok(uri) = url.parse::<http::Uri>() else {
            return false;
        };
        let (host, port) = split_port(&self.authority);
        let default_port = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let own_port = port
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| default_port(self.scheme()));
        let scheme = uri.scheme_str().unwrap_or_default();
        let is_below = uri
            .path()
            .strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        uri.host()
            .is_some_and(|other| other.eq_ignore_ascii_case(host))
            && uri.port_u16().unwrap_or_else(|| default_port(scheme)) == own_port
            && is_below
    }

    /// Returns scheme and authority in both spellings of the port: Twilio is known to sign either.
    pub(super) fn origins(&self) -> Vec<String> {
        // The configured spelling is first, because nearly all requests match it.
        let scheme = self.scheme();
        let (host, port) = split_port(&self.authority);
        let other_origin = match port {
            Some(_) => format!("{scheme}://{host}"),
            None => format!("{scheme}://{host}:{}", if self.is_https { 443 } else { 80 }),
        };
        vec![format!("{scheme}://{}", self.authority), other_origin]
    }

    /// Returns the prefix if the target lacks it because a proxy stripped it; otherwise an empty text.
    pub(super) fn missing_prefix<'a>(&'a self, target: &str) -> &'a str {
        // A whole path segment: `/bots/ab` does not begin with the prefix `/bots/a`.
        let has_prefix = target
            .strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        if has_prefix { "" } else { &self.prefix }
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

/// Splits an authority into host and port. The colons in `[::1]` do not begin a port.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Returns whether a text has only characters of a host name, or is an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    let is_host_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => !host.is_empty() && host.bytes().all(is_host_byte),
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

    // Superfluous parts are removed with a warning; other mistakes give an error with the right value.
    #[test]
    fn public_url_is_cleaned_or_rejected_with_fix() {
        let parse =
            |text| PublicUrl::parse(text).map(|(url, warnings)| (url.to_string(), warnings));
        let cut =
            |url: &str, warnings: &[PublicUrlWarning]| Ok((url.to_owned(), warnings.to_vec()));
        assert_eq!(parse("https://h.test"), cut("https://h.test", &[]));
        assert_eq!(
            parse("HTTPS://h.test/"),
            cut("https://h.test", &[PublicUrlWarning::TrailingSlash])
        );
        assert_eq!(
            parse("https://u:p@h.test:8443/a//#rc=2"),
            cut(
                "https://h.test:8443/a",
                &[
                    PublicUrlWarning::Fragment,
                    PublicUrlWarning::Userinfo,
                    PublicUrlWarning::TrailingSlash
                ]
            )
        );
        assert_eq!(parse("http://[::1]:8080"), cut("http://[::1]:8080", &[]));
        assert_eq!(
            parse("http://h.test"),
            cut("http://h.test", &[PublicUrlWarning::PlainHttp])
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
                "has an invalid port: write a number from 1 to 65535",
            ),
            (
                "https://h.test:http",
                "has an invalid port: write a number from 1 to 65535",
            ),
            (
                "https://bücher.example",
                "has a character that is invalid in a URL: percent-encode the path and use the punycode form of the host",
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
    fn port_candidates_keep_ipv6_address_intact() {
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
    fn path_prefix_is_added_only_if_stripped() {
        let url = PublicUrl::parse("https://h.test/bots/a").unwrap().0;
        assert_eq!(url.missing_prefix("/webhook"), "/bots/a");
        assert_eq!(url.missing_prefix("/bots/a/webhook"), "");
        assert_eq!(url.missing_prefix("/bots/a?x=1"), "");
        assert_eq!(url.missing_prefix("/bots/ab/webhook"), "/bots/a");
    }
}
