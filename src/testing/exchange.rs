//! Results of messages in tests, with assertions.

use serde_json::Value;

use super::offer::{is_title_of, offered_items};

/// Result of a user's message: the webhook calls, the response, and the messages that the phone received.
///
/// ```
/// use replyhook::testing::TestBot;
/// use replyhook::{App, Echo};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let bot = TestBot::start(|| App::builder().handler(Echo)).await;
/// let exchange = bot.whatsapp("+34600000001").says("hi").await;
/// exchange.assert_reply("hi").assert_replied_inline().assert_handler_runs(1);
/// assert_eq!(exchange.received[0].body, "hi");
/// assert!(exchange.twiml.is_some_and(|twiml| twiml.contains("<Message>hi</Message>")));
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct DeliveryExchange {
    pub(super) message_sid: String,
    pub(super) user: String,
    /// Messages that the phone received because of it, in order.
    pub received: Vec<ReceivedMessage>,
    /// The last TwiML document in a response.
    pub twiml: Option<String>,
    /// URL, HTTP status and Twilio error code of each webhook call.
    pub calls: Vec<(String, Option<u64>, Option<u64>)>,
    handler_calls: u64,
    /// Path of the app's fallback URL.
    fallback_path: String,
    /// Exchange of the previous delivery of this message, for a redelivery.
    previous: Option<Box<DeliveryExchange>>,
}

/// Message on the user's phone.
///
/// See [`DeliveryExchange`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// Text.
    pub body: String,
    /// URLs of the media files.
    pub media: Vec<String>,
    /// Titles of the buttons, list rows or chips, or of the lines of a numbered text.
    pub choices: Vec<String>,
    /// Twilio's message status, such as `delivered` or `failed`.
    pub status: String,
    /// Twilio's error code, if it failed.
    pub error_code: Option<u64>,
}

/// Result of an outbound message.
///
/// Returned by [`TestBot::send_to`](super::TestBot::send_to) and
/// [`TestBot::send_result`](super::TestBot::send_result). See [`User`](super::User) for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendResult {
    /// Twilio's final message status, or `rejected` if the message was not accepted. `held` and `unknown` are states of
    /// the outbox; see [`TestBot::send_result`](super::TestBot::send_result).
    pub status: String,
    /// Twilio's error code, if it failed.
    pub error_code: Option<u64>,
}

impl ReceivedMessage {
    pub(super) fn new(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let media = message["media"].as_array().into_iter().flatten();
        Self {
            body: text(&message["body"]),
            media: media.map(|media| text(&media["url"])).collect(),
            choices: offered_items(message)
                .into_iter()
                .map(|item| item.title)
                .collect(),
            status: text(&message["status"]),
            error_code: message["error_code"].as_u64(),
        }
    }
}

