//! Test kit: runs an app and the emulator in the test process.
//!
//! Requests are signed, routed, stored and replied to as in production. The store is in memory, and time stands still
//! until the test advances it. Methods panic when something fails, like assertions. They also panic if the bot offers an
//! answer that is an opt-out, opt-in or help keyword of the channel, as a choice or as a word of a form.
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
//! ana.says("order 42").await.assert_reply("Got order 42.").assert_replied_inline();
//! bot.redeliver().await.assert_same_response().assert_handler_runs(1);
//!
//! bot.set_handler_latency(Duration::from_secs(20)).await;
//! ana.says("order 43").await.assert_replied_via_rest("Got order 43.");
//! bot.set_handler_latency(Duration::ZERO).await;
//!
//! bot.set_primary_down(true).await;
//! ana.says("order 44").await.assert_fallback("Got order 44.");
//! bot.set_primary_down(false).await;
//!
//! bot.restart().await;
//! bot.advance(Duration::from_hours(25)).await;
//! bot.send_to(&ana, "News!").await.assert_rejected(63016);
//! # bot.stop().await;
//! # }
//! ```

mod exchange;
mod offer;
mod test_bot;
mod user;

pub use self::exchange::{DeliveryExchange, ReceivedMessage, SendResult};
pub use self::test_bot::TestBot;
pub use self::user::User;
