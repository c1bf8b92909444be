//! Diagnosis of a failed signature: tests a request for common mistakes.
//!
//! The most likely mistakes are tested first: another token, a changed body, a changed query, another URL. The sender
//! of a request determines how many guesses there are, so the work has a budget. When it is used up, no further guess
//! is tested.

use std::cell::Cell;

use http::HeaderMap;

use super::explain::{BodyChange, Explanation, MappedPath, QueryChange};
use super::headers::{ReceivedSignature, SignatureHeaders};
use super::missing_keys::{
    account_of, explain_malformed, explain_missing_token, explain_unknown_shared_key, named_key,
};
use super::public_url::{PublicUrl, is_host, split_port};
use super::readings;
use super::shared_key::SharedKeyId;
use super::signature_error::SignatureErrorKind;
use super::token::{AuthTokenKind, HmacKey, SharedKey};
use super::verifier::{SignatureVerifier, UnverifiedRequest};
use super::webhook_paths::RoutePath;
use crate::form::{FormParams, SortOrder};
use crate::sid::AccountSid;

impl SignatureVerifier {
    /// Returns the cause why the signature of a request is not valid.
    pub fn explain(&self, request: &UnverifiedRequest<'_>) -> Explanation {
        match self.verify(request).map_err(|error| error.kind()) {
            Ok(_) => Explanation::Verifies,
            Err(SignatureErrorKind::MissingHeader) => Explanation::MissingHeader,
            Err(SignatureErrorKind::RepeatedHeader) => Explanation::RepeatedHeader,
            Err(SignatureErrorKind::MalformedHeader) => explain_malformed(self, request),
            Err(SignatureErrorKind::SettingsHeader(error)) => Explanation::SettingsHeader(error),
            Err(SignatureErrorKind::UnknownSharedKey) => explain_unknown_shared_key(self, request),
            Err(SignatureErrorKind::BodyHash) => Explanation::BodyHash,
            Err(SignatureErrorKind::NotAForm) => Explanation::NotAForm,
            Err(SignatureErrorKind::Form(_)) => Explanation::BadForm,
            Err(SignatureErrorKind::UnknownAccount) => {
                let key = named_key(request.headers).and_then(|id| self.find_shared_key(&id));
                key.map_or(Explanation::UnknownAccount, |key| {
                    Explanation::SharedKeyAccount {
                        key: key.id,
                        account: key.account,
                    }
                })
            }
            Err(SignatureErrorKind::Reshaped) => Explanation::Reshaped,
            Err(SignatureErrorKind::Mismatch) => {
                self.find_responsible(request).explain_mismatch(request)
            }
        }
    }

    fn explain_mismatch(&self, request: &UnverifiedRequest<'_>) -> Explanation {
        let verified_url = self.verified_url(request.target);
        let key = named_key(request.headers);
        let Some(diagnosis) = Diagnosis::new(self, request) else {
            return Explanation::NoMatch {
                ours: verified_url,
                key,
            };
        };
        // Nothing else needs to be tested: no URL and no body could match.
        if key.is_none() && (diagnosis.tokens.is_empty() || diagnosis.all_tokens.is_empty()) {
            let not_named = diagnosis.find_shared_key(self, key);
            return not_named.unwrap_or_else(|| explain_missing_token(self, &diagnosis.form));
        }
        let other_key = match key {
            None => diagnosis.find_other_token(self),
            Some(_) => None,
        };
        other_key
            .or_else(|| diagnosis.find_shared_key(self, key))
            .or_else(|| diagnosis.find_body_change().map(Explanation::BodyAltered))
            .or_else(|| diagnosis.find_query_change().map(Explanation::QueryAltered))
            .or_else(|| diagnosis.find_other_url(&verified_url))
            .or_else(|| diagnosis.find_common_path(&verified_url))
            .unwrap_or(Explanation::NoMatch {
                ours: verified_url,
                key,
            })
    }

    /// Returns the configured key with an ID, also one of a verifier added with [`or`](Self::or).
    pub(super) fn find_shared_key(&self, id: &SharedKeyId) -> Option<&SharedKey> {
        let own = self.shared_keys.iter().find(|key| key.id.is_same(id));
        own.or_else(|| self.other.as_ref()?.find_shared_key(id))
    }

