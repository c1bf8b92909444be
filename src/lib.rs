//! Receive WhatsApp and SMS messages through Twilio, and answer them.
//!
//! replyhook is the endpoint you give Twilio as a sender's webhook: it verifies `X-Twilio-Signature`, turns the form into
//! an [`InboundMessage`], hands it to your [`Handler`], and answers with TwiML.
//!
//! ```no_run
//! # #[cfg(feature = "server")] {
//! use replyhook::{App, Context, InboundMessage};
//!
//! async fn bot(_cx: Context, message: InboundMessage) -> String {
//!     format!("You said: {}", message.body)
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), replyhook::StartError> {
//!     App::builder().handler(bot).build()?.run().await
//! }
//! # }
//! ```
//!
//! # Four doors
//!
//! 1. **The binary**, `replyhook serve`: a built-in handler, no Rust needed.
//! 2. **The app**, [`App::run`]: what stands above.
//! 3. **The router**, [`App::into_parts`]: mount the webhooks in an axum server of your own.
//! 4. **The parts**: [`signature::SignatureLayer`] for any tower stack; [`signature::SignatureVerifier`],
//!    [`InboundMessage::parse`] and [`twiml::Document`] without axum, tokio or a server.
//!
//! # The way of a message
//!
//! A request passes limits on its size, time and number; the signature layer decodes its pairs once and verifies them;
//! the endpoint reads an [`InboundMessage`] from those same pairs; the journal keeps it, once; the dispatcher runs the
//! handler in a task of its own until the deadline; its [`Reply`] is rendered as TwiML and saved before it is given, or goes
//! by REST when it is late. Where that fails Twilio gets an error and calls the fallback endpoint, which cannot fail.
//!
//! # Modules, in the order of that way
//!
//! | module | what |
//! |---|---|
//! | [`signature`] | verifying requests, and explaining why one does not verify |
//! | [`form`] | decoded pairs |
//! | [`message`], [`address`], [`sid`], [`error_code`] | what Twilio sends, as types |
//! | [`handler`] | your code: by itself, out of routes (`route`), with follow-up questions (`dialogue`), or in a file of rules |
//! | [`reply`], [`twiml`] | what it says, and how that is written |
//! | [`store`] | what is kept: journal, conversations, outbox |
//! | `twilio` (feature `client`) | the REST API |
//! | `sending` (feature `app`) | messages that answer nothing |
//! | `reconcile` (feature `app`) | what is kept, compared with Twilio's list |
//! | [`config`], [`telemetry`] | settings; metrics and logs |
//! | [`probe`] | what tells one server from all others |
//! | [`clock`] | the time, for tests to move |
//!
//! # Features
//!
//! Additive; `default = ["cli", "sqlite", "postgres", "emulator"]`. With none: vocabulary, form, TwiML, verifier,
//! explanations, [`Handler`], the traits of [`store`], without tokio or axum.
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | [`SignatureLayer`], [`SignedForm`] |
//! | `route` | `route::Router` and `dialogue::Form` |
//! | `rules` | `handler::Rules`: a bot in a file |
//! | `app` | the router, settings, [`App::into_parts`]; it needs a store |
//! | `sqlite`, `postgres` | `app` with that store |
//! | `server` | the accept loop, the private listener, logs, [`App::run`] |
//! | `client` | Twilio's REST API |
//! | `emulator` | what plays Twilio's part |
//! | `cli` | the `replyhook` command |
//! | `otel` | traces by OTLP |
//! | `failpoints` | places where tests end the process |

#![cfg_attr(
    not(feature = "server"),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the front page names every door"
    )
)]

