//! Tests of your bot in a few lines: the whole stack in this process, with Twilio's part played by the emulator.
//!
//! Signatures, router, journal and REST are the real ones; the store is in memory, and time passes when you say so.
//! Whatever does not go as it should panics, as a test's assertion does.
//!
//! ```
//! use std::time::Duration;
//!
//! use replyhook::testing::TestBot;
//! use replyhook::{App, Context, InboundMessage};
//!
//! async fn shop(_cx: Context, message: InboundMessage) -> String {
//!     format!("Got {}.", message.body)
//! }
//!
//! # #[tokio::main]
//! # async fn main() {
//! let bot = TestBot::start(|| App::builder().handler(shop)).await;
//! let ana = bot.whatsapp("+34600000001").named("Ana");
//!
//! ana.says("order 42").await.assert_reply("Got order 42.").assert_in_time();
//! bot.redeliver().await.assert_same_answer().assert_handler_runs(1);
//!
//! bot.handler_takes(Duration::from_secs(20)).await;
//! ana.says("order 43").await.assert_acknowledged_then_sent("Got order 43.");
//! bot.handler_takes(Duration::ZERO).await;
//!
//! bot.primary_is_down(true).await;
//! ana.says("order 44").await.assert_fallback("Got order 44.");
//! bot.primary_is_down(false).await;
//!
//! bot.restart().await;
//! bot.advance(Duration::from_hours(25)).await;
//! bot.writes(&ana, "News!").await.assert_refused(63016);
//! # bot.stop().await;
//! # }
//! ```

mod answer;
mod user;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use self::answer::{Answer, Got, Sent};
pub use self::user::User;
use crate::app::{AppBuilder, Desk, DeskOptions};
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::config::Sources;
use crate::emulator::Remote;
use crate::emulator::recording::{self, Recorded};
use crate::secret::Secret;
use crate::sending::{Outgoing, Sender};
use crate::sid::AccountSid;
use crate::store::{OpenWindow, ReplyState};
use crate::twilio::{ApiUrl, Client, Credentials, NewMessage};

/// For what must happen sooner or later.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// What a message comes to.
const FINAL: [&str; 4] = ["delivered", "read", "failed", "undelivered"];
/// When every test begins: a Monday morning, so that nothing depends on the day it is run.
const MORNING: i64 = 1_767_603_600;

/// Your bot with a Twilio of its own.
///
/// A whole test is at the top of [this module](self); what becomes of a message is an [`Answer`].
pub struct TestBot {
    desk: tokio::sync::Mutex<Desk>,
    make: Box<dyn Fn() -> AppBuilder + Send + Sync>,
    remote: Remote,
    account: (AccountSid, Secret),
    clock: Arc<ManualClock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Value,
    handler: Duration,
    deadline: Duration,
    /// How long your bot waits for a user's next message.
    pause: Duration,
    /// The last message, and what it was answered with.
    last: Option<Answer>,
    runs: HashMap<String, u64>,
}

impl TestBot {
    /// Starts what `make` makes, with the documented defaults but for `guard.loop_detection`: where time stands still whoever says
    /// the same a few times is as fast as a bot. It is asked again at every [`TestBot::restart`].
    pub async fn start(make: impl Fn() -> AppBuilder + Send + Sync + 'static) -> Self {
        Self::start_with(Sources::default(), make).await
    }

