//! URLs that a reply may have.

/// Returns true for an absolute http or https URL with a host.
#[doc(hidden)]
pub fn is_web_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|h| !h.is_empty())
    })
}
