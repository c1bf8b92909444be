//! [`MediaHosts`]: the hosts to which a redirect to a media file may lead.

use reqwest::Url;

use crate::twilio::api_url::ApiUrl;

/// Twilio's hosts, and the storage host that it uses.
const TWILIO_HOSTS: [&str; 3] = [
    "*.twilio.com",
    "*.twiliocdn.com",
    "s3-external-1.amazonaws.com",
];

/// The hosts that media files may be fetched from.
#[derive(Debug, Clone, Default)]
pub(crate) struct MediaHosts {
    /// Hosts of `media.allowed_redirect_hosts`, in addition to `TWILIO_HOSTS`.
    additional: Vec<HostPattern>,
}

/// A host name, or `*.` and a name for every host below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPattern(String);

/// The client with which a redirect target is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RedirectClient {
    /// The client without credentials that connects to public addresses only.
    PublicOnly,
    /// The API's own client, for a local stand-in that serves its files itself.
    Api,
}

impl HostPattern {
    /// Parses a pattern; `None` if it is not a host name. IP addresses, URLs and ports are rejected.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(is_label_byte)
        };
        // URL parsers read a host whose last label is a number, such as `10.0.0.1`, `1` or `0x7f000001`, as an IPv4
        // address.
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        let last_label = name.rsplit('.').next().unwrap_or_default();
        let is_valid = name.split('.').all(is_label)
            && !is_number(last_label)
            && !last_label.starts_with("0x");
        is_valid.then(|| Self(text.to_ascii_lowercase()))
    }

    fn matches(pattern: &str, host: &str) -> bool {
        // `*.example.com` becomes the suffix `.example.com`. The host must be longer, and the dot keeps out
        // `evilexample.com`.
        match pattern.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == pattern,
        }
    }
}

impl MediaHosts {
    pub(crate) fn new(additional: Vec<HostPattern>) -> Self {
        Self { additional }
    }

    /// Returns the client for a file at `url`, or `None` if the URL is not allowed.
    pub(super) fn client_for(&self, url: &Url, api: &ApiUrl) -> Option<RedirectClient> {
        // Same scheme, host and port: a stand-in may not redirect to another service of this machine.
        let api_url = Url::parse(&api.to_string()).ok()?;
        if api.is_loopback() && url.origin() == api_url.origin() {
            return Some(RedirectClient::Api);
        }
        // `domain` is `None` for an IP address, so no pattern can allow one.
        let host = url.domain()?;
        let additional = self.additional.iter().map(|pattern| pattern.0.as_str());
        let patterns = TWILIO_HOSTS.into_iter().chain(additional);
        // Userinfo in a URL can make a foreign host look like a known one.
        let is_plain_https =
            url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
        let is_allowed = patterns
            .into_iter()
            .any(|pattern| HostPattern::matches(pattern, host));
        (is_plain_https && is_allowed).then_some(RedirectClient::PublicOnly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_for(url: &str, api: &str, additional: &[&str]) -> Option<RedirectClient> {
        let additional = additional
            .iter()
            .map(|name| HostPattern::parse(name).unwrap());
        let hosts = MediaHosts::new(additional.collect());
        hosts.client_for(&Url::parse(url).unwrap(), &ApiUrl::parse(api).unwrap())
    }

    // Allowed are Twilio's hosts, its storage, and hosts from the settings.
    #[test]
    fn threat_34_media_redirect_follows_only_allowed_hosts() {
        const API: &str = "https://api.twilio.com";
        for url in [
            "https://mms.twiliocdn.com/AC1/x?signature=1",
            "https://MMS.TWILIOCDN.COM/x",
            "https://api.dublin.ie1.twilio.com/x",
            "https://s3-external-1.amazonaws.com/media.twiliocdn.com/x",
            "https://mms.twiliocdn.com:8443/x",
        ] {
            assert_eq!(
                client_for(url, API, &[]),
                Some(RedirectClient::PublicOnly),
                "{url}"
            );
        }
        for url in [
            "http://mms.twiliocdn.com/x",
            "https://twiliocdn.com/x",
            "https://eviltwiliocdn.com/x",
            "https://mms.twiliocdn.com.evil.example/x",
            "https://mms.twiliocdn.com@evil.example/x",
            "https://user@mms.twiliocdn.com/x",
            "https://evil.example/mms.twiliocdn.com",
            "https://s3.amazonaws.com/x",
            "https://x.s3-external-1.amazonaws.com/x",
            "https://mms.twiliocdn.com./x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
            "file:///etc/passwd",
            "data:text/plain,x",
            "http://127.0.0.1:8081/x",
        ] {
            assert_eq!(client_for(url, API, &[]), None, "{url}");
        }
        assert_eq!(
            client_for("https://cdn.example.com/x", API, &["cdn.example.com"]),
            Some(RedirectClient::PublicOnly)
        );
        assert_eq!(
            client_for("https://a.cdn.example.com/x", API, &["*.cdn.example.com"]),
            Some(RedirectClient::PublicOnly)
        );
        assert_eq!(
            client_for("https://a.cdn.example.com/x", API, &["cdn.example.com"]),
            None
        );
    }

    // The emulator may redirect to itself, but not to another port of the machine.
    #[test]
    fn local_api_url_allows_redirect_to_itself_only() {
        const API: &str = "http://127.0.0.1:8081";
        assert_eq!(
            client_for("http://127.0.0.1:8081/media/x", API, &[]),
            Some(RedirectClient::Api)
        );
        for url in [
            "http://127.0.0.1:8082/media/x",
            "http://localhost:8081/media/x",
            "https://127.0.0.1:8081/media/x",
            "http://127.0.0.2:8081/x",
        ] {
            assert_eq!(client_for(url, API, &[]), None, "{url}");
        }
    }

    // IP addresses, URLs and ports are not host names.
    #[test]
    fn host_pattern_accepts_only_host_names() {
        for text in [
            "cdn.example.com",
            "*.example.com",
            "localhost",
            "a-b.example",
        ] {
            assert!(HostPattern::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "*",
            "*.",
            "10.0.0.1",
            "[::1]",
            "https://x.example",
            "x.example/",
            "x.example:443",
            "a..b",
            "*.*.x",
            "user@x.example",
            "1",
            "0x7f000001",
            "a.*.example",
        ] {
            assert!(HostPattern::parse(text).is_none(), "{text}");
        }
    }
}
