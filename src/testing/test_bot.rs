//! [`TestBot`]: an app and an emulator under test.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::exchange::{DeliveryExchange, ReceivedMessage, SendResult, path_of};
use crate::address::Address;
use crate::app::{AppBuilder, DevServer, DevServerOptions};
use crate::clock::ManualClock;
use crate::config::Sources;
use crate::emulator::EmulatorClient;
use crate::emulator::recording::{self, Recorded};
use crate::lock::IgnorePoison;
use crate::outbound::{OutboundClient, SendReceipt};
use crate::sid::{AccountSid, MessageSid};
use crate::store::OutboundState;
use replyhook_core::Secret;

/// Real time after which waiting for the bot or the emulator fails the test.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of checks while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Real time after which a message of unknown result counts as waiting for the clock.
// The outbox worker polls every second, and a look-up on this machine takes a fraction of that.
const LOOKUP_TIME: Duration = Duration::from_secs(2);
/// Message statuses after which a test does not wait longer.
pub(super) const FINAL_STATUSES: [&str; 5] =
    ["delivered", "read", "failed", "undelivered", "canceled"];
/// Start of the clock: Monday 2026-01-05, 09:00 UTC. Fixed, so that no test depends on the day it runs.
const CLOCK_START: i64 = 1_767_603_600;

/// App under test, with an emulator and a clock of its own.
///
/// [This module](super) has an example of a whole test. Sending a message returns a [`DeliveryExchange`].
pub struct TestBot {
    dev_server: tokio::sync::Mutex<DevServer>,
    build_app: Box<dyn Fn() -> AppBuilder + Send + Sync>,
    pub(super) emulator_client: EmulatorClient,
    pub(super) account: (AccountSid, Secret),
    clock: Arc<ManualClock>,
    /// Path of the app's fallback URL.
    fallback_path: String,
    /// All active faults: `PUT faults` replaces them as a whole.
    // Locked until the emulator has responded. Otherwise two concurrent changes could arrive in reverse order, and the
    // older one would undo the newer one.
    faults: tokio::sync::Mutex<Value>,
    state: Mutex<BotState>,
}

#[derive(Default)]
struct BotState {
    /// Injected latency of the handler.
    handler_latency: Duration,
    /// Reply deadline of the app.
    deadline: Duration,
    /// `reply.debounce_ms` of the app.
    debounce: Duration,
    /// Exchange of the last message, for [`TestBot::redeliver`].
    last: Option<DeliveryExchange>,
    /// The messages that were sent in one burst, by the `MessageSid` of the first.
    bursts: HashMap<String, Vec<MessageSid>>,
}

impl TestBot {
    /// Starts the app that `build_app` returns. [`TestBot::restart`] calls `build_app` again.
    ///
    /// Settings have their defaults, except that `guard.loop_detection` is off and `outbound.rate_per_second` is 0. Since time
    /// stands still, users in tests send messages as fast as another bot would, and a message that waits for its turn would
    /// wait forever.
    ///
    /// # Panics
    /// If the app does not start.
    pub async fn start(build_app: impl Fn() -> AppBuilder + Send + Sync + 'static) -> Self {
        Self::start_with(Sources::default(), build_app).await
    }

    /// Starts the app with settings, as in `Sources::default().with_file("bot.toml")`.
    ///
    /// # Panics
    /// If the app does not start.
    pub async fn start_with(
        mut sources: Sources,
        build_app: impl Fn() -> AppBuilder + Send + Sync + 'static,
    ) -> Self {
        let start = Timestamp::from_second(CLOCK_START).unwrap_or_default();
        let clock = Arc::new(ManualClock::new(start));
        let options = DevServerOptions {
            emulator_port: Some(0),
            port: Some(0),
            clock: Some(clock.clone()),
            // A test's own subscriber decides, if there is one.
            logs: false,
            ..DevServerOptions::default()
        };
        // Defaults, so that `sources` can set them.
        for (key, value) in [
            ("guard.loop_detection", "false"),
            ("outbound.rate_per_second", "0"),
        ] {
            let default = sources.defaults.entry(key);
            default.or_insert_with(|| value.to_owned());
        }
        let dev_server = DevServer::start(build_app(), sources, options).await;
        let dev_server =
            dev_server.unwrap_or_else(|error| panic!("the bot does not start: {error}"));
        let emulator = dev_server.emulator();
        let client = EmulatorClient::new(emulator.url()).expect("the emulator is on this machine");
        let account = (emulator.account_sid(), emulator.auth_token().clone());
        let config = expect_ok(client.get(&["config"])).await;
        let millis = |name: &str| Duration::from_millis(config[name].as_u64().unwrap_or_default());
        Self {
            dev_server: tokio::sync::Mutex::new(dev_server),
            build_app: Box::new(build_app),
            emulator_client: client,
            account,
            clock,
            fallback_path: path_of(config["fallback"].as_str().unwrap_or_default()).to_owned(),
            faults: tokio::sync::Mutex::new(json!({})),
            state: Mutex::new(BotState {
                deadline: millis("deadline_ms"),
                debounce: millis("pause_ms"),
                ..BotState::default()
            }),
        }
    }

