//! Verification of signatures.
//!
//! A request without a valid signature is never accepted. A signed one always is, unless it may have been reshaped.
//! Explaining a rejection never panics.
#![no_main]

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use replyhook::signature::{
    Explanation, PublicUrl, SIGNATURE_HEADER, SignatureVerifier, UnverifiedRequest, sign,
};
use replyhook::{FormParams, Secret};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// A token that the verifier does not have.
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const URL: &str = "https://bot.example.com";
/// Maximum length of target and body.
// `explain` tries thousands of variants of a request. Longer requests take more time, and find nothing else.
const MAX: usize = 1024;

/// Returns true if a signed form may be rejected as reshaped.
// The signed text has no separators, so it can be cut into other parameters. The verifier rejects a text that contains
// another message's SID, or an event, outside of its own parameter.
fn input_names_a_message(target: &str, form: &FormParams) -> bool {
    let params = form.iter().flat_map(|(name, value)| [name, value]);
    let text = params.fold(target.to_owned(), |text, part| text + part);
    ["MessageSid", "EventType"]
        .iter()
        .any(|name| text.contains(name))
}

fuzz_target!(|input: (u8, bool, Vec<Vec<u8>>, &str, Vec<u8>)| {
    let (method, is_form, signatures, target, body) = input;
    let method = [Method::POST, Method::GET, Method::PUT][usize::from(method % 3)].clone();
    // The HTTP server rejects an invalid path or query before the verifier gets the request.
    let Ok(target) = target.parse::<PathAndQuery>() else {
        return;
    };
    let target = target.as_str();
    if !target.starts_with('/') || target.len() + body.len() > MAX {
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
        // The explanation must not contradict the result.
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
    // The fuzzer does not know the token, so none of its signatures can be valid.
    assert!(verify(&headers).is_none());

    // A GET signs the URL only, and so does a body of another type.
    let posted = is_form && method != Method::GET;
    let Ok(form) = FormParams::parse(if posted { &body } else { b"" }, 512) else {
        return;
    };
    let signature = |token: &str| {
        let url = format!("{URL}{target}");
        let signature = sign(&Secret::new(token), &url, posted.then_some(&form)).unwrap();
        HeaderValue::try_from(signature).unwrap()
    };
    // `insert` replaces the fuzzer's signatures.
    headers.insert(SIGNATURE_HEADER, signature(OTHER));
    assert!(verify(&headers).is_none());
    headers.insert(SIGNATURE_HEADER, signature(TOKEN));
    match verify(&headers) {
        Some(verified) if posted => assert_eq!(verified.form, form),
        // A rejection is allowed only if the signed text could have been cut from another request.
        None if posted => assert!(input_names_a_message(target, &form)),
        // Not posted as a form: a GET may be rejected as reshaped too, and another body is accepted only with
        // `bodySHA256`.
        _ => {}
    }
});
