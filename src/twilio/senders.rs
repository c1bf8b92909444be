//! `Channels/Senders`: an account's WhatsApp senders, which webhooks they have, and setting these. On another host than
//! messages: [`Client::new`] with `https://messaging.twilio.com`.
//!
//! Source: Twilio's `OpenAPI` description, `/v2/Channels/Senders`.

use http::Method;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::answer::{List, Meta, answer};
use super::{Client, ConfiguredWebhooks, Credentials, RestError};
use crate::address::Address;

const LIST: List<'_> = List {
    path: "/v2/Channels/Senders",
    query: "Channel=whatsapp&",
    page_size: 100,
    most_pages: 25,
};

/// A sender of a channel.
///
/// ```no_run
/// use replyhook::twilio::{ApiUrl, Client, ConfiguredWebhooks, Credentials, RestError};
///
/// # async fn point(credentials: Credentials) -> Result<(), RestError> {
/// let client = Client::new(ApiUrl::messaging());
/// let url = |path: &str| Some(format!("https://bot.example.com{path}"));
/// let webhooks = ConfiguredWebhooks::new(url("/webhook"), url("/webhook/fallback"), url("/webhook/status"));
/// for sender in client.whatsapp_senders(&credentials).await? {
///     client.set_webhooks(&sender.sid, &webhooks, &sender.methods, &credentials).await?;
/// }
/// # Ok(()) }
/// ```
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
    /// And how.
    pub methods: WebhookMethods,
}

/// How a sender's webhooks are called: `POST` or `PUT`, which are all that a sender takes; empty where Twilio does not say.
///
/// Set together with the URLs: see [`Sender`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookMethods {
    /// For a message that comes in.
    pub inbound: String,
    /// For what the first one could not answer.
    pub fallback: String,
    /// For what becomes of messages that go out.
    pub status: String,
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
    callback_method: Option<String>,
    fallback_method: Option<String>,
    status_callback_method: Option<String>,
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
            methods: WebhookMethods {
                inbound: webhook.callback_method.unwrap_or_default(),
                fallback: webhook.fallback_method.unwrap_or_default(),
                status: webhook.status_callback_method.unwrap_or_default(),
            },
        }
    }
}

fn path(sid: &str) -> String {
    format!("{}/{sid}", LIST.path)
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

    /// Looks at one sender, `XE…`.
    ///
    /// # Errors
    /// [`RestError`]; HTTP 404 where there is no such sender.
    pub async fn whatsapp_sender(
        &self,
        sid: &str,
        credentials: &Credentials,
    ) -> Result<Sender, RestError> {
        let wire: WireSender = answer(self.request(Method::GET, &path(sid), credentials)?).await?;
        Ok(wire.into())
    }

    /// Sets all webhooks of a sender, `XE…`, and returns it as it is then. One that is `None` is taken out. Twilio may take a
    /// moment until it calls the new ones.
    ///
    /// # Errors
    /// [`RestError`]; any may be repeated that is not refused, since it is the whole that is set. HTTP 404 where there is no
    /// such sender.
    pub async fn set_webhooks(
        &self,
        sid: &str,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
        credentials: &Credentials,
    ) -> Result<Sender, RestError> {
        // Of another setting of senders Twilio says that empty takes out, and that what is left out stays as it is.
        let url = |url: &Option<String>| url.clone().unwrap_or_default();
        let method = |method: &str| if method.is_empty() { "POST" } else { method }.to_owned();
        let body = json!({"webhook": {
            "callback_url": url(&webhooks.inbound), "callback_method": method(&methods.inbound),
            "fallback_url": url(&webhooks.fallback), "fallback_method": method(&methods.fallback),
            "status_callback_url": url(&webhooks.status), "status_callback_method": method(&methods.status),
        }});
        let request = self.request(Method::POST, &path(sid), credentials)?;
        let request = request.header(CONTENT_TYPE, "application/json");
        let wire: WireSender = answer(request.body(body.to_string())).await?;
        Ok(wire.into())
    }
}
