//! The signature verifier: takes the bytes of a request, and returns its parameters or an error. No I/O, clock or log.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use super::public_url::PublicUrl;
use super::reshaped::SignedText;
use super::token::{HmacKey, TokenError};
use crate::form::{FormError, FormParams, SortOrder};
use crate::secret::Secret;
use crate::sid::AccountSid;

/// Name of the signature header.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

/// Default of [`SignatureVerifier::with_max_params`].
const DEFAULT_MAX_PARAMS: usize = 512;

/// A received request that is not verified yet.
///
/// See [`SignatureVerifier`] for an example.
#[derive(Clone, Copy)]
pub struct UnverifiedRequest<'a> {
    /// GET, POST or PUT.
    pub method: &'a Method,
    /// Path and query, byte for byte as received, such as `/webhook?x=%20`.
    pub target: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// Raw body.
    pub body: &'a [u8],
}

/// Content of a verified request.
///
/// See [`SignatureVerifier`] for an example.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verified {
    /// Signed parameters of the form, or of a GET's query. Empty for a body of another type.
    pub form: FormParams,
    /// Kind of the token that signed the request.
    pub token: AuthTokenKind,
    /// True for a form and for a GET; false for a body of another type, signed by `bodySHA256`.
    pub is_form: bool,
}

/// Kind of the configured token that verified a request.
///
/// See `SignedForm` for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthTokenKind {
    /// The first default token.
    Primary,
    /// A later default token, for rotation.
    Secondary,
    /// A token that belongs to the message's own account, or to a verifier added with [`SignatureVerifier::or`].
    Subaccount,
}

/// Error of a request that is not verified. It contains nothing of the request.
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

/// Kind of a [`SignatureError`].
///
/// See [`SignatureError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureErrorKind {
    /// The signature header is missing or empty.
    #[error("there is no X-Twilio-Signature header")]
    MissingHeader,
    /// There is more than one signature header. A proxy or another reader might use a different one.
    #[error("there is more than one X-Twilio-Signature header")]
    RepeatedHeader,
    /// The header is not 28 characters of base64.
    #[error("the X-Twilio-Signature header is not 28 characters of base64")]
    MalformedHeader,
    /// The signature matches no accepted URL and token.
    #[error("the signature does not fit the request")]
    Mismatch,
    /// The `bodySHA256` of the URL is not the hash of the body.
    #[error("bodySHA256 does not fit the body")]
    BodyHash,
    /// The `AccountSid` is not configured.
    #[error("the AccountSid is not configured")]
    UnknownAccount,
    /// The body is not a form, and without exactly one `bodySHA256` it is not signed.
    #[error("the body is not a form")]
    NotAForm,
    /// The form cannot be decoded.
    #[error(transparent)]
    Form(FormError),
    /// The signature matches, but the signed bytes name another message than the parameters. A captured request may
    /// have been split into other names and values.
    #[error("the signature fits, but the signed bytes name another message than the parameters do")]
    Reshaped,
}

impl SignatureError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> SignatureErrorKind {
        self.kind
    }
}

impl From<SignatureErrorKind> for SignatureError {
    fn from(kind: SignatureErrorKind) -> Self {
        Self { kind }
    }
}

/// Verifies requests for one public URL, with any number of tokens.
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
    pub(super) default_tokens: Vec<HmacKey>,
    pub(super) accounts: Vec<(AccountSid, Vec<HmacKey>)>,
    /// Account of the default tokens. If it is set, other accounts need their own tokens.
    default_account: Option<AccountSid>,
    max_params: usize,
    /// Verifier that is tried if this one rejects a request.
    other: Option<Box<Self>>,
}

impl SignatureVerifier {
    /// Creates a verifier that accepts any of `tokens`, for every account.
    ///
    /// # Errors
    /// [`TokenError`] if `tokens` is empty or contains a blank token.
    pub fn new(
        public_url: PublicUrl,
        tokens: impl IntoIterator<Item = Secret>,
    ) -> Result<Self, TokenError> {
        let default_tokens = tokens
            .into_iter()
            .map(|secret| HmacKey::new(&secret))
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

    /// Adds an account with its own tokens, usually a subaccount. No other tokens are accepted for it.
    ///
    /// # Errors
    /// [`TokenError`] if `tokens` is empty or contains a blank token.
    pub fn with_account(
        mut self,
        account: AccountSid,
        tokens: impl IntoIterator<Item = Secret>,
    ) -> Result<Self, TokenError> {
        let tokens = tokens
            .into_iter()
            .map(|secret| HmacKey::new(&secret))
            .collect::<Result<Vec<_>, _>>()?;
        if tokens.is_empty() {
            return Err(TokenError::None);
        }
        self.accounts.push((account.to_lowercase(), tokens));
        Ok(self)
    }

    /// Sets the account of the default tokens. Only this account and those of [`with_account`](Self::with_account) are
    /// then accepted.
    #[must_use]
    pub fn with_default_account(mut self, account: AccountSid) -> Self {
        self.default_account = Some(account.to_lowercase());
        self
    }

    /// Also accepts the requests that `other` accepts, for its URL and with its tokens.
    ///
    /// For example for a tunnel URL with another account's tokens. Requests that only `other` accepts get
    /// [`AuthTokenKind::Subaccount`].
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.other = Some(Box::new(match self.other.take() {
            Some(first) => first.or(other),
            None => other,
        }));
        self
    }

