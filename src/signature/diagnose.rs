//! Finding out why a request does not verify: it is tried against what commonly goes wrong.
//!
//! In the order of suspicion: another token, another reading of the body, another query, another URL. Whoever sends a
//! request chooses how much there is to try, so the work has a budget: where it is used up, nothing more is tried.

use std::cell::Cell;

use http::HeaderMap;

use super::explain::{BodyChange, Explanation, QueryChange};
use super::public_url::{PublicUrl, is_host, split_port};
use super::readings;
use super::token::Token;
use super::verifier::{SignatureErrorKind, SignatureVerifier, UnverifiedRequest, signature_of};
use crate::form::{Form, SortOrder};
use crate::sid::AccountSid;

/// Header of webhooks that are signed with a key of the customer's own (2026).
const SHARED_KEY_HEADER: &str = "x-twilio-webhooks-signature-settings";
impl SignatureVerifier {
    /// Tells why a request does not verify.
    pub fn explain(&self, request: &UnverifiedRequest<'_>) -> Explanation {
        match self.verify(request).map_err(|error| error.kind()) {
            Ok(_) => Explanation::Verifies,
            Err(SignatureErrorKind::MissingHeader) => Explanation::MissingHeader,
            Err(SignatureErrorKind::RepeatedHeader) => Explanation::RepeatedHeader,
            Err(SignatureErrorKind::MalformedHeader) => Explanation::MalformedHeader,
            Err(SignatureErrorKind::BodyHash) => Explanation::BodyHash,
            Err(SignatureErrorKind::NotAForm) => Explanation::NotAForm,
            Err(SignatureErrorKind::Form(_)) => Explanation::BadForm,
            Err(SignatureErrorKind::UnknownAccount) => Explanation::UnknownAccount,
            Err(SignatureErrorKind::Reshaped) => Explanation::Reshaped,
            Err(SignatureErrorKind::Mismatch) => {
                self.responsible(request).explain_mismatch(request)
            }
        }
    }

    fn explain_mismatch(&self, request: &UnverifiedRequest<'_>) -> Explanation {
        let ours = self.ours(request.target);
        let Some(trial) = Trial::new(self, request) else {
            return Explanation::NoneOfThese { ours };
        };
        let found = trial
            .other_token(self)
            .or_else(|| trial.body_change().map(Explanation::BodyAltered))
            .or_else(|| trial.query_change().map(Explanation::QueryAltered))
            .or_else(|| trial.other_url(&ours));
        if let Some(found) = found {
            return found;
        }
        if let Some(settings) = request.headers.get(SHARED_KEY_HEADER)
            && settings
                .as_bytes()
                .windows(10)
                .any(|window| window.eq_ignore_ascii_case(b"algorithm="))
        {
            return Explanation::SharedKey {
                key: shared_key_id(settings.to_str().unwrap_or_default()),
            };
        }
        Explanation::NoneOfThese { ours }
    }

    /// The URL a request was verified for, without its query.
    fn ours(&self, target: &str) -> String {
        let public = self.public_url();
        let path = target.split('?').next().unwrap_or_default();
        // Read from a file, a target may hold anything; it is shown on a terminal.
        let path: String = path
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '?' })
            .take(LONGEST)
            .collect();
        format!(
            "{}://{}{}{path}",
            public.scheme(),
            public.authority(),
            public.missing_prefix(target)
        )
    }
}

/// Bytes that one explanation may hash: some milliseconds, and several times what an honest request needs.
const BUDGET: usize = 16 * 1024 * 1024;
/// What an HMAC costs beside the bytes it is made of.
const OVERHEAD: usize = 256;
/// Bytes of a header's value, or of a target, that is still worth a guess.
const LONGEST: usize = 4096;

/// One refused request and the guesses about it.
struct Trial<'a> {
    public_url: &'a PublicUrl,
    request: &'a UnverifiedRequest<'a>,
    signature: [u8; 20],
    /// The pairs that are signed if nothing went wrong.
    form: Form,
    posted: bool,
    /// Those that were tried.
    tokens: &'a [Token],
    tried: Option<AccountSid>,
    /// All that are configured.
    all_tokens: Vec<&'a Token>,
    budget: Cell<usize>,
}

