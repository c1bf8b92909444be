//! Why a request does not verify: the causes, and the one sentence that mends each.
//!
//! The request is tried against what commonly goes wrong: another token, a body or query changed on the way, another
//! URL among those that its own forwarding headers suggest. A guess that fits proves itself, since only Twilio's
//! signature can make it fit; so what an explanation quotes of a request's headers is true, and a forger learns
//! nothing. Nothing here accepts a request, and no explanation holds a token, a signature or a query's values.
//!
//! Costs up to a few thousand HMACs: call it rate-limited, off the way of good requests.

use std::fmt;

use crate::sid::AccountSid;

/// Why a request does not verify. `Display` is the sentence that mends it.
///
/// ```
/// use replyhook::{Form, Secret};
/// use replyhook::signature::{CapturedRequest, Explanation, PublicUrl, SignatureVerifier, sign};
///
/// let token = Secret::new("0123456789abcdef0123456789abcdef");
/// let (url, _) = PublicUrl::parse("https://bot.example.com")?;
/// let verifier = SignatureVerifier::new(url, [token.clone()])?;
/// // What stands in Twilio's console is another URL.
/// let signature = sign(&token, "https://x.ngrok.app/webhook", Some(&Form::from_iter([("Body", "hi")])))?;
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
    /// The signature fits, but another message is named in the signed bytes than the parameters say.
    Reshaped,
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
///
/// How such a thing is found: see [`Explanation`].
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
///
/// How such a thing is found: see [`Explanation`].
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
            Self::Reshaped => f.write_str(
                "the signature fits, but the signed text holds another MessageSid, or another kind of webhook, than the \
                 parameters say: a captured request was cut into other names and values, or a user's text holds such a \
                 pair; the two cannot be told apart, so the request is refused",
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
