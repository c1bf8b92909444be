//! Options of `sign`, `explain` and `invoke` that describe a request.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use http::{HeaderMap, Method};
use replyhook::FormParams;
use replyhook::signature::CapturedRequest;

#[derive(clap::Args)]
pub(crate) struct RequestArgs {
    /// HTTP method: GET, POST or PUT
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Add a parameter, not encoded; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    data: Vec<String>,
    /// Read the body from this file, exactly as it was sent
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    body_file: Option<PathBuf>,
    /// Add a header; may be repeated
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
}

impl RequestArgs {
    /// Returns true if no option of a request is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.method.is_none()
            && self.data.is_empty()
            && self.body_file.is_none()
            && self.header.is_empty()
    }

    pub(crate) fn method(&self) -> anyhow::Result<Option<Method>> {
        let Some(text) = &self.method else {
            return Ok(None);
        };
        match text.to_ascii_uppercase().as_str() {
            "GET" => Ok(Some(Method::GET)),
            "POST" => Ok(Some(Method::POST)),
            "PUT" => Ok(Some(Method::PUT)),
            _ => bail!("--method {text}: Twilio uses GET, POST and PUT"),
        }
    }

    /// Returns the parameters of `--data` or `--body-file`.
    pub(crate) fn form(&self) -> anyhow::Result<FormParams> {
        if let Some(body) = self.body()? {
            // No limit on the number of parameters: the file is the operator's own.
            return FormParams::parse(&body, usize::MAX).context("--body-file");
        }
        let pairs = self.data.iter().map(|pair| {
            pair.split_once('=')
                .ok_or_else(|| anyhow!("--data {pair:?} has no =: write NAME=VALUE"))
        });
        Ok(pairs
            .collect::<anyhow::Result<Vec<_>>>()?
            .into_iter()
            .collect())
    }

    /// Returns the request that these options describe.
    pub(crate) fn to_captured_request(&self, url: String) -> anyhow::Result<CapturedRequest> {
        let body = match self.body()? {
            Some(body) => body,
            None => self.form()?.encode().into_bytes(),
        };
        let method = self.method()?.unwrap_or(Method::POST);
        let mut request = CapturedRequest {
            method,
            url,
            headers: HeaderMap::new(),
            body,
        };
        self.add_headers_to(&mut request)?;
        if request.method != Method::GET && !request.headers.contains_key("content-type") {
            request.push_header("content-type: application/x-www-form-urlencoded")?;
        }
        Ok(request)
    }

    /// Adds the headers to a request.
    pub(crate) fn add_headers_to(&self, request: &mut CapturedRequest) -> anyhow::Result<()> {
        for header in &self.header {
            request.push_header(header).context("--header")?;
        }
        Ok(())
    }

    fn body(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(file) = &self.body_file else {
            return Ok(None);
        };
        let body =
            std::fs::read(file).with_context(|| format!("--body-file {}", file.display()))?;
        Ok(Some(body))
    }
}