    /// Makes the handler take `time` longer. The test does not wait: it advances the clock while the handler runs.
    pub async fn set_handler_latency(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut faults = self.faults.lock().await;
        self.put_fault(&mut faults, "handler_ms", json!(ms)).await;
        // Before the lock is released: of two concurrent calls, the same one must decide here and in the emulator.
        self.state().handler_latency = time;
    }

    /// Makes the handler fail, or work again.
    pub async fn set_handler_failing(&self, fails: bool) {
        self.set_fault("handler_fails", json!(fails)).await;
    }

    /// Makes Twilio's calls of the primary handler fail, or work again.
    ///
    /// The call reaches the app, but the connection is dropped before the response is read. Twilio then calls the
    /// fallback URL.
    pub async fn set_primary_down(&self, is_down: bool) {
        self.set_fault("drop_connection", json!(is_down)).await;
    }

    /// Sets a fault of the emulator by its name in the control API, such as `duplicate`. `Value::Null` clears it.
    pub async fn set_fault(&self, name: &str, value: Value) {
        let mut faults = self.faults.lock().await;
        self.put_fault(&mut faults, name, value).await;
    }

    async fn put_fault(&self, faults: &mut Value, name: &str, value: Value) {
        if value.is_null() {
            faults.as_object_mut().map(|faults| faults.remove(name));
        } else {
            faults[name] = value;
        }
        expect_ok(self.emulator_client.put(&["faults"], faults)).await;
    }

    /// Advances the clock of app and emulator.
    pub async fn advance(&self, time: Duration) {
        self.move_clock(time);
        // Lets the tasks run whose timers have just fired.
        tokio::task::yield_now().await;
    }

    /// Delivers the last message again, with the same `MessageSid`.
    ///
    /// # Panics
    /// If no message was sent before.
    pub async fn redeliver(&self) -> DeliveryExchange {
        let last = self.state().last.clone();
        let last = last.expect("nothing to redeliver; send a message first");
        let path = ["messages", &last.message_sid, "redeliver"];
        let redelivered = self.exchange(&last.user, &path, &json!({})).await;
        redelivered.with_previous(last)
    }

    /// Shuts the app down gracefully, and starts it again with the same store.
    ///
    /// # Panics
    /// If the app does not start again.
    pub async fn restart(&self) {
        let mut dev_server = self.dev_server.lock().await;
        let restarted = dev_server.restart((self.build_app)()).await;
        restarted.unwrap_or_else(|error| panic!("the bot does not start again: {error}"));
    }

