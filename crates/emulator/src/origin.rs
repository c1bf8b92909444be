//! Checks of `Host` and `Origin`: only this machine's own pages and programs may call the emulator. They block foreign
//! pages in the same browser (CSRF), and foreign names that resolve to loopback (DNS rebinding).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::engine::Engine;

const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Rejects requests with another `Host`, and requests of pages with another `Origin`.
pub(super) async fn require_local(
    State(engine): State<Arc<Engine>>,
    request: Request,
    next: Next,
) -> Response {
    let port = engine.origin.rsplit_once(':').map_or("", |(_, port)| port);
    let is_page = request.method() == Method::GET && request.uri().path() == "/";
    if !is_local_request(is_page, request.headers(), port) {
        return (
            StatusCode::FORBIDDEN,
            "the emulator serves this machine's own pages and programs only\n",
        )
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // Defaults: a handler's own value stays.
    let mut set_default = |name: HeaderName, value| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set_default(http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set_default(http::header::X_FRAME_OPTIONS, "DENY");
    set_default(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    response
}

fn is_local_request(is_page: bool, headers: &HeaderMap, port: &str) -> bool {
    // The port must match too: another server on this machine may serve pages with foreign content.
    let is_local_host = |text: &str| {
        let has_local_port = text.rsplit_once(':').is_some_and(|(name, request_port)| {
            request_port == port && LOOPBACK_HOSTS.contains(&name)
        });
        // Clients leave out the default port of http, both in `Host` and in `Origin`.
        has_local_port || (port == "80" && LOOPBACK_HOSTS.contains(&text))
    };
    let first_value = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().map(HeaderValue::to_str);
        // A duplicate header makes the request invalid: it is not defined which value counts.
        (first, values.next().is_some())
    };
    let is_host_local = match first_value(&HOST) {
        (Some(Ok(host)), false) => is_local_host(host),
        _ => false,
    };
    let is_origin_local = match first_value(&ORIGIN) {
        // Programs such as curl and Twilio's SDKs send no Origin.
        (None, _) => true,
        (Some(Ok(origin)), false) => origin.strip_prefix("http://").is_some_and(is_local_host),
        _ => false,
    };
    // Browsers send no Origin with GET requests of images, scripts and links, but they send Sec-Fetch-Site. A link from
    // another site may open the page, and nothing else.
    let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let is_navigation = is_page && header("sec-fetch-mode") == Some(b"navigate");
    let is_site_local = is_navigation
        || matches!(
            header("sec-fetch-site"),
            None | Some(b"same-origin" | b"none")
        );
    is_host_local && is_origin_local && is_site_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(pairs: &[(&str, &str)]) -> bool {
        is_allowed_at("8081", pairs)
    }

    fn is_allowed_at(port: &str, pairs: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        is_local_request(false, &headers, port)
    }

    #[test]
    fn host_header_must_name_local_address_and_port() {
        for host in ["127.0.0.1:8081", "localhost:8081", "[::1]:8081"] {
            assert!(is_allowed(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example:8081",
            "127.0.0.1:80",
            "localhost",
            "127.0.0.1.evil:8081",
        ] {
            assert!(!is_allowed(&[("host", host)]), "{host}");
        }
        assert!(!is_allowed(&[]));
        assert!(!is_allowed(&[
            ("host", "localhost:8081"),
            ("host", "evil:8081")
        ]));
    }

    #[test]
    fn request_from_foreign_origin_is_rejected() {
        let host = ("host", "127.0.0.1:8081");
        assert!(is_allowed(&[host, ("origin", "http://localhost:8081")]));
        for origin in [
            "https://evil.example",
            "null",
            "http://127.0.0.1:9999",
            "https://127.0.0.1:8081",
        ] {
            assert!(!is_allowed(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(!is_allowed(&[host, ("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn default_port_may_be_missing_from_headers() {
        for host in ["127.0.0.1", "localhost", "[::1]", "localhost:80"] {
            let origin = format!("http://{host}");
            let headers = [("host", host), ("origin", origin.as_str())];
            assert!(is_allowed_at("80", &headers), "{host}");
        }
        assert!(!is_allowed_at("80", &[("host", "evil.example")]));
        for origin in ["https://localhost", "http://localhost:8081"] {
            let headers = [("host", "localhost"), ("origin", origin)];
            assert!(!is_allowed_at("80", &headers), "{origin}");
        }
    }
}