    /// Returns the URL for which a request was verified, without its query.
    fn verified_url(&self, target: &str) -> String {
        let public = self.public_url();
        let path = target.split('?').next().unwrap_or_default();
        // The target of a captured request may contain control characters, and the explanation is shown on a terminal.
        let path: String = path
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '?' })
            .take(MAX_GUESS_BYTES)
            .collect();
        format!(
            "{}://{}{}{path}",
            public.scheme(),
            public.authority(),
            public.missing_prefix(target)
        )
    }
}

/// Number of bytes that one explanation may hash: some milliseconds, and several times the need of a genuine request.
const MAX_HASHED_BYTES: usize = 16 * 1024 * 1024;
/// Fixed cost of an HMAC, in bytes of the budget.
const HMAC_OVERHEAD_BYTES: usize = 256;
/// Maximum length of a header value that is used for guesses.
const MAX_GUESS_BYTES: usize = 4096;
/// Maximum length of a target that is used for guesses: the default limit of the signature layer.
const MAX_TARGET_BYTES: usize = 48 * 1024;

/// The test of one rejected request for mistakes.
struct Diagnosis<'a> {
    public_url: &'a PublicUrl,
    request: &'a UnverifiedRequest<'a>,
    signature: ReceivedSignature,
    /// Parameters of the request, as received.
    form: FormParams,
    /// True if the parameters were posted and are therefore signed.
    is_posted: bool,
    /// Tokens with which the verifier has tried the request.
    tokens: &'a [HmacKey],
    /// Account of these tokens; `None` for the default tokens.
    tried_account: Option<AccountSid>,
    /// All configured tokens, or the shared key that the request names.
    all_tokens: Vec<&'a HmacKey>,
    /// Bytes that are left of [`MAX_HASHED_BYTES`]. A `Cell`, because closures test guesses through a shared `&self`.
    budget: Cell<usize>,
}

impl<'a> Diagnosis<'a> {
    fn new(verifier: &'a SignatureVerifier, request: &'a UnverifiedRequest<'a>) -> Option<Self> {
        let headers = SignatureHeaders::of(request.headers).ok()?;
        let shared_key = verifier.shared_key_of(&headers).ok()?;
        let content = verifier.decode_content(request).ok()?;
        let (tokens, kind) = match shared_key {
            Some((key, named)) => (key.keys(named.algorithm), AuthTokenKind::SharedKey),
            // An unknown account whose request no configured token has signed is treated like any other failed
            // signature.
            None => verifier
                .tokens_for(&content.form)
                .unwrap_or((&verifier.default_tokens, AuthTokenKind::Primary)),
        };
        let account = account_of(&content.form);
        let own_tokens = verifier.accounts.iter().flat_map(|(_, tokens)| tokens);
        let all_tokens = match shared_key {
            Some(_) => tokens.iter().collect(),
            None => verifier.default_tokens.iter().chain(own_tokens).collect(),
        };
        Some(Self {
            public_url: verifier.public_url(),
            request,
            signature: headers.signature,
            form: content.form,
            is_posted: content.is_posted,
            tokens,
            tried_account: account.filter(|_| kind == AuthTokenKind::Subaccount),
            all_tokens,
            budget: Cell::new(MAX_HASHED_BYTES),
        })
    }

    /// Returns whether the signature matches a URL and parameters with any configured token. Charges the budget.
    fn matches_signature(&self, url: &str, params: &[u8]) -> bool {
        let cost = (url.len() + params.len() + HMAC_OVERHEAD_BYTES) * self.all_tokens.len();
        let Some(remaining) = self.budget.get().checked_sub(cost) else {
            // Zero means exhausted, even if a cheaper guess would still have been affordable.
            self.budget.set(0);
            return false;
        };
        self.budget.set(remaining);
        self.all_tokens
            .iter()
            .any(|token| token.verifies(&[url.as_bytes(), params], &self.signature))
    }

    /// Returns whether the budget is used up, so that further guesses need not be generated.
    fn is_exhausted(&self) -> bool {
        self.budget.get() == 0
    }

    fn params(&self) -> Vec<u8> {
        if self.is_posted {
            signed_params(&self.form)
        } else {
            Vec::new()
        }
    }

    /// Returns the URLs that the verifier accepts for a target, without the alternative query spellings.
    fn candidate_urls(&self, target: &str) -> Vec<String> {
        let prefix = self.public_url.missing_prefix(target);
        self.public_url
            .origins()
            .iter()
            .map(|origin| format!("{origin}{prefix}{target}"))
            .collect()
    }

