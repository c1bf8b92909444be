//! `Channels/Senders`: an account's WhatsApp senders, and which webhooks they have. On another host than messages:
//! [`Client::new`] with `https://messaging.twilio.com`.
//!
//! Source: Twilio's `OpenAPI` description, `/v2/Channels/Senders`.

use serde::Deserialize;

use super::answer::{List, Meta};
use super::{Client, ConfiguredWebhooks, Credentials, RestError};
use crate::address::Address;

const LIST: List<'_> = List {
    path: "/v2/Channels/Senders",
    query: "Channel=whatsapp&",
    page_size: 100,
    most_pages: 25,
};

/// A sender of a channel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sender {
    /// `XE…`
    pub sid: String,
    /// Its address, such as `whatsapp:+15550002222`.
    pub address: Address,
    /// `ONLINE`, `OFFLINE`, `CREATING` …; empty where Twilio does not say.
    pub status: String,
    /// What is called for its messages.
    pub webhooks: ConfiguredWebhooks,
}

#[derive(Deserialize)]
struct WirePage {
    senders: Vec<WireSender>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct WireSender {
    sid: Option<String>,
    sender_id: Option<String>,
    status: Option<String>,
    webhook: Option<WireWebhook>,
}

#[derive(Default, Deserialize)]
struct WireWebhook {
    #[serde(rename = "callback_url")]
    callback: Option<String>,
    #[serde(rename = "fallback_url")]
    fallback: Option<String>,
    #[serde(rename = "status_callback_url")]
    status_callback: Option<String>,
}

impl From<WireSender> for Sender {
    fn from(wire: WireSender) -> Self {
        let webhook = wire.webhook.unwrap_or_default();
        Self {
            sid: wire.sid.unwrap_or_default(),
            address: wire.sender_id.unwrap_or_default().into(),
            status: wire.status.unwrap_or_default(),
            webhooks: ConfiguredWebhooks::new(
                webhook.callback,
                webhook.fallback,
                webhook.status_callback,
            ),
        }
    }
}

impl Client {
    /// Lists the WhatsApp senders of the account that calls, the first 2500 of them.
    ///
    /// # Errors
    /// [`RestError`]; it changes nothing, so any may be repeated that is not refused.
    pub async fn whatsapp_senders(
        &self,
        credentials: &Credentials,
    ) -> Result<Vec<Sender>, RestError> {
        let mut senders = Vec::new();
        self.pages(&LIST, credentials, |page: WirePage| {
            senders.extend(page.senders.into_iter().map(Into::into));
            page.meta?.next_page_url
        })
        .await?;
        Ok(senders)
    }
}
