//! Who writes to the bot.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Answer, TestBot};
use crate::address::Address;
use crate::emulator::sender_for;

/// A user, with a phone in their hand.
///
/// ```
/// use replyhook::App;
/// use replyhook::testing::TestBot;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let bot = TestBot::start(App::builder).await;
/// let ana = bot.whatsapp("+34600000001").named("Ana");
/// bot.writes(&ana, "News!").await.assert_refused(63016);
/// ana.shares(40.453, -3.6883, "Stadium").await.assert_reply_contains("Stadium");
/// bot.writes(&ana, "News!").await.assert_delivered();
/// # });
/// ```
#[derive(Debug)]
pub struct User<'a> {
    bot: &'a TestBot,
    address: String,
    name: Option<String>,
}

impl<'a> User<'a> {
    pub(super) fn new(bot: &'a TestBot, address: &str) -> Self {
        Self {
            bot,
            address: address.to_owned(),
            name: None,
        }
    }

    /// The same with a profile name (WhatsApp).
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Their address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The bot's number on their channel.
    pub fn sender(&self) -> &'static str {
        let sender = sender_for(&Address::parse(self.address.as_str()));
        sender.expect("the emulator has senders on WhatsApp and SMS")
    }

    /// A text.
    pub async fn says(&self, text: &str) -> Answer {
        self.sends(json!({"body": text})).await
    }

    /// Several texts, one right after the other: with `reply.debounce_ms` they are one turn. The answer is that of the first,
    /// and has what the phone got because of all.
    pub async fn says_quickly(&self, texts: &[&str]) -> Answer {
        assert!(!texts.is_empty(), "nothing is said");
        let messages: Vec<Value> = texts
            .iter()
            .map(|text| self.addressed(json!({"body": text})))
            .collect();
        self.bot
            .exchange_all(&self.address, &["messages"], &messages)
            .await
    }

    /// A tap on a button: what is written on it, and what it carries.
    pub async fn presses(&self, text: &str, payload: &str) -> Answer {
        self.sends(json!({"button": {"text": text, "payload": payload}}))
            .await
    }

    /// A place, in degrees.
    pub async fn shares(&self, latitude: f64, longitude: f64, label: &str) -> Answer {
        self.sends(
            json!({"location": {"latitude": latitude, "longitude": longitude, "label": label}}),
        )
        .await
    }

    /// A file, as in `sends_file("image/png", &bytes, "look")`; an empty caption is none.
    pub async fn sends_file(&self, content_type: &str, bytes: &[u8], caption: &str) -> Answer {
        let data = STANDARD.encode(bytes);
        let media = json!([{"data": data, "content_type": content_type}]);
        self.sends(json!({"media": media, "body": caption})).await
    }

    /// Anything that `POST /_emulator/messages` takes, `from` and `to` apart.
    pub async fn sends(&self, message: Value) -> Answer {
        let message = self.addressed(message);
        self.bot
            .exchange(&self.address, &["messages"], &message)
            .await
    }

    fn addressed(&self, mut message: Value) -> Value {
        message["from"] = self.address.as_str().into();
        message["to"] = self.sender().into();
        if let Some(name) = &self.name {
            message["profile_name"] = name.as_str().into();
        }
        message
    }
}
