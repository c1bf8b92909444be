//! The `Accounts/{AccountSid}` resource, which proves credentials and reveals Twilio's clock.
//!
//! Source: Twilio's `OpenAPI` description, `/2010-04-01/Accounts/{Sid}.json`.

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::error::RestError;
use super::http_client::AuthenticatedClient;
use super::response::{response_date, send_and_parse_with_headers};
use crate::sid::AccountSid;
use replyhook_core::Secret;

/// An account at Twilio. See [`Client`](super::Client) for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Account {
    /// `active`, `suspended` or `closed`; empty if the response has no status.
    pub status: String,
    /// The primary auth token, which signs webhooks, if the response contains it.
    pub auth_token: Option<Secret>,
    /// The time of the response by Twilio's clock, in whole seconds.
    pub answered_at: Option<Timestamp>,
}

/// The `Accounts` resource. See [`Client`](super::Client) for an example.
#[derive(Debug, Clone, Copy)]
pub struct Accounts<'a>(AuthenticatedClient<'a>);

#[derive(Deserialize)]
struct WireAccount {
    status: Option<String>,
    auth_token: Option<String>,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(client: AuthenticatedClient<'a>) -> Self {
        Self(client)
    }

    /// Fetches an account. A standard API key may not do this, only a main key or the auth token.
    ///
    /// # Errors
    /// [`RestError`], with code 20003 if the credentials are not the account's.
    pub async fn fetch(&self, account: AccountSid) -> Result<Account, RestError> {
        let path = format!("/2010-04-01/Accounts/{account}.json");
        let request = self.0.request(Method::GET, &path)?;
        let (headers, wire): (_, WireAccount) = send_and_parse_with_headers(request).await?;
        Ok(Account {
            status: wire.status.unwrap_or_default(),
            auth_token: wire.auth_token.map(Secret::new),
            answered_at: response_date(&headers),
        })
    }
}
