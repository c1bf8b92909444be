//! Simulated users in tests.

use std::panic::Location;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::exchange::{DeliveryExchange, SendResult};
use super::offer::offered_items;
use super::test_bot::{FINAL_STATUSES, TestBot, expect_ok};
use crate::address::Address;
use crate::clock::{Clock, SystemClock};
use crate::emulator::sender_for;
use crate::store::OpenWindow;
use crate::twilio::{ApiUrl, Client, Credentials, NewMessage};

/// Simulated user. Its methods send a message, and return when the bot has processed it.
///
/// ```
/// use replyhook::App;
/// use replyhook::testing::TestBot;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let bot = TestBot::start(App::builder).await;
/// let ana = bot.whatsapp("+34600000001").named("Ana");
/// bot.send_to(&ana, "News!").await.assert_rejected(63016);
/// ana.shares(40.453, -3.6883, "Stadium").await.assert_reply_contains("Stadium");
/// bot.send_to(&ana, "News!").await.assert_delivered();
/// # });
/// ```
#[derive(Debug)]
pub struct User<'a> {
    bot: &'a TestBot,
    address: String,
    name: Option<String>,
}

impl TestBot {
    /// Returns a WhatsApp user with this phone number.
    pub fn whatsapp(&self, phone: &str) -> User<'_> {
        self.user(&format!("whatsapp:{phone}"))
    }

    /// Returns an SMS user with this phone number.
    pub fn sms(&self, phone: &str) -> User<'_> {
        self.user(phone)
    }

    /// Returns an RCS user with this phone number.
    pub fn rcs(&self, phone: &str) -> User<'_> {
        self.user(&format!("rcs:{phone}"))
    }

    /// Returns a Messenger user with this page-scoped ID.
    pub fn messenger(&self, id: &str) -> User<'_> {
        self.user(&format!("messenger:{id}"))
    }

    /// Returns a user with this address, as in `whatsapp:US.13491208655302741918`.
    pub fn user(&self, address: &str) -> User<'_> {
        User::new(self, address)
    }

    /// Sends a free-form message via the REST API, and waits for its final status.
    ///
    /// The emulator accepts or rejects it as Twilio would. The message does not pass the app's outbox, unlike those of
    /// [`TestBot::outbound`].
    pub async fn send_to(&self, user: &User<'_>, text: &str) -> SendResult {
        let api = ApiUrl::parse(self.emulator_client.url()).expect("the emulator has a URL");
        let client = Client::new(api);
        let (account, token) = &self.account;
        let credentials = Credentials::auth_token(*account, token.clone());
        let message = NewMessage::text(user.address(), text).from(user.sender());
        // `create` requires a proof of an open window. Claim one, so that the emulator's own check decides.
        let now = SystemClock.now();
        let window = OpenWindow::of(&message.to, Some(now), now)
            .expect("the window is open right after a message");
        let created = client
            .messages(*account, &credentials)
            .create(&message, &window)
            .await;
        let created = match created {
            Ok(created) => created,
            Err(error) => return SendResult::rejected(error.code()),
        };
        let sid = created.sid.to_string();
        let path = ["conversations", user.address()];
        self.wait_until("the message has a final status", || async {
            let conversation = expect_ok(self.emulator_client.get(&path)).await;
            let mut conversation = conversation
                .as_array()
                .cloned()
                .unwrap_or_default()
                .into_iter();
            let message = conversation.find(|message| message["sid"] == sid.as_str())?;
            let status = message["status"].as_str()?.to_owned();
            let is_final = FINAL_STATUSES.contains(&&*status);
            is_final.then(|| SendResult::new(status, message["error_code"].as_u64()))
        })
        .await
    }
}

impl<'a> User<'a> {
    pub(super) fn new(bot: &'a TestBot, address: &str) -> Self {
        Self {
            bot,
            address: address.to_owned(),
            name: None,
        }
    }

