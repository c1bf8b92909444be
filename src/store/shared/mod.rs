//! Operations with the same statements in SQLite and PostgreSQL.
//!
//! Operations of each message, those that need locks, and those that one database does faster in another way, are
//! written for each database.

pub(super) mod account_users;
pub(super) mod conditions;
pub(super) mod consent;
pub(super) mod conversation_members;
pub(super) mod conversations;
pub(super) mod database;
pub(super) mod due_messages;
pub(super) mod event_queue;
pub(super) mod events;
pub(super) mod evidence;
pub(super) mod handoff;
pub(super) mod identity;
pub(super) mod identity_graph;
pub(super) mod media;
pub(super) mod operator;
pub(super) mod outbox;
pub(super) mod purge;
pub(super) mod retention;
pub(super) mod splits;
pub(super) mod status_events;
pub(super) mod submission;
pub(super) mod users;
