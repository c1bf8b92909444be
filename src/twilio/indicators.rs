//! `Indicators`: the user sees that somebody types. On another host than messages: [`Client::new`] with
//! `https://messaging.twilio.com`.
//!
//! Source: twilio.com/docs/whatsapp/api/typing-indicators-resource.

use http::Method;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use super::answer::answer;
use super::{Client, Credentials, RestError};
use crate::form::Form;
use crate::sid::MessageSid;

#[derive(Deserialize)]
struct WireTyping {}

impl Client {
    /// Shows the author of a `WhatsApp` message that somebody types, for 25 s or until something is sent, and that the
    /// message was read.
    ///
    /// # Errors
    /// [`RestError`]; any may be repeated that is not refused.
    pub async fn typing(
        &self,
        message: MessageSid,
        credentials: &Credentials,
    ) -> Result<(), RestError> {
        let form: Form = [("channel", "whatsapp"), ("messageId", message.as_str())]
            .into_iter()
            .collect();
        let request = self.request(Method::POST, "/v2/Indicators/Typing.json", credentials)?;
        let kind = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = request.header(CONTENT_TYPE, kind).body(form.encode());
        let _: WireTyping = answer(request).await?;
        Ok(())
    }
}
