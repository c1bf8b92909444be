//! The default handler, which repeats each message.

use futures_util::future::BoxFuture;

use super::context::Context;
use super::handler_trait::Handler;
use crate::message::InboundMessage;
use crate::reply::Reply;
use replyhook_core::HandlerError;

/// The echo handler.
///
/// It replies to a text with exactly its body. It replies to a message without text with one line that describes its
/// content: `image/jpeg`, `location 52.52, 13.405 (Office)`, `button confirm:42`. It sends no reply if there is nothing
/// to describe.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use replyhook::testing::TestBot;
/// use replyhook::{App, Echo};
///
/// let bot = TestBot::start(|| App::builder().handler(Echo)).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.says("hi").await.assert_reply("hi");
/// ana.shares(40.453, -3.6883, "Stadium").await.assert_reply("location 40.453, -3.6883 (Stadium)");
/// # });
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Handler for Echo {
    fn handle(
        &self,
        _cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        let reply = match message.text() {
            Some(text) => Reply::text(text),
            None => describe_content(&message).map_or_else(Reply::none, Reply::text),
        };
        Box::pin(std::future::ready(Ok(reply)))
    }
}

/// Describes the content of a message without text in one line.
// The conversation history shows such messages in the same way.
pub(crate) fn describe_content(message: &InboundMessage) -> Option<String> {
    if !message.media.is_empty() {
        let types = message
            .media
            .iter()
            .map(|media| media.content_type.as_deref().unwrap_or("media"));
        return Some(types.collect::<Vec<_>>().join(", "));
    }
    if let Some(pin) = &message.location {
        let label = pin
            .label
            .as_ref()
            .map(|label| format!(" ({label})"))
            .unwrap_or_default();
        return Some(format!(
            "location {}, {}{label}",
            pin.latitude, pin.longitude
        ));
    }
    // Prefer the payload over the button's text: the payload is what the bot's author set as identifier.
    if let Some(button) = &message.button {
        return button
            .payload
            .as_ref()
            .or(button.text.as_ref())
            .map(|id| format!("button {id}"));
    }
    let list = message.list.as_ref()?;
    list.id
        .as_ref()
        .or(list.title.as_ref())
        .map(|id| format!("list {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use jiff::Timestamp;

    fn echo(more: &[(&str, &str)]) -> Option<String> {
        let base = [
            ("MessageSid", "SM00000000000000000000000000000001"),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("From", "+1"),
            ("To", "+2"),
        ];
        let message = InboundMessage::parse(
            base.iter().chain(more).copied().collect(),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let reply = Echo
            .handle(Context::new(1, Timestamp::UNIX_EPOCH), message)
            .now_or_never()
            .unwrap()
            .unwrap();
        (!reply.is_empty()).then(|| reply.messages()[0].body().to_owned())
    }

    #[test]
    fn echo_returns_body_or_describes_content() {
        let says = |text: &str| Some(text.to_owned());
        assert_eq!(echo(&[("Body", "  hi\r\n ")]), says("  hi\r\n "));
        assert_eq!(
            echo(&[
                ("Body", "look"),
                ("MediaUrl0", "u"),
                ("MediaContentType0", "image/jpeg")
            ]),
            says("look")
        );
        let media = [
            ("Body", ""),
            ("MediaUrl0", "u"),
            ("MediaContentType0", "image/jpeg"),
            ("MediaUrl1", "v"),
            ("MediaContentType1", "text/vcard"),
        ];
        assert_eq!(echo(&media), says("image/jpeg, text/vcard"));
        let pin = [("Latitude", "52.5200"), ("Longitude", "13.4050")];
        assert_eq!(echo(&pin), says("location 52.52, 13.405"));
        assert_eq!(
            echo(&[&pin[..], &[("Label", "Office")]].concat()),
            says("location 52.52, 13.405 (Office)")
        );
        assert_eq!(
            echo(&[("ButtonPayload", "confirm:42"), ("ButtonText", "Yes")]),
            says("button confirm:42")
        );
        for nothing in ["", " \n"] {
            assert_eq!(echo(&[("Body", nothing)]), None);
        }
    }
}
