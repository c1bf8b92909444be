//! What every call has in common: how a form is sent, its answer is read within limits, and a list's next page is on the
//! same list.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Client, Credentials, RestError};
use crate::form::Form;

/// Most bytes of an answer: a page of messages takes some hundred kilobytes.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A list of the API: which path it has, how much of it a page holds, and how many pages are read.
pub(super) struct List<'a> {
    pub(super) path: &'a str,
    /// Further parameters, of the first page's address alone.
    pub(super) query: &'a str,
    pub(super) page_size: u16,
    pub(super) most_pages: usize,
}

/// What the newer parts of the API say of a page.
#[derive(Deserialize)]
pub(super) struct Meta {
    /// A whole URL.
    pub(super) next_page_url: Option<String>,
}

impl Client {
    /// Reads a list. `page` takes what is in a page, and returns where the next one is, as Twilio says it: as path and query,
    /// or as a whole URL.
    pub(super) async fn pages<P: DeserializeOwned>(
        &self,
        list: &List<'_>,
        credentials: &Credentials,
        mut page: impl FnMut(P) -> Option<String>,
    ) -> Result<(), RestError> {
        let own = self.url.to_string();
        let mut next = Some(format!(
            "{}?{}PageSize={}",
            list.path, list.query, list.page_size
        ));
        for _ in 0..list.most_pages {
            let Some(path) = next else { break };
            let read = answer(self.request(Method::GET, &path, credentials)?).await?;
            let uri = page(read);
            let uri = uri
                .as_deref()
                .map(|uri| uri.strip_prefix(&own).unwrap_or(uri));
            next = next_page(uri, list.path)?;
        }
        Ok(())
    }
}

/// A request that sends a form.
pub(super) fn with_form(request: reqwest::RequestBuilder, form: &Form) -> reqwest::RequestBuilder {
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.header(CONTENT_TYPE, kind).body(form.encode())
}

/// Sends a request and reads its answer as JSON.
pub(super) async fn answer<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<T, RestError> {
    Ok(answer_with_headers(request).await?.1)
}

/// The same, with the answer's headers.
pub(super) async fn answer_with_headers<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<(HeaderMap, T), RestError> {
    let mut response = request
        .send()
        .await
        .map_err(|error| RestError::transport(error, false))?;
    let status = response.status();
    let headers = response.headers().clone();
    let retry_after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| RestError::transport(error, true))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            return Err(RestError::unreadable(status, "the answer is too long"));
        }
    }
    if !status.is_success() {
        return Err(RestError::answered(
            status,
            retry_after.map(Duration::from_secs),
            &body,
        ));
    }
    // serde's message would quote the answer, and with it a number.
    let read = serde_json::from_slice(&body).map_err(|error| {
        RestError::unreadable(
            status,
            format!(
                "not the JSON it should be: line {}, column {}",
                error.line(),
                error.column()
            ),
        )
    })?;
    Ok((headers, read))
}

/// Path and query of the page after this one. Credentials go to no other list than the one that was asked for, and to no
/// other host.
pub(super) fn next_page(uri: Option<&str>, list: &str) -> Result<Option<String>, RestError> {
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else {
        return Ok(None);
    };
    let query = uri
        .strip_prefix(list)
        .and_then(|rest| rest.strip_prefix('?'));
    let plain = |query: &str| {
        query
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    };
    if query.is_some_and(plain) {
        return Ok(Some(uri.to_owned()));
    }
    Err(RestError::unreadable(
        StatusCode::OK,
        "the next page lies elsewhere",
    ))
}
