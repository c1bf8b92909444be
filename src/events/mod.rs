//! Events: delivery of what has changed to the service at `handler.events_url`.
//!
//! The store writes an event in the transaction of its change. The worker here delivers it, apart from the webhooks. The
//! events of one user are delivered in their order, and those of different users concurrently.

mod delivery_status;
mod event_worker;

pub(crate) use delivery_status::DeliveryStatus;
pub(crate) use event_worker::{EventParts, EventWorker};
