//! Why a request does not verify: one sentence for the operator that mends it.
//!
//! The request is tried against what commonly goes wrong: another token, a body or query changed on the way, another
//! URL among those that its own forwarding headers suggest. A guess that fits proves itself, since only Twilio's
//! signature can make it fit; so what an explanation quotes of a request's headers is true, and a forger learns
//! nothing. Nothing here accepts a request, and no explanation holds a token, a signature or a query's values.
//!
//! Costs up to a few thousand HMACs: call it rate-limited, off the way of good requests.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method};

use super::public_url::{PublicUrl, is_host, split_port};
use super::verifier::{
    SignatureErrorKind, SignatureVerifier, Token, UnverifiedRequest, signature_of,
};
use crate::form::{Form, SortOrder};
use crate::sid::AccountSid;

/// Header of webhooks that are signed with a key of the customer's own (2026).
const SHARED_KEY_HEADER: &str = "x-twilio-webhooks-signature-settings";
/// Parameters that an SMS carries empty, and that intermediaries like to drop.
const OFTEN_EMPTY: [&str; 9] = [
    "Body",
    "FromCity",
    "FromCountry",
    "FromState",
    "FromZip",
    "ToCity",
    "ToCountry",
    "ToState",
    "ToZip",
];

/// Why a request does not verify. `Display` is the sentence that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Explanation {
    /// It does verify.
    Verifies,
    /// There is no signature header.
    MissingHeader,
    /// There are several.
    RepeatedHeader,
    /// The header is no signature.
    MalformedHeader,
    /// The body is no form.
    NotAForm,
    /// The form cannot be decoded.
    BadForm,
    /// The account is not configured.
    UnknownAccount,
    /// `bodySHA256` is not the body's.
    BodyHash,
    /// It was signed for another URL, without its query.
    SignedFor {
        /// What it was signed for.
        url: String,
        /// What it was verified for.
        ours: String,
        /// The `PUBLIC_URL` that would fit, if one would.
        public_url: Option<String>,
    },
    /// A token fits that is configured, but not for this account.
    OtherToken {
        /// Whose token fits: `None` for the default token.
        fits: Option<AccountSid>,
        /// Whose tokens were tried: `None` for the default tokens.
        tried: Option<AccountSid>,
    },
    /// The body is not the one that was signed.
    BodyAltered(BodyChange),
    /// The query is not the one that was signed.
    QueryAltered(QueryChange),
    /// Signed with a key that is not the auth token.
    SharedKey {
        /// Its id, where it has the shape of one.
        key: Option<String>,
    },
    /// Nothing that was tried fits.
    NoneOfThese {
        /// What it was verified for, without its query.
        ours: String,
    },
}

/// What happened to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyChange {
    /// The signature covers no parameters.
    NotSigned,
    /// The signature covers the parameters of the query as if they had been posted.
    PostBecameGet,
    /// Bytes were added at the end.
    Padded,
    /// Encoded twice.
    EncodedTwice,
    /// A plus became a space.
    PlusLost,
    /// Line ends were changed.
    LineEnds,
    /// Empty parameters were dropped.
    BlanksDropped,
    /// It was signed without its empty parameters.
    BlanksNotSigned,
    /// Read in another character set.
    Charset,
    /// Encoded in base64.
    Base64,
    /// Signed with one value of a repeated name.
    RepeatsNotSigned,
}

