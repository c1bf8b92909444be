//! The pure verifier: a request's bytes in, its pairs or a refusal out. No I/O, no clock, no log.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use super::public_url::PublicUrl;
use super::reshaped::SignedText;
use super::token::{Token, TokenError};
use crate::form::{Form, FormError, SortOrder};
use crate::secret::Secret;
use crate::sid::AccountSid;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

/// Most pairs of one request.
const DEFAULT_MAX_PARAMS: usize = 512;

/// A request as it was received, before anything is known about it.
///
/// Verified: see the example of [`SignatureVerifier`].
#[derive(Clone, Copy)]
pub struct UnverifiedRequest<'a> {
    /// GET, POST or PUT.
    pub method: &'a Method,
    /// Path and query byte for byte as received, such as `/webhook?x=%20`.
    pub target: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The raw body.
    pub body: &'a [u8],
}

/// What a verified request holds.
///
/// What verifying gives: see the example of [`SignatureVerifier`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Verified {
    /// The decoded pairs that were signed: those of a form's body, or a GET's query. Empty for another body.
    pub form: Form,
    /// Which of the configured tokens it was.
    pub token: TokenSlot,
    /// Whether the pairs are a form's or a query's, and not the body of another type.
    pub is_form: bool,
}

/// Which configured token verified a request.
///
/// Of a request that is let through: see [`SignedForm`](crate::SignedForm).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenSlot {
    /// The first default token.
    Primary,
    /// A later default token, for rotation.
    Secondary,
    /// A token of the message's own account.
    Account,
}

/// Why a request is refused. Holds nothing of the request.
///
/// ```
/// use http::{HeaderMap, Method};
/// use replyhook::Secret;
/// use replyhook::signature::{PublicUrl, SignatureErrorKind, SignatureVerifier, UnverifiedRequest};
///
/// let (url, _) = PublicUrl::parse("https://bot.example.com")?;
/// let verifier = SignatureVerifier::new(url, [Secret::new("0123456789abcdef0123456789abcdef")])?;
/// let headers = HeaderMap::new();
/// let forged = UnverifiedRequest { method: &Method::POST, target: "/webhook", headers: &headers, body: b"Body=hi" };
/// assert_eq!(verifier.verify(&forged).unwrap_err().kind(), SignatureErrorKind::MissingHeader);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct SignatureError {
    kind: SignatureErrorKind,
}

/// What a [`SignatureError`] is about.
///
/// Of a request without a signature: see [`SignatureError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureErrorKind {
    /// No signature header.
    #[error("there is no X-Twilio-Signature header")]
    MissingHeader,
    /// More than one signature header: which of them a proxy or another reader believes is not known.
    #[error("there is more than one X-Twilio-Signature header")]
    RepeatedHeader,
    /// The header is not 28 characters of base64.
    #[error("the X-Twilio-Signature header is not 28 characters of base64")]
    MalformedHeader,
    /// The signature fits no accepted reading of the request.
    #[error("the signature does not fit the request")]
    Mismatch,
    /// The URL's `bodySHA256` is not the body's.
    #[error("bodySHA256 does not fit the body")]
    BodyHash,
    /// The `AccountSid` is none that is accepted.
    #[error("the AccountSid is not configured")]
    UnknownAccount,
    /// A body that is no form and has no `bodySHA256`: nothing would vouch for it.
    #[error("the body is not a form")]
    NotAForm,
    /// The form cannot be decoded.
    #[error(transparent)]
    Form(FormError),
    /// The signature fits, but another message is named in the signed bytes than the parameters say: a captured request
    /// may have been cut into other names and values.
    #[error("the signature fits, but the signed bytes name another message than the parameters do")]
    Reshaped,
}

impl SignatureError {
    /// What it is about.
    pub fn kind(&self) -> SignatureErrorKind {
        self.kind
    }
}

impl From<SignatureErrorKind> for SignatureError {
    fn from(kind: SignatureErrorKind) -> Self {
        Self { kind }
    }
}

