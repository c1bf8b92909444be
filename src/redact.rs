//! URLs as logs, errors and `Debug` may show them.

/// A URL without its user and password, without the values of its query and without its fragment.
///
/// A password that is not percent-encoded may hold `/`, `?` or `@`. All that stands before the last `@` counts as user
/// and password for that reason, even where a URL parser would find a path.
pub(crate) fn redacted_url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), url),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    match rest.rfind('@') {
        // The query may be the end of a password.
        Some(at) if at > end => format!("{scheme}…"),
        at => {
            let place = &rest[at.unwrap_or(0)..end];
            let hidden = if at.is_some() { "…" } else { "" };
            format!("{scheme}{hidden}{place}{}", redacted_query(&rest[end..]))
        }
    }
}

/// Returns whether a text begins with a scheme, as in `https://`.
#[cfg(feature = "app")]
pub(crate) fn is_url(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(scheme, _)| is_scheme(scheme))
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A query and a fragment, each with the sign that begins it.
fn redacted_query(text: &str) -> String {
    let (query, fragment) = text
        .split_once('#')
        .map_or((text, ""), |(query, _)| (query, "#…"));
    let Some(query) = query.strip_prefix('?') else {
        return fragment.to_owned();
    };
    let pairs: Vec<_> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{name}=…"),
            // A value without a name.
            None if !pair.is_empty() => "…".to_owned(),
            None => String::new(),
        })
        .collect();
    format!("?{}{fragment}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_urls_have_places_and_no_secrets() {
        for (url, shown) in [
            ("https://h:8443/a/b", "https://h:8443/a/b"),
            ("https://h?x", "https://h?…"),
            (
                "https://h/a?key=s3cret&b=s3cret#s3cret",
                "https://h/a?key=…&b=…#…",
            ),
            ("https://h#s3cret", "https://h#…"),
            ("postgresql://h/db", "postgresql://h/db"),
            (
                "postgres://u:s3cret@h:5432/db?password=s3cret",
                "postgres://…@h:5432/db?password=…",
            ),
            ("postgres://u:s3/cr@et@h/db", "postgres://…@h/db"),
            ("postgres://u:s3?cr#et@h/db", "postgres://…"),
            ("u:s3cret@h/db?x=s3cret://", "…@h/db?x=…"),
            ("u:s3cret@h?x=http://s3cret", "…@h?x=…"),
            ("", ""),
        ] {
            assert_eq!(redacted_url(url), shown);
        }
    }
}