impl<'a> Trial<'a> {
    fn new(verifier: &'a SignatureVerifier, request: &'a UnverifiedRequest<'a>) -> Option<Self> {
        let content = verifier.content(request).ok()?;
        // An account that is not configured and did not sign either is explained like any other forgery.
        let (tokens, own) = verifier
            .tokens_for(&content.form)
            .unwrap_or((&verifier.default_tokens, false));
        let account = content
            .form
            .get("AccountSid")
            .and_then(|account| AccountSid::parse(account).ok());
        let own_tokens = verifier.accounts.iter().flat_map(|(_, tokens)| tokens);
        Some(Self {
            public_url: verifier.public_url(),
            request,
            signature: signature_of(request.headers).ok()?,
            form: content.form,
            posted: content.posted,
            tokens,
            tried: account.filter(|_| own),
            all_tokens: verifier.default_tokens.iter().chain(own_tokens).collect(),
            budget: Cell::new(BUDGET),
        })
    }

    /// Whether any configured token fits a URL and pairs.
    fn fits(&self, url: &str, params: &[u8]) -> bool {
        let cost = (url.len() + params.len() + OVERHEAD) * self.all_tokens.len();
        let Some(left) = self.budget.get().checked_sub(cost) else {
            self.budget.set(0);
            return false;
        };
        self.budget.set(left);
        self.all_tokens
            .iter()
            .any(|token| token.signed(&[url.as_bytes(), params], &self.signature))
    }

    /// Whether there is no use in making up another guess.
    fn is_spent(&self) -> bool {
        self.budget.get() == 0
    }

    fn params(&self) -> Vec<u8> {
        if self.posted {
            signed(&self.form)
        } else {
            Vec::new()
        }
    }

    /// The accepted URLs for a target.
    fn urls(&self, target: &str) -> Vec<String> {
        let prefix = self.public_url.missing_prefix(target);
        self.public_url
            .origins()
            .iter()
            .map(|origin| format!("{origin}{prefix}{target}"))
            .collect()
    }

