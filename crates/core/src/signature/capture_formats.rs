//! Formats of a captured request: a curl command, a HAR file or raw HTTP.

use http::HeaderMap;
use serde::Deserialize;

use super::captured::{CapturedError, CapturedRequest, MAX_BYTES, MAX_REQUEST_BYTES};
use super::curl::parse_curl;
use super::headers::SIGNATURE_HEADER;
use crate::form::FormParams;

impl CapturedRequest {
    /// Parses a curl command, as browsers and proxies copy it, a HAR file, or raw HTTP/1.1.
    ///
    /// A HAR file yields its last request with a signature header, or else its last request.
    ///
    /// # Errors
    /// [`CapturedError`] if the text has none of these formats, is incomplete or too large.
    pub fn parse(text: &str) -> Result<Self, CapturedError> {
        if text.len() > MAX_BYTES {
            return Err(CapturedError::TooLarge);
        }
        // Editors on Windows save a byte order mark, which would hide the format.
        let text = text.trim_start_matches('\u{FEFF}').trim_start();
        let mut request = match text {
            _ if text.starts_with('{') => parse_har(text)?,
            _ if text.starts_with("curl") => parse_curl(text)?,
            _ => parse_raw_http(text)?,
        };
        // A second, lower limit: verifying and explaining take time in proportion to URL and body.
        if request.url.len() + request.body.len() > MAX_REQUEST_BYTES {
            return Err(CapturedError::TooLarge);
        }
        request.add_host();
        Ok(request)
    }
}

/// Parses raw HTTP/1.1, with either line ending.
fn parse_raw_http(text: &str) -> Result<CapturedRequest, CapturedError> {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .or_else(|| text.split_once("\n\n"))
        .unwrap_or((text, ""));
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version)) = (first.next(), first.next(), first.next())
    else {
        return Err(CapturedError::Unknown);
    };
    if !version.starts_with("HTTP/") {
        return Err(CapturedError::Unknown);
    }
    let mut request = CapturedRequest {
        method: method.parse().map_err(|_| CapturedError::Method)?,
        url: target.to_owned(),
        headers: HeaderMap::new(),
        body: Vec::new(),
    };
    for line in lines {
        request.push_header(line)?;
    }
    // Editors add a line feed at the end of a file, which was not part of the body. `Content-Length` tells if there is
    // one.
    let length = request
        .headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let body = length
        // `get`: a capture may be cut off before its `Content-Length`.
        .and_then(|length: usize| body.as_bytes().get(..length))
        .unwrap_or_else(|| body.trim_end_matches(['\r', '\n']).as_bytes());
    request.body = body.to_vec();
    Ok(request)
}

#[derive(Deserialize)]
struct Har {
    log: HarLog,
}

#[derive(Deserialize)]
struct HarLog {
    entries: Vec<HarEntry>,
}

#[derive(Deserialize)]
struct HarEntry {
    request: HarRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    url: String,
    headers: Vec<HarPair>,
    post_data: Option<HarBody>,
}

#[derive(Deserialize)]
struct HarPair {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct HarBody {
    text: Option<String>,
    #[serde(default)]
    params: Vec<HarPair>,
}

fn parse_har(text: &str) -> Result<CapturedRequest, CapturedError> {
    // Only the position of the error: serde's message can quote the content.
    let har: Har = serde_json::from_str(text).map_err(|error| {
        CapturedError::Har(format!("line {}, column {}", error.line(), error.column()))
    })?;
    let requests = || har.log.entries.iter().map(|entry| &entry.request).rev();
    let has_signature = |request: &&HarRequest| {
        request
            .headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case(SIGNATURE_HEADER))
    };
    let found = requests().find(has_signature).or_else(|| requests().next());
    let found = found.ok_or_else(|| CapturedError::Har("no entries".to_owned()))?;
    let mut request = CapturedRequest {
        method: found.method.parse().map_err(|_| CapturedError::Method)?,
        url: found.url.clone(),
        headers: HeaderMap::new(),
        body: Vec::new(),
    };
    for header in &found.headers {
        request.push_header(&format!("{}:{}", header.name, header.value))?;
    }
    if let Some(body) = &found.post_data {
        // `text` is the raw body. Tools that omit it list the decoded parameters instead.
        request.body = match &body.text {
            Some(text) => text.clone().into_bytes(),
            None => body
                .params
                .iter()
                .map(|pair| (&pair.name, &pair.value))
                .collect::<FormParams>()
                .encode()
                .into_bytes(),
        };
    }
    Ok(request)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns method, target, number of headers and body.
    pub(in crate::signature) fn parsed(text: &str) -> (String, String, usize, String) {
        let request = CapturedRequest::parse(text).unwrap();
        let body = String::from_utf8(request.body.clone()).unwrap();
        (
            request.method.to_string(),
            request.target().to_owned(),
            request.headers.len(),
            body,
        )
    }

    pub(in crate::signature) fn expected(
        method: &str,
        target: &str,
        headers: usize,
        body: &str,
    ) -> (String, String, usize, String) {
        (
            method.to_owned(),
            target.to_owned(),
            headers,
            body.to_owned(),
        )
    }

    // Editors add a line feed when they save a captured request.
    #[test]
    fn raw_http_without_content_length_drops_final_newline() {
        let text = "POST /webhook HTTP/1.1\nHost: h.test\nContent-Type: application/x-www-form-urlencoded\n\nBody=x\n";
        assert_eq!(parsed(text), expected("POST", "/webhook", 2, "Body=x"));
        let exact = "POST /w HTTP/1.1\r\nContent-Length: 7\r\n\r\nBody=x\n";
        assert_eq!(parsed(exact), expected("POST", "/w", 1, "Body=x\n"));
    }

    #[test]
    fn har_file_yields_last_signed_request() {
        let entry = |url: &str, header: &str| {
            format!(
                r#"{{"request":{{"method":"POST","url":"{url}","headers":[{{"name":":path","value":"/"}},{{"name":"{header}","value":"v"}}],"postData":{{"mimeType":"x","params":[{{"name":"Body","value":"a b"}}]}}}}}}"#
            )
        };
        let har = format!(
            r#"{{"log":{{"entries":[{},{}]}}}}"#,
            entry("https://h.test/a", "X-Twilio-Signature"),
            entry("https://h.test/b", "Accept")
        );
        assert_eq!(parsed(&har), expected("POST", "/a", 2, "Body=a+b"));
    }

    #[test]
    fn invalid_capture_is_rejected_with_reason() {
        let error = |text| CapturedRequest::parse(text).unwrap_err().to_string();
        assert_eq!(error("curl"), "the curl command has no URL");
        assert_eq!(
            error("curl 'https://h"),
            "unterminated quote in the curl command"
        );
        assert_eq!(
            error("curl https://h -H"),
            "the curl command ends after -H, which needs a value"
        );
        assert_eq!(error("{\"log\":1}"), "not a HAR file: line 1, column 8");
        assert!(error("hello").starts_with("not a request"));
    }

    proptest! {
        #[test]
        fn captured_request_parse_never_panics(text in "(curl |\\{|POST / HTTP/1.1\n)?\\PC{0,200}") {
            if let Ok(request) = CapturedRequest::parse(&text) {
                let _ = request.target();
            }
        }
    }
}