/// Verifies requests for one public URL with any number of tokens.
///
/// ```
/// use http::{HeaderMap, Method};
/// use replyhook::Secret;
/// use replyhook::signature::{PublicUrl, SignatureVerifier, UnverifiedRequest};
///
/// let (url, _) = PublicUrl::parse("https://hooks.example.test/twilio")?;
/// let verifier = SignatureVerifier::new(url, [Secret::new("0123456789abcdef0123456789abcdef")])?;
/// let mut headers = HeaderMap::new();
/// headers.insert("content-type", "application/x-www-form-urlencoded".parse()?);
/// headers.insert("x-twilio-signature", "eIviMN83MknGiqDa/LQAvdAE6Co=".parse()?);
/// let request = UnverifiedRequest {
///     method: &Method::POST,
///     target: "/twilio/sms",
///     headers: &headers,
///     body: b"Body=++hi%0D%0Athere++&MessageSid=SM00000000000000000000000000000003",
/// };
/// assert_eq!(verifier.verify(&request)?.form.get("Body"), Some("  hi\r\nthere  "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SignatureVerifier {
    public_url: PublicUrl,
    origins: Vec<String>,
    pub(super) default_tokens: Vec<Token>,
    pub(super) accounts: Vec<(AccountSid, Vec<Token>)>,
    /// The account that the default tokens belong to. Once it is known, other accounts need tokens of their own.
    default_account: Option<AccountSid>,
    max_params: usize,
    /// Asked about what this one refuses.
    other: Option<Box<Self>>,
}

impl SignatureVerifier {
    /// A verifier that takes any of `tokens`, for every account.
    ///
    /// # Errors
    /// [`TokenError`] when there is no token or one of them is blank.
    pub fn new(
        public_url: PublicUrl,
        tokens: impl IntoIterator<Item = Secret>,
    ) -> Result<Self, TokenError> {
        let default_tokens = tokens
            .into_iter()
            .map(|secret| Token::new(&secret))
            .collect::<Result<Vec<_>, _>>()?;
        if default_tokens.is_empty() {
            return Err(TokenError::None);
        }
        Ok(Self {
            origins: public_url.origins(),
            public_url,
            default_tokens,
            accounts: Vec::new(),
            default_account: None,
            max_params: DEFAULT_MAX_PARAMS,
            other: None,
        })
    }

    /// Accepts an account (a subaccount, as a rule) that signs with tokens of its own, and for it no others.
    ///
    /// # Errors
    /// [`TokenError`] when there is no token or one of them is blank.
    pub fn with_account(
        mut self,
        account: AccountSid,
        tokens: impl IntoIterator<Item = Secret>,
    ) -> Result<Self, TokenError> {
        let tokens = tokens
            .into_iter()
            .map(|secret| Token::new(&secret))
            .collect::<Result<Vec<_>, _>>()?;
        if tokens.is_empty() {
            return Err(TokenError::None);
        }
        self.accounts.push((account.to_lowercase(), tokens));
        Ok(self)
    }

    /// Says which account the default tokens belong to: from then on only it and those of
    /// [`with_account`](Self::with_account) are accepted.
    #[must_use]
    pub fn with_default_account(mut self, account: AccountSid) -> Self {
        self.default_account = Some(account.to_lowercase());
        self
    }

