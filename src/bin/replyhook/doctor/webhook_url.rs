//! Comparison of a URL that is configured at Twilio with the endpoints of this server.
//!
//! Compares texts instead of parsed URLs, because Twilio signs the text as it is configured.

use replyhook::signature::PublicUrl;

/// An endpoint, in the order of [`WebhookPaths::named`](replyhook::signature::WebhookPaths::named).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointKind {
    Primary,
    Fallback,
    Status,
}

impl EndpointKind {
    const ALL: [Self; 3] = [Self::Primary, Self::Fallback, Self::Status];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Fallback => "fallback",
            Self::Status => "status",
        }
    }

    /// Returns the URL to configure for this endpoint.
    pub(super) fn url(self, public_url: &PublicUrl) -> String {
        public_url.endpoint(self.path(public_url))
    }

    fn path(self, public_url: &PublicUrl) -> &str {
        public_url.paths().named()[self as usize].1
    }
}

/// The difference between a configured URL and the URL of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlMismatch {
    Scheme,
    Port,
    Capitals,
    Prefix,
    Slash,
}

impl UrlMismatch {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Scheme => "has the other one of http and https, and is signed for that",
            Self::Port => "has another port than PUBLIC_URL",
            Self::Capitals => {
                "writes the host in other capitals than PUBLIC_URL, and is signed for that"
            }
            Self::Prefix => "lacks the path prefix of PUBLIC_URL, and is signed for that",
            Self::Slash => "has a slash at its end, which works as long as no proxy removes it",
        }
    }
}

/// The target of a configured URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlTarget {
    /// No URL is configured.
    NotSet,
    /// Another server.
    OtherServer,
    /// An endpoint of this server.
    Endpoint(EndpointKind),
    /// Almost an endpoint: requests do not reach it, or their signature does not verify.
    Mismatch(EndpointKind, UrlMismatch),
    /// A path below `PUBLIC_URL` that is not an endpoint.
    OtherPath,
}

impl UrlTarget {
    pub(super) fn classify(public_url: &PublicUrl, url: Option<&str>) -> Self {
        let Some(url) = url else {
            return Self::NotSet;
        };
        let expected = public_url.to_string();
        let (Some(expected), Some(configured)) = (UrlParts::parse(&expected), UrlParts::parse(url))
        else {
            return Self::OtherServer;
        };
        if !expected.host.eq_ignore_ascii_case(configured.host) {
            return Self::OtherServer;
        }
        let origin = if expected.is_https != configured.is_https {
            Some(UrlMismatch::Scheme)
        } else if expected.port != configured.port {
            Some(UrlMismatch::Port)
        } else {
            None
        };
        let path = configured.path.trim_end_matches('/');
        let prefix = public_url.prefix();
        let find = |path: &str| {
            EndpointKind::ALL
                .into_iter()
                .find(|kind| kind.path(public_url).trim_end_matches('/') == path)
        };
        let exact = path.strip_prefix(prefix).and_then(find);
        // Also match without the prefix: such a URL may reach the server, but its signature does not verify.
        let Some(endpoint) = exact.or_else(|| find(path)) else {
            let is_below = path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            return if is_below && origin.is_none() {
                Self::OtherPath
            } else {
                Self::OtherServer
            };
        };
        // Report one mismatch only. The slash comes last, because such a URL may work.
        let mismatch = origin
            .or_else(|| exact.is_none().then_some(UrlMismatch::Prefix))
            .or_else(|| (expected.host != configured.host).then_some(UrlMismatch::Capitals))
            .or_else(|| {
                // The root has the slash.
                let has_slash = configured.path.ends_with('/') && endpoint.path(public_url) != "/";
                has_slash.then_some(UrlMismatch::Slash)
            });
        mismatch.map_or(Self::Endpoint(endpoint), |mismatch| {
            Self::Mismatch(endpoint, mismatch)
        })
    }

