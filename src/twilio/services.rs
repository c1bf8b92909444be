//! The `Services` resource: an account's Messaging Services and their webhooks.
//!
//! The resource is on another host than messages: use [`Client::new`](super::Client::new) with
//! [`ApiUrl::messaging`](super::ApiUrl::messaging).
//!
//! Source: Twilio's `OpenAPI` description, `/v1/Services` of the messaging API.

use http::Method;
use serde::Deserialize;

use super::error::RestError;
use super::http_client::AuthenticatedClient;
use super::response::{Meta, PagedList, send_and_parse, with_form};
use super::webhooks::{ConfiguredWebhooks, WebhookMethods};
use crate::form::FormParams;

// 25 pages bound the time and memory that a large account can take.
const LIST: PagedList<'_> = PagedList {
    path: "/v1/Services",
    query: "",
    page_size: 100,
    max_pages: 25,
};

/// The `Services` resource: Messaging Services.
///
/// ```no_run
/// # use replyhook::twilio::{ApiUrl, Client, Credentials, RestError};
/// # async fn list(credentials: Credentials) -> Result<(), RestError> {
/// let client = Client::new(ApiUrl::messaging());
/// for service in client.services(&credentials).list().await? {
///     println!("{}: {:?}", service.sid, service.webhooks.inbound);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Services<'a>(AuthenticatedClient<'a>);

/// A Messaging Service of an account. See [`Services`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MessagingService {
    /// SID of the service, `MG…`.
    pub sid: String,
    /// Name that the operator chose.
    pub friendly_name: String,
    /// Webhook URLs.
    pub webhooks: ConfiguredWebhooks,
    /// HTTP methods of the webhooks. The one of the status callback is not read.
    pub methods: WebhookMethods,
    /// Twilio calls the webhooks of the number that a message came to, and not those of the service.
    pub uses_inbound_webhook_on_number: bool,
}

#[derive(Deserialize)]
struct ServicesPage {
    services: Vec<WireService>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct WireService {
    sid: Option<String>,
    friendly_name: Option<String>,
    inbound_request_url: Option<String>,
    inbound_method: Option<String>,
    fallback_url: Option<String>,
    fallback_method: Option<String>,
    status_callback: Option<String>,
    use_inbound_webhook_on_number: Option<bool>,
}

impl From<WireService> for MessagingService {
    fn from(wire: WireService) -> Self {
        Self {
            sid: wire.sid.unwrap_or_default(),
            friendly_name: wire.friendly_name.unwrap_or_default(),
            webhooks: ConfiguredWebhooks::new(
                wire.inbound_request_url,
                wire.fallback_url,
                wire.status_callback,
            ),
            methods: WebhookMethods {
                inbound: wire.inbound_method.unwrap_or_default(),
                fallback: wire.fallback_method.unwrap_or_default(),
                status: String::new(),
            },
            uses_inbound_webhook_on_number: wire.use_inbound_webhook_on_number.unwrap_or_default(),
        }
    }
}

fn service_path(sid: &str) -> String {
    format!("{}/{sid}", LIST.path)
}

impl<'a> Services<'a> {
    pub(super) fn new(client: AuthenticatedClient<'a>) -> Self {
        Self(client)
    }

    /// Lists the first 2,500 services of the account that the credentials belong to.
    ///
    /// # Errors
    /// [`RestError`]. The call changes nothing and may be repeated unless Twilio rejected it.
    pub async fn list(&self) -> Result<Vec<MessagingService>, RestError> {
        let mut services = Vec::new();
        LIST.for_each_page(self.0, |page: ServicesPage| {
            services.extend(page.services.into_iter().map(Into::into));
            page.meta?.next_page_url
        })
        .await?;
        Ok(services)
    }

    /// Fetches one service, `MG…`.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the service does not exist.
    pub async fn fetch(&self, sid: &str) -> Result<MessagingService, RestError> {
        let request = self.0.request(Method::GET, &service_path(sid))?;
        let wire: WireService = send_and_parse(request).await?;
        Ok(wire.into())
    }

    /// Updates all webhooks of a service, `MG…`, and whether those of its numbers are called instead, and returns the
    /// updated service.
    ///
    /// A webhook that is `None` is removed; without one for inbound messages the service receives none.
    ///
    /// # Errors
    /// [`RestError`], with HTTP status 404 if the service does not exist. The call replaces all webhooks, so it may be
    /// repeated unless Twilio rejected it.
    pub async fn update(
        &self,
        sid: &str,
        webhooks: &ConfiguredWebhooks,
        methods: &WebhookMethods,
        uses_inbound_webhook_on_number: bool,
    ) -> Result<MessagingService, RestError> {
        let url = |url: &Option<String>| url.clone().unwrap_or_default();
        let form: FormParams = [
            ("InboundRequestUrl", url(&webhooks.inbound)),
            (
                "InboundMethod",
                WebhookMethods::or_post(&methods.inbound).to_owned(),
            ),
            ("FallbackUrl", url(&webhooks.fallback)),
            (
                "FallbackMethod",
                WebhookMethods::or_post(&methods.fallback).to_owned(),
            ),
            ("StatusCallback", url(&webhooks.status)),
            (
                "UseInboundWebhookOnNumber",
                uses_inbound_webhook_on_number.to_string(),
            ),
        ]
        .into_iter()
        .collect();
        let request = self.0.request(Method::POST, &service_path(sid))?;
        let wire: WireService = send_and_parse(with_form(request, &form)).await?;
        Ok(wire.into())
    }
}
