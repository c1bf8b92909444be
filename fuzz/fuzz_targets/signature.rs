//! No request is accepted that was not signed, every signed one is, and explaining a refusal never panics.
#![no_main]

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use replyhook::signature::{
    Explanation, PublicUrl, SIGNATURE_HEADER, SignatureVerifier, UnverifiedRequest, sign,
};
use replyhook::{Form, Secret};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const URL: &str = "https://bot.example.com";
/// Explaining tries thousands of readings of a request: a longer one would only slow that down.
const LONGEST: usize = 1024;

/// Whether a form may be refused although it is signed.
fn input_names_a_message(target: &str, form: &Form) -> bool {
    let params = form.iter().flat_map(|(name, value)| [name, value]);
    let text = params.fold(target.to_owned(), |text, part| text + part);
    ["MessageSid", "EventType"].iter().any(|name| text.contains(name))
}

fuzz_target!(|input: (u8, bool, Vec<Vec<u8>>, &str, Vec<u8>)| {
    let (method, is_form, signatures, target, body) = input;
    let method = [Method::POST, Method::GET, Method::PUT][usize::from(method % 3)].clone();
    // As a server hands it over: what is no path and query does not get this far.
    let Ok(target) = target.parse::<PathAndQuery>() else {
        return;
    };
    let target = target.as_str();
    if !target.starts_with('/') || target.len() + body.len() > LONGEST {
        return;
    }
    let (url, _) = PublicUrl::parse(URL).unwrap();
    let verifier = SignatureVerifier::new(url, [Secret::new(TOKEN)]).unwrap();
    let verify = |headers: &HeaderMap| {
        let request = UnverifiedRequest {
            method: &method,
            target,
            headers,
            body: &body,
        };
        let verified = verifier.verify(&request).ok();
        let explanation = verifier.explain(&request);
        let _ = explanation.to_string();
        assert_eq!(verified.is_some(), explanation == Explanation::Verifies);
        verified
    };

    let mut headers = HeaderMap::new();
    let content_type = if is_form {
        "application/x-www-form-urlencoded"
    } else {
        "application/json"
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for signature in &signatures {
        if let Ok(signature) = HeaderValue::from_bytes(signature) {
            headers.append(SIGNATURE_HEADER, signature);
        }
    }
    assert!(verify(&headers).is_none());

    let posted = is_form && method != Method::GET;
    let Ok(form) = Form::parse(if posted { &body } else { b"" }, 512) else {
        return;
    };
    let signature = |token: &str| {
        let url = format!("{URL}{target}");
        let signature = sign(&Secret::new(token), &url, posted.then_some(&form)).unwrap();
        HeaderValue::try_from(signature).unwrap()
    };
    headers.insert(SIGNATURE_HEADER, signature(OTHER));
    assert!(verify(&headers).is_none());
    headers.insert(SIGNATURE_HEADER, signature(TOKEN));
    match verify(&headers) {
        Some(verified) if posted => assert_eq!(verified.form, form),
        // Another message may be named in what was signed.
        None if posted => assert!(input_names_a_message(target, &form)),
        _ => {}
    }
});
