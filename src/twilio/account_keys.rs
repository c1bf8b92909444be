//! [`AccountKeys`]: the auth tokens and the API key of an account.

use std::fmt;

use super::credentials::Credentials;
use crate::sid::AccountSid;
use crate::signature::AuthTokenKind;
use replyhook_core::Secret;

/// An API key: its SID, `SK…`, and its secret.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::twilio::ApiKey;
///
/// assert!(ApiKey::new("SK00000000000000000000000000000001", Secret::new("s3cret")).is_ok());
/// assert!(ApiKey::new("AC00000000000000000000000000000001", Secret::new("s3cret")).is_err());
/// ```
#[derive(Clone)]
pub struct ApiKey {
    sid: String,
    secret: Secret,
}

/// Error of a text that is not the SID of an API key. It does not contain the text, which may be a secret.
///
/// See [`ApiKey`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: write SK and 32 hexadecimal digits")]
pub struct ApiKeySidError;

impl ApiKey {
    /// Creates an API key.
    ///
    /// # Errors
    /// [`ApiKeySidError`] if `sid` is not `SK` and 32 hexadecimal digits.
    pub fn new(sid: &str, secret: Secret) -> Result<Self, ApiKeySidError> {
        let digits = sid.strip_prefix("SK").ok_or(ApiKeySidError)?;
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ApiKeySidError);
        }
        Ok(Self {
            sid: sid.to_owned(),
            secret,
        })
    }

    /// Returns the credentials of calls with this key.
    pub fn credentials(&self) -> Credentials {
        Credentials::api_key(self.sid.clone(), self.secret.clone())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("sid", &self.sid)
            .finish_non_exhaustive()
    }
}

/// The auth tokens of an account.
///
/// See [`AccountKeys`] for an example.
#[derive(Debug, Clone)]
pub struct AuthTokens {
    /// The token that signs webhooks.
    pub primary: Secret,
    /// A second token that is also accepted, during a rotation.
    pub secondary: Option<Secret>,
}

impl AuthTokens {
    /// Returns the tokens in the order in which they are tried: the primary one first.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.primary).chain(&self.secondary)
    }
}

/// The keys of an account: auth tokens, an API key, or both. Each of them allows REST calls.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::twilio::{AccountKeys, ApiKey, AuthTokens};
///
/// let tokens = AuthTokens { primary: Secret::new("0123456789abcdef0123456789abcdef"), secondary: None };
/// let key = ApiKey::new("SK00000000000000000000000000000001", Secret::new("s3cret"))?;
/// let keys = AccountKeys::new(Some(tokens), Some(key)).expect("an account without keys is not configured");
/// assert!(matches!(keys, AccountKeys::Both { .. }));
/// assert!(AccountKeys::new(None, None).is_none());
/// # Ok::<(), replyhook::twilio::ApiKeySidError>(())
/// ```
#[derive(Debug, Clone)]
pub enum AccountKeys {
    /// Auth tokens, which verify webhooks and allow REST calls.
    Tokens(AuthTokens),
    /// An API key. Only shared keys verify the webhooks of this account.
    ApiKey(ApiKey),
    /// Auth tokens, which verify webhooks, and an API key for REST calls.
    Both {
        /// Auth tokens.
        tokens: AuthTokens,
        /// API key.
        api_key: ApiKey,
    },
}

impl AccountKeys {
    /// Returns the keys of an account; `None` if it has none.
    pub fn new(tokens: Option<AuthTokens>, api_key: Option<ApiKey>) -> Option<Self> {
        Some(match (tokens, api_key) {
            (Some(tokens), Some(api_key)) => Self::Both { tokens, api_key },
            (Some(tokens), None) => Self::Tokens(tokens),
            (None, Some(api_key)) => Self::ApiKey(api_key),
            (None, None) => return None,
        })
    }

    /// Returns the auth tokens, if there are any.
    pub fn tokens(&self) -> Option<&AuthTokens> {
        match self {
            Self::Tokens(tokens) | Self::Both { tokens, .. } => Some(tokens),
            Self::ApiKey(_) => None,
        }
    }

    /// Returns the API key, if there is one.
    pub fn api_key(&self) -> Option<&ApiKey> {
        match self {
            Self::ApiKey(api_key) | Self::Both { api_key, .. } => Some(api_key),
            Self::Tokens(_) => None,
        }
    }

    /// Returns whether both are the same keys.
    // Not `PartialEq`, which does not take constant time, and which callers could use with untrusted input.
    #[cfg(feature = "app")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let secrets = |keys: &Self| {
            let tokens = keys.tokens().cloned();
            let (primary, secondary) =
                tokens.map_or((None, None), |it| (Some(it.primary), it.secondary));
            let key = keys.api_key().map(|key| key.secret.clone());
            [primary, secondary, key]
        };
        let is_equal = |(one, other): (&Option<Secret>, &Option<Secret>)| {
            one.as_ref().map(Secret::expose) == other.as_ref().map(Secret::expose)
        };
        let (ours, theirs) = (secrets(self), secrets(other));
        let sid = |keys: &Self| keys.api_key().map(|key| key.sid.clone());
        sid(self) == sid(other) && ours.iter().zip(&theirs).all(is_equal)
    }

    /// Returns the credentials of REST calls: the API key if there is one, otherwise the auth token that verified the
    /// message.
    pub fn credentials(&self, account: AccountSid, verified_by: AuthTokenKind) -> Credentials {
        match self {
            Self::ApiKey(api_key) | Self::Both { api_key, .. } => api_key.credentials(),
            Self::Tokens(AuthTokens { primary, secondary }) => {
                // The token that verified the message is one that Twilio currently accepts, even during a rotation.
                let token = match (verified_by, secondary) {
                    (AuthTokenKind::Secondary, Some(secondary)) => secondary,
                    _ => primary,
                };
                Credentials::auth_token(account, token.clone())
            }
        }
    }
}
