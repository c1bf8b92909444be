//! The `Indicators` resource: typing indicators on WhatsApp.
//!
//! The resource is on another host than messages: use [`Client::new`] with
//! [`ApiUrl::messaging`](super::ApiUrl::messaging).
//!
//! Source: twilio.com/docs/whatsapp/api/typing-indicators-resource.

use http::Method;
use serde::Deserialize;

use super::client::{Client, Credentials};
use super::error::RestError;
use super::response::{send_and_parse, with_form};
use crate::form::FormParams;
use crate::sid::MessageSid;

// Twilio responds with a JSON object, of which no field is needed.
#[derive(Deserialize)]
struct WireTyping {}

impl Client {
    /// Marks a WhatsApp message as read and shows its author a typing indicator, for 25 s or until a message is sent.
    ///
    /// # Errors
    /// [`RestError`]. A call may be repeated unless Twilio rejected it.
    pub async fn typing(
        &self,
        message: MessageSid,
        credentials: &Credentials,
    ) -> Result<(), RestError> {
        let form: FormParams = [("channel", "whatsapp"), ("messageId", message.as_str())]
            .into_iter()
            .collect();
        let request = self.request(Method::POST, "/v2/Indicators/Typing.json", credentials)?;
        let _: WireTyping = send_and_parse(with_form(request, &form)).await?;
        Ok(())
    }
}