    /// Sets the profile name (WhatsApp).
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Returns the user's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the sender that the user writes to: the emulator's default sender on the user's channel.
    ///
    /// # Panics
    /// If the address is of a channel other than WhatsApp, SMS, RCS and Messenger.
    pub fn sender(&self) -> &'static str {
        let sender = sender_for(&Address::parse(self.address.as_str()));
        sender.expect("the emulator has a sender on each of these channels")
    }

    /// Sends a text.
    pub async fn says(&self, text: &str) -> DeliveryExchange {
        self.sends(json!({"body": text})).await
    }

    /// Sends several texts in quick succession, which `reply.debounce_ms` combines. Returns the exchange of the first,
    /// with the messages that the phone received because of all of them.
    ///
    /// # Panics
    /// If `texts` is empty.
    pub async fn says_in_burst(&self, texts: &[&str]) -> DeliveryExchange {
        assert!(!texts.is_empty(), "says_in_burst needs at least one text");
        let messages: Vec<Value> = texts
            .iter()
            .map(|text| self.with_addresses(json!({"body": text})))
            .collect();
        self.bot
            .exchange_all(&self.address, &["messages"], &messages)
            .await
    }

    /// Taps a button with this text and payload.
    pub async fn presses(&self, text: &str, payload: &str) -> DeliveryExchange {
        self.sends(json!({"button": {"text": text, "payload": payload}}))
            .await
    }

    /// Chooses the item with this title: taps the button, list row or chip, or types the number of a numbered text.
    ///
    /// The item is one of the last message on this phone that has choices.
    ///
    /// ```
    /// use replyhook::testing::TestBot;
    /// use replyhook::{App, Context, InboundMessage};
    ///
    /// async fn shop(_cx: Context, message: InboundMessage) -> String {
    ///     match message.body.as_str() {
    ///         "2" => "We come tomorrow.".to_owned(),
    ///         _ => "When?\n1. Today\n2. Tomorrow".to_owned(),
    ///     }
    /// }
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let bot = TestBot::start(|| App::builder().handler(shop)).await;
    /// let ana = bot.sms("+34600000001");
    /// ana.says("hi").await.assert_choices(["Today", "Tomorrow"]);
    /// ana.taps("Tomorrow").await.assert_reply("We come tomorrow.");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If that message has no such item, or no message has choices.
    #[track_caller]
    pub fn taps(&self, title: &str) -> impl Future<Output = DeliveryExchange> {
        // In an `async fn`, the panic would name a line of this file in place of the test's.
        self.tap_from(title, Location::caller())
    }

    async fn tap_from(&self, title: &str, caller: &Location<'_>) -> DeliveryExchange {
        let path = ["conversations", self.address()];
        let conversation = expect_ok(self.bot.emulator_client().get(&path)).await;
        let messages = conversation.as_array().into_iter().flatten().rev();
        let is_shown = |message: &&Value| {
            message["direction"] == "out"
                && !matches!(message["status"].as_str(), Some("failed" | "undelivered"))
        };
        let mut offers = messages.filter(is_shown).map(offered_items);
        let items = offers.find(|items| !items.is_empty()).unwrap_or_default();
        let item = items.iter().find(|item| item.has_title(title));
        let item = item.unwrap_or_else(|| {
            let titles: Vec<_> = items.iter().map(|item| item.title.as_str()).collect();
            panic!("{caller}: {title:?} is not one of the choices on the phone: {titles:?}")
        });
        self.sends(item.reply.clone()).await
    }

    /// Sends a location. Latitude and longitude are in degrees.
    pub async fn shares(&self, latitude: f64, longitude: f64, label: &str) -> DeliveryExchange {
        self.sends(
            json!({"location": {"latitude": latitude, "longitude": longitude, "label": label}}),
        )
        .await
    }

    /// Sends a media file, as in `sends_file("image/png", &bytes, "look")`. An empty caption means no caption.
    pub async fn sends_file(
        &self,
        content_type: &str,
        bytes: &[u8],
        caption: &str,
    ) -> DeliveryExchange {
        let data = STANDARD.encode(bytes);
        let media = json!([{"data": data, "content_type": content_type}]);
        self.sends(json!({"media": media, "body": caption})).await
    }

    /// Sends any message that `POST /_emulator/messages` accepts. `from`, and `to` and `profile_name` unless given, are
    /// added.
    pub async fn sends(&self, message: Value) -> DeliveryExchange {
        let message = self.with_addresses(message);
        self.bot
            .exchange(&self.address, &["messages"], &message)
            .await
    }

    fn with_addresses(&self, mut message: Value) -> Value {
        message["from"] = self.address.as_str().into();
        if message["to"].is_null() {
            message["to"] = self.sender().into();
        }
        if let Some(name) = &self.name
            && message["profile_name"].is_null()
        {
            message["profile_name"] = name.as_str().into();
        }
        message
    }
}
