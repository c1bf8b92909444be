//! Outbox worker: claims messages, sends each once via the REST API, and records the outcome.
//!
//! `POST Messages` has no idempotency key. So a call is repeated only if Twilio did not process it (429) or
//! it never reached Twilio. Any other failed call makes its message *unknown*. A status callback, whose URL
//! contains the message's name, proves that Twilio processed the call. Without one, Twilio's message list
//! is searched. If the list does not have the message either, it is *held* for the operator, or sent again
//! with `outbound.on_unknown = "resend"`.

mod cancel_scheduled;
mod content_resources;
mod health;
mod lookup;
mod outbox_worker;
mod parts;
mod policy;
mod reply_templates;
mod rich_message;
mod route;
mod send;

pub(crate) use cancel_scheduled::ScheduledCancellation;
pub(crate) use health::RestHealth;
pub(crate) use outbox_worker::OutboxWorker;
pub(crate) use parts::{DeliveryParts, UnsentHook};
pub(crate) use policy::DeliveryPolicy;
pub use policy::OnUnknown;
pub(crate) use route::{ApiRoute, ApiRoutes};