    /// Returns the intended endpoint.
    pub(super) fn endpoint(self) -> Option<EndpointKind> {
        match self {
            Self::Endpoint(endpoint) | Self::Mismatch(endpoint, _) => Some(endpoint),
            Self::NotSet | Self::OtherServer | Self::OtherPath => None,
        }
    }

    pub(super) fn is_ours(self) -> bool {
        !matches!(self, Self::NotSet | Self::OtherServer)
    }
}

struct UrlParts<'a> {
    is_https: bool,
    host: &'a str,
    port: &'a str,
    /// Path without the query. A query does not matter: Twilio sends it as it is, and signs it.
    path: &'a str,
}

impl<'a> UrlParts<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let rest = rest.split(['#', '?']).next().unwrap_or_default();
        let (authority, path) = rest
            .find('/')
            .map_or((rest, ""), |slash| rest.split_at(slash));
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, authority)| authority);
        let default = if is_https { "443" } else { "80" };
        // The colons of an IPv6 address are within brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, default),
        };
        Some(Self {
            is_https,
            host,
            port,
            path,
        })
    }
}

/// Removes the password, and the query, which may contain a secret.
pub(super) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    // A URL matches an endpoint, differs from one by a single mismatch, or points elsewhere.
    #[test]
    fn webhook_url_compared_with_endpoints_names_mismatch() {
        use EndpointKind::{Fallback, Primary, Status};
        use UrlTarget::{Endpoint, Mismatch, OtherPath, OtherServer};
        let plain = "https://bot.example.com";
        let prefixed = "https://bot.example.com/bots/a";
        for (public_url, url, target) in [
            (plain, "https://bot.example.com/webhook", Endpoint(Primary)),
            (
                plain,
                "https://bot.example.com/webhook#rc=2&rp=ct,5xx",
                Endpoint(Primary),
            ),
            (
                plain,
                "https://bot.example.com:443/webhook/status?x=1",
                Endpoint(Status),
            ),
            (
                plain,
                "https://u:p@bot.example.com/webhook/fallback",
                Endpoint(Fallback),
            ),
            (
                plain,
                "http://bot.example.com/webhook",
                Mismatch(Primary, UrlMismatch::Scheme),
            ),
            (
                plain,
                "https://bot.example.com:8443/webhook",
                Mismatch(Primary, UrlMismatch::Port),
            ),
            (
                plain,
                "https://Bot.example.com/webhook",
                Mismatch(Primary, UrlMismatch::Capitals),
            ),
            (
                plain,
                "https://bot.example.com/webhook/status/",
                Mismatch(Status, UrlMismatch::Slash),
            ),
            (plain, "https://bot.example.com", OtherPath),
            (plain, "https://bot.example.com/Webhook", OtherPath),
            (plain, "https://bot.example.com:8443/other", OtherServer),
            (plain, "https://example.com/webhook", OtherServer),
            (plain, "bot.example.com/webhook", OtherServer),
            (
                prefixed,
                "https://bot.example.com/bots/a/webhook",
                Endpoint(Primary),
            ),
            (
                prefixed,
                "https://bot.example.com/webhook",
                Mismatch(Primary, UrlMismatch::Prefix),
            ),
            (prefixed, "https://bot.example.com/bots/a", OtherPath),
            (
                prefixed,
                "https://bot.example.com/bots/b/webhook",
                OtherServer,
            ),
            (prefixed, "https://bot.example.com/bots/ab", OtherServer),
        ] {
            let (public_url, _) = PublicUrl::parse(public_url).expect("a public URL");
            assert_eq!(UrlTarget::classify(&public_url, Some(url)), target, "{url}");
        }
    }

    #[test]
    fn shown_url_omits_password_and_query() {
        for (url, shown) in [
            ("https://u:p@h.test/a?token=x#y", "https://h.test/a"),
            ("https://h.test", "https://h.test"),
            ("/login?next=/webhook", "/login"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
