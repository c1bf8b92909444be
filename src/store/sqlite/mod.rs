//! SQLite store: a file for one server, with one writer, in WAL mode with `synchronous=FULL`.
//!
//! One server owns the file, by an operating-system lock on the file, which ends with the process. So all claims of an
//! earlier process are free when the next server starts. Commands work alongside the server. If the file is deleted or
//! moved away, writes fail until the file is back.

mod accept;
mod backfill;
mod backlog;
mod busy_handler;
mod check;
mod checkpoint;
mod claims;
mod complete_inline;
mod complete_via_rest;
mod completion;
mod conversations;
mod database;
mod error;
mod event_methods;
mod file_path;
mod handoff;
mod journal;
mod methods;
mod operator;
mod outbox;
mod outbox_claim;
mod ownership;
mod presence;
mod readers;
mod reading;
mod retention;
mod schema;
mod store;
mod submission;
mod writer;

pub use ownership::file_warnings;
pub use store::SqliteStore;