    fn other_token(&self, verifier: &SignatureVerifier) -> Option<Explanation> {
        let params = self.params();
        let urls = self.urls(self.request.target);
        let fits = |tokens: &[Token]| {
            tokens.iter().any(|token| {
                urls.iter()
                    .any(|url| token.signed(&[url.as_bytes(), &params], &self.signature))
            })
        };
        // The default tokens were the ones that were tried, unless the account has its own.
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
                tried: self.tried,
            })
        })
    }

    fn body_change(&self) -> Option<BodyChange> {
        let target = self.request.target;
        let fits = |target: &str, form: &Form| {
            self.urls(target)
                .iter()
                .any(|url| self.fits(url, &signed(form)))
        };
        if !self.posted {
            // The parameters are in the query now; they were posted to the URL without it.
            let path = target.split('?').next().unwrap_or_default();
            return fits(path, &self.form).then_some(BodyChange::PostBecameGet);
        }
        if fits(target, &Form::default()) {
            return Some(BodyChange::NotSigned);
        }
        let readings = readings::bodies(&self.form, self.request.body);
        let mut affordable = readings.take_while(|_| !self.is_spent());
        affordable
            .find(|(_, form)| fits(target, form))
            .map(|(change, _)| change)
    }

    fn query_change(&self) -> Option<QueryChange> {
        let (path, query) = self
            .request
            .target
            .split_once('?')
            .filter(|_| self.request.target.len() <= LONGEST)?;
        let params = self.params();
        let fits = |query: &str| {
            let target = if query.is_empty() {
                path.to_owned()
            } else {
                format!("{path}?{query}")
            };
            self.urls(&target).iter().any(|url| self.fits(url, &params))
        };
        readings::queries(query)
            .into_iter()
            .find(|(_, query)| fits(query))
            .map(|(change, _)| change)
    }

    fn other_url(&self, ours: &str) -> Option<Explanation> {
        if self.request.target.len() > LONGEST {
            return None;
        }
        let params = self.params();
        let targets = self.targets();
        for authority in self.authorities() {
            for scheme in [self.public_url.scheme(), "https", "http"] {
                for target in &targets {
                    if self.is_spent() {
                        return None;
                    }
                    let url = format!("{scheme}://{authority}{target}");
                    if self.fits(&url, &params) {
                        let path = target.split('?').next().unwrap_or_default();
                        let public_url = self.public_url_for(scheme, &authority, path);
                        let url = format!("{scheme}://{authority}{path}");
                        return Some(Explanation::SignedFor {
                            url,
                            ours: ours.to_owned(),
                            public_url,
                        });
                    }
                }
            }
        }
        None
    }

    /// The value of `PUBLIC_URL` under which a signed path becomes the received one.
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
            .filter(|url| *url != self.public_url.to_string())
    }

    /// Hosts and ports that the configuration and the request's headers suggest, the configured one first.
    fn authorities(&self) -> Vec<String> {
        let headers = self.request.headers;
        let mut hosts = vec![self.public_url.authority().to_owned()];
        for name in [
            "host",
            "x-forwarded-host",
            "x-original-host",
            "x-forwarded-server",
        ] {
            hosts.extend(list(headers, name));
        }
        hosts.extend(forwarded_hosts(headers));
        let mut ports: Vec<String> = list(headers, "x-forwarded-port").collect();
        ports.extend(
            hosts
                .iter()
                .filter_map(|host| split_port(host).1.map(str::to_owned)),
        );
        ports.extend(["443", "80"].map(str::to_owned));
        ports.retain(|port| port.parse::<u16>().is_ok());
        unique(&mut ports);
        hosts.retain(|host| is_host(split_port(host).0));
        let mut authorities = Vec::new();
        for host in hosts {
            let bare = split_port(&host).0.to_owned();
            let lower = bare.to_ascii_lowercase();
            authorities.push(host);
            for host in [bare, lower] {
                authorities.extend(ports.iter().map(|port| format!("{host}:{port}")));
                authorities.push(host);
            }
        }
        unique(&mut authorities);
        authorities.truncate(64);
        authorities
    }

    /// Paths with their queries that the configuration and the request's headers suggest.
    fn targets(&self) -> Vec<String> {
        let headers = self.request.headers;
        let target = self.request.target;
        let prefix = self.public_url.prefix();
        let mut targets = vec![target.to_owned(), format!("{prefix}{target}")];
        targets.extend(target.strip_prefix(prefix).map(str::to_owned));
        for name in ["x-forwarded-prefix", "x-forwarded-path", "x-script-name"] {
            for value in list(headers, name) {
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
            targets.extend(list(headers, name));
        }
        let toggled: Vec<_> = targets.iter().map(|target| toggle_slash(target)).collect();
        targets.extend(toggled);
        let lower: Vec<_> = targets
            .iter()
            .filter(|target| target.contains("//"))
            .map(|t| t.replace("//", "/"))
            .collect();
        targets.extend(lower);
        targets.retain(|target| {
            target.is_empty()
                || target.starts_with(['/', '?']) && target.bytes().all(|b| b.is_ascii_graphic())
        });
        unique(&mut targets);
        targets.truncate(24);
        targets
    }
}

fn signed(form: &Form) -> Vec<u8> {
    let mut out = Vec::new();
    form.append_signed(SortOrder::Bytes, &mut out);
    out
}

/// The values of a header that may be a list.
fn list<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = String> + 'a {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().to_owned())
        .filter(|value| (1..=LONGEST).contains(&value.len()))
        .take(4)
}

/// `host=` of RFC 7239.
fn forwarded_hosts(headers: &HeaderMap) -> Vec<String> {
    let parts = list(headers, "forwarded").flat_map(|element| {
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
    // The parts of one element are as many as its sender likes.
    parts.take(32).filter_map(host).take(4).collect()
}

fn unique(texts: &mut Vec<String>) {
    let mut seen = Vec::new();
    texts.retain(|text| {
        let new = !seen.contains(text);
        if new {
            seen.push(text.clone());
        }
        new
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

/// The id of `key=<id>,algorithm=<name>`, where it is short and plain.
fn shared_key_id(settings: &str) -> Option<String> {
    let key = settings
        .split(',')
        .find_map(|part| part.trim().strip_prefix("key="))?;
    let plain = (1..=64).contains(&key.len())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain.then(|| key.to_owned())
}
