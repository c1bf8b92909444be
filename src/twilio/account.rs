//! `Accounts/{AccountSid}`: whether credentials are right, and what Twilio's clock says.
//!
//! Source: Twilio's `OpenAPI` description, `/2010-04-01/Accounts/{Sid}.json`.

use http::Method;
use http::header::DATE;
use jiff::Timestamp;
use serde::Deserialize;

use super::answer::answer_with_headers;
use super::{Client, Credentials, RestError};
use crate::secret::Secret;
use crate::sid::AccountSid;

/// An account as Twilio has it.
///
/// Looked at: see [`Client`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Account {
    /// `active`, `suspended` or `closed`; empty where Twilio does not say.
    pub status: String,
    /// Its primary auth token, the one that signs webhooks, where Twilio tells it.
    pub auth_token: Option<Secret>,
    /// The time on Twilio's clock when it answered, to the second.
    pub answered_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct WireAccount {
    status: Option<String>,
    auth_token: Option<String>,
}

impl Client {
    /// Looks at an account. An API key may not, unless it is a main key.
    ///
    /// # Errors
    /// [`RestError`]; 20003 where the credentials are not the account's.
    pub async fn account(
        &self,
        account: AccountSid,
        credentials: &Credentials,
    ) -> Result<Account, RestError> {
        let path = format!("/2010-04-01/Accounts/{account}.json");
        let request = self.request(Method::GET, &path, credentials)?;
        let (headers, wire): (_, WireAccount) = answer_with_headers(request).await?;
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        Ok(Account {
            status: wire.status.unwrap_or_default(),
            auth_token: wire.auth_token.map(Secret::new),
            answered_at: date
                .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
                .map(|date| date.timestamp()),
        })
    }
}
