//! A Twilio on this machine: it plays a user's phone, signs and posts webhooks, executes what they answer, serves Twilio's
//! REST API to the bot, and reports what becomes of messages. Nothing of it needs an account or the internet.
//!
//! It behaves as Twilio's documents say Twilio does, not as our server would like it, and calls servers in any language.
//! Four faces show it: the page at `/`, the control interface under `/_emulator`, `replyhook chat` and the test kit.
//!
//! ```no_run
//! # #[cfg(feature = "app")]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use replyhook::clock::ShiftedClock;
//! use replyhook::emulator::{Emulator, EmulatorOptions};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8081").await?;
//! let webhook = "http://localhost:3000/sms";
//! let emulator = Emulator::new(EmulatorOptions::new(webhook), Arc::new(ShiftedClock::default()), &listener)?;
//! emulator.serve(listener, std::future::pending()).await?;
//! # Ok(()) }
//! ```
//!
//! Its rules: it listens on loopback and nowhere else; its token is its own, so that no page can have it sign what a real
//! server believes; it follows the clock that it is handed, which can be moved on.

mod access_key;
mod account;
mod answer;
mod as_test;
mod call;
mod calling;
mod control;
mod document;
mod engine;
mod faults;
mod fetching;
mod files;
mod links;
mod media;
mod opt_out;
mod origin;
mod outgoing;
mod overrides;
mod page;
mod record;
pub(crate) mod recording;
mod remote;
mod rest;
mod send;
mod state;
mod status;
mod traffic;
mod user;
mod webhook;

pub use account::{SENDERS, sender_for};
pub use call::{Call, CallError, CallResult, call};
pub use engine::{Emulator, EmulatorError, EmulatorOptions, OwnServer};
pub use remote::{Remote, RemoteError, RemoteEvent, RemoteEvents};
pub use traffic::UserSends;