pub mod address;
#[cfg(feature = "app")]
pub mod admin;
#[cfg(feature = "app")]
mod app;
pub mod clock;
#[cfg(feature = "app")]
pub mod config;
#[cfg(feature = "axum")]
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "only the accept loop has connections")
)]
mod connection;
#[cfg(feature = "app")]
mod consent;
#[cfg(feature = "server")]
mod core_dumps;
#[doc(hidden)]
pub mod crash_point;
#[cfg(feature = "app")]
mod delivery;
#[cfg(feature = "server")]
mod descriptors;
#[cfg(feature = "app")]
mod dispatch;
#[cfg(feature = "emulator")]
pub mod emulator;
mod error;
pub mod error_code;
pub mod form;
pub mod handler;
#[cfg(feature = "app")]
mod lifecycle;
#[cfg(feature = "app")]
mod media;
pub mod message;
pub mod probe;
#[cfg(feature = "app")]
pub mod reconcile;
mod redact;
pub mod reply;
mod secret;
#[cfg(feature = "app")]
pub mod sending;
#[cfg(feature = "server")]
mod server;
pub mod sid;
pub mod signature;
#[cfg(feature = "app")]
mod start_error;
pub mod store;
#[cfg(feature = "app")]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "client")]
mod tls;
#[cfg(feature = "client")]
pub mod twilio;
pub mod twiml;
#[cfg(feature = "app")]
mod webhook;
#[cfg(feature = "app")]
mod worker;

pub use address::{Address, Channel};
#[cfg(feature = "app")]
pub use app::{App, AppBuilder, open_later, verifier};
#[cfg(all(feature = "server", feature = "emulator"))]
pub use app::{Desk, DeskOptions};
#[cfg(feature = "axum")]
pub use clock::SystemClock;
pub use clock::{Clock, ManualClock, Timestamp};
#[cfg(feature = "app")]
pub use dispatch::{ConsentChange, ConsentKind};
pub use error::BoxError;
pub use error_code::ErrorCode;
pub use form::Form;
pub use handler::{Context, Echo, Handler, HandlerError, IncomingMedia, MediaError, handler_fn};
#[cfg(feature = "route")]
pub use handler::{dialogue, route};
#[cfg(feature = "app")]
pub use media::saved_files;
pub use message::{ConversationEvent, FallbackCause, InboundMessage, MessageStatus, StatusUpdate};
pub use reply::{IntoReply, Media, Reply, ReplyMessage};
pub use secret::Secret;
#[cfg(feature = "app")]
pub use sending::Sender;
pub use sid::{AccountSid, MediaSid, MessageSid, MessagingServiceSid};
#[cfg(feature = "axum")]
pub use signature::{SignatureLayer, SignedForm};
#[cfg(feature = "app")]
pub use start_error::{StartError, StartErrorKind};

#[cfg(feature = "app")]
pub use worker::Worker;

/// The Rust blocks of README and manual.
#[cfg(all(doctest, feature = "server"))]
mod documents {
    #[cfg(feature = "testing")]
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/src/explanation/status-callbacks.md")]
    struct StatusCallbacks;
    #[doc = include_str!("../docs/src/explanation/timeouts-late-replies.md")]
    struct TimeoutsLateReplies;
    #[doc = include_str!("../docs/src/how-to/handoff.md")]
    struct Handoff;
    #[doc = include_str!("../docs/src/how-to/media.md")]
    struct Media;
    #[doc = include_str!("../docs/src/how-to/migrate.md")]
    struct Migrate;
    #[doc = include_str!("../docs/src/how-to/mount-in-axum.md")]
    struct MountInAxum;
    #[doc = include_str!("../docs/src/how-to/outbound.md")]
    struct Outbound;
    #[cfg(feature = "testing")]
    #[doc = include_str!("../docs/src/how-to/test.md")]
    struct Test;
    #[doc = include_str!("../docs/src/how-to/verify-only.md")]
    struct VerifyOnly;
    #[doc = include_str!("../docs/src/reference/handler-api.md")]
    struct HandlerApi;
    #[doc = include_str!("../docs/src/reference/routes.md")]
    struct Routes;
    #[cfg(feature = "testing")]
    #[doc = include_str!("../docs/src/tutorial/rust-bot.md")]
    struct RustBot;
}
