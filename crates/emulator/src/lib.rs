//! Local stand-in for Twilio: simulates users' phones, posts signed webhooks, executes TwiML responses, serves Twilio's
//! REST API and sends status callbacks. It needs neither an account nor the internet.
//!
//! The emulator follows Twilio's documentation, and calls servers in any language. Four interfaces control it: the page
//! at `/`, the control API under `/_emulator`, `replyhook chat` and the test kit.
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
//! Three properties keep it harmless and testable. It listens on loopback only. It generates its own auth token, so its
//! signatures are never valid for a real account. It reads the time from the clock passed to [`Emulator::new`], which
//! tests can advance.

mod access_key;
mod account;
mod api_key;
mod app_inspector;
mod client;
mod content;
mod control;
mod control_action;
mod emulator;
mod engine;
mod faults;
mod files;
mod http_client;
mod links;
mod media;
mod opt_out;
mod options;
mod origin;
mod overrides;
mod page;
mod record;
#[doc(hidden)]
pub mod recording;
mod response_check;
mod rest;
mod scripted_conversation;
mod send;
mod shared_location;
mod signed_request;
mod state;
mod status;
mod tap;
mod test_export;
mod user;
mod webhook;
mod webhook_calls;
mod webhook_client;
mod webhook_params;

pub use account::{SENDERS, sender_for};
pub use app_inspector::AppInspector;
pub use client::{EmulatorClient, EmulatorClientError, EmulatorEvent, EventStream};
pub use emulator::{Emulator, EmulatorError};
pub use options::EmulatorOptions;
pub use signed_request::{
    SignedRequest, SignedRequestError, SignedResponse, send_signed, send_unsigned,
};
pub use webhook_params::SimulatedMessage;
