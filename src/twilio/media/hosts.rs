//! Where a redirect to a file may lead.

use reqwest::Url;

use crate::twilio::ApiUrl;

/// Hosts of Twilio's, and of the storage that it uses.
const KNOWN: [&str; 3] = [
    "*.twilio.com",
    "*.twiliocdn.com",
    "s3-external-1.amazonaws.com",
];

/// The hosts that files may lie on.
#[derive(Debug, Clone, Default)]
pub(crate) struct MediaHosts {
    /// Beside Twilio's.
    further: Vec<HostPattern>,
}

/// One host by its name, or with `*.` every host below a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPattern(String);

/// How a file is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As from anywhere in the world.
    Guarded,
    /// From the stand-in on this machine that is the API.
    Same,
}

impl HostPattern {
    /// `None` for what is no name of a host: an IP address above all, behind which anything may stand.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(plain)
        };
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        let last = name.rsplit('.').next().unwrap_or_default();
        let sound = name.split('.').all(label) && !is_number(last) && !last.starts_with("0x");
        sound.then(|| Self(text.to_ascii_lowercase()))
    }

    fn fits(pattern: &str, host: &str) -> bool {
        match pattern.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => host == pattern,
        }
    }
}

impl MediaHosts {
    pub(crate) fn new(further: Vec<HostPattern>) -> Self {
        Self { further }
    }

    /// How a file at `url` is fetched, if at all.
    pub(super) fn way(&self, url: &Url, api: &ApiUrl) -> Option<Way> {
        let own = Url::parse(&api.to_string()).ok()?;
        if api.is_loopback() && url.origin() == own.origin() {
            return Some(Way::Same);
        }
        // A host in the form of an address is none of these, whatever is added.
        let host = url.domain()?;
        let further = self.further.iter().map(|pattern| pattern.0.as_str());
        let known = KNOWN.into_iter().chain(further);
        let plain =
            url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
        let fits = known
            .into_iter()
            .any(|pattern| HostPattern::fits(pattern, host));
        (plain && fits).then_some(Way::Guarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(url: &str, api: &str, further: &[&str]) -> Option<Way> {
        let further = further.iter().map(|name| HostPattern::parse(name).unwrap());
        let hosts = MediaHosts::new(further.collect());
        hosts.way(&Url::parse(url).unwrap(), &ApiUrl::parse(api).unwrap())
    }

    #[test]
    fn threat_34_a_redirect_leads_to_twilio_and_its_storage_or_nowhere() {
        const API: &str = "https://api.twilio.com";
        for url in [
            "https://mms.twiliocdn.com/AC1/x?signature=1",
            "https://MMS.TWILIOCDN.COM/x",
            "https://api.dublin.ie1.twilio.com/x",
            "https://s3-external-1.amazonaws.com/media.twiliocdn.com/x",
            "https://mms.twiliocdn.com:8443/x",
        ] {
            assert_eq!(way(url, API, &[]), Some(Way::Guarded), "{url}");
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
            assert_eq!(way(url, API, &[]), None, "{url}");
        }
        assert_eq!(
            way("https://cdn.example.com/x", API, &["cdn.example.com"]),
            Some(Way::Guarded)
        );
        assert_eq!(
            way("https://a.cdn.example.com/x", API, &["*.cdn.example.com"]),
            Some(Way::Guarded)
        );
        assert_eq!(
            way("https://a.cdn.example.com/x", API, &["cdn.example.com"]),
            None
        );
    }

    #[test]
    fn a_stand_in_on_this_machine_leads_to_itself_and_to_no_other_port() {
        const API: &str = "http://127.0.0.1:8081";
        assert_eq!(
            way("http://127.0.0.1:8081/media/x", API, &[]),
            Some(Way::Same)
        );
        for url in [
            "http://127.0.0.1:8082/media/x",
            "http://localhost:8081/media/x",
            "https://127.0.0.1:8081/media/x",
            "http://127.0.0.2:8081/x",
        ] {
            assert_eq!(way(url, API, &[]), None, "{url}");
        }
    }

    #[test]
    fn an_address_is_no_name_of_a_host() {
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
