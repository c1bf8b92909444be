//! Explanations of failed signatures: the cause, and one sentence with the fix.
//!
//! [`SignatureVerifier::explain`](super::SignatureVerifier::explain) tests common mistakes: another token, a body or
//! query that was changed in transit, or another URL that the request's forwarding headers suggest. A guess that
//! matches is proof, because only Twilio's signature can match. So everything that an explanation quotes from the
//! headers is true, and a forger learns nothing. An explanation never makes a request acceptable. It contains no token,
//! no signature and no query value.
//!
//! An explanation costs up to a few thousand HMACs. Limit its rate, and do not compute it for valid requests.

use std::fmt;

use super::shared_key::{SharedKeyId, SignatureAlgorithm};
use super::signature_error::SettingsHeaderError;
use crate::sid::AccountSid;

/// Cause of a failed signature. `Display` is one sentence with the cause and the fix.
///
/// ```
/// use replyhook::{FormParams, Secret};
/// use replyhook::signature::{CapturedRequest, Explanation, PublicUrl, SignatureVerifier, sign};
///
/// let token = Secret::new("0123456789abcdef0123456789abcdef");
/// let (url, _) = PublicUrl::parse("https://bot.example.com")?;
/// let verifier = SignatureVerifier::new(url, [token.clone()])?;
/// // Another URL is configured in Twilio's console.
/// let signature = sign(&token, "https://x.ngrok.app/webhook", Some(&FormParams::from_iter([("Body", "hi")])))?;
/// let saved = format!(
///     "curl https://x.ngrok.app/webhook -H 'X-Twilio-Signature: {signature}' \
///      -H 'Content-Type: application/x-www-form-urlencoded' -d Body=hi"
/// );
/// let explanation = verifier.explain(&CapturedRequest::parse(&saved)?.unverified());
/// assert!(matches!(&explanation, Explanation::SignedFor { url, .. } if url == "https://x.ngrok.app/webhook"));
/// assert!(explanation.to_string().contains("PUBLIC_URL=https://x.ngrok.app"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Explanation {
    /// The signature is valid.
    Verifies,
    /// The signature header is missing.
    MissingHeader,
    /// There are several signature headers.
    RepeatedHeader,
    /// The signature header is malformed.
    MalformedHeader,
    /// The body is not a form.
    NotAForm,
    /// The form cannot be decoded.
    BadForm,
    /// The account is not configured.
    UnknownAccount,
    /// `bodySHA256` is not the hash of the body.
    BodyHash,
    /// The signature matches, but the signed bytes name another message than the parameters.
    Reshaped,
    /// The request was signed for another URL.
    SignedFor {
        /// The signed URL without its query.
        url: String,
        /// The verified URL without its query.
        ours: String,
        /// The value of `PUBLIC_URL` that would match, if there is one.
        public_url: Option<String>,
        /// The path that a proxy maps to the received one, if the URLs differ in nothing else.
        mapped: Option<MappedPath>,
    },
    /// The request was signed with a configured token that is not the token of its account.
    OtherToken {
        /// Account whose token matches; `None` for the default tokens.
        fits: Option<AccountSid>,
        /// Account whose tokens were tried; `None` for the default tokens.
        tried: Option<AccountSid>,
    },
    /// The body was changed in transit, or signed differently.
    BodyAltered(BodyChange),
    /// The query was changed in transit.
    QueryAltered(QueryChange),
    /// The header that names the shared key is malformed.
    SettingsHeader(SettingsHeaderError),
    /// The request names no shared key, and no auth token is configured that could have signed it.
    NoAuthToken {
        /// Account of the request.
        account: Option<AccountSid>,
        /// True if `TWILIO_AUTH_TOKEN` would be the token of this account.
        is_default: bool,
    },
    /// The request names a shared key that is not configured.
    UnknownSharedKey {
        /// ID of the key.
        key: SharedKeyId,
        /// True if an auth token of the account is configured.
        has_token: bool,
        /// True if another shared key of the account is configured.
        has_other_key: bool,
    },
    /// The request was signed with a shared key of another account.
    SharedKeyAccount {
        /// ID of the key.
        key: SharedKeyId,
        /// Account of the key.
        account: AccountSid,
    },
    /// The request was signed with a shared key, and names none.
    SharedKeyNotNamed {
        /// ID of the key; `None` if only the length of the signature shows it.
        key: Option<SharedKeyId>,
    },
    /// The request names one shared key, and was signed with the secret of another.
    OtherSharedKey {
        /// Key whose secret matches.
        fits: SharedKeyId,
        /// Key that the request names.
        named: SharedKeyId,
    },
    /// The signature has the length of the other algorithm than the one that the request names.
    OtherAlgorithm {
        /// Key that the request names.
        key: SharedKeyId,
        /// Algorithm that the request names. HMAC-SHA1 if it names none.
        named: SignatureAlgorithm,
        /// Algorithm of the signature.
        signed: SignatureAlgorithm,
        /// True if the key has made the signature.
        is_proven: bool,
    },
    /// No tested mistake matches.
    NoMatch {
        /// The verified URL without its query.
        ours: String,
        /// Shared key that the request names.
        key: Option<SharedKeyId>,
    },
}