    /// Returns the verifier that should explain a failed request: the one whose default account the message has, else
    /// this one.
    pub(super) fn find_responsible(&self, request: &UnverifiedRequest<'_>) -> &Self {
        let Some(other) = &self.other else {
            return self;
        };
        let form = self.decode_content(request).map(|content| content.form);
        let account = form.ok().and_then(|form| {
            let account = form.get("AccountSid")?;
            Some(AccountSid::parse(account).ok()?.to_lowercase())
        });
        if account.is_some() && account != self.default_account {
            let responsible = other.find_responsible(request);
            if responsible.default_account == account {
                return responsible;
            }
        }
        self
    }

    /// Sets the maximum number of parameters of a request. The default is 512.
    #[must_use]
    pub fn with_max_params(mut self, max_params: usize) -> Self {
        self.max_params = max_params;
        self
    }

    /// Returns the URL for which requests are verified.
    pub fn public_url(&self) -> &PublicUrl {
        &self.public_url
    }

    /// Verifies a request.
    ///
    /// # Errors
    /// [`SignatureError`] if the request is not verified. Nothing of the request may be used then.
    pub fn verify(&self, request: &UnverifiedRequest<'_>) -> Result<Verified, SignatureError> {
        let verified = self.verify_own(request);
        let (Err(_), Some(other)) = (&verified, &self.other) else {
            return verified;
        };
        // The error of this verifier counts if both fail, since the request was most likely meant for it.
        let other_result = other.verify(request).map(|verified| Verified {
            token: AuthTokenKind::Subaccount,
            ..verified
        });
        other_result.or(verified)
    }

