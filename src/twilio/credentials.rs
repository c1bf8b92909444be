//! [`Credentials`] of a call.

use std::fmt;

use crate::sid::AccountSid;
use replyhook_core::Secret;

/// Credentials of a call: an account with its auth token, or an API key.
///
/// `Debug` shows the user name and hides the password.
///
/// ```
/// use replyhook::Secret;
/// use replyhook::twilio::Credentials;
///
/// let key = Credentials::api_key("SK00000000000000000000000000000001", Secret::new("s3cret"));
/// assert!(!format!("{key:?}").contains("s3cret"));
/// ```
#[derive(Clone)]
pub struct Credentials {
    pub(super) user: String,
    pub(super) password: Secret,
}

impl Credentials {
    /// Creates credentials from an account's SID and auth token.
    pub fn auth_token(account: AccountSid, token: Secret) -> Self {
        Self {
            user: account.to_string(),
            password: token,
        }
    }

    /// Creates credentials from an API key, `SK…`, and its secret.
    pub fn api_key(sid: impl Into<String>, secret: Secret) -> Self {
        Self {
            user: sid.into(),
            password: secret,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
