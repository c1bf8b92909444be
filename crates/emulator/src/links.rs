//! URL functions that preserve every byte, since the signature covers the URL as it is written.

use reqwest::Url;

/// Removes the fragment, which Twilio neither sends nor signs.
pub(super) fn without_fragment(url: &str) -> String {
    url.split('#').next().unwrap_or_default().to_owned()
}

/// Removes `user:password`.
pub(super) fn without_password(url: &str) -> String {
    split_userinfo(url).0
}

/// Returns a URL for display: without password and fragment.
pub(super) fn display_url(url: &str) -> String {
    without_password(&without_fragment(url))
}

/// Resolves a link of a TwiML document or redirect. Keeps the fragment, which may contain connection overrides.
pub(super) fn resolve(base: &str, link: &str) -> Option<String> {
    let base = Url::parse(base).ok()?;
    let url = base.join(link.trim()).ok()?;
    // Keep an absolute URL as it was written: normalizing it would change the signed text.
    let target = match Url::parse(link.trim()) {
        Ok(_) => link.trim().to_owned(),
        Err(_) => url.to_string(),
    };
    is_http_url(&target).then_some(target)
}

/// Returns whether a URL is http or https and has a host.
pub(super) fn is_http_url(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Splits off `user:password`. Twilio does not sign it, and sends it only after a 401.
pub(super) fn split_userinfo(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    // Search for `@` before the path only: paths and queries may contain one.
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((userinfo, _)) => {
            let plain = format!("{scheme}://{}", &rest[userinfo.len() + 1..]);
            (plain, Some(userinfo.to_owned()))
        }
        None => (url.to_owned(), None),
    }
}
