//! Store in PostgreSQL, shared by any number of equal servers.
//!
//! A message is stored once, because its SID and account are unique, however many servers receive it concurrently.
//! Transactions run at READ COMMITTED. Rows that must not change are locked, always in this order: conversation,
//! inbound message, outbound messages. A transaction that claims an inbound message first locks its conversation, so
//! two messages of one conversation are never handled concurrently.
//!
//! Claims are leased. The row of a process in `owner` is valid for 15 seconds of the database's time and is renewed
//! every five. Claims of a process that was paused for longer may be taken over. What its handlers write later changes
//! nothing, since each write compares owner, attempt and state. The heartbeat that renews the lease also looks for
//! other servers.
//!
//! Every call has a timeout. After a failed call, further calls fail immediately for two seconds, so that Twilio gets
//! its 503 in time. When the database is back, nothing needs a restart.

mod accept;
mod accept_usual;
mod backfill;
mod backlog;
mod calls;
mod check;
mod claims;
mod complete_inline;
mod complete_via_rest;
mod completion;
mod conditions;
mod connections;
mod conversations;
mod database;
mod error;
mod event_methods;
mod journal;
mod lease;
mod methods;
mod new_outbound;
mod operator;
mod operator_methods;
mod outbox;
mod outbox_claim;
mod reading;
mod retention;
mod schema;
mod store;
mod submission;
mod text;

pub use store::PostgresStore;
