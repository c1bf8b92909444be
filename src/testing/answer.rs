//! What came back, and what may be asserted of it.

use serde_json::Value;

/// What a message led to.
///
/// ```
/// use replyhook::testing::TestBot;
/// use replyhook::{App, Echo};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let bot = TestBot::start(|| App::builder().handler(Echo)).await;
/// let answer = bot.whatsapp("+34600000001").says("hi").await;
/// answer.assert_reply("hi").assert_in_time().assert_handler_runs(1);
/// assert!(answer.twiml.is_some_and(|twiml| twiml.contains("<Message>hi</Message>")));
/// assert_eq!(answer.got[0].body, "hi");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) message_sid: String,
    pub(super) user: String,
    /// What the phone got because of it, in order.
    pub got: Vec<Got>,
    /// The document that Twilio was answered with.
    pub twiml: Option<String>,
    /// Of each call that Twilio made: its URL, its HTTP status, and Twilio's error.
    pub calls: Vec<(String, Option<u64>, Option<u64>)>,
    handler_runs: u64,
    /// What the same message was answered with before.
    before: Option<Box<Answer>>,
}

/// A message on the phone.
///
/// On the phone: see [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Got {
    /// Its text.
    pub body: String,
    /// Where its files are.
    pub media: Vec<String>,
    /// How far it came: `delivered`, `failed` and so on.
    pub status: String,
    /// Why it failed.
    pub error_code: Option<u64>,
}

/// What became of a message that was sent first.
///
/// What [`TestBot::writes`](super::TestBot::writes) comes to: see [`User`](super::User).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// How far it came.
    pub status: String,
    /// Why no further.
    pub error_code: Option<u64>,
}

impl Got {
    pub(super) fn new(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let media = message["media"].as_array().into_iter().flatten();
        Self {
            body: text(&message["body"]),
            media: media.map(|media| text(&media["url"])).collect(),
            status: text(&message["status"]),
            error_code: message["error_code"].as_u64(),
        }
    }
}

impl Answer {
    pub(super) fn new(user: &str, answered: &Value, got: Vec<Got>, handler_runs: u64) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let calls = answered["attempts"].as_array().into_iter().flatten();
        let call = |call: &Value| {
            (
                text(&call["url"]).unwrap_or_default(),
                call["status"].as_u64(),
                call["error_code"].as_u64(),
            )
        };
        Self {
            message_sid: text(&answered["message_sid"]).unwrap_or_default(),
            user: user.to_owned(),
            got,
            twiml: text(&answered["twiml"]),
            calls: calls.map(call).collect(),
            handler_runs,
            before: None,
        }
    }

    pub(super) fn after(mut self, before: Self) -> Self {
        self.before = Some(Box::new(before));
        self
    }

    /// One message came, and this is what it says.
    #[track_caller]
    pub fn assert_reply(&self, text: &str) -> &Self {
        self.assert_replies(&[text])
    }

    /// These came, in this order.
    #[track_caller]
    pub fn assert_replies(&self, texts: &[&str]) -> &Self {
        assert_eq!(
            self.texts(),
            texts,
            "what the phone got; the calls: {:?}",
            self.calls
        );
        self
    }

    /// Something came that contains this.
    #[track_caller]
    pub fn assert_reply_contains(&self, part: &str) -> &Self {
        let is_there = self.got.iter().any(|got| got.body.contains(part));
        assert!(is_there, "{part:?} is in none of {:?}", self.texts());
        self
    }

    /// Nothing came, and Twilio had no complaint.
    #[track_caller]
    pub fn assert_no_reply(&self) -> &Self {
        self.assert_replies(&[]);
        let complaint = self.calls.last().and_then(|(.., code)| *code);
        assert_eq!(complaint, None, "{:?}", self.calls);
        self
    }

    /// So many files came.
    #[track_caller]
    pub fn assert_media(&self, count: usize) -> &Self {
        let files: Vec<_> = self.got.iter().flat_map(|got| &got.media).collect();
        assert_eq!(files.len(), count, "{files:?}");
        self
    }

    /// The primary webhook answered by TwiML, with whatever came.
    #[track_caller]
    pub fn assert_in_time(&self) -> &Self {
        assert_eq!(self.calls.len(), 1, "{:?}", self.calls);
        assert!(
            self.got.is_empty() || self.has_verbs(),
            "it came by REST: {:?}",
            self.got
        );
        self
    }

    /// Twilio was answered with nothing at the deadline; this came by REST when it was ready.
    #[track_caller]
    pub fn assert_acknowledged_then_sent(&self, text: &str) -> &Self {
        assert!(
            self.twiml.is_some() && !self.has_verbs(),
            "{:?}",
            self.twiml
        );
        self.assert_reply(text)
    }

    /// The primary webhook failed; the fallback URL said this.
    #[track_caller]
    pub fn assert_fallback(&self, text: &str) -> &Self {
        let last = self.calls.last();
        let is_fallback = last.is_some_and(|(url, status, _)| {
            url.ends_with("/webhook/fallback") && *status == Some(200)
        });
        assert!(is_fallback, "{:?}", self.calls);
        self.assert_reply(text)
    }

    /// Twilio was answered as it was before, and nothing more is on the phone.
    #[track_caller]
    pub fn assert_same_answer(&self) -> &Self {
        let before = self.before.as_ref();
        let before = before.expect("only what is delivered again has an answer before");
        assert_eq!(self.twiml, before.twiml, "the answer of the same message");
        assert_eq!(self.got, [], "what the phone got because of the repeat");
        self
    }

    /// Your handler was called so often for this message, all its deliveries together.
    #[track_caller]
    pub fn assert_handler_runs(&self, times: u64) -> &Self {
        assert_eq!(self.handler_runs, times, "calls of the handler");
        self
    }

    fn texts(&self) -> Vec<&str> {
        self.got.iter().map(|got| got.body.as_str()).collect()
    }

    fn has_verbs(&self) -> bool {
        let twiml = self.twiml.as_deref().unwrap_or_default();
        twiml.contains("<Message") || twiml.contains("<Redirect")
    }
}

impl Sent {
    pub(super) fn new(status: String, error_code: Option<u64>) -> Self {
        Self { status, error_code }
    }

    pub(super) fn refused(code: Option<crate::error_code::ErrorCode>) -> Self {
        Self {
            status: "refused".to_owned(),
            error_code: code.map(|code| code.0.into()),
        }
    }

    /// It is on the phone.
    #[track_caller]
    pub fn assert_delivered(&self) -> &Self {
        let is_there = self.status == "delivered" || self.status == "read";
        assert!(is_there, "{self:?}");
        self
    }

    /// It did not get there, with this code of Twilio's.
    #[track_caller]
    pub fn assert_refused(&self, code: u64) -> &Self {
        assert_eq!(self.error_code, Some(code), "{self:?}");
        self
    }
}