    /// Returns a test whether a key has signed the request as it was received.
    fn key_test(&self) -> impl Fn(&[HmacKey]) -> bool {
        let params = self.params();
        let urls = self.candidate_urls(self.request.target);
        let signature = self.signature;
        // Not charged to the budget: one HMAC per configured key and URL spelling, whatever the request contains.
        move |keys| {
            keys.iter().any(|key| {
                urls.iter()
                    .any(|url| key.verifies(&[url.as_bytes(), &params], &signature))
            })
        }
    }

    /// Returns the shared key that has signed the request, if it is not the named one.
    fn find_shared_key(
        &self,
        verifier: &SignatureVerifier,
        named: Option<SharedKeyId>,
    ) -> Option<Explanation> {
        let fits = self.key_test();
        let algorithm = self.signature.algorithm();
        let mut keys = verifier.shared_keys.iter();
        let found = keys.find(|key| fits(key.keys(algorithm)))?.id;
        Some(match named {
            Some(named) => Explanation::OtherSharedKey { fits: found, named },
            None => Explanation::SharedKeyNotNamed { key: Some(found) },
        })
    }

    fn find_other_token(&self, verifier: &SignatureVerifier) -> Option<Explanation> {
        let fits = self.key_test();
        // Skip the default tokens if they are the ones that have failed already. Compared by address, not by value.
        let default =
            (!std::ptr::eq(self.tokens, verifier.default_tokens.as_slice())).then_some(None);
        let accounts = verifier.accounts.iter().map(|(account, _)| Some(*account));
        default.into_iter().chain(accounts).find_map(|owner| {
            let tokens = match owner {
                None => &verifier.default_tokens,
                Some(owner) => {
                    &verifier
                        .accounts
                        .iter()
                        .find(|(account, _)| *account == owner)?
                        .1
                }
            };
            fits(tokens).then_some(Explanation::OtherToken {
                fits: owner,
                tried: self.tried_account,
            })
        })
    }

    fn find_body_change(&self) -> Option<BodyChange> {
        let target = self.request.target;
        let fits = |target: &str, form: &FormParams| {
            self.candidate_urls(target)
                .iter()
                .any(|url| self.matches_signature(url, &signed_params(form)))
        };
        if !self.is_posted {
            // A redirect or proxy turned a POST into a GET: the signed URL had no query, and the signed parameters are
            // those of the query now.
            let path = target.split('?').next().unwrap_or_default();
            return fits(path, &self.form).then_some(BodyChange::PostBecameGet);
        }
        if fits(target, &FormParams::default()) {
            return Some(BodyChange::NotSigned);
        }
        // `find` pulls the candidates one at a time, so none is generated after the budget is used up.
        let candidates = readings::body_candidates(&self.form, self.request.body);
        let mut affordable = candidates.take_while(|_| !self.is_exhausted());
        affordable
            .find(|(_, form)| fits(target, form))
            .map(|(change, _)| change)
    }

    fn find_query_change(&self) -> Option<QueryChange> {
        let (path, query) = self
            .request
            .target
            .split_once('?')
            .filter(|_| self.request.target.len() <= MAX_TARGET_BYTES)?;
        let params = self.params();
        let fits = |query: &str| {
            let target = if query.is_empty() {
                path.to_owned()
            } else {
                format!("{path}?{query}")
            };
            self.candidate_urls(&target)
                .iter()
                .any(|url| self.matches_signature(url, &params))
        };
        readings::query_candidates(query)
            .into_iter()
            .find(|(_, query)| fits(query))
            .map(|(change, _)| change)
    }

    fn find_other_url(&self, verified_url: &str) -> Option<Explanation> {
        if self.request.target.len() > MAX_TARGET_BYTES {
            return None;
        }
        let params = self.params();
        let targets = self.targets();
        // Up to 64 authorities and 24 targets, with both schemes. The configured values come first in each list, so
        // that the guess closest to the configuration is reported.
        for authority in self.authorities() {
            // Twilio signs the scheme as it is entered. In capitals only with the configured host: the work has a limit.
            let is_own = authority.eq_ignore_ascii_case(self.public_url.authority());
            let capitals = &["HTTPS", "HTTP", "Https", "Http"][..if is_own { 4 } else { 0 }];
            let schemes = [self.public_url.scheme(), "https", "http"];
            for scheme in schemes.into_iter().chain(capitals.iter().copied()) {
                for target in &targets {
                    if self.is_exhausted() {
                        return None;
                    }
                    let url = format!("{scheme}://{authority}{target}");
                    if self.matches_signature(&url, &params) {
                        return Some(self.signed_for(scheme, &authority, target, verified_url));
                    }
                }
            }
        }
        None
    }

