//! A webhook server for Twilio WhatsApp and SMS bots: a library and the command `replyhook`.
//!
//! Twilio calls a webhook for each message that a user sends to your WhatsApp or SMS number. replyhook validates
//! `X-Twilio-Signature`, stores and deduplicates the message, calls your [`Handler`], and replies with TwiML. A reply
//! that is not ready before the deadline goes via Twilio's REST API. A bot in Rust is one async function:
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
//! async fn main() -> Result<(), replyhook::AppError> {
//!     App::builder().handler(bot).build()?.run().await
//! }
//! # }
//! ```
//!
//! The settings come from `replyhook.toml` and the environment. The server needs at least `TWILIO_AUTH_TOKEN` and
//! `PUBLIC_URL`. As a library, the crate needs only two features:
//!
//! ```toml
//! replyhook = { version = "0.1", default-features = false, features = ["server", "sqlite"] }
//! ```
//!
//! # Ways to use replyhook
//!
//! 1. **The command**: `replyhook serve` runs a rules file, or forwards each message as JSON to your service in any
//!    language. `replyhook dev` runs it with an emulated Twilio.
//! 2. **The app**: [`App::run`] is a complete server for your [`Handler`], as above.
//! 3. **The router**: [`App::into_parts`] returns an axum router to mount in your own server, and the [`Worker`] to run
//!    with it.
//! 4. **Single parts**: [`SignatureLayer`] validates requests in any tower stack. [`signature::SignatureVerifier`],
//!    [`InboundMessage::parse`] and [`twiml::Document`] work without axum, tokio or a server.
//!
//! # Path of a message
//!
//! 1. The server limits size, duration and number of requests. The signature layer decodes the parameters once and
//!    verifies the signature over them.
//! 2. The endpoint reads an [`InboundMessage`] from the same parameters.
//! 3. The journal stores the message. A redelivery gets the saved response.
//! 4. The dispatcher runs the handler in its own task, and waits for the [`Reply`] until the deadline.
//! 5. The reply is rendered as TwiML and saved before it is sent. A late reply goes into the outbox instead, which
//!    sends it via the REST API.
//! 6. If a step fails, Twilio gets an error and calls the fallback URL. A verified fallback call gets a 200, except for
//!    parameters that are not a message (400), a body that is not a form (415), and a store that is not open yet (503).
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`signature`] | signature validation, and the reason why a request fails it |
//! | [`form`] | decoded form parameters |
//! | [`message`], [`address`], [`sid`], [`error_code`] | Twilio's webhook parameters as types |
//! | [`handler`] | the [`Handler`] trait, the context of a message, and the echo handler |
//! | `forward` (feature `client`), `rules` (feature `rules`) | handlers: an HTTP service in any language; a TOML file |
//! | `route`, `dialogue` (feature `route`) | routes and filters; forms that ask one question after the other |
//! | [`reply`], [`twiml`] | replies, and their TwiML |
//! | [`choice`] | questions with choices, and their answers |
//! | [`store`] | the SQLite and PostgreSQL stores; consents and customer service windows |
//! | `twilio` (feature `client`) | client of Twilio's REST API |
//! | `outbound` (feature `app`) | outbound messages, which do not reply to a user |
//! | `reconcile` (feature `app`) | comparison of Twilio's message list with the journal |
//! | `config`, `telemetry`, `admin` (feature `app`) | settings; metrics; health checks |
//! | `emulator`, `testing` (features of that name) | a local stand-in for Twilio; the test kit for your bot |
//! | [`probe`] | signed test requests that show which server a URL leads to |
//! | [`clock`] | the time, which tests can advance |
//!
//! # Features
//!
//! Features are additive. `default = ["cli", "sqlite", "postgres", "emulator"]`. Without any feature the crate has
//! messages, forms, TwiML, the signature verifier with its explanations, and [`Handler`]. It then needs neither tokio
//! nor axum.
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | [`SignatureLayer`] and [`SignedForm`] |
//! | `client` | the client of Twilio's REST API, and `forward::Forward` |
//! | `route` | `route::Router` and `dialogue::Form` |
//! | `app` | the webhook router, settings and [`App::into_parts`]; needs a store: `sqlite` or `postgres` |
//! | `sqlite` | `app`, with the store in an SQLite file, for one machine |
//! | `postgres` | `app`, with the store in PostgreSQL, for several machines |
//! | `rules` | `rules::Rules`: a bot in a TOML file |
//! | `server` | the accept loop, the private listener, logs and [`App::run`] |
//! | `emulator` | the local stand-in for Twilio, with its chat page |
//! | `testing` | the test kit: `testing::TestBot` |
//! | `cli` | the command `replyhook` |
//! | `otel` | traces, exported via OTLP |
//! | `failpoints` | crash points for replyhook's own tests |
//!
//! # Documentation
//!
//! [`App`], [`Handler`] and [`Reply`] are the types to read first. The source of the crate contains the manual, with
//! tutorials, how-to guides, the reference of settings and metrics, and the delivery guarantees: `docs/src/SUMMARY.md`
//! lists its pages. `ARCHITECTURE.md` describes the modules and their allowed imports.

#![cfg_attr(
    not(feature = "server"),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the crate docs link to items of every feature"
    )
)]