    /// Verifies a request without the verifiers that were added with [`or`](Self::or).
    fn verify_own(&self, request: &UnverifiedRequest<'_>) -> Result<Verified, SignatureError> {
        let signature = signature_of(request.headers)?;
        let content = self.decode_content(request)?;
        let owner = self.tokens_for(&content.form);
        // An unknown account is checked with the default tokens too, and reported only below, if a configured token
        // signed the request. Otherwise anyone could find out which accounts are configured.
        let (tokens, is_own) = owner.unwrap_or((&self.default_tokens, false));
        let target = request.target;
        let mut order = SortOrder::Bytes;
        let mut params = content.signed_params(order);
        let mut token_index = self.matching_token(tokens, target, &params, &signature);
        // It is not known whether Twilio sorts by bytes or, like JavaScript, by UTF-16 code units.
        if token_index.is_none() && content.is_posted && content.form.has_two_orders() {
            order = SortOrder::Utf16;
            params = content.signed_params(order);
            token_index = self.matching_token(tokens, target, &params, &signature);
        }
        if let Err(error) = owner {
            let params = content.signed_params(SortOrder::Bytes);
            let others = self.accounts.iter().map(|(_, tokens)| tokens.as_slice());
            let mut signers = others.filter(|tokens| {
                self.matching_token(tokens, target, &params, &signature)
                    .is_some()
            });
            let is_signed = token_index.is_some() || signers.next().is_some();
            return Err(if is_signed {
                error
            } else {
                SignatureErrorKind::Mismatch.into()
            });
        }
        let token = match token_index {
            None => return Err(SignatureErrorKind::Mismatch.into()),
            Some(_) if is_own => AuthTokenKind::Subaccount,
            Some(0) => AuthTokenKind::Primary,
            Some(_) => AuthTokenKind::Secondary,
        };
        // After the signature, which covers the hash in the URL: only a hash that Twilio signed is compared.
        if let Some(hash) = &content.body_sha256
            && !body_hash_fits(hash, request.body)
        {
            return Err(SignatureErrorKind::BodyHash.into());
        }
        // A body of another type has no parameters that could be reshaped.
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

    /// Returns the position of the first token that signed a request with one of the accepted URLs.
    fn matching_token(
        &self,
        tokens: &[HmacKey],
        target: &str,
        params: &[u8],
        signature: &[u8; 20],
    ) -> Option<usize> {
        let missing_prefix = self.public_url.missing_prefix(target);
        tokens.iter().position(|token| {
            let is_signed = |target: &str| {
                self.origins.iter().any(|origin| {
                    token.verifies(
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
            // The received spelling first. Nearly all requests match it, or have no other.
            is_signed(target)
                || query_spellings(target)
                    .iter()
                    .any(|target| is_signed(target))
        })
    }

    /// Decodes the parameters, and determines whether they are signed as parameters or as part of the URL.
    pub(super) fn decode_content(
        &self,
        request: &UnverifiedRequest<'_>,
    ) -> Result<SignedContent, SignatureError> {
        let parse_form =
            |input| FormParams::parse(input, self.max_params).map_err(SignatureErrorKind::Form);
        let query = request
            .target
            .split_once('?')
            .map_or("", |(_, query)| query);
        if request.method == Method::GET {
            return Ok(SignedContent {
                form: parse_form(query.as_bytes())?,
                is_posted: false,
                body_sha256: None,
            });
        }
        if is_form(request.headers) {
            return Ok(SignedContent {
                form: parse_form(request.body)?,
                is_posted: true,
                body_sha256: None,
            });
        }
        let query = parse_form(query.as_bytes())?;
        let mut hashes = query
            .iter()
            .filter(|(name, _)| *name == "bodySHA256")
            .map(|(_, value)| value.to_owned());
        // With two hashes, another reader of the URL could use the other one.
        match (hashes.next(), hashes.next()) {
            (Some(hash), None) => Ok(SignedContent {
                form: FormParams::default(),
                is_posted: false,
                body_sha256: Some(hash),
            }),
            _ => Err(SignatureErrorKind::NotAForm.into()),
        }
    }

    /// Returns the tokens for a form's account, and whether they belong to that account.
    pub(super) fn tokens_for(
        &self,
        form: &FormParams,
    ) -> Result<(&[HmacKey], bool), SignatureError> {
        if self.accounts.is_empty() && self.default_account.is_none() {
            return Ok((&self.default_tokens, false));
        }
        // Without an `AccountSid` the default tokens apply. `InboundMessage::parse` rejects such a form later.
        let Some(account) = form.get("AccountSid") else {
            return Ok((&self.default_tokens, false));
        };
        // Compared in lower case, since the SIDs of `accounts` can come from environment variables.
        let account = AccountSid::parse(account)
            .map(AccountSid::to_lowercase)
            .ok();
        let account_tokens = self
            .accounts
            .iter()
            .find(|(known, _)| Some(*known) == account);
        match (account_tokens, self.default_account) {
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

/// Parameters of a request, and the way in which they are signed.
pub(super) struct SignedContent {
    pub(super) form: FormParams,
    /// The parameters are signed as such, not as part of the URL.
    pub(super) is_posted: bool,
    pub(super) body_sha256: Option<String>,
}

impl SignedContent {
    fn signed_params(&self, order: SortOrder) -> Vec<u8> {
        if !self.is_posted {
            return Vec::new();
        }
        let mut signed = Vec::with_capacity(1024);
        self.form.append_signed(order, &mut signed);
        signed
    }
}

/// Decodes the only signature header of a request.
pub(super) fn signature_of(headers: &HeaderMap) -> Result<[u8; 20], SignatureErrorKind> {
    let mut values = headers.get_all(SIGNATURE_HEADER).iter();
    let value = values.next().ok_or(SignatureErrorKind::MissingHeader)?;
    if values.next().is_some() {
        return Err(SignatureErrorKind::RepeatedHeader);
    }
    // Check the length first, so that a huge header is not decoded.
    if value.len() != 28 {
        let kind = if value.is_empty() {
            SignatureErrorKind::MissingHeader
        } else {
            SignatureErrorKind::MalformedHeader
        };
        return Err(kind);
    }
    // 28 characters without padding would be 21 bytes. An HMAC-SHA1 has 20, so only a padded text is accepted.
    let mut signature = [0; 21];
    match STANDARD.decode_slice(value.as_bytes(), &mut signature) {
        Ok(20) => Ok(signature[..20].try_into().expect("20 bytes were decoded")),
        _ => Err(SignatureErrorKind::MalformedHeader),
    }
}

/// Returns whether the only `Content-Type` is that of a form, in UTF-8 or without a character set.
fn is_form(headers: &HeaderMap) -> bool {
    // With two headers, another reader could parse the body as something else than was verified.
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    // Twilio sends these two spellings, so skip the parsing for them.
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

/// Returns whether a hash is the SHA-256 of the raw body, in lower-case hexadecimal.
fn body_hash_fits(hash: &str, body: &[u8]) -> bool {
    let expected = Sha256::digest(body);
    let mut text = [0; 64];
    for (at, byte) in expected.iter().enumerate() {
        text[2 * at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[2 * at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    // A comparison in constant time is not needed: the hash is in the URL and not secret.
    hash.as_bytes() == text
}

/// Returns the target with each other encoding of the query that Twilio is known to sign.
///
/// Source: twilio-node issues 621, 1059, 1061, 1183 and twilio-ruby issue 528.
fn query_spellings(target: &str) -> Vec<String> {
    let Some((path, query)) = target.split_once('?') else {
        return Vec::new();
    };
    if !["'", "%27", "%40", "%3A", "%3a"]
        .iter()
        .any(|encoding| query.contains(encoding))
    {
        return Vec::new();
    }
    let unescape = |query: &str| {
        query
            .replace("%40", "@")
            .replace("%3A", ":")
            .replace("%3a", ":")
    };
    let raw_quote = query.replace("%27", "'");
    let mut spellings = vec![
        query.replace('\'', "%27"),
        unescape(query),
        unescape(&raw_quote),
        raw_quote,
    ];
    spellings.retain(|spelling| spelling != query);
    spellings.dedup();
    spellings
        .into_iter()
        .map(|query| format!("{path}?{query}"))
        .collect()
}