    /// The same with settings, as in `Sources::default().with_file("bot.toml")`.
    pub async fn start_with(
        mut sources: Sources,
        make: impl Fn() -> AppBuilder + Send + Sync + 'static,
    ) -> Self {
        let start = Timestamp::from_second(MORNING).unwrap_or_default();
        let clock = Arc::new(ManualClock::new(start));
        let options = DeskOptions {
            emulator_port: Some(0),
            port: Some(0),
            clock: Some(clock.clone()),
            ..DeskOptions::default()
        };
        let guard = sources.defaults.entry("guard.loop_detection");
        guard.or_insert_with(|| "false".to_owned());
        let desk = Desk::start(make(), sources, options).await;
        let desk = desk.unwrap_or_else(|error| panic!("the bot does not start: {error}"));
        let emulator = desk.emulator();
        let remote = Remote::new(emulator.url()).expect("the emulator is on this machine");
        let account = (emulator.account_sid(), emulator.auth_token().clone());
        let config = must(remote.get(&["config"])).await;
        let millis = |name: &str| Duration::from_millis(config[name].as_u64().unwrap_or_default());
        Self {
            desk: tokio::sync::Mutex::new(desk),
            make: Box::new(make),
            remote,
            account,
            clock,
            state: Mutex::new(State {
                faults: json!({}),
                deadline: millis("deadline_ms"),
                pause: millis("pause_ms"),
                ..State::default()
            }),
        }
    }

