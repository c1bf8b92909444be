//! The `Indicators/Typing` resource: typing indicators on WhatsApp and RCS.
//!
//! The resource is on another host than messages: use [`Client::new`](super::Client::new) with
//! [`ApiUrl::messaging`](super::ApiUrl::messaging).
//!
//! Source: twilio.com/docs/whatsapp/api/typing-indicators-resource, and for RCS, which only version 3 knows, twilio-python's
//! `messaging/v3/typing_indicator.py`.

use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::error::RestError;
use super::http_client::AuthenticatedClient;
use super::response::{send_and_parse, with_form};
use crate::address::Address;
use crate::form::FormParams;
use crate::sid::MessageSid;

/// The `Indicators/Typing` resource.
///
/// ```no_run
/// use replyhook::twilio::{ApiUrl, Client, Credentials, RestError};
/// use replyhook::InboundMessage;
///
/// # async fn show(message: InboundMessage, credentials: Credentials) -> Result<(), RestError> {
/// let client = Client::new(ApiUrl::messaging());
/// client.typing_indicator(&credentials).create(message.message_sid).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TypingIndicator<'a>(AuthenticatedClient<'a>);

// Twilio responds with a JSON object, of which no field is needed.
#[derive(Deserialize)]
struct WireTyping {}

impl<'a> TypingIndicator<'a> {
    pub(super) fn new(client: AuthenticatedClient<'a>) -> Self {
        Self(client)
    }

    /// Marks a WhatsApp message as read and shows its author a typing indicator, for 25 s or until a message is sent.
    ///
    /// # Errors
    /// [`RestError`]. A call may be repeated unless Twilio rejected it.
    pub async fn create(&self, message: MessageSid) -> Result<(), RestError> {
        let form: FormParams = [("channel", "whatsapp"), ("messageId", message.as_str())]
            .into_iter()
            .collect();
        let request = self.0.request(Method::POST, "/v2/Indicators/Typing.json")?;
        let _: WireTyping = send_and_parse(with_form(request, &form)).await?;
        Ok(())
    }

    /// Shows a user on RCS a typing indicator of the sender, until a message is sent.
    ///
    /// # Errors
    /// [`RestError`]. A call may be repeated unless Twilio rejected it.
    pub async fn create_rcs(&self, sender: &Address, user: &Address) -> Result<(), RestError> {
        let body = serde_json::json!({
            "channel": "RCS",
            "from": sender.as_str(),
            "to": user.as_str(),
            "event": "START",
        });
        let kind = HeaderValue::from_static("application/json");
        let request = self.0.request(Method::POST, "/v3/Indicators/Typing.json")?;
        let request = request.header(CONTENT_TYPE, kind).body(body.to_string());
        let _: WireTyping = send_and_parse(request).await?;
        Ok(())
    }
}
