//! Where a URL that is entered at Twilio points: to an endpoint of ours, nearly to one, or elsewhere. String surgery only:
//! what Twilio signs is the text as it is entered.

use replyhook::signature::PublicUrl;

use super::reach::ENDPOINTS;

/// An endpoint, by its place in [`ENDPOINTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Primary,
    Fallback,
    Status,
}

impl End {
    const ALL: [Self; 3] = [Self::Primary, Self::Fallback, Self::Status];

    pub(super) fn name(self) -> &'static str {
        ENDPOINTS[self as usize].0
    }

    /// What is right to enter for it.
    pub(super) fn url(self, public_url: &PublicUrl) -> String {
        public_url.endpoint(self.path())
    }

    fn path(self) -> &'static str {
        ENDPOINTS[self as usize].1
    }
}

/// What keeps a URL from being an endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Scheme,
    Port,
    Capitals,
    Prefix,
    Slash,
}

impl Flaw {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Scheme => "has the other one of http and https, and is signed for that",
            Self::Port => "has another port than PUBLIC_URL",
            Self::Capitals => {
                "writes the host in other capitals than PUBLIC_URL, and is signed for that"
            }
            Self::Prefix => "lacks the path prefix of PUBLIC_URL, and is signed for that",
            Self::Slash => {
                "has a slash at its end, which works as long as nothing on the way cuts it"
            }
        }
    }
}

/// Where a URL points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pointing {
    /// There is none.
    Nowhere,
    /// To others.
    Elsewhere,
    /// To an endpoint.
    At(End),
    /// To an endpoint that it does not reach, or whose signature does not verify.
    Nearly(End, Flaw),
    /// To a path below `PUBLIC_URL` that is no endpoint.
    OtherPath,
}

impl Pointing {
    pub(super) fn of(public_url: &PublicUrl, url: Option<&str>) -> Self {
        let Some(url) = url else {
            return Self::Nowhere;
        };
        let ours = public_url.to_string();
        let (Some(ours), Some(theirs)) = (Parts::of(&ours), Parts::of(url)) else {
            return Self::Elsewhere;
        };
        if !ours.host.eq_ignore_ascii_case(theirs.host) {
            return Self::Elsewhere;
        }
        let origin = if ours.is_https != theirs.is_https {
            Some(Flaw::Scheme)
        } else if ours.port != theirs.port {
            Some(Flaw::Port)
        } else {
            None
        };
        let path = theirs.path.trim_end_matches('/');
        let prefix = public_url.prefix();
        let end = |path: &str| End::ALL.into_iter().find(|end| end.path() == path);
        let whole = path.strip_prefix(prefix).and_then(end);
        let Some(end) = whole.or_else(|| end(path)) else {
            let below = path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            return if below && origin.is_none() {
                Self::OtherPath
            } else {
                Self::Elsewhere
            };
        };
        let flaw = origin
            .or_else(|| whole.is_none().then_some(Flaw::Prefix))
            .or_else(|| (ours.host != theirs.host).then_some(Flaw::Capitals))
            .or_else(|| theirs.path.ends_with('/').then_some(Flaw::Slash));
        flaw.map_or(Self::At(end), |flaw| Self::Nearly(end, flaw))
    }

    /// The endpoint that is meant.
    pub(super) fn end(self) -> Option<End> {
        match self {
            Self::At(end) | Self::Nearly(end, _) => Some(end),
            Self::Nowhere | Self::Elsewhere | Self::OtherPath => None,
        }
    }

    pub(super) fn is_ours(self) -> bool {
        !matches!(self, Self::Nowhere | Self::Elsewhere)
    }
}

struct Parts<'a> {
    is_https: bool,
    host: &'a str,
    port: &'a str,
    /// Without its query: whatever that is, Twilio signs it and sends it.
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
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

/// A URL as it may be shown: no password, and no query, which may hold one.
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

    #[test]
    fn a_url_points_to_an_endpoint_nearly_to_one_or_elsewhere() {
        use End::{Fallback, Primary, Status};
        use Pointing::{At, Elsewhere, Nearly, OtherPath};
        let plain = "https://bot.example.com";
        let prefixed = "https://bot.example.com/bots/a";
        for (public_url, url, pointing) in [
            (plain, "https://bot.example.com/webhook", At(Primary)),
            (
                plain,
                "https://bot.example.com/webhook#rc=2&rp=ct,5xx",
                At(Primary),
            ),
            (
                plain,
                "https://bot.example.com:443/webhook/status?x=1",
                At(Status),
            ),
            (
                plain,
                "https://u:p@bot.example.com/webhook/fallback",
                At(Fallback),
            ),
            (
                plain,
                "http://bot.example.com/webhook",
                Nearly(Primary, Flaw::Scheme),
            ),
            (
                plain,
                "https://bot.example.com:8443/webhook",
                Nearly(Primary, Flaw::Port),
            ),
            (
                plain,
                "https://Bot.example.com/webhook",
                Nearly(Primary, Flaw::Capitals),
            ),
            (
                plain,
                "https://bot.example.com/webhook/status/",
                Nearly(Status, Flaw::Slash),
            ),
            (plain, "https://bot.example.com", OtherPath),
            (plain, "https://bot.example.com/Webhook", OtherPath),
            (plain, "https://bot.example.com:8443/other", Elsewhere),
            (plain, "https://example.com/webhook", Elsewhere),
            (plain, "bot.example.com/webhook", Elsewhere),
            (
                prefixed,
                "https://bot.example.com/bots/a/webhook",
                At(Primary),
            ),
            (
                prefixed,
                "https://bot.example.com/webhook",
                Nearly(Primary, Flaw::Prefix),
            ),
            (prefixed, "https://bot.example.com/bots/a", OtherPath),
            (
                prefixed,
                "https://bot.example.com/bots/b/webhook",
                Elsewhere,
            ),
            (prefixed, "https://bot.example.com/bots/ab", Elsewhere),
        ] {
            let (public_url, _) = PublicUrl::parse(public_url).expect("a public URL");
            assert_eq!(Pointing::of(&public_url, Some(url)), pointing, "{url}");
        }
    }

    #[test]
    fn a_url_is_shown_without_password_and_query() {
        for (url, shown) in [
            ("https://u:p@h.test/a?token=x#y", "https://h.test/a"),
            ("https://h.test", "https://h.test"),
            ("/login?next=/webhook", "/login"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
