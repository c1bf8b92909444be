//! [`Client`] of the REST API, with its resources.

use super::accounts::Accounts;
use super::api_url::ApiUrl;
use super::channels_senders::ChannelsSenders;
use super::contents::Contents;
use super::credentials::Credentials;
use super::http_client::{AuthenticatedClient, HttpClient};
use super::incoming_phone_numbers::IncomingPhoneNumbers;
use super::messages::Messages;
use super::services::Services;
use super::typing_indicator::TypingIndicator;
use crate::sid::AccountSid;

/// A client of the REST API with one connection pool.
///
/// Its methods return the resources, by the names of Twilio's libraries.
///
/// ```no_run
/// use replyhook::Secret;
/// use replyhook::twilio::{ApiUrl, Client, Credentials};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(ApiUrl::default());
/// let account = "AC00000000000000000000000000000001".parse()?;
/// let credentials = Credentials::auth_token(account, Secret::new("…"));
/// println!("the account is {}", client.accounts(&credentials).fetch(account).await?.status);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Client {
    pub(super) http: HttpClient,
}

impl Client {
    /// Creates a client of the API at `url`. The HTTP client is built on the first call.
    pub fn new(url: ApiUrl) -> Self {
        Self {
            http: HttpClient::new(url),
        }
    }

    /// Returns the `Accounts` resource.
    pub fn accounts<'a>(&'a self, credentials: &'a Credentials) -> Accounts<'a> {
        Accounts::new(self.with_credentials(credentials))
    }

    /// Returns the `Channels/Senders` resource. It is on the host of [`ApiUrl::messaging`].
    pub fn channels_senders<'a>(&'a self, credentials: &'a Credentials) -> ChannelsSenders<'a> {
        ChannelsSenders::new(self.with_credentials(credentials))
    }

    /// Returns the `Content` resource. It is on the host `https://content.twilio.com`.
    pub fn contents<'a>(&'a self, credentials: &'a Credentials) -> Contents<'a> {
        Contents::new(self.with_credentials(credentials))
    }

    /// Returns the `IncomingPhoneNumbers` resource of an account.
    pub fn incoming_phone_numbers<'a>(
        &'a self,
        account: AccountSid,
        credentials: &'a Credentials,
    ) -> IncomingPhoneNumbers<'a> {
        IncomingPhoneNumbers::new(self.with_credentials(credentials), account)
    }

    /// Returns the `Messages` resource of an account.
    pub fn messages<'a>(
        &'a self,
        account: AccountSid,
        credentials: &'a Credentials,
    ) -> Messages<'a> {
        Messages::new(self.with_credentials(credentials), account)
    }

    /// Returns the `Services` resource. It is on the host of [`ApiUrl::messaging`].
    pub fn services<'a>(&'a self, credentials: &'a Credentials) -> Services<'a> {
        Services::new(self.with_credentials(credentials))
    }

    /// Returns the `Indicators/Typing` resource. It is on the host of [`ApiUrl::messaging`].
    pub fn typing_indicator<'a>(&'a self, credentials: &'a Credentials) -> TypingIndicator<'a> {
        TypingIndicator::new(self.with_credentials(credentials))
    }

    fn with_credentials<'a>(&'a self, credentials: &'a Credentials) -> AuthenticatedClient<'a> {
        AuthenticatedClient {
            http: &self.http,
            credentials,
        }
    }
}