    /// Sends the messages recorded by `replyhook dev --record DIR`, and asserts that the replies are the same.
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
            let exchange = self.exchange(&user, &["messages"], &message).await;
            let replies: Vec<_> = exchange
                .received
                .iter()
                .map(|message| &message.body)
                .collect();
            let expected: Vec<_> = recorded.replies.iter().collect();
            assert_eq!(
                replies,
                expected,
                "{}: {:?}",
                file.display(),
                exchange.calls
            );
        }
    }

    /// Returns the app's client for outbound messages, as [`App::outbound`](crate::App::outbound) does. After
    /// [`TestBot::restart`], call this again.
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
    /// let receipt = bot.outbound().await.send_once("order-42", &ready).await.unwrap();
    /// bot.send_result(&receipt).await.assert_delivered();
    /// # bot.stop().await;
    /// # }
    /// ```
    pub async fn outbound(&self) -> OutboundClient {
        let client = self.dev_server.lock().await.outbound();
        client.expect("the dev server runs the app")
    }

    /// Waits for the final status of a message that [`TestBot::outbound`] accepted.
    ///
    /// The status is `held` if the message waits for an operator. It is `unknown` if the result of the REST call is not
    /// known and the message waits for the clock: after [`TestBot::advance`], the app searches Twilio's list for it.
    pub async fn send_result(&self, receipt: &SendReceipt) -> SendResult {
        let client = self.outbound().await;
        let unknown_since = OnceLock::new();
        self.wait_until("the message has a final status", || async {
            let current = expect_ok(client.receipt(receipt.id)).await?;
            let status = match current.state? {
                OutboundState::Failed | OutboundState::Suppressed => "rejected".to_owned(),
                OutboundState::Held => OutboundState::Held.as_str().to_owned(),
                // Not immediately: after `advance`, a look-up may be due that ends this state.
                OutboundState::Unknown => {
                    let since = unknown_since.get_or_init(Instant::now);
                    let is_waiting = since.elapsed() >= LOOKUP_TIME;
                    is_waiting.then(|| OutboundState::Unknown.as_str().to_owned())?
                }
                _ => current
                    .status
                    .filter(|status| FINAL_STATUSES.contains(&&**status))?,
            };
            Some(SendResult::new(status, current.error_code.map(u64::from)))
        })
        .await
    }

    /// Returns the number of handler calls since the start, restarts included.
    pub async fn handler_calls(&self) -> u64 {
        self.dev_server.lock().await.handler_calls()
    }

    /// Returns a client of the emulator's control API, for everything else.
    pub fn emulator_client(&self) -> &EmulatorClient {
        &self.emulator_client
    }

    /// Stops app and emulator. Optional: they end with the test's runtime too.
    pub async fn stop(self) {
        self.dev_server.into_inner().stop().await;
    }

    /// Sends one message and waits until the app has processed it. Advances the clock past the handler's latency.
    pub(super) async fn exchange(
        &self,
        user: &str,
        path: &[&str],
        body: &Value,
    ) -> DeliveryExchange {
        self.exchange_all(user, path, std::slice::from_ref(body))
            .await
    }

    /// Sends several messages concurrently, before the app replies to any. Returns the exchange of the first, with the
    /// messages that the phone received because of all.
    pub(super) async fn exchange_all(
        &self,
        user: &str,
        path: &[&str],
        bodies: &[Value],
    ) -> DeliveryExchange {
        let known_sids = self.sids_sent_to(user).await;
        // By user: another user's call must not advance the clock before this handler has started to wait for it.
        let author = Address::parse(user);
        let calls_before = self.handler_calls_from(&author).await;
        let (handler_latency, deadline, debounce) = {
            let state = self.state();
            (state.handler_latency, state.deadline, state.debounce)
        };
        let deliver = async |body: &Value| {
            let delivered =
                tokio::time::timeout(DELIVERY_TIMEOUT, self.emulator_client.post(path, body)).await;
            let delivered = delivered.unwrap_or_else(|_| {
                panic!("the webhook calls did not end within {DELIVERY_TIMEOUT:?} of real time")
            });
            delivered.unwrap_or_else(|error| panic!("the emulator failed: {error}"))
        };
        // Send each message when the app has accepted the one before, so that they arrive in order.
        let delivery = async {
            let each = bodies.iter().enumerate().map(async |(number, body)| {
                if number > 0 {
                    self.wait_until("the bot has accepted the message before", || async {
                        (self.pending(user).await >= number).then_some(())
                    })
                    .await;
                }
                deliver(body).await
            });
            futures_util::future::join_all(each).await
        };
        // Advances the clock while the delivery waits for it.
        let clock_advance = async {
            if !debounce.is_zero() {
                // All messages first: one that arrives after the pause would not be combined with the others.
                self.wait_until("the bot has accepted the messages", || async {
                    (self.pending(user).await >= bodies.len()).then_some(())
                })
                .await;
                self.move_clock(debounce);
            }
            if handler_latency.is_zero() {
                return;
            }
            // The injected latency starts with the call: advancing before it would not shorten it.
            self.wait_until("the handler was called", || async {
                (self.handler_calls_from(&author).await > calls_before).then_some(())
            })
            .await;
            // No further than the deadline: Twilio must get its response before a late handler returns.
            self.move_clock(handler_latency.min(deadline));
        };
        tokio::pin!(delivery);
        // The delivery can end first, when the handler is not called, as for a redelivery or an opted-out user. Then
        // there is nothing to wait for.
        let delivered = tokio::select! {
            delivered = &mut delivery => delivered,
            () = clock_advance => delivery.await,
        };
        // Now the late handler may return.
        self.move_clock(handler_latency.saturating_sub(deadline));
        self.wait_until("the bot has no pending messages", || async {
            (self.pending(user).await == 0).then_some(())
        })
        .await;
        let delivered_sids = delivered.iter().filter_map(|delivered| {
            let sid = delivered["message_sid"].as_str()?;
            sid.parse::<MessageSid>().ok()
        });
        let delivered_sids: Vec<_> = delivered_sids.collect();
        let delivered = &delivered[0];
        // By message, not by time: users may send concurrently. A redelivery counts the calls for all messages of the
        // first delivery, because `assert_handler_runs` covers both.
        let sids = {
            let first = delivered["message_sid"].as_str().unwrap_or_default();
            let mut state = self.state();
            let burst = state.bursts.entry(first.to_owned());
            burst.or_insert(delivered_sids).clone()
        };
        let runs = {
            let dev_server = self.dev_server.lock().await;
            let findings = dev_server.keyword_findings(&sids);
            // Not a redelivery: the first delivery has failed already.
            assert!(findings.is_empty(), "{}", findings.join("\n"));
            dev_server.handler_calls_for(&sids)
        };
        // From the conversation, not from `delivered`, which has no replies sent after the webhook calls.
        let conversation = expect_ok(self.emulator_client.get(&["conversations", user])).await;
        let is_new = |message: &&Value| {
            let sid = message["sid"].as_str().unwrap_or_default();
            message["direction"] == "out" && !known_sids.contains(&sid.to_owned())
        };
        let conversation = conversation.as_array().cloned().unwrap_or_default();
        let received: Vec<ReceivedMessage> = conversation
            .iter()
            .filter(is_new)
            .map(ReceivedMessage::new)
            .collect();
        let fallback = self.fallback_path.as_str();
        let exchange = DeliveryExchange::new(user, delivered, received, runs, fallback);
        self.state().last = Some(exchange.clone());
        exchange
    }

    async fn handler_calls_from(&self, user: &Address) -> u64 {
        self.dev_server.lock().await.handler_calls_from(user)
    }

    /// Returns the number of a user's messages that the app has accepted and not finished.
    async fn pending(&self, user: &str) -> usize {
        let state = expect_ok(self.emulator_client.get(&["state", user])).await;
        let pending = state["pending"].as_u64().unwrap_or_default();
        usize::try_from(pending).unwrap_or(usize::MAX)
    }

    async fn sids_sent_to(&self, user: &str) -> Vec<String> {
        let conversation = expect_ok(self.emulator_client.get(&["conversations", user])).await;
        let conversation = conversation.as_array().cloned().unwrap_or_default();
        let sids = conversation
            .iter()
            .filter_map(|message| message["sid"].as_str());
        sids.map(str::to_owned).collect()
    }

    fn move_clock(&self, time: Duration) {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        self.clock.advance(time);
    }

    /// Polls until `poll` returns a value.
    ///
    /// # Panics
    /// After [`DELIVERY_TIMEOUT`] of real time.
    pub(super) async fn wait_until<T, F, Fut>(&self, condition: &str, poll: F) -> T
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Option<T>>,
    {
        let found = tokio::time::timeout(DELIVERY_TIMEOUT, async {
            loop {
                if let Some(found) = poll().await {
                    return found;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        found.await.unwrap_or_else(|_| {
            panic!("timed out after {DELIVERY_TIMEOUT:?} waiting until {condition}")
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, BotState> {
        self.state.lock().ignore_poison()
    }
}

impl std::fmt::Debug for TestBot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestBot").finish_non_exhaustive()
    }
}

/// Panics if a request to the emulator or the store fails, which no test expects.
pub(super) async fn expect_ok<T, E: std::error::Error>(
    request: impl Future<Output = Result<T, E>>,
) -> T {
    request
        .await
        .unwrap_or_else(|error| panic!("the emulator or the store failed: {error}"))
}