/// The path of a signed URL that a proxy maps to the path of a webhook.
///
/// See [`Explanation`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedPath {
    /// Name of the webhook whose setting can have this path: `primary`, `fallback` or `status`. `None` if it is the path
    /// of another one.
    pub webhook: Option<&'static str>,
    /// The signed path, without the prefix of `PUBLIC_URL`.
    pub path: String,
}

/// Difference between a received body and the signed one.
///
/// See [`Explanation`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyChange {
    /// The signature covers no parameters.
    NotSigned,
    /// The signature covers the parameters of the query as if they were posted.
    PostBecameGet,
    /// White space was added at the end.
    Padded,
    /// The body was encoded twice.
    EncodedTwice,
    /// A plus was decoded as a space.
    PlusLost,
    /// Line ends were changed.
    LineEnds,
    /// Empty parameters were dropped.
    BlanksDropped,
    /// The signature does not cover empty parameters.
    BlanksNotSigned,
    /// The body was decoded in another character set.
    Charset,
    /// The body was encoded in base64.
    Base64,
    /// The signature covers only one value of a repeated name.
    RepeatsNotSigned,
}

/// Difference between a received query and the signed one.
///
/// See [`Explanation`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryChange {
    /// The query was encoded differently.
    Reencoded,
    /// The pairs of the query are in another order.
    Reordered,
    /// The query was added.
    Added,
}

