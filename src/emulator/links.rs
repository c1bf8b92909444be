//! URLs as Twilio handles them: byte for byte, since signatures are over every byte.

use reqwest::Url;

/// A URL without its fragment.
pub(super) fn bare(url: &str) -> String {
    url.split('#').next().unwrap_or_default().to_owned()
}

/// Where a link in a document leads; the fragment stays, as it may carry overrides.
pub(super) fn resolve(base: &str, link: &str) -> Option<String> {
    let base = Url::parse(base).ok()?;
    let url = base.join(link.trim()).ok()?;
    // An absolute URL stays as it was written: its signature is over every byte.
    let target = match Url::parse(link.trim()) {
        Ok(_) => link.trim().to_owned(),
        Err(_) => url.to_string(),
    };
    can_be_called(&target).then_some(target)
}

/// Whether a URL leads anywhere.
pub(super) fn can_be_called(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// A URL without user and password, which are not signed and not sent at first.
pub(super) fn split_userinfo(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((userinfo, _)) => {
            let plain = format!("{scheme}://{}", &rest[userinfo.len() + 1..]);
            (plain, Some(userinfo.to_owned()))
        }
        None => (url.to_owned(), None),
    }
}