    /// Tests paths that the request does not name: those of the other webhooks, and those that are common.
    fn find_common_path(&self, verified_url: &str) -> Option<Explanation> {
        let target = self.request.target;
        if target.len() > MAX_TARGET_BYTES {
            return None;
        }
        let prefix = self.public_url.prefix();
        let query = target.find('?').map_or("", |at| &target[at..]);
        let params = self.params();
        let webhooks = self.public_url.paths().named().map(|(_, path)| path);
        // One origin after the other, the configured ones first: with many tokens the budget does not suffice for all.
        for origin in self.common_origins() {
            let (scheme, authority) = origin.split_once("://")?;
            let paths = webhooks.into_iter().chain(readings::COMMON_PATHS);
            for path in paths.map(|path| path.trim_end_matches('/')) {
                for (prefix, slash) in [(prefix, ""), (prefix, "/"), ("", ""), ("", "/")] {
                    if self.is_exhausted() {
                        return None;
                    }
                    let target = format!("{prefix}{path}{slash}{query}");
                    if self.matches_signature(&format!("{origin}{target}"), &params) {
                        return Some(self.signed_for(scheme, authority, &target, verified_url));
                    }
                }
            }
        }
        None
    }

    /// Returns the configured origins, and their spellings with capitals.
    fn common_origins(&self) -> Vec<String> {
        let (scheme, authority) = (self.public_url.scheme(), self.public_url.authority());
        let mut origins = self.public_url.origins();
        origins.push(format!("{}://{authority}", scheme.to_ascii_uppercase()));
        let spellings = self.authorities().into_iter();
        let spellings = spellings.filter(|other| other.eq_ignore_ascii_case(authority));
        origins.extend(spellings.map(|authority| format!("{scheme}://{authority}")));
        remove_duplicates(&mut origins);
        origins
    }

    /// Returns the explanation for a request that was signed for another URL.
    fn signed_for(
        &self,
        scheme: &str,
        authority: &str,
        target: &str,
        verified_url: &str,
    ) -> Explanation {
        let path = target.split('?').next().unwrap_or_default();
        let public_url = self.public_url_for(scheme, authority, path);
        let origin = format!("{scheme}://{authority}");
        let is_own_origin = self.public_url.origins().contains(&origin);
        Explanation::SignedFor {
            url: format!("{origin}{path}"),
            ours: verified_url.to_owned(),
            mapped: (is_own_origin && public_url.is_none())
                .then(|| self.mapped_path(path))
                .flatten(),
            public_url,
        }
    }

    /// Returns the webhook that was called, and the signed path that leads to it.
    fn mapped_path(&self, signed: &str) -> Option<MappedPath> {
        let received = self.request.target.split('?').next().unwrap_or_default();
        let prefix = self.public_url.prefix();
        let received = received.strip_prefix(prefix).unwrap_or(received);
        let received = received.trim_end_matches('/');
        let webhooks = self.public_url.paths().named();
        let (webhook, _) = webhooks
            .into_iter()
            .find(|(_, path)| path.trim_end_matches('/') == received)?;
        // Only a path that the setting can have, and not one that differs by a slash at its end.
        let path = RoutePath::parse(signed.strip_prefix(prefix)?).ok()?;
        if path.as_str().trim_end_matches('/') == received {
            return None;
        }
        let is_taken = webhooks.iter().any(|(_, other)| *other == path.as_str());
        Some(MappedPath {
            webhook: (!is_taken).then_some(webhook),
            path: path.to_string(),
        })
    }

    /// Returns the value of `PUBLIC_URL` with which the received path would be verified as the signed one.
    fn public_url_for(&self, scheme: &str, authority: &str, path: &str) -> Option<String> {
        let received = self.request.target.split('?').next().unwrap_or_default();
        let endpoint = received
            .strip_prefix(self.public_url.prefix())
            .filter(|rest| rest.starts_with('/'));
        let prefix = path
            .strip_suffix(received)
            .or_else(|| path.strip_suffix(endpoint?))?;
        let candidate = format!("{scheme}://{authority}{prefix}");
        PublicUrl::parse(&candidate)
            .ok()
            .map(|(url, _)| url.to_string())
            // A scheme in capitals cannot be configured: it becomes lower case.
            .filter(|url| *url != self.public_url.to_string() && url.starts_with(scheme))
    }

