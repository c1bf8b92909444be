//! The signature verifier: takes the bytes of a request, and returns its parameters or an error. No I/O, clock or log.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use super::headers::{NamedKey, ReceivedSignature, SignatureHeaders};
use super::public_url::PublicUrl;
use super::reshaped::SignedText;
use super::shared_key::{SharedKeyId, SignatureAlgorithm};
use super::signature_error::{SignatureError, SignatureErrorKind};
use super::token::{AuthTokenKind, HmacKey, SharedKey, TokenError};
use crate::form::{FormParams, SortOrder};
use crate::secret::Secret;
use crate::sid::AccountSid;

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
    /// Kind of the token or key that signed the request.
    pub token: AuthTokenKind,
    /// True for a form and for a GET; false for a body of another type, signed by `bodySHA256`.
    pub is_form: bool,
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
    /// Empty if only shared keys, or tokens of `accounts`, sign.
    pub(super) default_tokens: Vec<HmacKey>,
    /// Accounts that the default tokens are not valid for, each with its own tokens, if it has any.
    pub(super) accounts: Vec<(AccountSid, Vec<HmacKey>)>,
    /// Account of the default tokens. If it is set, other accounts need their own tokens.
    pub(super) default_account: Option<AccountSid>,
    pub(super) shared_keys: Vec<SharedKey>,
    max_params: usize,
    /// Verifier that is tried if this one rejects a request.
    pub(super) other: Option<Box<Self>>,
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
        Ok(Self {
            default_tokens: token_keys(tokens)?,
            ..Self::without_tokens(public_url)
        })
    }

    /// Creates a verifier that accepts nothing yet. Add [shared keys](Self::with_shared_key), or
    /// [accounts](Self::with_account) with their own tokens.
    pub fn without_tokens(public_url: PublicUrl) -> Self {
        Self {
            origins: public_url.origins(),
            public_url,
            default_tokens: Vec::new(),
            accounts: Vec::new(),
            default_account: None,
            shared_keys: Vec::new(),
            max_params: DEFAULT_MAX_PARAMS,
            other: None,
        }
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
        let tokens = token_keys(tokens)?;
        self.accounts.push((account.to_lowercase(), tokens));
        Ok(self)
    }

    /// Adds an account without an auth token, of which only requests that name a shared key are accepted.
    #[must_use]
    pub fn with_tokenless_account(mut self, account: AccountSid) -> Self {
        self.accounts.push((account.to_lowercase(), Vec::new()));
        self
    }

    /// Sets the account of the default tokens. Only this account and those of [`with_account`](Self::with_account) are
    /// then accepted.
    #[must_use]
    pub fn with_default_account(mut self, account: AccountSid) -> Self {
        self.default_account = Some(account.to_lowercase());
        self
    }

    /// Adds a shared key, with which Twilio signs requests of one account. Requests that name the key verify only with
    /// it, and only for that account. A key with the same ID is replaced.
    ///
    /// ```
    /// use http::{HeaderMap, Method};
    /// use replyhook::signature::{
    ///     AuthTokenKind, PublicUrl, SharedKeyId, SignatureAlgorithm, SignatureVerifier, UnverifiedRequest, sign_with,
    /// };
    /// use replyhook::{AccountSid, Secret};
    ///
    /// let account = AccountSid::parse("AC00000000000000000000000000000001")?;
    /// let id = SharedKeyId::parse("webhooks_sharedkey_01h455vb4pex5vsknk084sn02q")?;
    /// let secret = Secret::new("the secret that Twilio showed once");
    /// let (url, _) = PublicUrl::parse("https://bot.example.com")?;
    /// let verifier = SignatureVerifier::new(url, [Secret::new("0123456789abcdef0123456789abcdef")])?
    ///     .with_shared_key(id, account, &secret)?;
    /// let algorithm = SignatureAlgorithm::HmacSha256;
    /// let mut headers = HeaderMap::new();
    /// let signature = sign_with(algorithm, &secret, "https://bot.example.com/sms?Body=hi", None)?;
    /// headers.insert("x-twilio-signature", signature.parse()?);
    /// headers.insert("x-twilio-webhooks-signature-settings", id.settings_header(algorithm).parse()?);
    /// let request = UnverifiedRequest { method: &Method::GET, target: "/sms?Body=hi", headers: &headers, body: b"" };
    /// assert_eq!(verifier.verify(&request)?.token, AuthTokenKind::SharedKey);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TokenError::Blank`] if the secret is empty or blank.
    pub fn with_shared_key(
        mut self,
        id: SharedKeyId,
        account: AccountSid,
        secret: &Secret,
    ) -> Result<Self, TokenError> {
        let key = SharedKey::new(id, account, secret)?;
        self.shared_keys.retain(|known| !known.id.is_same(&id));
        self.shared_keys.push(key);
        Ok(self)
    }

    /// Also accepts the requests that `other` accepts, for its URL and with its tokens.
    ///
    /// For example for a tunnel URL with another account's tokens. Requests that only `other` accepts get
    /// [`AuthTokenKind::Subaccount`], or [`AuthTokenKind::SharedKey`].
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
        self.verify_with(request, &SignatureHeaders::of(request.headers)?)
    }

    /// Verifies a request whose signature headers are decoded already.
    pub(super) fn verify_with(
        &self,
        request: &UnverifiedRequest<'_>,
        headers: &SignatureHeaders,
    ) -> Result<Verified, SignatureError> {
        let verified = self.verify_own(request, headers);
        let (Err(_), Some(other)) = (&verified, &self.other) else {
            return verified;
        };
        let other_result = other.verify_with(request, headers);
        let other_result = other_result.map(|verified| Verified {
            token: match verified.token {
                AuthTokenKind::SharedKey => AuthTokenKind::SharedKey,
                _ => AuthTokenKind::Subaccount,
            },
            ..verified
        });
        // The error of this verifier counts if both fail, since the request was most likely meant for it. A shared key
        // that only the other one knows shows that it was not.
        match verified {
            Err(error) if error.kind() == SignatureErrorKind::UnknownSharedKey => other_result,
            verified => other_result.or(verified),
        }
    }

    /// Verifies a request without the verifiers that were added with [`or`](Self::or).
    fn verify_own(
        &self,
        request: &UnverifiedRequest<'_>,
        headers: &SignatureHeaders,
    ) -> Result<Verified, SignatureError> {
        let signature = headers.signature;
        let shared_key = self.shared_key_of(headers)?;
        let content = self.decode_content(request)?;
        let owner = match shared_key {
            None => self.tokens_for(&content.form),
            Some((key, named)) if key.is_for(&content.form) => {
                Ok((key.keys(named.algorithm), AuthTokenKind::SharedKey))
            }
            Some(_) => Err(SignatureErrorKind::UnknownAccount.into()),
        };
        // An unknown account is checked with the default tokens too, or with the shared key that the request names. It is
        // reported only below, if that key or a configured token signed the request. Otherwise anyone could find out
        // which accounts are configured.
        let (tokens, kind) = owner.unwrap_or_else(|_| {
            let keys = shared_key.map(|(key, named)| key.keys(named.algorithm));
            (keys.unwrap_or(&self.default_tokens), AuthTokenKind::Primary)
        });
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
            let accounts = self.accounts.iter().filter(|_| shared_key.is_none());
            let others = accounts.map(|(_, tokens)| tokens.as_slice());
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
            Some(1..) if kind == AuthTokenKind::Primary => AuthTokenKind::Secondary,
            Some(_) => kind,
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

    /// Returns the configured key that a request names; `None` if it names none.
    pub(super) fn shared_key_of(
        &self,
        headers: &SignatureHeaders,
    ) -> Result<Option<(&SharedKey, NamedKey)>, SignatureErrorKind> {
        let Some(named) = headers.key else {
            return Ok(None);
        };
        let mut known = self.shared_keys.iter();
        let key = known
            .find(|key| key.id.is_same(&named.id))
            .ok_or(SignatureErrorKind::UnknownSharedKey)?;
        Ok(Some((key, named)))
    }

    /// Returns the position of the first token that signed a request with one of the accepted URLs.
    pub(super) fn matching_token(
        &self,
        tokens: &[HmacKey],
        target: &str,
        params: &[u8],
        signature: &ReceivedSignature,
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

    /// Returns the tokens for a form's account, and the kind of the first one.
    pub(super) fn tokens_for(
        &self,
        form: &FormParams,
    ) -> Result<(&[HmacKey], AuthTokenKind), SignatureError> {
        let default = (self.default_tokens.as_slice(), AuthTokenKind::Primary);
        if self.accounts.is_empty() && self.default_account.is_none() {
            return Ok(default);
        }
        // Without an `AccountSid` the default tokens apply. `InboundMessage::parse` rejects such a form later.
        let Some(account) = form.get("AccountSid") else {
            return Ok(default);
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
            (Some((_, tokens)), _) => Ok((tokens, AuthTokenKind::Subaccount)),
            (None, Some(known)) if Some(known) != account => {
                Err(SignatureErrorKind::UnknownAccount.into())
            }
            _ => Ok(default),
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
            .field(
                "shared_keys",
                &self
                    .shared_keys
                    .iter()
                    .map(|key| key.id)
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
    pub(super) fn signed_params(&self, order: SortOrder) -> Vec<u8> {
        if !self.is_posted {
            return Vec::new();
        }
        let mut signed = Vec::with_capacity(1024);
        self.form.append_signed(order, &mut signed);
        signed
    }
}

/// Returns the keys of auth tokens, of which there must be one.
fn token_keys(tokens: impl IntoIterator<Item = Secret>) -> Result<Vec<HmacKey>, TokenError> {
    let keys = tokens
        .into_iter()
        .map(|token| HmacKey::new(SignatureAlgorithm::HmacSha1, &token))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(TokenError::None);
    }
    Ok(keys)
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