/// What happened to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryChange {
    /// Encoded in another way.
    Reencoded,
    /// Its pairs came in another order.
    Reordered,
    /// It was added.
    Added,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verifies => f.write_str("the signature fits"),
            Self::MissingHeader => f.write_str(
                "there is no X-Twilio-Signature header: the request is not Twilio's, or a proxy removes the header and \
                 must be told to pass it",
            ),
            Self::RepeatedHeader => f.write_str(
                "there is more than one X-Twilio-Signature header: a proxy doubles it and must pass it once",
            ),
            Self::MalformedHeader => f.write_str(
                "the X-Twilio-Signature header is not 28 characters of base64: the request is not Twilio's, or a proxy \
                 changes the header",
            ),
            Self::NotAForm => f.write_str(
                "the body is neither application/x-www-form-urlencoded in UTF-8 nor vouched for by one bodySHA256 in \
                 the query: a proxy changes Content-Type, or the request is not a messaging webhook",
            ),
            Self::BadForm => f.write_str(
                "the parameters are not UTF-8 or too many: the request is not Twilio's, or a proxy re-encodes them",
            ),
            Self::UnknownAccount => f.write_str(
                "the AccountSid is not configured: set TWILIO_ACCOUNT_SID to it, or add its token as \
                 twilio.accounts.<AccountSid>.auth_token",
            ),
            Self::BodyHash => f.write_str(
                "the signature fits but bodySHA256 is not the hash of the body: the body was changed on the way",
            ),
            Self::SignedFor { url, ours, public_url: Some(public_url) } => write!(
                f,
                "signed for {url} and verified for {ours}: set PUBLIC_URL={public_url}, or enter {ours} in Twilio's \
                 console"
            ),
            Self::SignedFor { url, ours, public_url: None } => {
                write!(f, "signed for {url} and verified for {ours}: enter {ours} in Twilio's console")
            }
            Self::OtherToken { fits: None, tried: Some(tried) } => write!(
                f,
                "signed with the default token and not with the one configured for account {tried}: correct \
                 twilio.accounts.{tried}.auth_token"
            ),
            Self::OtherToken { fits: None, tried: None } => f.write_str("signed with the default token"),
            Self::OtherToken { fits: Some(fits), tried: Some(tried) } => write!(
                f,
                "signed with the token of account {fits} although its AccountSid is {tried}: the tokens of the two are \
                 exchanged in the configuration"
            ),
            Self::OtherToken { fits: Some(fits), tried: None } => write!(
                f,
                "signed with the token configured for account {fits}, not with the default token: configure the \
                 account of this message with that token too, or exchange the two tokens"
            ),
            Self::BodyAltered(change) => f.write_str(change.remedy()),
            Self::QueryAltered(change) => f.write_str(change.remedy()),
            Self::SharedKey { key } => {
                let key = key.as_deref().unwrap_or("unknown");
                write!(
                    f,
                    "signed with the SharedKey {key}, which is not configured and not supported: let Twilio sign this \
                     webhook with the auth token"
                )
            }
            Self::NoneOfThese { ours } => write!(
                f,
                "none of these: another URL, token, body or query that was tried; verified for {ours}, so compare this \
                 with Twilio's console, and TWILIO_AUTH_TOKEN with the primary token of the account that owns the \
                 sender (not an API key's secret, not a secondary token that was not promoted)"
            ),
        }
    }
}

impl BodyChange {
    fn remedy(self) -> &'static str {
        match self {
            Self::NotSigned => {
                "signed as a request without parameters: something between Twilio and here turns a GET into a POST, or \
                 adds a body; let it pass requests unchanged"
            }
            Self::PostBecameGet => {
                "signed as a POST and received as a GET: a redirect or proxy turned it around; give Twilio the final \
                 URL, with its https and without a redirect"
            }
            Self::Padded => {
                "the signature fits without the white space at the end of the body: something between Twilio and here \
                 adds it; let it pass the body unchanged"
            }
            Self::EncodedTwice => {
                "the signature fits once the parameters are decoded a second time: something between Twilio and here \
                 encodes the body again; let it pass the body unchanged"
            }
            Self::PlusLost => {
                "the signature fits with + where there are spaces now: something between Twilio and here decodes the \
                 body and does not encode + as %2B; let it pass the body unchanged"
            }
            Self::LineEnds => {
                "the signature fits with other line ends in the parameters: something between Twilio and here converts \
                 them; let it pass the body unchanged"
            }
            Self::BlanksDropped => {
                "the signature fits once empty parameters are added: something between Twilio and here drops empty \
                 parameters; let it pass the body unchanged"
            }
            Self::BlanksNotSigned => {
                "signed without its empty parameters, which Twilio never does: the signer must sign empty parameters \
                 too"
            }
            Self::Charset => {
                "the signature fits once the parameters are read as UTF-8: something between Twilio and here decodes \
                 the body in another character set; let it pass the body unchanged"
            }
            Self::Base64 => {
                "the signature fits once the body is decoded from base64: a gateway passes it encoded; let it pass the \
                 body as it is"
            }
            Self::RepeatsNotSigned => {
                "signed with one value of a repeated parameter, which Twilio never does: the signer must sign every \
                 distinct value, sorted, with the name before each"
            }
        }
    }
}

