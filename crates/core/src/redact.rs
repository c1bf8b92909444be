//! Redaction of URLs for logs, errors and `Debug`.

/// Returns a URL without user, password, query values and fragment; `…` stands for each of them.
///
/// A password that is not percent-encoded may contain `/`, `?` or `@`. So everything before the last `@` counts as user
/// and password, even where a URL parser would find a path.
pub fn redacted_url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), url),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    match rest.rfind('@') {
        // An `@` after the first `?` or `#`: these may belong to a password, so nothing after the scheme is safe to
        // show.
        Some(at) if at > end => format!("{scheme}…"),
        at => {
            // Starts with the `@` if there is one, which shows that credentials were removed.
            let host_and_path = &rest[at.unwrap_or(0)..end];
            let hidden = if at.is_some() { "…" } else { "" };
            format!(
                "{scheme}{hidden}{host_and_path}{}",
                redacted_query(&rest[end..])
            )
        }
    }
}

/// Returns whether a text begins with a scheme, as in `https://`.
pub fn is_url(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(scheme, _)| is_scheme(scheme))
}

fn is_scheme(text: &str) -> bool {
    // As in RFC 3986. A `://` later in the text, as in a query value, must not turn what precedes it into a scheme.
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Redacts a query and a fragment, which begin with `?` and `#`.
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
            // Without `=` the text may be a name or a secret value: hide it.
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
    fn redacted_url_keeps_host_and_hides_secrets() {
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