impl fmt::Display for Explanation {
    #[expect(clippy::too_many_lines, reason = "one text for each explanation")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Each text names the cause first, then the fix. It may quote a host, path or SID, but never a query value,
            // which can be private.
            Self::Verifies => f.write_str("the signature fits"),
            Self::MissingHeader => f.write_str(
                "the X-Twilio-Signature header is missing: the request is not Twilio's, or a proxy removes the header and \
                 must be told to pass it",
            ),
            Self::RepeatedHeader => f.write_str(
                "there is more than one X-Twilio-Signature header: a proxy doubles it and must pass it once",
            ),
            Self::MalformedHeader => f.write_str(
                "the X-Twilio-Signature header is not 28 characters of base64, or 44 with HMAC_SHA256: the request is not \
                 Twilio's, or a proxy changes the header",
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
            Self::Reshaped => f.write_str(
                "the signature fits, but the signed text holds another MessageSid, or another kind of webhook, than the \
                 parameters say: a captured request was cut into other names and values, or a user's text holds such a \
                 pair; the two cannot be told apart, so the request is rejected",
            ),
            Self::SignedFor { url, ours, mapped: Some(MappedPath { webhook: Some(webhook), path }), .. } => write!(
                f,
                "signed for {url} and verified for {ours}: a proxy maps the path; let it pass the path as it is and set \
                 server.paths.{webhook} = \"{path}\", or enter {ours} in Twilio's console"
            ),
            Self::SignedFor { url, ours, mapped: Some(_), .. } => write!(
                f,
                "signed for {url} and verified for {ours}: a proxy maps the path of one webhook to another; let it pass \
                 the path as it is"
            ),
            Self::SignedFor { url, ours, public_url: Some(public_url), .. } => write!(
                f,
                "signed for {url} and verified for {ours}: set PUBLIC_URL={public_url}, or enter {ours} in Twilio's \
                 console"
            ),
            Self::SignedFor { url, ours, .. } => {
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
            Self::SettingsHeader(error) => write!(f, "{error}: {}", error.remedy()),
            Self::NoAuthToken { account, is_default } => {
                f.write_str("no auth token is configured")?;
                if let Some(account) = account {
                    write!(f, " for account {account}")?;
                }
                f.write_str(", and the request names no SharedKey: set ")?;
                match account {
                    Some(account) if !is_default => write!(f, "twilio.accounts.{account}.auth_token")?,
                    _ => f.write_str("TWILIO_AUTH_TOKEN")?,
                }
                f.write_str(", or let Twilio sign this webhook with a SharedKey of the account")
            }
            Self::UnknownSharedKey { key, has_token, has_other_key } => {
                write!(f, "the request names the SharedKey {key}, which is not configured")?;
                let alternative = match (has_token, has_other_key) {
                    (true, _) => ", or let Twilio sign this webhook with the auth token",
                    (false, true) => ", or let Twilio sign this webhook with a SharedKey that is configured",
                    (false, false) => {
                        f.write_str(", nor is another key or an auth token of its account")?;
                        ""
                    }
                };
                write!(f, ": set signature.shared_keys.{key}.secret and .account{alternative}")
            }
            Self::SharedKeyAccount { key, account } => write!(
                f,
                "signed with the SharedKey {key} of account {account}, although its AccountSid is another: correct \
                 signature.shared_keys.{key}.account, or let Twilio sign the webhooks of each account with its own key"
            ),
            Self::SharedKeyNotNamed { key } => {
                let name = key.map_or_else(|| "a SharedKey".to_owned(), |key| format!("the SharedKey {key}"));
                write!(
                    f,
                    "signed with {name}, but the header X-Twilio-Webhooks-Signature-Settings, which names the key, is \
                     missing: a proxy removes the header and must be told to pass it"
                )
            }
            Self::OtherSharedKey { fits, named } => write!(
                f,
                "signed with the secret configured for the SharedKey {fits}, although the request names {named}: correct \
                 the secrets of the two in signature.shared_keys"
            ),
            Self::OtherAlgorithm { key, named, signed, is_proven } => {
                if *is_proven {
                    write!(f, "signed with the SharedKey {key} by {signed}")?;
                } else {
                    write!(f, "the signature has the length of {signed}")?;
                }
                write!(f, ", although the header X-Twilio-Webhooks-Signature-Settings names {named}")?;
                if *named == SignatureAlgorithm::HmacSha1 {
                    f.write_str(", or no algorithm, which means the same")?;
                }
                if *is_proven {
                    f.write_str(": a proxy changes the header and must pass it as it is")
                } else {
                    f.write_str(": the request is not Twilio's, or a proxy changes one of the two headers")
                }
            }
            Self::NoMatch { ours, key: None } => write!(
                f,
                "none of these: another URL, token, body or query that was tried; verified for {ours}, so compare this \
                 with Twilio's console, and TWILIO_AUTH_TOKEN with the primary token of the account that owns the \
                 sender (not an API key's secret, not a secondary token that was not promoted)"
            ),
            Self::NoMatch { ours, key: Some(key) } => write!(
                f,
                "none of these: another URL, key, body or query that was tried; verified for {ours} with the SharedKey \
                 {key}, so compare the URL with Twilio's console, and signature.shared_keys.{key}.secret with the secret \
                 that Twilio showed when the key was created"
            ),
        }
    }
}

impl SettingsHeaderError {
    fn remedy(self) -> &'static str {
        match self {
            Self::Repeated => "a proxy doubles it and must pass it once",
            Self::NoKey => "the request is not Twilio's, or a proxy changes the header",
            Self::Algorithm => "let the setting of this webhook at Twilio use one of the two",
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
