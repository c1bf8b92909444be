//! The `Channels/Senders` resource: an account's WhatsApp senders and their webhooks.
//!
//! The resource is on another host than messages: use [`Client::new`](super::Client::new) with
//! [`ApiUrl::messaging`](super::ApiUrl::messaging).
//!
//! Source: Twilio's `OpenAPI` description, `/v2/Channels/Senders`.

use http::Method;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::error::RestError;
use super::http_client::AuthenticatedClient;
use super::response::{Meta, PagedList, send_and_parse};
use super::webhooks::{ConfiguredWebhooks, WebhookMethods};
use crate::address::Address;

// 25 pages bound the time and memory that a large account can take.
const LIST: PagedList<'_> = PagedList {
    path: "/v2/Channels/Senders",
    query: "Channel=whatsapp&",
    page_size: 100,
    max_pages: 25,
};

/// The `Channels/Senders` resource.
///
/// ```no_run
/// use replyhook::twilio::{ApiUrl, Client, ConfiguredWebhooks, Credentials, RestError};
///
/// # async fn configure(credentials: Credentials) -> Result<(), RestError> {
/// let client = Client::new(ApiUrl::messaging());
/// let url = |path: &str| Some(format!("https://bot.example.com{path}"));
/// let webhooks = ConfiguredWebhooks::new(url("/webhook"), url("/webhook/fallback"), url("/webhook/status"));
/// let senders = client.channels_senders(&credentials);
/// for sender in senders.list().await? {
///     senders.update(&sender.sid, &webhooks, &sender.methods).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ChannelsSenders<'a>(AuthenticatedClient<'a>);

/// A WhatsApp sender of an account. See [`ChannelsSenders`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WhatsAppSender {
    /// SID of the sender, `XE…`.
    pub sid: String,
    /// Address, such as `whatsapp:+15550002222`.
    pub address: Address,
    /// Status, such as `ONLINE`, `OFFLINE` or `CREATING`; empty if the response has none.
    pub status: String,
    /// Why the sender is offline.
    pub offline_reasons: Vec<OfflineReason>,
    /// WhatsApp's quality rating, such as `HIGH`, `MEDIUM` or `LOW`.
    pub quality_rating: Option<String>,
    /// Number of users that the business may write to first, such as `10K Customers/24hr`.
    pub messaging_limit: Option<String>,
    /// Webhook URLs.
    pub webhooks: ConfiguredWebhooks,
    /// HTTP methods of the webhooks.
    pub methods: WebhookMethods,
}

/// Reason why a sender is offline. See [`ChannelsSenders`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfflineReason {
    /// Error code, such as `63020`; empty if the response has none.
    pub code: String,
    /// Twilio's text.
    pub message: String,
}

#[derive(Deserialize)]
struct SendersPage {
    senders: Vec<WireSender>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct WireSender {
    sid: Option<String>,
    sender_id: Option<String>,
    status: Option<String>,
    webhook: Option<WireWebhook>,
    properties: Option<WireProperties>,
    offline_reasons: Option<Vec<WireOfflineReason>>,
}

#[derive(Default, Deserialize)]
struct WireProperties {
    quality_rating: Option<String>,
    messaging_limit: Option<String>,
}

#[derive(Deserialize)]
struct WireOfflineReason {
    code: Option<String>,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
struct WireWebhook {
    #[serde(rename = "callback_url")]
    callback: Option<String>,
    #[serde(rename = "fallback_url")]
    fallback: Option<String>,
    #[serde(rename = "status_callback_url")]
    status_callback: Option<String>,
    callback_method: Option<String>,
    fallback_method: Option<String>,
    status_callback_method: Option<String>,
}

impl From<WireSender> for WhatsAppSender {
    fn from(wire: WireSender) -> Self {
        let webhook = wire.webhook.unwrap_or_default();
        let properties = wire.properties.unwrap_or_default();
        let reasons = wire.offline_reasons.unwrap_or_default();
        Self {
            sid: wire.sid.unwrap_or_default(),
            address: wire.sender_id.unwrap_or_default().into(),
            status: wire.status.unwrap_or_default(),
            offline_reasons: reasons
                .into_iter()
                .map(|reason| OfflineReason {
                    code: reason.code.unwrap_or_default(),
                    message: reason.message.unwrap_or_default(),
                })
                .collect(),
            quality_rating: properties.quality_rating,
            messaging_limit: properties.messaging_limit,
            webhooks: ConfiguredWebhooks::new(
                webhook.callback,
                webhook.fallback,
                webhook.status_callback,
            ),
            methods: WebhookMethods {
                inbound: webhook.callback_method.unwrap_or_default(),
                fallback: webhook.fallback_method.unwrap_or_default(),
                status: webhook.status_callback_method.unwrap_or_default(),
            },
        }
    }
}

fn sender_path(sid: &str) -> String {
    format!("{}/{sid}", LIST.path)
}

impl<'a> ChannelsSenders<'a> {
    pub(super) fn new(client: AuthenticatedClient<'a>) -> Self {
        Self(client)
    }

    /// Lists the first 2,500 WhatsApp senders of the account that the credentials belong to.
    ///
    /// # Errors
    /// [`RestError`]. The call changes nothing and may be repeated unless Twilio rejected it.
    pub async fn list(&self) -> Result<Vec<WhatsAppSender>, RestError> {
        let mut senders = Vec::new();
        LIST.for_each_page(self.0, |page: SendersPage| {
            senders.extend(page.senders.into_iter().map(Into::into));
            page.meta?.next_page_url
        })
        .await?;
        Ok(senders)
    }

    /// Fetches one sender, `XE…`.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the sender does not exist.
    pub async fn fetch(&self, sid: &str) -> Result<WhatsAppSender, RestError> {
        let request = self.0.request(Method::GET, &sender_path(sid))?;
        let wire: WireSender = send_and_parse(request).await?;
        Ok(wire.into())
    }

    /// Updates all webhooks of a sender, `XE…`, and returns the updated sender.
    ///
    /// A webhook that is `None` is removed. Twilio may take a moment until it calls the new URLs.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the sender does not exist. The call replaces all webhooks, so it may be
    /// repeated unless Twilio rejected it.
    pub async fn update(
        &self,
        sid: &str,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
    ) -> Result<WhatsAppSender, RestError> {
        // Send an empty string to remove a URL: a field that is left out stays unchanged. Twilio documents both for
        // another setting of senders.
        let url = |url: &Option<String>| url.clone().unwrap_or_default();
        // Senders accept only POST and PUT.
        let method = WebhookMethods::or_post;
        let body = json!({"webhook": {
            "callback_url": url(&webhooks.inbound), "callback_method": method(&methods.inbound),
            "fallback_url": url(&webhooks.fallback), "fallback_method": method(&methods.fallback),
            "status_callback_url": url(&webhooks.status), "status_callback_method": method(&methods.status),
        }});
        let request = self.0.request(Method::POST, &sender_path(sid))?;
        let request = request.header(CONTENT_TYPE, "application/json");
        let wire: WireSender = send_and_parse(request.body(body.to_string())).await?;
        Ok(wire.into())
    }
}