    /// Returns the hosts and ports that the configuration and the request's headers suggest, the configured one first.
    fn authorities(&self) -> Vec<String> {
        let headers = self.request.headers;
        let mut hosts = vec![self.public_url.authority().to_owned()];
        for name in [
            "host",
            "x-forwarded-host",
            "x-original-host",
            "x-forwarded-server",
        ] {
            hosts.extend(header_values(headers, name));
        }
        hosts.extend(forwarded_hosts(headers));
        let mut ports: Vec<String> = header_values(headers, "x-forwarded-port").collect();
        ports.extend(
            hosts
                .iter()
                .filter_map(|host| split_port(host).1.map(str::to_owned)),
        );
        ports.extend(["443", "80"].map(str::to_owned));
        ports.retain(|port| port.parse::<u16>().is_ok());
        remove_duplicates(&mut ports);
        // A matching host is quoted in the explanation and in a URL, so only host characters are allowed.
        hosts.retain(|host| is_host(split_port(host).0));
        let mut authorities = Vec::new();
        for (index, host) in hosts.into_iter().enumerate() {
            let bare = split_port(&host).0.to_owned();
            let lower = bare.to_ascii_lowercase();
            authorities.push(host);
            for host in [bare, lower] {
                authorities.extend(ports.iter().map(|port| format!("{host}:{port}")));
                authorities.push(host);
            }
            // Only for the configured host, which is the first: the list has a limit.
            if index == 0 {
                authorities.extend(readings::capitalized(self.public_url.authority()));
            }
        }
        remove_duplicates(&mut authorities);
        authorities.truncate(64);
        authorities
    }

    /// Returns the paths with queries that the configuration and the request's headers suggest, the received one first.
    fn targets(&self) -> Vec<String> {
        let headers = self.request.headers;
        let target = self.request.target;
        let prefix = self.public_url.prefix();
        let mut targets = vec![target.to_owned(), format!("{prefix}{target}")];
        targets.extend(target.strip_prefix(prefix).map(str::to_owned));
        for name in ["x-forwarded-prefix", "x-forwarded-path", "x-script-name"] {
            for value in header_values(headers, name) {
                targets.push(format!("{}{target}", value.trim_end_matches('/')));
                targets.push(value);
            }
        }
        for name in [
            "x-original-uri",
            "x-original-url",
            "x-rewrite-url",
            "x-forwarded-uri",
            "x-envoy-original-path",
        ] {
            targets.extend(header_values(headers, name));
        }
        let toggled: Vec<_> = targets.iter().map(|target| toggle_slash(target)).collect();
        targets.extend(toggled);
        // A prefix with a trailing slash, or a proxy, leads to double slashes.
        let single_slashes: Vec<_> = targets
            .iter()
            .filter(|target| target.contains("//"))
            .map(|t| t.replace("//", "/"))
            .collect();
        targets.extend(single_slashes);
        targets.retain(|target| {
            target.is_empty()
                || target.starts_with(['/', '?']) && target.bytes().all(|b| b.is_ascii_graphic())
        });
        remove_duplicates(&mut targets);
        targets.truncate(24);
        targets
    }
}

fn signed_params(form: &FormParams) -> Vec<u8> {
    let mut out = Vec::new();
    form.append_signed(SortOrder::Bytes, &mut out);
    out
}

/// Returns up to four values of a header that may be a comma-separated list.
fn header_values<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> impl Iterator<Item = String> + 'a {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().to_owned())
        .filter(|value| (1..=MAX_GUESS_BYTES).contains(&value.len()))
        .take(4)
}

/// Returns up to four hosts of the `Forwarded` header (RFC 7239).
fn forwarded_hosts(headers: &HeaderMap) -> Vec<String> {
    let parts = header_values(headers, "forwarded").flat_map(|element| {
        element
            .split(';')
            .take(8)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let host = |part: String| {
        let (name, value) = part.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("host")
            .then(|| value.trim().trim_matches('"').to_owned())
    };
    // An element may have any number of parts, so the limit on elements in `header_values` does not suffice.
    parts.take(32).filter_map(host).take(4).collect()
}

fn remove_duplicates(texts: &mut Vec<String>) {
    let mut seen = Vec::new();
    texts.retain(|text| {
        let is_new = !seen.contains(text);
        if is_new {
            seen.push(text.clone());
        }
        is_new
    });
}

fn toggle_slash(target: &str) -> String {
    let (path, query) = target
        .find('?')
        .map_or((target, ""), |at| target.split_at(at));
    match path.strip_suffix('/') {
        Some(path) => format!("{path}{query}"),
        None => format!("{path}/{query}"),
    }
}