#[cfg(feature = "route")]
mod address_pattern;
#[cfg(feature = "app")]
pub mod admin;
#[cfg(feature = "app")]
mod api;
#[cfg(feature = "app")]
mod app;
#[cfg(feature = "app")]
mod app_error;
#[cfg(feature = "app")]
pub mod config;
#[cfg(feature = "server")]
mod connection;
#[cfg(feature = "app")]
mod consent;
#[cfg(feature = "server")]
mod core_dumps;
// Public and hidden because the exported macro `crash_point!` expands to a path in this module.
#[doc(hidden)]
pub mod crash_point;
#[cfg(feature = "app")]
mod delivery;
#[cfg(feature = "server")]
mod descriptors;
#[cfg(feature = "route")]
pub mod dialogue;
#[cfg(feature = "app")]
mod dispatch;
#[cfg(feature = "app")]
mod events;
#[cfg(feature = "client")]
pub mod forward;
pub mod handler;
/// The parts of the store that are not public, for the commands, tests and benchmarks of this package.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::store::internals::*;
}
#[cfg(feature = "app")]
mod lifecycle;
mod lock;
#[cfg(feature = "server")]
mod logs;
#[cfg(feature = "app")]
mod media;
#[cfg(feature = "app")]
pub mod outbound;
pub mod probe;
#[cfg(feature = "app")]
pub mod reconcile;
#[cfg(feature = "app")]
mod reloadable;
#[cfg(feature = "app")]
mod retry_delay;
#[cfg(feature = "route")]
pub mod route;
#[cfg(feature = "rules")]
pub mod rules;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "client")]
mod spelling;
#[cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "only the commands, tests and benchmarks of this package use the whole store"
    )
)]
pub mod store;
#[cfg(feature = "app")]
mod supervisor;
#[cfg(feature = "app")]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "client")]
pub mod twilio;
#[cfg(feature = "app")]
mod webhook;
#[cfg(feature = "app")]
mod worker;

// The modules of Twilio's protocol are a package of their own, so that the emulator can use them without the server.
// Modules of this crate name them as `crate::form`, like the ones above.
#[cfg(feature = "route")]
use replyhook_core::folding;
#[cfg(feature = "client")]
use replyhook_core::tls;
pub use replyhook_core::{
    BoxError, FormParams, Secret, address, choice, clock, error_code, form, message, reply, sid,
    signature, twiml,
};

#[cfg(feature = "emulator")]
pub use replyhook_emulator as emulator;

pub use address::{Address, Channel};
#[cfg(feature = "route")]
pub use address_pattern::{AddressPattern, AddressPatternError};
#[cfg(feature = "app")]
pub use app::{App, AppBuilder, ReloadHandle, store_from_url};
#[cfg(all(feature = "server", feature = "emulator"))]
pub use app::{DevServer, DevServerOptions};
#[cfg(feature = "app")]
pub use app_error::{AppError, AppErrorKind};
#[cfg(feature = "axum")]
pub use clock::SystemClock;
pub use clock::{Clock, ManualClock, Timestamp};
#[cfg(feature = "app")]
pub use dispatch::{ConsentChange, ConsentKind};
pub use error_code::ErrorCode;
pub use handler::{Context, Echo, Handler, HandlerError, IncomingMedia, MediaError, handler_fn};
#[cfg(feature = "app")]
pub use media::saved_files;
pub use message::{ConversationEvent, FallbackCause, InboundMessage, MessageStatus, StatusUpdate};
#[cfg(feature = "app")]
pub use outbound::OutboundClient;
pub use reply::{IntoReply, Media, Reply, ReplyMessage};
pub use sid::{AccountSid, MediaSid, MessageSid, MessagingServiceSid};
#[cfg(feature = "axum")]
pub use signature::{SignatureLayer, SignedForm};

#[cfg(feature = "app")]
pub use worker::Worker;

/// Compiles the Rust code blocks of the README and the manual as doc tests.
#[cfg(all(doctest, feature = "server"))]
mod documents {
    #[cfg(feature = "testing")]
    #[doc = include_str!("../README.md")]
    struct ReadmePage;
    #[doc = include_str!("../docs/src/explanation/status-callbacks.md")]
    struct StatusCallbacksPage;
    #[doc = include_str!("../docs/src/explanation/timeouts-late-replies.md")]
    struct TimeoutsLateRepliesPage;
    #[doc = include_str!("../docs/src/how-to/consent.md")]
    struct ConsentPage;
    #[doc = include_str!("../docs/src/how-to/handoff.md")]
    struct HandoffPage;
    #[doc = include_str!("../docs/src/how-to/media.md")]
    struct MediaPage;
    #[doc = include_str!("../docs/src/how-to/migrate.md")]
    struct MigratePage;
    #[doc = include_str!("../docs/src/how-to/mount-in-axum.md")]
    struct MountInAxumPage;
    #[doc = include_str!("../docs/src/how-to/outbound.md")]
    struct OutboundPage;
    #[cfg(feature = "testing")]
    #[doc = include_str!("../docs/src/how-to/test.md")]
    struct TestPage;
    #[doc = include_str!("../docs/src/how-to/verify-only.md")]
    struct VerifyOnlyPage;
    #[doc = include_str!("../docs/src/reference/choices.md")]
    struct ChoicesPage;
    #[doc = include_str!("../docs/src/reference/handler-api.md")]
    struct HandlerApiPage;
    #[doc = include_str!("../docs/src/reference/routes.md")]
    struct RoutesPage;
    #[cfg(feature = "testing")]
    #[doc = include_str!("../docs/src/tutorial/appointment-bot.md")]
    struct AppointmentBotPage;
    #[cfg(feature = "testing")]
    #[doc = include_str!("../docs/src/tutorial/rust-bot.md")]
    struct RustBotPage;
}
