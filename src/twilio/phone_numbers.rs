//! `IncomingPhoneNumbers`: an account's own numbers, and which webhooks they have.
//!
//! Source: Twilio's `OpenAPI` description, `/2010-04-01/Accounts/{AccountSid}/IncomingPhoneNumbers.json`.

use serde::Deserialize;

use super::answer::List;
use super::{Client, ConfiguredWebhooks, Credentials, RestError};
use crate::address::Address;
use crate::sid::AccountSid;

/// Numbers of a page, each some two kilobytes.
const PAGE_SIZE: u16 = 200;
/// Pages that are read; who has more numbers than that does not look at them one by one.
const MOST_PAGES: usize = 25;

/// A number of an account.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, RestError};
/// # async fn look(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// let account = "AC00000000000000000000000000000001".parse().expect("a SID");
/// for number in client.phone_numbers(account, &credentials).await? {
///     println!("{}: {:?}", number.sid, number.webhooks.inbound);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PhoneNumber {
    /// `PN…`
    pub sid: String,
    /// The number.
    pub number: Address,
    /// What is called for its messages. The status callback is that of voice calls as well.
    pub webhooks: ConfiguredWebhooks,
    /// The application (`AP…`) whose webhooks are called instead.
    pub application_sid: Option<String>,
}

#[derive(Deserialize)]
struct WirePage {
    incoming_phone_numbers: Vec<WireNumber>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct WireNumber {
    sid: Option<String>,
    phone_number: Option<String>,
    sms_url: Option<String>,
    sms_fallback_url: Option<String>,
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
            application_sid: wire.sms_application_sid.filter(|sid| !sid.is_empty()),
        }
    }
}

impl Client {
    /// Lists the numbers of an account, the first 5000 of them.
    ///
    /// # Errors
    /// [`RestError`]; it changes nothing, so any may be repeated that is not refused.
    pub async fn phone_numbers(
        &self,
        account: AccountSid,
        credentials: &Credentials,
    ) -> Result<Vec<PhoneNumber>, RestError> {
        let path = format!("/2010-04-01/Accounts/{account}/IncomingPhoneNumbers.json");
        let list = List {
            path: &path,
            query: "",
            page_size: PAGE_SIZE,
            most_pages: MOST_PAGES,
        };
        let mut numbers = Vec::new();
        self.pages(&list, credentials, |page: WirePage| {
            numbers.extend(page.incoming_phone_numbers.into_iter().map(Into::into));
            page.next_page_uri
        })
        .await?;
        Ok(numbers)
    }
}