    /// Accepts also what `other` does, for its URL and with its tokens: as behind a tunnel, whose requests another account
    /// signs. Replies by REST use what is configured for that account.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.other = Some(Box::new(match self.other.take() {
            Some(first) => first.or(other),
            None => other,
        }));
        self
    }

    /// Who is to tell why a request does not verify: whoever the account belongs to, else this one.
    pub(super) fn responsible(&self, request: &UnverifiedRequest<'_>) -> &Self {
        let Some(other) = &self.other else {
            return self;
        };
        let form = self.content(request).map(|content| content.form);
        let account = form.ok().and_then(|form| {
            let account = form.get("AccountSid")?;
            Some(AccountSid::parse(account).ok()?.to_lowercase())
        });
        if account.is_some() && account != self.default_account {
            let responsible = other.responsible(request);
            if responsible.default_account == account {
                return responsible;
            }
        }
        self
    }

    /// Most pairs of one request; 512 unless set.
    #[must_use]
    pub fn with_max_params(mut self, max_params: usize) -> Self {
        self.max_params = max_params;
        self
    }

    /// The URL that requests are verified for.
    pub fn public_url(&self) -> &PublicUrl {
        &self.public_url
    }

    /// Verifies a request.
    ///
    /// # Errors
    /// [`SignatureError`]; nothing of the request may be used then.
    pub fn verify(&self, request: &UnverifiedRequest<'_>) -> Result<Verified, SignatureError> {
        let verified = self.verify_here(request);
        let (Err(_), Some(other)) = (&verified, &self.other) else {
            return verified;
        };
        let elsewhere = other.verify(request).map(|verified| Verified {
            token: TokenSlot::Account,
            ..verified
        });
        elsewhere.or(verified)
    }

    fn verify_here(&self, request: &UnverifiedRequest<'_>) -> Result<Verified, SignatureError> {
        let signature = signature_of(request.headers)?;
        let content = self.content(request)?;
        let owner = self.tokens_for(&content.form);
        // Who signs for an account that is not configured is told apart from who does not sign at all.
        let (tokens, own) = owner.unwrap_or((&self.default_tokens, false));
        let target = request.target;
        let mut order = SortOrder::Bytes;
        let mut params = content.signed_params(order);
        let mut found = self.position(tokens, target, &params, &signature);
        // JavaScript sorts by UTF-16 units; whether Twilio does is not known.
        if found.is_none() && content.posted && content.form.has_two_orders() {
            order = SortOrder::Utf16;
            params = content.signed_params(order);
            found = self.position(tokens, target, &params, &signature);
        }
        if let Err(unknown) = owner {
            let params = content.signed_params(SortOrder::Bytes);
            let others = self.accounts.iter().map(|(_, tokens)| tokens.as_slice());
            let mut any = others
                .filter(|tokens| self.position(tokens, target, &params, &signature).is_some());
            let signed = found.is_some() || any.next().is_some();
            return Err(if signed {
                unknown
            } else {
                SignatureErrorKind::Mismatch.into()
            });
        }
        let token = match found {
            None => return Err(SignatureErrorKind::Mismatch.into()),
            Some(_) if own => TokenSlot::Account,
            Some(0) => TokenSlot::Primary,
            Some(_) => TokenSlot::Secondary,
        };
        if let Some(hash) = &content.body_sha256
            && !body_hash_fits(hash, request.body)
        {
            return Err(SignatureErrorKind::BodyHash.into());
        }
        let signed = SignedText {
            form: &content.form,
            order,
            target,
            params: &params,
        };
        if content.body_sha256.is_none() && signed.is_reshaped() {
            return Err(SignatureErrorKind::Reshaped.into());
        }
        Ok(Verified {
            form: content.form,
            token,
            is_form: content.body_sha256.is_none(),
        })
    }

    /// The first of some tokens that fits a request.
    fn position(
        &self,
        tokens: &[Token],
        target: &str,
        params: &[u8],
        signature: &[u8; 20],
    ) -> Option<usize> {
        let missing_prefix = self.public_url.missing_prefix(target);
        tokens.iter().position(|token| {
            let over = |target: &str| {
                self.origins.iter().any(|origin| {
                    token.signed(
                        &[
                            origin.as_bytes(),
                            missing_prefix.as_bytes(),
                            target.as_bytes(),
                            params,
                        ],
                        signature,
                    )
                })
            };
            over(target) || query_spellings(target).iter().any(|target| over(target))
        })
    }

    /// The pairs, and whether they are signed.
    pub(super) fn content(
        &self,
        request: &UnverifiedRequest<'_>,
    ) -> Result<Content, SignatureError> {
        let form = |input| Form::parse(input, self.max_params).map_err(SignatureErrorKind::Form);
        let query = request
            .target
            .split_once('?')
            .map_or("", |(_, query)| query);
        if request.method == Method::GET {
            return Ok(Content {
                form: form(query.as_bytes())?,
                posted: false,
                body_sha256: None,
            });
        }
        if is_form(request.headers) {
            return Ok(Content {
                form: form(request.body)?,
                posted: true,
                body_sha256: None,
            });
        }
        let query = form(query.as_bytes())?;
        let mut hashes = query
            .iter()
            .filter(|(name, _)| *name == "bodySHA256")
            .map(|(_, value)| value.to_owned());
        match (hashes.next(), hashes.next()) {
            (Some(hash), None) => Ok(Content {
                form: Form::default(),
                posted: false,
                body_sha256: Some(hash),
            }),
            _ => Err(SignatureErrorKind::NotAForm.into()),
        }
    }

    /// The tokens for a form's account, and whether they are its own.
    pub(super) fn tokens_for(&self, form: &Form) -> Result<(&[Token], bool), SignatureError> {
        if self.accounts.is_empty() && self.default_account.is_none() {
            return Ok((&self.default_tokens, false));
        }
        // Without one it is no message: what the default tokens sign is refused where it is parsed.
        let Some(account) = form.get("AccountSid") else {
            return Ok((&self.default_tokens, false));
        };
        let account = AccountSid::parse(account)
            .map(AccountSid::to_lowercase)
            .ok();
        let own = self
            .accounts
            .iter()
            .find(|(known, _)| Some(*known) == account);
        match (own, self.default_account) {
            (Some((_, tokens)), _) => Ok((tokens, true)),
            (None, Some(default)) if Some(default) != account => {
                Err(SignatureErrorKind::UnknownAccount.into())
            }
            _ => Ok((&self.default_tokens, false)),
        }
    }
}

