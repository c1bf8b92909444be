//! `replyhook send`: queues messages in the outbox of the running server, which sends them.

mod bulk;
mod command;
mod row;
mod rows;

pub(crate) use command::Send;