impl QueryChange {
    fn remedy(self) -> &'static str {
        match self {
            Self::Reencoded => {
                "the signature fits with the query encoded in another way: something between Twilio and here re-encodes \
                 it; let it pass the query unchanged, or enter a URL without a query in Twilio's console"
            }
            Self::Reordered => {
                "the signature fits with the query's pairs in another order: something between Twilio and here sorts \
                 them; let it pass the query unchanged, or enter a URL without a query in Twilio's console"
            }
            Self::Added => {
                "the signature fits without the query: something between Twilio and here adds it; let it pass the URL \
                 unchanged"
            }
        }
    }
}

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
            Err(SignatureErrorKind::Mismatch) => self.explain_mismatch(request),
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
        format!(
            "{}://{}{}{}",
            public.scheme(),
            public.authority(),
            public.missing_prefix(target),
            path
        )
    }
}

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
}

impl<'a> Trial<'a> {
    fn new(verifier: &'a SignatureVerifier, request: &'a UnverifiedRequest<'a>) -> Option<Self> {
        let content = verifier.content(request).ok()?;
        let (tokens, own) = verifier.tokens_for(&content.form).ok()?;
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
        })
    }

    /// Whether any configured token fits a URL and pairs.
    fn fits(&self, url: &str, params: &[u8]) -> bool {
        self.all_tokens
            .iter()
            .any(|token| token.signed(&[url.as_bytes(), params], &self.signature))
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
        let urls = self.urls(self.request.target);
        let fits = |form: &Form| urls.iter().any(|url| self.fits(url, &signed(form)));
        if !self.posted {
            let path = self.request.target.split('?').next().unwrap_or_default();
            let bare = self.urls(path);
            let posted = bare.iter().any(|url| self.fits(url, &signed(&self.form)));
            return posted.then_some(BodyChange::PostBecameGet);
        }
        if urls.iter().any(|url| self.fits(url, b"")) {
            return Some(BodyChange::NotSigned);
        }
        let mapped = |change: &dyn Fn(&str) -> String| -> Form {
            self.form
                .iter()
                .map(|(name, value)| (name.to_owned(), change(value)))
                .collect()
        };
        let reparsed = |body: &[u8]| Form::parse(body, self.form.len() + 64).unwrap_or_default();
        let twice = mapped(&|value| {
            let decoded = Form::parse(value.replace('&', "%26").replace('=', "%3D").as_bytes(), 1)
                .unwrap_or_default();
            decoded
                .iter()
                .map(|(name, value)| format!("{name}{value}"))
                .collect()
        });
        let without_repeats = |last: bool| -> Form {
            let mut kept: Vec<(&str, &str)> = Vec::new();
            for (name, value) in self.form.iter() {
                match kept.iter_mut().find(|(known, _)| *known == name) {
                    Some(pair) if last => pair.1 = value,
                    Some(_) => {}
                    None => kept.push((name, value)),
                }
            }
            kept.into_iter().collect()
        };
        let missing = OFTEN_EMPTY
            .iter()
            .filter(|name| self.form.get(name).is_none())
            .map(|name| (*name, ""));
        let base64 = STANDARD
            .decode(self.request.body.trim_ascii())
            .unwrap_or_default();
        let candidates: [(BodyChange, Form); 13] = [
            (
                BodyChange::Padded,
                reparsed(self.request.body.trim_ascii_end()),
            ),
            (BodyChange::EncodedTwice, twice),
            (
                BodyChange::PlusLost,
                mapped(&|value| value.replace(' ', "+")),
            ),
            (
                BodyChange::PlusLost,
                mapped(&|value| match value.strip_prefix(' ') {
                    Some(rest) => format!("+{rest}"),
                    None => value.replace(": ", ":+"),
                }),
            ),
            (BodyChange::PlusLost, mapped(&plus_before_digits)),
            (
                BodyChange::LineEnds,
                mapped(&|value| value.replace('\n', "\r\n")),
            ),
            (
                BodyChange::LineEnds,
                mapped(&|value| value.replace("\r\n", "\n")),
            ),
            (
                BodyChange::BlanksDropped,
                self.form.iter().chain(missing).collect(),
            ),
            (
                BodyChange::BlanksNotSigned,
                self.form
                    .iter()
                    .filter(|(_, value)| !value.is_empty())
                    .collect(),
            ),
            (BodyChange::Charset, mapped(&|value| latin1_as_utf8(value))),
            (BodyChange::Base64, reparsed(&base64)),
            (BodyChange::RepeatsNotSigned, without_repeats(false)),
            (BodyChange::RepeatsNotSigned, without_repeats(true)),
        ];
        let dropped_one_by_one = || {
            let absent: Vec<_> = OFTEN_EMPTY
                .iter()
                .filter(|name| self.form.get(name).is_none())
                .collect();
            (1..1_usize << absent.len()).any(|chosen| {
                let blanks = absent
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| chosen >> at & 1 == 1)
                    .map(|(_, name)| (**name, ""));
                fits(&self.form.iter().chain(blanks).collect())
            })
        };
        let found = candidates
            .iter()
            .find(|(_, form)| *form != self.form && fits(form))
            .map(|(change, _)| *change);
        found.or_else(|| dropped_one_by_one().then_some(BodyChange::BlanksDropped))
    }

    fn query_change(&self) -> Option<QueryChange> {
        let (path, query) = self.request.target.split_once('?')?;
        let params = self.params();
        let fits = |query: &str| {
            let target = if query.is_empty() {
                path.to_owned()
            } else {
                format!("{path}?{query}")
            };
            self.urls(&target).iter().any(|url| self.fits(url, &params))
        };
        if fits("") {
            return Some(QueryChange::Added);
        }
        let mut sorted: Vec<&str> = query.split('&').collect();
        sorted.sort_unstable();
        if fits(&sorted.join("&")) || orders(query).any(|query| fits(&query)) {
            return Some(QueryChange::Reordered);
        }
        let pairs = Form::parse(query.as_bytes(), 64).ok()?;
        let with = |encode: &dyn Fn(&str) -> String| -> String {
            let pairs = pairs
                .iter()
                .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
            pairs.collect::<Vec<_>>().join("&")
        };
        let form_encoded = pairs.encode();
        let candidates = [
            form_encoded.replace('+', "%20"),
            form_encoded.replace("%7E", "~"),
            form_encoded.replace('+', "%20").replace("%7E", "~"),
            lower_case_escapes(query),
            upper_case_escapes(query),
            query.replace("%20", "+"),
            query.replace('+', "%20"),
            query.replace('+', "%2B"),
            query.replace("%2B", "+"),
            with(&|text| text.to_owned()),
            with(&|text| text.replace(' ', "%20")),
            with(&|text| text.replace(' ', "+")),
            form_encoded,
        ];
        candidates
            .iter()
            .any(|query| fits(query))
            .then_some(QueryChange::Reencoded)
    }

    fn other_url(&self, ours: &str) -> Option<Explanation> {
        let params = self.params();
        for authority in self.authorities() {
            for scheme in [self.public_url.scheme(), "https", "http"] {
                for target in self.targets() {
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
        .filter(|value| !value.is_empty())
        .take(4)
}

/// `host=` of RFC 7239.
fn forwarded_hosts(headers: &HeaderMap) -> Vec<String> {
    let parts = list(headers, "forwarded")
        .flat_map(|element| element.split(';').map(str::to_owned).collect::<Vec<_>>());
    let host = |part: String| {
        let (name, value) = part.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("host")
            .then(|| value.trim().trim_matches('"').to_owned())
    };
    parts.filter_map(host).collect()
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

/// Every order of up to four pairs.
fn orders(query: &str) -> impl Iterator<Item = String> {
    let pairs: Vec<String> = query.split('&').map(str::to_owned).collect();
    let count = if (2..=4).contains(&pairs.len()) {
        (1..=pairs.len()).product()
    } else {
        0
    };
    (0..count).map(move |mut index| {
        let mut left = pairs.clone();
        let mut order = Vec::new();
        while !left.is_empty() {
            order.push(left.remove(index % left.len()));
            index /= left.len() + 1;
        }
        order.join("&")
    })
}

fn plus_before_digits(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(
            if c == ' ' && chars.peek().is_some_and(char::is_ascii_digit) {
                '+'
            } else {
                c
            },
        );
    }
    out
}

/// Text whose UTF-8 was read as Latin-1, read again as what it was.
fn latin1_as_utf8(text: &str) -> String {
    let bytes: Option<Vec<u8>> = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| text.to_owned())
}

fn lower_case_escapes(query: &str) -> String {
    map_escapes(query, |c| c.to_ascii_lowercase())
}

fn upper_case_escapes(query: &str) -> String {
    map_escapes(query, |c| c.to_ascii_uppercase())
}

fn map_escapes(query: &str, change: impl Fn(char) -> char) -> String {
    let mut left = 0;
    let map = |c: char| {
        if c == '%' {
            left = 2;
            return c;
        }
        if left > 0 {
            left -= 1;
            return change(c);
        }
        c
    };
    query.chars().map(map).collect()
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

/// For a method that is none of Twilio's, there is nothing to explain.
pub(crate) fn is_webhook_method(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::POST | Method::PUT)
}