impl fmt::Debug for SignatureVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureVerifier")
            .field("public_url", &self.public_url)
            .field("default_tokens", &self.default_tokens.len())
            .field(
                "accounts",
                &self
                    .accounts
                    .iter()
                    .map(|(account, _)| account)
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UnverifiedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedRequest")
            .field("method", self.method)
            .finish_non_exhaustive()
    }
}

/// What of a request is read, and what of it is signed.
pub(super) struct Content {
    pub(super) form: Form,
    /// The pairs are signed as parameters, not as part of the URL.
    pub(super) posted: bool,
    pub(super) body_sha256: Option<String>,
}

impl Content {
    fn signed_params(&self, order: SortOrder) -> Vec<u8> {
        if !self.posted {
            return Vec::new();
        }
        let mut signed = Vec::with_capacity(1024);
        self.form.append_signed(order, &mut signed);
        signed
    }
}

/// The one signature of a request.
pub(super) fn signature_of(headers: &HeaderMap) -> Result<[u8; 20], SignatureErrorKind> {
    let mut values = headers.get_all(SIGNATURE_HEADER).iter();
    let value = values.next().ok_or(SignatureErrorKind::MissingHeader)?;
    if values.next().is_some() {
        return Err(SignatureErrorKind::RepeatedHeader);
    }
    // The length first: a header of a megabyte is not decoded.
    if value.len() != 28 {
        let kind = if value.is_empty() {
            SignatureErrorKind::MissingHeader
        } else {
            SignatureErrorKind::MalformedHeader
        };
        return Err(kind);
    }
    let mut signature = [0; 21];
    match STANDARD.decode_slice(value.as_bytes(), &mut signature) {
        Ok(20) => Ok(signature[..20].try_into().expect("20 bytes were decoded")),
        _ => Err(SignatureErrorKind::MalformedHeader),
    }
}

/// A form by its media type, in UTF-8 or without a word about it.
fn is_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    // The two spellings that Twilio sends need no further look.
    let usual: [&[u8]; 2] = [
        b"application/x-www-form-urlencoded; charset=UTF-8",
        b"application/x-www-form-urlencoded",
    ];
    if usual.contains(&value.as_bytes()) {
        return true;
    }
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && charset.is_none_or(|(_, charset)| {
            charset
                .trim()
                .trim_matches('"')
                .eq_ignore_ascii_case("utf-8")
        })
}

/// Lower-case hexadecimal of the raw bytes' SHA-256.
fn body_hash_fits(hash: &str, body: &[u8]) -> bool {
    let expected = Sha256::digest(body);
    let mut text = [0; 64];
    for (at, byte) in expected.iter().enumerate() {
        text[2 * at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[2 * at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    // The hash is in the URL for all to see: nothing is learnt from the time this takes.
    hash.as_bytes() == text
}

/// The spellings of a query that Twilio is known to sign instead of the one it sends.
///
/// Source: twilio-node issues 621, 1059, 1061, 1183 and twilio-ruby issue 528.
fn query_spellings(target: &str) -> Vec<String> {
    let Some((path, query)) = target.split_once('?') else {
        return Vec::new();
    };
    if !["'", "%27", "%40", "%3A", "%3a"]
        .iter()
        .any(|odd| query.contains(odd))
    {
        return Vec::new();
    }
    let plain = |query: &str| {
        query
            .replace("%40", "@")
            .replace("%3A", ":")
            .replace("%3a", ":")
    };
    let raw_quote = query.replace("%27", "'");
    let mut spellings = vec![
        query.replace('\'', "%27"),
        plain(query),
        plain(&raw_quote),
        raw_quote,
    ];
    spellings.retain(|spelling| spelling != query);
    spellings.dedup();
    spellings
        .into_iter()
        .map(|query| format!("{path}?{query}"))
        .collect()
}