    /// A user of WhatsApp with a phone number.
    pub fn whatsapp(&self, phone: &str) -> User<'_> {
        self.user(&format!("whatsapp:{phone}"))
    }

    /// A user of SMS.
    pub fn sms(&self, phone: &str) -> User<'_> {
        self.user(phone)
    }

    /// A user by whole address, as in `whatsapp:US.13491208655302741918`.
    pub fn user(&self, address: &str) -> User<'_> {
        User::new(self, address)
    }

    /// From now on your handler takes so much longer. Nobody waits: the clock is moved on.
    pub async fn handler_takes(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.set_fault("handler_ms", json!(ms)).await;
        self.state().handler = time;
    }

    /// From now on your handler fails, or no longer does.
    pub async fn handler_fails(&self, fails: bool) {
        self.set_fault("handler_fails", json!(fails)).await;
    }

    /// From now on Twilio does not reach the primary webhook, or does again.
    pub async fn primary_is_down(&self, is_down: bool) {
        self.set_fault("drop_connection", json!(is_down)).await;
    }

    /// Any fault of the emulator, by the name that its control interface has for it; `Value::Null` clears it.
    pub async fn set_fault(&self, name: &str, value: Value) {
        let faults = {
            let mut state = self.state();
            if value.is_null() {
                state
                    .faults
                    .as_object_mut()
                    .map(|faults| faults.remove(name));
            } else {
                state.faults[name] = value;
            }
            state.faults.clone()
        };
        must(self.remote.put(&["faults"], &faults)).await;
    }

    /// Lets time pass, for the bot and for Twilio.
    pub async fn advance(&self, time: Duration) {
        self.move_clock(time);
        // Who woke up has its turn.
        tokio::task::yield_now().await;
    }

    /// Twilio delivers the last message once more.
    pub async fn redeliver(&self) -> Answer {
        let last = self.state().last.clone();
        let last = last.expect("there is no message yet that could be delivered again");
        let path = ["messages", &last.message_sid, "redeliver"];
        let again = self.exchange(&last.user, &path, &json!({})).await;
        again.after(last)
    }

    /// Stops your bot as a deployment does, and starts it again on what it kept.
    pub async fn restart(&self) {
        let mut desk = self.desk.lock().await;
        let restarted = desk.restart((self.make)()).await;
        restarted.unwrap_or_else(|error| panic!("the bot does not start again: {error}"));
    }

    /// Says again what `replyhook dev --record DIR` wrote down, and asserts that the same is answered.
    pub async fn replay(&self, directory: impl AsRef<Path>) {
        let directory = directory.as_ref();
        let files = recording::files(directory);
        let files = files.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        assert!(!files.is_empty(), "{} is empty", directory.display());
        for file in files {
            let text = std::fs::read_to_string(&file);
            let text = text.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let recorded: Recorded = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let params: BTreeMap<_, _> = recorded.params.into_iter().collect();
            let address = |name: &str| params.get(name).cloned().unwrap_or_default();
            let (user, sender) = (address("From"), address("To"));
            let message = json!({"from": user, "to": sender, "params": params});
            let answer = self.exchange(&user, &["messages"], &message).await;
            let replies: Vec<_> = answer.got.iter().map(|got| &got.body).collect();
            let expected: Vec<_> = recorded.replies.iter().collect();
            assert_eq!(replies, expected, "{}: {:?}", file.display(), answer.calls);
        }
    }

    /// Your program writes first, by REST and without a template: what becomes of that.
    pub async fn writes(&self, user: &User<'_>, text: &str) -> Sent {
        let api = ApiUrl::parse(self.remote.url()).expect("the emulator has a URL");
        let client = Client::new(api);
        let (account, token) = &self.account;
        let credentials = Credentials::auth_token(*account, token.clone());
        let message = NewMessage::text(user.address(), text).from(user.sender());
        // Nobody has looked: what comes of that is what the test is to see.
        let now = SystemClock.now();
        let window = OpenWindow::of(&message.to, Some(now), now).expect("of who has just written");
        let created = client
            .messages(*account, &credentials)
            .create(&message, &window)
            .await;
        let created = match created {
            Ok(created) => created,
            Err(error) => return Sent::refused(error.code()),
        };
        let sid = created.sid.to_string();
        let path = ["conversations", user.address()];
        self.until("the message is on the phone, or has failed", || async {
            let shown = must(self.remote.get(&path)).await;
            let mut shown = shown.as_array().cloned().unwrap_or_default().into_iter();
            let message = shown.find(|message| message["sid"] == sid.as_str())?;
            let status = message["status"].as_str()?.to_owned();
            let is_final = FINAL.contains(&&*status);
            is_final.then(|| Sent::new(status, message["error_code"].as_u64()))
        })
        .await
    }

    /// What your program sends first with: [`App::sender`](crate::App::sender) of the bot as it runs now.
    ///
    /// ```
    /// use replyhook::App;
    /// use replyhook::testing::TestBot;
    /// use replyhook::twilio::NewMessage;
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// let bot = TestBot::start(App::builder).await;
    /// let ana = bot.whatsapp("+34600000001");
    /// ana.says("hi").await;
    /// let ready = NewMessage::text(ana.address(), "It is ready.").from(ana.sender());
    /// let sent = bot.sender().await.send_once("order-42", &ready).await.unwrap();
    /// bot.outcome(&sent).await.assert_delivered();
    /// # bot.stop().await;
    /// # }
    /// ```
    pub async fn sender(&self) -> Sender {
        let sender = self.desk.lock().await.sender();
        sender.expect("the bot runs on the desk")
    }

    /// What becomes of a message that [`TestBot::sender`] took.
    pub async fn outcome(&self, taken: &Outgoing) -> Sent {
        let sender = self.sender().await;
        self.until("the message is on the phone, or has failed", || async {
            let now = must(sender.outgoing(taken.id)).await?;
            let status = match now.state? {
                ReplyState::Failed | ReplyState::Suppressed => "refused".to_owned(),
                _ => now.status.filter(|status| FINAL.contains(&&**status))?,
            };
            Some(Sent::new(status, now.error_code.map(u64::from)))
        })
        .await
    }

    /// How often your handler was called.
    pub async fn handler_runs(&self) -> u64 {
        self.desk.lock().await.handler_runs()
    }

    /// The emulator's control interface, for everything else.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Ends everything. A test's runtime does so too.
    pub async fn stop(self) {
        self.desk.into_inner().stop().await;
    }

    /// Delivers, moving the clock on past a handler that takes its time, until the bot is done with the user.
    async fn exchange(&self, user: &str, path: &[&str], body: &Value) -> Answer {
        self.exchange_all(user, path, std::slice::from_ref(body))
            .await
    }

    /// The same of several that come before the bot has answered; the answer is what the first led to, and what the phone
    /// got because of all.
    async fn exchange_all(&self, user: &str, path: &[&str], bodies: &[Value]) -> Answer {
        let known = self.sent_to(user).await;
        let before = self.handler_runs().await;
        let (handler, deadline, pause) = {
            let state = self.state();
            (state.handler, state.deadline, state.pause)
        };
        let deliver = async |body: &Value| {
            let answered = tokio::time::timeout(PATIENCE, self.remote.post(path, body)).await;
            let answered = answered.unwrap_or_else(|_| panic!("Twilio's part did not end"));
            answered.unwrap_or_else(|error| panic!("the emulator: {error}"))
        };
        // Each once the bot has the one before it, so that they come in this order.
        let delivery = async {
            let each = bodies.iter().enumerate().map(async |(number, body)| {
                if number > 0 {
                    self.until("the bot has the message before", || async {
                        (self.pending(user).await >= number).then_some(())
                    })
                    .await;
                }
                deliver(body).await
            });
            let mut all = futures_util::future::join_all(each).await;
            all.swap_remove(0)
        };
        let passing = async {
            if !pause.is_zero() {
                self.until("the bot has the message", || async {
                    (self.pending(user).await >= bodies.len()).then_some(())
                })
                .await;
                self.move_clock(pause);
            }
            if handler.is_zero() {
                return;
            }
            self.until("the handler was called", || async {
                (self.handler_runs().await > before).then_some(())
            })
            .await;
            // To the deadline, and no further: Twilio is to be answered before the handler is.
            self.move_clock(handler.min(deadline));
        };
        tokio::pin!(delivery);
        let answered = tokio::select! {
            answered = &mut delivery => answered,
            () = passing => delivery.await,
        };
        self.move_clock(handler.saturating_sub(deadline));
        self.until("the bot is done", || async {
            (self.pending(user).await == 0).then_some(())
        })
        .await;
        let runs = self.handler_runs().await - before;
        let sid = answered["message_sid"].as_str().unwrap_or_default();
        let runs = {
            let mut state = self.state();
            let all = state.runs.entry(sid.to_owned()).or_default();
            *all += runs;
            *all
        };
        let shown = must(self.remote.get(&["conversations", user])).await;
        let is_new = |message: &&Value| {
            let sid = message["sid"].as_str().unwrap_or_default();
            message["direction"] == "out" && !known.contains(&sid.to_owned())
        };
        let shown = shown.as_array().cloned().unwrap_or_default();
        let got: Vec<Got> = shown.iter().filter(is_new).map(Got::new).collect();
        let answer = Answer::new(user, &answered, got, runs);
        self.state().last = Some(answer.clone());
        answer
    }

    /// How many of a user's messages the bot is not done with.
    async fn pending(&self, user: &str) -> usize {
        let state = must(self.remote.get(&["state", user])).await;
        let pending = state["pending"].as_u64().unwrap_or_default();
        usize::try_from(pending).unwrap_or(usize::MAX)
    }

    async fn sent_to(&self, user: &str) -> Vec<String> {
        let shown = must(self.remote.get(&["conversations", user])).await;
        let shown = shown.as_array().cloned().unwrap_or_default();
        let sids = shown.iter().filter_map(|message| message["sid"].as_str());
        sids.map(str::to_owned).collect()
    }

    fn move_clock(&self, time: Duration) {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        self.clock.advance(time);
    }

    /// Looks until there is something.
    async fn until<T, F, Fut>(&self, what: &str, look: F) -> T
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Option<T>>,
    {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("waited in vain until {what}"))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TestBot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestBot").finish_non_exhaustive()
    }
}

/// What emulator and store must be able to do.
async fn must<T, E: std::error::Error>(asked: impl Future<Output = Result<T, E>>) -> T {
    asked
        .await
        .unwrap_or_else(|error| panic!("the bot's surroundings: {error}"))
}
