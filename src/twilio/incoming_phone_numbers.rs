//! The `IncomingPhoneNumbers` resource: an account's phone numbers and their webhooks.
//!
//! Source: Twilio's `OpenAPI` description, `/2010-04-01/Accounts/{AccountSid}/IncomingPhoneNumbers.json`.

use http::Method;
use serde::Deserialize;

use super::error::RestError;
use super::http_client::AuthenticatedClient;
use super::response::{PagedList, send_and_parse, with_form};
use super::webhooks::{ConfiguredWebhooks, WebhookMethods};
use crate::address::Address;
use crate::form::FormParams;
use crate::sid::AccountSid;

// A number has some two kilobytes, so a page stays well below the limit of a response.
const PAGE_SIZE: u16 = 200;
// Bounds the time and memory that a large account can take.
const MAX_PAGES: usize = 25;

/// The `IncomingPhoneNumbers` resource of an account.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn list(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// let account = "AC00000000000000000000000000000001".parse().expect("a SID");
/// for number in client.incoming_phone_numbers(account, &credentials).list().await? {
///     println!("{}: {:?}", number.sid, number.webhooks.inbound);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct IncomingPhoneNumbers<'a> {
    client: AuthenticatedClient<'a>,
    account: AccountSid,
}

/// A phone number of an account. See [`IncomingPhoneNumbers`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PhoneNumber {
    /// SID of the number, `PN…`.
    pub sid: String,
    /// Phone number.
    pub number: Address,
    /// Webhook URLs for messages. Voice calls use the same status callback.
    pub webhooks: ConfiguredWebhooks,
    /// HTTP methods of the webhooks for messages. The one of the status callback is not read.
    pub methods: WebhookMethods,
    /// TwiML application, `AP…`, whose webhooks Twilio calls in place of the number's own.
    pub application_sid: Option<String>,
}

#[derive(Deserialize)]
struct PhoneNumbersPage {
    incoming_phone_numbers: Vec<WireNumber>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct WireNumber {
    sid: Option<String>,
    phone_number: Option<String>,
    sms_url: Option<String>,
    sms_fallback_url: Option<String>,
    sms_method: Option<String>,
    sms_fallback_method: Option<String>,
    status_callback: Option<String>,
    sms_application_sid: Option<String>,
}

impl From<WireNumber> for PhoneNumber {
    fn from(wire: WireNumber) -> Self {
        Self {
            sid: wire.sid.unwrap_or_default(),
            number: wire.phone_number.unwrap_or_default().into(),
            webhooks: ConfiguredWebhooks::new(
                wire.sms_url,
                wire.sms_fallback_url,
                wire.status_callback,
            ),
            methods: WebhookMethods {
                inbound: wire.sms_method.unwrap_or_default(),
                fallback: wire.sms_fallback_method.unwrap_or_default(),
                status: String::new(),
            },
            // An empty SID means that no application is set.
            application_sid: wire.sms_application_sid.filter(|sid| !sid.is_empty()),
        }
    }
}

impl<'a> IncomingPhoneNumbers<'a> {
    pub(super) fn new(client: AuthenticatedClient<'a>, account: AccountSid) -> Self {
        Self { client, account }
    }

    /// Lists the first 5,000 phone numbers of the account.
    ///
    /// # Errors
    /// [`RestError`]. The call changes nothing and may be repeated unless Twilio rejected it.
    pub async fn list(&self) -> Result<Vec<PhoneNumber>, RestError> {
        let account = self.account;
        let path = format!("/2010-04-01/Accounts/{account}/IncomingPhoneNumbers.json");
        let list = PagedList {
            path: &path,
            query: "",
            page_size: PAGE_SIZE,
            max_pages: MAX_PAGES,
        };
        let mut numbers = Vec::new();
        list.for_each_page(self.client, |page: PhoneNumbersPage| {
            numbers.extend(page.incoming_phone_numbers.into_iter().map(Into::into));
            page.next_page_uri
        })
        .await?;
        Ok(numbers)
    }

    /// Fetches one number, `PN…`.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the number does not exist.
    pub async fn fetch(&self, sid: &str) -> Result<PhoneNumber, RestError> {
        let request = self.client.request(Method::GET, &self.path(sid))?;
        let wire: WireNumber = send_and_parse(request).await?;
        Ok(wire.into())
    }

    /// Updates the webhook and the fallback URL for messages of a number, `PN…`, and returns the updated number.
    ///
    /// A webhook that is `None` is removed. The status callback stays as it is: it is that of calls.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the number does not exist. The call replaces both webhooks, so it may be
    /// repeated unless Twilio rejected it.
    pub async fn update(
        &self,
        sid: &str,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
    ) -> Result<PhoneNumber, RestError> {
        let url = |url: &Option<String>| url.clone().unwrap_or_default();
        let form: FormParams = [
            ("SmsUrl", url(&webhooks.inbound)),
            (
                "SmsMethod",
                WebhookMethods::or_post(&methods.inbound).to_owned(),
            ),
            ("SmsFallbackUrl", url(&webhooks.fallback)),
            (
                "SmsFallbackMethod",
                WebhookMethods::or_post(&methods.fallback).to_owned(),
            ),
        ]
        .into_iter()
        .collect();
        let request = self.client.request(Method::POST, &self.path(sid))?;
        let wire: WireNumber = send_and_parse(with_form(request, &form)).await?;
        Ok(wire.into())
    }

    fn path(&self, sid: &str) -> String {
        format!(
            "/2010-04-01/Accounts/{}/IncomingPhoneNumbers/{sid}.json",
            self.account
        )
    }
}