impl DeliveryExchange {
    pub(super) fn new(
        user: &str,
        delivered: &Value,
        received: Vec<ReceivedMessage>,
        handler_calls: u64,
        fallback_path: &str,
    ) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let calls = delivered["attempts"].as_array().into_iter().flatten();
        let call = |call: &Value| {
            (
                text(&call["url"]).unwrap_or_default(),
                call["status"].as_u64(),
                call["error_code"].as_u64(),
            )
        };
        Self {
            message_sid: text(&delivered["message_sid"]).unwrap_or_default(),
            user: user.to_owned(),
            received,
            twiml: text(&delivered["twiml"]),
            calls: calls.map(call).collect(),
            handler_calls,
            fallback_path: fallback_path.to_owned(),
            previous: None,
        }
    }

    pub(super) fn with_previous(mut self, previous: Self) -> Self {
        self.previous = Some(Box::new(previous));
        self
    }

    /// Asserts that the phone received one message, with this text.
    #[track_caller]
    pub fn assert_reply(&self, text: &str) -> &Self {
        self.assert_replies(&[text])
    }

    /// Asserts that the phone received messages with these texts, in this order.
    #[track_caller]
    pub fn assert_replies(&self, texts: &[&str]) -> &Self {
        let received = self.texts();
        // Not `assert_eq`, which calls them left and right.
        assert!(
            received == texts,
            "unexpected messages on the phone\n received: {received:?}\n expected: {texts:?}\n webhook calls: {:?}",
            self.calls
        );
        self
    }

    /// Asserts that the phone received a message that contains this text.
    #[track_caller]
    pub fn assert_reply_contains(&self, part: &str) -> &Self {
        let is_received = self
            .received
            .iter()
            .any(|message| message.body.contains(part));
        assert!(is_received, "{part:?} is in none of {:?}", self.texts());
        self
    }

    /// Asserts that the phone received nothing, and that Twilio reported no error.
    #[track_caller]
    pub fn assert_no_reply(&self) -> &Self {
        self.assert_replies(&[]);
        // The last call: the error of a primary call does not count if the fallback succeeded.
        let error_code = self.calls.last().and_then(|(.., code)| *code);
        assert_eq!(error_code, None, "{:?}", self.calls);
        self
    }

    /// Asserts the number of media files that the phone received.
    #[track_caller]
    pub fn assert_media(&self, count: usize) -> &Self {
        let files: Vec<_> = self
            .received
            .iter()
            .flat_map(|message| &message.media)
            .collect();
        assert_eq!(files.len(), count, "{files:?}");
        self
    }

    /// Asserts that the phone's last message offers these choices, in this order: as buttons, a list or chips, or in a
    /// numbered text. See [`User::taps`](super::User::taps) for an example.
    #[track_caller]
    pub fn assert_choices<'t>(&self, titles: impl AsRef<[&'t str]>) -> &Self {
        let titles = titles.as_ref();
        let last = self.received.last();
        let shown = last.map_or(&[][..], |message| message.choices.as_slice());
        let is_same = shown.len() == titles.len()
            && shown
                .iter()
                .zip(titles)
                .all(|(line, title)| is_title_of(line, title));
        assert!(
            is_same,
            "unexpected choices on the phone: {shown:?} instead of {titles:?}"
        );
        self
    }

    /// Asserts that Twilio called the primary handler once, and that the TwiML response contains the reply, if any.
    #[track_caller]
    pub fn assert_replied_inline(&self) -> &Self {
        assert_eq!(self.calls.len(), 1, "{:?}", self.calls);
        assert!(
            self.received.is_empty() || self.has_verbs(),
            "the reply was sent via the REST API: {:?}",
            self.received
        );
        self
    }

    /// Asserts that the TwiML response was empty, and that this reply was sent via the REST API.
    #[track_caller]
    pub fn assert_replied_via_rest(&self, text: &str) -> &Self {
        assert!(
            self.twiml.is_some() && !self.has_verbs(),
            "the response is not an empty TwiML document: {:?}",
            self.twiml
        );
        self.assert_reply(text)
    }

    /// Asserts that the fallback URL was called last, and that the phone received this text.
    #[track_caller]
    pub fn assert_fallback(&self, text: &str) -> &Self {
        let last = self.calls.last();
        let is_fallback = last.is_some_and(|(url, status, _)| {
            path_of(url) == self.fallback_path && *status == Some(200)
        });
        assert!(is_fallback, "{:?}", self.calls);
        self.assert_reply(text)
    }

    /// Asserts that a redelivery got the same response as the delivery before, and that nothing more was sent.
    ///
    /// # Panics
    /// If not, or if this is not the result of [`TestBot::redeliver`](super::TestBot::redeliver).
    #[track_caller]
    pub fn assert_same_response(&self) -> &Self {
        let previous = self.previous.as_ref();
        let previous =
            previous.expect("assert_same_response needs the result of TestBot::redeliver");
        assert_eq!(
            self.twiml, previous.twiml,
            "the redelivery got another response"
        );
        assert_eq!(
            self.received,
            [],
            "the phone received messages because of the redelivery"
        );
        self
    }

    /// Asserts the number of handler calls for this message, in all its deliveries together.
    #[track_caller]
    pub fn assert_handler_runs(&self, times: u64) -> &Self {
        assert_eq!(
            self.handler_calls, times,
            "unexpected number of handler calls"
        );
        self
    }

    fn texts(&self) -> Vec<&str> {
        self.received
            .iter()
            .map(|message| message.body.as_str())
            .collect()
    }

    fn has_verbs(&self) -> bool {
        // A <Redirect> counts: its target replies instead of the bot.
        let twiml = self.twiml.as_deref().unwrap_or_default();
        twiml.contains("<Message") || twiml.contains("<Redirect")
    }
}

impl SendResult {
    pub(super) fn new(status: String, error_code: Option<u64>) -> Self {
        Self { status, error_code }
    }

    pub(super) fn rejected(code: Option<crate::error_code::ErrorCode>) -> Self {
        Self {
            status: "rejected".to_owned(),
            error_code: code.map(|code| code.0.into()),
        }
    }

    /// Asserts that the message was delivered.
    #[track_caller]
    pub fn assert_delivered(&self) -> &Self {
        let is_delivered = self.status == "delivered" || self.status == "read";
        assert!(is_delivered, "{self:?}");
        self
    }

    /// Asserts that the message failed, or was not accepted, with this Twilio error code.
    #[track_caller]
    pub fn assert_rejected(&self, code: u64) -> &Self {
        assert_eq!(self.error_code, Some(code), "{self:?}");
        self
    }
}

/// Path of a URL, without a slash at the end: `server.paths` may be called with or without it.
pub(super) fn path_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.trim_end_matches('/')
}
