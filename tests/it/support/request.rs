use std::process::Command;

use axum::body::Body;
use http::{HeaderMap, Method, Request};
use replyhook::signature::sign;
use replyhook::{FormParams, Secret};

use super::{ACCOUNT, ORIGIN, TOKEN, installed, output_of};

/// Webhook request, signed as Twilio does unless set otherwise.
#[derive(Clone)]
pub struct Webhook {
    pub method: Method,
    /// Path and query that are sent, such as `/webhook?x=1`.
    pub target: String,
    /// Signed URL. By default the origin and `target`.
    pub signed_url: Option<String>,
    pub token: String,
    pub form: FormParams,
    /// Body that is sent. By default the encoded form.
    pub body: Option<Vec<u8>>,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    /// Signature header. By default it is computed.
    pub signature: Option<String>,
}

impl Webhook {
    /// Creates a WhatsApp text for the primary handler, with `number` in its `MessageSid`.
    pub fn message(number: u64, body: &str) -> Self {
        let sid = format!("SM{number:032x}");
        Self::form(
            "/webhook",
            &[
                ("MessageSid", sid.as_str()),
                ("AccountSid", ACCOUNT),
                ("From", "whatsapp:+15550001111"),
                ("To", "whatsapp:+15550002222"),
                ("Body", body),
                ("NumMedia", "0"),
                ("SmsStatus", "received"),
                ("ProfileName", "Ana"),
            ],
        )
    }

    pub fn form(target: &str, pairs: &[(&str, &str)]) -> Self {
        Self {
            method: Method::POST,
            target: target.to_owned(),
            signed_url: None,
            token: TOKEN.to_owned(),
            form: pairs.iter().copied().collect(),
            body: None,
            content_type: Some("application/x-www-form-urlencoded".to_owned()),
            headers: Vec::new(),
            signature: None,
        }
    }

    /// Sets the signature that Twilio's Python library computes; `None` if that is not installed.
    pub fn signed_by_library(self) -> Option<Self> {
        const SIGN: &str = "import json, sys
from twilio.request_validator import RequestValidator
url, token, params = json.load(sys.stdin)
print(RequestValidator(token).compute_signature(url, dict(params)))";
        let python = installed("REPLYHOOK_TEST_PYTHON")?;
        let pairs: Vec<(&str, &str)> = self.form.iter().collect();
        let input = serde_json::json!([format!("{ORIGIN}{}", self.target), TOKEN, pairs]);
        let signature = output_of(Command::new(python).args(["-c", SIGN]), &input.to_string());
        Some(self.signature(signature.trim()))
    }

    pub fn to(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// Adds a parameter, or replaces it.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let kept = self.form.iter().filter(|(known, _)| *known != name);
        self.form = kept.chain([(name, value)]).collect();
        self
    }

    /// Adds a parameter, and keeps those of the same name.
    pub fn also(mut self, name: &str, value: &str) -> Self {
        self.form = self.form.iter().chain([(name, value)]).collect();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.form = self
            .form
            .iter()
            .filter(|(known, _)| *known != name)
            .collect();
        self
    }

    pub fn signed_for(mut self, url: &str) -> Self {
        self.signed_url = Some(url.to_owned());
        self
    }

    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    pub fn signature(mut self, signature: &str) -> Self {
        self.signature = Some(signature.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn content_type(mut self, content_type: Option<&str>) -> Self {
        self.content_type = content_type.map(str::to_owned);
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Turns the request into a GET, with the parameters in its query.
    pub fn get(mut self) -> Self {
        self.method = Method::GET;
        self.target = format!("{}?{}", self.target, self.form.encode());
        self.content_type = None;
        self
    }

    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Returns the signature that Twilio sends with the request.
    pub fn signature_for(&self, origin: &str) -> String {
        let url = self
            .signed_url
            .clone()
            .unwrap_or_else(|| format!("{origin}{}", self.target));
        let posted = (self.method != Method::GET).then_some(&self.form);
        self.signature
            .clone()
            .unwrap_or_else(|| sign(&Secret::new(self.token.as_str()), &url, posted).unwrap())
    }

    pub fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Some(body) => body.clone(),
            None if self.method == Method::GET => Vec::new(),
            None => self.form.encode().into_bytes(),
        }
    }

    pub fn request(&self) -> Request<Body> {
        let mut request = Request::builder().method(&self.method).uri(&self.target);
        let signature = self.signature_for(ORIGIN);
        if !signature.is_empty() {
            request = request.header("X-Twilio-Signature", signature);
        }
        if let Some(content_type) = &self.content_type {
            request = request.header("Content-Type", content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Body::from(self.bytes())).unwrap()
    }

    /// Returns the request as HTTP/1.1.
    pub fn raw(&self, origin: &str) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\n",
            self.method, self.target
        );
        let signature = self.signature_for(origin);
        if !signature.is_empty() {
            head += &format!("X-Twilio-Signature: {signature}\r\n");
        }
        if let Some(content_type) = &self.content_type {
            head += &format!("Content-Type: {content_type}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body = self.bytes();
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    }
}

/// HTTP response.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl HttpResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Asserts that the response is TwiML, and returns it.
    #[track_caller]
    pub fn twiml(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("text/xml; charset=utf-8"));
        &self.body
    }

    /// Asserts that the response is a short rejection in plain text, and returns it.
    #[track_caller]
    pub fn assert_rejected(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(
            self.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert!(self.body.len() < 200, "{}", self.body);
        &self.body
    }
}

pub fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn base64_decoded(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}
