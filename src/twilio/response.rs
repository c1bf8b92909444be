//! Common parts of all calls: form bodies, responses read within limits, and paged lists.

use std::time::Duration;

use http::header::{CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::RestError;
use super::http_client::AuthenticatedClient;
use crate::form::FormParams;

// Limits the memory that one response can take. A page of messages has some hundred kilobytes.
const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// A paged list of the API.
pub(super) struct PagedList<'a> {
    pub(super) path: &'a str,
    /// Further query parameters of the first page, each followed by `&`. Later pages are read from Twilio's links.
    pub(super) query: &'a str,
    /// Entries per page.
    pub(super) page_size: u16,
    /// Maximum number of pages to read.
    pub(super) max_pages: usize,
}

/// Metadata of a page in the newer parts of the API.
#[derive(Deserialize)]
pub(super) struct Meta {
    /// Absolute URL of the next page.
    pub(super) next_page_url: Option<String>,
}

impl PagedList<'_> {
    /// Reads the list page by page.
    ///
    /// `take_page` consumes a page and returns Twilio's link to the next one: a path with query, or an absolute URL. Returns
    /// false if the list has more pages than [`max_pages`](Self::max_pages).
    pub(super) async fn for_each_page<P: DeserializeOwned>(
        &self,
        client: AuthenticatedClient<'_>,
        mut take_page: impl FnMut(P) -> Option<String>,
    ) -> Result<bool, RestError> {
        let origin = client.http.url.to_string();
        let mut next = Some(format!(
            "{}?{}PageSize={}",
            self.path, self.query, self.page_size
        ));
        for _ in 0..self.max_pages {
            let Some(path) = next else { break };
            let page = send_and_parse(client.request(Method::GET, &path)?).await?;
            let next_uri = take_page(page);
            // Only the API's own origin is stripped, so `check_next_page` rejects the URL of any other host.
            let next_uri = next_uri
                .as_deref()
                .map(|uri| uri.strip_prefix(&origin).unwrap_or(uri));
            next = check_next_page(next_uri, self.path)?;
        }
        Ok(next.is_none())
    }
}

/// Adds a form as the body of a request.
pub(super) fn with_form(
    request: reqwest::RequestBuilder,
    form: &FormParams,
) -> reqwest::RequestBuilder {
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.header(CONTENT_TYPE, kind).body(form.encode())
}

/// Sends a request and reads its response as JSON.
pub(super) async fn send_and_parse<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<T, RestError> {
    Ok(send_and_parse_with_headers(request).await?.1)
}

/// Sends a request, and returns the response's headers and its body, read as JSON.
pub(super) async fn send_and_parse_with_headers<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<(HeaderMap, T), RestError> {
    let mut response = request
        .send()
        .await
        .map_err(|error| RestError::transport(error, false))?;
    let status = response.status();
    let headers = response.headers().clone();
    // Seconds only. For a date the caller uses its own delay.
    let retry_after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| RestError::transport(error, true))?
    {
        // Count received bytes: `Content-Length` may be missing or wrong.
        body.extend_from_slice(&chunk);
        if body.len() > MAX_RESPONSE_BYTES {
            return Err(RestError::unreadable(status, "the response is too long"));
        }
    }
    if !status.is_success() {
        return Err(RestError::from_response(
            status,
            retry_after.map(Duration::from_secs),
            &body,
        ));
    }
    // Not serde's own message: it may quote the response, and with it a phone number.
    let parsed = serde_json::from_slice(&body).map_err(|error| {
        RestError::unreadable(
            status,
            format!(
                "unexpected JSON at line {}, column {}",
                error.line(),
                error.column()
            ),
        )
    })?;
    Ok((headers, parsed))
}

/// Returns the time of a response by Twilio's clock, in whole seconds.
// Only the `Date` header tells when Twilio responded; `doctor` compares the local clock with it.
pub(super) fn response_date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
}

/// Checks the link to the next page, and returns its path and query.
///
/// # Errors
/// [`RestError`] if the link leaves the path `list_path`: the next call sends the credentials there.
pub(super) fn check_next_page(
    uri: Option<&str>,
    list_path: &str,
) -> Result<Option<String>, RestError> {
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else {
        return Ok(None);
    };
    let query = uri
        .strip_prefix(list_path)
        .and_then(|rest| rest.strip_prefix('?'));
    // A space or line break could end the request line, a fragment would be dropped.
    let is_plain = |query: &str| {
        query
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    };
    if query.is_some_and(is_plain) {
        return Ok(Some(uri.to_owned()));
    }
    Err(RestError::unreadable(
        StatusCode::OK,
        "the next page is outside the list",
    ))
}
