//! Explanations of requests that name a missing shared key, or that were signed with a missing auth token.

use http::HeaderMap;

use super::explain::Explanation;
use super::headers::{NamedKey, ReceivedSignature, SHA256_TEXT_LEN, SIGNATURE_HEADER};
use super::shared_key::{SharedKeyId, SignatureAlgorithm};
use super::verifier::{SignatureVerifier, UnverifiedRequest};
use crate::form::{FormParams, SortOrder};
use crate::sid::AccountSid;

/// Returns the explanation for a request whose shared key is not configured.
pub(super) fn explain_unknown_shared_key(
    verifier: &SignatureVerifier,
    request: &UnverifiedRequest<'_>,
) -> Explanation {
    let Some(key) = named_key(request.headers) else {
        return Explanation::MalformedHeader;
    };
    let form = verifier
        .decode_content(request)
        .map_or_else(|_| FormParams::default(), |content| content.form);
    let has_token = match verifier.tokens_for(&form) {
        Ok((tokens, _)) => !tokens.is_empty(),
        Err(_) => !verifier.default_tokens.is_empty(),
    };
    let has_other_key = verifier.shared_keys.iter().any(|key| key.is_for(&form));
    Explanation::UnknownSharedKey {
        key,
        has_token,
        has_other_key,
    }
}

/// Returns the explanation for a request that no configured auth token can have signed.
pub(super) fn explain_missing_token(
    verifier: &SignatureVerifier,
    form: &FormParams,
) -> Explanation {
    let account = account_of(form);
    let lower_case = account.map(AccountSid::to_lowercase);
    let is_listed = verifier
        .accounts
        .iter()
        .any(|(known, _)| Some(*known) == lower_case);
    Explanation::NoAuthToken {
        account,
        is_default: !is_listed
            && (verifier.default_account.is_none() || verifier.default_account == lower_case),
    }
}

/// Returns the account that a form names.
pub(super) fn account_of(form: &FormParams) -> Option<AccountSid> {
    AccountSid::parse(form.get("AccountSid")?).ok()
}

/// Returns the ID of the shared key that a request names.
pub(super) fn named_key(headers: &HeaderMap) -> Option<SharedKeyId> {
    Some(NamedKey::of(headers).ok()??.id)
}

/// Explains a signature that has another length than that of the algorithm.
pub(super) fn explain_malformed(
    verifier: &SignatureVerifier,
    request: &UnverifiedRequest<'_>,
) -> Explanation {
    let Some(value) = request.headers.get(SIGNATURE_HEADER) else {
        return Explanation::MalformedHeader;
    };
    let named = match NamedKey::of(request.headers) {
        Ok(Some(named)) => named,
        Ok(None) if value.len() == SHA256_TEXT_LEN => {
            return Explanation::SharedKeyNotNamed { key: None };
        }
        _ => return Explanation::MalformedHeader,
    };
    let signed = match named.algorithm {
        SignatureAlgorithm::HmacSha1 => SignatureAlgorithm::HmacSha256,
        SignatureAlgorithm::HmacSha256 => SignatureAlgorithm::HmacSha1,
    };
    let Some(signature) = ReceivedSignature::decode(value, signed) else {
        return Explanation::MalformedHeader;
    };
    let Some(key) = verifier.find_shared_key(&named.id) else {
        return explain_unknown_shared_key(verifier, request);
    };
    let is_proven = verifier.decode_content(request).is_ok_and(|content| {
        let params = content.signed_params(SortOrder::Bytes);
        let keys = key.keys(signed);
        let made = verifier.matching_token(keys, request.target, &params, &signature);
        made.is_some()
    });
    Explanation::OtherAlgorithm {
        key: named.id,
        named: named.algorithm,
        signed,
        is_proven,
    }
}
